"""Rows as Arrow columns, in memory or mapped from disk; one is made when it is asked for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from seqlm.data.encoder import LAYOUTS, Encoder
from seqlm.data.records import Record
from seqlm.data.tokens import STRUCTURAL


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
