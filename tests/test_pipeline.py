"""The pipeline's own rules: what is refused before anything runs, and what counts as changed."""

import nbformat
import pytest

from seqlm import pipeline
from seqlm.errors import ConfigError, DataError
from seqlm.utils import PACKAGE
from seqlm.workspace import LABORATORY, NOTEBOOKS, Workspace, find_root

TRAIN = "03_train_causal_lm"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A way to write a profile of one's own, beside copies of the real notebooks."""
    folder = tmp_path / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    for path in pipeline.notebooks_folder().glob("*.ipynb"):
        (folder / path.name).write_text(path.read_text())
    monkeypatch.setattr(pipeline, "notebooks_folder", lambda: folder)

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
        ("03_train:\n  batch_size: 3\n", f"did you mean {TRAIN}"),
        ("- a\n- b\n", "expected a notebook's name"),
        ("a: [1\n", "not readable as YAML"),
    ],
)
def test_a_wrong_profile_is_refused_before_anything_runs(profile, text, said):
    ws = profile(text)
    with pytest.raises(ConfigError, match=said):
        pipeline.run_pipeline(ws)
    assert not ws.outputs.exists()


@pytest.mark.parametrize("name", ["smoke", "laptop", "original", "gpu"])
def test_every_profile_names_only_parameters_that_exist(name):
    assert isinstance(pipeline.read_profile(Workspace(name)), dict)


def test_every_notebook_is_a_stage_and_every_stage_a_notebook():
    on_disk = {path.stem for path in pipeline.notebooks_folder().glob("*.ipynb")}
    assert on_disk == {stage.name for stage in pipeline.STAGES} == set(NOTEBOOKS.values())


def test_a_fingerprint_changes_with_cells_parameters_inputs_and_code(tmp_path, monkeypatch):
    path = tmp_path / "a.ipynb"
    cell = nbformat.v4.new_code_cell("from seqlm.exercises import checks")
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
        Workspace("smoke", tmp_path).needs("01")


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
    for number in LABORATORY:
        ws.save_metrics(number, {"seed": 1}, {"a": 1}, 1.0)
    monkeypatch.setattr(pipeline, "_is_fresh", lambda *stage: True)
    monkeypatch.setattr(pipeline, "_run", lambda *stage: 0.0)
    done = pipeline.run_pipeline(ws, force=True, log=lambda line: None)
    assert done == {n: "kept" if n in LABORATORY else "ran" for n in NOTEBOOKS}
    assert all(ws.metrics_path(number).is_file() for number in LABORATORY)


def test_a_fresh_clone_runs_all_but_the_laboratory(tmp_path, monkeypatch):
    ws = Workspace("laptop", tmp_path)
    monkeypatch.setattr(pipeline, "_run", lambda *stage: 0.0)
    done = pipeline.run_pipeline(ws, log=lambda line: None)
    assert done == dict.fromkeys(set(NOTEBOOKS) - set(LABORATORY), "ran")
