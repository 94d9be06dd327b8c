"""A figure of the model itself: its parts, and the size of what flows between them."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from seqlm.config import ModelConfig
from seqlm.plots import style
from seqlm.plots.style import finish, inch_axes, styled

TOP, STEP, TALL, WIDE = 0.3, 0.75, 0.4, 2.3  # inches: of the first arrow, to the next, of a part
PLUS = "+ what came in"  # a residual connection ends here


def _draw_column(ax: Axes, x: float, chain: Sequence) -> None:
    """Sizes and parts in turn, from top to bottom: sizes stand beside arrows, parts in boxes."""
    arrow, look = {"arrowstyle": "->"}, {"color": style.VERMILLION, "lw": 1.5}
    left, beside = x - WIDE / 2, x - WIDE / 2 - 0.15
    for row, size in enumerate(chain[::2]):
        y = TOP + row * STEP
        ax.annotate("", (x, y + STEP - TALL), (x, y), arrowprops=arrow)
        ax.text(x + 0.08, y + 0.15, str(size), va="center", fontsize=style.SMALL)
    came_in = TOP + 0.12
    for row, part in enumerate(chain[1::2], 1):
        top, middle = TOP + row * STEP - TALL, TOP + row * STEP - TALL / 2
        box = {"fc": style.PALE if part == PLUS else "#e3eef7", "ec": style.GREY}
        ax.add_patch(FancyBboxPatch((left, top), WIDE, TALL, "round,pad=0", **box))
        ax.text(x, middle, part, ha="center", va="center", fontsize=style.SMALL)
        if part == PLUS:
            ax.plot([x, beside, beside], [came_in, came_in, middle], **look)
            ax.annotate("", (left, middle), (beside, middle), arrowprops=arrow | look)
            came_in = TOP + 0.12 + row * STEP


@styled
def plot_architecture(size: ModelConfig, vocab_size: int, batch: int, length: int) -> Figure:
    """GPT-2 of this size, its input `batch` rows of `length` ids: the model, a block, attention."""
    b, t, c, v, h = batch, length, size.n_embd, vocab_size, size.n_head
    stream, logits, scores, heads = (b, t, c), (b, t, v), (b, h, t, t), (b, h, t, c // h)
    columns = {
        "The model": [
            f"ids {(b, t)}", f"token vectors, {v} x {c}", stream, "+ position vectors", stream,
            f"{size.n_layer} blocks, one after another", stream, "layer norm", stream,
            f"token vectors again, {c} x {v}", f"logits {logits}", "softmax: p(next token)", logits,
        ],
        "One of the blocks": [
            stream, "layer norm", stream, "attention", stream, PLUS, stream, "layer norm", stream,
            f"{c} to {4 * c}, then GELU", (b, t, 4 * c), f"{4 * c} to {c}", stream, PLUS, stream,
        ],
        f"Its attention, {h} heads": [
            stream, f"{c} to {3 * c}: q, k and v", (b, t, 3 * c), f"cut into {h} heads of {c // h}",
            f"3 x {heads}", f"dot products of q and k, / √{c // h}", scores,
            "mask the future, softmax", scores, "weighted sum of v", heads, "heads side by side",
            stream, f"{c} to {c}", stream,
        ],
    }  # fmt: skip
    n = size.n_layer * (12 * c + 13) * c + (v + size.n_positions + 2) * c
    heading = f"GPT-2, {size.n_layer} blocks, {c} wide (n = {n:,} parameters)"
    ax = inch_axes(style.WIDTH, TOP + 7.5 * STEP, heading)
    for x, (title, chain) in zip((1.4, 4.45, 7.5), columns.items(), strict=True):
        ax.text(x, 0.14, title, ha="center", va="center", fontweight="bold")
        _draw_column(ax, x, chain)
    sentences = [f"{title}: {' > '.join(map(str, chain))}." for title, chain in columns.items()]
    return finish(ax.figure, f"{heading}. Sizes are (rows, tokens, numbers).", *sentences)
