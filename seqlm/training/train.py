"""Train a model with Transformers' Trainer, resume a run that was killed, keep the best model.

Trainer does the loop, clipping, the schedule, mixed precision, several processes and
checkpoints. Ours are the metric that chooses the best model, the progress lines, and the resuming.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from seqlm import utils
from seqlm.atomic import MANIFEST, is_changed, is_whole, read_manifest, write_manifest
from seqlm.config import TrainConfig
from seqlm.data.table import Ids
from seqlm.models.gpt2 import check_length, count_parameters, default_device, fit_attention
from seqlm.ownership import MODELS, check_output, is_locked, locked, set_aside
from seqlm.training.batches import Rows, collator
from seqlm.training.muon import build_optimizer
from seqlm.training.timing import (
    Forecast,
    choose_precision,
    plan_steps,
    processes,
    saving_seconds,
    update_seconds,
)
from seqlm.training.trainer import MeasuringTrainer, ValidationMetric

RECORD, CHECKPOINTS = "training.json", "checkpoints"
# What a run leaves in its output folder, beside its record.
RUN = (*MODELS, CHECKPOINTS, "metrics.json", "report.md")
RUN += ("training_process.png", "training_process.txt")
APART = ("output_dir", "resume", "overwrite")  # settings that change nothing in a model


def train_model(
    model,
    tokenizer,
    rows: Rows,
    metric: ValidationMetric,
    config: TrainConfig,
    log: Callable[[str], None] = print,
) -> dict:
    """Train `model` on `rows`; write best_model/, final_model/ and training.json to output_dir.

    `model` is a language model or a classifier; `log` takes progress, a line at a time. A run of
    the same settings that was killed goes on from its newest checkpoint, and one that is finished
    is not run again (`resume=False` starts anew). Returns the record that is also in training.json:
    history, evaluations, best step, seconds, precision, versions.
    """
    check_run(config)
    check_length(model, rows.ids.lengths.max())
    with owned(config.output_dir):
        return _train_owned(model, tokenizer, rows, metric, config, log)


def check_run(config: TrainConfig, start: Path | None = None) -> None:
    """Raise an error unless a run, from the model in `start`, may write to its output folder."""
    if not is_locked(config.output_dir):  # else that was checked; whole models are read for it
        check_output(config.output_dir, (*RUN, RECORD), config.overwrite, start)


def owned(directory: Path):
    """Let no other run use `directory` meanwhile; of torchrun's processes the first holds it."""
    if not processes().is_main_process:
        return nullcontext()
    return locked(directory, [directory / name for name in (*RUN, RECORD, MANIFEST)])


def _train_owned(model, tokenizer, rows, metric, config, log) -> dict:
    directory = config.output_dir
    identity = run_identity(model, tokenizer, rows, metric, config)
    earlier = _earlier_record(directory, identity) if config.resume else {}
    if earlier.get("finished"):
        log(f"{directory}: already trained with the same settings (--resume false trains again)")
        if processes().is_main_process:  # a kill may have come before
            _remove_checkpoints(directory)
        return earlier
    checkpoint = newest_checkpoint(directory, identity, log) if earlier else None
    trainer, plan = _prepare(model, tokenizer, rows, metric, config, identity, earlier, log)
    record = {
        "identity": identity,
        "finished": False,
        "settings": {k: v for k, v in asdict(config).items() if k not in APART},
        "parameters": count_parameters(model),
        "rows": len(rows),
        **plan,
        "machine": utils.machine(),
        "versions": utils.versions(),
    }
    trainer.accelerator.wait_for_everyone()  # each has read what the first may now move
    if trainer.is_world_process_zero():
        if checkpoint is None:
            _make_room(directory, identity, bool(earlier), log)
        utils.write_json(directory / RECORD, record)
    _log_eta(trainer, record, checkpoint)
    record |= {"finished": True, **trainer.run(checkpoint)}
    trainer.save_whole("final_model")
    if trainer.is_world_process_zero():
        utils.write_json(directory / RECORD, record)
        _remove_checkpoints(directory)
    trainer.accelerator.wait_for_everyone()  # every process then finds the files in place
    return record


def _make_room(directory: Path, identity: str, again: bool, log: Callable) -> None:
    """Set an earlier run aside, unless it is this one, and let the folder be this run's."""
    if not again:
        aside = set_aside(directory, RUN, also=(RECORD, MANIFEST))
        if aside is not None:
            log(f"{directory}: the earlier run is now in {aside}; remove it if you do not need it")
        write_manifest(directory, identity, [directory / RECORD])  # it is replaced in a moment
    _remove_checkpoints(directory)
    checkpoints = Path(os.path.realpath(directory / CHECKPOINTS))  # it may be a link
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_manifest(checkpoints, identity, ours=["checkpoint-*"])


def _remove_checkpoints(directory: Path) -> None:
    for path in (directory / CHECKPOINTS).glob("checkpoint-*"):
        shutil.rmtree(path)
    (directory / CHECKPOINTS / MANIFEST).unlink(missing_ok=True)
    with suppress(OSError):  # it is a link, or its owner put something there meanwhile
        (directory / CHECKPOINTS).rmdir()


