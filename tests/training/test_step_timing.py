"""Training steps timed side by side: slower ones take longer, and nothing else changes."""

from dataclasses import replace

import pytest
import torch

from seqlm.errors import ConfigError
from seqlm.models.gpt2 import gpt2_config
from seqlm.training import step_timing
from seqlm.training.step_timing import TrainingStep, time_training_steps


@pytest.fixture
def small(tiny, vocab) -> TrainingStep:
    return TrainingStep(gpt2_config(tiny, vocab), 2, 1, 8, "fp32")


def clock(monkeypatch, seconds):
    """Instead of steps: the order they came in, and `seconds` for each step's batch size."""
    order = []

    def timed(model, optimizer, batch, step):
        order.append(step.batch_size)
        return seconds[step.batch_size] + 0.001 * order.count(step.batch_size)

    monkeypatch.setattr(step_timing, "_time_once", timed)
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
