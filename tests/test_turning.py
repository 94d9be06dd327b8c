"""Digits on their side: the same pictures, in the same splits."""

import numpy as np
import pytest

from seqlm.config import DataFiles
from seqlm.corpus import load_corpus
from seqlm.layout import codes_of
from seqlm.turning import turned, write_turned


@pytest.fixture(scope="module")
def made(built, tmp_path_factory):
    path = tmp_path_factory.mktemp("turned") / "turned.jsonl"
    about = write_turned(built.directory, path, copies=1)
    return about, load_corpus(DataFiles(path, built.directory / "vocab.json"))


def test_four_turns_are_none_and_one_puts_the_right_side_up():
    images = np.arange(12.0).reshape(1, 2, 6).repeat(2, 0)
    assert turned(images).shape == (2, 6, 2)
    assert turned(images)[0, 0].tolist() == images[0, :, -1].tolist()
    assert np.array_equal(turned(turned(turned(turned(images)))), images)


def test_no_picture_straddles_upright_and_turned(built, made):
    upright = load_corpus(
        DataFiles(built.directory / "sequences.jsonl", built.directory / "vocab.json")
    )
    of = {
        split: {r.source for r in corpus.splits[split]}
        for corpus in (upright,)
        for split in corpus.splits
    }
    for split, records in made[1].splits.items():
        assert {record.source for record in records} <= of[split]
    for split in ("val", "test"):
        assert {r.source for r in made[1].splits[split]} == of[split]


def test_the_codes_are_those_of_the_turned_pictures(built, made):
    record = made[1].records("test", "read")[0]
    index = int(record.source.split("-")[1])
    want = built.book.encode(np.rot90(built.pictures.images[[index]], axes=(1, 2)))[0]
    assert codes_of(record.tokens).tolist() == want.tolist()
    assert record.label == built.pictures.labels[index]


def test_only_training_pictures_have_copies_and_nothing_held_out_is_trained_on(built, made):
    about, corpus = made
    copies = {split: {r.meta["copy"] for r in rows} for split, rows in corpus.splits.items()}
    assert copies == {"train": {0, 1}, "val": {0}, "test": {0}}
    held = {r.codes for split in ("val", "test") for r in corpus.splits[split]}
    assert not held & {r.codes for r in corpus.splits["train"]}
    assert about["sentences"] == sum(map(len, corpus.splits.values()))
    assert about["sentences"] == 2 * (210 * 2 + 90 - about["left_out"])


def test_the_code_book_fits_turned_pictures_a_little_worse(made):
    found = made[0]["psnr"]
    assert 15 < found["turned"] < found["upright"] < 40
