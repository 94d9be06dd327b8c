"""Metrics equal scikit-learn's and torchmetrics', and what is counted by hand."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from seqlm.errors import DataError
from seqlm.evaluation import classification, estimates
from seqlm.evaluation.classification import (
    calibration_error,
    class_nll,
    macro_f1,
    measure_classes,
    reliability,
)


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


# ---------------------------------------------------------------- calibration


# Eight guesses between two classes, all for class 0: the four surer ones are right half the time.
SURE = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6, 0.6, 0.6])
BY_HAND = np.stack([SURE, 1 - SURE], axis=1)
TRUTH = np.array([0, 0, 1, 1, 0, 0, 0, 1])
ASKING = [calibration_error, class_nll, reliability]


def calibrated(n, seed=0, sharpness=3.0):
    """Probabilities (n, 10), and labels that are drawn from these very probabilities."""
    rng = np.random.default_rng(seed)
    scores = np.exp(sharpness * rng.normal(size=(n, 10)))
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    return probabilities, (rng.random((n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)


def surer(probabilities):
    """The same guesses, claimed with far more certainty."""
    return probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)


def test_the_calibration_error_equals_a_sum_done_by_hand():
    # half of the images: 0.9 claimed, 0.5 right; the other half: 0.6 claimed, 0.75 right
    assert calibration_error(BY_HAND, TRUTH).value == pytest.approx(0.5 * 0.4 + 0.5 * 0.15)


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("change", [np.asarray, surer])
def test_the_calibration_error_equals_that_of_torchmetrics(bins, change):
    probabilities, labels = calibrated(500)
    probabilities = change(probabilities)
    theirs = MulticlassCalibrationError(10, n_bins=bins, norm="l1")
    theirs.update(torch.tensor(probabilities), torch.tensor(labels))
    found = calibration_error(probabilities, labels, bins)
    assert found.value == pytest.approx(float(theirs.compute()), abs=1e-6)
    assert (found.n, found.unit) == (500, "share")
    assert found.low <= found.value <= found.high


def test_a_model_that_is_as_sure_as_it_may_be_is_not_accused():
    """Chance alone gives it an error above 0; the interval says that 0 it may be."""
    found = [calibration_error(*calibrated(200, seed)) for seed in range(20)]
    assert min(one.value for one in found) > 0.02
    assert sum(one.low == 0 for one in found) >= 18


def test_a_model_that_is_too_sure_is_accused_and_by_how_much():
    probabilities, labels = calibrated(200_000, seed=1)
    bins = reliability(surer(probabilities), labels, bins=15)
    truth = sum(b["n"] * abs(b["accuracy"]["value"] - b["confidence"]) for b in bins) / 200_000
    found = []
    for seed in range(2, 12):
        probabilities, labels = calibrated(400, seed)
        found.append(calibration_error(surer(probabilities), labels))
    assert all(0 < one.low < one.value for one in found)
    assert sum(one.low < truth < one.high for one in found) >= 8


def test_many_images_are_resampled_part_by_part_with_the_same_result(monkeypatch):
    probabilities, labels = calibrated(100)
    whole = calibration_error(surer(probabilities), labels)
    for module in (classification, estimates):
        monkeypatch.setattr(module, "RESAMPLED_AT_ONCE", 100 * 64)
    parted = calibration_error(surer(probabilities), labels)
    assert parted.low == pytest.approx(whole.low, abs=0.01)
    assert parted.high == pytest.approx(whole.high, abs=0.01)


def test_one_image_gives_no_interval():
    assert not calibration_error(BY_HAND[:1], TRUTH[:1]).has_interval


def test_reliability_tells_of_each_bin_what_was_claimed_and_what_came():
    least, surest = reliability(BY_HAND, TRUTH, bins=2)
    assert (least["n"], surest["n"]) == (4, 4)
    assert (least["confidence"], surest["confidence"]) == (pytest.approx(0.6), pytest.approx(0.9))
    assert (least["accuracy"]["value"], surest["accuracy"]["value"]) == (0.75, 0.5)
    assert least["accuracy"]["n"] == 4 and least["accuracy"]["low"] < 0.75


def test_the_bins_of_the_diagram_hold_as_many_images_each_from_the_least_confident_up():
    probabilities, labels = calibrated(304)
    found = reliability(surer(probabilities), labels)
    assert [one["n"] for one in found] == [31] * 4 + [30] * 6
    confidence = [one["confidence"] for one in found]
    assert confidence == sorted(confidence)
    assert len(reliability(probabilities[:3], labels[:3])) == 3


@pytest.mark.parametrize(("sure", "low"), [(1.0, 0.9), (0.8, 0.7), (0.3, 0.2), (0.81, 0.8)])
def test_a_bin_of_the_calibration_error_holds_its_upper_edge_and_not_its_lower(sure, low):
    """One right and one wrong image add up in one bin, and not in two."""
    for other, together in ((low + 0.05, True), (low - 0.05, False)):
        rows = [np.append(np.full(9, (1 - top) / 9), top) for top in (sure, other)]
        error = calibration_error(np.array(rows), [9, 0]).value
        parts = (1 - sure) / 2, other / 2
        expected = abs(parts[1] - parts[0]) if together else sum(parts)
        assert error == pytest.approx(expected)


def test_class_nll_equals_scikit_learns_log_loss():
    probabilities, labels = calibrated(300)
    found = class_nll(probabilities, labels)
    assert found.value == pytest.approx(log_loss(labels, probabilities, labels=range(10)))
    assert found.low < found.value < found.high
    assert (found.n, found.unit) == (300, "nats per image")
    assert class_nll(surer(probabilities), labels).low > found.high, "claiming too much must cost"


def test_class_nll_stays_a_number_where_the_truth_was_held_impossible():
    assert class_nll([[1.0, 0.0], [1.0, 0.0]], [0, 1]).value == pytest.approx(-np.log(1e-300) / 2)


@pytest.mark.parametrize("measure", ASKING)
@pytest.mark.parametrize(
    ("probabilities", "labels", "said"),
    [
        (np.zeros((0, 2)), [], "at least one"),
        (BY_HAND, TRUTH[:3], "one row of class probabilities for each label"),
        (SURE, TRUTH, "one row of class probabilities for each label"),
        (BY_HAND, TRUTH + 1, "counted from 0"),
        (BY_HAND, TRUTH - 1, "counted from 0"),
        (np.log(BY_HAND), TRUTH, "sum to 1"),
        (BY_HAND * np.nan, TRUTH, "sum to 1"),
        (BY_HAND * [[2.0, -4.0]] + [[-0.6, 2.2]], TRUTH, "between 0 and 1|sum to 1"),
    ],
)
def test_what_are_no_probabilities_of_these_labels_is_refused(measure, probabilities, labels, said):
    with pytest.raises(DataError, match=said):
        measure(probabilities, np.asarray(labels, dtype=int))
