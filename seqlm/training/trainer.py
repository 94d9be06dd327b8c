"""Transformers' Trainer with our validation metric and progress lines."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import (
    EarlyStoppingCallback,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)

from seqlm.config import TrainConfig
from seqlm.models.gpt2 import labelled_logits_only
from seqlm.training.batches import IGNORED, EpochOrder
from seqlm.training.timing import Forecast, agree, count_steps
from seqlm.utils import format_duration, read_json

LOG_SECONDS = 20.0  # between two lines of progress
BUSY = "less than half the speed of the forecast: another program is using the processor"


@dataclass(frozen=True, eq=False)
class ValidationMetric:
    """What is measured on val at every evaluation; `training/tasks.py` makes it."""

    name: str  # of the value that chooses the best checkpoint; lower is better
    measure: Callable[[torch.nn.Module], dict[str, float]]
    key: object  # the rows measured, for JSON; with another key it is another run


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
        return EpochOrder(self, self.train_dataset)

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
