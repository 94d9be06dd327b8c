"""Time the optimizer steps of several models or settings side by side."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from seqlm.evaluation.estimates import Estimate, median
from seqlm.models.gpt2 import check_length, default_device, fit_attention, fix_loss_reduction
from seqlm.training.timing import forward_backward

FEWEST_STEPS = 2  # timed of each training step, however slow it is
PATIENCE_SECONDS = 20.0  # a training step timed for this long gets no more repeats


@dataclass(frozen=True)
class TrainingStep:
    """What decides how long an optimizer step takes.

    Attributes:
        config: the model's size.
        batch_size: rows per forward pass.
        grad_accumulation: forward passes per step.
        length: tokens per row.
        precision: "fp32", "bf16" or "fp16".
        max_grad_norm: gradients are clipped to it.
    """

    config: GPT2Config
    batch_size: int
    grad_accumulation: int
    length: int
    precision: str
    max_grad_norm: float = 1.0


def time_training_steps(steps: Mapping[str, TrainingStep], rounds: int = 10) -> dict[str, Estimate]:
    """Median seconds of each training step, all timed side by side in one process.

    One of each per round, the order reversed from round to round, so that other load on the machine
    affects all alike; the first of each is a warm-up. Forward, backward, clipping and AdamW, on
    random tokens and random weights: neither changes the time. A step timed for
    `PATIENCE_SECONDS` gets no more rounds, after `FEWEST_STEPS` of them.

    The interval is the sign test's for the median; it needs six rounds, and is unknown below.
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
    """Model, optimizer, batch and step, ready for `_time_once`."""
    model = fix_loss_reduction(GPT2LMHeadModel(step.config)).to(default_device()).train()
    check_length(model, step.length)
    fit_attention(model, step.length)
    ids = torch.randint(step.config.vocab_size, (step.batch_size, step.length))  # (B, T)
    batch = dict.fromkeys(("input_ids", "labels"), ids.to(model.device))
    # The same optimizer as Trainer's.
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), batch, step


def _time_once(model, optimizer, batch: dict[str, torch.Tensor], step: TrainingStep) -> float:
    started = time.perf_counter()
    for _ in range(step.grad_accumulation):
        forward_backward(model, batch, step.precision)
    torch.nn.utils.clip_grad_norm_(model.parameters(), step.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
