"""Figures of drawings on trial: how varied they are at each setting, and are they copies?"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Estimate, Numbers, as_estimate, format_n, median, proportion
from seqlm.evaluation.image_quality import ROUNDING
from seqlm.plots.comparisons import in_percent
from seqlm.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    SERIES,
    SMALL,
    VERMILLION,
    canvas,
    finish,
    label_at_right,
    listed,
    styled,
)

# What is measured at each setting: its name on the axis, and its look.
MEASURES = {
    "classified_as_asked": ("judged right", (BLUE, "o", "-")),
    "diversity": ("diversity", (GREEN, "^", "-.")),
    "real_vs_generated_auc": ("told apart\nfrom real (AUC)", (VERMILLION, "s", "--")),
}


@styled
def plot_diversity(
    curves: Mapping[str, Sequence[Mapping]], real: Mapping | Estimate, heading: str
) -> Figure:
    """A column for each knob of the sampling, a row for each measure, bars: 95 % intervals.

    `curves` holds for each knob its settings: {"setting", "classified_as_asked", "diversity", "real_vs_generated_auc"},
    the last may be None. `real` is the diversity of real test images, or a dict of what was
    measured on them under the same names; it stands as a dashed line. The settings stand at equal
    distances, a top-k of 0, which keeps all tokens, last.
    """
    knobs = {knob: _in_order(knob, cells) for knob, cells in curves.items()}
    if isinstance(real, Estimate) or "value" in real:
        real = {"diversity": real}
    references = {name: as_estimate(e) for name, e in real.items() if name in MEASURES and e}
    everything = [cell for cells in knobs.values() for cell in cells]
    rows = [name for name in MEASURES if any(cell.get(name) for cell in everything)]
    figure = canvas(0.6 + 1.45 * len(rows), heading, max(4.5, 0.6 + 2.1 * len(knobs)))
    axes = figure.subplots(len(rows), len(knobs), sharey="row", sharex="col", squeeze=False)
    for row, name in enumerate(rows):
        for ax, cells in zip(axes[row], knobs.values(), strict=True):
            _knob_panel(ax, name, cells, references.get(name))
        shares = next(_of(name, c[name]).unit for c in everything if c.get(name)) == "share"
        axes[row, 0].set_ylabel(MEASURES[name][0])
        _name_lines(axes[row, -1], name, references.get(name))
        axes[row, 0].yaxis.set_major_formatter(in_percent if shares else lambda v, _: f"{v:g}")
    for column, (knob, cells) in enumerate(knobs.items()):
        axes[0, column].set_title(knob, fontweight="bold")
        every = 1 if len(cells) <= 6 else 2
        names = ["" if i % every else _setting(knob, c["setting"]) for i, c in enumerate(cells)]
        axes[-1, column].set_xticks(range(len(cells)), names)
    judged = [
        as_estimate(cell["classified_as_asked"])
        for cell in everything
        if cell.get("classified_as_asked")
    ]
    drawn = (
        f"{format_n(judged)} drawings a setting" if judged else f"n = {len(everything)} settings"
    )
    label = f"setting, at equal distances  ·  {drawn}, bars: 95 % intervals"
    figure.supxlabel(textwrap.fill(label, int(figure.get_figwidth() * 12)), fontsize=SMALL)
    figure.align_ylabels(axes[:, 0])
    words = [_knob_words(knob, cells, rows, references) for knob, cells in knobs.items()]
    said = [f"{MEASURES[k][0].splitlines()[0]} {e}" for k, e in references.items()]
    return finish(
        figure,
        f"{heading}: {listed([MEASURES[k][0].replace(chr(10), ' ') for k in rows])} against the "
        f"setting of {listed(list(knobs))}, {drawn}.",
        f"Real test images: {listed(said)}." if said else "",
        *words,
    )


def _of(name: str, numbers: Numbers) -> Estimate:
    """What was measured; an area under a curve is never told in percent."""
    e = as_estimate(numbers)
    return replace(e, unit="") if name == "real_vs_generated_auc" else e


def _in_order(knob: str, cells: Sequence[Mapping]) -> list[Mapping]:
    off = [cell for cell in cells if _setting(knob, cell["setting"]) == "off"]
    on = [cell for cell in cells if _setting(knob, cell["setting"]) != "off"]
    return sorted(on, key=lambda cell: cell["setting"]) + off


def _setting(knob: str, setting: float | None) -> str:
    return "off" if setting is None or (knob == "top-k" and not setting) else f"{setting:g}"


def _knob_panel(ax: Axes, name: str, cells: Sequence[Mapping], reference: Estimate | None) -> None:
    colour, marker, line = MEASURES[name][1]
    found = [(i, as_estimate(cell[name])) for i, cell in enumerate(cells) if cell.get(name)]
    if reference:
        ax.axhline(reference.value, color=INK, ls=(0, (4, 3)), lw=1.2)
        if reference.has_interval:
            ax.axhspan(reference.low, reference.high, color=GREY, alpha=0.18, lw=0)
    for i, e in found:
        ax.plot([i, i], e.ends, color=colour, lw=1.6)
    ax.plot([i for i, _ in found], [e.value for _, e in found], color=colour, marker=marker,
            ls=line, ms=5.5, mfc="white", mew=1.5)  # fmt: skip
    if name == "real_vs_generated_auc":
        ax.axhline(0.5, color=GREY, ls=":", lw=1.2)
    ax.set_xlim(-0.5, max(1, len(cells)) - 0.5)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.locator_params(axis="y", nbins=4)


def _name_lines(ax: Axes, name: str, reference: Estimate | None) -> None:
    lines = [(None, 0.5, "guessing\n0.5", None)] if name == "real_vs_generated_auc" else []
    if reference:
        e = _of(name, reference)
        lines.append((None, e.value, f"real images\n{e.format_value()}", None))
    label_at_right(ax, lines, 0.28)


def _knob_words(
    knob: str, cells: Sequence[Mapping], rows: Sequence[str], references: Mapping[str, Estimate]
) -> str:
    said = []
    for name in rows:
        found = [(_setting(knob, c["setting"]), _of(name, c[name])) for c in cells if c.get(name)]
        if found:
            (first, begin), (last, end) = found[0], found[-1]
            word = MEASURES[name][0].replace("\n", " ")
            said.append(
                f"{word} {begin.format()} at {first}"
                + f", {end.format()} at {last}" * (len(found) > 1)
            )
    real, held = references.get("diversity"), [c for c in cells if c.get("diversity")]
    if real and held:
        near = min(held, key=lambda c: abs(as_estimate(c["diversity"]).value - real.value))
        words = f"as varied as real images most nearly at {_setting(knob, near['setting'])}"
        right = (
            as_estimate(near["classified_as_asked"]) if near.get("classified_as_asked") else None
        )
        said.append(words + (f", with {right.format_value()} judged right" * bool(right)))
    return f"{knob}, with 95 % intervals: {'; '.join(said)}." if said else ""


# --- are they copies? -----------------------------------------------------------------------------


@styled
def plot_nearest_distances(
    groups: Mapping[str, np.ndarray], heading: str, near: float | None = None
) -> Figure:
    """Distance of each picture to its nearest training image, one row a group.

    `groups` holds (N,) distances, those of held-out real images last. `near` is the threshold of
    `judging.near_copies`: a line marks it, and each row says what share lies within it.
    """
    groups = {name: np.sort(np.asarray(d, dtype=float)) for name, d in groups.items()}
    real = list(groups)[-1]
    figure = canvas(1.05 + 0.85 * len(groups), heading)
    ax = figure.add_subplot()
    sentences = []
    for y, ((name, distances), look) in enumerate(zip(groups.items(), SERIES, strict=False)):
        _distances_row(ax, y, distances, look)
        middle = median(distances)
        words = [f"median {middle.format()}"]
        said = f"{name}, n = {middle.n:,}: median {middle.format()}, nearest {distances[0]:.2f}"
        if near is not None:
            share = proportion(distances <= near + ROUNDING)
            words.append(f"near copies: {share.value:.1%}\n({share.format_interval()})")
            said += f", near copies {share.format()}"
        ax.text(1.015, y, "\n".join(words), transform=ax.get_yaxis_transform(), va="center",
                fontsize=SMALL, fontweight="bold" if name == real else None)  # fmt: skip
        sentences.append(f"{said}.")
    _distances_frame(ax, groups, near)
    return finish(
        figure,
        f"{heading}: distance of each picture to its nearest training image, where a copy would "
        "be at 0; 95 % intervals in brackets.",
        f"Near copies lie left of a line at {near:.2f}." if near is not None else "",
        *sentences,
    )


def _distances_frame(ax: Axes, groups: Mapping[str, np.ndarray], near: float | None) -> None:
    furthest = max(distances[-1] for distances in groups.values()) or 1.0
    ax.axvline(0, color=INK, lw=2.2)
    ax.annotate("a copy would be at 0", (0, 1), (0, 16), xycoords=ax.get_xaxis_transform(),
                textcoords="offset points", va="bottom", fontsize=SMALL)  # fmt: skip
    if near is not None:
        ax.axvline(near, color=VERMILLION, ls="--", lw=1.4)
        ax.annotate(f"near copies lie left of {near:.2f}", (near, 1), (3, 3), va="bottom",
                    xycoords=ax.get_xaxis_transform(), textcoords="offset points",
                    fontsize=SMALL)  # fmt: skip
    ax.set(xlim=(-0.02 * furthest, 1.03 * furthest), ylim=(len(groups) - 0.5, -0.5))
    names = [f"{textwrap.fill(name, 24)}\nn = {len(d):,}" for name, d in groups.items()]
    ax.set_yticks(range(len(groups)), names)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("distance to the nearest training image  ·  dots: pictures, boxes: the middle "
                  "half, ◆ median with its 95 % interval", fontsize=SMALL)  # fmt: skip


def _distances_row(ax: Axes, y: int, distances: np.ndarray, look: tuple) -> None:
    colour, marker, _ = look
    # Steps of the golden ratio fill the height evenly and are the same at every drawing.
    heights = y + 0.05 + 0.34 * (np.arange(len(distances)) * 0.6180339887 % 1)
    ax.plot(distances, heights, marker, color=colour, ms=2.5, alpha=0.5, mew=0)
    low, high = np.quantile(distances, [0.25, 0.75])
    box = {"height": 0.22, "fc": "white", "ec": colour, "lw": 1.6}
    ax.barh(y - 0.18, high - low, left=low, **box)
    middle = median(distances)
    ax.plot(middle.ends, [y - 0.18] * 2, color=colour, lw=3)
    ax.plot(middle.value, y - 0.18, "D", color=colour, ms=7)
