"""A file that is no whole IDX file, or does not belong to the other, is named in one sentence."""

import gzip

import numpy as np
import pytest
from samples import idx_bytes, write_idx

from seqlm.errors import DataError
from seqlm.idx import read_idx, read_images

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def spoil(content: bytes, damage: str) -> bytes:
    whole = gzip.decompress(content)
    return {
        "another format": gzip.compress(b"P5 28 28" + whole[8:]),
        "cut short": gzip.compress(whole[:-1]),
        "only a header": gzip.compress(whole[:6]),
        "a cut archive": content[: len(content) // 2],
        "no archive": whole,
        "empty": b"",
    }[damage]


@pytest.mark.parametrize("name", [IMAGES, LABELS])
@pytest.mark.parametrize(
    "damage",
    ["another format", "cut short", "only a header", "a cut archive", "no archive", "empty"],
)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, name, damage):
    write_idx(tmp_path, 100)
    path = tmp_path / name
    path.write_bytes(spoil(path.read_bytes(), damage))
    with pytest.raises(DataError, match="copy or download it again$") as caught:
        read_images(tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_labels_that_are_missing_or_too_many_are_named(tmp_path):
    write_idx(tmp_path, 100)
    write_idx(tmp_path / "other", 101)
    (tmp_path / "other" / LABELS).replace(tmp_path / LABELS)
    with pytest.raises(DataError, match=rf"{LABELS}: \(101,\) of labels, \(100, 28, 28\)"):
        read_images(tmp_path)
    (tmp_path / LABELS).unlink()
    with pytest.raises(DataError, match="labels-idx1-ubyte: not a whole .*No such file"):
        read_images(tmp_path)


def test_the_bytes_are_read_in_their_shape(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "x-ubyte").write_bytes(idx_bytes(values))
    assert np.array_equal(read_idx(tmp_path / "x-ubyte", 3), values)
    with pytest.raises(DataError, match="of 1 axes .it begins with 00000803"):
        read_idx(tmp_path / "x-ubyte", 1)


def test_images_of_another_size_are_refused(tmp_path):
    write_idx(tmp_path, 100)
    write_idx(tmp_path, 20, name="t10k")
    small = gzip.compress(idx_bytes(np.zeros((20, 8, 8))))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(small)
    with pytest.raises(DataError, match=r"t10k-labels.*\(20, 8, 8\) of images; images of one size"):
        read_images(tmp_path)
