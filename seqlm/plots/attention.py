"""A figure of where every head looks in a picture."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqlm.plots.style import SMALL, VERMILLION, WIDTH, Board, finish, styled
from seqlm.plots.tracing import LINE, has_room, numbered, paper, shaded, where


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
