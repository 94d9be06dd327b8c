"""Figures of the laboratory: few labels, bugs in an evaluation, a source of known entropy."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from seqlm.evaluation.estimates import Numbers, as_estimate, format_n, format_number
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots.comparisons import in_percent
from seqlm.plots.style import (
    BLUE,
    DASHED,
    GREY,
    INK,
    ORANGE,
    SERIES,
    SMALL,
    VERMILLION,
    canvas,
    finish,
    finite,
    label_at_right,
    listed,
    log_axis,
    log_ticks,
    styled,
)

CHANCE = 0.1  # ten classes, equally common


def _counted(value: float, _=None) -> str:
    """A count as an axis writes it: "500", "20k", "1.5M"."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


@styled
def plot_label_efficiency(curves: Mapping[str, Mapping[str, Mapping]], heading: str) -> Figure:
    """Accuracy against labelled images a class, for each route.

    `curves` holds for each route and each size ("1", "2", … "all") {"mean": Estimate, "runs":
    [Estimate, …], "labelled": n}, one run a seed, n labelled images in all of the ten classes.
    """
    routes = {name: _sizes(found) for name, found in curves.items()}
    means = [as_estimate(cell["mean"]) for found in routes.values() for _, cell in found.values()]
    seeds = [len(cell.get("runs") or []) for found in routes.values() for _, cell in found.values()]
    figure = canvas(4.5, heading)
    ax = figure.add_subplot()
    ticks: dict[float, str] = {}
    labels: list[tuple] = [(None, CHANCE, f"chance: {CHANCE:.0%}", None)]
    ax.axhline(CHANCE, **DASHED)
    for j, ((name, found), look) in enumerate(zip(routes.items(), cycle(SERIES))):
        ticks |= {x: f"all ({x:.0f})" if size == "all" else size for size, (x, _) in found.items()}
        aside = 1.09 ** (j - (len(routes) - 1) / 2)  # so that bars at one size stand side by side
        x, last = _route(ax, found, look, aside)
        words = textwrap.fill(f"{name} {format_number(last.value, 'share')}", 24)
        labels.append((x, last.value, words, "bold"))
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(sorted(ticks), [ticks[x] for x in sorted(ticks)])
    ax.set(ylim=(0, 1.02), ylabel="share right")
    ax.yaxis.set_major_formatter(in_percent)
    ax.grid(axis="y")
    label_at_right(ax, labels, 0.115)
    many = f"means of {max(seeds)} seeds (small dots)" if max(seeds) else "one run each"
    ax.set_xlabel(f"labelled images a class (logarithmic)  ·  {format_n(means)}, {many}, "
                  "bars: 95 % intervals", fontsize=SMALL, loc="left")  # fmt: skip
    return finish(figure, f"{heading}: share right against labelled images a class, {format_n(means)}, "
                  f"{many.replace(' (small dots)', '')}; chance is {CHANCE:.0%}.",
                  *_label_words(routes))  # fmt: skip


def _sizes(found: Mapping[str, Mapping]) -> dict[str, tuple[float, Mapping]]:
    """The sizes that were measured, smallest first, each with its place on the axis."""
    places = {k: cell["labelled"] * CHANCE if k == "all" else float(k)
              for k, cell in found.items() if cell and cell.get("mean")}  # fmt: skip
    return {k: (places[k], found[k]) for k in sorted(places, key=places.get)}


def _route(ax: Axes, found: Mapping, look: tuple, aside: float) -> tuple:
    """One route's line, bars and dots; gives back where its line ends."""
    colour, marker, line = look
    means = [as_estimate(cell["mean"]) for _, cell in found.values()]
    at = np.array([x for x, _ in found.values()]) * aside
    for x, e, (_, cell) in zip(at, means, found.values(), strict=True):
        runs = [as_estimate(run).value for run in cell.get("runs") or []]
        ax.plot([x * 1.04] * len(runs), runs, ".", color=colour, ms=4.5, mew=0)
        ax.plot([x, x], e.ends, color=colour, lw=1.6)
    ax.plot(at, [e.value for e in means], marker=marker, ls=line, color=colour, ms=6.5, lw=1.8,
            mfc="white", mew=1.6)  # fmt: skip
    return at[-1], means[-1]


