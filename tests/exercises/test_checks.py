"""The exercises' checkers: right answers pass, wrong ones are told which misconception it is."""

import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from seqlm.exercises import checks, checks_lab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHECKS = [
    checks.nearest_patch,
    checks.labels,
    checks.classifier_input,
    checks.perplexity,
    checks.nucleus,
    checks.guidance,
    checks.catches_wrong_rulers,
]


def distances(patch, centers):
    return ((centers - patch) ** 2).sum(1)


def shifted(ids, pad):
    return [*ids[1:], pad]


def in_place(ids, pad):
    for place, token in enumerate(ids):
        ids[place] = -100 if token == pad else token
    return ids


def all_losses(batches):
    return np.concatenate([loss.ravel() for loss, _ in batches])


def kept_losses(batches):
    return np.concatenate([loss[mask] for loss, mask in batches])


def batch_means(batches):
    return np.exp(np.mean([loss[mask].mean() for loss, mask in batches]))


def rescaled(p):
    return p / p.sum()


def guided(given, free, w):
    return rescaled(free ** (1 - w) * given**w)


def short_nucleus(p, top_p):
    order = np.argsort(-p)
    kept = order[np.cumsum(p[order]) <= top_p]
    return np.where(np.isin(np.arange(len(p)), kept), p, 0) / max(p[kept].sum(), 1e-9)


def unscaled_nucleus(p, top_p):
    order = np.argsort(-p)
    kept = order[np.cumsum(p[order]) - p[order] < top_p]
    return np.where(np.isin(np.arange(len(p)), kept), p, 0)


EVEN = (np.array([[1.0, 3.0], [5.0, 7.0]]), np.ones((2, 2), bool))
PADDED = (np.array([[1.0, 3.0, 9.0], [5.0, 7.0, 9.0]]), np.array([[1, 1, 0], [1, 1, 0]], bool))
RAGGED = (np.array([[1.0, 2.0, 3.0], [6.0, 0.0, 0.0]]), np.array([[1, 1, 1], [1, 0, 0]], bool))


def row_by_row(batch):
    return [(nll[None], real[None]) for nll, real in zip(*batch, strict=True)]


WRONG = [
    (checks.nearest_patch, lambda p, c: int((c @ p).argmax()), "centres full of ink"),
    (checks.nearest_patch, lambda p, c: int(distances(p, c).argmax()), "farthest"),
    (checks.nearest_patch, lambda p, c: int(distances(p, c).argmin()) + 1, "from 0"),
    (checks.nearest_patch, lambda p, c: distances(p, c).min(), "distance itself"),
    (checks.nearest_patch, lambda p, c: 2, "nearly empty patch"),
    (checks.nearest_patch, lambda p, c: p.nonsense, "AttributeError"),
    (checks.labels, lambda ids, pad: list(ids), "Padding is still"),
    (checks.labels, shifted, "Shifted by hand"),
    (checks.labels, in_place, "changed input_ids"),
    (checks.labels, lambda ids, pad: [-100 if t in (pad, 509) else t for t in ids], "class is"),
    (checks.classifier_input, lambda tokens: tokens, "class is still"),
    (checks.classifier_input, lambda tokens: tokens[:4], "<CLS> is missing"),
    (checks.classifier_input, lambda tokens: [*tokens[:5], "<EOS>"], "<EOS> comes after"),
    (checks.classifier_input, lambda tokens: tokens[:5], "nine codes"),
    (checks.perplexity, lambda b: np.exp(all_losses(b).mean()), "Padding is counted"),
    (checks.perplexity, batch_means, "mean of batch means"),
    (checks.perplexity, lambda b: kept_losses(b).mean(), "mean NLL"),
    (checks.perplexity, lambda b: 2 ** kept_losses(b).mean(), "power of nats"),
    (checks.perplexity, lambda b: np.exp(kept_losses(b)).mean(), "take the mean first"),
    (checks.guidance, lambda g, f, w: f + w * (g - f), "mixes probabilities"),
    (checks.guidance, lambda g, f, w: f ** (1 - w) * g**w, "sum to 1"),
    (checks.guidance, lambda g, f, w: (1 - w) * np.log(f) + w * np.log(g), "logarithms still"),
    (checks.guidance, lambda g, f, w: guided(f, g, w), "exchanged"),
    (checks.guidance, lambda g, f, w: rescaled(g**w * f), "weight is 1 - w"),
    (checks.guidance, lambda g, f, w: g, "Mix log p"),
    (checks.guidance, lambda g, f, w: guided(g, f, 2.0), "w = 1 should be"),
    (checks.nucleus, short_nucleus, "Too few"),
    (checks.nucleus, unscaled_nucleus, "sum to 1 again"),
    (checks.nucleus, lambda p, top_p: np.where(p > top_p, p, 0), "sum counts"),
    (checks.nucleus, lambda p, top_p: p, "sort by probability"),
    (checks.catches_wrong_rulers, lambda ruler: True, "counts padding passes"),
    (checks.catches_wrong_rulers, lambda ruler: False, "rejects an honest ruler"),
    (checks.catches_wrong_rulers, lambda ruler: ruler([RAGGED]) == 4, "rejects an honest ruler"),
    (checks.catches_wrong_rulers, lambda ruler: ruler([EVEN]) == 4, "counts padding passes"),
    (checks.catches_wrong_rulers, lambda ruler: ruler([PADDED]) == 4, "mean of batch means"),
    (checks.catches_wrong_rulers, lambda ruler: ruler([RAGGED]) == 3, "mean of batch means"),
    (
        checks.catches_wrong_rulers,
        lambda ruler: ruler([PADDED]) == 4 and ruler([EVEN, row_by_row(EVEN)[0]]) == 10 / 3,
        "mean of row means",
    ),
    (checks.catches_wrong_rulers, lambda ruler: ruler(3), "stopped with TypeError"),
]


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_a_wrong_answer_is_told_its_misconception(check, answer, words, capsys):
    assert check(answer) is False
    assert words in capsys.readouterr().out


