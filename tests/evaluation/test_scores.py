"""Every token is scored once, by hand the same as by the model, whatever it was padded with."""

from functools import partial

import numpy as np
import pytest
import torch
from samples import VOCAB, BigramModel, ids, ragged_rows, sharpened
from transformers import GPT2ForSequenceClassification

from seqlm.config import ModelConfig
from seqlm.data.tokens import class_ids, draw_layout, read_layout, reading_prompt
from seqlm.errors import DataError, NotFiniteError
from seqlm.evaluation import scores as scores_module
from seqlm.evaluation.metrics import nll, top_k_accuracy
from seqlm.evaluation.scores import (
    batches,
    class_probabilities,
    last_logits,
    score_tokens,
)
from seqlm.models.gpt2 import build_classifier, build_lm

TINY = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64)


@pytest.fixture(scope="module")
def lm():
    return sharpened(build_lm(TINY, VOCAB, seed=1))


def test_nll_and_rank_equal_a_sum_done_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.1, 0.6, 0.3]])
    model = BigramModel(np.log(probabilities) + 3.0)  # a constant changes no probability
    scores = score_tokens(model, [[0, 1, 2, 0], [2, 2]])
    assert scores.row.tolist() == [0, 0, 0, 1]
    assert scores.position.tolist() == [1, 2, 3, 1]
    assert scores.target.tolist() == [1, 2, 0, 2]
    np.testing.assert_allclose(scores.nll, -np.log([0.2, 0.5, 0.1, 0.3]), rtol=1e-6)
    assert scores.rank.tolist() == [1, 0, 2, 1]
    by_hand = -np.log(0.2 * 0.5 * 0.1 * 0.3) / 4
    assert nll(scores).value == pytest.approx(by_hand, rel=1e-6)


def test_scores_come_row_by_row_and_in_order_of_position_whatever_the_lengths(lm):
    rows = ragged_rows()
    scores = score_tokens(lm, rows, batch_size=4)
    expected = [(i, j, token) for i, row in enumerate(rows) for j, token in enumerate(row) if j]
    assert list(zip(scores.row, scores.position, scores.target, strict=True)) == expected
    assert scores.n_rows == len(rows)


@pytest.mark.parametrize("batch_size", [2, 7, None])
def test_batch_size_never_changes_nll(lm, batch_size):
    rows = ragged_rows()
    one_by_one = score_tokens(lm, rows, batch_size=1)
    batched = score_tokens(lm, rows, batch_size)
    assert one_by_one.nll.std() > 0.5, "the model must tell tokens apart, or this shows nothing"
    np.testing.assert_allclose(batched.nll, one_by_one.nll, atol=1e-5)
    np.testing.assert_array_equal(batched.target, one_by_one.target)


def test_padding_never_changes_nll(lm):
    """A short row scored alone, and beside the longest row that fits, which pads it to 64."""
    short, long = [2, 17, 40, 3, 4, 509, 5], [2, *range(10, 69), 3, 4, 506, 5]
    alone = score_tokens(lm, [short])
    padded = score_tokens(lm, [short, long], batch_size=2)
    padded = padded.where(padded.row == 0)
    np.testing.assert_allclose(padded.nll, alone.nll, atol=1e-5)
    assert len(padded.nll) == len(short) - 1


def test_a_real_token_with_the_padding_id_is_still_scored():
    scores = score_tokens(BigramModel(np.eye(3)), [[1, 0, 2], [2, 1, 1, 1]], batch_size=2)
    assert len(scores.nll) == 5


def test_the_score_of_a_row_equals_the_loss_transformers_itself_computes(lm):
    row = ragged_rows()[0]
    input_ids = torch.tensor([row])
    with torch.no_grad():
        loss = lm(input_ids, labels=input_ids, num_items_in_batch=len(row) - 1).loss
    assert score_tokens(lm, [row]).nll.mean() == pytest.approx(float(loss), rel=1e-5)


def test_scoring_is_done_without_dropout_and_leaves_the_model_as_it_was():
    model = build_lm(ModelConfig(n_layer=2, n_head=2, n_embd=32, dropout=0.5), VOCAB).train()
    first = score_tokens(model, ragged_rows())
    assert model.training
    np.testing.assert_array_equal(first.nll, score_tokens(model, ragged_rows()).nll)


def test_a_model_that_cannot_choose_has_guessed_nothing_right():
    model = BigramModel(np.zeros((8, 8)))
    scores = score_tokens(model, [[0, 1, 2, 3]])
    assert top_k_accuracy(scores, 5).value == 0
    assert scores.rank.tolist() == [7, 7, 7]


