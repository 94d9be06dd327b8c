"""The same digits on their side: another domain for a model that has learned them upright.

The split is that of the upright pictures, so a digit whose upright picture a model was trained on
is never among the turned ones that it is measured on, nor the other way round.
"""

from collections.abc import Iterator, Sequence
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

_Turned = tuple[int, int, np.ndarray]  # number of the picture, of the copy (0: itself), codes (P,)


def turned(images: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W) turned by 90 degrees, against the clock: (N, W, H)."""
    return np.ascontiguousarray(np.rot90(images, axes=(1, 2)))


def write_turned(data: Path, path: Path, copies: int) -> dict:
    """Turn the pictures of the data set in `data`, and write their sentences to `path`.

    Codes come from the data set's own code book, which knows upright patches only. Training images
    have `copies` augmented images, turned like all else; a picture whose codes equal those of a held-out
    one, turned or upright, is left out of training. As many draw sentences of training withhold
    their class as the data set's own. Returns "psnr" (dB on val pictures, upright and turned) and
    "psnr_pictures" (how many), "sentences" and "left_out". Raises DataError for pictures that are
    not square.
    """
    data = Path(data)
    book, pictures = PatchCodebook.load(data / CODEBOOK), load_pictures(data)
    if pictures.images.shape[1] != pictures.images.shape[2]:
        raise DataError(
            f"{data}: its pictures are not square, so the code book fits none on its side"
        )
    config = replace(DataConfig(**read_json(data / ABOUT)["config"]), copies=copies)
    encoded = list(_encoded(pictures, book, config))
    kept = _without_held_out(encoded, pictures, book)
    records = _sentences(kept, pictures, config)
    write_records(path, records)
    val = pictures.of("val")[0]
    kinds = {"upright": val, "turned": turned(val)}
    return {
        "psnr": {name: psnr(seen, book.decode(book.encode(seen))) for name, seen in kinds.items()},
        "psnr_pictures": len(val),
        "sentences": len(records),
        "left_out": len(encoded) - len(kept),
    }


def _encoded(pictures: Pictures, book: PatchCodebook, config: DataConfig) -> Iterator[_Turned]:
    """Every picture turned, then the copies of those in train."""
    for index, codes in enumerate(book.encode(turned(pictures.images))):
        yield index, 0, codes
    train = np.flatnonzero(pictures.split == "train")
    bent = augmented_images(pictures.images[train], config, LEVELS[config.source])
    for copy, images in enumerate(bent, start=1):
        for index, codes in zip(train, book.encode(turned(images)), strict=True):
            yield index, copy, codes


def _without_held_out(
    encoded: Sequence[_Turned], pictures: Pictures, book: PatchCodebook
) -> list[_Turned]:
    """`encoded` less the train pictures with the codes of a held-out one, turned or upright."""
    held = pictures.images[pictures.split != "train"]
    seen = (*book.encode(held), *book.encode(turned(held)))
    later = {codes.tobytes() for codes in seen}
    return [
        (index, copy, codes)
        for index, copy, codes in encoded
        if pictures.split[index] != "train" or codes.tobytes() not in later
    ]


def _sentences(encoded: Sequence[_Turned], pictures: Pictures, config: DataConfig) -> list[Record]:
    """Each picture in the read layout, then in the draw layout, as `dataset` makes them."""
    records, rng = [], np.random.default_rng([config.seed, 9])
    for index, copy, codes in encoded:
        split, label = str(pictures.split[index]), int(pictures.labels[index])
        meta = {"split": split, "source_id": f"{config.source}-{index:05d}", "copy": copy}
        free = split == "train" and rng.random() < config.free_fraction
        records.append(Record(read_layout(codes, label), label, meta))
        records.append(Record(draw_layout(codes, None if free else label), label, meta))
    return records
