"""Figures of the notebook of common bugs: the bugs, and a source of known entropy."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Numbers, as_estimate, format_n, format_number
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots import style
from seqlm.plots.style import canvas, draw_estimates, finish, label_at_right, styled

CLOSE = 0.01  # nats per code: a gap to the entropy that counts as reached


@styled
def plot_traps(traps: Sequence[Mapping], heading: str) -> Figure:
    """For each trap the number that it reports, the true one, and the difference.

    `traps` are {"name", "quantity", "reported", "true"}; those of one unit share a panel: shares,
    better when high, on an axis in percent, all others, better when low, on a logarithmic one.
    """
    rows = [
        {**t, "reported": as_estimate(t["reported"]), "true": as_estimate(t["true"])} for t in traps
    ]
    panels: dict[str, list[dict]] = {}
    for row in rows:
        panels.setdefault(row["true"].unit, []).append(row)
    heights = [0.85 + 0.5 * len(members) for members in panels.values()]
    figure = canvas(sum(heights), heading)
    figure.get_layout_engine().set(h_pad=0.1)
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, members in zip(axes, panels.values(), strict=True):
        _draw_traps(ax, members)
    sentences = [
        f"{row['name']}: {row['quantity']} reported {row['reported'].format()}, true "
        f"{row['true'].format()}, {_verdict(row)}."
        for row in rows
    ]
    n = format_n([row[which] for row in rows for which in ("reported", "true")])
    start = f"{heading}: reported (open) and true (filled) numbers of {len(rows)} traps"
    return finish(figure, f"{start}, {n}, 95 % intervals.", *sentences)


def _verdict(row: Mapping) -> str:
    """How far a reported number is off: "24.3 times too good", "12.0 points too bad"."""
    reported, true = row["reported"], row["true"]
    gap = reported.value - true.value
    if format_number(reported.value, true.unit) == true.format_value():
        return "the same"
    kind = "too good" if (gap < 0) == (true.unit != "share") else "too bad"
    if true.unit == "share":
        return f"{abs(gap) * 100:.1f} points {kind}"
    ratio = max(reported.value, true.value) / min(reported.value, true.value)
    return f"{f'{ratio:,.0f}' if ratio >= 100 else f'{ratio:.3g}'} times {kind}"


def _draw_traps(ax: Axes, rows: Sequence[Mapping]) -> None:
    numbers = [row[which] for row in rows for which in ("reported", "true")]
    ends = np.array([e.ends for e in numbers])
    shares = all(e.unit == "share" for e in numbers)
    scale, back = (np.asarray, np.asarray) if shares else (np.log, np.exp)
    left, right = scale(ends.min()), scale(ends.max())
    room = 0.27 * (right - left) or 0.5  # for the numbers beside the markers
    ax.set(xlim=back([left - room, right + room]), ylim=(len(rows) - 0.5, -0.75))
    if shares:
        ax.xaxis.set_major_formatter(style.percent)
    else:
        style.log_x_axis(ax, lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}")
    for y, row in enumerate(rows):
        _draw_trap(ax, y, row)
    one = len({row["quantity"] for row in rows}) == 1
    names = [row["name"] if one else f"{row['name']} ({row['quantity']})" for row in rows]
    style.name_rows(ax, [textwrap.fill(name, 30) for name in names])
    title = rows[0]["quantity"] if one else rows[0]["true"].unit
    ax.set_title(f"{title}  ({'higher' if shares else 'lower'} is better)", fontweight="bold")
    label = f"{format_n(numbers)}, {'' if shares else 'logarithmic axis, '}bars: 95 % intervals"
    ax.set_xlabel(label, fontsize=style.SMALL, loc="left")


def _draw_trap(ax: Axes, y: int, row: Mapping) -> None:
    """An arrow from the open marker to the filled one, with their numbers on the outside."""
    reported, true = row["reported"], row["true"]
    arrow = {"arrowstyle": "-|>", "color": style.GREY, "lw": 1.4, "shrinkA": 6, "shrinkB": 4}
    ax.annotate("", (true.value, y), (reported.value, y), arrowprops=arrow, zorder=1)
    true_right = true.value >= reported.value
    draw_estimates(ax, [y], [reported], style.VERMILLION, "o", across=True, ms=10)
    draw_estimates(ax, [y], [true], style.BLUE, "D", across=True, filled=True, zorder=4)
    for name, e, right in (("reported", reported, not true_right), ("true", true, true_right)):
        side = 1 if right else -1
        spot = {"textcoords": "offset points", "ha": "left" if right else "right"}
        ax.annotate(e.format_value(), (e.ends[right], y), (10 * side, 0), va="center",
                    fontweight="bold" if name == "true" else None, **spot)  # fmt: skip
        if y == 0:
            spot["fontsize"] = style.SMALL
            ax.annotate(name, (e.value, y), (2 * side, 9), va="bottom", **spot)
    ax.text(1.015, y, _verdict(row), transform=ax.get_yaxis_transform(), va="center",
            fontweight="bold")  # fmt: skip


@styled
def plot_gap_to_entropy(
    points: Sequence[Mapping],
    entropy: Numbers,
    baselines: Mapping[str, float],
    heading: str,
    n: int,
) -> Figure:
    """How far the NLL of a model lies above a source of known entropy, by tokens seen.

    `points` are {"tokens", "nll"} in nats per code, `baselines` name -> nats per code, `n` the
    number of sequences. `entropy` is the NLL of the source itself on these sequences.
    """
    entropy = as_estimate(entropy)
    points = sorted((p for p in points if p["nll"] is not None), key=lambda p: p["tokens"])
    tokens, nats = np.array([(p["tokens"], p["nll"]) for p in points if p["tokens"] > 0]).T
    gaps = nats - entropy.value
    figure = canvas(4.2, f"{heading} (n = {n:,} sequences)")
    ax = figure.add_subplot()
    ax.axhline(0, color=style.INK, lw=2.6)
    ax.axhline(CLOSE, color=style.VERMILLION, ls="--", lw=1.4)
    above = {
        f"{baseline_name(k)} {nats:.3f}": nats - entropy.value for k, nats in baselines.items()
    }
    for gap in above.values():
        ax.axhline(gap, **style.DASHED)
    ax.plot(tokens, gaps, color=style.BLUE, marker="o", ms=5, lw=1.8, mfc="white")
    # Logarithmic beyond CLOSE and linear below it, where a gap may also be negative.
    ax.set_yscale("symlog", linthresh=CLOSE, subs=range(2, 10))
    ax.set(ylim=(1.5 * min([-CLOSE / 2, *gaps]), 2 * max([CLOSE, *above.values(), *gaps])))
    ax.set(ylabel="nats per code above the source", xlabel="tokens seen (both axes logarithmic)")
    ax.yaxis.set_major_formatter("{x:g}")
    style.log_x_axis(ax)
    ax.grid(axis="y")
    labels = [(None, gap, f"baseline: {name}", None) for name, gap in above.items()]
    labels.append((None, CLOSE, f"{CLOSE:g} nats", None))
    labels.append((None, 0, f"source {entropy.value:.3f}", "bold"))
    label_at_right(ax, [*labels, (tokens[-1], gaps[-1], f"model {nats[-1]:.3f}", "bold")])
    close = tokens[np.abs(gaps) <= CLOSE]
    reached = f"first after {close[0]:,.0f} tokens" if len(close) else "never"
    return finish(
        figure,
        f"{heading}: nats per code by tokens seen, n = {n:,} sequences. Model {nats[0]:.3f} to "
        f"{nats[-1]:.3f} after {tokens[-1]:,.0f} tokens; source {entropy.format()}. "
        f"Gap {gaps[-1]:+.4f}; within {CLOSE:g}: {reached}.",
        f"Baselines (dashed): {', '.join(above)}." if above else "",
    )
