"""Figures of choices: the classes read, mistaken and drawn, and the tokens that come next."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import seaborn
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqlm.evaluation.estimates import proportion
from seqlm.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    SERIES,
    SMALL,
    VERMILLION,
    Numbers,
    canvas,
    estimate,
    finish,
    listed,
    n_of,
    short,
    styled,
)


@styled
def plot_confusion_matrix(counts: Sequence[Sequence[int]], heading: str) -> Figure:
    """`counts` [true][predicted]; colour is the share of the row, the numbers are counts."""
    counts = np.asarray(counts)
    rows = counts.sum(axis=1)
    shares = counts / np.maximum(rows, 1)[:, None]
    right, total = int(np.trace(counts)), int(counts.sum())
    accuracy = proportion(np.arange(total) < right)
    figure = canvas(4.95, f"{heading}: {short(accuracy.value, 'share')} right, n = {total}", 6.8)
    ax = figure.add_subplot()
    seaborn.heatmap(
        shares, vmin=0, vmax=1, cmap="gray_r", square=True, ax=ax,
        annot=np.where(counts, counts.astype(str), ""), fmt="",
        yticklabels=[f"{k}  (n = {n})" for k, n in enumerate(rows)],
        cbar_kws={"shrink": 0.8, "label": "share of the row", "format": "{x:.0%}"},
    )  # fmt: skip
    for row, column in np.argwhere(counts):
        if row != column:
            corner = (column + 0.04, row + 0.04)
            ax.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, ec=VERMILLION, lw=1.3))
    ax.set(xlabel="read as (framed: mistakes)", ylabel="is really")
    ax.tick_params(length=0, rotation=0)
    ax.spines[:].set(visible=True, color=PALE)
    off = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    worst = [np.unravel_index(i, off.shape) for i in np.argsort(-off, axis=None, kind="stable")[:3]]
    told = [f"{true} read as {guess} ({off[true, guess]} of {rows[true]})"
            for true, guess in worst if off[true, guess]]  # fmt: skip
    return finish(
        figure,
        f"{heading}. Confusion matrix of {len(counts)} classes, {accuracy}: {total - right} "
        "mistakes.",
        f"Most frequent: {listed(told)}." if told else "",
    )


@styled
def plot_next_tokens(table: Sequence, heading: str = "What comes next?") -> Figure:
    """The likeliest next tokens with their probabilities, from `sampling.next_token_table`."""
    tokens, chances = [line.token for line in table], [line.probability for line in table]
    rest = max(0.0, 1 - sum(chances))
    above = f"{heading} (n = {len(tokens)} likeliest tokens)"
    figure = canvas(0.6 + 0.29 * (len(tokens) + 1), above, 7)
    ax = figure.add_subplot()
    places = np.arange(len(tokens) + 1)
    bars = ax.barh(places, [*chances, rest], color=[BLUE] * len(tokens) + ["white"], height=0.72)
    bars[-1].set(hatch="////", edgecolor=GREY)
    ax.bar_label(bars, [f"{chance:.1%}" for chance in (*chances, rest)], padding=4)
    ax.set_yticks(places, [*tokens, "all others"], fontfamily="DejaVu Sans Mono")
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * max(*chances, rest))
    ax.xaxis.set_major_formatter(lambda share, _: f"{share * 100:g}%")
    ax.set_xlabel("probability")
    ax.tick_params(axis="y", length=0)
    told = [f"{token} {chance:.1%}" for token, chance in zip(tokens[:5], chances, strict=False)]
    return finish(
        figure,
        f"{heading.rstrip('?.')}: bars of the n = {len(tokens)} likeliest next tokens; first "
        f"{listed(told)}. All other tokens together: {rest:.1%}.",
    )


@styled
def plot_class_probabilities(
    images: np.ndarray, probabilities: np.ndarray, labels: Sequence[int]
) -> Figure:
    """A few `images` (N, H, W), each above the `probabilities` (N, C) of its classes."""
    n, columns = len(images), min(5, len(images))
    bands = -(-n // columns)
    right = probabilities.argmax(axis=1) == np.asarray(labels)
    heading = f"What the model reads, and how sure it is (n = {n} pictures, {right.sum()} right)"
    figure = canvas(3.9 * bands, heading, max(5.5, 1.8 * columns))
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    axes = figure.subplots(2 * bands, columns, squeeze=False, height_ratios=[1, 1.35] * bands)
    for ax in axes.ravel():
        ax.set_axis_off()
    for i in range(n):
        band, column = divmod(i, columns)
        picture, bars = axes[2 * band, column], axes[2 * band + 1, column]
        picture.imshow(images[i], cmap="gray_r", vmin=0, vmax=1)
        guess, truth = int(probabilities[i].argmax()), int(labels[i])
        picture.set_title(f"is {truth}, read as {guess} {'✓' if right[i] else '✗'}", loc="center",
                          fontweight="normal" if right[i] else "bold")  # fmt: skip
        bars.set_axis_on()
        drawn = bars.barh(range(probabilities.shape[1]), probabilities[i], color=BLUE, height=0.75)
        drawn[truth].set(hatch="////", edgecolor=INK, facecolor=ORANGE)
        sure = probabilities[i, guess]
        bars.text(sure + 0.03, guess, f"{sure:.0%}", va="center", fontsize=SMALL)
        bars.set(yticks=range(probabilities.shape[1]), xlim=(0, 1.32), xticks=[0, 0.5, 1])
        bars.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        bars.invert_yaxis()
    figure.supxlabel("probability of each class (hatched: the true class)", fontsize=SMALL)
    told = [f"a {truth} read as {row.argmax()} ({row.max():.0%})"
            for truth, row in zip(labels, probabilities, strict=True)]  # fmt: skip
    return finish(figure, f"n = {n} pictures with the probability of each class: {listed(told)}.")


@styled
def plot_accuracy_by_class(
    series: Mapping[str, Mapping[str, Numbers]],
    heading: str = "Class by class",
    label: str = "share right",
) -> Figure:
    """For each name a row of shares with intervals, one a class."""
    classes = sorted({k for shares in series.values() for k in shares}, key=int)
    everything = [estimate(e) for shares in series.values() for e in shares.values()]
    figure = canvas(3.8, heading)
    ax = figure.add_subplot()
    step = 0.62 / max(1, len(series))
    told = []
    for j, ((name, shares), (colour, marker, _)) in enumerate(zip(series.items(), cycle(SERIES))):
        found = {int(k): estimate(e) for k, e in shares.items()}
        at = np.array([classes.index(str(k)) for k in found]) + (j - (len(series) - 1) / 2) * step
        ax.vlines(at, [e.low for e in found.values()], [e.high for e in found.values()],
                  color=colour, lw=1.6)  # fmt: skip
        ax.plot(at, [e.value for e in found.values()], marker, color=colour, ms=6, label=name)
        worst = min(found, key=lambda k: found[k].value)
        told.append(f"{name}: lowest for class {worst}, {found[worst]}.")
    ax.set_xticks(range(len(classes)), classes)
    ax.set_xlabel(f"class  ·  {n_of(everything)} a class, bars: 95 % intervals")
    ax.set_ylabel(label)
    ax.set_ylim(top=1.02)
    ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.grid(axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3)
    return finish(
        figure, f"{heading}: {label} for each of {len(classes)} classes, {n_of(everything)}.", *told
    )
