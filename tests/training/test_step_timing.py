"""Steps timed side by side: what is slower is found slower, and nothing else is touched."""

from dataclasses import replace

import pytest
import torch
from samples import record

from seqlm.config import TrainConfig
from seqlm.data.tokenizer import build_tokenizer
from seqlm.errors import ConfigError, DataError
from seqlm.models.gpt2 import build_lm, gpt2_config
from seqlm.training import step_timing as recipe_speed
from seqlm.training.step_timing import Recipe, recipe_of, step_seconds
from seqlm.training.train import train
from seqlm.training.trainer import Rows
from seqlm.utils import write_json


@pytest.fixture
def small(tiny, vocab) -> Recipe:
    return Recipe(gpt2_config(tiny, vocab), 2, 1, 8, "fp32")


def clock(monkeypatch, seconds):
    """Instead of steps: the order they came in, and `seconds` for each recipe's batch size."""
    order = []

    def timed(model, optimizer, batch, recipe):
        order.append(recipe.batch_size)
        return seconds[recipe.batch_size] + 0.001 * order.count(recipe.batch_size)

    monkeypatch.setattr(recipe_speed, "_timed", timed)
    return order


def test_more_work_takes_longer(small):
    """So much more that a busy machine cannot hide it."""
    wide = replace(small, batch_size=128, length=4)
    recipes = {
        "small": small,
        "forty passes": replace(small, grad_accumulation=40),
        "wide": wide,
        "wide and padded": replace(wide, padded_to=64),
    }
    found = step_seconds(recipes, steps=6)
    assert found["small"].value < found["forty passes"].value
    assert found["wide"].value < found["wide and padded"].value
    for a_step in found.values():
        assert a_step.low <= a_step.value <= a_step.high and a_step.n == 6


def test_steps_alternate_and_the_first_of_each_is_not_counted(small, monkeypatch):
    order = clock(monkeypatch, {1: 0.1, 2: 0.2})
    recipes = {"one": replace(small, batch_size=1), "two": small}
    found = step_seconds(recipes, steps=3)
    assert order == [1, 2, 2, 1, 1, 2, 2, 1]
    assert found["one"].value == pytest.approx(0.103) and found["one"].n == 3
    assert not found["one"].has_interval  # three steps are too few for one


def test_a_very_slow_recipe_gets_two_steps_and_does_not_hold_up_the_rest(small, monkeypatch):
    clock(monkeypatch, {1: 60.0, 2: 0.2})
    found = step_seconds({"slow": replace(small, batch_size=1), "fast": small}, steps=10)
    assert found["slow"].n == 2 and found["fast"].n == 10
    assert found["slow"].value == pytest.approx(60.0025)
    # The median of ten: the sign test gives the second smallest and the second largest.
    assert found["fast"].low == pytest.approx(0.203) and found["fast"].high == pytest.approx(0.21)


def test_padding_changes_the_time_and_not_the_loss(small):
    """That is why a padded recipe learns the same."""
    model, _, batch, recipe = recipe_speed._stage(replace(small, padded_to=40))
    assert batch["input_ids"].shape == (2, 40)
    cut = {name: tensor[:, : recipe.length] for name, tensor in batch.items()}
    model.eval()
    torch.testing.assert_close(model(**batch).loss, model(**cut).loss)


def test_nobodys_random_numbers_are_used_up(small):
    before = torch.get_rng_state()
    step_seconds({"small": small}, steps=2)
    assert torch.equal(before, torch.get_rng_state())


def test_rows_longer_than_the_model_are_refused(small):
    with pytest.raises(ConfigError, match="do not fit"):
        step_seconds({"small": replace(small, padded_to=65)}, steps=2)


def test_the_recipe_of_a_run_is_read_off_its_record(tmp_path, tiny, vocab):
    """Rows of 6 and 10 tokens are 8 long on average; padding is not counted."""
    config = TrainConfig(tmp_path, batch_size=4, num_epochs=1.5, precision="fp32", evals=2)
    rows = Rows([[2, *[7] * (4 + 4 * (i % 2)), 5] for i in range(8)])
    model = build_lm(tiny, vocab)
    train(
        model, build_tokenizer(vocab), rows, lambda m: {"code_nll": 1.0}, "code_nll", config,
        log=lambda line: None,
    )  # fmt: skip
    found = recipe_of(tmp_path)
    assert (found.batch_size, found.grad_accumulation, found.length) == (4, 1, 8)
    assert (found.precision, found.max_grad_norm, found.padded_to) == ("fp32", 1.0, None)
    assert found.config.n_embd == tiny.n_embd
    step_seconds({"it": found}, steps=2)


def test_an_unfinished_run_has_no_recipe_yet(tmp_path):
    write_json(tmp_path / "training.json", {**record(), "finished": False})
    with pytest.raises(DataError, match="not finished"):
        recipe_of(tmp_path)
