"""Every trap reports the wrong number that its docstring describes, and the correct one."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqlm.config import DataFiles, ModelConfig
from seqlm.data.build import SEQUENCES, VOCAB, Pictures
from seqlm.data.corpus import load_corpus
from seqlm.data.splits import leaks, split_records
from seqlm.data.tokens import class_of, reading_prompt, shorten
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.metrics import nll
from seqlm.evaluation.scores import TokenScores, score_tokens
from seqlm.lab import trap_experiments as experiments
from seqlm.lab import traps
from seqlm.models.gpt2 import build_lm
from seqlm.training.batches import Rows, collator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(built):
    return load_corpus(DataFiles(built.directory / SEQUENCES, built.directory / VOCAB))


@pytest.fixture(scope="module")
def few(built):
    """60 training images, and all the test images."""
    pictures = built.pictures
    split = pictures.split.copy()
    split[np.flatnonzero(split == "train")[60:]] = "val"
    return Pictures(pictures.images, pictures.labels, split)


@pytest.fixture(scope="module")
def lm(corpus, few):
    """A small model trained for many epochs on the rows of 60 images."""
    sources = {f"digits-{i:05d}" for i in np.flatnonzero(few.split == "train")}
    records = [r for r in corpus.records("train", "read") if r.source in sources]
    rows = corpus.ids([record.tokens for record in records])
    size = ModelConfig(n_layer=2, n_head=2, n_embd=64, n_positions=24, dropout=0.0)
    return experiments.fit_small_model(build_lm(size, corpus.vocab), rows, rows, steps=200, seed=0)


@pytest.fixture(scope="module")
def padding(corpus):
    return experiments.train_with_padding_counted(corpus, 128, 40, seed=0, n_rows=20)


@pytest.fixture(scope="module")
def guesses():
    """A thousand candidates that guess at random for each of 400 images."""
    return np.random.default_rng(0).random((1000, 400)) < 0.5


@pytest.fixture(scope="module")
def results(corpus, built, few, lm, padding, guesses):
    """Every trap, on data small enough for a test."""
    augmentation = replace(built.config, seed=7)
    return [
        padding[0],
        *experiments.train_with_shifted_labels(corpus, steps=60, seed=0).values(),
        experiments.train_with_class_in_input(corpus, steps=40, seed=0),
        experiments.train_with_label_cut_off(corpus, max_length=12, steps=80, seed=0),
        experiments.measure_siblings(lm, corpus, built.book, few, augmentation),
        experiments.measure_twins(corpus, copies=1, seed=0),
        experiments.measure_batch_means(easier_to_the_end(), batch_size=8),
        experiments.measure_best_of_many(guesses, halvings=200, seed=0),
    ]


def scores_of(lengths, surprisal):
    """Scores of rows of these lengths; `surprisal(place, length)` (M,) gives the NLL."""
    lengths = np.asarray(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    zeros = np.zeros(len(row), dtype=int)
    surprised = np.asarray(surprisal(place, lengths[row]), dtype=float)
    return TokenScores(row, place + 1, zeros, surprised, zeros, len(lengths))


def easier_to_the_end():
    noise = np.random.default_rng(1)
    whole = scores_of([16] * 300, lambda place, _: 5 - place / 4 + noise.random(len(place)))
    return experiments.drop_prefixes(whole, seed=0)


# Every reported number against the correct one


NAMES = [
    "padding counted",
    "labels shifted twice",
    "two shifts that cancel",
    "class left in the input",
    "label cut off",
    "siblings across the split",
    "twins across the split",
    "mean of batch means",
    "best of many, picked on test",
]


def test_all_the_traps_are_there(results):
    assert [trap.name for trap in results] == NAMES


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("label cut off", NAMES[-1])])
def test_reported_numbers_are_better_than_true_ones_beyond_chance(results, name):
    trap = results[NAMES.index(name)]
    low, high = (
        (trap.reported, trap.true) if trap.true.unit != "share" else (trap.true, trap.reported)
    )
    assert trap.flatters and low.high < high.low, trap
    assert trap.reported.low <= trap.reported.value <= trap.reported.high
    assert trap.true.n > 1 and trap.reported.n > 1 and trap.true.unit == trap.reported.unit


def test_a_label_cut_off_makes_a_model_look_worse(results):
    trap = results[NAMES.index("label cut off")]
    assert not trap.flatters and trap.reported.high < trap.true.low, trap
    assert trap.reported.low < 0.2 and trap.true.value > 0.3


def test_shifts_that_cancel_report_a_perplexity_of_one(results):
    trap = results[NAMES.index("two shifts that cancel")]
    assert trap.reported.value < 1.05 and trap.true.value > 50


def test_with_the_class_in_the_input_accuracy_is_1_and_without_it_chance(results):
    trap = results[NAMES.index("class left in the input")]
    assert trap.reported.value == 1 and trap.true.low <= 0.1 <= trap.true.high


def test_the_best_of_many_is_flattered_where_it_was_picked(results, guesses):
    trap = results[-1]
    assert trap.flatters and trap.reported.n == trap.true.n == 200
    assert trap.true.value == pytest.approx(0.5, abs=0.02)  # all of them guess
    reported, true = traps.select_on_test(guesses, halvings=200, seed=0)
    assert reported.mean() == pytest.approx(trap.reported.value)
    assert np.quantile(reported - true, 0.025) > 0


def test_every_trap_names_an_existing_test(results):
    there = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    for trap in results:
        assert re.search(rf"^def {trap.caught_by}\(", there, re.M), trap.caught_by


def test_traps_can_be_stored_and_printed(results):
    for trap in results:
        stored = json.loads(json.dumps(trap.to_json(), allow_nan=False))
        assert Estimate.from_json(stored["reported"]) == trap.reported
        assert stored["better"] in ("low", "high") and stored["cause"] == trap.cause
        assert str(trap.true) in str(trap) and trap.caught_by in str(trap)


# Padding


def test_padding_is_its_own_label_and_our_collator_ignores_it():
    assert traps.pad_rows([[5, 6], [7]], 4, 0) == [[5, 6, 0, 0], [7, 0, 0, 0]]
    batch = collator(0)([Rows([[5, 6], [7]])[i] for i in range(2)])
    assert (batch["labels"] == -100).sum() == 1


def test_the_longer_the_padding_the_smaller_the_perplexity_of_one_model(padding):
    trap, by_length = padding
    assert list(by_length) == [32, 64, 128] and by_length[128] == trap.reported
    assert by_length[32].value > by_length[64].value > by_length[128].value
    assert by_length[32].n == 20


# Shifts


def test_the_training_loop_compares_labels_one_place_on(lm, corpus):
    rows = corpus.rows("test", "read")[:5]
    for wrong in (traps.shift_labels, traps.shift_inputs):
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


def test_targets_are_the_token_after_the_next_or_the_one_just_seen():
    inputs, labels = traps.shift_labels([[1, 2, 3, 4]])
    assert (inputs, labels) == ([[1, 2, 3]], [[2, 3, 4]])
    assert labels[0][1] == 3  # after inputs[0] = 1, where 2 comes next
    inputs, labels = traps.shift_inputs([[1, 2, 3, 4]])
    assert all(labels[0][t + 1] == inputs[0][t] for t in range(2))


def test_a_small_training_gives_the_same_model_again(corpus):
    rows = corpus.rows("train", "read")
    size = ModelConfig(n_layer=1, n_head=1, n_embd=8, n_positions=24, dropout=0.0)
    first, again = (
        experiments.fit_small_model(build_lm(size, corpus.vocab), rows, rows, steps=3, seed=4)
        for _ in range(2)
    )
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


# Splits


def test_rows_split_at_random_leak_and_our_split_does_not(corpus):
    records = experiments.first_copies(corpus, copies=1)
    sides = traps.split_rows(records, seed=0)
    assert len(sides["train"]) + len(sides["test"]) == len(records)
    assert 0.1 < len(sides["test"]) / len(records) < 0.3
    assert len(leaks(sides)) > 50
    free = [replace(r, meta={"source_id": r.source}) for r in records]
    assert leaks(split_records(free)) == []


def test_only_so_many_copies_of_each_image_are_used(corpus):
    none, one = (experiments.first_copies(corpus, copies) for copies in (0, 1))
    assert {record.meta["copy"] for record in none} == {0}
    assert len(one) == 2 * len(none)


def test_one_row_of_each_source_is_classified(corpus):
    records = experiments.first_copies(corpus, copies=1)
    right = experiments.nearest_row_hits(records, records)
    assert right.all() and len(right) == len({record.source for record in records})


# The class, in the prompt and cut off


def test_the_wrong_prompt_ends_in_the_class_and_the_right_one_before_it(corpus):
    records = corpus.records("test", "read")[:3]
    rows = corpus.ids([record.tokens for record in records])
    leaky = traps.prompts_with_class(rows, corpus.class_ids)
    right = corpus.ids([reading_prompt(record.tokens) for record in records])
    for wrong, prompt, record in zip(leaky, right, records, strict=True):
        assert wrong[:-1] == prompt and wrong[-1] == corpus.class_ids[record.label]


def test_cutting_from_the_right_takes_the_class_and_shortening_keeps_it(corpus):
    tokens = corpus.records("test", "read")[0].tokens
    cut = traps.truncate_right([tokens], 12)[0]
    assert len(cut) == len(shorten(tokens, 12)) == 12
    assert not any(class_of(token) is not None for token in cut)
    assert class_of(shorten(tokens, 12)[-2]) is not None


# Means


def test_the_mean_of_batch_means_equals_a_sum_done_by_hand():
    scores = scores_of([1, 4, 1, 2], lambda place, length: 10 * length + place)
    # batches by length: rows 0 and 2, then rows 3 and 1
    by_hand = np.mean([np.mean([10, 10]), np.mean([20, 21, 40, 41, 42, 43])])
    estimate = traps.mean_of_batch_means(scores, batch_size=2)
    assert estimate.value == pytest.approx(by_hand) and estimate.n == 4
    assert estimate.low < by_hand < estimate.high


def test_rows_with_no_tokens_are_in_no_batch():
    scores = scores_of([0, 3, 0, 1], lambda place, length: length + 0.0 * place)
    assert traps.mean_of_batch_means(scores, batch_size=1).value == pytest.approx(2.0)


def test_with_all_rows_in_one_batch_or_rows_of_one_length_both_means_agree():
    ragged = easier_to_the_end()
    assert traps.mean_of_batch_means(ragged, 10_000).value == pytest.approx(nll(ragged).value)
    even = scores_of([5] * 12, lambda place, length: place**2)
    assert traps.mean_of_batch_means(even, 4).value == pytest.approx(nll(even).value)


def test_batch_size_changes_the_wrong_mean():
    ragged = easier_to_the_end()
    by_size = [traps.mean_of_batch_means(ragged, size).value for size in (4, 32, 150)]
    assert len(set(np.round(by_size, 3))) == 3


def test_unfinished_rows_keep_their_ends_and_at_least_one_token():
    whole = scores_of([16] * 200, lambda place, _: place)
    rest = experiments.drop_prefixes(whole, seed=3)
    counts = np.bincount(rest.row)
    assert counts.min() == 1 and counts.max() == 16 and len(counts) == 200
    assert all(rest.position[rest.row == row][-1] == 16 for row in range(200))


# The best of many


def test_of_one_candidate_both_halves_together_are_the_whole():
    hits = np.array([[True] * 30 + [False] * 10])
    reported, true = traps.select_on_test(hits, halvings=50, seed=0)
    np.testing.assert_allclose((reported + true) / 2, 0.75)


def test_the_candidate_picked_is_the_best_on_its_half():
    hits = np.zeros((3, 10), dtype=bool)
    hits[1] = True
    reported, true = traps.select_on_test(hits, halvings=5, seed=0)
    assert (reported == 1).all() and (true == 1).all()


def test_candidates_differ_but_are_about_equally_good(built):
    hits = experiments.train_candidates(built.pictures, many=5, n_images=60, seed=0)
    assert hits.shape == (5, 60) and len({row.tobytes() for row in hits}) == 5
    assert hits.mean() > 0.5 and np.ptp(hits.mean(1)) < 0.3


def test_means_over_halvings_of_the_same_images_claim_no_interval(built):
    hits = experiments.train_candidates(built.pictures, many=5, n_images=60, seed=0)
    trap = experiments.measure_best_of_many(hits, halvings=40, seed=0)
    assert not trap.reported.has_interval and not trap.true.has_interval
    assert trap.reported.n == trap.true.n == 30 and "of 40 halvings" in trap.cause
