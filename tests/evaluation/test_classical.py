"""Classical classifiers see pixels or codes, never a class, and reach their known accuracy."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import CategoricalNB

from seqlm.data.images import load_digits as load_our_digits
from seqlm.data.images import split_indices
from seqlm.data.tokens import default_vocab, read_layout, token_kinds
from seqlm.errors import ConfigError
from seqlm.evaluation.classical import (
    bag_of_codes,
    classical_models,
    fit_classical_models,
)
from seqlm.lab.image_quality import train_digit_classifier


@pytest.fixture(scope="module")
def digits():
    images, labels = load_our_digits()
    return images, labels, split_indices(labels)


def test_the_svm_reaches_the_known_992_per_cent_on_everyones_split():
    """gamma 0.001 and C 10 on grey levels 0..16, fitted on 1,437, gets 357 of 360 right."""
    digits = load_digits()
    train, test, labels, truth = train_test_split(
        digits.images, digits.target, test_size=0.2, stratify=digits.target, random_state=42
    )
    svm = train_digit_classifier(train / 16, labels)
    assert int((svm.predict(test / 16) == truth).sum()) == 357


def test_on_our_own_training_split_they_are_strong(digits):
    images, labels, split = digits
    models = fit_classical_models(images[split["train"]], labels[split["train"]])
    truth = labels[split["test"]]
    accuracy = {
        name: np.mean(model.predict(images[split["test"]]) == truth)
        for name, model in models.items()
    }
    assert accuracy["dummy"] < 0.12
    assert 0.94 < accuracy["logistic"] < accuracy["svm"]
    assert accuracy["svm"] > 0.985
    assert accuracy["knn"] > 0.97


def test_the_nearest_neighbours_reach_the_known_986_per_cent_on_everyones_split():
    digits = load_digits()
    train, test, labels, truth = train_test_split(
        digits.images, digits.target, test_size=0.2, stratify=digits.target, random_state=42
    )
    knn = fit_classical_models(train / 16, labels)["knn"]
    assert int((knn.predict(test / 16) == truth).sum()) == 355


def test_a_picture_is_what_most_of_its_three_nearest_are():
    """By hand: the nearest is a 1, but the two after it are 0s."""
    training = np.array([[0.0], [0.2], [0.5], [0.9], [1.0]])
    knn = fit_classical_models(training, np.array([0, 0, 1, 1, 1]))["knn"]
    assert knn.predict([[0.36]]).tolist() == [0]


def test_the_svm_takes_images_flat_or_not(digits):
    images, labels, split = digits
    svm = train_digit_classifier(images[split["train"]], labels[split["train"]])
    some = images[split["val"]]
    np.testing.assert_array_equal(svm.predict(some), svm.predict(some.reshape(len(some), -1)))


def test_gamma_shrinks_as_images_grow():
    assert classical_models("pixels")["svm"][-1].gamma == pytest.approx(0.256)
    assert classical_models("pixels", n_features=784)["svm"][-1].gamma == pytest.approx(
        0.256 / 12.25
    )
    assert classical_models("bag")["svm"][-1].gamma == "scale"


def test_a_bag_counts_codes_and_nothing_else():
    vocab = {"<A>": 0, "<IMG>": 1, "</IMG>": 2, "<CLS>": 3, "<CLS_0>": 4, "<B>": 5, "<EOS>": 6}
    rows = [[1, 5, 0, 5, 2, 3, 4, 6], [1, 0, 2, 3, 4, 6], [1, 2]]
    bag = bag_of_codes(rows, token_kinds(vocab))
    assert bag.tolist() == [[1, 2], [1, 0], [0, 0]]


def test_a_bag_never_holds_the_class():
    vocab = default_vocab()
    rows = [[vocab[t] for t in read_layout([3, 1, 4, 1], label)] for label in range(10)]
    bag = bag_of_codes(rows, token_kinds(vocab))
    assert bag.shape == (10, 500) and (bag == bag[0]).all()


def test_a_bag_of_codes_is_enough_to_classify_what_differs_in_its_counts():
    vocab = default_vocab(n_codes=30, n_classes=2)
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    rows = [
        [vocab[t] for t in read_layout(rng.integers(5 * y, 25 + 5 * y, 30), int(y))] for y in labels
    ]
    bag = bag_of_codes(rows, token_kinds(vocab))
    models = fit_classical_models(bag[:100], labels[:100], kind="bag")
    assert np.mean(models["dummy"].predict(bag[100:]) == labels[100:]) == 0.5
    for name in ("logistic", "svm", "bayes"):
        assert np.mean(models[name].predict(bag[100:]) == labels[100:]) > 0.9


def test_an_unknown_kind_of_features_is_refused():
    with pytest.raises(ConfigError, match="one of 'pixels', 'bag', 'codes', got 'sound'"):
        classical_models("sound")


# ---------------------------------------------------------------- naive Bayes


def test_naive_bayes_on_a_bag_is_bayes_rule_with_one_added_to_each_count():
    bag, labels = np.array([[2.0, 1, 0], [0, 1, 1], [0, 0, 2]]), np.array([0, 1, 1])
    bayes = fit_classical_models(bag, labels, kind="bag")["bayes"]
    # Codes of class 0: 2 1 0 of 3; of class 1: 0 1 3 of 4. The row asked about holds codes 0 and 2.
    zero = 1 / 3 * (2 + 1) / 6 * (0 + 1) / 6
    one = 2 / 3 * (0 + 1) / 7 * (3 + 1) / 7
    found = bayes.predict_proba([[1.0, 0, 1]])[0]
    assert found == pytest.approx([zero / (zero + one), one / (zero + one)])


ROWS, LABELS = np.array([[0, 1], [0, 2], [1, 2]]), np.array([0, 0, 1])


def by_places(row) -> list[float]:
    """Four codes: (count at the place + 1) / (rows of the class + 4), times the class's share."""
    joint = []
    for label, prior in ((0, 2 / 3), (1, 1 / 3)):
        mine = ROWS[label == LABELS]
        shares = [((mine[:, i] == code).sum() + 1) / (len(mine) + 4) for i, code in enumerate(row)]
        joint.append(prior * np.prod(shares))
    return (np.array(joint) / sum(joint)).tolist()


