"""Figures of evaluation: NLL by position, calibration."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from seqlm.evaluation.estimates import as_estimate
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
            fmt="z.1f", xticklabels=False, yticklabels=False, cbar=max(grid) > 7,
            cbar_kws={"shrink": 0.6},
        )  # fmt: skip
        plan.set_title(title)
        for text, value in zip(plan.texts, values, strict=False):  # none on a large grid
            text.set_color("white" if 2 * value < values.min() + values.max() else style.INK)
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
    sentences, line = [], np.linspace(0.1, SUREST, 10_000)
    for ax, (name, bins), look in zip(panels, series.items(), cycle(style.SERIES)):
        n, off = sum(b["n"] for b in bins), []
        ax.set_title(f"{textwrap.fill(name, 27)}\nn = {n:,}, {len(bins)} bins")
        ax.plot(line, line, **style.DASHED)
        for b in bins:
            e = as_estimate(b["accuracy"])
            missed = e.has_interval and not e.low <= b["confidence"] <= e.high
            if missed:
                off.append(f"; confidence {b['confidence']:.1%}, accuracy {e.format(with_n=True)}")
            draw_estimates(ax, [min(b["confidence"], SUREST)], [e], *look[:2], filled=missed)
        ax.set(xscale="logit", ylim=(-0.04, 1.04))
        ax.set_xticks([0.1, 0.5, 0.9, 0.99, SUREST], minor=False)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(percent)
        ax.yaxis.set_major_formatter(percent)
        ax.grid()
        counted = f"{len(off)} of {len(bins)} bins off the line"
        sentences.append(f"{name}, n = {n:,}: {counted}{''.join(off)}.")
    panels[0].set_ylabel("accuracy")
    label = "confidence (log odds)  ·  dashed: calibrated  ·  bars: 95 % intervals, filled: off it"
    figure.supxlabel(textwrap.fill(label, 50 * len(series)), fontsize=style.SMALL)
    return finish(figure, f"{heading}: accuracy against confidence, bin by bin.", *sentences)
