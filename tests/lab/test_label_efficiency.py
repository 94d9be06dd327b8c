"""Few labels are few: no class reaches the language model, and no other label a classifier."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from seqlm.config import DataFiles, TrainConfig
from seqlm.data.build import SEQUENCES, VOCAB
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.records import Record
from seqlm.data.tokens import class_of, codes_of, draw_layout, reading_prompt
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.classical import classical_models
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.scores import classifier_probabilities
from seqlm.lab import label_efficiency_bench as transfer_bench
from seqlm.lab.label_efficiency import (
    FROM_LM,
    ROUTES,
    SCRATCH,
    check_saw_no_labels,
    few_labels,
    learning_curve,
    mean_over_seeds,
    without_labels,
)
from seqlm.lab.label_efficiency_bench import SVM, SVM_BENT, _Pixels
from seqlm.models.gpt2 import build_classifier, build_lm, classifier_from_lm, load_classifier
from seqlm.training.tasks import train_lm

SPLITS = ("train", "val", "test")
SHORT = TrainConfig(batch_size=8, max_steps=2, learning_rate=1e-3, precision="fp32")


@pytest.fixture(scope="module")
def corpus(built):
    return load_corpus(DataFiles(built.directory / SEQUENCES, built.directory / VOCAB))


@pytest.fixture(scope="module")
def blind(corpus, tiny, tmp_path_factory):
    """A language model that never saw a label, trained for a blink."""
    folder = tmp_path_factory.mktemp("blind")
    config = replace(SHORT, output_dir=folder, evals=1)
    train_lm(without_labels(corpus), tiny, config, log=lambda line: None)
    return folder / "final_model"


@pytest.fixture
def curve(corpus, built, blind, tiny, tmp_path):
    """learning_curve on a small table, in a folder of the test's own."""

    def run(**changed):
        told = dict(size=tiny, config=SHORT, sizes=(1, None), seeds=(0, 1), log=lambda line: None)
        places = (built.directory, changed.pop("lm", blind), tmp_path / "work")
        return learning_curve(changed.pop("corpus", corpus), *places, **told | changed)

    run.work = tmp_path / "work"
    return run


@pytest.fixture
def trainings(monkeypatch):
    """Classifiers are only built, not trained; what was asked for, as (corpus, config, start)."""
    calls = []

    def built_only(corpus, size, config, start_from=None, log=print):
        calls.append((corpus, config, start_from))
        if start_from is None:
            model = build_classifier(size, corpus.vocab, 10, config.seed)
        else:
            model = classifier_from_lm(start_from, 10, size.dropout, config.seed)
        model.save_pretrained(config.output_dir / "final_model")

    monkeypatch.setattr(transfer_bench, "train_classifier", built_only)
    return calls


def test_no_class_is_left_where_labels_were_taken_out(corpus):
    bare = without_labels(corpus)
    assert any(class_of(t) is not None for r in corpus.records("train") for t in r.tokens)
    for split in SPLITS:
        assert all(record.label is None for record in bare.records(split))
        assert not any(class_of(t) is not None for r in bare.records(split) for t in r.tokens)
        assert not set(np.concatenate(bare.rows(split))) & set(corpus.class_ids)
    assert bare.vocab == corpus.vocab


def test_each_picture_is_kept_once_and_reads_as_a_classifier_is_given_it(corpus):
    bare = without_labels(corpus)
    for split in SPLITS:
        expected = {
            (r.source, r.meta["copy"]): reading_prompt(r.tokens) for r in corpus.labelled(split)
        }
        found = {(r.source, r.meta["copy"]): r.tokens for r in bare.records(split)}
        assert len(bare.records(split)) == len(found) == len(corpus.records(split)) / 2
        assert found == expected


