"""Three sizes: what a word stands for, what each weighs, and a table that keeps its promises."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
import yaml

from seqlm.cli import main
from seqlm.config import SIZES, ModelConfig, TrainConfig
from seqlm.data.tokens import default_vocab
from seqlm.errors import ConfigError
from seqlm.evaluation.estimates import Estimate
from seqlm.lab import sizes
from seqlm.lab.sizes import TrainingStep, time_training_steps
from seqlm.models.gpt2 import build_lm, fit_attention, gpt2_config

SETTINGS = ("n_layer", "n_head", "n_embd")
PLACES = ["--data_path", "a", "--vocab_path", "b"]


def settings(capsys, *words) -> tuple:
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)
    return tuple(found[name] for name in SETTINGS)


@pytest.fixture
def quick(monkeypatch):
    """Nothing is really timed: a step of the n-th size takes n / 10 seconds."""
    asked = []

    def timed(steps, rounds):
        asked.append({name: step.config.n_layer for name, step in steps.items()})
        slow = {name: len(asked) / 10 + (name == "fp32") for name in steps}
        return {
            name: Estimate(t, t, t + 0.01, rounds, "seconds per step") for name, t in slow.items()
        }

    monkeypatch.setattr(sizes, "time_training_steps", timed)
    return asked


# ---------------------------------------------------------------- a word for three settings


@pytest.mark.parametrize("command", ["train", "classify"])
@pytest.mark.parametrize("size", SIZES)
def test_a_size_sets_layers_heads_and_width(command, size, capsys):
    assert settings(capsys, command, *PLACES, "--size", size) == tuple(SIZES[size].values())
    assert settings(capsys, command, f"--size={size}") == tuple(SIZES[size].values())


def test_the_original_is_the_default(capsys):
    default = ModelConfig()
    assert settings(capsys, "train") == tuple(SIZES["original"].values())
    assert SIZES["original"] == {name: getattr(default, name) for name in SETTINGS}


def test_flags_and_lines_win_over_the_size_even_when_they_equal_a_default(tmp_path, capsys):
    assert settings(capsys, "train", "--size", "large", "--n_layer", "6") == (6, 12, 768)
    assert settings(capsys, "train", "--n_layer", "6", "--size", "large") == (6, 12, 768)
    mine = tmp_path / "mine.yaml"
    mine.write_text("n_embd: 384\nsize: nano\n")
    assert settings(capsys, "train", "--config", str(mine)) == (3, 4, 384)
    assert settings(capsys, "train", f"--config={mine}", "--size", "large") == (12, 12, 384)
    assert settings(capsys, "train", f"--config={mine}", "--n_head", "8") == (3, 8, 384)


def test_what_print_config_says_of_a_size_trains_that_size(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--size", "nano", "--print_config"])
    mine = tmp_path / "mine.yaml"
    mine.write_text(capsys.readouterr().out)
    assert settings(capsys, "train", "--config", str(mine)) == tuple(SIZES["nano"].values())


@pytest.mark.parametrize("text", ["size: [nano]", "size: {", "- size", "size: frog"])
def test_a_size_in_a_file_that_is_none_exits_with_2(text, tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["train", *PLACES, "--config", str(mine)])
    assert ended.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_training_tells_parameters_and_seconds_first(built, tmp_path, capsys):
    data = built.directory
    words = ["train", "--data_path", str(data / "sequences.jsonl"), "--vocab_path"]
    words += [str(data / "vocab.json"), "--size", "nano", "--n_layer", "1", "--max_steps", "1"]
    words += ["--output_dir", str(tmp_path), "--precision", "fp32", "--n_positions", "64"]
    assert main(words) == 0
    said = capsys.readouterr()
    parameters = (66 + 64) * 96 + (12 * 96 + 13) * 96 + 2 * 96
    before, _ = said.out.split("step 1 ·")
    assert f"{parameters:,} parameters, " in before
    assert re.search(r"this will take about \d+ s: ", before)
    assert said.err.startswith("size nano, but with n_layer 1 as set\n")


# ---------------------------------------------------------------- what each weighs


def test_parameters_are_counted_without_making_a_model(vocab, tiny):
    config = gpt2_config(tiny, vocab)
    made = sum(weight.numel() for weight in build_lm(tiny, vocab).parameters())
    assert sizes.parameters_of(config) == made
    found = {
        name: sizes.parameters_of(gpt2_config(ModelConfig(**shape), default_vocab()))
        for name, shape in SIZES.items()
    }
    assert 0.4e6 < found["nano"] < 0.6e6 and found["original"] == 11_238_912
    assert 85e6 < found["large"] < 87e6


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_takes_on_disk_what_was_said(vocab, tied, tmp_path):
    size = ModelConfig(n_layer=2, n_head=2, n_embd=64, tie_word_embeddings=tied)
    build_lm(size, vocab).save_pretrained(tmp_path)
    written = (tmp_path / "model.safetensors").stat().st_size
    wanted = 4 * sizes.parameters_of(gpt2_config(size, vocab))
    assert written == pytest.approx(wanted, rel=0.02)


def kept_for_backward(config, rows, length, precision) -> int:
    """Bytes that forward keeps for backward, counted one by one, weights left out."""
    model = build_lm(config, default_vocab()).train()
    fit_attention(model, length)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that none is reused
        return tensor

    ids = torch.zeros(rows, length, dtype=torch.long)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), autocast:
        model(input_ids=ids, labels=ids)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("rows", "length"), [(16, 32), (4, 256)])
def test_the_estimated_memory_is_near_what_a_step_keeps(precision, rows, length):
    size = ModelConfig(n_layer=3, n_head=4, n_embd=96)
    config = gpt2_config(size, default_vocab())
    shown = sizes.training_bytes(TrainingStep(config, rows, 1, length, precision))
    # Gradients and moments are not there yet, nor are the logits' gradients.
    counted = 16 * sizes.parameters_of(config) + 8 * 516 * rows * length
    counted += kept_for_backward(size, rows, length, precision)
    assert 0.85 < shown / counted < 1.15


# ---------------------------------------------------------------- the table


def test_the_digits_are_taken_where_no_data_is_given(quick, capsys):
    assert main(["sizes", "--batch_size", "64", "--num_epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert "no data given, so the digits" in said
    # Those of README: its training rows and its steps.
    assert "20,112 training rows of 21 tokens, a vocabulary of 516" in said
    assert "batches of 64, 1 epochs: 315 steps" in said
    assert [each["fp32"] for each in quick] == [3, 6, 12]
    (original,) = (line.split() for line in said.splitlines() if line.startswith("original"))
    assert original[1:9] == ["6", "x", "8", "x", "384", "11,238,912", "45", "MB"]
    assert original[-4:] == ["6)", "63", "s", "bf16"]  # 315 steps of 0.2 s
    assert "16 bytes per parameter" in said and "evaluation comes on top" in said


def test_small_sizes_are_printed_while_the_large_one_is_timed(monkeypatch, capsys):
    said = []

    def timed(steps, rounds):
        said.append(capsys.readouterr().out)
        return {name: Estimate(1.0, 1.0, 1.0, 6, "seconds per step") for name in steps}

    monkeypatch.setattr(sizes, "time_training_steps", timed)
    assert main(["sizes"]) == 0
    assert "timing takes about" in said[0] and "nano " not in said[0]
    assert said[1].startswith("nano ") and said[2].startswith("original ")


def test_ones_own_rows_are_counted_and_measured(built, quick, capsys):
    places = ["--data_path", str(built.directory / "sequences.jsonl")]
    places += ["--vocab_path", str(built.directory / "vocab.json")]
    assert main(["sizes", *places, "--json", "--grad_accumulation", "2", "--num_epochs", "3"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    lines = (built.directory / "sequences.jsonl").read_text().splitlines()
    rows = sum(json.loads(line)["meta"]["split"] == "train" for line in lines)
    assert found["rows"] == rows and found["tokens_a_row"] == 21 and found["vocab_size"] == 66
    assert found["steps"] == 3 * math.ceil(math.ceil(rows / 8) / 2)
    assert [each["size"] for each in found["sizes"]] == list(SIZES)
    nano = found["sizes"][0]
    assert nano["step"]["n"] == 6 and nano["seconds"] == pytest.approx(0.1 * found["steps"])
    assert nano["disk"] == 4 * nano["parameters"] and nano["precision"] == "bf16"
    assert "timing takes about" in said.err


def test_a_size_for_which_memory_is_short_is_weighed_but_not_timed(quick, monkeypatch, capsys):
    monkeypatch.setattr(sizes, "free_memory", lambda: 500_000_000)
    assert main(["sizes"]) == 0
    said = capsys.readouterr().out
    (large,) = (line for line in said.splitlines() if line.startswith("large"))
    assert large.endswith("not timed: more memory than is free") and "86,238,720" in large
    assert len(quick) == 2


def test_longer_rows_than_the_default_model_has_room_for_are_timed_too():
    task = sizes.load_task(TrainConfig(max_length=2000))
    assert task.training_step("nano").config.n_positions == 2000
    assert sizes.load_task(TrainConfig(max_length=10)).length == 10


def test_real_steps_are_taken(monkeypatch):
    monkeypatch.setattr(sizes, "SIZES", {"tiny": {"n_layer": 1, "n_head": 2, "n_embd": 16}})
    (found,) = sizes.measure_sizes(sizes.load_task(TrainConfig(max_steps=10)))
    assert found["step"].n == 6 and found["step"].has_interval
    assert found["seconds"] == 10 * found["step"].value > 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--data_path nowhere.jsonl --vocab_path nowhere.json", "nowhere.json"),
        ("--data_path nowhere.jsonl", "vocab_path"),
        ("--vocab_path nowhere.json", "data_path"),
        ("--batch_size 0", "batch_size"),
        ("--num_epochs 0", "num_epochs"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(words, named, capsys):
    assert main(["sizes", *words.split()]) == 2
    said = capsys.readouterr()
    assert named in said.err and len(said.err.splitlines()) == 1 and not said.out


def test_bytes_are_told_in_words():
    shown = [sizes.format_bytes(count) for count in (1_934_208, 44_955_648, 1_400_000_000)]
    assert shown == ["1.9 MB", "45 MB", "1.4 GB"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--activation_function frog", "knows no 'frog'"),
        ("--n_inner 0", "n_inner: must be at least"),
    ],
)
def test_a_field_of_gpt2s_that_cannot_be_is_refused_in_one_sentence(words, named, capsys):
    assert main(["train", *PLACES, *words.split()]) == 2
    said = capsys.readouterr().err
    assert named in said and len(said.splitlines()) == 1


# ---------------------------------------------------------------- steps timed side by side


@pytest.fixture
def small(tiny, vocab) -> TrainingStep:
    return TrainingStep(gpt2_config(tiny, vocab), 2, 1, 8, "fp32")


def clock(monkeypatch, seconds):
    """Instead of steps: the order they came in, and `seconds` for each step's batch size."""
    order = []

    def timed(model, optimizer, batch, step):
        order.append(step.batch_size)
        return seconds[step.batch_size] + 0.001 * order.count(step.batch_size)

    monkeypatch.setattr(sizes, "_time_once", timed)
    return order


