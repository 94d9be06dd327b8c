"""What notebook how_to_be_fooled measures its bugs with; the bugs themselves are in its cells.

No other code may use this module. All rows are in the read layout and of one length.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from seqlm.config import ModelConfig
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.scores import Rows, TokenScores, batches
from seqlm.models.gpt2 import default_device, fit_attention

BATCH = 32
LEARNING_RATE = 1e-2  # high, and right for models this small


@dataclass(frozen=True)
class Trap:
    """One mistake: the metric it reports, and the correct one of the same model or method."""

    name: str
    quantity: str  # that both numbers claim to measure
    reported: Estimate
    true: Estimate
    cause: str
    caught_by: str  # the test that catches the mistake

    def to_json(self) -> dict:
        """For a metrics file."""
        return asdict(self) | {k: getattr(self, k).to_json() for k in ("reported", "true")}

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.quantity}\n"
            f"  reported   {self.reported}\n"
            f"  correct    {self.true}\n"
            f"  cause      {self.cause}\n"
            f"  caught by  {self.caught_by}"
        )


def small_size(n_positions: int) -> ModelConfig:
    """Two layers, 64 wide: trained in seconds."""
    return ModelConfig(n_layer=2, n_head=2, n_embd=64, n_positions=n_positions, dropout=0.0)


def fit_small_model(
    model, inputs: Rows, labels: Sequence, steps: int, seed: int, batch_size: int = BATCH
):
    """Train on ``model(inputs, labels=labels).loss``; returns the model."""
    model.to(default_device()).train()
    fit_attention(model, len(inputs[0]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = rng.integers(0, len(inputs), batch_size)
        batch = (torch.tensor([some[i] for i in chosen]) for some in (inputs, labels))
        ids, targets = (tensor.to(model.device) for tensor in batch)
        loss = model(ids, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def score_training_loop(model, inputs: Rows, labels: Rows) -> TokenScores:
    """The losses of which ``model(inputs, labels=labels).loss`` is the mean.

    Wrong unless `labels` are the inputs without padding: the loop compares the prediction after
    inputs[t] with labels[t + 1]. `position` counts in the labels; all rows have one length.
    """
    parts = []
    for batch in batches(inputs, vocab_size=model.config.vocab_size):
        ids = torch.tensor([inputs[i] for i in batch], device=model.device)  # (B, T)
        target = torch.tensor([labels[i] for i in batch], device=model.device)[:, 1:]  # (B, T-1)
        logits = model(ids, use_cache=False).logits[:, :-1].float().transpose(1, 2)  # (B, V, T-1)
        loss = cross_entropy(logits, target, reduction="none").double()  # (B, T-1)
        of_target = logits.gather(1, target[:, None])  # (B, 1, T-1)
        rank = (~(logits < of_target)).sum(1) - 1
        parts.append([column.cpu().numpy().ravel() for column in (target, loss, rank)])
    target, loss, rank = (np.concatenate(column) for column in zip(*parts, strict=True))
    row, position = np.divmod(np.arange(len(loss)), len(inputs[0]) - 1)
    return TokenScores(row, position + 1, target, loss, rank, len(inputs))