def run_identity(model, tokenizer, rows: Rows, metric: ValidationMetric, config: TrainConfig):
    """A hash that is the same for two runs exactly when they would do the same."""
    settings = {k: v for k, v in asdict(config).items() if k not in APART}
    size = {k: v for k, v in model.config.to_dict().items() if k != "transformers_version"}
    # Rounded, because the last digits of a sum change with the number of threads that take it.
    weights = [round(float(weight.detach().double().sum()), 4) for weight in model.parameters()]
    names = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    lora = [(c.r, c.lora_alpha) for c in getattr(model, "peft_config", {}).values()]
    classes = rows.classes and Ids.of([rows.classes]).digest()
    decides = [settings, size, weights, lora, names, rows.ids.digest(), classes]
    whole = json.dumps([*decides, metric.name, metric.key], default=str)
    # tasks.py decides what is trained and measured on val; a recurrent model or LoRA adds code.
    code = utils.code_fingerprint("seqlm.training.tasks", type(model).__module__)
    return hashlib.sha256((whole + code).encode()).hexdigest()[:16]


def _earlier_record(directory: Path, identity: str) -> dict:
    """The record of an earlier run of the same identity; {} when there is none."""
    path = directory / RECORD
    record = {} if not path.is_file() or is_changed(path) else utils.read_json(path)
    if record.get("identity") != identity:
        return {}
    models = [directory / name for name in MODELS]
    kept = all((model / "model.safetensors").is_file() for model in models)
    kept = kept and all(read_manifest(model)["run"] == identity for model in models)
    return record if kept or not record["finished"] else {}


def newest_checkpoint(directory: Path, identity: str, log: Callable = print) -> Path | None:
    """The newest whole checkpoint of this run; `log` gets a line for each that is passed over.

    There is none without the best model, which is saved before any of them.
    """
    paths, best = (directory / CHECKPOINTS).glob("checkpoint-*"), directory / "best_model"
    for path in sorted(paths, key=lambda path: -int(path.name.split("-")[1])):
        if not is_whole(path, identity):
            log(f"{path}: is damaged, or of another run; it is passed over")
        elif read_manifest(best)["run"] != identity:
            log(f"{path}: {best.name} is missing or of another run; it is passed over")
        else:
            return path
    return None


def _prepare(model, tokenizer, rows, metric, config, identity, earlier, log):
    """The Trainer; and precision, values before training, and plan, which a resumed run keeps."""
    collate = collator(tokenizer.pad_token_id)
    model.to(default_device())
    fit_attention(model, rows.ids.lengths.max())
    far = np.abs(rows.ids.lengths - rows.ids.lengths.mean())
    typical = np.argsort(far, kind="stable")[: config.batch_size].tolist()
    precision = choose_precision(config, model, collate([rows[i] for i in typical]), len(rows))
    if earlier:
        precision["chosen"] = earlier["precision"]["chosen"]
    times = precision["step_seconds"]
    step = times.get(precision["chosen"], max(times.values())) * config.grad_accumulation
    step += update_seconds(model, build_optimizer(model, config), config.max_grad_norm)
    started = time.perf_counter()
    initial = earlier.get("initial") or metric.measure(model)
    evaluation = time.perf_counter() - started + saving_seconds(model, config.output_dir)
    forecast = Forecast(step, earlier["forecast"]["evaluation"] if earlier else evaluation)
    plan = earlier.get("plan") or plan_steps(config, len(rows), forecast)
    run = identity, precision["chosen"], plan, forecast, log
    trainer = MeasuringTrainer(model, tokenizer, rows, metric, config, *run)
    seconds = asdict(forecast)
    return trainer, {"precision": precision, "forecast": seconds, "initial": initial, "plan": plan}


def _log_eta(trainer: MeasuringTrainer, record: dict, checkpoint: Path | None) -> None:
    """Log what is about to be trained, and how long it will take."""
    arguments, precision = trainer.args, record["precision"]
    forecast, steps = Forecast(**record["forecast"]), arguments.max_steps
    done = 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
    left = utils.format_duration(forecast.seconds(done, steps, arguments.eval_steps))
    times = precision["step_seconds"]
    timed = ", ".join(f"{name} {passed * 1000:,.0f} ms" for name, passed in times.items())
    log = trainer.log_line
    log(f"{record['parameters']:,} parameters, {record['rows']:,} rows, {steps:,} steps")
    log(f"a pass over one batch takes {timed}; training in {precision['chosen']}")
    if precision["asked"] == "auto" and "bf16" not in times:
        log("bf16 was not tried: this processor has no instructions for it")
    log(
        f"this will take about {left}: {forecast.step:.2g} s per step, and every "
        f"{arguments.eval_steps:,} steps {forecast.evaluation:.2g} s to evaluate and save"
    )
    if checkpoint is not None:
        log(f"picking up the interrupted run at step {done:,}")
