"""Run the notebooks in order, headlessly, through papermill, and export the report.

A notebook whose inputs, parameters and code have not changed since it last ran is skipped.
"""

import ast
import difflib
import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import nbformat
import papermill
import yaml
from nbconvert import HTMLExporter, MarkdownExporter
from traitlets.config import Config

from seqlm import workspace
from seqlm.atomic import atomic_path
from seqlm.config import DataConfig
from seqlm.data.images import image_files
from seqlm.errors import ConfigError, PipelineError, SeqlmError
from seqlm.evaluation.tables import readme_estimates
from seqlm.utils import (
    format_duration,
    modules_behind,
    read_json,
    read_text,
    sha256_of,
    write_json,
    write_text,
)
from seqlm.workspace import Notebook, Workspace

OPEN, CLOSE = "<!-- results -->", "<!-- /results -->"


def run_pipeline(
    ws: Workspace,
    *,
    force: bool = False,
    laboratory: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, str]:
    """Run every notebook whose inputs, parameters or code changed. Returns name -> "ran"/"kept".

    The laboratory runs only when `laboratory` is set; otherwise those of its results that are out
    of date are put aside. Executed notebooks stand in outputs/<profile>/notebooks/, a failed one
    included.

    Raises ConfigError for a profile that names an unknown notebook or parameter (before anything
    runs), PipelineError with the failing cell's error when a notebook fails.
    """
    workspace.check_kernel()
    notebooks = workspace.read_notebooks()
    profile = read_profile(ws, notebooks)
    fingerprints: dict[str, str] = {}
    done = {}
    for name, notebook in notebooks.items():
        parameters = {"profile": ws.profile, **profile.get(name, {})}
        inputs = [fingerprints[needed] for needed in notebook.needs]
        if parameters.get("source") == "mnist":  # others may lie there now
            config = DataConfig("mnist", images_path=parameters.get("images_path"))
            inputs += [sha256_of(path) for path in image_files(config, ws.root / "data")]
        if notebook.part == "report":  # it reads whatever was measured
            inputs += [sha256_of(path) for path in sorted(ws.outputs.glob("metrics/*.json"))]
        current = fingerprints[name] = fingerprint(notebook.path, parameters, inputs)
        wanted = laboratory or notebook.part != "laboratory"
        if not (force and wanted) and _is_fresh(ws, notebook, current):
            log(f"{name}: unchanged, kept")
            done[name] = "kept"
        elif wanted:
            log(f"{name}: running …")
            seconds = _run(ws, notebook, parameters, current)
            log(f"{name}: done in {format_duration(seconds)}")
            done[name] = "ran"
        else:
            _put_aside(ws, notebook, log)
    return done


def read_profile(ws: Workspace, notebooks: dict[str, Notebook]) -> dict[str, dict]:
    """Notebook name -> parameters, from notebooks/profiles/<profile>.yaml, every name checked."""
    path = workspace.notebooks_folder() / "profiles" / f"{ws.profile}.yaml"
    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(profile, dict):
        raise ConfigError(f"{path}: expected a notebook's name and its parameters below it")
    for name, parameters in profile.items():
        if name not in notebooks:
            raise ConfigError(f"{path}: {name}: no such notebook{_suggestion(name, notebooks)}")
        check_parameters(f"{path}: {name}", notebooks[name].path, parameters or {})
    return {name: parameters or {} for name, parameters in profile.items()}