@pytest.mark.parametrize("level", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(level):
    table = np.zeros((8, 8))
    table[2, 5] = level
    model, rows = BigramModel(table), [[0, 1, 2, 3], [0, 1, 2]]
    assert score_tokens(model, rows[1:]).nll.tolist() == pytest.approx([np.log(8)] * 2)
    for score in (score_tokens, last_logits, partial(class_probabilities, class_ids=[1, 2])):
        with pytest.raises(NotFiniteError, match="training diverged, or its weights are damaged"):
            score(model, rows)


@pytest.mark.parametrize("vocab_size", [516, 100_000])
@pytest.mark.parametrize("length", [20, 100])
def test_the_logits_of_a_batch_fit_into_64_megabytes_whatever_the_vocabulary(vocab_size, length):
    rows = [[1] * length] * 2_000
    found = batches(rows, vocab_size=vocab_size)
    assert sorted(np.concatenate(found)) == list(range(2_000))
    most = min(2048, 2**24 // vocab_size)  # float32, so 2**24 are 64 MB
    assert most / 2 < len(found[0]) * length <= most
    large = batches([[1] * 1_000] * 3, vocab_size=10**6)
    assert [len(batch) for batch in large] == [1, 1, 1]


def test_scoring_goes_by_the_models_own_vocabulary(monkeypatch):
    sizes = []

    class Watched(BigramModel):
        def forward(self, input_ids, use_cache=True):
            sizes.append(len(input_ids))
            return super().forward(input_ids)

    rows = [[1, 2, 3, 4]] * 12
    room = 4 * 8 * 3  # three rows of four tokens of eight
    monkeypatch.setattr(scores_module, "LOGITS_A_BATCH", room)
    score_tokens(Watched(np.eye(8)), rows)
    assert sizes == [3, 3, 3, 3]


@pytest.mark.parametrize("rows", [[], [[2, 3], [2]]])
def test_nothing_to_score_is_said_in_a_sentence(lm, rows):
    with pytest.raises(DataError, match="nothing to score"):
        score_tokens(lm, rows)


def test_a_fresh_model_is_as_undecided_as_a_die_with_v_faces():
    scores = score_tokens(build_lm(TINY, VOCAB), ragged_rows(n=40))
    assert nll(scores).value == pytest.approx(np.log(len(VOCAB)), abs=0.1)


# --- class probabilities ----------------------------------------------------------------------


def reading_prompts(n=12):
    rng = np.random.default_rng(5)
    sentences = [
        read_layout(rng.integers(0, 500, rng.integers(1, 15)), int(rng.integers(10)))
        for _ in range(n)
    ]
    return [ids(reading_prompt(sentence)) for sentence in sentences]


def test_the_classifiers_input_never_holds_the_class():
    answers = set(class_ids(VOCAB))
    for label in range(10):
        prompt = ids(reading_prompt(read_layout([3, 1, 4, 1], label)))
        assert not answers & set(prompt)
        assert prompt == ids(reading_prompt(read_layout([3, 1, 4, 1], 9 - label)))
    with pytest.raises(DataError):
        reading_prompt(draw_layout([3, 1, 4, 1], 7))


def test_class_probabilities_are_a_softmax_over_the_class_logits_at_cls(lm):
    prompts, answers = reading_prompts(), class_ids(VOCAB)
    probabilities = class_probabilities(lm, prompts, answers)
    assert probabilities.shape == (12, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    for prompt, row in zip(prompts, probabilities, strict=True):
        with torch.no_grad():
            logits = lm(torch.tensor([prompt])).logits[0, -1].double().numpy()
        likelihoods = np.exp(logits[answers])
        np.testing.assert_allclose(row, likelihoods / likelihoods.sum(), atol=1e-5)
    assert probabilities.std(axis=0).max() > 0.01, (
        "prompts must differ, or their order is not tested"
    )


def test_classifier_probabilities_do_not_depend_on_padding_or_batch():
    model = sharpened(build_classifier(TINY, VOCAB))
    prompts = reading_prompts()
    together = class_probabilities(model, prompts)
    alone = np.concatenate([class_probabilities(model, [p]) for p in prompts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    assert together.std(axis=0).max() > 0.01


def test_classifier_probabilities_are_read_at_the_last_real_token():
    model = sharpened(build_classifier(TINY, VOCAB))
    assert isinstance(model, GPT2ForSequenceClassification)
    prompt, longest = reading_prompts()[0], [2] * 60
    with torch.no_grad():
        hidden = model.transformer(torch.tensor([prompt])).last_hidden_state[0, -1]
        by_hand = model.score(hidden).softmax(-1).numpy()
    probabilities = class_probabilities(model, [prompt, longest])[0]
    np.testing.assert_allclose(probabilities, by_hand, atol=1e-5)
