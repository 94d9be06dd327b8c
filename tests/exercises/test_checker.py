"""The exercises' checkers: right answers pass, wrong ones get a line about the mistake."""

import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from scipy import stats

from seqlm.exercises import gpt_by_hand, probabilities, tokens_and_codes
from seqlm.exercises.probabilities import (
    check_guidance,
    check_initial_loss,
    check_nucleus,
    check_perplexity,
    check_sign_test,
    check_training_operations,
    check_wrong_evaluations,
)
from seqlm.exercises.tokens_and_codes import (
    check_class_removed,
    check_classifier_input,
    check_labels,
    check_larger_embedding,
    check_nearest_patch,
)

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHECKS = [
    check_nearest_patch,
    check_labels,
    check_classifier_input,
    check_perplexity,
    check_nucleus,
    check_guidance,
    check_wrong_evaluations,
    check_training_operations,
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


def guided(conditional, free, w):
    return rescaled(free ** (1 - w) * conditional**w)


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
    (
        check_nearest_patch,
        lambda p, c: int((c @ p).argmax()),
        "centres full of ink",
    ),
    (check_nearest_patch, lambda p, c: int(distances(p, c).argmax()), "farthest"),
    (
        check_nearest_patch,
        lambda p, c: int(distances(p, c).argmin()) + 1,
        "from 0",
    ),
    (check_nearest_patch, lambda p, c: distances(p, c).min(), "distance itself"),
    (check_nearest_patch, lambda p, c: 2, "nearly empty patch"),
    (check_nearest_patch, lambda p, c: p.nonsense, "AttributeError"),
    (check_labels, lambda ids, pad: list(ids), "Padding is still"),
    (check_labels, shifted, "Shifted by hand"),
    (check_labels, in_place, "changed input_ids"),
    (
        check_labels,
        lambda ids, pad: [-100 if t in (pad, 509) else t for t in ids],
        "class is",
    ),
    (check_classifier_input, lambda tokens: tokens, "class is still"),
    (check_classifier_input, lambda tokens: tokens[:4], "<CLS> is missing"),
    (
        check_classifier_input,
        lambda tokens: [*tokens[:5], "<EOS>"],
        "<EOS> comes after",
    ),
    (check_classifier_input, lambda tokens: tokens[:5], "nine codes"),
    (check_perplexity, lambda b: np.exp(all_losses(b).mean()), "Padding is counted"),
    (check_perplexity, batch_means, "mean of batch means"),
    (check_perplexity, lambda b: kept_losses(b).mean(), "mean NLL"),
    (check_perplexity, lambda b: 2 ** kept_losses(b).mean(), "power of nats"),
    (
        check_perplexity,
        lambda b: np.exp(kept_losses(b)).mean(),
        "take the mean first",
    ),
    (check_training_operations, lambda n, d: n * d, "multiplication and an addition, and"),
    (check_training_operations, lambda n, d: 2 * n * d, "forward alone"),
    (check_training_operations, lambda n, d: 3 * n * d, "two operations, not one"),
    (check_training_operations, lambda n, d: 4 * n * d, "way back alone"),
    (check_training_operations, lambda n, d: 6 * n, "for one token"),
    (check_training_operations, lambda n, d: n + d, "it is otherwise"),
    (check_guidance, lambda g, f, w: f + w * (g - f), "mixes probabilities"),
    (check_guidance, lambda g, f, w: f ** (1 - w) * g**w, "sum to 1"),
    (
        check_guidance,
        lambda g, f, w: (1 - w) * np.log(f) + w * np.log(g),
        "logarithms still",
    ),
    (check_guidance, lambda g, f, w: guided(f, g, w), "exchanged"),
    (check_guidance, lambda g, f, w: rescaled(g**w * f), "weight is 1 - w"),
    (check_guidance, lambda g, f, w: g, "Mix log p"),
    (check_guidance, lambda g, f, w: guided(g, f, 2.0), "w = 1 should be"),
    (check_nucleus, short_nucleus, "Too few"),
    (check_nucleus, unscaled_nucleus, "sum to 1 again"),
    (check_nucleus, lambda p, top_p: np.where(p > top_p, p, 0), "sum counts"),
    (check_nucleus, lambda p, top_p: p, "sort by probability"),
    (check_wrong_evaluations, lambda evaluate: True, "counts padding passes"),
    (check_wrong_evaluations, lambda evaluate: False, "rejects a correct evaluation"),
    (
        check_wrong_evaluations,
        lambda evaluate: evaluate([RAGGED]) == 4,
        "rejects a correct evaluation",
    ),
    (check_wrong_evaluations, lambda evaluate: evaluate([EVEN]) == 4, "counts padding passes"),
    (check_wrong_evaluations, lambda evaluate: evaluate([PADDED]) == 4, "mean of batch means"),
    (check_wrong_evaluations, lambda evaluate: evaluate([RAGGED]) == 3, "mean of batch means"),
    (
        check_wrong_evaluations,
        lambda evaluate: (
            evaluate([PADDED]) == 4 and evaluate([EVEN, row_by_row(EVEN)[0]]) == 10 / 3
        ),
        "mean of row means",
    ),
    (check_wrong_evaluations, lambda evaluate: evaluate(3), "stopped with TypeError"),
]


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_a_wrong_answer_gets_a_line_about_its_mistake(check, answer, words, capsys):
    assert check(answer) is False
    assert words in capsys.readouterr().out


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
    (check_nearest_patch, "2", f"a string, {ONE_CENTRE}"),
    (check_nearest_patch, True, f"a bool, {ONE_CENTRE}"),
    (check_nearest_patch, np.array([2]), f"an array of shape (1,), {ONE_CENTRE}"),
    (check_nearest_patch, [2, 0], f"a list of 2, {ONE_CENTRE}"),
    (check_nearest_patch, second([0, 1], 2), f"a list of 2, {ONE_CENTRE}"),
    (check_labels, [2, 45], f"a list of 2, {NINE}"),
    (check_labels, [], f"a list of 0, {NINE}"),
    (check_labels, [1, [2, 3]], f"a list of 2, {NINE}"),
    (check_labels, ["2"] * 9, f"a list of 9, {NINE}"),
    (check_labels, [None] * 9, f"a list of 9, {NINE}"),
    (check_labels, "2 45 6", f"a string, {NINE}"),
    (check_labels, {2: 45}, f"a dict, {NINE}"),
    (check_labels, np.ndarray, f"a type, {NINE}"),
    (check_classifier_input, 5, f"an int, {TOKENS}"),
    (check_classifier_input, [1, 2], f"a list of 2, {TOKENS}"),
    (check_classifier_input, "<IMG> <CLS>", f"a string, {TOKENS}"),
    (check_classifier_input, second(5, SENTENCE), f"an int, {TOKENS}"),
    (check_perplexity, np.ones(3), f"an array of shape (3,), {NUMBER}"),
    (check_perplexity, "22.2", f"a string, {NUMBER}"),
    (check_perplexity, 2j, f"a complex, {NUMBER}"),
    (check_guidance, np.ones(2), f"an array of shape (2,), {THREE}"),
    (check_guidance, second("p", np.array([8, 2, 1]) / 11), f"a string, {THREE}"),
    (check_nucleus, np.ones((2, 5)), f"an array of shape (2, 5), {FIVE}"),
    (check_nucleus, 0.7, f"a float, {FIVE}"),
    (check_nucleus, "0.7", f"a string, {FIVE}"),
    (check_nucleus, ["0.7"] * 5, f"a list of 5, {FIVE}"),
    (check_nucleus, [0.6, [0.4]], f"a list of 2, {FIVE}"),
    (check_nucleus, second(np.ones(3), P), f"an array of shape (3,), {FIVE}"),
    (check_wrong_evaluations, 1, f"an int, {YES_NO}"),
    (check_wrong_evaluations, "True", f"a string, {YES_NO}"),
    (check_wrong_evaluations, np.array([True]), f"an array of shape (1,), {YES_NO}"),
    (check_wrong_evaluations, second(0, True), f"an int, {YES_NO}"),
]