def check_parameters(where: str, notebook: Path, parameters: dict) -> None:
    """Refuse a parameter the notebook does not have, or of another type than its default.

    papermill itself only warns about the first and does not see the second.
    """
    declared = papermill.inspect_notebook(str(notebook))
    for name, value in parameters.items():
        if name not in declared:
            raise ConfigError(f"{where}: {name}: no such parameter{_suggestion(name, declared)}")
        default = ast.literal_eval(declared[name]["default"])
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        if is_number and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(
                f"{where}: {name}: expected a number, got {value!r}; in YAML write 1.0e-3, not 1e-3"
            )
        if isinstance(default, str | bool) and type(value) is not type(default):
            kind = type(default).__name__
            raise ConfigError(f"{where}: {name}: expected {kind}, got {value!r}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def fingerprint(notebook: Path, parameters: dict, inputs: list[str]) -> str:
    """Changes when the notebook's cells, its parameters, code it imports, or its inputs change."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(notebook, as_version=4).cells]
    imported = modules_behind("\n".join(source for kind, source in cells if kind == "code"))
    code = sha256_of(imported) if imported else ""
    everything = json.dumps([cells, parameters, code, inputs], sort_keys=True)
    return hashlib.sha256(everything.encode()).hexdigest()[:16]


def _stamp_path(ws: Workspace, notebook: Notebook) -> Path:
    return ws.outputs / "notebooks" / f"{notebook.path.stem}.json"


def _made_files(ws: Workspace, notebook: Notebook) -> list[Path]:
    folders = {"data": ws.data, "outputs": ws.outputs}
    parts = [name.split("/", 1) for name in notebook.makes]
    return [folders[folder] / rest for folder, rest in parts]


def _is_fresh(ws: Workspace, notebook: Notebook, current: str) -> bool:
    """Was it run with these inputs, and are the files it made unchanged?

    A reader who tries other settings in JupyterLab writes to the same places: those results are
    not the profile's.
    """
    made = _made_files(ws, notebook)
    if not all(path.is_file() for path in (_stamp_path(ws, notebook), *made)):
        return False
    stamp = read_json(_stamp_path(ws, notebook))
    return stamp.get("fingerprint") == current and stamp.get("made") == sha256_of(made)


def _put_aside(ws: Workspace, notebook: Notebook, log: Callable[[str], None]) -> None:
    """What a laboratory notebook measured on another model must not stand in a report on this."""
    old = ws.metrics_path(notebook.name)
    if old.is_file():
        old.replace(old.with_suffix(".old.json"))
        _remove_traces(ws, notebook)
        log(f"{notebook.name}: out of date, put aside; --laboratory runs it again")


def _run(ws: Workspace, notebook: Notebook, parameters: dict, current: str) -> float:
    executed = ws.outputs / "notebooks" / notebook.path.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    _remove_traces(ws, notebook)
    started, before = time.perf_counter(), time.time_ns()
    try:
        papermill.execute_notebook(
            str(notebook.path),
            str(executed),
            parameters,
            cwd=str(notebook.path.parent),
            kernel_name=workspace.KERNEL,
            progress_bar=False,
            # The kernel talks to this process alone; its remark on encryption only alarms people.
            extra_arguments=["--IPKernelApp.log_level=50"],
            stdout_file=sys.stdout,
            request_save_on_cell_execute=True,
        )
    except papermill.PapermillExecutionError as error:
        raise PipelineError(
            f"{notebook.name}: cell {error.exec_count} failed: {error.ename}: {error.evalue}\n"
            f"the notebook as far as it came: {executed}"
        ) from error
    except RuntimeError as error:  # nbclient's DeadKernelError is one
        raise PipelineError(
            f"{notebook.name}: its kernel died ({error}); most often memory ran out: close other "
            f"programs or lower batch_size\nthe notebook as far as it came: {executed}"
        ) from error
    seconds = time.perf_counter() - started
    write_text(executed.with_suffix(".html"), as_html(executed))
    stamp = {
        "fingerprint": current,
        "made": sha256_of(_made_files(ws, notebook)),
        "figures": [p.name for p in ws.figures.glob("*") if p.stat().st_mtime_ns >= before],
        "seconds": round(seconds, 1),
    }
    write_json(_stamp_path(ws, notebook), stamp)
    return seconds


def _remove_traces(ws: Workspace, notebook: Notebook) -> None:
    """Remove the stamp and the figures of the last run: a figure no longer made must not stay."""
    stamp = _stamp_path(ws, notebook)
    if stamp.is_file():
        for name in read_json(stamp).get("figures", []):
            if Path(name).name == name:  # a plain file name: nothing outside figures/ is removed
                (ws.figures / name).unlink(missing_ok=True)
        stamp.unlink()


def as_html(notebook: Path) -> str:
    """An executed notebook as one page that opens offline: no script is loaded from anywhere."""
    scripts = ("mathjax", "require_js", "mermaid_js", "mermaid_layout_elk_js", "jquery")
    exporter = HTMLExporter(**{f"{name}_url": "" for name in scripts})
    return exporter.from_filename(str(notebook))[0]


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
