"""The exercises where a learner meets them: stubs, solutions, guesses, and what is done."""

import json
import math
import re

import nbformat
import numpy as np
import pytest
import torch

from seqlm.cli import main
from seqlm.exercises.guesses import answer_guess
from seqlm.exercises.progress import CALL, read_tasks
from seqlm.workspace import read_notebooks

LESSONS = [about for about in read_notebooks().values() if about.part != "report"]
LESSON = pytest.mark.parametrize("about", LESSONS, ids=lambda about: about.name)


def cells_of(about):
    return nbformat.read(about.path, as_version=4).cells


def exercises(about):
    """(markdown before, cell of the checker, markdown after) of every exercise."""
    cells = cells_of(about)
    return [
        (before.source, cell.source, after.source)
        for before, cell, after in zip(cells, cells[1:], cells[2:], strict=False)
        if cell.cell_type == "code" and CALL.search(cell.source)
    ]


FOUND = [(about.name, *exercise) for about in LESSONS for exercise in exercises(about)]
NAMED = [f"{name}-{CALL.search(cell)[0][:-1]}" for name, _, cell, _ in FOUND]
EXERCISE = pytest.mark.parametrize(("name", "before", "cell", "after"), FOUND, ids=NAMED)


def run(*sources):
    space = {"np": np, "torch": torch, "math": math, "answer_guess": answer_guess}
    for source in sources:
        exec(source, space)
    return space


@LESSON
def test_every_notebook_has_exercises_and_progress_sees_each(about):
    assert len(exercises(about)) == len([*read_tasks(about.path)]) >= 1
    assert [mark for *_, mark in read_tasks(about.path)] == ["…"] * len(exercises(about))


def test_the_course_has_twenty_exercises_four_of_them_bugs_to_find():
    course = [task for about in LESSONS if about.part == "course" for task in exercises(about)]
    assert 18 <= len(course) <= 20
    assert sum("find the bug" in before for before, *_ in course) == 4


@EXERCISE
def test_an_exercise_says_how_long_it_takes_and_folds_hint_and_solution(name, before, cell, after):
    heading = re.findall(r"^## Exercise.*$", before, re.M)[-1]
    assert re.fullmatch(r"## Exercise( \d+)?: .+ \((easy|medium|hard), \d+ minutes\)", heading)
    folded = re.findall(r"<details><summary>(\w+)</summary>(.*?)</details>", after, re.S)
    assert [summary for summary, _ in folded] == ["Hint", "Solution"]
    assert after.startswith("<details>") and all(len(text) > 20 for _, text in folded)


@EXERCISE
def test_an_untouched_exercise_is_no_mistake(name, before, cell, after, capsys):
    run(cell)
    bug = "find the bug" in before
    wanted = "… The bug is still there: " if bug else "… Nothing to check yet: "
    assert capsys.readouterr().out.startswith(wanted)


@EXERCISE
def test_its_solution_is_right(name, before, cell, after, capsys):
    solution = re.search(r"```python\n(.*?)```", after, re.S)[1]
    imports, call = cell.split("\n")[0], cell.rsplit("\n\n\n", 1)[1]
    run(imports, solution, call)
    assert capsys.readouterr().out.startswith("✓ Right. ")


@LESSON
def test_every_prediction_takes_a_guess_and_answers_it(about):
    cells = cells_of(about)
    open_guess, asked, answered = False, 0, 0
    for before, cell in zip([None, *cells], cells, strict=False):
        if cell.cell_type == "markdown":
            asked += (predicts := "**Predict, then run.**" in cell.source)
            assert not (predicts and open_guess), cell.source
        elif "my_guess = ..." in cell.source:
            assert before.cell_type == "markdown" and "**Predict, then run.**" in before.source
            open_guess = True
        if cell.cell_type == "code" and "answer_guess(my_guess, " in cell.source:
            assert open_guess
            open_guess, answered = False, answered + 1
    assert asked == answered >= 1 and not open_guess


