"""The recipe for your own rows: every row is measured once, by models that never saw it."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqlm.config import ModelConfig, TrainConfig
from seqlm.data.corpus import Corpus
from seqlm.data.records import Record
from seqlm.data.table import Table
from seqlm.data.tokens import default_vocab, read_layout
from seqlm.errors import DataError

BENCH = Path(__file__).parents[2] / "bench"
VOCAB = default_vocab(20)


@pytest.fixture
def user_rows(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    module = importlib.import_module("user_rows")
    monkeypatch.setattr(module, "SIZE", ModelConfig(1, 1, 8))
    small = TrainConfig(batch_size=8, max_steps=2, evals=1, precision="fp32")
    monkeypatch.setattr(module, "LM", replace(small, optimizer="muon", learning_rate=1e-2))
    monkeypatch.setattr(module, "CLASSIFIER", small)
    return module


def rows_of(codes: np.ndarray, labels: np.ndarray) -> Corpus:
    """All rows in one split, as `load_corpus` gives them with divide=False."""
    records = [
        Record(tuple(read_layout(row, int(label))), int(label), {}, line)
        for line, (row, label) in enumerate(zip(codes, labels, strict=True), 1)
    ]
    table = Table.of(records, VOCAB)
    return Corpus(VOCAB, {"train": table[:0], "val": table[:0], "test": table[:0], "all": table})


@pytest.fixture
def corpus():
    """Codes 0 to 9 say where they stand; 10 to 19 come anywhere, as often as the label says."""
    rng, labels = np.random.default_rng(0), np.repeat([0, 1, 2], 20)
    codes = np.tile(np.arange(10).repeat(3), (60, 1))
    for row, label in zip(codes, labels, strict=True):
        places = rng.permutation(30)[: 2 + 8 * label]
        row[places] = rng.integers(10, 20, len(places))
    return rows_of(codes, labels)


def test_every_row_is_measured_once_and_never_learned_from_there(user_rows, corpus):
    tested = []
    for fold in user_rows.divide(corpus):
        lines = {name: {r.line for r in rows} for name, rows in fold.splits.items()}
        assert not lines["test"] & (lines["train"] | lines["val"]) and lines["val"]
        assert len(lines["train"] | lines["val"] | lines["test"]) == 60
        assert sorted({r.label for r in fold.splits["val"]}) == [0, 1, 2]
        tested += lines["test"]
    assert sorted(tested) == list(range(1, 61))


def test_a_row_that_is_there_twice_is_refused(user_rows):
    codes = np.tile(np.arange(10), (30, 1))
    with pytest.raises(DataError, match="the same codes"):
        list(user_rows.divide(rows_of(codes, np.repeat([0, 1], 15))))


def test_the_codes_that_are_rare_and_anywhere_are_recognized_and_their_counts_classify(
    user_rows, corpus
):
    fold = next(user_rows.divide(corpus))
    rare, far = user_rows.rare_codes(fold)
    wanted = [VOCAB[f"<Z_{code:03d}>"] for code in range(10, 20)]
    assert set(np.flatnonzero(far)) == set(wanted)
    labels = fold.to_classify("test")[1]
    assert (user_rows.forest_guesses(fold)[user_rows.COUNTS] == labels).mean() > 0.9


def test_the_tables_hold_every_model_with_intervals(user_rows, corpus, tmp_path):
    fold = next(user_rows.divide(corpus))
    nats, guesses = user_rows.measure(fold, tmp_path)
    assert len(nats["GPT"]) == len(guesses["label"]) == 12 and nats["codes"].sum() == 12 * 30
    tables = user_rows.summarize(nats, guesses)
    assert tables["nll"].count("\n") == 8 and "| GPT |" in tables["nll"]
    for name in (user_rows.GPT, user_rows.TUNED, user_rows.COUNTS, user_rows.BAG):
        assert name in tables["accuracy"]
    for name, codes in nats.items():  # the mean in the table is that over all codes
        if name == "GPT":
            assert f"{codes.sum() / nats['codes'].sum():.2f} (" in tables["nll"]
