"""Dots with their intervals, one below the other: a model among the baselines and rivals it meets."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Estimate
from seqlm.plots.style import (
    BLUE,
    GREY,
    SMALL,
    Numbers,
    canvas,
    estimate,
    finish,
    in_plain,
    interval,
    n_of,
    short,
    styled,
)


@styled
def plot_baselines(
    names: Sequence[str],
    estimates: Sequence[Numbers],
    heading: str,
    unit: str,
    ours: Sequence[str] | None = None,
) -> Figure:
    """Dots with intervals, best on top. `ours`, by default the first of `names`, stand out.

    `unit` labels the axis. Estimates whose unit is "share" get an axis in percent.
    """
    numbers = [estimate(e) for e in estimates]
    ours = [in_plain(name) for name in ([names[0]] if ours is None else ours)]
    names = [in_plain(name) for name in names]
    figure = canvas(0.75 + 0.33 * len(names), heading)
    ladder(figure.add_subplot(), names, numbers, ours, unit)
    return finish(figure, f"{heading}.", ladder_words(names, numbers, ours))


def _off_axis(estimates: Sequence[Estimate]) -> int | None:
    """The one estimate so far below all others that drawing it to scale would hide them."""
    if len(estimates) < 3:
        return None
    lowest = min(range(len(estimates)), key=lambda i: estimates[i].value)
    others = [e for i, e in enumerate(estimates) if i != lowest]
    left, right = min(e.low for e in others), max(e.high for e in others)
    return lowest if left - estimates[lowest].high > 1.5 * (right - left) else None


def ladder(
    ax: Axes, names: Sequence[str], estimates: Sequence[Estimate], ours: Sequence[str], label: str
) -> None:
    """Dots with their 95 % intervals, one below the other, the best on top.

    Shares are better when high, everything else when low. Those in `ours` get a filled diamond
    and a bold name. One that lies far off is drawn as an arrow at the edge, with its number.
    """
    shares = all(e.unit == "share" for e in estimates)
    order = sorted(range(len(names)), key=lambda i: estimates[i].value, reverse=not shares)
    off = _off_axis(estimates)
    seen = [e for i, e in enumerate(estimates) if i != off]
    left, right = min(e.low for e in seen), max(e.high for e in seen)
    margin = 0.06 * (right - left) or 0.05
    left, right = left - margin * (1 if off is None else 2.5), right + margin
    if shares:
        right = min(right, 1.004)
    for y, i in enumerate(order):
        e, mine = estimates[i], names[i] in ours
        colour = BLUE if mine else GREY
        if i == off:
            ax.plot(left + margin / 2, y, marker="<", color=colour, ms=7, ls="none")
            ax.annotate("off the axis", (left + margin / 2, y), (9, 0), textcoords="offset points",
                        va="center", fontsize=SMALL, color=GREY)  # fmt: skip
        else:
            ax.plot([e.low, e.high], [y, y], color=colour, lw=2.6 if mine else 1.5)
            face = colour if mine else "white"
            ax.plot(e.value, y, marker="D" if mine else "o", ms=7, color=colour, mfc=face, mew=1.5)
        ax.text(
            1.015, y, f"{short(e.value, e.unit)}  ({interval(e)})", fontsize=SMALL,
            va="center", transform=ax.get_yaxis_transform(), fontweight="bold" if mine else None,
        )  # fmt: skip
    ax.set(xlim=(left, right), ylim=(-0.6, len(order) - 0.4))
    marks = [f"◆ {names[i]}" if names[i] in ours else names[i] for i in order]
    ax.set_yticks(range(len(order)), marks)
    for tick, i in zip(ax.get_yticklabels(), order, strict=True):
        tick.set_fontweight("bold" if names[i] in ours else "normal")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    ax.locator_params(axis="x", nbins=8)
    if shares:
        ax.xaxis.set_major_formatter(lambda share, _: f"{share * 100:g}%")
    ax.set_xlabel(
        f"{label}  ·  {n_of(estimates)}, bars: 95 % intervals", fontsize=SMALL, loc="left"
    )


def ladder_words(
    names: Sequence[str], numbers: Sequence[Estimate], ours: Sequence[str], brief: bool = False
) -> str:
    """The same in words, best first; `brief` leaves the intervals out."""
    shares = all(e.unit == "share" for e in numbers)
    order = sorted(range(len(names)), key=lambda i: numbers[i].value, reverse=shares)
    told = []
    for i in order:
        words = short(numbers[i].value, numbers[i].unit) if brief else numbers[i]
        told.append(f"{names[i]}{' (ours)' * (names[i] in ours)} {words}")
    return f"Dots with 95 % intervals, {n_of(numbers)}, best first: {'; '.join(told)}."
