"""What a run measures and saves: lengths, divisions, baselines, splits with nothing in them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from seqlm import atomic
from seqlm.config import DataFiles, FinetuneConfig, ModelConfig, TrainConfig
from seqlm.data.corpus import load_corpus
from seqlm.data.records import Record, write_records
from seqlm.data.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from seqlm.data.tokens import default_vocab, read_layout
from seqlm.errors import ConfigError, DataError, DataWarning
from seqlm.evaluation.estimates import Estimate
from seqlm.models.gpt2 import build_lm
from seqlm.ownership import is_locked
from seqlm.training import measure, runs, tasks
from seqlm.training.finetune import finetune_model
from seqlm.utils import write_json

pytestmark = pytest.mark.slow

SIZE = ModelConfig(n_layer=1, n_head=2, n_embd=16, n_positions=64)
VOCAB = default_vocab(30, 2)


def sentences(n=60, codes=20, seed=0, split=None):
    """Rows of two classes whose codes differ in their frequencies."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        label = int(rng.integers(2))
        tokens = read_layout(rng.integers(10 * label, 20 + 10 * label, codes), label)
        yield Record(tokens, label, {} if split is None else {"split": split(i)})


def files_of(directory, records) -> DataFiles:
    write_records(directory / "rows.jsonl", records)
    write_json(directory / "vocab.json", VOCAB)
    return DataFiles(directory / "rows.jsonl", directory / "vocab.json")


