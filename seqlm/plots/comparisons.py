"""Figures that compare models: baselines, differences between models, forgetting."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Estimate, Numbers, as_estimate, format_n
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots.style import BLUE, DASHED, GREY, INK, SERIES, SMALL, canvas, finish, listed, styled


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
    numbers = [as_estimate(e) for e in estimates]
    ours = [baseline_name(name) for name in ([names[0]] if ours is None else ours)]
    names = [baseline_name(name) for name in names]
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
            1.015, y, f"{e.format_value()}  ({e.format_interval()})", fontsize=SMALL,
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
        f"{label}  ·  {format_n(estimates)}, bars: 95 % intervals", fontsize=SMALL, loc="left"
    )


def ladder_words(
    names: Sequence[str], numbers: Sequence[Estimate], ours: Sequence[str], brief: bool = False
) -> str:
    """The same in words, best first; `brief` leaves the intervals out."""
    shares = all(e.unit == "share" for e in numbers)
    order = sorted(range(len(names)), key=lambda i: numbers[i].value, reverse=shares)
    told = []
    for i in order:
        words = numbers[i].format_value() if brief else numbers[i]
        told.append(f"{names[i]}{' (ours)' * (names[i] in ours)} {words}")
    return f"Dots with 95 % intervals, {format_n(numbers)}, best first: {'; '.join(told)}."


def in_percent(value: float, _=None) -> str:
    """What an axis of shares writes: "95%"; nothing where no share can be."""
    return f"{value * 100:g}%" if -1e-9 <= value <= 1 + 1e-9 else ""


@styled
def plot_comparisons(comparisons: Sequence[Mapping], heading: str) -> Figure:
    """Differences between models, the first minus the second, with intervals around zero.

    `comparisons` are {"a", "b", "difference": Estimate, "p_value", "real": bool}; those of one
    unit share a panel. Real ones are filled and named so.
    """
    rows = [{**c, "difference": as_estimate(c["difference"])} for c in comparisons]
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
        f"that means no difference, {format_n([row['difference'] for row in rows])}.",
        f"Real: {named}. {'; '.join(said)}.",
    )


def _scale(unit: str) -> tuple[float, str]:
    return (100, "points") if unit == "share" else (1, unit)


def _gap(row: Mapping, unit: bool = True) -> str:
    """The difference and its interval: "+1.4 points (+0.2 to +2.6)"."""
    e, (times, word) = row["difference"], _scale(row["difference"].unit)
    form = "+.1f" if word == "points" else "+.3f"
    around = f"{e.low * times:{form}} to {e.high * times:{form}}"
    around = around if e.has_interval else e.format_interval()
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
        ax.plot(e.ends, [y, y], color=colour, lw=2.6 if row["real"] else 1.5)
        ax.plot(e.value, y, "D" if row["real"] else "o", ms=7.5, color=colour, mew=1.6,
                mfc=colour if row["real"] else "white")  # fmt: skip
        ax.text(1.02, y, f"{_gap(row, unit=False)}\n{_reality(row)}",
                transform=ax.get_yaxis_transform(), va="center", fontsize=SMALL,
                fontweight="bold" if row["real"] else None)  # fmt: skip
    ax.axvline(0, color=INK, lw=1.2, zorder=1)
    ax.annotate("no difference", (0, 1), (0, 3), xycoords=ax.get_xaxis_transform(), ha="center",
                textcoords="offset points", va="bottom", fontsize=SMALL)  # fmt: skip
    reach = 1.12 * max((abs(end) for r in rows for end in r["difference"].ends), default=1) or 1
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
        f"{format_n([r['difference'] for r in rows])}, bars: 95 % intervals", fontsize=SMALL,
    )  # fmt: skip


Standing = Mapping[str, Mapping[str, Mapping]]  # rows -> "code_nll", "accuracy" -> Estimate


@styled
def plot_forgetting(models: Mapping[str, Standing], heading: str) -> Figure:
    """Nats per code of each model, a panel for each kind of rows; the first model is the one before.

    `models` holds for each model and each kind of rows {"code_nll": Estimate, "accuracy":
    Estimate}, the second if classes can be read off; a model other than the first may lack a kind
    (a baseline, say, that was fitted for one only). A dashed line marks the model before.
    """
    kinds = list(next(iter(models.values())))
    numbers = [as_estimate(of["code_nll"]) for found in models.values() for of in found.values()]
    figure = canvas(0.9 + 0.52 * len(models), f"{heading} ({format_n(numbers)})")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for ax, kind in zip(panels, kinds, strict=True):
        _standing_panel(ax, [found.get(kind) for found in models.values()], kind)
    panels[0].set_yticks(range(len(models)), list(models))
    panels[0].set_ylim(len(models) - 0.4, -0.6)
    figure.supxlabel("nats per code (lower is better)  ·  bars: 95 % intervals  ·  dashed: the model "
                     "before  ·  %: digits read off", fontsize=SMALL)  # fmt: skip
    said = [_standing_words(kind, models) for kind in kinds]
    return finish(figure, f"{heading}: nats per code on {' and on '.join(kinds)}, {format_n(numbers)}.",
                  *said)  # fmt: skip


def _standing_panel(ax: Axes, models: Sequence[Mapping | None], kind: str) -> None:
    values = [found and as_estimate(found["code_nll"]) for found in models]
    ax.axvline(values[0].value, **DASHED)
    low, high = min(e.ends[0] for e in values if e), max(e.ends[1] for e in values if e)
    room = (high - low) or 0.1
    for y, (e, found, look) in enumerate(zip(values, models, cycle(SERIES))):
        if found is None:
            continue
        colour, marker, _ = look
        ax.plot(e.ends, [y, y], color=colour, lw=1.8)
        ax.plot(e.value, y, marker, color=colour, ms=7, mfc="white", mew=1.6)
        words = e.format_value()
        if "accuracy" in found:
            words += f"  ·  {as_estimate(found['accuracy']).value:.1%}"
        ax.annotate(words, (e.ends[1], y), (7, 0), textcoords="offset points", va="center",
                    fontsize=SMALL)  # fmt: skip
    ax.set_xlim(low - 0.08 * room, high + 0.75 * room)
    ax.set_title(kind)
    ax.grid(axis="x")
    ax.set_axisbelow(True)


def _standing_words(kind: str, models: Mapping[str, Standing]) -> str:
    parts = []
    asked = {name: found for name, found in models.items() if kind in found}
    for name, found in asked.items():
        part = f"{name} {as_estimate(found[kind]['code_nll']).format()}"
        if "accuracy" in found[kind]:
            part += f", digits read off {as_estimate(found[kind]['accuracy']).format()}"
        parts.append(part)
    values = {name: as_estimate(found[kind]["code_nll"]).value for name, found in asked.items()}
    best = min(values, key=values.get)
    return f"On {kind}, with 95 % intervals: {'; '.join(parts)}. Lowest: {best}."
