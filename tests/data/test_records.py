"""Rows are read as the contract says, defects are named, and no split leaks."""

import gzip
import json
import os
import warnings
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqlm.data.arrow import read_table
from seqlm.data.records import Record, describe, lacks_class_token, write_records
from seqlm.data.splits import leaks, split_records
from seqlm.data.tokens import default_vocab, draw_layout, layout_of, read_layout, read_vocab
from seqlm.errors import ConfigError, DataError, DataWarning, printable

VOCAB = default_vocab(8, 3)
USER_DATA = Path(
    os.environ.get("SEQLM_USER_DATA", Path(__file__).parents[3] / "shared" / "user-data")
)
needs_user_data = pytest.mark.skipif(
    not (USER_DATA / "sequences_labels_fixed.jsonl").is_file(),
    reason="the user's own 300 rows are not part of the project (set SEQLM_USER_DATA)",
)


def jsonl(folder, *rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_row(*codes, label=1, **more):
    return {"tokens": " ".join(read_layout(codes, label)), "label": label, **more}


def tailless_row(*codes, label=1, tail="<CLS> <CLS> <EOS>"):
    body = " ".join(f"<Z_{code:03d}>" for code in codes)
    row = {"tokens": f"<IMG> {body} </IMG> {tail}"}
    return row if label is None else {**row, "label": label}


# ---------------------------------------------------------------- vocab.json


def test_a_vocabulary_is_read_in_the_order_of_its_ids(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(dict(reversed(VOCAB.items()))), encoding="utf-8-sig")
    assert list(read_vocab(path).items()) == list(VOCAB.items())


def test_other_names_and_sizes_are_fine(tmp_path):
    vocab = {"foo": 0, "龙": 1, "bar": 2}
    for token in list(VOCAB)[:6]:
        vocab[token] = len(vocab)
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(vocab))
    assert read_vocab(path) == vocab


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"<Z_001>": 6}, "id 6 is used by both '<Z_000>' and '<Z_001>'; give each token its own"),
        ({"<Z_001>": 99}, "no token has the id 7, though ids go up to 99"),
        ({"<Z_001>": "7"}, "token '<Z_001>' has the id \"7\"; give it a whole number"),
        ({"<Z_001>": 7.0}, "has the id 7.0"),
        ({"<Z_001>": True}, "has the id true"),
        ({"<Z_001>": -1}, "has the id -1"),
        ({"<EOS>": None}, "has the id null"),
        ({"two words": 17}, "token 'two words' is empty or holds white space"),
        ({"": 17}, "token '' is empty or holds white space"),
        ({"<CLS_7>": 17}, "there are 4 class tokens, but no '<CLS_3>'"),
        ({"<Z>\x1b[2J": 17}, r"token '<Z>\x1b[2J' holds a control character"),
        ({"\x00": 17}, r"token '\x00' holds a control character"),
        ({"a\x9bb": 17}, "holds a control character"),
        ({"\ud800": 17}, r"token '\ud800' holds a control character or half a surrogate pair"),
    ],
)
def test_a_vocabulary_that_breaks_the_contract_is_refused(tmp_path, change, words):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(VOCAB | change))
    with pytest.raises(DataError) as caught:
        read_vocab(path)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"<PAD>": 0, "<PAD>": 1}', "token '<PAD>' is listed twice"),
        ('{"<PAD>": 0, "<UNK>": 1}', "structural token '<IMG>' is missing"),
        ("{}", "structural token '<PAD>' is missing"),
        ('["<PAD>"]', "expected an object that maps tokens to ids, got list"),
        ("", "the file is empty"),
        ("{", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path, text, words):
    path = tmp_path / "vocab.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_vocab(path)


# ---------------------------------------------------------------- reading rows


def test_rows_come_with_their_tokens_label_meta_and_line(tmp_path):
    path = jsonl(tmp_path, read_row(1, 2, meta={"source_id": 7}), tailless_row(3, tail="<EOS>"))
    one, two = read_table(path, VOCAB)
    assert one == Record(read_layout([1, 2], 1), 1, {"source_id": 7})
    assert (one.line, one.source) == (1, 7)
    assert two.tokens == ("<IMG>", "<Z_003>", "</IMG>", "<EOS>")
    assert (two.label, two.meta, two.line, two.source) == (1, {}, 2, None)


