"""Gained and lost: the same questions before and after, paired."""

import numpy as np
import pytest

from seqlm.config import DataFiles
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.errors import DataError
from seqlm.evaluation.scores import TokenScores
from seqlm.models.gpt2 import build_classifier, build_lm, load_classifier
from seqlm.models.resize import extend_vocab, grow_embedding
from seqlm.training.forgetting import (
    SplitScores,
    change_lines,
    measure_change,
    measure_split,
    score_split,
)
from seqlm.training.tasks import validation_metric


def scored(nll: np.ndarray) -> TokenScores:
    """Four codes a row, each costing what `nll` (rows,) says."""
    rows = np.repeat(np.arange(len(nll)), 4)
    places = np.tile(np.arange(1, 5), len(nll))
    return TokenScores(rows, places, places, np.repeat(nll, 4), rows * 0, len(nll))


def answered(nll, right=None) -> SplitScores:
    return SplitScores(scored(nll), np.arange(len(nll)), right)


RNG = np.random.default_rng(1)
HARD = RNG.normal(4, 2, 60)  # some pictures are hard for everyone


@pytest.fixture(scope="module")
def corpus(built) -> Corpus:
    return load_corpus(
        DataFiles(built.directory / "sequences.jsonl", built.directory / "vocab.json")
    )


def test_the_difference_is_paired_so_its_interval_is_narrow():
    before, after = answered(HARD), answered(HARD + RNG.normal(0.1, 0.01, 60))
    found = measure_change(before, after)["code_nll"]
    assert found["before"]["high"] - found["before"]["low"] > 0.5
    assert 0.09 < found["difference"]["low"] < found["difference"]["high"] < 0.11
    assert found["difference"]["value"] == pytest.approx(
        found["after"]["value"] - found["before"]["value"]
    )


def test_rows_of_one_source_count_as_one():
    before, after = answered(HARD), answered(HARD + RNG.normal(0, 1, 60))
    grouped = SplitScores(after.codes, np.repeat(np.arange(30), 2), None)
    assert measure_change(before, grouped)["code_nll"]["difference"]["n"] == 30


def test_another_model_on_other_rows_is_no_pair():
    with pytest.raises(DataError, match="not scored on the same tokens"):
        measure_change(answered(HARD), answered(HARD[:50]))


def test_right_answers_are_counted_and_compared_on_the_same_rows():
    right, fewer = np.arange(60) < 54, np.arange(60) < 30
    found = measure_change(answered(HARD, right), answered(HARD, fewer))["accuracy"]
    assert found["before"]["value"] == 0.9 and found["after"]["value"] == 0.5
    assert found["difference"]["value"] == pytest.approx(-0.4) and found["difference"]["high"] < 0


def test_each_line_names_its_rows_and_what_has_become_of_them():
    changes = {"new | rows": measure_change(answered(HARD), answered(HARD - 1)),
               "old rows": measure_change(answered(HARD), answered(HARD + 1))}  # fmt: skip
    lines = change_lines(changes)
    assert lines[0].endswith("it has become better") and lines[1].endswith("is forgotten")
    assert lines[0].startswith("new | rows, NLL per code, nats: ") and len(lines) == 2
    assert "difference -1.000 nats" in lines[0] and "difference 1.000 nats" in lines[1]


def test_a_classifier_is_asked_for_classes_only_and_a_language_model_for_both(
    corpus, tiny, vocab, tmp_path
):
    build_classifier(tiny, vocab).save_pretrained(tmp_path)
    of_lm = score_split(build_lm(tiny, vocab), corpus)
    of_classifier = score_split(load_classifier(tmp_path), corpus)
    assert of_classifier.codes is None and of_classifier.right.shape == of_lm.right.shape == (60,)
    assert list(measure_split(of_lm)) == ["code_nll", "accuracy"]
    assert list(measure_change(of_lm, of_classifier)) == ["accuracy"], "what both can be asked"


def test_old_rows_are_measured_beside_the_new_ones_under_the_grown_vocabulary(corpus, tiny, vocab):
    grown = extend_vocab(vocab, ["a", "b"])
    new = Corpus(grown, corpus.splits | {"val": corpus.splits["val"][:20]})
    model = grow_embedding(build_lm(tiny, vocab), len(grown))
    found = validation_metric(new, old=corpus).measure(model)
    alone, old = (
        validation_metric(new).measure(model),
        validation_metric(Corpus(grown, corpus.splits)).measure(model),
    )
    kept = ("code_nll", "read_nll", "class_accuracy")
    assert found == alone | {f"old_{name}": old[name] for name in kept}
