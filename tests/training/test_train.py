"""Training counts correctly, keeps the best model, and can be killed without loss."""

import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2LMHeadModel, GPT2Tokenizer

from seqlm.config import ModelConfig, TrainConfig
from seqlm.data.tokenizer import build_tokenizer
from seqlm.data.tokens import default_vocab, draw_layout, read_layout
from seqlm.errors import ConfigError, DataError, NotFiniteError, SeqlmError
from seqlm.evaluation.scores import PACKED_TOKENS, score_tokens
from seqlm.models.gpt2 import build_classifier, build_lm, load_lm
from seqlm.training import train as training
from seqlm.training.batches import Rows, collator
from seqlm.training.train import newest_checkpoint, train_model
from seqlm.training.trainer import ValidationMetric
from seqlm.utils import write_json

pytestmark = pytest.mark.slow

VOCAB = default_vocab(12, 3)
TOKENIZER = build_tokenizer(VOCAB)
PAD = VOCAB["<PAD>"]
CALM = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64, dropout=0.0)
LIVELY = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64, dropout=0.1)


def ids_of(tokens) -> list[int]:
    return [VOCAB[token] for token in tokens]


def rows_alike(n=24, seed=0) -> list[list[int]]:
    codes = np.random.default_rng(seed).integers(0, 12, (n, 5))
    return [ids_of(read_layout(row, i % 3)) for i, row in enumerate(codes)]


def rows_of_many_lengths(n=24, seed=0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, n)
    lengths[:2] = 1, 11
    return [
        ids_of((read_layout, draw_layout)[i % 2](rng.integers(0, 12, length), i % 3))
        for i, length in enumerate(lengths)
    ]


VAL = rows_of_many_lengths(6, seed=9)


def code_nll(model) -> dict[str, float]:
    return {"code_nll": nll_of(model, VAL)}


def nll_of(model, rows) -> float:
    return float(score_tokens(model, rows).nll.mean())


def quiet(line: str) -> None:
    pass


def learn(directory, ids, *, model=None, size=CALM, measure=code_nll, log=quiet, **settings):
    """Train a tiny model on `ids`; 24 rows make 6 steps an epoch, 18 in all, evaluated 6 times."""
    usual = {
        "batch_size": 4,
        "num_epochs": 3.0,
        "learning_rate": 1e-2,
        "evals": 6,
        "patience": 0,
        "precision": "fp32",
    }
    config = TrainConfig(output_dir=directory, **{**usual, **settings})
    model = model or build_lm(size, VOCAB, seed=config.seed)
    rows = ids if isinstance(ids, Rows) else Rows(ids)
    metric = ValidationMetric("code_nll", measure, VAL)
    return train_model(model, TOKENIZER, rows, metric, config, log)


def weights(directory) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def close(a: dict, b: dict, atol: float) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], atol=atol) for n in a)


class Killed(Exception):
    """What stands for the power cut."""


def kill_at(evaluation: int):
    """A `say` that ends the run at its so-manieth evaluation, before that step's checkpoint."""
    seen = []

    def log(line: str) -> None:
        seen.append("val:" in line)
        if sum(seen) == evaluation:
            raise Killed

    return log


def killed(directory, ids, at: int, **settings):
    with pytest.raises(Killed):
        learn(directory, ids, log=kill_at(at), **settings)


def newest(directory) -> Path | None:
    identity = json.loads((directory / "training.json").read_text())["identity"]
    return newest_checkpoint(directory, identity, quiet)


TIMES = ("seconds", "train_runtime", "train_tokens_per_second")


