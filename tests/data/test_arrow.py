"""A large file is read by several processes into a cache, and says what a small one says."""

import gzip
import json
import os
import shutil
import warnings

import datasets
import numpy as np
import pytest

from seqlm.data import arrow
from seqlm.data.arrow import read_rows, read_table
from seqlm.data.records import RowReader
from seqlm.data.table import Table
from seqlm.data.tokens import default_vocab, draw_layout, read_layout
from seqlm.errors import DataError, DataWarning, error_prefix

VOCAB = default_vocab(8, 3)
GOOD = {"tokens": " ".join(read_layout([1, 2], 1)), "label": 1}


def row(rng, **more):
    codes, label = rng.integers(0, 8, rng.integers(1, 9)), int(rng.integers(3))
    layout = (read_layout, draw_layout)[int(rng.integers(2))]
    meta = {"source_id": f"s{rng.integers(50)}", "é": None}
    return {"tokens": " ".join(layout(codes, label)), "label": label, "meta": meta} | more


def lines(n=300, seed=0, **more):
    rng = np.random.default_rng(seed)
    return [json.dumps(row(rng, **more)) for _ in range(n)]


def write(folder, texts, name="rows.jsonl"):
    path = folder / name
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def row_by_row(path, vocab, **settings):
    """The rows of a file, checked one after the other and never put into columns."""
    reader, records = RowReader(vocab, **settings), []
    for place, line, content in read_rows(path):
        with error_prefix(place):
            records.append(reader(content, line)[0])
    return records


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Any file is a large one, read in four parts by this process, with a cache of its own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(arrow, "LARGE", 1)
    monkeypatch.setattr(arrow, "_part_size", lambda size: max(1, -(-size // 4)))
    monkeypatch.setattr(arrow, "_processes", lambda: 1)
    return tmp_path / "cache" / "seqlm"


def written(monkeypatch):
    """The parts that are read from now on."""
    calls, write_part = [], arrow._write_part
    spy = lambda path, encoder, part, target: (  # noqa: E731
        calls.append(part), write_part(path, encoder, part, target))[1]  # fmt: skip
    monkeypatch.setattr(arrow, "_write_part", spy)
    return calls


def test_all_ways_to_read_a_file_give_the_same_rows(tmp_path, large):
    path = write(tmp_path, ["\ufeff" + lines()[0], "", *lines()[1:]])
    for settings in ({}, {"max_length": 9}):
        records = row_by_row(path, VOCAB, **settings)
        table = read_table(path, VOCAB, **settings)
        assert table == records and [r.line for r in table] == [r.line for r in records]
        assert table.column("line").tolist() == [1, *range(3, 302)]
        assert table.column("cut").tolist() == ["cut_codes" in r.meta for r in records]
        chunks = table.arrow["ids"].chunks
        assert len(chunks) == 4
        assert not any(chunk.values.buffers()[1].is_mutable for chunk in chunks)  # mapped


def test_two_processes_read_what_one_reads(tmp_path, large, monkeypatch):
    path = write(tmp_path, lines())
    monkeypatch.setattr(arrow, "_processes", lambda: 2)
    assert read_table(path, VOCAB) == row_by_row(path, VOCAB)
    bad = lines()
    bad[290], bad[120] = "{", json.dumps(GOOD | {"label": 9})
    with pytest.raises(DataError, match=r"rows\.jsonl:121: label: 9 is out of range"):
        read_table(write(tmp_path, bad), VOCAB)


@pytest.mark.parametrize(
    "bad",
    [
        "[1]",
        "{'tokens': 1}",
        "[" * 100_000,
        "{}",
        *map(
            json.dumps,
            [
                GOOD | {"tokens": ["<IMG>"]},
                GOOD | {"tokens": "  "},
                GOOD | {"tokens": "<IMG> <Z_512> <Z_513>"},
                GOOD | {"tokens": "<IMG> <PAD>"},
                GOOD | {"label": True},
                GOOD | {"label": 1.0},
                GOOD | {"label": 3},
                GOOD | {"label": -1},
                GOOD | {"label": 2},
                GOOD | {"meta": []},
                GOOD | {"meta": {"split": ["val"]}},
                GOOD | {"meta": {"source_id": [1]}},
                GOOD | {"tokens": "<IMG> <CLS_1> </IMG> <CLS> <CLS_1> <EOS>" + " <EOS>" * 9},
            ],
        ),
    ],
)
def test_the_first_bad_row_is_named_in_the_same_words(tmp_path, large, monkeypatch, bad):
    texts = lines()
    texts[219] = texts[280] = bad
    path, messages = write(tmp_path, texts), []
    for read in (row_by_row, read_table, read_table):
        with pytest.raises(DataError) as caught:
            read(path, VOCAB, max_length=12)
        messages.append(str(caught.value))
        monkeypatch.setattr(arrow, "LARGE", 2**40 if len(messages) == 2 else 1)
    assert len(set(messages)) == 1 and messages[0].startswith(f"{path}:220: ")
    assert not [file for file in large.rglob("*") if file.is_file()]


@pytest.mark.parametrize("tail", ["<CLS> <CLS> <EOS>", "<CLS> <EOS>"])
def test_a_missing_class_is_told_again_from_the_cache_and_repaired(tmp_path, large, tail):
    texts = lines()
    texts[200] = json.dumps({"tokens": f"<IMG> <Z_001> </IMG> {tail}", "label": 2})
    path = write(tmp_path, texts)
    for _ in range(2):
        with pytest.warns(DataWarning, match=r"in 1 of 300 rows \(the first is line 201\)"):
            read_table(path, VOCAB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            read_table(path, VOCAB, repair_tail=True)[200]
            == (row_by_row(path, VOCAB, repair_tail=True)[200])
        )


def test_unknown_tokens_and_an_empty_file(tmp_path, large):
    path = write(tmp_path, [json.dumps({"tokens": "<IMG> <Z_512> <Z_001> </IMG> <EOS>"})])
    assert read_table(path, VOCAB, allow_unknown=True) == (
        row_by_row(path, VOCAB, allow_unknown=True)
    )
    with pytest.raises(DataError, match="the file has no rows"):
        read_table(write(tmp_path, [""]), VOCAB)
    with pytest.raises(DataError, match="there is no such file"):
        read_table(tmp_path / "gone", VOCAB)


def test_a_file_is_read_once_for_its_content_and_settings(tmp_path, large, monkeypatch):
    path, calls = write(tmp_path, lines()), written(monkeypatch)
    first = read_table(path, VOCAB)
    assert len(calls) == 4
    assert read_table(path, VOCAB) == first and len(calls) == 4
    os.utime(path, (1, 1))
    read_table(path, VOCAB)
    assert len(calls) == 4
    read_table(path, VOCAB, max_length=8)
    assert len(calls) == 8
    read_table(path, default_vocab(9, 3))
    assert len(calls) == 12
    changed = write(tmp_path, [*lines()[:-1], lines(seed=1)[-1]])
    assert read_table(changed, VOCAB)[-1] != first[-1] and len(calls) == 16
    monkeypatch.setattr(arrow, "code_fingerprint", lambda name: "other")
    read_table(changed, VOCAB)
    assert len(calls) == 20


@pytest.mark.parametrize("damage", ["cut", "gone", "about", "text"])
def test_a_damaged_cache_is_written_again(tmp_path, large, monkeypatch, damage):
    path = write(tmp_path, lines())
    rows = list(read_table(path, VOCAB))
    (folder,), calls = large.iterdir(), written(monkeypatch)
    file = folder / "00001.arrow"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "gone":
        file.unlink()
    elif damage == "about":
        (folder / "about.json").write_text("[1")
    else:
        file.write_bytes(b"?" * file.stat().st_size)
    assert read_table(path, VOCAB) == rows and len(calls) == 4


def test_a_killed_write_leaves_nothing_half(tmp_path, large, monkeypatch):
    path = write(tmp_path, lines())
    monkeypatch.setattr(arrow, "write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        read_table(path, VOCAB)
    assert not list(large.iterdir())


def test_old_caches_are_removed(tmp_path, large):
    for seed in range(arrow.KEPT + 3):
        read_table(write(tmp_path, lines(20, seed)), VOCAB)
    assert len(list(large.iterdir())) == arrow.KEPT


def test_without_a_writable_cache_the_rows_are_read_all_the_same(tmp_path, large):
    (tmp_path / "cache").write_text("a file, where a folder should go")
    path = write(tmp_path, lines())
    assert read_table(path, VOCAB) == row_by_row(path, VOCAB)


def test_a_large_gzipped_file_is_read(tmp_path, large):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines()).encode()))
    assert read_table(path, VOCAB) == row_by_row(path, VOCAB)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="the gzip file is damaged"):
        read_table(path, VOCAB)


