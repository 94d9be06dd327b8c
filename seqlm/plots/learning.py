"""Figures of learning: from few labelled images, and by one recipe or another."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from seqlm.plots.comparisons import ends, in_percent, told
from seqlm.plots.style import (
    GREY,
    INK,
    ORANGE,
    SERIES,
    SMALL,
    canvas,
    estimate,
    finish,
    in_plain,
    listed,
    n_of,
    short,
    spread,
    styled,
)
from seqlm.utils import format_duration

CHANCE = 0.1  # ten classes, equally common
DASHED = {"color": GREY, "ls": (0, (4, 3)), "lw": 1}


def label_at_right(ax: Axes, labels: Sequence[tuple], gap: float = 0.07) -> None:
    """Words right of `ax`, each with a thin line to its place; none stands on another.

    `labels` are (x, y, text, weight), x None for a line across the whole panel; `gap` is the
    least distance of two words as a share of the height. The limits of `ax` must be set before.
    """
    low, high = ax.get_yaxis().get_transform().transform(ax.get_ylim())
    heights = ax.get_yaxis().get_transform().transform([float(y) for _, y, *_ in labels])
    places = spread((np.clip(heights, low, high) - low) / (high - low), gap)
    ceiling = 1.0
    for i in reversed(np.argsort(places, kind="stable")):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    leader = {"arrowstyle": "-", "color": GREY, "lw": 0.8, "shrinkA": 1, "shrinkB": 3,
              "relpos": (0, 0.5)}  # fmt: skip
    for (x, y, text, weight), place in zip(labels, places, strict=True):
        edge = ax.get_yaxis_transform() if x is None else ax.transData
        ax.annotate(
            text, (1 if x is None else x, y), xytext=(1.03, place), xycoords=edge, fontsize=SMALL,
            textcoords=ax.transAxes, va="center", fontweight=weight, arrowprops=leader,
        )  # fmt: skip


def _counted(value: float, _=None) -> str:
    """A count as an axis writes it: "500", "20k", "1.5M"."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def log_ticks(ax: Axes, first: float, last: float) -> None:
    """Ticks of a logarithmic x axis that runs from `first` to `last`.

    Powers of ten alone would leave an axis of less than a decade or two almost without numbers.
    """
    subs = (1, 2, 5) if last < 100 * first else (1,)
    locator = MaxNLocator(5) if last < 10 * first else LogLocator(subs=subs)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_minor_formatter(lambda value, _: "")


def log_axis(ax: Axes, label: str, more: str = "") -> None:
    """A logarithmic x axis of counts or seconds, with its label."""
    ax.set_xscale("log")
    if ax.get_xlim()[0] <= 0:  # nothing was drawn
        ax.set_xlim(1, 10)
    log_ticks(ax, *ax.get_xlim())
    ax.xaxis.set_major_formatter(_counted)
    ax.set_xlabel(f"{label} (logarithmic){more}", fontsize=SMALL)
    ax.grid(axis="y")


