"""Few labels: the language model sees no class, and a classifier only its own labels."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from samples import cells_of

from seqlm.config import DataFiles, TrainConfig
from seqlm.data.build import SEQUENCES, VOCAB
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.records import Record
from seqlm.data.tokens import codes_of, reading_prompt
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.classical import classical_models
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.scores import class_probabilities
from seqlm.lab import label_efficiency
from seqlm.lab.label_efficiency import (
    CLASSIFIERS,
    FROM_LM,
    SCRATCH,
    SVM,
    SVM_AUGMENTED,
    few_labels,
    learning_curve,
    load_row_images,
    mean_over_seeds,
)
from seqlm.models.gpt2 import build_classifier, build_lm, classifier_from_lm, load_classifier
from seqlm.training.tasks import train_lm

SPLITS = ("train", "val", "test")
SHORT = TrainConfig(batch_size=8, max_steps=2, learning_rate=1e-3, precision="fp32")


@pytest.fixture(scope="module")
def corpus(built):
    return load_corpus(DataFiles(built.directory / SEQUENCES, built.directory / VOCAB))


@pytest.fixture(scope="module")
def blind(corpus, tiny, tmp_path_factory):
    """A language model that never saw a label, trained for two steps."""
    folder = tmp_path_factory.mktemp("blind")
    config = replace(SHORT, output_dir=folder, evals=1)
    splits = {
        name: [Record(reading_prompt(r.tokens), None, r.meta) for r in corpus.records(name, "read")]
        for name in SPLITS
    }
    train_lm(Corpus(corpus.vocab, splits), tiny, config, log=lambda line: None)
    return folder / "final_model"


@pytest.fixture
def curve(corpus, built, blind, tiny, tmp_path):
    """learning_curve with few cells, and a results file of the test's own."""

    def run(**changed):
        settings = dict(size=tiny, config=SHORT, scratch=SHORT, sizes=(1, None), seeds=(0, 1))
        places = (built.directory, changed.pop("lm", blind), tmp_path / "results.json")
        settings |= {"log": lambda line: None, **changed}
        return learning_curve(settings.pop("corpus", corpus), *places, **settings)

    run.path = tmp_path / "results.json"
    return run


@pytest.fixture
def trainings(monkeypatch):
    """Classifiers are only built, not trained; what was asked for, as (corpus, config, start)."""
    calls = []

    def built_only(corpus, size, config, start_from=None, log=print, measured=()):
        calls.append((corpus, config, start_from))
        if start_from is None:
            model = build_classifier(size, corpus.vocab, 10, config.seed)
        else:
            model = classifier_from_lm(start_from, 10, size.dropout, config.seed)
        model.save_pretrained(config.output_dir / "final_model")

    monkeypatch.setattr(label_efficiency, "train_classifier", built_only)
    return calls


@pytest.mark.parametrize("n_each", [1, 2, 5])
def test_n_images_per_class_are_labelled_with_all_their_copies(corpus, n_each):
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


def test_more_labels_than_there_are_are_refused_in_one_sentence(corpus):
    counts = Counter({r.source: r.label for r in corpus.labelled("train")}.values())
    fewest = min(counts.values())
    few_labels(corpus, fewest, seed=0)
    with pytest.raises(DataError, match=rf"class \d has only {fewest}; take fewer"):
        few_labels(corpus, fewest + 1, seed=0)


def test_a_language_model_that_has_read_labels_is_refused(corpus, blind, tiny, tmp_path):
    config = replace(
        SHORT, output_dir=tmp_path, batch_size=32, max_steps=40, learning_rate=1e-2, evals=1
    )
    train_lm(corpus, tiny, config, log=lambda line: None)
    for name, trained in (("blind", blind), ("seeing", tmp_path / "final_model")):
        link = tmp_path / name / "language_model" / "best_model"
        link.parent.mkdir(parents=True)
        link.symlink_to(trained)
    cells_of("label_efficiency", ("11-20",), folder=tmp_path / "blind", corpus=corpus)
    with pytest.raises(DataError, match=r"it has read labels"):
        cells_of("label_efficiency", ("11-20",), folder=tmp_path / "seeing", corpus=corpus)


def simulated(rng, of_seed, of_image, n_seeds=5, n=200):
    """Right and wrong answers where some seeds are luckier and some images harder."""
    luck = of_seed * rng.normal(size=(n_seeds, 1)) + of_image * rng.normal(size=(1, n))
    return 0.7 + luck + 0.5 * rng.normal(size=(n_seeds, n)) > 0


@pytest.mark.parametrize(("of_seed", "of_image"), [(0.4, 0.8), (0.0, 1.5)])
def test_the_interval_covers_the_truth_about_as_often_as_it_promises(of_seed, of_image):
    rng = np.random.default_rng(0)
    truth = simulated(rng, of_seed, of_image, 2_000, 2_000).mean()
    means = [mean_over_seeds(simulated(rng, of_seed, of_image)) for _ in range(300)]
    covered = np.mean([mean.low <= truth <= mean.high for mean in means])
    assert 0.90 <= covered <= 0.99


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


