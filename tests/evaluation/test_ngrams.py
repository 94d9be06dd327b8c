"""The n-gram baselines are real distributions, fitted on what they may see."""

import gc
import time
from collections import Counter

import numpy as np
import pytest
from nltk.lm import Vocabulary, WittenBellInterpolated
from nltk.util import ngrams

from seqlm.data.tokens import KIND_CODE, default_vocab, draw_layout, read_layout, token_kinds
from seqlm.errors import DataError
from seqlm.evaluation import ngrams as counting
from seqlm.evaluation.metrics import measure_tokens, top_k_accuracy
from seqlm.evaluation.ngrams import RECIPES, fit_ngrams, mixture_weights

V = 12


def probabilities(baseline, rows):
    """p(token | all before it) for every token of every row but the first. (M, V)."""
    return baseline.probabilities(counting._predicted_tokens(rows, V))


def markov_rows(n, seed, longest=9):
    """Ragged rows in which the next token leans on the last; ids 10 and 11 never come."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        row = [int(rng.integers(2))]
        while len(row) < rng.integers(2, longest + 1) or len(row) < 2:
            row.append(int((row[-1] * 3 + rng.geometric(0.5)) % 10))
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def baselines():
    return fit_ngrams(markov_rows(60, seed=0), markov_rows(30, seed=1), V)


@pytest.mark.parametrize("name", RECIPES)
def test_every_distribution_sums_to_one_and_holds_no_zero(baselines, name):
    """On rows like those it was fitted on, and on rows with places and tokens it never met."""
    strange = [[11, 11, 10, 11], [10] * 40, *markov_rows(20, seed=2)]
    table = probabilities(baselines[name], strange)
    assert table.shape == (sum(len(row) - 1 for row in strange), V)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-12)
    assert table.min() > 0


@pytest.mark.parametrize("name", RECIPES)
def test_scores_are_those_of_the_full_distribution(baselines, name, monkeypatch):
    rows = markov_rows(20, seed=3)
    table = probabilities(baselines[name], rows)
    monkeypatch.setattr(counting, "CHUNK", 7)  # many chunks, the last one not full
    scores = baselines[name].score(rows)
    expected = [(i, j, token) for i, row in enumerate(rows) for j, token in enumerate(row) if j]
    assert list(zip(scores.row, scores.position, scores.target, strict=True)) == expected
    assert scores.n_rows == 20
    of_target = table[np.arange(len(table)), scores.target]
    np.testing.assert_allclose(scores.nll, -np.log(of_target), atol=1e-12)
    likelier = (table > of_target[:, None]).sum(axis=1)
    at_least = (table >= of_target[:, None]).sum(axis=1)
    assert (likelier <= scores.rank).all() and (scores.rank < at_least).all()


def test_the_uniform_baseline_costs_ln_v_and_guesses_right_once_in_v():
    rows = np.random.default_rng(0).integers(0, V, (2_000, 11)).tolist()
    scores = fit_ngrams(rows[:50], rows[:50], V)["uniform"].score(rows)
    np.testing.assert_allclose(scores.nll, np.log(V))
    assert top_k_accuracy(scores, 1).value == pytest.approx(1 / V, abs=0.01)
    assert top_k_accuracy(scores, 5).value == pytest.approx(5 / V, abs=0.02)


def test_unigram_and_position_equal_witten_and_bells_rule_done_by_hand():
    train = [[0, 1, 2], [0, 1, 1], [0, 3, 2], [5, 4]]
    baselines = fit_ngrams(train, train, V)
    counted = Counter([1, 2, 1, 1, 3, 2, 4])  # no first token: nothing ever predicts one
    unigram = np.array([(counted[w] + 4 / V) / (7 + 4) for w in range(V)])
    np.testing.assert_allclose(probabilities(baselines["unigram"], [[9, 9]])[0], unigram)
    table = probabilities(baselines["position"], [[0, 7, 7, 7], [5, 7], [9, 7]])
    first = Counter({1: 2, 3: 1})  # second tokens of the rows that begin with 0
    by_hand = np.array([(first[w] + 2 * unigram[w]) / (3 + 2) for w in range(V)])
    np.testing.assert_allclose(table[0], by_hand)
    np.testing.assert_allclose(table[2], unigram)  # longer than any row: no such place
    np.testing.assert_allclose(table[3], (np.eye(V)[4] + unigram) / 2)  # rows that begin with 5
    np.testing.assert_allclose(table[4], unigram)  # rows that begin with 9: never met


def test_the_ngrams_equal_nltks_witten_bell_where_the_two_mean_the_same():
    """nltk ends in plain frequencies, ours in the uniform distribution under smoothed ones.

    Handed plain frequencies for its lowest distribution, our rule leaves them as they are:
    (c + T c / N) / (N + T) = c / N. From there on up the two must agree.
    """
    train, unseen = markov_rows(40, seed=4), markov_rows(25, seed=5)
    theirs = WittenBellInterpolated(3, vocabulary=Vocabulary(map(str, range(10))))
    words = [[str(token) for token in row] for row in train]
    theirs.fit(
        [
            *([(w,) for w in row[1:]] for row in words),
            *(ngrams(row, 2) for row in words),
            *(ngrams(row, 3) for row in words),
        ]
    )
    counts = counting._Counts(train, V)
    tokens = counting._predicted_tokens(unseen, V)
    frequencies = np.bincount([w for row in train for w in row[1:]], minlength=V)
    table = np.tile(frequencies / frequencies.sum(), (len(tokens.row), 1))
    compared = 0
    for name, order in (("unigram", 1), ("bigram", 2), ("trigram", 3)):
        table = counts.parts[name](counting.PARTS[name][1](tokens, V), table)
        for i, (row, position) in enumerate(zip(tokens.row, tokens.position, strict=True)):
            start = max(0, position - order + 1)
            context = [str(token) for token in unseen[row][start:position]]
            expected = [theirs.score(str(w), context) for w in range(10)]
            np.testing.assert_allclose(table[i, :10], expected, atol=1e-9)
            compared += 1
    assert compared > 100


def test_each_part_falls_back_on_the_next_shorter_context():
    train = [[0, 1, 2], [0, 1, 3], [4, 2, 5]]
    counts = counting._Counts(train, V)
    names = ("unigram", "bigram", "trigram")
    found = counts.distributions(
        counting._predicted_tokens([[9, 1, 7], [9, 9, 7], [0, 1, 7]], V), names
    )
    after_9_1, after_9_9, after_0_1 = 1, 3, 5  # lines of the table: two for each row
    by_hand = (np.eye(V)[2] + np.eye(V)[3] + 2 * found["unigram"][0]) / (2 + 2)
    np.testing.assert_allclose(found["bigram"][after_9_1], by_hand)
    np.testing.assert_array_equal(found["trigram"][after_9_1], found["bigram"][after_9_1])
    np.testing.assert_array_equal(found["trigram"][after_9_9], found["unigram"][after_9_9])
    twice = (np.eye(V)[2] + np.eye(V)[3] + 2 * found["bigram"][after_0_1]) / (2 + 2)
    np.testing.assert_allclose(found["trigram"][after_0_1], twice)


def test_a_baseline_sees_only_what_stands_before(baselines):
    """Changing a token changes no probability up to and including its own."""
    row = [0, 3, 5, 7, 2, 4]
    changed = [0, 3, 5, 9, 9, 9]
    for baseline in baselines.values():
        before, after = probabilities(baseline, [row]), probabilities(baseline, [changed])
        np.testing.assert_array_equal(before[:3], after[:3])
    trigram = baselines["trigram"]
    assert (probabilities(trigram, [row])[3] != probabilities(trigram, [changed])[3]).any()


def test_the_last_row_is_never_seen_from_the_next(baselines):
    """The first two tokens of a row know nothing of the row above it."""
    for baseline in baselines.values():
        alone = probabilities(baseline, [[1, 4, 6]])
        below = probabilities(baseline, [[0, 9, 8], [1, 4, 6]])[2:]
        np.testing.assert_array_equal(alone, below)


def test_position_tells_the_layouts_apart():
    """The same place of a sentence to read and of one to draw has frequencies of its own."""
    vocab = default_vocab(n_codes=20)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        label = int(rng.integers(10))
        codes = [0, 1, 2, 3, *rng.integers(4, 20, 2)]  # at first always the same four
        rows += [[vocab[t] for t in lay(codes, label)] for lay in (read_layout, draw_layout)]
    baselines = fit_ngrams(rows, rows[:60], len(vocab))
    scores = baselines["position"].score(rows[:60])
    given = np.isin(scores.target, [vocab[f"<Z_{k:03d}>"] for k in range(4)])
    assert scores.nll[given].max() < 0.05
    assert baselines["unigram"].score(rows[:60]).nll[given].min() > 1


def test_mixing_weights_sum_to_one_and_cannot_be_bettered_on_val(baselines):
    val = markov_rows(30, seed=1)
    for baseline in baselines.values():
        assert sum(baseline.weights.values()) == pytest.approx(1)
        best = baseline.score(val).nll.mean()
        for part in baseline.weights:
            nudged = {k: 0.98 * w + 0.02 * (k == part) for k, w in baseline.weights.items()}
            nudged_model = counting.NgramModel("nudged", "", nudged, baseline._counts)
            assert nudged_model.score(val).nll.mean() >= best - 1e-9


def test_with_kinds_the_weights_cannot_be_bettered_on_codes_whatever_that_costs_elsewhere():
    """The codes are noise; what stands around them follows a rule that bigrams know."""
    vocab = default_vocab(n_codes=30, n_classes=2)
    kinds = token_kinds(vocab)
    train, val = (
        [
            [vocab[t] for t in read_layout(np.random.default_rng((seed, i)).integers(0, 30, 6), 0)]
            for i in range(40)
        ]
        for seed in (0, 1)
    )
    tuned = fit_ngrams(train, val, len(vocab), kinds)
    careless = fit_ngrams(train, val, len(vocab))
    assert careless["bigram"].weights["bigram"] > tuned["bigram"].weights["bigram"] + 0.1
    for name in ("bigram", "trigram", "position_ngram"):
        best = tuned[name].score(val).of_kind(kinds, KIND_CODE).nll.mean()
        assert best < careless[name].score(val).of_kind(kinds, KIND_CODE).nll.mean()
        for part in tuned[name].weights:
            nudged = {k: 0.98 * w + 0.02 * (k == part) for k, w in tuned[name].weights.items()}
            nudged_model = counting.NgramModel("nudged", "", nudged, tuned[name]._counts)
            assert nudged_model.score(val).of_kind(kinds, KIND_CODE).nll.mean() >= best - 1e-9


def test_val_rows_without_a_code_cannot_tune_a_baseline_for_codes():
    vocab = default_vocab(n_codes=8, n_classes=2)
    bare = [[vocab[t] for t in ("<IMG>", "</IMG>", "<CLS>", "<CLS_0>", "<EOS>")]]
    with pytest.raises(DataError, match="no code tokens in the val rows"):
        fit_ngrams(bare, bare, len(vocab), token_kinds(vocab))


def test_em_finds_the_weights_that_made_the_data():
    rng = np.random.default_rng(0)
    models = rng.dirichlet(np.full(30, 0.3), size=3)  # (3, 30)
    tokens = rng.choice(30, size=60_000, p=[0.6, 0.1, 0.3] @ models)
    assert mixture_weights(models[:, tokens].T) == pytest.approx([0.6, 0.1, 0.3], abs=0.02)


def test_the_more_a_baseline_knows_the_better_it_predicts_rows_it_never_saw(baselines):
    held_out = markov_rows(200, seed=9)
    cost = {name: baseline.score(held_out).nll.mean() for name, baseline in baselines.items()}
    assert cost["uniform"] > cost["unigram"] > cost["bigram"]
    assert cost["position"] < cost["unigram"]
    assert cost["position_ngram"] < cost["bigram"] + 0.02


def test_fitting_looks_at_val_for_the_weights_alone(baselines):
    """The unigram has no weights to tune, so another val split leaves it as it is."""
    other = fit_ngrams(markov_rows(60, seed=0), [[3, 10, 11, 10]], V)
    rows = markov_rows(10, seed=2)
    for name in ("unigram", "position"):
        np.testing.assert_array_equal(
            probabilities(other[name], rows), probabilities(baselines[name], rows)
        )
    assert other["bigram"].weights != baselines["bigram"].weights


def test_every_baseline_has_its_name_and_a_plain_sentence(baselines):
    assert list(baselines) == list(RECIPES)
    for name, baseline in baselines.items():
        assert baseline.name == name and baseline.description.endswith(".")


def test_the_metrics_take_a_baseline_like_any_model():
    vocab = default_vocab()
    rng = np.random.default_rng(0)
    rows = [
        [vocab[t] for t in lay(rng.integers(0, 500, 4), int(rng.integers(10)))]
        for lay in (read_layout, draw_layout) * 10
    ]
    baseline = fit_ngrams(rows, rows, len(vocab))["position_ngram"]
    measured = measure_tokens(baseline.score(rows), token_kinds(vocab))
    assert measured["code"]["tokens"] == 80 and measured["class"]["tokens"] == 20


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        ([], [[0, 1]], "nothing to count"),
        ([[0, 1]], [], "nothing to count"),
        ([[0, 1], [2]], [[0, 1]], "fewer than two tokens"),
        ([[0, V]], [[0, 1]], f"token id {V} is outside"),
        ([[0, 1]], [[0, -1]], "token id -1 is outside"),
    ],
)
def test_rows_that_cannot_be_counted_are_refused_in_a_sentence(train, val, words):
    with pytest.raises(DataError, match=words):
        fit_ngrams(train, val, V)


def test_fitting_on_a_laptops_training_split_takes_seconds():
    """50,000 rows of 21 tokens take about a second; the limit leaves room for a slow machine.

    Seconds of this process, so other programs do not count.
    """
    rows = (np.random.default_rng(0).zipf(1.3, (50_000, 21)).clip(max=516) - 1).tolist()
    start = time.process_time()
    fit_ngrams(rows, rows[:360], 516)
    assert time.process_time() - start < 15


def test_tables_are_freed_at_once_and_not_when_the_collector_comes(baselines):
    # A cycle of references kept 100 MB of every chunk: memory grew with the tokens scored.
    rows = markov_rows(20, seed=3)
    gc.collect()
    gc.disable()
    try:
        baselines["position_ngram"].score(rows)
        assert gc.collect() == 0
    finally:
        gc.enable()