@pytest.mark.parametrize(
    ("guess", "measured", "words"),
    [
        (..., 0.98, "… It is 0.98 %. Next time, first replace the ... with your guess.\n"),
        (80, 99.98, "✗ You guessed 80: too low. It is 99.98 %.\n"),
        (120.5, 99.98, "✗ You guessed 120.5: too high. It is 99.98 %.\n"),
        (91, 99.98, "✓ You guessed 91: right. It is 99.98 %.\n"),
        (0, 0, "✓ You guessed 0: right. It is 0 %.\n"),
        (1, 0, "✗ You guessed 1: too high. It is 0 %.\n"),
        (-3, -3.1, "✓ You guessed -3: right. It is -3.1 %.\n"),
        (np.float32(2), 2.0, "✓ You guessed 2: right. It is 2 %.\n"),
        (True, "yes", "… It is yes. Your guess is not a word in quotes.\n"),
        ("all", 99.98, "… It is 99.98 %. Your guess is not a number.\n"),
        ([1, 2], 99.98, "… It is 99.98 %. Your guess is not a number.\n"),
        (3, "greedy", "… It is greedy. Your guess is not a word in quotes.\n"),
        ("beam", "greedy", "✗ It is greedy.\n"),
        (" Greedy ", "greedy", "✓ It is greedy.\n"),
    ],
)
def test_a_guess_is_answered_in_one_line(guess, measured, words, capsys):
    answer_guess(guess, measured, "" if isinstance(measured, str) else "%")
    assert capsys.readouterr().out == words


def saved(folder, marks, name="01_a.ipynb"):
    """A learner's notebook with one exercise for each mark; None has not been run."""
    cells = []
    for k, mark in enumerate(marks):
        cells.append(nbformat.v4.new_markdown_cell(f"## Exercise: task {k} (easy, 5 minutes)"))
        cells.append(nbformat.v4.new_code_cell("check_it(answer);"))
        if mark:
            out = nbformat.v4.new_output("stream", name="stdout", text=f"{mark} Some line.\n")
            cells[-1].outputs.append(out)
        cells.append(nbformat.v4.new_code_cell("ws.check_inputs('a')"))
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / name)
    return folder


def test_progress_shows_what_saved_notebooks_say(tmp_path, capsys):
    folder = saved(tmp_path / "mine", ["✓", "✗", "…", None])
    saved(folder / "laboratory", ["✓"], "b.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), folder / "Untitled.ipynb")
    assert main(["progress", "--notebooks_path", str(folder)]) == 0
    assert capsys.readouterr().out == (
        "01_a.ipynb\n"
        "  ✓ task 0 (5 minutes)\n"
        "  ✗ task 1 (5 minutes)\n"
        "  … task 2 (5 minutes)\n"
        "  … task 3 (5 minutes)\n"
        "laboratory/b.ipynb\n"
        "  ✓ task 0 (5 minutes)\n"
        "2 of 5 exercises are done, by the notebooks as they were last saved; "
        "15 minutes are left.\n"
    )


def test_progress_reads_the_projects_own_notebooks_unasked(capsys):
    assert main(["progress"]) == 0
    assert capsys.readouterr().out.count("\n  … ") == len(FOUND)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no notebook with exercises is there"),
        ("{}", "not a notebook"),
        ("[1]", "not a notebook"),
        ('{"cells": [{"cell_type": "code"}]}', "not a notebook"),
        ('{"cells": [', "not valid JSON"),
        ("", "the file is empty"),
    ],
)
def test_what_is_no_notebook_gets_one_sentence(text, words, tmp_path, capsys):
    if text is not None:
        (tmp_path / "01_a.ipynb").write_text(text)
    assert main(["progress", "--notebooks_path", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("seqlm progress: ") and captured.err.count("\n") == 1
    assert words in captured.err and str(tmp_path) in captured.err


def test_the_teachers_page_has_every_exercise_with_its_minutes():
    page = (read_notebooks()["evaluate"].path.parents[1] / "docs" / "teaching.md").read_text()
    for about in LESSONS:
        for title, minutes, _ in read_tasks(about.path):
            assert f"{title} ({minutes})" in page, f"{about.name}: {title}"


def test_a_notebook_that_was_run_keeps_what_the_checker_printed(tmp_path, capsys):
    about = next(about for about in LESSONS if about.name == "build_tokenizer")
    notebook = json.loads(about.path.read_text())
    (cell,) = [c for c in notebook["cells"] if "check_labels(" in "".join(c["source"])]
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["✓ Right. ", "x\n"]}]
    (tmp_path / "02.ipynb").write_text(json.dumps(notebook))
    assert [mark for *_, mark in read_tasks(tmp_path / "02.ipynb")] == ["✓"]
