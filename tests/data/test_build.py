"""What is built from the digits keeps the data contract, and nothing held out leaks into train."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import write_idx
from sklearn.model_selection import train_test_split

from seqlm.atomic import MANIFEST
from seqlm.config import DataConfig
from seqlm.data.arrow import read_table
from seqlm.data.build import (
    ABOUT,
    CODEBOOK,
    FILES,
    IMAGES,
    SEQUENCES,
    VOCAB,
    build_dataset,
    is_built,
    load_pictures,
)
from seqlm.data.codebook import PatchCodebook
from seqlm.data.images import load_digits, split_indices
from seqlm.data.splits import leaks, split_records
from seqlm.data.tokens import (
    codes_of,
    default_vocab,
    draw_layout,
    layout_of,
    read_layout,
    read_vocab,
)
from seqlm.errors import ConfigError, DataError

COARSE = DataConfig(n_images=300, copies=2, n_codes=4, patch=4)  # so coarse that images collide


def records_of(directory):
    return read_table(directory / SEQUENCES, read_vocab(directory / VOCAB))


@pytest.fixture(scope="module")
def records(built):
    return records_of(built.directory)


def of_split(records, split):
    return [record for record in records if record.meta["split"] == split]


def originals(records):
    return [record for record in records if record.meta["copy"] == 0]


# ---------------------------------------------------------------- what is written


def test_every_file_is_written_and_described(built, records):
    names = {path.name for path in built.directory.iterdir()}
    assert names == {SEQUENCES, VOCAB, CODEBOOK, IMAGES, ABOUT, MANIFEST} == {*FILES, MANIFEST}
    about = json.loads((built.directory / ABOUT).read_text())
    assert about == built.about
    assert about["images"] == {"train": 210, "val": 30, "test": 60}
    assert about["sentences"] == len(records)
    assert about["codes_an_image"] == 16


def test_the_vocabulary_is_the_contracts(tmp_path):
    build_dataset(DataConfig(n_images=300, copies=0), tmp_path)
    vocab = json.loads((tmp_path / VOCAB).read_text())
    assert len(vocab) == 516 and set(vocab.values()) == set(range(516))
    names = {index: token for token, index in vocab.items()}
    structural = ["<PAD>", "<UNK>", "<IMG>", "</IMG>", "<CLS>", "<EOS>"]
    assert [names[index] for index in range(6)] == structural
    assert [names[index] for index in range(6, 506)] == [f"<Z_{k:03d}>" for k in range(500)]
    assert [names[index] for index in range(506, 516)] == [f"<CLS_{k}>" for k in range(10)]


def test_rows_are_written_as_the_contract_says(built):
    lines = (built.directory / SEQUENCES).read_text().splitlines()
    row = json.loads(lines[0])
    assert list(row) == ["tokens", "label", "meta"]
    code = r"<Z_0[0-4]\d>"
    whole = rf"<IMG>( {code}){{16}} </IMG> <CLS> <CLS_{row['label']}> <EOS>"
    assert re.fullmatch(whole, row["tokens"])
    assert {"split", "source_id"} <= set(row["meta"])


def test_pictures_are_the_originals_with_their_split(built):
    images, labels = load_digits()
    pictures = built.pictures
    assert np.array_equal(pictures.images, images[:300])
    assert np.array_equal(pictures.labels, labels[:300])
    for name, members in split_indices(labels[:300]).items():
        assert np.array_equal(np.flatnonzero(pictures.split == name), members)
        mine, classes = pictures.of(name)
        assert np.array_equal(mine, images[members])
        assert np.array_equal(classes, labels[members])


def test_with_all_digits_the_test_split_is_the_one_everyone_measures_on(tmp_path):
    build_dataset(DataConfig(copies=0, n_codes=20), tmp_path)
    _, labels = load_digits()
    _, test = train_test_split(np.arange(1797), test_size=0.2, stratify=labels, random_state=42)
    sources = {record.source for record in of_split(records_of(tmp_path), "test")}
    assert sources == {f"digits-{index:05d}" for index in test}


# ---------------------------------------------------------------- sentences


def test_both_layouts_of_every_image_and_every_copy_are_there(built, records):
    wanted = {}
    for index, split in enumerate(built.pictures.split):
        for copy in (0, 1) if split == "train" else (0,):
            wanted[f"digits-{index:05d}", copy] = ["draw", "read"]
    by_picture = {}
    for record in records:
        key = record.source, record.meta["copy"]
        by_picture.setdefault(key, []).append(layout_of(record.tokens))
    assert {key: sorted(layouts) for key, layouts in by_picture.items()} == wanted


def test_sentences_say_what_their_image_shows(built, records):
    codes = built.book.encode(built.pictures.images)
    for record in originals(records):
        index = int(record.source.removeprefix("digits-"))
        label = int(built.pictures.labels[index])
        assert record.label == label
        assert record.meta["split"] == built.pictures.split[index]
        assert codes_of(record.tokens).tolist() == codes[index].tolist()
        assert record.tokens in (
            read_layout(codes[index], label),
            draw_layout(codes[index], label),
            draw_layout(codes[index], None),
        )


def test_a_copy_looks_like_its_source_and_bears_its_class(built, records):
    copies = [r for r in records if r.meta["copy"] == 1 and layout_of(r.tokens) == "read"]
    index = np.array([int(record.source.removeprefix("digits-")) for record in copies])
    assert [r.label for r in copies] == built.pictures.labels[index].tolist()
    drawn = built.book.decode(np.stack([codes_of(record.tokens) for record in copies]))
    flat = built.pictures.images.reshape(300, -1)
    distance = ((drawn.reshape(len(drawn), 1, -1) - flat[None]) ** 2).sum(-1)  # (copies, 300)
    assert (distance.argmin(axis=1) == index).mean() > 0.7  # by chance 0.003


def test_val_and_test_hold_originals_only(built, records):
    for split in ("val", "test"):
        held_out = of_split(records, split)
        assert {record.meta["copy"] for record in held_out} == {0}
        assert len(held_out) == 2 * built.about["images"][split]


def test_no_source_stands_on_two_sides(records):
    sides = {}
    for record in records:
        sides.setdefault(record.source, set()).add(record.meta["split"])
    assert all(len(names) == 1 for names in sides.values())
    assert leaks(split_records(records)) == []


def test_no_codes_of_a_held_out_image_are_trained_on(tmp_path):
    about = build_dataset(COARSE, tmp_path)
    assert about["left_out_as_equal"] > 0  # or this test would prove nothing
    records = records_of(tmp_path)
    train, val, test = (
        {record.codes for record in of_split(records, split)} for split in ("train", "val", "test")
    )
    assert not train & (val | test)
    # Nor is the best checkpoint chosen on a picture that is measured at the end.
    assert not val & test
    assert train and val and test


def test_a_data_set_is_never_refused_by_its_own_reader(tmp_path):
    build_dataset(COARSE, tmp_path)
    splits = split_records(records_of(tmp_path))
    assert {name: len({r.source for r in rows}) for name, rows in splits.items()}["test"] == 60


def free(records):
    drawn = [record for record in records if layout_of(record.tokens) == "draw"]
    return sum(record.tokens[1] == "<CLS>" for record in drawn), len(drawn)


def test_the_class_is_withheld_in_about_the_share_asked_for(tmp_path):
    config = DataConfig(n_images=300, copies=4, n_codes=50, free_fraction=0.3)
    build_dataset(config, tmp_path)
    withheld, drawn = free(of_split(records_of(tmp_path), "train"))
    assert drawn > 200 * 5  # all of 210 images and their copies, but those equal to held-out ones
    assert abs(withheld / drawn - 0.3) < 0.05  # three and a half standard deviations


def test_held_out_sentences_are_all_drawn_with_their_class(records):
    assert free(of_split(records, "train"))[0] > 0
    assert free(of_split(records, "val"))[0] == free(of_split(records, "test"))[0] == 0


@pytest.mark.parametrize(("fraction", "share"), [(0.0, 0), (1.0, 1)])
def test_the_class_can_be_withheld_never_or_always(tmp_path, fraction, share):
    build_dataset(DataConfig(n_images=100, copies=0, n_codes=20, free_fraction=fraction), tmp_path)
    withheld, drawn = free(of_split(records_of(tmp_path), "train"))
    assert withheld == share * drawn and drawn > 60


def test_every_class_is_in_every_split(records):
    for split in ("train", "val", "test"):
        counts = Counter(record.label for record in of_split(records, split))
        assert sorted(counts) == list(range(10))


# ---------------------------------------------------------------- the codebook


def build_with(monkeypatch, directory, change):
    images, labels = load_digits()
    images, labels = images[:300].copy(), labels[:300]
    change(images, split_indices(labels))
    monkeypatch.setattr("seqlm.data.build.load_images", lambda *_: (images, labels, None))
    build_dataset(DataConfig(n_images=300, copies=1, n_codes=50), directory)
    return (directory / CODEBOOK).read_bytes(), of_split(records_of(directory), "train")


def blank(split):
    def change(images, indices):
        images[indices[split]] = 0.5

    return change


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_images_change_neither_code_book_nor_training_rows(
    built, records, monkeypatch, tmp_path, split
):
    book, train = build_with(monkeypatch, tmp_path, blank(split))
    assert book == (built.directory / CODEBOOK).read_bytes()
    assert train == of_split(records, "train")


def test_training_images_do_change_the_code_book(built, monkeypatch, tmp_path):
    def change(images, indices):
        images[indices["train"][:20]] *= 0.5

    book, _ = build_with(monkeypatch, tmp_path, change)
    assert book != (built.directory / CODEBOOK).read_bytes()


# ---------------------------------------------------------------- building again


def test_building_twice_gives_the_same_files_to_the_byte(built, tmp_path):
    build_dataset(built.config, tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (built.directory / name).read_bytes(), name


def test_another_seed_gives_other_sentences_of_the_same_split(built, records, tmp_path):
    build_dataset(replace(built.config, seed=1), tmp_path)
    others = records_of(tmp_path)
    assert [r.tokens for r in others] != [r.tokens for r in records]
    assert [(r.source, r.meta["split"]) for r in others] == [
        (r.source, r.meta["split"]) for r in records
    ]


def test_a_data_set_is_built_only_for_the_choices_it_was_made_with(built, tmp_path):
    assert is_built(built.config, built.directory)
    assert is_built(DataConfig(n_images=300, copies=1, n_codes=50), built.directory)
    for changed in ({"copies": 2}, {"seed": 1}, {"shear": 0.1}, {"n_images": None}):
        assert not is_built(replace(built.config, **changed), built.directory), changed
    assert not is_built(built.config, tmp_path / "nowhere")


def test_the_codebook_of_a_trained_model_is_used_and_another_is_another_data_set(built, tmp_path):
    config, book = replace(built.config, copies=0), built.book
    turned = PatchCodebook(book.centers[::-1].copy(), book.image_shape, book.patch)
    build_dataset(config, tmp_path, book=turned)
    assert np.array_equal(PatchCodebook.load(tmp_path / CODEBOOK).centers, turned.centers)
    assert is_built(config, tmp_path, book=turned)
    assert not is_built(config, tmp_path, book=book) and not is_built(config, tmp_path)


def test_other_image_files_are_another_data_set(tmp_path):
    home, made = tmp_path / "home", tmp_path / "made"
    write_idx(home / "mnist", 150)
    config = DataConfig("mnist", n_codes=20, patch=4, copies=0)
    about = build_dataset(config, made, home)
    assert about["images"] == {"train": 105, "val": 15, "test": 30}
    assert about["codes_an_image"] == 49 and is_built(config, made, home)
    tested = {record.source for record in of_split(records_of(made), "test")}
    assert tested == {f"mnist-{i:05d}" for i in range(120, 150)}
    write_idx(home / "mnist", 150, start=1)
    assert not is_built(config, made, home)
    named = replace(config, images_path=home / "mnist")
    build_dataset(named, made)
    assert is_built(named, made) and not is_built(config, made, home)


@pytest.mark.parametrize("name", FILES)
def test_a_data_set_with_a_file_missing_is_not_built(tmp_path, name):
    config = DataConfig(n_images=100, copies=0, n_codes=20)
    build_dataset(config, tmp_path)
    assert is_built(config, tmp_path)
    (tmp_path / name).unlink()
    assert not is_built(config, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3"])
def test_a_data_set_with_a_spoilt_description_is_not_built(tmp_path, text):
    config = DataConfig(n_images=100, copies=0, n_codes=20)
    build_dataset(config, tmp_path)
    (tmp_path / ABOUT).write_text(text)
    assert not is_built(config, tmp_path)


def test_a_build_cut_short_is_not_taken_for_the_one_before(monkeypatch, tmp_path):
    config = DataConfig(n_images=100, copies=0, n_codes=20)
    build_dataset(config, tmp_path)

    def killed(path, records):
        raise KeyboardInterrupt

    monkeypatch.setattr("seqlm.data.build.write_records", killed)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(replace(config, n_codes=30), tmp_path)
    # Its vocabulary is already that of the second build.
    assert not is_built(config, tmp_path)
    assert not is_built(replace(config, n_codes=30), tmp_path)


SMALL = DataConfig(n_images=100, copies=0, n_codes=20)


@pytest.mark.parametrize("name", [VOCAB, IMAGES, ABOUT])
def test_a_file_of_somebody_else_is_not_replaced_unasked(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} was not written by seqlm, or was changed"):
        build_dataset(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
    build_dataset(SMALL, tmp_path, overwrite=True)
    assert is_built(SMALL, tmp_path)
    (tmp_path / name).write_text("edited")
    with pytest.raises(ConfigError, match=f"{name} was not written by seqlm, or was changed"):
        build_dataset(SMALL, tmp_path)
    assert (tmp_path / name).read_text() == "edited"


def test_our_own_data_set_is_replaced_also_that_of_a_version_without_manifests(tmp_path):
    build_dataset(SMALL, tmp_path)
    (tmp_path / f".tmp-01234567-{IMAGES}").touch()  # a kill left it
    other = replace(SMALL, n_codes=30)
    build_dataset(other, tmp_path)
    assert is_built(other, tmp_path) and len([*tmp_path.iterdir()]) == len(FILES) + 1
    (tmp_path / MANIFEST).unlink()
    build_dataset(SMALL, tmp_path)
    assert is_built(SMALL, tmp_path) and (tmp_path / MANIFEST).exists()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short", b"text"])
def test_pictures_that_cannot_be_read_are_named_in_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / IMAGES).write_bytes(content)
    with pytest.raises(DataError, match="01_explore_data or `seqlm build` makes it") as caught:
        load_pictures(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / IMAGES)) and "\n" not in message


def test_the_committed_sample_follows_the_contract_and_is_whole():
    sample = Path(__file__).parents[2] / "data" / "sample"
    vocab = read_vocab(sample / "vocab.json")
    splits = split_records(read_table(sample / "sequences.jsonl", vocab))
    assert vocab == default_vocab()
    assert [len(splits[name]) for name in ("train", "val", "test")] == [140, 20, 40]
