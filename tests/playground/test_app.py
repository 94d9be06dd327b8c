"""The whole playground: which model it loads, what it shows without one, training a small one."""

import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from playable import playable

from seqlm.config import DataConfig
from seqlm.ownership import LOCK
from seqlm.playground import app
from seqlm.playground.app import Playground, Training
from seqlm.workspace import Workspace


def texts(box) -> str:
    """All texts in a box of widgets."""
    own = [getattr(box, name, "") for name in ("text", "description", "value")]
    parts = [texts(child) for child in getattr(box, "children", ())]
    return " ".join([*(part for part in own if isinstance(part, str)), *parts])


# --- the model ------------------------------------------------------------------------------------


def test_the_model_is_named_with_its_size(play):
    assert texts(play.start).strip() == (
        "Model: outputs/laptop/best_model, 2 layers, 2 heads, 32 wide; "
        f"{len(play.panels['draw'].player.images)} test images."
    )


def test_without_a_model_it_names_the_command_that_trains_one_and_offers_a_small_one(tmp_path):
    play = Playground(Workspace("laptop", tmp_path))
    assert "`make report`" in texts(play.start)
    assert "Train a two-minute model" in texts(play.start)
    assert play.panels == {}
    for name in app.PANELS:
        assert "This panel needs a model" in texts(getattr(play, name))


def test_a_damaged_model_is_reported_in_one_sentence(built, opinionated, vocab, tmp_path):
    damaged = playable(tmp_path, built, opinionated(), vocab)
    (damaged.best_model / "model.safetensors").write_bytes(b"half a file")
    play = Playground(damaged)
    message = texts(play.start).strip()
    assert message.startswith("This model cannot be used.")
    assert "model.safetensors" in message and "\n" not in message and "Traceback" not in message
    assert "needs a model" in texts(play.gallery)


def test_a_directory_chooses_the_model(tmp_path, play):
    other = Playground(Workspace("laptop", tmp_path), directory=play.ws.best_model)
    assert other.panels and "2 layers" in other.message.text


def test_a_directory_is_looked_for_from_the_projects_folder(ws, tmp_path):
    (tmp_path / "my models").symlink_to(ws.best_model.parent)
    other = Playground(Workspace("laptop", tmp_path), directory="my models/best_model")
    assert other.panels, other.message.text


def test_the_profiles_model_comes_before_the_small_one_and_that_needs_its_codebook(ws, tmp_path):
    both = Workspace("laptop", tmp_path)
    small = Playground(both).folder / "best_model"
    small.mkdir(parents=True)
    (small / "model.safetensors").touch()
    assert Playground(both).find_model() is None  # its training has not ended
    small.rename(tmp_path / "aside")
    for model in (small, both.best_model):
        model.parent.mkdir(parents=True, exist_ok=True)
        model.symlink_to(ws.best_model)
        assert Playground(both).find_model()[0] == model


# --- training a small one -------------------------------------------------------------------------


@pytest.fixture
def smaller(monkeypatch):
    """A still smaller model, of a few steps."""
    size = {"n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64}
    monkeypatch.setattr(app, "SMALL", {**app.SMALL, **size, "max_steps": 10})
    monkeypatch.setattr(app, "DATA", DataConfig(n_images=100, copies=0))


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_small_model_is_trained_and_then_loaded(smaller, tmp_path):
    play = Playground(Workspace("laptop", tmp_path))
    lines = []
    play.training.status.observe(lambda change: lines.append(change["new"]), "text")
    play.training.start_button.click()
    play.training.thread.join()
    assert "outputs/playground/best_model" in play.message.text, lines[-1]
    assert "`make report` trains a better one" in play.message.text
    assert sorted(play.panels) == sorted(app.PANELS)
    assert lines[0] == "building the data set"
    steps = [line for line in lines if re.match(r"step [\d,]+ of 10 ", line)]
    assert steps and play.training.progress.value == 1
    again = Playground(play.ws)
    assert again.panels and again.folder == play.folder


def training(tmp_path: Path, monkeypatch, script: str) -> tuple[Training, list[str]]:
    """A Training whose process runs `script`, and a list that says when it is done."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(app, "sys", SimpleNamespace(executable=str(program)))
    monkeypatch.setattr(app, "is_built", lambda *_: True)
    (tmp_path / "model" / "data").mkdir(parents=True)
    (tmp_path / "model" / "data" / "codebook.npz").touch()
    (tmp_path / "model" / "best_model").mkdir()
    done = []
    return Training(tmp_path / "model", 2.5, lambda: done.append("done")), done


def test_training_shows_its_steps_and_calls_done(tmp_path, monkeypatch):
    script = "print('step 500 of 1,000'); print('flags:', *sys.argv[1:])"
    train, done = training(tmp_path, monkeypatch, script)
    lines, bars = [], []
    train.status.observe(lambda change: lines.append(change["new"]), "text")
    train.progress.observe(lambda change: bars.append(change["new"]), "value")
    train.start_button.click()
    train.thread.join()
    assert lines[:2] == ["building the data set", "step 500 of 1,000"]
    assert lines[2].startswith("flags: -u -m seqlm train --data_path=")
    assert f" --output_dir={train.folder} --max_seconds=2.5 --n_layer=4 " in lines[2]
    assert bars == [0.5, 1.0] and done == ["done"]
    assert (train.start_button.disabled, train.stop_button.disabled) == (False, True)


def test_stop_ends_the_process(tmp_path, monkeypatch):
    train, done = training(tmp_path, monkeypatch, "print('step 1 of 9'); time.sleep(600)")
    begun = threading.Event()
    train.status.observe(lambda change: change["new"] == "step 1 of 9" and begun.set(), "text")
    train.start_button.click()
    assert begun.wait(60) and train.start_button.disabled and not train.stop_button.disabled
    train.stop_button.click()
    train.thread.join()
    assert train.process.returncode < 0 and not done
    assert train.status.text == "stopped; the button continues from the last checkpoint"


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("print('step 1 of 9'); sys.exit('no space left')", "code 1: no space left"),
        ("sys.exit(3)", "code 3: building the data set"),
        ("import os; os.kill(os.getpid(), 9)", "code -9: building the data set"),
    ],
)
def test_a_training_that_fails_is_reported_in_one_sentence(tmp_path, monkeypatch, script, sentence):
    train, done = training(tmp_path, monkeypatch, script)
    train.start_button.click()
    train.thread.join()
    assert train.status.text == f"training failed with exit {sentence}" and not done


def test_a_folder_that_cannot_be_made_is_reported_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    train = Training(tmp_path / "file" / "playground", 1, lambda: None)
    train.train()
    assert "file" in train.status.text and "\n" not in train.status.text


@pytest.mark.subprocess
def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    (tmp_path / "data").mkdir()
    with FileLock(tmp_path / "data" / LOCK):
        train = Training(tmp_path, 1, lambda: None)
        train.train()
    assert f"{tmp_path / 'data'}: in use by" in train.status.text and "\n" not in train.status.text
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
