"""Compare the three model sizes on this machine: parameters, memory, seconds of a whole run."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from seqlm.config import SIZES, DataConfig, DataFiles, ModelConfig, TrainConfig
from seqlm.data.corpus import load_corpus
from seqlm.data.tokens import default_vocab, read_layout
from seqlm.errors import ConfigError
from seqlm.evaluation.estimates import Estimate, median
from seqlm.models import gpt2
from seqlm.training.timing import count_steps, forward_backward, update_weights
from seqlm.utils import format_duration

STEPS = 6  # timed of a size in each precision: the fewest that give the median an interval
PRECISIONS = ("fp32", "bf16")
FEWEST_STEPS = 2  # timed of each training step, however slow it is
PATIENCE_SECONDS = 20.0  # a training step timed for this long gets no more repeats
DIGITS = {"images": 1257, "codes": 16}  # train split of load_digits; codes per image of 8x8
BLOCK_BYTES = {"fp32": 80, "bf16": 44}  # kept by a block for backward, per token and n_embd
SCORE_BYTES = {"fp32": 4, "bf16": 6}  # kept for each attention weight where attention is not fused
HEAD = f"{'size':<9}{'layers x heads x width':<23}{'parameters':>12}{'on disk':>10}{'memory':>10}"
HEAD += f"{'per step (95 % interval, n)':>34}{'the run':>14}  in"
NOTES = """\
A step is one of the optimizer's: forward, backward, clipping, AdamW; the median, in the faster of
fp32 and bf16. The run is training alone; evaluation comes on top.
Memory is an estimate: 16 bytes per parameter (weight, gradient, two moments; 2 more in bf16); per
token of a batch 80 bytes (44 in bf16) for each block and width, and 12 for each token of the
vocabulary. Python and torch themselves take about 0.4 GB more."""


@dataclass(frozen=True)
class TrainingStep:
    """What decides how long an optimizer step takes."""

    config: GPT2Config
    batch_size: int  # rows per forward pass
    grad_accumulation: int  # forward passes per step
    length: int  # tokens per row
    precision: str  # "fp32", "bf16" or "fp16"
    max_grad_norm: float = 1.0


def time_training_steps(steps: Mapping[str, TrainingStep], rounds: int = 10) -> dict[str, Estimate]:
    """Median seconds of each training step, all timed side by side in one process.

    One of each per round, the order reversed from round to round, so that other load on the machine
    affects all alike; the first of each is a warm-up. Tokens and weights are random: neither
    changes the time. The interval needs six rounds, and is unknown below.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        prepared = {name: _prepare(step) for name, step in steps.items()}
        times = {name: [_time_once(*parts)] for name, parts in prepared.items()}
        for turn in range(rounds):
            for name in list(prepared) if turn % 2 else list(reversed(prepared)):
                if turn < FEWEST_STEPS or sum(times[name]) < PATIENCE_SECONDS:
                    times[name].append(_time_once(*prepared[name]))
    return {name: median(seconds[1:], "seconds per step") for name, seconds in times.items()}


def _prepare(step: TrainingStep) -> tuple:
    model = gpt2.fix_loss_reduction(GPT2LMHeadModel(step.config)).to(gpt2.default_device()).train()
    gpt2.check_length(model, step.length)
    gpt2.fit_attention(model, step.length)
    ids = torch.randint(step.config.vocab_size, (step.batch_size, step.length))  # (B, T)
    batch = dict.fromkeys(("input_ids", "labels"), ids.to(model.device))
    # The same optimizer as Trainer's.
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), batch, step


def _time_once(model, optimizer, batch: dict[str, torch.Tensor], step: TrainingStep) -> float:
    started = time.perf_counter()
    for _ in range(step.grad_accumulation):
        forward_backward(model, batch, step.precision)
    update_weights(model, optimizer, step.max_grad_norm)
    return time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class SizesTask:
    """What the sizes are to learn: `rows` training rows of `length` tokens on average."""

    description: str
    vocab: dict[str, int]
    rows: int
    length: int
    config: TrainConfig

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return count_steps(self.config, self.rows)

    def training_step(self, size: str) -> TrainingStep:
        """An optimizer step of the model of `size`, in fp32."""
        room = max(ModelConfig().n_positions, self.config.max_length)
        return TrainingStep(
            gpt2.gpt2_config(ModelConfig(**SIZES[size], n_positions=room), self.vocab),
            min(self.config.batch_size, self.rows),
            self.config.grad_accumulation,
            self.length,
            "fp32",
            self.config.max_grad_norm,
        )


