"""Metrics equal scikit-learn's."""

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from seqlm.errors import DataError
from seqlm.evaluation.calibration import calibration_error, class_nll, reliability
from seqlm.evaluation.classification import macro_f1, measure_classes


def labels_and_guesses(n=200, n_classes=10):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, n_classes, n)
    return labels, np.where(rng.random(n) < 0.8, labels, rng.integers(0, 10, n))


@pytest.mark.parametrize("n_classes", [10, 7])  # with 7, three are guessed that are never true
def test_macro_f1_equals_scikit_learns(n_classes):
    labels, guesses = labels_and_guesses(n_classes=n_classes)
    found = macro_f1(labels, guesses)
    theirs = f1_score(labels, guesses, average="macro", labels=np.unique(labels), zero_division=0)
    assert found.value == pytest.approx(theirs, abs=1e-12)
    assert found.low < found.value < found.high and found.n == 200


def test_the_bootstrap_of_macro_f1_resamples_label_and_guess_together():
    """Apart, the guesses would be noise, and the interval would lie near chance."""
    labels, guesses = labels_and_guesses()
    found = macro_f1(labels, guesses)
    assert found.low > 0.7 and found.high < 0.95


def test_macro_f1_of_nothing_is_refused():
    with pytest.raises(DataError, match="F1 needs"):
        macro_f1(np.array([]), np.array([]))


def test_measure_classes_equals_scikit_learns_confusion_and_recall():
    labels, guesses = labels_and_guesses()
    measured = measure_classes(labels, guesses)
    theirs = confusion_matrix(labels, guesses, labels=range(10))
    np.testing.assert_array_equal(measured["confusion"], theirs)
    assert not np.array_equal(theirs, theirs.T), "a symmetric matrix cannot tell rows from columns"
    assert measured["accuracy"]["value"] == pytest.approx(np.mean(labels == guesses))
    for k in range(10):
        assert measured["recall"][str(k)]["value"] == pytest.approx(theirs[k, k] / theirs[k].sum())
        assert measured["recall"][str(k)]["n"] == theirs[k].sum()


def probabilities_of(guesses, n_classes=10):
    """Class probabilities whose likeliest class is the guess, more or less surely."""
    rng = np.random.default_rng(7)
    scores = rng.random((len(guesses), n_classes))
    scores[np.arange(len(guesses)), guesses] = 1 + 5 * rng.random(len(guesses))
    return scores / scores.sum(axis=1, keepdims=True)


def test_with_probabilities_classes_are_measured_for_their_sureness_too():
    labels, guesses = labels_and_guesses()
    plain = measure_classes(labels, guesses)
    assert set(plain) == {"accuracy", "macro_f1", "recall", "confusion"}
    probabilities = probabilities_of(guesses)
    found = measure_classes(labels, guesses, probabilities=probabilities)
    assert {name: found[name] for name in plain} == plain
    assert found["calibration_error"] == calibration_error(probabilities, labels).to_json()
    assert found["nll"] == class_nll(probabilities, labels).to_json()
    assert found["reliability"] == reliability(probabilities, labels)
    assert json.loads(json.dumps(found)) == found


def test_guesses_that_the_probabilities_do_not_make_are_refused():
    labels, guesses = labels_and_guesses()
    probabilities = probabilities_of(guesses)
    other = guesses.copy()
    other[0] = (other[0] + 1) % 10
    with pytest.raises(DataError, match="not the likeliest"):
        measure_classes(labels, other, probabilities=probabilities)
    even = np.full((200, 10), 0.1)  # every guess is a likeliest one
    assert measure_classes(labels, guesses, probabilities=even)["nll"]["value"] == pytest.approx(
        np.log(10)
    )