def test_the_table_has_every_classifier_size_and_seed_with_intervals(curve, corpus, trainings):
    curves = curve()
    n_train = len({r.source for r in corpus.labelled("train")})
    assert list(curves) == list(CLASSIFIERS)
    for name in CLASSIFIERS:
        labelled = {size: cell["labelled"] for size, cell in curves[name].items()}
        assert labelled == {"1": 10, "all": n_train}
        for cell in curves[name].values():
            runs = [Estimate.from_json(run) for run in cell["runs"]]
            mean = Estimate.from_json(cell["mean"])
            assert len(runs) == len(cell["right"]) == 2
            assert mean.value == pytest.approx(np.mean([run.value for run in runs]))
            assert mean.low <= mean.value <= mean.high
            assert mean.n == len(corpus.labelled("test")) == len(cell["right"][0])
            assert runs[0].value == cell["right"][0].count("1") / mean.n
    svm = {size: cell["mean"] for size, cell in curves[SVM].items()}
    assert svm["all"]["low"] > svm["1"]["high"]  # on 210 images against 10


def test_weights_are_deleted_and_a_finished_table_is_only_read(curve, trainings):
    first, lines = curve(), []
    assert len(trainings) == 8
    assert [path.name for path in curve.path.parent.iterdir()] == [curve.path.name]
    assert curve(log=lines.append) == first and len(trainings) == 8
    assert lines == ["14 of 14 results are stored"]  # with all labels an SVM needs one seed


def test_a_killed_table_goes_on_where_it_was(curve, monkeypatch, trainings):
    build, remaining = label_efficiency.train_classifier, [3]

    def killed(*args, **kwargs):
        remaining[0] -= 1
        if remaining[0] < 0:
            raise KeyboardInterrupt
        return build(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(label_efficiency, "train_classifier", killed)
        with pytest.raises(KeyboardInterrupt):
            curve()
    assert not (curve.path.parent / "training").exists() and len(trainings) == 3
    resumed = curve()
    assert len(trainings) == 8
    curve.path.unlink()
    assert curve() == resumed


def test_more_seeds_and_sizes_keep_what_is_stored(curve, trainings):
    curve(sizes=(1,), seeds=(0,))
    curve(sizes=(1, 2), seeds=(0, 1))
    assert len(trainings) == 2 + 6


def test_other_settings_or_another_language_model_start_anew(
    curve, trainings, corpus, tiny, tmp_path
):
    few = {"sizes": (1,)}
    curve(**few)
    assert len(trainings) == 4
    curve(**few, config=replace(SHORT, learning_rate=2e-3))
    assert len(trainings) == 8
    curve(**few, scratch=replace(SHORT, max_steps=3))
    assert [call[1].max_steps for call in trainings[8:]] == [2, 3, 2, 3]
    build_lm(tiny, corpus.vocab, seed=7).save_pretrained(tmp_path / "other")
    curve(**few, lm=tmp_path / "other")
    assert [call[2] for call in trainings[12:]] == [tmp_path / "other", None] * 2


def test_a_classifier_sees_no_label_but_its_own(curve, trainings, corpus):
    curve(sizes=(2,))
    for (shown, config, _), seed in zip(trainings, (0, 0, 1, 1), strict=True):
        own = few_labels(corpus, 2, seed)
        assert shown.records("train") == own and config.seed == seed
        assert {r.source for r in shown.records("val")} <= {r.source for r in own}
        assert not shown.records("test")


def test_the_last_model_is_measured_and_not_the_best(curve, monkeypatch, corpus):
    measured = []

    def recorded(directory):
        model = load_classifier(directory)
        prompts, labels = corpus.to_classify("test")
        predicted = class_probabilities(model, prompts).argmax(1)
        measured.append((directory.name, "".join("01"[hit] for hit in (predicted == labels) * 1)))
        return model

    monkeypatch.setattr(label_efficiency, "load_classifier", recorded)
    curves = curve(sizes=(5,), seeds=(3,))
    for (folder, right), name in zip(measured, (FROM_LM, SCRATCH), strict=True):
        assert folder == "final_model" and curves[name]["5"]["right"] == [right]


def test_augmented_images_are_those_behind_the_rows(corpus, built):
    rows = [record for record in few_labels(corpus, 3, seed=0) if record.meta["copy"]]
    images = load_row_images(built.directory)
    codes = built.book.encode(np.array([images[r.source, r.meta["copy"]] for r in rows]))
    assert len(rows) == 30
    assert np.array_equal(codes, [codes_of(record.tokens) for record in rows])


@pytest.mark.parametrize(("name", "with_copies"), [(SVM, False), (SVM_AUGMENTED, True)])
def test_the_svm_sees_the_pixels_of_the_labelled_images(
    curve, trainings, corpus, built, name, with_copies
):
    mean = curve(sizes=(5,), seeds=(0,))[name]["5"]["mean"]
    rows = [r for r in few_labels(corpus, 5, 0) if with_copies or not r.meta["copy"]]
    images = load_row_images(built.directory)
    pixels = np.array([images[r.source, r.meta["copy"]] for r in rows])
    svm = classical_models("pixels")["svm"].fit(pixels, [record.label for record in rows])
    test, labels = built.pictures.of("test")
    assert mean["value"] == pytest.approx((svm.predict(test) == labels).mean())


def test_progress_and_the_time_left_are_logged(curve, trainings):
    lines = []
    curve(sizes=(1,), log=lines.append)
    assert lines[0] == "0 of 8 results are stored" and len(lines) == 9
    assert lines[1].startswith(f"{FROM_LM}, labels per class: 1, seed 0: ")
    assert lines[-1].endswith("% correct, about 1 s left")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": replace(SHORT, max_steps=-1)}, "max_steps, precision: set both"),
        ({"scratch": replace(SHORT, precision="auto")}, "max_steps, precision: set both"),
        ({"sizes": (500,)}, "class . has only"),
    ],
)
def test_unfair_settings_are_refused_before_any_training(curve, trainings, changed, message):
    with pytest.raises((ConfigError, DataError), match=message):
        curve(**changed)
    assert not trainings
