"""Figures of a data set before training: lengths of rows, classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqlm.plots import style
from seqlm.plots.style import canvas, finish, styled

# Okabe and Ito's colours, each with a hatch, so that colour is never needed.
BARS = ((style.BLUE, ""), (style.ORANGE, "////"), (style.GREEN, "...."))


@styled
def plot_lengths(lengths: np.ndarray, limit: int) -> Figure:
    """Tokens in each row (N,) of the file, and the `limit` above which codes are cut."""
    cut, n = int((lengths > limit).sum()), len(lengths)
    figure = canvas(2.6, f"Tokens per row (n = {n:,} rows)")
    ax = figure.add_subplot()
    low, high = int(lengths.min()), int(lengths.max())
    wide = max(1, -(-(high - low) // 60))  # of a bar, in tokens
    ax.hist(lengths, np.arange(low, high + wide + 1, wide) - 0.5, rwidth=0.9, color=style.BLUE)
    if cut:
        ax.axvline(limit + 0.5, **style.DASHED | {"color": style.VERMILLION, "lw": 1.8})
        ax.set_title(f"dashed: max_length, {limit:,} tokens; {cut:,} rows are cut")
    ax.set(xlabel="tokens", ylabel="rows", xlim=(low - 3, high + wide + 2))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    return finish(
        figure,
        f"Histogram of tokens per row, n = {n:,} rows: from {low:,} to {high:,}, median "
        f"{np.median(lengths):,.0f}.",
        f"{cut:,} rows have more than max_length, {limit:,} tokens, and are cut." if cut else "",
    )


@styled
def plot_class_counts(counts: Mapping[str, Sequence[int]]) -> Figure:
    """Rows of each class (C,), by split."""
    total = np.sum([*counts.values()], axis=0)
    n_classes = len(total)
    figure = canvas(2.8, f"Rows per class (n = {total.sum():,} labelled rows)")
    ax = figure.add_subplot()
    below = np.zeros(n_classes)
    for (name, rows), (colour, hatch) in zip(counts.items(), BARS, strict=False):
        ax.bar(np.arange(n_classes), rows, 0.8, below, label=name, fc=colour, hatch=hatch,
               ec="white", lw=0)  # fmt: skip
        below = below + rows
    ax.set(xlabel="class", ylabel="rows")
    ax.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    ax.grid(axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=3)
    few, most = int(total.argmin()), int(total.argmax())
    return finish(
        figure,
        f"Bars: rows of each of {n_classes:,} classes, n = {total.sum():,}. Class {most} has most, "
        f"{total[most]:,}; class {few} fewest, {total[few]:,}.",
        *(f"{name}: {sum(rows):,} rows." for name, rows in counts.items()),
    )
