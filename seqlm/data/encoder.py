"""Rows are checked and turned into columns, a batch at a time."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from seqlm.data.files import SPLITS
from seqlm.data.records import RowReader
from seqlm.data.tokens import (
    CLS,
    EOS,
    IMG,
    IMG_END,
    KIND_CLASS,
    KIND_CODE,
    PAD,
    UNK,
    class_of,
    token_kinds,
)

LAYOUTS = ("other", "read", "draw")
# What is kept of a row beside its ids and its meta, and as what.
COLUMNS = {
    "label": np.int64,  # -1: none
    "layout": np.int8,  # a place in LAYOUTS
    "split": np.int8,  # meta.split as a place in SPLITS; -1: none
    "source": np.int64,  # hash of meta.source_id; 0: none
    "codes": np.int64,  # hash of the codes
    "prompt": np.int64,  # length of `reading_prompt`; 0: it has none, -1: a class is in it
    "lacks": np.int8,  # whether the class token was missing
    "cut": np.int8,  # whether codes were cut
    "line": np.int64,  # -1: unknown
}


class Encoder:
    """Turns rows into columns, a batch at a time.

    A row as it should be is checked on its ids, which is fast. Any other goes through `RowReader`,
    the one source of messages.
    """

    def __init__(self, vocab: Mapping[str, int], **settings):
        """`settings` are those of `RowReader`."""
        self.vocab, self.reader = vocab, RowReader(vocab, **settings)
        kinds = token_kinds(vocab)
        self.coded = kinds == KIND_CODE  # (V,) bool
        self.coded[vocab[UNK]] = True
        self.is_class = kinds == KIND_CLASS
        self.classes = {i: class_of(t) for t, i in vocab.items() if self.is_class[i]}
        self.pad, self.img, self.end, self.cls, self.eos = (
            vocab[token] for token in (PAD, IMG, IMG_END, CLS, EOS)
        )
        self.dtype = np.uint16 if len(vocab) <= 2**16 else np.int32
        self._clear()

    def _clear(self) -> None:
        self.ids, self.metas = [], []
        self.columns: dict[str, list] = {name: [] for name in COLUMNS}

    def read(self, row: object, line: int) -> None:
        """Check a row and append it. Raises DataError as `RowReader` does."""
        fast = self._fast(row)
        if fast is None:
            record, lacks = self.reader(row, line)
            ids = np.array([self.vocab[token] for token in record.tokens])
            fast = (ids, record.label, record.meta, lacks)
        ids, label, meta, lacks = fast
        self.append(ids, label, meta, line, lacks)

    def _fast(self, row: object) -> tuple | None:
        """ids, label, meta and whether the class is missing; None for a row that needs a look."""
        try:
            words, label, meta = row["tokens"].split(), row.get("label"), row.get("meta")
            ids = np.fromiter(map(self.vocab.__getitem__, words), np.int64, len(words))
        except (KeyError, TypeError, AttributeError):
            return None
        meta = {} if meta is None else meta
        known = type(meta) is dict and meta.get("split") in (None, *SPLITS)
        if not known or not words or isinstance(meta.get("source_id"), (list, dict)):
            return None
        others = ids[~self.coded[ids]].tolist()
        if self.pad in others:
            return None
        if label is not None:
            in_range = type(label) is int and 0 <= label < (len(self.classes) or 2**31)
            if not in_range or any(self.classes.get(i, label) != label for i in others):
                return None
        layout, after, _ = self._shape(ids)
        tail = tuple(ids[after:].tolist()) if layout == "read" else ()
        lacks = tail == (self.cls, self.eos) or (tail == (self.eos,) and label is not None)
        if lacks and self.reader.repair_tail:
            return None
        limit = self.reader.max_length
        if limit is not None and len(ids) > limit:
            codes = np.flatnonzero(self.coded[ids])
            surplus = len(ids) - limit
            if len(codes) <= surplus:
                return None
            ids, meta = np.delete(ids, codes[:surplus]), meta | {"cut_codes": surplus}
        return ids, label, meta, lacks

    def _shape(self, ids: np.ndarray) -> tuple[str, int, np.ndarray]:
        """Layout; in the read layout, the length of the prompt, else 0; and the codes."""
        coded = self.coded[ids]
        places = np.flatnonzero(~coded)
        others, codes = ids[places].tolist(), ids[coded]
        if self.img not in others or self.end not in others:
            return "other", 0, codes
        start, end = (int(places[others.index(token)]) for token in (self.img, self.end))
        if start == 0 and end + 1 < len(ids) and ids[end + 1] == self.cls:
            return "read", end + 2, codes
        return "draw" if start == 2 and ids[0] == self.cls else "other", 0, codes

    def append(
        self, ids: np.ndarray, label: int | None, meta: dict, line: int | None, lacks: bool = False
    ) -> None:
        """Append a row that is as it should be."""
        layout, prompt, codes = self._shape(ids)
        split, source = meta.get("split"), meta.get("source_id")
        row = {
            "label": -1 if label is None else label,
            "layout": LAYOUTS.index(layout),
            "split": SPLITS.index(split) if split in SPLITS else -1,
            "source": 0 if source is None else hash_source(source),
            "codes": _hash(codes.astype("<i4").tobytes()),
            "prompt": -1 if self.is_class[ids[:prompt]].any() else prompt,
            "lacks": lacks,
            "cut": "cut_codes" in meta,
            "line": -1 if line is None else line,
        }
        for name, value in row.items():
            self.columns[name].append(value)
        self.ids.append(ids.astype(self.dtype))
        self.metas.append(json.dumps(meta, default=_plain) if meta else None)

    def batch(self) -> pa.RecordBatch:
        """The rows appended since the last batch: ids, meta, and COLUMNS."""
        starts = np.cumsum([0, *map(len, self.ids)], dtype=np.int32)
        values = np.concatenate([np.empty(0, self.dtype), *self.ids])
        arrays = {
            "ids": pa.ListArray.from_arrays(starts, values),
            "meta": pa.array(self.metas, pa.string()),
            **{name: pa.array(np.array(self.columns[name], t)) for name, t in COLUMNS.items()},
        }
        self._clear()
        return pa.RecordBatch.from_pydict(arrays)


def _plain(value):
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def hash_source(source: object) -> int:
    """A hash of meta.source_id, the same for all that are equal in Python: 1, 1.0 and true."""
    whole = isinstance(source, (int, np.integer))
    whole = whole or (isinstance(source, float) and source.is_integer())
    return _hash(repr(int(source) if whole else source).encode(errors="surrogatepass"))