def _label_words(routes: Mapping[str, Mapping]) -> list[str]:
    said = []
    for name, found in routes.items():
        cells = [f"{as_estimate(cell['mean']).format()} with {k}" for k, (_, cell) in found.items()]
        said.append(f"{name}, with 95 % intervals: {'; '.join(cells)}.")
    sizes = {size: x for found in routes.values() for size, (x, _) in found.items()}
    for size in sorted(sizes, key=sizes.get) if len(routes) > 1 else []:
        shares = {n: as_estimate(f[size][1]["mean"]).value for n, f in routes.items() if size in f}
        first, *others = sorted(shares, key=shares.get, reverse=True)
        if others:
            lead = 100 * (shares[first] - shares[others[0]])
            said.append(f"With {size}, {first} leads by {lead:.1f} points.")
    return said


@styled
def plot_traps(traps: Sequence[Mapping], heading: str) -> Figure:
    """For each trap the number it reports, the true one, and how far the one is from the other.

    `traps` are {"name", "quantity", "unit", "reported", "true", "better": "low" or "high"}, the
    numbers Estimates or what a metrics file holds of them. Those of one unit share a panel:
    shares on an axis in percent, all others on a logarithmic one.
    """
    rows = [
        {**t, "reported": as_estimate(t["reported"]), "true": as_estimate(t["true"])} for t in traps
    ]
    panels: dict[str, list[dict]] = {}
    for row in rows:
        panels.setdefault(row["unit"], []).append(row)
    heights = [0.85 + 0.5 * len(members) for members in panels.values()]
    figure = canvas(sum(heights), heading)
    figure.get_layout_engine().set(h_pad=0.1)
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, members in zip(axes, panels.values(), strict=True):
        _claims_panel(ax, members)
    said = [
        f"{row['name']}: {row['quantity']} reported {row['reported'].format()}, "
        f"true {row['true'].format()}, "
        f"{_verdict(row)}"
        for row in rows
    ]
    everything = [row[which] for row in rows for which in ("reported", "true")]
    return finish(
        figure,
        f"{heading}: for each of {len(rows)} ways to measure wrongly an open marker for the "
        f"number reported and a filled one for the true number, with 95 % intervals, "
        f"{format_n(everything)}.",
        f"{'; '.join(said)}.",
    )


def _verdict(row: Mapping) -> str:
    """How far a claim is from the truth: "24.3 times too good", "12.0 points too bad"."""
    reported, true = row["reported"], row["true"]
    gap = reported.value - true.value
    if format_number(reported.value, true.unit) == true.format_value():
        return "the same"
    kind = "too good" if (gap < 0) == (row["better"] == "low") else "too bad"
    if true.unit == "share":
        return f"{abs(gap) * 100:.1f} points {kind}"
    if "perplexity" in true.unit and min(reported.value, true.value) > 0:
        ratio = max(reported.value, true.value) / min(reported.value, true.value)
        return f"{f'{ratio:,.0f}' if ratio >= 100 else f'{ratio:.3g}'} times {kind}"
    return f"{format_number(abs(gap), '')} {kind}"


