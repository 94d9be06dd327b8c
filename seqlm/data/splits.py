"""Split rows into train, val and test, so that no image is in two of them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seqlm.data.records import SPLITS, Record
from seqlm.errors import ConfigError, DataError


def split_records(
    records: Sequence[Record], *, test_size: float = 0.2, val_size: float = 0.1, seed: int = 42
) -> dict[str, list[Record]]:
    """Rows by split, each split in the order of `records`; the same seed gives the same split.

    Rows that carry `meta.split` are divided by it, and checked. Otherwise rows of one source and
    rows with the same codes stay together, classes keep their shares as nearly as whole groups
    allow, and a class that cannot be divided (one row, or one source) stays in train. Both sizes
    are fractions of all rows but those; `test_size` may be 0.
    Raises DataError when a split would be empty or the rows' own split leaks, ConfigError for
    sizes that cannot be.
    """
    if not 0 <= test_size < 1 or not 0 < val_size < 1 or test_size + val_size >= 1:
        raise ConfigError(
            f"test_size {test_size} and val_size {val_size} leave no room: val_size must be above "
            "0, test_size 0 or more, and together they must stay below 1"
        )
    sides = [record.meta.get("split") for record in records]
    own = any(sides)
    if own and not all(sides):
        raise DataError(
            f"{_place(records, sides.index(None))}: meta.split is missing, though other rows have "
            "it; give it to every row or to none"
        )
    if not own:
        sides = _drawn_sides(records, test_size, val_size, seed)
    splits = {
        name: [r for r, side in zip(records, sides, strict=True) if side == name] for name in SPLITS
    }
    _check_filled(splits, own, test_size)
    shared = leaks(splits)
    if shared:
        more = f" ({len(shared) - 1} more like it)" if len(shared) > 1 else ""
        raise DataError(f"{shared[0]}{more}; put both into one split, or remove one of the rows")
    return splits


def _check_filled(splits: Mapping[str, list[Record]], own: bool, test_size: float) -> None:
    wanted = SPLITS if test_size > 0 and not own else SPLITS[:2]
    empty = next((name for name in wanted if not splits[name]), None)
    if empty is None:
        return
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in splits.items())
    if own:
        fix = f"mark some rows as {empty}, or take meta.split out of every row"
        raise DataError(f"meta.split leaves {empty} empty ({counts}); {fix}")
    raise DataError(
        f"there are too few different rows to fill {empty} ({counts}; rows of one source or with "
        "the same codes stay together); bring more rows"
    )


def leaks(splits: Mapping[str, Sequence[Record]]) -> list[str]:
    """One sentence for each source, and each row of codes, that stands in two splits.

    Layout and class tokens do not count: an image in the read and in the draw layout is the same.
    """
    first: dict[Hashable, tuple[str, str]] = {}
    sentences = []
    for name, records in splits.items():
        for index, record in enumerate(records):
            place = f"{_place(records, index)} ({name})"
            for key, what in _ties(record):
                other, there = first.setdefault(key, (name, place))
                if other != name:
                    sentences.append(f"{there} and {place} {what}")
                    break
    return sentences


def _ties(record: Record) -> list[tuple[Hashable, str]]:
    """What binds a row to others: each key with the words for two rows that share it."""
    # A digest, because a tuple of codes for each of many long rows would fill the memory.
    digest = hashlib.blake2b(" ".join(record.codes).encode(), digest_size=16).digest()
    ties: list[tuple[Hashable, str]] = [(("codes", digest), "hold the same codes")]
    if record.source is not None:
        what = f"come from one source (meta.source_id {record.source!r})"
        ties.insert(0, (("source", record.source), what))
    return ties


def _place(records: Sequence[Record], index: int) -> str:
    line = records[index].line
    return f"row {index + 1}" if line is None else f"line {line}"


def _drawn_sides(
    records: Sequence[Record], test_size: float, val_size: float, seed: int
) -> list[str]:
    """The side of each row, drawn by whole groups, class by class."""
    rng = np.random.default_rng(seed)
    by_label: dict[int | None, list[list[int]]] = defaultdict(list)
    for group in _groups(records):
        labels = Counter(records[index].label for index in group)
        by_label[labels.most_common(1)[0][0]].append(group)
    classes = list(by_label.values())
    for groups in classes:
        rng.shuffle(groups)
    rng.shuffle(classes)
    # Small classes first: what they cannot give, the large ones make up for.
    classes.sort(key=len)
    sides = ["train"] * len(records)
    sizes = [sum(map(len, groups)) if len(groups) > 1 else 0 for groups in classes]
    for name, size, spare in (("test", test_size, 2), ("val", val_size, 1)):
        for index in _taken(classes, sizes, size, spare):
            sides[index] = name
    return sides


def _taken(
    classes: list[list[list[int]]], sizes: list[int], size: float, spare: int
) -> Iterator[int]:
    """Take groups out of `classes` until `size` of the rows are out; yield the rows' indices.

    What a class gave too little or too much is carried to the next, so that the sum comes out.
    Of three groups or more `spare` are left, of two one, and a single group is left alone.
    """
    # Rounded up, as scikit-learn's train_test_split does; 1e-9 forgives 0.1 * 3 being above 0.3.
    wanted_rows = np.ceil(size * sum(sizes) - 1e-9)
    carry = 0.0
    for position, (groups, n_rows) in enumerate(zip(classes, sizes, strict=True)):
        if not n_rows:
            continue
        wanted = carry + wanted_rows * n_rows / sum(sizes)
        may_take = len(groups) - min(spare, max(1, len(groups) - 1))
        left = []
        for group in groups:
            if may_take and abs(wanted - len(group)) < abs(wanted):
                wanted -= len(group)
                may_take -= 1
                yield from group
            else:
                left.append(group)
        classes[position] = left
        carry = wanted


def _groups(records: Sequence[Record]) -> list[list[int]]:
    """Row indices bound together by a source or by equal codes, however long the chain."""
    first: dict[Hashable, int] = {}
    edges = [
        (index, first.setdefault(key, index))
        for index, record in enumerate(records)
        for key, _ in _ties(record)
    ]
    rows, columns = np.array(edges, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=2 * (len(records),))
    groups: dict[int, list[int]] = defaultdict(list)
    for index, component in enumerate(connected_components(graph, directed=False)[1]):
        groups[component].append(index)
    return list(groups.values())
