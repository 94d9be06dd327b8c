"""Figures of one picture: codes one by one, candidates for a code, attention."""

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


@styled
def plot_attention(
    image: np.ndarray, weights: np.ndarray, token: str, chosen: tuple[int, int] | None = None
) -> Figure:
    """Where each head looks in `image` (H, W) when the model is at `token`.

    `weights` (n_layer, n_head, rows, columns) are its attention to the picture's patches; what is
    lacking to 1 goes to other tokens. `chosen` (layer, head), counted from 0, is shown larger.
    """
    n_layer, n_head, rows, columns = weights.shape
    big, left = 2.3, 2.3 + 0.75
    side = min(1.2, (WIDTH - 0.15 - left) / n_head - 0.08)
    pitch = (side + LINE + 0.1, side + 0.08)
    deep = LINE + 0.05 + n_layer * pitch[0]
    tall = 0.25 + big + (0 if chosen is None else big + 0.75)
    heading = f"Attention of {token} to the picture (n = {n_layer} x {n_head} heads)"
    figure, ax = paper(WIDTH, max(deep, tall) + 0.35, heading)
    maps = Board(figure, ax, side, pitch, (2 * LINE + 0.1, left))
    shares = weights.sum((2, 3))
    for layer, head in np.ndindex(n_layer, n_head):
        _head(maps, layer, head, weights[layer, head], (layer, head) == chosen)
    for head in range(n_head):
        x, _ = maps.place(0, head)
        ax.text(x + side / 2, LINE, f"head {head + 1}" if side > 0.55 else f"{head + 1}",
                ha="center", va="bottom", fontsize=SMALL, fontweight="bold")  # fmt: skip
    for layer in range(n_layer):
        maps.write(f"layer {layer + 1}" if layer == 0 else f"{layer + 1}", layer, 0, "left",
                   fontweight="bold")  # fmt: skip
    _beside(figure, ax, image, weights, big, chosen)
    return finish(
        figure,
        f"{heading}: a map for each, layers down, heads across, shaded by its own most, with the "
        f"share that goes to the picture's {rows} by {columns} patches.",
        _head_words(shares),
        "" if chosen is None else _chosen_words(weights[chosen], *chosen),
    )


def _head(maps: Board, layer: int, head: int, grid: np.ndarray, framed: bool) -> None:
    """One small map with its share above; `framed` if it is the one that is shown large."""
    x, y = maps.place(layer, head)
    shaded(maps.ax, x, y, maps.side, grid)
    maps.write(("▸ " if framed else "") + f"{grid.sum():.0%}", layer, head,
               fontweight="bold" if framed else "normal")  # fmt: skip
    if framed:
        high, wide = (maps.side * n / max(grid.shape) for n in grid.shape)
        box = Rectangle((x, y), wide, high, fill=False, ec=VERMILLION, lw=2.5, zorder=4)
        maps.ax.add_patch(box)


def _beside(figure: Figure, ax: Axes, image, weights, side: float, chosen) -> None:
    """The picture and, below it, the `chosen` head large, with numbers in percent."""
    column = Board(figure, ax, side, (side + 0.5, 0), (0.25, 0.03))
    column.picture(image, 0, 0)
    column.write("the picture", 0, 0, fontweight="bold")
    if chosen is None:
        return
    grid = 100 * weights[chosen]
    numbered(ax, *column.place(1, 0), side, grid, image, 1 if grid.max() < 10 else 0)
    layer, head = chosen
    unit = "percent" if has_room(side, grid) else f"most {grid.max():.0f}%"
    column.write(f"▸ layer {layer + 1}, head {head + 1}: {unit}", 1, 0, fontweight="bold")
    x, y = column.place(1, 0)
    even = f"{grid.sum():.0f}% go to the picture; spread evenly,\n"
    even += f"each patch would get {grid.mean():.1f}%"
    ax.text(x, y + side + 0.05, even, va="top", fontsize=SMALL)


def _head_words(shares: np.ndarray) -> str:
    """Which head gives the picture most, which least; `shares` (n_layer, n_head)."""
    said = []
    for word, flat in (("most", shares.argmax()), ("least", shares.argmin())):
        layer, head = np.unravel_index(flat, shares.shape)
        said.append(f"{word} with layer {layer + 1}, head {head + 1} ({shares[layer, head]:.0%})")
    return f"The picture gets {' and '.join(said)}; {shares.mean():.0%} on average."


def _chosen_words(grid: np.ndarray, layer: int, head: int) -> str:
    rows = ["; ".join(", ".join(f"{100 * v:.0f}" for v in row) for row in grid)]
    return (
        f"Larger, with numbers: layer {layer + 1}, head {head + 1}, which gives the picture "
        f"{grid.sum():.0%}, most of it to {where(grid.argmax(), grid.shape[1])} "
        f"({grid.max():.0%}; spread evenly it would be {grid.mean():.1%} a patch). "
        + (f"In percent, row by row: {rows[0]}." if grid.size <= 64 else "")
    ).strip()