def table(record, name="evals", *, without=TIMES):
    return [{k: v for k, v in line.items() if k not in without} for line in record[name]]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Runs with dropout that nobody disturbed, one for each kind of rows: directory and record."""
    runs = {}

    def run(rows):
        if rows not in runs:
            directory = tmp_path_factory.mktemp("whole")
            runs[rows] = directory, learn(directory, rows(), size=LIVELY)
        return runs[rows]

    return run


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    directory = tmp_path_factory.mktemp("killed") / "run"
    killed(directory, rows_alike(), 4)
    return directory


@pytest.fixture
def interrupted(killed_once, tmp_path):
    """A run without dropout that was killed at its fourth evaluation, at step 12 of 18."""
    return shutil.copytree(killed_once, tmp_path / "interrupted")


@pytest.fixture
def trainers(monkeypatch):
    """The Trainers that `train` makes, to look inside."""
    made, run = [], training.MeasuringTrainer.run

    def spy(trainer, checkpoint):
        made.append((trainer, checkpoint))
        return run(trainer, checkpoint)

    monkeypatch.setattr(training.MeasuringTrainer, "run", spy)
    return made


# ---------------------------------------------------------------- rows and batches


def test_padding_is_on_the_right_and_bears_no_loss():
    batch = collator(PAD)([{"input_ids": [2, 7, 5]}, {"input_ids": [2, 5]}])
    assert batch["input_ids"].tolist() == [[2, 7, 5], [2, 5, PAD]]
    assert batch["labels"].tolist() == [[2, 7, 5], [2, 5, -100]]


def test_only_padding_is_left_out_of_the_loss_not_tokens_that_happen_to_be_pad():
    batch = collator(PAD)([{"input_ids": [2, PAD, 5]}, {"input_ids": [2]}])
    assert batch["labels"].tolist() == [[2, PAD, 5], [2, -100, -100]]


def test_the_end_of_a_row_counts_even_where_padding_has_its_id():
    """Labels of padding are found by length: a tokenizer that pads with <EOS> loses no <EOS>."""
    batch = collator(5)([{"input_ids": [2, 7, 5]}, {"input_ids": [2, 5]}])
    assert batch["input_ids"].tolist() == [[2, 7, 5], [2, 5, 5]]
    assert batch["labels"].tolist() == [[2, 7, 5], [2, 5, -100]]


def test_a_classifiers_batch_has_one_label_a_row():
    rows = Rows([[2, 7, 3, 4], [2, 3, 4]], [2, 0])
    batch = collator(PAD)([rows[0], rows[1]])
    assert batch["input_ids"].tolist() == [[2, 7, 3, 4], [2, 3, 4, PAD]]
    assert batch["labels"].tolist() == [2, 0]


def test_every_row_needs_a_class():
    with pytest.raises(DataError, match="2 rows, but 1 classes"):
        Rows([[1], [2]], [0])


def test_a_training_set_without_rows_is_refused():
    with pytest.raises(DataError, match="no rows to train on"):
        Rows([])


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("batch_size", [24, 4])
def test_the_trainers_loss_is_our_own_nll(tmp_path, batch_size):
    ids = rows_of_many_lengths()
    settings = {"batch_size": batch_size, "grad_accumulation": 24 // batch_size}
    model = build_lm(CALM, VOCAB)
    ours = nll_of(model, ids)
    record = learn(tmp_path, ids, model=model, max_steps=1, learning_rate=1e-9, **settings)
    assert len(record["history"]) == 1
    assert record["history"][0]["loss"] == pytest.approx(ours, abs=2e-4)


def test_the_first_measure_is_that_of_guessing(tmp_path):
    record = learn(tmp_path, rows_alike(), max_steps=1)
    assert record["initial"]["code_nll"] == pytest.approx(math.log(len(VOCAB)), abs=0.2)


def test_what_is_learned_is_the_rows(tmp_path):
    ids = rows_alike(4)
    learn(tmp_path, ids, num_epochs=60.0, evals=1)
    # The codes were thrown with dice; knowing them by heart needs the row's beginning.
    assert nll_of(load_lm(tmp_path / "final_model"), ids) < 0.5 < math.log(12)


@pytest.mark.parametrize("rows", [rows_alike, rows_of_many_lengths])
def test_two_batches_of_four_weigh_as_much_as_one_of_eight(tmp_path, rows):
    ids = rows(16)
    settings = {"size": CALM, "num_epochs": 1.0, "learning_rate": 1e-3, "max_grad_norm": 1e9}
    learn(tmp_path / "one", ids, batch_size=8, **settings)
    learn(tmp_path / "two", ids, batch_size=4, grad_accumulation=2, **settings)
    one, two = weights(tmp_path / "one/final_model"), weights(tmp_path / "two/final_model")
    assert close(one, two, atol=2e-5)


def gradient_norms(directory, batch_size, grad_accumulation):
    rows = Rows([row[:-2] for row in rows_alike(16)], [i % 3 for i in range(16)])
    record = learn(
        directory,
        rows,
        model=build_classifier(CALM, VOCAB, n_classes=3),
        measure=lambda model: {"code_nll": 1.0},
        batch_size=batch_size,
        grad_accumulation=grad_accumulation,
        num_epochs=1.0,
        learning_rate=1e-6,
    )
    return [(line["grad_norm"], line["loss"]) for line in record["history"]]


def test_a_classifiers_batches_add_up_in_the_same_way(tmp_path):
    one = gradient_norms(tmp_path / "one", 8, 1)
    two = gradient_norms(tmp_path / "two", 2, 4)
    assert len(one) == len(two) == 2
    assert np.allclose(one, two, rtol=2e-3)


def test_tokens_are_counted_without_padding(tmp_path):
    ids = rows_of_many_lengths()
    record = learn(tmp_path, ids, num_epochs=2.0)
    assert record["tokens"] == 2 * sum(map(len, ids))
    assert record["history"][-1]["tokens"] == record["evals"][-1]["tokens"] == record["tokens"]


# ---------------------------------------------------------------- the optimizer


def test_weight_decay_is_on_matrices_only(tmp_path, trainers):
    learn(tmp_path, rows_alike(), max_steps=1, weight_decay=0.3)
    ((trainer, _),) = trainers
    names = {weight: name for name, weight in trainer.model.named_parameters()}
    decayed = {}
    for group in trainer.optimizer.param_groups:
        for weight in group["params"]:
            decayed[names[weight]] = group["weight_decay"]
    assert decayed.keys() == set(names.values())
    for name, weight in trainer.model.named_parameters():
        assert decayed[name] == (0.3 if weight.ndim == 2 else 0.0), name
    assert {0.3, 0.0} == set(decayed.values())


def test_the_optimizer_is_adamw_with_gradients_clipped_at_1(tmp_path, trainers):
    learn(tmp_path, rows_alike(), max_steps=1)
    ((trainer, _),) = trainers
    assert isinstance(trainer.optimizer.optimizer, torch.optim.AdamW)
    assert trainer.args.max_grad_norm == 1.0


def test_the_learning_rate_warms_up_and_comes_down_as_a_cosine(tmp_path):
    record = learn(tmp_path, rows_alike(), max_steps=20, warmup_ratio=0.25, learning_rate=0.01)
    rates = [line["learning_rate"] for line in record["history"]]
    warm = [0.01 * step / 5 for step in range(5)]
    cool = [0.005 * (1 + math.cos(math.pi * step / 15)) for step in range(15)]
    assert np.allclose(rates, warm + cool, atol=1e-5)


# ---------------------------------------------------------------- how long, how often


def test_a_run_is_as_long_as_asked_for_and_evaluated_as_often(tmp_path):
    record = learn(tmp_path / "epochs", rows_alike(), num_epochs=3.0, evals=6)
    assert record["steps"] == 18
    assert [line["step"] for line in record["evals"]] == [3, 6, 9, 12, 15, 18]
    assert record["evals"][-1]["epoch"] == 3
    record = learn(tmp_path / "steps", rows_alike(), max_steps=7, evals=3)
    assert record["steps"] == 7 and not record["stopped_early"]
    # Seven steps do not part evenly; the last model is measured all the same.
    assert [line["step"] for line in record["evals"]] == [3, 6, 7]
    record = learn(tmp_path / "half", rows_alike(), num_epochs=0.5, evals=1)
    assert record["steps"] == 3


def test_steps_are_counted_after_accumulation(tmp_path):
    record = learn(tmp_path, rows_alike(), batch_size=2, grad_accumulation=5, num_epochs=2.0)
    assert record["steps"] == 2 * 3  # twelve batches an epoch, in fives


def test_time_never_runs_backwards(tmp_path):
    record = learn(tmp_path, rows_alike())
    for name in ("history", "evals"):
        seconds = [line["seconds"] for line in record[name]]
        assert seconds == sorted(seconds) and seconds[0] > 0
    assert record["seconds"] == record["evals"][-1]["seconds"]


def test_the_wait_is_told_before_it_starts(tmp_path):
    lines = []
    learn(tmp_path, rows_alike(), log=lines.append)
    before = lines[: next(i for i, line in enumerate(lines) if "val:" in line)]
    assert any("18 steps" in line and "24 rows" in line for line in before)
    assert any("will take about" in line and "evaluate and save" in line for line in before)
    (after_ten,) = (line for line in lines if "tokens/s" in line)
    assert after_ten.startswith("step 10 of 18 ") and " left; corrected: " in after_ten


# ---------------------------------------------------------------- a time limit

LONG = {"num_epochs": 1000.0, "batch_size": 4}


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by 5 ms whenever somebody looks, so the machine's speed is no matter."""
    looks = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: 0.005 * next(looks))


