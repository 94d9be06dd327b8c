"""HTML and SVG for the playground: images, maps and tables, each with a text for screen readers."""

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokens import code_token
from seqlm.models.tracing import Candidate
from seqlm.playground.widgets import STATIC

SIDE = 176  # of an image, in the page's pixels
FRAME = {"fill": "none", "stroke": "#d55e00"}
STYLE = f"<style>{(STATIC / 'page.css').read_text(encoding='utf-8')}</style>"


def page(*parts: str) -> str:
    """Parts beside each other, in the playground's style."""
    return f'{STYLE}<div class="seqlm"><div class="row">{"".join(parts)}</div></div>'


def note(text: str) -> str:
    """A paragraph of plain text."""
    return f'{STYLE}<div class="seqlm">{_tag("p", escape(text), class_="note")}</div>'


def image_figure(image: np.ndarray, caption: str, side: float = SIDE) -> str:
    """An image (H, W) in 0..1, dark on light; `side` is that of its longer side on the page."""
    pixel = side / max(image.shape)
    return _figure(caption, image.shape[1] * pixel, image.shape[0] * pixel, _ink(image, pixel))


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
    pixel = SIDE / max(image.shape)
    side = image.shape[0] // len(values) * pixel
    full = full or np.nanmax(values, initial=1e-9)
    parts = [_ink(image * 0.25, pixel)]
    for index, value in enumerate(values.ravel()):
        y, x = (side * place for place in divmod(index, values.shape[1]))
        if not np.isnan(value):
            share = np.clip(value / full, 0, 1)
            parts.append(_shade(x, y, side, share))
            parts.append(
                _tag(
                    "text", f"{value:.{decimals}f}", x=x + side / 2, y=y + side / 2,
                    fill="#fff" if share > 0.55 else "#111", font_size=side / 3.2,
                    text_anchor="middle", dominant_baseline="central",
                )
            )  # fmt: skip
        if index == marked:
            parts.append(_rect(x + 1.5, y + 1.5, side - 3, side - 3, **FRAME, stroke_width=3))
    rows = "; ".join(
        ", ".join("–" if np.isnan(v) else f"{v:.{decimals}f}" for v in row) for row in values
    )
    height, width = (n * pixel for n in image.shape)
    return _figure(caption, width, height, "".join(parts), f". Row by row: {rows}.")


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
    codes = {code_token(code): code for code in range(book.n_codes)}
    most = max([*(c.probability for c in candidates), *(c.after for c in candidates)])
    rows = []
    for c in candidates:
        patch = _patch(book, codes[c.token]) if c.token in codes else ""
        name = patch + escape(c.token) + " (chosen)" * c.chosen
        rows.append((name, _bar(c.probability, most) + _bar(c.after, most, "bar after"), c.chosen))
    return _table(caption, ("token", "model", "after sampling settings"), rows)


def class_table(probabilities: np.ndarray, caption: str) -> str:
    """Class probabilities (C,), the largest marked."""
    best = probabilities.argmax()
    rows = [(str(k), _bar(p, 1.0), k == best) for k, p in enumerate(probabilities)]
    return _table(caption, ("digit", "probability"), rows)


def gallery(
    images: Sequence[np.ndarray], captions: Sequence[str], columns: int | None = None
) -> str:
    """Images (H, W) with captions; in a grid of so many `columns`, if they are fixed."""
    side = 64 if columns else 112
    tiles = "".join(image_figure(*each, side) for each in zip(images, captions, strict=True))
    style = f"grid-template-columns: repeat({columns}, minmax(2em, {side}px))"
    return _tag("div", tiles, class_="tiles", style=style) if columns else tiles


