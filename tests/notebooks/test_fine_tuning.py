"""Fine-tuned models are compared on the same tokens, and chance is named as such."""

import nbformat
import numpy as np
import pytest

from seqlm.evaluation.scores import TokenScores
from seqlm.training.forgetting import SplitScores
from seqlm.workspace import read_notebooks

RNG = np.random.default_rng(1)
HARD = RNG.normal(4, 2, 60)  # some pictures are hard for every model


def answered(nll: np.ndarray) -> SplitScores:
    """Four codes a row, each costing what `nll` (rows,) says."""
    rows, places = np.repeat(np.arange(len(nll)), 4), np.tile(np.arange(1, 5), len(nll))
    codes = TokenScores(rows, places, places, np.repeat(nll, 4), rows * 0, len(nll))
    return SplitScores(codes, np.arange(len(nll)), None)


def functions(scores: dict) -> dict:
    """The notebook's own functions, which compare what is in `scores`."""
    notebook = nbformat.read(read_notebooks()["fine_tuning"].path, as_version=4)
    names = {"scores": {name: {"old rows": answer} for name, answer in scores.items()}}
    for cell in notebook.cells:
        if cell.id in ("09-20", "09-30"):
            exec(cell.source, names)
    return names


def test_a_real_difference_is_distinguished_from_chance():
    noisy = answered(HARD + RNG.normal(0, 1, 60))
    names = functions({"a": answered(HARD - 0.5), "b": answered(HARD), "c": noisy})
    real, chance = (names["difference_of"](k, "b", "old rows") for k in ("a", "c"))
    assert real.value == pytest.approx(-0.5) and names["distinguishable"](real)
    assert not names["distinguishable"](chance)


def test_an_order_is_claimed_only_where_it_is_more_than_chance():
    near = answered(HARD - 0.5 + RNG.normal(0, 0.5, 60))
    names = functions({"a": answered(HARD - 0.5), "b": answered(HARD), "c": near})
    said = names["ranking"](["a", "b", "c"], "old rows")
    assert said.startswith("On old rows, of 3 models, ")
    assert " and " in said and ", not distinguishable)" in said and "b -0.5" in said
    assert "are not distinguishable at the top" in said
    sure = names["ranking"](["b", "a"], "old rows")
    assert sure.startswith(
        "On old rows, of 2 models, a needs the fewest nats per code. a minus b -0.50 ("
    )
    assert "distinguishable" not in sure and sure.endswith("; n = 60.")
