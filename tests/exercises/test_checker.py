"""The exercises' checkers: right answers pass, wrong ones get one line about the mistake."""

from collections import Counter

import numpy as np
import pytest
import torch
from exercise_answers import RIGHT, WRONG

from seqlm.exercises import gpt_by_hand, measuring, probabilities, tokens_and_codes

ROOMS = (tokens_and_codes, gpt_by_hand, probabilities, measuring)
CHECKS = [check for room in ROOMS for check in vars(room).values() if hasattr(check, "cases")]
CHECK = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


def cases_of(check, seed):
    with np.errstate(all="ignore"):
        return [*check.cases(np.random.default_rng(seed))]


def replies(answers):
    """A function that returns one of `answers` after the other, whatever it is asked."""
    left = iter(answers)
    return lambda *arguments: next(left)


@CHECK
def test_each_has_a_right_answer_and_four_wrong_ones_here(check):
    assert Counter(check for check, _ in RIGHT)[check] >= 1
    assert Counter(check for check, *_ in WRONG)[check] >= 4


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_a_right_answer_passes_however_it_is_written(check, answer, capsys):
    for seed in range(5):
        assert check(answer, seed) is True
        assert capsys.readouterr().out.startswith("✓ Right. ")


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_a_wrong_answer_gets_one_line_about_its_mistake(check, answer, words, capsys):
    for seed in range(3):
        assert check(answer, seed) is False
        printed = capsys.readouterr().out
        assert printed.startswith(("✗ Not yet. ", "… The bug is still there"))
        assert words in printed and printed.count("\n") == 1


@CHECK
def test_no_known_mistake_passes_and_none_is_taken_for_another(check, capsys):
    for seed in range(5):
        cases = cases_of(check, seed)
        for line in {line for _, _, mistakes in cases for line in mistakes}:
            given = [(want, mistakes.get(line)) for _, want, mistakes in cases]
            answers = [want if value is None else value for want, value in given]
            assert check(replies(answers), seed) is False
            assert line in capsys.readouterr().out


@CHECK
def test_the_answer_to_one_question_is_not_enough(check, capsys):
    cases = cases_of(check, 0)
    assert len(cases) >= 2 and check(replies([cases[0][1]] * len(cases))) is False


@CHECK
def test_it_asks_other_questions_with_other_numbers(check):
    if check is not measuring.check_wrong_evaluations:  # there the learner makes up the numbers
        assert repr(cases_of(check, 0)) == repr(cases_of(check, 0)) or check.__name__ in (
            "check_block",
            "check_completion",
            "check_training_step",  # functions among the arguments: no two are one
        )
        assert repr(cases_of(check, 0)) != repr(cases_of(check, 1))


@CHECK
def test_a_function_without_return_hears_what_it_lacks(check, capsys):
    cases = cases_of(check, 0)
    for answers in ([None], [cases[0][1], None]):
        assert check(replies(answers)) is False
        out = capsys.readouterr().out
        assert out == "✗ Not yet. Your function returns nothing: it needs a `return`.\n"


@CHECK
def test_an_exception_ends_the_check_with_one_line(check, capsys):
    for answers in ([], [cases_of(check, 0)[0][1]]):
        assert check(replies(answers)) is False
        assert capsys.readouterr().out.startswith("✗ Not yet. Your function stopped with StopIt")


def test_of_an_error_in_many_lines_only_the_first_is_shown(capsys):
    assert not probabilities.check_temperature(lambda *arguments: torch.ones(3).any(axis="none"))
    out = capsys.readouterr().out
    assert (
        out.startswith("✗ Not yet. Your function stopped with TypeError") and out.count("\n") == 1
    )


@CHECK
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1, 2], "That is a list of 2, where a function is wanted."),
        (None, "That is None, where a function is wanted."),
        (10.8, "That is one number, where a function is wanted."),
        (True, "That is True, where a function is wanted."),
    ],
)
def test_a_result_in_place_of_the_function_gets_a_line(check, answer, words, capsys):
    assert check(answer) is False
    assert capsys.readouterr().out == f"✗ Not yet. {words}\n"


@CHECK
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("0.7", "a string"),
        (2j, "a complex"),
        ({2: 45}, "a dict"),
        ([1, [2, 3]], "a list of 2"),
        (["2", None], "a list of 2"),
        (np.ones((2, 1, 2)), "an array of shape (2, 1, 2)"),
        (np.ndarray, "a type"),
        (torch.ones(2, 1, dtype=torch.bfloat16), "a Tensor of shape (2, 1)"),
        ([torch.ones(1, requires_grad=True)], "a list of 1"),
    ],
)
def test_an_answer_of_another_kind_gets_one_line(check, answer, words, capsys):
    assert check(lambda *arguments: answer) is False
    out = capsys.readouterr().out
    assert out.startswith(f"✗ Not yet. That is {words}, where ") and out.count("\n") == 1


@CHECK
def test_a_blank_that_is_still_there_is_no_mistake(check, capsys):
    for blank in (..., lambda *arguments: ..., lambda *arguments: 1 - ...):
        assert check(blank) is False
        printed = capsys.readouterr().out
        assert printed.startswith("… Nothing to check yet") and printed.count("\n") == 1


def test_a_blank_inside_torch_is_no_mistake(capsys):
    assert not gpt_by_hand.check_head(lambda q, k, v: torch.softmax(..., dim=...) @ ...)
    assert "Nothing to check yet" in capsys.readouterr().out


def test_a_check_leaves_the_random_state_alone(capsys):
    before, numpys = torch.get_rng_state(), repr(np.random.get_state())
    for check, answer in RIGHT:
        check(answer)
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(np.random.get_state()) == numpys
