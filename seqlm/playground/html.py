"""HTML and SVG for the playground: images, maps and tables, each with a text for screen readers.

The markup is in static/figures.html.
"""

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokens import code_token
from seqlm.models.tracing import Candidate
from seqlm.playground.widgets import STATIC
from seqlm.utils import load_template

SIDE = 176  # of an image, in the page's pixels
STYLE = f"<style>{(STATIC / 'page.css').read_text(encoding='utf-8')}</style>"
MARKUP = load_template("static/figures.html").module


def page(*parts: str) -> str:
    """Parts beside each other, in the playground's style."""
    return f'{STYLE}<div class="seqlm"><div class="row">{"".join(parts)}</div></div>'


def note(text: str) -> str:
    """A paragraph of plain text."""
    return f'{STYLE}<div class="seqlm"><p class="note">{escape(text)}</p></div>'


def image_figure(image: np.ndarray, caption: str, side: float = SIDE) -> str:
    """An image (H, W) in 0..1, dark on light; `side` is that of its longer side on the page."""
    return MARKUP.image_figure(image.clip(0, 1).tolist(), side / max(image.shape), caption)


def patch_figure(
    image: np.ndarray,
    values: np.ndarray,
    caption: str,
    decimals: int = 1,
    marked: int | None = None,
    full: float | None = None,
) -> str:
    """A map of `values` (rows, columns), one per patch of `image` (H, W), over its faded ink.

    Each patch shows its value as a number and as a shade, darkest at `full` (by default the
    largest value). NaN is left out. The patch `marked`, counted row by row, has a frame.
    """
    shares = np.clip(values / (full or np.nanmax(values, initial=1e-9)), 0, 1)
    texts = [["–" if np.isnan(v) else f"{v:.{decimals}f}" for v in row] for row in values]
    rows = "; ".join(map(", ".join, texts))
    faded, pixel = np.clip(image * 0.25, 0, 1).tolist(), SIDE / max(image.shape)
    details = f". Row by row: {rows}."
    return MARKUP.patch_figure(faded, pixel, shares.tolist(), texts, marked, caption, details)


def surprisal_figure(
    image: np.ndarray, surprisal: np.ndarray, grid: tuple[int, int], n: int | None = None
) -> str:
    """The first `n` (by default all) values of `surprisal` (P,) in nats over `image`.

    All steps of an image have one scale: full shade is the largest value, or 8 nats if it is less.
    """
    first = np.where(np.arange(surprisal.size) < (n or surprisal.size), surprisal, np.nan)
    caption = f"surprisal per code in nats (−ln p); total {np.nansum(first):.1f}"
    full = max(8.0, surprisal.max())
    return patch_figure(image, first.reshape(grid), caption, marked=n and n - 1, full=full)


def candidate_table(candidates: Sequence[Candidate], book: PatchCodebook, caption: str) -> str:
    """Next tokens: patch, name, the model's probability and that after the sampling settings."""
    centers = book.centers.clip(0, 1).reshape(-1, book.patch, book.patch).tolist()
    patches = {code_token(code): center for code, center in enumerate(centers)}
    most = max([*(c.probability for c in candidates), *(c.after for c in candidates)])
    return MARKUP.candidate_table(candidates, patches, most, caption)


def class_table(probabilities: np.ndarray, caption: str) -> str:
    """Class probabilities (C,), the largest marked."""
    return MARKUP.class_table(probabilities.tolist(), int(probabilities.argmax()), caption)


def gallery(
    images: Sequence[np.ndarray], captions: Sequence[str], columns: int | None = None
) -> str:
    """Images (H, W) with captions; in a grid of so many `columns`, if they are fixed."""
    side = 64 if columns else 112
    tiles = [image_figure(*each, side) for each in zip(images, captions, strict=True)]
    return MARKUP.tiles(tiles, columns, side) if columns else "".join(tiles)


def heads_figure(weights: np.ndarray, chosen: tuple[int, int], caption: str) -> str:
    """A small map for every head: `weights` (n_layer, n_head, rows, columns).

    Layers are rows, heads columns; each map has a scale of its own, and the `chosen` (layer, head)
    a frame.
    """
    shares = weights / np.maximum(weights.max(axis=(2, 3), keepdims=True), 1e-9)
    return MARKUP.heads_figure(shares.tolist(), chosen, caption)


def download_link(name: str, content: bytes, kind: str, text: str) -> str:
    """A link that saves `content` as the file `name`; the page itself holds the bytes."""
    return MARKUP.download_link(name, kind, base64.b64encode(content).decode(), text)
