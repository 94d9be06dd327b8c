"""Numbers about tokens, held against sums done by hand; images are resampled, never tokens."""

import numpy as np
import pytest
from samples import VOCAB, BigramModel, ragged_rows, scores_of, sharpened

from seqlm.config import ModelConfig
from seqlm.data.tokens import KIND_CLASS, KIND_CODE, KIND_STRUCTURAL, class_of, token_kinds
from seqlm.errors import DataError
from seqlm.evaluation import scores
from seqlm.evaluation.metrics import (
    bits_per_image,
    measure_tokens,
    nll,
    perplexity,
    top_k_accuracy,
)
from seqlm.evaluation.scores import score_tokens, sum_scores
from seqlm.models.gpt2 import build_lm

KINDS = token_kinds(VOCAB)
TINY = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64)


@pytest.fixture(scope="module")
def lm():
    return sharpened(build_lm(TINY, VOCAB, seed=1))


def test_code_class_and_structural_tokens_are_all_tokens_each_counted_once(lm):
    scores = score_tokens(lm, ragged_rows())
    parts = [scores.of_kind(KINDS, kind) for kind in (KIND_STRUCTURAL, KIND_CODE, KIND_CLASS)]
    assert sum(len(part.nll) for part in parts) == len(scores.nll)
    assert sum(part.nll.sum() for part in parts) == pytest.approx(scores.nll.sum())
    assert len(parts[2].nll) == 15  # one class a sentence
    names = {index: token for token, index in VOCAB.items()}
    assert all(class_of(names[target]) is not None for target in parts[2].target)
    assert all(names[target].startswith("<Z_") for target in parts[1].target)


def test_nll_is_weighted_by_token_not_by_row_nor_by_batch():
    scores = scores_of([1.0, 1.0, 1.0, 5.0], row=[0, 0, 0, 1])
    assert nll(scores).value == 2.0  # a mean of the rows' means would be 3


def test_perplexity_is_the_exponential_of_nll_with_its_whole_interval():
    loss = nll(scores_of(np.random.default_rng(0).gamma(2.0, 1.0, 50)))
    ppl = perplexity(loss)
    assert (ppl.value, ppl.low, ppl.high) == tuple(
        pytest.approx(np.exp(end)) for end in (loss.value, loss.low, loss.high)
    )
    assert (ppl.n, ppl.unit) == (50, "perplexity")


def test_bits_an_image_is_the_sum_over_its_tokens_in_bits():
    nats = np.log(2) * np.array([1.0, 2.0, 3.0, 4.0])
    assert bits_per_image(scores_of(nats, row=[0, 0, 0, 1])).value == pytest.approx(5.0)


def test_bits_an_image_takes_two_sentences_of_one_picture_for_one_unit():
    bits = np.random.default_rng(0).gamma(9.0, 1.0, 40).repeat(2)
    scores = scores_of(bits * np.log(2))
    by_row = bits_per_image(scores)
    by_image = bits_per_image(scores, images=np.arange(80) // 2)
    assert by_image.value == pytest.approx(by_row.value)
    assert (by_row.n, by_image.n) == (80, 40)
    assert by_image.high - by_image.low > 1.2 * (by_row.high - by_row.low)


def test_top_k_counts_the_tokens_among_the_k_likeliest():
    descending = np.tile(-np.arange(10.0), (10, 1))  # whatever came before: 0, then 1, then 2 …
    scores = score_tokens(BigramModel(descending), [[9, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
    assert [top_k_accuracy(scores, k).value for k in (1, 5, 9)] == pytest.approx(
        [1 / 9, 5 / 9, 1.0]
    )


def test_measure_tokens_holds_every_group_with_its_own_count(lm):
    scores = score_tokens(lm, ragged_rows())
    measured = measure_tokens(scores, KINDS, images=np.arange(15) // 2)
    assert set(measured) == {"code", "class", "structural", "all"}
    counted = sum(measured[name]["tokens"] for name in ("code", "class", "structural"))
    assert counted == measured["all"]["tokens"] == len(scores.nll)
    assert measured["class"]["tokens"] == 15
    assert measured["code"]["nll"]["value"] == pytest.approx(
        scores.nll[KINDS[scores.target] == KIND_CODE].mean()
    )
    assert measured["code"]["nll"]["n"] == measured["code"]["bits_per_image"]["n"] == 8


def test_measure_tokens_says_when_there_is_no_picture_to_measure():
    structural = scores_of([1.0, 2.0], target=np.array([VOCAB["</IMG>"], VOCAB["<EOS>"]]))
    with pytest.raises(DataError, match="no code tokens"):
        measure_tokens(structural, KINDS)


@pytest.mark.parametrize("measure", [nll, bits_per_image])
def test_the_mean_of_no_tokens_is_refused(measure):
    with pytest.raises(DataError, match="no tokens of this kind"):
        measure(scores_of([]))


def test_the_bootstrap_interval_holds_the_value_and_shrinks_with_n():
    values = np.random.default_rng(0).normal(3.0, 1.0, 900)
    few, many = nll(scores_of(values[:100])), nll(scores_of(values))
    assert few.low < few.value < few.high and many.low < many.value < many.high
    width = (few.high - few.low) / (many.high - many.low)
    assert width == pytest.approx(3.0, rel=0.2)  # sqrt(900 / 100)
    # 1.96 standard errors either way, for values this near to normal
    assert many.high - many.low == pytest.approx(2 * 1.96 / 30, rel=0.1)


def test_two_rows_of_one_image_are_one_unit():
    once = np.random.default_rng(0).normal(3.0, 1.0, 60)
    twice = scores_of(once.repeat(2))
    by_row = nll(twice)
    by_image = nll(twice, images=np.arange(120) // 2)
    assert (by_row.n, by_image.n) == (120, 60)
    plain = nll(scores_of(once))
    assert (by_image.value, by_image.low, by_image.high) == (
        pytest.approx(plain.value),
        pytest.approx(plain.low),
        pytest.approx(plain.high),
    )
    assert by_row.high - by_row.low < 0.8 * (by_image.high - by_image.low)


def test_images_that_all_give_the_same_have_an_interval_of_no_width():
    found = nll(scores_of([2.0] * 20))
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_sums_of_a_few_rows_at_a_time_are_those_of_all(lm, monkeypatch):
    rows = ragged_rows()
    images = np.arange(len(rows)) // 2
    whole = measure_tokens(score_tokens(lm, rows, batch_size=1), KINDS, images)
    asked = []

    def score(some):
        asked.append(len(some))
        return score_tokens(lm, some, batch_size=1)

    monkeypatch.setattr(scores, "TOKENS_AT_ONCE", 40)
    parts = measure_tokens(sum_scores(score, rows, KINDS), KINDS, images)
    assert len(asked) > 2 and sum(asked) == len(rows)
    for kind, measured in whole.items():
        for name, value in measured.items():
            value = value["value"] if isinstance(value, dict) else value
            found = parts[kind][name]
            found = found["value"] if isinstance(found, dict) else found
            assert found == pytest.approx(value, rel=1e-12)
