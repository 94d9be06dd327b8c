"""Quality of generated images: requested class, likeness to real images, diversity, near copies.

Every distance between images here is Euclidean, over pixels in 0..1.
"""

import numpy as np
from scipy import stats
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin_min
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from seqlm.errors import DataError
from seqlm.evaluation.classical import fit_classical_models, flatten
from seqlm.evaluation.estimates import CONFIDENCE, ENDS, RESAMPLES, UNKNOWN, Estimate, proportion

FOLDS = 5
ROUNDING = 1e-6  # the same distance computed twice differs in its last digits
FEWEST_TO_RESAMPLE = 5  # images of a class; of fewer a resample is too often one image alone
NEAR = 0.05  # share of training images whose nearest neighbour counts as near


def train_digit_classifier(images: np.ndarray, labels: np.ndarray) -> ClassifierMixin:
    """The SVM on pixels that classifies generated digits; train it on original images alone."""
    return fit_classical_models(images, labels)["svm"]


def real_vs_generated_auc(real: np.ndarray, generated: np.ndarray, seed: int = 42) -> Estimate:
    """How well a random forest distinguishes generated images from real ones: ROC AUC.

    0.5: not at all; 1: always. Cross-validated over five folds. Give `real` through the same
    codebook as `generated`, both (N, H, W). Source: D. Lopez-Paz and M. Oquab, Revisiting
    Classifier Two-Sample Tests, ICLR 2017. The interval resamples the images of either side, with
    the forests kept. Raises DataError when either has fewer than five.
    """
    if min(len(real), len(generated)) < FOLDS:
        raise DataError(f"the real-vs-generated AUC needs at least {FOLDS} images of each")
    images = flatten(np.concatenate([real, generated]))
    is_generated = np.repeat([0, 1], [len(real), len(generated)])
    forest = RandomForestClassifier(300, random_state=seed, n_jobs=1)
    # Shuffled: generated images come sorted by class, and a forest that was never shown a
    # generated 8 takes every generated 8 for real.
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(forest, images, is_generated, cv=folds, method="predict_proba")[:, 1]
    of_real, of_generated = scores[: len(real)], scores[len(real) :]
    wins = (of_generated > of_real[:, None]) + 0.5 * (of_generated == of_real[:, None])
    rng = np.random.default_rng(seed)
    # How often each image is in each resample, so that a resample is a weighted mean.
    rows, columns = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in wins.shape)
    areas = ((rows @ wins) * columns).sum(axis=1)  # (RESAMPLES,)
    low, high = np.quantile(areas, ENDS)
    return Estimate(float(wins.mean()), float(low), float(high), len(images), "area")


def nearest_training(images: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and distance of the nearest training image of each image (N, H, W); two arrays (N,)."""
    return pairwise_distances_argmin_min(_points(images), _points(training))


def _points(images: np.ndarray) -> np.ndarray:
    """(N, H, W) -> (N, H * W) float64; in float32 a copy would not have distance 0."""
    return flatten(images).astype(np.float64)


def diversity(images: np.ndarray, labels: np.ndarray) -> Estimate:
    """Mean distance between images of one class, then the mean over classes.

    Within class c: 2 / (n_c (n_c - 1)) * sum of d(x_i, x_j), i < j (a U-statistic: W. Hoeffding, A
    Class of Statistics with Asymptotically Normal Distribution, Annals of Mathematical Statistics
    19, 1948). The interval resamples images within each class; pairs of an image with itself do not
    count. Wrong digits raise it, so read it beside the accuracy of the digit classifier.

    Raises DataError when a class has a single image, or `labels` (N,) does not match `images`.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if len(images) != len(labels) or not len(labels):
        raise DataError(f"{len(images)} images but {len(labels)} labels; give one for each")
    rng = np.random.default_rng(0)
    distances = [_mean_distance(images[labels == label], rng) for label in np.unique(labels)]
    means, resampled = zip(*distances, strict=True)
    low, high = UNKNOWN
    if np.unique(labels, return_counts=True)[1].min() >= FEWEST_TO_RESAMPLE:
        low, high = np.nanquantile(np.mean(resampled, axis=0), ENDS)
    return Estimate(float(np.mean(means)), float(low), float(high), len(labels), "distance")


def _mean_distance(images: np.ndarray, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """Mean distance of a pair of one class, and the same in each resample (RESAMPLES,)."""
    n = len(images)
    if n < 2:
        raise DataError("diversity needs at least two images of each class")
    distances = pairwise_distances(_points(images))  # (n, n), zero on the diagonal
    times = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)  # how often each image is taken
    pairs = n**2 - (times**2).sum(axis=1)  # of different images; none if one fills the resample
    with np.errstate(invalid="ignore"):
        resampled = ((times @ distances) * times).sum(axis=1) / pairs
    return distances.sum() / (n * (n - 1)), resampled


def near_copies(
    images: np.ndarray, training: np.ndarray, real: np.ndarray, copies: np.ndarray | None = None
) -> dict:
    """Are generated images nearer to the training images than real held-out images are?

    A near copy is at most a threshold away from its nearest training image: the distance within
    which 5 % of the `training` images have their nearest neighbour. `images` are generated, `real`
    held out, `copies` augmented and searched, too; all (N, H, W), through one codebook.

    Returns, for a metrics file: the "threshold", the share of near copies among generated ("drawn")
    and held-out ("real") images, "p" of Fisher's exact test, and the "verdict": "more", "fewer" or
    "no difference shown". Raises DataError for fewer than two training images.
    """
    if len(training) < 2:
        raise DataError("near copies need at least two training images to set the threshold")
    # Without arguments kneighbors leaves each image itself out.
    neighbours = NearestNeighbors(n_neighbors=1).fit(_points(training)).kneighbors()[0]
    threshold = float(np.quantile(neighbours, NEAR))
    searched = training if copies is None else np.concatenate([training, copies])
    near = [nearest_training(seen, searched)[1] <= threshold + ROUNDING for seen in (images, real)]
    generated, held_out = (proportion(hits) for hits in near)
    p = float(stats.fisher_exact([[hits.sum(), (~hits).sum()] for hits in near]).pvalue)
    verdict = "no difference shown"
    if p < 1 - CONFIDENCE:
        verdict = "more" if generated.value > held_out.value else "fewer"
    shares = {"drawn": generated.to_json(), "real": held_out.to_json()}
    return {"threshold": threshold, **shares, "p": p, "verdict": verdict}
