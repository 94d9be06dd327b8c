"""Figures of evaluation: NLL by position, next tokens, accuracy, confusion and calibration."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqlm.errors import printable
from seqlm.evaluation.estimates import as_estimate, proportion
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots import style
from seqlm.plots.style import canvas, draw_estimates, finish, percent, styled


@styled
def plot_nll_by_position(
    model: Sequence[float], baselines: Mapping[str, Sequence[float]], grid: tuple[int, int], n: int
) -> Figure:
    """NLL per code by position in the picture: lines against the baselines, and a map.

    `model` and each of `baselines` (P,) are nats, row by row from the top left; `grid` is (rows,
    columns) of codes; `n` is the number of images.
    """
    nats, places = np.asarray(model, dtype=float), np.arange(1, len(model) + 1)
    figure = canvas(3.9, f"NLL per code by position (n = {n:,} images)")
    lines, plan = figure.subplots(1, 2, width_ratios=[1.7, 1])
    step = max(1, len(nats) // 16)
    for (name, values), (colour, marker, line) in zip(baselines.items(), cycle(style.SERIES[1:])):
        lines.plot(places, values, color=colour, marker=marker, ls=line, lw=1.3, ms=4, mfc="white",
                   markevery=step, label=baseline_name(name))  # fmt: skip
    lines.plot(places, nats, "D-", color=style.BLUE, lw=2.6, ms=5, markevery=step, label="model")
    lines.set(xlabel="position of the code, row by row from the top left", ylabel="nats per code")
    lines.set(ylim=(0, None), xticks=places[::step])
    lines.grid(axis="y")
    lines.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3)
    seaborn.heatmap(
        nats.reshape(grid), cmap="cividis", square=True, ax=plan, annot=max(grid) <= 7, fmt=".1f",
        xticklabels=False, yticklabels=False, cbar_kws={"shrink": 0.75},
    )  # fmt: skip
    plan.set_title("model, nats per code")
    high, low = (np.unravel_index(i, grid) for i in (nats.argmax(), nats.argmin()))
    means = [f"{baseline_name(name)} {np.mean(values):.2f}" for name, values in baselines.items()]
    return finish(
        figure,
        f"NLL per code at {len(nats)} positions, n = {n:,} images, as lines and as a map. Mean of "
        f"the model {nats.mean():.2f} nats; highest {nats.max():.2f} in row {high[0] + 1}, column "
        f"{high[1] + 1}, lowest {nats.min():.2f} in row {low[0] + 1}, column {low[1] + 1}.",
        f"Mean of the baselines: {', '.join(means)}." if means else "",
    )


@styled
def plot_next_tokens(table: Sequence, heading: str = "Next token") -> Figure:
    """The most likely next tokens with probabilities, from `generation.next_token_table`."""
    tokens, probabilities = [row.token for row in table], [row.probability for row in table]
    rest = max(0.0, 1 - sum(probabilities))
    title = f"{heading} (n = {len(tokens)} most likely tokens)"
    figure = canvas(0.6 + 0.29 * (len(tokens) + 1), title, 7)
    ax = figure.add_subplot()
    places = np.arange(len(tokens) + 1)
    bars = ax.barh(places, [*probabilities, rest], color=style.BLUE, height=0.72)
    bars[-1].set(hatch="////", edgecolor=style.GREY, facecolor="white")
    ax.bar_label(bars, fmt="{:.1%}", padding=4)
    labels = [*map(printable, tokens), "all others"]
    ax.set_yticks(places, labels, fontfamily="DejaVu Sans Mono", parse_math=False)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * max(*probabilities, rest))
    ax.xaxis.set_major_formatter(percent)
    ax.set_xlabel("probability")
    ax.tick_params(axis="y", length=0)
    first = [f"{row.token} {row.probability:.1%}" for row in table[:5]]
    return finish(figure, f"{title}: {', '.join(first)}. All others: {rest:.1%}.")


@styled
def plot_confusion_matrix(counts: Sequence[Sequence[int]], heading: str) -> Figure:
    """`counts` [true][predicted]; shades are shares of the true class, the numbers are counts."""
    counts = np.asarray(counts)
    rows, total = counts.sum(axis=1), int(counts.sum())
    accuracy = proportion(np.arange(total) < np.trace(counts))
    figure = canvas(4.95, f"{heading}: accuracy {accuracy.format_value()}, n = {total}", 5.8)
    ax = figure.add_subplot()
    seaborn.heatmap(
        counts / np.maximum(rows, 1)[:, None], vmin=0, vmax=1, cmap="gray_r", square=True, ax=ax,
        annot=np.where(counts, counts.astype(str), ""), fmt="",
        yticklabels=[f"{k}  ({counts[k, k]} of {n})" for k, n in enumerate(rows)], cbar=False,
    )  # fmt: skip
    errors = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    for row, column in np.argwhere(errors):
        corner, frame = (column + 0.04, row + 0.04), {"fill": False, "ec": style.VERMILLION}
        ax.add_patch(Rectangle(corner, 0.92, 0.92, lw=1.3, **frame))
    ax.set(xlabel="predicted class (framed: errors)", ylabel="true class (classified correctly)")
    ax.tick_params(length=0, rotation=0)
    ax.spines[:].set(visible=True, color=style.PALE)
    most = [divmod(i, len(counts)) for i in np.argsort(-errors, axis=None, kind="stable")[:3]]
    words = [f"{k} as {guess} ({errors[k, guess]} of {rows[k]})" for k, guess in most
             if errors[k, guess]]  # fmt: skip
    return finish(
        figure,
        f"{heading}: confusion matrix of {len(counts)} classes, accuracy {accuracy}.",
        f"Most frequent errors: {', '.join(words)}." if words else "",
    )


@styled
def plot_reliability(series: Mapping[str, Sequence[Mapping]], heading: str) -> Figure:
    """For each method its accuracy against its confidence, with the number of images below.

    `series` holds for each method its bins: {"low", "high", "n", "confidence", "accuracy"}. Bins
    without images may be missing. A marker is filled where its 95 % interval misses the diagonal.
    """
    methods = {name: [b for b in bins if b.get("n")] for name, bins in series.items()}
    figure = canvas(4.3, heading, 3.0 * len(methods) if len(methods) > 1 else 5.0)
    panels = figure.subplots(
        2, len(methods), sharex=True, sharey="row", height_ratios=[3.4, 1], squeeze=False
    )
    figure.get_layout_engine().set(w_pad=0.09)
    sentences = []
    for column, (name, bins) in enumerate(methods.items()):
        n = sum(b["n"] for b in bins)
        look = style.SERIES[column % len(style.SERIES)][:2]
        panels[0, column].set_title(f"{textwrap.fill(name, 27)}\nn = {n:,}")
        off = _draw_bins(panels[0, column], bins, *look)
        _draw_counts(panels[1, column], bins, look[0], 30 // len(methods))
        sentence = f"{name}, n = {n:,}: {len(off)} of {len(bins)} bins off the diagonal"
        sentences.append(f"{'; '.join([sentence, *off])}.")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("images")
    label = "confidence  ·  dashed: calibrated  ·  bars: 95 % intervals, filled off the diagonal"
    figure.supxlabel(textwrap.fill(label, 50 * len(methods)), fontsize=style.SMALL)
    return finish(figure, f"{heading}: accuracy against confidence, bin by bin.", *sentences)


def _draw_bins(ax: Axes, bins: Sequence[Mapping], colour: str, marker: str) -> list[str]:
    """Draws the bins; returns in words those off the diagonal with their whole interval."""
    ax.plot([0, 1], [0, 1], **style.DASHED)
    off = []
    for b in bins:
        e = as_estimate(b["accuracy"])
        missed = e.has_interval and not e.low <= b["confidence"] <= e.high
        if missed:
            off.append(f"confidence {b['confidence']:.1%}, accuracy {e.format(with_n=True)}")
        draw_estimates(ax, [b["confidence"]], [e], colour, marker, filled=missed)
    ax.set(xlim=(0, 1.02), ylim=(-0.05, 1.05), xticks=np.arange(5) / 4, yticks=np.arange(5) / 4)
    ax.yaxis.set_major_formatter(percent)
    ax.grid()
    return off


def _draw_counts(ax: Axes, bins: Sequence[Mapping], colour: str, n_letters: int) -> None:
    """The number of images in each bin; upright where all numbers fit side by side."""
    counts = [b["n"] for b in bins]
    upright = sum(len(f"{n:,}") for n in counts) <= n_letters
    widths = [b["high"] - b["low"] for b in bins]
    bars = ax.bar([b["low"] for b in bins], counts, widths, align="edge", fc=colour, ec="white")
    turn = 0 if upright else 90
    ax.bar_label(bars, fmt="{:,.0f}", fontsize=style.SMALL, rotation=turn, padding=2)
    most = max(counts, default=1) * (1.4 if upright else 1.8)
    ax.set(yticks=[], ylim=(0, max(ax.get_ylim()[1], most)))
    ax.xaxis.set_major_formatter(percent)
