"""Transformers' Trainer with our validation metric, progress lines and batches."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from seqlm.config import TrainConfig
from seqlm.data.table import Ids
from seqlm.errors import DataError
from seqlm.evaluation.scores import pad
from seqlm.models.gpt2 import labelled_logits_only
from seqlm.training.timing import Forecast, agree, count_steps
from seqlm.utils import format_duration, read_json

IGNORED = -100  # PyTorch's "no loss here"
LOG_SECONDS = 20.0  # between two lines of progress
BUSY = "less than half the speed of the forecast: another program is using the processor"


@dataclass(frozen=True, eq=False)
class ValidationMetric:
    """What is measured on val at every evaluation; `training/tasks.py` makes it."""

    name: str  # of the value that chooses the best checkpoint; lower is better
    measure: Callable[[torch.nn.Module], dict[str, float]]
    key: object  # the rows measured, for JSON; with another key it is another run


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

    def __init__(self, ids: Sequence[Sequence[int]], classes: Sequence[int] | None = None):
        if classes is not None and len(ids) != len(classes):
            raise DataError(f"{len(ids)} rows, but {len(classes)} classes; each row needs one")
        if not len(ids):
            raise DataError("there are no rows to train on; put some into the train split")
        self.ids, self.classes = Ids.of(ids), classes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | None) -> dict:
        """One row; for None (see `_Order`) an empty one, without a token to count or predict."""
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


class _EarlyStop(EarlyStoppingCallback):
    """Stops when `patience` evaluations in a row were no better."""

    def on_train_begin(self, args, state, control, **kwargs):
        """No warning needed: `MeasuringTrainer` keeps the best model itself."""


class _TimeLimit(TrainerCallback):
    """Stops after so many seconds, those of an interrupted run included."""

    def __init__(self, trainer: "MeasuringTrainer", limit: float):
        self.trainer, self.limit = trainer, limit

    def on_step_end(self, args, state, control, **kwargs):
        if agree(self.trainer.elapsed() > self.limit):
            control.should_training_stop = self.trainer.out_of_time = True


class _Progress(TrainerCallback):
    """A line now and then: the step, the loss, tokens per second of training, the time left.

    `step_tokens` are those of an average step: batches of long rows take longer than others.
    """

    def __init__(self, log: Callable[[str], None], forecast: Forecast, step_tokens: float):
        self.log, self.step_tokens = log, step_tokens
        self.forecast, self.best_speed = forecast, step_tokens / forecast.step
        self.loss, self.warned = None, False

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step, self.began = state.global_step, time.perf_counter()
        self.mark = self.last_logged = self.began
        self.seconds = self.pauses = self.evals = 0  # `seconds` will leave out the first step

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.loss = (logs or {}).get("loss", self.loss)

    def on_evaluate(self, args, state, control, **kwargs):
        self.evals += 1
        self.on_save(args, state, control)

    def on_save(self, args, state, control, **kwargs):
        self.mark, before = time.perf_counter(), self.mark
        self.pauses += self.mark - before

    def on_step_end(self, args, state, control, **kwargs):
        now, done = time.perf_counter(), state.global_step - self.first_step
        self.seconds, self.mark = self.seconds + now - self.mark, now
        if done == 1:
            self.seconds, self.seen, self.shown = 0.0, state.num_input_tokens_seen, (0.0, 0)
        if done == 1 or done != 10 and now - self.last_logged < LOG_SECONDS:
            return
        self.last_logged = now
        tokens = state.num_input_tokens_seen - self.seen
        speed = tokens / self.seconds
        evaluation = self.pauses / self.evals if self.evals else self.forecast.evaluation
        measured = Forecast(self.step_tokens / speed, evaluation)
        left = measured.seconds(state.global_step, state.max_steps, args.eval_steps)
        loss = "" if self.loss is None else f" · loss {self.loss:.3f}"
        line = f"step {state.global_step:,} of {state.max_steps:,}{loss} · {speed:,.0f} tokens/s · "
        line += f"{format_duration(left)} left"
        if done == 10:
            line += f"; corrected: {format_duration(now - self.began + left)} in all"
            self.best_speed = max(self.best_speed, speed)
        self.log(line)
        recent = (tokens - self.shown[1]) / (self.seconds - self.shown[0])
        self.shown = self.seconds, tokens
        if done >= 10 and recent < self.best_speed / 2 and not self.warned:
            self.warned = True
            self.log(BUSY)


def mean_class_loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor):
    """Cross-entropy of labels (B,), summed and divided by all rows of the step, in nats.

    GPT-2's own is the mean over one batch; a mean of means is wrong where batches differ in size.
    """
    total = cross_entropy(outputs.logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / num_items_in_batch.sum()


class _Order(Sampler):
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


class MeasuringTrainer(Trainer):
    """Trainer that evaluates with a `ValidationMetric`, keeps the best model and logs progress."""

    def __init__(
        self,
        *,
        metric: ValidationMetric,
        config: TrainConfig,
        forecast: Forecast,
        save: Callable[[str, dict | None], None],
        log: Callable[[str], None],
        **kwargs,
    ):
        early_stop = [_EarlyStop(config.patience)] if config.patience else []
        super().__init__(callbacks=early_stop, **kwargs)
        self.metric, self.save_as, self.log_line = metric, save, log
        self.earlier_seconds, self.started = 0.0, time.perf_counter()
        self.out_of_time = False
        self.remove_callback(PrinterCallback)
        one_epoch = replace(config, num_epochs=1.0, max_steps=-1)
        tokens = int(self.train_dataset.ids.lengths.sum())
        step_tokens = tokens / count_steps(one_epoch, len(self.train_dataset))
        self.add_callback(_Progress(log, forecast, step_tokens))
        if config.max_seconds is not None:
            self.add_callback(_TimeLimit(self, config.max_seconds))

    def run(self, checkpoint: Path | None) -> dict:
        """Train, from `checkpoint` if there is one, evaluate at the end; return what was logged."""
        if checkpoint is not None:
            history = read_json(checkpoint / "trainer_state.json")["log_history"]
            self.earlier_seconds = max((line.get("seconds", 0) for line in history), default=0)
        self.started = time.perf_counter()
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        evaluated = [line["step"] for line in self.state.log_history if _is_evaluation(line)]
        if not evaluated or evaluated[-1] != self.state.global_step:
            self.evaluate()
        return self._history()

    def elapsed(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self.earlier_seconds + time.perf_counter() - self.started

    def _get_train_sampler(self, train_dataset=None):
        return _Order(self, self.train_dataset)

    def compute_loss(self, model, inputs: dict, *args, **kwargs):
        labels, one_copy = inputs["labels"], self.args.n_gpu <= 1  # DataParallel splits a batch
        padded = isinstance(self.model, GPT2LMHeadModel) and bool((labels == IGNORED).any())
        if not (padded and one_copy):
            return super().compute_loss(model, inputs, *args, **kwargs)
        with labelled_logits_only(self.model, labels, IGNORED) as following:
            inputs = {**inputs, "shift_labels": following}
            return super().compute_loss(model, inputs, *args, **kwargs)

    def log(self, logs: dict, start_time: float | None = None) -> None:
        super().log({**logs, "seconds": round(self.elapsed(), 2)}, start_time)

    def save_whole(self, name: str) -> None:
        """Save the model under `name`, once; every process must call it."""
        # FSDP's processes hold a share of the weights each.
        weights = self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None
        if self.is_world_process_zero():
            self.save_as(name, weights)

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        values = {f"eval_{name}": v for name, v in self.metric.measure(self.model).items()}
        score, best = values[f"eval_{self.metric.name}"], self.state.best_metric
        is_best = bool(best is None or score < best)
        if is_best:
            self.save_whole("best_model")
        self.log(values)
        shown = " · ".join(f"{k.removeprefix('eval_')} {v:.3f}" for k, v in values.items())
        best_mark = "  (best so far)" * is_best
        self.log_line(f"step {self.state.global_step:,} · val: {shown}{best_mark}")
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, values
        )
        return values

    def _history(self) -> dict:
        """What was logged, as two tables: steps with loss, evaluations with values."""
        lines, name = self.state.log_history, self.metric.name
        evals = [_plain(line) for line in lines if _is_evaluation(line)]
        return {
            "history": [_plain(line) for line in lines if "loss" in line],
            "evals": evals,
            "best": min(evals, key=lambda line: math.inf if line[name] is None else line[name]),
            "steps": self.state.global_step,
            "stopped_early": self.state.global_step < self.args.max_steps,
            "tokens": self.state.num_input_tokens_seen,
            "seconds": evals[-1]["seconds"],
        }


def _is_evaluation(line: dict) -> bool:
    return any(name.startswith("eval_") for name in line)


def _plain(line: dict) -> dict:
    """A line of Trainer's log under our names; None for the infinities of fp16's first steps."""
    names = {"num_input_tokens_seen": "tokens"}
    return {
        names.get(name, name.removeprefix("eval_")): value if math.isfinite(value) else None
        for name, value in line.items()
    }
