"""The pipeline's own rules: what is refused before anything runs, and what counts as changed."""

import ast
import errno
import importlib
import shutil
from pathlib import Path

import nbformat
import pytest

from seqlm import pipeline, workspace
from seqlm.config import PROFILES
from seqlm.errors import ConfigError, DataError
from seqlm.ownership import locked
from seqlm.utils import PACKAGE, write_json, write_text
from seqlm.workspace import Workspace, find_root, notebooks_folder, read_notebooks

TRAIN = "train_causal_lm"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A way to write a profile of one's own, beside copies of the real notebooks."""
    folder = tmp_path / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    for path in notebooks_folder().glob("*.ipynb"):
        (folder / path.name).write_text(path.read_text())
    monkeypatch.setattr(workspace, "notebooks_folder", lambda: folder)

    def write(text: str) -> Workspace:
        (folder / "profiles" / "smoke.yaml").write_text(text)
        return Workspace("smoke", tmp_path)

    return write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{TRAIN}:\n  learning_rte: 1.0e-3\n", "did you mean learning_rate"),
        (f"{TRAIN}:\n  learning_rate: 1e-3\n", "write 1.0e-3"),
        (f"{TRAIN}:\n  batch_size: true\n", "expected a number"),
        (f"{TRAIN}:\n  precision: 16\n", "expected str"),
        ("train_lm:\n  batch_size: 3\n", f"did you mean {TRAIN}"),
        ("- a\n- b\n", "expected a notebook's name"),
        ("a: [1\n", "not readable as YAML"),
    ],
)
def test_a_wrong_profile_is_refused_before_anything_runs(profile, text, said):
    ws = profile(text)
    with pytest.raises(ConfigError, match=said):
        pipeline.run_pipeline(ws)
    assert not ws.outputs.exists()


@pytest.mark.parametrize("program", ["gone", "another"])
def test_a_kernel_of_another_python_is_named_before_anything_runs(
    profile, program, tmp_path, monkeypatch
):
    another = tmp_path / "another"
    another.write_text("#!/bin/sh\necho /elsewhere\n")
    another.chmod(0o755)
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    spec = {
        "argv": [str(tmp_path / program), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    }
    write_json(folder / "kernel.json", spec | {"display_name": "Python", "language": "python"})
    ws = profile("")
    workspace.check_kernel()
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    with pytest.raises(ConfigError) as caught:
        pipeline.run_pipeline(ws)
    said = str(caught.value)
    assert said.startswith(f"{folder}: ") and str(tmp_path / program) in said
    assert ("/elsewhere" in said) is (program == "another") and "kernelspec remove" in said
    assert not ws.outputs.exists()


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_names_only_parameters_that_exist(name):
    assert isinstance(pipeline.read_profile(Workspace(name), read_notebooks()), dict)


def test_every_notebook_describes_itself_whole():
    notebooks = read_notebooks()
    built = notebooks_folder() / "zh-CN"  # by `make chinese`
    there = [p for p in notebooks_folder().rglob("[!.]*.ipynb") if not p.is_relative_to(built)]
    assert len(notebooks) == len(there)
    earlier = set()
    for name, notebook in notebooks.items():
        assert set(notebook.needs) <= earlier, f"{name} needs a notebook that runs after it"
        earlier.add(name)
        assert notebook.title and notebook.number > 0 and 0 < notebook.minutes < 60
        assert all(file.startswith(("data/", "outputs/")) for file in notebook.makes)
        heading = nbformat.read(notebook.path, as_version=4).cells[0].source.splitlines()[0]
        number = f"{notebook.number} · " if notebook.part == "course" else ""
        assert heading == f"# {number}{notebook.title}"
        assert (notebook.part == "laboratory") == (notebook.path.parent.name == "laboratory")
        if notebook.part == "course":
            assert notebook.path.name.startswith(f"{notebook.number:02}_")
        if notebook.part != "report":
            assert f"outputs/metrics/{name}.json" in notebook.makes


def test_the_course_comes_first_then_the_laboratory_then_the_report():
    parts = [notebook.part for notebook in read_notebooks().values()]
    assert parts == sorted(parts, key=workspace.PARTS.index)
    for part in set(parts):
        numbers = [n.number for n in read_notebooks().values() if n.part == part]
        assert numbers == list(range(1, len(numbers) + 1))


def test_a_notebook_that_does_not_describe_itself_is_refused(tmp_path):
    notebook = nbformat.v4.new_notebook(metadata={"seqlm": {"title": "A", "number": 1}})
    nbformat.write(notebook, tmp_path / "01_a.ipynb")
    with pytest.raises(ConfigError, match="01_a.ipynb: metadata.seqlm: .*'part'"):
        read_notebooks(tmp_path)


def test_only_plain_names_of_figures_are_removed(tmp_path):
    ws, notebook = Workspace("smoke", tmp_path), read_notebooks()["sample"]
    write_json(
        ws.outputs / "notebooks" / "07_sample.json",
        {"figures": ["../kept.png", str(tmp_path / "kept.png"), "old.png"]},
    )
    for path in (ws.figures / "old.png", ws.outputs / "kept.png", tmp_path / "kept.png"):
        write_text(path, "x")
    pipeline._remove_traces(ws, notebook)
    assert not (ws.figures / "old.png").exists()
    assert (ws.outputs / "kept.png").exists() and (tmp_path / "kept.png").exists()


@pytest.mark.parametrize("stamp", [[1], {"figures": "kept.png"}, {"figures": [1, None]}, "x"])
def test_a_stamp_that_is_none_removes_nothing_and_is_not_fresh(tmp_path, stamp):
    ws, notebook = Workspace("smoke", tmp_path), read_notebooks()["sample"]
    path = ws.outputs / "notebooks" / "07_sample.json"
    write_json(path, stamp)
    write_text(ws.figures / "kept.png", "x")
    assert not pipeline._is_fresh(ws, notebook, "fingerprint")
    pipeline._remove_traces(ws, notebook)
    assert (ws.figures / "kept.png").exists() and not path.exists()


def test_one_report_at_a_time_and_it_sweeps_what_a_killed_one_left(tmp_path, monkeypatch):
    ws = Workspace("smoke", tmp_path)
    monkeypatch.setattr(pipeline, "_run", lambda *_: 0.0)
    monkeypatch.setattr(pipeline, "fingerprint", lambda *_: "same")
    litter = ws.figures / ".tmp-01234567-loss.png"
    write_text(litter, "half")
    pipeline.run_pipeline(ws, log=lambda line: None)
    assert not litter.exists()
    with locked(ws.outputs):  # as a notebook that trains does
        pipeline.run_pipeline(ws, log=lambda line: None)


def test_a_notebook_that_a_full_disk_cut_off_does_not_hide_that(tmp_path, monkeypatch):
    def fill(source, executed, *_, **__):
        write_text(Path(executed), '{"cells": [')
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline.papermill, "execute_notebook", fill)
    with pytest.raises(OSError, match="No space left"):
        pipeline.run_pipeline(Workspace("smoke", tmp_path), log=lambda line: None)


