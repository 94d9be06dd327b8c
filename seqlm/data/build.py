"""Images in; the sentences, the vocabulary and the code book that every notebook reads, out."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from seqlm.config import DataConfig
from seqlm.data.codebook import UNREADABLE, PatchCodebook
from seqlm.data.images import LEVELS, augmented_images, load_images, split_indices
from seqlm.data.records import Record, write_records
from seqlm.data.tokens import default_vocab, draw_layout, read_layout
from seqlm.errors import DataError
from seqlm.utils import atomic_path, code_fingerprint, read_json, write_json

SEQUENCES, VOCAB, CODEBOOK, IMAGES, ABOUT = (
    "sequences.jsonl",
    "vocab.json",
    "codebook.npz",
    "images.npz",
    "data.json",
)


@dataclass(frozen=True, eq=False)
class Pictures:
    """The original images behind the sentences.

    Attributes:
        images: (N, H, W) float32 in 0..1.
        labels: (N,) int64.
        split: (N,) str: "train", "val" or "test".
    """

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of one split."""
        return self.images[self.split == split], self.labels[self.split == split]


def build_dataset(config: DataConfig, directory: Path, cache: Path | None = None) -> dict:
    """Make everything in `directory` that the later steps read, and describe it.

    The code book is fitted on training images alone. Copies are made of training images alone,
    before encoding, so that each is a new sentence; a picture whose codes happen to equal those of
    a held-out one is left out. Returns what it also writes to data.json.
    """
    directory = Path(directory)
    images, labels = load_images(config, cache)
    indices = split_indices(labels)
    split = np.empty(len(labels), dtype="<U5")
    for name, members in indices.items():
        split[members] = name

    book = PatchCodebook.fit(images[indices["train"]], config.n_codes, config.patch, config.seed)
    codes = book.encode(images)  # (N, P)
    # A copy at a time: of larger pictures all at once would fill the memory.
    bent = augmented_images(images[indices["train"]], config, LEVELS[config.source])
    copies = np.concatenate([codes[:0], *map(book.encode, bent)])  # (copies * train, P)
    records, dropped = _sentences(config, codes, labels, split, copies, indices["train"])

    directory.mkdir(parents=True, exist_ok=True)
    # Written last and gone first, so that a build cut short is never taken for the one before it.
    (directory / ABOUT).unlink(missing_ok=True)
    write_json(directory / VOCAB, default_vocab(config.n_codes, int(labels.max()) + 1))
    book.save(directory / CODEBOOK)
    with atomic_path(directory / IMAGES) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, images=images, labels=labels, split=split)
    write_records(directory / SEQUENCES, records)
    about = {
        "config": asdict(config),
        "code": code_fingerprint("seqlm.data.build"),
        "images": {name: len(members) for name, members in indices.items()},
        "sentences": len(records),
        "left_out_as_equal": dropped,
        "codes_an_image": book.n_patches,
    }
    write_json(directory / ABOUT, about)
    return about


def _sentences(config, codes, labels, split, copies, train) -> tuple[list[Record], int]:
    """Both layouts of every original and of every copy; and how many rows were left out."""
    rng = np.random.default_rng([config.seed, 2])
    # What a split may not repeat: the codes of every split that is measured after it.
    later = {
        "train": {row.tobytes() for row in codes[split != "train"]},
        "val": {row.tobytes() for row in codes[split == "test"]},
        "test": set(),
    }
    numbered = [(index, 0, row) for index, row in enumerate(codes)]
    numbered += [(train[i % len(train)], 1 + i // len(train), row) for i, row in enumerate(copies)]
    records, dropped = [], 0
    for index, copy, row in numbered:
        if row.tobytes() in later[split[index]]:
            dropped += 1
            continue
        label = int(labels[index])
        meta = {
            "split": str(split[index]),
            "source_id": f"{config.source}-{index:05d}",
            "copy": int(copy),
        }
        # Withheld only in training: held-out draw sentences are all measured with their class.
        free = split[index] == "train" and rng.random() < config.free_fraction
        records.append(Record(read_layout(row, label), label, meta))
        records.append(Record(draw_layout(row, None if free else label), label, meta))
    return records, dropped


def load_pictures(directory: Path) -> Pictures:
    """Read the images that `build_dataset` kept. Raises DataError when they are not there."""
    path = Path(directory) / IMAGES
    try:
        with np.load(path) as held:
            return Pictures(held["images"], held["labels"], held["split"])
    except UNREADABLE as error:
        raise DataError(
            f"{path}: not readable ({error}); notebook 01_explore_data or `seqlm build` makes it"
        ) from error


def is_built(config: DataConfig, directory: Path) -> bool:
    """Is the data set in `directory` there, whole, and made with these choices and this code?"""
    directory = Path(directory)
    names = (SEQUENCES, VOCAB, CODEBOOK, IMAGES, ABOUT)
    if not all((directory / name).is_file() for name in names):
        return False
    try:
        about = read_json(directory / ABOUT)
    except DataError:
        return False
    made_so = {"config": asdict(config), "code": code_fingerprint("seqlm.data.build")}
    return isinstance(about, dict) and {key: about.get(key) for key in made_so} == made_so
