"""Figures of pictures: digits, the code book, copies, drawings and completions."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqlm.data.codebook import PatchCodebook, psnr
from seqlm.evaluation.estimates import proportion
from seqlm.plots.style import BLUE, GREY, SMALL, VERMILLION, board, canvas, finish, listed, styled


@styled
def plot_images(
    images: np.ndarray,
    titles: Sequence[str] | None = None,
    n_columns: int = 10,
    heading: str = "",
    flags: Sequence[bool] | None = None,
    flag_meaning: str = "marked with a cross",
) -> Figure:
    """Pictures (N, H, W) in 0..1, row by row, dark on light.

    `titles` (N,) stand above the tiles; `flags` (N,) bool frame some of them and mark them with a
    cross, `flag_meaning` says what that means.
    """
    n, columns = len(images), min(n_columns, len(images))
    rows, flags = -(-n // columns), np.zeros(n, bool) if flags is None else np.asarray(flags, bool)
    heading = f"{heading} (n = {n})".strip() + f" · ✗ {flag_meaning}" * bool(flags.any())
    lines = max((title.count("\n") + 1 for title in titles), default=0) if titles else 0
    drawn = board(rows, columns, heading, title_lines=lines)
    for i, image in enumerate(images):
        drawn.picture(image, *divmod(i, columns), flag=flags[i])
        if titles:
            drawn.write(titles[i], *divmod(i, columns))
    marked = f"{flags.sum()} of {n} are framed with a cross: {flag_meaning}." if flags.any() else ""
    named = ""
    if titles:
        shown = listed([title.replace("\n", " ") for title in list(titles)[:10]])
        named = f"The titles, row by row{', begin' if n > 10 else ''}: {shown}."
    return finish(
        drawn.figure, f"{heading}. A grid of n = {n} pictures in rows of {columns}.", named, marked
    )


@styled
def plot_codebook(book: PatchCodebook) -> Figure:
    """All K typical patches in the order of their numbers, 25 a row."""
    columns, patch, gap = min(25, book.n_codes), book.patch, max(1, round(0.4 * book.patch))
    rows, cell = -(-book.n_codes // columns), patch + gap
    sheet = np.full((rows * cell + gap, columns * cell + gap), np.nan)
    for code, center in enumerate(book.centers):
        y, x = (gap + cell * place for place in divmod(code, columns))
        sheet[y : y + patch, x : x + patch] = center.reshape(patch, patch)
    heading = f"The code book: n = {book.n_codes} patches of {patch}x{patch} pixels, by number"
    figure = canvas(max(0.95, 0.45 + 8.2 * rows / columns), heading)
    ax = figure.add_subplot()
    ax.set_facecolor("#cfe0ee")  # neither paper nor ink, so that white patches have an edge
    ax.imshow(np.ma.masked_invalid(sheet), cmap="gray_r", vmin=0, vmax=1)
    middles = gap + cell * np.arange(max(rows, columns)) + (patch - 1) / 2
    step = 1 if rows <= 10 else 2
    ax.set_yticks(middles[:rows:step], np.arange(0, rows, step) * columns)
    ax.set_xticks(middles[:columns:5], [f"+{k}" for k in range(0, columns, 5)])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_ylabel("number of the row's first code" if rows > 8 else "first code")
    mean = book.centers.mean(axis=1).clip(0, 1)
    return finish(
        figure,
        f"The n = {book.n_codes} typical patches of the code book, {patch} by {patch} pixels each, "
        f"in rows of {columns}, ordered by darkness: code 0 is nearly paper "
        f"(mean ink {mean[0]:.0%}), code {book.n_codes - 1} nearly full of ink ({mean[-1]:.0%}).",
        f"{np.mean((mean > 0.1) & (mean < 0.9)):.0%} of the codes lie in between: edges, corners "
        "and greys.",
    )


@styled
def plot_encoding(image: np.ndarray, codes: np.ndarray, decoded: np.ndarray, patch: int) -> Figure:
    """`image` (H, W) -> the grid of its patches' `codes` (P,) -> `decoded` (H, W)."""
    height, width = image.shape
    rows, columns = height // patch, width // patch
    codes = np.asarray(codes).reshape(rows, columns)
    error = psnr(image, decoded)
    lost = "unchanged" if np.isinf(error) else f"with a PSNR of {error:.1f} dB"
    figure = canvas(3.35, f"From a picture to n = {codes.size} codes and back")
    panels = figure.subplots(1, 3)
    for ax, picture, alpha in zip(panels, (image, decoded, decoded), (1, 0.22, 1), strict=True):
        ax.imshow(picture, cmap="gray_r", vmin=0, vmax=1, alpha=alpha)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color=GREY)
    for ax in panels[:2]:
        ax.hlines(np.arange(1, rows) * patch - 0.5, -0.5, width - 0.5, color=BLUE, lw=1)
        ax.vlines(np.arange(1, columns) * patch - 0.5, -0.5, height - 0.5, color=BLUE, lw=1)
    if columns <= 7:
        for (row, column), code in np.ndenumerate(codes):
            x, y = (place * patch + (patch - 1) / 2 for place in (column, row))
            panels[1].text(x, y, code, ha="center", va="center", fontweight="bold", color="#00436b")
    panels[0].set_title(f"1  cut into {patch}x{patch} patches")
    panels[1].set_title("2  each named by its code")
    panels[2].set_title("3  drawn from its codes")
    for ax in panels[1:]:
        ax.text(-0.02, 0.5, "→", transform=ax.transAxes, fontsize=17, ha="right", va="center")
    first = ", ".join(map(str, codes.ravel()[:16]))
    return finish(
        figure,
        f"Three panels. A picture of {height} by {width} pixels is cut into n = {codes.size} "
        f"patches; each patch becomes the number of its nearest code, read row by row from the "
        f"top left: {first}{' and so on' if codes.size > 16 else ''}. Drawn from its codes the "
        f"picture comes back {lost}.",
    )


