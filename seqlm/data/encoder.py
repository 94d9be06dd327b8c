"""Rows are checked and turned into columns, a batch at a time."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from seqlm.data.files import SPLITS
from seqlm.data.records import Record, RowReader
from seqlm.data.tokens import IMG_END, KIND_CLASS, KIND_CODE, UNK, layout_of, token_kinds

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
    """Turns rows into columns, a batch at a time."""

    def __init__(self, vocab: Mapping[str, int], **settings):
        """`settings` are those of `RowReader`."""
        self.vocab, self.reader = vocab, RowReader(vocab, **settings)
        kinds = token_kinds(vocab)
        self.is_class, self.coded = kinds == KIND_CLASS, kinds == KIND_CODE  # (V,) bool
        self.coded[vocab[UNK]] = True
        self.dtype = np.uint16 if len(vocab) <= 2**16 else np.int32
        self._clear()

    def _clear(self) -> None:
        self.ids, self.metas = [], []
        self.columns: dict[str, list] = {name: [] for name in COLUMNS}

    def append(self, record: Record, lacks: bool = False) -> None:
        """Append a row that is as it should be; `lacks` says that its class token is missing."""
        unknown, label, meta = self.vocab[UNK], record.label, record.meta
        ids = np.array([self.vocab.get(t, unknown) for t in record.tokens], self.dtype)
        codes, layout = ids[self.coded[ids]], layout_of(record.tokens)
        prompt = record.tokens.index(IMG_END) + 2 if layout == "read" else 0
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
            "line": -1 if record.line is None else record.line,
        }
        for name, value in row.items():
            self.columns[name].append(value)
        self.ids.append(ids)
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
