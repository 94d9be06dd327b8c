"""Batches: rows and their order in an epoch, collated; loss of classes; batches too large."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate.utils.memory import release_memory, should_reduce_batch_size
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, Sampler
from transformers import Trainer
from transformers.trainer_pt_utils import get_length_grouped_indices

from seqlm.data.table import Ids
from seqlm.errors import DataError
from seqlm.evaluation.scores import pad

IGNORED = -100  # PyTorch's "no loss here"


class Rows(Dataset):
    """Rows of ids, and for a classifier their classes. ::

        language model, two rows in a batch            classifier
        input_ids   2  45   6   3   4 509   5          2  45   6   3   4
                    2   9   3   4 507   5   0          2   9   3   4   0
        labels      2  45   6   3   4 509   5          3
                    2   9   3   4 507   5 -100         1

    GPT2LMHeadModel shifts the labels itself: shifting them here too would teach it to predict
    the token after the next. No attention mask is needed: the padding stands on the right, where
    causal attention never looks.
    """

    def __init__(
        self,
        ids: Sequence[Sequence[int]],
        classes: Sequence[int] | None = None,
        learned: np.ndarray | None = None,
    ):
        """`learned`, from `replay.learned_rows`, is saved with the model."""
        if classes is not None and len(ids) != len(classes):
            raise DataError(f"{len(ids)} rows, but {len(classes)} classes; each row needs one")
        if not len(ids):
            raise DataError("there are no rows to train on; put some into the train split")
        self.ids, self.classes, self.learned = Ids.of(ids), classes, learned

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | None) -> dict:
        """One row; for None (see `EpochOrder`) an empty one, with no token to count or predict."""
        row = {"input_ids": [] if index is None else self.ids[index]}
        if self.classes is None:
            return row
        return {**row, "label": IGNORED if index is None else self.classes[index]}


def collator(pad_id: int) -> Callable[[list[dict]], dict[str, torch.Tensor]]:
    """Puts rows into a batch: input_ids (B, T) and labels, (B, T) or (B,) (see `Rows`)."""

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        ids = [row["input_ids"] for row in rows]
        if "label" in rows[0]:
            labels = torch.tensor([row["label"] for row in rows])  # (B,)
        else:
            labels = pad(ids, fill=IGNORED)  # (B, T)
        return {"input_ids": pad(ids, fill=pad_id), "labels": labels}

    return collate


def mean_class_loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor):
    """Cross-entropy of labels (B,), summed and divided by all rows of the step, in nats.

    GPT-2's own is the mean over one batch; a mean of means is wrong where batches differ in size.
    """
    total = cross_entropy(outputs.logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / num_items_in_batch.sum()


class EpochOrder(Sampler):
    """The rows of an epoch, in an order that follows from the seed and the epoch alone.

    Trainer's own order by length takes whatever random numbers come next, so a run that was resumed
    within an epoch would go on in another order than it began in. Where several processes share the
    rows, every one needs as many batches as the others: None fills up the last ones. Accelerate
    would train on some rows twice.
    """

    def __init__(self, trainer: Trainer, rows: Rows):
        self.trainer, self.rows = trainer, len(rows)
        args = trainer.args
        self.batch = args.train_batch_size * args.world_size
        by_length = args.train_sampling_strategy == "group_by_length"
        self.lengths = rows.ids.lengths.tolist() if by_length else None

    def __len__(self) -> int:
        several = self.trainer.args.world_size > 1
        return math.ceil(self.rows / self.batch) * self.batch if several else self.rows

    def __iter__(self):
        args = self.trainer.args
        seed = args.data_seed + int(self.trainer.state.epoch or 0)
        generator = torch.Generator().manual_seed(seed)
        if self.lengths:
            group = self.batch * args.gradient_accumulation_steps
            yield from get_length_grouped_indices(self.lengths, group, generator=generator)
        else:
            yield from torch.randperm(self.rows, generator=generator).tolist()
        yield from [None] * (len(self) - self.rows)


class HalfBatches:
    """Passes over batches, on half the rows at a time from when memory ran out.

    The rows of a step, their order and the checkpoints stay as they are. (Accelerate's
    find_executable_batch_size begins anew, with fewer rows in a step.)
    """

    def __init__(self, log: Callable[[str], None] = lambda line: None):
        self.log, self.halved, self.step, self.done = log, False, 0, []

    def run(self, train: Callable[[dict], torch.Tensor], model, batch: dict, step: int = 0):
        """The loss of `batch`, whose gradients `train` adds to those of `step` in `model`."""
        if step != self.step:
            self.step, self.done = step, []
        self.done.append(batch)
        if not self.halved:
            try:
                return train(batch)
            except RuntimeError as error:
                if len(batch["labels"]) == 1 or not should_reduce_batch_size(error):
                    raise
            # No longer in `except`: the error holds the tensors of the pass that failed.
            self.log("memory ran out: from here on half the batch and twice the accumulation")
            self.halved = True
            model.zero_grad()  # the failed pass may have added some
            release_memory()
            for earlier in self.done[:-1]:
                _train_halves(train, earlier)
        return _train_halves(train, batch)


def _train_halves(train: Callable[[dict], torch.Tensor], batch: dict) -> torch.Tensor:
    halves = zip(*(tensor.chunk(2) for tensor in batch.values()), strict=True)
    return sum(train(dict(zip(batch, half, strict=True))) for half in halves)
