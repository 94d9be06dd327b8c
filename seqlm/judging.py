"""Are drawings right, real-looking, and not just remembered? Asked of judges that can be wrong."""

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from seqlm.errors import DataError
from seqlm.metrics import CONFIDENCE, RESAMPLES, Estimate
from seqlm.rivals import fit_class_rivals

FOLDS = 5


def pixel_judge(images: np.ndarray, labels: np.ndarray) -> ClassifierMixin:
    """The SVM on pixels that says which digit a drawing shows: ``.predict(images)`` -> (N,).

    Fit it on the original training images alone, not on copies and not on drawings. It errs, too:
    whoever quotes its verdicts states its error on test images beside them.
    """
    return fit_class_rivals(images, labels)["svm"]


def real_versus_drawn(real: np.ndarray, drawn: np.ndarray, seed: int = 42) -> Estimate:
    """How well a random forest tells drawings from real pictures: area under the ROC curve.

    0.5: it cannot; 1: it always can. Each picture is judged by a forest that did not see it (five
    folds). Give `real` through the same code book as `drawn`, both (N, H, W), else the forest
    learns to see the code book and not the model. A classifier two-sample test: D. Lopez-Paz and
    M. Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017. The interval resamples the
    pictures of either side, the forests kept.

    Raises DataError when either side has fewer pictures than folds.
    """
    if min(len(real), len(drawn)) < FOLDS:
        raise DataError(f"telling real from drawn needs at least {FOLDS} pictures of each")
    pictures = np.concatenate([real, drawn]).reshape(len(real) + len(drawn), -1)
    is_drawn = np.repeat([0, 1], [len(real), len(drawn)])
    forest = RandomForestClassifier(300, random_state=seed, n_jobs=1)
    # Shuffled: drawings come sorted by class, and a forest that was never shown a drawn 8 takes
    # every drawn 8 for real.
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(forest, pictures, is_drawn, cv=folds, method="predict_proba")[:, 1]
    of_real, of_drawn = scores[: len(real)], scores[len(real) :]
    wins = (of_drawn > of_real[:, None]) + 0.5 * (of_drawn == of_real[:, None])  # (real, drawn)
    rng = np.random.default_rng(seed)
    # How often each picture is taken in each resample, so that a resample is a weighted mean.
    rows, columns = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in wins.shape)
    areas = ((rows @ wins) * columns).sum(axis=1)  # (RESAMPLES,)
    low, high = np.quantile(areas, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(wins.mean()), float(low), float(high), len(pictures), "area")


def nearest_training(images: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `images` (N, H, W) the nearest training image: its number and its distance.

    Euclidean distance over pixels in 0..1. A copy lies at 0. Two arrays (N,).
    """
    flat, known = images.reshape(len(images), -1), training.reshape(len(training), -1)
    return pairwise_distances_argmin_min(flat, known)
