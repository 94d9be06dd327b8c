// A line of text that screen readers announce when it changes.

function render({ model, el }) {
  const line = document.createElement("p");
  line.className = "seqlm-notice";
  line.setAttribute("role", "status");
  const show = () => { line.textContent = model.get("text"); };
  model.on("change:text", show);
  show();
  el.append(line);
  return () => model.off("change:text", show);
}

export default { render };
