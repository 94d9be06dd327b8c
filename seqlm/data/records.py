"""Sequence records: rows of tokens read from JSONL, checked, and written.

A row is ``{"tokens": "<IMG> <Z_017> … </IMG> <CLS> <CLS_3> <EOS>", "label": 3, "meta": {}}``.
data/README.md says what each field may hold.
"""

import gzip
import json
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from seqlm.data.tokens import (
    CLS,
    EOS,
    IMG_END,
    PAD,
    UNK,
    class_of,
    class_token,
    is_code,
    layout_of,
    shorten,
)
from seqlm.errors import ConfigError, DataError, DataWarning
from seqlm.utils import atomic_path, json_name, why_unreadable

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Record:
    """One row: its tokens, its class if it has one, whatever else came with it, and its line.

    Where reading changed a row, `meta` says so: `repaired_tail` is true, `cut_codes` counts.
    """

    tokens: tuple[str, ...]
    label: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    line: int | None = field(default=None, compare=False)

    @property
    def source(self) -> Hashable | None:
        """What the row was made from (`meta.source_id`), or None when it does not say."""
        return self.meta.get("source_id")

    @property
    def codes(self) -> tuple[str, ...]:
        """The code tokens alone: two rows with the same codes are the same picture."""
        return tuple(t for t in self.tokens if t == UNK or is_code(t))


def lacks_class_token(record: Record) -> bool:
    """Whether a read-layout row ends without its class.

    That is ``<CLS> <CLS> <EOS>``, or ``<CLS> <EOS>`` in a row that has a label. In the draw layout
    ``<CLS> <CLS> <IMG>`` is no defect: there the class is withheld on purpose.
    """
    if layout_of(record.tokens) != "read":
        return False
    tail = record.tokens[record.tokens.index(IMG_END) + 1 :]
    return tail == (CLS, CLS, EOS) or (tail == (CLS, EOS) and record.label is not None)


def read_records(
    path: str | Path,
    vocab: Mapping[str, int],
    *,
    repair_tail: bool = False,
    allow_unknown: bool = False,
    max_length: int | None = None,
) -> list[Record]:
    """Read a JSONL file (UTF-8, plain or gzipped) line by line, and check every row.

    The path "-" is standard input.

    `repair_tail` writes the class from `label` into rows that lack it; without it, such rows raise
    one DataWarning in all. `allow_unknown` reads tokens outside `vocab` as ``<UNK>``. Rows longer
    than `max_length` lose codes from the left, so that the tail survives.
    Raises DataError ``file:line: field: what is wrong; how to fix it`` at the first bad row.
    """
    if max_length is not None and max_length < 1:
        raise ConfigError(f"max_length is {max_length}; it counts tokens and must be 1 or more")
    known = {token: token for token in vocab}  # one string a token, however many rows hold it
    n_classes = sum(class_of(token) is not None for token in vocab)
    records: list[Record] = []
    lacking: list[int] = []
    for line, row in read_rows(path):
        where = f"{path}:{line}"
        record = _checked(row, n_classes, where, line)
        if lacks_class_token(record):
            if repair_tail:
                record = _repaired(record, known, where)
            else:
                lacking.append(line)
        if max_length is not None and len(record.tokens) > max_length:
            record = _cut(record, max_length, where)
        tokens = _known_tokens(record.tokens, known, allow_unknown, where)
        records.append(Record(tokens, record.label, record.meta, line))
    if not records:
        raise DataError(f"{path}: there is no row in it; write one JSON object a line")
    if lacking:
        warnings.warn(_lacking_words(path, lacking, len(records)), DataWarning, stacklevel=2)
    return records


def read_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    """The number and the parsed JSON of each line of a JSONL file that is not empty."""
    line = 0
    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as plain:
            packed = plain.peek(2)[:2] == b"\x1f\x8b"
            with gzip.open(plain, "rb") if packed else plain as stream:
                for line, raw in enumerate(stream, start=1):
                    text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
                    if text:
                        yield line, json.loads(text)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{line}: the text is not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path}:{line}: not valid JSON ({error}); write one whole object on each line"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}:{line}: brackets are nested too deep; flatten the row") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{line}: the gzip file is damaged ({error}); pack anew") from error
    except OSError as error:
        raise DataError(why_unreadable(path, error)) from error


def _checked(row: Any, n_classes: int, where: str, line: int) -> Record:
    if not isinstance(row, dict):
        raise DataError(f'{where}: a row must be an object like {{"tokens": "…"}}, not {row!r:.40}')
    if "tokens" not in row:
        raise DataError(f"{where}: tokens: the field is missing; every row needs it")
    text, label, meta = row["tokens"], row.get("label"), row.get("meta")
    if not isinstance(text, str):
        raise DataError(f"{where}: tokens: {json_name(text)} where text is wanted; join the tokens")
    tokens = tuple(text.split())
    if not tokens:
        raise DataError(f"{where}: tokens: there is not one token in it; leave the row out")
    if PAD in tokens:
        raise DataError(
            f"{where}: tokens: {PAD} stands in the row; take it out, padding is added when rows "
            "are put into batches"
        )
    _check_label(label, n_classes, where)
    for token in () if label is None else dict.fromkeys(tokens):
        if class_of(token) not in (None, label):
            raise DataError(
                f"{where}: label: it says {label}, but the row holds {token}; fix one of the two"
            )
    _check_meta(meta, where)
    return Record(tokens, label, meta or {}, line)


