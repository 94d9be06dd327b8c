"""Figures of images: digits, codes, augmented and generated images, completions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqlm.evaluation.estimates import proportion
from seqlm.plots import style
from seqlm.plots.style import canvas, finish, make_tiles, styled


def first_patches(image: np.ndarray, n: int, patch: int) -> np.ndarray:
    """`image` (H, W) with all but its first `n` patches blank."""
    columns = image.shape[1] // patch
    mask = np.arange(image.size // patch**2).reshape(-1, columns) < n
    return image * np.kron(mask, np.ones((patch, patch)))


@styled
def plot_images(
    images: np.ndarray,
    titles: Sequence[str] | None = None,
    n_columns: int = 10,
    heading: str = "",
) -> Figure:
    """Images (N, H, W) in 0..1, row by row, dark on light; `titles` (N,) stand above the tiles."""
    n, n_columns = len(images), min(n_columns, len(images))
    titles = list(titles or [])
    heading = f"{heading} (n = {n})".strip()
    lines = max((title.count("\n") + 1 for title in titles), default=0)
    tiles = make_tiles(-(-n // n_columns), n_columns, heading, lines_above=lines)
    for i, image in enumerate(images):
        tiles.draw(image, *divmod(i, n_columns))
        if titles:
            tiles.write(titles[i], *divmod(i, n_columns))
    some = [title.replace("\n", " ") for title in titles[:10]]
    return finish(
        tiles.ax.figure,
        f"{heading}. A grid of n = {n} images in rows of {n_columns}.",
        f"Titles{', the first ten' * (n > 10)}: {', '.join(some)}." if some else "",
    )


@styled
def plot_code_frequencies(codes: np.ndarray, n_codes: int) -> Figure:
    """The share of each code in `codes` (any shape), most frequent first, on logarithmic axes."""
    counts = np.sort(np.bincount(np.ravel(codes), minlength=n_codes))[::-1]
    total, used = counts.sum(), int((counts > 0).sum())
    shares = counts[:used] / total
    figure = canvas(3.7, f"Frequency of the codes (n = {total:,} codes)")
    ax = figure.add_subplot()
    spots = np.unique(np.geomspace(1, used, 25).astype(int)) - 1
    ax.loglog(np.arange(1, used + 1), shares, color=style.BLUE, marker="o", ms=5, markevery=spots)
    ax.axhline(1 / n_codes, **style.DASHED)
    uniform = f"uniform: {1 / n_codes:.2%}"
    ax.annotate(uniform, (1, 1 / n_codes), (2, -5), textcoords="offset points", va="top",
                fontsize=style.SMALL)  # fmt: skip
    ax.set(xlabel="rank of the code", ylabel="share of all codes")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_major_formatter(lambda share, _: f"{share * 100:.3g}%")
    ax.grid(which="major")
    never = n_codes - used
    text = f"most frequent code: {shares[0]:.1%}\nnever used: {never} ({never / n_codes:.1%})"
    ax.text(0.985, 0.95, text, transform=ax.transAxes, ha="right", va="top", linespacing=1.5)
    half = int(np.searchsorted(np.cumsum(shares), 0.5)) + 1
    return finish(
        figure,
        f"Share of each of {n_codes} codes by rank, n = {total:,} codes, both axes logarithmic. "
        f"Most frequent: {shares[0]:.1%}; {half} codes make up half; {never} are never used. "
        f"Dashed: uniform use, {1 / n_codes:.2%}.",
    )


@styled
def plot_generated(
    images: np.ndarray, labels: Sequence[int], predicted: Sequence[int], heading: str
) -> Figure:
    """Generated images (N, H, W), a row for each class of `labels`; errors are marked.

    `predicted` (N,) are the classes from the digit classifier. Raises TypeError for booleans, of
    which False would count as class 0.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if predicted.dtype == bool:
        raise TypeError("predicted: pass the predicted classes, not whether they are correct")
    classes, correct = np.unique(labels), predicted == labels
    members = [np.flatnonzero(labels == k) for k in classes]
    tallies = [f"{correct[indices].sum()} of {len(indices)}" for indices in members]
    title = f"{heading} (n = {len(labels)}). ✗: classified as the digit in the corner"
    tiles = make_tiles(len(classes), max(map(len, members)), title, left=0.45, right=0.85)
    for row, indices in enumerate(members):
        tiles.write(str(classes[row]), row, 0, "left", fontsize=13, fontweight="bold")
        for column, i in enumerate(indices):
            note = "" if correct[i] else str(predicted[i])
            tiles.draw(images[i], row, column, flag=not correct[i], note=note)
        tiles.write(tallies[row], row, len(indices) - 1, "right")
    lowest = int(np.argmin([correct[indices].mean() for indices in members]))
    return finish(
        tiles.ax.figure,
        f"{heading}: n = {len(labels)} generated images, a row for each of {len(classes)} classes, "
        f"not selected. Classified as asked: {proportion(correct)}; lowest for class "
        f"{classes[lowest]}: {tallies[lowest]}.",
    )


@styled
def plot_completions(
    originals: np.ndarray, n_rows: int, completed: np.ndarray, labels: Sequence[int]
) -> Figure:
    """`originals` (N, H, W) of the digits `labels` (N,), their first `n_rows` pixel rows, and
    `completed` (N, C, H, W)."""
    n, n_completions, height = completed.shape[:3]
    heading = f"Completions of the upper part (n = {n}, {n_completions} each, not selected)"
    tiles = make_tiles(n, n_completions + 2.4, heading, top=0.2, left=0.35)
    seam = tiles.side * n_rows / height
    for row in range(n):
        tiles.write(str(labels[row]), row, 0, "left", fontsize=13, fontweight="bold")
        tiles.draw(originals[row], row, 0)
        tiles.draw(completed[row, 0], row, 1.2)
        x, y = tiles.position(row, 1.2)
        hidden = {"fc": "white", "ec": style.GREY, "hatch": "////", "lw": 0.8, "zorder": 2}
        tiles.ax.add_patch(Rectangle((x, y + seam), tiles.side, tiles.side - seam, **hidden))
        for column in range(n_completions):
            tiles.draw(completed[row, column], row, 2.4 + column)
            x, y = tiles.position(row, 2.4 + column)
            tiles.ax.plot([x - 0.03, x], [y + seam] * 2, color=style.VERMILLION, lw=2)
    for column, title in ((0, "original"), (1.2, "prompt")):
        tiles.write(title, 0, column, fontweight="bold")
    x, y = tiles.position(0, 2.4)
    tiles.ax.text(x, y - 0.03, "completed: below the orange mark the model draws",
                  fontsize=style.SMALL, fontweight="bold", va="bottom")  # fmt: skip
    error = np.abs(completed - originals[:, None])[:, :, n_rows:].mean()
    names = ", ".join(map(str, labels))
    return finish(
        tiles.ax.figure,
        f"n = {n} rows, the digits {names}: an original, its upper {n_rows} of {height} pixel rows "
        f"(the rest is hatched), and {n_completions} completions by the model. Mean difference of "
        f"a completed pixel: {error:.0%} of full ink.",
    )
