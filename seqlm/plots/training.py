"""Figures of training: losses, accuracy and learning rate."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots import style
from seqlm.plots.style import canvas, finish, label_at_right, styled
from seqlm.utils import format_duration

LOSSES = {
    "code_nll": "val codes",
    "read_nll": "val codes (read layout)",
    "draw_nll": "val codes (draw layout)",
    "class_nll": "val classes",
    "all_nll": "val tokens of all kinds",
}
ACCURACY = "accuracy on val"


def _series(record: Mapping, name: str, table: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of `name` in the history or in the evals."""
    lines = list(record.get(table) or [])
    if table == "evals":
        lines.insert(0, {"step": 0, **(record.get("initial") or {})})
    pairs = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    return steps[np.isfinite(values)], values[np.isfinite(values)]


def _measured(record: Mapping) -> list[str]:
    """The losses that the evaluations of this run have."""
    lines = [*(record.get("evals") or []), record.get("initial") or {}]
    return [name for name in LOSSES if any(line.get(name) is not None for line in lines)]


def _unit(record: Mapping) -> str:
    return "nats per image" if _measured(record) == ["class_nll"] else "nats per token"


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running median over a twentieth of the run, so that single batches do not show."""
    half = max(1, len(values) // 40)
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array([np.median(window) for window in windows])


@styled
def plot_training_process(record: Mapping, baselines: Mapping[str, float] | None = None) -> Figure:
    """Losses, accuracy, learning rate and gradient norm, from the `record` in training.json.

    `baselines` (name -> nats) are dashed lines.
    """
    baselines, below = dict(baselines or {}), _small_panels(record)
    rows = f"n = {record['rows']:,} training rows" if record.get("rows") else ""
    figure = canvas(6.7 if below else 4.5, "Training" + f" ({rows})" * bool(rows))
    bands = figure.subfigures(2, 1, height_ratios=[2.1, 1]) if below else [figure]
    _draw_losses(bands[0].add_subplot(), record, baselines)
    for column, (title, curves) in enumerate(below.items(), 1):
        ax = bands[1].add_subplot(1, len(below), column)
        _draw_small_panel(ax, title, curves, (record.get("settings") or {}).get("max_grad_norm"))
    return finish(figure, *_describe_training(record, baselines, rows))


def _draw_losses(ax: Axes, record: Mapping, baselines: Mapping[str, float]) -> None:
    steps, loss = _series(record, "loss", "history")
    if len(loss):
        ax.plot(steps, loss, color=style.PALE, lw=1, label="training loss per batch")
        ax.plot(steps, _smooth(loss), color=style.GREY, lw=2, label="training loss, running median")
    measured = _measured(record)
    for name, (colour, marker, line) in zip(measured, style.SERIES, strict=False):
        at, values = _series(record, name, "evals")
        ax.plot(at, values, color=colour, marker=marker, ls=line, ms=5, label=LOSSES[name])
    best, chosen = record.get("best") or {}, next(iter(measured), None)
    if chosen and best.get(chosen) is not None:
        star = {"marker": "*", "ms": 17, "color": style.ORANGE, "mec": style.INK, "ls": "none"}
        label = f"best {LOSSES[chosen]}: {best[chosen]:.2f} at step {best['step']:,}"
        ax.plot(best["step"], best[chosen], label=label, zorder=5, **star)
    for nats in baselines.values():
        ax.axhline(nats, **style.DASHED)
    ax.set(xlabel="optimizer step", ylabel=_unit(record), ylim=ax.get_ylim())
    ax.set_xlim(left=0)
    texts = {f"baseline: {baseline_name(k)} {nats:.2f}": nats for k, nats in baselines.items()}
    label_at_right(ax, [(None, nats, text, None) for text, nats in texts.items()], 0.06)
    if len(loss) or measured:
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3, columnspacing=1.4)
    _draw_time_axis(ax, record)


def _draw_time_axis(ax: Axes, record: Mapping) -> None:
    """Minutes or seconds of training, above the steps they belong to."""
    lines = [*(record.get("history") or []), *(record.get("evals") or [])]
    known = sorted((x["step"], x["seconds"]) for x in lines if x.get("seconds") is not None)
    if not known or known[-1][1] <= 0:
        return
    steps, seconds = np.array([(0, 0), *known], dtype=float).T
    unit, size = ("minutes", 60) if seconds.max() >= 120 else ("seconds", 1)
    times = np.maximum.accumulate(seconds) / size
    top = ax.secondary_xaxis("top")
    marks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(0, times[-1])
    marks = marks[marks <= times[-1]]
    places = np.interp(marks, times, steps)
    apart = np.diff(places, prepend=-np.inf) > 0.04 * steps[-1]  # the first step may be slow
    top.set_xticks(places[apart], [f"{mark:g}" for mark in marks[apart]])
    top.set_xlabel(f"{unit} of training", fontsize=style.SMALL)
    top.spines["top"].set_visible(True)


def _small_panels(record: Mapping) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """The curves of each panel below the losses; panels without curves are left out."""
    evals = record.get("evals") or []
    shares = sorted({name for line in evals for name in line if "accuracy" in name})
    panels = {
        ACCURACY: [_series(record, name, "evals") for name in shares],
        "learning rate": [_series(record, "learning_rate", "history")],
        "gradient norm": [_series(record, "grad_norm", "history")],
    }
    return {title: curves for title, curves in panels.items() if any(len(x) for x, _ in curves)}


def _draw_small_panel(ax: Axes, title: str, curves: Sequence, clipped_at: float | None) -> None:
    for (steps, values), (colour, marker, line) in zip(curves, cycle(style.SERIES)):
        marker = marker if title == ACCURACY else None
        ax.plot(steps, values, color=colour, ls=line, lw=1.4, marker=marker, ms=4)
    ax.set_title(title)
    ax.set_xlabel("optimizer step", fontsize=style.SMALL)
    ax.set_xlim(left=0)
    ax.locator_params(axis="x", nbins=4)
    ax.grid(axis="y")
    ax.yaxis.set_major_formatter("{x:g}")
    if title == ACCURACY:
        ax.set_ylim(0, 1.03)
        ax.yaxis.set_major_formatter(style.percent)
    if title == "gradient norm" and clipped_at and clipped_at <= 2 * ax.get_ylim()[1]:
        ax.axhline(clipped_at, color=style.VERMILLION, ls="--", lw=1.2)
        ax.text(0.98, clipped_at, f"clipped at {clipped_at:g}", ha="right", va="bottom",
                fontsize=style.SMALL, transform=ax.get_yaxis_transform())  # fmt: skip


def _describe_training(record: Mapping, baselines: Mapping[str, float], rows: str) -> list[str]:
    _, loss = _series(record, "loss", "history")
    time = f" in {format_duration(record['seconds'])}" if record.get("seconds") else ""
    sentences = [f"Losses over {record.get('steps') or 0:,} steps{time}{', ' * bool(rows)}{rows}."]
    if len(loss):
        smooth = _smooth(loss)
        sentences.append(f"Training loss {smooth[0]:.2f} to {smooth[-1]:.2f} {_unit(record)}.")
    best = record.get("best") or {}
    numbers = [f"{LOSSES[k]} {best[k]:.2f}" for k in _measured(record) if best.get(k) is not None]
    numbers += [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]
    if numbers:
        sentences.append(f"Best, at step {best['step']:,}: {', '.join(numbers)}.")
    if baselines:
        dashed = [f"{baseline_name(name)} {nats:.2f}" for name, nats in baselines.items()]
        sentences.append(f"Baselines (dashed): {', '.join(dashed)}.")
    return sentences
