"""BLEU and ROUGE equal the libraries that define them, with tokens taken as the data has them."""

from collections import Counter

import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from seqlm.errors import DataError
from seqlm.lab.text_metrics import bleu, rouge


def pairs(n=60, seed=0, kept=0.7):
    """Truths of 12 to 20 codes, and completions with other codes here and there and another end."""
    rng = np.random.default_rng(seed)
    truths = [[f"<Z_{k:03d}>" for k in rng.integers(0, 40, rng.integers(12, 21))] for _ in range(n)]
    completions = [
        [t if rng.random() < kept else f"<Z_{rng.integers(40):03d}>" for t in truth]
        for truth in truths
    ]
    return [row[: rng.integers(10, 21)] for row in completions], truths


def joined(rows):
    return [" ".join(row) for row in rows]


def test_bleu_equals_sacrebleus_of_the_whole_corpus_to_the_last_digit():
    completions, truths = pairs()
    theirs = BLEU(tokenize="none").corpus_score(joined(completions), [joined(truths)])
    found = bleu(completions, truths)
    assert found.value == theirs.score
    assert 20 < found.low < found.value < found.high < 80
    assert (found.n, found.unit) == (60, "BLEU")


def test_bleu_equals_nltks_where_every_order_of_ngrams_matches():
    completions, truths = pairs()
    theirs = corpus_bleu([[truth] for truth in truths], completions)
    assert bleu(completions, truths).value == pytest.approx(100 * theirs)


def test_bleu_equals_a_product_done_by_hand():
    # 6 of 7 tokens match, 4 of 6 pairs, 2 of 5 triples, 1 of 4 quadruples; a token too few
    completion, truth = "a b c d x f g", "a b c d e f g h"
    by_hand = np.exp(1 - 8 / 7) * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25
    assert bleu([completion], [truth]).value == pytest.approx(100 * by_hand)


def test_the_interval_of_bleu_resamples_rows_with_their_own_counts():
    """Against sacrebleu scoring resampled corpora from scratch."""
    completions, truths = pairs(40)
    found = bleu(completions, truths)
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(300):
        drawn = rng.integers(0, 40, 40)
        made, wanted = ([joined(rows)[i] for i in drawn] for rows in (completions, truths))
        scores.append(BLEU(tokenize="none").corpus_score(made, [wanted]).score)
    width = np.quantile(scores, 0.975) - np.quantile(scores, 0.025)
    assert found.high - found.low == pytest.approx(width, rel=0.25)


def test_four_times_the_rows_halve_the_interval_of_bleu():
    few, many = bleu(*pairs(60)), bleu(*pairs(240))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(2, rel=0.35)


def test_sacrebleus_own_tokens_would_praise_codes_that_are_all_wrong():
    wrong, truth = ["<Z_001> <Z_002> <Z_003> <Z_004>"], ["<Z_005> <Z_006> <Z_007> <Z_008>"]
    assert BLEU().corpus_score(wrong, [truth]).score > 20  # the brackets are right
    assert bleu(wrong, truth).value == 0


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_equals_rouge_score_on_words_that_it_leaves_alone(name):
    completions, truths = pairs()

    def words(rows):
        return [[token.strip("<>").replace("_", "").lower() for token in row] for row in rows]

    scorer = RougeScorer([name])
    theirs = [
        scorer.score(truth, made)[name].fmeasure
        for made, truth in zip(joined(words(completions)), joined(words(truths)), strict=True)
    ]
    found = rouge(completions, truths)[name]
    assert found.value == pytest.approx(np.mean(theirs))
    assert found.low < found.value < found.high and (found.n, found.unit) == (60, "F1")


@pytest.mark.parametrize(("name", "order"), [("rouge1", 1), ("rouge2", 2)])
def test_rouge_counts_common_ngrams_as_a_hand_would(name, order):
    completions, truths = pairs()

    def ngrams(row):
        return Counter(zip(*(row[k:] for k in range(order)), strict=False))

    def f1(made, truth):
        ours, theirs = ngrams(made), ngrams(truth)
        common = (ours & theirs).total()
        precision, recall = common / ours.total(), common / theirs.total()
        return 2 * precision * recall / (precision + recall) if common else 0.0

    by_hand = [f1(made, truth) for made, truth in zip(completions, truths, strict=True)]
    assert rouge(completions, truths)[name].value == pytest.approx(np.mean(by_hand))


def test_rouge_l_is_the_longest_run_that_keeps_its_order():
    found = rouge(["a x b c y"], ["a b z c"])["rougeL"]  # a b c: 3 of 5 and 3 of 4
    assert found.value == pytest.approx(2 * 3 / (5 + 4))


def test_rouge_scores_own_tokens_would_praise_codes_that_are_all_wrong():
    wrong, truth = ["<Z_001> <Z_002>"], ["<Z_005> <Z_006>"]
    assert RougeScorer(["rouge1"]).score(truth[0], wrong[0])["rouge1"].fmeasure == 0.5  # the z
    assert rouge(wrong, truth)["rouge1"].value == 0


@pytest.mark.parametrize("measure", [bleu, lambda *rows: rouge(*rows)["rougeL"]])
def test_a_string_is_split_at_white_space_and_nowhere_else(measure):
    completions, truths = pairs(20)
    strings = measure(["  ".join(row) for row in completions], ["\t".join(row) for row in truths])
    assert strings == measure(completions, truths)


def test_the_truth_itself_scores_full_marks_and_an_empty_completion_none():
    _, truths = pairs(10)
    assert bleu(truths, truths).value == pytest.approx(100)
    assert {name: found.value for name, found in rouge(truths, truths).items()} == {
        "rouge1": 1.0,
        "rouge2": 1.0,
        "rougeL": 1.0,
    }
    assert bleu([""] * 10, truths).value == rouge([""] * 10, truths)["rouge1"].value == 0


@pytest.mark.parametrize("measure", [bleu, rouge])
@pytest.mark.parametrize(("completions", "truths"), [([], []), (["a b"], ["a b", "c d"])])
def test_rows_that_cannot_be_compared_are_refused(measure, completions, truths):
    with pytest.raises(DataError, match="one truth for each completion"):
        measure(completions, truths)
