"""Transformers' Trainer, wired once, for the language model and for the classifier.

What Trainer does well is left to it: the loop, AdamW, clipping, the schedule, mixed precision,
several processes, checkpoints. Three things are ours: the number that decides which model is best
(metrics.py, over the whole of val), what is printed while one waits, and picking up a killed run.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from seqlm.config import TrainConfig
from seqlm.errors import DataError
from seqlm.files import atomic_dir, read_json, sha256_of, write_json
from seqlm.metrics import pad
from seqlm.model import check_length, count_parameters, fit_attention
from seqlm.speed import choose_precision, in_words
from seqlm.tokenizer import save_tokenizer
from seqlm.versions import versions

RECORD = "training.json"
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


class _EarlyStop(EarlyStoppingCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        """Nothing to warn of here: `_Trainer` keeps the best model itself."""


class _Progress(TrainerCallback):
    """One line now and then: where we are, how fast, how long still."""

    def __init__(self, say: Callable[[str], None], every: float = 20.0):
        self.say, self.every = say, every
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
            f"{in_words(left)} left"
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


class _Trainer(Trainer):
    """Trainer, evaluated by our own ruler; keeps the best model and says how it goes."""

    def __init__(self, *, measure: Measure, save: Callable[[str], None], say, **kwargs):
        super().__init__(**kwargs)
        self.measure, self.save_as, self.say = measure, save, say
        self.earlier_seconds, self.started = 0.0, time.perf_counter()
        self.remove_callback(PrinterCallback)
        self.add_callback(_Progress(say))

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


def train(
    model,
    tokenizer,
    rows: Rows,
    measure: Measure,
    best_metric: str,
    config: TrainConfig,
    say: Callable[[str], None] = print,
) -> dict:
    """Train `model` on `rows`; write best_model/, final_model/ and training.json to output_dir.

    Args:
        model: from `model.build_lm`, `build_classifier` or `classifier_from_lm`.
        tokenizer: saved beside the model.
        rows: what to learn.
        measure: called on the model at every evaluation; lower is better.
        best_metric: the entry of what `measure` returns that decides which model is kept.
        config: how to train.
        say: where progress goes, a line at a time.

    A run of the very same settings that was killed goes on from its newest checkpoint, and one
    that is finished is not run again (`resume=False` starts anew). Returns the record that is also
    in training.json: history, evaluations, best step, seconds, precision, versions.
    """
    directory = Path(config.output_dir)
    check_length(model, max(map(len, rows.ids)))
    identity = _identity(model, rows, best_metric, config)
    record = _earlier(directory, identity) if config.resume else {}
    if record.get("finished"):
        say(f"{directory}: already trained with these very settings (resume=False trains anew)")
        return record
    checkpoint = newest_checkpoint(directory) if record else None

    collate = collator(tokenizer.pad_token_id)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    fit_attention(model, max(map(len, rows.ids)))
    size = min(config.batch_size, len(rows))
    precision = choose_precision(config.precision, model, collate([rows[i] for i in range(size)]))
    if checkpoint is None:
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    if record:
        precision["chosen"] = record["precision"]["chosen"]
    arguments = _arguments(config, rows, best_metric, precision["chosen"])
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collate,
        processing_class=tokenizer,
        measure=measure,
        save=lambda name: save_model(directory / name, model, tokenizer, arguments),
        say=say if arguments.process_index == 0 else lambda line: None,
        callbacks=[_EarlyStop(config.patience)] if config.patience else [],
        eval_dataset=rows,
    )
    record = {
        "identity": identity,
        "finished": False,
        "settings": {k: v for k, v in asdict(config).items() if k != "output_dir"},
        "parameters": count_parameters(model),
        "rows": len(rows),
        "precision": precision,
        "initial": record.get("initial") or measure(model),
        "versions": versions(),
    }
    if trainer.is_world_process_zero():
        write_json(directory / RECORD, record)
    _foretell(trainer, record, rows, checkpoint)
    _run(trainer, checkpoint, directory)
    record |= _history(trainer, best_metric)
    if trainer.is_world_process_zero():
        save_model(directory / "final_model", model, tokenizer, arguments)
        write_json(directory / RECORD, record)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()  # whoever goes on from here finds the files in place
    return record


def _arguments(config: TrainConfig, rows: Rows, best_metric: str, precision: str):
    arguments = TrainingArguments(
        output_dir=str(Path(config.output_dir) / "checkpoints"),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.grad_accumulation,
        num_train_epochs=config.num_epochs,
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        lr_scheduler_type=config.schedule,
        max_grad_norm=config.max_grad_norm,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="random" if _alike(rows) else "group_by_length",
        eval_strategy="steps",
        save_strategy="steps",
        save_total_limit=2,
        logging_strategy="steps",
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
    world = max(1, arguments.world_size) * max(1, arguments.n_gpu)
    a_pass = math.ceil(
        math.ceil(len(rows) / (config.batch_size * world)) / config.grad_accumulation
    )
    steps = config.max_steps if config.max_steps > 0 else math.ceil(a_pass * config.num_epochs)
    arguments.warmup_steps = round(steps * config.warmup_ratio)
    arguments.eval_steps = arguments.save_steps = max(1, math.ceil(steps / config.evals))
    arguments.logging_steps = max(1, steps // 200)
    arguments.max_steps = steps
    return arguments


def _alike(rows: Rows) -> bool:
    """Are all rows about as long? Then nothing is gained by sorting them into batches."""
    lengths = [len(row) for row in rows.ids]
    return max(lengths) <= 1.1 * min(lengths)


def _foretell(trainer: _Trainer, record: dict, rows: Rows, checkpoint: Path | None) -> None:
    """Say, before it starts, how long it will take, and what is about to be trained."""
    arguments, precision = trainer.args, record["precision"]
    times, steps = precision["step_seconds"], arguments.max_steps
    done = 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
    a_step = times.get(precision["chosen"], min(times.values()))
    guess = a_step * arguments.gradient_accumulation_steps * (steps - done)
    timed = ", ".join(f"{name} {seconds * 1000:,.0f} ms" for name, seconds in times.items())
    trainer.say(f"{record['parameters']:,} parameters, {len(rows):,} rows, {steps:,} steps")
    trainer.say(f"a pass over one batch takes {timed}; training in {precision['chosen']}")
    trainer.say(f"this will take about {in_words(guess)}, and evaluation a little on top")
    if checkpoint is not None:
        trainer.say(f"picking up the interrupted run at step {done:,}")


def _run(trainer: _Trainer, checkpoint: Path | None, directory: Path) -> None:
    if checkpoint is not None:
        history = read_json(checkpoint / "trainer_state.json")["log_history"]
        trainer.earlier_seconds = max((line.get("seconds", 0) for line in history), default=0)
    trainer.started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    evaluated = [line["step"] for line in trainer.state.log_history if _is_eval(line)]
    if not evaluated or evaluated[-1] != trainer.state.global_step:
        trainer.evaluate()


def _is_eval(line: dict) -> bool:
    return any(name.startswith("eval_") for name in line)


def _history(trainer: _Trainer, best_metric: str) -> dict:
    """What Trainer logged, as two tables: steps with their loss, evaluations with their values.

    A value that is no number (fp16 overflows while it finds its scale) becomes None.
    """
    lines = trainer.state.log_history
    evals = [_tidy(line) for line in lines if _is_eval(line)]
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


def save_model(directory: Path, model, tokenizer, arguments: TrainingArguments) -> None:
    """A whole Hugging Face model directory, swapped in at once. Older contents go."""
    with atomic_dir(directory) as aside:
        model.save_pretrained(aside)
        save_tokenizer(tokenizer, aside)
        torch.save(arguments, aside / "training_args.bin")


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest whole checkpoint below `directory`; one cut short in writing is passed over."""
    states = Path(directory).glob("checkpoints/checkpoint-*/trainer_state.json")
    found = [path.parent for path in states if _is_whole(path)]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def _is_whole(state: Path) -> bool:
    # Trainer writes this file last.
    try:
        return isinstance(read_json(state), dict)
    except DataError:
        return False


def _identity(model, rows: Rows, best_metric: str, config: TrainConfig) -> str:
    """The same for two runs exactly when they would do the same."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("output_dir", "resume")}
    size = {k: v for k, v in model.config.to_dict().items() if k != "transformers_version"}
    # Rounded, because the last digits of a sum change with the number of threads that take it.
    weights = [round(float(weight.detach().double().sum()), 4) for weight in model.parameters()]
    whole = json.dumps([settings, best_metric, size, weights, rows.ids, rows.classes], default=str)
    code = sha256_of([Path(__file__), Path(__file__).with_name("metrics.py")])
    return hashlib.sha256((whole + code).encode()).hexdigest()[:16]


def _earlier(directory: Path, identity: str) -> dict:
    """The record of an earlier run of the very same settings; {} when there is none."""
    if not (directory / RECORD).is_file():
        return {}
    record = read_json(directory / RECORD)
    same = record.get("identity") == identity
    whole = all((directory / name / "model.safetensors").is_file() for name in ("best_model",))
    return record if same and (whole or not record.get("finished")) else {}
