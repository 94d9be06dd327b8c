"""Figures of one picture: its codes one by one, the candidates for a code, attention."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
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
            color="white" if value > 0.7 * values.max() else style.INK,
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
def plot_candidates(
    trace: Trace, book: PatchCodebook, places: Sequence[int], k: int = 6, settings: bool = True
) -> Figure:
    """The `k` most likely tokens at up to three `places` (from 0) of a picture, and what came.

    The upper bar is the model's own probability, the lower that after the sampling `settings`.
    """
    codes = codes_of([trace.names[index] for index in trace.ids])
    (image,) = book.decode(codes[None])
    candidates = [trace.candidates(place, k) for place in places]
    longest = max(map(len, candidates))
    heading = f"Candidates for a code (n = {len(places)} of {len(codes)} codes)"
    figure = canvas(2.3 + 0.34 * longest, heading, min(style.WIDTH, 4.6 * len(places)))
    ratios = [1.0, 0.34 * longest]
    columns = figure.subplots(2, len(places), squeeze=False, height_ratios=ratios).T
    most = max(max(c.probability, c.after * settings) for some in candidates for c in some)
    for (above, below), place, tokens in zip(columns, places, candidates, strict=True):
        above.set_axis_off()
        _draw_prefix(above, image, trace, book, place)
        bars = _draw_candidates(below, tokens, book, settings)
        below.set(xlim=(0, 1.3 * most), ylim=(longest - 0.5, -0.5))
    names = ["the model's probability", "after the sampling settings"][: len(bars)]
    figure.legend(bars, names, loc="outside lower left", ncols=2)
    after = " and, hatched, the probability after the sampling settings" * settings
    sentences = []
    for place, tokens in zip(places, candidates, strict=True):
        texts = [f"{c.token}{' (what came)' * c.chosen} {c.probability:.1%}"
                 + f", then {c.after:.1%}" * settings for c in tokens]  # fmt: skip
        sentences.append(f"Code {place + 1}: {'; '.join(texts)}.")
    return finish(
        figure,
        f"{heading}: bars of the {k} most likely tokens, the model's own probability{after}. "
        f"Uniform: {1 / book.n_codes:.1%}.",
        *sentences,
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
    actual = f"▸ came: {trace.names[trace.ids[place]]}, {trace.surprisal[place]:.2f} nats"
    ax.set_title(f"{title}\n{actual}", fontsize=style.SMALL)


def _draw_candidates(
    ax: Axes, tokens: Sequence[Candidate], book: PatchCodebook, settings: bool
) -> list:
    """A bar or two for each token, and the patch of each code; returns the sets of bars."""
    ax.spines["bottom"].set_visible(False)
    places = np.arange(len(tokens))
    own, after = [c.probability for c in tokens], [c.after for c in tokens]
    hatched = {"fc": "#f6d3bd", "ec": style.VERMILLION, "hatch": "//////", "lw": 0.7}
    bars = [ax.barh(places - 0.2 * settings, own, 0.36, fc=style.BLUE)]
    if settings:
        bars.append(ax.barh(places + 0.2, after, 0.36, **hatched))
    for container, values in zip(bars, (own, after), strict=False):
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
            picture = OffsetImage(patch, cmap="gray_r", norm=Normalize(0, 1), zoom=16 / book.patch)
            box = {"xybox": (-13, 0), "boxcoords": "offset points", "pad": 0}
            ax.add_artist(AnnotationBbox(picture, (0, y), **box))
    return bars


@styled
def plot_attention(
    image: np.ndarray, weights: np.ndarray, names: Sequence[str], grid: tuple[int, int]
) -> Figure:
    """Which token attends to which, in one head and on average; then the last token's own view.

    `weights` (n_layer, n_head, T, T) come from `tracing.attention_weights`, a line for each query;
    `names` (T,) are the tokens, of which those after the first are the codes of `image` (H, W) on
    their `grid` (rows, columns).
    """
    n_layer, n_head = weights.shape[:2]
    mean = weights.mean((0, 1))  # (T, T)
    figure = canvas(6.3, f"Attention (n = {n_layer} x {n_head} heads)")
    upper, lower = figure.subfigures(2, 1, height_ratios=[4.4, 1.9])
    titles = ("layer 1, head 1", f"mean of all {n_layer * n_head} heads")
    for ax, values, title in zip(upper.subplots(1, 2), (weights[0, 0], mean), titles, strict=True):
        _draw_triangle(ax, values, names, title)
    seen = weights[:, :, -1, 1 : 1 + grid[0] * grid[1]].mean(1)  # (n_layer, P)
    shares = seen.sum(1)
    title = f"{names[-1]} looks at the picture: mean of each layer's heads, share of all attention"
    lower.suptitle(title, x=0.006, ha="left", fontsize=style.SMALL, fontweight="bold")
    first, *maps = lower.subplots(1, 1 + n_layer)
    first.imshow(image, cmap="gray_r", vmin=0, vmax=1)
    first.set_title("picture", fontsize=style.SMALL)
    for layer, (ax, values, share) in enumerate(zip(maps, seen, shares, strict=True), 1):
        ax.imshow(values.reshape(grid), cmap="Blues", vmin=0, vmax=seen.max())
        ax.set_title(f"{'layer ' * (n_layer <= 8)}{layer}\n{share:.0%}", fontsize=style.SMALL)
    for ax in (first, *maps):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    before = np.diag(mean, -1).mean()
    return finish(
        figure,
        f"Attention of each of {len(names)} tokens to itself and those before it, in one head and "
        f"as the mean of n = {n_layer} x {n_head} heads; later tokens are masked. On average "
        f"{np.diag(mean).mean():.0%} go to the token itself, {before:.0%} to the one before, "
        f"{mean[1:, 0].mean():.0%} to the first. Then, for {names[-1]}, the share that each layer "
        f"gives to the picture: {', '.join(f'{share:.0%}' for share in shares)}.",
    )


def _draw_triangle(ax: Axes, values: np.ndarray, names: Sequence[str], title: str) -> None:
    """One line for each query token; what comes after it is masked, and hatched."""
    later = np.triu(np.ones_like(values, dtype=bool), 1)
    shown = np.ma.masked_where(later, values)
    ax.imshow(shown, cmap="Blues", norm=PowerNorm(0.5, vmin=0), zorder=1)  # small ones show, too
    ax.patch.set(facecolor="white", hatch="////", edgecolor=style.PALE)
    ticks = np.arange(0, len(names), -(-len(names) // 22))
    labels, look = [printable(names[i]) for i in ticks], {"fontfamily": "monospace"}
    ax.set_xticks(ticks, labels, rotation=90, parse_math=False, **look)
    ax.set_yticks(ticks, labels, parse_math=False, **look)
    ax.set(ylabel="query token", xlabel="attends to")
    ax.set_title(f"{title} (darkest: {values.max():.0%})")
    box = {"fc": "white", "ec": "none", "pad": 2}
    ax.text(0.97, 0.95, "masked:\nlater tokens", transform=ax.transAxes, ha="right", va="top",
            fontsize=style.SMALL, bbox=box)  # fmt: skip
