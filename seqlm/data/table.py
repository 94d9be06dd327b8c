"""Rows as columns, in memory or mapped from disk: ids, labels, layouts, hashes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from seqlm.data.encoder import COLUMNS, LAYOUTS, Encoder
from seqlm.data.records import Record

HASHED_AT_ONCE = 4_096  # rows


class _Rows(Sequence):
    """What `Ids` and `Table` share: equal to any sequence of the same rows."""

    __hash__ = None

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __eq__(self, other) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))


class Ids(_Rows):
    """Rows of ids; one is made a list when it is asked for, a slice is again `Ids`."""

    def __init__(self, chunks: list[tuple], rows: np.ndarray, lengths: np.ndarray):
        """`chunks` are pairs of ids (M,) and where each row starts, (n + 1,); `rows` (N,) choose
        among the rows of all chunks, and `lengths` (N,) are how much of each there is."""
        self.chunks, self.rows, self.lengths = chunks, rows, lengths
        self.first = np.cumsum([0, *(len(starts) - 1 for _, starts in chunks)])

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ids":
        """`rows` themselves where they are `Ids`, else a copy of the lists."""
        if isinstance(rows, Ids):
            return rows
        lengths = row_lengths(rows)
        ids = np.fromiter((i for row in rows for i in row), np.int64, lengths.sum())
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return cls([(ids, starts)], np.arange(len(rows)), lengths)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        if not isinstance(index, (int, np.integer)):
            return Ids(self.chunks, self.rows[index], self.lengths[index])
        return self._array(index).tolist()

    def _array(self, index: int) -> np.ndarray:
        row = self.rows[index]
        chunk = np.searchsorted(self.first, row, "right") - 1
        ids, starts = self.chunks[chunk]
        start = starts[row - self.first[chunk]]
        return ids[start : start + self.lengths[index]]

    def flat(self) -> np.ndarray:
        """The ids of all these rows, one after the other. (M,) int64."""
        rows = [self._array(i) for i in range(len(self))]
        return np.concatenate([np.empty(0, np.int64), *rows], dtype=np.int64)

    def digest(self) -> str:
        """A hash of these rows in this order, whatever they are stored in."""
        total = hashlib.blake2b(self.lengths.astype("<i8").tobytes(), digest_size=16)
        for start in range(0, len(self), HASHED_AT_ONCE):
            total.update(self[start : start + HASHED_AT_ONCE].flat().astype("<i4").tobytes())
        return total.hexdigest()


def row_lengths(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """How many ids each row has. (N,) int64."""
    return (
        rows.lengths if isinstance(rows, Ids) else np.fromiter(map(len, rows), np.int64, len(rows))
    )


class Store(NamedTuple):
    """Columns of rows; of a mapped file only `columns` are in memory."""

    names: Sequence[str]  # id -> token
    chunks: list[tuple]  # ids and starts, as in `Ids`
    metas: list[pa.Array]  # JSON texts, as many as the chunks; null where meta is empty
    columns: dict[str, np.ndarray]  # COLUMNS, and "length"


class Table(_Rows):
    """Chosen rows of a `Store`; one is made a `Record` when it is asked for."""

    def __init__(self, store: Store, rows: np.ndarray | None = None):
        self.store = store
        self.rows = np.arange(len(store.columns["line"])) if rows is None else rows

    @classmethod
    def of(cls, records: Sequence[Record], vocab: Mapping[str, int]) -> "Table":
        """Records as columns; `records` themselves where they are those of this vocabulary."""
        if isinstance(records, Table):
            names = records.store.names
            if list(vocab)[: len(names)] == names:
                return records
        encoder = Encoder(vocab)
        for record in records:
            encoder.append(record)
        return cls.from_arrow(pa.Table.from_batches([encoder.batch()]), vocab)

    @classmethod
    def from_arrow(cls, arrow: pa.Table, vocab: Mapping[str, int]) -> "Table":
        """What `Encoder.batch` made; the ids are not copied."""
        columns = {name: arrow[name].to_numpy() for name in COLUMNS}
        lists = [chunk for chunk in arrow["ids"].chunks if len(chunk)]
        chunks = [(a.values.to_numpy(), a.offsets.to_numpy()) for a in lists]
        columns["length"] = np.concatenate(
            [np.empty(0, np.int64), *(np.diff(starts) for _, starts in chunks)], dtype=np.int64
        )
        metas = [chunk for chunk in arrow["meta"].chunks if len(chunk)]
        return cls(Store(list(vocab), chunks, metas, columns))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        if not isinstance(index, (int, np.integer)):
            return Table(self.store, self.rows[index])
        row = self.rows[index]
        label, line = (int(self.store.columns[name][row]) for name in ("label", "line"))
        tokens = tuple(map(self.store.names.__getitem__, self._all_ids[int(row)]))
        chunk = np.searchsorted(self._all_ids.first, row, "right") - 1
        meta = self.store.metas[chunk][int(row - self._all_ids.first[chunk])].as_py()
        return Record(
            tokens,
            None if label < 0 else label,
            json.loads(meta) if meta else {},
            None if line < 0 else line,
        )

    def __add__(self, other: "Table") -> "Table":
        """These rows, and then those of `other`, whose vocabulary begins as this one's."""
        one, two = self.store, other.store
        names = max(one.names, two.names, key=len)
        columns = {k: np.concatenate([v, two.columns[k]]) for k, v in one.columns.items()}
        store = Store(names, one.chunks + two.chunks, one.metas + two.metas, columns)
        return Table(store, np.concatenate([self.rows, other.rows + len(one.columns["line"])]))

    @cached_property
    def _all_ids(self) -> Ids:
        n = len(self.store.columns["line"])
        return Ids(self.store.chunks, np.arange(n), self.store.columns["length"])

    def column(self, name: str) -> np.ndarray:
        """One of COLUMNS, or "length", of these rows. (N,)."""
        return self.store.columns[name][self.rows]

    def of_layout(self, layout: str) -> "Table":
        """The rows in one of LAYOUTS."""
        return self[self.column("layout") == LAYOUTS.index(layout)]

    def number_sources(self) -> np.ndarray:
        """The source of each row, in the order of their first rows; no source is one, too. (N,)."""
        sources, first = self.column("source"), np.arange(len(self))
        named = np.flatnonzero(sources)
        _, place, inverse = np.unique(sources[named], return_index=True, return_inverse=True)
        first[named] = named[place][inverse]
        return np.unique(first, return_inverse=True)[1]

    def ids(self, length: str = "length") -> Ids:
        """Ids of these rows; with "prompt" as `length` those of their `reading_prompt`."""
        return Ids(self.store.chunks, self.rows, self.column(length))
