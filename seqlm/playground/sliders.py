"""A slider that screen readers can name: the page's own, not a drawn one.

The sliders of ipywidgets move by keyboard but tell a screen reader neither what they set nor in
which unit; an `<input type="range">` with a `<label>` does both.
"""

from pathlib import Path

import anywidget
import traitlets

_HERE = Path(__file__).parent / "static"


class Slider(anywidget.AnyWidget):
    """A labelled number between `min` and `max`, in steps of `step`.

    `value` changes when the slider is let go, or at each press of a key. `help` is a sentence below
    it; `special` names a value that has a name of its own, such as {"0": "all"}.
    """

    _esm = _HERE / "slider.js"
    _css = _HERE / "slider.css"

    label = traitlets.Unicode().tag(sync=True)
    help = traitlets.Unicode().tag(sync=True)
    value = traitlets.Float().tag(sync=True)
    min = traitlets.Float(0.0).tag(sync=True)
    max = traitlets.Float(1.0).tag(sync=True)
    step = traitlets.Float(0.1).tag(sync=True)
    special = traitlets.Dict().tag(sync=True)
    playable = traitlets.Bool(False).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    @traitlets.validate("value")
    def _within(self, proposal):
        return min(max(proposal["value"], self.min), self.max)

    @property
    def whole(self) -> int:
        """The value as a whole number."""
        return round(self.value)
