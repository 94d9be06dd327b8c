"""Every bug of notebook how_to_be_fooled reports the wrong number beside the correct one."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from seqlm.config import DataFiles, ModelConfig
from seqlm.data.build import ABOUT, CODEBOOK, IMAGES, SEQUENCES, VOCAB
from seqlm.data.corpus import load_corpus
from seqlm.data.records import Record
from seqlm.data.tokens import class_of, layout_of
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.metrics import nll
from seqlm.evaluation.scores import TokenScores, score_tokens
from seqlm.lab import traps
from seqlm.models.gpt2 import build_lm
from seqlm.training.batches import Rows, collator
from seqlm.workspace import read_notebooks

ROOT = Path(__file__).parents[2]
NOTEBOOK = nbformat.read(read_notebooks()["how_to_be_fooled"].path, as_version=4)
CELLS = {cell.id: cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code"}
# Small enough for a test.
PARAMETERS = {
    "seed": 0, "pad_to": 128, "padding_steps": 40, "shift_steps": 60, "class_steps": 40,
    "cut_to": 12, "cut_steps": 80, "stop_steps": 60, "copies": 1, "batch_size": 8, "many": 5,
    "learn_from": 40, "halvings": 200,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(built):
    return load_corpus(DataFiles(built.directory / SEQUENCES, built.directory / VOCAB))


@pytest.fixture(scope="module")
def few(built):
    """Which of the images are 60 training images, and which are for test."""
    split = built.pictures.split.copy()
    split[np.flatnonzero(split == "train")[60:]] = "val"
    return split


@pytest.fixture(scope="module")
def lm(corpus, few):
    """A small model trained for many epochs on the rows of 60 images."""
    sources = {f"digits-{i:05d}" for i in np.flatnonzero(few == "train")}
    records = [r for r in corpus.records("train", "read") if r.source in sources]
    rows = corpus.ids([record.tokens for record in records])
    size = traps.small_size(80)
    return traps.fit_small_model(build_lm(size, corpus.vocab), rows, rows, steps=200, seed=0)


@pytest.fixture(scope="module")
def guesses():
    """A thousand candidates that guess at random for each of 400 images."""
    return np.random.default_rng(0).random((1000, 400)) < 0.5


def run_cells(names: dict, first: str, last: str) -> dict:
    """Run the notebook's own cells from one id to another, with `names` for its variables."""
    places = list(CELLS)
    for place in places[places.index(first) : places.index(last) + 1]:
        exec(CELLS[place], names)
    return names


@pytest.fixture(scope="module")
def notebook(built, corpus, few, lm, guesses, tmp_path_factory):
    """The variables of the notebook after its bugs, on data small enough for a test."""
    data = tmp_path_factory.mktemp("few")
    for name in (ABOUT, CODEBOOK):
        shutil.copy(built.directory / name, data)
    pictures = built.pictures
    np.savez(data / IMAGES, images=pictures.images, labels=pictures.labels, split=few)
    rows = corpus.rows("test", "read")
    names = {
        **PARAMETERS, "corpus": corpus, "model": lm, "rows": rows, "test_rows": rows,
        "train_rows": corpus.rows("train", "read"), "results": {}, "most": 8_000,
    }  # fmt: skip
    exec(
        "\n".join(re.findall(r"(?m)^(?:from|import) .*", CELLS["08-03"] + "\n" + CELLS["08-04"])),
        names,
    )
    names |= {"ws": SimpleNamespace(data=data), "correct": all_codes_easier_to_the_end()}
    run_cells(names, "08-59", "08-30")
    names["trained"], names["hits"] = names["hits"], guesses
    return run_cells(names, "08-56", "08-66")


@pytest.fixture(scope="module")
def results(notebook):
    return list(notebook["results"].values())


