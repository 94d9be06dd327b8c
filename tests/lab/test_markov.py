"""The source's numbers are exact: checked by hand, by enumeration, and on long samples."""

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

from seqlm.config import TrainConfig
from seqlm.data.arrow import read_table
from seqlm.data.corpus import load_corpus
from seqlm.data.records import describe
from seqlm.data.tokens import KIND_CODE, default_vocab, draw_layout, read_vocab
from seqlm.errors import ConfigError, DataError, DataWarning
from seqlm.evaluation.metrics import nll
from seqlm.evaluation.ngrams import fit_ngrams
from seqlm.evaluation.scores import score_tokens
from seqlm.evaluation.significance import paired_difference
from seqlm.lab.markov import MOST_CONTEXTS, MarkovSource
from seqlm.models.gpt2 import build_lm, load_lm
from seqlm.training.measure import evaluate_lm
from seqlm.training.tasks import train_lm

SIZES = {"train": 400, "val": 40, "test": 60}
LENGTH = 20


@pytest.fixture(scope="module")
def source() -> MarkovSource:
    return MarkovSource.random(n_codes=6, order=2, concentration=0.4, seed=1)


@pytest.fixture(scope="module")
def corpus(source, tmp_path_factory):
    return load_corpus(source.write(tmp_path_factory.mktemp("markov"), SIZES, LENGTH, seed=2))


def probability(source: MarkovSource, codes: tuple[int, ...]) -> float:
    """p(codes) by summing over all that may have come before them: slow, and hard to get wrong."""
    k, order = source.n_codes, source.order
    total = 0.0
    for before in itertools.product(range(k), repeat=order):
        p, known = source.stationary[before], before
        for code in codes:
            p *= source.transition[(*known, code)]
            known = (*known, code)[1:]
        total += p
    return total


def nll_of(source: MarkovSource, codes: np.ndarray) -> np.ndarray:
    """The source's -ln p of each code, in nats. (N, L) -> (N, L)."""
    vocab = default_vocab(source.n_codes, 0)
    rows = [[vocab[token] for token in draw_layout(row, None)] for row in codes]
    return source.score(rows, vocab).nll.reshape(np.shape(codes))


def test_a_chain_of_two_states_has_the_entropy_rate_worked_out_by_hand():
    """From 0 it leaves with 1/4, from 1 with 1/2: it is in 0 for 2/3 of the time.

    h = 2/3 H(1/4) + 1/3 H(1/2) = 2/3 (ln 4 - 3/4 ln 3) + 1/3 ln 2.
    """
    source = MarkovSource([[3 / 4, 1 / 4], [1 / 2, 1 / 2]])
    np.testing.assert_allclose(source.stationary, [2 / 3, 1 / 3])
    by_hand = 2 / 3 * (np.log(4) - 3 / 4 * np.log(3)) + 1 / 3 * np.log(2)
    assert source.entropy_rate == pytest.approx(by_hand, abs=1e-14)
    first = np.log(3) - 2 / 3 * np.log(2)
    assert source.limit(1) == pytest.approx(first, abs=1e-14)
    assert source.limit(5) == pytest.approx((first + 4 * by_hand) / 5, abs=1e-14)


