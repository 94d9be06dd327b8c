"""The digits rotated by 90 degrees: a new domain for a model trained on upright ones.

Rotated images stay in the split of the upright ones, so no model is measured on a digit that it was
trained on in the other orientation.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from seqlm.config import DataConfig
from seqlm.data.build import ABOUT, CODEBOOK, image_records, load_pictures
from seqlm.data.codebook import PatchCodebook, psnr
from seqlm.data.images import LEVELS, augmented_images
from seqlm.data.records import write_records
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
    held_out = pictures.images[pictures.split != "train"]
    both = (*book.encode(held_out), *book.encode(rotate_images(held_out)))
    unseen = {"train": {codes.tobytes() for codes in both}}
    codes = book.encode(rotate_images(pictures.images))  # (N, P)
    augmented = augmented_images(pictures.of("train")[0], config, LEVELS[config.source])
    rotated = np.concatenate([codes[:0], *(book.encode(rotate_images(a)) for a in augmented)])
    records, left_out = image_records(
        config, pictures.labels, pictures.split, codes, rotated, unseen, 9
    )
    write_records(path, records)
    val = pictures.of("val")[0]
    kinds = {"upright": val, "turned": rotate_images(val)}
    return {
        "psnr": {name: psnr(some, book.decode(book.encode(some))) for name, some in kinds.items()},
        "psnr_pictures": len(val),
        "sentences": len(records),
        "left_out": left_out,
    }
