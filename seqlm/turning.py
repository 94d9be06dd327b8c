"""The same digits on their side: another domain for a model that has learned them upright.

The split is that of the upright pictures, so a digit whose upright picture a model was trained on
is never among the turned ones that it is measured on, nor the other way round.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from seqlm.codebook import PatchCodebook, psnr
from seqlm.config import DataConfig
from seqlm.dataset import ABOUT, CODEBOOK, load_pictures
from seqlm.errors import DataError
from seqlm.files import read_json
from seqlm.images import LEVELS, bent_copies
from seqlm.layout import draw_layout, read_layout
from seqlm.records import Record, write_records


def turned(images: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W) turned by 90 degrees, against the clock: (N, W, H)."""
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))


def write_turned(data: Path, path: Path, copies: int) -> dict:
    """Turn the pictures of the data set in `data`, and write their sentences to `path`.

    Codes come from the data set's own code book, which knows upright patches only. Training images
    have `copies` bent copies, turned like all else; a picture whose codes equal those of a held-out
    one, turned or upright, is left out of training. Returns "psnr" (dB on test pictures, upright
    and turned), "sentences" and "left_out". Raises DataError for pictures that are not square.
    """
    data, book = Path(data), PatchCodebook.load(Path(data) / CODEBOOK)
    pictures, config = load_pictures(data), DataConfig(**read_json(data / ABOUT)["config"])
    if pictures.images.shape[1] != pictures.images.shape[2]:
        raise DataError(
            f"{data}: its pictures are not square, so the code book fits none on its side"
        )
    train = np.flatnonzero(pictures.split == "train")
    upright, codes = book.encode(pictures.images), book.encode(turned(pictures.images))
    bent = bent_copies(
        pictures.images[train], replace(config, copies=copies), LEVELS[config.source]
    )
    numbered = [(i, 0, row) for i, row in enumerate(codes)]
    for copy, images in enumerate(bent, start=1):
        numbered += [
            (i, copy, row) for i, row in zip(train, book.encode(turned(images)), strict=True)
        ]
    held = pictures.split != "train"
    later = {row.tobytes() for known in (upright, codes) for row in known[held]}
    records, left_out = [], 0
    for index, copy, row in numbered:
        split = str(pictures.split[index])
        if split == "train" and row.tobytes() in later:
            left_out += 1
            continue
        label = int(pictures.labels[index])
        meta = {"split": split, "source_id": f"{config.source}-{index:05d}", "copy": copy}
        records.append(Record(read_layout(row, label), label, meta))
        records.append(Record(draw_layout(row, label), label, meta))
    write_records(path, records)
    test = pictures.of("test")[0]
    return {
        "psnr": {
            "upright": psnr(test, book.decode(book.encode(test))),
            "turned": psnr(turned(test), book.decode(book.encode(turned(test)))),
        },
        "sentences": len(records),
        "left_out": left_out,
    }
