"""Classical classifiers on pixels or codes, as baselines."""

from collections.abc import Sequence

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import CategoricalNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from seqlm.config import DataConfig
from seqlm.data.tokens import KIND_CODE
from seqlm.errors import ConfigError
from seqlm.evaluation.scores import Rows

PIXEL_GAMMA = 0.001 * 16**2  # the usual 0.001 is for grey levels 0..16; our pixels run from 0 to 1
NEIGHBOURS = 3  # the usual number for these digits
DIGIT_PIXELS = 64  # the 8x8 images that this gamma is usual for


def bag_of_codes(rows: Rows, kinds: np.ndarray) -> np.ndarray:
    """How often each code is in each row. (N, K) float32, K the codes of the vocabulary.

    `kinds` (V,) comes from `tokens.token_kinds`.
    """
    codes = np.flatnonzero(kinds == KIND_CODE)  # their ids
    bags = [np.bincount(np.array(row, np.int64), minlength=len(kinds))[codes] for row in rows]
    return np.array(bags, dtype=np.float32).reshape(len(bags), len(codes))


def flatten(images: np.ndarray) -> np.ndarray:
    """(N, H, W) or (N, D) -> (N, D)."""
    images = np.asarray(images)
    return images.reshape(len(images), -1)


def classical_models(
    kind: str = "pixels", n_features: int = DIGIT_PIXELS, n_codes: int = DataConfig.n_codes
) -> dict[str, Pipeline]:
    """Name -> a classifier, not yet fitted, by the `kind` of its features::

        "pixels"   images (N, H, W) in 0..1, or flattened         dummy, logistic, svm, knn
        "bag"      counts of codes (N, K), `bag_of_codes`         dummy, logistic, svm, bayes
        "codes"    the code at each place (N, P)                                       bayes

    The SVM's gamma shrinks with `n_features`, because distances grow with it. "bayes" on codes
    counts `n_codes` at each place, seen in training or not. Raises ConfigError for another kind.
    """
    dummy = [DummyClassifier(strategy="most_frequent")]
    logistic = LogisticRegression(max_iter=2_000)
    kinds = {
        "pixels": {
            "dummy": dummy,
            "logistic": [logistic],
            "svm": [SVC(C=10, gamma=PIXEL_GAMMA * DIGIT_PIXELS / n_features)],
            "knn": [KNeighborsClassifier(NEIGHBOURS)],
        },
        "bag": {
            "dummy": dummy,
            "logistic": [StandardScaler(), logistic],
            "svm": [StandardScaler(), SVC(C=10, gamma="scale")],
            "bayes": [MultinomialNB()],
        },
        "codes": {"bayes": [CategoricalNB(min_categories=n_codes)]},
    }
    if kind not in kinds:
        raise ConfigError(f"kind: expected one of {', '.join(map(repr, kinds))}, got {kind!r}")
    return {
        name: make_pipeline(FunctionTransformer(flatten), *steps)
        for name, steps in kinds[kind].items()
    }


def fit_classical_models(
    features: np.ndarray,
    labels: Sequence[int],
    kind: str = "pixels",
    n_codes: int = DataConfig.n_codes,
) -> dict[str, ClassifierMixin]:
    """The models of `classical_models`, fitted to training features and `labels` (N,)."""
    features = np.asarray(features)
    models = classical_models(kind, int(np.prod(features.shape[1:])), n_codes)
    with threadpool_limits(1, "blas"):  # the matrices are small: waiting would take far longer
        return {name: model.fit(features, labels) for name, model in models.items()}
