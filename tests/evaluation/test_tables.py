"""Every line of a table has a metric, a model, a value, its interval and n."""

import re

import pytest
from samples import classes, measured, values

from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.tables import (
    OURS,
    escape_markdown,
    markdown_table,
    readme_table,
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


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ["Metric", "**GPT, read layout**", "best n-gram baseline (n-grams by position)"]),
        ("zh", ["指标", "**GPT，读布局**", "最强 n-gram 基线（按位置的 n-gram）", " 至 "]),
    ],
)
def test_readmes_table_has_eight_rows_in_either_language(language, words):
    table = readme_table(all_values(), language)
    assert len(table.splitlines()) == 2 + 8
    for word in words:
        assert word in table
    assert len({len(line) for line in lines_of(table)}) == 1


def test_readmes_table_leaves_out_what_was_not_measured():
    table = readme_table({"evaluate": values("evaluate")})
    assert len(table.splitlines()) == 2 + 2 and "LSTM" not in table
