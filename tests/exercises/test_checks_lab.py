"""The laboratory's checkers: right answers pass, wrong ones are told which misconception it is."""

import math

import numpy as np
import pytest
from scipy import stats

from seqlm.exercises import checks_lab


def exact(only_a, only_b):
    return stats.binomtest(only_a, only_a + only_b, 0.5).pvalue


def test_the_exact_p_value_is_right(capsys):
    assert checks_lab.sign_test(exact) is True
    assert "✓" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "said"),
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
def test_a_wrong_p_value_is_told_its_misconception(answer, said, capsys):
    assert checks_lab.sign_test(answer) is False
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda t: list(t), "<CLS_3> names it"),
        (lambda t: [x for x in t if x != "<CLS_3>"], "stands in front"),
        (lambda t: [x for x in t if not x.startswith("<CLS")], "Keep it"),
        (lambda t: [x for x in t if not x.startswith(("<CLS_", "<EOS"))], "in its order"),
        (lambda t: [x for x in t if not x.startswith("<CLS_")], "✓"),
    ],
)
def test_taking_the_class_out_is_judged_in_both_layouts(answer, said, capsys):
    assert checks_lab.without_class(answer) is (said == "✓")
    assert said in capsys.readouterr().out


def stacked(weight, rows):
    return np.vstack([weight, rows])


@pytest.mark.parametrize(
    ("answer", "said"),
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
def test_a_grown_embedding_is_told_from_what_only_looks_like_one(answer, said, capsys):
    assert checks_lab.grown_embedding(answer) is (said == "✓")
    assert said in capsys.readouterr().out
