"""The style of every figure, and drawing that several figures share.

Colour never stands alone: a marker, a line style, a frame or a word repeats it. At 130 dots per
inch a full-width figure has 1,170 pixels, and its smallest letters are still 12 pixels high when
it is shown 900 pixels wide.
"""

import functools
import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter
from scipy.optimize import isotonic_regression

from seqlm.errors import printable
from seqlm.evaluation.estimates import Estimate

WIDTH, DPI = 9.0, 130  # inches, dots per inch
SMALL, HEADING = 9, 12  # points
LARGEST_TILE, LINE = 1.1, 0.165  # inches: a tile, from one small line of text to the next
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip
INK, GREY, PALE = "#222222", "#5a5a5a", "#d9d9d9"
# Okabe and Ito's colours, each with a marker and a line style, so that colour is never needed.
SERIES = (
    (BLUE, "o", "-"),
    (VERMILLION, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
    (ORANGE, "v", (0, (5, 1, 1, 1, 1, 1))),
    (SKY, "P", (0, (7, 2))),
    (GREY, "X", (0, (1, 2))),
)
_STYLE = rc_params_from_file(Path(__file__).with_name("seqlm.mplstyle"), use_default_template=False)
DASHED = {"color": GREY, "ls": (0, (4, 3)), "lw": 1}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the style above; the caller's own matplotlib settings stay as they were."""

    @functools.wraps(draw)
    def draw_styled(*args, **kwargs) -> Figure:
        with matplotlib.style.context(_STYLE, after_reset=True):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()  # ticks take their style only when they are drawn
            return figure

    return draw_styled


def canvas(height: float, heading: str = "", width: float = WIDTH) -> Figure:
    """An empty figure of `width` inches; the heading comes on top of `height`."""
    lines = textwrap.wrap(printable(heading), int(width * 10.2))
    room = 0.22 * len(lines) + 0.08 if lines else 0
    figure = Figure(figsize=(width, height + room), dpi=DPI, layout="constrained")
    if lines:
        look = {"fontsize": HEADING, "fontweight": "bold", "parse_math": False}  # a $ is a $
        figure.suptitle("\n".join(lines), x=0.006, ha="left", **look)
    return figure


def finish(figure: Figure, *sentences: str) -> Figure:
    """The figure with its `.alt`, made of the sentences that are not empty."""
    figure.alt = " ".join(sentence for sentence in sentences if sentence)
    return figure


def as_png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    picture = io.BytesIO()
    # Without a fixed date and version the same picture would be another file each run.
    figure.savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    return picture.getvalue()


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Names on the y axis of a panel whose rows are not connected."""
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")


def percent(value: float, _=None) -> str:
    """A tick label of shares: "95%"; empty outside 0 to 1."""
    return f"{value * 100:g}%" if -1e-9 <= value <= 1 + 1e-9 else ""


def draw_estimates(
    ax: Axes,
    places: Sequence[float],
    estimates: Sequence[Estimate],
    colour: str,
    marker: str = "o",
    line: str | tuple = "none",
    *,
    filled: bool = False,
    across: bool = False,
    **more,
) -> None:
    """Markers with 95 % intervals at `places` of the x axis, or of the y axis when `across`."""
    values = np.array([e.value for e in estimates])
    lengths = np.abs(np.array([e.ends for e in estimates]).T - values)
    x, y, which = (values, places, "xerr") if across else (places, values, "yerr")
    look = {"ms": 6.5, "mew": 1.6, "lw": 1.8, "mfc": colour if filled else "white", **more}
    look |= {which: lengths, "elinewidth": 2.4 if filled else 1.6}
    ax.errorbar(x, y, color=colour, marker=marker, ls=line, **look)


def spread(places: Sequence[float], gap: float) -> np.ndarray:
    """The same places, moved apart as little as it takes for `gap` between neighbours."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(order))
    moved = isotonic_regression(np.asarray(places, dtype=float)[order] - steps).x + steps
    return moved[np.argsort(order)]


def label_at_right(ax: Axes, labels: Sequence[tuple], gap: float = 0.07) -> None:
    """Texts right of `ax`, moved apart, each with a thin line to its place.

    `labels` are (x, y, text, weight), x None for a line across the whole panel; `gap` is the
    least distance of two texts as a share of the height. Set the limits of `ax` before.
    """
    bottom, top = ax.transData.transform([(1, end) for end in ax.get_ylim()])[:, 1]
    heights = ax.transData.transform([(1, y) for _, y, *_ in labels]).reshape(-1, 2)[:, 1]
    places = spread((np.clip(heights, bottom, top) - bottom) / (top - bottom), gap)
    leader = {"arrowstyle": "-", "color": GREY, "lw": 0.8, "shrinkA": 1, "shrinkB": 3,
              "relpos": (0, 0.5)}  # fmt: skip
    for (x, y, text, weight), place in zip(labels, places, strict=True):
        edge = ax.get_yaxis_transform() if x is None else ax.transData
        ax.annotate(
            text, (1 if x is None else x, y), xytext=(1.03, place), xycoords=edge, fontsize=SMALL,
            textcoords=ax.transAxes, va="center", fontweight=weight, arrowprops=leader,
        )  # fmt: skip


def log_x_axis(ax: Axes, format_tick: Callable | None = None) -> None:
    """A logarithmic x axis; powers of ten alone would leave a short one without numbers."""
    ax.set_xscale("log")
    first, last = ax.get_xlim()
    subs = (1, 2, 5) if last < 1000 * first else (1,)
    ax.xaxis.set_major_locator(MaxNLocator(5) if last < 10 * first else LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(format_tick or EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Tiles:
    """Square images in rows and columns, in an axes whose unit is an inch."""

    ax: Axes  # y runs downwards
    side: float  # of a tile
    pitch: tuple[float, float]  # from tile to tile, (down, across)
    corner: tuple[float, float]  # of the first tile, (down, across)

    def position(self, row: float, column: float) -> tuple[float, float]:
        """The top left corner of a tile: (x, y)."""
        down, across = self.corner
        return across + column * self.pitch[1], down + row * self.pitch[0]

    def draw(
        self, image: np.ndarray, row: float, column: float, flag: bool = False, note: str = ""
    ) -> None:
        """Draw `image` (H, W) in 0..1, dark on light.

        `flag` adds a frame and a cross; `note` is written in the lower left corner.
        """
        x, y = self.position(row, column)
        right, bottom = x + self.side, y + self.side
        self.ax.imshow(image, cmap="gray_r", vmin=0, vmax=1, extent=(x, right, bottom, y))
        colour, width = (VERMILLION, 2.2) if flag else (PALE, 0.8)
        self.frame(row, column, color=colour, lw=width)
        mark = {"color": VERMILLION, "fontweight": "bold", "fontsize": SMALL, "zorder": 4}
        mark["bbox"] = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"}
        if flag:
            self.ax.text(right - 0.04, y + 0.04, "✗", ha="right", va="top", **mark)
        if note:
            self.ax.text(x + 0.04, bottom - 0.04, note, ha="left", va="bottom", **mark)

    def frame(self, row: float, column: float, patch=None, grid=(1, 1), **style) -> None:
        """A frame around a tile, or around one `patch` of its `grid` (rows, columns)."""
        x, y = self.position(row, column)
        down, across = divmod(patch or 0, grid[1])
        high, wide = self.side / grid[0], self.side / grid[1]
        corner = (x + across * wide, y + down * high)
        self.ax.add_patch(Rectangle(corner, wide, high, fill=False, zorder=3, **style))

    def write(self, text: str, row: float, column: float, where: str = "above", **style) -> None:
        """Write beside a tile: above, below, left or right of it."""
        x, y = self.position(row, column)
        middle = self.side / 2
        across, down, ha, va = {
            "above": (middle, -0.03, "center", "bottom"),
            "below": (middle, self.side + 0.05, "center", "top"),
            "left": (-0.1, middle, "right", "center"),
            "right": (self.side + 0.08, middle, "left", "center"),
        }[where]
        self.ax.text(x + across, y + down, text, ha=ha, va=va, **{"fontsize": SMALL, **style})


def inch_axes(width: float, height: float, heading: str) -> Axes:
    """The one axes of a new figure, in inches from the top left."""
    ax = canvas(height, heading, width).add_subplot()
    ax.set_axis_off()
    # imshow sets the limits of its axes unless autoscaling is off.
    ax.set(xlim=(-0.03, width - 0.1), ylim=(height, 0), autoscale_on=False, aspect="equal")
    return ax


def make_tiles(
    n_rows: int,
    n_columns: float,
    heading: str,
    *,
    lines_above: int = 0,
    top: float = 0.0,
    left: float = 0.0,
    right: float = 0.0,
) -> Tiles:
    """A figure for n_rows x n_columns tiles; `top`, `left`, `right` inches stay free for text."""
    gap = 0.08
    side = min(LARGEST_TILE, (WIDTH - left - right - 0.1) / n_columns - gap)
    pitch = (side + gap + LINE * lines_above, side + gap)
    width = max(4.5, left + n_columns * pitch[1] + right + 0.1)
    ax = inch_axes(width, top + n_rows * pitch[0] + 0.1, heading)
    return Tiles(ax, side, pitch, (top + LINE * lines_above, left))
