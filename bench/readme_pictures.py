"""Draw the pictures that README opens with, by models/nano28: figures/nano/.

`python bench/readme_pictures.py` writes drawn_beside_real.png, the first five digits of each class
that the model draws beside the first five real ones (none picked), and code_by_code.gif, the
drawing of one digit with the candidates for each of its codes. Beside each is its alt text.
"""

from io import BytesIO
from pathlib import Path

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# isort: split

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from seqlm.atomic import atomic_path
from seqlm.config import DRAWING, SampleConfig
from seqlm.data.tokens import code_token
from seqlm.models.tracing import Trace
from seqlm.playground.player import Player
from seqlm.plots import style
from seqlm.plots.images import first_patches
from seqlm.utils import write_text
from seqlm.workspace import NANO28

FOLDER = Path(__file__).parents[1] / "figures" / "nano"
SETTINGS = SampleConfig(**DRAWING)
N_EACH = 5  # of each digit
DIGIT, N_CANDIDATES = 3, 5  # of the animation
FRAME, LAST = 180, 4000  # milliseconds
COLOURS = 32  # of the animation


@style.styled
def plot_beside_real(drawn: np.ndarray, real: np.ndarray) -> Figure:
    """Two blocks of digits (10, N_EACH, H, W): a column for each digit."""
    pitch, top, gap = 0.44, 0.3, 0.25
    ax = style.inch_axes(20 * pitch + gap + 0.1, top + N_EACH * pitch, "")
    blocks = {
        "Drawn by models/nano28, none picked": drawn,
        "Real digits that it has never seen": real,
    }
    for i, (heading, digits) in enumerate(blocks.items()):
        tiles = style.Tiles(ax, pitch - 0.03, (pitch, pitch), (top, i * (10 * pitch + gap)))
        for (column, row), _ in np.ndenumerate(digits[:, :, 0, 0]):
            tiles.draw(digits[column, row], row, column)
        ax.text(tiles.position(0, 0)[0], top - 0.09, heading, fontweight="bold", fontsize=10)
    return style.finish(
        ax.figure,
        f"Two blocks of handwritten digits, 0 to 9 from left to right, {N_EACH} of each. On the "
        f"left the first {N_EACH} that the language model models/nano28 draws of each digit with "
        f"its default settings and seed {SETTINGS.seed}, none picked; on the right real digits of "
        "28x28 pixels from MNIST's test images, which it has not learned from.",
    )


@style.styled
def plot_frame(player: Player, trace: Trace, image: np.ndarray, place: int) -> Figure:
    """The picture before code number `place` (from 0), and the candidates for that code."""
    n = player.book.n_patches
    figure = Figure(figsize=(6.0, 2.9), dpi=100)
    left = figure.add_axes((0.02, 0.03, 0.44, 0.94))
    left.set(xlim=(-0.01, 1.01), ylim=(1.01, -0.01), aspect="equal", autoscale_on=False)
    left.set_axis_off()
    tiles = style.Tiles(left, 1.0, (0, 0), (0, 0))
    tiles.draw(first_patches(image, place, player.book.patch), 0, 0)
    words = f"{n} codes: a {DIGIT}"
    if place < n:
        words = f"code {place + 1} of {n}"
        tiles.frame(0, 0, place, player.book.grid, color=style.VERMILLION, lw=2.5)
        _draw_bars(figure.add_axes((0.53, 0.04, 0.45, 0.8)), player, trace, place)
    figure.text(0.53, 0.9, words, fontsize=13, fontweight="bold")
    return figure


def _draw_bars(ax, player: Player, trace: Trace, place: int) -> None:
    """The most probable codes as patches, with the model's probability; ▸ is the one drawn."""
    candidates = trace.candidates(place, N_CANDIDATES)
    if len(candidates) > N_CANDIDATES:  # the one drawn is not among the first
        del candidates[N_CANDIDATES - 1]
    patches = {code_token(code): patch for code, patch in enumerate(player.book.centers)}
    for y, c in enumerate(candidates):
        look = {"color": style.VERMILLION if c.chosen else style.INK, "va": "center"}
        look |= {"fontsize": 12, "fontweight": "bold" if c.chosen else "normal"}
        corner = (0.35, y - 0.38)
        if c.token in patches:  # else a structural token
            patch = patches[c.token].reshape(player.book.patch, -1)
            x, top = corner
            extent = (x, x + 0.76, top + 0.76, top)
            ax.imshow(patch, cmap="gray_r", vmin=0, vmax=1, extent=extent)
            ax.add_patch(Rectangle(corner, 0.76, 0.76, fill=False, ec=style.GREY, lw=0.8))
        bar = style.VERMILLION if c.chosen else style.BLUE
        ax.barh(y, 3 * c.probability, 0.5, left=1.3, color=bar)
        ax.text(1.42 + 3 * c.probability, y, f"{c.probability:.0%}", **look)
        if c.chosen:
            ax.text(0, y, "▸", **look)
    ax.set(xlim=(0, 5.6), ylim=(N_CANDIDATES - 0.5, -0.5), aspect="equal", anchor="W")
    ax.set_axis_off()


def animate(player: Player) -> str:
    """Write the animation; returns its alt text."""
    (codes,) = player.draw([DIGIT], SETTINGS)
    trace, (image,) = player.trace_drawing(codes, DIGIT, SETTINGS), player.book.decode(codes[None])
    frames = []
    for place in range(len(codes) + 1):
        picture = BytesIO()
        plot_frame(player, trace, image, place).savefig(picture, format="png")
        frames.append(Image.open(picture).convert("RGB"))
    wide, high = frames[0].size
    some = Image.new("RGB", (wide, 5 * high))  # one palette for all frames
    for i, frame in enumerate(frames[10:60:10]):
        some.paste(frame, (0, i * high))
    palette = some.quantize(COLOURS)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [FRAME] * len(codes) + [LAST]
    with atomic_path(FOLDER / "code_by_code.gif") as aside:
        frames[0].save(aside, save_all=True, append_images=frames[1:], duration=times, loop=0)
    return (
        f"An animation: the language model models/nano28 draws a {DIGIT} in {len(codes)} codes, "
        "row by row from the top left, each code a patch of 4x4 pixels. On the right, for each "
        f"code, the {N_CANDIDATES} most probable patches with the model's probabilities; the one "
        "that was drawn is marked. Default settings, not picked."
    )


def digits(player: Player) -> tuple[np.ndarray, np.ndarray]:
    """The first digits that the model draws, and the first real ones, (10, N_EACH, H, W) each."""
    labels = np.repeat(np.arange(player.n_classes), N_EACH)
    drawn = player.book.decode(player.draw(labels.tolist(), SETTINGS))
    real = [player.images[player.labels == k][:N_EACH] for k in range(player.n_classes)]
    return drawn.reshape(np.shape(real)), np.stack(real)


def draw_all() -> None:
    """Write both pictures and their alt texts."""
    player = Player.load(NANO28)
    figure = plot_beside_real(*digits(player))
    with atomic_path(FOLDER / "drawn_beside_real.png") as aside:
        aside.write_bytes(style.as_png(figure))
    write_text(FOLDER / "drawn_beside_real.txt", figure.alt + "\n")
    write_text(FOLDER / "code_by_code.txt", animate(player) + "\n")
    for path in sorted(FOLDER.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB")


if __name__ == "__main__":
    draw_all()
