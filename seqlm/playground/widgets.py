"""Widgets that ipywidgets lacks: accessible radio buttons, sliders and status lines, a paint grid.

Those of ipywidgets give screen readers no names and do not announce new texts; these do, with the
page's own `<fieldset>`, `<input type="range">` and `role="status"`.
"""

from collections.abc import Mapping
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from seqlm.errors import DataError

STATIC = Path(__file__).parent / "static"
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
    """A labelled number between `min` and `max`, in steps of `step`.

    `value` changes when the slider is released, or at each press of a key. `help` is a sentence
    below it; `special` names values, such as {"0": "all"}. A `playable` one has a Play button.
    """

    _esm = STATIC / "slider.js"
    _css = STATIC / "widgets.css"

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
    def _limit_value(self, proposal):
        return min(max(proposal["value"], self.min), self.max)

    @property
    def whole(self) -> int:
        """The value as a whole number."""
        return round(self.value)


class PaintGrid(anywidget.AnyWidget):
    """A grid to paint a digit on, with mouse, pen, finger or keyboard.

    Display it, paint, and read `image()`; or set it with `show(image)`. ``observe(f, "value")``
    calls f while a person paints, at most about ten times per second, and when the stroke ends.

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
        if len(value) != n:
            raise traitlets.TraitError(
                f"value: {len(value)} numbers, but {self.height} x {self.width} cells need {n}"
            )
        for i, level in enumerate(value):
            whole = isinstance(level, int | np.integer) and not isinstance(level, bool)
            if not whole or not 0 <= level <= FULL:
                row, column = (index + 1 for index in divmod(i, self.width))
                raise traitlets.TraitError(
                    f"value: row {row}, column {column} is {level!r}; give whole numbers from 0 "
                    f"(paper) to {FULL} (full ink)"
                )
        return [int(level) for level in value]

    @traitlets.observe("height", "width")
    def _resize(self, change: traitlets.Bunch) -> None:
        # A value that was set together with the size fits already and stays.
        if len(self.value) != self.height * self.width:
            self.clear()

    def image(self) -> np.ndarray:
        """The image (H, W) float32 in 0..1, where 1 is full ink."""
        levels = np.array(self.value, dtype=np.float32).reshape(self.height, self.width)
        return levels / FULL

    def show(self, image: np.ndarray) -> None:
        """Put `image` (H, W), 0..1, on the grid, rounded to its seventeen levels.

        Raises DataError for another shape, or for anything but numbers in 0..1.
        """
        shape = (self.height, self.width)
        try:
            ink = np.asarray(image, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("image: it holds something that is not a number") from error
        if ink.shape != shape:
            raise DataError(f"image: its shape is {ink.shape}, but the grid's is {shape}")
        if not ((ink >= 0) & (ink <= 1)).all():
            raise DataError(
                f"image: its values run from {ink.min():g} to {ink.max():g}; give ink from 0 "
                "(paper) to 1 (full), so divide the 0..16 of load_digits by 16"
            )
        self.value = np.round(ink * FULL).astype(int).ravel().tolist()

    def clear(self) -> None:
        """Make the grid blank. In the page, Undo brings back what was there."""
        self.value = self._blank()
