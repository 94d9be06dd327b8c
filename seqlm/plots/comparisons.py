"""Figures that compare models with baselines, or their differences with zero."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Estimate, Numbers, as_estimate, format_n
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots import style
from seqlm.plots.style import canvas, draw_estimates, finish, name_rows, styled


@styled
def plot_baselines(
    estimates: Mapping[str, Numbers],
    heading: str,
    unit: str,
    highlighted: Sequence[str] | None = None,
) -> Figure:
    """Estimates with intervals, best on top; the `highlighted`, by default the first, stand out.

    `unit` labels the axis. Estimates whose unit is "share" get an axis in percent; zero gets a line
    where some are below it and some above.
    """
    figure = canvas(0.75 + 0.33 * len(estimates), heading)
    highlighted = list(estimates)[:1] if highlighted is None else highlighted
    words = draw_ranking(figure.add_subplot(), estimates, highlighted, unit)
    return finish(figure, f"{heading}, {words}")


def _off_axis(estimates: Sequence[Estimate]) -> int | None:
    """The one estimate so far below all others that drawing it to scale would hide them."""
    if len(estimates) < 3:
        return None
    lowest = min(range(len(estimates)), key=lambda i: estimates[i].value)
    others = [e for i, e in enumerate(estimates) if i != lowest]
    left, right = min(e.ends[0] for e in others), max(e.ends[1] for e in others)
    return lowest if left - estimates[lowest].high > 1.5 * (right - left) else None


def draw_ranking(
    ax: Axes, estimates: Mapping[str, Numbers], highlighted: Sequence[str], label: str
) -> str:
    """What `plot_baselines` draws, in `ax`; returns the numbers in words.

    Shares are better when high, everything else when low. One that lies far off is an arrow at the
    edge, with its number. What stands out is blue and a filled diamond, all else grey and open.
    """
    numbers = [as_estimate(e) for e in estimates.values()]
    shares = all(e.unit == "share" for e in numbers)
    bold = [name in highlighted for name in estimates]
    names = [f"{'◆ ' * (name in highlighted)}{baseline_name(name)}" for name in estimates]
    order = sorted(range(len(names)), key=lambda i: numbers[i].value, reverse=not shares)
    off = _off_axis(numbers)
    shown = [e for i, e in enumerate(numbers) if i != off]
    left, right = min(e.ends[0] for e in shown), max(e.ends[1] for e in shown)
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
            look = (style.BLUE, "D") if bold[i] else (style.GREY, "o")
            draw_estimates(ax, [y], [numbers[i]], *look, filled=bold[i], across=True)
        ax.text(1.015, y, numbers[i].format(), transform=ax.get_yaxis_transform(), va="center",
                fontsize=style.SMALL, fontweight=weight)  # fmt: skip
    ax.locator_params(axis="x", nbins=8)
    if shares:
        right = min(right, 1.004)
        ax.xaxis.set_major_formatter(style.percent)
    if left < 0 < right:
        ax.axvline(0, color=style.INK, lw=1.2, zorder=1)
    ax.set(xlim=(left, right), ylim=(-0.6, len(names) - 0.4))
    ax.set_xlabel(
        f"{label}  ·  {format_n(numbers)}, bars: 95 % intervals", fontsize=style.SMALL, loc="left"
    )
    words = [f"{names[i]} {numbers[i].format()}" for i in reversed(order)]
    return f"{format_n(numbers)}, 95 % intervals, from the top: {'; '.join(words)}."
