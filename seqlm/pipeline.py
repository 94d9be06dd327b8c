"""The notebooks in order, headlessly, through papermill; then the report.

A notebook whose inputs, parameters and code have not changed since it last ran is skipped.
"""

import ast
import difflib
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import yaml

from seqlm.errors import ConfigError, PipelineError
from seqlm.utils import (
    PACKAGE,
    format_duration,
    modules_behind,
    read_json,
    sha256_of,
    write_json,
    write_text,
)
from seqlm.workspace import LABORATORY, NOTEBOOKS, Workspace


@dataclass(frozen=True)
class Stage:
    """A notebook, the notebooks it reads from, and the files that prove it has run."""

    number: str
    needs: tuple[str, ...]
    makes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name without its ending."""
        return NOTEBOOKS[self.number]


STAGES = (
    Stage("01", (), ("data/sequences.jsonl", "data/vocab.json", "data/images.npz")),
    Stage("02", ("01",), ("outputs/tokenizer/tokenizer.json",)),
    Stage("03", ("01", "02"), ("outputs/best_model/model.safetensors", "outputs/training.json")),
    Stage("04", ("01", "03")),
    Stage("05", ("01", "03")),
    Stage("06", ("01", "03")),
    Stage("07", ("01", "03")),
    Stage("08", ("01", "03")),
    Stage("09", ("01", "03")),
    Stage("10", ("01", "03", "05")),
    Stage("11", ("01", "03")),
)


def run_pipeline(
    ws: Workspace,
    *,
    force: bool = False,
    laboratory: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, str]:
    """Run every notebook whose inputs, parameters or code changed. Returns number -> "ran"/"kept".

    The long ones of the laboratory are left out unless `laboratory` asks for them, and what they
    measured is put aside when something it rests on has changed since.

    Raises ConfigError for a profile that names an unknown notebook or parameter (before anything
    runs), PipelineError with the failing cell's error when a notebook fails. Executed notebooks are
    kept in outputs/<profile>/notebooks/, the failed one included.
    """
    parameters = read_profile(ws)
    prints: dict[str, str] = {}
    done = {}
    for stage in STAGES:
        given = {"profile": ws.profile, **parameters.get(stage.name, {})}
        before = [prints[number] for number in stage.needs]
        prints[stage.number] = fingerprint(_source(ws, stage), given, before)
        asked = laboratory or stage.number not in LABORATORY
        if not (force and asked) and _is_fresh(ws, stage, prints[stage.number]):
            log(f"{stage.name}: unchanged, kept")
            done[stage.number] = "kept"
            continue
        if not asked:
            _set_aside(ws, stage, log)
            continue
        log(f"{stage.name}: running …")
        seconds = _run(ws, stage, given, prints[stage.number])
        log(f"{stage.name}: done in {format_duration(seconds)}")
        done[stage.number] = "ran"
    return done


def _set_aside(ws: Workspace, stage: Stage, log: Callable[[str], None]) -> None:
    """What a laboratory notebook measured on another model must not stand in a report on this."""
    old = ws.metrics_path(stage.number)
    if old.is_file():
        old.replace(old.with_suffix(".old.json"))
        _forget(ws, stage)
        log(f"{stage.name}: measured before something changed; put aside, --laboratory runs it")


def read_profile(ws: Workspace) -> dict[str, dict]:
    """Notebook name -> parameters, from notebooks/profiles/<profile>.yaml, every name checked."""
    path = notebooks_folder() / "profiles" / f"{ws.profile}.yaml"
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: expected a notebook's name and its parameters below it")
    known = {stage.name: _source(ws, stage) for stage in STAGES}
    for name, values in given.items():
        if name not in known:
            raise ConfigError(f"{path}: {name}: no such notebook{_meant(name, known)}")
        check_parameters(f"{path}: {name}", known[name], values or {})
    return {name: values or {} for name, values in given.items()}


def check_parameters(where: str, notebook: Path, values: dict) -> None:
    """Refuse a parameter the notebook does not have, or of another type than its default.

    papermill itself only warns about the first and does not see the second.
    """
    declared = papermill.inspect_notebook(str(notebook))
    for name, value in values.items():
        if name not in declared:
            raise ConfigError(f"{where}: {name}: no such parameter{_meant(name, declared)}")
        default = ast.literal_eval(declared[name]["default"])
        numbers = isinstance(default, int | float) and not isinstance(default, bool)
        if numbers and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(
                f"{where}: {name}: expected a number, got {value!r}; in YAML write 1.0e-3, not 1e-3"
            )
        if isinstance(default, str | bool) and type(value) is not type(default):
            kind = type(default).__name__
            raise ConfigError(f"{where}: {name}: expected {kind}, got {value!r}")


def _meant(name: str, known) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def notebooks_folder() -> Path:
    """Where the notebooks are: beside the package."""
    folder = PACKAGE.parent / "notebooks"
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is missing: the report runs the notebooks, which come with a checkout of "
            "seqlm; install it with `pip install -e .` from there"
        )
    return folder


def _source(ws: Workspace, stage: Stage) -> Path:
    return notebooks_folder() / f"{stage.name}.ipynb"


def fingerprint(notebook: Path, parameters: dict, before: list[str]) -> str:
    """Changes when the notebook's cells, its parameters, code it imports, or its inputs change."""
    cells = [(cell.cell_type, cell.source) for cell in nbformat.read(notebook, as_version=4).cells]
    sources = "\n".join(source for kind, source in cells if kind == "code")
    behind = modules_behind(sources)
    code = sha256_of(behind) if behind else ""
    whole = json.dumps([cells, parameters, code, before], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def _stamp(ws: Workspace, stage: Stage) -> Path:
    return ws.outputs / "notebooks" / f"{stage.name}.json"


def _made(ws: Workspace, stage: Stage) -> list[Path]:
    folders = {"data": ws.data, "outputs": ws.outputs}
    made = [folders[name.split("/", 1)[0]] / name.split("/", 1)[1] for name in stage.makes]
    return [ws.metrics_path(stage.number), *made]


def _is_fresh(ws: Workspace, stage: Stage, current: str) -> bool:
    """Was it run with these inputs, and does what it made still lie there as it was left?

    The second matters to those who try other settings in JupyterLab, where a notebook writes to
    the same places: what they made there is not the profile's.
    """
    made = _made(ws, stage)
    if not all(path.is_file() for path in (_stamp(ws, stage), *made)):
        return False
    stamp = read_json(_stamp(ws, stage))
    return stamp.get("fingerprint") == current and stamp.get("made") == sha256_of(made)


def _run(ws: Workspace, stage: Stage, parameters: dict, current: str) -> float:
    executed = ws.outputs / "notebooks" / f"{stage.name}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    _forget(ws, stage)
    started, before = time.perf_counter(), time.time_ns()
    try:
        papermill.execute_notebook(
            str(_source(ws, stage)),
            str(executed),
            parameters,
            cwd=str(notebooks_folder()),
            kernel_name="python3",
            progress_bar=False,
            # The kernel talks to this process alone; its remark on encryption only alarms people.
            extra_arguments=["--IPKernelApp.log_level=50"],
            stdout_file=sys.stdout,
            request_save_on_cell_execute=True,
        )
    except papermill.PapermillExecutionError as error:
        raise PipelineError(
            f"{stage.name}: cell {error.exec_count} failed: {error.ename}: {error.evalue}\n"
            f"the notebook as far as it came: {executed}"
        ) from error
    except RuntimeError as error:  # nbclient's DeadKernelError is one
        raise PipelineError(
            f"{stage.name}: its kernel died ({error}); most often memory ran out: close other "
            f"programs or lower batch_size\nthe notebook as far as it came: {executed}"
        ) from error
    seconds = time.perf_counter() - started
    write_text(executed.with_suffix(".html"), as_html(executed))
    stamp = {
        "fingerprint": current,
        "made": sha256_of(_made(ws, stage)),
        "figures": [p.name for p in ws.figures.glob("*") if p.stat().st_mtime_ns >= before],
        "seconds": round(seconds, 1),
    }
    write_json(_stamp(ws, stage), stamp)
    return seconds


def _forget(ws: Workspace, stage: Stage) -> None:
    """Take away the stage's last stamp and figures: a figure it no longer makes must not linger."""
    if _stamp(ws, stage).is_file():
        for name in read_json(_stamp(ws, stage)).get("figures", []):
            (ws.figures / name).unlink(missing_ok=True)
        _stamp(ws, stage).unlink()


def as_html(notebook: Path) -> str:
    """An executed notebook as one page that opens offline: no script is loaded from anywhere."""
    from nbconvert import HTMLExporter

    scripts = ("mathjax", "require_js", "mermaid_js", "mermaid_layout_elk_js", "jquery")
    exporter = HTMLExporter(**{f"{name}_url": "" for name in scripts})
    return exporter.from_filename(str(notebook))[0]
