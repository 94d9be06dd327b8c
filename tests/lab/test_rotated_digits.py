"""Rotated digits: the same images, in the same splits."""

import numpy as np
import pytest

from seqlm.config import DataFiles
from seqlm.data.codebook import psnr
from seqlm.data.corpus import load_corpus
from seqlm.data.tokens import class_of, codes_of, layout_of
from seqlm.lab.rotated_digits import rotate_images, write_rotated_digits


@pytest.fixture(scope="module")
def made(built, tmp_path_factory):
    path = tmp_path_factory.mktemp("turned") / "turned.jsonl"
    about = write_rotated_digits(built.directory, path, copies=1)
    return about, load_corpus(DataFiles(path, built.directory / "vocab.json"))


def test_four_rotations_change_nothing_and_one_puts_the_right_side_up():
    images = np.arange(12.0).reshape(1, 2, 6).repeat(2, 0)
    assert rotate_images(images).shape == (2, 6, 2)
    assert rotate_images(images)[0, 0].tolist() == images[0, :, -1].tolist()
    assert np.array_equal(
        rotate_images(rotate_images(rotate_images(rotate_images(images)))), images
    )


def test_no_picture_straddles_upright_and_rotate_images(built, made):
    upright = load_corpus(
        DataFiles(built.directory / "sequences.jsonl", built.directory / "vocab.json")
    )
    of = {split: {r.source for r in records} for split, records in upright.splits.items()}
    for split, records in made[1].splits.items():
        assert {record.source for record in records} <= of[split]
    for split in ("val", "test"):
        assert {r.source for r in made[1].splits[split]} == of[split]


def test_the_codes_are_those_of_the_rotated_images(built, made):
    record = made[1].records("test", "read")[0]
    index = int(record.source.split("-")[1])
    want = built.book.encode(np.rot90(built.pictures.images[[index]], axes=(1, 2)))[0]
    assert codes_of(record.tokens).tolist() == want.tolist()
    assert record.label == built.pictures.labels[index]


def test_only_training_images_have_copies_and_no_val_or_test_image_is_trained_on(built, made):
    about, corpus = made
    copies = {split: {r.meta["copy"] for r in rows} for split, rows in corpus.splits.items()}
    assert copies == {"train": {0, 1}, "val": {0}, "test": {0}}
    unseen = {r.codes for split in ("val", "test") for r in corpus.splits[split]}
    assert not unseen & {r.codes for r in corpus.splits["train"]}
    assert about["sentences"] == sum(map(len, corpus.splits.values()))
    assert about["sentences"] == 2 * (210 * 2 + 90 - about["left_out"])


def test_the_class_is_withheld_in_as_many_draw_rows_as_upright(built, made):
    drawn = [layout_of(r.tokens) == "draw" for r in made[1].splits["train"]]
    free = [class_of(r.tokens[1]) is None for r in made[1].records("train", "draw")]
    assert sum(drawn) == len(free) > 300
    assert built.config.free_fraction == 0.1 and 0.05 < np.mean(free) < 0.15
    for split in ("val", "test"):
        rows = made[1].records(split, "draw")
        assert all(class_of(r.tokens[1]) == r.label for r in rows), "all measured with their class"


def test_the_code_book_fits_rotated_val_images_a_little_worse(built, made):
    decibels, val = made[0]["psnr"], built.pictures.of("val")[0]
    assert 15 < decibels["turned"] < decibels["upright"] < 40
    assert made[0]["psnr_pictures"] == len(val)
    assert decibels["upright"] == pytest.approx(
        psnr(val, built.book.decode(built.book.encode(val)))
    )
