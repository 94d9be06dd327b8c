"""From sentences to numbers: what the notebooks and the command line share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Model

from seqlm.config import DataFiles, ModelConfig, TrainConfig
from seqlm.data.build import SEQUENCES, VOCAB
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.records import Record
from seqlm.data.tokenizer import build_tokenizer, save_tokenizer
from seqlm.data.tokens import KIND_CODE, class_of, default_vocab, read_layout
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.scores import score_tokens
from seqlm.models.gpt2 import build_lm
from seqlm.training import tasks
from seqlm.training.replay import LEARNED, learned_rows
from seqlm.training.tasks import first_loss, train_classifier, train_lm, validation_metric
from seqlm.utils import PACKAGE, modules_behind


def test_no_input_of_a_classifier_holds_a_class(corpus):
    for split in ("train", "val", "test"):
        prompts, labels = corpus.to_classify(split)
        names = {name for row in prompts for name in corpus.tokenizer.convert_ids_to_tokens(row)}
        assert not any(class_of(name) is not None for name in names)
        assert len(prompts) == len(labels)
        assert {row[-1] for row in prompts} == {corpus.vocab["<CLS>"]}


def test_sources_and_pictures_stay_on_one_side(corpus):
    for key in (lambda record: record.source, lambda record: record.codes):
        sides = [{key(record) for record in corpus.splits[name]} for name in corpus.splits]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_the_validation_metric_measures_the_whole_of_val_by_token(corpus, model):
    scores = score_tokens(model, corpus.rows("val"))
    codes = scores.of_kind(corpus.kinds, KIND_CODE)
    found = validation_metric(corpus).measure(model)
    assert len(codes.nll) == len(corpus.rows("val")) * 16
    assert found["code_nll"] == pytest.approx(codes.nll.sum() / len(codes.nll), rel=1e-12)
    assert found["code_nll"] == pytest.approx((found["read_nll"] + found["draw_nll"]) / 2)


def test_rows_without_a_source_are_never_taken_for_one_that_has_that_number():
    records = [Record(("<IMG>",), meta=meta) for meta in ({}, {"source_id": 0}, {"source_id": 0})]
    found = Corpus(default_vocab(1, 1), {"test": records}).sources("test")
    assert found.tolist() == [0, 1, 1]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("train", [train_lm, train_classifier])
def test_a_row_that_does_not_fit_is_refused_before_anything_runs(
    corpus, tiny, split, train, tmp_path, monkeypatch
):
    """A row beyond the positions would be an index error deep inside the model."""
    first = corpus.records(split, "read")[0]
    long = replace(first, tokens=(*first.tokens[:1], *["<Z_001>"] * 60, *first.tokens[1:]))
    lengthened = Corpus(corpus.vocab, {**corpus.splits, split: [*corpus.splits[split], long]})
    monkeypatch.setattr(GPT2Model, "forward", None)
    said = []
    config = TrainConfig(output_dir=tmp_path / "out", max_steps=1, precision="fp32")
    with pytest.raises(ConfigError, match="do not fit n_positions = 64"):
        train(lengthened, tiny, config, log=said.append)
    assert not said and not (tmp_path / "out").exists()


@pytest.mark.parametrize("train", [train_lm, train_classifier])
def test_other_val_rows_make_it_another_run(corpus, tiny, train, tmp_path, monkeypatch):
    keys = []
    monkeypatch.setattr(
        tasks, "train_model", lambda m, t, rows, metric, *_: keys.append(metric.key)
    )
    config = TrainConfig(output_dir=tmp_path / "out", max_steps=1, precision="fp32")
    fewer = Corpus(corpus.vocab, {**corpus.splits, "val": corpus.splits["val"][:-4]})
    for some in (corpus, fewer, corpus):
        train(some, tiny, config)
    assert keys[0] == keys[2] != keys[1]


def test_a_run_follows_the_code_that_decides_it_and_not_what_is_measured_afterwards():
    behind = {
        str(path.relative_to(PACKAGE)) for path in modules_behind("import seqlm.training.tasks")
    }
    assert {
        "data/tokens.py",
        "evaluation/scores.py",
        "training/train.py",
        "models/gpt2.py",
    } <= behind
    after = ("significance", "calibration", "classification", "metrics", "estimates", "ngrams")
    assert not {f"evaluation/{name}.py" for name in after} & behind
    assert not any(path.startswith("plots") for path in behind)
    assert not {"training/measure.py", "training/cards.py", "training/runs.py"} & behind


def test_records_of_all_layouts_are_the_split(corpus):
    assert corpus.records("val") == corpus.splits["val"]
    assert corpus.records("val") is not corpus.splits["val"]


def test_the_tokenizer_carries_the_length_that_rows_were_cut_to(built):
    files = DataFiles(built.directory / SEQUENCES, built.directory / VOCAB)
    assert load_corpus(files, 19).tokenizer.model_max_length == 19
    assert load_corpus(files, 19).longest == 19
    assert load_corpus(files).tokenizer.model_max_length == 1024


def test_the_first_loss_is_compared_with_ln_v(corpus, tiny):
    fresh = build_lm(tiny, corpus.vocab)
    assert "ln V = 4.19" in first_loss(fresh, corpus)
    assert "far off" not in first_loss(fresh, corpus)
    torch.nn.init.normal_(fresh.transformer.wte.weight, std=1.0)
    assert "far off" in first_loss(fresh, corpus)


def test_rows_of_much_empty_paper_begin_below_ln_v_and_are_not_called_far_off():
    vocab = default_vocab(500)
    rows = [Record(read_layout([0] * 45 + [*range(i, i + 4)], 1), 1) for i in range(20)]
    empty = Corpus(vocab, {"val": rows})
    fresh = build_lm(ModelConfig(1, 8, 384, 64, 0.0), vocab)
    said = first_loss(fresh, empty)
    assert float(said.split()[2]) < np.log(len(vocab)) - 0.5 and "far off" not in said


def test_a_model_of_another_vocabulary_is_refused(corpus, tiny, tmp_path):
    permuted = {**corpus.vocab, "<Z_003>": 10, "<Z_004>": 9}
    larger = {**corpus.vocab, "<NEW>": len(corpus.vocab)}
    config = TrainConfig(output_dir=tmp_path / "out", max_steps=1, precision="fp32")
    for number, (vocab, said) in enumerate(
        ((larger, "1 tokens differ, and the id of '<NEW>' is 66 there and missing here"),
         (permuted, "2 tokens differ, and the id of '<Z_003>' is 10 there and 9 here"))
    ):  # fmt: skip
        start = tmp_path / str(number)
        build_lm(tiny, vocab).save_pretrained(start)
        save_tokenizer(build_tokenizer(vocab), start)
        with pytest.raises(DataError, match=said):
            train_classifier(corpus, tiny, config, start_from=start)


def test_a_classifier_is_not_measured_on_what_its_language_model_has_learned(
    corpus, tiny, tmp_path
):
    build_lm(tiny, corpus.vocab).save_pretrained(tmp_path / "lm")
    save_tokenizer(corpus.tokenizer, tmp_path / "lm")
    np.save(tmp_path / "lm" / LEARNED, learned_rows(corpus.records("train")))
    splits = corpus.splits | {"train": corpus.splits["test"], "test": corpus.splits["train"][:9]}
    config = TrainConfig(output_dir=tmp_path / "out", max_steps=1, precision="fp32")
    with pytest.raises(DataError, match="9 of the 9 rows of test .* was trained on"):
        train_classifier(replace(corpus, splits=splits), tiny, config, tmp_path / "lm")
    train_classifier(corpus, tiny, config, tmp_path / "lm", log=lambda line: None)
    with pytest.raises(ConfigError, match="contains the model to start from"):
        train_classifier(corpus, tiny, replace(config, output_dir=tmp_path / "lm"), tmp_path / "lm")


def test_without_labels_only_the_tokens_are_measured(corpus, model):
    bare = {
        name: [type(record)(record.tokens, None, record.meta) for record in records]
        for name, records in corpus.splits.items()
    }
    unlabelled = Corpus(corpus.vocab, bare)
    assert "class_accuracy" not in validation_metric(unlabelled).measure(model)
    with pytest.raises(DataError, match="nothing to classify"):
        unlabelled.to_classify("val")