def finite(x: Sequence, y: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Of x and y (N,) what a logarithmic x axis can show: x above zero, neither of them missing."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    x, y = np.array(pairs, dtype=float).reshape(-1, 2).T
    kept = np.isfinite(y) & (x > 0)
    return x[kept], y[kept]


# --- from few labels ------------------------------------------------------------------------------


@styled
def plot_label_efficiency(curves: Mapping[str, Mapping[str, Mapping]], heading: str) -> Figure:
    """Accuracy against labelled images a class, for each route.

    `curves` holds for each route and each size ("1", "2", … "all") {"mean": Estimate, "runs":
    [Estimate, …], "labelled": n}, one run a seed, n labelled images in all of the ten classes.
    """
    routes = {name: _sizes(found) for name, found in curves.items()}
    means = [estimate(cell["mean"]) for found in routes.values() for _, cell in found.values()]
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
        words = textwrap.fill(f"{name} {short(last.value, 'share')}", 24)
        labels.append((x, last.value, words, "bold"))
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(sorted(ticks), [ticks[x] for x in sorted(ticks)])
    ax.set(ylim=(0, 1.02), ylabel="share right")
    ax.yaxis.set_major_formatter(in_percent)
    ax.grid(axis="y")
    label_at_right(ax, labels, 0.115)
    many = f"means of {max(seeds)} seeds (small dots)" if max(seeds) else "one run each"
    ax.set_xlabel(f"labelled images a class (logarithmic)  ·  {n_of(means)}, {many}, "
                  "bars: 95 % intervals", fontsize=SMALL, loc="left")  # fmt: skip
    return finish(figure, f"{heading}: share right against labelled images a class, {n_of(means)}, "
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
    means = [estimate(cell["mean"]) for _, cell in found.values()]
    at = np.array([x for x, _ in found.values()]) * aside
    for x, e, (_, cell) in zip(at, means, found.values(), strict=True):
        runs = [estimate(run).value for run in cell.get("runs") or []]
        ax.plot([x * 1.04] * len(runs), runs, ".", color=colour, ms=4.5, mew=0)
        ax.plot([x, x], ends(e), color=colour, lw=1.6)
    ax.plot(at, [e.value for e in means], marker=marker, ls=line, color=colour, ms=6.5, lw=1.8,
            mfc="white", mew=1.6)  # fmt: skip
    return at[-1], means[-1]


def _label_words(routes: Mapping[str, Mapping]) -> list[str]:
    said = []
    for name, found in routes.items():
        cells = [f"{told(estimate(cell['mean']))} with {k}" for k, (_, cell) in found.items()]
        said.append(f"{name}, with 95 % intervals: {'; '.join(cells)}.")
    sizes = {size: x for found in routes.values() for size, (x, _) in found.items()}
    for size in sorted(sizes, key=sizes.get) if len(routes) > 1 else []:
        shares = {n: estimate(f[size][1]["mean"]).value for n, f in routes.items() if size in f}
        first, *others = sorted(shares, key=shares.get, reverse=True)
        if others:
            lead = 100 * (shares[first] - shares[others[0]])
            said.append(f"With {size}, {first} leads by {lead:.1f} points.")
    return said


# --- one recipe beside another --------------------------------------------------------------------


@styled
def plot_recipes(
    runs: Mapping[str, Mapping], baselines: Mapping[str, float], heading: str, n: int | None = None
) -> Figure:
    """NLL against tokens seen and against seconds, one line a recipe, the best marked by a star.

    `runs` holds for each recipe {"tokens", "seconds", "nll" (nats per code on val), "best": index of
    the best}; `baselines` name -> nats per code; `n` is the number of images the NLL was measured on.
    """
    evaluations = listed([str(len(run["nll"])) for run in runs.values()])
    rests = f"n = {evaluations} evaluations on val" if n is None else f"n = {n:,} images of val"
    figure = canvas(4.2, f"{heading} ({rests})")
    panels = figure.subplots(1, 2, sharey=True)
    labels: list[tuple] = [
        (None, nats, f"baseline: {in_plain(k)} {nats:.2f}", None) for k, nats in baselines.items()
    ]
    for ax, key, label in zip(
        panels, ("tokens", "seconds"), ("tokens seen", "seconds of training"), strict=True
    ):
        for nats in baselines.values():
            ax.axhline(nats, **DASHED)
        for (name, run), (colour, marker, line) in zip(runs.items(), cycle(SERIES)):
            x, nats = finite(run[key], run["nll"])
            ax.plot(x, nats, color=colour, ls=line, marker=marker, ms=4.5, lw=1.8, mfc="white")
            if run.get("best") is not None:
                at, best = run[key][run["best"]], run["nll"][run["best"]]
                ax.plot(at, best, "*", ms=16, color=ORANGE, mec=INK, zorder=5)
            if ax is panels[1] and len(x):
                held = run.get("best") is not None
                star = f" ★ {run['nll'][run['best']]:.2f}" if held else ""
                labels.append((x[-1], nats[-1], name + star, "bold"))
        log_axis(ax, label, "  ·  ★ best")
    panels[0].set(ylim=_clipped(runs, baselines), ylabel="nats per code (val, read layout)")
    label_at_right(panels[1], labels)
    said = [_recipe_words(name, run) for name, run in runs.items()]
    dashed = [f"{in_plain(name)} {nats:.2f}" for name, nats in baselines.items()]
    return finish(
        figure,
        f"{heading}, {rests}: nats per code against tokens seen and against seconds, both axes "
        "logarithmic, stars at the best.",
        *said,
        f"Baselines, as dashed lines: {listed(dashed)}." if baselines else "",
    )


def _clipped(runs: Mapping[str, Mapping], baselines: Mapping[str, float]) -> tuple[float, float]:
    """Limits with the baselines and most of every run in them; the first high steps may lie outside.

    A line that leaves the panel at the top says enough of how a run begins, and would squeeze
    all that differs afterwards.
    """
    seen = [finite(run["tokens"], run["nll"])[1] for run in runs.values()]
    seen = [nats for nats in seen if len(nats)]
    low = min([*baselines.values(), *(nats.min() for nats in seen)])
    high = max([*baselines.values(), *(np.quantile(nats, 0.8) for nats in seen)])
    margin = 0.07 * (high - low) or 0.1
    return low - margin, high + margin


def _recipe_words(name: str, run: Mapping) -> str:
    begun = f"{name}: {len(run['nll'])} evaluations over {run['tokens'][-1]:,} tokens and "
    begun += format_duration(run["seconds"][-1])
    if run.get("best") is None:
        return f"{begun}."
    at = run["best"]
    return (
        f"{begun}; best {run['nll'][at]:.3f} nats per code after {run['tokens'][at]:,} tokens and "
        f"{format_duration(run['seconds'][at])}, last {run['nll'][-1]:.3f}."
    )
