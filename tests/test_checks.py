"""The exercises' checkers: right answers pass, wrong ones are told which misconception it is."""

import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from seqlm import checks

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def distances(patch, centers):
    return ((centers - patch) ** 2).sum(1)


def shifted(ids, pad):
    return [*ids[1:], pad]


def in_place(ids, pad):
    for place, token in enumerate(ids):
        ids[place] = -100 if token == pad else token
    return ids


def all_losses(batches):
    return np.concatenate([loss.ravel() for loss, _ in batches])


def kept_losses(batches):
    return np.concatenate([loss[mask] for loss, mask in batches])


def batch_means(batches):
    return np.exp(np.mean([loss[mask].mean() for loss, mask in batches]))


def short_nucleus(p, top_p):
    order = np.argsort(-p)
    kept = order[np.cumsum(p[order]) <= top_p]
    return np.where(np.isin(np.arange(len(p)), kept), p, 0) / max(p[kept].sum(), 1e-9)


def unscaled_nucleus(p, top_p):
    order = np.argsort(-p)
    kept = order[np.cumsum(p[order]) - p[order] < top_p]
    return np.where(np.isin(np.arange(len(p)), kept), p, 0)


WRONG = [
    (checks.nearest_patch, lambda p, c: int((c @ p).argmax()), "dot product"),
    (checks.nearest_patch, lambda p, c: int(distances(p, c).argmax()), "farthest"),
    (checks.nearest_patch, lambda p, c: int(distances(p, c).argmin()) + 1, "from 0"),
    (checks.nearest_patch, lambda p, c: distances(p, c).min(), "distance itself"),
    (checks.nearest_patch, lambda p, c: 2, "dark patch"),
    (checks.nearest_patch, lambda p, c: p.nonsense, "AttributeError"),
    (checks.labels, lambda ids, pad: list(ids), "Padding is still"),
    (checks.labels, shifted, "Shifted by hand"),
    (checks.labels, in_place, "changed input_ids"),
    (checks.labels, lambda ids, pad: [-100 if t in (pad, 509) else t for t in ids], "class is"),
    (checks.classifier_input, lambda tokens: tokens, "class is still"),
    (checks.classifier_input, lambda tokens: tokens[:4], "<CLS> is missing"),
    (checks.classifier_input, lambda tokens: [*tokens[:5], "<EOS>"], "<EOS> comes after"),
    (checks.classifier_input, lambda tokens: tokens[:5], "nine codes"),
    (checks.perplexity, lambda b: np.exp(all_losses(b).mean()), "Padding is counted"),
    (checks.perplexity, batch_means, "mean of batch means"),
    (checks.perplexity, lambda b: kept_losses(b).mean(), "mean NLL"),
    (checks.perplexity, lambda b: 2 ** kept_losses(b).mean(), "power of nats"),
    (checks.perplexity, lambda b: np.exp(kept_losses(b)).mean(), "take the mean first"),
    (checks.nucleus, short_nucleus, "Too few"),
    (checks.nucleus, unscaled_nucleus, "sum to 1 again"),
    (checks.nucleus, lambda p, top_p: np.where(p > top_p, p, 0), "sum counts"),
    (checks.nucleus, lambda p, top_p: p, "sort by probability"),
]


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_a_wrong_answer_is_told_its_misconception(check, answer, words, capsys):
    assert check(answer) is False
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (math.log2(516), "bits"),
        (math.log10(516), "log10"),
        (516, "perplexity"),
        (1 / 516, "probability of one token"),
        (-math.log(516), "sign"),
        (3.0, "Start from"),
    ],
)
def test_a_wrong_initial_loss_is_told_its_misconception(answer, words, capsys):
    assert checks.initial_loss(answer, 516) is False
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "check",
    [checks.nearest_patch, checks.labels, checks.classifier_input, checks.perplexity,
     checks.nucleus],
)  # fmt: skip
def test_an_answer_not_given_yet_is_no_mistake(check, capsys):
    assert check(lambda *arguments: ...) is False
    said = capsys.readouterr().out
    assert "Nothing to check yet" in said and "✗" not in said


def exercises():
    """(notebook, solution, call of the checker) for every solution in the notebooks."""
    found = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        calls = [c.source for c in cells if c.cell_type == "code" and "checks." in c.source]
        solutions = [c.source for c in cells if "<summary>Solution</summary>" in c.source]
        for call, solution in zip(calls, solutions, strict=True):
            found.append((path.stem, call, re.search(r"```python\n(.*?)```", solution, re.S)[1]))
    return found


def test_every_notebook_has_an_exercise_with_a_solution():
    assert len({name for name, _, _ in exercises()}) == len(list(NOTEBOOKS.glob("*.ipynb")))


@pytest.mark.parametrize(("name", "call", "solution"), exercises())
def test_the_solution_in_the_notebook_passes_its_own_checker(name, call, solution, capsys):
    asked = call.split("checks.", 1)[1]
    space = {"np": np, "checks": checks}
    exec(solution, space)
    exec("checks." + asked, space)
    assert "✓" in capsys.readouterr().out
