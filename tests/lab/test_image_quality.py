"""Judges of drawings: they must see a difference where there is one, and none elsewhere."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from seqlm.errors import DataError
from seqlm.lab.image_quality import (
    diversity,
    near_copies,
    nearest_training,
    real_vs_generated_auc,
)


def pictures(n, seed, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (n, 4, 4))


def test_two_halves_of_one_source_cannot_be_distinguished():
    area = real_vs_generated_auc(pictures(150, 1), pictures(150, 2))
    assert area.low < 0.5 < area.high and area.n == 300


def test_pictures_sorted_by_class_do_not_mislead_it():
    """Folds cut in order would each hold a class that the forest never saw drawn."""
    classes = np.repeat(np.arange(5), 30)[:, None, None] * 3.0
    mixed = np.random.default_rng(3).permutation(classes)
    area = real_vs_generated_auc(mixed + pictures(150, 1), classes + pictures(150, 2))
    assert area.low < 0.5 < area.high


def test_the_auc_grows_with_the_difference_of_the_sources():
    real = pictures(80, 1)
    little, much = (real_vs_generated_auc(real, pictures(80, 2, shift)) for shift in (0.3, 2.0))
    assert 0.5 < little.value < much.value and much.value > 0.99
    assert little.low < little.value < little.high


def test_the_area_is_scikit_learns(monkeypatch):
    scores = np.random.default_rng(3).integers(0, 5, 60) / 5  # with ties
    monkeypatch.setattr(
        "seqlm.lab.image_quality.cross_val_predict",
        lambda *a, **k: np.stack([1 - scores, scores], 1),
    )
    area = real_vs_generated_auc(pictures(20, 1), pictures(40, 2))
    assert area.value == pytest.approx(roc_auc_score([0] * 20 + [1] * 40, scores))


def test_the_same_seed_gives_the_same_area():
    pair = pictures(20, 1), pictures(20, 2)
    assert real_vs_generated_auc(*pair) == real_vs_generated_auc(*pair)


def test_too_few_pictures_are_refused():
    with pytest.raises(DataError, match="at least 5"):
        real_vs_generated_auc(pictures(4, 1), pictures(9, 2))


def test_a_copy_lies_at_no_distance_from_its_original():
    training = pictures(9, 1)
    number, distance = nearest_training(training[[7, 2]] + [[[0.0]], [[0.5]]], training)
    assert number.tolist() == [7, 2]
    np.testing.assert_allclose(distance, [0, 2.0], atol=1e-6)


def on_a_line(*places):
    """Pictures of one pixel, so that distances can be read off."""
    return np.array(places, dtype=float)[:, None, None]


def test_diversity_is_the_mean_distance_of_a_pair_within_a_class_averaged_over_classes():
    """Distances 3, 4 and 7 in one class, 1 in the other: (14 / 3 + 1) / 2, not 15 / 4."""
    varied = diversity(on_a_line(0, 3, 7, 50, 51), np.array([0, 0, 0, 1, 1]))
    assert varied.value == pytest.approx((14 / 3 + 1) / 2)
    assert varied.n == 5 and not varied.has_interval


def test_diversity_does_not_depend_on_how_many_were_drawn():
    """The mean over all threes out of seven is that of the seven: no bias to correct for."""
    seven = pictures(7, 4)
    threes = [
        diversity(seven[list(c)], np.zeros(3)).value for c in itertools.combinations(range(7), 3)
    ]
    assert np.mean(threes) == pytest.approx(diversity(seven, np.zeros(7)).value)


def test_a_picture_that_is_resampled_twice_is_no_pair_without_a_difference():
    """All pairs of corners are equally far apart, so no resample can say anything else."""
    corners = np.eye(9).reshape(9, 3, 3)
    varied = diversity(corners, np.zeros(9))
    for number in (varied.value, varied.low, varied.high):
        assert number == pytest.approx(np.sqrt(2))


def test_the_interval_of_diversity_mostly_holds_the_truth(monkeypatch):
    monkeypatch.setattr("seqlm.lab.image_quality.RESAMPLES", 200)
    truth = diversity(pictures(900, 1) ** 3, np.zeros(900)).value
    found = [diversity(pictures(20, seed) ** 3, np.zeros(20)) for seed in range(2, 82)]
    assert 0.85 <= np.mean([e.low <= truth <= e.high for e in found]) < 1


def test_drawings_of_the_wrong_digit_raise_diversity():
    labels = np.repeat([0, 1], 20)
    right = pictures(40, 1) + 5 * labels[:, None, None]
    wrong = right[np.roll(np.arange(40), 3)]  # three of each are the other digit
    assert diversity(wrong, labels).value > 1.2 * diversity(right, labels).value


def test_the_same_drawing_again_and_again_has_no_diversity():
    varied = diversity(np.repeat(pictures(1, 1), 6, axis=0), np.zeros(6))
    assert (varied.value, varied.low, varied.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("n", "labels", "said"),
    [(3, [0, 0, 1], "at least two"), (3, [0, 0], "one for each"), (0, [], "one for each")],
)
def test_diversity_of_what_cannot_differ_is_refused(n, labels, said):
    with pytest.raises(DataError, match=said):
        diversity(pictures(n, 1), np.array(labels))


def test_near_copies_by_hand():
    """Nearest fellows at 1, 1, 2 and 4, so 5 % lie within 1; Fisher's p is 3/15 + 3/15."""
    training = on_a_line(0, 1, 3, 7)
    found = near_copies(on_a_line(0.5, 2, 5), training, on_a_line(5, 10, 20))
    assert found["threshold"] == 1
    assert found["drawn"]["value"] == pytest.approx(2 / 3) and found["real"]["value"] == 0
    assert found["p"] == pytest.approx(0.4) and found["verdict"] == "no difference shown"


def test_drawings_that_repeat_training_images_are_found_out():
    training, real = pictures(100, 1), pictures(60, 2)
    found = near_copies(training[:40] + 1e-3, training, real)
    assert found["verdict"] == "more"
    turned = near_copies(real, training, training[:40])
    assert turned["verdict"] == "fewer"


def test_new_pictures_of_the_same_kind_are_near_copies_about_as_often_as_real_ones():
    found = near_copies(pictures(400, 3), pictures(400, 1), pictures(400, 2))
    assert found["verdict"] == "no difference shown"
    for who in ("drawn", "real"):
        assert found[who]["low"] < 0.05 < found[who]["high"]


def test_copies_are_searched_but_do_not_move_the_threshold():
    """Else many augmented images, each near to the others, would lower the threshold."""
    training, drawn, real = pictures(80, 1), pictures(50, 3), pictures(50, 2)
    alone = near_copies(drawn, training, real)
    found = near_copies(drawn, training, real, copies=drawn + 1e-3)
    assert found["threshold"] == alone["threshold"]
    assert alone["drawn"]["value"] < 0.2 and alone["verdict"] == "no difference shown"
    assert found["drawn"]["value"] == 1 and found["verdict"] == "more"


def test_one_training_image_cannot_say_what_is_near():
    with pytest.raises(DataError, match="at least two"):
        near_copies(pictures(3, 1), pictures(1, 2), pictures(3, 3))