@pytest.mark.parametrize("row", [[0, 2], [2, 0], [1, 1], [3, 3]])  # 3 was never seen in training
def test_naive_bayes_on_codes_is_bayes_rule_place_by_place(row):
    bayes = fit_classical_models(ROWS, LABELS, kind="codes", n_codes=4)["bayes"]
    assert bayes.predict_proba([row])[0] == pytest.approx(by_places(row))
    theirs = CategoricalNB(min_categories=4).fit(ROWS, LABELS)
    np.testing.assert_allclose(bayes.predict_proba([row]), theirs.predict_proba([row]))


def test_only_the_one_that_knows_places_tells_rows_apart_that_hold_the_same_codes():
    rng, labels = np.random.default_rng(0), np.arange(200) % 2
    rows = rng.integers(0, 20, (200, 6))
    rows[:, :2] = np.where(labels[:, None], [[3, 4]], [[4, 3]])
    counts = np.stack([np.bincount(row, minlength=20) for row in rows])
    accuracy = {}
    for kind, features in (("codes", rows), ("bag", counts)):
        bayes = fit_classical_models(features[:100], labels[:100], kind, n_codes=20)["bayes"]
        accuracy[kind] = np.mean(bayes.predict(features[100:]) == labels[100:])
    assert accuracy["codes"] == 1 and accuracy["bag"] < 0.65


def test_codes_are_counted_in_the_order_of_their_ids():
    vocab = {"<A>": 0, "<IMG>": 1, "</IMG>": 2, "<CLS>": 3, "<CLS_0>": 4, "<B>": 5, "<EOS>": 6}
    rows = [[1, 5, 0, 5, 2, 3], [], [1, 2, 3, 4]]
    assert bag_of_codes(rows, token_kinds(vocab)).tolist() == [[1, 2], [0, 0], [0, 0]]


def test_every_kind_is_one_line_of_the_same_table():
    names = {kind: list(classical_models(kind)) for kind in ("pixels", "bag", "codes")}
    assert names == {
        "pixels": ["dummy", "logistic", "svm", "knn"],
        "bag": ["dummy", "logistic", "svm", "bayes"],
        "codes": ["bayes"],
    }