@styled
def plot_augmented(originals: np.ndarray, copies: np.ndarray) -> Figure:
    """A row for each of `originals` (R, H, W): itself, then its `copies` (R, C, H, W)."""
    n_rows, n_copies = copies.shape[:2]
    heading = f"Originals and their augmented images (n = {n_rows} x {n_copies})"
    drawn = board(n_rows, n_copies + 1.3, heading, top=0.2)
    for row, (original, bent) in enumerate(zip(originals, copies, strict=True)):
        drawn.picture(original, row, 0)
        for copy, image in enumerate(bent):
            drawn.picture(image, row, 1.3 + copy)
    drawn.write("original", 0, 0, fontweight="bold")
    drawn.write("copies", 0, 1.3)
    change = np.abs(copies - originals[:, None]).mean()
    return finish(
        drawn.figure,
        f"n = {n_rows} rows: an original digit on the left, then {n_copies} copies of it, turned, "
        f"shifted, stretched and sheared a little. A pixel changes by {change:.0%} of full ink on "
        "average.",
    )


@styled
def plot_code_frequencies(codes: np.ndarray, n_codes: int) -> Figure:
    """How often each code comes in `codes` (any shape), commonest first, on logarithmic axes."""
    counts = np.sort(np.bincount(np.ravel(codes), minlength=n_codes))[::-1]
    total, used = counts.sum(), int((counts > 0).sum())
    figure = canvas(3.7, f"How often the codes are used (n = {total:,} codes in the pictures)")
    ax = figure.add_subplot()
    ranks, shares = np.arange(1, used + 1), counts[:used] / total
    spots = np.unique(np.geomspace(1, used, 25).astype(int)) - 1
    ax.plot(ranks, shares, color=BLUE, marker="o", ms=5, markevery=spots.tolist())
    ax.axhline(1 / n_codes, color=GREY, ls="--", lw=1.2)
    ax.annotate(
        f"if all {n_codes} were equally common: {1 / n_codes:.2%}", (1, 1 / n_codes),
        xytext=(2, -5), textcoords="offset points", va="top", fontsize=SMALL,
    )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="rank of the code (1 = commonest)")
    ax.set_ylabel("share of all codes")
    for axis, form in ((ax.xaxis, "{:,.0f}"), (ax.yaxis, "{:.3g}%")):
        scale = 100 if axis is ax.yaxis else 1
        axis.set_major_formatter(lambda v, _, form=form, scale=scale: form.format(v * scale))
    ax.grid(which="major")
    never, few = n_codes - used, f"{(n_codes - used) / n_codes:.1%}"
    words = f"the commonest code: {shares[0]:.1%}\nnever used: {never} of {n_codes} codes ({few})"
    ax.text(0.985, 0.95, words, transform=ax.transAxes, ha="right", va="top", linespacing=1.5)
    half = int(np.searchsorted(np.cumsum(shares), 0.5)) + 1
    return finish(
        figure,
        f"Rank against frequency of n = {total:,} codes, both axes logarithmic. The commonest of "
        f"the {n_codes} codes makes up {shares[0]:.1%} of all, {half} codes make up half, and "
        f"{never} ({few}) are never used. A dashed line shows equal use, "
        f"{1 / n_codes:.2%} each.",
    )


