"""The reference says of every quantity what the functions do, and nothing is missing from it."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pytest
from samples import scores_of

import seqlm.evaluation
from seqlm.evaluation import estimates
from seqlm.evaluation.classification import calibration_error, class_nll, macro_f1, reliability
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.metrics import bits_per_image, nll, perplexity, top_k_accuracy
from seqlm.evaluation.significance import Comparison, mcnemar, paired_difference, ratio_of_rows
from seqlm.lab.text_metrics import bleu, rouge

# What makes an interval, and what the table calls it.
WAYS = {"bootstrap": "BCa", "proportion": "Wilson"}
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
    "nll": lambda: nll(SCORES),
    "perplexity": lambda: perplexity(nll(SCORES)),
    "bits_per_image": lambda: bits_per_image(SCORES),
    "top_k_accuracy": lambda: top_k_accuracy(SCORES, 1),
    "proportion": lambda: estimates.proportion(RIGHT),
    "macro_f1": lambda: macro_f1(LABELS, RIGHT.astype(int)),
    "class_nll": lambda: class_nll(SURE, LABELS),
    "calibration_error": lambda: calibration_error(SURE, LABELS),
    "reliability": lambda: reliability(SURE, LABELS, bins=1)[0]["accuracy"],
    "bleu": lambda: bleu(ROWS, TRUTHS),
    "rouge": lambda: rouge(ROWS, TRUTHS)["rouge2"],
    "ratio_of_rows": lambda: ratio_of_rows(SCORES.row, SCORES.nll, HARDER.nll),
    "paired_difference": lambda: paired_difference(SCORES, HARDER),
    "mcnemar": lambda: mcnemar(RIGHT, LABELS > 0),
}


def reference() -> list[dict[str, str]]:
    """The lines of the table in the module's docstring."""
    lines = seqlm.evaluation.__doc__.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("---"))
    assert tuple(re.split(r"  +", lines[rule - 1])) == COLUMNS
    rows = lines[rule + 1 : lines.index("", rule)]
    return [dict(zip(COLUMNS, re.split(r"  +", row), strict=True)) for row in rows]


def prose() -> str:
    return seqlm.evaluation.__doc__[
        seqlm.evaluation.__doc__.index("\n\n", seqlm.evaluation.__doc__.index("---")) :
    ]


MODULES = [
    importlib.import_module(f"seqlm.evaluation.{name}")
    for name in ("metrics", "classification", "significance", "estimates")
]
MODULES.append(importlib.import_module("seqlm.lab.text_metrics"))


def test_no_function_is_in_the_table_twice_and_each_is_where_evaluation_says():
    names = [row["function"] for row in reference()]
    assert len(set(names)) == len(names)
    for name in names:
        assert any(hasattr(module, name) for module in MODULES), name


def test_every_line_of_the_table_is_measured_here():
    assert {row["function"] for row in reference()} == set(MEASURED)


@pytest.mark.parametrize("row", reference(), ids=lambda row: row["function"])
def test_unit_and_n_are_those_that_the_function_gives(row):
    found = MEASURED[row["function"]]()
    found = found.difference if isinstance(found, Comparison) else found
    found = found if isinstance(found, Estimate) else Estimate.from_json(found)
    assert found.unit == row["unit"]
    assert found.n == 40 and row["n"] in ("images", "rows", "in bin")
    assert found.has_interval and found.low <= found.value <= found.high


@pytest.mark.parametrize("row", reference(), ids=lambda row: row["function"])
def test_the_interval_comes_about_as_the_table_says(row, monkeypatch):
    """Seen from which of the three ways is taken while the function runs."""
    taken = set()

    def watched(way, function):
        def and_noted(*args):
            taken.add("basic" if args[3:] == ("basic",) else way)
            return function(*args)

        return and_noted

    for module in MODULES:
        for function, way in WAYS.items():
            if hasattr(module, function):
                monkeypatch.setattr(module, function, watched(way, getattr(module, function)))
    MEASURED[row["function"]]()
    assert taken == {"BCa" if row["interval"] == "exp" else row["interval"]}


def test_what_is_measured_elsewhere_is_where_the_reference_says():
    named = re.findall(r"`(\w+)\.(\w+)`", prose())
    assert {name for name, _ in named} == {"codebook", "image_quality"}
    for module, function in named:
        room = {"codebook": "data", "image_quality": "lab"}[module]
        found = importlib.import_module(f"seqlm.{room}.{module}")
        assert callable(getattr(found, function))


def test_the_two_libraries_of_text_are_not_waited_for_by_those_who_do_not_use_them():
    libraries = "{'sacrebleu', 'rouge_score', 'nltk'}"
    script = f"import sys, seqlm.training.tasks; print({libraries} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stdout.strip() == "set()", said.stderr
