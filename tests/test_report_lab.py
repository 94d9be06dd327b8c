"""The report's pages on the laboratory say what its notebooks measured, and no more."""

import pytest
from samples import workspace
from seqlm.publish import publish
from seqlm.report import build_report
from seqlm.report_lab import comparisons_table, few_labels_page, laboratory, standing_table

from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.tables import OURS
from seqlm.workspace import notebooks_folder


def told(value, unit="nats per token"):
    return Estimate(value, value - 0.05, value + 0.05, 360, unit).to_json()


TRAP = {
    "name": "padding counted",
    "quantity": "perplexity",
    "unit": "perplexity",
    "reported": told(1.09, "perplexity"),
    "true": told(143.8, "perplexity"),
    "cause": "Padding | is easy.",
    "caught_by": "test_x",
    "better": "low",
}
EIGHT = {"traps": {"padding counted": TRAP}, "known_source": {"gap": told(0.0036)}}
GAIN = {"a": "LSTM", "b": "our GPT", "difference": told(0.4), "real": True}
CHANCE = {"a": "plain mean", "b": "our GPT", "difference": told(0.01), "real": False}
STANDING = {
    kind: {"code_nll": told(nats), "accuracy": told(0.9, "share")}
    for kind, nats in (("turned digits", 3.1), ("upright digits", 2.9))
}
FLOOR = {"turned digits": {"code_nll": told(3.8)}}
NINE = {
    "psnr": {"upright": 27.9, "turned": 26.3},
    "psnr_pictures": 180,
    "steps": 100,
    "baseline": "position_ngram",
    "models": {"before": STANDING, "by | LoRA": STANDING, "best baseline": FLOOR},
    "comparisons": [GAIN],
}
TEN = {
    "sequence_models": {"LSTM": {"nll": told(2.87)}},
    "bits": {"xz": told(95.9, "bits per image")},
    "comparisons": [GAIN, CHANCE],
}
MEANS = {"1": {"mean": proportion([True, False] * 90).to_json()}}
ELEVEN = {"curves": {"from the language model": MEANS, "SVM": MEANS}}


def test_without_the_laboratory_the_report_says_nothing_of_it():
    assert laboratory({"evaluate": {"anything": 1}}) == []


def test_a_trap_stands_with_what_it_reports_and_what_is_true():
    text = "\n".join(laboratory({"how_to_be_fooled": EIGHT}))
    assert "1.09 (1.04 to 1.14, n = 360)" in text and "**143.8 (143.8 to 143.9, n = 360)**" in text
    assert "Padding \\| is easy." in text, "a bar in a cell would break the table"
    assert "0.004 nats per token" in text, "two decimals would make the gap nought"


def test_a_difference_that_may_be_chance_is_called_so():
    lines = comparisons_table([GAIN, CHANCE]).splitlines()
    assert lines[2].endswith("| yes |") and lines[3].endswith("| may be chance |")
    assert len({line.count("|") for line in lines}) == 1


def test_fine_tuning_is_told_on_what_is_new_and_on_what_was_known():
    page = "\n".join(laboratory({"fine_tuning": NINE}))
    assert page.startswith("## Fine-tuned on turned digits")
    assert "upright 27.9 dB, turned 26.3 dB" in page and "n = 360 test pictures" in page
    assert "n = 180 val pictures" in page and "n-grams by position" in page
    assert "with one seed" in page and "drawing is not measured" in page
    table = standing_table(NINE["models"]).splitlines()
    assert table[4] == "| best baseline | 3.80 (3.75 to 3.85) | – | – | – |"
    assert (
        table[0].count("digits") == 4
        and len({line.replace("\\|", "").count("|") for line in table}) == 1
    )
    assert table[3].startswith("| by \\| LoRA | 3.10 (3.05 to 3.15) | 90.0% (")


def test_every_number_of_labels_has_its_line_and_every_route_its_column():
    table = few_labels_page(ELEVEN)[1].splitlines()
    assert table[0] == "| Labels a class | from the language model | SVM |"
    assert table[2].startswith("| 1 | 50.0% (")
    assert len({line.count("|") for line in table}) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    ws = workspace(tmp_path_factory.mktemp("lab"))
    for number, values in (
        ("how_to_be_fooled", EIGHT),
        ("competing_models", TEN),
        ("label_efficiency", ELEVEN),
    ):
        ws.save_metrics(number, {"seed": 1}, values, 1.0)
    return ws, build_report(ws)["markdown"].read_text()


def test_the_report_holds_the_pages_of_the_notebooks_that_ran(whole):
    text = whole[1]
    places = [text.index(h) for h in ("Reported against true", "Rivals that learn", "few labels")]
    assert places == sorted(places)
    assert "turned digits" not in text, "notebook 9 has not run"


def test_figures_of_a_laboratory_that_was_not_run_here_stay_published(whole):
    ws = whole[0]
    for name in ("rotated_digits", "gone"):
        (ws.published / f"{name}.png").write_bytes(b"x")
        (ws.published / f"{name}.txt").write_text("words")
    publish(ws)
    left = {path.stem for path in ws.published.glob("*.png")}
    assert "rotated_digits" in left, "its notebook has not run here"
    assert "gone" not in left, "these would have been made again"


def test_the_notebook_calls_the_language_model_as_the_table_does():
    notebook = (notebooks_folder() / "laboratory/competing_models.ipynb").read_text()
    assert OURS in notebook, "the table would list the GPT among its own competing models"
