"""Markdown as one HTML page that opens offline, with what a screen reader needs."""

import base64
import html
import re
from pathlib import Path

import mistune

from seqlm.errors import DataError
from seqlm.plots.style import DPI


def to_html(markdown: str, folder: Path) -> str:
    """Markdown as one HTML page that opens offline: pictures inlined, no script, no reference.

    Pictures are looked for from `folder`. Raises DataError when one is missing.
    """
    convert = mistune.create_markdown(renderer=_Page(Path(folder)), plugins=["table"])
    convert.before_render_hooks.append(_join_captions)
    title = re.search(r"^# (.+)$", markdown, re.MULTILINE)
    page = _PAGE.replace("TITLE", html.escape(title[1] if title else "seqlm"))
    return page.replace("BODY", convert(markdown))


def _join_captions(_, state) -> None:
    """A paragraph "**Table …" goes into the table after it, "*Figure …" into the picture before."""
    joined = []
    for token in state.tokens:
        if token["type"] == "blank_line":
            continue
        before = joined[-1] if joined else {"type": ""}
        text = token.get("text", "")
        if token["type"] == "table" and before.get("text", "").startswith("**Table "):
            token["children"].insert(0, {"type": "caption", "text": joined.pop()["text"]})
        elif token["type"] == "paragraph" and text.startswith("*Figure "):
            joined[-1] = {"type": "figure", "text": f"{before['text']}\n{text}"}
            continue
        joined.append(token)
    state.tokens = joined


class _Page(mistune.HTMLRenderer):
    """HTML with what a screen reader needs: captions, scopes, and alt texts that can be read."""

    def __init__(self, folder: Path):
        super().__init__(escape=True)
        self.folder = folder

    def image(self, text: str, url: str, title: str | None = None) -> str:
        path = self.folder / url
        if not path.is_file():
            raise DataError(f"{path}: the report shows this figure, but it is not there; run again")
        png = path.read_bytes()
        wide = round(int.from_bytes(png[16:20], "big") * 100 / DPI)  # from the PNG's own header
        alt = html.escape(html.unescape(re.sub(r"<[^>]*>", "", text)))
        data = base64.b64encode(png).decode()
        return f'<img alt="{alt}" width="{wide}" src="data:image/png;base64,{data}">'

    def figure(self, text: str) -> str:
        picture, caption = text.rsplit("\n", 1)
        alt = re.search(r'alt="([^"]*)"', picture)[1]
        words = f"<details><summary>In words</summary><p>{alt}</p></details>"
        return f"<figure>{picture}<figcaption>{caption}{words}</figcaption></figure>\n"

    def caption(self, text: str) -> str:
        return f"<caption>{text}</caption>\n"

    def table(self, text: str) -> str:
        # A region that scrolls must be reachable by keyboard, and have a name.
        around = '<div class="wide" role="region" aria-label="Table" tabindex="0">'
        return f"{around}<table>\n{text}</table></div>\n"

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        side = f' class="{align}"' if align else ""
        return f'<th scope="col"{side}>{text}</th>' if head else f"<td{side}>{text}</td>"

    def table_row(self, text: str) -> str:
        # The second cell says whose number it is, so both head the row.
        for _ in range(2):
            text = re.sub(r"<td>(.*?)</td>", r'<th scope="row">\1</th>', text, count=1)
        return f"<tr>{text}</tr>\n"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
:root {
  color-scheme: light dark;
  --ink: #1d2530; --paper: #fdfdfb; --line: #d5d9de; --soft: #f1f3f5;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --paper: #16191d; --line: #3b424a; --soft: #20252b }
}
* { box-sizing: border-box }
body {
  margin: 0; color: var(--ink); background: var(--paper);
  font: 1.05rem/1.6 system-ui, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1, h2 { line-height: 1.25; text-wrap: balance }
h1 { font-size: 1.8rem }
h2 {
  margin-top: 2.8rem; padding-top: 0.6rem; border-top: 1px solid var(--line);
  font-size: 1.35rem;
}
p, li { max-width: 44rem; overflow-wrap: break-word }
figure { margin: 2rem 0 }
img {
  display: block; max-width: 100%; height: auto; padding: 0.5rem;
  background: white; border-radius: 6px; border: 1px solid var(--line);
}
figcaption { margin-top: 0.5rem; font-size: 0.95rem }
details p { margin: 0.3rem 0 0 }
summary { cursor: pointer }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.93rem; line-height: 1.35 }
caption { text-align: left; padding-bottom: 0.7rem; max-width: 44rem }
th, td { padding: 0.35rem 0.8rem 0.35rem 0; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid var(--line) }
th[scope="row"] { font-weight: normal }
thead tr { border-bottom-width: 2px }
th.right, td.right {
  text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
}
@media (max-width: 40rem) {
  table { font-size: 0.8rem }
  th, td { padding-right: 0.5rem }
  th.right, td.right { white-space: normal }
}
pre { background: var(--soft); padding: 0.8rem 1rem; border-radius: 6px; overflow-x: auto }
</style>
</head>
<body>
<main>
BODY</main>
</body>
</html>
"""