def test_byte_order_mark_blank_lines_crlf_and_no_last_newline_are_fine(tmp_path):
    row = json.dumps(read_row(1)).encode()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + row + b"\r\n\r\n   \n" + row)
    assert [record.line for record in read_table(path, VOCAB)] == [1, 4]


def test_a_gzipped_file_is_read_and_written(tmp_path):
    records = read_table(jsonl(tmp_path, read_row(1), read_row(2, label=0)), VOCAB)
    write_records(tmp_path / "rows.jsonl.gz", records)
    assert (tmp_path / "rows.jsonl.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert read_table(tmp_path / "rows.jsonl.gz", VOCAB) == records


def test_a_cut_off_gzip_file_is_named(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(read_row(1)).encode() * 100)[:-20])
    with pytest.raises(DataError, match="the gzip file is damaged"):
        read_table(path, VOCAB)


def test_records_written_come_back_the_same(tmp_path):
    records = [
        Record(read_layout([1, 2], 0), 0, {"split": "train", "名": ["é", None, 0.1]}),
        Record(draw_layout([3], None), 2, {"source_id": "x"}),
        Record(("<IMG>", "</IMG>"), None),
    ]
    write_records(tmp_path / "rows.jsonl", records)
    assert read_table(tmp_path / "rows.jsonl", VOCAB) == records
    first = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert list(first) == ["tokens", "label", "meta"]


def test_numpy_values_in_meta_are_written_as_plain_json(tmp_path):
    meta = {"source_id": np.int64(3), "center": np.array([0.5])}
    write_records(tmp_path / "rows.jsonl", [Record(("<IMG>", "<EOS>"), None, meta)])
    (record,) = read_table(tmp_path / "rows.jsonl", VOCAB)
    assert record.meta == {"source_id": 3, "center": [0.5]}


def test_a_row_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = jsonl(tmp_path, read_row(1))
    before = path.read_text()
    with pytest.raises(DataError, match="a set cannot be written"):
        write_records(path, [Record(("<EOS>",)), Record(("<EOS>",), None, {"x": {1}})])
    assert path.read_text() == before


GOOD = read_row(1, 2)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("[1]", "a row must be an object"),
        ("{'tokens': 1}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON in UTF-8"),
        ("1" * 5000, "not valid JSON"),
        ({"label": 1}, "tokens: the field is missing"),
        (GOOD | {"tokens": ["<IMG>"]}, "tokens: expected text, got list"),
        (GOOD | {"tokens": None}, "tokens: expected text, got null"),
        (GOOD | {"tokens": "  "}, "tokens: there are no tokens"),
        (GOOD | {"tokens": "<IMG> <Z_512> <Z_513>"}, "tokens: unknown token '<Z_512>' (and 1 more"),
        (GOOD | {"tokens": "<IMG> <PAD>"}, "tokens: <PAD> stands in the row"),
        (GOOD | {"label": True}, "label: true is not a whole number"),
        (GOOD | {"label": "1"}, 'label: "1" is not a whole number'),
        (GOOD | {"label": 1.0}, "label: 1.0 is not a whole number"),
        (GOOD | {"label": float("nan")}, "label: NaN is not a whole number"),
        (GOOD | {"label": 3}, "label: 3 is out of range; classes go from 0 to 2"),
        (GOOD | {"label": -1}, "label: -1 is out of range"),
        (GOOD | {"label": 2}, "label: it is 2, but the row holds <CLS_1>"),
        (GOOD | {"meta": []}, "meta: expected an object, got list"),
        (GOOD | {"meta": {"split": "valid"}}, "meta.split: 'valid' is none of train, val, test"),
        (GOOD | {"meta": {"split": ["val"]}}, "meta.split: ['val'] is none of"),
        (GOOD | {"meta": {"source_id": [1]}}, "meta.source_id: expected text or a number"),
    ],
)
def test_a_bad_row_is_refused_by_file_line_and_field(tmp_path, row, words):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{row if isinstance(row, str) else json.dumps(row)}\n")
    with pytest.raises(DataError) as caught:
        read_table(path, VOCAB)
    assert str(caught.value).startswith(f"{path}:3: ") and words in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 200