@pytest.mark.parametrize("row_wise", [False, True])
def test_a_test_that_asks_together_and_apart_catches_every_wrong_evaluate(row_wise, capsys):
    apart = row_by_row(RAGGED) if row_wise else [RAGGED, row_by_row(RAGGED)[1]]
    mean = 3.0 if row_wise else 18 / 5
    assert check_wrong_evaluations(
        lambda evaluate: np.isclose(evaluate([RAGGED]), 3) and np.isclose(evaluate(apart), mean)
    )
    assert "✓ Right." in capsys.readouterr().out


@pytest.mark.parametrize(("check", "answer", "words"), UNFIT)
def test_an_answer_of_the_wrong_kind_gets_one_sentence(check, answer, words, capsys):
    function = (
        answer if callable(answer) and answer is not np.ndarray else lambda *arguments: answer
    )
    assert check(function) is False
    printed = capsys.readouterr().out
    assert (
        printed.startswith("✗ Not yet. That is ") and words in printed and printed.count("\n") == 1
    )


@pytest.mark.parametrize("answer", ["10.8", [10.8], np.ones(2), math.log, True])
def test_an_initial_loss_of_the_wrong_kind_gets_one_sentence(answer, capsys):
    assert check_initial_loss(answer, 516) is False
    printed = capsys.readouterr().out
    assert printed.startswith("✗ Not yet. That is a") and printed.endswith(f"{NUMBER}.\n")


