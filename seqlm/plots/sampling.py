"""Figures of generated images: measures by sampling setting, distances to the training images."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Estimate, Numbers, as_estimate, format_n, median, proportion
from seqlm.plots import style
from seqlm.plots.style import canvas, draw_estimates, finish, label_at_right, styled

ROUNDING = 1e-6  # the same distance computed twice differs in its last digits
# What is measured at each setting: its name on the axis, and its look.
MEASURES = {
    "classified_as_asked": ("classified\nas asked", (style.BLUE, "o", "-")),
    "diversity": ("diversity", (style.GREEN, "^", "-.")),
}


@styled
def plot_diversity(
    curves: Mapping[str, Sequence[Mapping]], real: Mapping[str, Numbers], heading: str
) -> Figure:
    """A column for each sampling setting, a row for each measure, with 95 % intervals.

    `curves` holds for each setting its values: {"setting": value, and one Estimate for each of
    `MEASURES`}. `real` holds the same measures of real test images, drawn as dashed lines. A top-k
    of 0 keeps all tokens.
    """
    cells = [cell for column in curves.values() for cell in column]
    real = {name: as_estimate(real[name]) for name in MEASURES}
    n_rows = len(MEASURES)
    figure = canvas(0.6 + 1.45 * n_rows, heading, max(4.5, 0.6 + 2.1 * len(curves)))
    axes = figure.subplots(n_rows, len(curves), sharey="row", sharex="col", squeeze=False)
    for panels, (name, e) in zip(axes, real.items(), strict=True):
        for ax, column in zip(panels, curves.values(), strict=True):
            _draw_curve(ax, name, column, e)
        panels[0].set_ylabel(MEASURES[name][0])
        label_at_right(panels[-1], [(None, e.value, f"real\n{e.format_value()}", None)], 0.28)
    for column, (name, values) in enumerate(curves.items()):
        axes[0, column].set_title(name, fontweight="bold")
        ticks = [_format_setting(name, cell["setting"]) for cell in values]
        step = 1 if len(values) <= 6 else 2
        axes[-1, column].set_xticks(range(0, len(ticks), step), ticks[::step])
    n = format_n([as_estimate(cell[name]) for cell in cells for name in MEASURES])
    label = f"value of the setting  ·  {n} images per value, bars: 95 % intervals"
    figure.supxlabel(textwrap.fill(label, int(figure.get_figwidth() * 12)), fontsize=style.SMALL)
    figure.align_ylabels(axes[:, 0])
    names = ", ".join(map(_plain, MEASURES))
    references = ", ".join(f"{_plain(name)} {e.format()}" for name, e in real.items())
    return finish(
        figure,
        f"{heading}: {names} by sampling setting, {n} images per value.",
        f"Real test images: {references}.",
        *(_describe_curve(name, column) for name, column in curves.items()),
    )


def _plain(name: str) -> str:
    return MEASURES[name][0].replace("\n", " ")


def _format_setting(name: str, setting: float) -> str:
    return "off" if name == "top-k" and not setting else f"{setting:g}"


def _draw_curve(ax: Axes, name: str, cells: Sequence[Mapping], real: Estimate) -> None:
    ax.axhline(real.value, **style.DASHED)
    ax.axhspan(*real.ends, color=style.GREY, alpha=0.18, lw=0)
    estimates = [as_estimate(cell[name]) for cell in cells]
    draw_estimates(ax, range(len(cells)), estimates, *MEASURES[name][1])
    ax.set_xlim(-0.5, max(1, len(cells)) - 0.5)
    ax.grid(axis="y")
    ax.locator_params(axis="y", nbins=4)
    ax.yaxis.set_major_formatter(style.percent if real.unit == "share" else "{x:g}")


def _describe_curve(name: str, cells: Sequence[Mapping]) -> str:
    """Each measure at the first and at the last value of a setting."""
    words = []
    for row in MEASURES:
        ends = [
            f"{as_estimate(cell[row]).format()} at {_format_setting(name, cell['setting'])}"
            for cell in (cells[0], cells[-1])
        ]
        words.append(f"{_plain(row)} {', '.join(dict.fromkeys(ends))}")
    return f"{name}, with 95 % intervals: {'; '.join(words)}."


@styled
def plot_nearest_distances(groups: Mapping[str, np.ndarray], heading: str, near: float) -> Figure:
    """The distance of each image to its nearest training image, one row per group.

    `groups` holds (N,) distances, those of real test images last. `near` is the threshold of
    `image_quality.near_copies`: a dashed line, with the share of each group below it.
    """
    groups = {name: np.sort(np.asarray(d, dtype=float)) for name, d in groups.items()}
    furthest = max(distances[-1] for distances in groups.values()) or 1.0
    figure = canvas(1.05 + 0.85 * len(groups), heading)
    ax = figure.add_subplot()
    ax.axvline(0, color=style.INK, lw=2.2, label="a copy (distance 0)")
    line = {"color": style.VERMILLION, "ls": "--", "lw": 1.4}
    ax.axvline(near, label=f"near copies: up to {near:.2f}", **line)
    sentences = []
    for y, ((name, distances), (colour, marker, _)) in enumerate(
        zip(groups.items(), style.SERIES, strict=False)
    ):
        _draw_distances(ax, y, distances, colour, marker)
        copies = proportion(distances <= near + ROUNDING)
        words = [f"median {median(distances).format()}", f"near copies {copies.format()}"]
        text = "\n".join(words).replace("copies ", "copies\n")
        bold = "bold" if y == len(groups) - 1 else None
        ax.text(1.015, y, text, transform=ax.get_yaxis_transform(), va="center",
                fontsize=style.SMALL, fontweight=bold)  # fmt: skip
        sentences.append(f"{name}, n = {len(distances):,}: {', '.join(words)}.")
    ax.set(xlim=(-0.02 * furthest, 1.03 * furthest), ylim=(len(groups) - 0.5, -0.5))
    names = [f"{textwrap.fill(name, 24)}\nn = {len(d):,}" for name, d in groups.items()]
    style.name_rows(ax, names)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    label = "distance to the nearest training image  ·  dots: images, boxes: the middle half"
    ax.set_xlabel(f"{label}, ◆ median with its 95 % interval", fontsize=style.SMALL)
    return finish(
        figure,
        f"{heading}: distance of each image to its nearest training image, with 95 % intervals.",
        f"Near copies: distance up to {near:.2f}.",
        *sentences,
    )


def _draw_distances(ax: Axes, y: int, distances: np.ndarray, colour: str, marker: str) -> None:
    # Steps of the golden ratio fill the height evenly and are the same at every drawing.
    heights = y + 0.05 + 0.34 * (np.arange(len(distances)) * 0.6180339887 % 1)
    ax.plot(distances, heights, marker, color=colour, ms=2.5, alpha=0.5, mew=0)
    low, high = np.quantile(distances, [0.25, 0.75])
    ax.barh(y - 0.18, high - low, 0.22, low, fc="white", ec=colour, lw=1.6)
    draw_estimates(ax, [y - 0.18], [median(distances)], colour, "D", filled=True, across=True)
