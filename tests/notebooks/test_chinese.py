"""The notebooks in Chinese, built and run: their cells, their exercises, what these answer."""

import math
import re

import nbformat
import numpy as np
import pytest
import torch
from site_samples import load_program

from seqlm.exercises import checker
from seqlm.exercises.progress import CALL, read_tasks
from seqlm.pipeline import read_profile
from seqlm.workspace import Workspace, read_notebooks

translate = load_program("notebooks/locale/translate.py")
SHORT = {  # beyond the smoke profile's: what makes each notebook short
    "gpt_by_hand": {},
    "classify_sequences": {"finetune_steps": 2, "scratch_steps": 2},
    "sample": {},
}
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `make chinese` writes; the data of the profile nano are built beside it, once."""
    folder = tmp_path_factory.mktemp("notebooks") / "zh-CN"
    translate.build(folder)
    return folder


@pytest.fixture(autouse=True)
def as_built(folder, monkeypatch):
    """The notebooks find what their checkers say; other tests hear English again."""
    monkeypatch.setenv("SEQLM_HOME", str(folder.parent))
    monkeypatch.setattr(checker, "MESSAGES", [])
    monkeypatch.setattr(checker, "notebooks_folder", lambda: folder.parent)


def exercises(cells):
    """Place of each exercise -> its solution, followed by the check of it."""
    return {
        place: re.search(r"```python\n(.*?)```", after.source, re.DOTALL)[1]
        + cell.source.rsplit("\n\n\n", 1)[1]
        for place, (cell, after) in enumerate(zip(cells, cells[1:], strict=False))
        if cell.cell_type == "code" and CALL.search(cell.source)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_built_notebook_runs_and_its_solutions_are_right(name, folder, monkeypatch, capsys):
    about = read_notebooks(folder)[name]
    monkeypatch.chdir(about.path.parent)
    names = read_profile(Workspace("smoke"), read_notebooks())[name]
    names |= SHORT[name] | {"profile": "nano"}
    cells = nbformat.read(about.path, as_version=4).cells
    solutions = exercises(cells)
    for place, cell in enumerate(cells):
        if "parameters" in cell.metadata.get("tags", ()):
            defaults: dict = {}
            exec(cell.source, defaults)
            names = defaults | names
        elif cell.cell_type == "code":
            exec(cell.source, names)
            exec(solutions.get(place, ""), dict(names))
    said = capsys.readouterr().out
    assert said.count("✓ 对。") == len(solutions) >= 1
    assert not re.search(r"^[✓✗…] [A-Z]", said, re.MULTILINE), "a checker spoke English"
    assert Workspace("nano").metrics(name)["values"]


@pytest.mark.parametrize("name", sorted({*read_notebooks()} - {"report"}))
def test_every_exercise_answers_in_chinese(name, folder, capsys):
    about = read_notebooks(folder)[name]
    cells = nbformat.read(about.path, as_version=4).cells
    (speak,) = [cell for cell in cells if cell.id == "language"]
    exec(speak.source)
    for place, solution in exercises(cells).items():
        names = {"np": np, "torch": torch, "math": math}
        exec(cells[place].source, names)
        exec(solution, names)
        untouched, right = capsys.readouterr().out.splitlines()
        assert untouched.startswith(("… 还没有可检查的内容", "… 错误还在")), untouched
        assert right.startswith("✓ 对。") and CHINESE.search(right[4:]), right
    assert [*read_tasks(about.path)] and len([*read_tasks(about.path)]) == len(exercises(cells))
