"""Radio buttons in a row, and a line that is read out: what ipywidgets' own leave unsaid.

Its toggle buttons tell a screen reader neither which one is pressed nor what they choose, and a
text that is put in anew is not announced; a `<fieldset>` of radios and a lasting `role="status"`
are.
"""

from collections.abc import Mapping
from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent / "static"


class Choice(anywidget.AnyWidget):
    """One of `options`, name -> value, called `label`; the one at `index` is chosen.

    Tab goes to the row, arrow keys go along it.
    """

    _esm = _HERE / "choice.js"
    _css = _HERE / "choice.css"

    label = traitlets.Unicode().tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)

    def __init__(self, label: str, options: Mapping[str, object], index: int = 0):
        self.values = list(options.values())
        index = range(len(self.values))[index]  # -1 is the last
        super().__init__(label=label, names=list(options), index=index)

    @traitlets.validate("index")
    def _one_of_them(self, proposal):
        return min(max(proposal["value"], 0), len(self.values) - 1)

    @property
    def value(self) -> object:
        """What the chosen name stands for."""
        return self.values[self.index]

    @value.setter
    def value(self, value: object) -> None:
        self.index = self.values.index(value)


class Notice(anywidget.AnyWidget):
    """A line of `text`; screen readers say it whenever it changes."""

    _esm = """
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
    """
    _css = _HERE / "choice.css"

    text = traitlets.Unicode().tag(sync=True)