def test_a_deterministic_chain_has_entropy_0_and_fair_coins_have_ln_2():
    cycle = MarkovSource([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert cycle.entropy_rate == 0
    assert cycle.limit(4) == pytest.approx(np.log(3) / 4)  # only where it begins is open
    coins = MarkovSource(np.full((2, 2, 2), 0.5))
    np.testing.assert_allclose(coins.entropies, np.log(2))


@pytest.mark.parametrize("order", [1, 2])
def test_the_entropy_rate_is_the_mean_nll_of_a_long_row(order):
    source = MarkovSource.random(n_codes=5, order=order, concentration=0.5, seed=3)
    cost = nll_of(source, source.rows(1, 40_000, seed=4))[0]
    error = 3 * cost.std() / np.sqrt(len(cost) / 4)  # codes near each other are not independent
    assert error < 0.03
    assert cost.mean() == pytest.approx(source.entropy_rate, abs=error)


@pytest.mark.parametrize(("n_codes", "order"), [(2, 1), (3, 1), (2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_the_limit_is_the_entropy_of_all_enumerated_rows(n_codes, order, length):
    source = MarkovSource.random(n_codes, order, concentration=0.7, seed=5)
    every = list(itertools.product(range(n_codes), repeat=length))
    p = np.array([probability(source, codes) for codes in every])
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert source.limit(length) == pytest.approx(-(p * np.log(p)).sum() / length, abs=1e-12)
    np.testing.assert_allclose(nll_of(source, np.array(every)).sum(axis=1), -np.log(p), atol=1e-10)


def test_the_limit_by_position_is_the_mean_nll_of_many_rows(source):
    measured = nll_of(source, source.rows(20_000, 6, seed=6))
    error = 4 * measured.std(axis=0) / np.sqrt(len(measured))
    expected = source.entropies[[0, 1, 2, 2, 2, 2]]
    assert (np.abs(measured.mean(axis=0) - expected) < error).all()
    assert expected[0] > expected[1] > expected[2] == expected[5] == source.entropy_rate
    assert source.limit(6) == pytest.approx(expected.mean())


@pytest.mark.parametrize(("n_codes", "order"), [(7, 1), (5, 2), (3, 4)])
def test_a_step_leaves_the_stationary_state_as_it_is(n_codes, order):
    source = MarkovSource.random(n_codes, order, concentration=0.2, seed=7)
    state = source.stationary
    assert state.shape == (n_codes,) * order
    assert state.sum() == pytest.approx(1) and state.min() >= 0
    np.testing.assert_allclose(
        (state[..., None] * source.transition).sum(axis=0), state, atol=1e-14
    )


def test_transient_states_have_probability_0():
    source = MarkovSource([[0, 0.5, 0.5], [0, 0.9, 0.1], [0, 0.2, 0.8]])
    np.testing.assert_allclose(source.stationary, [0, 2 / 3, 1 / 3], atol=1e-15)
    assert 0 not in source.rows(200, 10)
    assert np.isinf(nll_of(source, np.array([[0, 1]]))[0, 0])
    assert np.isfinite(source.entropies).all()


def test_rows_follow_the_transition_table(source):
    codes = source.rows(20_000, 12, seed=8)
    assert codes.shape == (20_000, 12) and codes.dtype == np.int64
    seen = np.zeros(source.transition.shape)
    windows = np.lib.stride_tricks.sliding_window_view(codes, 3, axis=1).reshape(-1, 3)
    np.add.at(seen, tuple(windows.T), 1)
    visits = seen.sum(axis=-1, keepdims=True)
    p = source.transition
    error = 5 * np.sqrt(p * (1 - p) / np.maximum(visits, 1)) + 2 / np.maximum(visits, 1)
    assert (np.abs(seen / np.maximum(visits, 1) - p) < error).all()
    assert (seen[p == 0] == 0).all()


def test_every_window_of_a_row_is_distributed_like_the_first(source):
    codes = source.rows(40_000, 9, seed=9)
    for start in (0, 4, 7):
        seen = np.zeros((6, 6))
        np.add.at(seen, (codes[:, start], codes[:, start + 1]), 1)
        p = source.stationary
        assert (np.abs(seen / len(codes) - p) < 5 * np.sqrt(p / len(codes)) + 1e-4).all()


def test_the_same_seed_gives_the_same_rows_and_more_rows_begin_with_the_fewer(source):
    few = source.rows(30, 8, seed=1)
    np.testing.assert_array_equal(source.rows(50, 8, seed=1)[:30], few)
    assert (source.rows(30, 8, seed=2) != few).any()
    again = MarkovSource.random(n_codes=6, order=2, concentration=0.4, seed=1)
    np.testing.assert_array_equal(again.transition, source.transition)
    other = MarkovSource.random(n_codes=6, order=2, concentration=0.4, seed=2)
    assert (other.transition != source.transition).any()


def test_a_smaller_concentration_has_a_lower_entropy_rate():
    rates = [MarkovSource.random(6, 2, c, seed=0).entropy_rate for c in (0.1, 0.5, 2.0, 50.0)]
    assert rates == sorted(rates) and rates[0] < 1 < rates[-1] < np.log(6)


def test_written_rows_follow_the_data_contract(source, corpus, tmp_path):
    files = source.write(tmp_path, SIZES, LENGTH, seed=2)
    vocab = read_vocab(files.vocab_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        summary = describe(read_table(files.data_path, vocab))
    assert summary["rows"] == 500 and summary["layouts"] == {"draw": 500}
    assert summary["length_min"] == summary["length_max"] == LENGTH + 5
    assert summary["missing_class"] == 0
    assert {name: len(rows) for name, rows in corpus.splits.items()} == SIZES
    assert corpus.class_ids == [] and corpus.labelled("train") == []
    assert (corpus.kinds == KIND_CODE).sum() == 6


def test_another_size_of_train_leaves_val_and_test_as_they_are(source, corpus, tmp_path):
    half = load_corpus(source.write(tmp_path, SIZES | {"train": 200}, LENGTH, seed=2))
    for split in ("val", "test"):
        assert half.rows(split) == corpus.rows(split)
    assert half.rows("train") == corpus.rows("train")[:200]


def test_the_score_of_the_source_is_its_nll_on_the_tokens_of_a_models_score(source, corpus, tiny):
    rows = corpus.rows("test")
    truth = source.score(rows, corpus.vocab)
    model = build_lm(tiny, corpus.vocab)
    ours = score_tokens(model, rows).of_kind(corpus.kinds, KIND_CODE)
    for name in ("row", "position", "target", "n_rows"):
        np.testing.assert_array_equal(getattr(truth, name), getattr(ours, name), err_msg=name)
    codes = source.rows(60, LENGTH, seed=2)
    np.testing.assert_allclose(truth.nll, nll_of(source, codes).ravel(), atol=1e-12)
    untrained = paired_difference(ours, truth)
    assert untrained.n == 60 and untrained.low > 0.5


def test_the_rank_counts_the_codes_that_are_at_least_as_likely(source, corpus):
    truth = source.score(corpus.rows("test"), corpus.vocab)
    codes = source.rows(60, LENGTH, seed=2)
    later = truth.position >= 3 + source.order
    p = source.transition[codes[:, :-2].ravel(), codes[:, 1:-1].ravel()]
    order = np.argsort(np.argsort(-p, axis=1), axis=1)  # no ties in a table drawn at random
    expected = order[np.arange(len(p)), codes[:, 2:].ravel()]
    np.testing.assert_array_equal(truth.rank[later], expected)
    coins, vocab = MarkovSource(np.full((2, 2), 0.5)), default_vocab(2, 0)
    tied = coins.score([[vocab[token] for token in draw_layout([0, 1, 1], None)]], vocab)
    assert tied.rank.tolist() == [1, 1, 1]  # a tie counts against the source, as against a model


def test_no_baseline_has_a_lower_nll_than_the_source(source, tmp_path):
    """On 40,000 codes. The baseline that looks back as far as the source does comes near.

    What it still lacks is where a row ends: as it counts no places, it holds every code for the
    last with the chance of 1 in 21, and so pays ln(21 / 20) for each.
    """
    sizes = {"train": 3_000, "val": 200, "test": 2_000}
    corpus = load_corpus(source.write(tmp_path, sizes, LENGTH, seed=3))
    rows = corpus.rows("test")
    truth = source.score(rows, corpus.vocab)
    measured = nll(truth)
    assert measured.low < source.limit(LENGTH) < measured.high
    baselines = fit_ngrams(
        corpus.rows("train"), corpus.rows("val"), len(corpus.vocab), corpus.kinds
    )
    above = {
        name: paired_difference(baseline.score(rows).of_kind(corpus.kinds, KIND_CODE), truth)
        for name, baseline in baselines.items()
    }
    assert all(difference.low > 0 for difference in above.values())
    assert above["trigram"].value == pytest.approx(np.log(21 / 20), abs=0.005)
    assert above["unigram"].value > above["bigram"].value > 0.2


def test_a_model_that_looks_ahead_is_caught_below_the_limit(source, corpus):
    """-ln p(code | all others of its row, the later ones too): no honest model can do that."""
    truth = source.score(corpus.rows("test"), corpus.vocab)
    codes = source.rows(60, LENGTH, seed=2)
    peeking = np.empty((60, LENGTH))
    for place in range(LENGTH):
        others = np.repeat(codes[:, None], 6, axis=1)  # (60, 6, L)
        others[:, :, place] = np.arange(6)
        cost = nll_of(source, others.reshape(-1, LENGTH)).sum(axis=1).reshape(60, 6)
        peeking[:, place] = cost[np.arange(60), codes[:, place]] + logsumexp(-cost, axis=1)
    assert paired_difference(replace(truth, nll=peeking.ravel()), truth).high < -0.05


def test_a_small_gpt_approaches_the_limit_from_above(tmp_path, tiny):
    source = MarkovSource.random(n_codes=4, order=1, concentration=0.5, seed=0)
    sizes = {"train": 2_000, "val": 40, "test": 300}
    corpus = load_corpus(source.write(tmp_path / "data", sizes, 24, seed=0))
    config = TrainConfig(
        output_dir=tmp_path / "lm",
        batch_size=16,
        num_epochs=1,
        learning_rate=1e-2,
        evals=2,
        precision="fp32",
    )
    train_lm(corpus, replace(tiny, dropout=0.0), config, log=lambda line: None)
    model, rows = load_lm(tmp_path / "lm" / "best_model"), corpus.rows("test")
    scores = score_tokens(model, rows).of_kind(corpus.kinds, KIND_CODE)
    gap = paired_difference(scores, source.score(rows, corpus.vocab))
    assert gap.low > -0.005 and gap.value < 0.05
    summary = evaluate_lm(model, corpus)
    assert summary["layout_compared"] == "draw"
    assert summary["draw"]["code"]["nll"]["value"] == pytest.approx(scores.nll.mean())


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ([0.5, 0.5], "shape is (2,)"),
        ([[1.0]], "K of at least 2"),
        ([[0.5, 0.5]], "shape is (1, 2)"),
        ([[0.5, 0.5], [0.6, 0.6]], "sum to 1"),
        ([[1.5, -0.5], [0.5, 0.5]], "probabilities"),
        ([[np.nan, 1], [0.5, 0.5]], "sum to 1"),
        (np.eye(3), "3 sets of codes"),
    ],
)
def test_a_table_that_is_no_source_is_refused_in_one_sentence(table, word):
    with pytest.raises(ConfigError) as raised:
        MarkovSource(table)
    assert word in str(raised.value) and "\n" not in str(raised.value)


def test_two_closed_sets_are_refused_and_a_transient_set_is_not():
    with pytest.raises(ConfigError, match="2 sets"):
        MarkovSource([[0.2, 0.4, 0.4], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(MarkovSource([[0.2, 0.8], [0, 1]]).stationary, [0, 1])


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"n_codes": 1}, "n_codes: 1, order: 2"),
        ({"order": 0}, "order: 0"),
        ({"n_codes": 100}, f"at most {MOST_CONTEXTS:,}"),
        ({"concentration": 0}, "concentration"),
    ],
)
def test_settings_that_make_no_source_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        MarkovSource.random(**settings)


@pytest.mark.parametrize("n_rows", [{"train": 5}, {"train": 0, "val": 5}])
def test_empty_splits_are_refused_when_read(source, tmp_path, n_rows):
    with pytest.raises(DataError, match="empty"):
        load_corpus(source.write(tmp_path, n_rows, 20))


def test_rows_too_short_to_differ_are_refused_when_read(source, tmp_path):
    with pytest.raises(DataError, match="hold the same codes"):
        load_corpus(source.write(tmp_path, SIZES, 2))


def test_rows_that_are_not_the_sources_have_no_score(source):
    wider = default_vocab(7, 0)
    row = [wider[token] for token in draw_layout([1, 6, 2], None)]
    with pytest.raises(DataError, match="other codes than the source's"):
        source.score([row], wider)
