"""The sizes one may train, side by side: what each weighs, and how long a run would take here."""

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from seqlm.config import SIZES, DataConfig, DataFiles, ModelConfig, TrainConfig
from seqlm.data.corpus import load_corpus
from seqlm.data.tokens import default_vocab, read_layout
from seqlm.errors import ConfigError
from seqlm.evaluation.estimates import Estimate
from seqlm.models.gpt2 import SHORT_ROW, count_parameters, default_device, gpt2_config
from seqlm.training.step_timing import (
    FEWEST_STEPS,
    PATIENCE_SECONDS,
    TrainingStep,
    time_training_steps,
)
from seqlm.utils import format_duration

STEPS = 6  # timed of a size in each precision: the fewest that give the median an interval
PRECISIONS = ("fp32", "bf16")
EFFICIENCY = 0.4  # of a bare matrix product's speed, roughly what a training step comes to
DIGITS = {"images": 1257, "codes": 16}  # train split of load_digits; codes a picture of 8x8
BLOCK_BYTES = {"fp32": 80, "bf16": 44}  # kept by a block for the way back, a token and n_embd
SCORE_BYTES = {"fp32": 4, "bf16": 6}  # kept for each attention weight where attention is not fused
HEAD = f"{'size':<9}{'layers x heads x width':<23}{'parameters':>12}{'on disk':>10}{'memory':>10}"
HEAD += f"{'a step (95 % interval, n)':>34}{'the run':>14}  in"
NOTES = """\
A step is one of the optimizer's: forward, backward, clipping, AdamW; the median, in the faster of
fp32 and bf16. The run is training alone; evaluation comes on top.
Memory is an estimate: 16 bytes a parameter (weight, gradient, two moments; 2 more in bf16), and a
token of a batch takes 80 bytes (44 in bf16) a block and width, and 12 a token of the vocabulary.
Python and torch themselves take about 0.4 GB more."""


@dataclass(frozen=True, eq=False)
class Task:
    """What the sizes are to learn.

    Attributes:
        told: what the rows are, in a few words.
        vocab: token -> id.
        rows: training rows.
        length: tokens in one, on average.
        n_positions: longest row the model has room for.
        config: batch, epochs, steps.
    """

    told: str
    vocab: dict[str, int]
    rows: int
    length: int
    n_positions: int
    config: TrainConfig

    @property
    def steps(self) -> int:
        """Optimizer steps of the run, on one device."""
        config = self.config
        if config.max_steps > 0:
            return config.max_steps
        a_pass = math.ceil(math.ceil(self.rows / config.batch_size) / config.grad_accumulation)
        return math.ceil(a_pass * config.num_epochs)

    def training_step(self, size: str, precision: str = "fp32") -> TrainingStep:
        """What an optimizer step of `size` is made of."""
        config = ModelConfig(**SIZES[size], n_positions=self.n_positions)
        return TrainingStep(
            gpt2_config(config, self.vocab),
            min(self.config.batch_size, self.rows),
            self.config.grad_accumulation,
            self.length,
            precision,
            self.config.max_grad_norm,
        )


@dataclass(frozen=True)
class Weighed:
    """One size: what it weighs in bytes and how fast it is; `step` is None when it was not timed.

    `memory` is while training, `seconds` those of the whole run.
    """

    size: str
    n_layer: int
    n_head: int
    n_embd: int
    parameters: int
    disk: int
    memory: int
    precision: str
    step: Estimate | None
    seconds: float | None

    def to_json(self) -> dict:
        """For `seqlm sizes --json`."""
        return vars(self) | {"step": self.step and self.step.to_json()}

    def __str__(self) -> str:
        shape = f"{self.n_layer} x {self.n_head} x {self.n_embd}"
        line = f"{self.size:<9}{shape:<23}{self.parameters:>12,}"
        line += f"{in_bytes(self.disk):>10}{in_bytes(self.memory):>10}"
        if self.step is None:
            return line + "  not timed: more memory than is free"
        ends = f"{self.step.low:.3f} to {self.step.high:.3f}"
        interval = ends if self.step.has_interval else "interval unknown"
        a_step = f"{self.step.value:.3f} s ({interval}, {self.step.n})"
        return line + f"{a_step:>34}{format_duration(self.seconds):>14}  {self.precision}"


def show_sizes(
    config: TrainConfig, data_path: Path | None, vocab_path: Path | None, as_json: bool
) -> None:
    """Print the table, a line as soon as it is known, or all of it as JSON."""
    task = task_of(config, data_path, vocab_path)
    aside = sys.stderr if as_json else sys.stdout
    length = "run" if config.max_steps > 0 else f"{config.num_epochs:g} epochs"
    print(
        f"{task.told}: {task.rows:,} training rows of {task.length:,} tokens, a vocabulary of "
        f"{len(task.vocab):,}\nbatches of {config.batch_size:,}, {length}: {task.steps:,} steps\n"
        f"timing takes about {format_duration(time_to_time(task))}, the largest last\n\n{HEAD}",
        file=aside,
        flush=True,
    )
    found = []
    for weighed in weigh(task):
        found.append(weighed)
        print(weighed, file=aside, flush=True)
    if as_json:
        about = {"data": task.told, "rows": task.rows, "tokens_a_row": task.length}
        about |= {"vocab_size": len(task.vocab), "steps": task.steps}
        print(json.dumps(about | {"sizes": [each.to_json() for each in found]}, indent=2))
    else:
        print(f"\n{NOTES}")