def test_a_run_ends_with_its_time_limit_and_the_schedule_with_it(tmp_path, clock):
    record = learn(tmp_path, rows_alike(), max_seconds=2.0, **LONG)
    assert record["stopped_by"] == "max_seconds" and record["finished"]
    assert 10 <= record["steps"] <= record["plan"]["steps"] < 6000 and record["seconds"] < 4
    assert record["evals"][-1]["step"] == record["steps"]
    assert record["best"] == min(record["evals"], key=lambda line: line["code_nll"])
    assert (tmp_path / "best_model" / "model.safetensors").is_file()


def planned(monkeypatch, steps):
    plan = {"steps": steps, "evals": 6}
    monkeypatch.setattr(training, "plan_steps", lambda *_: plan)


def test_a_plan_that_takes_longer_than_the_limit_is_cut_short(tmp_path, monkeypatch, clock):
    planned(monkeypatch, 100_000)
    record = learn(tmp_path, rows_alike(), max_seconds=0.5, **LONG)
    assert record["stopped_by"] == "max_seconds" and record["stopped_early"]
    assert record["seconds"] < 3
    assert [line["step"] for line in record["evals"]] == [record["steps"]], "measured at the end"


def test_a_run_that_is_done_before_its_limit_is_not_said_to_be_stopped(tmp_path):
    record = learn(tmp_path, rows_alike(), max_steps=3, max_seconds=100.0)
    assert record["stopped_by"] is None and record["steps"] == 3


def test_a_killed_run_with_a_time_limit_keeps_its_plan(tmp_path, monkeypatch, trainers):
    planned(monkeypatch, 18)
    killed(tmp_path, rows_alike(), 4, max_seconds=100.0, **LONG)
    monkeypatch.setattr(training, "plan_steps", None)
    record = learn(tmp_path, rows_alike(), max_seconds=100.0, **LONG)
    assert trainers[-1][1].name == "checkpoint-9"
    assert record["plan"] == {"steps": 18, "evals": 6} and record["steps"] == 18
    planned(monkeypatch, 18)
    whole = learn(tmp_path / "whole", rows_alike(), max_steps=18)
    assert table(record, without=(*TIMES, "epoch")) == table(whole, without=(*TIMES, "epoch"))


def test_a_killed_run_has_only_the_time_that_is_left(tmp_path, monkeypatch):
    planned(monkeypatch, 18)
    killed(tmp_path, rows_alike(), 4, max_seconds=100.0, **LONG)
    path = newest(tmp_path) / "trainer_state.json"
    state = json.loads(path.read_text())
    for line in state["log_history"]:
        line["seconds"] += 100
    write_json(path, state)  # into the manifest, too
    record = learn(tmp_path, rows_alike(), max_seconds=100.0, **LONG)
    assert record["steps"] == 10 and record["stopped_by"] == "max_seconds"


# ---------------------------------------------------------------- best and last


def scripted(values, states):
    """A metric that reads its answers from a list, and remembers the weights it was shown."""
    answers = iter(values)

    def measure(model):
        states.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"code_nll": next(answers), "other": -float(len(states))}

    return measure


def test_the_best_model_is_the_one_our_measure_likes_best_and_the_final_one_the_last(tmp_path):
    states = []
    measure = scripted([9.0, 5.0, 4.0, 1.0, 2.0, 1.5, 3.0], states)
    record = learn(tmp_path, rows_alike(), measure=measure)
    best, final = (load_lm(tmp_path / name) for name in ("best_model", "final_model"))
    assert equal(best.state_dict(), states[3])
    assert equal(final.state_dict(), states[6])
    assert not equal(states[3], states[6])
    assert record["best"] == record["evals"][2]
    assert (record["best"]["step"], record["best"]["code_nll"]) == (9, 1.0)
    assert record["initial"] == {"code_nll": 9.0, "other": -1.0}
    assert [line["code_nll"] for line in record["evals"]] == [5.0, 4.0, 1.0, 2.0, 1.5, 3.0]


def test_a_best_model_at_the_very_last_step_is_kept_too(tmp_path):
    states = []
    record = learn(
        tmp_path, rows_alike(), max_steps=7, evals=3, measure=scripted([9, 5, 4, 1.0], states)
    )
    assert record["best"]["step"] == 7
    assert equal(weights(tmp_path / "best_model"), weights(tmp_path / "final_model"))


def test_the_first_of_two_equally_good_models_is_kept(tmp_path):
    states = []
    record = learn(tmp_path, rows_alike(), measure=scripted([9, 5, 1.0, 4, 1.0, 3, 3], states))
    assert record["best"]["step"] == 6
    assert equal(load_lm(tmp_path / "best_model").state_dict(), states[2])


def test_early_stopping_obeys_patience(tmp_path):
    values = [9, 5.0, 4.0, 4.5, 3.0, 3.1, 3.2, 3.3, 3.4]
    record = learn(
        tmp_path, rows_alike(), measure=scripted(values, []), evals=9, max_steps=18, patience=3
    )
    # Best at the fourth evaluation, and three more without a better one.
    assert [line["code_nll"] for line in record["evals"]] == values[1:8]
    assert record["stopped_early"] and record["steps"] == 14
    assert record["best"]["step"] == 8


def test_without_patience_nothing_stops_early(tmp_path):
    record = learn(tmp_path, rows_alike(), measure=scripted(range(10), []), patience=0)
    assert record["steps"] == 18 and not record["stopped_early"]


# ---------------------------------------------------------------- the same again


@pytest.mark.parametrize("rows", [rows_alike, rows_of_many_lengths])
def test_two_runs_with_one_seed_are_equal(tmp_path, uninterrupted, rows):
    directory, once = uninterrupted(rows)
    again = learn(tmp_path, rows(), size=LIVELY)
    assert table(once) == table(again)
    assert table(once, "history") == table(again, "history")
    assert equal(weights(directory / "final_model"), weights(tmp_path / "final_model"))


@pytest.mark.parametrize("rows", [rows_alike, rows_of_many_lengths])
def test_another_seed_gives_another_order(tmp_path, rows):
    # The same weights and no dropout, so that nothing but the order can differ.
    once, other = (
        learn(tmp_path / str(seed), rows(), seed=seed, model=build_lm(CALM, VOCAB, seed=5))
        for seed in (1, 2)
    )
    assert other["initial"] == once["initial"]
    assert table(other) != table(once)


