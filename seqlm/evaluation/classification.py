"""Numbers about classes: how often a guess is right, and whether it was right to be so sure."""

import numpy as np

from seqlm.errors import DataError
from seqlm.evaluation.calibration import calibration_error, class_nll, reliability
from seqlm.evaluation.estimates import Estimate, bootstrap_interval, proportion


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> Estimate:
    """The mean over classes of 2PR / (P + R), each class counting alike; bootstrap over images."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if not len(labels):
        raise DataError("macro F1 of nothing is not a number: no cases were given")
    classes = np.unique(labels)

    def statistic(truth, guess, axis=-1):
        scores = []
        for k in classes:
            true, guessed = truth == k, guess == k
            both = (true & guessed).sum(axis=axis)
            either = true.sum(axis=axis) + guessed.sum(axis=axis)
            scores.append(2 * both / np.maximum(either, 1))  # 2PR / (P + R), and 0 for 0 / 0
        return np.mean(scores, axis=0)

    low, high = bootstrap_interval(statistic, (labels, predicted))
    return Estimate(float(statistic(labels, predicted)), low, high, len(labels), "F1")


def measure_classes(
    labels: np.ndarray,
    predicted: np.ndarray,
    n_classes: int = 10,
    probabilities: np.ndarray | None = None,
) -> dict:
    """Accuracy, macro F1, recall of every class, confusion matrix [true][predicted] of counts.

    With `probabilities` (N, C) also "calibration_error", "nll" and "reliability"; each `predicted`
    class must then be the likeliest, or one of several equally likely. Raises DataError when it is
    not, for the numbers would speak of two different guesses.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    confusion = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    recalls = {str(k): proportion(predicted[labels == k] == k).to_json() for k in np.unique(labels)}
    measured = {
        "accuracy": proportion(labels == predicted).to_json(),
        "macro_f1": macro_f1(labels, predicted).to_json(),
        "recall": recalls,
        "confusion": confusion.tolist(),
    }
    return (
        measured
        if probabilities is None
        else measured | _sureness(labels, predicted, probabilities)
    )


def _sureness(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict:
    found = {
        "calibration_error": calibration_error(probabilities, labels).to_json(),
        "nll": class_nll(probabilities, labels).to_json(),
        "reliability": reliability(probabilities, labels),
    }
    probabilities = np.asarray(probabilities)
    of_guess = np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0]
    if (of_guess < probabilities.max(axis=1)).any():
        raise DataError(
            "some predicted classes are not the likeliest by the probabilities given with them; "
            "give the probabilities that the predictions were made from"
        )
    return found
