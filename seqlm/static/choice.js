// A <fieldset> of radio buttons in a row, drawn as buttons.

function render({ model, el }) {
  // Radios of one name are one group. Each widget has a copy of this module, so none could count.
  const group = `seqlm-choice-${crypto.randomUUID?.() ?? Math.random().toString(36).slice(2)}`;
  const root = document.createElement("fieldset");
  root.className = "seqlm-choice";
  root.setAttribute("role", "radiogroup");
  const legend = document.createElement("legend");
  legend.textContent = model.get("label");
  root.append(legend);
  const radios = model.get("names").map((name, index) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: group, value: index });
    radio.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the arrow keys
    radio.addEventListener("change", () => {
      model.set("index", index);
      model.save_changes();
    });
    const word = document.createElement("span");
    word.textContent = name;
    label.append(radio, word);
    root.append(label);
    return radio;
  });
  const show = () => {
    radios[model.get("index")].checked = true;
  };
  model.on("change:index", show);
  show();
  el.append(root);
  return () => model.off("change:index", show);
}

export default { render };
