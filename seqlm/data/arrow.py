"""Rows of a file or a `datasets` directory, as a `Table`: of a large one in a cache on disk."""

import atexit
import gzip
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from seqlm.atomic import atomic_dir
from seqlm.data.records import SPLITS, warn_of_rows
from seqlm.data.table import Encoder, Table
from seqlm.errors import DataError, SeqlmError, error_prefix
from seqlm.utils import code_fingerprint, read_json, sha256_of, why_unreadable, write_json

LARGE = 2**24  # bytes; smaller files are read into memory by one process
ROWS_A_BATCH = 4_096
KEPT = 8  # caches; of more, those that were not used for longest are removed
ABOUT = "about.json"


class Part(NamedTuple):
    """A part of a file: its bytes, and how many lines come before."""

    start: int
    stop: int
    lines_before: int


def read_table(path: str | Path, vocab: Mapping[str, int], **settings) -> Table:
    """Read and check every row of a JSONL file (UTF-8, plain or gzipped); "-" is standard input.

    The `settings` are those of `RowReader`; without `repair_tail` the rows that lack their class
    raise one DataWarning in all. The columns of a large file lie in `seqlm` below the cache folder
    of `datasets`, written anew when its content, a setting, the vocabulary or this code changes.
    Raises DataError ``file:line: field: what is wrong; how to fix it`` at the first bad row.
    """
    path, encoder = Path(path), Encoder(vocab, **settings)
    if _size(path) < LARGE:
        arrow = pa.Table.from_batches(_batches(path, None, encoder), encoder.schema)
    else:
        arrow = _cached(path, encoder, [list(vocab), settings])
    table = Table([*vocab], arrow)
    warn_of_rows(path, len(table), table.column("line")[table.column("lacks")])
    return table


def _size(path: Path) -> int:
    """Bytes of a file, or of a `datasets` directory; 0 for what reading it will complain about."""
    files = path.rglob("*") if is_dataset(path) else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _batches(path: Path, part: Part | None, encoder: Encoder) -> Iterator[pa.RecordBatch]:
    for place, line, row in read_rows(path, part):
        with error_prefix(place):
            encoder.append(*encoder.reader(row, line))
        if len(encoder.rows) == ROWS_A_BATCH:
            yield encoder.batch()
    yield encoder.batch()


def _cached(path: Path, encoder: Encoder, settings: list) -> pa.Table:
    """The cached columns of a file, mapped into memory; written first where there are none."""
    from datasets.config import HF_DATASETS_CACHE

    content, parts = _parts(path)
    key = json.dumps([content, settings, code_fingerprint("seqlm.data.arrow")])
    name = f"{path.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder = Path(HF_DATASETS_CACHE) / "seqlm" / name
    arrow = _open(folder)
    if arrow is not None:
        return arrow
    try:
        _write(path, parts, encoder, folder)
        _remove_old(folder.parent)
    except DataError:
        raise
    except (SeqlmError, OSError):  # not writable, or full: for this process alone, elsewhere
        aside = tempfile.mkdtemp(prefix="seqlm-")
        atexit.register(shutil.rmtree, aside, ignore_errors=True)
        folder = Path(aside) / name
        _write(path, parts, encoder, folder)
    return _open(folder)


def _parts(path: Path) -> tuple[str, list[Part | None]]:
    """A hash of the content; and the parts that are read side by side, None being all of it."""
    at_once = _part_size(_size(path))
    if is_dataset(path):
        return sha256_of(path), [None]
    parts, start, lines, digest = [], 0, 0, hashlib.sha256()
    with open(path, "rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        while block := file.read(at_once) + file.readline():  # a part ends where a line does
            digest.update(block)
            parts.append(Part(start, file.tell(), lines))
            start, lines = file.tell(), lines + len(block.splitlines())
    return digest.hexdigest(), [None] if packed else parts


def _part_size(size: int) -> int:
    return min(max(size // (4 * _processes()), 2**20), 2**26)


def _processes() -> int:
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return min(len(usable), 16)


def _write(path: Path, parts: list[Part | None], encoder: Encoder, folder: Path) -> None:
    """Write each part to a file of its own; all of them or none. The first bad row is named."""
    from datasets.utils import tqdm

    bar = partial(tqdm, total=len(parts), desc=f"reading {path.name}", disable=None)
    with atomic_dir(folder) as aside:
        files = [aside / f"{number:05d}.arrow" for number in range(len(parts))]
        write = partial(_write_part, path, encoder)
        workers = min(_processes(), len(parts))
        if workers < 2:
            list(bar(map(write, parts, files)))
        else:
            # "spawn", because a process that has run threads cannot be copied safely. In order, so
            # that the first bad row is the one that is named.
            with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
                list(bar(pool.map(write, parts, files)))
        write_json(aside / ABOUT, {file.name: file.stat().st_size for file in files})


def _write_part(path: Path, encoder: Encoder, part: Part | None, target: Path) -> None:
    with pa.ipc.new_stream(target, encoder.schema) as stream:
        for batch in _batches(path, part, encoder):
            stream.write_batch(batch)


def _open(folder: Path) -> pa.Table | None:
    """The columns in `folder`, mapped; None where they are not there, or damaged."""
    try:
        sizes = read_json(folder / ABOUT)
        if any((folder / name).stat().st_size != size for name, size in sizes.items()):
            return None
        files = [pa.memory_map(str(folder / name)) for name in sizes]
        mapped = [pa.ipc.open_stream(file).read_all() for file in files]
        os.utime(folder)
    except (DataError, OSError, AttributeError, pa.ArrowInvalid):
        return None
    return pa.concat_tables(mapped)


def _remove_old(folder: Path) -> None:
    # What a killed process left unfinished is among them.
    with suppress(OSError):
        by_use = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in by_use[KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


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