def test_every_epoch_has_an_order_of_its_own_and_every_row_once(tmp_path, monkeypatch):
    seen, real = [], training.collator

    def spying(pad_id):
        collate = real(pad_id)

        def spy(rows):
            seen.extend(tuple(row["input_ids"]) for row in rows)
            return collate(rows)

        return spy

    monkeypatch.setattr("seqlm.training.trainer.collator", spying)
    ids = rows_of_many_lengths()
    assert len(set(map(tuple, ids))) == 24
    learn(tmp_path, ids, num_epochs=2.0)
    epochs = seen[:24], seen[24:]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(map(tuple, ids))
    assert epochs[0] != epochs[1]


# ---------------------------------------------------------------- killed and started again


@pytest.mark.parametrize("at", [3, 4], ids=["between epochs", "within an epoch"])
@pytest.mark.parametrize("rows", [rows_alike, rows_of_many_lengths])
def test_a_resumed_run_ends_as_if_nothing_had_happened(tmp_path, uninterrupted, trainers, rows, at):
    directory, whole = uninterrupted(rows)
    killed(tmp_path, rows(), at, size=LIVELY)
    resumed = learn(tmp_path, rows(), size=LIVELY)
    checkpoint = trainers[-1][1]
    assert checkpoint is not None and checkpoint.name == f"checkpoint-{3 * (at - 1)}"
    for name in ("final_model", "best_model"):
        assert equal(weights(directory / name), weights(tmp_path / name))
    assert table(resumed) == table(whole)
    assert [line["step"] for line in resumed["history"]] == list(range(1, 19))
    assert resumed["tokens"] == whole["tokens"]
    assert resumed["initial"] == whole["initial"]


def test_a_resumed_run_accumulates_as_before(tmp_path):
    settings = {"size": LIVELY, "batch_size": 2, "grad_accumulation": 2}
    learn(tmp_path / "whole", rows_alike(), **settings)
    killed(tmp_path / "killed", rows_alike(), 4, **settings)
    learn(tmp_path / "killed", rows_alike(), **settings)
    assert equal(weights(tmp_path / "whole/final_model"), weights(tmp_path / "killed/final_model"))