def given_only_once(right):
    """A function that answers the first question correctly and the second with None."""
    left = [right]
    return lambda *arguments: left.pop() if left else None


def second(answer, first):
    answers = iter([first, answer])
    return lambda *arguments: next(answers)


P = np.array([0, 0.6, 0, 0.4, 0])
SENTENCE = ["<IMG>", "<Z_007>", "<Z_004>", "</IMG>", "<CLS>"]
ONE_CENTRE, NINE = "where the number of one centre is wanted", "where a list of nine whole numbers"
TOKENS, FIVE = "where a list of tokens is wanted", "where an array of five probabilities is wanted"
THREE = "where an array of three probabilities is wanted"
NUMBER, YES_NO = "where one number is wanted", "where True or False is wanted"
UNFIT = [
    (checks.nearest_patch, "2", f"a string, {ONE_CENTRE}"),
    (checks.nearest_patch, True, f"a bool, {ONE_CENTRE}"),
    (checks.nearest_patch, np.array([2]), f"an array of shape (1,), {ONE_CENTRE}"),
    (checks.nearest_patch, [2, 0], f"a list of 2, {ONE_CENTRE}"),
    (checks.nearest_patch, second([0, 1], 2), f"a list of 2, {ONE_CENTRE}"),
    (checks.nearest_patch, given_only_once(2), f"None, {ONE_CENTRE}"),
    (checks.labels, [2, 45], f"a list of 2, {NINE}"),
    (checks.labels, [], f"a list of 0, {NINE}"),
    (checks.labels, [1, [2, 3]], f"a list of 2, {NINE}"),
    (checks.labels, ["2"] * 9, f"a list of 9, {NINE}"),
    (checks.labels, [None] * 9, f"a list of 9, {NINE}"),
    (checks.labels, "2 45 6", f"a string, {NINE}"),
    (checks.labels, {2: 45}, f"a dict, {NINE}"),
    (checks.labels, np.ndarray, f"a type, {NINE}"),
    (checks.classifier_input, 5, f"an int, {TOKENS}"),
    (checks.classifier_input, [1, 2], f"a list of 2, {TOKENS}"),
    (checks.classifier_input, "<IMG> <CLS>", f"a string, {TOKENS}"),
    (checks.classifier_input, second(5, SENTENCE), f"an int, {TOKENS}"),
    (checks.perplexity, np.ones(3), f"an array of shape (3,), {NUMBER}"),
    (checks.perplexity, "22.2", f"a string, {NUMBER}"),
    (checks.perplexity, 2j, f"a complex, {NUMBER}"),
    (checks.guidance, np.ones(2), f"an array of shape (2,), {THREE}"),
    (checks.guidance, second("p", np.array([8, 2, 1]) / 11), f"a string, {THREE}"),
    (checks.nucleus, np.ones((2, 5)), f"an array of shape (2, 5), {FIVE}"),
    (checks.nucleus, 0.7, f"a float, {FIVE}"),
    (checks.nucleus, "0.7", f"a string, {FIVE}"),
    (checks.nucleus, ["0.7"] * 5, f"a list of 5, {FIVE}"),
    (checks.nucleus, [0.6, [0.4]], f"a list of 2, {FIVE}"),
    (checks.nucleus, second(np.ones(3), P), f"an array of shape (3,), {FIVE}"),
    (checks.nucleus, given_only_once(P), f"None, {FIVE}"),
    (checks.catches_wrong_rulers, 1, f"an int, {YES_NO}"),
    (checks.catches_wrong_rulers, "True", f"a string, {YES_NO}"),
    (checks.catches_wrong_rulers, np.array([True]), f"an array of shape (1,), {YES_NO}"),
    (checks.catches_wrong_rulers, second(0, True), f"an int, {YES_NO}"),
    (checks.catches_wrong_rulers, given_only_once(True), f"None, {YES_NO}"),
]


