"""Judges of drawings: they must see a difference where there is one, and none elsewhere."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from seqlm.errors import DataError
from seqlm.judging import nearest_training, real_versus_drawn


def pictures(n, seed, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (n, 4, 4))


def test_two_halves_of_one_source_cannot_be_told_apart():
    area = real_versus_drawn(pictures(150, 1), pictures(150, 2))
    assert area.low < 0.5 < area.high and area.n == 300


def test_pictures_sorted_by_class_do_not_mislead_it():
    """Folds cut in order would each hold a class that the forest never saw drawn."""
    classes = np.repeat(np.arange(5), 30)[:, None, None] * 3.0
    mixed = np.random.default_rng(3).permutation(classes)
    area = real_versus_drawn(mixed + pictures(150, 1), classes + pictures(150, 2))
    assert area.low < 0.5 < area.high


def test_another_source_is_told_apart_the_better_the_more_it_differs():
    real = pictures(80, 1)
    little, much = (real_versus_drawn(real, pictures(80, 2, shift)) for shift in (0.3, 2.0))
    assert 0.5 < little.value < much.value and much.value > 0.99
    assert little.low < little.value < little.high


def test_the_area_is_scikit_learns(monkeypatch):
    scores = np.random.default_rng(3).integers(0, 5, 60) / 5  # with ties
    monkeypatch.setattr(
        "seqlm.judging.cross_val_predict", lambda *a, **k: np.stack([1 - scores, scores], 1)
    )
    area = real_versus_drawn(pictures(20, 1), pictures(40, 2))
    assert area.value == pytest.approx(roc_auc_score([0] * 20 + [1] * 40, scores))


def test_the_same_seed_gives_the_same_area():
    pair = pictures(20, 1), pictures(20, 2)
    assert real_versus_drawn(*pair) == real_versus_drawn(*pair)


def test_too_few_pictures_are_refused():
    with pytest.raises(DataError, match="at least 5"):
        real_versus_drawn(pictures(4, 1), pictures(9, 2))


def test_a_copy_lies_at_no_distance_from_its_original():
    training = pictures(9, 1)
    number, distance = nearest_training(training[[7, 2]] + [[[0.0]], [[0.5]]], training)
    assert number.tolist() == [7, 2]
    np.testing.assert_allclose(distance, [0, 2.0], atol=1e-6)
