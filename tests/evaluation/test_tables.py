"""Every line of a table has a metric, a model, a value, its interval and n."""

import re

import pytest
from samples import classes, measured, values

from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.tables import (
    OURS,
    escape_markdown,
    markdown_table,
    readme_estimates,
    results_table,
    run_table,
)


def estimate(value, unit="nats per token"):
    return Estimate(value, value - 0.05, value + 0.05, 360, unit).to_json()


def all_values() -> dict:
    names = ("evaluate", "classify_sequences", "sample")
    models = {"LSTM": {"nll": estimate(2.87)}, OURS: {"nll": estimate(3.41)}}
    return {name: values(name) for name in names} | {
        "competing_models": {"sequence_models": models}
    }


def lines_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_a_bar_in_a_cell_does_not_break_the_table():
    table = markdown_table(("a", "b"), [("x | y", 3)], "lr")
    assert table == "| a | b |\n|---|--:|\n| x \\| y | 3 |"


def test_signs_of_markdown_are_escaped():
    assert escape_markdown("<CLS_3> *a* [b]") == r"\<CLS\_3\> \*a\* \[b\]"


def test_every_line_has_a_value_an_interval_and_n():
    lines = lines_of(results_table(all_values()))[2:]
    assert len(lines) > 25
    for metric, model, value, interval, n in lines:
        assert metric and model
        assert re.fullmatch(r"[\d.,]+%?", value)
        assert re.fullmatch(r"[\d.,]+%? to [\d.,]+%?", interval)
        assert int(n) > 0


def test_baselines_stand_in_the_same_table_as_the_model_the_hardest_to_beat_first():
    table = results_table(all_values())
    order = ["GPT, read layout", "LSTM", "baseline: n-grams by position", "baseline: uniform"]
    places = [table.index(words) for words in order]
    assert places == sorted(places)
    for words in ("baseline: RBF-SVM on pixels", "accuracy of the digit classifier"):
        assert words in table
    assert table.count("nats (lower is better) | **GPT") == 1, "the model stands there once"
    assert OURS not in table


def test_overlap_and_near_copies_have_their_rows():
    generated = values("sample") | {
        "overlap": {"by the model": {k: estimate(0.3) for k in ("bleu", "rouge1", "rougeL")}},
        "nearest_train": {
            "copies": {
                f"{name}, all": {"drawn": estimate(0.2), "real": estimate(0.5)}
                for name in ("default", "plain")
            }
        },
    }
    table = results_table({"sample": generated})
    for words in ("BLEU", "ROUGE-L", "near copies of training images (all) | generated, plain"):
        assert words in table
    assert table.count("near copies of training images (all) | real test images") == 1


def test_a_run_shows_the_classifier_beside_its_baselines_or_the_language_model():
    table = run_table(classes(0.9))
    assert "| accuracy | **the classifier** |" in table and "macro F1" in table
    assert "| **GPT, read layout** | 3.41 |" in run_table({"read": measured(3.41)})


def test_readme_has_eight_estimates_of_our_models_and_their_baselines():
    language_models = [estimate.value for estimate in readme_estimates(all_values())[:3]]
    assert language_models == pytest.approx([3.41, 2.87, 3.93])
    units = [estimate.unit for estimate in readme_estimates(all_values())]
    assert units == ["nats per token"] * 3 + ["share"] * 4 + ["area"]


def test_readme_has_none_where_nothing_was_measured():
    estimates = readme_estimates({"evaluate": values("evaluate")})
    assert [estimate and estimate.value for estimate in estimates] == [
        3.41,
        None,
        3.93,
        *[None] * 5,
    ]