def test_pictures_that_are_only_drawn_are_read_too_and_strangers_lose_their_class(vocab):
    drawn = Record(draw_layout([1, 2], 3), 3, {"source_id": "a", "label": 3})
    strange = Record(("<Z_001>", "<CLS_4>", "<Z_002>"), 4)
    bare = without_labels(Corpus(vocab, {"train": [drawn, strange], "val": [], "test": []}))
    assert [" ".join(record.tokens) for record in bare.records("train")] == [
        "<IMG> <Z_001> <Z_002> </IMG> <CLS>",
        "<Z_001> <Z_002>",
    ]
    assert bare.records("train")[0].meta == {"source_id": "a"}


@pytest.mark.parametrize("n_each", [1, 2, 5])
def test_so_many_images_a_class_are_labelled_with_all_their_copies(corpus, n_each):
    chosen = few_labels(corpus, n_each, seed=0)
    sources = {record.source: record.label for record in chosen}
    assert Counter(sources.values()) == dict.fromkeys(range(10), n_each)
    theirs = [r for r in corpus.labelled("train") if r.source in sources]
    assert chosen == theirs and len(chosen) == 2 * len(sources)  # the original and one copy


def test_labels_are_drawn_by_seed_and_fewer_are_among_more(corpus):
    def sources(n, seed):
        return {record.source for record in few_labels(corpus, n, seed)}

    assert sources(3, 0) == sources(3, 0) != sources(3, 1)
    assert sources(1, 0) < sources(3, 0) < sources(10, 0)


def test_none_labels_everything(corpus):
    assert few_labels(corpus, None, seed=0) == corpus.labelled("train")


def test_more_labels_than_there_are_is_said_in_one_sentence(corpus):
    counts = Counter({r.source: r.label for r in corpus.labelled("train")}.values())
    fewest = min(counts.values())
    few_labels(corpus, fewest, seed=0)
    with pytest.raises(DataError, match=rf"class \d has only {fewest}; ask for fewer"):
        few_labels(corpus, fewest + 1, seed=0)
    with pytest.raises(ConfigError, match="0 labelled images"):
        few_labels(corpus, 0, seed=0)


def test_a_language_model_that_has_read_labels_is_refused(corpus, blind, tiny, tmp_path, curve):
    config = replace(
        SHORT, output_dir=tmp_path, batch_size=32, max_steps=40, learning_rate=1e-2, evals=1
    )
    train_lm(corpus, tiny, config, log=lambda line: None)
    check_saw_no_labels(blind, corpus)
    with pytest.raises(DataError, match=r"on class tokens, so it has read labels"):
        check_saw_no_labels(tmp_path / "final_model", corpus)
    with pytest.raises(DataError, match="it has read labels"):
        curve(lm=tmp_path / "final_model")
    curve(lm=tmp_path / "final_model", routes=(SVM,))  # which starts from no language model


def simulated(rng, of_seed, of_image, n_seeds=5, n=200):
    """Right and wrong answers where some seeds are luckier and some images harder."""
    luck = of_seed * rng.normal(size=(n_seeds, 1)) + of_image * rng.normal(size=(1, n))
    return 0.7 + luck + 0.5 * rng.normal(size=(n_seeds, n)) > 0


@pytest.mark.parametrize(("of_seed", "of_image"), [(0.4, 0.8), (0.0, 1.5)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(of_seed, of_image):
    rng = np.random.default_rng(0)
    truth = simulated(rng, of_seed, of_image, 2_000, 2_000).mean()
    found = [mean_over_seeds(simulated(rng, of_seed, of_image)) for _ in range(300)]
    held = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.90 <= held <= 0.99


def test_seeds_that_disagree_widen_the_interval_and_seeds_that_agree_leave_the_images(corpus):
    rng = np.random.default_rng(1)
    alike = np.tile(rng.random(360) < 0.9, (5, 1))
    apart = rng.random((5, 360)) < np.array([[0.80], [0.85], [0.90], [0.95], [0.99]])
    same, wide = mean_over_seeds(alike), mean_over_seeds(apart)
    alone = proportion(alike[0])
    assert same.value == alone.value and same.n == 360
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high), abs=0.005)
    assert wide.high - wide.low > 1.5 * (same.high - same.low)


