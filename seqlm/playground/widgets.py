"""Widgets: a paint grid, and radio buttons, sliders and texts that screen readers can name.

Those of ipywidgets have no names for screen readers, and new texts are not announced.
"""

from collections.abc import Mapping
from pathlib import Path

import anywidget
import numpy as np
import traitlets

STATIC = Path(__file__).parents[1] / "static"
FULL = 16  # load_digits has seventeen levels: 0 is paper, 16 is full ink
LARGEST = 64  # cells per side; smaller cells could not be hit with a finger

# Strokes of this width, in cells, give images with the mean ink (0.31), the share of blank cells
# (0.49) and the share of full ones (0.09) of the 1,797 real digits.
PEN = 1.35


class Choice(anywidget.AnyWidget):
    """Radio buttons in a row, named `label`: one of `options`, name -> value, is chosen.

    Tab goes to the row, arrow keys go along it. An `index` of -1 is the last option.
    """

    _esm = STATIC / "choice.js"
    _css = STATIC / "widgets.css"

    label = traitlets.Unicode().tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)

    def __init__(self, label: str, options: Mapping[str, object], index: int = 0):
        self.values = list(options.values())
        index = range(len(self.values))[index]
        super().__init__(label=label, names=list(options), index=index)

    @traitlets.validate("index")
    def _limit_index(self, proposal):
        return min(max(proposal["value"], 0), len(self.values) - 1)

    @property
    def value(self) -> object:
        """The value of the chosen option."""
        return self.values[self.index]

    @value.setter
    def value(self, value: object) -> None:
        self.index = self.values.index(value)


class Notice(anywidget.AnyWidget):
    """A line of `text`; screen readers announce every change."""

    _esm = STATIC / "notice.js"
    _css = STATIC / "widgets.css"

    text = traitlets.Unicode().tag(sync=True)


class Slider(anywidget.AnyWidget):
    """A labelled number with a `help` text below it.

    `value` changes when the slider is released, or at each press of a key. `special` names values,
    such as {"0": "all"}. A `playable` slider has a Play button.
    """

    _esm = STATIC / "slider.js"
    _css = STATIC / "widgets.css"

    label = traitlets.Unicode().tag(sync=True)
    min = traitlets.Float().tag(sync=True)
    max = traitlets.Float().tag(sync=True)
    step = traitlets.Float().tag(sync=True)
    help = traitlets.Unicode().tag(sync=True)
    value = traitlets.Float().tag(sync=True)
    special = traitlets.Dict().tag(sync=True)
    playable = traitlets.Bool(False).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    def __init__(self, label: str, min: float, max: float, step=1, help="", **settings):
        super().__init__(label=label, min=min, max=max, step=step, help=help, **settings)

    @traitlets.validate("value")
    def _limit_value(self, proposal):
        return min(max(proposal["value"], self.min), self.max)

    @property
    def whole(self) -> int:
        """The value as a whole number."""
        return round(self.value)


class PaintGrid(anywidget.AnyWidget):
    """A grid to paint a digit on, with mouse, pen, finger or keyboard; `image()` is the result.

    ``observe(f, "value")`` calls f while a person paints, at most about ten times per second, and
    when the stroke ends.

    Attributes:
        height: rows, 1 to 64. A new size leaves a blank image.
        width: columns, 1 to 64.
        value: height * width whole numbers, 0 (paper) to 16 (full ink), row by row.
        label: name of the grid, above it and for screen readers.
        pen: width of the soft brush in cells.

    Raises traitlets.TraitError for an invalid value, size or pen.
    """

    _esm = STATIC / "painting.js"
    _css = STATIC / "painting.css"

    height = traitlets.Int(8, min=1, max=LARGEST).tag(sync=True)
    width = traitlets.Int(8, min=1, max=LARGEST).tag(sync=True)
    value = traitlets.List().tag(sync=True)
    label = traitlets.Unicode("Paint a digit").tag(sync=True)
    pen = traitlets.Float(PEN, min=0.1, max=LARGEST).tag(sync=True)

    @traitlets.default("value")
    def _blank(self) -> list[int]:
        return [0] * (self.height * self.width)

    @traitlets.validate("value")
    def _check_value(self, proposal: traitlets.Bunch) -> list[int]:
        value, n = proposal["value"], self.height * self.width
        whole = all(isinstance(level, int | np.integer) for level in value)
        if len(value) != n or not whole or min(value) < 0 or max(value) > FULL:
            raise traitlets.TraitError(
                f"value: give {n} whole numbers from 0 (paper) to {FULL} (full ink), one for each "
                f"of {self.height} x {self.width} cells"
            )
        return [int(level) for level in value]

    @traitlets.observe("height", "width")
    def _resize(self, change: traitlets.Bunch) -> None:
        # A value that was set together with the size fits already and stays.
        if len(self.value) != self.height * self.width:
            self.value = self._blank()

    def image(self) -> np.ndarray:
        """The image (H, W) float32 in 0..1, where 1 is full ink."""
        levels = np.array(self.value, dtype=np.float32).reshape(self.height, self.width)
        return levels / FULL

    def show(self, image: np.ndarray) -> None:
        """Put `image` (H, W), 0..1, on the grid, rounded to its seventeen levels.

        Raises traitlets.TraitError for another number of cells, or for anything but 0..1.
        """
        self.value = np.rint(np.asarray(image) * FULL).astype(int).ravel().tolist()