@pytest.mark.parametrize("row_wise", [False, True])
def test_a_test_that_asks_together_and_apart_catches_every_wrong_ruler(row_wise, capsys):
    apart = row_by_row(RAGGED) if row_wise else [RAGGED, row_by_row(RAGGED)[1]]
    mean = 3.0 if row_wise else 18 / 5
    assert checks.catches_wrong_rulers(
        lambda ruler: np.isclose(ruler([RAGGED]), 3) and np.isclose(ruler(apart), mean)
    )
    assert "✓ Right." in capsys.readouterr().out


@pytest.mark.parametrize(("check", "answer", "words"), UNFIT)
def test_an_answer_of_the_wrong_kind_gets_one_sentence(check, answer, words, capsys):
    function = answer if callable(answer) and answer is not np.ndarray else lambda *given: answer
    assert check(function) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ Not yet. That is ") and words in said and said.count("\n") == 1


@pytest.mark.parametrize("answer", ["10.8", [10.8], np.ones(2), math.log, True])
def test_an_initial_loss_of_the_wrong_kind_gets_one_sentence(answer, capsys):
    assert checks.initial_loss(answer, 516) is False
    said = capsys.readouterr().out
    assert said.startswith("✗ Not yet. That is a") and said.endswith(f"{NUMBER}.\n")


def test_a_nucleus_that_drops_places_is_told_to_keep_them(capsys):
    assert checks.nucleus(lambda p, top_p: np.array([0.6, 0.4])) is False
    assert "keeps its five places" in capsys.readouterr().out


def failing(*arguments):
    raise RuntimeError("no idea")


def failing_later(first):
    answers = iter([first])
    return lambda *arguments: next(answers)  # StopIteration at the second question


@pytest.mark.parametrize("check", CHECKS)
def test_an_exception_ends_the_check_with_one_message(check, capsys):
    assert check(failing) is False
    assert capsys.readouterr().out == (
        "✗ Not yet. Your function stopped with RuntimeError: no idea\n"
    )


@pytest.mark.parametrize(
    ("check", "right"),
    [(checks.nearest_patch, 2), (checks.classifier_input, SENTENCE), (checks.nucleus, P)],
)
def test_so_does_one_at_the_second_question(check, right, capsys):
    assert check(failing_later(right)) is False
    said = capsys.readouterr().out
    assert "stopped with StopIteration" in said and said.count("✗") == said.count("\n") == 1


@pytest.mark.parametrize("check", CHECKS)
def test_a_result_in_place_of_the_function_is_told(check, capsys):
    assert check([1, 2]) is False
    assert "That is a list of 2, where a function is wanted." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (math.log2(516), "bits"),
        (math.log10(516), "log10"),
        (516, "perplexity"),
        (1 / 516, "probability of one token"),
        (-math.log(516), "sign"),
        (3.0, "Start from"),
    ],
)
def test_a_wrong_initial_loss_is_told_its_misconception(answer, words, capsys):
    assert checks.initial_loss(answer, 516) is False
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("check", CHECKS)
def test_an_answer_not_given_yet_is_no_mistake(check, capsys):
    assert check(lambda *arguments: ...) is False
    said = capsys.readouterr().out
    assert "Nothing to check yet" in said and "✗" not in said


def exercises():
    """(notebook, solution, call of the checker) for every solution in the notebooks."""
    found = []
    for path in sorted(NOTEBOOKS.rglob("[!.]*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        calls = [c.source for c in cells if c.cell_type == "code" and "checks." in c.source]
        solutions = [c.source for c in cells if "<summary>Solution</summary>" in c.source]
        for call, solution in zip(calls, solutions, strict=True):
            found.append((path.stem, call, re.search(r"```python\n(.*?)```", solution, re.S)[1]))
    return found


def test_every_notebook_has_an_exercise_with_a_solution():
    notebooks = {path.stem for path in NOTEBOOKS.rglob("[!.]*.ipynb")} - {"report"}
    assert {name for name, _, _ in exercises()} == notebooks


@pytest.mark.parametrize(("name", "call", "solution"), exercises())
def test_the_solution_in_the_notebook_passes_its_own_checker(name, call, solution, capsys):
    asked = call.split("checks.", 1)[1]
    module = checks_lab if "import checks_lab" in call else checks
    space = {"np": np, "checks": module}
    exec(solution, space)
    exec("checks." + asked, space)
    assert "✓" in capsys.readouterr().out