def test_a_resumed_run_is_as_patient_as_if_nothing_had_happened(tmp_path):
    values = [9, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    settings = {"evals": 9, "max_steps": 18, "patience": 3}
    whole = learn(tmp_path / "whole", rows_alike(), measure=scripted(values, []), **settings)
    killed(tmp_path / "killed", rows_alike(), 3, measure=scripted(values, []), **settings)
    measure = scripted(values[3:], [])  # the third evaluation is made again, the first not
    resumed = learn(tmp_path / "killed", rows_alike(), measure=measure, **settings)
    assert whole["steps"] == resumed["steps"] == 8
    assert table(resumed, without=(*TIMES, "other")) == table(whole, without=(*TIMES, "other"))
    assert resumed["best"]["step"] == whole["best"]["step"] == 2


def test_seconds_go_on_counting_where_they_stopped(interrupted):
    path = newest(interrupted) / "trainer_state.json"
    state = json.loads(path.read_text())
    spent = max(line["seconds"] for line in state["log_history"])
    for line in state["log_history"]:
        line["seconds"] += 100
    write_json(path, state)  # into the manifest, too
    record = learn(interrupted, rows_alike())
    assert record["seconds"] > 100 + spent


def test_a_checkpoint_cut_short_is_passed_over(interrupted, trainers):
    whole = newest(interrupted)
    assert whole.name == "checkpoint-9"
    state = (whole / "trainer_state.json").read_bytes()
    for step, left in (("10", None), ("11", b""), ("12", state[: len(state) // 2])):
        half = shutil.copytree(whole, whole.with_name(f"checkpoint-{step}"))
        (half / "trainer_state.json").unlink()
        if left is not None:
            (half / "trainer_state.json").write_bytes(left)
    assert newest(interrupted) == whole
    learn(interrupted, rows_alike())
    assert trainers[-1][1] == whole


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(interrupted):
    whole = newest(interrupted)
    for step in (900, 1000, 80):
        shutil.copytree(whole, whole.with_name(f"checkpoint-{step}"))
    assert newest(interrupted).name == "checkpoint-1000"


def test_weights_cut_in_half_are_passed_over_for_an_older_checkpoint(interrupted, trainers):
    newer = newest(interrupted) / "model.safetensors"
    newer.write_bytes(newer.read_bytes()[: newer.stat().st_size // 2])
    lines = []
    learn(interrupted, rows_alike(), log=lines.append)
    assert trainers[-1][1].name == "checkpoint-6"
    assert any("checkpoint-9: is damaged" in line for line in lines)


def test_checkpoints_of_another_run_are_never_taken_over(interrupted, trainers, tmp_path):
    moved = (interrupted / "checkpoints").rename(tmp_path / "elsewhere")
    (interrupted / "checkpoints").symlink_to(moved)  # a link is not removed by shutil.rmtree
    killed(interrupted, rows_alike(), 1, learning_rate=5e-3)
    record = learn(interrupted, rows_alike(), learning_rate=5e-3)
    assert trainers[-1][1] is None and record["history"][0]["step"] == 1
    assert (interrupted / "checkpoints").is_symlink() and not [*moved.glob("checkpoint-*")]


def test_a_checkpoint_of_another_run_is_passed_over_beside_the_best_model_of_this_one(
    interrupted, trainers, tmp_path
):
    killed(tmp_path / "other", rows_alike(), 4, learning_rate=5e-3)
    other = newest(tmp_path / "other")
    shutil.copytree(other, interrupted / "checkpoints" / "checkpoint-15")
    learn(interrupted, rows_alike())
    assert trainers[-1][1].name == "checkpoint-9"


def test_what_its_owner_put_beside_the_checkpoints_meanwhile_stays(interrupted):
    mine = interrupted / "checkpoints" / "notes.txt"
    refused = "checkpoints/notes.txt was not written by seqlm"
    mine.write_text("mine")
    with pytest.raises(ConfigError, match=refused):
        learn(interrupted, rows_alike())
    mine.unlink()

    def log(line):
        mine.write_text("mine")

    learn(interrupted, rows_alike(), log=log)
    assert [path.name for path in mine.parent.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match=refused):
        learn(interrupted, rows_alike(), seed=7)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="it reads the names of open files")
def test_a_checkpoint_is_on_the_disk_before_its_manifest_says_that_it_is_whole(
    tmp_path, monkeypatch
):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda n: flushed.append(os.readlink(f"/proc/self/fd/{n}")))
    killed(tmp_path, rows_alike(), 4)
    folder = newest(tmp_path)
    files = {str(path) for path in folder.iterdir() if path.name != ".seqlm.json"}
    manifest = next(i for i, name in enumerate(flushed) if f"{folder}/.tmp-" in name)
    assert "model.safetensors" in {Path(name).name for name in files}
    assert files <= set(flushed[:manifest])


def test_a_folder_has_one_run_at_a_time_and_a_kill_frees_it(tmp_path):
    code = "import sys, time, pathlib; from seqlm.ownership import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(SeqlmError, match=f"in use by process {other.pid} on .* since 20"):
                learn(tmp_path, rows_alike())
            assert not (tmp_path / "training.json").exists()
        finally:
            other.kill()
    learn(tmp_path, rows_alike(), max_steps=1)


def test_a_record_that_is_a_list_gets_a_sentence(tmp_path):
    (tmp_path / "training.json").write_text("[1]")
    with pytest.raises(ConfigError, match="training.json was not written by seqlm"):
        learn(tmp_path, rows_alike())
    learn(tmp_path, rows_alike(), max_steps=1, overwrite=True)


@pytest.mark.parametrize("name", ["best_model/notes.txt", "checkpoints/mine.txt", "report.md"])
def test_what_is_not_ours_is_refused_and_with_overwrite_set_aside(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("my own")
    (tmp_path / "thesis.tex").write_text("in nobody's way")
    with pytest.raises(ConfigError, match=f"{name} was not written by seqlm, .* --overwrite true"):
        learn(tmp_path, rows_alike(), max_steps=1)
    assert path.read_text() == "my own" and not (tmp_path / "training.json").exists()
    learn(tmp_path, rows_alike(), max_steps=1, overwrite=True)
    assert (tmp_path / "earlier_run_1" / name).read_text() == "my own" and not path.exists()
    assert (tmp_path / "thesis.tex").is_file()


def test_what_is_put_into_the_best_model_while_it_is_trained_is_set_aside(tmp_path):
    values, lines = iter([9.0, 3.0, 2.0, 1.0, 1.5, 1.5, 1.5]), []

    def log(line):
        lines.append(line)
        if line.startswith("step 3 · val:"):
            (tmp_path / "best_model" / "notes.txt").write_text("my own")

    learn(tmp_path, rows_alike(), measure=lambda model: {"code_nll": next(values)}, log=log)
    aside = tmp_path / "earlier_run_1" / "best_model"
    assert (aside / "notes.txt").read_text() == "my own" and (aside / "config.json").is_file()
    assert [f"that folder is now in {aside.parent}" in line for line in lines].count(True) == 1
    assert [path.name for path in tmp_path.glob("earlier_run_*")] == ["earlier_run_1"]
    assert not (tmp_path / "best_model" / "notes.txt").exists()


def test_no_run_is_written_into_the_model_of_another(tmp_path):
    learn(tmp_path, rows_alike(), max_steps=1)
    before = (tmp_path / "best_model" / ".seqlm.json").read_bytes()
    for folder in ("best_model", "final_model/new"):
        with pytest.raises(ConfigError, match="lies in a run's model; choose another folder"):
            learn(tmp_path / folder, rows_alike(), max_steps=1)
    assert (tmp_path / "best_model" / ".seqlm.json").read_bytes() == before
    learn(tmp_path / "new" / "best_model", rows_alike(), max_steps=1)  # only a name


def test_a_killed_run_is_never_beside_the_numbers_of_the_run_before_it(tmp_path):
    first = learn(tmp_path, rows_alike())
    old = weights(tmp_path / "best_model")
    for name in ("metrics.json", "report.md"):
        write_json(tmp_path / name, {"of": "the first run"})
    lines = []
    with pytest.raises(Killed):

        def log(line):
            lines.append(line)
            if "val:" in line:
                raise Killed

        learn(tmp_path, rows_alike(), learning_rate=5e-3, log=log)
    aside = tmp_path / "earlier_run_1"
    assert any(str(aside) in line for line in lines)
    assert not equal(weights(tmp_path / "best_model"), old)
    assert not any((tmp_path / n).exists() for n in ("metrics.json", "report.md", "final_model"))
    assert equal(weights(aside / "best_model"), old) and (aside / "report.md").is_file()
    again = learn(aside, rows_alike())  # the earlier run is whole there
    assert again == json.loads(json.dumps(first))


def test_a_killed_run_that_was_set_aside_goes_on_there(interrupted, trainers):
    learn(interrupted, rows_alike(), learning_rate=5e-3)
    learn(interrupted / "earlier_run_1", rows_alike())
    assert trainers[-1][1].name == "checkpoint-9"


def test_a_start_that_came_to_nothing_is_not_set_aside(tmp_path):
    def at_once(line):
        raise Killed

    for rate in (1e-3, 2e-3):
        with pytest.raises(Killed):
            learn(tmp_path, rows_alike(), learning_rate=rate, log=at_once)
    learn(tmp_path, rows_alike(), max_steps=1)
    assert not [*tmp_path.glob("earlier_run_*")]


def test_a_kill_before_the_new_record_leaves_the_old_one_ours(tmp_path, monkeypatch):
    def kill(*_):
        raise Killed

    with pytest.raises(Killed):
        learn(tmp_path, rows_alike(), log=kill)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training.utils, "write_json", kill)
        learn(tmp_path, rows_alike(), max_steps=1)
    assert learn(tmp_path, rows_alike(), max_steps=1)["steps"] == 1  # not the plan of the first


def test_what_a_kill_between_two_renames_leaves_is_put_right_at_the_next_start(interrupted):
    best = interrupted / "best_model"
    best.rename(interrupted / ".old-01234567-best_model")
    (interrupted / ".tmp-01234567-best_model").mkdir()
    (interrupted / ".tmp-01234567-metrics.json").write_text("half")
    killed(interrupted, rows_alike(), 1)
    assert best.is_dir() and not [*interrupted.glob(".old-*"), *interrupted.glob(".tmp-*")]


def test_a_run_without_its_best_model_starts_again(interrupted, trainers):
    shutil.rmtree(interrupted / "best_model")
    lines = []
    learn(interrupted, rows_alike(), log=lines.append)
    assert trainers[-1][1] is None and (interrupted / "best_model").is_dir()
    assert any("best_model is missing or of another run" in line for line in lines)


def test_everything_a_run_leaves_has_its_identity(tmp_path):
    record = learn(tmp_path, rows_alike(), max_steps=1)
    folders = (tmp_path, tmp_path / "best_model", tmp_path / "final_model")
    found = [json.loads((folder / ".seqlm.json").read_text())["run"] for folder in folders]
    assert found == 3 * [record["identity"]]


def test_a_finished_run_is_not_run_again(tmp_path, trainers):
    once = learn(tmp_path, rows_alike())
    before = (tmp_path / "training.json").read_bytes()
    lines = []
    again = learn(tmp_path, rows_alike(), log=lines.append)
    assert len(trainers) == 1
    assert again == json.loads(before)
    assert table(again) == table(once)
    assert any("already trained" in line for line in lines)


def test_a_finished_run_whose_model_is_gone_is_run_again(tmp_path, trainers):
    learn(tmp_path, rows_alike())
    shutil.rmtree(tmp_path / "best_model")
    learn(tmp_path, rows_alike())
    assert len(trainers) == 2 and (tmp_path / "best_model").is_dir()


def test_a_finished_run_with_the_model_of_another_is_run_again(tmp_path, trainers):
    for name, rate in (("one", 1e-3), ("other", 2e-3)):
        learn(tmp_path / name, rows_alike(), max_steps=1, learning_rate=rate)
    shutil.rmtree(tmp_path / "one" / "best_model")
    shutil.copytree(tmp_path / "other" / "best_model", tmp_path / "one" / "best_model")
    learn(tmp_path / "one", rows_alike(), max_steps=1, learning_rate=1e-3)
    assert len(trainers) == 3


def test_resume_false_starts_a_finished_run_anew(tmp_path, trainers):
    learn(tmp_path, rows_alike())
    learn(tmp_path, rows_alike(), resume=False)
    assert len(trainers) == 2 and trainers[-1][1] is None


def test_resume_false_starts_an_interrupted_run_anew(interrupted, trainers):
    record = learn(interrupted, rows_alike(), resume=False)
    assert trainers[-1][1] is None
    assert record["history"][0]["step"] == 1


CHANGES = {
    "learning_rate": {"learning_rate": 5e-3},
    "batch_size": {"batch_size": 6},
    "seed": {"seed": 7},
    "num_epochs": {"num_epochs": 4.0},
    "rows": {"ids": rows_alike(24, seed=1)},
    "dropout": {"size": LIVELY},
    "weights": {"model": "another"},
}


def test_another_validation_metric_makes_it_another_run():
    def identity(name="code_nll", key=VAL):
        metric = ValidationMetric(name, code_nll, key)
        return training.run_identity(
            build_lm(CALM, VOCAB), TOKENIZER, Rows(rows_alike()), metric, TrainConfig()
        )

    assert identity() == identity()
    assert identity(key=VAL[1:]) != identity() != identity(name="other")


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_of_other_settings_does_not_go_on_from_this_one(interrupted, trainers, change):
    settings = {"ids": rows_alike(), **CHANGES[change]}
    if "model" in settings:
        settings["model"] = build_lm(CALM, VOCAB, seed=77)
    ids = settings.pop("ids")
    changed = learn(interrupted, ids, **settings)
    assert trainers[-1][1] is None
    assert changed["history"][0]["step"] == 1
    assert not (interrupted / "checkpoints").exists()


def test_a_run_goes_on_wherever_it_was_moved_and_however_many_threads_it_gets(
    interrupted, trainers, monkeypatch
):
    moved = interrupted.rename(interrupted.with_name("moved"))
    real = torch.Tensor.sum

    def in_another_order(tensor, *args, **kwargs):
        return real(tensor, *args, **kwargs) + (1e-12 if tensor.dtype == torch.float64 else 0)

    monkeypatch.setattr(torch.Tensor, "sum", in_another_order)
    learn(moved, rows_alike())
    assert trainers[-1][1] is not None


# ---------------------------------------------------------------- too little memory

NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"
    ),
]


def forgetful(error, room: int, *, late: bool = False):
    """A model whose backward pass has no memory for more than `room` rows.

    If `late`, this happens in the second batch of a step only.
    """
    model = build_lm(CALM, VOCAB)

    def check(block, gradients):
        second = model.transformer.wpe.weight.grad is not None
        if len(gradients[0]) > room and (second or not late):
            raise error

    model.transformer.h[0].register_full_backward_pre_hook(check)  # the other has its gradient
    return model


@pytest.mark.parametrize(
    ("error", "rows", "late"),
    [(NO_MEMORY[0], rows_alike, False), (NO_MEMORY[1], rows_of_many_lengths, True)],
    ids=["GPU", "processor"],
)
def test_where_memory_runs_out_half_a_batch_at_a_time_makes_the_same_steps(
    tmp_path, error, rows, late
):
    settings, lines = {"batch_size": 4, "grad_accumulation": 2, "max_steps": 4, "evals": 1}, []
    whole = learn(tmp_path / "whole", rows(), **settings)
    model = forgetful(error, 2, late=late)
    record = learn(tmp_path / "halved", rows(), model=model, log=lines.append, **settings)
    assert sum("memory ran out" in line for line in lines) == 1
    for name in ("history", "evals"):  # losses, gradient norms, val
        for mine, other in zip(table(record, name), table(whole, name), strict=True):
            assert mine == pytest.approx(other, rel=1e-4)


def test_a_run_short_of_memory_can_be_killed_and_goes_on(tmp_path):
    settings = {"max_steps": 4, "evals": 2}
    learn(tmp_path / "whole", rows_alike(), model=forgetful(NO_MEMORY[0], 2), **settings)
    killed(tmp_path / "killed", rows_alike(), 2, model=forgetful(NO_MEMORY[0], 2), **settings)
    learn(tmp_path / "killed", rows_alike(), model=forgetful(NO_MEMORY[0], 2), **settings)
    assert equal(weights(tmp_path / "whole/final_model"), weights(tmp_path / "killed/final_model"))


def test_a_batch_is_halved_only_once_and_for_no_other_error(tmp_path):
    for number, error in enumerate((*NO_MEMORY, RuntimeError("shapes do not match"))):
        room = 1 if number < 2 else 2
        with pytest.raises(RuntimeError, match=re.escape(str(error))):
            model = forgetful(error, room)
            learn(tmp_path / str(number), rows_alike(), model=model, max_steps=2, evals=1)


# ---------------------------------------------------------------- what is written

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "training_args.bin",
}


@pytest.mark.parametrize("name", ["best_model", "final_model"])
def test_a_saved_model_is_a_whole_hugging_face_directory(tmp_path, name):
    learn(tmp_path, rows_alike(), max_steps=2)
    directory = tmp_path / name
    assert {path.name for path in directory.iterdir()} >= FILES
    model = GPT2LMHeadModel.from_pretrained(directory)
    for loader in (GPT2Tokenizer, AutoTokenizer):
        tokenizer = loader.from_pretrained(directory)
        assert tokenizer.get_vocab() == VOCAB
        sentence = " ".join(read_layout([3, 11], 2))
        assert tokenizer(sentence).input_ids == ids_of(read_layout([3, 11], 2))
    assert model.config.vocab_size == len(VOCAB)
    assert json.loads((directory / "vocab.json").read_text()) == VOCAB
    arguments = torch.load(directory / "training_args.bin", weights_only=False)
    assert arguments.per_device_train_batch_size == 4


def test_the_record_is_what_is_returned_and_nothing_else_is_left_behind(tmp_path):
    record = learn(tmp_path, rows_alike(), max_steps=2)
    assert json.loads((tmp_path / "training.json").read_text()) == record
    assert {path.name for path in tmp_path.iterdir()} == {
        "best_model",
        "final_model",
        "training.json",
        ".seqlm.json",
    }
    assert record["finished"] and record["rows"] == 24
    assert str(tmp_path) not in (tmp_path / "training.json").read_text()
    assert record["settings"]["max_steps"] == 2
    assert record["parameters"] == sum(w.numel() for w in build_lm(CALM, VOCAB).parameters())
    assert {"python", "torch", "transformers"} <= record["versions"].keys()


def test_losses_that_json_cannot_hold_are_written_as_nothing(tmp_path, monkeypatch):
    log = training.MeasuringTrainer.log

    def overflowing(self, logs, start_time=None):
        # What fp16 does in its first steps, before its scale has settled.
        if "grad_norm" in logs and self.state.global_step == 1:
            logs = {**logs, "grad_norm": float("inf"), "loss": float("nan")}
        log(self, logs, start_time)

    monkeypatch.setattr(training.MeasuringTrainer, "log", overflowing)
    record = learn(tmp_path, rows_alike(), max_steps=3)
    assert [line["grad_norm"] is None for line in record["history"]] == [True, False, False]
    assert [line["loss"] is None for line in record["history"]] == [True, False, False]
    assert record["finished"]


def test_training_stops_at_the_first_loss_that_is_no_number(tmp_path, monkeypatch):
    real = training.MeasuringTrainer.compute_loss

    def spoiled(trainer, *args, **kwargs):
        loss = real(trainer, *args, **kwargs)
        return loss * float("nan") if trainer.state.global_step == 6 else loss

    monkeypatch.setattr(training.MeasuringTrainer, "compute_loss", spoiled)
    said = r"at step 7 the loss is nan: training has diverged; best_model is that of step [36]\. .*"
    with pytest.raises(SeqlmError, match=f"{said}lower rate, such as --learning_rate 0.0025"):
        learn(tmp_path, rows_alike())
    assert all(weight.isfinite().all() for weight in weights(tmp_path / "best_model").values())
    assert newest(tmp_path).name == "checkpoint-6"


def test_a_model_whose_logits_are_no_numbers_is_never_the_best(tmp_path):
    evaluations = []

    def measure(model):
        evaluations.append(1)
        if len(evaluations) > 1:  # the first is made before training
            raise NotFiniteError("bad")
        return code_nll(model)

    with pytest.raises(SeqlmError, match="at step 3 the logits are not finite: training has"):
        learn(tmp_path, rows_alike(), measure=measure)
    assert not (tmp_path / "best_model").exists()


def test_a_measure_called_loss_is_not_mistaken_for_the_training_loss(tmp_path):
    def measure(model):
        return {"code_nll": 1.0, "loss": 123.0}

    record = learn(tmp_path, rows_alike(), measure=measure)
    assert [line["step"] for line in record["history"]] == list(range(1, 19))
    assert all(line["loss"] < 100 for line in record["history"])
    assert [line["loss"] for line in record["evals"]] == [123.0] * 6


def test_a_classifier_trains_in_the_same_way(tmp_path):
    rows = Rows([row[:-2] for row in rows_of_many_lengths()], [i % 3 for i in range(24)])
    values = iter([3.0, 2.0, 1.0])
    record = learn(
        tmp_path,
        rows,
        model=build_classifier(CALM, VOCAB, n_classes=3),
        measure=lambda model: {"code_nll": next(values)},
        evals=2,
    )
    assert record["history"][0]["loss"] == pytest.approx(math.log(3), abs=0.2)
    assert {path.name for path in (tmp_path / "best_model").iterdir()} >= FILES - {
        "generation_config.json"
    }


# ---------------------------------------------------------------- precision and devices


def test_half_precision_is_refused_on_a_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="^precision: fp16 needs a GPU; use bf16"):
        learn(tmp_path, rows_alike(), precision="fp16")
    assert not (tmp_path / "training.json").exists()