@styled
def plot_generated(
    images: np.ndarray, labels: Sequence[int], judged: Sequence[int], heading: str
) -> Figure:
    """Drawn pictures (N, H, W), a row for each class in `labels`; mistaken ones are marked.

    `judged` (N,) is the class a judge took each for. Raises TypeError for booleans: whether it was
    right is found out here, and False would pass for class 0.
    """
    labels, judged = np.asarray(labels), np.asarray(judged)
    if judged.dtype == bool:
        raise TypeError("judged: give the class each was taken for, not whether that is right")
    classes = np.unique(labels)
    members = [np.flatnonzero(labels == k) for k in classes]
    wrong = judged != labels
    heading = f"{heading} (n = {len(labels)}) · ✗ judged to be the small number"
    drawn = board(len(classes), max(map(len, members)), heading, left=0.45, right=0.85)
    for row, (k, indices) in enumerate(zip(classes, members, strict=True)):
        drawn.write(str(k), row, 0, "left", fontsize=13, fontweight="bold")
        for column, i in enumerate(indices):
            drawn.picture(images[i], row, column, flag=wrong[i])
            if wrong[i]:
                drawn.note(str(judged[i]), row, column)
        tally = f"{(~wrong[indices]).sum()} of {len(indices)}"
        drawn.write(tally, row, len(indices) - 1, "right")
    worst = min(classes, key=lambda k: (~wrong[labels == k]).mean())
    return finish(
        drawn.figure,
        f"{heading.split(' (n')[0]}: n = {len(labels)} drawn pictures, a row for each of "
        f"{len(classes)} classes, not picked. Judged right: {proportion(~wrong)}. Least often "
        f"class {worst}: {(~wrong[labels == worst]).sum()} of {(labels == worst).sum()}.",
    )


@styled
def plot_completions(truth: np.ndarray, begun_rows: int, completed: np.ndarray) -> Figure:
    """The `truth` (N, H, W), its first `begun_rows` rows of pixels, and what was made of them.

    `completed` is (N, C, H, W): C completions of each, the begun rows included.
    """
    n, tries, height = completed.shape[:3]
    heading = f"Begun pictures, completed (n = {n}, {tries} completions each, not picked)"
    drawn = board(n, tries + 2.4, heading, top=0.2)
    for row in range(n):
        drawn.picture(truth[row], row, 0)
        half = completed[row, 0].copy()
        half[begun_rows:] = 0
        drawn.picture(half, row, 1.2)
        x, y = drawn.place(row, 1.2)
        seam = drawn.side * begun_rows / height
        hidden = Rectangle((x, y + seam), drawn.side, drawn.side - seam, fc="white", ec="#8a8a8a",
                           hatch="////", lw=0.8, zorder=2)  # fmt: skip
        drawn.ax.add_patch(hidden)
        for column in range(tries):
            drawn.picture(completed[row, column], row, 2.4 + column)
            x, y = drawn.place(row, 2.4 + column)
            drawn.ax.plot([x - 0.03, x], [y + seam] * 2, color=VERMILLION, lw=2, clip_on=False)
    for column, title in ((0, "truth"), (1.2, "given"), (2.4, "completed")):
        drawn.write(title, 0, column, fontweight="bold")
    error = np.abs(completed - truth[:, None])[:, :, begun_rows:].mean()
    return finish(
        drawn.figure,
        f"n = {n} rows: a true picture, its upper {begun_rows} of {height} pixel rows (the rest is "
        f"hatched), and {tries} completions by the model. A completed pixel differs from the "
        f"true one by {error:.0%} of full ink on average.",
    )
