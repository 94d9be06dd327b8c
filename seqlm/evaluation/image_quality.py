"""Are drawings right, real-looking, varied, and not just remembered? Asked of judges that can err.

Every distance between pictures here is Euclidean, over pixels in 0..1.
"""

import numpy as np
from scipy import stats
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin_min
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from seqlm.errors import DataError
from seqlm.evaluation.classical import fit_classical_models
from seqlm.evaluation.estimates import CONFIDENCE, ENDS, RESAMPLES, Estimate, proportion

FOLDS = 5
FEWEST_TO_RESAMPLE = 5  # images of a class; of fewer a resample is too often one image alone
NEAR = 0.05  # share of training images whose nearest fellow counts as near
ROUNDING = 1e-6  # the same distance taken twice differs in its last digits


def train_digit_classifier(images: np.ndarray, labels: np.ndarray) -> ClassifierMixin:
    """The SVM on pixels that says which digit a drawing shows: ``.predict(images)`` -> (N,).

    Fit it on the original training images alone, not on copies and not on drawings. It errs, too:
    whoever quotes its verdicts states its error on test images beside them.
    """
    return fit_classical_models(images, labels)["svm"]


def real_vs_generated_auc(real: np.ndarray, drawn: np.ndarray, seed: int = 42) -> Estimate:
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
    low, high = np.quantile(areas, ENDS)
    return Estimate(float(wins.mean()), float(low), float(high), len(pictures), "area")


def nearest_training(images: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `images` (N, H, W) the nearest training image: its number and its distance.

    A copy lies at 0. Two arrays (N,).
    """
    return pairwise_distances_argmin_min(_flat(images), _flat(training))


def _flat(images: np.ndarray) -> np.ndarray:
    """(N, H, W) -> (N, H * W) float64; in float32 a copy would not lie at 0."""
    return np.asarray(images, dtype=np.float64).reshape(len(images), -1)


def diversity(images: np.ndarray, labels: np.ndarray) -> Estimate:
    """How much pictures of one class differ among themselves: their mean distance.

    Within class c, over all pairs of its n_c images: 2 / (n_c (n_c - 1)) * sum of d(x_i, x_j),
    i < j, which does not depend on how many images there are (a U-statistic: W. Hoeffding, A Class
    of Statistics with Asymptotically Normal Distribution, Annals of Mathematical Statistics 19,
    1948). Then the plain mean over classes; n is the number of images. The interval resamples
    images within each class, and of a resample counts only pairs of different images: an image
    drawn twice is no pair without a difference.

    The yardstick is the same number for real images through the same code book. A drawing of the
    wrong digit is far from its fellows, too, so read this beside the share that is judged right.

    Raises DataError when a class has a single image, or `labels` (N,) does not match `images`.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if len(images) != len(labels) or not len(labels):
        raise DataError(f"{len(images)} pictures but {len(labels)} labels; give one for each")
    rng = np.random.default_rng(0)
    found = [_mean_distance(images[labels == label], rng) for label in np.unique(labels)]
    means, resampled = zip(*found, strict=True)
    low, high = float("-inf"), float("inf")
    if np.unique(labels, return_counts=True)[1].min() >= FEWEST_TO_RESAMPLE:
        low, high = np.nanquantile(np.mean(resampled, axis=0), ENDS)
    return Estimate(float(np.mean(means)), float(low), float(high), len(labels), "distance")


def _mean_distance(images: np.ndarray, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Of one class: the mean distance of a pair, and the same in each resample (RESAMPLES,)."""
    n = len(images)
    if n < 2:
        raise DataError("how much pictures of a class differ needs at least two of each class")
    distances = pairwise_distances(_flat(images))  # (n, n), zero on the diagonal
    times = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)  # how often each image is taken
    pairs = n**2 - (times**2).sum(axis=1)  # of different images; none if one fills the resample
    with np.errstate(invalid="ignore"):
        resampled = ((times @ distances) * times).sum(axis=1) / pairs
    return distances.sum() / (n * (n - 1)), resampled


def near_copies(
    images: np.ndarray, training: np.ndarray, real: np.ndarray, copies: np.ndarray | None = None
) -> dict:
    """Do drawings lie nearer to what was learned than real pictures that were never learned?

    A near copy lies no farther from its nearest learned picture than the threshold: the distance
    within which 5 % of the training images have their nearest fellow (each left out in turn). So
    the threshold is fixed before any drawing is looked at.

    Args:
        images: the drawings (N, H, W).
        training: the training images, which set the threshold.
        real: held-out images, through the code book like all the others: a picture of typical
            patches is nearer to another such picture than to one straight from the pen.
        copies: what else was learned, such as augmented images; searched, but not for the threshold.

    Returns, ready for a metrics file: the threshold, the share of near copies among drawings
    ("drawn") and among held-out images ("real") with Wilson's intervals, their "difference" with
    Newcombe's, the two-sided "p" of Fisher's exact test, and the "verdict": "more" or "fewer" than
    real images show, or "no difference shown", which is no proof that there is none: the upper end
    of the difference says how many more there may be. Nor is "fewer" praise: bad drawings lie
    far from everything.

    Raises DataError when there are fewer than two training images.
    """
    if len(training) < 2:
        raise DataError("near copies need at least two training images to say what is near")
    fellows = NearestNeighbors(n_neighbors=1).fit(_flat(training)).kneighbors()[0]  # left out
    threshold = float(np.quantile(fellows, NEAR))
    learned = training if copies is None else np.concatenate([training, copies])
    near = [nearest_training(seen, learned)[1] <= threshold + ROUNDING for seen in (images, real)]
    drawn, held_out = (proportion(hits) for hits in near)
    difference = _difference(drawn, held_out)
    p = float(stats.fisher_exact([[hits.sum(), (~hits).sum()] for hits in near]).pvalue)
    verdict = "no difference shown"
    if p < 1 - CONFIDENCE:
        verdict = "more" if difference.value > 0 else "fewer"
    shares = {"drawn": drawn, "real": held_out, "difference": difference}
    told = {name: share.to_json() for name, share in shares.items()}
    return {"threshold": threshold, **told, "p": p, "verdict": verdict}


def _difference(one: Estimate, other: Estimate) -> Estimate:
    """One share less another of other pictures, from their Wilson intervals.

    Source: R. G. Newcombe, Interval Estimation for the Difference between Independent Proportions,
    Statistics in Medicine 17 (1998), method 10.
    """
    value = one.value - other.value
    low = value - np.hypot(one.value - one.low, other.high - other.value)
    high = value + np.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, float(low), float(high), one.n + other.n, "share")
