"""What cannot be read or written is said in a sentence; hashes, fingerprints and durations."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from seqlm.errors import DataError, SeqlmError
from seqlm.utils import (
    PACKAGE,
    code_fingerprint,
    format_duration,
    modules_behind,
    read_json,
    sha256_of,
    write_json,
)


def test_json_keeps_the_order_of_keys_and_takes_numpy_values(tmp_path):
    path = tmp_path / "a.json"
    write_json(
        path,
        {
            "z": np.float32(0.5),
            "a": np.int64(3),
            "flag": np.bool_(True),
            "list": (np.arange(2), Path("x")),
            "名": None,
            np.int64(7): 1,
        },
    )
    text = path.read_text(encoding="utf-8")
    assert text.startswith('{\n  "z": 0.5,\n  "a": 3,') and text.endswith("}\n")
    assert read_json(path) == {
        "z": 0.5,
        "a": 3,
        "flag": True,
        "list": [[0, 1], "x"],
        "名": None,
        "7": 1,
    }


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan"), np.array([0.0, np.nan])])
def test_json_refuses_what_is_not_a_number_and_names_the_key(tmp_path, bad):
    path = tmp_path / "a.json"
    with pytest.raises(SeqlmError, match=r"a\.json: scores\[0\]\.nll"):
        write_json(path, {"scores": [{"nll": bad}]})
    assert not path.exists()


def test_json_refuses_an_object_it_cannot_hold(tmp_path):
    with pytest.raises(SeqlmError, match="model: a object cannot"):
        write_json(tmp_path / "a.json", {"model": object()})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf  \n", "is empty"),
        (b'{"a": 1,\n "b" 2}', r"a\.json:2:6: not valid JSON"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"1" * 5000, "not readable as JSON"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_json(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json: there is no such file"):
        read_json(tmp_path / "gone.json")
    with pytest.raises(DataError, match="this is a folder"):
        read_json(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_json(path) == {"a": 1}


def test_the_hash_knows_names_and_contents_but_neither_order_nor_place(tmp_path):
    def made(folder, **contents):
        (tmp_path / folder).mkdir()
        for name, text in contents.items():
            (tmp_path / folder / name).write_text(text)
        return tmp_path / folder

    one, same = made("one", a="1", b="2"), made("same", a="1", b="2")
    swapped, renamed = made("swapped", a="2", b="1"), made("renamed", a="1", c="2")
    reference = sha256_of([one / "a", one / "b"])
    assert len(reference) == 16 and int(reference, 16) >= 0
    assert sha256_of([one / "b", one / "a"]) == reference
    assert sha256_of(one) == sha256_of([same]) == reference
    assert len({reference, sha256_of(swapped), sha256_of(renamed), sha256_of(one / "a")}) == 4


def test_the_hash_of_a_folder_does_not_depend_on_where_it_lies(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        for name in "abcdefghijkl":
            (tmp_path / folder / "deep" / name).write_text(name)
    assert sha256_of(tmp_path / "here") == sha256_of(tmp_path / "there")


def test_a_hash_needs_files_that_are_there(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        sha256_of([tmp_path / "gone"])
    with pytest.raises(DataError, match="no files"):
        sha256_of([])


@pytest.mark.parametrize(
    "source",
    [
        "import seqlm.data.corpus",
        "from seqlm.data import corpus",
        "from seqlm.data.corpus import load_corpus",
        "%matplotlib inline\n!ls\nfrom seqlm.data.corpus import load_corpus as load",
    ],
)
def test_the_code_behind_an_import_is_the_module_its_rooms_and_what_it_imports(source):
    behind = {path.relative_to(PACKAGE).as_posix() for path in modules_behind(source)}
    assert {"__init__.py", "data/__init__.py", "data/corpus.py", "data/tokens.py"} <= behind
    assert {"errors.py", "config.py"} <= behind  # behind data/corpus.py, each in its turn
    assert not {"training/train.py", "plots/style.py", "cli.py"} & behind


def test_a_code_fingerprint_changes_with_a_module_far_behind(tmp_path, monkeypatch):
    for name, text in {
        "__init__": "",
        "a": "import toy.b",
        "b": "from toy import c",
        "c": "",
    }.items():
        (tmp_path / "toy").mkdir(exist_ok=True)
        (tmp_path / "toy" / f"{name}.py").write_text(text)
    monkeypatch.setattr("seqlm.utils.PACKAGE", tmp_path / "toy")
    first = code_fingerprint("toy.a")
    assert first == code_fingerprint("toy.a") != code_fingerprint("toy.c")
    (tmp_path / "toy/c.py").write_text("ONE = 1")
    assert first != code_fingerprint("toy.a")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "1 s"), (1, "1 s"), (89, "89 s"), (540, "9 min"), (7500, "2 h 5 min")],
)
def test_durations_are_formatted_in_seconds_minutes_or_hours(seconds, words):
    assert format_duration(seconds) == words