def _claims_panel(ax: Axes, rows: Sequence[Mapping]) -> None:
    everything = [row[which] for row in rows for which in ("reported", "true")]
    shares = all(e.unit == "share" for e in everything)
    log = not shares and min(e.ends[0] for e in everything) > 0
    scale, back = (np.log, np.exp) if log else (np.asarray, np.asarray)
    left, right = scale([min(e.ends[0] for e in everything), max(e.ends[1] for e in everything)])
    room = 0.27 * (right - left) or 0.5  # for the numbers beside the markers
    if log:
        ax.set_xscale("log")
        log_ticks(ax, *back([left, right]))
    ax.set(xlim=back([left - room, right + room]), ylim=(len(rows) - 0.5, -0.75))
    for y, row in enumerate(rows):
        _claim(ax, y, row, first=y == 0)
    quantities, ways = ({row[key] for row in rows} for key in ("quantity", "better"))
    one = len(quantities) == 1
    names = [row["name"] if one else f"{row['name']} ({row['quantity']})" for row in rows]
    ax.set_yticks(range(len(rows)), [textwrap.fill(name, 30) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", which="major")
    ax.set_axisbelow(True)
    ax.xaxis.set_major_formatter(in_percent if shares else _plain)
    title = f"{rows[0]['quantity'] if one else rows[0]['unit']}"
    if len(ways) == 1:
        title += f"  ({'lower' if ways == {'low'} else 'higher'} is better)"
    ax.set_title(title, fontweight="bold")
    axis = "logarithmic axis, " if log else ""
    ax.set_xlabel(f"{format_n(everything)}, {axis}bars: 95 % intervals", fontsize=SMALL, loc="left")


def _plain(value: float, _=None) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _claim(ax: Axes, y: int, row: Mapping, first: bool) -> None:
    """One row: an arrow from the open marker to the filled one, their numbers on the outside."""
    reported, true = row["reported"], row["true"]
    arrow = {"arrowstyle": "-|>", "color": GREY, "lw": 1.4, "shrinkA": 6, "shrinkB": 4}
    begin, end = ax.transLimits.transform(ax.transScale.transform(
        [(reported.value, y), (true.value, y)]))[:, 0]  # fmt: skip
    if abs(begin - end) > 0.05:  # a shorter one would be all head
        ax.annotate("", (true.value, y), (reported.value, y), arrowprops=arrow)
    truth_right = true.value >= reported.value
    for which, e, colour, rightmost in (
        ("reported", reported, VERMILLION, not truth_right),
        ("true", true, BLUE, truth_right),
    ):
        low, high = e.ends
        ax.plot([low, high], [y, y], color=colour, lw=2.4, solid_capstyle="butt")
        # The ring lies below the diamond, and is wide enough to show where the two are close.
        style = {"ms": 7, "zorder": 4} if e is true else {"ms": 10, "mfc": "white", "mew": 2}
        ax.plot(e.value, y, "D" if e is true else "o", color=colour, **style)
        spot = {"textcoords": "offset points", "ha": "left" if rightmost else "right"}
        side = 1 if rightmost else -1
        ax.annotate(e.format_value(), (high if rightmost else low, y), (10 * side, 0),
                    va="center", fontweight="bold" if e is true else None, **spot)  # fmt: skip
        if first:
            ax.annotate(which, (e.value, y), (2 * side, 9), fontsize=SMALL,
                        va="bottom", **spot)  # fmt: skip
    ax.text(1.015, y, _verdict(row), transform=ax.get_yaxis_transform(), va="center",
            fontweight="bold")  # fmt: skip


CLOSE = 0.01  # nats per code: so near to the limit counts as reached


@styled
def plot_gap_to_entropy(
    points: Sequence[Mapping],
    limit: Numbers | float,
    baselines: Mapping[str, float],
    heading: str,
    n: int | None = None,
) -> Figure:
    """NLL of a model on a source of known entropy against tokens seen, and its gap to the limit.

    `points` are {"tokens", "nll"} in nats per code, `baselines` name -> nats per code; `n` is the number
    of sequences the NLL was measured on. `limit` is the entropy of the source, or, as an Estimate,
    what the source itself loses on the very same sequences.
    """
    known = as_estimate(limit) if not isinstance(limit, int | float) else None
    true = known.value if known else float(limit)
    points = sorted(points, key=lambda point: point["tokens"])
    tokens, nats = finite([p["tokens"] for p in points], [p["nll"] for p in points])
    rests = f"n = {n:,} sequences" if n else f"n = {len(nats)} evaluation{'s' * (len(nats) != 1)}"
    figure = canvas(4.0, f"{heading} ({rests})")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    _towards_limit(left, tokens, nats, true, known, baselines)
    _gap_panel(right, tokens, nats - true)
    dashed = [f"{baseline_name(name)} {value:.3f}" for name, value in baselines.items()]
    whose = "What the source itself loses on these sequences" if known else "The source's entropy"
    said = f"{whose}, {true:.3f} nats per code, is a bold line"
    said += f" (95 % interval {known.format_interval()}, n = {known.n:,})." if known else "."
    return finish(
        figure,
        f"{heading}: nats per code against tokens seen, {rests}. {said}",
        _gap_words(tokens, nats, true) if len(nats) else "Nothing was measured.",
        f"Baselines, as dashed lines: {listed(dashed)}." if baselines else "",
    )


def _gap_words(tokens: np.ndarray, nats: np.ndarray, true: float) -> str:
    gaps = nats - true
    side = "above" if gaps[-1] >= 0 else "below"
    said = (
        f"The model goes from {nats[0]:.3f} to {nats[-1]:.3f}, {abs(gaps[-1]):.4f} {side} it after "
        f"{tokens[-1]:,.0f} tokens"
    )
    near = np.flatnonzero(np.abs(gaps) <= CLOSE)
    if not len(near):
        return f"{said}; it never comes within {CLOSE:g}."
    return f"{said}; within {CLOSE:g} first after {tokens[near[0]]:,.0f} tokens."


def _towards_limit(
    ax: Axes,
    tokens: np.ndarray,
    nats: np.ndarray,
    true: float,
    known: Numbers | None,
    baselines: Mapping[str, float],
) -> None:
    if known and known.has_interval:
        ax.axhspan(known.low, known.high, color=ORANGE, alpha=0.3, lw=0)
    ax.axhline(true, color=INK, lw=2.6)
    for value in baselines.values():
        ax.axhline(value, **DASHED)
    ax.plot(tokens, nats, color=BLUE, marker="o", ms=5, lw=1.8, mfc="white")
    seen = [true, *nats, *baselines.values()]
    margin = 0.06 * (max(seen) - min(seen)) or 0.05
    ax.set(ylim=(min(seen) - margin, max(seen) + margin), ylabel="nats per code")
    log_axis(ax, "tokens seen")
    limit = "the source itself" if known else "the true limit"
    labels = [(None, true, f"{limit} {true:.3f}", "bold")]
    labels += [
        (None, v, f"baseline: {baseline_name(k)} {v:.3f}", None) for k, v in baselines.items()
    ]
    if len(nats):
        labels.append((tokens[-1], nats[-1], f"the model {nats[-1]:.3f}", "bold"))
    label_at_right(ax, labels)


def _gap_panel(ax: Axes, tokens: np.ndarray, gaps: np.ndarray) -> None:
    """The gap on a logarithmic axis, which has no room for gaps of zero or below: arrows then."""
    above = gaps > 0
    lowest = min([CLOSE, *gaps[above]]) / (2.5 if above.all() else 8)
    ax.set_yscale("log")
    ax.plot(tokens[above], gaps[above], color=BLUE, marker="o", ms=5, lw=1.8, mfc="white")
    ax.plot(tokens[~above], [lowest * 1.25] * (~above).sum(), "v", color=VERMILLION, ms=7)
    if not above.all():
        ax.text(0.03, 0.03, "▼ at or below the limit", transform=ax.transAxes, fontsize=SMALL)
    if len(gaps) and gaps[-1] > 0:
        ax.annotate(f"{gaps[-1]:.4f}", (tokens[-1], gaps[-1]), (3, -8), va="top", ha="right",
                    textcoords="offset points", fontweight="bold", fontsize=SMALL)  # fmt: skip
    ax.axhline(CLOSE, color=VERMILLION, ls="--", lw=1.4)
    ax.annotate(f"{CLOSE:g} nats: close enough", (0.02, CLOSE), (0, 3), fontsize=SMALL,
                xycoords=ax.get_yaxis_transform(), textcoords="offset points")  # fmt: skip
    ax.set_ylim(lowest, 2 * max([CLOSE, *gaps]))
    ax.set_title("the gap to the limit, nats per code")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: "")
    log_axis(ax, "tokens seen")
