"""Figures of a model's losses: how training went, and where in a picture the codes are hard."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    SERIES,
    SMALL,
    VERMILLION,
    canvas,
    finish,
    in_plain,
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
            f"baseline: {in_plain(name)} {nats:.2f}", (1, nats), xytext=(1.03, place), xycoords=edge,
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
        dashed = listed([f"{in_plain(name)} {nats:.2f}" for name, nats in baselines.items()])
        said.append(f"Baselines, as dashed lines: {dashed}.")
    return said


@styled
def plot_nll_by_position(
    model: Sequence[float],
    baselines: Mapping[str, Sequence[float]],
    grid: tuple[int, int],
    n: int | None = None,
) -> Figure:
    """NLL of the code at each place of the picture: lines against the baselines, and a map.

    `model` and each of `baselines` (P,) nats per code, row by row from the top left; `grid` is
    (rows, columns) with rows * columns = P; `n` says how many pictures were averaged.
    """
    nats, places = np.asarray(model, dtype=float), np.arange(1, len(model) + 1)
    pictures = f"n = {n:,} pictures" if n else f"n = {len(nats)} places"
    figure = canvas(3.9, f"Where in the picture the codes are hard to guess ({pictures})")
    lines, plan = figure.subplots(1, 2, width_ratios=[1.7, 1])
    few = len(nats) <= 64
    for (name, values), (colour, marker, style) in zip(baselines.items(), cycle(SERIES[1:])):
        dots = {"marker": marker, "ms": 4, "mfc": "white"} if few else {}
        lines.plot(places, values, color=colour, ls=style, lw=1.3, label=in_plain(name), **dots)
    dots = {"marker": "D", "ms": 5} if few else {}
    lines.plot(places, nats, color=BLUE, lw=2.6, label="the model", **dots)
    lines.set(xlabel="place of the code, row by row from the top left", ylabel="nats per code")
    lines.set_ylim(bottom=0)
    lines.grid(axis="y")
    if few:
        lines.set_xticks(places[:: max(1, len(places) // 16)])
    lines.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3)
    square = nats.reshape(grid)
    shown = plan.imshow(square, cmap="cividis")
    if max(grid) <= 7:
        middle = (nats.min() + nats.max()) / 2
        for (row, column), value in np.ndenumerate(square):
            colour = "white" if value < middle else "black"
            plan.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
    plan.set(xticks=[], yticks=[], title="the model, nats per code by place")
    figure.colorbar(shown, ax=plan, shrink=0.75)
    hard, easy = (np.unravel_index(pick, grid) for pick in (nats.argmax(), nats.argmin()))
    means = [f"{in_plain(name)} {np.mean(values):.2f}" for name, values in baselines.items()]
    return finish(
        figure,
        f"NLL of the code at each of {len(nats)} places of the picture ({pictures}), as lines and "
        f"as a map of {grid[0]} by {grid[1]}. The model needs {nats.mean():.2f} nats per code on "
        f"average; hardest is row {hard[0] + 1}, column {hard[1] + 1} ({nats.max():.2f}), easiest "
        f"row {easy[0] + 1}, column {easy[1] + 1} ({nats.min():.2f}).",
        f"Baselines on average: {listed(means)}." if means else "",
    )