def show_sizes(
    config: TrainConfig, data_path: Path | None, vocab_path: Path | None, as_json: bool
) -> None:
    """Print the table, each line when it is measured, or all of it as JSON."""
    task = load_task(config, data_path, vocab_path)
    log = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    longest = len(SIZES) * len(PRECISIONS) * PATIENCE_SECONDS
    length = "run" if config.max_steps > 0 else f"{config.num_epochs:g} epochs"
    log(
        f"{task.description}: {task.rows:,} training rows of {task.length:,} tokens, a vocabulary "
        f"of {len(task.vocab):,}\n"
        f"batches of {config.batch_size:,}, {length}: {task.steps:,} steps\n"
        f"timing takes about {format_duration(longest)} at most, the largest last\n\n{HEAD}"
    )
    rows = []
    for row in measure_sizes(task):
        rows.append(row)
        log(_format_row(row))
    if as_json:
        about = {"data": task.description, "rows": task.rows, "tokens_a_row": task.length}
        about |= {"vocab_size": len(task.vocab), "steps": task.steps}
        sizes = [row | {"step": row["step"] and row["step"].to_json()} for row in rows]
        print(json.dumps(about | {"sizes": sizes}, indent=2))
    else:
        print(f"\n{NOTES}")


def load_task(
    config: TrainConfig, data_path: Path | None = None, vocab_path: Path | None = None
) -> SizesTask:
    """The run of `config` on these files; without them on the digits.

    Raises ConfigError for one file without the other, DataError for one that cannot be read.
    """
    if (data_path is None) != (vocab_path is None):
        lacking = "data_path" if data_path is None else "vocab_path"
        raise ConfigError(f"{lacking}: give both --data_path and --vocab_path, or neither")
    if data_path is None:
        rows = DIGITS["images"] * (1 + DataConfig().copies) * 2  # in both layouts
        length = min(len(read_layout([0] * DIGITS["codes"], 0)), config.max_length)
        description = "no data given, so the digits that seqlm build makes"
        return SizesTask(description, default_vocab(), rows, length, config)
    # An unknown token is as long as any other.
    corpus = load_corpus(DataFiles(data_path, vocab_path, allow_unknown=True), config.max_length)
    lengths = corpus.rows("train").lengths
    mean = round(lengths.mean())
    return SizesTask(str(data_path), corpus.vocab, len(lengths), mean, config)


def measure_sizes(task: SizesTask) -> Iterator[dict]:
    """Each size, the smallest first: parameters, bytes on disk and in training, time per step.

    "step" (an Estimate) and "seconds" of the whole run are None where memory is too short to time.
    """
    for size, shape in SIZES.items():
        step = task.training_step(size)
        parameters = parameters_of(step.config)
        seconds, chosen = None, "fp32"
        # Both precisions are timed side by side, a model each.
        if training_bytes(step) + 18 * parameters < free_memory():
            steps = {name: replace(step, precision=name) for name in PRECISIONS}
            times = time_training_steps(steps, STEPS)
            chosen, seconds = min(times.items(), key=lambda timed: timed[1].value)
        yield {
            "size": size,
            **shape,
            "parameters": parameters,
            "disk": 4 * parameters,
            "memory": training_bytes(replace(step, precision=chosen)),
            "precision": chosen,
            "step": seconds,
            "seconds": seconds and seconds.value * task.steps,
        }


def _format_row(row: dict) -> str:
    shape = f"{row['n_layer']} x {row['n_head']} x {row['n_embd']}"
    line = f"{row['size']:<9}{shape:<23}{row['parameters']:>12,}"
    line += f"{format_bytes(row['disk']):>10}{format_bytes(row['memory']):>10}"
    step = row["step"]
    if step is None:
        return line + "  not timed: more memory than is free"
    ends = f"{step.low:.3f} to {step.high:.3f}" if step.has_interval else "interval unknown"
    seconds = f"{step.value:.3f} s ({ends}, {step.n})"
    return line + f"{seconds:>34}{format_duration(row['seconds']):>14}  {row['precision']}"


def parameters_of(config: GPT2Config) -> int:
    """Weights of the language model, counted without making them."""
    with torch.device("meta"):
        return gpt2.count_parameters(GPT2LMHeadModel(config))


def training_bytes(step: TrainingStep) -> int:
    """The bytes that training takes, estimated as `NOTES` says.

    For each token of the vocabulary: logit, its logarithm, its gradient. The bytes of a block were
    counted with torch.autograd.graph.saved_tensors_hooks. Source of what to count: V. Korthikanti
    et al., Reducing Activation Recomputation in Large Transformer Models (2022).
    """
    config, kind = step.config, "fp32" if step.precision == "fp32" else "bf16"
    weights = (16 if kind == "fp32" else 18) * parameters_of(config)
    plain = step.length <= gpt2.SHORT_ROW and gpt2.default_device() == "cpu"
    scores = SCORE_BYTES[kind] * config.n_head * step.length if plain else 0
    per_token = config.n_layer * (BLOCK_BYTES[kind] * config.n_embd + scores)
    return weights + step.batch_size * step.length * (per_token + 12 * config.vocab_size)


def free_memory() -> int:
    """Unused bytes on the device that trains."""
    if gpt2.default_device() == "cuda":
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def format_bytes(count: int) -> str:
    """ "1.9 MB", "43 MB", "1.4 GB"."""
    value, unit = (count / 1e9, "GB") if count >= 1e9 else (count / 1e6, "MB")
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
