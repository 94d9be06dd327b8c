"""Classifiers that the GPT has to beat and that know nothing of sequences.

They see the pixels of a picture, or how often each code comes in a row, or which code stands at
each place, and never what follows what.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import CategoricalNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from seqlm.config import DataConfig
from seqlm.data.tokens import KIND_CODE
from seqlm.errors import ConfigError, DataError

PIXEL_GAMMA = 0.001 * 16**2  # the usual 0.001 is for grey levels 0..16; our pixels run from 0 to 1
NEIGHBOURS = 3  # the usual number for these digits
DIGIT_PIXELS = 64  # the 8x8 images that this gamma was found good for


def bag_of_codes(rows: Sequence[Sequence[int]], kinds: np.ndarray) -> np.ndarray:
    """How often each code comes in each row, order and class forgotten. (N, K) float32.

    `kinds` (V,) comes from `layout.token_kinds`; K is the number of codes in the vocabulary.
    """
    bag = np.zeros((len(rows), int((kinds == KIND_CODE).sum())), dtype=np.float32)
    for counts, codes in zip(bag, _codes_in(rows, kinds), strict=True):
        np.add.at(counts, codes, 1)
    return bag


def codes_at_places(rows: Sequence[Sequence[int]], kinds: np.ndarray) -> np.ndarray:
    """The codes of each row in their order, numbered from 0; all else left out. (N, P) int64.

    `kinds` (V,) comes from `layout.token_kinds`. Raises DataError when one row holds more codes
    than another: a place means the same in all of them only if all are as long.
    """
    found = _codes_in(rows, kinds)
    lengths = {len(codes) for codes in found}
    if len(lengths) > 1:
        raise DataError(
            f"rows hold between {min(lengths)} and {max(lengths)} codes; codes can be told by "
            "their places only where all rows hold the same number"
        )
    return np.array(found, dtype=np.int64).reshape(len(found), -1 if found else 0)


def _codes_in(rows: Sequence[Sequence[int]], kinds: np.ndarray) -> list[np.ndarray]:
    """The codes of each row, numbered from 0 in the order of their ids."""
    number = np.cumsum(kinds == KIND_CODE) - 1  # id -> code
    ids = (np.asarray(row, dtype=np.int64) for row in rows)
    return [number[row[kinds[row] == KIND_CODE]] for row in ids]


def _one_line_each(features: np.ndarray) -> np.ndarray:
    """(N, H, W) or (N, D) -> (N, D)."""
    features = np.asarray(features)
    return features.reshape(len(features), -1)


def _on_pixels(n_features: int, n_codes: int) -> dict[str, list]:
    gamma = PIXEL_GAMMA * DIGIT_PIXELS / n_features
    return {
        "dummy": [DummyClassifier(strategy="most_frequent")],
        "logistic": [LogisticRegression(max_iter=2_000)],
        "svm": [SVC(C=10, gamma=gamma)],
        "knn": [KNeighborsClassifier(NEIGHBOURS)],
    }


def _on_bags(n_features: int, n_codes: int) -> dict[str, list]:
    return {
        "dummy": [DummyClassifier(strategy="most_frequent")],
        "logistic": [StandardScaler(), LogisticRegression(max_iter=2_000)],
        "svm": [StandardScaler(), SVC(C=10, gamma="scale")],
        "bayes": [MultinomialNB()],
    }


def _on_codes(n_features: int, n_codes: int) -> dict[str, list]:
    return {"bayes": [CategoricalNB(min_categories=n_codes)]}


# What the rivals see -> how to make them, each as the steps of a pipeline.
KINDS: dict[str, Callable[[int, int], dict[str, list]]] = {
    "pixels": _on_pixels,
    "bag": _on_bags,
    "codes": _on_codes,
}


def classical_models(
    kind: str = "pixels", n_features: int = DIGIT_PIXELS, n_codes: int = DataConfig.n_codes
) -> dict[str, Pipeline]:
    """Name -> a classifier to beat, not yet fitted.

    What they see is `kind`::

        "pixels"   images (N, H, W) in 0..1, or flattened         dummy, logistic, svm, knn
        "bag"      counts of codes (N, K), `bag_of_codes`         dummy, logistic, svm, bayes
        "codes"    the code at each place (N, P), `codes_at_places`                    bayes

    On 8x8 images the SVM is the usual one for scikit-learn's digits (gamma 0.001 on grey levels
    0..16, C 10); on larger images gamma shrinks with `n_features`, because distances grow with it.
    On bags it chooses gamma from their number and spread. "knn" asks the three nearest training
    images. "bayes" on bags is the multinomial naive Bayes; on codes it gives each place a
    frequency table of its own, `n_codes` wide, because a test row may hold codes that training
    has not shown there. Raises ConfigError for another kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind: expected one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    return {
        name: make_pipeline(FunctionTransformer(_one_line_each), *steps)
        for name, steps in KINDS[kind](n_features, n_codes).items()
    }


def fit_classical_models(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    kind: str = "pixels",
    n_codes: int = DataConfig.n_codes,
) -> dict[str, ClassifierMixin]:
    """The estimators of `classical_models`, fitted; features as told there, labels (N,).

    Raises DataError when there are fewer than two classes, or not one label for each row.
    """
    features, labels = np.asarray(train_features), np.asarray(train_labels)
    if len(features) != len(labels):
        raise DataError(f"{len(features)} training images but {len(labels)} labels; give one each")
    if len(np.unique(labels)) < 2:
        raise DataError(
            "a classifier needs training rows of at least two classes; these hold "
            f"{len(np.unique(labels))}"
        )
    n_features = int(np.prod(features.shape[1:]))
    rivals = classical_models(kind, n_features, n_codes)
    return {name: rival.fit(features, labels) for name, rival in rivals.items()}
