"""Metrics of classifiers, and how well their probabilities agree with their accuracy."""

from dataclasses import replace

import numpy as np
from scipy import stats
from sklearn.metrics import confusion_matrix

from seqlm.errors import DataError
from seqlm.evaluation.estimates import (
    ENDS,
    RESAMPLED_AT_ONCE,
    RESAMPLES,
    Estimate,
    bootstrap,
    proportion,
)
from seqlm.evaluation.scores import LEAST

BINS = 10  # of equal width for the calibration error, of equal counts in the diagram
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
    recalls = {str(k): proportion(predicted[labels == k] == k).to_json() for k in np.unique(labels)}
    measured = {
        "accuracy": proportion(labels == predicted).to_json(),
        "macro_f1": macro_f1(labels, predicted).to_json(),
        "recall": recalls,
    }
    if n_classes <= MAX_CONFUSION:
        counts = confusion_matrix(labels, predicted, labels=range(n_classes))
        measured["confusion"] = counts.tolist()
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


def class_nll(probabilities: np.ndarray, labels: np.ndarray) -> Estimate:
    """-(1/N) sum of ln p(true class), in nats per image; bootstrap over images.

    No probability counts as less than 1e-300. Source: I. J. Good, Rational Decisions, J. R.
    Statist. Soc. B 14 (1952). Arguments and errors as in `calibration_error`.
    """
    probabilities, labels = _checked(probabilities, labels)
    of_label = probabilities[np.arange(len(labels)), labels]
    return bootstrap(np.mean, (-np.log(np.maximum(of_label, LEAST)),), "nats per image")


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Estimate:
    """Expected calibration error: how far confidence and accuracy of the top guess differ.

    sum over bins of n_b/N*|accuracy_b - mean confidence_b|, the bins of equal width.
    `probabilities` (N, C), `labels` (N,). Source: C. Guo et al., On Calibration of Modern Neural
    Networks, ICML 2017.

    Chance and resampling both drive it up, so the bootstrap over images is mirrored at the value
    (basic bootstrap: A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application,
    1997, ch. 5), and the lower end is 0 where a perfectly calibrated model would show as large an
    error (consistency resampling: J. Bröcker and L. A. Smith, Weather and Forecasting 22, 2007).

    Raises DataError when there are no images, labels do not fit, or rows do not sum to 1.
    """
    confidence, right, bin_of = _binned(probabilities, labels, bins)
    rng = np.random.default_rng(0)

    def error(gaps, bin_of=bin_of, axis=-1):
        in_bins = (np.where(bin_of == b, gaps, 0).sum(axis=axis) for b in range(bins))
        return sum(map(np.abs, in_bins)) / gaps.shape[axis]

    estimate = bootstrap(error, (right - confidence, bin_of), "share", "basic")
    if not estimate.has_interval:
        return estimate
    by_chance = stats.monte_carlo_test(
        right - confidence,
        lambda size: (rng.random(size) < confidence) - confidence,  # perfectly calibrated
        error,
        n_resamples=RESAMPLES,
        batch=max(1, RESAMPLED_AT_ONCE // len(right)),
        alternative="greater",
    )
    low = 0.0 if by_chance.pvalue > ENDS[0] else max(estimate.low, 0.0)
    return replace(estimate, low=low, high=min(max(estimate.high, estimate.value), 1.0))


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> list[dict]:
    """The reliability diagram: confidence and accuracy in bins of as many images each.

    From the least confident up, each is {"n", "confidence", "accuracy"}: a mean, and an Estimate as
    JSON. Bins of equal width would put nearly all images of a confident classifier into one.
    Arguments and errors as in `calibration_error`.
    """
    confidence, right, _ = _binned(probabilities, labels, bins)
    order = np.argsort(confidence, kind="stable")
    return [
        {
            "n": len(part),
            "confidence": float(confidence[part].mean()),
            "accuracy": proportion(right[part]).to_json(),
        }
        for part in np.array_split(order, min(bins, len(order)))
    ]


def _binned(
    probabilities: np.ndarray, labels: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence of the top guess, whether it is right, and its bin (low, high]; each (N,)."""
    probabilities, labels = _checked(probabilities, labels)
    confidence = probabilities.max(axis=1)
    return (
        np.minimum(confidence, 1.0),  # a sum in float32 may end just above
        probabilities.argmax(axis=1) == labels,
        np.digitize(confidence, np.arange(1, bins) / bins, right=True),
    )


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = np.asarray(probabilities, dtype=float), np.asarray(labels)
    if probabilities.ndim != 2 or not len(labels) or len(labels) != len(probabilities):
        raise DataError(
            f"probabilities of shape {probabilities.shape} and {len(labels)} labels cannot be "
            "compared; give one row of class probabilities for each label, and at least one"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, but there are probabilities of "
            f"{probabilities.shape[1]} classes, counted from 0"
        )
    if not (np.abs(probabilities.sum(axis=1) - 1) < 1e-3).all() or probabilities.min() < 0:
        raise DataError("class probabilities must lie between 0 and 1 and sum to 1 in every row")
    return probabilities, labels
