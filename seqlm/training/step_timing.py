"""How long does an optimizer step of each recipe take? Timed side by side, or it says nothing.

Runs made at different times were made on a machine that was busy with different things.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from seqlm.evaluation.estimates import Estimate, median
from seqlm.lab.recipes import finished_record
from seqlm.models.gpt2 import (
    check_length,
    check_model_directory,
    default_device,
    fit_attention,
    fix_loss_reduction,
)
from seqlm.training.trainer import IGNORED

FEWEST_STEPS = 2  # timed of a recipe, however slow it is
PATIENCE_SECONDS = 20.0  # a recipe that has taken so long gets no more steps than that
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Recipe:
    """What decides how long an optimizer step takes.

    Attributes:
        config: the model's size.
        batch_size, grad_accumulation: rows a forward pass, forward passes a step.
        length: tokens in a row.
        precision: "fp32", "bf16" or "fp16".
        max_grad_norm: gradients are clipped to it.
        padded_to: every row is filled up to this length; None: only to the longest in its batch.
    """

    config: GPT2Config
    batch_size: int
    grad_accumulation: int
    length: int
    precision: str
    max_grad_norm: float = 1.0
    padded_to: int | None = None


def recipe_of(directory: Path) -> Recipe:
    """The recipe of a finished run; rows are taken to be as long as they are on average.

    `dataclasses.replace(recipe, padded_to=1024)` is the same with every row filled up: it learns
    the same, for padding is neither seen nor counted, and only takes longer.
    """
    directory = Path(directory)
    record = finished_record(directory)
    last, settings = record["evals"][-1], record["settings"]
    return Recipe(
        check_model_directory(directory / "best_model"),
        min(settings["batch_size"], record["rows"]),
        settings["grad_accumulation"],
        round(last["tokens"] / (last["epoch"] * record["rows"])),
        record["precision"]["chosen"],
        settings["max_grad_norm"],
    )


def step_seconds(recipes: Mapping[str, Recipe], steps: int = 10) -> dict[str, Estimate]:
    """Median seconds of an optimizer step of each recipe, taken side by side in one process.

    One step of every recipe in turn, the order reversed each round, so that whatever else the
    machine does meets them all; the first step of each is not counted. Forward, backward, clipping
    and AdamW, on rows of random tokens and a model of random weights: neither changes the time.
    A recipe so slow that `PATIENCE_SECONDS` are over gets fewer than `steps`, and two at least.

    The interval is the sign test's, for the median (it needs six steps, and is unknown below).
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        stages = {name: _stage(recipe) for name, recipe in recipes.items()}
        times: dict[str, list[float]] = {name: [_timed(*stage)] for name, stage in stages.items()}
        for turn in range(steps):
            order = list(stages) if turn % 2 else list(reversed(stages))
            for name in order:
                if turn < FEWEST_STEPS or sum(times[name]) < PATIENCE_SECONDS:
                    times[name].append(_timed(*stages[name]))
    return {name: median(taken[1:], "seconds per step") for name, taken in times.items()}


def _stage(recipe: Recipe) -> tuple:
    """Model, optimizer, batch and recipe, ready for `_timed`."""
    model = fix_loss_reduction(GPT2LMHeadModel(recipe.config)).to(default_device()).train()
    width = recipe.padded_to or recipe.length
    check_length(model, width)
    fit_attention(model, width)
    input_ids = torch.full((recipe.batch_size, width), recipe.config.pad_token_id)  # (B, T)
    labels = torch.full_like(input_ids, IGNORED)
    length = min(recipe.length, width)
    drawn = torch.randint(recipe.config.vocab_size, (recipe.batch_size, length))
    input_ids[:, :length] = labels[:, :length] = drawn
    batch = {"input_ids": input_ids.to(model.device), "labels": labels.to(model.device)}
    # The very optimizer that Trainer takes.
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), batch, recipe


def _timed(model, optimizer, batch: dict[str, torch.Tensor], recipe: Recipe) -> float:
    device = model.device.type
    started = time.perf_counter()
    for _ in range(recipe.grad_accumulation):
        dtype = _DTYPES.get(recipe.precision)
        with torch.autocast(device, dtype, enabled=dtype is not None):
            loss = model(**batch).loss
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
