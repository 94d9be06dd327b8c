"""Rows of a file, or of a `datasets` directory, as they are: nothing in them is checked yet."""

import gzip
import json
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from seqlm.errors import DataError
from seqlm.utils import why_unreadable

SPLITS = ("train", "val", "test")


class Part(NamedTuple):
    """A part of a file: its bytes, and how many lines come before."""

    start: int
    stop: int
    lines_before: int


def read_rows(path: str | Path, part: Part | None = None) -> Iterator[tuple[str, int, Any]]:
    """The place for messages, the number and the content of each line that is not empty.

    `path` is a file, plain or gzipped, "-" for standard input, or what `datasets` saved with
    save_to_disk. Raises DataError, naming file and line, for a line that is not JSON.
    """
    at_stdin = str(path) == "-"
    if not at_stdin and is_dataset(path):
        yield from _read_dataset(path)
        return
    line = part.lines_before if part else 0
    left = part.stop - part.start if part else math.inf
    try:
        with sys.stdin.buffer if at_stdin else open(path, "rb") as plain:
            if part:
                plain.seek(part.start)
            packed = plain.peek(2)[:2] == b"\x1f\x8b"
            with gzip.open(plain, "rb") if packed else plain as stream:
                for block in stream:
                    for raw in block.splitlines():  # a line may also end in a CR alone
                        line += 1
                        text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
                        if text:
                            yield f"{path}:{line}", line, json.loads(text)
                    left -= len(block)
                    if left <= 0:
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


def _read_dataset(path: str | Path) -> Iterator[tuple[str, int, Any]]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises what Arrow and the file system do
        raise DataError(
            f"{path}: `datasets` cannot load it ({error!s:.90}); save it again"
        ) from error
    splits = {None: loaded} if isinstance(loaded, datasets.Dataset) else loaded
    for key, rows in splits.items():
        split = "val" if key == "validation" else key
        if split not in (None, *SPLITS):
            raise DataError(f"{path}: split {key!r} is none of train, val, test; rename it")
        of = "" if split is None else f" of {split}"
        for number, row in enumerate(rows, start=1):
            # Arrow gives every row all fields; those that are null were not there.
            meta = {} if row.get("meta") is None else row["meta"]
            if isinstance(meta, dict):
                meta = {name: value for name, value in meta.items() if value is not None}
                meta |= {"split": split} if split else {}
            yield f"{path}: row {number}{of}", number, {**row, "meta": meta}
