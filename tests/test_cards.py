"""A model's card and a run's report say what was measured, and on what."""

import yaml
from invented import classes, number, record, share, values

from seqlm.cards import model_card, run_report


def test_a_model_card_has_front_matter_numbers_and_the_lines_that_load_it():
    card = model_card("seqlm digits", record(), values("05"), 516, "1,257 digits")
    _, front, body = card.split("---\n", 2)
    held = yaml.safe_load(front)
    assert held["library_name"] == "transformers" and held["license"] == "mit"
    assert held["pipeline_tag"] == "text-generation"
    assert "from transformers import GPT2LMHeadModel, GPT2Tokenizer" in body
    assert 'GPT2Tokenizer.from_pretrained(".")' in body
    assert "3.37 to 3.45 | 360" in body and "floor: uniform" in body
    assert "1,257 digits" in body and "516 tokens" in body


def test_a_model_card_before_the_test_owns_up_to_validation():
    card = model_card("seqlm digits", record(), None, 516, "digits")
    assert "chose the checkpoint" in card
    assert f"val codes {record()['best']['code_nll']:.3f}" in card


COMMONEST, SVM = "always the commonest class", "RBF-SVM on counts of codes"


def classifier(ours: float, svm: float) -> dict:
    """What a classifier's run leaves; both numbers are invented."""
    lazy = {**classes(0.0), "accuracy": share(0.1)}
    return {**classes(ours), "rivals": {COMMONEST: lazy, SVM: classes(svm)}}


def test_a_classifiers_card_and_report_hold_its_rivals(tmp_path):
    found = classifier(0.9, 0.7)
    held = {**record(160, 4), "best": {"step": 100, "class_nll": 0.4, "accuracy": 0.9}}
    card = model_card("seqlm classifier", held, found, 516, "rows")
    assert "GPT2ForSequenceClassification" in card and "text-classification" in card
    written = run_report(tmp_path, held, found)
    text = written["markdown"].read_text()
    for place in (card, text):
        assert f"rival: {COMMONEST} | 10.0% | 7.3% to 13.5% | 360 |" in place
        assert place.count(f"| rival: {SVM} |") == 2  # accuracy and macro F1
    assert f"names more rows right than the best rival, {SVM}" in text


def test_a_classifier_that_does_not_beat_a_rival_is_told_so(tmp_path):
    held = {**record(160, 4), "best": {"step": 100, "class_nll": 0.4, "accuracy": 0.9}}
    text = run_report(tmp_path, held, classifier(0.7, 0.9))["markdown"].read_text()
    assert f"does not beat the best rival, {SVM}" in text and "no GPT is needed" in text


def test_a_users_own_run_is_reported_with_floors_and_a_figure(tmp_path):
    found = {"draw": values("05")["draw"], **{k: v for k, v in values("05").items()
             if k not in ("read", "draw", "layout_compared")}}  # fmt: skip
    written = run_report(tmp_path, record(160, 4), found)
    text = written["markdown"].read_text()
    assert "the GPT, draw layout" in text and "floor: unigram" in text
    assert "](training_process.png)" in text
    assert written["figure"].read_bytes().startswith(b"\x89PNG")
    assert "n = 103,074" in (tmp_path / "training_process.txt").read_text()


def test_a_run_that_does_not_beat_its_floor_is_told_so(tmp_path):
    found = {**values("05"), "below_best_floor": number(-0.1, "ratio")}
    text = run_report(tmp_path, record(160, 4), found)["markdown"].read_text()
    assert "does not beat the best floor" in text and "fewer nats" not in text
    good = run_report(tmp_path, record(160, 4), values("05"))["markdown"].read_text()
    assert "fewer nats" in good and "13.2% (95 % interval" in good


def test_a_run_measured_without_floors_is_reported_all_the_same(tmp_path):
    found = {"other": {k: values("05")["read"][k] for k in ("code", "structural", "all")}}
    text = run_report(tmp_path, record(160, 4), found)["markdown"].read_text()
    assert "the GPT, other layout" in text and "floor" not in text
