"""A grid to paint a digit on, with mouse, pen, finger or keyboard, in JupyterLab and in Voila."""

import math
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from seqlm.errors import DataError

FULL = 16  # load_digits has seventeen levels: 0 is paper, 16 is full ink
LARGEST = 64  # cells a side; more could neither be hit with a finger nor be read out

# Strokes of this width, in cells, give pictures with the mean ink (0.31), the share of blank
# cells (0.49) and the share of full ones (0.09) of the 1,797 real digits.
PEN = 1.35


class PaintGrid(anywidget.AnyWidget):
    """Show it beneath a cell, paint, and read `image()`; or set it with `show(image)`.

    ``observe(f, names="value")`` calls f while a person paints, at most about ten times a second
    and once more when the stroke ends.

    Attributes:
        height: rows, 1 to 64. A new size leaves a blank picture.
        width: columns, 1 to 64.
        value: height * width whole numbers, 0 (paper) to 16 (full ink), row by row.
        label: what the grid is called, above it and for a screen reader.
        pen: width of the soft brush in cells.

    Raises traitlets.TraitError for a value, a size or a pen that cannot be.
    """

    _esm = Path(__file__).parent / "static" / "painting.js"
    _css = Path(__file__).parent / "static" / "painting.css"

    height = traitlets.Int(8, min=1, max=LARGEST).tag(sync=True)
    width = traitlets.Int(8, min=1, max=LARGEST).tag(sync=True)
    value = traitlets.List().tag(sync=True)
    label = traitlets.Unicode("Paint a digit").tag(sync=True)
    pen = traitlets.Float(PEN).tag(sync=True)

    @traitlets.default("value")
    def _blank(self) -> list[int]:
        return [0] * (self.height * self.width)

    @traitlets.validate("value")
    def _levels(self, proposal: traitlets.Bunch) -> list[int]:
        value, n = proposal["value"], self.height * self.width
        if len(value) != n:
            raise traitlets.TraitError(
                f"value: {len(value)} numbers, but {self.height} x {self.width} cells need {n}"
            )
        wrong = next((i for i, level in enumerate(value) if not _is_level(level)), None)
        if wrong is not None:
            row, column = (place + 1 for place in divmod(wrong, self.width))
            raise traitlets.TraitError(
                f"value: row {row}, column {column} is {value[wrong]!r}; give whole numbers "
                f"from 0 (paper) to {FULL} (full ink)"
            )
        return [int(level) for level in value]

    @traitlets.validate("pen")
    def _width_of_pen(self, proposal: traitlets.Bunch) -> float:
        pen = proposal["value"]
        if not (math.isfinite(pen) and 0 < pen <= LARGEST):
            raise traitlets.TraitError(f"pen: {pen}; give a width in cells, such as {PEN}")
        return pen

    @traitlets.observe("height", "width")
    def _fit(self, change: traitlets.Bunch) -> None:
        # A value that was given together with the size already fits and stays.
        if len(self.value) != self.height * self.width:
            self.clear()

    def image(self) -> np.ndarray:
        """The picture (H, W) float32 in 0..1, where 1 is full ink."""
        levels = np.array(self.value, dtype=np.float32).reshape(self.height, self.width)
        return levels / FULL

    def show(self, image: np.ndarray) -> None:
        """Put `image` (H, W), 0..1, on the grid, rounded to its seventeen levels.

        Raises DataError when it has another shape, or holds anything but numbers in 0..1.
        """
        shape = (self.height, self.width)
        try:
            picture = np.asarray(image, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("image: it holds something that is not a number") from error
        if picture.shape != shape:
            raise DataError(f"image: its shape is {picture.shape}, but the grid's is {shape}")
        if not ((picture >= 0) & (picture <= 1)).all():
            raise DataError(
                f"image: its values run from {picture.min():g} to {picture.max():g}; give ink "
                "from 0 (paper) to 1 (full), so divide the 0..16 of load_digits by 16"
            )
        self.value = np.round(picture * FULL).astype(int).ravel().tolist()

    def clear(self) -> None:
        """Blank paper again. In the page, Undo brings back what was there."""
        self.value = self._blank()


def _is_level(level: object) -> bool:
    """A whole number 0..16, of Python or of numpy; True and 3.0 are neither."""
    whole = isinstance(level, int | np.integer) and not isinstance(level, bool)
    return whole and 0 <= level <= FULL
