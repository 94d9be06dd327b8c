"""Digits are loaded, split as everyone splits them, and augmented without being blurred."""

from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
from sklearn.model_selection import train_test_split

from seqlm.config import DataConfig
from seqlm.data.images import augment, load_digits, load_images, load_mnist, sharpen, split_indices
from seqlm.errors import DataError

STILL = {"rotate": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0}


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def some(digits):
    return digits[0][:100]  # (100, 8, 8)


# ---------------------------------------------------------------- loading


def test_the_digits_are_1797_real_images_in_seventeen_grey_levels(digits):
    images, labels = digits
    assert images.shape == (1797, 8, 8) and images.dtype == np.float32
    assert labels.shape == (1797,) and labels.dtype == np.int64
    assert np.unique(images * 16).tolist() == list(range(17))
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_only_as_many_images_are_used_as_asked_for(digits):
    images, labels = load_images(DataConfig(n_images=120))
    assert np.array_equal(images, digits[0][:120]) and np.array_equal(labels, digits[1][:120])
    assert len(load_images(DataConfig())[0]) == 1797


def test_mnist_has_the_same_interface(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (5, 784))
    target = np.array(["5", "0", "4", "1", "9"], dtype=object)  # OpenML keeps classes as text
    asked = {}

    def fetch(name, **settings):
        asked.update(settings, name=name)
        return SimpleNamespace(data=table, target=target)

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    images, labels = load_images(DataConfig(source="mnist"), tmp_path)
    assert images.shape == (5, 28, 28) and images.dtype == np.float32
    assert np.allclose(images[0, 0], table[0, :28] / 255) and 0.9 < images.max() <= 1
    assert labels.tolist() == [5, 0, 4, 1, 9] and labels.dtype == np.int64
    assert asked["name"] == "mnist_784" and asked["data_home"] == tmp_path


def test_mnist_out_of_reach_is_said_in_one_sentence(monkeypatch):
    def fetch(*args, **settings):
        raise URLError("no route to host")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    with pytest.raises(
        DataError, match="could not be downloaded.*connect to the internet"
    ) as caught:
        load_mnist()
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- splitting


def test_the_test_split_is_the_one_everyone_measures_on(digits):
    _, labels = digits
    _, test = train_test_split(np.arange(1797), test_size=0.2, stratify=labels, random_state=42)
    assert split_indices(labels)["test"].tolist() == sorted(test)


def test_the_splits_are_70_10_and_20_hundredths_and_share_no_image(digits):
    splits = split_indices(digits[1])
    assert {name: len(members) for name, members in splits.items()} == {
        "train": 1257,
        "val": 180,
        "test": 360,
    }
    together = np.concatenate(list(splits.values()))
    assert np.array_equal(np.sort(together), np.arange(1797))


def test_every_split_holds_every_class_in_proportion(digits):
    _, labels = digits
    everywhere = np.bincount(labels) / len(labels)
    for members in split_indices(labels).values():
        counts = np.bincount(labels[members], minlength=10)
        assert np.abs(counts - everywhere * len(members)).max() <= 1


def test_another_seed_gives_another_split_and_the_same_seed_the_same(digits):
    _, labels = digits
    once, again, other = (split_indices(labels, seed) for seed in (42, 42, 43))
    for name in once:
        assert np.array_equal(once[name], again[name])
        assert not np.array_equal(once[name], other[name])


# ---------------------------------------------------------------- augmenting


def test_the_fine_bitmap_holds_as_much_ink_in_each_pixel_as_the_image(some):
    fine = sharpen(some)
    assert fine.shape == (100, 32, 32)
    blocks = fine.reshape(100, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.abs(blocks - some).max() < 1 / 100  # a grey level is 1/16
    assert fine.min() >= 0 and fine.max() <= 1


def test_the_fine_bitmap_is_mostly_paper_or_ink(some):
    def grey(images):
        return ((images > 0.1) & (images < 0.9)).mean()

    assert grey(sharpen(some)) < 0.5 * grey(some)


def test_copies_are_in_0_to_1_at_whole_grey_levels(some):
    copies = augment(some, DataConfig(copies=2))
    assert copies.shape == (200, 8, 8) and copies.dtype == np.float32
    assert copies.min() == 0 and copies.max() == 1
    assert np.array_equal(copies * 16, np.round(copies * 16))
    coarse = augment(some, DataConfig(copies=1), levels=4)
    assert set(np.unique(coarse * 4)) == {0, 1, 2, 3, 4}


def test_copies_keep_about_the_ink_of_their_image(some):
    copies = augment(some, DataConfig(copies=3)).reshape(3, 100, -1).mean(axis=2)
    ink = some.reshape(100, -1).mean(axis=1)
    assert np.abs(copies.mean() - ink.mean()) < 0.01
    assert np.abs(copies - ink).max() < 0.06


def test_copy_c_of_image_i_stands_at_c_n_plus_i(some):
    copies = augment(some, DataConfig(copies=3)).reshape(3, 100, -1)
    originals = some.reshape(100, -1)
    for copy in copies:
        distances = ((copy[:, None] - originals[None]) ** 2).sum(-1)  # (100, 100)
        assert (distances.argmin(axis=1) == np.arange(100)).mean() > 0.9  # by chance 0.01


def test_copies_differ_from_their_image_and_from_each_other(some):
    first, second = augment(some, DataConfig(copies=2)).reshape(2, 100, 8, 8)
    assert (first != some).any(axis=(1, 2)).all()
    assert (first != second).any(axis=(1, 2)).all()


def test_the_same_seed_gives_the_same_copies_and_another_seed_others(some):
    once, again, other = (augment(some, DataConfig(copies=1, seed=s)) for s in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_more_copies_leave_the_first_ones_as_they_were(some):
    two, three = (augment(some, DataConfig(copies=n)) for n in (2, 3))
    assert np.array_equal(two, three[:200])


@pytest.mark.parametrize("setting", STILL)
def test_each_augmentation_changes_the_image(some, setting):
    still = augment(some, DataConfig(copies=1, **STILL))
    augmented = augment(
        some, DataConfig(copies=1, **{**STILL, setting: 1.0 if setting != "rotate" else 45})
    )
    assert np.abs(augmented - still).mean() > 0.02
    assert np.array_equal(still, augment(some, DataConfig(copies=1, seed=7, **STILL)))


def test_an_unbent_copy_is_nearly_its_image(some):
    still = augment(some, DataConfig(copies=1, **STILL))
    assert np.abs(still - some).mean() < 1 / 64
    assert np.abs(still - some).max() <= 5 / 16


def test_no_copies_are_an_empty_stack_of_pictures(some):
    assert augment(some, DataConfig(copies=0)).shape == (0, 8, 8)