def test_a_precision_that_cannot_be_had_costs_no_checkpoint(interrupted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError):
        learn(interrupted, rows_alike(), precision="fp16")
    assert newest(interrupted).name == "checkpoint-9"


def test_auto_takes_the_precision_that_was_faster_here(tmp_path, trainers, monkeypatch):
    monkeypatch.setattr("seqlm.training.timing.has_native_bf16", lambda: True)
    for winner in ("bf16", "fp32"):
        monkeypatch.setattr(
            "seqlm.training.timing.step_seconds",
            lambda model, batch, name, winner=winner: 0.1 if name == winner else 0.2,
        )
        record = learn(tmp_path / winner, rows_alike(), max_steps=2, precision="auto")
        found = record["precision"]
        assert (found["chosen"], found["asked"]) == (winner, "auto")
        loser = "fp32" if winner == "bf16" else "bf16"
        assert found["step_seconds"] == {winner: 0.1, loser: 0.2}
        arguments = trainers[-1][0].args
        assert (arguments.bf16, arguments.fp16) == (winner == "bf16", False)


def test_bf16_learns_nearly_what_fp32_learns_and_is_saved_in_fp32(tmp_path):
    def measure(model) -> dict[str, float]:
        return {"code_nll": nll_of(model, VAL * 40)}  # so many that evaluation packs the weights

    assert sum(map(len, VAL * 40)) > PACKED_TOKENS
    for precision in ("fp32", "bf16"):
        learn(tmp_path / precision, rows_alike(), measure=measure, precision=precision)
    whole, half = (weights(tmp_path / name / "final_model") for name in ("fp32", "bf16"))
    assert {weight.dtype for weight in half.values()} == {torch.float32}
    assert not equal(whole, half)
    measured = [code_nll(load_lm(tmp_path / name / "final_model")) for name in ("fp32", "bf16")]
    assert measured[0]["code_nll"] == pytest.approx(measured[1]["code_nll"], abs=0.15)


