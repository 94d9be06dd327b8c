"""The reference says of every quantity what the functions do, and nothing is missing from it."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pytest
from invented import scores_of

from seqlm import metrics
from seqlm.metrics import Comparison, Estimate
from seqlm.training import _DECIDING

# What makes an interval, and what the table calls it.
WAYS = {"bootstrap_interval": "BCa", "proportion": "Wilson", "_in_parts": "basic"}
COLUMNS = ("quantity", "formula", "unit", "n", "interval", "function")

RIGHT = np.arange(40) % 4 > 0
LABELS = np.arange(40) % 2
SURE = np.stack([np.full(40, 0.7), np.full(40, 0.3)], axis=1)
SCORES = scores_of(np.linspace(1, 3, 80), row=np.arange(80) // 2)
HARDER = scores_of(np.linspace(2, 3, 80), row=np.arange(80) // 2)
ROWS = [f"a b c d {i % 7} f {i % 3}" for i in range(40)]
TRUTHS = ["a b c d 1 f 2"] * 40

# What each function of the table says of 40 images with two tokens each.
MEASURED = {
    "nll": lambda: metrics.nll(SCORES),
    "perplexity": lambda: metrics.perplexity(metrics.nll(SCORES)),
    "bits_per_image": lambda: metrics.bits_per_image(SCORES),
    "top_k_accuracy": lambda: metrics.top_k_accuracy(SCORES, 1),
    "proportion": lambda: metrics.proportion(RIGHT),
    "macro_f1": lambda: metrics.macro_f1(LABELS, RIGHT.astype(int)),
    "class_nll": lambda: metrics.class_nll(SURE, LABELS),
    "calibration_error": lambda: metrics.calibration_error(SURE, LABELS),
    "reliability": lambda: metrics.reliability(SURE, LABELS)[0]["accuracy"],
    "bleu": lambda: metrics.bleu(ROWS, TRUTHS),
    "rouge": lambda: metrics.rouge(ROWS, TRUTHS)["rouge2"],
    "paired_ratio": lambda: metrics.paired_ratio(SCORES, HARDER),
    "paired_difference": lambda: metrics.paired_difference(SCORES, HARDER),
    "mcnemar": lambda: metrics.mcnemar(RIGHT, LABELS > 0),
}


def reference() -> list[dict[str, str]]:
    """The lines of the table in the module's docstring."""
    lines = metrics.__doc__.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("---"))
    assert tuple(re.split(r"  +", lines[rule - 1])) == COLUMNS
    rows = lines[rule + 1 : lines.index("", rule)]
    return [dict(zip(COLUMNS, re.split(r"  +", row), strict=True)) for row in rows]


def prose() -> str:
    return metrics.__doc__[metrics.__doc__.index("\n\n", metrics.__doc__.index("---")) :]


def test_every_public_name_is_in_the_table_or_told_of_beneath_it_and_none_is_in_both():
    measured = [row["function"] for row in reference()]
    assert len(set(measured)) == len(measured)
    told = {name for name in re.findall(r"`(\w+)`", prose()) if hasattr(metrics, name)}
    # Named again, where the text explains an interval.
    told -= {"proportion", "mcnemar"}
    assert set(measured) | told == set(metrics.__all__)
    assert not set(measured) & told
    assert sorted(metrics.__all__) == metrics.__all__


def test_every_line_of_the_table_is_measured_here():
    assert {row["function"] for row in reference()} == set(MEASURED) | {"holm"}


@pytest.mark.parametrize("row", reference(), ids=lambda row: row["function"])
def test_unit_and_n_are_those_that_the_function_gives(row):
    if row["function"] == "holm":
        assert (row["unit"], row["n"], row["interval"]) == ("p", "tests", "none")
        return
    found = MEASURED[row["function"]]()
    found = found.difference if isinstance(found, Comparison) else found
    found = found if isinstance(found, Estimate) else Estimate.from_json(found)
    assert found.unit == row["unit"]
    assert found.n == 40 and row["n"] in ("images", "rows", "in bin")
    assert found.has_interval and found.low <= found.value <= found.high


@pytest.mark.parametrize("row", reference(), ids=lambda row: row["function"])
def test_the_interval_comes_about_as_the_table_says(row, monkeypatch):
    """Seen from which of the three ways is taken while the function runs."""
    if row["function"] == "holm":
        return
    taken = set()

    def watched(way, function):
        def and_noted(*args):
            taken.add(way)
            return function(*args)

        return and_noted

    modules = ("metrics", "calibration", "class_metrics", "comparisons", "text_metrics")
    for name in (*modules, "token_metrics"):
        module = importlib.import_module(f"seqlm.{name}")
        for function, way in WAYS.items():
            if hasattr(module, function):
                monkeypatch.setattr(module, function, watched(way, getattr(module, function)))
    MEASURED[row["function"]]()
    assert taken == {"BCa" if row["interval"] == "exp" else row["interval"]}


def test_what_is_measured_elsewhere_is_where_the_reference_says():
    named = re.findall(r"`(\w+)\.(\w+)`", prose())
    assert {name for name, _ in named} == {"codebook", "judging"}
    for module, function in named:
        assert callable(getattr(importlib.import_module(f"seqlm.{module}"), function))


def test_the_two_libraries_of_text_are_not_waited_for_by_those_who_do_not_use_them():
    script = (
        "import sys, seqlm.metrics; print({'sacrebleu', 'rouge_score', 'nltk'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stdout.strip() == "set()", said.stderr


def test_what_only_measures_after_training_does_not_make_it_another_run():
    assert {"scores", "classes"} <= set(_DECIDING)
    after = {"calibration", "class_metrics", "comparisons", "estimates", "metrics"}
    assert not (after | {"text_metrics", "token_metrics"}) & set(_DECIDING)
