"""Figures of training: losses, learning rate, accuracy, fine-tuning."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots.style import (
    GREY,
    INK,
    ORANGE,
    PALE,
    SERIES,
    SMALL,
    VERMILLION,
    canvas,
    finish,
    label_at_right,
    listed,
    spread,
    styled,
)
from seqlm.utils import format_duration

MEASURES = {
    "code_nll": "val codes",
    "read_nll": "val codes (read layout)",
    "draw_nll": "val codes (draw layout)",
    "class_nll": "val classes",
    "all_nll": "val tokens of all kinds",
}


NAMED_RIGHT = "classes of val classified correctly"


def _series(record: Mapping, name: str, table: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of `name` in history or evals; what is missing or not finite is left out."""
    lines = list(record.get(table) or [])
    if table == "evals":
        lines.insert(0, {"step": 0, **(record.get("initial") or {})})
    pairs = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    pairs = [(step, value) for step, value in pairs if np.isfinite(value)]
    return tuple(np.array(pairs, dtype=float).reshape(-1, 2).T)


def _measured(record: Mapping) -> list[str]:
    lines = [*(record.get("evals") or []), record.get("initial") or {}]
    return [name for name in MEASURES if any(line.get(name) is not None for line in lines)]


def _unit(record: Mapping) -> str:
    return "nats per image" if _measured(record) == ["class_nll"] else "nats per token"


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running median over a twentieth of the run, so that single batches do not show."""
    half = max(1, len(values) // 40)
    return np.array(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )


def _minutes_on_top(ax: Axes, record: Mapping) -> None:
    lines = [*(record.get("history") or []), *(record.get("evals") or [])]
    known = sorted((x["step"], x["seconds"]) for x in lines if x.get("seconds") is not None)
    if not known or known[-1][1] <= 0:
        return
    steps, seconds = np.array([(0, 0), *known], dtype=float).T
    seconds = np.maximum.accumulate(seconds)
    unit, size = ("minutes", 60) if seconds[-1] >= 120 else ("seconds", 1)
    top = ax.secondary_xaxis("top")
    whole = seconds[-1] / size
    gap = next(g * 10**k for k in range(-3, 7) for g in (1, 2, 5) if whole / (g * 10**k) <= 8)
    marks = np.arange(0, whole + 1e-9, gap)
    top.set_xticks(np.interp(marks * size, seconds, steps), [f"{mark:g}" for mark in marks])
    top.set_xlabel(f"{unit} of training", fontsize=SMALL)
    top.spines["top"].set_visible(True)


def _loss_panel(ax: Axes, record: Mapping, baselines: Mapping[str, float]) -> None:
    steps, loss = _series(record, "loss", "history")
    if len(loss):
        smooth = _smooth(loss)
        ax.plot(steps, loss, color=PALE, lw=1, label="training loss, batch by batch")
        ax.plot(steps, smooth, color=GREY, lw=2, label="training loss, running median")
    for name, (colour, marker, line) in zip(_measured(record), SERIES, strict=False):
        at, values = _series(record, name, "evals")
        ax.plot(at, values, color=colour, marker=marker, ls=line, ms=5, label=MEASURES[name])
    best, chosen = record.get("best") or {}, next(iter(_measured(record)), None)
    if chosen and best.get(chosen) is not None:
        star = {"marker": "*", "ms": 17, "color": ORANGE, "mec": INK, "ls": "none", "zorder": 5}
        label = f"best {MEASURES[chosen]}: {best[chosen]:.2f} at step {best['step']:,}"
        ax.plot(best["step"], best[chosen], label=label, **star)
    for nats in baselines.values():
        ax.axhline(nats, color=GREY, ls=(0, (4, 3)), lw=1)
    _name_baselines(ax, baselines)
    ax.set(xlabel="optimizer step", ylabel=_unit(record))
    ax.set_xlim(left=0)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3, columnspacing=1.4)
    _minutes_on_top(ax, record)


def _name_baselines(ax: Axes, baselines: Mapping[str, float]) -> None:
    low, high = ax.get_ylim()
    places = spread(list(baselines.values()), 0.06 * (high - low))
    edge = ax.get_yaxis_transform()
    leader = {"arrowstyle": "-", "color": GREY, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
    for (name, nats), place in zip(baselines.items(), places, strict=True):
        ax.annotate(
            f"baseline: {baseline_name(name)} {nats:.2f}", (1, nats), xytext=(1.03, place), xycoords=edge,
            textcoords=edge, fontsize=SMALL, va="center", arrowprops=leader,
        )  # fmt: skip


def _small_panels(record: Mapping) -> list[tuple[str, list[tuple[str, np.ndarray, np.ndarray]]]]:
    evals = record.get("evals") or []
    shares = sorted({name for line in evals for name in line if "accuracy" in name})
    panels = [
        (NAMED_RIGHT, [(s, *_series(record, s, "evals")) for s in shares]),
        ("learning rate", [("learning rate", *_series(record, "learning_rate", "history"))]),
        ("gradient norm", [("gradient norm", *_series(record, "grad_norm", "history"))]),
    ]
    return [(title, lines) for title, lines in panels if any(len(line[1]) for line in lines)]


def _dial(ax: Axes, title: str, lines: Sequence, clipped_at: float | None) -> None:
    shares = title == NAMED_RIGHT
    for (_, steps, values), (colour, marker, style) in zip(lines, cycle(SERIES)):
        dots = {"marker": marker, "ms": 4} if shares else {}
        ax.plot(steps, values, color=colour, ls=style, lw=1.4, **dots)
    ax.set_title(title)
    ax.set_xlabel("optimizer step", fontsize=SMALL)
    ax.set_xlim(left=0)
    ax.locator_params(axis="x", nbins=4)
    ax.grid(axis="y")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if shares:
        ax.set_ylim(0, 1.03)
        ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    if title == "gradient norm" and clipped_at and clipped_at <= 2 * ax.get_ylim()[1]:
        ax.axhline(clipped_at, color=VERMILLION, ls="--", lw=1.2)
        ax.text(0.98, clipped_at, f"clipped at {clipped_at:g}", ha="right", va="bottom",
                fontsize=SMALL, transform=ax.get_yaxis_transform())  # fmt: skip


@styled
def plot_training_process(record: Mapping, baselines: Mapping[str, float] | None = None) -> Figure:
    """What training.json holds: losses against the `baselines` (name -> nats), and the dials below.

    Works with whatever the evaluations hold: code_nll, read_nll, draw_nll, all_nll, class_nll,
    and anything named accuracy.
    """
    baselines, below = dict(baselines or {}), _small_panels(record)
    rows = f"n = {record['rows']:,} training rows" if record.get("rows") else ""
    figure = canvas(6.7 if below else 4.5, "How training went" + f" ({rows})" * bool(rows))
    bands = figure.subfigures(2, 1, height_ratios=[2.1, 1]) if below else [figure]
    _loss_panel(bands[0].add_subplot(), record, baselines)
    for column, (title, lines) in enumerate(below, 1):
        ax = bands[1].add_subplot(1, len(below), column)
        _dial(ax, title, lines, (record.get("settings") or {}).get("max_grad_norm"))
    return finish(figure, *_training_words(record, baselines, rows))


def _training_words(record: Mapping, baselines: Mapping[str, float], rows: str) -> list[str]:
    steps, loss = _series(record, "loss", "history")
    long = f" in {format_duration(record['seconds'])}" if record.get("seconds") else ""
    said = [f"Training over {record.get('steps') or 0:,} steps{long}{', ' * bool(rows)}{rows}."]
    if len(loss):
        first, *_, last = *_smooth(loss)[:1], *_smooth(loss)[-1:]
        said.append(f"The training loss went from {first:.2f} to {last:.2f} {_unit(record)}.")
    best = record.get("best") or {}
    held = [name for name in _measured(record) if best.get(name) is not None]
    told = [f"{MEASURES[name]} {best[name]:.2f}" for name in held]
    shares = [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]
    if told or shares:
        said.append(f"Best, at step {best['step']:,}: {listed(told + shares)}.")
    if baselines:
        dashed = listed([f"{baseline_name(name)} {nats:.2f}" for name, nats in baselines.items()])
        said.append(f"Baselines, as dashed lines: {dashed}.")
    return said


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
