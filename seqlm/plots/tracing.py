"""Figures of one picture: how it was drawn code by code, and what else might have come."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokens import code_token, codes_of
from seqlm.models.tracing import Candidate, Trace, first_patches
from seqlm.plots.style import (
    BLUE,
    GREY,
    INK,
    SMALL,
    VERMILLION,
    WIDTH,
    Board,
    canvas,
    finish,
    styled,
)

STAGES = 16  # of a picture with more codes than that, so many are shown
LINE = 0.165  # inches from one small line of text to the next
SHADE = to_rgb("#004b80")
MONO = {"fontfamily": "DejaVu Sans Mono", "fontsize": SMALL}


def paper(width: float, height: float, heading: str) -> tuple[Figure, Axes]:
    """A figure whose one axes counts in inches, downwards from the top left."""
    figure = canvas(height, heading, width)
    ax = figure.add_subplot()
    ax.set_axis_off()
    ax.set(xlim=(-0.03, width - 0.1), ylim=(height, 0), autoscale_on=False, aspect="equal")
    return figure, ax


def _frame_patch(tiles: Board, row: float, column: float, place: int, shape: tuple) -> None:
    """A frame around the patch `place` of a tile whose picture has `shape` (rows, columns)."""
    x, y = tiles.place(row, column)
    high, wide = (tiles.side / n for n in shape)
    down, across = divmod(place, shape[1])
    box = (x + across * wide, y + down * high)
    frame = Rectangle(box, wide, high, fill=False, ec=VERMILLION, lw=1.8, zorder=4)
    tiles.ax.add_patch(frame)


def shaded(ax: Axes, x: float, y: float, side: float, values: np.ndarray) -> None:
    """A map of `values` (rows, columns), darkest where they are largest; `side` of its longer side.

    It can be seen through where it is light, so that a picture may lie beneath.
    """
    high, wide = (side * n / max(values.shape) for n in values.shape)
    shares = np.clip(values / max(values.max(), 1e-9), 0, 1)
    shade = np.dstack([*(np.full(values.shape, part) for part in SHADE), 0.06 + 0.84 * shares])
    ax.imshow(shade, extent=(x, x + wide, y + high, y), zorder=2)
    ax.add_patch(Rectangle((x, y), wide, high, fill=False, ec=GREY, lw=0.7, zorder=3))


def has_room(side: float, values: np.ndarray) -> bool:
    """Whether two digits fit each patch of a map that is `side` inches long."""
    return side / max(values.shape) >= 0.19


def numbered(
    ax: Axes, x: float, y: float, side: float, values: np.ndarray, image: np.ndarray, decimals: int
) -> None:
    """The map over the faded `image` (H, W), each number in its patch where there is room."""
    cell = side / max(values.shape)
    extent = (x, x + cell * values.shape[1], y + cell * values.shape[0], y)
    ax.imshow(image * 0.15, cmap="gray_r", vmin=0, vmax=1, extent=extent, zorder=1)
    shaded(ax, x, y, side, values)
    if not has_room(side, values):
        return
    for (row, column), value in np.ndenumerate(values):
        ax.text(
            x + (column + 0.5) * cell, y + (row + 0.5) * cell,
            f"{value:.{decimals if cell > 0.29 else 0}f}", ha="center", va="center", zorder=5,
            color="white" if value > 0.75 * values.max() else INK,
            fontsize=np.clip(18 * cell, SMALL, 12),
        )  # fmt: skip


def where(place: int, columns: int) -> str:
    row, column = divmod(int(place), columns)
    return f"row {row + 1}, column {column + 1}"


# --- how a picture was drawn ----------------------------------------------------------------------


@styled
def plot_code_by_code(book: PatchCodebook, trace: Trace, heading: str) -> Figure:
    """A picture after its first code, its second … its last, and how surprising each was.

    Under each stage stands the code that came last (framed in the picture), the probability the
    model had given it, and its surprisal -ln p in nats. The map beneath holds all of them.
    """
    codes = codes_of([trace.names[index] for index in trace.ids])
    (image,) = book.decode(codes[None])
    n, surprisal = len(codes), trace.surprisal
    stages = np.unique(np.linspace(1, n, min(n, STAGES)).round().astype(int))
    across, large = min(8, len(stages)), 2.75
    pitch = (0.98 + 4.1 * LINE + 0.1, (WIDTH - 0.08) / 8)
    below = pitch[0] * -(-len(stages) // across) + 0.3
    figure, ax = paper(WIDTH, below + large + 0.1, f"{heading} (n = {n} codes)")
    tiles = Board(figure, ax, 0.98, pitch, (LINE + 0.03, 0.03))
    for i, stage in enumerate(stages):
        _stage(tiles, divmod(i, across), book, image, trace, int(stage))
    lower = Board(figure, ax, large, (0, large + 0.3), (below, 0.03))
    lower.picture(image, 0, 0)
    lower.write("the finished picture", 0, 0, fontweight="bold")
    numbered(ax, *lower.place(0, 1), large, surprisal.reshape(book.grid), image, 1)
    lower.write("surprisal of each code, −ln p in nats", 0, 1, fontweight="bold")
    said = _surprise_words(trace, book)
    wrapped = [textwrap.fill(sentence, 33) for sentence in said]
    ax.text(*lower.place(0, 2), "\n\n".join(wrapped), va="top", linespacing=1.35)
    shown = "each of them" if len(stages) == n else f"{len(stages)} of them, evenly spaced"
    return finish(
        figure,
        f"{heading}: a picture of n = {n} codes, drawn row by row, as it stood after {shown}; "
        "beneath, the finished picture and a map of the surprisal of each code.",
        *said,
        _in_order(surprisal.reshape(book.grid)),
    )


def _stage(
    tiles: Board, tile: tuple[int, int], book: PatchCodebook, image, trace: Trace, done: int
) -> None:
    """The picture after `done` codes, and what there is to say of the last of them."""
    tiles.picture(first_patches(image, done, book.patch), *tile)
    _frame_patch(tiles, *tile, done - 1, book.grid)
    tiles.write(f"after {done}", *tile)
    x, y = tiles.place(*tile)
    chosen = trace.ids[done - 1]
    lines = (
        trace.names[chosen],
        f"p = {trace.expected[done - 1, chosen]:.1%}",
        f"{trace.surprisal[done - 1]:.2f} nats",
    )
    for i, line in enumerate(lines):
        look = MONO if i == 0 else {"fontsize": SMALL}
        down = y + tiles.side + 0.04 + i * LINE
        tiles.ax.text(x + tiles.side / 2, down, line, ha="center", va="top", **look)


def _in_order(surprisal: np.ndarray) -> str:
    """All of `surprisal` (rows, columns) for few codes, its mean in each row for many."""
    few = surprisal.size <= 64
    values = ", ".join(f"{nats:.1f}" for nats in (surprisal.ravel() if few else surprisal.mean(1)))
    each = "In the order they were drawn" if few else "On average in each row of patches"
    return f"{each}, in nats: {values}."


def _surprise_words(trace: Trace, book: PatchCodebook) -> list[str]:
    """The sum of the surprisal in nats and bits, its ends, and what blind guessing would give."""
    surprisal, n, columns = trace.surprisal, len(trace.ids), book.grid[1]
    total, blind = surprisal.sum(), np.log(book.n_codes)
    said = [
        f"All n = {n} codes together: {total:.1f} nats ({total / np.log(2):.1f} bits), "
        f"{total / n:.2f} nats per code.",
        f"Blind guessing among {book.n_codes} codes: {n * blind:.1f} nats, {blind:.2f} a code.",
    ]
    for word, place in (("Most", surprisal.argmax()), ("Least", surprisal.argmin())):
        said.append(
            f"{word} surprising: code {place + 1} ({where(place, columns)}), "
            f"{trace.names[trace.ids[place]]} with {surprisal[place]:.2f} nats."
        )
    return said


# --- what might have come -------------------------------------------------------------------------


@styled
def plot_candidates(trace: Trace, book: PatchCodebook, places: Sequence[int], k: int = 6) -> Figure:
    """The `k` likeliest tokens at some `places` (counted from 0) of a picture, two bars each.

    The upper bar is the model's own probability, the hatched one what the settings made of it:
    what was drawn from. Where another token than these `k` stands, it has a line as well.
    """
    codes = codes_of([trace.names[index] for index in trace.ids])
    (image,) = book.decode(codes[None])
    found = [trace.candidates(place, k) for place in places]
    most = max(max(c.probability, c.after) for some in found for c in some)
    across = len(places) if len(places) <= 3 else 2 if len(places) == 4 else 3
    wide, line = (WIDTH - 0.1) / max(across, 2), 0.34
    deep = 1.15 + line * max(map(len, found)) + 0.2
    n = len(trace.ids)
    heading = f"What might have come (n = {len(places)} of {n} places)"
    height = 0.25 + deep * -(-len(places) // across)
    figure, ax = paper(0.1 + wide * across, height, heading)
    _key(ax, book.n_codes, across)
    for i, (place, some) in enumerate(zip(places, found, strict=True)):
        down, right = divmod(i, across)
        x, y = 0.03 + right * wide, 0.35 + down * deep
        tile = Board(figure, ax, 1.0, (0, 0), (y, x))
        tile.picture(first_patches(image, place, book.patch), 0, 0)
        _frame_patch(tile, 0, 0, place, book.grid)
        ax.text(x + 1.15, y, f"code {place + 1} of {n}", va="top", fontweight="bold", fontsize=11)
        told = f"{where(place, book.grid[1])}\n▸ {trace.names[trace.ids[place]]} stands here"
        told += f"\nsurprise {trace.surprisal[place]:.2f} nats"
        ax.text(x + 1.15, y + 0.27, told, va="top", fontsize=SMALL, linespacing=1.35)
        for j, candidate in enumerate(some):
            _pair(ax, x, y + 1.15 + j * line, candidate, book, (wide - 2.0) / most)
    return finish(
        figure,
        f"{heading}: bars of the {k} likeliest tokens, the model's own probability and below it, "
        f"hatched, what the settings made of it. An even guess among {book.n_codes} codes would "
        f"be {1 / book.n_codes:.1%}.",
        *(_choice_words(place, some) for place, some in zip(places, found, strict=True)),
    )


def _bar(ax: Axes, x: float, y: float, wide: float, after: bool) -> None:
    look = {"fc": "#f6d3bd", "ec": VERMILLION, "hatch": "//////"} if after else {"fc": BLUE}
    ax.add_patch(Rectangle((x, y), max(wide, 0.012), 0.115, lw=0.7, zorder=2, **look))


def _key(ax: Axes, n_codes: int, across: int) -> None:
    """What the two bars are; and, where the figure is wide enough, what guessing would give."""
    _bar(ax, 0.03, 0.04, 0.3, after=False)
    ax.text(0.4, 0.1, "the model’s own", va="center", fontsize=SMALL)
    _bar(ax, 1.6, 0.04, 0.3, after=True)
    ax.text(1.97, 0.1, "after the settings", va="center", fontsize=SMALL)
    if across > 1:
        even = f"an even guess among {n_codes} codes: {1 / n_codes:.1%}"
        ax.text(3.4, 0.1, even, va="center", fontsize=SMALL)


def _pair(
    ax: Axes, x: float, y: float, candidate: Candidate, book: PatchCodebook, scale: float
) -> None:
    """A token's patch, its name, and its two bars, `scale` inches being a probability of 1."""
    of_token = {code_token(code): code for code in range(book.n_codes)}
    code = of_token.get(candidate.token)
    if code is not None:
        patch = book.centers[code].reshape(book.patch, book.patch)
        Board(ax.figure, ax, 0.26, (0, 0), (y, x)).picture(patch, 0, 0)
    name = ("▸ " if candidate.chosen else "") + candidate.token
    weight = "bold" if candidate.chosen else "normal"
    ax.text(x + 1.07, y + 0.13, name, ha="right", va="center", fontweight=weight, **MONO)
    for i, value in enumerate((candidate.probability, candidate.after)):
        top = y + 0.005 + 0.14 * i
        if value > 0:
            _bar(ax, x + 1.14, top, value * scale, after=bool(i))
        ax.text(x + 1.2 + value * scale, top + 0.06, f"{value:.1%}" if value else "0", va="center",
                fontsize=SMALL, fontweight=weight)  # fmt: skip


def _choice_words(place: int, found: Sequence[Candidate]) -> str:
    told = [f"{c.token} {c.probability:.1%}, after the settings {c.after:.1%}" for c in found]
    (stands,) = (c.token for c in found if c.chosen)
    return f"Code {place + 1}, where {stands} stands: {'; '.join(told)}."
