"""The figure of sampling settings: what is measured of generated images at each value."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Numbers, as_estimate, format_n
from seqlm.plots import style
from seqlm.plots.style import canvas, draw_estimates, finish, label_at_right, styled

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
