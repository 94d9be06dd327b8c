"""Figures that compare models: with baselines, and in pairs."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Estimate, Numbers, as_estimate, format_n
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots import style
from seqlm.plots.style import canvas, draw_estimates, finish, name_rows, styled


def _look(highlighted: bool) -> dict:
    """What stands out is blue and a filled diamond, all else grey and an open circle."""
    colour, marker = (style.BLUE, "D") if highlighted else (style.GREY, "o")
    return {"colour": colour, "marker": marker, "filled": highlighted, "across": True}


@styled
def plot_baselines(
    estimates: Mapping[str, Numbers], heading: str, unit: str, highlighted: Sequence[str] = ()
) -> Figure:
    """Estimates with intervals, best on top; the `highlighted`, by default the first, stand out.

    `unit` labels the axis. Estimates whose unit is "share" get an axis in percent.
    """
    figure = canvas(0.75 + 0.33 * len(estimates), heading)
    highlighted = highlighted or list(estimates)[:1]
    words = draw_ranking(figure.add_subplot(), estimates, highlighted, unit)
    return finish(figure, f"{heading}, {words}")


def _off_axis(estimates: Sequence[Estimate]) -> int | None:
    """The one estimate so far below all others that drawing it to scale would hide them."""
    if len(estimates) < 3:
        return None
    lowest = min(range(len(estimates)), key=lambda i: estimates[i].value)
    others = [e for i, e in enumerate(estimates) if i != lowest]
    left, right = min(e.low for e in others), max(e.high for e in others)
    return lowest if left - estimates[lowest].high > 1.5 * (right - left) else None


def draw_ranking(
    ax: Axes, estimates: Mapping[str, Numbers], highlighted: Sequence[str], label: str
) -> str:
    """What `plot_baselines` draws, in `ax`; returns the numbers in words.

    Shares are better when high, everything else when low. One that lies far off is an arrow at the
    edge, with its number.
    """
    numbers = [as_estimate(e) for e in estimates.values()]
    shares = all(e.unit == "share" for e in numbers)
    bold = [name in highlighted for name in estimates]
    names = [f"{'◆ ' * (name in highlighted)}{baseline_name(name)}" for name in estimates]
    order = sorted(range(len(names)), key=lambda i: numbers[i].value, reverse=not shares)
    off = _off_axis(numbers)
    shown = [e for i, e in enumerate(numbers) if i != off]
    left, right = min(e.low for e in shown), max(e.high for e in shown)
    margin = 0.06 * (right - left) or 0.05
    left, right = left - margin * (1 if off is None else 2.5), right + margin
    name_rows(ax, [names[i] for i in order])
    for y, (i, tick) in enumerate(zip(order, ax.get_yticklabels(), strict=True)):
        weight = "bold" if bold[i] else "normal"
        tick.set_fontweight(weight)
        if i == off:
            ax.plot(left + margin / 2, y, "<", color=style.GREY, ms=7)
            ax.text(left + 1.2 * margin, y, "off the axis", va="center", fontsize=style.SMALL)
        else:
            draw_estimates(ax, [y], [numbers[i]], **_look(bold[i]))
        ax.text(1.015, y, numbers[i].format(), transform=ax.get_yaxis_transform(), va="center",
                fontsize=style.SMALL, fontweight=weight)  # fmt: skip
    ax.locator_params(axis="x", nbins=8)
    if shares:
        right = min(right, 1.004)
        ax.xaxis.set_major_formatter(style.percent)
    ax.set(xlim=(left, right), ylim=(-0.6, len(names) - 0.4))
    ax.set_xlabel(
        f"{label}  ·  {format_n(numbers)}, bars: 95 % intervals", fontsize=style.SMALL, loc="left"
    )
    words = [f"{names[i]} {numbers[i].format()}" for i in reversed(order)]
    return f"{format_n(numbers)}, 95 % intervals, best first: {'; '.join(words)}."


@styled
def plot_comparisons(comparisons: Sequence[Mapping], heading: str) -> Figure:
    """Differences between models, the first minus the second, with 95 % intervals.

    `comparisons` are {"a", "b", "difference": Estimate, "p_value", "real": bool}, "real" where the
    interval excludes zero; those of one unit share a panel.
    """
    rows = [{**c, "difference": as_estimate(c["difference"])} for c in comparisons]
    panels: dict[str, list[dict]] = {}
    for row in rows:
        names = textwrap.wrap(row["a"], 32) + textwrap.wrap(f"against {row['b']}", 32)
        row["names"] = "\n".join(names)
        panels.setdefault(row["difference"].unit, []).append(row)
    highest = 0.14 + 0.17 * max(row["names"].count("\n") + 1 for row in rows)  # inches
    heights = [0.75 + highest * len(members) for members in panels.values()]
    figure = canvas(sum(heights), heading)
    axes = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, members in zip(axes, panels.values(), strict=True):
        _draw_differences(ax, members)
    sentences = [f"{r['a']} against {r['b']}: {_format_gap(r)}, {_verdict(r)}" for r in rows]
    start = f"{heading}: the first model minus the second, with 95 % intervals"
    n = format_n([row["difference"] for row in rows])
    return finish(figure, f"{start}, {n}.", f"{'; '.join(sentences)}.")


def _scale(unit: str) -> tuple[float, str]:
    return (100, "points") if unit == "share" else (1, unit)


def _format_gap(row: Mapping, with_unit: bool = True) -> str:
    """The difference and its interval: "+1.4 points (+0.2 to +2.6)"."""
    e, (factor, unit) = row["difference"], _scale(row["difference"].unit)
    form = "+.1f" if unit == "points" else "+.3f"
    ends = f"{e.low * factor:{form}} to {e.high * factor:{form}}" if e.has_interval else "unknown"
    return f"{e.value * factor:{form}}{f' {unit}' * with_unit} ({ends})"


def _verdict(row: Mapping) -> str:
    p = row["p_value"]
    p_text = "p unknown" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{'' if row['real'] else 'not '}distinguishable, {p_text}"


def _draw_differences(ax: Axes, rows: Sequence[Mapping]) -> None:
    factor, unit = _scale(rows[0]["difference"].unit)
    for y, row in enumerate(rows):
        draw_estimates(ax, [y], [row["difference"]], **_look(row["real"]))
        text = f"{_format_gap(row, with_unit=False)}\n{_verdict(row)}"
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center",
                fontsize=style.SMALL, fontweight="bold" if row["real"] else None)  # fmt: skip
    ax.axvline(0, color=style.INK, lw=1.2, zorder=1)
    ax.annotate("no difference", (0, 1), (0, 3), xycoords=ax.get_xaxis_transform(), ha="center",
                textcoords="offset points", va="bottom", fontsize=style.SMALL)  # fmt: skip
    differences = [row["difference"] for row in rows]
    reach = 1.12 * max(abs(end) for e in differences for end in e.ends) or 1
    ax.set(xlim=(-reach, reach), ylim=(len(rows) - 0.5, -0.5))
    name_rows(ax, [row["names"] for row in rows])
    ax.locator_params(axis="x", nbins=6)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value * factor:+g}" if value else "0")
    better = "right" if unit == "points" else "left"
    ax.set_xlabel(
        f"first minus second, in {unit} ({better} of zero: the first is better)\n"
        f"{format_n(differences)}, bars: 95 % intervals", fontsize=style.SMALL,
    )  # fmt: skip
