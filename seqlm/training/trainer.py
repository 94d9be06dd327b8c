"""Transformers' Trainer with our own ruler, our own progress lines, and rows as it wants them."""

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from seqlm.errors import DataError
from seqlm.evaluation.scores import pad
from seqlm.utils import format_duration

IGNORED = -100  # PyTorch's "no loss here"

Measure = Callable[[torch.nn.Module], dict[str, float]]


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
        self.ids, self.classes = ids, classes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        row = {"input_ids": self.ids[index]}
        return row if self.classes is None else {**row, "label": self.classes[index]}


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


class EarlyStop(EarlyStoppingCallback):
    """Stops when `patience` evaluations in a row were no better."""

    def on_train_begin(self, args, state, control, **kwargs):
        """Nothing to warn of here: `MeasuringTrainer` keeps the best model itself."""


class _Progress(TrainerCallback):
    """One line now and then: where we are, how fast, how long still."""

    def __init__(self, log: Callable[[str], None], every: float = 20.0):
        self.say, self.every = log, every
        self.first_step = self.started = self.last_said = self.loss = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step, self.started = state.global_step, time.perf_counter()
        self.first_tokens, self.last_said = state.num_input_tokens_seen, self.started

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(self, args, state, control, **kwargs):
        now, done = time.perf_counter(), state.global_step - self.first_step
        if done != 10 and now - self.last_said < self.every:
            return
        self.last_said = now
        left = (now - self.started) / done * (state.max_steps - state.global_step)
        speed = (state.num_input_tokens_seen - self.first_tokens) / (now - self.started)
        loss = "" if self.loss is None else f" · loss {self.loss:.3f}"
        self.say(
            f"step {state.global_step:,} of {state.max_steps:,}{loss} · {speed:,.0f} tokens/s · "
            f"{format_duration(left)} left"
        )


class _ByLength(LengthGroupedSampler):
    """Rows of like length together, in an order that follows from the seed and the epoch alone.

    Trainer's own takes whatever random numbers come next, so a run that was picked up within an
    epoch would go on in another order than it began in.
    """

    def __init__(self, trainer: Trainer, rows: Rows):
        args = trainer.args
        group = args.train_batch_size * args.gradient_accumulation_steps
        super().__init__(group, lengths=[len(row) for row in rows.ids])
        self.trainer = trainer

    def __iter__(self):
        seed = self.trainer.args.data_seed + int(self.trainer.state.epoch or 0)
        self.generator = torch.Generator().manual_seed(seed)
        return super().__iter__()


class MeasuringTrainer(Trainer):
    """Trainer, evaluated by our own ruler; keeps the best model and says how it goes."""

    def __init__(self, *, measure: Measure, save: Callable[[str], None], log, **kwargs):
        super().__init__(**kwargs)
        self.measure, self.save_as, self.say = measure, save, log
        self.earlier_seconds, self.started = 0.0, time.perf_counter()
        self.remove_callback(PrinterCallback)
        self.add_callback(_Progress(log))

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling_strategy == "group_by_length":
            return _ByLength(self, self.train_dataset)
        return super()._get_train_sampler(train_dataset)

    def log(self, logs: dict, start_time: float | None = None) -> None:
        passed = self.earlier_seconds + time.perf_counter() - self.started
        super().log({**logs, "seconds": round(passed, 2)}, start_time)

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        values = {f"eval_{name}": value for name, value in self.measure(self.model).items()}
        score, best = values[f"eval_{self.args.metric_for_best_model}"], self.state.best_metric
        is_best = bool(best is None or score < best)
        if is_best and self.is_world_process_zero():
            self.save_as("best_model")
        self.log(values)
        shown = " · ".join(f"{k.removeprefix('eval_')} {v:.3f}" for k, v in values.items())
        self.say(f"step {self.state.global_step:,} · val: {shown}{'  (best so far)' * is_best}")
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, values
        )
        return values


def is_evaluation(line: dict) -> bool:
    """Is this line of Trainer's log an evaluation, and not a step?"""
    return any(name.startswith("eval_") for name in line)


def history_of(trainer: MeasuringTrainer, best_metric: str) -> dict:
    """What a finished Trainer logged, as two tables: steps with loss, evaluations with values.

    A value that is no number (fp16 overflows while it finds its scale) becomes None.
    """
    lines = trainer.state.log_history
    evals = [_tidy(line) for line in lines if is_evaluation(line)]
    return {
        "finished": True,
        "history": [_tidy(line) for line in lines if "loss" in line],
        "evals": evals,
        "best": min(evals, key=lambda line: _or_infinite(line[best_metric])),
        "steps": trainer.state.global_step,
        "stopped_early": trainer.state.global_step < trainer.args.max_steps,
        "tokens": trainer.state.num_input_tokens_seen,
        "seconds": evals[-1]["seconds"],
    }


def _tidy(line: dict) -> dict:
    names = {"num_input_tokens_seen": "tokens"}
    return {
        names.get(name, name.removeprefix("eval_")): value if math.isfinite(value) else None
        for name, value in line.items()
    }


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
