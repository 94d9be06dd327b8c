"""Figures of fine-tuning: what a model gains on the new rows and loses on the old."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.plots.comparisons import ends, told
from seqlm.plots.learning import DASHED, label_at_right
from seqlm.plots.style import SERIES, SMALL, canvas, estimate, finish, n_of, short, styled

Standing = Mapping[str, Mapping[str, Mapping]]  # rows -> "code_nll", "accuracy" -> Estimate


@styled
def plot_forgetting(models: Mapping[str, Standing], heading: str) -> Figure:
    """Nats per code of each model, a panel for each kind of rows; the first model is the one before.

    `models` holds for each model and each kind of rows {"code_nll": Estimate, "accuracy":
    Estimate}, the second if classes can be read off; a model other than the first may lack a kind
    (a baseline, say, that was fitted for one only). A dashed line marks the model before.
    """
    kinds = list(next(iter(models.values())))
    numbers = [estimate(of["code_nll"]) for found in models.values() for of in found.values()]
    figure = canvas(0.9 + 0.52 * len(models), f"{heading} ({n_of(numbers)})")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for ax, kind in zip(panels, kinds, strict=True):
        _standing_panel(ax, [found.get(kind) for found in models.values()], kind)
    panels[0].set_yticks(range(len(models)), list(models))
    panels[0].set_ylim(len(models) - 0.4, -0.6)
    figure.supxlabel("nats per code (lower is better)  ·  bars: 95 % intervals  ·  dashed: the model "
                     "before  ·  %: digits read off", fontsize=SMALL)  # fmt: skip
    said = [_standing_words(kind, models) for kind in kinds]
    return finish(figure, f"{heading}: nats per code on {' and on '.join(kinds)}, {n_of(numbers)}.",
                  *said)  # fmt: skip


def _standing_panel(ax: Axes, models: Sequence[Mapping | None], kind: str) -> None:
    values = [found and estimate(found["code_nll"]) for found in models]
    ax.axvline(values[0].value, **DASHED)
    low, high = min(ends(e)[0] for e in values if e), max(ends(e)[1] for e in values if e)
    room = (high - low) or 0.1
    for y, (e, found, look) in enumerate(zip(values, models, cycle(SERIES))):
        if found is None:
            continue
        colour, marker, _ = look
        ax.plot(ends(e), [y, y], color=colour, lw=1.8)
        ax.plot(e.value, y, marker, color=colour, ms=7, mfc="white", mew=1.6)
        words = short(e.value, e.unit)
        if "accuracy" in found:
            words += f"  ·  {estimate(found['accuracy']).value:.1%}"
        ax.annotate(words, (ends(e)[1], y), (7, 0), textcoords="offset points", va="center",
                    fontsize=SMALL)  # fmt: skip
    ax.set_xlim(low - 0.08 * room, high + 0.75 * room)
    ax.set_title(kind)
    ax.grid(axis="x")
    ax.set_axisbelow(True)


def _standing_words(kind: str, models: Mapping[str, Standing]) -> str:
    parts = []
    asked = {name: found for name, found in models.items() if kind in found}
    for name, found in asked.items():
        part = f"{name} {told(estimate(found[kind]['code_nll']))}"
        if "accuracy" in found[kind]:
            part += f", digits read off {told(estimate(found[kind]['accuracy']))}"
        parts.append(part)
    values = {name: estimate(found[kind]["code_nll"]).value for name, found in asked.items()}
    best = min(values, key=values.get)
    return f"On {kind}, with 95 % intervals: {'; '.join(parts)}. Lowest: {best}."


@styled
def plot_finetuning_process(
    runs: Mapping[str, Mapping[str, Sequence]], names: Sequence[str], heading: str, n: int
) -> Figure:
    """Nats per code on val as fine-tuning goes on: new rows on the left, old ones on the right.

    `runs` holds for each run {"step", "new", "old"}; `names` are those of the two kinds of rows,
    `n` the pictures of val.
    """
    figure = canvas(3.7, f"{heading} (n = {n:,} pictures of val)")
    panels = figure.subplots(1, 2, sharey=True)
    labels = []
    for ax, key, name in zip(panels, ("new", "old"), names, strict=True):
        # The first look is that of the model before, in `gained_and_lost`.
        for (run, found), (colour, marker, line) in zip(
            runs.items(), islice(cycle(SERIES), 1, None), strict=False
        ):
            ax.plot(found["step"], found[key], color=colour, ls=line, marker=marker, ms=5, lw=1.8,
                    mfc="white")  # fmt: skip
            if key == "old":
                last = found[key][-1]
                labels.append((found["step"][-1], last, f"{run} {last:.2f}", "bold"))
        ax.set_title(name)
        ax.set_xlabel("steps", fontsize=SMALL)
        ax.grid(axis="y")
    panels[0].set_ylabel("nats per code (read layout)")
    label_at_right(panels[1], labels)
    return finish(figure, f"{heading}, n = {n:,} pictures of val: nats per code against steps, on "
                  f"{names[0]} and on {names[1]}.",
                  *(_course_words(run, found, names) for run, found in runs.items()))  # fmt: skip


def _course_words(run: str, found: Mapping[str, Sequence], names: Sequence[str]) -> str:
    new, old = (np.asarray(found[key], dtype=float) for key in ("new", "old"))
    return (
        f"{run}, {found['step'][-1]:,} steps: on {names[0]} from {new[0]:.2f} to {new[-1]:.2f}, on "
        f"{names[1]} from {old[0]:.2f} to {old[-1]:.2f}."
    )
