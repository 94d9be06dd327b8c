"""Figures of one picture: its codes one by one, the candidates for a code, attention."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokens import code_token, codes_of
from seqlm.errors import printable
from seqlm.models.tracing import Candidate, Trace
from seqlm.plots import style
from seqlm.plots.images import first_patches
from seqlm.plots.style import LINE, Tiles, canvas, finish, inch_axes, styled

STAGES = 16  # of a picture with more codes than that, so many are shown
MARK = {"color": style.VERMILLION, "lw": 2}


def _draw_map(
    tiles: Tiles, row: float, column: float, values: np.ndarray, image=None, decimals: int = 0
) -> None:
    """A map of `values` (rows, columns), darkest where they are largest.

    Over an `image` the map is transparent, with a number in each patch that has room for one.
    """
    x, y = tiles.position(row, column)
    cell = tiles.side / max(values.shape)
    extent = (x, x + cell * values.shape[1], y + cell * values.shape[0], y)
    if image is not None:
        tiles.ax.imshow(image, cmap="gray_r", vmin=0, vmax=1, extent=extent, alpha=0.3)
    alpha = 1 if image is None else 0.8
    tiles.ax.imshow(values, cmap="Blues", vmin=0, extent=extent, alpha=alpha)
    tiles.frame(row, column, color=style.INK, lw=0.7)
    if image is None or cell < 0.19:
        return
    for (down, across), value in np.ndenumerate(values):
        tiles.ax.text(
            x + (across + 0.5) * cell, y + (down + 0.5) * cell,
            f"{value:.{decimals if cell > 0.29 else 0}f}", ha="center", va="center",
            color="white" if value > 0.6 * values.max() else style.INK,
            fontsize=np.clip(18 * cell, style.SMALL, 12),
        )  # fmt: skip


def _name_place(place: int, columns: int) -> str:
    row, column = divmod(int(place), columns)
    return f"row {row + 1}, column {column + 1}"


@styled
def plot_code_by_code(book: PatchCodebook, trace: Trace, heading: str) -> Figure:
    """A picture after its first code, its second … its last, and the surprisal of each code.

    Below each stage: its last code (framed in the picture), the probability the model gave it, and
    its surprisal -ln p. The map at the bottom shows the surprisal of all codes.
    """
    codes = codes_of([trace.names[index] for index in trace.ids])
    (image,) = book.decode(codes[None])
    n, surprisal = len(codes), trace.surprisal
    stages = np.unique(np.linspace(1, n, min(n, STAGES)).round().astype(int))
    pitch = (0.98 + 5 * LINE, (style.WIDTH - 0.08) / 8)
    top, large = pitch[0] * -(-len(stages) // 8) + 0.3, 2.75
    ax = inch_axes(style.WIDTH, top + large + 0.1, f"{heading} (n = {n} codes)")
    tiles = Tiles(ax, 0.98, pitch, (LINE + 0.03, 0.03))
    for i, stage in enumerate(stages):
        tile, last = divmod(i, 8), trace.ids[stage - 1]
        tiles.draw(first_patches(image, stage, book.patch), *tile)
        tiles.frame(*tile, stage - 1, book.grid, **MARK)
        tiles.write(f"after {stage}", *tile)
        below = f"p = {trace.expected[stage - 1, last]:.1%}\n{surprisal[stage - 1]:.2f} nats"
        tiles.write(f"{trace.names[last]}\n{below}", *tile, "below")
    lower = Tiles(ax, large, (0, large + 0.3), (top, 0.03))
    lower.draw(image, 0, 0)
    lower.write("the whole picture", 0, 0, fontweight="bold")
    _draw_map(lower, 0, 1, surprisal.reshape(book.grid), image, 1)
    lower.write("surprisal of each code, −ln p in nats", 0, 1, fontweight="bold")
    summary = _describe_surprisal(trace, book)
    wrapped = [textwrap.fill(sentence, 33) for sentence in summary]
    ax.text(*lower.position(0, 2), "\n\n".join(wrapped), va="top", linespacing=1.35)
    return finish(
        ax.figure,
        f"{heading}: the picture after {len(stages)} of its n = {n} codes, the whole picture, and "
        "a map of the surprisal of each code.",
        *summary,
    )


def _describe_surprisal(trace: Trace, book: PatchCodebook) -> list[str]:
    surprisal, n = trace.surprisal, len(trace.ids)
    total = surprisal.sum()
    sentences = [
        f"Total: {total:.1f} nats ({total / np.log(2):.1f} bits), {total / n:.2f} nats per code.",
        f"Uniform baseline over {book.n_codes} codes: {np.log(book.n_codes):.2f} nats per code.",
    ]
    for word, place in (("Highest", surprisal.argmax()), ("Lowest", surprisal.argmin())):
        sentences.append(
            f"{word}: code {place + 1} ({_name_place(place, book.grid[1])}), "
            f"{trace.names[trace.ids[place]]}, {surprisal[place]:.2f} nats."
        )
    return sentences


@styled
def plot_candidates(trace: Trace, book: PatchCodebook, places: Sequence[int], k: int = 6) -> Figure:
    """The `k` most likely tokens at up to three `places` (from 0) of a picture, two bars each.

    The upper bar is the model's own probability, the lower that after the sampling settings. The
    token at that place has bars as well.
    """
    codes = codes_of([trace.names[index] for index in trace.ids])
    (image,) = book.decode(codes[None])
    candidates = [trace.candidates(place, k) for place in places]
    longest = max(map(len, candidates))
    heading = f"Candidates for a code (n = {len(places)} of {len(codes)} codes)"
    figure = canvas(2.3 + 0.34 * longest, heading, min(style.WIDTH, 4.6 * len(places)))
    ratios = [1.0, 0.34 * longest]
    columns = figure.subplots(2, len(places), squeeze=False, height_ratios=ratios).T
    most = max(max(c.probability, c.after) for some in candidates for c in some)
    for (above, below), place, tokens in zip(columns, places, candidates, strict=True):
        above.set_axis_off()
        _draw_prefix(above, image, trace, book, place)
        bars = _draw_candidates(below, tokens, book)
        below.set(xlim=(0, 1.3 * most), ylim=(longest - 0.5, -0.5))
    names = ["the model's probability", "after the sampling settings"]
    figure.legend(bars, names, loc="outside lower left", ncols=2)
    return finish(
        figure,
        f"{heading}: bars of the {k} most likely tokens, the model's own probability and, hatched, "
        f"the probability after the sampling settings. Uniform: {1 / book.n_codes:.1%}.",
        *(
            f"Code {place + 1}: "
            + "; ".join(f"{c.token} {c.probability:.1%}, then {c.after:.1%}" for c in tokens)
            + "."
            for place, tokens in zip(places, candidates, strict=True)
        ),
    )


def _draw_prefix(
    ax: Axes, image: np.ndarray, trace: Trace, book: PatchCodebook, place: int
) -> None:
    """The picture before `place`, whose patch is framed."""
    tiles = Tiles(ax, 1.0, (0, 0), (0, 0))
    tiles.draw(first_patches(image, place, book.patch), 0, 0)
    tiles.frame(0, 0, place, book.grid, **MARK)
    ax.set(xlim=(-0.02, 1.02), ylim=(1.02, -0.02), aspect="equal", anchor="W")
    title = f"code {place + 1} of {len(trace.ids)}\n{_name_place(place, book.grid[1])}"
    actual = f"▸ {trace.names[trace.ids[place]]}, {trace.surprisal[place]:.2f} nats"
    ax.set_title(f"{title}\n{actual}", fontsize=style.SMALL)


def _draw_candidates(ax: Axes, tokens: Sequence[Candidate], book: PatchCodebook) -> list:
    """Two bars for each token, and the patch of each code; returns both sets of bars."""
    ax.spines["bottom"].set_visible(False)
    places = np.arange(len(tokens))
    own, after = [c.probability for c in tokens], [c.after for c in tokens]
    hatched = {"fc": "#f6d3bd", "ec": style.VERMILLION, "hatch": "//////", "lw": 0.7}
    bars = [
        ax.barh(places - 0.2, own, 0.36, fc=style.BLUE),
        ax.barh(places + 0.2, after, 0.36, **hatched),
    ]
    for container, values in zip(bars, (own, after), strict=True):
        texts = [f"{v:.1%}" if v else "0" for v in values]
        ax.bar_label(container, texts, padding=3, fontsize=style.SMALL)
    ax.set(xticks=[], yticks=places)
    names = [("▸ " if c.chosen else "") + printable(c.token) for c in tokens]
    ax.set_yticklabels(names, fontfamily="monospace", parse_math=False)
    ax.tick_params(axis="y", length=0, pad=24)
    codes = {code_token(code): center for code, center in enumerate(book.centers)}
    for y, c in enumerate(tokens):
        if c.chosen:
            ax.get_yticklabels()[y].set_fontweight("bold")
        if c.token in codes:
            patch = codes[c.token].reshape(book.patch, book.patch)
            picture = OffsetImage(patch, cmap="gray_r", norm="linear", zoom=16 / book.patch)
            box = {"xybox": (-13, 0), "boxcoords": "offset points", "pad": 0}
            ax.add_artist(AnnotationBbox(picture, (0, y), **box))
    return bars


@styled
def plot_attention(image: np.ndarray, weights: np.ndarray, token: str) -> Figure:
    """The attention of each head to the patches of `image` (H, W) when the model is at `token`.

    `weights` (n_layer, n_head, rows, columns) sum to less than 1 where a head also attends to
    other tokens. The mean of all heads is shown larger.
    """
    n_layer, n_head, rows, columns = weights.shape
    shares, mean = weights.sum((2, 3)), 100 * weights.mean((0, 1))  # mean: (rows, columns)
    large, left = 2.3, 3.05
    side = min(1.2, (style.WIDTH - 0.15 - left) / n_head - 0.08)
    pitch = (side + LINE + 0.1, side + 0.08)
    height = 0.3 + max(2 * large + 0.5, n_layer * pitch[0])
    heading = f"Attention of {token} to the picture (n = {n_layer} x {n_head} heads)"
    ax = inch_axes(style.WIDTH, height, heading)
    maps = Tiles(ax, side, pitch, (2 * LINE + 0.1, left))
    for layer, head in np.ndindex(n_layer, n_head):
        _draw_map(maps, layer, head, weights[layer, head])
        maps.write(f"{shares[layer, head]:.0%}", layer, head)
    for layer in range(n_layer):
        maps.write(f"{'layer ' * (layer == 0)}{layer + 1}", layer, 0, "left", fontweight="bold")
    for head in range(n_head):
        x, _ = maps.position(0, head)
        name, look = f"{'head ' * (side > 0.55)}{head + 1}", {"ha": "center", "fontweight": "bold"}
        ax.text(x + side / 2, LINE - 0.03, name, fontsize=style.SMALL, **look)
    column = Tiles(ax, large, (large + 0.25, 0), (0.25, 0.03))
    column.draw(image, 0, 0)
    column.write("the picture", 0, 0, fontweight="bold")
    _draw_map(column, 1, 0, mean, image, 1)
    column.write("mean of all heads, in percent", 1, 0, fontweight="bold")
    most, least = (divmod(int(flat), n_head) for flat in (shares.argmax(), shares.argmin()))
    return finish(
        ax.figure,
        f"{heading}: a map for each head, with the share that goes to its {rows} by {columns} "
        f"patches. Mean {shares.mean():.0%}, most of it to {_name_place(mean.argmax(), columns)} "
        f"({mean.max():.0f}%, uniform {mean.mean():.1f}%); highest layer {most[0] + 1}, head "
        f"{most[1] + 1} ({shares[most]:.0%}); lowest layer {least[0] + 1}, head {least[1] + 1} "
        f"({shares[least]:.0%}).",
    )
