"""Batches hold little padding, which costs no logits; rows of a batch do not see each other."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seqlm.config import ModelConfig, TrainConfig
from seqlm.data.tokenizer import build_tokenizer
from seqlm.data.tokens import default_vocab
from seqlm.models.gpt2 import build_lm
from seqlm.training.batches import EpochOrder, Rows, collator
from seqlm.training.timing import Forecast
from seqlm.training.trainer import MeasuringTrainer, ValidationMetric

VOCAB = default_vocab(12, 3)
SIZE = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64, dropout=0.0)
RAGGED = [[2, 7, 8, 9, 10, 3, 5], [2, 6, 3], [2, 9, 9, 3, 5]]  # 6 + 2 + 4 tokens to predict


def batch_of(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    return collator(VOCAB["<PAD>"])([{"input_ids": row} for row in rows])


@pytest.fixture
def trainer(tmp_path):
    metric = ValidationMetric("none", lambda model: {"none": 0.0}, None)
    config = TrainConfig(output_dir=tmp_path)
    model, tokenizer = build_lm(SIZE, VOCAB), build_tokenizer(VOCAB)
    plan, rows = {"steps": 1, "evals": 1}, Rows(RAGGED)
    return MeasuringTrainer(
        model, tokenizer, rows, metric, config, "run", "fp32", plan, Forecast(1.0, 0.0), print
    )


def gradients(model) -> list[torch.Tensor]:
    return [weight.grad.clone() for weight in model.parameters()]


def logits_computed(model) -> list[int]:
    """Grows by the number of positions that the output layer is applied to."""
    counts = []
    model.lm_head.register_forward_hook(
        lambda _, inputs, logits: counts.append(logits[..., 0].numel())
    )
    return counts


@pytest.mark.parametrize("n_items", [None, 12, 40], ids=["mean", "one batch", "accumulated"])
def test_padding_costs_no_logits_and_loss_and_gradients_are_those_of_all(trainer, n_items):
    model, batch = trainer.model.to("cpu"), batch_of(RAGGED)
    counts = logits_computed(model)
    items = {} if n_items is None else {"num_items_in_batch": torch.tensor(n_items)}
    expected = model(**batch, **items).loss
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    loss = trainer.compute_loss(model, batch, **items)
    loss.backward()
    assert counts == [3 * 7, 6 + 2 + 4]
    assert torch.allclose(loss, expected, rtol=1e-6)
    for ours, theirs in zip(gradients(model), wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)
    # What was changed for that one call is as it was before.
    assert model(**batch).logits.shape == (3, 7, len(VOCAB))


def test_a_label_left_out_within_a_row_is_not_computed_either(trainer):
    batch = batch_of(RAGGED)
    batch["labels"][0, 2] = -100
    counts = logits_computed(trainer.model)
    loss = trainer.compute_loss(trainer.model, batch)
    assert counts == [11]
    assert torch.allclose(loss, trainer.model(**batch).loss, rtol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_rows_of_a_batch_do_not_see_each_other_or_the_padding(trainer, attention):
    model = trainer.model.eval()
    model.set_attn_implementation(attention)
    with torch.no_grad():
        together = model(batch_of(RAGGED)["input_ids"]).logits
        for row, logits in zip(RAGGED, together, strict=True):
            alone = model(torch.tensor([row])).logits[0]
            assert torch.allclose(logits[: len(row)], alone, atol=1e-5)


def test_a_batch_is_as_long_as_its_longest_row_and_holds_little_padding():
    rng = np.random.default_rng(0)
    rows = Rows([[0] * int(length) for length in rng.integers(100, 1024, 1000)])
    args = SimpleNamespace(
        train_batch_size=8,
        world_size=1,
        gradient_accumulation_steps=1,
        train_sampling_strategy="group_by_length",
        data_seed=1,
    )
    fake = SimpleNamespace(args=args, state=SimpleNamespace(epoch=0))
    order = list(EpochOrder(fake, rows))
    assert sorted(order) == list(range(1000))
    batches = [batch_of([rows.ids[i] for i in order[k : k + 8]]) for k in range(0, 1000, 8)]
    padding = sum(int((batch["labels"] == -100).sum()) for batch in batches)
    positions = sum(batch["labels"].numel() for batch in batches)
    assert positions - padding == sum(map(len, rows.ids))
    assert padding / positions < 0.04  # 0.45 if every row were padded to 1,024 tokens
