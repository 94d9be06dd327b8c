"""A model's card and a run's report say what was measured, and on what."""

import json
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from nbconvert.filters import markdown2html_mistune
from samples import classes, number, record, share, values

from seqlm.cli import main
from seqlm.evaluation.tables import code_span
from seqlm.training.cards import model_card, write_report

pytestmark = pytest.mark.slow


def test_a_model_card_has_front_matter_numbers_and_the_lines_that_load_it():
    card = model_card(record(), values("evaluate"), 516, "1,257 digits")
    _, front, body = card.split("---\n", 2)
    held = yaml.safe_load(front)
    assert held["library_name"] == "transformers" and held["license"] == "mit"
    assert held["pipeline_tag"] == "text-generation"
    assert "from transformers import GPT2LMHeadModel, GPT2Tokenizer" in body
    assert 'GPT2Tokenizer.from_pretrained(".")' in body
    assert "3.37 to 3.45 | 360" in body and "baseline: uniform" in body
    assert "1,257 digits" in body and "516 tokens" in body


def test_a_model_card_before_the_test_owns_up_to_validation():
    card = model_card(record(), None, 516, "digits")
    assert "chose the checkpoint" in card
    assert f"NLL per code {record()['best']['code_nll']:.3f}," in card


HOSTILE = "<script>`rows`_of_mine_\x1b[2J.jsonl"


def test_a_file_name_stays_text_in_card_and_front_matter():
    card = model_card(record(), values("evaluate"), 516, f"9 rows of {code_span(HOSTILE)}", HOSTILE)
    _, front, body = card.split("---\n", 2)
    assert "\x1b" not in card
    dataset = yaml.safe_load(front)["model-index"][0]["results"][0]["dataset"]
    assert dataset["name"] == HOSTILE
    page = BeautifulSoup(markdown2html_mistune(body), "html.parser")
    assert not page.find_all("script")
    shown = HOSTILE.replace("\x1b", "\\x1b")
    assert page.get_text().count(shown) == 2  # data, licence


def report(directory, *arguments) -> str:
    write_report(directory, *arguments)
    return (directory / "report.md").read_text()


COMMONEST, SVM = "always the commonest class", "RBF-SVM on counts of codes"


def classifier(ours: float, svm: float) -> dict:
    """What a classifier's run leaves; both numbers are invented."""
    lazy = {**classes(0.0), "accuracy": share(0.1)}
    gap = number(ours - svm, "share")  # it leaves out 0 where the two differ
    gap |= {"low": ours - svm - 0.05, "high": ours - svm + 0.05}
    best = {**classes(svm), "accuracy_gap": gap}
    return {**classes(ours), "baselines": {COMMONEST: lazy, SVM: best}}


def test_a_classifiers_card_and_report_hold_its_baselines(tmp_path):
    found = classifier(0.9, 0.7)
    held = {**record(160, 4), "best": {"step": 100, "class_nll": 0.4, "accuracy": 0.9}}
    card = model_card(held, found, 516, "rows")
    assert "GPT2ForSequenceClassification" in card and "text-classification" in card
    write_report(tmp_path, held, found)
    text = (tmp_path / "report.md").read_text()
    for place in (card, text):
        assert f"baseline: {COMMONEST} | 10.0% | 7.3% to 13.5% | 360 |" in place
        assert place.count(f"| baseline: {SVM} |") == 2  # accuracy and macro F1
    assert f"classifies more rows correctly than the best baseline, {SVM}" in text


def test_a_classifier_that_does_not_beat_a_baseline_says_so(tmp_path):
    held = {**record(160, 4), "best": {"step": 100, "class_nll": 0.4, "accuracy": 0.9}}
    text = report(tmp_path, held, classifier(0.7, 0.9))
    assert f"does not beat the best baseline, {SVM}" in text and "no GPT is needed" in text


def test_a_classifier_that_is_right_a_little_more_often_is_not_distinguishable(tmp_path):
    held = {**record(160, 4), "best": {"step": 100, "class_nll": 0.4, "accuracy": 0.9}}
    text = report(tmp_path, held, classifier(0.92, 0.9))
    assert f"is not distinguishable from the best baseline, {SVM}" in text
    assert "classifies more rows" not in text and "no GPT" not in text


