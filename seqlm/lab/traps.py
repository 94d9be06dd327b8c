"""Common mistakes in training and evaluation, made on purpose; no other code may use them.

Each function makes one mistake, which its docstring names. `trap_experiments` sets the metric that
it reports beside the correct one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from seqlm.data.records import Record
from seqlm.evaluation.estimates import Estimate, bootstrap
from seqlm.evaluation.metrics import ratio_of_sums
from seqlm.evaluation.scores import Rows, TokenScores, batches


@dataclass(frozen=True)
class Trap:
    """One mistake: the metric it reports, and the correct one of the same model or method."""

    name: str
    quantity: str  # that both numbers claim to measure
    reported: Estimate
    true: Estimate
    cause: str
    caught_by: str  # the test that catches the mistake

    @property
    def flatters(self) -> bool:
        """Whether the reported number looks better than the true one."""
        difference = self.reported.value - self.true.value
        return difference > 0 if self.true.unit == "share" else difference < 0

    def to_json(self) -> dict:
        """For a metrics file, and for `plot_traps`."""
        numbers = {"reported": self.reported.to_json(), "true": self.true.to_json()}
        better = "high" if self.true.unit == "share" else "low"
        return asdict(self) | numbers | {"unit": self.true.unit, "better": better}

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.quantity}\n"
            f"  reported   {self.reported}\n"
            f"  true       {self.true}\n"
            f"  cause      {self.cause}\n"
            f"  caught by  {self.caught_by}"
        )


def pad_rows(rows: Rows, length: int, pad_id: int) -> list[list[int]]:
    """Pad rows to `length` and use them as their own labels.

    Wrong: padding is predicted and counted like any token. Its labels must be -100.
    """
    return [[*row, *[pad_id] * (length - len(row))] for row in rows]


def shift_labels(rows: Rows) -> tuple[list[list[int]], list[list[int]]]:
    """Inputs, and labels shifted one place to the left.

    Wrong: GPT2LMHeadModel shifts its labels itself, so it learns the token after the next.
    """
    return [list(row[:-1]) for row in rows], [list(row[1:]) for row in rows]


def shift_inputs(rows: Rows) -> tuple[list[list[int]], list[list[int]]]:
    """The same with inputs and labels swapped.

    Wrong: the model's own shift undoes this one, so each token is predicted from itself.
    """
    labels, inputs = shift_labels(rows)
    return inputs, labels


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
        nll = cross_entropy(logits, target, reduction="none").double()  # (B, T-1)
        of_target = logits.gather(1, target[:, None])  # (B, 1, T-1)
        rank = (~(logits < of_target)).sum(1) - 1
        parts.append([column.cpu().numpy().ravel() for column in (target, nll, rank)])
    target, nll, rank = (np.concatenate(column) for column in zip(*parts, strict=True))
    row, position = np.divmod(np.arange(len(nll)), len(inputs[0]) - 1)
    return TokenScores(row, position + 1, target, nll, rank, len(inputs))


def split_rows(records: Sequence[Record], seed: int, test_size: float = 0.2) -> dict[str, list]:
    """Assign each row to "train" or "test" at random.

    Wrong: copies of one image, and its other layout, end up on both sides.
    `splits.split_records` keeps them together.
    """
    tested = np.random.default_rng(seed).random(len(records)) < test_size  # (N,)
    sides = {"train": ~tested, "test": tested}
    return {side: [records[i] for i in np.flatnonzero(chosen)] for side, chosen in sides.items()}


def prompts_with_class(rows: Rows, class_ids: Sequence[int]) -> list[list[int]]:
    """Each row up to its class token, that token included.

    Wrong: the input holds the answer. `tokens.reading_prompt` ends before it.
    """
    ends = [max(i for i, token in enumerate(row) if token in class_ids) + 1 for row in rows]
    return [list(row[:end]) for row, end in zip(rows, ends, strict=True)]


def mean_of_batch_means(scores: TokenScores, batch_size: int) -> Estimate:
    """The mean over batches of their mean NLL, with rows of similar length in one batch.

    Wrong: a token in a batch of short rows weighs more than one in a batch of long rows. The
    interval resamples rows, each with the weight that its batch gave it.
    """
    counts = np.bincount(scores.row, minlength=scores.n_rows)  # (rows,)
    sums = np.bincount(scores.row, weights=scores.nll, minlength=scores.n_rows)
    order = np.argsort(counts, kind="stable")[np.sort(counts).searchsorted(1) :]  # none empty
    grouped = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    weight = np.zeros(len(counts))
    for batch in grouped:
        weight[batch] = 1 / (len(grouped) * counts[batch].sum())
    parts = (weight * sums)[order], (weight * counts)[order]
    return bootstrap(ratio_of_sums, parts, "nats per token")


def select_on_test(hits: np.ndarray, halvings: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of the best candidate on the half of test that selected it, and on the other half.

    `hits` (C, N) bool: which candidate classifies which image correctly. Returns (halvings,) each.
    Wrong is to report the first: it belongs to the luckiest of C candidates, not to the best.
    """
    rng, half = np.random.default_rng(seed), hits.shape[1] // 2
    accuracies = []
    for _ in range(halvings):
        order = rng.permutation(hits.shape[1])
        here, elsewhere = hits[:, order[:half]].mean(1), hits[:, order[half:]].mean(1)
        best = here.argmax()
        accuracies.append((here[best], elsewhere[best]))
    reported, true = np.array(accuracies).T
    return reported, true


def truncate_right(rows: Rows, max_length: int) -> list[list[int]]:
    """The first `max_length` tokens of each row.

    Wrong: the class comes last and is lost. `tokens.shorten` drops the first codes instead.
    """
    return [list(row[:max_length]) for row in rows]
