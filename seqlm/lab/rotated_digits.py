"""The digits rotated by 90 degrees: a new domain for a model trained on upright ones.

Rotated images stay in the split of the upright ones, so no model is measured on a digit that it was
trained on in the other orientation.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqlm.config import DataConfig
from seqlm.data.build import ABOUT, CODEBOOK, Pictures, load_pictures
from seqlm.data.codebook import PatchCodebook, psnr
from seqlm.data.images import LEVELS, augmented_images
from seqlm.data.records import Record, write_records
from seqlm.data.tokens import draw_layout, read_layout
from seqlm.errors import DataError
from seqlm.utils import read_json


def rotate_images(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W) rotated by 90 degrees, counter-clockwise: (N, W, H)."""
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))


def write_rotated_digits(data: Path, path: Path, copies: int) -> dict:
    """Rotate the images of the data set in `data`, and write their rows to `path`.

    Training images get `copies` augmented images; a training image with the codes of a val or test
    image, rotated or upright, is left out. Returns "psnr" (dB on val images, upright and turned),
    "psnr_pictures" (their number), "sentences" (rows written) and "left_out". Raises DataError for
    images that are not square.
    """
    data = Path(data)
    book, pictures = PatchCodebook.load(data / CODEBOOK), load_pictures(data)
    if pictures.images.shape[1] != pictures.images.shape[2]:
        raise DataError(f"{data}: its images are not square, so the codebook cannot encode them")
    config = replace(DataConfig(**read_json(data / ABOUT)["config"]), copies=copies)
    records, left_out = _make_rows(pictures, book, config)
    write_records(path, records)
    val = pictures.of("val")[0]
    kinds = {"upright": val, "turned": rotate_images(val)}
    return {
        "psnr": {name: psnr(some, book.decode(book.encode(some))) for name, some in kinds.items()},
        "psnr_pictures": len(val),
        "sentences": len(records),
        "left_out": left_out,
    }


def _make_rows(
    pictures: Pictures, book: PatchCodebook, config: DataConfig
) -> tuple[list[Record], int]:
    """Both layouts of each image, as `build_dataset` writes them, and how many are left out."""
    images = pictures.images[pictures.split != "train"]
    unseen = {c.tobytes() for c in (*book.encode(images), *book.encode(rotate_images(images)))}
    records, left_out, rng = [], 0, np.random.default_rng([config.seed, 9])
    for index, copy, codes in _encode(pictures, book, config):
        split, label = str(pictures.split[index]), int(pictures.labels[index])
        if split == "train" and codes.tobytes() in unseen:
            left_out += 1
            continue
        meta = {"split": split, "source_id": f"{config.source}-{index:05d}", "copy": copy}
        free = split == "train" and rng.random() < config.free_fraction
        records.append(Record(read_layout(codes, label), label, meta))
        records.append(Record(draw_layout(codes, None if free else label), label, meta))
    return records, left_out


def _encode(
    pictures: Pictures, book: PatchCodebook, config: DataConfig
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Index, copy and codes (P,) of all images rotated, then of the augmented training images."""
    for index, codes in enumerate(book.encode(rotate_images(pictures.images))):
        yield index, 0, codes
    train = np.flatnonzero(pictures.split == "train")
    augmented = augmented_images(pictures.images[train], config, LEVELS[config.source])
    for copy, images in enumerate(augmented, start=1):
        for index, codes in zip(train, book.encode(rotate_images(images)), strict=True):
            yield index, copy, codes
