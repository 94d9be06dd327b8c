"""Pictures, tables and maps as HTML: what the playground shows between two clicks.

Quicker than figures, sharp at any size, and each with words of its own for screen readers. Colours
follow the theme of JupyterLab where there is one; ink is black on white paper in every theme.
"""

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokens import code_token
from seqlm.models.tracing import Candidate

SIDE = 176  # of a picture, in the page's pixels
STYLE = """<style>
.seqlm { color: var(--jp-ui-font-color1, #222); line-height: 1.4;
  font: 13px var(--jp-ui-font-family, system-ui, sans-serif); }
.seqlm figure { margin: 0; display: inline-block; vertical-align: top; }
.seqlm figcaption { max-width: 15em; margin-top: .25em; font-size: .93em; }
.widget-html-content:has(> .seqlm) { min-width: 0; }
.seqlm .row { display: flex; flex-wrap: wrap; gap: .9em 1.4em; align-items: flex-start; }
.seqlm .tiles { display: grid; gap: .4em .7em; font-size: .9em; }
.seqlm .tiles svg { max-width: 100%; height: auto; box-sizing: border-box; }
.seqlm svg { border: 1px solid var(--jp-border-color1, #999); background: #fff; }
.seqlm table { border-collapse: collapse; }
.seqlm caption { text-align: left; font-weight: 600; padding: 0 0 .3em; }
.seqlm th, .seqlm td { text-align: left; padding: 1px .55em 1px 0; font-weight: 400;
  white-space: nowrap; }
.seqlm thead th { font-size: .88em; color: var(--jp-ui-font-color2, #555); }
.seqlm td.bar { width: 11em; } .seqlm td svg { display: block; }
.seqlm .bar span { display: inline-block; height: .8em; margin-right: .4em; background: #0072b2;
  vertical-align: -1px; }
.seqlm .bar.after span {
  background: repeating-linear-gradient(135deg, #d55e00 0 3px, #f3b58a 3px 5px); }
.seqlm tr.chosen th { font-weight: 700; }
.seqlm tr.chosen th::before { content: "▸ "; content: "▸ " / ""; }
@media (max-width: 40em) { .seqlm th { white-space: normal; } .seqlm td.bar { width: 6em; }
  .seqlm .bar span { font-size: .35em; height: 2.3em; } }
.seqlm .note { max-width: 46em; }
.seqlm a.get { display: inline-block; padding: .3em .8em; margin-right: .6em; color: inherit;
  border: 1px solid var(--jp-border-color1, #888); border-radius: 3px; text-decoration: none; }
.seqlm a.get:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
</style>"""


def page(*parts: str) -> str:
    """Parts beside each other, under the playground's style."""
    return f'{STYLE}<div class="seqlm"><div class="row">{"".join(parts)}</div></div>'


def note(text: str) -> str:
    """A sentence or two; `text` may hold no markup."""
    return f'{STYLE}<div class="seqlm"><p class="note">{escape(text)}</p></div>'


def figure(drawn: str, caption: str, again: bool = False) -> str:
    """Something drawn with its caption below.

    `again` where the caption says just what the drawing's own words do: once is enough for ears.
    """
    hidden = ' aria-hidden="true"' if again else ""
    role = ' role="none"' if again else ""
    return f"<figure{role}>{drawn}<figcaption{hidden}>{escape(caption)}</figcaption></figure>"


def picture(image: np.ndarray, alt: str, pixel: float | None = None) -> str:
    """A picture (H, W) in 0..1, dark on light. `alt` says what it is."""
    pixel = pixel or SIDE / max(image.shape)
    return _svg(image.shape, pixel, alt, _ink(image, pixel))