def task_of(
    config: TrainConfig, data_path: Path | None = None, vocab_path: Path | None = None
) -> Task:
    """The run of `config` on these files; without them, that on the digits.

    Raises ConfigError when only one of the two files is named, and DataError for files that cannot
    be read.
    """
    if (data_path is None) != (vocab_path is None):
        lacking = "data_path" if data_path is None else "vocab_path"
        raise ConfigError(f"{lacking}: give both --data_path and --vocab_path, or neither")
    room = max(ModelConfig().n_positions, config.max_length)
    if data_path is None:
        rows = DIGITS["images"] * (1 + DataConfig().copies) * 2  # each is read, and drawn
        length = min(len(read_layout([0] * DIGITS["codes"], 0)), config.max_length)
        return Task(
            "no data given, so the digits that seqlm build makes",
            default_vocab(),
            rows,
            length,
            room,
            config,
        )
    # An unknown token is as long as any other.
    files = DataFiles(data_path, vocab_path, allow_unknown=True)
    corpus = load_corpus(files, config.max_length)
    lengths = [len(record.tokens) for record in corpus.records("train")]
    mean = round(sum(lengths) / len(lengths))
    return Task(str(data_path), corpus.vocab, len(lengths), mean, room, config)


def weigh(task: Task) -> Iterator[Weighed]:
    """Every size, the smallest first; each is timed only when it is its turn."""
    for size, shape in SIZES.items():
        step = task.training_step(size)
        parameters = parameters_of(step.config)
        seconds, chosen = None, "fp32"
        # Both precisions are timed side by side, a model each.
        if training_bytes(step) + 18 * parameters < free_memory():
            steps = {name: replace(step, precision=name) for name in PRECISIONS}
            times = time_training_steps(steps, STEPS)
            chosen = min(times, key=lambda name: times[name].value)
            seconds = times[chosen]
        yield Weighed(
            size,
            **shape,
            parameters=parameters,
            disk=4 * parameters,
            memory=training_bytes(replace(step, precision=chosen)),
            precision=chosen,
            step=seconds,
            seconds=None if seconds is None else seconds.value * task.steps,
        )


def parameters_of(config: GPT2Config) -> int:
    """Weights of the language model, counted without making them."""
    with torch.device("meta"):
        return count_parameters(GPT2LMHeadModel(config))


def training_bytes(step: TrainingStep) -> int:
    """An estimate of the memory that training takes, in bytes.

    Weights, gradients, AdamW's two moments, 4 bytes each, and in bf16 a copy of the weights in 2;
    for each token of a batch what forward keeps for backward: `BLOCK_BYTES` a block and width,
    `SCORE_BYTES` an attention weight where rows are so short that attention is not fused, and
    three numbers of 4 bytes for each token of the vocabulary: logit, its logarithm, its gradient.
    The bytes of a block were counted with torch.autograd.graph.saved_tensors_hooks; what to count
    is told by V. Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models
    (2022).
    """
    config, kind = step.config, "fp32" if step.precision == "fp32" else "bf16"
    fixed = (16 if kind == "fp32" else 18) * parameters_of(config)
    plain = step.length <= SHORT_ROW and default_device() == "cpu"
    scores = SCORE_BYTES[kind] * config.n_head * step.length if plain else 0
    a_token = config.n_layer * (BLOCK_BYTES[kind] * config.n_embd + scores)
    return fixed + step.batch_size * step.length * (a_token + 12 * config.vocab_size)


def free_memory() -> int:
    """Bytes that nobody uses, on the device that trains."""
    if default_device() == "cuda":
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def time_to_time(task: Task) -> float:
    """Seconds that `weigh` will take: six products of all weights with all tokens are a step."""
    speed, total = EFFICIENCY * matmul_speed(), 0.0
    for size in SIZES:
        step = task.training_step(size)
        tokens = step.batch_size * step.grad_accumulation * step.length
        a_step = 6 * parameters_of(step.config) * tokens / speed
        timed = min(STEPS, max(FEWEST_STEPS, PATIENCE_SECONDS / a_step))
        total += len(PRECISIONS) * (1 + timed) * a_step
    return total


def matmul_speed(side: int = 1024, times: int = 4) -> float:
    """Additions and multiplications a second of a bare matrix product in fp32."""
    matrix = torch.ones(side, side, device=default_device())
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        (matrix @ matrix).sum().item()  # .item() waits for a GPU
        taken.append(time.perf_counter() - started)
    return 2 * side**3 / min(taken)


def in_bytes(count: int) -> str:
    """Bytes as a person says them: "1.9 MB", "43 MB", "1.4 GB"."""
    value, unit = (count / 1e9, "GB") if count >= 1e9 else (count / 1e6, "MB")
    return f"{value:.1f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