def test_a_nucleus_that_drops_places_has_to_keep_them(capsys):
    assert check_nucleus(lambda p, top_p: np.array([0.6, 0.4])) is False
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
    [
        (check_nearest_patch, 2),
        (check_classifier_input, SENTENCE),
        (check_nucleus, P),
    ],
)
def test_so_does_one_at_the_second_question(check, right, capsys):
    assert check(failing_later(right)) is False
    printed = capsys.readouterr().out
    assert (
        "stopped with StopIteration" in printed and printed.count("✗") == printed.count("\n") == 1
    )


@pytest.mark.parametrize("check", CHECKS)
def test_a_function_without_return_hears_what_it_lacks(check, capsys):
    assert check(lambda *arguments: None) is False
    assert capsys.readouterr().out == (
        "✗ Not yet. Your function returns nothing: it needs a `return`.\n"
    )


@pytest.mark.parametrize(
    ("check", "first"),
    [(check_nearest_patch, 2), (check_nucleus, P), (check_classifier_input, SENTENCE)],
)
def test_so_does_one_that_returns_something_only_sometimes(check, first, capsys):
    assert check(second(None, first)) is False
    assert "it needs a `return`" in capsys.readouterr().out


@pytest.mark.parametrize("check", CHECKS)
def test_a_result_in_place_of_the_function_gets_a_line(check, capsys):
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
def test_a_wrong_initial_loss_gets_a_line_about_its_mistake(answer, words, capsys):
    assert check_initial_loss(answer, 516) is False
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("check", CHECKS)
def test_an_answer_not_given_yet_is_no_mistake(check, capsys):
    assert check(lambda *arguments: ...) is False
    printed = capsys.readouterr().out
    assert "Nothing to check yet" in printed and "✗" not in printed


def exact(only_a, only_b):
    return stats.binomtest(only_a, only_a + only_b, 0.5).pvalue