def patch_map(
    image: np.ndarray,
    values: np.ndarray,
    alt: str,
    decimals: int = 1,
    marked: int | None = None,
    full: float | None = None,
    pixel: float | None = None,
) -> str:
    """`values` (rows, columns), one for each patch of `image` (H, W), over its faded ink.

    Each stands there as a number and as a shade, the darkest being `full` (the largest unless it is
    given); NaN is left out. The patch `marked`, counted row by row, has a frame.
    """
    rows, columns = values.shape
    pixel = pixel or SIDE / max(image.shape)
    side = image.shape[0] // rows * pixel
    full = full or np.nanmax(values, initial=1e-9)
    parts = [_ink(image * 0.25, pixel)]
    for place, value in enumerate(values.ravel()):
        y, x = (part * side for part in divmod(place, columns))
        if not np.isnan(value):
            share = min(1.0, max(0.0, value / full))
            parts.append(_shade(x, y, side, share) + _number(x, y, side, value, decimals, share))
        if place == marked:
            parts.append(
                f'<rect x="{x + 1.5}" y="{y + 1.5}" width="{side - 3}" height="{side - 3}" '
                'fill="none" stroke="#d55e00" stroke-width="3"/>'
            )
    said = "; ".join(
        ", ".join("–" if np.isnan(v) else f"{v:.{decimals}f}" for v in row) for row in values
    )
    return _svg(image.shape, pixel, f"{alt} Row by row: {said}.", "".join(parts))


def surprisal_map(
    image: np.ndarray,
    surprisal: np.ndarray,
    grid: tuple[int, int],
    alt: str,
    caption: str,
    most: float,
    marked: int | None = None,
) -> str:
    """`surprisal` (P,) in nats over `image`, NaN left out; as dark as ink at `most`, or at 8."""
    drawn = patch_map(
        image, surprisal.reshape(grid), alt, marked=marked, full=max(8.0, float(most))
    )
    return figure(drawn, f"{caption}; {np.nansum(surprisal):.1f} together")


