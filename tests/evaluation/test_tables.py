"""Every line of a table has a metric, a model, a value, its interval and n."""

import re

import pytest
from bs4 import BeautifulSoup
from nbconvert.filters import markdown2html_mistune
from samples import classes, measured, values

from seqlm.errors import printable
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.tables import (
    OURS,
    code_span,
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
    assert escape_markdown("&lt; ~~a~~\x1b[2J") == r"\&lt; \~\~a\~\~\\x1b\[2J"


HOSTILE = ["<script>alert(1)</script>", "<CLS_10>", "`", "a`b``c", "``", "_a_*b*", "&lt;", "a|b",
           "$x$", "[a](b)", "back\\slash", "\x1b]0;title\x07", "two\nlines"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("shown", [escape_markdown, code_span])
def test_a_token_or_file_name_is_shown_as_it_is_in_text_and_in_a_table(name, shown):
    table = markdown_table(("a", "b"), [(shown(name), 3)])
    # Readers differ on a | inside code inside a table: GitHub shows it alone, nbconvert as \|.
    in_table = [] if shown is code_span and "|" in name else [table]
    for page in [f"before {shown(name)} after", *in_table]:
        found = BeautifulSoup(markdown2html_mistune(page), "html.parser")
        assert {tag.name for tag in found.find_all()} <= set(
            ["p", "code", "table", "thead", "tbody", "tr", "th", "td"]
        )
        text = found.get_text()
        plain = printable(name)
        assert plain in text or plain.replace("\n", "\\n") in text, found


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
