"""Figures of trust: is a route as sure as it is right, is one model really the better?"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Estimate
from seqlm.plots.style import (
    BLUE,
    GREY,
    INK,
    SERIES,
    SMALL,
    canvas,
    estimate,
    finish,
    interval,
    listed,
    n_of,
    short,
    styled,
)


def ends(e: Estimate) -> tuple[float, float]:
    """Where its bar begins and ends; a number without an interval gets a bar of no length."""
    return (e.low, e.high) if e.has_interval else (e.value, e.value)


def told(e: Estimate) -> str:
    """A number with its interval in brackets: "96.9% (94.6% to 98.3%)"."""
    return f"{short(e.value, e.unit)} ({interval(e)})"


def in_percent(value: float, _=None) -> str:
    """What an axis of shares writes: "95%"; nothing where no share can be."""
    return f"{value * 100:g}%" if -1e-9 <= value <= 1 + 1e-9 else ""


# --- as sure as right -----------------------------------------------------------------------------


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
        e, sure = estimate(b["accuracy"]), b["confidence"]
        low, high = ends(e)
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
        f"({top['confidence']:.1%} on average), right {estimate(top['accuracy'])}."
    )
    if not off:
        return f"{said} No bin's interval misses the diagonal."
    worst = max(off, key=lambda i: abs(estimate(bins[i]["accuracy"]).value - bins[i]["confidence"]))
    sure, e = bins[worst]["confidence"], estimate(bins[worst]["accuracy"])
    many = "1 bin misses" if len(off) == 1 else f"{len(off)} bins miss"
    return (
        f"{said} {many} the diagonal, furthest the one in which it is {sure:.1%} sure: right {e}, "
        f"so it is too {'sure' if sure > e.value else 'modest'} there."
    )


# --- is the difference real? ----------------------------------------------------------------------


@styled
def plot_comparisons(comparisons: Sequence[Mapping], heading: str) -> Figure:
    """Differences between models, the first minus the second, with intervals around zero.

    `comparisons` are {"a", "b", "difference": Estimate, "p_value", "real": bool}; those of one
    unit share a panel. Real ones are filled and named so.
    """
    rows = [{**c, "difference": estimate(c["difference"])} for c in comparisons]
    panels: dict[str, list[dict]] = {}
    for row in rows:
        names = textwrap.wrap(row["a"], 32) + textwrap.wrap(f"against {row['b']}", 32)
        row["names"] = "\n".join(names)
        panels.setdefault(row["difference"].unit, []).append(row)
    lines = [[max(2, row["names"].count("\n") + 1) for row in p] for p in panels.values()]
    heights = [0.75 + sum(0.17 * many + 0.14 for many in panel) for panel in lines]
    figure = canvas(sum(heights), heading)
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, members, many in zip(axes, panels.values(), lines, strict=True):
        _differences_panel(ax, members, np.array(many))
    real = [row for row in rows if row["real"]]
    said = [f"{r['a']} against {r['b']}: {_gap(r)}, {_reality(r)}" for r in rows]
    many = "1 difference" if len(rows) == 1 else f"{len(rows)} differences"
    named = listed([f"{r['a']} against {r['b']}" for r in real]) if real else "none"
    return finish(
        figure,
        f"{heading}: {many}, the first minus the second, with 95 % intervals around a line at zero "
        f"that means no difference, {n_of([row['difference'] for row in rows])}.",
        f"Real: {named}. {'; '.join(said)}.",
    )


def _scale(unit: str) -> tuple[float, str]:
    return (100, "points") if unit == "share" else (1, unit)


def _gap(row: Mapping, unit: bool = True) -> str:
    """The difference and its interval: "+1.4 points (+0.2 to +2.6)"."""
    e, (times, word) = row["difference"], _scale(row["difference"].unit)
    form = "+.1f" if word == "points" else "+.3f"
    around = f"{e.low * times:{form}} to {e.high * times:{form}}"
    around = around if e.has_interval else interval(e)
    return f"{e.value * times:{form}}{f' {word}' * unit} ({around})"


def _reality(row: Mapping) -> str:
    p = row["p_value"]
    said = "p unknown" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{'real' if row['real'] else 'may be chance'}, {said}"


def _differences_panel(ax: Axes, rows: Sequence[Mapping], lines: np.ndarray) -> None:
    size = 0.17 * lines + 0.14  # inches a row: names of many lines need more
    places = np.cumsum(size) - size / 2
    unit = rows[0]["difference"].unit
    times, word = _scale(unit)
    for y, row in zip(places, rows, strict=True):
        e, colour = row["difference"], BLUE if row["real"] else GREY
        ax.plot(ends(e), [y, y], color=colour, lw=2.6 if row["real"] else 1.5)
        ax.plot(e.value, y, "D" if row["real"] else "o", ms=7.5, color=colour, mew=1.6,
                mfc=colour if row["real"] else "white")  # fmt: skip
        ax.text(1.02, y, f"{_gap(row, unit=False)}\n{_reality(row)}",
                transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL,
                fontweight="bold" if row["real"] else None)  # fmt: skip
    ax.axvline(0, color=INK, lw=1.2, zorder=1)
    ax.annotate("no difference", (0, 1), (0, 3), xycoords=ax.get_xaxis_transform(), ha="center",
                textcoords="offset points", va="bottom", fontsize=SMALL)  # fmt: skip
    reach = 1.12 * max((abs(end) for r in rows for end in ends(r["difference"])), default=1) or 1
    ax.set(xlim=(-reach, reach), ylim=(size.sum(), 0))
    ax.set_yticks(places, [row["names"] for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    ax.locator_params(axis="x", nbins=6)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value * times:+g}" if value else "0")
    better = "right" if unit == "share" else "left"
    ax.set_xlabel(
        f"the first minus the second, in {word}: {better} of the line the first is better\n"
        f"{n_of([r['difference'] for r in rows])}, bars: 95 % intervals", fontsize=SMALL,
    )  # fmt: skip
