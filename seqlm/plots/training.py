"""Figures of training: losses, accuracy and learning rate."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots import style
from seqlm.plots.style import canvas, finish, label_at_right, styled
from seqlm.utils import format_duration

LOSSES = {
    "code_nll": "val",
    "read_nll": "val (read layout)",
    "draw_nll": "val (draw layout)",
    "class_nll": "val (classes)",
    "all_nll": "val (all tokens)",
}
OF_CODES = ("code_nll", "read_nll", "draw_nll")
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


def _smooth(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A running median over a twentieth of the run, at the steps where that is complete."""
    half = min(max(1, len(values) // 40), (len(values) - 1) // 2)
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1)
    return steps[half : len(steps) - half], np.median(windows, axis=1)


@styled
def plot_training_process(record: Mapping, baselines: Mapping[str, float] | None = None) -> Figure:
    """Losses, accuracy, learning rate and gradient norm, from the `record` in training.json.

    The losses of codes and of tokens of all kinds have a panel each, over a logarithmic number of
    steps. `baselines` (name -> nats per code) are dashed lines; the uniform one is ln V.
    """
    baselines, below = dict(baselines or {}), _small_panels(record)
    rows = f"n = {record['rows']:,} training rows" if record.get("rows") else ""
    figure = canvas(6.7 if below else 4.5, "Training" + f" ({rows})" * bool(rows))
    bands = figure.subfigures(2, 1, height_ratios=[2.1, 1]) if below else [figure]
    measured = _measured(record)
    codes = [name for name in measured if name in OF_CODES]
    others = [name for name in measured if name not in OF_CODES]
    panels = [("code tokens", codes, baselines)] * bool(codes)
    uniform = {k: nats for k, nats in baselines.items() if k == "uniform"}
    title = "classes" if others == ["class_nll"] else "tokens of all kinds"
    panels.append((title, others, uniform if codes else baselines))
    ratios = [1.15, 1][-len(panels) :]
    for ax, panel in zip(bands[0].subplots(1, len(panels), width_ratios=ratios, squeeze=False)[0],
                         panels, strict=True):  # fmt: skip
        _draw_losses(ax, record, *panel, with_training=panel is panels[-1])
    for column, (title, curves) in enumerate(below.items(), 1):
        ax = bands[1].add_subplot(1, len(below), column)
        for (steps, values), (colour, marker, line) in zip(curves, cycle(style.SERIES)):
            marker = marker if title == ACCURACY else None
            ax.plot(steps, values, color=colour, ls=line, lw=1.4, marker=marker, ms=4)
        ax.set(title=title, xlim=(0, None))
        ax.set_xlabel("optimizer step", fontsize=style.SMALL)
        ax.locator_params(axis="x", nbins=4)
        ax.yaxis.set_major_formatter(style.percent if title == ACCURACY else "{x:g}")
        ax.grid(axis="y")
    return finish(figure, *_describe_training(record, baselines, rows))


def _draw_losses(
    ax: Axes, record: Mapping, title: str, names: Sequence[str], baselines: Mapping[str, float],
    with_training: bool,
) -> None:  # fmt: skip
    """The losses `names` on val, and on the training rows, which counts tokens of all kinds."""
    steps, loss = _series(record, "loss", "history")
    if with_training and len(loss):
        ax.plot(steps, loss, color=style.PALE, lw=1, label="training, per batch")
        ax.plot(*_smooth(steps, loss), color=style.GREY, lw=2, label="training, running median")
    for name, (colour, marker, line) in zip(names, style.SERIES, strict=False):
        at, values = _series(record, name, "evals")
        at, values = at[at > 0], values[at > 0]  # a logarithmic axis has no step 0
        ax.plot(at, values, color=colour, marker=marker, ls=line, ms=5, label=LOSSES[name])
    best, chosen = record.get("best") or {}, next(iter(_measured(record)), None)
    if chosen in names and best.get(chosen) is not None:
        star = {"marker": "*", "ms": 15, "color": style.ORANGE, "mec": style.INK, "ls": "none"}
        label = f"best: {best[chosen]:.2f} at step {best['step']:,}"
        ax.plot(best["step"], best[chosen], label=label, zorder=5, **star)
    for nats in baselines.values():
        ax.axhline(nats, **style.DASHED)
    ax.set_title(title, fontweight="bold")
    style.log_x_axis(ax, "{x:,.0f}")
    ax.set(xlabel="optimizer step (logarithmic)", ylabel=_unit(record), ylim=ax.get_ylim())
    ax.grid(axis="y")
    texts = {f"{'ln V' if k == 'uniform' else baseline_name(k)} {nats:.2f}": nats
             for k, nats in baselines.items()}  # fmt: skip
    label_at_right(ax, [(None, nats, text, None) for text, nats in texts.items()], 0.08)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=1 + (len(names) > 2))


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


def _describe_training(record: Mapping, baselines: Mapping[str, float], rows: str) -> list[str]:
    steps, loss = _series(record, "loss", "history")
    time = f" in {format_duration(record['seconds'])}" if record.get("seconds") else ""
    sentences = [f"Losses over {record.get('steps') or 0:,} steps{time}{', ' * bool(rows)}{rows}."]
    if len(loss):
        last = _smooth(steps, loss)[1][-1]
        sentences.append(f"Training loss {loss[0]:.2f} to {last:.2f} {_unit(record)}.")
    best = record.get("best") or {}
    numbers = [f"{LOSSES[k]} {best[k]:.2f}" for k in _measured(record) if best.get(k) is not None]
    numbers += [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]
    if numbers:
        sentences.append(f"Best, at step {best['step']:,}: {', '.join(numbers)}.")
    if baselines:
        dashed = [f"{baseline_name(name)} {nats:.2f}" for name, nats in baselines.items()]
        sentences.append(f"Baselines (dashed): {', '.join(dashed)}.")
    return sentences
