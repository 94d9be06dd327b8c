"""The report: executed notebooks as pages, and their results in both READMEs."""

import re
import shutil
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter, MarkdownExporter
from traitlets.config import Config

from seqlm import workspace
from seqlm.atomic import atomic_path
from seqlm.errors import SeqlmError
from seqlm.evaluation.tables import readme_estimates
from seqlm.utils import read_text, write_text
from seqlm.workspace import Workspace

OPEN, CLOSE = "<!-- results -->", "<!-- /results -->"


def as_html(notebook: Path | nbformat.NotebookNode) -> str:
    """An executed notebook as one page that opens offline: no script is loaded from anywhere."""
    scripts = ("mathjax", "require_js", "mermaid_js", "mermaid_layout_elk_js", "jquery")
    exporter = HTMLExporter(**{f"{name}_url": "" for name in scripts})
    if isinstance(notebook, Path):
        return exporter.from_filename(str(notebook))[0]
    return exporter.from_notebook_node(notebook)[0]


def export_report(ws: Workspace) -> list[Path]:
    """Write the executed report notebook as report.html and report.md, without its code.

    For the laptop profile, also `publish`. Returns what was written.
    """
    notebook = str(ws.outputs / "notebooks" / "report.ipynb")
    templates = str(workspace.notebooks_folder() / "app" / "nbconvert")
    page = HTMLExporter(
        template_name="report",
        extra_template_basedirs=[templates],
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    # Figures are shown in both forms: embedded in HTML, and linked in Markdown.
    order = Config({"NbConvertBase": {"display_data_priority": ["text/markdown", "text/plain"]}})
    text = MarkdownExporter(config=order, exclude_input=True)
    written = [ws.outputs / "report.html", ws.outputs / "report.md"]
    for path, exporter in zip(written, (page, text), strict=True):
        exported = exporter.from_filename(notebook)[0].strip() + "\n"
        write_text(path, re.sub(r"\n{3,}", "\n\n", exported))
    return written + (publish(ws) if ws.profile == "laptop" else [])


def publish(ws: Workspace) -> list[Path]:
    """Copy figures, alt texts, report.md and training_data.json to figures/, and fill in READMEs.

    A figure that is no longer made is removed there, unless its notebook has not been run here.
    """
    figures = sorted([*ws.figures.glob("*.png"), *ws.figures.glob("*.txt")])
    for source in [*figures, ws.outputs / "training_data.json"]:
        with atomic_path(ws.published / source.name) as aside:
            shutil.copyfile(source, aside)
    # There the report lies beside its figures, not above them.
    text = read_text(ws.outputs / "report.md").replace("](figures/", "](")
    write_text(ws.published / "report.md", text)
    notebooks = workspace.read_notebooks().values()
    not_run = [n.path for n in notebooks if not ws.metrics_path(n.name).is_file()]
    sources = "".join(read_text(path) for path in not_run)
    for picture in ws.published.glob("*.png"):
        alt = picture.with_suffix(".txt")
        made = (ws.figures / picture.name).is_file() or f'\\"{picture.stem}\\"' in sources
        if not made and alt.is_file():
            picture.unlink()
            alt.unlink()
    return [ws.published, *write_readme_results(ws)]


def write_readme_results(ws: Workspace) -> list[Path]:
    """Put value, interval and n into the eight rows between the marks in both READMEs.

    Raises SeqlmError when one of the marks, or one of the rows, is not where it should be.
    """
    values = {name: ws.metrics(name)["values"] for name in workspace.read_notebooks()
              if ws.metrics_path(name).is_file()}  # fmt: skip
    cells = [
        f"| {e.format_value()} | {e.format_interval().replace(' to ', '–')} | {e.n:,} |"
        if e
        else "| – | – | – |"
        for e in readme_estimates(values)
    ]
    written = []
    for name in ("README.md", "README.zh-CN.md"):
        path = ws.root / name
        text = read_text(path) if path.is_file() else ""
        if OPEN not in text and CLOSE not in text:
            continue
        places = re.fullmatch(f"(.*{OPEN})(.*)({CLOSE}.*)", text, re.DOTALL)
        lines = places[2].strip().splitlines() if places else []
        if text.count(OPEN) + text.count(CLOSE) > 2 or len(lines) != 2 + len(cells):
            raise SeqlmError(
                f"{path}: expected '{OPEN}', a table of {len(cells)} rows and '{CLOSE}', each "
                "once and in that order; restore them from the project's README"
            )
        labels = ["|".join(line.split("|")[:3]) for line in lines[2:]]
        rows = [label + numbers for label, numbers in zip(labels, cells, strict=True)]
        table = "\n".join([*lines[:2], *rows])
        write_text(path, f"{places[1]}\n\n{table}\n\n{places[3]}")
        written.append(path)
    return written