def test_the_exact_p_value_is_right(capsys):
    assert check_sign_test(exact) is True
    assert "✓" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "printed"),
    [
        (lambda a, b: exact(a, b) / 2, "one side only"),
        (lambda a, b: math.comb(a + b, a) / 2 ** (a + b), "just this outcome"),
        (lambda a, b: 2 * stats.binom.cdf(min(a, b) - 1, a + b, 0.5), "with k"),
        (lambda a, b: 1 - exact(a, b), "1 - p"),
        (lambda a, b: 2 * stats.norm.sf(abs(a - b) / math.sqrt(a + b)), "normal approximation"),
        (lambda a, b: exact(2, 7) if a <= b else 0.3, "exchanged"),
        (lambda a, b: 2 * stats.binom.cdf(min(a, b), a + b, 0.5), "cut it at 1"),
        (lambda a, b: 0.5, "not 0.5"),
        (lambda a, b: "small", "one number is wanted"),
    ],
)
def test_a_wrong_p_value_gets_a_line_about_its_mistake(answer, printed, capsys):
    assert check_sign_test(answer) is False
    assert printed in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "printed"),
    [
        (lambda t: list(t), "<CLS_3> names it"),
        (lambda t: [x for x in t if x != "<CLS_3>"], "stands in front"),
        (lambda t: [x for x in t if not x.startswith("<CLS")], "Keep it"),
        (lambda t: [x for x in t if not x.startswith(("<CLS_", "<EOS"))], "in its order"),
        (lambda t: [x for x in t if not x.startswith("<CLS_")], "✓"),
    ],
)
def test_a_removed_class_is_checked_in_both_layouts(answer, printed, capsys):
    assert check_class_removed(answer) is (printed == "✓")
    assert printed in capsys.readouterr().out


def stacked(weight, rows):
    return np.vstack([weight, rows])


@pytest.mark.parametrize(
    ("answer", "printed"),
    [
        (lambda w, n: np.vstack([np.tile(w.mean(0), (n, 1)), w]), "another id now"),
        (lambda w, n: np.hstack([w, np.tile(w.mean(1)[:, None], (1, n))]), "each vector longer"),
        (lambda w, n: w, "make 7 rows"),
        (lambda w, n: stacked(w * 0, np.tile(w.mean(0), (n, 1))), "what was learned is lost"),
        (lambda w, n: stacked(w, np.zeros((n, 3))), "the logit 0"),
        (lambda w, n: stacked(w, np.full((n, 3), w.mean())), "axis 0"),
        (lambda w, n: stacked(w, np.tile(w[-1], (n, 1))), "half of that token's"),
        (lambda w, n: stacked(w, np.ones((n, 3))), "random rows can have"),
        (lambda w, n: w.__imul__(2), "old matrix itself was changed"),
        (lambda w, n: "larger", "an array of numbers is wanted"),
        (lambda w, n: ..., "Nothing to check yet"),
        (lambda w, n: stacked(w, np.tile(w.mean(axis=0), (n, 1))), "✓"),
    ],
)
def test_an_embedding_with_new_rows_is_checked_row_by_row(answer, printed, capsys):
    assert check_larger_embedding(answer) is (printed == "✓")
    assert printed in capsys.readouterr().out


def exercises():
    """(notebook, module, call of the checker, solution) of every exercise in the notebooks."""
    found = []
    for path in sorted(NOTEBOOKS.rglob("[!.]*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        calls = [
            c.source for c in cells if c.cell_type == "code" and "exercises.check_" in c.source
        ]
        solutions = [c.source for c in cells if "<summary>Solution</summary>" in c.source]
        rooms = re.findall(r"from seqlm.exercises import (\w+) as exercises", "".join(calls))
        for call, solution in zip(calls, solutions, strict=True):
            answer = re.search(r"```python\n(.*?)```", solution, re.S)[1]
            found.append((path.stem, rooms[0], call, answer))
    return found


def test_every_notebook_has_an_exercise_with_a_solution():
    notebooks = {path.stem for path in NOTEBOOKS.rglob("[!.]*.ipynb")} - {"report"}
    assert {name for name, *_ in exercises()} == notebooks


@pytest.mark.parametrize(("name", "room", "call", "solution"), exercises())
def test_the_solution_in_the_notebook_passes_its_own_checker(name, room, call, solution, capsys):
    modules = {
        "gpt_by_hand": gpt_by_hand,
        "probabilities": probabilities,
        "tokens_and_codes": tokens_and_codes,
    }
    space = {"np": np, "torch": torch, "math": math, "exercises": modules[room]}
    exec(solution, space)
    exec("exercises.check_" + call.split("exercises.check_", 1)[1], space)
    assert "✓" in capsys.readouterr().out