def candidates(
    found: Sequence[Candidate], book: PatchCodebook, caption: str, settings: bool = True
) -> str:
    """A table of next tokens: patch, name, bar of the model's probability, bar after the settings.

    `settings=False` leaves the last column out.
    """
    of_token = {code_token(code): code for code in range(book.n_codes)}
    most = max([*(c.probability for c in found), *(c.after * settings for c in found), 1e-9])
    lines = []
    for c in found:
        code = of_token.get(c.token)
        patch = "" if code is None else _patch(book, code)
        chosen = ' class="chosen"' if c.chosen else ""
        here = " (stands here)" if c.chosen else ""
        lines.append(
            f'<tr{chosen}><td aria-hidden="true">{patch}</td>'
            f'<th scope="row">{escape(c.token)}{here}</th>'
            + _bar(c.probability, most)
            + (_bar(c.after, most, " after") if settings else "")
            + "</tr>"
        )
    after = '<th scope="col">after the settings</th>' if settings else ""
    return (
        f'<table><caption>{escape(caption)}</caption><thead><tr><td aria-hidden="true"></td>'
        f'<th scope="col">token</th><th scope="col">the model’s own</th>{after}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def classes(probabilities: np.ndarray, caption: str) -> str:
    """A table of class probabilities (C,), the likeliest marked."""
    best = int(probabilities.argmax())
    lines = [
        f'<tr{" class=chosen" if k == best else ""}><th scope="row">{k}</th>{_bar(p, 1.0)}</tr>'
        for k, p in enumerate(probabilities)
    ]
    return (
        f'<table><caption>{escape(caption)}</caption><thead><tr><th scope="col">digit</th>'
        f'<th scope="col">probability</th></tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def gallery(
    images: Sequence[np.ndarray], captions: Sequence[str], columns: int | None = None
) -> str:
    """Pictures (H, W) with their captions, which also say what they are; `columns` in a row."""
    side = 112 if columns is None else 64  # of a picture, in the page's pixels
    pixel = side / max(images[0].shape)
    tiles = [
        figure(picture(image, caption, pixel), caption, again=True)
        for image, caption in zip(images, captions, strict=True)
    ]
    if columns is None:
        return "".join(tiles)
    return (
        f'<div class="tiles" style="grid-template-columns: repeat({columns}, '
        f'minmax(2em, {side}px))">{"".join(tiles)}</div>'
    )


def heads(weights: np.ndarray, chosen: tuple[int, int], alt: str, side: float = 34) -> str:
    """A small map for every head, each by its own most: `weights` (n_layer, n_head, rows, columns).

    Layers downwards, heads across; the `chosen` (layer, head) has a frame. `alt` says what it is.
    """
    n_layer, n_head, rows, columns = weights.shape
    gap, left, top = 5, 18, 16
    parts = [
        f'<text x="{left + h * (side + gap) + side / 2}" y="11" font-size="10" '
        f'text-anchor="middle">{h + 1}</text>'
        for h in range(n_head)
    ]
    for layer, head in np.ndindex(n_layer, n_head):
        x, y = left + head * (side + gap), top + layer * (side + gap)
        if not head:
            parts.append(f'<text x="5" y="{y + side / 2 + 3}" font-size="10">{layer + 1}</text>')
        grid = weights[layer, head] / max(weights[layer, head].max(), 1e-9)
        cell = side / max(rows, columns)
        parts += [_shade(x + c * cell, y + r * cell, cell, v) for (r, c), v in np.ndenumerate(grid)]
        width, colour = (2.5, "#d55e00") if (layer, head) == chosen else (0.7, "#888")
        parts.append(
            f'<rect x="{x}" y="{y}" width="{columns * cell}" height="{rows * cell}" fill="none" '
            f'stroke="{colour}" stroke-width="{width}"/>'
        )
    width, height = left + n_head * (side + gap), top + n_layer * (side + gap)
    return _svg((height, width), 1, alt, "".join(parts))


def download(name: str, content: bytes, kind: str, text: str) -> str:
    """A link that saves `content` as the file `name`; it lies in the page itself."""
    held = base64.b64encode(content).decode()
    return (
        f'<a class="get" download="{escape(name)}" href="data:{kind};base64,{held}">'
        f"{escape(text)}</a>"
    )


def _svg(shape, pixel: float, alt: str, body: str) -> str:
    width, height = shape[1] * pixel, shape[0] * pixel
    return (
        f'<svg role="img" aria-label="{escape(alt)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" shape-rendering="crispEdges">{body}</svg>'
    )


def _ink(image: np.ndarray, pixel: float) -> str:
    return "".join(
        f'<rect x="{x * pixel:.5g}" y="{y * pixel:.5g}" width="{pixel:.5g}" height="{pixel:.5g}" '
        f'fill-opacity="{ink:.2f}"/>'
        for (y, x), ink in np.ndenumerate(np.clip(image, 0, 1))
        if ink > 0.005
    )


def _shade(x: float, y: float, side: float, share: float) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="#004b80" '
        f'fill-opacity="{0.06 + 0.84 * share:.2f}"/>'
    )


def _number(x: float, y: float, side: float, value: float, decimals: int, share: float) -> str:
    return (
        f'<text x="{x + side / 2}" y="{y + side / 2}" fill="{"#fff" if share > 0.55 else "#111"}" '
        f'font-size="{side / 3.2}" text-anchor="middle" dominant-baseline="central">'
        f"{value:.{decimals}f}</text>"
    )


def _patch(book: PatchCodebook, code: int) -> str:
    center = book.centers[code].reshape(book.patch, book.patch)
    side = 16
    return (
        f'<svg width="{side}" height="{side}" viewBox="0 0 {book.patch} {book.patch}" '
        f'shape-rendering="crispEdges">{_ink(center, 1)}</svg>'
    )


def _bar(value: float, most: float, kind: str = "") -> str:
    width = 7 * value / most
    return f'<td class="bar{kind}"><span style="width:{width:.2f}em"></span>{value:.1%}</td>'