def test_text_that_is_not_utf8_is_refused_by_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"tokens": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not valid JSON in UTF-8"):
        read_table(path, VOCAB)


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="the file has no rows"):
        read_table(path, VOCAB)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        read_table(tmp_path / "gone.jsonl", VOCAB)
    with pytest.raises(DataError, match="this is a folder"):
        read_table(tmp_path, VOCAB)


def test_a_label_needs_no_class_tokens_in_the_vocabulary(tmp_path):
    path = jsonl(tmp_path, {"tokens": "<IMG> <Z_001> </IMG> <EOS>", "label": 12})
    assert read_table(path, default_vocab(8, 0))[0].label == 12


def test_unknown_tokens_are_read_as_unknown_when_allowed(tmp_path):
    path = jsonl(tmp_path, {"tokens": "<IMG> <Z_512> <Z_001> </IMG> <EOS>"})
    (record,) = read_table(path, VOCAB, allow_unknown=True)
    assert record.tokens == ("<IMG>", "<UNK>", "<Z_001>", "</IMG>", "<EOS>")
    assert describe([record])["unknown_tokens"] == 1


# ---------------------------------------------------------------- the missing class token


def test_missing_class_tokens_are_told_once_in_plain_words(tmp_path):
    draw = {"tokens": " ".join(draw_layout([1], None)), "label": 1}
    path = jsonl(tmp_path, draw, read_row(2), tailless_row(3), tailless_row(4, tail="<CLS> <EOS>"))
    with pytest.warns(DataWarning) as caught:
        records = read_table(path, VOCAB)
    assert len(caught) == 1
    words = str(caught[0].message)
    assert "missing in 2 of 4 rows (the first is line 3)" in words
    assert "<CLS> <CLS> <EOS>" in words and "never learn the class" in words
    assert "--repair_tail" in words
    assert [lacks_class_token(record) for record in records] == [False, False, True, True]
    assert describe(records)["missing_class"] == 2


def test_whole_rows_are_read_without_a_warning(tmp_path):
    rows = [
        read_row(1),
        {"tokens": " ".join(draw_layout([2], 1)), "label": 1},
        {"tokens": " ".join(draw_layout([3], None)), "label": 1},
        tailless_row(4, label=None, tail="<CLS> <EOS>"),
        tailless_row(5, tail="<EOS>"),
        {"tokens": "<CLS> <CLS_1> <IMG> <Z_006> </IMG> <CLS> <CLS> <EOS>", "label": 1},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_table(jsonl(tmp_path, *rows), VOCAB)) == len(rows)


