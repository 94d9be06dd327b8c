"""Rows of tokens: read from JSONL, checked, and written.

A row is ``{"tokens": "<IMG> <Z_017> … </IMG> <CLS> <CLS_3> <EOS>", "label": 3, "meta": {}}``.
data/README.md says what each field may hold.
"""

import gzip
import json
import math
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqlm.atomic import atomic_path
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
from seqlm.utils import json_name

SPLITS = ("train", "val", "test")
MAX_LABEL = 2**31 - 1  # where the vocabulary has no class tokens


@dataclass(frozen=True)
class Record:
    """One row: its tokens, its class if it has one, its other fields, and its line in the file.

    Where reading changed a row, `meta` says so: `repaired_tail` is true, `cut_codes` counts.
    """

    tokens: tuple[str, ...]
    label: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    line: int | None = field(default=None, compare=False)
    # Its tokens in the file, where reading cut or replaced some of them.
    original: tuple[str, ...] | None = field(default=None, compare=False, repr=False)

    @property
    def source(self) -> Hashable | None:
        """What the row was made from (`meta.source_id`); None where it is missing, empty or NaN."""
        source = self.meta.get("source_id")
        nothing = isinstance(source, float) and not math.isfinite(source)
        return None if nothing or not str(source).strip() else source

    @property
    def codes(self) -> tuple[str, ...]:
        """The code tokens alone: two rows with the same codes are the same picture."""
        return tuple(t for t in self.tokens if t == UNK or is_code(t))


def lacks_class_token(record: Record) -> bool:
    """Whether a read-layout row ends in ``<CLS> <CLS>``, or, with a label, in ``<CLS>`` alone.

    An ``<EOS>`` may follow.
    In the draw layout ``<CLS> <CLS> <IMG>`` is no defect: there the class is withheld on purpose.
    """
    if layout_of(record.tokens) != "read":
        return False
    tail = record.tokens[record.tokens.index(IMG_END) + 1 :]
    tail = tail[:-1] if tail[-1:] == (EOS,) else tail
    return tail == (CLS, CLS) or (tail == (CLS,) and record.label is not None)


@dataclass
class RowReader:
    """Checks a row, repairs and shortens it.

    `repair_tail` writes the class from `label` into rows that lack it. `allow_unknown` reads tokens
    outside `vocab` as ``<UNK>``. Rows longer than `max_length` lose codes from the left, so that
    the tail survives.
    """

    vocab: Mapping[str, int]
    repair_tail: bool = False
    allow_unknown: bool = False
    max_length: int | None = None

    def __post_init__(self):
        if self.max_length is not None and self.max_length < 2:
            wrong = f"max_length is {self.max_length}"
            raise ConfigError(f"{wrong}; it counts tokens and must be 2 or more")
        # One string per token, however many rows hold it.
        self.known = {token: token for token in self.vocab}
        self.n_classes = sum(class_of(token) is not None for token in self.vocab)

    def __call__(self, row: Any, line: int) -> tuple[Record, bool]:
        """The row, and whether it lacks its class token. Raises DataError ``field: …``."""
        record = _checked(row, self.n_classes, line)
        lacks = lacks_class_token(record)
        if lacks and self.repair_tail:
            record, lacks = _repaired(record, self.known), False
        original = record.tokens
        if self.max_length is not None and len(record.tokens) > self.max_length:
            kept = shorten(record.tokens, self.max_length)
            meta = record.meta | {"cut_codes": len(record.tokens) - len(kept)}
            record = replace(record, tokens=kept, meta=meta)
        tokens = _known_tokens(record.tokens, self.known, self.allow_unknown)
        if len(tokens) == 1:
            raise DataError(f"tokens: {tokens[0]!r} stands alone, nothing follows; remove the row")
        same = tokens == original
        return replace(record, tokens=tokens, original=None if same else original), lacks


def warn_of_rows(path: str | Path, n_rows: int, lacking: Sequence[int]) -> None:
    """Raise DataError when a file has no rows; warn of the lines whose class token is missing."""
    if not n_rows:
        raise DataError(f"{path}: the file has no rows; write one JSON object per line")
    if len(lacking):
        message = (
            f"{path}: the class token is missing in {len(lacking)} of {n_rows} rows (the first is "
            f"line {lacking[0]}): they end in '{CLS} {CLS} {EOS}', '{CLS} {EOS}' or '{CLS}', where "
            f"for example '{CLS} {class_token(3)} {EOS}' was meant. The model can never learn the "
            "class from these rows, and every class-token number would be meaningless. To put the "
            "class back from each row's label, use --repair_tail (repair_tail=True)."
        )
        warnings.warn(message, DataWarning, stacklevel=3)