# ---------------------------------------------------------------- directories of `datasets`


def saved(folder, rows):
    """`rows` saved by `datasets`: a list, or split -> list."""
    shutil.rmtree(folder / "saved", ignore_errors=True)
    make = datasets.Dataset.from_list
    whole = make(rows) if isinstance(rows, list) else datasets.DatasetDict(
        {name: make(some) for name, some in rows.items()})  # fmt: skip
    whole.save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.parametrize("size", [1, 2**40])
def test_a_dataset_saved_to_disk_is_read(tmp_path, large, monkeypatch, size):
    monkeypatch.setattr(arrow, "LARGE", size)
    rows = [json.loads(text) for text in lines(40)]
    table = read_table(saved(tmp_path, rows), VOCAB)
    plain = row_by_row(write(tmp_path, lines(40)), VOCAB)
    assert [r.tokens for r in table] == [r.tokens for r in plain]
    assert [(r.label, r.source, r.line) for r in table] == [
        (r.label, r.source, r.line) for r in plain
    ]
    assert "é" not in table[0].meta


@pytest.mark.parametrize("size", [1, 2**40])
def test_the_keys_of_a_dataset_dict_name_the_splits(tmp_path, large, monkeypatch, size):
    monkeypatch.setattr(arrow, "LARGE", size)
    rows = [{"tokens": row["tokens"]} for row in map(json.loads, lines(30))]
    path = saved(tmp_path, {"train": rows[:20], "validation": rows[20:25], "test": rows[25:]})
    table = read_table(path, VOCAB)
    assert [r.meta["split"] for r in table] == ["train"] * 20 + ["val"] * 5 + ["test"] * 5
    assert isinstance(table, Table) and table[21].line == 2
    bad = {"train": rows[:9], "test": [*rows[:3], {"tokens": "<PAD>"}]}
    with pytest.raises(DataError, match=r"saved: row 4 of test: tokens: <PAD> stands in the row"):
        read_table(saved(tmp_path, bad), VOCAB)


def test_mistakes_in_a_saved_dataset_are_named(tmp_path, large):
    with pytest.raises(DataError, match="saved: row 2: tokens: unknown token '<Z_9>'"):
        read_table(saved(tmp_path, [GOOD, {"tokens": "<Z_9>"}]), VOCAB)
    with pytest.raises(DataError, match="saved: row 1: tokens: the field is missing"):
        read_table(saved(tmp_path, [{"text": "a"}]), VOCAB)
    with pytest.raises(DataError, match="saved: row 1: tokens: expected text, got list"):
        read_table(saved(tmp_path, [{"tokens": ["<EOS>"]}]), VOCAB)
    with pytest.raises(DataError, match="saved: split 'dev' is none of train, val, test"):
        read_table(saved(tmp_path, {"dev": [GOOD]}), VOCAB)
    (tmp_path / "saved" / "dataset_dict.json").write_text("{")
    with pytest.raises(DataError, match="saved: `datasets` cannot load it"):
        read_table(tmp_path / "saved", VOCAB)
