"""Digits are loaded, split as everyone splits them, and augmented without being blurred."""

from pathlib import Path
from threading import Event
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
from samples import write_idx
from sklearn.model_selection import train_test_split

from seqlm import idx
from seqlm.config import DataConfig
from seqlm.data.images import augment, load_digits, load_images, sharpen, split_indices
from seqlm.errors import ConfigError, DataError

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
    images, labels, n_test = load_images(DataConfig(n_images=120))
    assert n_test is None  # the test images are drawn, in proportion
    assert np.array_equal(images, digits[0][:120]) and np.array_equal(labels, digits[1][:120])
    assert len(load_images(DataConfig())[0]) == 1797


def fetched(monkeypatch, error=None):
    """What `fetch_openml` is asked for; it gives ten images, or raises `error`."""
    rng, asked = np.random.default_rng(0), {}
    # OpenML keeps classes as text.
    target = np.array(["5", "0", "4", "1", "9"] * 4_000, dtype=object)
    table = SimpleNamespace(data=rng.integers(0, 256, (20_000, 784)), target=target)

    def fetch(name, **settings):
        asked.update(settings, name=name)
        if error:
            raise error
        return table

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    return asked, table


def test_mnist_is_downloaded_where_no_files_are(monkeypatch, tmp_path, capsys):
    asked, table = fetched(monkeypatch)
    images, labels, n_test = load_images(DataConfig(source="mnist"), tmp_path)
    assert images.shape == (20_000, 28, 28) and images.dtype == np.float32 and n_test == 10_000
    assert np.allclose(images[0, 0], table.data[0, :28] / 255) and 0.9 < images.max() <= 1
    assert labels[:5].tolist() == [5, 0, 4, 1, 9] and labels.dtype == np.int64
    assert asked["name"] == "mnist_784" and asked["data_home"] == tmp_path / "cache"
    assert "15 MB" in capsys.readouterr().out


def test_a_download_says_how_far_it_is(monkeypatch, tmp_path):
    lines, said = [], Event()

    def write(line):
        lines.append(line)
        if "so far" in line:
            said.set()

    def fetch(*args, **settings):
        while not said.wait(0.01):
            with part.open("ab") as file:
                file.write(bytes(100_000))
        raise URLError("cut off")

    part = tmp_path / "cache" / "openml" / "part"
    part.parent.mkdir(parents=True)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    monkeypatch.setattr(idx, "print", write, raising=False)
    monkeypatch.setattr(idx, "EVERY", 0.01)
    with pytest.raises(DataError, match="cut off"):
        idx.download_mnist(tmp_path)
    assert lines[-1].endswith(" MB so far") and not (tmp_path / "mnist").exists()


@pytest.mark.parametrize("error", [URLError("no route to host"), ValueError("md5 checksum")])
def test_mnist_out_of_reach_is_said_in_one_sentence_with_both_ways(monkeypatch, tmp_path, error):
    fetched(monkeypatch, error)
    with pytest.raises(
        DataError, match="connect to the internet once, or copy train-images"
    ) as caught:
        load_images(DataConfig(source="mnist"), tmp_path)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(str(tmp_path / "mnist")) and str(error) in said


def test_a_folder_that_is_named_and_empty_is_not_replaced_by_a_download(monkeypatch, tmp_path):
    asked, _ = fetched(monkeypatch)
    with pytest.raises(DataError, match=f"^{tmp_path}: no images in IDX"):
        load_images(DataConfig(source="mnist", images_path=tmp_path))
    assert not asked


def test_only_mnist_reads_files(tmp_path):
    with pytest.raises(ConfigError, match="^images_path: only source mnist"):
        DataConfig(images_path=tmp_path)


@pytest.mark.parametrize("end", [".gz", ""])
def test_images_in_idx_files_are_read(digits, tmp_path, end):
    write_idx(tmp_path / "mnist", 200, end=end)
    images, labels, n_test = load_images(DataConfig(source="mnist"), tmp_path)
    assert images.shape == (200, 28, 28) and images.dtype == np.float32
    middles = images[:, 3:26:3, 3:26:3]
    assert np.abs(middles - digits[0][:200]).max() <= 1 / 255
    assert np.array_equal(labels, digits[1][:200]) and labels.dtype == np.int64
    assert n_test == 40


def test_files_of_test_images_are_the_test_split_and_come_last(digits, tmp_path):
    write_idx(tmp_path, 50, start=200, name="t10k")
    _, alone, n_alone = load_images(DataConfig(source="mnist", images_path=tmp_path))
    assert len(alone) == 50 and n_alone == 10  # without others, their last fifth
    write_idx(tmp_path, 200, end="")
    _, labels, n_test = load_images(DataConfig(source="mnist", images_path=tmp_path))
    assert np.array_equal(labels, digits[1][:250]) and n_test == 50
    config = DataConfig(source="mnist", images_path=tmp_path, n_images=125)
    _, labels, n_test = load_images(config)
    assert labels.tolist() == [*digits[1][:100], *digits[1][200:225]] and n_test == 25
    assert split_indices(labels, n_test=n_test)["test"].tolist() == [*range(100, 125)]


SHARED = Path(__file__).parents[3] / "shared" / "mnist-10k"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: the 10,000 images are not there")
def test_of_ten_thousand_real_images_the_last_two_thousand_are_test():
    images, labels, n_test = load_images(DataConfig(source="mnist", images_path=SHARED))
    assert images.shape == (10_000, 28, 28) and 0.12 < images.mean() < 0.14
    splits = split_indices(labels, n_test=n_test)
    assert {name: len(members) for name, members in splits.items()} == {
        "train": 7_000, "val": 1_000, "test": 2_000,
    }  # fmt: skip
    assert splits["test"].tolist() == [*range(8_000, 10_000)]
    assert np.bincount(labels[splits["val"]]).min() > 80


def test_images_too_few_to_be_divided_are_refused():
    with pytest.raises(DataError, match="^12 images cannot be divided"):
        split_indices(np.arange(12) % 10)


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


def test_of_large_images_the_fine_bitmap_is_twice_as_fine():
    large = np.kron(load_digits()[0][:20], np.ones((3, 3), np.float32))  # (20, 24, 24)
    fine = sharpen(large)
    assert fine.shape == (20, 48, 48)
    assert np.abs(fine.reshape(20, 24, 2, 24, 2).mean(axis=(2, 4)) - large).mean() < 1 / 500
    copies = augment(large, DataConfig(copies=1), levels=255)
    assert copies.shape == large.shape and np.allclose(copies * 255, np.round(copies * 255))


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
