"""Fine-tuned models are compared on the same tokens, and chance is told as such."""

import numpy as np
import pytest

from seqlm.evaluation.scores import TokenScores
from seqlm.lab.finetuning_study import compare_scores, describe_ranking, validation_curves
from seqlm.training.forgetting import SplitScores

RNG = np.random.default_rng(1)
HARD = RNG.normal(4, 2, 60)  # some pictures are hard for every model


def answered(nll: np.ndarray) -> SplitScores:
    """Four codes a row, each costing what `nll` (rows,) says."""
    rows, places = np.repeat(np.arange(len(nll)), 4), np.tile(np.arange(1, 5), len(nll))
    codes = TokenScores(rows, places, places, np.repeat(nll, 4), rows * 0, len(nll))
    return SplitScores(codes, np.arange(len(nll)), None)


def test_a_real_difference_is_told_from_chance():
    real = compare_scores("a", answered(HARD - 0.5), "b", answered(HARD))
    chance = compare_scores("a", answered(HARD + RNG.normal(0, 1, 60)), "b", answered(HARD))
    assert real["real"] and real["difference"]["value"] == pytest.approx(-0.5)
    assert not chance["real"] and (chance["a"], chance["b"]) == ("a", "b")


def test_an_order_is_claimed_only_where_it_is_more_than_chance():
    near = answered(HARD - 0.5 + RNG.normal(0, 0.5, 60))
    said = describe_ranking({"a": answered(HARD - 0.5), "b": answered(HARD), "c": near}, "old rows")
    assert said.startswith("On old rows, of 3 models, ")
    assert " and " in said and ", not distinguishable)" in said and "b -0.5" in said
    assert "are not distinguishable at the top" in said
    sure = describe_ranking({"b": answered(HARD), "a": answered(HARD - 0.5)}, "old rows")
    assert sure.startswith(
        "On old rows, of 2 models, a needs the fewest nats per code. a minus b -0.50 ("
    )
    assert "distinguishable" not in sure and sure.endswith("; n = 60.")


def test_validation_curves_begin_before_training():
    lines = [
        {"read_nll": 2.0, "old_read_nll": 3.0},
        {"step": 7, "read_nll": 1.0, "old_read_nll": 4.0},
    ]
    record = {"initial": lines[0], "evals": lines[1:]}
    assert validation_curves(record) == {"step": [0, 7], "new": [2.0, 1.0], "old": [3.0, 4.0]}
