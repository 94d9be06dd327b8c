"""The rivals see pixels or counts of codes, never an answer, and are as strong as they claim."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from seqlm.errors import ConfigError, DataError
from seqlm.images import load_digits as load_our_digits
from seqlm.images import split_indices
from seqlm.judging import pixel_judge
from seqlm.layout import default_vocab, read_layout, token_kinds
from seqlm.rivals import bag_of_codes, class_rivals, fit_class_rivals


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
    judge = pixel_judge(train / 16, labels)
    assert int((judge.predict(test / 16) == truth).sum()) == 357


def test_on_our_own_training_split_the_rivals_are_worth_beating(digits):
    images, labels, split = digits
    rivals = fit_class_rivals(images[split["train"]], labels[split["train"]])
    truth = labels[split["test"]]
    accuracy = {
        name: np.mean(rival.predict(images[split["test"]]) == truth)
        for name, rival in rivals.items()
    }
    assert accuracy["dummy"] < 0.12
    assert 0.94 < accuracy["logistic"] < accuracy["svm"]
    assert accuracy["svm"] > 0.985


def test_the_judge_takes_images_flat_or_not(digits):
    images, labels, split = digits
    judge = pixel_judge(images[split["train"]], labels[split["train"]])
    some = images[split["val"]]
    np.testing.assert_array_equal(judge.predict(some), judge.predict(some.reshape(len(some), -1)))


def test_gamma_shrinks_as_images_grow():
    assert class_rivals("pixels")["svm"][-1].gamma == pytest.approx(0.256)
    assert class_rivals("pixels", n_features=784)["svm"][-1].gamma == pytest.approx(0.256 / 12.25)
    assert class_rivals("bag")["svm"][-1].gamma == "scale"


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
    rivals = fit_class_rivals(bag[:100], labels[:100], kind="bag")
    assert np.mean(rivals["dummy"].predict(bag[100:]) == labels[100:]) == 0.5
    for name in ("logistic", "svm"):
        assert np.mean(rivals[name].predict(bag[100:]) == labels[100:]) > 0.9


def test_rivals_that_cannot_be_fitted_are_refused_in_a_sentence():
    with pytest.raises(DataError, match="at least two classes"):
        pixel_judge(np.zeros((4, 8, 8)), np.ones(4))
    with pytest.raises(DataError, match="4 training images but 3 labels"):
        pixel_judge(np.zeros((4, 8, 8)), np.arange(3))
    with pytest.raises(ConfigError, match="'pixels' or 'bag'"):
        class_rivals("sound")
