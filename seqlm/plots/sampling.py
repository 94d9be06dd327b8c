"""Figures of generated images: measures by sampling setting, distances to the training images."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Numbers, as_estimate, format_n, median, proportion
from seqlm.plots import style
from seqlm.plots.style import canvas, draw_estimates, finish, label_at_right, styled

ROUNDING = 1e-6  # the same distance computed twice differs in its last digits
# What is measured at each setting, and its look.
MEASURES = {
    "classified_as_asked": (style.BLUE, "o", "-"),
    "diversity": (style.GREEN, "^", "-."),
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
    width = max(4.5, 0.6 + 2.1 * len(curves))
    figure = canvas(0.6 + 1.45 * len(MEASURES), heading, width)
    axes = figure.subplots(len(MEASURES), len(curves), sharey="row", sharex="col", squeeze=False)
    everything, sentences = [], []
    for panels, (measure, look) in zip(axes, MEASURES.items(), strict=True):
        name, target = measure.replace("_", " "), as_estimate(real[measure])
        sentences.append(f"Real test images: {name} {target.format()}.")
        for ax, (setting, cells) in zip(panels, curves.items(), strict=True):
            values = [f"{cell['setting']:g}" for cell in cells]
            if setting == "top-k":
                values = [value if value != "0" else "off" for value in values]
            ax.axhline(target.value, **style.DASHED)
            ax.axhspan(*target.ends, color=style.GREY, alpha=0.18, lw=0)
            estimates = [as_estimate(cell[measure]) for cell in cells]
            draw_estimates(ax, range(len(cells)), estimates, *look)
            step = 1 if len(cells) <= 6 else 2
            ax.set_xticks(range(0, len(cells), step), values[::step])
            ax.set_xlim(-0.5, len(cells) - 0.5)
            ax.grid(axis="y")
            ends = [f"{estimates[i].format()} at {values[i]}" for i in (0, -1)]
            sentences.append(f"{setting}: {name} {', '.join(ends)}.")
            everything += estimates
        panels[0].set_ylabel(textwrap.fill(name, 12))
        panels[0].yaxis.set_major_formatter(style.percent if target.unit == "share" else "{x:g}")
        text = f"real\n{target.format_value()}"
        label_at_right(panels[-1], [(None, target.value, text, None)], 0.28)
    for ax, setting in zip(axes[0], curves, strict=True):
        ax.set_title(setting, fontweight="bold")
    label = (
        f"value of the setting  ·  {format_n(everything)} images per value, bars: 95 % intervals"
    )
    figure.supxlabel(textwrap.fill(label, int(width * 12)), fontsize=style.SMALL)
    figure.align_ylabels(axes[:, 0])
    return finish(figure, f"{heading}, {format_n(everything)} images per value.", *sentences)


@styled
def plot_nearest_distances(groups: Mapping[str, np.ndarray], heading: str, near: float) -> Figure:
    """The share of images that have a training image within a distance, a line for each group.

    `groups` holds (N,) distances to the nearest training image. `near` is the threshold of
    `image_quality.near_copies`: a vertical line.
    """
    figure, sentences = canvas(3.9, heading), []
    ax = figure.add_subplot()
    ax.axvline(near, **style.DASHED, label=f"near copies: up to {near:.2f}")
    for (name, distances), (colour, _, line) in zip(groups.items(), style.SERIES, strict=False):
        copies = proportion(distances <= near + ROUNDING).format()
        words = f"median {median(distances).format()}, near copies {copies}"
        sentences.append(f"{name}, n = {len(distances):,}: {words}")
        ax.ecdf(distances, color=colour, ls=line, lw=2, label=sentences[-1])
    ax.set(xlim=(0, None), xlabel="distance to the nearest training image (0: a copy)")
    ax.set(ylabel="images within that distance")
    ax.yaxis.set_major_formatter(style.percent)
    ax.grid()
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.17))
    start = f"{heading}: the share of images within each distance of a training image"
    return finish(figure, f"{start}, 95 % intervals.", *(f"{text}." for text in sentences))
