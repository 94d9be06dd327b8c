"""The rows that a model has learned from are kept with it, and no command measures them."""

import io
import json
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest

from seqlm.cli import main
from seqlm.config import DataFiles, ModelConfig, TrainConfig
from seqlm.data.corpus import load_corpus
from seqlm.data.records import Record, write_records
from seqlm.data.tokens import default_vocab, draw_layout, read_layout
from seqlm.errors import DataError, DataWarning
from seqlm.training import replay
from seqlm.training.replay import is_learned, keep_unseen, learned_rows, read_learned
from seqlm.training.runs import train_and_evaluate
from seqlm.utils import write_json

SIZE = ModelConfig(n_layer=1, n_head=2, n_embd=16, n_positions=64)
VOCAB = default_vocab(30, 2)
QUICK = {"batch_size": 8, "max_steps": 2, "evals": 1, "patience": 0, "precision": "fp32"}


def rows(n, seed=0, layout=read_layout):
    rng = np.random.default_rng(seed)
    return [Record(layout(rng.integers(0, 30, 20), i % 2), i % 2) for i in range(n)]


def files_of(directory, records, name="rows.jsonl") -> DataFiles:
    write_records(directory / name, records)
    write_json(directory / "vocab.json", VOCAB)
    return DataFiles(directory / name, directory / "vocab.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A language model of 90 rows: the rows, their file, the model's directory."""
    place = tmp_path_factory.mktemp("run")
    files = files_of(place, rows(90))
    train_and_evaluate(files, SIZE, TrainConfig(place / "out", **QUICK))
    return rows(90), files, place / "out" / "best_model"


def evaluate(model, path, *more) -> int:
    words = ["evaluate", "--model_path", str(model), "--data_path", str(path), "--json", *more]
    return main(words)


def test_a_model_keeps_its_training_rows_and_no_others(run):
    _, files, model = run
    corpus, learned = load_corpus(files), read_learned(model)
    assert is_learned(corpus.records("train"), learned).all()
    assert not is_learned(corpus.records("val"), learned).any()
    assert not is_learned(corpus.records("test"), learned).any()
    assert len(learned) == len(corpus.splits["train"])
    assert (read_learned(model.parent / "final_model") == learned).all()


def other_file(kind, given, tmp_path) -> DataFiles:
    shuffled = [given[i] for i in np.random.default_rng(1).permutation(len(given))]
    changed = {"longer": [*given, *rows(3, 9)], "shuffled": shuffled, "renamed": given}
    return files_of(tmp_path, changed[kind], f"{kind}.jsonl")


@pytest.mark.parametrize("kind", ["longer", "shuffled", "renamed"])
def test_rows_that_were_trained_on_are_not_measured(run, kind, tmp_path, capsys):
    given, _, model = run
    path = other_file(kind, given, tmp_path).data_path
    seed = ("--split_seed", "7") if kind == "renamed" else ()
    assert evaluate(model, path, *seed) == 2
    said = capsys.readouterr().err
    assert f"{path}: " in said and "rows of test (lines " in said and said.count("\n") == 1
    count = int(said.split(": ")[2].split()[0])
    assert evaluate(model, path, *seed, "--only_unseen") == 0
    values = json.loads(capsys.readouterr().out)
    n = 19 if kind == "longer" else 18
    assert values["read"]["code"]["nll"]["n"] == n - count > 0
    assert values["left_out"] == [
        f"{count} of the {n} rows of test in {path.name}, because the model was trained on them"
    ]
    assert "baselines" in values, "the rows it was trained on are still in the file"


def test_baselines_of_a_changed_file_learn_from_the_rows_the_model_learned_from(
    run, tmp_path, capsys, monkeypatch
):
    from seqlm.training import measure

    given, files, model = run
    learned, fitted = read_learned(model), []

    def fit(train, val, *rest):
        fitted.append((len(train), len(val)))
        return original(train, val, *rest)

    original = measure.fit_ngrams
    monkeypatch.setattr(measure, "fit_ngrams", fit)
    assert evaluate(model, files.data_path) == 0
    assert evaluate(model, other_file("shuffled", given, tmp_path).data_path, "--only_unseen") == 0
    shuffled = load_corpus(other_file("shuffled", given, tmp_path))
    unseen = int((~is_learned(shuffled.records("val"), learned)).sum())
    assert fitted == [(63, 9), (63, unseen)] and unseen < 9


def test_a_foreign_file_is_measured_whole_and_gives_no_baselines(run, tmp_path, capsys):
    foreign = [replace(r, meta={"split": "test"}) for r in rows(50, 5)]
    path = files_of(tmp_path, foreign, "foreign.jsonl").data_path
    assert evaluate(run[2], path) == 2
    assert "`seqlm evaluate --split all`" in capsys.readouterr().err
    assert evaluate(run[2], path, "--split", "all") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["read"]["code"]["nll"]["n"] == 50 and "baselines" not in values
    assert values["left_out"] == [
        "the baselines, because --split all leaves no rows to fit them on"
    ]
    path = files_of(tmp_path, rows(50, 5), "foreign.jsonl").data_path
    assert evaluate(run[2], path) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["read"]["code"]["nll"]["n"] == 10 and "baselines" not in values
    assert "--split all measures every row of it" in values["left_out"][0]


def test_every_row_of_its_own_file_but_the_training_rows(run, capsys):
    assert evaluate(run[2], run[1].data_path, "--split", "all") == 2
    assert "63 of the 90 rows of all (lines " in capsys.readouterr().err
    assert evaluate(run[2], run[1].data_path, "--split", "all", "--only_unseen") == 0
    assert json.loads(capsys.readouterr().out)["read"]["code"]["nll"]["n"] == 27


def test_a_row_is_known_again_in_another_layout_or_cut_to_another_length(run, tmp_path):
    given, _, model = run
    for changed, length in ((given, 12), (rows(90, layout=draw_layout), None)):
        corpus = load_corpus(files_of(tmp_path, changed), length, divide=False)
        assert is_learned(corpus.records("all"), read_learned(model)).sum() == 63


def test_a_row_that_was_learned_cut_or_with_unknown_codes_is_known_again(tmp_path):
    files = files_of(tmp_path, rows(90))
    few = {token: i for i, token in enumerate(t for t in VOCAB if t != "<Z_007>")}
    unknown = load_corpus(replace(files, allow_unknown=True), None, few)
    for taught in (load_corpus(files, 12), unknown):
        learned = learned_rows(taught.records("train"))
        for length in (None, 8):
            assert (
                is_learned(load_corpus(files, length, divide=False).records("all"), learned).sum()
                == 63
            )


@pytest.mark.slow
def test_a_classifier_measures_no_row_that_its_language_model_learned_from(run, tmp_path, capsys):
    _, files, model = run
    words = ["classify", "--data_path", str(files.data_path), "--vocab_path"]
    words += [str(files.vocab_path), "--start_from", str(model), "--output_dir"]
    words += [str(tmp_path / "out"), "--split_seed", "7", "--precision", "fp32", "--max_steps", "1"]
    assert main(words) == 2
    assert "rows of val (lines " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--only_unseen"]) == 0
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())["values"]
    (of_test,) = [s for s in values["left_out"] if "rows of test" in s]
    assert values["accuracy"]["n"] == 18 - int(of_test.split()[0])
    for page in ("report.md", "best_model/README.md"):
        assert of_test in (tmp_path / "out" / page).read_text()
    both = read_learned(tmp_path / "out" / "best_model")
    own = load_corpus(replace(files, split_seed=7)).records("train")
    assert set(both) == set(learned_rows(own)) | set(read_learned(model))


def test_a_model_without_the_file_is_measured_with_one_warning(run, tmp_path, capsys):
    _, files, model = run
    old = tmp_path / "best_model"
    old.mkdir()
    for path in model.iterdir():
        if path.name != replay.LEARNED:
            (old / path.name).write_bytes(path.read_bytes())
    assert evaluate(old, files.data_path) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "nobody can check whether" in said
    pickled = pickle.dumps(np.array([None], object))  # what np.load would unpickle if it might
    for content in (b"no numbers", pickled, npy(np.array([None], object))):
        (old / replay.LEARNED).write_bytes(content)
        assert evaluate(old, files.data_path) == 2
        assert f"{replay.LEARNED}: the hashes of the training rows" in capsys.readouterr().err


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_where_nothing_unseen_is_left_there_is_nothing_to_measure(run):
    corpus = load_corpus(run[1])
    learned = learned_rows(corpus.records("test"))
    with pytest.raises(DataError, match="18 of the 18 rows of test .* bring other rows"):
        keep_unseen(corpus, ["val", "test"], learned, "m", only_unseen=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        assert keep_unseen(corpus, ["train", "val"], learned, "m").splits == corpus.splits
