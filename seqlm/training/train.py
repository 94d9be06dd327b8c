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
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import TrainingArguments

from seqlm.config import TrainConfig
from seqlm.data.tokenizer import save_tokenizer
from seqlm.errors import DataError
from seqlm.models.gpt2 import check_length, count_parameters, default_device, fit_attention
from seqlm.training.timing import choose_precision
from seqlm.training.trainer import (
    EarlyStop,
    Measure,
    MeasuringTrainer,
    Rows,
    collator,
    history_of,
    is_evaluation,
)
from seqlm.utils import (
    atomic_dir,
    check_folder,
    code_fingerprint,
    format_duration,
    machine,
    read_json,
    versions,
    write_json,
)

RECORD = "training.json"


def train(
    model,
    tokenizer,
    rows: Rows,
    measure: Measure,
    best_metric: str,
    config: TrainConfig,
    log: Callable[[str], None] = print,
    also: object = None,
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
        also: whatever else decides the outcome, such as the rows that `measure` looks at; with
            another `also` it is another run.

    A run of the very same settings that was killed goes on from its newest checkpoint, and one
    that is finished is not run again (`resume=False` starts anew). Returns the record that is also
    in training.json: history, evaluations, best step, seconds, precision, versions.
    """
    directory = Path(config.output_dir)
    check_folder(directory)
    check_length(model, max(map(len, rows.ids)))
    identity = _identity(model, tokenizer, rows, best_metric, config, also)
    record = _earlier(directory, identity) if config.resume else {}
    if record.get("finished"):
        log(f"{directory}: already trained with these very settings (--resume false trains anew)")
        return record
    if config.resume and not record and (directory / RECORD).is_file():
        log(f"{directory}: holds a run of other settings; this one takes its place")
    checkpoint = newest_checkpoint(directory) if record else None

    trainer, precision = _wired(model, tokenizer, rows, measure, best_metric, config, record, log)
    if checkpoint is None:
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    record = {
        "identity": identity,
        "finished": False,
        "settings": {k: v for k, v in asdict(config).items() if k != "output_dir"},
        "parameters": count_parameters(model),
        "rows": len(rows),
        "precision": precision,
        "initial": record.get("initial") or measure(model),
        "machine": machine(),
        "versions": versions(),
    }
    if trainer.is_world_process_zero():
        write_json(directory / RECORD, record)
    _foretell(trainer, record, rows, checkpoint)
    _run(trainer, checkpoint)
    record |= history_of(trainer, best_metric)
    if trainer.is_world_process_zero():
        trainer.save_as("final_model")
        write_json(directory / RECORD, record)
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()  # whoever goes on from here finds the files in place
    return record


def _wired(model, tokenizer, rows, measure, best_metric, config, earlier, log):
    """The Trainer, and the precision it trains in; an interrupted run keeps the one it had."""
    directory = Path(config.output_dir)
    collate = collator(tokenizer.pad_token_id)
    model.to(default_device())
    fit_attention(model, max(map(len, rows.ids)))
    size = min(config.batch_size, len(rows))
    precision = choose_precision(config.precision, model, collate([rows[i] for i in range(size)]))
    if earlier:
        precision["chosen"] = earlier["precision"]["chosen"]
    arguments = _arguments(config, rows, best_metric, precision["chosen"])
    trainer = MeasuringTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collate,
        processing_class=tokenizer,
        measure=measure,
        save=lambda name: save_model(directory / name, model, tokenizer, arguments),
        log=log if arguments.process_index == 0 else lambda line: None,
        callbacks=[EarlyStop(config.patience)] if config.patience else [],
        eval_dataset=rows,
    )
    return trainer, precision


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
        use_cpu=default_device() == "cpu",
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


def _foretell(trainer: MeasuringTrainer, record: dict, rows: Rows, checkpoint: Path | None) -> None:
    """Say, before it starts, how long it will take, and what is about to be trained."""
    arguments, precision = trainer.args, record["precision"]
    times, steps = precision["step_seconds"], arguments.max_steps
    done = 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
    a_step = times.get(precision["chosen"], min(times.values()))
    guess = a_step * arguments.gradient_accumulation_steps * (steps - done)
    timed = ", ".join(f"{name} {seconds * 1000:,.0f} ms" for name, seconds in times.items())
    trainer.say(f"{record['parameters']:,} parameters, {len(rows):,} rows, {steps:,} steps")
    trainer.say(f"a pass over one batch takes {timed}; training in {precision['chosen']}")
    trainer.say(f"this will take about {format_duration(guess)}, and evaluation a little on top")
    if checkpoint is not None:
        trainer.say(f"picking up the interrupted run at step {done:,}")


def _run(trainer: MeasuringTrainer, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        history = read_json(checkpoint / "trainer_state.json")["log_history"]
        trainer.earlier_seconds = max((line.get("seconds", 0) for line in history), default=0)
    trainer.started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    evaluated = [line["step"] for line in trainer.state.log_history if is_evaluation(line)]
    if not evaluated or evaluated[-1] != trainer.state.global_step:
        trainer.evaluate()


def save_model(directory: Path, model, tokenizer, arguments: TrainingArguments) -> None:
    """A whole Hugging Face model directory, swapped in at once. Older contents go."""
    with atomic_dir(directory) as aside:
        model.save_pretrained(aside)
        save_tokenizer(tokenizer, aside)
        torch.save(arguments, aside / "training_args.bin")
        for path in aside.iterdir():
            path.chmod(0o644)  # safetensors keeps its file to its owner; a model is for sharing


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


def _identity(model, tokenizer, rows: Rows, best_metric: str, config: TrainConfig, also) -> str:
    """The same for two runs exactly when they would do the same."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("output_dir", "resume")}
    size = {k: v for k, v in model.config.to_dict().items() if k != "transformers_version"}
    # Rounded, because the last digits of a sum change with the number of threads that take it.
    weights = [round(float(weight.detach().double().sum()), 4) for weight in model.parameters()]
    names = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    decides = [settings, best_metric, size, weights, names, rows.ids, rows.classes, also]
    whole = json.dumps(decides, default=str)
    # tasks.py says what is trained and measured; a competing model brings code of its own.
    code = code_fingerprint("seqlm.training.tasks", type(model).__module__)
    return hashlib.sha256((whole + code).encode()).hexdigest()[:16]


def _earlier(directory: Path, identity: str) -> dict:
    """The record of an earlier run of the very same settings; {} when there is none."""
    if not (directory / RECORD).is_file():
        return {}
    record = read_json(directory / RECORD)
    models = [directory / name / "model.safetensors" for name in ("best_model", "final_model")]
    lost = record.get("finished") and not all(path.is_file() for path in models)
    return record if record.get("identity") == identity and not lost else {}