def scores_of(lengths, surprisal):
    """Scores of rows of these lengths; `surprisal(place, length)` (M,) gives the NLL."""
    lengths = np.asarray(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    zeros = np.zeros(len(row), dtype=int)
    surprised = np.asarray(surprisal(place, lengths[row]), dtype=float)
    return TokenScores(row, place + 1, zeros, surprised, zeros, len(lengths))


def all_codes_easier_to_the_end():
    noise = np.random.default_rng(1)
    return scores_of([16] * 300, lambda place, _: 5 - place / 4 + noise.random(len(place)))


# Every reported number against the correct one


NAMES = [
    "padding counted",
    "labels shifted twice",
    "two shifts that cancel",
    "siblings across the split",
    "twins across the split",
    "class left in the input",
    "mean of batch means",
    "best of many, picked on test",
    "label cut off",
    "padding is <EOS>",
]


# By these a number looks worse, or is a mean over halvings without an interval.
NOT_FLATTERED = ("best of many, picked on test", "label cut off", "padding is <EOS>")


def test_all_the_traps_are_there(results):
    assert [trap.name for trap in results] == NAMES


@pytest.mark.parametrize(
    "name", [n for n in NAMES if not n.startswith(("label cut", "best of", "padding is"))]
)
def test_reported_numbers_are_better_than_true_ones_beyond_chance(results, name):
    trap = results[NAMES.index(name)]
    low, high = (
        (trap.reported, trap.true) if trap.true.unit != "share" else (trap.true, trap.reported)
    )
    assert low.high < high.low, trap
    assert trap.reported.low <= trap.reported.value <= trap.reported.high
    assert trap.true.n > 1 and trap.reported.n > 1 and trap.true.unit == trap.reported.unit


def test_a_label_cut_off_makes_a_model_look_worse(results):
    trap = results[NAMES.index("label cut off")]
    assert trap.reported.high < trap.true.low, trap
    assert trap.reported.low < 0.2 and trap.true.value > 0.3


def test_a_model_that_never_saw_the_end_never_stops_and_codes_do_not_show_it(results, notebook):
    trap = results[NAMES.index("padding is <EOS>")]
    assert trap.reported.value == 0 and trap.true.low > 0.9 and trap.true.n == trap.reported.n
    end = notebook["corpus"].vocab["<EOS>"]
    kept = [np.mean([end in row for row in some]) for some in notebook["labels"].values()]
    assert kept == [0, 1, 1]
    rows = notebook["masked"]([[1, 2, end]], end)
    assert rows == [[1, 2, -100]]


def test_shifts_that_cancel_report_a_perplexity_of_one(results):
    trap = results[NAMES.index("two shifts that cancel")]
    assert trap.reported.value < 1.05 and trap.true.value > 50


def test_with_the_class_in_the_input_accuracy_is_1_and_without_it_chance(results):
    trap = results[NAMES.index("class left in the input")]
    assert trap.reported.value == 1 and trap.true.low <= 0.1 <= trap.true.high


def test_the_best_of_many_is_flattered_where_it_was_picked(results, notebook):
    trap = results[NAMES.index("best of many, picked on test")]
    assert trap.reported.value > trap.true.value and trap.reported.n == trap.true.n == 200
    assert trap.true.value == pytest.approx(0.5, abs=0.02)  # all of them guess
    assert notebook["here"].mean() == pytest.approx(trap.reported.value)
    assert np.quantile(notebook["here"] - notebook["elsewhere"], 0.025) > 0
    # Means over halvings of the same images claim no interval.
    assert not trap.reported.has_interval and not trap.true.has_interval
    assert "of 200 halvings" in trap.cause


def test_every_trap_names_an_existing_test(results):
    there = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    for trap in results:
        assert re.search(rf"^def {trap.caught_by}\(", there, re.M), trap.caught_by


def test_traps_can_be_stored_and_printed(results):
    for trap in results:
        stored = json.loads(json.dumps(trap.to_json(), allow_nan=False))
        assert Estimate.from_json(stored["reported"]) == trap.reported
        assert stored["cause"] == trap.cause
        assert str(trap.true) in str(trap) and trap.caught_by in str(trap)


# Padding


def test_padding_is_its_own_label_and_our_collator_ignores_it():
    names = {"corpus": SimpleNamespace(vocab={"<PAD>": 0}), "PAD": "<PAD>", "pad_to": 4}
    exec(CELLS["08-06"].split("\n\n\n")[0], names)
    assert names["padded"]([[5, 6], [7]]) == [[5, 6, 0, 0], [7, 0, 0, 0]]
    batch = collator(0)([Rows([[5, 6], [7]])[i] for i in range(2)])
    assert (batch["labels"] == -100).sum() == 1


def test_the_longer_the_padding_the_smaller_the_perplexity_of_one_model(results, notebook):
    by_length = notebook["by_length"]
    assert list(by_length) == [32, 64, 128] and by_length[128] == results[0].reported
    assert by_length[32].value > by_length[64].value > by_length[128].value
    assert by_length[32].n == 60


# Shifts


def test_the_training_loop_compares_labels_one_place_on(lm, corpus, notebook):
    rows = corpus.rows("test", "read")[:5]
    for wrong in (notebook["shifted"], notebook["swapped"]):
        inputs, labels = wrong(rows)
        with torch.no_grad():
            loss = lm(torch.tensor(inputs), labels=torch.tensor(labels)).loss.item()
        scores = traps.score_training_loop(lm, inputs, labels)
        assert scores.nll.mean() == pytest.approx(loss, abs=1e-5)
        assert scores.target[:3].tolist() == labels[0][1:4]


def test_with_the_inputs_as_labels_the_loop_is_right(lm, corpus):
    rows = corpus.rows("test", "read")[:5]
    loop, correct = traps.score_training_loop(lm, rows, rows), score_tokens(lm, rows)
    for column in ("row", "position", "target", "rank"):
        assert np.array_equal(getattr(loop, column), getattr(correct, column))
    np.testing.assert_allclose(loop.nll, correct.nll, atol=1e-5)


def test_targets_are_the_token_after_the_next_or_the_one_just_seen(notebook):
    inputs, labels = notebook["shifted"]([[1, 2, 3, 4]])
    assert (inputs, labels) == ([[1, 2, 3]], [[2, 3, 4]])
    assert labels[0][1] == 3  # after inputs[0] = 1, where 2 comes next
    inputs, labels = notebook["swapped"]([[1, 2, 3, 4]])
    assert all(labels[0][t + 1] == inputs[0][t] for t in range(2))


def test_a_small_training_gives_the_same_model_again(corpus):
    rows = corpus.rows("train", "read")
    size = ModelConfig(n_layer=1, n_head=1, n_embd=8, n_positions=24, dropout=0.0)
    first, again = (
        traps.fit_small_model(build_lm(size, corpus.vocab), rows, rows, steps=3, seed=4)
        for _ in range(2)
    )
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


# Splits


def test_rows_split_at_random_leak_and_rows_of_one_source_stay_together(notebook):
    sides, n = notebook["by_row"], len(notebook["records"])
    assert len(sides["train"]) + len(sides["test"]) == n
    assert 0.1 < len(sides["test"]) / n < 0.3
    assert len(notebook["shared"]) > 50
    of_side = [{record.source for record in rows} for rows in notebook["by_source"].values()]
    assert not of_side[0] & of_side[1]


def test_only_so_many_copies_of_each_image_are_used(notebook):
    kept = run_cells({**notebook, "copies": 0}, "08-18", "08-18")["records"]
    assert {record.meta["copy"] for record in kept} == {0}
    assert len(notebook["records"]) == 2 * len(kept)


def test_one_row_of_each_source_is_classified(notebook):
    records: list[Record] = notebook["records"]
    right = notebook["nearest_row_hits"](records, records)
    assert all(right) and len(right) == len({record.source for record in records})


# The class, in the prompt and cut off


def test_the_wrong_prompt_ends_in_the_class_and_the_right_one_before_it(corpus, notebook):
    prompts, labels = corpus.to_classify("test")
    for wrong, prompt, label in zip(notebook["leaky"], prompts, labels, strict=True):
        assert wrong[:-1] == prompt and wrong[-1] == corpus.class_ids[label]


def test_cutting_from_the_right_takes_the_class_and_shortening_keeps_it(corpus, notebook):
    names = corpus.tokenizer.convert_ids_to_tokens
    cut, short = names(notebook["cut"][0]), names(notebook["shortened"]["train"][0])
    assert len(cut) == len(short) == 12 and layout_of(short) == "read"
    assert not any(class_of(token) is not None for token in cut)
    assert class_of(short[-2]) is not None
    assert names(notebook["prompts"][0])[-1] == "<CLS>"


# Means


def test_the_mean_of_batch_means_equals_a_sum_done_by_hand(notebook):
    scores = scores_of([1, 4, 1, 2], lambda place, length: 10 * length + place)
    # batches by length: rows 0 and 2, then rows 3 and 1
    by_hand = np.mean([np.mean([10, 10]), np.mean([20, 21, 40, 41, 42, 43])])
    estimate = notebook["mean_of_batch_means"](scores, 2)
    assert estimate.value == pytest.approx(by_hand) and estimate.n == 4
    assert estimate.low < by_hand < estimate.high


def test_with_all_rows_in_one_batch_or_rows_of_one_length_both_means_agree(notebook):
    ragged, wrong = notebook["rest"], notebook["mean_of_batch_means"]
    assert wrong(ragged, 10_000).value == pytest.approx(nll(ragged).value)
    even = scores_of([5] * 12, lambda place, length: place**2)
    assert wrong(even, 4).value == pytest.approx(nll(even).value)


def test_batch_size_changes_the_wrong_mean(notebook):
    wrong, rest = notebook["mean_of_batch_means"], notebook["rest"]
    assert len({round(wrong(rest, size).value, 3) for size in (4, 32, 150)}) == 3


def test_unfinished_rows_keep_their_ends_and_at_least_one_token(notebook):
    rest = notebook["rest"]
    counts = np.bincount(rest.row)
    assert counts.min() == 1 and counts.max() == 16 and len(counts) == 300
    assert all(rest.position[rest.row == row][-1] == 16 for row in range(300))


# The best of many


def picked(hits, halvings):
    names = run_cells({"np": np, "seed": 0, "hits": hits, "halvings": halvings}, "08-56", "08-56")
    return names["here"], names["elsewhere"]


def test_of_one_candidate_both_halves_together_are_the_whole():
    reported, true = picked(np.array([[True] * 30 + [False] * 10]), halvings=50)
    np.testing.assert_allclose((reported + true) / 2, 0.75)


def test_the_candidate_picked_is_the_best_on_its_half():
    hits = np.zeros((3, 10), dtype=bool)
    hits[1] = True
    reported, true = picked(hits, halvings=5)
    assert (reported == 1).all() and (true == 1).all()


def test_candidates_differ_but_are_about_equally_good(notebook):
    hits = notebook["trained"]
    assert hits.shape == (5, 60) and len({row.tobytes() for row in hits}) == 5
    assert hits.mean() > 0.5 and np.ptp(hits.mean(1)) < 0.3
