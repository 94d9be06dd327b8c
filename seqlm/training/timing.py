"""How fast is this machine? Asked before training, so that the wait can be told in advance."""

import time

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from seqlm.config import Precision
from seqlm.errors import ConfigError
from seqlm.models.gpt2 import default_device

TIMED_STEPS = 5
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def step_seconds(model, batch: dict[str, torch.Tensor], precision: str) -> float:
    """Seconds of one forward and backward pass over `batch`; leaves model and seeds untouched."""
    device = model.device.type
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    started = time.perf_counter()
    with (
        torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        torch.autocast(device, _DTYPES.get(precision), enabled=precision != "fp32"),
    ):
        model(**batch).loss.backward()
    if device == "cuda":
        torch.cuda.synchronize()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def choose_precision(
    wanted: Precision, model, batch: dict[str, torch.Tensor]
) -> dict[str, str | float]:
    """Settle the precision, and time it.

    "auto" times fp32 and bf16 side by side, in turn, on one real batch, and takes the faster: a
    processor without bf16 instructions only emulates them, and is slower for it. Returns the
    choice and, for each precision timed, the median seconds per step.

    Raises ConfigError when fp16 is asked of a CPU, which cannot train in it.
    """
    if wanted == "fp16" and not torch.cuda.is_available():
        raise ConfigError("precision: fp16 needs a GPU; use bf16, fp32 or auto on this machine")
    model.to(default_device()).train()
    rivals = ("fp32", "bf16") if wanted == "auto" else (wanted,)
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(TIMED_STEPS + 1):
        for name in rivals:
            times[name].append(step_seconds(model, batch, name))
    medians = {name: sorted(taken[1:])[TIMED_STEPS // 2] for name, taken in times.items()}
    chosen = min(medians, key=medians.get)
    return {"chosen": _agree(chosen), "asked": wanted, "step_seconds": medians}


def _agree(choice: str) -> str:
    # Under torchrun every process timed for itself; they must not train in different precisions.
    processes()
    return broadcast_object_list([choice])[0]


def processes() -> PartialState:
    """Which of torchrun's processes this is; the only one when started without it."""
    # Without cpu=True accelerate takes each process on a machine without GPU for the only one.
    return PartialState(cpu=not torch.cuda.is_available())
