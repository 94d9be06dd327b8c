"""From sentences to numbers: what the notebooks and the command line share."""

import numpy as np
import pytest
import torch

from seqlm.baselines import fit_floors
from seqlm.config import DataFiles, TrainConfig
from seqlm.corpus import Corpus, load_corpus
from seqlm.dataset import SEQUENCES, VOCAB
from seqlm.errors import DataError
from seqlm.experiment import evaluate_lm, first_loss, lm_measure, train_classifier
from seqlm.layout import KIND_CODE, class_of
from seqlm.metrics import score_tokens
from seqlm.model import build_lm


@pytest.fixture(scope="module")
def corpus(built):
    return load_corpus(DataFiles(built.directory / SEQUENCES, built.directory / VOCAB))


@pytest.fixture(scope="module")
def model(corpus, tiny):
    return build_lm(tiny, corpus.vocab).eval()


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


def test_the_ruler_measures_the_whole_of_val_by_token(corpus, model):
    scores = score_tokens(model, corpus.rows("val"))
    codes = scores.of_kind(corpus.kinds, KIND_CODE)
    found = lm_measure(corpus)(model)
    assert len(codes.nll) == len(corpus.rows("val")) * 16
    assert found["code_nll"] == pytest.approx(codes.nll.sum() / len(codes.nll), rel=1e-12)
    assert found["code_nll"] == pytest.approx((found["read_nll"] + found["draw_nll"]) / 2)


def test_how_far_below_the_best_floor_is_one_minus_the_ratio(corpus, model):
    found = evaluate_lm(model, corpus, "test")
    ours = found["read"]["code"]["nll"]["value"]
    floors = {name: floor["code"]["nll"]["value"] for name, floor in found["floors"].items()}
    best = min(floors, key=floors.get)
    below = found["below_best_floor"]
    assert found["best_floor"] == best and found["layout_compared"] == "read"
    assert below["value"] == pytest.approx(1 - ours / floors[best])
    assert below["low"] < below["value"] < below["high"] and below["unit"] == "share"
    assert np.mean(found["by_position"]["model"]) == pytest.approx(ours)


def test_floors_learn_from_the_rows_the_model_learned_from(corpus, model):
    found = evaluate_lm(model, corpus, "test")["floors"]["position"]["code"]["nll"]["value"]
    floor = fit_floors(corpus.rows("train"), corpus.rows("val"), len(corpus.vocab))["position"]
    scores = floor.score(corpus.rows("test", "read")).of_kind(corpus.kinds, KIND_CODE)
    assert found == pytest.approx(scores.nll.mean())


def test_the_first_loss_is_held_against_ln_v(corpus, tiny):
    fresh = build_lm(tiny, corpus.vocab)
    assert "ln V = 4.19" in first_loss(fresh, corpus)
    assert "far off" not in first_loss(fresh, corpus)
    torch.nn.init.normal_(fresh.transformer.wte.weight, std=1.0)
    assert "far off" in first_loss(fresh, corpus)


def test_a_model_of_another_vocabulary_is_refused(corpus, tiny, tmp_path):
    build_lm(tiny, {**corpus.vocab, "<NEW>": len(corpus.vocab)}).save_pretrained(tmp_path)
    config = TrainConfig(output_dir=tmp_path / "out", max_steps=1, precision="fp32")
    with pytest.raises(DataError, match="knows 67 tokens, the data 66"):
        train_classifier(corpus, tiny, config, start_from=tmp_path)


def test_without_labels_only_the_tokens_are_measured(corpus, model):
    bare = {
        name: [type(record)(record.tokens, None, record.meta) for record in records]
        for name, records in corpus.splits.items()
    }
    unlabelled = Corpus(corpus.vocab, bare)
    assert "class_accuracy" not in lm_measure(unlabelled)(model)
    with pytest.raises(DataError, match="nothing to classify"):
        unlabelled.to_classify("val")