def _checked(row: Any, n_classes: int, line: int) -> Record:
    if not isinstance(row, dict):
        raise DataError(f'a row must be an object like {{"tokens": "…"}}, not {row!r:.40}')
    if "tokens" not in row:
        raise DataError("tokens: the field is missing; every row needs it")
    text, label, meta = row["tokens"], row.get("label"), row.get("meta")
    meta = {} if meta is None else meta
    if not isinstance(text, str):
        raise DataError(
            f"tokens: expected text, got {json_name(text)}; join the tokens with spaces"
        )
    tokens = tuple(text.split())
    if not tokens:
        raise DataError("tokens: there are no tokens; remove the row")
    if PAD in tokens:
        raise DataError(f"tokens: {PAD} stands in the row; remove it, batches are padded later")
    if label is not None:
        _check_label(label, n_classes, tokens)
    if not isinstance(meta, dict):
        raise DataError(f"meta: expected an object, got {json_name(meta)}")
    if meta.get("split") not in (None, *SPLITS):
        raise DataError(f"meta.split: {meta['split']!r} is none of train, val, test; use one")
    if isinstance(meta.get("source_id"), (list, dict)):
        raise DataError("meta.source_id: expected text or a number")
    return Record(tokens, label, meta, line)


def _check_label(label: Any, n_classes: int, tokens: tuple[str, ...]) -> None:
    if type(label) is not int:
        raise DataError(f"label: {json.dumps(label):.40} is not a whole number; write one like 3")
    last = (n_classes or MAX_LABEL + 1) - 1
    if not 0 <= label <= last:
        raise DataError(f"label: {label} is out of range; classes go from 0 to {last}")
    if set(map(class_of, set(tokens))) - {None, label}:
        token = next(token for token in tokens if class_of(token) not in (None, label))
        raise DataError(f"label: it is {label}, but the row holds {token}; fix one of them")


def _repaired(record: Record, known: Mapping[str, str]) -> Record:
    if record.label is None:
        raise DataError("label: it is missing, so the class token cannot be added; add the label")
    token = class_token(record.label)
    if token not in known:
        raise DataError(f"label: the vocabulary has no {token} for it; add it")
    head = record.tokens[: record.tokens.index(IMG_END) + 1]
    meta = record.meta | {"repaired_tail": True}
    return replace(record, tokens=(*head, CLS, token, EOS), meta=meta)


def _known_tokens(
    tokens: tuple[str, ...], known: Mapping[str, str], allow_unknown: bool
) -> tuple[str, ...]:
    result = tuple(map(known.get, tokens))
    if None not in result:
        return result
    if allow_unknown:
        return tuple(token or UNK for token in result)
    unknown = list(dict.fromkeys(t for t in tokens if t not in known))
    more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    fix = f"add it to the vocabulary, or read it as {UNK} with --allow_unknown"
    raise DataError(f"tokens: unknown token {unknown[0]!r}{more}; {fix}")


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Write one JSON object per line, gzipped when the name ends in .gz; all rows or none."""
    with atomic_path(path) as aside:
        open_text = gzip.open if str(path).endswith(".gz") else open
        with open_text(aside, "wt", encoding="utf-8", newline="\n") as stream:
            for record in records:
                stream.write(as_line(record) + "\n")


def as_line(record: Record) -> str:
    """A record as the data contract has it: one JSON object, on one line."""
    row = {"tokens": " ".join(record.tokens), "label": record.label, "meta": record.meta}
    return json.dumps(row, ensure_ascii=False, default=plain)


def plain(value: Any) -> Any:
    """What JSON can hold in place of `value`; DataError where it is no number of numpy's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise DataError(f"meta: a {type(value).__name__} cannot be written as JSON; make it text")


def describe(records: Sequence[Record]) -> dict[str, Any]:
    """Count rows, lengths in tokens, layouts and defects of a data set."""
    if not records:
        raise DataError("there are no rows to describe; read some first")
    lengths = np.array([len(record.tokens) for record in records])  # (n_rows,)
    return {
        "rows": len(records),
        "length_min": int(lengths.min()),
        "length_median": float(np.median(lengths)),
        "length_max": int(lengths.max()),
        "layouts": dict(Counter(layout_of(record.tokens) for record in records).most_common()),
        "unknown_tokens": sum(record.tokens.count(UNK) for record in records),
        "missing_class": sum(map(lacks_class_token, records)),
        "repaired_tail": sum("repaired_tail" in record.meta for record in records),
    }
