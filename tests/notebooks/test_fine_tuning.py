"""Fine-tuned models are compared on the same tokens, and chance is named as such."""

from types import SimpleNamespace

import nbformat
import numpy as np
import pytest

from seqlm.config import DataFiles
from seqlm.data.codebook import psnr
from seqlm.data.corpus import load_corpus
from seqlm.data.tokens import class_of, codes_of, layout_of
from seqlm.evaluation.scores import TokenScores
from seqlm.plots.images import plot_images
from seqlm.training.forgetting import SplitScores
from seqlm.workspace import read_notebooks

RNG = np.random.default_rng(1)
HARD = RNG.normal(4, 2, 60)  # some pictures are hard for every model


def answered(nll: np.ndarray) -> SplitScores:
    """Four codes a row, each costing what `nll` (rows,) says."""
    rows, places = np.repeat(np.arange(len(nll)), 4), np.tile(np.arange(1, 5), len(nll))
    codes = TokenScores(rows, places, places, np.repeat(nll, 4), rows * 0, len(nll))
    return SplitScores(codes, np.arange(len(nll)), None)


def run_cells(names: dict, *ids: str) -> dict:
    """The variables that the notebook's own cells leave behind."""
    notebook = nbformat.read(read_notebooks()["fine_tuning"].path, as_version=4)
    for cell in notebook.cells:
        if cell.id in ids:
            exec(cell.source, names)
    return names


def functions(scores: dict) -> dict:
    """The notebook's own functions, which compare what is in `scores`."""
    scores = {name: {"old rows": answer} for name, answer in scores.items()}
    return run_cells({"scores": scores}, "09-20", "09-30")


def test_a_real_difference_is_distinguished_from_chance():
    noisy = answered(HARD + RNG.normal(0, 1, 60))
    names = functions({"a": answered(HARD - 0.5), "b": answered(HARD), "c": noisy})
    real, chance = (names["difference_of"](k, "b", "old rows") for k in ("a", "c"))
    assert real.value == pytest.approx(-0.5) and names["distinguishable"](real)
    assert not names["distinguishable"](chance)


def test_an_order_is_claimed_only_where_it_is_more_than_chance():
    near = answered(HARD - 0.5 + RNG.normal(0, 0.5, 60))
    names = functions({"a": answered(HARD - 0.5), "b": answered(HARD), "c": near})
    said = names["ranking"](["a", "b", "c"], "old rows")
    assert said.startswith("On old rows, of 3 models, ")
    assert " and " in said and ", not distinguishable)" in said and "b -0.5" in said
    assert "are not distinguishable at the top" in said
    sure = names["ranking"](["b", "a"], "old rows")
    assert sure.startswith(
        "On old rows, of 2 models, a needs the fewest nats per code. a minus b -0.50 ("
    )
    assert "distinguishable" not in sure and sure.endswith("; n = 60.")


# --- the rotated digits ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(built, tmp_path_factory):
    """What the notebook notes about the rotated digits, their corpus, and how it rotates."""
    names = {
        "ws": SimpleNamespace(data=built.directory, show=lambda figure, name: None),
        "folder": tmp_path_factory.mktemp("rotated"), "copies": 1, "plot_images": plot_images,
        "load_corpus": load_corpus, "DataFiles": DataFiles,
    }  # fmt: skip
    run_cells(names, "09-05", "09-32", "09-33")
    return names["about"], names["rotated"], names["rotate"]


def test_four_rotations_change_nothing_and_one_puts_the_right_side_up(made):
    rotate = made[2]
    images = np.arange(12.0).reshape(1, 2, 6).repeat(2, 0)
    assert rotate(images).shape == (2, 6, 2)
    assert rotate(images)[0, 0].tolist() == images[0, :, -1].tolist()
    assert np.array_equal(rotate(rotate(rotate(rotate(images)))), images)


def test_no_picture_straddles_upright_and_rotated(built, made):
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
    about, corpus = made[:2]
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
