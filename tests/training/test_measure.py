"""A trained model is measured beside its baselines, on the same rows."""

from dataclasses import replace

import numpy as np
import pytest

from seqlm.data.corpus import Corpus
from seqlm.data.tokens import KIND_CODE
from seqlm.errors import DataError
from seqlm.evaluation import scores
from seqlm.evaluation.ngrams import fit_ngrams
from seqlm.training import measure
from seqlm.training.measure import evaluate_lm


def test_how_far_below_the_best_baseline_is_one_minus_the_ratio(corpus, model):
    found = evaluate_lm(model, corpus, "test")
    ours = found["read"]["code"]["nll"]["value"]
    baselines = {
        name: baseline["code"]["nll"]["value"] for name, baseline in found["baselines"].items()
    }
    best = min(baselines, key=baselines.get)
    below = found["below_best_baseline"]
    assert found["best_baseline"] == best and found["layout_compared"] == "read"
    assert below["value"] == pytest.approx(1 - ours / baselines[best])
    assert below["low"] < below["value"] < below["high"] and below["unit"] == "share"
    assert np.mean(found["by_position"]["model"]) == pytest.approx(ours)


def test_baselines_learn_from_the_rows_the_model_learned_from(corpus, model):
    found = evaluate_lm(model, corpus, "test")["baselines"]["position"]["code"]["nll"]["value"]
    rows = (corpus.rows("train"), corpus.rows("val"))
    baseline = fit_ngrams(*rows, len(corpus.vocab), corpus.kinds)["position"]
    scores = baseline.score(corpus.rows("test", "read")).of_kind(corpus.kinds, KIND_CODE)
    assert found == pytest.approx(scores.nll.mean())


def test_baselines_are_tuned_for_the_codes_they_are_measured_on(corpus, model):
    found = evaluate_lm(model, corpus, "test")["baselines"]["bigram"]["code"]["nll"]["value"]
    rows, test = (corpus.rows("train"), corpus.rows("val")), corpus.rows("test", "read")
    tuned, careless = (
        fit_ngrams(*rows, len(corpus.vocab), kinds)["bigram"].score(test)
        for kinds in (corpus.kinds, None)
    )
    assert found == pytest.approx(tuned.of_kind(corpus.kinds, KIND_CODE).nll.mean())
    assert found != pytest.approx(careless.of_kind(corpus.kinds, KIND_CODE).nll.mean())


def doubled(corpus, named: bool) -> Corpus:
    """Every row twice; `named`, both say that they come from one source."""
    splits = {
        name: [
            replace(record, meta={"source_id": (name, place)} if named else {})
            for place, record in enumerate(corpus.records(name, "read"))
            for _ in range(2)
        ]
        for name in corpus.splits
    }
    return Corpus(corpus.vocab, splits)


def test_rows_of_one_source_count_as_one_in_every_interval(corpus, model):
    n = len(corpus.rows("test", "read"))
    honest, careless = (evaluate_lm(model, doubled(corpus, named)) for named in (True, False))
    for pick in (
        lambda found: found["read"]["code"]["nll"],
        lambda found: found["read"]["class"]["top1"],
        lambda found: found["baselines"]["bigram"]["code"]["nll"],
        lambda found: found["below_best_baseline"],
    ):
        one, two = pick(honest), pick(careless)
        assert one["value"] == pytest.approx(two["value"])
        assert (one["n"], two["n"]) == (n, 2 * n)
    nll = [found["read"]["code"]["nll"] for found in (careless, honest)]
    assert nll[0]["high"] - nll[0]["low"] < 0.8 * (nll[1]["high"] - nll[1]["low"])


def test_an_empty_split_is_refused_in_a_sentence(corpus, model):
    bare = Corpus(corpus.vocab, {**corpus.splits, "test": []})
    with pytest.raises(DataError, match="the test split is empty; use --split val, or mark some"):
        evaluate_lm(model, bare, "test")


def test_of_too_many_rows_the_baselines_count_some_and_say_so(corpus, model, monkeypatch):
    whole = evaluate_lm(model, corpus, "test")["baselines"]["unigram"]
    monkeypatch.setattr(measure, "NGRAM_TOKENS", 500)
    monkeypatch.setattr(scores, "TOKENS_AT_ONCE", 100)
    some = evaluate_lm(model, corpus, "test")["baselines"]["unigram"]
    assert "of the train rows" in some["description"]
    assert "of the train rows" not in whole["description"]
    assert some["code"]["tokens"] == whole["code"]["tokens"]
    assert some["code"]["nll"]["value"] > whole["code"]["nll"]["value"]


def test_a_baseline_ranks_the_same_in_one_go_and_in_parts(corpus, model, monkeypatch):
    whole = evaluate_lm(model, corpus, "test")["baselines"]["uniform"]["code"]["top5"]
    monkeypatch.setattr(scores, "TOKENS_AT_ONCE", 100)
    assert evaluate_lm(model, corpus, "test")["baselines"]["uniform"]["code"]["top5"] == whole
