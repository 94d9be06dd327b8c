"""Classifiers that the GPT has to beat and that know nothing of sequences.

They see the pixels of a picture, or how often each code comes in a row, and never an order.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from seqlm.errors import ConfigError, DataError
from seqlm.layout import KIND_CODE

PIXEL_GAMMA = 0.001 * 16**2  # the usual 0.001 is for grey levels 0..16; our pixels run from 0 to 1
DIGIT_PIXELS = 64  # the 8x8 images that this gamma was found good for


def bag_of_codes(rows: Sequence[Sequence[int]], kinds: np.ndarray) -> np.ndarray:
    """How often each code comes in each row, order and class forgotten. (N, K) float32.

    `kinds` (V,) comes from `layout.token_kinds`; K is the number of codes in the vocabulary.
    """
    column = np.cumsum(kinds == KIND_CODE) - 1  # id -> column
    bag = np.zeros((len(rows), int((kinds == KIND_CODE).sum())), dtype=np.float32)
    for counts, row in zip(bag, rows, strict=True):
        ids = np.asarray(row, dtype=np.int64)
        np.add.at(counts, column[ids[kinds[ids] == KIND_CODE]], 1)
    return bag


def _one_line_each(features: np.ndarray) -> np.ndarray:
    """(N, H, W) or (N, D) -> (N, D)."""
    features = np.asarray(features)
    return features.reshape(len(features), -1)


def class_rivals(kind: str = "pixels", n_features: int = DIGIT_PIXELS) -> dict[str, Pipeline]:
    """Classifiers to beat, not yet fitted: "dummy", "logistic" and "svm".

    "pixels" takes images (N, H, W) in 0..1, or the same flattened; on 8x8 images the SVM is the
    usual one for scikit-learn's digits (gamma 0.001 on grey levels 0..16, C 10). On larger images
    gamma shrinks with `n_features`, because distances grow with it. "bag" takes counts of codes
    (`bag_of_codes`), puts them on one scale, and chooses gamma from their number and spread.
    Raises ConfigError for another kind.
    """
    if kind not in ("pixels", "bag"):
        raise ConfigError(f"kind: expected 'pixels' or 'bag', got {kind!r}")
    if kind == "pixels":
        prepare, gamma = [], PIXEL_GAMMA * DIGIT_PIXELS / n_features
    else:
        prepare, gamma = [StandardScaler], "scale"
    rivals = {
        "dummy": DummyClassifier(strategy="most_frequent"),
        "logistic": LogisticRegression(max_iter=2_000),
        "svm": SVC(C=10, gamma=gamma),
    }
    flat = partial(FunctionTransformer, _one_line_each)
    return {
        name: make_pipeline(flat(), *(step() for step in prepare), rival)
        for name, rival in rivals.items()
    }


def fit_class_rivals(
    train_features: np.ndarray, train_labels: np.ndarray, kind: str = "pixels"
) -> dict[str, ClassifierMixin]:
    """The estimators of `class_rivals`, fitted; features are images or bags, labels (N,).

    Raises DataError when there are fewer than two classes, or not one label for each image.
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
    return {
        name: rival.fit(features, labels) for name, rival in class_rivals(kind, n_features).items()
    }
