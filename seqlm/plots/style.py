"""The look of every figure, and the drawing that several figures share.

Nothing here depends on colour alone: what matters has a marker, a line style, a frame or a word
of its own. Sizes are in inches at 130 dots an inch, so a full-width figure has 1,170 pixels and
its smallest letters are still 12 pixels high when it is shown 900 pixels wide.
"""

import functools
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

WIDTH, DPI = 9.0, 130  # inches, dots an inch
SMALL, HEADING = 9, 12  # points
LARGEST_TILE = 1.1  # inches
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip
INK, GREY, PALE = "#222222", "#5a5a5a", "#d9d9d9"
# Okabe and Ito's colours, each with a marker and a line style, so that none is told by colour only.
SERIES = (
    (BLUE, "o", "-"),
    (VERMILLION, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
    (ORANGE, "v", (0, (5, 1, 1, 1, 1, 1))),
    (SKY, "P", (0, (7, 2))),
    (GREY, "X", (0, (1, 2))),
)
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#e6e6e6",
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "image.interpolation": "nearest",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under the house style, and leave everyone else's settings as they were."""

    @functools.wraps(draw)
    def within(*args, **kwargs) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks take their style only when they are drawn
            return figure

    return within


def canvas(height: float, heading: str = "", width: float = WIDTH) -> Figure:
    """An empty figure of `width` inches; `heading` gets room of its own on top of `height`."""
    lines = textwrap.wrap(heading, int(width * 10.5))
    room = 0.22 * len(lines) + 0.08 if lines else 0
    figure = Figure(figsize=(width, height + room), dpi=DPI, layout="constrained")
    if lines:
        figure.suptitle("\n".join(lines), x=0.006, ha="left", fontsize=HEADING, fontweight="bold")
    return figure


def spread(places: Sequence[float], gap: float) -> np.ndarray:
    """The same places, moved apart as little as it takes for `gap` between neighbours."""
    places = np.asarray(places, dtype=float)
    order = np.argsort(places, kind="stable")
    moved = places[order].copy()
    for _ in range(200):
        lack = gap - np.diff(moved)
        if not (lack > 1e-9).any():
            break
        push = np.maximum(lack, 0) / 2
        moved[:-1] -= push
        moved[1:] += push
    result = np.empty_like(moved)
    result[order] = moved
    return result


def listed(words: Sequence[str]) -> str:
    """What a sentence makes of a list: "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def finish(figure: Figure, *sentences: str) -> Figure:
    """The figure with its `.alt`: the `sentences`, those that are empty left out."""
    figure.alt = " ".join(sentence for sentence in sentences if sentence)
    return figure


@dataclass(frozen=True)
class Board:
    """A figure full of square tiles; one unit of its axes is one inch.

    Attributes:
        figure, ax: what is drawn on.
        side: of a tile, in inches.
        pitch: from tile to tile, (downwards, across).
        corner: of the first tile, (down, across).
    """

    figure: Figure
    ax: Axes
    side: float
    pitch: tuple[float, float]
    corner: tuple[float, float]

    def place(self, row: float, column: float) -> tuple[float, float]:
        """The top left corner of a tile: (x, y)."""
        down, across = self.corner
        return across + column * self.pitch[1], down + row * self.pitch[0]

    def picture(self, image: np.ndarray, row: float, column: float, flag: bool = False) -> None:
        """Draw `image` (H, W) in 0..1, dark on light; `flag` gives it a frame and a cross."""
        x, y = self.place(row, column)
        extent = (x, x + self.side, y + self.side, y)
        self.ax.imshow(image, cmap="gray_r", vmin=0, vmax=1, extent=extent)
        colour, width = (VERMILLION, 2.2) if flag else (PALE, 0.8)
        frame = Rectangle((x, y), self.side, self.side, fill=False, ec=colour, lw=width, zorder=3)
        self.ax.add_patch(frame)
        if flag:
            self._mark("✗", x + self.side - 0.04, y + 0.04, ha="right", va="top")

    def note(self, text: str, row: float, column: float) -> None:
        """A small word in the lower left corner of a tile."""
        x, y = self.place(row, column)
        self._mark(text, x + 0.04, y + self.side - 0.04, ha="left", va="bottom")

    def _mark(self, text: str, x: float, y: float, **style) -> None:
        box = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"}
        style |= {"color": VERMILLION, "fontweight": "bold", "fontsize": SMALL, "zorder": 4}
        self.ax.text(x, y, text, bbox=box, **style)

    def write(self, text: str, row: float, column: float, where: str = "above", **style) -> None:
        """Write beside a tile: above, left or right of it."""
        x, y = self.place(row, column)
        middle, below = x + self.side / 2, y + self.side / 2
        spot = {
            "above": (middle, y - 0.03, "center", "bottom"),
            "left": (x - 0.1, below, "right", "center"),
            "right": (x + self.side + 0.08, below, "left", "center"),
        }[where]
        style = {"fontsize": SMALL, **style}
        self.ax.text(spot[0], spot[1], text, ha=spot[2], va=spot[3], **style)


def board(
    n_rows: int,
    n_columns: int,
    heading: str = "",
    *,
    title_lines: int = 0,
    top: float = 0.0,
    left: float = 0.0,
    right: float = 0.0,
    narrowest: float = 4.5,
) -> Board:
    """Room for n_rows x n_columns tiles; `top`, `left`, `right` inches stay free for words."""
    gap = 0.08
    side = min(LARGEST_TILE, (WIDTH - left - right - 0.1) / n_columns - gap)
    pitch = (side + gap + 0.165 * title_lines, side + gap)
    wide = left + n_columns * pitch[1] + right
    high = top + n_rows * pitch[0] + 0.05
    width = max(narrowest, wide + 0.1)
    figure = canvas(high + 0.05, heading, width)
    ax = figure.add_subplot()
    ax.set_axis_off()
    margin = (width - 0.1 - wide) if wide + 0.1 < width else 0
    drawn = Board(figure, ax, side, pitch, (top + 0.165 * title_lines, left))
    # imshow sets the limits of its axes unless told not to.
    ax.set(xlim=(-0.03, wide + margin), ylim=(high, 0), autoscale_on=False, aspect="equal")
    return drawn


DASHED = {"color": GREY, "ls": (0, (4, 3)), "lw": 1}


def label_at_right(ax: Axes, labels: Sequence[tuple], gap: float = 0.07) -> None:
    """Words right of `ax`, each with a thin line to its place; none stands on another.

    `labels` are (x, y, text, weight), x None for a line across the whole panel; `gap` is the
    least distance of two words as a share of the height. The limits of `ax` must be set before.
    """
    low, high = ax.get_yaxis().get_transform().transform(ax.get_ylim())
    heights = ax.get_yaxis().get_transform().transform([float(y) for _, y, *_ in labels])
    places = spread((np.clip(heights, low, high) - low) / (high - low), gap)
    ceiling = 1.0
    for i in reversed(np.argsort(places, kind="stable")):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    leader = {"arrowstyle": "-", "color": GREY, "lw": 0.8, "shrinkA": 1, "shrinkB": 3,
              "relpos": (0, 0.5)}  # fmt: skip
    for (x, y, text, weight), place in zip(labels, places, strict=True):
        edge = ax.get_yaxis_transform() if x is None else ax.transData
        ax.annotate(
            text, (1 if x is None else x, y), xytext=(1.03, place), xycoords=edge, fontsize=SMALL,
            textcoords=ax.transAxes, va="center", fontweight=weight, arrowprops=leader,
        )  # fmt: skip


def _counted(value: float, _=None) -> str:
    """A count as an axis writes it: "500", "20k", "1.5M"."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def log_ticks(ax: Axes, first: float, last: float) -> None:
    """Ticks of a logarithmic x axis that runs from `first` to `last`.

    Powers of ten alone would leave an axis of less than a decade or two almost without numbers.
    """
    subs = (1, 2, 5) if last < 100 * first else (1,)
    locator = MaxNLocator(5) if last < 10 * first else LogLocator(subs=subs)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_minor_formatter(lambda value, _: "")


def log_axis(ax: Axes, label: str, more: str = "") -> None:
    """A logarithmic x axis of counts or seconds, with its label."""
    ax.set_xscale("log")
    if ax.get_xlim()[0] <= 0:  # nothing was drawn
        ax.set_xlim(1, 10)
    log_ticks(ax, *ax.get_xlim())
    ax.xaxis.set_major_formatter(_counted)
    ax.set_xlabel(f"{label} (logarithmic){more}", fontsize=SMALL)
    ax.grid(axis="y")


def finite(x: Sequence, y: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Of x and y (N,) what a logarithmic x axis can show: x above zero, neither of them missing."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    x, y = np.array(pairs, dtype=float).reshape(-1, 2).T
    kept = np.isfinite(y) & (x > 0)
    return x[kept], y[kept]
