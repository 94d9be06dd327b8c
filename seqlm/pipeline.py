"""Run the notebooks in order, headlessly, through papermill.

A notebook whose inputs, parameters and code have not changed since it last ran is skipped.
"""

import ast
import difflib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import nbformat
import papermill
import yaml

from seqlm import workspace
from seqlm.config import DataConfig
from seqlm.data.images import image_files
from seqlm.errors import ConfigError, DataError, PipelineError
from seqlm.ownership import locked
from seqlm.report import as_html
from seqlm.utils import (
    format_duration,
    modules_behind,
    read_json,
    sha256_of,
    write_json,
    write_text,
)
from seqlm.workspace import Notebook, Workspace


def run_pipeline(
    ws: Workspace,
    *,
    folder: Path | None = None,
    force: bool = False,
    laboratory: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, str]:
    """Run every notebook whose inputs, parameters or code changed. Returns name -> "ran"/"kept".

    The laboratory runs only when `laboratory` is set; otherwise those of its results that are out
    of date are put aside. Executed notebooks stand in outputs/<profile>/notebooks/, a failed one
    included. `folder` holds the same notebooks in other words.

    Raises ConfigError for a profile that names an unknown notebook or parameter, and for a `folder`
    that lacks one (before anything runs), PipelineError with the error of a cell that fails.
    """
    workspace.check_kernel()
    notebooks = workspace.read_notebooks(folder)
    if missing := workspace.read_notebooks().keys() - notebooks:
        raise ConfigError(f"{folder}: it lacks {', '.join(missing)}; run `make chinese`")
    profile = read_profile(ws, notebooks)
    fingerprints, done = {}, {}
    folders = [ws.data, ws.figures, ws.outputs / "notebooks", ws.outputs / "metrics"]
    with locked(ws.outputs, folders, ".report.lock"):  # the notebooks lock what they write
        for name, notebook in notebooks.items():
            parameters = {"profile": ws.profile, **profile.get(name, {})}
            inputs = [fingerprints[needed] for needed in notebook.needs]
            inputs += [sha256_of(path) for path in _other_inputs(ws, notebook, parameters)]
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


def _other_inputs(ws: Workspace, notebook: Notebook, parameters: dict) -> list[Path]:
    """Files that a notebook reads beside those of the notebooks it needs."""
    files = []
    if parameters.get("source") == "mnist":  # others may lie there now
        config = DataConfig("mnist", images_path=parameters.get("images_path"))
        files += image_files(config, ws.root / "data")
    if notebook.part == "report":  # it reads whatever was measured
        files += sorted(ws.outputs.glob("metrics/*.json"))
    return files


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


def _read_stamp(ws: Workspace, notebook: Notebook) -> dict:
    """What the last run of a notebook left; {} where there is nothing like it."""
    with suppress(DataError):
        stamp = read_json(_stamp_path(ws, notebook))
        return stamp if isinstance(stamp, dict) else {}
    return {}


def _made_files(ws: Workspace, notebook: Notebook) -> list[Path]:
    folders = {"data": ws.data, "outputs": ws.outputs}
    parts = [name.split("/", 1) for name in notebook.makes]
    return [folders[folder] / rest for folder, rest in parts]


def _is_fresh(ws: Workspace, notebook: Notebook, current: str) -> bool:
    """Was it run with these inputs, and are the files it made unchanged?

    A reader who tries other settings in JupyterLab writes to the same places: those results are
    not the profile's.
    """
    made, stamp = _made_files(ws, notebook), _read_stamp(ws, notebook)
    same = stamp.get("fingerprint") == current and all(path.is_file() for path in made)
    return same and stamp.get("made") == sha256_of(made)


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
    finally:
        _remove_paths(executed)
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


def _remove_paths(executed: Path) -> None:
    """Executed notebooks are shown to others, who need not know where they were run."""
    if executed.is_file():
        try:
            notebook = nbformat.read(executed, as_version=4)
        except nbformat.reader.NotJSONError:  # cut off, by a full disk: that error says more
            return
        for name in ("input_path", "output_path"):
            notebook.metadata.get("papermill", {}).pop(name, None)
        write_text(executed, nbformat.writes(notebook))


def _remove_traces(ws: Workspace, notebook: Notebook) -> None:
    """Remove the stamp and the figures of the last run: a figure no longer made must not stay."""
    made = _read_stamp(ws, notebook).get("figures")
    for path in ws.figures.glob("*.*"):  # so nothing outside figures/ is removed
        if isinstance(made, list) and path.name in made:
            path.unlink()
    _stamp_path(ws, notebook).unlink(missing_ok=True)
