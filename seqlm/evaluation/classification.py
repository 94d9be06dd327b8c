"""Metrics of classifiers."""

import numpy as np

from seqlm.errors import DataError
from seqlm.evaluation.calibration import calibration_error, class_nll, reliability
from seqlm.evaluation.estimates import Estimate, bootstrap, proportion

MAX_CONFUSION = 100  # classes; of 1,000 a metrics file would take 12 MB


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> Estimate:
    """The mean over classes of 2PR / (P + R), each class counting alike; bootstrap over images.

    The classes are those of `labels`: one that is only predicted has no recall, and costs precision
    elsewhere. (scikit-learn's default counts it, too, as 0.)
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if not len(labels):
        raise DataError("macro F1 needs at least one image")
    classes = np.unique(labels)

    def statistic(truth, guess, axis=-1):
        scores = []
        for k in classes:
            both = ((truth == k) & (guess == k)).sum(axis=axis)
            either = (truth == k).sum(axis=axis) + (guess == k).sum(axis=axis)
            scores.append(2 * both / np.maximum(either, 1))  # 2PR / (P + R), and 0 for 0 / 0
        return np.mean(scores, axis=0)

    return bootstrap(statistic, (labels, predicted), "F1")


def measure_classes(
    labels: np.ndarray,
    predicted: np.ndarray,
    n_classes: int = 10,
    probabilities: np.ndarray | None = None,
) -> dict:
    """Accuracy, macro F1, recall of every class; of up to MAX_CONFUSION classes also the confusion
    matrix [true][predicted] of counts.

    With `probabilities` (N, C) also "calibration_error", "nll" and "reliability"; each `predicted`
    class must then be the likeliest, or one of several equally likely, else DataError.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    confusion = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    recalls = {str(k): proportion(predicted[labels == k] == k).to_json() for k in np.unique(labels)}
    measured = {
        "accuracy": proportion(labels == predicted).to_json(),
        "macro_f1": macro_f1(labels, predicted).to_json(),
        "recall": recalls,
    }
    if n_classes <= MAX_CONFUSION:
        measured["confusion"] = confusion.tolist()
    if probabilities is None:
        return measured
    measured |= {
        "calibration_error": calibration_error(probabilities, labels).to_json(),
        "nll": class_nll(probabilities, labels).to_json(),
        "reliability": reliability(probabilities, labels),
    }
    of_guess = np.take_along_axis(np.asarray(probabilities), predicted[:, None], axis=1)[:, 0]
    if (of_guess < np.max(probabilities, axis=1)).any():
        raise DataError(
            "some predicted classes are not the likeliest by their probabilities; give the "
            "probabilities that the predictions were made from"
        )
    return measured