@pytest.mark.parametrize("tail", ["<CLS> <CLS> <EOS>", "<CLS> <EOS>"])
def test_the_repair_puts_the_class_back_and_says_so(tmp_path, tail):
    path = jsonl(tmp_path, tailless_row(3, 4, label=2, tail=tail), read_row(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repaired, whole = read_table(path, VOCAB, repair_tail=True)
    assert repaired.tokens == read_layout([3, 4], 2)
    assert repaired.meta == {"repaired_tail": True} and whole.meta == {}
    assert describe([repaired, whole])["repaired_tail"] == 1


def test_the_repair_leaves_a_withheld_class_alone(tmp_path):
    tokens = draw_layout([1], None)
    path = jsonl(tmp_path, {"tokens": " ".join(tokens), "label": 1})
    assert read_table(path, VOCAB, repair_tail=True)[0].tokens == tokens


def test_the_repair_needs_a_label_and_its_class_token(tmp_path):
    path = jsonl(tmp_path, read_row(1), tailless_row(3, label=None))
    with pytest.raises(DataError, match=r"rows\.jsonl:2: label: it is missing"):
        read_table(path, VOCAB, repair_tail=True)
    path = jsonl(tmp_path, tailless_row(3, label=1))
    with pytest.raises(DataError, match=r":1: label: the vocabulary has no <CLS_1>"):
        read_table(path, default_vocab(8, 0), repair_tail=True)


# ---------------------------------------------------------------- long rows


@pytest.mark.parametrize("layout", [read_layout, draw_layout])
def test_long_rows_lose_codes_from_the_left_and_keep_head_and_tail(tmp_path, layout):
    path = jsonl(tmp_path, {"tokens": " ".join(layout([1, 2, 3, 4], 1)), "label": 1})
    (record,) = read_table(path, VOCAB, max_length=7)
    assert record.tokens == layout([3, 4], 1)
    assert record.meta == {"cut_codes": 2}
    (whole,) = read_table(path, VOCAB, max_length=9)
    assert whole.tokens == layout([1, 2, 3, 4], 1) and whole.meta == {}


def test_a_length_that_leaves_no_code_is_refused(tmp_path):
    path = jsonl(tmp_path, read_row(1, 2))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: a row of .*max_length"):
        read_table(path, VOCAB, max_length=5)
    with pytest.raises(ConfigError, match="max_length is 0"):
        read_table(path, VOCAB, max_length=0)


def test_an_unknown_token_can_be_cut_like_any_code(tmp_path):
    path = jsonl(tmp_path, {"tokens": "<IMG> <Z_512> <Z_001> </IMG> <EOS>"})
    (record,) = read_table(path, VOCAB, max_length=4)
    assert record.tokens == ("<IMG>", "<Z_001>", "</IMG>", "<EOS>")


# ---------------------------------------------------------------- splitting


def random_records(n, n_classes=3, seed=0, n_codes=6, sources=None, duplicates=0):
    """`n` rows of random codes; the last `duplicates` repeat the codes of earlier rows."""
    rng = np.random.default_rng(seed)
    codes = [tuple(row) for row in rng.integers(0, 500, size=(n, n_codes)).tolist()]
    for index in range(n - duplicates, n):
        codes[index] = codes[int(rng.integers(0, n - duplicates))]
    records = []
    for index, row in enumerate(codes):
        label = index % n_classes
        layout = read_layout if rng.random() < 0.5 else draw_layout
        meta = {} if sources is None else {"source_id": int(rng.integers(0, sources))}
        records.append(Record(layout(row, label), label, meta, index + 1))
    return records


def sizes(splits):
    return {name: len(rows) for name, rows in splits.items()}


def assert_nothing_straddles(splits):
    # By hand, not through leaks(), so that the two check each other.
    for (_, one), (_, other) in combinations(splits.items(), 2):
        assert not {r.codes for r in one} & {r.codes for r in other}
        assert not {r.source for r in one} & {r.source for r in other} - {None}


def test_single_rows_are_split_to_the_row_and_class_by_class():
    splits = split_records(random_records(300, n_classes=10))
    assert sizes(splits) == {"train": 210, "val": 30, "test": 60}
    for name, each in {"train": 21, "val": 3, "test": 6}.items():
        assert Counter(r.label for r in splits[name]) == dict.fromkeys(range(10), each)
    assert_nothing_straddles(splits)


@pytest.mark.parametrize("n", [30, 37, 101, 1797])
@pytest.mark.parametrize("n_classes", [1, 3, 10])
def test_shares_hold_within_rounding_for_any_number_of_rows(n, n_classes):
    records = random_records(n, n_classes)
    splits = split_records(records)
    assert len(splits["test"]) == -(-n * 2 // 10) and len(splits["val"]) == -(-n // 10)
    whole = Counter(record.label for record in records)
    for name, share in {"test": 0.2, "val": 0.1}.items():
        counts = Counter(record.label for record in splits[name])
        for label, count in whole.items():
            assert abs(counts[label] - share * count) < 2


@pytest.mark.parametrize("seed", range(12))
def test_sources_and_duplicates_stay_on_one_side(seed):
    records = random_records(240, seed=seed, sources=120, duplicates=20)
    splits = split_records(records, seed=seed)
    assert_nothing_straddles(splits)
    assert leaks(splits) == []
    assert sum(map(len, splits.values())) == 240
    for name, wanted in {"train": 168, "val": 24, "test": 48}.items():
        assert abs(len(splits[name]) - wanted) <= 3, (name, sizes(splits))


@pytest.mark.parametrize("seed", range(12))
def test_nothing_straddles_even_when_most_rows_hang_together(seed):
    records = random_records(240, seed=seed, sources=90, duplicates=60)
    assert_nothing_straddles(split_records(records, seed=seed))


def test_a_chain_of_sources_and_duplicates_is_one_group():
    def row(code, source):
        return Record(read_layout([code], 0), 0, {"source_id": source})

    chain = [row(1, "a"), row(2, "a"), row(2, "b"), row(3, "b"), row(3, "c")]
    for seed in range(20):
        splits = split_records(chain + random_records(20, 1), seed=seed)
        sides = {name for name, rows in splits.items() for r in rows if r.source is not None}
        assert len(sides) == 1


def test_the_same_picture_in_two_layouts_or_under_two_labels_is_a_duplicate():
    pairs = []
    for record in random_records(40, n_classes=2):
        codes = [int(token[3:-1]) for token in record.codes]
        pairs += [Record(read_layout(codes, 0), 0), Record(draw_layout(codes, None), 1)]
    splits = split_records(pairs)
    assert_nothing_straddles(splits)
    assert sizes(splits) == {"train": 56, "val": 8, "test": 16}


def test_one_seed_gives_one_split_and_another_seed_another():
    records = random_records(100)
    one, same, other = (split_records(records, seed=seed) for seed in (1, 1, 2))
    assert [r.line for r in one["test"]] == [r.line for r in same["test"]]
    assert [r.line for r in one["test"]] != [r.line for r in other["test"]]
    assert all([r.line for r in rows] == sorted(r.line for r in rows) for rows in one.values())


def test_rare_classes_go_to_train():
    records = random_records(60, n_classes=2)
    records += [Record(read_layout([600 + k], k), k, line=100 + k) for k in (2, 3)]
    for seed in range(10):
        splits = split_records(records, seed=seed)
        assert {2, 3} <= {r.label for r in splits["train"]}
        assert sizes(splits) == {"train": 44, "val": 6, "test": 12}


def test_rows_without_labels_are_split_too():
    records = [Record(r.tokens, None, r.meta, r.line) for r in random_records(50)]
    assert sizes(split_records(records)) == {"train": 35, "val": 5, "test": 10}


def test_the_test_split_may_be_left_out_but_not_val():
    records = random_records(50)
    assert sizes(split_records(records, test_size=0)) == {"train": 45, "val": 5, "test": 0}
    for bad in ({"val_size": 0}, {"test_size": 0.9, "val_size": 0.1}, {"test_size": -0.1}):
        with pytest.raises(ConfigError, match="leave no room"):
            split_records(records, **bad)


def test_three_rows_fill_three_splits_and_two_do_not():
    assert sizes(split_records(random_records(3, 1))) == {"train": 1, "val": 1, "test": 1}
    assert sizes(split_records(random_records(2, 1), test_size=0))["val"] == 1
    with pytest.raises(DataError, match="too few different rows to fill val"):
        split_records(random_records(2, 1))
    with pytest.raises(DataError, match="too few different rows to fill train"):
        split_records([])


def test_one_large_group_leaves_enough_for_the_others():
    source = [Record(r.tokens, 0, {"source_id": 1}) for r in random_records(90, 1)]
    splits = split_records(source + random_records(10, 1, seed=1))
    assert splits["val"] and splits["test"] and len(splits["train"]) >= 90


def record_of(side, *codes, source=None, line=None):
    meta = {"split": side} if source is None else {"split": side, "source_id": source}
    return Record(read_layout(codes, 0), 0, meta, line)


def test_a_split_that_the_rows_bring_is_kept():
    rows = [record_of("val", 1), record_of("train", 2), record_of("train", 3), record_of("test", 4)]
    splits = split_records(rows)
    assert splits == {"train": rows[1:3], "val": rows[:1], "test": rows[3:]}
    assert sizes(split_records(rows[:3]))["test"] == 0


def test_a_split_that_some_rows_lack_is_refused():
    rows = [record_of("train", 1, line=1), Record(("<EOS>",), line=5), record_of("val", 2, line=6)]
    with pytest.raises(DataError, match="line 5: meta.split is missing"):
        split_records(rows)


@pytest.mark.parametrize("side", ["train", "val"])
def test_a_split_that_leaves_train_or_val_empty_is_refused(side):
    with pytest.raises(DataError, match=f"leaves {'val' if side == 'train' else 'train'} empty"):
        split_records([record_of(side, 1), record_of("test", 2)])


def test_a_split_that_leaks_is_refused_naming_both_lines():
    codes = [
        record_of("train", 1, line=1),
        record_of("val", 2, line=2),
        record_of("test", 1, line=9),
    ]
    with pytest.raises(DataError, match=r"line 1 \(train\) and line 9 \(test\) hold the same code"):
        split_records(codes)
    source = [record_of("train", 1, source="a", line=1), record_of("val", 2, source="a", line=2)]
    with pytest.raises(DataError, match=r"line 1 \(train\) and line 2 \(val\) come from one sour"):
        split_records(source)


def test_every_leak_is_told_and_rows_without_lines_are_counted():
    splits = {
        "train": [record_of("train", 1), record_of("train", 2)],
        "val": [record_of("val", 2)] * 2,
    }
    assert leaks(splits) == ["row 2 (train) and row 1 (val) hold the same codes"] + [
        "row 2 (train) and row 2 (val) hold the same codes"
    ]


# ---------------------------------------------------------------- describing


def test_a_data_set_is_described_in_counts():
    records = [
        Record(read_layout([1, 2], 0), 0),
        Record(draw_layout([2, 3, 4, 5], 2), 2),
        Record(("<IMG>", "<UNK>"), None),
    ]
    assert describe(records) == {
        "rows": 3,
        "length_min": 2,
        "length_median": 7.0,
        "length_max": 9,
        "layouts": {"read": 1, "draw": 1, "other": 1},
        "unknown_tokens": 1,
        "missing_class": 0,
        "repaired_tail": 0,
    }
    with pytest.raises(DataError, match="no rows"):
        describe([])


# ---------------------------------------------------------------- the user's own rows


@pytest.fixture(scope="module")
def user_vocab():
    return read_vocab(USER_DATA / "vocab.json")


@needs_user_data
def test_the_users_rows_are_read_and_their_defect_is_named(user_vocab):
    assert user_vocab == default_vocab()
    with pytest.warns(
        DataWarning, match="missing in 300 of 300 rows .the first is line 1."
    ) as caught:
        records = read_table(USER_DATA / "sequences_labels_fixed.jsonl", user_vocab)
    assert len(caught) == 1
    counts = describe(records)
    assert (counts["rows"], counts["length_min"], counts["length_max"]) == (300, 789, 789)
    assert counts["missing_class"] == 300 and counts["layouts"] == {"read": 300}


@needs_user_data
def test_the_users_rows_are_repaired_cut_and_split(user_vocab):
    path = USER_DATA / "sequences_labels_fixed.jsonl"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = read_table(path, user_vocab, repair_tail=True)
        short = read_table(path, user_vocab, repair_tail=True, max_length=512)
    for long, cut in zip(whole, short, strict=True):
        assert len(cut.tokens) == 512 and cut.meta["cut_codes"] == 277
        assert cut.tokens[0] == "<IMG>" and cut.tokens[1:] == long.tokens[-511:]
        assert cut.tokens[-3:] == ("<CLS>", f"<CLS_{cut.label}>", "<EOS>")
        assert layout_of(cut.tokens) == "read"
    splits = split_records(whole)
    assert_nothing_straddles(splits)
    assert sizes(splits) == {"train": 210, "val": 30, "test": 60}
    assert Counter(record.label for record in splits["val"]) == dict.fromkeys(range(10), 3)


# ---------------------------------------------------------------- what stands for nothing, or alone


def test_lines_may_end_in_a_carriage_return_alone(tmp_path):
    rows = [json.dumps(read_row(1, 2)).encode(), b"", json.dumps(read_row(3)).encode()]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\r".join(rows) + b"\r")
    assert [record.line for record in read_table(path, VOCAB)] == [1, 3]
    path.write_bytes(b"\r".join([*rows, b"{]"]))
    with pytest.raises(DataError, match="rows.jsonl:4: not valid JSON"):
        read_table(path, VOCAB)


def test_a_token_alone_is_refused_with_its_line(tmp_path):
    path = jsonl(tmp_path, read_row(1), {"tokens": "<IMG>"})
    with pytest.raises(DataError, match="rows.jsonl:2: tokens: '<IMG>' stands alone"):
        read_table(path, VOCAB)


@pytest.mark.parametrize("tail", ["<CLS>", "<CLS> <CLS>"])
def test_a_row_that_ends_without_class_and_end_is_warned_of_and_repaired(tmp_path, tail):
    path = jsonl(tmp_path, tailless_row(3, tail=tail))
    with pytest.warns(DataWarning, match="missing in 1 of 1 rows"):
        read_table(path, VOCAB)
    assert read_table(path, VOCAB, repair_tail=True)[0].tokens == read_layout([3], 1)


@pytest.mark.parametrize("nothing", ["", "  ", float("nan"), None])
def test_an_empty_source_is_no_source(nothing):
    records = [
        Record(read_layout([i // 8, i % 8], 0), 0, {"source_id": nothing}) for i in range(40)
    ]
    splits = split_records(records)
    assert [len(rows) for rows in splits.values()] == [28, 4, 8]
    assert records[0].source is None


def test_sources_are_compared_by_value():
    records = [
        Record(read_layout([i], 0), 0, {"source_id": s}) for i, s in enumerate([3, "3", 3.0, " 3"])
    ]
    assert len(leaks({"train": records[:1], "val": records[1:2], "test": records[2:]})) == 3


# ---------------------------------------------------------------- any file at all


FUZZ = settings(
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
words = st.sampled_from([*VOCAB, "<NEW>", "\ud800", "\x1b[2J"])
rows = st.fixed_dictionaries(
    {"tokens": json_values | st.lists(words, max_size=8).map(" ".join)},
    optional={
        "label": json_values | st.integers(-1, 4),
        "meta": json_values
        | st.fixed_dictionaries({}, optional={"split": json_values, "source_id": json_values}),
        "more": json_values,
    },
)
file_bytes = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=20).map(gzip.compress),
    st.lists(rows | json_values, max_size=4).map(
        lambda held: "\n".join(json.dumps(row) for row in held).encode()
    ),
    st.text('{}[]",:\\u0d8 1eE+-.\n\r', max_size=40).map(str.encode),
)


def read_or_one_sentence(read, path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            read(path)
        except DataError as error:
            said = printable(error)
            assert said.startswith(str(path)) and "\n" not in said and len(said) < 600


@FUZZ
@given(content=file_bytes, repair=st.booleans(), unknown=st.booleans(), name=st.booleans())
def test_any_file_of_rows_is_read_or_refused_in_one_sentence(
    tmp_path, content, repair, unknown, name
):
    path = tmp_path / ("rows.jsonl" if name else "rows.jsonl.gz")
    path.write_bytes(content)

    def read(path):
        records = read_table(path, VOCAB, repair_tail=repair, allow_unknown=unknown)
        describe(records)

    read_or_one_sentence(read, path)


@FUZZ
@given(
    content=file_bytes
    | st.dictionaries(words | st.text(max_size=4), st.integers(-1, 12) | json_values).map(
        lambda held: json.dumps(VOCAB | held).encode()
    )
)
def test_any_vocabulary_is_read_or_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "vocab.json"
    path.write_bytes(content)
    read_or_one_sentence(read_vocab, path)
