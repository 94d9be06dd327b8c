"""Split rows into train, val and test, so that no image is in two of them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seqlm.data.records import SPLITS, Record
from seqlm.data.table import Table, first_rows
from seqlm.errors import ConfigError, DataError


def split_records(
    records: Sequence[Record], *, test_size: float = 0.2, val_size: float = 0.1, seed: int = 42
) -> dict[str, Sequence[Record]]:
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
    table = Table.of(records)
    sides = table.column("split")
    own = bool((sides >= 0).any())
    if own and (sides < 0).any():
        raise DataError(
            f"{_place(records, int(sides.argmin()))}: meta.split is missing, though other rows "
            "have it; give it to every row or to none"
        )
    if not own:
        sides = _drawn_sides(table, test_size, val_size, seed)
    splits = {name: table[sides == side] for side, name in enumerate(SPLITS)}
    _check_filled(splits, own, test_size)
    shared = leaks(splits)
    if shared:
        more = f" ({len(shared) - 1} more like it)" if len(shared) > 1 else ""
        raise DataError(f"{shared[0]}{more}; put both into one split, or remove one of the rows")
    return splits


def _check_filled(splits: Mapping[str, Sequence[Record]], own: bool, test_size: float) -> None:
    wanted = SPLITS if test_size > 0 and not own else SPLITS[:2]
    empty = next((name for name in wanted if not splits[name]), None)
    if empty is None:
        return
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in splits.items())
    if own:
        fix = (
            f"mark some rows as {empty}, take meta.split out of every row, or, to measure a model "
            "on all of them, use `seqlm evaluate --split all`"
        )
        raise DataError(f"meta.split leaves {empty} empty ({counts}); {fix}")
    raise DataError(
        f"there are too few different rows to fill {empty} ({counts}; rows of one source or with "
        "the same codes stay together); bring more rows"
    )


def leaks(splits: Mapping[str, Sequence[Record]]) -> list[str]:
    """One sentence for each source, and each row of codes, that stands in two splits.

    Layout and class tokens do not count: an image in the read and in the draw layout is the same.
    """
    names, tables = [*splits], [*map(Table.of, splits.values())]
    sizes = [*map(len, tables)]
    side = np.repeat(np.arange(len(splits)), sizes)
    index = np.concatenate([*map(np.arange, sizes)])
    sources, codes = (np.concatenate([t.column(k) for t in tables]) for k in ("source", "codes"))
    earlier = first_rows(sources)
    by_source = side[earlier] != side
    # A row that is reported for its source is not looked at again.
    same_codes = first_rows(np.where(by_source, 0, codes))
    earlier = np.where(by_source, earlier, same_codes)

    def place(row: int) -> str:
        return f"{_place(tables[side[row]], index[row])} ({names[side[row]]})"

    sentences = []
    for row in np.flatnonzero(side[earlier] != side):
        what = "hold the same codes"
        if by_source[row]:
            source = tables[side[row]][index[row]].source
            what = f"come from one source (meta.source_id {source!r})"
        sentences.append(f"{place(earlier[row])} and {place(row)} {what}")
    return sentences


def _place(records: Sequence[Record], index: int) -> str:
    line = records[index].line
    return f"row {index + 1}" if line is None else f"line {line}"


def _drawn_sides(table: Table, test_size: float, val_size: float, seed: int) -> np.ndarray:
    """The side of each row as a place in SPLITS, drawn by whole groups, class by class. (N,)."""
    rng = np.random.default_rng(seed)
    rows, starts, sizes = _groups(table)
    labels = table.column("label")[rows]
    of_group = labels[starts]  # (groups,)
    for group in np.flatnonzero(sizes > 1):
        inside = labels[starts[group] : starts[group] + sizes[group]]
        of_group[group] = Counter(inside.tolist()).most_common(1)[0][0]
    present, first = np.unique(of_group, return_index=True)
    classes = [np.flatnonzero(of_group == label) for label in present[np.argsort(first)]]
    for groups in classes:
        rng.shuffle(groups)
    rng.shuffle(classes)
    # Small classes first: what they cannot give, the large ones make up for.
    classes.sort(key=len)
    sides = np.zeros(len(table), np.int8)
    totals = [int(sizes[groups].sum()) if len(groups) > 1 else 0 for groups in classes]
    for name, size, spare in (("test", test_size, 2), ("val", val_size, 1)):
        for group in _taken(classes, sizes, totals, size, spare):
            sides[rows[starts[group] : starts[group] + sizes[group]]] = SPLITS.index(name)
    return sides


def _taken(
    classes: list[np.ndarray], sizes: np.ndarray, totals: list[int], size: float, spare: int
) -> Iterator[int]:
    """Take groups out of `classes` until `size` of the rows are out; yield these groups.

    `sizes` are the rows of each group, `totals` those of each class. What a class gave too little
    or too much is carried to the next, so that the sum comes out. Of three groups or more `spare`
    are left, of two one, and a single group is left alone.
    """
    # Rounded up, as scikit-learn's train_test_split does; 1e-9 forgives 0.1 * 3 being above 0.3.
    wanted_rows = np.ceil(size * sum(totals) - 1e-9)
    carry = 0.0
    for position, (groups, n_rows) in enumerate(zip(classes, totals, strict=True)):
        if not n_rows:
            continue
        wanted = carry + wanted_rows * n_rows / sum(totals)
        may_take = len(groups) - min(spare, max(1, len(groups) - 1))
        stays = np.ones(len(groups), dtype=bool)
        for place, group in enumerate(groups):
            if may_take and abs(wanted - sizes[group]) < abs(wanted):
                wanted -= sizes[group]
                may_take -= 1
                stays[place] = False
                yield group
        classes[position] = groups[stays]
        carry = wanted


def _groups(table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows bound together by a source or by equal codes, however long the chain.

    Returns all rows (N,), group by group, in the order of their first rows; where each group
    starts, and its size.
    """
    n, first = len(table), [first_rows(table.column(key)) for key in ("source", "codes")]
    bonds = np.ones(2 * n), (np.tile(np.arange(n), 2), np.concatenate(first))
    first = first_rows(1 + connected_components(coo_array(bonds, (n, n)), directed=False)[1])
    order = np.argsort(first, kind="stable")
    starts = np.flatnonzero(np.diff(first[order], prepend=-1))
    return order, starts, np.diff(starts, append=len(order))
