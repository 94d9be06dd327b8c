"""Transformers' Trainer with our settings, validation metric and progress lines."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import (
    EarlyStoppingCallback,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from seqlm.config import TrainConfig
from seqlm.data.tokenizer import save_tokenizer
from seqlm.models.gpt2 import default_device
from seqlm.training.batches import IGNORED, EpochOrder, Rows, collator, mean_class_loss
from seqlm.training.muon import build_optimizer
from seqlm.training.replay import LEARNED
from seqlm.training.timing import Forecast, agree, count_steps
from seqlm.utils import atomic_dir, format_duration, read_json

DECAY_SHARE = 0.2  # of the steps of warmup_stable_decay
LOG_SECONDS = 20.0  # between two lines of progress
BUSY = "less than half the speed of the forecast: another program is using the processor"


@dataclass(frozen=True, eq=False)
class ValidationMetric:
    """What is measured on val at every evaluation; `training/tasks.py` makes it."""

    name: str  # of the value that chooses the best checkpoint; lower is better
    measure: Callable[[torch.nn.Module], dict[str, float]]
    key: object  # the rows measured, for JSON; with another key it is another run


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
        self.warned = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step, self.began = state.global_step, time.perf_counter()
        self.mark = self.last_logged = self.began
        self.pauses = self.evals = 0

    def on_evaluate(self, args, state, control, **kwargs):
        self.evals += 1
        self.on_save(args, state, control)

    def on_save(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.pauses, self.mark = self.pauses + now - self.mark, now

    def on_step_end(self, args, state, control, **kwargs):
        now, done = time.perf_counter(), state.global_step - self.first_step
        self.mark = now
        if done == 1:  # it is slow, and left out of the speed
            self.start, self.seen, self.shown = now, state.num_input_tokens_seen, (0.0, 0)
        if done == 1 or done != 10 and now - self.last_logged < LOG_SECONDS:
            return
        self.last_logged = now
        seconds = now - self.start - self.pauses
        tokens = state.num_input_tokens_seen - self.seen
        speed = tokens / seconds
        evaluation = self.pauses / self.evals if self.evals else self.forecast.evaluation
        measured = Forecast(self.step_tokens / speed, evaluation)
        left = measured.seconds(state.global_step, state.max_steps, args.eval_steps)
        losses = [line["loss"] for line in state.log_history if "loss" in line]
        loss = f" · loss {losses[-1]:.3f}" if losses else ""
        line = f"step {state.global_step:,} of {state.max_steps:,}{loss} · {speed:,.0f} tokens/s · "
        line += f"{format_duration(left)} left"
        if done == 10:
            line += f"; corrected: {format_duration(now - self.began + left)} in all"
            self.best_speed = max(self.best_speed, speed)
        self.log(line)
        recent = (tokens - self.shown[1]) / (seconds - self.shown[0])
        self.shown = seconds, tokens
        if done >= 10 and recent < self.best_speed / 2 and not self.warned:
            self.warned = True
            self.log(BUSY)


def _arguments(
    config: TrainConfig, rows: Rows, best_metric: str, precision: str, plan: dict[str, int]
) -> TrainingArguments:
    lengths = rows.ids.lengths
    # Where rows are about as long, nothing is gained by sorting them into batches.
    similar = lengths.max() <= 1.1 * lengths.min()
    evaluate_every = max(1, math.ceil(plan["steps"] / plan["evals"]))
    warmup = round(plan["steps"] * config.warmup_ratio)
    decay = min(round(plan["steps"] * DECAY_SHARE), plan["steps"] - warmup)
    shape = {"num_decay_steps": decay, "decay_type": "linear"}
    return TrainingArguments(
        output_dir=str(config.output_dir / "checkpoints"),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.grad_accumulation,
        num_train_epochs=config.num_epochs,
        max_steps=plan["steps"],
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=warmup,
        lr_scheduler_type=config.schedule,
        lr_scheduler_kwargs=shape if config.schedule == "warmup_stable_decay" else {},
        max_grad_norm=config.max_grad_norm,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=default_device() == "cpu",
        train_sampling_strategy="random" if similar else "group_by_length",
        eval_strategy="steps",
        eval_steps=evaluate_every,
        save_steps=evaluate_every,
        save_total_limit=2,
        logging_steps=max(1, plan["steps"] // 200),
        metric_for_best_model=best_metric,
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        include_num_input_tokens_seen="non_padding",
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
        seed=config.seed,
        data_seed=config.seed,
    )


class MeasuringTrainer(Trainer):
    """Trainer that evaluates with a `ValidationMetric`, keeps the best model and logs progress.

    The run has plan["steps"] steps in `precision`; `model` is on its device.
    """

    def __init__(
        self,
        model,
        tokenizer,
        rows: Rows,
        metric: ValidationMetric,
        config: TrainConfig,
        precision: str,
        plan: dict[str, int],
        forecast: Forecast,
        log: Callable[[str], None],
    ):
        optimizer = build_optimizer(model, config) if config.optimizer == "muon" else None
        super().__init__(
            model=model,
            # Trainer's own AdamW also works with FSDP; the schedule is always Trainer's.
            optimizers=(optimizer, None),
            args=_arguments(config, rows, metric.name, precision, plan),
            train_dataset=rows,
            eval_dataset=rows,  # not used, but Trainer wants some
            data_collator=collator(tokenizer.pad_token_id),
            processing_class=tokenizer,
            compute_loss_func=None if rows.classes is None else mean_class_loss,
            callbacks=[EarlyStoppingCallback(config.patience)] if config.patience else [],
        )
        self.own_model, self.metric, self.config = model, metric, config  # FSDP wraps self.model
        self.log_line = log if self.is_world_process_zero() else lambda line: None
        self.started, self.out_of_time = time.perf_counter(), False
        self.remove_callback(PrinterCallback)
        one_epoch = replace(config, num_epochs=1.0, max_steps=-1)
        step_tokens = int(rows.ids.lengths.sum()) / count_steps(one_epoch, len(rows))
        self.add_callback(_Progress(self.log_line, forecast, step_tokens))
        if config.max_seconds is not None:
            self.add_callback(_TimeLimit(self, config.max_seconds))

    def run(self, checkpoint: Path | None) -> dict:
        """Train, from `checkpoint` if there is one, evaluate at the end; return what was logged."""
        self.started = time.perf_counter()
        if checkpoint is not None:
            history = read_json(checkpoint / "trainer_state.json")["log_history"]
            self.started -= max((line.get("seconds", 0) for line in history), default=0)
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        evaluated = [line["step"] for line in self.state.log_history if _is_evaluation(line)]
        if not evaluated or evaluated[-1] != self.state.global_step:
            self.evaluate()
        return self._history()

    def elapsed(self) -> float:
        """Seconds of training, those before an interruption included."""
        return time.perf_counter() - self.started

    def _get_train_sampler(self, train_dataset=None):
        return EpochOrder(self, self.train_dataset)

    def compute_loss(self, model, inputs: dict, *args, **kwargs):
        """Trainer's own; a GPT-2 computes logits of the N tokens to predict, none of padding."""
        labels, one_copy = inputs["labels"], self.args.n_gpu <= 1  # DataParallel splits a batch
        padded = isinstance(self.model, GPT2LMHeadModel) and bool((labels == IGNORED).any())
        if not (padded and one_copy):
            return super().compute_loss(model, inputs, *args, **kwargs)
        following = pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()  # (B T,)
        places = (following != IGNORED).nonzero().squeeze(1)  # (N,)
        hook = self.model.lm_head.register_forward_pre_hook(  # (B, T, C) -> (N, C)
            lambda _, hidden: hidden[0].flatten(0, 1).index_select(0, places)
        )
        try:
            inputs = {**inputs, "shift_labels": following[places]}
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            hook.remove()

    def log(self, logs: dict, start_time: float | None = None) -> None:
        super().log({**logs, "seconds": round(self.elapsed(), 2)}, start_time)

    def save_whole(self, name: str) -> None:
        """Write a whole Hugging Face model directory, in place of an older one of that `name`.

        Every process must call it: under FSDP each holds a share of the weights.
        """
        weights = {}  # LoRA takes any argument as Trainer's wish for the adapter alone
        if self.is_fsdp_enabled:
            weights["state_dict"] = self.accelerator.get_state_dict(self.model)
        if not self.is_world_process_zero():
            return
        with atomic_dir(self.config.output_dir / name) as aside:
            self.own_model.save_pretrained(aside, **weights)
            save_tokenizer(self.processing_class, aside)
            torch.save(self.args, aside / "training_args.bin")
            if self.train_dataset.learned is not None:
                np.save(aside / LEARNED, self.train_dataset.learned)
            for path in aside.iterdir():
                path.chmod(0o644)  # safetensors keeps its file to its owner; a model is for sharing

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
            "stopped_by": self._stopped_by(),
            "tokens": self.state.num_input_tokens_seen,
            "seconds": evals[-1]["seconds"],
        }

    def _stopped_by(self) -> str | None:
        """ "max_seconds" or "patience", where one of them ended the run; else None."""
        steps, planned = self.state.global_step, self.args.max_steps
        if steps < planned:
            return "max_seconds" if self.out_of_time else "patience"
        shortened = planned < count_steps(self.config, len(self.train_dataset))
        return "max_seconds" if shortened else None


def _is_evaluation(line: dict) -> bool:
    return any(name.startswith("eval_") for name in line)


def _plain(line: dict) -> dict:
    """A line of Trainer's log under our names; None for the infinities of fp16's first steps."""
    names = {"num_input_tokens_seen": "tokens"}
    return {
        names.get(name, name.removeprefix("eval_")): value if math.isfinite(value) else None
        for name, value in line.items()
    }