def test_a_fingerprint_changes_with_cells_parameters_inputs_and_code(tmp_path, monkeypatch):
    path = tmp_path / "a.ipynb"
    cell = nbformat.v4.new_code_cell("from seqlm.exercises import probabilities")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    first = pipeline.fingerprint(path, {"a": 1}, ["x"])
    assert first == pipeline.fingerprint(path, {"a": 1}, ["x"])
    assert first != pipeline.fingerprint(path, {"a": 2}, ["x"])
    assert first != pipeline.fingerprint(path, {"a": 1}, ["y"])
    monkeypatch.setattr(pipeline, "modules_behind", lambda source: [path])
    assert first != pipeline.fingerprint(path, {"a": 1}, ["x"])
    cell.source += "  # changed"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    monkeypatch.undo()
    assert first != pipeline.fingerprint(path, {"a": 1}, ["x"])


def test_a_notebook_without_its_inputs_is_told_which_to_run(tmp_path):
    with pytest.raises(DataError, match=r"01_explore_data\.ipynb with profile 'smoke' first"):
        Workspace("smoke", tmp_path).check_inputs("build_tokenizer")


def test_the_root_is_found_from_below_and_missed_elsewhere(tmp_path, monkeypatch):
    monkeypatch.delenv("SEQLM_HOME", raising=False)
    root = PACKAGE.parent
    assert find_root(root / "notebooks") == root
    with pytest.raises(ConfigError, match="SEQLM_HOME"):
        find_root(tmp_path)


def test_an_unknown_profile_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="laptop"):
        Workspace("desktop", tmp_path)


def test_force_runs_what_was_asked_for_and_leaves_a_fresh_laboratory_alone(tmp_path, monkeypatch):
    ws = Workspace("smoke", tmp_path)
    laboratory = [name for name, n in read_notebooks().items() if n.part == "laboratory"]
    for name in laboratory:
        ws.save_metrics(name, {"seed": 1}, {"a": 1}, 1.0)
    monkeypatch.setattr(pipeline, "_is_fresh", lambda *stage: True)
    monkeypatch.setattr(pipeline, "_run", lambda *stage: 0.0)
    done = pipeline.run_pipeline(ws, force=True, log=lambda line: None)
    assert done == {name: "kept" if name in laboratory else "ran" for name in read_notebooks()}
    assert all(ws.metrics_path(name).is_file() for name in laboratory)


def test_a_fresh_clone_runs_all_but_the_laboratory(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_run", lambda *stage: 0.0)
    done = pipeline.run_pipeline(Workspace("laptop", tmp_path), log=lambda line: None)
    assert done == {n: "ran" for n, about in read_notebooks().items() if about.part != "laboratory"}


def test_notebooks_of_another_folder_are_run_but_only_when_none_is_missing(tmp_path, monkeypatch):
    ran, own = [], {n: about.path for n, about in read_notebooks().items()}
    monkeypatch.setattr(pipeline, "_run", lambda ws, notebook, *_: ran.append(notebook.path) or 0.0)
    folder = tmp_path / "zh-CN"
    copies = [folder / path.relative_to(notebooks_folder()) for path in own.values()]
    for path, copy in zip(own.values(), copies, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    ws = Workspace("smoke", tmp_path)
    pipeline.run_pipeline(ws, folder=folder, laboratory=True, log=lambda line: None)
    assert ran == copies
    copies[-1].unlink()
    with pytest.raises(ConfigError, match=f"it lacks {list(own)[-1]}; run `make chinese`"):
        pipeline.run_pipeline(ws, folder=folder, log=lambda line: None)
    assert ran == copies


@pytest.mark.parametrize("notebook", read_notebooks().values(), ids=lambda notebook: notebook.name)
def test_every_name_that_a_notebook_imports_from_the_package_exists(notebook):
    cells = nbformat.read(notebook.path, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "seqlm":
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
