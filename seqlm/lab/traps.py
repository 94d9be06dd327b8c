"""The common ways to be fooled, done wrong on purpose, so that everyone can watch them happen.

Every function here is a mistake that somebody makes every day, and says in its docstring what is
wrong with it. So nothing that trains or measures in earnest imports this module; `retrained_traps`
and `measured_traps` do, to set beside each wrong number the right one, both in a `Trap`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from seqlm.data.records import Record
from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, bootstrap_interval
from seqlm.evaluation.metrics import ratio_of_sums
from seqlm.evaluation.scores import TokenScores, batches

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Trap:
    """One way to be fooled: the number it reports, and the honest one of the same model or method.

    Attributes:
        name: what was done wrong, in a few words.
        quantity: what both numbers claim to be.
        unit: of both numbers.
        reported: what whoever fell into it would publish.
        true: the honest number.
        cause: why they differ, in a sentence.
        caught_by: the test in tests/ that would have caught it.
        better: which way the quantity gets better.
    """

    name: str
    quantity: str
    unit: str
    reported: Estimate
    true: Estimate
    cause: str
    caught_by: str
    better: Literal["low", "high"]

    @property
    def flatters(self) -> bool:
        """Whether the reported number looks better than the true one; a few look worse."""
        lower = self.reported.value < self.true.value
        return lower if self.better == "low" else self.reported.value > self.true.value

    def to_json(self) -> dict:
        """For a metrics file, and for `plots.reported_against_true`."""
        numbers = {"reported": self.reported.to_json(), "true": self.true.to_json()}
        return asdict(self) | numbers

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.quantity}\n"
            f"  reported   {self.reported}\n"
            f"  true       {self.true}\n"
            f"  cause      {self.cause}\n"
            f"  caught by  {self.caught_by}"
        )


def with_padding(rows: Rows, length: int, pad_id: int) -> list[list[int]]:
    """Rows filled up to `length` that serve as their own labels.

    Wrong: the padding is predicted and counted like any token, and it is the easiest of all. Where
    it stands, labels must be -100, as `trainer.collator` has them.
    """
    return [[*row, *[pad_id] * (length - len(row))] for row in rows]


def shifted_twice(rows: Rows) -> tuple[list[list[int]], list[list[int]]]:
    """Inputs, and labels that are shifted one place to the left, as for a model of one's own.

    Wrong: GPT2LMHeadModel shifts its labels itself, so the token after the next is learned.
    """
    return [list(row[:-1]) for row in rows], [list(row[1:]) for row in rows]


def shifts_that_cancel(rows: Rows) -> tuple[list[list[int]], list[list[int]]]:
    """The same with inputs and labels changed over: an easy slip where both are lists of ids.

    Wrong: the model's own shift undoes this one, so each token is predicted from itself.
    """
    labels, inputs = shifted_twice(rows)
    return inputs, labels


@torch.inference_mode()
def scores_in_the_loop(model, inputs: Rows, labels: Rows) -> TokenScores:
    """What ``model(inputs, labels=labels).loss`` is the mean of, token by token.

    Wrong as soon as `labels` are anything but the inputs without padding: a training loop compares
    what the model says after inputs[t] with labels[t + 1], whatever stands there. `position` counts
    in the labels. Raises DataError when rows differ in length.
    """
    if len({len(row) for row in [*inputs, *labels]}) != 1:
        raise DataError("a training loop without -100 needs rows of one length; pad them first")
    parts = []
    for batch in batches(inputs, vocab_size=model.config.vocab_size):
        ids = torch.tensor([inputs[i] for i in batch], device=model.device)  # (B, T)
        wanted = torch.tensor([labels[i] for i in batch], device=model.device)[:, 1:]  # (B, T-1)
        logits = model(ids, use_cache=False).logits[:, :-1].float().transpose(1, 2)  # (B, V, T-1)
        nll = cross_entropy(logits, wanted, reduction="none").double()  # (B, T-1)
        of_wanted = logits.gather(1, wanted[:, None])  # (B, 1, T-1)
        rank = (~(logits < of_wanted)).sum(1) - 1
        parts.append([column.cpu().numpy().ravel() for column in (wanted, nll, rank)])
    target, nll, rank = (np.concatenate(column) for column in zip(*parts, strict=True))
    row, position = np.divmod(np.arange(len(nll)), len(inputs[0]) - 1)
    return TokenScores(row, position + 1, target, nll, rank, len(inputs))


def rows_at_random(records: Sequence[Record], seed: int, test_size: float = 0.2) -> dict[str, list]:
    """ "train" and "test", row by row, as a shuffle of the file would divide them.

    Wrong: copies of one picture, and its other layout, come to stand on both sides.
    `splits.split_records` keeps them together.
    """
    tested = np.random.default_rng(seed).random(len(records)) < test_size  # (N,)
    sides = {"train": ~tested, "test": tested}
    return {side: [records[i] for i in np.flatnonzero(chosen)] for side, chosen in sides.items()}


def prompts_with_the_class(rows: Rows, class_ids: Sequence[int]) -> list[list[int]]:
    """Of each row all up to its class token, and that token, too.

    Wrong: the answer stands in the question, and a classifier need only repeat it. The question
    ends before it: `layout.reading_prompt`.
    """
    ends = [max(i for i, token in enumerate(row) if token in class_ids) + 1 for row in rows]
    return [list(row[:end]) for row, end in zip(rows, ends, strict=True)]


def mean_of_batch_means(scores: TokenScores, batch_size: int) -> Estimate:
    """Rows in batches by their number of tokens; a mean for each batch; and the mean of those.

    Wrong: a token in a batch of short rows weighs more than one in a batch of long rows. Rows are
    resampled for the interval, each with the weight that its batch gave it.
    """
    counts = np.bincount(scores.row, minlength=scores.n_rows)  # (rows,)
    sums = np.bincount(scores.row, weights=scores.nll, minlength=scores.n_rows)
    order = np.argsort(counts, kind="stable")[np.sort(counts).searchsorted(1) :]  # none empty
    grouped = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    weight = np.zeros(len(counts))
    for batch in grouped:
        weight[batch] = 1 / (len(grouped) * counts[batch].sum())
    parts = (weight * sums)[order], (weight * counts)[order]

    value, ends = float(ratio_of_sums(*parts)), bootstrap_interval(ratio_of_sums, parts)
    return Estimate(value, *ends, len(order), "nats per token")


def picked_on_test(hits: np.ndarray, halvings: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of many candidates on a random half of test: its share right there, and elsewhere.

    `hits` (C, N) bool says which candidate is right about which image. Returns, for each of
    `halvings`, the accuracy on the half that chose it and on the other half, (halvings,) each.
    Wrong is to report the first: it is the luckiest of C draws, not the best of C models.
    """
    rng, half = np.random.default_rng(seed), hits.shape[1] // 2
    found = []
    for _ in range(halvings):
        order = rng.permutation(hits.shape[1])
        here, elsewhere = hits[:, order[:half]].mean(1), hits[:, order[half:]].mean(1)
        best = here.argmax()
        found.append((here[best], elsewhere[best]))
    reported, true = np.array(found).T
    return reported, true


def cut_from_the_right(rows: Rows, max_length: int) -> list[list[int]]:
    """Rows of at most `max_length` tokens: what stands beyond is dropped.

    Wrong: the class stands last, so it goes first. `layout.shorten` cuts codes, and from the left.
    """
    return [list(row[:max_length]) for row in rows]
