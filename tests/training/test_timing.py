"""Precision, forecast and progress, with step times and clocks that the tests set themselves."""

from types import SimpleNamespace

import pytest
import torch

from seqlm.config import TrainConfig
from seqlm.models.gpt2 import build_lm
from seqlm.training import timing, trainer
from seqlm.training.muon import build_optimizer
from seqlm.training.timing import BUSY, Forecast, choose_precision, plan_steps, update_seconds

LONG = {"num_epochs": 1000.0, "batch_size": 4}


@pytest.fixture
def model(tiny, vocab):
    return build_lm(tiny, vocab)


@pytest.fixture
def batch(vocab):
    ids = torch.randint(len(vocab), (2, 8), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test, or a pass that it times, moves it."""
    now = SimpleNamespace(seconds=0.0)
    for module in (timing, trainer):
        monkeypatch.setattr(module.time, "perf_counter", lambda: now.seconds)
    return now


@pytest.fixture
def passes(clock, monkeypatch):
    """The precisions that were timed, in order; `passes.seconds` are those of each."""
    order = SimpleNamespace(timed=[], seconds={"fp32": 0.1, "bf16": 0.12})

    def timed(model, batch, precision):
        order.timed.append(precision)
        clock.seconds += order.seconds[precision]
        return order.seconds[precision]

    monkeypatch.setattr(timing, "step_seconds", timed)
    monkeypatch.setattr(timing, "has_native_bf16", lambda: True)
    return order


# ---------------------------------------------------------------- precision


def test_a_precision_that_is_clearly_slower_is_timed_once(passes, model, batch):
    passes.seconds = {"fp32": 0.25, "bf16": 0.1}
    found = choose_precision(TrainConfig(max_steps=10_000), model, batch, 100)
    # A warm-up of each, a pass of each, and then bf16 alone.
    assert passes.timed == ["fp32", "bf16", "fp32", "bf16", "bf16", "bf16"]
    assert found["chosen"] == "bf16" and found["step_seconds"] == {"fp32": 0.25, "bf16": 0.1}
    assert found["timing_seconds"] == pytest.approx(2 * 0.25 + 4 * 0.1)


def test_two_that_are_about_as_fast_are_timed_in_turns(passes, model, batch):
    found = choose_precision(TrainConfig(max_steps=10_000), model, batch, 100)
    assert passes.timed == ["fp32", "bf16"] * 4 and found["chosen"] == "fp32"


@pytest.mark.parametrize(
    "short", [{"max_steps": 20}, {"max_steps": 10_000, "max_seconds": 5.0}, {"num_epochs": 1.0}]
)
def test_of_a_short_run_no_more_than_one_pass_is_timed(passes, model, batch, short):
    choose_precision(TrainConfig(**short), model, batch, 100)
    assert passes.timed == ["fp32", "bf16", "fp32", "bf16"]


def test_a_precision_asked_for_is_timed_alone(passes, model, batch):
    found = choose_precision(TrainConfig(precision="bf16", max_steps=10_000), model, batch, 100)
    assert set(passes.timed) == {"bf16"} and found["asked"] == found["chosen"] == "bf16"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_timing_leaves_weights_gradients_and_random_numbers_alone(model, batch, optimizer):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    random = torch.get_rng_state()
    choose_precision(TrainConfig(), model, batch, 100)
    made = build_optimizer(model, TrainConfig(optimizer=optimizer, learning_rate=0.1))
    assert update_seconds(model, made, 1.0) > 0
    assert torch.equal(torch.get_rng_state(), random)
    after = model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(weight.grad is None for weight in model.parameters())


def test_the_second_step_of_the_optimizer_is_the_one_that_is_timed(clock, model):
    class Slow(torch.optim.SGD):
        def step(self):
            super().step()
            clock.seconds += 3.0 if clock.seconds == 0 else 0.5

    assert update_seconds(model, Slow(model.parameters(), lr=0.1), 1.0) == 0.5


# ---------------------------------------------------------------- forecast


def test_a_forecast_counts_steps_evaluations_and_saving():
    forecast = Forecast(step=0.5, evaluation=2.0)
    assert forecast.seconds(0, 100, 10) == 100 * 0.5 + 10 * 2.0
    assert forecast.seconds(0, 101, 10) == 101 * 0.5 + 11 * 2.0  # the last model, too
    assert forecast.seconds(35, 100, 10) == 65 * 0.5 + 7 * 2.0  # of a resumed run


@pytest.mark.parametrize(
    ("settings", "seconds", "plan"),
    [
        ({}, (0.1, 1.0), {"steps": 6000, "evals": 6}),
        ({"max_seconds": 100.0}, (0.125, 1.0), {"steps": 752, "evals": 6}),
        ({"max_seconds": 100.0, "max_steps": 50}, (0.1, 1.0), {"steps": 50, "evals": 6}),
        ({"max_seconds": 100.0}, (0.125, 10.0), {"steps": 640, "evals": 2}),
        ({"max_seconds": 0.01}, (0.1, 1.0), {"steps": 10, "evals": 1}),
    ],
)
def test_steps_and_evaluations_are_planned_to_fit_the_time_limit(settings, seconds, plan):
    config = TrainConfig(**LONG, evals=6, **settings)
    assert plan_steps(config, 24, Forecast(*seconds)) == plan


# ---------------------------------------------------------------- progress


def run(clock, step_seconds, forecast, evaluate_every=1000):
    """The lines of a run whose steps take `step_seconds`, of 100 tokens each."""
    lines = []
    progress = timing.Progress(lines.append, forecast, step_tokens=100)
    state = SimpleNamespace(global_step=0, num_input_tokens_seen=0, max_steps=len(step_seconds))
    state.log_history = []
    args = SimpleNamespace(eval_steps=evaluate_every)
    progress.on_train_begin(args, state, None)
    for seconds in step_seconds:
        clock.seconds += seconds
        state.global_step += 1
        state.num_input_tokens_seen += 100
        progress.on_step_end(args, state, None)
        if state.global_step % evaluate_every == 0:
            clock.seconds += 3.0
            progress.on_evaluate(args, state, None)
            clock.seconds += 2.0
            progress.on_save(args, state, None)
    return lines


def test_after_ten_steps_the_forecast_is_corrected_once(clock):
    # The first step, which is slow, is in the whole but not in the speed.
    lines = run(clock, [5.0] + 49 * [1.0], Forecast(0.9, 4.0))
    assert lines[0] == "step 10 of 50 · 100 tokens/s · 44 s left; corrected: 58 s in all"
    assert sum("corrected" in line for line in lines) == 1 and BUSY not in lines


def test_the_time_left_counts_evaluations_as_long_as_they_took(clock):
    lines = run(clock, 50 * [1.0], Forecast(1.0, 1.0), evaluate_every=5)
    # 40 steps, and 8 evaluations of 5 s; speed is that of training alone.
    assert lines[0] == "step 10 of 50 · 100 tokens/s · 80 s left; corrected: 2 min in all"


def test_half_the_forecast_speed_is_said_once_to_be_another_programs_doing(clock):
    slow = run(clock, 50 * [0.5] + 50 * [1.2] + 50 * [0.5] + 50 * [1.2], Forecast(0.5, 1.0))
    assert slow.count(BUSY) == 1
    assert slow[slow.index(BUSY) - 1].startswith("step 67 ")  # 20 s after the line before
    assert BUSY not in run(clock, 100 * [0.9], Forecast(0.5, 1.0))


def test_a_run_that_is_slow_from_its_beginning_says_so_after_ten_steps(clock):
    assert run(clock, 15 * [1.2], Forecast(0.5, 1.0))[1] == BUSY
    assert run(clock, 12 * [30.0], Forecast(10.0, 1.0)).count(BUSY) == 1


def test_a_run_faster_than_its_forecast_is_measured_against_itself(clock):
    assert BUSY in run(clock, 20 * [0.5] + 80 * [1.2], Forecast(1.0, 1.0))
