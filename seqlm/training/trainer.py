"""Transformers' Trainer with our settings, validation metric and progress lines."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import (
    EarlyStoppingCallback,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from seqlm.atomic import atomic_dir, settle, write_manifest, writing
from seqlm.config import TrainConfig
from seqlm.data.tokenizer import save_tokenizer
from seqlm.errors import NotFiniteError, SeqlmError
from seqlm.models.gpt2 import default_device
from seqlm.ownership import CARD, foreign, set_aside
from seqlm.training.batches import IGNORED, EpochOrder, HalfBatches, Rows, collator, mean_class_loss
from seqlm.training.muon import build_optimizer
from seqlm.training.replay import LEARNED
from seqlm.training.timing import Forecast, Progress, TimeLimit, count_steps
from seqlm.utils import read_json

DECAY_SHARE = 0.2  # of the steps of warmup_stable_decay


@dataclass(frozen=True, eq=False)
class ValidationMetric:
    """What is measured on val at every evaluation; `training/tasks.py` makes it."""

    name: str  # of the value that chooses the best checkpoint; lower is better
    measure: Callable[[torch.nn.Module], dict[str, float]]
    key: object  # the rows measured, for JSON; with another key it is another run


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
        logging_nan_inf_filter=False,  # it would log another loss in place of one that is NaN
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
        identity: str,
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
        self.identity, self.started = identity, time.perf_counter()
        self.halves = HalfBatches(self.log_line)
        self.remove_callback(PrinterCallback)
        one_epoch = replace(config, num_epochs=1.0, max_steps=-1)
        step_tokens = int(rows.ids.lengths.sum()) / count_steps(one_epoch, len(rows))
        self.add_callback(Progress(self.log_line, forecast, step_tokens))
        self.time_limit = TimeLimit(self.elapsed, config.max_seconds)
        if config.max_seconds is not None:
            self.add_callback(self.time_limit)

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

    def training_step(self, model, inputs: dict, num_items_in_batch=None) -> torch.Tensor:
        """Trainer's own, in halves where memory runs out (see `HalfBatches`).

        Raises SeqlmError when the loss is no finite number: training diverged.
        """
        train = partial(super().training_step, model, num_items_in_batch=num_items_in_batch)
        if self.args.world_size > 1:  # the other processes would wait for a second half
            loss = train(inputs)
        else:
            loss = self.halves.run(train, model, inputs, self.state.global_step)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {float(loss)}", self.state.global_step + 1)
        return loss

    def _diverged(self, what: str, step: int) -> SeqlmError:
        best = self.state.best_global_step
        kept = f"best_model is that of step {best:,}" if best else "no model was saved"
        lower = self.config.learning_rate / 4
        return SeqlmError(
            f"{self.config.output_dir}: at step {step:,} {what}: training has diverged; {kept}. "
            f"Train again with a lower rate, such as --learning_rate {lower:.2g}"
        )

    def _save_checkpoint(self, *args, **kwargs) -> None:
        """Trainer's own; once it is on the disk, a manifest says that it is whole, and whose."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        with writing(folder):
            super()._save_checkpoint(*args, **kwargs)
        self.accelerator.wait_for_everyone()  # each process has written its random state
        if self.is_world_process_zero():
            settle(folder)
            write_manifest(folder, self.identity, folder.iterdir())

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
        folder, ours = self.config.output_dir / name, [CARD, "adapter"]
        with atomic_dir(folder, self.identity, ours) as aside:
            self.own_model.save_pretrained(aside, **weights)
            save_tokenizer(self.processing_class, aside)
            torch.save(self.args, aside / "training_args.bin")
            if self.train_dataset.learned is not None:
                np.save(aside / LEARNED, self.train_dataset.learned)
            if any(foreign(folder)):  # put there since the run began
                old = set_aside(folder.parent, [name])
                self.log_line(f"{folder}: somebody put files there; that folder is now in {old}")

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        try:
            values = {f"eval_{name}": v for name, v in self.metric.measure(self.model).items()}
        except NotFiniteError as error:
            raise self._diverged("the logits are not finite", self.state.global_step) from error
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
            return "max_seconds" if self.time_limit.reached else "patience"
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