def test_more_work_takes_longer(small):
    """So much more that a busy machine cannot hide it."""
    steps = {
        "small": small,
        "forty passes": replace(small, grad_accumulation=40),
        "wide": replace(small, batch_size=128, length=64),
    }
    medians = time_training_steps(steps, rounds=6)
    assert medians["small"].value < medians["forty passes"].value
    assert medians["small"].value < medians["wide"].value
    for a_step in medians.values():
        assert a_step.low <= a_step.value <= a_step.high and a_step.n == 6


def test_steps_alternate_and_the_first_of_each_is_not_counted(small, monkeypatch):
    order = clock(monkeypatch, {1: 0.1, 2: 0.2})
    steps = {"one": replace(small, batch_size=1), "two": small}
    medians = time_training_steps(steps, rounds=3)
    assert order == [1, 2, 2, 1, 1, 2, 2, 1]
    assert medians["one"].value == pytest.approx(0.103) and medians["one"].n == 3
    assert not medians["one"].has_interval  # three steps are too few for one


def test_a_very_slow_step_gets_two_steps_and_does_not_hold_up_the_rest(small, monkeypatch):
    clock(monkeypatch, {1: 60.0, 2: 0.2})
    medians = time_training_steps({"slow": replace(small, batch_size=1), "fast": small}, rounds=10)
    assert medians["slow"].n == 2 and medians["fast"].n == 10
    assert medians["slow"].value == pytest.approx(60.0025)
    # The median of ten: the sign test gives the second smallest and the second largest.
    assert medians["fast"].low == pytest.approx(0.203) and medians["fast"].high == pytest.approx(
        0.21
    )


def test_timing_does_not_advance_the_random_state(small):
    before = torch.get_rng_state()
    time_training_steps({"small": small}, rounds=2)
    assert torch.equal(before, torch.get_rng_state())


def test_rows_longer_than_the_model_are_refused(small):
    with pytest.raises(ConfigError, match="do not fit"):
        time_training_steps({"small": replace(small, length=65)}, rounds=2)
