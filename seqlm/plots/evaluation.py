"""Figures of evaluation: NLL by position, confusion and calibration."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from seqlm.evaluation.estimates import as_estimate, proportion
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots import style
from seqlm.plots.style import canvas, draw_estimates, finish, percent, styled

SUREST = 0.999  # confidence


@styled
def plot_nll_by_position(
    model: Sequence[float], baselines: Mapping[str, Sequence[float]], grid: tuple[int, int], n: int
) -> Figure:
    """NLL per code by position in the picture: the model, the best baseline, and the gap.

    `model` and each of `baselines` (P,) are nats, row by row from the top left; `grid` is (rows,
    columns) of codes; `n` is the number of images.
    """
    nats, places = np.asarray(model, dtype=float), np.arange(1, len(model) + 1)
    name = min(baselines, key=lambda name: np.mean(baselines[name]))
    best = np.asarray(baselines[name], dtype=float)
    figure = canvas(3.3, f"NLL per code by position (n = {n:,} images)")
    lines, *plans = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    step = max(1, len(nats) // 16)
    lines.fill_between(places, nats, best, color=style.PALE, label="gap")
    (colour, marker, line), label = style.SERIES[1], f"best baseline: {baseline_name(name)}"
    lines.plot(places, best, color=colour, marker=marker, ls=line, ms=4, mfc="white",
               markevery=step, label=label)  # fmt: skip
    lines.plot(places, nats, "D-", color=style.BLUE, lw=2.2, ms=4, markevery=step, label="model")
    lines.set(xlabel="position, row by row from the top left", ylabel="nats per code")
    lines.set(ylim=(0, None), xticks=places[:: max(1, len(nats) // 8)])
    lines.grid(axis="y")
    lines.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2, columnspacing=1)
    titles = ("model", "gap: baseline minus model")
    for plan, values, title in zip(plans, (nats, best - nats), titles, strict=True):
        seaborn.heatmap(
            values.reshape(grid), cmap="cividis", square=True, ax=plan, annot=max(grid) <= 7,
            fmt=".1f", xticklabels=False, yticklabels=False, cbar=max(grid) > 7,
            cbar_kws={"shrink": 0.6},
        )  # fmt: skip
        plan.set_title(title)
    high, low = (np.unravel_index(i, grid) for i in (nats.argmax(), nats.argmin()))
    wide = np.unravel_index((best - nats).argmax(), grid)
    return finish(
        figure,
        f"NLL per code at {len(nats)} positions, n = {n:,} images: lines, and maps of model and "
        f"gap. Mean of the model {nats.mean():.2f} nats; highest {nats.max():.2f} in row "
        f"{high[0] + 1}, column {high[1] + 1}, lowest {nats.min():.2f} in row {low[0] + 1}, column "
        f"{low[1] + 1}. Best baseline: {baseline_name(name)}, mean {best.mean():.2f}; largest gap "
        f"{(best - nats).max():.2f} in row {wide[0] + 1}, column {wide[1] + 1}.",
    )


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
    """For each method its accuracy against its confidence, in bins of as many images each.

    `series` holds for each method its bins, from `classification.reliability`: {"n", "confidence",
    "accuracy"}. A marker is filled where its 95 % interval misses the line of equal confidence and
    accuracy. The axis of confidence is one of log odds, so that bins above 90 % stand apart; what
    is above SUREST is drawn there.
    """
    figure = canvas(3.6, heading, 3.0 * len(series) if len(series) > 1 else 5.0)
    panels = figure.subplots(1, len(series), sharex=True, sharey=True, squeeze=False)[0]
    figure.get_layout_engine().set(w_pad=0.09)
    sentences = []
    for ax, (name, bins), look in zip(panels, series.items(), cycle(style.SERIES)):
        sizes = [b["n"] for b in bins]
        each = "–".join(f"{n:,}" for n in sorted({min(sizes, default=0), max(sizes, default=0)}))
        ax.set_title(f"{textwrap.fill(name, 27)}\nn = {sum(sizes):,}, {each} per bin")
        off = _draw_bins(ax, bins, *look[:2])
        sentence = f"{name}, n = {sum(sizes):,}: {len(off)} of {len(bins)} bins off the line"
        sentences.append(f"{'; '.join([sentence, *off])}.")
    panels[0].set_ylabel("accuracy")
    label = "confidence (log odds)  ·  dashed: calibrated  ·  bars: 95 % intervals, filled off it"
    figure.supxlabel(textwrap.fill(label, 50 * len(series)), fontsize=style.SMALL)
    return finish(figure, f"{heading}: accuracy against confidence, bin by bin.", *sentences)


def _draw_bins(ax: Axes, bins: Sequence[Mapping], colour: str, marker: str) -> list[str]:
    """Draws the bins; returns in words those off the line with their whole interval."""
    line = np.linspace(0.1, SUREST, 10_000)
    ax.plot(line, line, **style.DASHED)
    off = []
    for b in bins:
        e = as_estimate(b["accuracy"])
        missed = e.has_interval and not e.low <= b["confidence"] <= e.high
        if missed:
            off.append(f"confidence {b['confidence']:.1%}, accuracy {e.format(with_n=True)}")
        draw_estimates(ax, [min(b["confidence"], SUREST)], [e], colour, marker, filled=missed)
    ax.set(xscale="logit", ylim=(-0.04, 1.04))
    ax.set_xticks([0.1, 0.5, 0.9, 0.99, SUREST], minor=False)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(percent)
    ax.yaxis.set_major_formatter(percent)
    ax.grid()
    return off