def test_where_nothing_varies_over_seeds_the_interval_is_wilsons():
    right = np.ones((5, 360), dtype=bool)
    assert mean_over_seeds(right) == proportion(right[0])
    assert mean_over_seeds(~right) == proportion(~right[0])
    single = np.random.default_rng(2).random((1, 360)) < 0.7
    assert mean_over_seeds(single) == proportion(single[0])


def test_the_table_holds_every_route_size_and_seed_with_intervals(curve, corpus, trainings):
    found = curve()
    n_train = len({r.source for r in corpus.labelled("train")})
    assert list(found) == list(ROUTES)
    for route in ROUTES:
        assert {size: cell["labelled"] for size, cell in found[route].items()} == {
            "1": 10,
            "all": n_train,
        }
        for cell in found[route].values():
            runs = [Estimate.from_json(run) for run in cell["runs"]]
            mean = Estimate.from_json(cell["mean"])
            assert len(runs) == len(cell["right"]) == 2
            assert mean.value == pytest.approx(np.mean([run.value for run in runs]))
            assert mean.low <= mean.value <= mean.high
            assert mean.n == len(corpus.labelled("test")) == len(cell["right"][0])
            assert runs[0].value == cell["right"][0].count("1") / mean.n
    svm = {size: cell["mean"] for size, cell in found[SVM].items()}
    assert svm["all"]["low"] > svm["1"]["high"]  # on 210 images against 10


def test_weights_are_thrown_away_and_a_finished_table_is_only_read(curve, trainings):
    first = curve()
    assert len(trainings) == 8
    assert {path.suffix for path in curve.work.iterdir()} == {".json"}
    heard = []
    assert curve(log=heard.append) == first and len(trainings) == 8
    assert heard[0] == "16 of 16 cells of the table are there from before"