def config_of(directory, **more) -> TrainConfig:
    return TrainConfig(
        directory, batch_size=8, max_steps=2, evals=1, patience=0, precision="fp32", **more
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that cut its rows of 24 tokens to 12: the model never saw a thirteenth position."""
    place = tmp_path_factory.mktemp("run")
    files = files_of(place, sentences())
    runs.train_and_evaluate(files, SIZE, config_of(place / "out", max_length=12))
    return files, place / "out"


def evaluated(files, directory, capsys, **more):
    settings = {"split": "test", "baselines": False, "as_json": True, "max_length": None} | more
    capsys.readouterr()
    runs.evaluate_model(files, directory, **settings)
    return json.loads(capsys.readouterr().out)


def test_a_model_says_how_long_the_rows_were_that_it_learned_from(trained):
    for name in ("best_model", "final_model"):
        assert load_tokenizer(trained[1] / name).model_max_length == 12


@pytest.mark.parametrize("wanted", [None, 1024])
def test_no_row_is_measured_on_positions_that_were_never_trained(trained, capsys, wanted):
    files, out = trained
    found = evaluated(files, out / "best_model", capsys, max_length=wanted)
    assert found["read"]["all"]["tokens"] == 11 * 12  # 12 test rows of 12 tokens each
    assert found["read"] == json.loads((out / "metrics.json").read_text())["values"]["read"]


def test_a_length_below_the_models_own_is_kept_to(trained, capsys):
    found = evaluated(trained[0], trained[1] / "best_model", capsys, max_length=10)
    assert found["read"]["all"]["tokens"] == 9 * 12


def test_the_positions_of_a_model_are_a_limit_too(tmp_path):
    build_lm(replace(SIZE, n_positions=16), VOCAB).save_pretrained(tmp_path)
    save_tokenizer(build_tokenizer(VOCAB), tmp_path)  # it says 1024
    assert runs.trained_length(tmp_path) == 16
    assert runs.trained_length(tmp_path, 1024) == 16
    assert runs.trained_length(tmp_path, 7) == 7


def test_a_classifier_starts_with_rows_as_long_as_its_language_model_knows(trained, tmp_path):
    files, out = trained
    start, config = out / "best_model", config_of(tmp_path / "c")
    runs.train_and_evaluate(files, SIZE, config, classifies=True, start_from=start)
    assert load_tokenizer(tmp_path / "c" / "best_model").model_max_length == 12


def test_an_edited_card_stays_when_the_same_command_runs_again(trained, tmp_path, capsys):
    files, out = trained[0], shutil.copytree(trained[1], tmp_path / "out")
    edited, plain = (out / name / "README.md" for name in ("best_model", "final_model"))
    edited.write_text(edited.read_text().replace("license: unknown", "license: cc-by-4.0"))
    before = plain.read_text()
    for _ in range(2):
        runs.train_and_evaluate(files, SIZE, config_of(out, max_length=12))
    assert f"{edited}: was edited, so it stays" in capsys.readouterr().out
    assert "license: cc-by-4.0" in edited.read_text() and plain.read_text() == before
    edited.unlink()
    runs.train_and_evaluate(files, SIZE, config_of(out, max_length=12))
    assert edited.read_text() == before


def test_a_report_that_was_edited_is_not_replaced_unasked(trained, tmp_path):
    files, out = trained[0], shutil.copytree(trained[1], tmp_path / "out")
    (out / "report.md").write_text("my notes")
    with pytest.raises(ConfigError, match="report.md was not written by seqlm, or was changed"):
        runs.train_and_evaluate(files, SIZE, config_of(out, max_length=12))
    assert (out / "report.md").read_text() == "my notes"
    runs.train_and_evaluate(files, SIZE, config_of(out, max_length=12, overwrite=True))
    assert "my notes" not in (out / "report.md").read_text()


def test_whether_a_model_is_ours_is_asked_once_in_a_command(trained, tmp_path, monkeypatch):
    files, out = trained[0], shutil.copytree(trained[1], tmp_path / "out")
    read, real = [], atomic._hash
    monkeypatch.setattr(atomic, "_hash", lambda path: (read.append(path), real(path))[1])
    runs.train_and_evaluate(files, SIZE, config_of(out, max_length=12))
    assert read.count(out / "best_model" / "model.safetensors") == 1


@pytest.mark.parametrize("command", ["train", "classify", "finetune"])
def test_a_folder_is_locked_until_its_model_is_measured_and_all_is_saved(
    trained, tmp_path, monkeypatch, command
):
    files, out, config, held = trained[0], tmp_path / "out", config_of(tmp_path / "out"), []
    for name in ("evaluate_best_model", "save_run"):
        real = getattr(runs, name)

        def watched(*args, _name=name, _real=real, **settings):
            held.append((_name, is_locked(out)))
            return _real(*args, **settings)

        monkeypatch.setattr(runs, name, watched)
    if command == "finetune":
        finetune_model(files, FinetuneConfig(model_path=trained[1] / "best_model"), config)
    else:
        runs.train_and_evaluate(files, SIZE, config, classifies=command == "classify")
    assert held == [("evaluate_best_model", True), ("save_run", True)] and not is_locked(out)


def test_metrics_and_both_models_name_one_run(trained):
    out = trained[1]
    names = {json.loads((out / name).read_text())["run"] for name in
             ("metrics.json", "best_model/.seqlm.json", "final_model/.seqlm.json")}  # fmt: skip
    assert names == {json.loads((out / "training.json").read_text())["identity"]}


def test_a_classifier_does_not_replace_the_language_model_that_it_starts_from(trained, tmp_path):
    files, out = trained[0], shutil.copytree(trained[1], tmp_path / "out")
    start, before = out / "best_model", (out / "best_model" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="contains the model to start from"):
        runs.train_and_evaluate(files, SIZE, config_of(out), classifies=True, start_from=start)
    assert (start / "model.safetensors").read_bytes() == before


def test_a_run_keeps_how_its_file_was_divided(trained):
    held = json.loads((trained[1] / "metrics.json").read_text())
    assert held["data"] == {
        "file": "rows.jsonl", "test_size": 0.2, "val_size": 0.1, "split_seed": 42
    }  # fmt: skip


def test_a_classifier_is_measured_beside_baselines_that_learned_from_the_train_rows(
    tmp_path, capsys
):
    """The train rows are mostly of class 1, the test rows of class 0: a baseline fitted on test
    labels would name more than half of them right."""

    def rows():
        for i in range(80):
            split = "test" if i < 30 else "val" if i < 40 else "train"
            label = int(i % 5 != 0) if split == "train" else int(i % 5 == 0)
            codes = np.random.default_rng(i).integers(10 * label, 20 + 10 * label, 20)
            yield Record(read_layout(codes, label), label, {"split": split})

    files, out = files_of(tmp_path, rows()), tmp_path / "out"
    runs.train_and_evaluate(files, SIZE, config_of(out), classifies=True)
    baselines = json.loads((out / "metrics.json").read_text())["values"]["baselines"]
    said, report = capsys.readouterr().out, (out / "report.md").read_text()
    card = (out / "best_model" / "README.md").read_text()
    assert list(baselines) == list(measure.CLASS_BASELINES.values())
    accuracy = {name: found["accuracy"] for name, found in baselines.items()}
    assert accuracy["always the commonest class"]["value"] == pytest.approx(6 / 30)
    assert accuracy["RBF-SVM on counts of codes"]["value"] > 0.8
    ours = json.loads((out / "metrics.json").read_text())["values"]["accuracy"]["value"]
    for name, found in accuracy.items():
        gap = baselines[name]["accuracy_gap"]
        assert gap["value"] == pytest.approx(ours - found["value"], abs=1e-9)
        assert found["n"] == 30
        assert f"{name}: accuracy {Estimate.from_json(found)}" in said
        assert f"baseline: {name} | {found['value']:.1%}" in report
        assert f"baseline: {name} | {found['value']:.1%}" in card


def test_of_many_train_rows_the_baselines_see_a_few_of_every_class_and_say_so(
    tmp_path, monkeypatch
):
    records = [*sentences(200)]
    rare = next(record for record in records if record.label == 0)
    files = files_of(tmp_path, [rare, *(r for r in records if r.label == 1)])
    corpus = load_corpus(files)
    monkeypatch.setattr(measure, "BASELINE_ROWS", 10)
    found = measure.measure_class_baselines(corpus, "test", 2)
    assert len(found) == len(measure.CLASS_BASELINES)
    assert all("(10 of the train rows)" in name for name in found)


def test_one_class_is_refused_before_anything_is_trained(tmp_path):
    files = files_of(tmp_path, (r for r in sentences(80) if r.label == 1))
    with pytest.raises(DataError, match="are of class 1; .* at least two classes"):
        runs.train_and_evaluate(files, SIZE, config_of(tmp_path / "out"), classifies=True)
    assert not (tmp_path / "out").exists()


def test_what_no_number_counts_is_printed_beside_it(tmp_path, capsys):
    """Unknown codes, codes that were cut, rows without a label, classes without a row."""
    given = [*sentences(60)]
    unknown = {token: "<NEW>" for token in list(VOCAB)[6:16]}
    given = [replace(r, tokens=tuple(unknown.get(t, t) for t in r.tokens)) for r in given]
    files = replace(files_of(tmp_path, given), allow_unknown=True)
    runs.train_and_evaluate(files, SIZE, config_of(tmp_path / "lm", max_length=20))
    corpus = load_corpus(files, 20)
    lost = sum(row.tokens.count("<UNK>") for row in corpus.splits["test"])
    values = json.loads((tmp_path / "lm" / "metrics.json").read_text())["values"]
    assert lost and values["left_out"] == [
        "the first codes of 12 of the 12 rows of test: 20 tokens fit",
        f"{lost} of {12 * 15} codes of test, which the vocabulary lacks (<UNK>); "
        "numbers of all tokens count them",
    ]
    measured, known = values["read"], 12 * 15 - lost
    counts = {name: measured[name]["tokens"] for name in measured}
    assert counts == {"code": known, "class": 12, "structural": 36, "all": known + 48 + lost}
    said = capsys.readouterr().out
    report, card = (
        (tmp_path / "lm" / n).read_text() for n in ("report.md", "best_model/README.md")
    )
    for sentence in values["left_out"]:
        assert f"left out: {sentence}" in said
        shown = sentence.replace("<UNK>", "\\<UNK\\>")
        assert f"- {shown}" in report and f"- {shown}" in card


def test_a_classifiers_omissions_are_printed_too(tmp_path):
    def split(i):
        return ("train", "val", "test")[i % 3]

    given = [
        r if i % 6 else replace(r, label=None) for i, r in enumerate(sentences(90, split=split))
    ]
    given = [
        replace(r, label=None) if r.meta["split"] == "test" and (i % 6 == 2 or r.label) else r
        for i, r in enumerate(given)
    ]
    files = files_of(tmp_path, given)
    runs.train_and_evaluate(files, SIZE, config_of(tmp_path / "c"), classifies=True)
    values = json.loads((tmp_path / "c" / "metrics.json").read_text())["values"]
    left = 30 - values["accuracy"]["n"]
    assert 0 < left < 30 and values["left_out"] == [
        f"{left} of the 30 rows of test, without a label, or not in the read layout",
        "1 of 2 classes, without a row, from macro F1",
    ]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_would_fail_after_training_is_refused_before_it(tmp_path, split):
    def divided(bad):
        for row in sentences(60, split=lambda i: ("train", "val", "test")[i % 3]):
            yield bad(row) if row.meta["split"] == split else row

    files = files_of(tmp_path, divided(lambda row: replace(row, label=None)))
    with pytest.raises(DataError, match=f"the {split} split holds no row with a label"):
        runs.train_and_evaluate(files, SIZE, config_of(tmp_path / "out"), classifies=True)
    bare = ("<IMG>", "</IMG>", "<EOS>")
    source = iter(range(60))
    coded = list(divided(lambda row: row))
    extra = Record(bare, None, {"split": split, "source_id": next(source)})
    files = files_of(tmp_path, [*coded, extra])
    with pytest.raises(DataError, match=f"rows of {split} in the layout 'other' .* line 61"):
        runs.train_and_evaluate(files, SIZE, config_of(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("label", [99_999, 2_999])
def test_more_classes_than_a_classifier_may_have_are_refused_with_the_line(tmp_path, label):
    def labelled(i, row):
        label_ = (0, 7, label)[i % 3]
        return replace(row, label=label_, tokens=(*row.tokens[:-2], "<EOS>"))

    files = files_of(tmp_path, [labelled(i, row) for i, row in enumerate(sentences(60))])
    write_json(tmp_path / "vocab.json", default_vocab(30, 0))
    with (
        pytest.warns(DataWarning),
        pytest.raises(DataError, match=rf"rows.jsonl:\d+: label: {label}"),
    ):
        runs.train_and_evaluate(files, SIZE, config_of(tmp_path / "out"), classifies=True)
    assert not (tmp_path / "out").exists()


def test_a_single_test_row_is_measured_and_written_with_an_unknown_interval(tmp_path, capsys):
    def split(i):
        return "test" if i == 0 else "val" if i < 5 else "train"

    files, out = files_of(tmp_path, sentences(30, split=split)), tmp_path / "out"
    runs.train_and_evaluate(files, SIZE, config_of(out))
    nll = json.loads((out / "metrics.json").read_text())["values"]["read"]["code"]["nll"]
    assert (nll["low"], nll["high"], nll["n"]) == (None, None, 1)
    assert "(interval unknown, n = 1)" in capsys.readouterr().out
    for text in ((out / "report.md").read_text(), (out / "best_model/README.md").read_text()):
        assert "| unknown | 1 |" in text and "inf" not in text and "nan" not in text


def test_only_the_first_of_several_processes_says_the_first_loss(tmp_path, monkeypatch):
    class Second:
        is_main_process = False

    files = files_of(tmp_path, sentences())
    corpus = load_corpus(files)
    monkeypatch.setattr(tasks, "train_model", lambda *_, **__: {})
    said = []
    tasks.train_lm(corpus, SIZE, config_of(tmp_path / "out"), said.append)
    assert len(said) == 1 and "before training" in said[0]
    monkeypatch.setattr(tasks, "processes", Second)
    tasks.train_lm(corpus, SIZE, config_of(tmp_path / "out"), said.append)
    assert len(said) == 1
