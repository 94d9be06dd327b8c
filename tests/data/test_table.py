"""Rows in columns are the rows that went in, and are made when they are asked for."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from seqlm.data.corpus import Corpus
from seqlm.data.records import Record
from seqlm.data.splits import split_records
from seqlm.data.table import Ids, Table
from seqlm.data.tokens import default_vocab, draw_layout, layout_of, read_layout, reading_prompt

VOCAB = default_vocab(30, 3)


def records(n=60, seed=0):
    rng, made = np.random.default_rng(seed), []
    for line in range(1, n + 1):
        codes, label = rng.integers(0, 30, rng.integers(1, 5)), int(rng.integers(3))
        tokens = [read_layout(codes, label), draw_layout(codes, None), ("<EOS>", "<IMG>")]
        source = [None, int(rng.integers(9)), float(rng.integers(9)), f"s{rng.integers(9)}", True]
        meta = {} if line % 5 == 0 else {"source_id": source[int(rng.integers(5))], "名": [1, None]}
        label = None if rng.random() < 0.2 else label
        made.append(Record(tokens[int(rng.choice(3, p=[0.5, 0.4, 0.1]))], label, meta, line))
    return made


def test_a_table_equals_the_records_it_was_made_of():
    made = records()
    table = Table.of(made, VOCAB)
    assert table == made and made == list(table) and len(table) == 60
    assert [r.line for r in table] == [r.line for r in made]
    assert table[-1] == made[-1] and table[10:20] == made[10:20]
    assert table[np.array([3, 1])] == [made[3], made[1]]
    assert Table.of(table, VOCAB) is table
    assert table + table[:2] == [*made, *made[:2]]
    assert table != made[1:] and table != [*made[1:], made[0]]
    assert Table.of([], VOCAB) == [] and not Table.of([], VOCAB)


def test_a_table_knows_when_the_vocabulary_is_another_one():
    table = Table.of(records(), VOCAB)
    assert Table.of(table, VOCAB | {"<new>": len(VOCAB)}) is table
    other = dict(zip(VOCAB, reversed(VOCAB.values()), strict=True))
    turned = Table.of(table, dict(sorted(other.items(), key=lambda entry: entry[1])))
    assert turned == table and turned.ids() != table.ids()
    assert turned.column("codes").tolist() == table.column("codes").tolist()


def test_columns_say_what_the_tokens_say():
    made = [*records(), Record(("<IMG>", "<CLS_1>", "</IMG>", "<CLS>", "<EOS>"), 1)]
    table = Table.of(made, VOCAB)
    for name in ("read", "draw", "other"):
        assert table.of_layout(name) == [r for r in made if layout_of(r.tokens) == name]
    labels = [-1 if record.label is None else record.label for record in made]
    assert table.column("label").tolist() == labels
    assert table.column("length").tolist() == [len(record.tokens) for record in made]
    read = [r for r in made[:-1] if layout_of(r.tokens) == "read"]
    assert table[:-1].of_layout("read").ids("prompt") == [
        [VOCAB[token] for token in reading_prompt(record.tokens)] for record in read
    ]
    assert table.column("prompt")[-1] == -1
    codes = defaultdict(set)
    for record, key in zip(made, table.column("codes").tolist(), strict=True):
        codes[record.codes].add(key)
    assert all(len(keys) == 1 for keys in codes.values())
    assert len(set.union(*codes.values())) == len(codes)


def test_sources_are_those_of_the_records():
    made, numbers = records(), {}
    keys = [("row", i) if r.source is None else ("source", r.source) for i, r in enumerate(made)]
    expected = [numbers.setdefault(key, len(numbers)) for key in keys]
    assert Corpus(VOCAB, {"test": made}).sources("test").tolist() == expected


def test_ids_are_lists_only_when_asked_for():
    rows = [[1, 2, 3], [], [4, 5], [6]]
    ids = Ids.of(rows)
    assert ids == rows and ids[1:] == rows[1:] and ids[-1] == [6] and Ids.of(ids) is ids
    assert isinstance(ids[0], list) and all(type(i) is int for i in ids[0])
    assert ids.flat().tolist() == [1, 2, 3, 4, 5, 6] and ids.lengths.tolist() == [3, 0, 2, 1]
    assert Ids.of([]).flat().tolist() == []


def test_the_digest_is_that_of_the_rows():
    rows = [[1, 2, 3], [4, 5]]
    corpus = Table.of([Record(("<PAD>", "<UNK>")), Record(("<IMG>",))], VOCAB).ids()
    assert corpus.digest() == Ids.of([[0, 1], [2]]).digest()
    others = [[[1, 2], [3, 4, 5]], [[4, 5], [1, 2, 3]], [[1, 2, 3]], [[1, 2, 3], [4, 6]]]
    assert len({Ids.of(other).digest() for other in [rows, *others]}) == 5


# ---------------------------------------------------------------- splits


def sides_by_dicts(rows, test_size, val_size, seed):
    """The split, written with dicts and lists, a row at a time."""
    first, group_of = {}, list(range(len(rows)))
    for i, record in enumerate(rows):
        for key in [
            ("codes", record.codes),
            *[("source", record.source)] * (record.source is not None),
        ]:
            one, other = group_of[first.setdefault(key, i)], group_of[i]
            group_of = [one if g == other else g for g in group_of]
    groups = defaultdict(list)
    for i, group in enumerate(group_of):
        groups[group].append(i)
    by_label = defaultdict(list)
    for group in groups.values():
        by_label[Counter(rows[i].label for i in group).most_common(1)[0][0]].append(group)
    rng, classes = np.random.default_rng(seed), list(by_label.values())
    for members in classes:
        rng.shuffle(members)
    rng.shuffle(classes)
    classes.sort(key=len)
    sides, totals = ["train"] * len(rows), [sum(map(len, c)) * (len(c) > 1) for c in classes]
    for name, size, spare in (("test", test_size, 2), ("val", val_size, 1)):
        wanted_rows, carry = np.ceil(size * sum(totals) - 1e-9), 0.0
        for members, n in zip(classes, totals, strict=True):
            wanted = carry + wanted_rows * n / sum(totals)
            may_take = (len(members) - min(spare, max(1, len(members) - 1))) * (n > 0)
            for group in list(members):
                if may_take and abs(wanted - len(group)) < abs(wanted):
                    wanted, may_take = wanted - len(group), may_take - 1
                    members.remove(group)
                    for i in group:
                        sides[i] = name
            carry = wanted if n else carry
    return sides


@pytest.mark.parametrize("seed", range(8))
def test_the_split_is_that_of_dicts_and_lists(seed):
    rows = records(200, seed)
    if seed % 2:  # no sources
        rows = [Record(r.tokens, r.label, {}, r.line) for r in rows]
    rows = [r for r in rows if r.codes]
    sides = sides_by_dicts(rows, 0.2, 0.1, seed)
    for some in (rows, Table.of(rows, VOCAB)):
        splits = split_records(some, seed=seed)
        for name in splits:
            expected = [r.line for r, side in zip(rows, sides, strict=True) if side == name]
            assert [r.line for r in splits[name]] == expected
