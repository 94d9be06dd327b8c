"""Build the data set: images become token rows, a vocabulary and a codebook."""

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from seqlm.atomic import MANIFEST, atomic_path, read_manifest, write_manifest
from seqlm.config import DataConfig
from seqlm.data.codebook import PatchCodebook, load_arrays
from seqlm.data.images import LEVELS, augmented_images, image_files, load_images, split_indices
from seqlm.data.records import Record, write_records
from seqlm.data.tokens import default_vocab, draw_layout, read_layout
from seqlm.errors import DataError
from seqlm.ownership import check_output, locked
from seqlm.utils import code_fingerprint, read_json, read_text, sha256_of, write_json

SEQUENCES, VOCAB, ABOUT = "sequences.jsonl", "vocab.json", "data.json"
CODEBOOK, IMAGES = "codebook.npz", "images.npz"
FILES = (SEQUENCES, VOCAB, CODEBOOK, IMAGES, ABOUT)


@dataclass(frozen=True, eq=False)
class Pictures:
    """The original images behind the rows."""

    images: np.ndarray  # (N, H, W) float32 in 0..1
    labels: np.ndarray  # (N,) int64
    split: np.ndarray  # (N,) str: "train", "val" or "test"

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of one split."""
        return self.images[self.split == split], self.labels[self.split == split]


def build_dataset(
    config: DataConfig,
    directory: Path,
    home: Path = Path("data"),
    overwrite: bool = False,
    book: PatchCodebook | None = None,
) -> dict:
    """Write all files of a data set to `directory`; returns what data.json holds.

    `home` is the folder with mnist/ and cache/ (`load_images`). Raises ConfigError for a file of
    another's in the way, unless `overwrite` is set.

    The codebook is `book`, a trained model's, or fitted on training images alone, and only these
    are augmented. An image whose codes equal those of a held-out one is left out.
    """
    about, manifest = directory / ABOUT, directory / MANIFEST
    # An older version wrote no manifest, and data.json last.
    older = about.is_file() and not manifest.exists() and "codes_an_image" in read_text(about)
    check_output(directory, FILES, overwrite or older)
    with locked(directory, [directory]):
        return _build(config, directory, home, book)


def _build(config: DataConfig, directory: Path, home: Path, book: PatchCodebook | None) -> dict:
    images, labels, n_test = load_images(config, home)
    indices = split_indices(labels, n_test=n_test)
    split = np.empty(len(labels), dtype="<U5")
    for name, members in indices.items():
        split[members] = name

    made_with = _made_with(config, home, book)
    book = book or PatchCodebook.fit(
        images[indices["train"]], config.n_codes, config.patch, config.seed
    )
    codes = book.encode(images)  # (N, P)
    # A copy at a time: of larger images all at once would fill the memory.
    augmented = augmented_images(images[indices["train"]], config, LEVELS[config.source])
    copies = np.concatenate([codes[:0], *map(book.encode, augmented)])  # (copies * train, P)
    # What a split may not repeat: the codes of every split that is measured after it.
    later = {"train": codes[split != "train"], "val": codes[split == "test"]}
    unseen = {name: {row.tobytes() for row in rows} for name, rows in later.items()}
    records, dropped = image_records(config, labels, split, codes, copies, unseen, 2)

    if read_manifest(directory)["run"] is None:  # what may be replaced is ours, also after a kill
        write_manifest(directory, "build", [directory / name for name in FILES])
    # Written last and gone first, so that a build cut short is never taken for the one before it.
    (directory / ABOUT).unlink(missing_ok=True)
    write_json(directory / VOCAB, default_vocab(config.n_codes, int(labels.max()) + 1))
    book.save(directory / CODEBOOK)
    with atomic_path(directory / IMAGES) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, images=images, labels=labels, split=split)
    write_records(directory / SEQUENCES, records)
    about = {
        **made_with,
        "images": {name: len(members) for name, members in indices.items()},
        "sentences": len(records),
        "left_out_as_equal": dropped,
        "codes_an_image": book.n_patches,
    }
    write_json(directory / ABOUT, about)
    return about


def image_records(
    config: DataConfig,
    labels: np.ndarray,
    split: np.ndarray,
    codes: np.ndarray,
    copies: np.ndarray,
    unseen: Mapping[str, set[bytes]],
    stream: int,
) -> tuple[list[Record], int]:
    """Both layouts of every original and of every copy; and how many images were left out.

    `codes` (N, P) are those of the originals, whose `labels` and `split` are (N,); `copies`
    (copies * train, P) those of the augmented training images. An image of a split that has its
    codes in `unseen` is left out. The seed of hidden classes is (config.seed, stream).
    """
    rng, train = np.random.default_rng([config.seed, stream]), np.flatnonzero(split == "train")
    numbered = [(index, 0, row) for index, row in enumerate(codes)]
    numbered += [(train[i % len(train)], 1 + i // len(train), row) for i, row in enumerate(copies)]
    records, dropped = [], 0
    for index, copy, row in numbered:
        if row.tobytes() in unseen.get(split[index], ()):
            dropped += 1
            continue
        label = int(labels[index])
        source = f"{config.source}-{index:05d}"
        meta = {"split": str(split[index]), "source_id": source, "copy": int(copy)}
        # Withheld only in training: held-out draw rows are all measured with their class.
        free = split[index] == "train" and rng.random() < config.free_fraction
        records.append(Record(read_layout(row, label), label, meta))
        records.append(Record(draw_layout(row, None if free else label), label, meta))
    return records, dropped


def load_pictures(directory: Path) -> Pictures:
    """Read the images that `build_dataset` kept. Raises DataError when they are not there."""
    return Pictures(*load_arrays(Path(directory) / IMAGES, "images", "labels", "split"))


def _made_with(config: DataConfig, home: Path, book: PatchCodebook | None) -> dict:
    path, files = config.images_path, image_files(config, home)
    return {
        "config": asdict(config) | {"images_path": str(path) if path else None},
        "files": sha256_of(files) if files else None,
        "book": zlib.crc32(book.centers.tobytes()) if book else None,
        "code": code_fingerprint("seqlm.data.build"),
    }


def is_built(
    config: DataConfig,
    directory: Path,
    home: Path = Path("data"),
    book: PatchCodebook | None = None,
) -> bool:
    """Whether the data set in `directory` is complete, and made by this code as asked."""
    try:
        about = read_json(directory / ABOUT)
    except DataError:
        return False
    whole = all((directory / name).is_file() for name in FILES)
    made_with = _made_with(config, home, book)
    return whole and isinstance(about, dict) and made_with.items() <= about.items()
