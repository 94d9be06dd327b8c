"""Checked rows become Arrow columns, in memory or on disk; one is made when it is asked for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, repeat

import numpy as np
import pyarrow as pa

from seqlm.data.records import SPLITS, Record, RowReader, plain
from seqlm.data.tokens import (
    IMG_END,
    KIND_CLASS,
    KIND_CODE,
    STRUCTURAL,
    UNK,
    is_code,
    layout_of,
    token_kinds,
)

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
            "meta": json.dumps(meta, default=plain) if meta else None,
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


class _Rows(Sequence):
    """What `Ids` and `Table` share: equal to any sequence of the same rows."""

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))


class Ids(_Rows):
    """Rows of ids; one is made a list when it is asked for, a slice is again `Ids`."""

    def __init__(self, column: pa.ChunkedArray, rows: np.ndarray, lengths: np.ndarray):
        """`rows` (N,) choose among the lists of `column`; `lengths` (N,) are how much of each."""
        self.column, self.rows, self.lengths = column, rows, lengths

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ids":
        """`rows` themselves where they are `Ids`, else a copy of the lists."""
        if isinstance(rows, Ids):
            return rows
        column = pa.chunked_array([pa.array(rows, pa.list_(pa.int64()))])
        return cls(column, np.arange(len(rows)), row_lengths(rows))

    def __getitem__(self, index):
        if not isinstance(index, (int, np.integer)):
            return Ids(self.column, self.rows[index], self.lengths[index])
        return self._array(index).tolist()

    def _array(self, index: int) -> np.ndarray:
        return self.column[int(self.rows[index])].values.to_numpy()[: self.lengths[index]]

    def flat(self) -> np.ndarray:
        """The ids of all these rows, one after the other. (M,) int64."""
        rows = [self._array(i) for i in range(len(self))]
        return np.concatenate([np.empty(0, np.int64), *rows], dtype=np.int64)

    def count(self, token_id: int) -> int:
        """How often an id stands in these rows."""
        return sum(int((self._array(i) == token_id).sum()) for i in range(len(self)))

    def digest(self) -> str:
        """A hash of these rows in this order, whatever they are stored in."""
        total = hashlib.blake2b(self.lengths.astype("<i8").tobytes(), digest_size=16)
        for i in range(len(self)):
            total.update(self._array(i).astype("<i4").tobytes())
        return total.hexdigest()


def row_lengths(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """How many ids each row has. (N,) int64."""
    if isinstance(rows, Ids):
        return rows.lengths
    return np.fromiter(map(len, rows), np.int64, len(rows))


class Table(_Rows):
    """Chosen rows of what `Encoder` made; one is made a `Record` when it is asked for."""

    def __init__(self, names: Sequence[str], arrow: pa.Table, rows: np.ndarray | None = None):
        """`names` are the tokens in the order of their ids; `rows` (N,) choose, None means all."""
        self.names, self.arrow = names, arrow
        self.rows = np.arange(len(arrow)) if rows is None else rows

    @classmethod
    def of(cls, records: Sequence[Record], vocab: Mapping[str, int] | None = None) -> "Table":
        """Records as columns; `records` themselves where they are those, with ids of `vocab`.

        Without `vocab` any ids will do.
        """
        if isinstance(records, Table) and (
            vocab is None or [*vocab][: len(records.names)] == records.names
        ):
            return records
        if vocab is None:
            tokens = chain(STRUCTURAL, *(record.tokens for record in records))
            vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
        encoder = Encoder(vocab)
        for record in records:
            encoder.append(record)
        return cls([*vocab], pa.Table.from_batches([encoder.batch()]))

    def __getitem__(self, index):
        if not isinstance(index, (int, np.integer)):
            return Table(self.names, self.arrow, self.rows[index])
        row = int(self.rows[index])
        tokens = tuple(self.names[i] for i in self.arrow["ids"][row].values.to_numpy())
        label, meta, line = (self.arrow[k][row].as_py() for k in ("label", "meta", "line"))
        label, line = (None if number < 0 else number for number in (label, line))
        return Record(tokens, label, json.loads(meta) if meta else {}, line)

    def __add__(self, other: "Table") -> "Table":
        """These rows, and then those of `other`, whose vocabulary begins as this one's."""
        names = max(self.names, other.names, key=len)
        arrow = pa.concat_tables([self.arrow, other.arrow], promote_options="permissive")
        return Table(names, arrow, np.concatenate([self.rows, other.rows + len(self.arrow)]))

    def column(self, name: str) -> np.ndarray:
        """A column of numbers of these rows. (N,)."""
        return self.arrow[name].to_numpy()[self.rows]

    def of_layout(self, layout: str) -> "Table":
        """The rows in one of LAYOUTS."""
        return self[self.column("layout") == LAYOUTS.index(layout)]

    def ids(self, length: str = "length") -> Ids:
        """Ids of these rows; with "prompt" as `length` those of their `reading_prompt`."""
        return Ids(self.arrow["ids"], self.rows, self.column(length))


def first_rows(keys: np.ndarray) -> np.ndarray:
    """The first row with the key of each row; the row itself where the key is 0. (N,)."""
    first, keyed = np.arange(len(keys)), np.flatnonzero(keys)
    _, place, inverse = np.unique(keys[keyed], return_index=True, return_inverse=True)
    first[keyed] = keyed[place][inverse]
    return first
