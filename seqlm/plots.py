"""One function a figure: data in, a matplotlib Figure out; no file is written, nothing is shown.

Every figure carries `.alt`, a few sentences worked out from the data, for readers who do not see
it: what is shown, how many cases it rests on, what stands out.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seqlm.codebook import PatchCodebook, psnr
from seqlm.metrics import Estimate, proportion
from seqlm.plots_style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    SERIES,
    SMALL,
    VERMILLION,
    Numbers,
    as_share,
    board,
    canvas,
    estimate,
    in_plain,
    ladder,
    n_of,
    short,
    spread,
    styled,
)
from seqlm.speed import in_words

MEASURES = {
    "code_nll": "val codes",
    "read_nll": "val codes (read layout)",
    "draw_nll": "val codes (draw layout)",
    "class_nll": "val classes",
    "all_nll": "val tokens of all kinds",
}


NAMED_RIGHT = "classes of val named right"


def _finish(figure: Figure, *sentences: str) -> Figure:
    figure.alt = " ".join(sentence for sentence in sentences if sentence)
    return figure


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# --- pictures and codes ---------------------------------------------------------------------------


@styled
def picture_grid(
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
        shown = _listed([title.replace("\n", " ") for title in list(titles)[:10]])
        named = f"The titles, row by row{', begin' if n > 10 else ''}: {shown}."
    return _finish(
        drawn.figure, f"{heading}. A grid of n = {n} pictures in rows of {columns}.", named, marked
    )


@styled
def codebook_patches(book: PatchCodebook) -> Figure:
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
    return _finish(
        figure,
        f"The n = {book.n_codes} typical patches of the code book, {patch} by {patch} pixels each, "
        f"in rows of {columns}, ordered by darkness: code 0 is nearly paper "
        f"(mean ink {mean[0]:.0%}), code {book.n_codes - 1} nearly full of ink ({mean[-1]:.0%}).",
        f"{np.mean((mean > 0.1) & (mean < 0.9)):.0%} of the codes lie in between: edges, corners "
        "and greys.",
    )


@styled
def encoding_steps(image: np.ndarray, codes: np.ndarray, decoded: np.ndarray, patch: int) -> Figure:
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
    return _finish(
        figure,
        f"Three panels. A picture of {height} by {width} pixels is cut into n = {codes.size} "
        f"patches; each patch becomes the number of its nearest code, read row by row from the "
        f"top left: {first}{' and so on' if codes.size > 16 else ''}. Drawn from its codes the "
        f"picture comes back {lost}.",
    )


@styled
def augmented_copies(originals: np.ndarray, copies: np.ndarray) -> Figure:
    """A row for each of `originals` (R, H, W): itself, then its `copies` (R, C, H, W)."""
    n_rows, n_copies = copies.shape[:2]
    heading = f"Originals and their bent copies (n = {n_rows} x {n_copies})"
    drawn = board(n_rows, n_copies + 1.3, heading, top=0.2)
    for row, (original, bent) in enumerate(zip(originals, copies, strict=True)):
        drawn.picture(original, row, 0)
        for copy, image in enumerate(bent):
            drawn.picture(image, row, 1.3 + copy)
    drawn.write("original", 0, 0, fontweight="bold")
    drawn.write("copies", 0, 1.3)
    change = np.abs(copies - originals[:, None]).mean()
    return _finish(
        drawn.figure,
        f"n = {n_rows} rows: an original digit on the left, then {n_copies} copies of it, turned, "
        f"shifted, stretched and sheared a little. A pixel changes by {change:.0%} of full ink on "
        "average.",
    )


@styled
def code_frequencies(codes: np.ndarray, n_codes: int) -> Figure:
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
    return _finish(
        figure,
        f"Rank against frequency of n = {total:,} codes, both axes logarithmic. The commonest of "
        f"the {n_codes} codes makes up {shares[0]:.1%} of all, {half} codes make up half, and "
        f"{never} ({few}) are never used. A dashed line shows equal use, "
        f"{1 / n_codes:.2%} each.",
    )


# --- training and scores --------------------------------------------------------------------------


@styled
def floors_ladder(
    names: Sequence[str],
    estimates: Sequence[Numbers],
    heading: str,
    unit: str,
    ours: Sequence[str] | None = None,
) -> Figure:
    """Dots with intervals, best on top. `ours`, by default the first of `names`, stand out.

    `unit` labels the axis. Estimates whose unit is "share" get an axis in percent.
    """
    numbers = [estimate(e) for e in estimates]
    ours = [in_plain(name) for name in ([names[0]] if ours is None else ours)]
    names = [in_plain(name) for name in names]
    figure = canvas(0.75 + 0.33 * len(names), heading)
    ladder(figure.add_subplot(), names, numbers, ours, unit)
    return _finish(figure, f"{heading}.", _ladder_words(names, numbers, ours))


def _ladder_words(
    names: Sequence[str], numbers: Sequence[Estimate], ours: Sequence[str], brief: bool = False
) -> str:
    shares = all(e.unit == "share" for e in numbers)
    order = sorted(range(len(names)), key=lambda i: numbers[i].value, reverse=shares)
    told = []
    for i in order:
        words = short(numbers[i].value, numbers[i].unit) if brief else numbers[i]
        told.append(f"{names[i]}{' (ours)' * (names[i] in ours)} {words}")
    return f"Dots with 95 % intervals, {n_of(numbers)}, best first: {'; '.join(told)}."


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
    return "nats an image" if _measured(record) == ["class_nll"] else "nats a token"


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


def _loss_panel(ax: Axes, record: Mapping, floors: Mapping[str, float]) -> None:
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
    for nats in floors.values():
        ax.axhline(nats, color=GREY, ls=(0, (4, 3)), lw=1)
    _name_floors(ax, floors)
    ax.set(xlabel="optimizer step", ylabel=_unit(record))
    ax.set_xlim(left=0)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=3, columnspacing=1.4)
    _minutes_on_top(ax, record)


def _name_floors(ax: Axes, floors: Mapping[str, float]) -> None:
    low, high = ax.get_ylim()
    places = spread(list(floors.values()), 0.06 * (high - low))
    edge = ax.get_yaxis_transform()
    leader = {"arrowstyle": "-", "color": GREY, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
    for (name, nats), place in zip(floors.items(), places, strict=True):
        ax.annotate(
            f"floor: {in_plain(name)} {nats:.2f}", (1, nats), xytext=(1.03, place), xycoords=edge,
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
def training_process(record: Mapping, floors: Mapping[str, float] | None = None) -> Figure:
    """What training.json holds: losses against the `floors` (name -> nats), and the dials below.

    Works with whatever the evaluations hold: code_nll, read_nll, draw_nll, all_nll, class_nll,
    and anything named accuracy.
    """
    floors, below = dict(floors or {}), _small_panels(record)
    rows = f"n = {record['rows']:,} training rows" if record.get("rows") else ""
    figure = canvas(6.7 if below else 4.5, "How training went" + f" ({rows})" * bool(rows))
    bands = figure.subfigures(2, 1, height_ratios=[2.1, 1]) if below else [figure]
    _loss_panel(bands[0].add_subplot(), record, floors)
    for column, (title, lines) in enumerate(below, 1):
        ax = bands[1].add_subplot(1, len(below), column)
        _dial(ax, title, lines, (record.get("settings") or {}).get("max_grad_norm"))
    return _finish(figure, *_training_words(record, floors, rows))


def _training_words(record: Mapping, floors: Mapping[str, float], rows: str) -> list[str]:
    steps, loss = _series(record, "loss", "history")
    long = f" in {in_words(record['seconds'])}" if record.get("seconds") else ""
    said = [f"Training over {record.get('steps') or 0:,} steps{long}{', ' * bool(rows)}{rows}."]
    if len(loss):
        first, *_, last = *_smooth(loss)[:1], *_smooth(loss)[-1:]
        said.append(f"The training loss went from {first:.2f} to {last:.2f} {_unit(record)}.")
    best = record.get("best") or {}
    held = [name for name in _measured(record) if best.get(name) is not None]
    told = [f"{MEASURES[name]} {best[name]:.2f}" for name in held]
    shares = [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]
    if told or shares:
        said.append(f"Best, at step {best['step']:,}: {_listed(told + shares)}.")
    if floors:
        dashed = _listed([f"{in_plain(name)} {nats:.2f}" for name, nats in floors.items()])
        said.append(f"Floors, as dashed lines: {dashed}.")
    return said


@styled
def nll_by_position(
    model: Sequence[float],
    floors: Mapping[str, Sequence[float]],
    grid: tuple[int, int],
    n: int | None = None,
) -> Figure:
    """NLL of the code at each place of the picture: lines against the floors, and a map.

    `model` and each of `floors` (P,) nats a code, row by row from the top left; `grid` is
    (rows, columns) with rows * columns = P; `n` says how many pictures were averaged.
    """
    nats, places = np.asarray(model, dtype=float), np.arange(1, len(model) + 1)
    pictures = f"n = {n:,} pictures" if n else f"n = {len(nats)} places"
    figure = canvas(3.9, f"Where in the picture the codes are hard to guess ({pictures})")
    lines, plan = figure.subplots(1, 2, width_ratios=[1.7, 1])
    few = len(nats) <= 64
    for (name, values), (colour, marker, style) in zip(floors.items(), cycle(SERIES[1:])):
        dots = {"marker": marker, "ms": 4, "mfc": "white"} if few else {}
        lines.plot(places, values, color=colour, ls=style, lw=1.3, label=in_plain(name), **dots)
    dots = {"marker": "D", "ms": 5} if few else {}
    lines.plot(places, nats, color=BLUE, lw=2.6, label="the model", **dots)
    lines.set(xlabel="place of the code, row by row from the top left", ylabel="nats a code")
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
    plan.set(xticks=[], yticks=[], title="the model, nats a code by place")
    figure.colorbar(shown, ax=plan, shrink=0.75)
    hard, easy = (np.unravel_index(pick, grid) for pick in (nats.argmax(), nats.argmin()))
    means = [f"{in_plain(name)} {np.mean(values):.2f}" for name, values in floors.items()]
    return _finish(
        figure,
        f"NLL of the code at each of {len(nats)} places of the picture ({pictures}), as lines and "
        f"as a map of {grid[0]} by {grid[1]}. The model needs {nats.mean():.2f} nats a code on "
        f"average; hardest is row {hard[0] + 1}, column {hard[1] + 1} ({nats.max():.2f}), easiest "
        f"row {easy[0] + 1}, column {easy[1] + 1} ({nats.min():.2f}).",
        f"Floors on average: {_listed(means)}." if means else "",
    )


# --- classes --------------------------------------------------------------------------------------


@styled
def confusion_matrix(counts: Sequence[Sequence[int]], heading: str) -> Figure:
    """`counts` [true][predicted]; colour is the share of the row, the numbers are counts."""
    counts = np.asarray(counts)
    rows = counts.sum(axis=1)
    shares = counts / np.maximum(rows, 1)[:, None]
    right, total = int(np.trace(counts)), int(counts.sum())
    accuracy = proportion(np.arange(total) < right)
    figure = canvas(4.95, f"{heading}: {short(accuracy.value, 'share')} right, n = {total}", 6.8)
    ax = figure.add_subplot()
    shown = ax.imshow(shares, cmap="gray_r", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark, wrong = shares[row, column] > 0.5, row != column
            ax.text(column, row, count, ha="center", va="center", color="white" if dark else INK,
                    fontweight="bold" if wrong else None)  # fmt: skip
            if wrong:
                corner = (column - 0.46, row - 0.46)
                ax.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, ec=VERMILLION, lw=1.3))
    ax.set_xticks(range(len(counts)))
    ax.set_yticks(range(len(counts)), [f"{k}  (n = {n})" for k, n in enumerate(rows)])
    ax.set(xlabel="read as (framed: mistakes)", ylabel="is really")
    ax.tick_params(length=0)
    ax.spines[:].set(visible=True, color=PALE)
    figure.colorbar(shown, ax=ax, shrink=0.8, label="share of the row", format="{x:.0%}")
    off = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    worst = [np.unravel_index(i, off.shape) for i in np.argsort(-off, axis=None, kind="stable")[:3]]
    told = [f"{true} read as {guess} ({off[true, guess]} of {rows[true]})"
            for true, guess in worst if off[true, guess]]  # fmt: skip
    return _finish(
        figure,
        f"{heading}. Confusion matrix of {len(counts)} classes, {accuracy}: {total - right} "
        "mistakes.",
        f"Most frequent: {_listed(told)}." if told else "",
    )


@styled
def next_token_bars(table: Sequence, heading: str = "What comes next?") -> Figure:
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
    return _finish(
        figure,
        f"{heading.rstrip('?.')}: bars of the n = {len(tokens)} likeliest next tokens; first "
        f"{_listed(told)}. All other tokens together: {rest:.1%}.",
    )


@styled
def class_probabilities(
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
    return _finish(figure, f"n = {n} pictures with the probability of each class: {_listed(told)}.")


@styled
def dots_by_class(
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
    return _finish(
        figure, f"{heading}: {label} for each of {len(classes)} classes, {n_of(everything)}.", *told
    )


# --- drawings -------------------------------------------------------------------------------------


@styled
def drawings(
    images: np.ndarray, labels: Sequence[int], judged: Sequence[int], heading: str
) -> Figure:
    """Drawn pictures (N, H, W), a row for each class in `labels`; mistaken ones are marked.

    `judged` (N,) is what a judge took each for.
    """
    labels, judged = np.asarray(labels), np.asarray(judged)
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
    return _finish(
        drawn.figure,
        f"{heading.split(' (n')[0]}: n = {len(labels)} drawn pictures, a row for each of "
        f"{len(classes)} classes, not picked. Judged right: {proportion(~wrong)}. Least often "
        f"class {worst}: {(~wrong[labels == worst]).sum()} of {(labels == worst).sum()}.",
    )


@styled
def completions(truth: np.ndarray, begun_rows: int, completed: np.ndarray) -> Figure:
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
    return _finish(
        drawn.figure,
        f"n = {n} rows: a true picture, its upper {begun_rows} of {height} pixel rows (the rest is "
        f"hatched), and {tries} completions by the model. A completed pixel differs from the "
        f"true one by {error:.0%} of full ink on average.",
    )


# --- all on one page ------------------------------------------------------------------------------


@styled
def performance_summary(
    values03: Mapping | None,
    values04: Mapping | None,
    values05: Mapping | None,
    values06: Mapping | None,
) -> Figure:
    """The whole run on a page, from the values of metrics files 03 to 06; None leaves one out."""
    panels = [_codes_panel(values05), _classes_panel(values04), _drawn_panel(values06)]
    panels = [panel for panel in panels if panel]
    facts = _facts(values03, values05, values06)
    heights = [0.85 + 0.3 * len(names) for _, names, *_ in panels]
    heights += [0.35 + 0.24 * len(facts)] * bool(facts)
    figure = canvas(max(1.0, sum(heights)), "What the model can do, on digits it has never seen")
    figure.get_layout_engine().set(h_pad=0.11)
    grid = figure.add_gridspec(max(1, len(heights)), 1, height_ratios=heights or [1])
    told = ["One page of results on the test split."]
    for row, (title, names, numbers, ours, label) in enumerate(panels):
        ax = figure.add_subplot(grid[row])
        ladder(ax, names, numbers, ours, label)
        ax.set_title(f"{'abc'[row]}  {title}", fontweight="bold", x=0)
        told.append(f"Panel {'abc'[row]}, {title}: {_ladder_words(names, numbers, ours, True)}")
    if facts:
        ax = figure.add_subplot(grid[len(panels)])
        ax.set_axis_off()
        ax.set_title(f"{'abcd'[len(panels)]}  In numbers", fontweight="bold")
        for line, (name, value) in enumerate(facts):
            y = 1 - (line + 0.5) / len(facts)
            style = {"transform": ax.transAxes, "va": "center", "fontsize": SMALL}
            ax.text(-0.015, y, name, ha="right", **style)
            ax.text(0.012, y, value, **style)
        told.append("In numbers: " + "; ".join(f"{name}: {value}" for name, value in facts) + ".")
    return _finish(figure, *told)


def _codes_panel(values: Mapping | None):
    if not values:
        return None
    names = ["the GPT", *map(in_plain, values["floors"])]
    numbers = [values["read"]["code"]["nll"]]
    numbers += [floor["code"]["nll"] for floor in values["floors"].values()]
    return ("Guessing the next code of a picture, against floors", names,
            [estimate(e) for e in numbers], names[:1], "nats a code, less is better")  # fmt: skip


def _classes_panel(values: Mapping | None):
    if not values:
        return None
    found = {**values["routes"], **values["rivals"]}
    return ("Naming the digit, against rivals", list(found),
            [estimate(c["accuracy"]) for c in found.values()], list(values["routes"]),
            "share named right")  # fmt: skip


def _drawn_panel(values: Mapping | None):
    if not values:
        return None
    drawn = {f"drawn: {name}": c["accuracy"] for name, c in values["drawn"].items()}
    judge = values.get("judge") or {}
    ceilings = {"test": "the judge on real digits", "reconstructed": "the judge on re-drawn codes"}
    real = {ceilings.get(name, f"the judge: {name}"): e for name, e in judge.items()}
    both = {**drawn, **real}
    return ("Drawing a digit that a judge takes for the one asked", list(both),
            [estimate(e) for e in both.values()], list(drawn)[:1],
            "share judged right (chance: 10%)")  # fmt: skip


def _facts(values03, values05, values06) -> list[tuple[str, str]]:
    facts = []
    if values03:
        facts.append(("size of the model", f"{values03['parameters_count']:,} parameters"))
        long = f"{values03['steps']:,} steps, {in_words(values03['seconds'])}"
        facts.append(("training", f"{long}, in {values03['precision']['chosen']}"))
    if values05:
        gain = as_share(values05["below_best_floor"])
        code = values05["read"]["code"]
        facts.append((f"below the best floor ({in_plain(values05['best_floor'])})", str(gain)))
        facts.append(("perplexity of a code", _bare(code["perplexity"])))
        facts.append(("cost of a picture", _bare(code["bits_per_image"], " bits")))
    if values06 and values06.get("completed"):
        name, found = next(iter(values06["completed"].items()))
        facts.append((textwrap.shorten(name, 34), f"judged right {estimate(found['judged'])}"))
    return facts


def _bare(numbers: Numbers, unit: str = "") -> str:
    e = estimate(numbers)
    low, high = short(e.low, e.unit), short(e.high, e.unit)
    return f"{short(e.value, e.unit)}{unit} (95 % interval {low} to {high}, n = {e.n:,})"