def test_auto_does_not_try_a_bf16_that_is_only_emulated(tmp_path, monkeypatch):
    monkeypatch.setattr("seqlm.training.timing.has_native_bf16", lambda: False)
    lines = []
    record = learn(tmp_path, rows_alike(), max_steps=2, precision="auto", log=lines.append)
    assert record["precision"]["chosen"] == "fp32"
    assert record["precision"]["step_seconds"].keys() == {"fp32"}
    assert any(line.startswith("bf16 was not tried") for line in lines)


def test_rows_longer_than_the_model_are_refused_before_anything_is_written(tmp_path):
    long = [ids_of(read_layout([1] * 70, 0))]
    with pytest.raises(ConfigError, match="^max_length: rows of 75 tokens"):
        learn(tmp_path / "run", long)
    assert not (tmp_path / "run").exists()


TWO = """
import json, os, runpy, sys
from pathlib import Path

sys.path[:0] = {paths!r}
import test_train

for name in test_train.SHARED:
    directory = Path({directory!r}) / name
    record, fetched = test_train.learn_shared(directory, name, processes=2)
    assert (directory / "final_model" / "model.safetensors").is_file()
    found = json.dumps([record["evals"], fetched])
    Path(f"{{directory}}-{{os.environ['RANK']}}.json").write_text(found)
sys.argv = ["seqlm", *{words!r}]  # and what `torchrun -m seqlm` does
try:
    runpy.run_module("seqlm", run_name="__main__")
except SystemExit as ended:
    assert not ended.code
"""
SMALL = "--n_layer 1 --n_head 2 --n_embd 16 --n_positions 64 --batch_size 16 --precision fp32 "
SMALL += "--max_steps 4 --evals 2 --schedule linear"
# What each run learns from, and its settings; two processes take half of a batch each.
SHARED = {
    "alike": (lambda: Rows(rows_alike(16)), {"batch_size": 8}),
    "by length": (lambda: Rows(rows_of_many_lengths(13)), {"batch_size": 4}),
    "accumulated": (
        lambda: Rows(rows_of_many_lengths(13)),
        {"batch_size": 4, "grad_accumulation": 3},
    ),
    "muon": (lambda: Rows(rows_alike(13)), {"batch_size": 8, "optimizer": "muon"}),
    "an empty batch": (lambda: Rows(rows_alike(13)), {"batch_size": 6}),
    "classifier": (
        lambda: Rows(rows_of_many_lengths(13), [i % 3 for i in range(13)]),
        {"batch_size": 4, "grad_accumulation": 3},
    ),
}


