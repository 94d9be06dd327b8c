"""Rows are checked and turned into columns, a batch at a time."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import repeat

import numpy as np
import pyarrow as pa

from seqlm.data.files import SPLITS
from seqlm.data.records import Record, RowReader
from seqlm.data.tokens import IMG_END, KIND_CLASS, KIND_CODE, UNK, is_code, layout_of, token_kinds

LAYOUTS = ("other", "read", "draw")
# What is kept of a row beside its ids, and as what.
COLUMNS = {
    "length": pa.int64(),
    "label": pa.int64(),  # -1: none
    "meta": pa.string(),  # as JSON; null: empty
    "layout": pa.int8(),  # a place in LAYOUTS
    "split": pa.int8(),  # meta.split as a place in SPLITS; -1: none
    "source": pa.int64(),  # hash of meta.source_id; 0: none
    "codes": pa.int64(),  # hash of the code tokens, whatever their ids
    "original": pa.int64(),  # the same of the row in the file, before codes were cut or replaced
    "prompt": pa.int64(),  # length of `reading_prompt`; 0: it has none, -1: a class is in it
    "lacks": pa.bool_(),  # whether the class token was missing
    "cut": pa.bool_(),  # whether codes were cut
    "line": pa.int64(),  # -1: unknown
}


class Encoder:
    """Turns rows into columns, a batch at a time."""

    def __init__(self, vocab: Mapping[str, int], **settings):
        """`settings` are those of `RowReader`."""
        self.vocab, self.reader = vocab, RowReader(vocab, **settings)
        kinds = token_kinds(vocab)
        self.is_class, self.coded = kinds == KIND_CLASS, kinds == KIND_CODE  # (V,) bool
        self.coded[vocab[UNK]] = True
        self.hashes = np.array([hash_value(token) for token in vocab])  # (V,) int64
        self.dtype = np.uint16 if len(vocab) <= 2**16 else np.int32
        self.schema = pa.schema({"ids": pa.list_(pa.from_numpy_dtype(self.dtype)), **COLUMNS})
        self.rows: list[dict] = []

    def append(self, record: Record, lacks: bool = False) -> None:
        """Append a row that is as it should be; `lacks` says that its class token is missing."""
        unknown, meta, layout = self.vocab[UNK], record.meta, layout_of(record.tokens)
        ids = np.fromiter(map(self.vocab.get, record.tokens, repeat(unknown)), self.dtype)
        prompt = record.tokens.index(IMG_END) + 2 if layout == "read" else 0
        split, source = meta.get("split"), record.source
        codes = _hash(self.hashes[ids[self.coded[ids]]].tobytes())
        row = {
            "ids": ids,
            "length": len(ids),
            "label": -1 if record.label is None else record.label,
            "meta": json.dumps(meta, default=_plain) if meta else None,
            "layout": LAYOUTS.index(layout),
            "split": SPLITS.index(split) if split in SPLITS else -1,
            "source": 0 if source is None else hash_value(source),
            "codes": codes,
            "original": codes if record.original is None else _hash_codes(record.original),
            "prompt": -1 if self.is_class[ids[:prompt]].any() else prompt,
            "lacks": lacks,
            "cut": "cut_codes" in meta,
            "line": -1 if record.line is None else record.line,
        }
        self.rows.append(row)

    def batch(self) -> pa.RecordBatch:
        """The rows appended since the last batch: ids, and COLUMNS."""
        batch = pa.RecordBatch.from_pylist(self.rows, self.schema)
        self.rows = []
        return batch


def _plain(value):
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else str(value)


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def _hash_codes(tokens: tuple[str, ...]) -> int:
    hashes = [_hash_token(token) for token in tokens if token == UNK or is_code(token)]
    return _hash(np.array(hashes, np.int64).tobytes())


def hash_value(value: object) -> int:
    """A hash of a token or a meta.source_id, the same for equal ones: 3, 3.0 and "3" are equal."""
    whole = isinstance(value, (int, np.integer))
    whole = whole or (isinstance(value, float) and value.is_integer())
    return _hash(str(int(value) if whole else value).strip().encode(errors="surrogatepass"))


_hash_token = lru_cache(maxsize=1 << 16)(hash_value)
