// A labelled <input type="range"> with its value beside it; a playable one has a button that runs it
// to its end. Screen readers get the value from the input: the text beside it is hidden from them.

const BEAT = 450; // milliseconds between two values, unless `beat` says otherwise

function render({ model, el }) {
  const id = `seqlm-slider-${crypto.randomUUID?.() ?? Math.random().toString(36).slice(2)}`;
  const root = document.createElement("div");
  root.className = "seqlm-slider";
  root.innerHTML = `
    <label for="${id}"></label>
    <input id="${id}" type="range" aria-describedby="${id}-help">
    <span class="value" aria-hidden="true"></span>
    <button type="button"></button>
    <p id="${id}-help"></p>`;
  const [label, input, shown, play, help] = root.children;
  // Else JupyterLab takes the arrow keys for its cells. It looks at what has the focus first.
  for (const control of [input, play]) control.dataset.lmSuppressShortcuts = "true";
  let clock = null;

  // As many decimals as the step has: 0.9, not 0.9000000000000001.
  const decimals = () => (String(model.get("step")).split(".")[1] ?? "").length;
  const nameOf = (value) => model.get("special")[String(value)] ?? value.toFixed(decimals());

  function showValue() {
    shown.textContent = nameOf(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
  }

  function keep(value) {
    model.set("value", value);
    model.save_changes();
  }

  function run(on) {
    clearInterval(clock);
    clock = on ? setInterval(beat, model.get("beat") ?? BEAT) : null;
  }

  function beat() {
    const next = model.get("value") + model.get("step");
    if (next <= model.get("max")) keep(next);
    if (next >= model.get("max")) stop();
  }

  function stop() {
    model.set("playing", false);
    model.save_changes();
  }

  function start() {
    if (model.get("value") >= model.get("max")) model.set("value", model.get("min"));
    model.set("playing", true);
    model.save_changes();
  }

  function show() {
    label.textContent = model.get("label");
    help.textContent = model.get("help");
    for (const name of ["min", "max", "step", "disabled"]) input[name] = model.get(name);
    input.value = model.get("value");
    play.hidden = !model.get("playable");
    play.textContent = model.get("playing") ? "Pause" : "Play";
    play.setAttribute("aria-label", `${play.textContent} ${model.get("label")}`);
    showValue();
  }

  const showAndRun = () => run(model.get("playing"));
  input.addEventListener("input", showValue); // while it is dragged only the number follows
  input.addEventListener("change", () => keep(Number(input.value)));
  play.addEventListener("click", () => (model.get("playing") ? stop() : start()));
  model.on("change", show);
  model.on("change:playing", showAndRun);
  show();
  showAndRun();
  el.append(root);
  return () => {
    run(false);
    model.off("change", show);
    model.off("change:playing", showAndRun);
  };
}

export default { render };