def _check_meta(meta: Any, where: str) -> None:
    if meta is None:
        return
    if not isinstance(meta, dict):
        raise DataError(f"{where}: meta: {json_name(meta)} where an object is wanted")
    if meta.get("split") not in (None, *SPLITS):
        raise DataError(
            f"{where}: meta.split: {meta['split']!r} is none of train, val, test; use one of them"
        )
    if isinstance(meta.get("source_id"), (list, dict)):
        raise DataError(f"{where}: meta.source_id: text or a number is wanted, so that it compares")


def _check_label(label: Any, n_classes: int, where: str) -> None:
    if label is None:
        return
    if type(label) is not int:
        raise DataError(
            f"{where}: label: {json.dumps(label):.40} is not a whole number; write one like 3, "
            "or leave the field out"
        )
    if label < 0 or (n_classes and label >= n_classes):
        last = f"0 to {n_classes - 1}" if n_classes else "0 up"
        raise DataError(f"{where}: label: {label} is out of range; classes go from {last}")


def _repaired(record: Record, known: Mapping[str, str], where: str) -> Record:
    if record.label is None:
        raise DataError(
            f"{where}: label: it is missing, so the class token cannot be put back; add the label "
            "or leave the row out"
        )
    if class_token(record.label) not in known:
        raise DataError(
            f"{where}: label: the vocabulary has no {class_token(record.label)} to put back; add it"
        )
    head = record.tokens[: record.tokens.index(IMG_END) + 1]
    tokens = (*head, CLS, class_token(record.label), EOS)
    return Record(tokens, record.label, record.meta | {"repaired_tail": True}, record.line)


def _cut(record: Record, max_length: int, where: str) -> Record:
    try:
        tokens = shorten(record.tokens, max_length)
    except DataError as error:
        raise DataError(f"{where}: tokens: {error}") from error
    cut = len(record.tokens) - len(tokens)
    return Record(tokens, record.label, record.meta | {"cut_codes": cut}, record.line)


def _known_tokens(
    tokens: tuple[str, ...], known: Mapping[str, str], allow_unknown: bool, where: str
) -> tuple[str, ...]:
    found = tuple(map(known.get, tokens))
    if None not in found:
        return found
    if allow_unknown:
        return tuple(token or UNK for token in found)
    strangers = list(dict.fromkeys(t for t in tokens if t not in known))
    more = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
    raise DataError(
        f"{where}: tokens: unknown token {strangers[0]!r}{more}; add it to the vocabulary, "
        f"or read it as {UNK} with --allow_unknown"
    )


def _lacking_words(path: str | Path, lacking: list[int], n_rows: int) -> str:
    return (
        f"{path}: the class token is missing in {len(lacking)} of {n_rows} rows (the first is line "
        f"{lacking[0]}): they end in '{CLS} {CLS} {EOS}' or '{CLS} {EOS}', where for example "
        f"'{CLS} {class_token(3)} {EOS}' was meant. The model can never learn the class from these "
        "rows, and every class-token number would be meaningless. To put the class back from each "
        "row's label, use --repair_tail (repair_tail=True)."
    )


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Write one JSON object a line, gzipped when the name ends in .gz; all rows or none."""
    with atomic_path(path) as aside:
        packed = str(path).endswith(".gz")
        opened = gzip.open if packed else open
        with opened(aside, "wt", encoding="utf-8", newline="\n") as stream:
            for record in records:
                stream.write(as_line(record) + "\n")


def as_line(record: Record) -> str:
    """A record as the data contract has it: one JSON object, on one line."""
    row = {"tokens": " ".join(record.tokens), "label": record.label, "meta": record.meta}
    return json.dumps(row, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise DataError(f"meta: a {type(value).__name__} cannot be written as JSON; make it text")


def describe(records: Sequence[Record], vocab: Mapping[str, int]) -> dict[str, Any]:
    """Counts that say what a data set is: rows, lengths in tokens, labels, layouts, defects."""
    if not records:
        raise DataError("there are no rows to describe; read some first")
    lengths = np.array([len(record.tokens) for record in records])  # (n_rows,)
    labels = Counter(record.label for record in records if record.label is not None)
    used = {token for record in records for token in record.codes if token != UNK}
    return {
        "rows": len(records),
        "tokens": int(lengths.sum()),
        "length_min": int(lengths.min()),
        "length_median": float(np.median(lengths)),
        "length_max": int(lengths.max()),
        "labels": dict(sorted(labels.items())),
        "unlabelled": len(records) - labels.total(),
        "layouts": dict(Counter(layout_of(record.tokens) for record in records).most_common()),
        "codes_used": len(used),
        "codes_known": sum(map(is_code, vocab)),
        "unknown_tokens": sum(record.tokens.count(UNK) for record in records),
        "missing_class": sum(map(lacks_class_token, records)),
        "repaired_tail": sum("repaired_tail" in record.meta for record in records),
        "cut": sum("cut_codes" in record.meta for record in records),
    }
