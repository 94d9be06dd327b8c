"""Figures of evaluation: NLL by position, next tokens, accuracy, confusion, calibration."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqlm.evaluation.estimates import Numbers, as_estimate, format_n, format_number, proportion
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots.comparisons import in_percent
from seqlm.plots.style import (
    BLUE,
    GREY,
    PALE,
    SERIES,
    SMALL,
    VERMILLION,
    canvas,
    finish,
    listed,
    styled,
)


@styled
def plot_nll_by_position(
    model: Sequence[float],
    baselines: Mapping[str, Sequence[float]],
    grid: tuple[int, int],
    n: int | None = None,
) -> Figure:
    """NLL of the code at each place of the picture: lines against the baselines, and a map.

    `model` and each of `baselines` (P,) nats per code, row by row from the top left; `grid` is
    (rows, columns) with rows * columns = P; `n` says how many pictures were averaged.
    """
    nats, places = np.asarray(model, dtype=float), np.arange(1, len(model) + 1)
    pictures = f"n = {n:,} pictures" if n else f"n = {len(nats)} places"
    figure = canvas(3.9, f"Where in the picture the codes are hard to guess ({pictures})")
    lines, plan = figure.subplots(1, 2, width_ratios=[1.7, 1])
    few = len(nats) <= 64
    for (name, values), (colour, marker, style) in zip(baselines.items(), cycle(SERIES[1:])):
        dots = {"marker": marker, "ms": 4, "mfc": "white"} if few else {}
        lines.plot(
            places, values, color=colour, ls=style, lw=1.3, label=baseline_name(name), **dots
        )
    dots = {"marker": "D", "ms": 5} if few else {}
    lines.plot(places, nats, color=BLUE, lw=2.6, label="the model", **dots)
    lines.set(xlabel="place of the code, row by row from the top left", ylabel="nats per code")
    lines.set_ylim(bottom=0)
    lines.grid(axis="y")
    if few:
        lines.set_xticks(places[:: max(1, len(places) // 16)])
    lines.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3)
    square = nats.reshape(grid)
    shown = plan.imshow(square, cmap="cividis")
    if max(grid) <= 7:
        middle = (nats.min() + nats.max()) / 2
        for (row, column), value in np.ndenumerate(square):
            colour = "white" if value < middle else "black"
            plan.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
    plan.set(xticks=[], yticks=[], title="the model, nats per code by place")
    figure.colorbar(shown, ax=plan, shrink=0.75)
    hard, easy = (np.unravel_index(pick, grid) for pick in (nats.argmax(), nats.argmin()))
    means = [f"{baseline_name(name)} {np.mean(values):.2f}" for name, values in baselines.items()]
    return finish(
        figure,
        f"NLL of the code at each of {len(nats)} places of the picture ({pictures}), as lines and "
        f"as a map of {grid[0]} by {grid[1]}. The model needs {nats.mean():.2f} nats per code on "
        f"average; hardest is row {hard[0] + 1}, column {hard[1] + 1} ({nats.max():.2f}), easiest "
        f"row {easy[0] + 1}, column {easy[1] + 1} ({nats.min():.2f}).",
        f"Baselines on average: {listed(means)}." if means else "",
    )


@styled
def plot_confusion_matrix(counts: Sequence[Sequence[int]], heading: str) -> Figure:
    """`counts` [true][predicted]; colour is the share of the row, the numbers are counts."""
    counts = np.asarray(counts)
    rows = counts.sum(axis=1)
    shares = counts / np.maximum(rows, 1)[:, None]
    right, total = int(np.trace(counts)), int(counts.sum())
    accuracy = proportion(np.arange(total) < right)
    figure = canvas(
        4.95, f"{heading}: {format_number(accuracy.value, 'share')} right, n = {total}", 6.8
    )
    ax = figure.add_subplot()
    seaborn.heatmap(
        shares, vmin=0, vmax=1, cmap="gray_r", square=True, ax=ax,
        annot=np.where(counts, counts.astype(str), ""), fmt="",
        yticklabels=[f"{k}  (n = {n})" for k, n in enumerate(rows)],
        cbar_kws={"shrink": 0.8, "label": "share of the row", "format": "{x:.0%}"},
    )  # fmt: skip
    for row, column in np.argwhere(counts):
        if row != column:
            corner = (column + 0.04, row + 0.04)
            ax.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, ec=VERMILLION, lw=1.3))
    ax.set(xlabel="read as (framed: mistakes)", ylabel="is really")
    ax.tick_params(length=0, rotation=0)
    ax.spines[:].set(visible=True, color=PALE)
    off = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    worst = [np.unravel_index(i, off.shape) for i in np.argsort(-off, axis=None, kind="stable")[:3]]
    told = [f"{true} read as {guess} ({off[true, guess]} of {rows[true]})"
            for true, guess in worst if off[true, guess]]  # fmt: skip
    return finish(
        figure,
        f"{heading}. Confusion matrix of {len(counts)} classes, {accuracy}: {total - right} "
        "mistakes.",
        f"Most frequent: {listed(told)}." if told else "",
    )


@styled
def plot_next_tokens(table: Sequence, heading: str = "What comes next?") -> Figure:
    """The likeliest next tokens with their probabilities, from `sampling.next_token_table`."""
    tokens, chances = [line.token for line in table], [line.probability for line in table]
    rest = max(0.0, 1 - sum(chances))
    above = f"{heading} (n = {len(tokens)} likeliest tokens)"
    figure = canvas(0.6 + 0.29 * (len(tokens) + 1), above, 7)
    ax = figure.add_subplot()
    places = np.arange(len(tokens) + 1)
    bars = ax.barh(places, [*chances, rest], color=[BLUE] * len(tokens) + ["white"], height=0.72)
    bars[-1].set(hatch="////", edgecolor=GREY)
    ax.bar_label(bars, [f"{chance:.1%}" for chance in (*chances, rest)], padding=4)
    ax.set_yticks(places, [*tokens, "all others"], fontfamily="DejaVu Sans Mono")
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * max(*chances, rest))
    ax.xaxis.set_major_formatter(lambda share, _: f"{share * 100:g}%")
    ax.set_xlabel("probability")
    ax.tick_params(axis="y", length=0)
    told = [f"{token} {chance:.1%}" for token, chance in zip(tokens[:5], chances, strict=False)]
    return finish(
        figure,
        f"{heading.rstrip('?.')}: bars of the n = {len(tokens)} likeliest next tokens; first "
        f"{listed(told)}. All other tokens together: {rest:.1%}.",
    )


@styled
def plot_accuracy_by_class(
    series: Mapping[str, Mapping[str, Numbers]],
    heading: str = "Class by class",
    label: str = "share right",
) -> Figure:
    """For each name a row of shares with intervals, one a class."""
    classes = sorted({k for shares in series.values() for k in shares}, key=int)
    everything = [as_estimate(e) for shares in series.values() for e in shares.values()]
    figure = canvas(3.8, heading)
    ax = figure.add_subplot()
    step = 0.62 / max(1, len(series))
    told = []
    for j, ((name, shares), (colour, marker, _)) in enumerate(zip(series.items(), cycle(SERIES))):
        found = {int(k): as_estimate(e) for k, e in shares.items()}
        at = np.array([classes.index(str(k)) for k in found]) + (j - (len(series) - 1) / 2) * step
        ax.vlines(at, [e.low for e in found.values()], [e.high for e in found.values()],
                  color=colour, lw=1.6)  # fmt: skip
        ax.plot(at, [e.value for e in found.values()], marker, color=colour, ms=6, label=name)
        worst = min(found, key=lambda k: found[k].value)
        told.append(f"{name}: lowest for class {worst}, {found[worst]}.")
    ax.set_xticks(range(len(classes)), classes)
    ax.set_xlabel(f"class  ·  {format_n(everything)} a class, bars: 95 % intervals")
    ax.set_ylabel(label)
    ax.set_ylim(top=1.02)
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.grid(axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3)
    return finish(
        figure,
        f"{heading}: {label} for each of {len(classes)} classes, {format_n(everything)}.",
        *told,
    )


@styled
def plot_reliability(series: Mapping[str, Sequence[Mapping]], heading: str) -> Figure:
    """For each route how often it is right against how sure it is, with the images below.

    `series` holds for each route its bins: {"low", "high", "n", "confidence", "accuracy"}, the
    accuracy an Estimate or what a metrics file holds of it. Bins without images may be missing.
    A marker is filled where its 95 % interval misses the diagonal.
    """
    found = {name: [b for b in bins if b.get("n")] for name, bins in series.items()}
    figure = canvas(4.3, heading, 3.0 * len(found) if len(found) > 1 else 5.0)
    panels = figure.subplots(
        2, len(found), sharex=True, sharey="row", height_ratios=[3.4, 1], squeeze=False
    )
    figure.get_layout_engine().set(w_pad=0.09)
    said = []
    for column, ((name, bins), (colour, marker, _)) in enumerate(zip(found.items(), cycle(SERIES))):
        n = sum(b["n"] for b in bins)
        panels[0, column].set_title(textwrap.fill(name, 27), pad=20)
        panels[0, column].annotate(f"n = {n:,}", (0, 1), (0, 7), xycoords="axes fraction",
                                   textcoords="offset points", fontsize=SMALL)  # fmt: skip
        off = _reliability_panel(panels[0, column], bins, colour, marker)
        _images_panel(panels[1, column], bins, colour, 30 // len(found))
        said.append(_reliability_words(name, bins, off, n))
    panels[0, 0].set_ylabel("share right")
    panels[1, 0].set_ylabel("images")
    legend = "confidence  ·  bars: 95 % intervals, filled where they miss the line"
    figure.supxlabel("\n".join(textwrap.wrap(legend, 50 * len(found))), fontsize=SMALL)
    return finish(
        figure,
        f"{heading}: share right against confidence, bin by bin; on the diagonal a route is as "
        "sure as right.",
        *said,
    )


def _reliability_panel(ax: Axes, bins: Sequence[Mapping], colour: str, marker: str) -> list[int]:
    """Draws the bins; gives back which of them lie off the diagonal with their whole interval."""
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1.2)
    ax.annotate("as sure as right", (1, 1), (0, 7), xycoords="axes fraction", ha="right",
                textcoords="offset points", fontsize=SMALL)  # fmt: skip
    off = []
    for i, b in enumerate(bins):
        e, sure = as_estimate(b["accuracy"]), b["confidence"]
        low, high = e.ends
        missed = e.has_interval and not low <= sure <= high
        off += [i] * missed
        ax.plot([sure, sure], [low, high], color=colour, lw=1.8)
        ax.plot(sure, e.value, marker, color=colour, ms=7, mfc=colour if missed else "white",
                mew=1.6)  # fmt: skip
    ax.set(xlim=(0, 1.02), ylim=(-0.05, 1.05), xticks=[0, 0.25, 0.5, 0.75, 1])
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
    ax.yaxis.set_major_formatter(in_percent)
    ax.grid()
    ax.set_axisbelow(True)
    return off


def _images_panel(ax: Axes, bins: Sequence[Mapping], colour: str, widest: int) -> None:
    most = max((b["n"] for b in bins), default=1)
    upright = len(bins) * len(f"{most:,}") <= widest
    for b in bins:
        ax.bar(b["low"], b["n"], b["high"] - b["low"], align="edge", fc=colour, ec="white",
               alpha=0.75)  # fmt: skip
        ax.text((b["low"] + b["high"]) / 2, b["n"] + 0.05 * most, f"{b['n']:,}", ha="center",
                va="bottom", fontsize=SMALL, rotation=0 if upright else 90)  # fmt: skip
    ax.set(ylim=(0, ax.get_ylim()[1]), yticks=[])
    ax.set_ylim(top=max(ax.get_ylim()[1], most * (1.4 if upright else 1.8)))
    ax.xaxis.set_major_formatter(in_percent)


def _reliability_words(name: str, bins: Sequence[Mapping], off: Sequence[int], n: int) -> str:
    if not bins:
        return f"{name}: no images (n = 0)."
    top = bins[-1]
    said = (
        f"{name}, n = {n:,}: {len(bins)} bins with images; where it is surest "
        f"({top['confidence']:.1%} on average), right {as_estimate(top['accuracy'])}."
    )
    if not off:
        return f"{said} No bin's interval misses the diagonal."
    worst = max(
        off, key=lambda i: abs(as_estimate(bins[i]["accuracy"]).value - bins[i]["confidence"])
    )
    sure, e = bins[worst]["confidence"], as_estimate(bins[worst]["accuracy"])
    many = "1 bin misses" if len(off) == 1 else f"{len(off)} bins miss"
    return (
        f"{said} {many} the diagonal, furthest the one in which it is {sure:.1%} sure: right {e}, "
        f"so it is too {'sure' if sure > e.value else 'modest'} there."
    )