def test_a_users_own_run_is_reported_with_baselines_and_a_figure(tmp_path):
    found = {"draw": values("evaluate")["draw"], **{k: v for k, v in values("evaluate").items()
             if k not in ("read", "draw", "layout_compared")}}  # fmt: skip
    write_report(tmp_path, record(160, 4), found)
    text = (tmp_path / "report.md").read_text()
    assert "GPT, draw layout" in text and "baseline: unigram" in text
    assert "](training_process.png)" in text
    assert (tmp_path / "training_process.png").read_bytes().startswith(b"\x89PNG")
    assert "n = 103,074" in (tmp_path / "training_process.txt").read_text()


def test_a_run_that_does_not_beat_its_baseline_is_said_so(tmp_path):
    found = {**values("evaluate"), "below_best_baseline": number(-0.1, "ratio")}
    text = report(tmp_path, record(160, 4), found)
    assert "does not beat the best baseline" in text and "fewer nats" not in text
    good = report(tmp_path, record(160, 4), values("evaluate"))
    assert "fewer nats" in good and "13.2% (95 % interval" in good


def test_a_run_measured_without_baselines_is_reported_all_the_same(tmp_path):
    found = {"other": {k: values("evaluate")["read"][k] for k in ("code", "structural", "all")}}
    text = report(tmp_path, record(160, 4), found)
    assert "GPT, other layout" in text and "baseline" not in text


# ---------------------------------------------------------------- as the Hub reads it

OWN = "140 train, 20 val rows of mine.jsonl, measured on test"


def results(card: str) -> dict[str, object]:
    """What the Hub's own library reads of a card, by the name of the number."""
    _, front, _ = card.split("---\n", 2)
    name, found = model_index_to_eval_results(yaml.safe_load(front)["model-index"])
    # There and back again: the Hub's own format, nothing dropped.
    assert eval_results_to_model_index(name, found) == yaml.safe_load(front)["model-index"]
    assert len({each.unique_identifier for each in found}) == 1
    return {each.metric_name.split(" (")[0]: each for each in found}


def test_the_hub_reads_what_was_measured_with_interval_and_n():
    card = model_card(record(), values("evaluate"), 516, "1,257 digits")
    found, held = results(card), values("evaluate")
    for layout in ("read", "draw"):
        told = found[f"perplexity per code, {layout} layout"]
        assert told.metric_type == "perplexity" and told.task_type == "text-generation"
        code = held[layout]["code"]
        assert told.metric_value == pytest.approx(code["perplexity"]["value"], abs=1e-5)
        nats = found[f"NLL per code in nats, {layout} layout"]
        assert nats.metric_value == pytest.approx(code["nll"]["value"], abs=1e-5)
    read = found["NLL per code in nats, read layout"]
    assert read.metric_name.endswith("(95 % interval 3.37 to 3.45, n = 360)")
    guessed = found["top-1 accuracy of the class among all tokens"]
    assert guessed.metric_value == pytest.approx(share(0.97)["value"], abs=1e-5)
    assert guessed.metric_type == "accuracy"
    assert read.dataset_split == "test" and read.dataset_name.startswith("handwritten digits")
    data = ModelCard(card).data
    assert data.metrics == ["accuracy", "perplexity"] and data.license == "mit"
    assert data.widget == [{"text": "<IMG>", "example_title": "a row, from its start"}]


def test_the_hub_reads_a_classifiers_accuracy_and_macro_f1_and_not_its_baselines():
    held = {**record(160, 4), "best": {"step": 100, "class_nll": 0.4, "accuracy": 0.9}}
    measured = classifier(0.9, 0.7)
    card = model_card(held, measured, 516, OWN, "mine.jsonl")
    found = results(card)
    assert found.keys() == {"accuracy", "macro F1"}
    assert found["accuracy"].metric_value == pytest.approx(measured["accuracy"]["value"], abs=1e-5)
    assert found["macro F1"].metric_value == pytest.approx(measured["macro_f1"]["value"], abs=1e-5)
    assert (found["macro F1"].metric_type, found["accuracy"].metric_type) == ("f1", "accuracy")
    assert found["accuracy"].task_type == "text-classification"
    data = ModelCard(card).data
    assert data.metrics == ["accuracy", "f1"] and "widget" not in data.to_dict()