def test_a_killed_table_goes_on_where_it_was(curve, monkeypatch, trainings):
    noted, left = transfer_bench.train_classifier, [3]

    def killed(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return noted(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(transfer_bench, "train_classifier", killed)
        with pytest.raises(KeyboardInterrupt):
            curve(routes=(FROM_LM, SCRATCH))
    assert not (curve.work / "training").exists()
    assert len(trainings) == 3 and not list(curve.work.iterdir())[3:]
    picked_up = curve(routes=(FROM_LM, SCRATCH))
    assert len(trainings) == 8
    for path in curve.work.iterdir():
        path.unlink()
    assert curve(routes=(FROM_LM, SCRATCH)) == picked_up


def test_other_settings_or_another_language_model_make_cells_anew(
    curve, trainings, corpus, tiny, tmp_path
):
    few = {"sizes": (1,), "routes": (FROM_LM, SCRATCH)}
    curve(**few)
    assert len(trainings) == 4
    curve(**few, config=replace(SHORT, learning_rate=2e-3))
    assert len(trainings) == 8
    curve(**few, scratch=replace(SHORT, max_steps=3))
    assert [call[1].max_steps for call in trainings[8:]] == [3, 3]
    build_lm(tiny, corpus.vocab, seed=7).save_pretrained(tmp_path / "other")
    curve(**few, lm=tmp_path / "other")
    assert [call[2] for call in trainings[10:]] == [tmp_path / "other"] * 2


def test_a_classifier_is_shown_no_label_but_its_own(curve, trainings, corpus):
    curve(sizes=(2,), routes=(FROM_LM, SCRATCH))
    for (shown, config, _), seed in zip(trainings, (0, 1, 0, 1), strict=True):
        own = few_labels(corpus, 2, seed)
        assert shown.records("train") == own and config.seed == seed
        assert {r.source for r in shown.records("val")} <= {r.source for r in own}
        assert not shown.records("test")


@pytest.mark.parametrize("route", [FROM_LM, SCRATCH])
def test_the_last_model_is_measured_and_not_the_best(curve, monkeypatch, corpus, route):
    real, measured = load_classifier, []

    def noted(directory):
        model = real(directory)
        prompts, labels = corpus.to_classify("test")
        measured.append((directory.name, classifier_probabilities(model, prompts).argmax(1)))
        return model

    monkeypatch.setattr(transfer_bench, "load_classifier", noted)
    found = curve(sizes=(5,), seeds=(3,), routes=(route,))[route]["5"]
    name, guess = measured[0]
    assert name == "final_model" and not (curve.work / "training").exists()
    right = guess == corpus.to_classify("test")[1]
    assert found["right"] == ["".join("01"[int(answer)] for answer in right)]


def test_bent_images_are_those_behind_the_sentences(corpus, built):
    rows = [record for record in few_labels(corpus, 3, seed=0) if record.meta["copy"]]
    codes = built.book.encode(_Pixels(built.directory).of(rows))
    assert len(rows) == 30
    assert np.array_equal(codes, [codes_of(record.tokens) for record in rows])


@pytest.mark.parametrize(("route", "with_copies"), [(SVM, False), (SVM_BENT, True)])
def test_the_svm_sees_the_pixels_of_the_labelled_images(curve, corpus, built, route, with_copies):
    found = curve(sizes=(5,), seeds=(0,), routes=(route,))[route]["5"]
    rows = [r for r in few_labels(corpus, 5, 0) if with_copies or not r.meta["copy"]]
    pixels = _Pixels(built.directory)
    svm = classical_models("pixels")["svm"].fit(pixels.of(rows), [record.label for record in rows])
    images, labels = built.pictures.of("test")
    assert found["mean"]["value"] == pytest.approx((svm.predict(images) == labels).mean())


def test_how_long_it_will_take_is_said_before_it_starts(curve, trainings):
    heard = []
    curve(sizes=(1,), log=lambda line: heard.append((len(trainings), line)))
    trained, line = heard[0]
    assert trained == 0 and line.startswith("4 classifiers to train · about 1 s left")
    assert len(heard) == 1 + len(ROUTES) and "n = 60" in heard[-1][1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"config": replace(SHORT, max_steps=-1)}, "max_steps: -1 would train the longer"),
        ({"routes": ("SVM",)}, "some of the routes"),
        ({"routes": ()}, "some of the routes"),
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (-1,)}, "none below 0"),
        ({"sizes": (0,)}, "0 labelled images a class"),
        ({"sizes": (500,)}, "class . has only"),
    ],
)
def test_what_would_not_be_fair_is_refused_before_anything_is_trained(
    curve, trainings, changed, words
):
    with pytest.raises((ConfigError, DataError), match=words):
        curve(**changed)
    assert not trainings


def test_models_of_two_sizes_are_not_compared(curve, tiny):
    with pytest.raises(ConfigError, match="n_layer: .* has 2, .* were to have 1"):
        curve(size=replace(tiny, n_layer=1))


def test_a_model_of_another_vocabulary_is_refused(curve, tiny, vocab, tmp_path):
    build_lm(tiny, vocab | {"<Z_050>": len(vocab)}).save_pretrained(tmp_path / "wide")
    with pytest.raises(DataError, match=f"knows {len(vocab) + 1} tokens, the data {len(vocab)}"):
        curve(lm=tmp_path / "wide")


def test_rows_that_come_from_no_image_are_named(curve, corpus):
    strange = [replace(r, meta={**r.meta, "source_id": "x"}) for r in corpus.records("test")]
    other = Corpus(corpus.vocab, {**corpus.splits, "test": strange})
    with pytest.raises(DataError, match="meta.source_id 'x', copy 0: there is no such image"):
        curve(corpus=other, routes=(SVM,))


def test_one_class_alone_is_refused(curve, corpus):
    ones = [record for record in corpus.records("train") if record.label == 1]
    with pytest.raises(DataError, match="hold 1 classes; a classifier needs two"):
        curve(corpus=Corpus(corpus.vocab, {**corpus.splits, "train": ones}), routes=(SVM,))
