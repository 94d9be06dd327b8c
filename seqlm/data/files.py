"""Rows of a file, or of a `datasets` directory, as they are: nothing in them is checked yet."""

import gzip
import json
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

from seqlm.errors import DataError
from seqlm.utils import why_unreadable

SPLITS = ("train", "val", "test")


class Part(NamedTuple):
    """A part of a file, in bytes, or of a `datasets` directory, in rows."""

    start: int
    stop: int
    lines_before: int = 0
    split: str | None = None


def read_rows(path: str | Path, part: Part | None = None) -> Iterator[tuple[str, int, Any]]:
    """The place for messages, the number and the content of each line that is not empty.

    `path` is a file, plain or gzipped, "-" for standard input, or what `datasets` saved with
    save_to_disk. Raises DataError, naming file and line, for a line that is not JSON.
    """
    if path != "-" and is_dataset(path):
        yield from _read_dataset(path, part)
        return
    line = before = part.lines_before if part else 0
    left = part.stop - part.start if part else math.inf
    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as plain:
            if part:
                plain.seek(part.start)
            packed = plain.peek(2)[:2] == b"\x1f\x8b"
            with gzip.open(plain, "rb") if packed else plain as stream:
                for line, raw in enumerate(stream, start=before + 1):
                    text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
                    if text:
                        yield f"{path}:{line}", line, json.loads(text)
                    left -= len(raw)
                    if left <= 0 and not packed:
                        break
    except (ValueError, RecursionError) as error:  # a text that is not UTF-8 is a ValueError, too
        raise DataError(
            f"{path}:{line}: not valid JSON in UTF-8 ({error!s:.90}); write one object per line"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}:{line}: the gzip file is damaged ({error}); compress it again"
        ) from error
    except OSError as error:
        raise DataError(why_unreadable(path, error)) from error


def is_dataset(path: str | Path) -> bool:
    """Whether `datasets` saved a Dataset or a DatasetDict in this folder."""
    return any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json"))


def open_dataset(path: str | Path) -> dict[str | None, Any]:
    """Split -> Dataset, as `datasets` saved them; the split is None for a single Dataset.

    Raises DataError for what cannot be loaded, and for splits that are none of ours.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises what Arrow and the file system do
        raise DataError(
            f"{path}: `datasets` cannot load it ({error!s:.90}); save it again"
        ) from error
    if isinstance(loaded, datasets.Dataset):
        return {None: loaded}
    named = {"val" if name == "validation" else name: rows for name, rows in loaded.items()}
    if strange := [name for name in named if name not in SPLITS]:
        raise DataError(f"{path}: split {strange[0]!r} is none of train, val, test; rename it")
    return named


def _read_dataset(path: str | Path, part: Part | None) -> Iterator[tuple[str, int, Any]]:
    for split, rows in open_dataset(path).items():
        if part and part.split != split:
            continue
        span = range(part.start, part.stop) if part else range(len(rows))
        of = "" if split is None else f" of {split}"
        for number, row in zip(span, rows.select(span), strict=True):
            # Arrow gives every row all fields; those that are null were not there.
            meta = row.get("meta")
            if isinstance(meta, dict):
                meta = {key: value for key, value in meta.items() if value is not None}
            if split is not None and isinstance(meta, (dict, NoneType)):
                meta = (meta or {}) | {"split": split}
            yield f"{path}: row {number + 1}{of}", number + 1, {**row, "meta": meta}