@pytest.mark.parametrize(("split", "named"), [("test", "test"), ("val", "validation")])
@pytest.mark.parametrize("file", ["mine.jsonl", "a, measured on test.jsonl", "rows of b: c.jsonl"])
def test_the_file_and_the_split_are_a_users_own_and_so_is_the_licence(split, named, file):
    card = model_card(record(), values("evaluate"), 516, f"rows of {file}", file, split)
    for each in results(card).values():
        assert (each.dataset_name, each.dataset_split, each.dataset_type) == (file, named, "json")
    assert ModelCard(card).data.license == "unknown"
    assert f"cannot know the licence of `{file}`" in card and "MIT" not in card


def test_before_the_test_the_hub_is_told_no_number():
    data = ModelCard(model_card(record(), None, 516, "digits")).data.to_dict()
    assert not {"model-index", "metrics", "model_name"} & data.keys()
    assert data["pipeline_tag"] == "text-generation"


def test_whose_numbers_they_are_is_told_where_the_two_models_differ():
    held = record()
    card = model_card(held, values("evaluate"), 516, "digits")
    assert f"are best_model's, the checkpoint of step {held['best']['step']:,};" in card
    same = {**held, "best": held["evals"][-1]}
    assert "are best_model's" not in model_card(same, values("evaluate"), 516, "digits")


@pytest.fixture(scope="module")
def published(built, tmp_path_factory) -> Path:
    """A folder to upload: a GPT-2 unlike the default one, from a file of settings."""
    out = tmp_path_factory.mktemp("published")
    mine = {
        "data_path": str(built.directory / "sequences.jsonl"),
        "vocab_path": str(built.directory / "vocab.json"),
        "output_dir": str(out),
        "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 64,
        "n_inner": 24, "activation_function": "relu", "tie_word_embeddings": False,
        "layer_norm_epsilon": 1.0e-3, "reorder_and_upcast_attn": True,
        "batch_size": 16, "max_steps": 4, "evals": 2, "precision": "bf16",
    }  # fmt: skip
    (out / "mine.yaml").write_text(yaml.safe_dump(mine))
    assert main(["train", "--config", str(out / "mine.yaml")]) == 0
    return out / "best_model"


def test_a_model_of_ones_own_making_is_trained_saved_loaded_and_measured(published, capsys):
    held = json.loads((published / "config.json").read_text())
    assert (held["n_inner"], held["activation_function"]) == (24, "relu")
    assert held["tie_word_embeddings"] is False and held["layer_norm_epsilon"] == 1e-3
    data = yaml.safe_load((published.parent / "mine.yaml").read_text())["data_path"]
    asked = ["evaluate", "--data_path", data, "--model_path", str(published), "--json"]
    assert main([*asked, "--baselines", "false"]) == 0
    again = json.loads(capsys.readouterr().out)
    first = json.loads((published.parent / "metrics.json").read_text())["values"]
    assert again["read"] == first["read"] and again["draw"] == first["draw"]


def test_the_folder_is_whole_and_tells_nothing_of_the_machine_it_was_made_on(published, built):
    card = ModelCard.load(published / "README.md")
    assert card.data.library_name == "transformers" and card.data.license == "unknown"
    told = {each.dataset_name for each in card.data.eval_results}
    assert told == {"sequences.jsonl"}
    wanted = {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "vocab.json",
        "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
            "learned.npy", ".seqlm.json",
    }  # fmt: skip
    names = {path.name for path in published.iterdir()}
    # Trainer's own arguments hold the output folder; README's command leaves them at home.
    assert names == wanted | {"training_args.bin"}
    for name in wanted:
        held = (published / name).read_bytes()
        for place in (published.parent, built.directory, Path.home()):
            assert str(place).encode() not in held, (name, place)


def test_the_pages_upload_the_folder_without_what_names_the_machine():
    for page in ("docs/your-data.md", "docs/zh-CN.md"):
        text = (Path(__file__).parents[2] / page).read_text()
        assert "hf upload NAME outputs/best_model --exclude training_args.bin" in text, page