def heads_figure(weights: np.ndarray, chosen: tuple[int, int], caption: str) -> str:
    """A small map for every head: `weights` (n_layer, n_head, rows, columns).

    Layers are rows, heads columns; each map has a scale of its own, and the `chosen` (layer, head)
    a frame.
    """
    n_layer, n_head, rows, columns = weights.shape
    side, gap, left, top, cell = 34, 5, 18, 16, 34 / max(rows, columns)
    parts = []
    for layer, head in np.ndindex(n_layer, n_head):
        x, y = left + head * (side + gap), top + layer * (side + gap)
        if layer == 0:
            parts.append(_tag("text", str(head + 1), x=x + side / 2 - 3, y=11, font_size=10))
        if head == 0:
            parts.append(_tag("text", str(layer + 1), x=5, y=y + side / 2 + 3, font_size=10))
        shares = weights[layer, head] / max(weights[layer, head].max(), 1e-9)
        parts += [
            _shade(x + c * cell, y + r * cell, cell, v) for (r, c), v in np.ndenumerate(shares)
        ]
        frame = {**FRAME, "stroke_width": 2.5}
        if (layer, head) != chosen:
            frame |= {"stroke": "#888", "stroke_width": 0.7}
        parts.append(_rect(x, y, columns * cell, rows * cell, **frame))
    width, height = left + n_head * (side + gap), top + n_layer * (side + gap)
    return _figure(caption, width, height, "".join(parts))


def download_link(name: str, content: bytes, kind: str, text: str) -> str:
    """A link that saves `content` as the file `name`; the page itself holds the bytes."""
    data = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return _tag("a", escape(text), class_="get", download=name, href=data)


def _tag(name: str, *content: str, **attributes) -> str:
    """An element of markup `content`; `font_size=10` is font-size="10", None is left out."""
    pairs = ""
    for key, value in attributes.items():
        if value is not None:
            value = f"{value:.5g}" if isinstance(value, float) else escape(str(value))
            pairs += f' {key.rstrip("_").replace("_", "-")}="{value}"'
    return f"<{name}{pairs}>{''.join(content)}</{name}>"


def _svg(width: float, height: float, body: str, **attributes) -> str:
    box = f"0 0 {width:.5g} {height:.5g}"
    attributes |= {"width": width, "height": height, "viewBox": box}
    return _tag("svg", body, shape_rendering="crispEdges", **attributes)


def _figure(caption: str, width: float, height: float, body: str, details: str = "") -> str:
    # The caption is the image's label, too, and hidden from screen readers: they read it once.
    svg = _svg(width, height, body, role="img", aria_label=caption + details)
    below = _tag("figcaption", escape(caption), aria_hidden="true")
    return _tag("figure", svg, below, role="none")


def _rect(x: float, y: float, width: float, height: float, **style) -> str:
    return _tag("rect", x=x, y=y, width=width, height=height, **style)


def _ink(image: np.ndarray, pixel: float) -> str:
    return "".join(
        _rect(x * pixel, y * pixel, pixel, pixel, fill_opacity=f"{ink:.2f}")
        for (y, x), ink in np.ndenumerate(np.clip(image, 0, 1))
        if ink > 0.005
    )


def _shade(x: float, y: float, side: float, share: float) -> str:
    return _rect(x, y, side, side, fill="#004b80", fill_opacity=f"{0.06 + 0.84 * share:.2f}")


def _patch(book: PatchCodebook, code: int) -> str:
    center = book.centers[code].reshape(book.patch, book.patch)
    return _svg(16, 16, _ink(center, 16 / book.patch), aria_hidden="true")


def _table(caption: str, columns: Sequence[str], rows: Sequence[tuple[str, str, bool]]) -> str:
    """Rows are the markup of a name, the markup of its cells, and whether it is marked."""
    head = "".join(_tag("th", name, scope="col") for name in columns)
    body = "".join(
        _tag("tr", _tag("th", name, scope="row"), cells, class_="chosen" if marked else None)
        for name, cells, marked in rows
    )
    above = _tag("caption", escape(caption)) + _tag("thead", _tag("tr", head))
    return _tag("table", above, _tag("tbody", body))


def _bar(value: float, most: float, kind: str = "bar") -> str:
    bar = _tag("span", style=f"width:{7 * value / most:.2f}em")
    return _tag("td", f"{bar}{value:.1%}", class_=kind)