class WatchedRows(Rows):
    """Rows that write down which of them were fetched."""

    def __init__(self, rows: Rows):
        super().__init__(rows.ids, rows.classes)
        self.fetched = []

    def __getitem__(self, index):
        self.fetched.append(index)
        return super().__getitem__(index)


def learn_shared(directory, name, processes=1):
    """Train a run of SHARED; returns its record, and the rows fetched in training, in order."""
    make, settings = SHARED[name]
    rows = WatchedRows(make())
    settings = {"learning_rate": 1e-3, "num_epochs": 2.0, "evals": 2, "log": print, **settings}
    model, measure = build_lm(CALM, VOCAB), code_nll
    if rows.classes is not None:
        model, measure = build_classifier(CALM, VOCAB, 3), lambda model: {"code_nll": 1.0}
    settings["batch_size"] //= processes
    record = learn(directory, rows, model=model, measure=measure, **settings)
    timed = min(settings["batch_size"], len(rows))  # the batch that chooses the precision
    return record, rows.fetched[timed:]


@pytest.fixture(scope="module")
def shared_by_two(built, tmp_path_factory):
    """A folder with the runs of SHARED, made by torchrun's two processes, and what they printed.

    In "command" is a run that the command line started.
    """
    directory = tmp_path_factory.mktemp("two")
    files = {"data_path": "sequences.jsonl", "vocab_path": "vocab.json"}
    words = ["train", *(f"--{name}={built.directory / file}" for name, file in files.items())]
    words += [f"--output_dir={directory / 'command'}", *SMALL.split()]
    paths = [str(Path(__file__).parent), *map(str, Path(__file__).parents[1:3])]
    script = directory / "two.py"
    script.write_text(TWO.format(paths=paths, directory=str(directory), words=words))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "--standalone", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return directory, done.stdout


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_learn_what_one_learns(name, shared_by_two, tmp_path):
    directory, _ = shared_by_two
    record = json.loads((directory / name / "training.json").read_text())
    alone, _ = learn_shared(tmp_path / name, name)
    assert record["finished"]
    for value in ("steps", "tokens"):
        assert record[value] == alone[value]
    one, two = (weights(at / name / "final_model") for at in (tmp_path, directory))
    # Muon's matrix products may run in bf16, which rounds to three digits.
    assert close(one, two, atol=5e-5 if name == "muon" else 1e-5)
    losses = [[line["loss"] for line in found["history"]] for found in (alone, record)]
    assert np.allclose(*losses, atol=1e-5)
    for rank in (0, 1):
        evals, _ = json.loads((directory / f"{name}-{rank}.json").read_text())
        assert table({"evals": evals}) == table(record)


def test_no_process_fetches_rows_of_another(shared_by_two):
    """In an epoch each row is fetched once, by one process; None is a row that fills a batch."""
    for name, (make, settings) in SHARED.items():
        fetched = [
            json.loads((shared_by_two[0] / f"{name}-{rank}.json").read_text())[1] for rank in (0, 1)
        ]
        rows, half = len(make()), settings["batch_size"] // 2
        per_epoch = math.ceil(rows / settings["batch_size"]) * half
        assert [len(rows_of_one) for rows_of_one in fetched] == [2 * per_epoch] * 2
        for epoch in (slice(per_epoch), slice(per_epoch, None)):
            seen = [row for one in fetched for row in one[epoch] if row is not None]
            assert sorted(seen) == list(range(rows))


def test_the_command_line_trains_in_two_processes_and_writes_once(shared_by_two):
    directory, said = shared_by_two
    assert said.count("measuring the best checkpoint") == 1
    record = json.loads((directory / "command" / "training.json").read_text())
    assert record["steps"] == 4 and record["tokens"] == 4 * 2 * 16 * 21


def test_one_process_speaks_for_all(shared_by_two):
    assert shared_by_two[1].count("13 rows, 8 steps") == 1  # by length


def test_the_last_batches_of_an_epoch_may_differ_in_size(tmp_path):
    """A classifier's loss is the mean over the rows of a step, however they are batched."""
    rows = rows_of_many_lengths(13)
    settings = {"num_epochs": 1.0, "evals": 1, "measure": lambda model: {"code_nll": 1.0}}
    found = []
    for size, passes in ((8, 1), (4, 2)):
        learn(
            tmp_path / str(size),
            Rows(rows, [i % 3 for i in range(13)]),
            model=build_classifier(CALM, VOCAB, 3),
            batch_size=size,
            grad_accumulation=passes,
            **settings,
        )
        found.append(weights(tmp_path / str(size) / "final_model"))
    assert close(*found, atol=1e-5)
