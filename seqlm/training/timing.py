"""Time training steps: choose a precision, and plan the steps that fit a time limit."""

import math
import time

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from seqlm.config import Precision, TrainConfig
from seqlm.errors import ConfigError
from seqlm.models.gpt2 import default_device

TIMED_STEPS = 5
FEWEST_STEPS = 10  # of a run with a time limit
OVERHEAD = 1.25  # an optimizer step takes so much longer than its forward and backward passes
EVALUATION_SHARE = 0.25  # at most so much of a time limit goes to evaluations
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def step_seconds(model, batch: dict[str, torch.Tensor], precision: str) -> float:
    """Seconds of one forward and backward pass over `batch`; leaves model and seeds untouched."""
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    started = time.perf_counter()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        forward_backward(model, batch, precision)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def forward_backward(model, batch: dict[str, torch.Tensor], precision: str) -> None:
    """One forward and backward pass; `batch` is on the model's device."""
    dtype = _DTYPES.get(precision)
    with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
        loss = model(**batch).loss
    loss.backward()


def choose_precision(
    wanted: Precision, model, batch: dict[str, torch.Tensor]
) -> dict[str, str | float]:
    """Choose the precision to train in, and time it on one real batch.

    "auto" times fp32 and bf16 in turn and takes the faster, or takes fp32 where bf16 would only be
    emulated. Returns "chosen", "asked" and "step_seconds", the median of each precision timed.
    Raises ConfigError for a precision that this machine cannot train the model in.
    """
    if wanted == "fp16" and not torch.cuda.is_available():
        raise ConfigError("precision: fp16 needs a GPU; use bf16, fp32 or auto on this machine")
    model.to(default_device()).train()
    auto = ("fp32", "bf16") if has_native_bf16() else ("fp32",)
    asked = auto if wanted == "auto" else (wanted,)
    possible = [name for name in asked if _can_train(model, batch, name)]
    if not possible:
        raise ConfigError(
            f"precision: this machine cannot train a {type(model).__name__} in {wanted}; use fp32 "
            "or auto"
        )
    times: dict[str, list[float]] = {name: [] for name in possible}
    for _ in range(TIMED_STEPS):
        for name in possible:
            times[name].append(step_seconds(model, batch, name))
    medians = {name: sorted(taken)[TIMED_STEPS // 2] for name, taken in times.items()}
    chosen = min(medians, key=medians.get)
    # Under torchrun every process timed for itself; they must not train in different precisions.
    return {"chosen": agree(chosen), "asked": wanted, "step_seconds": medians}


def has_native_bf16() -> bool:
    """Whether the machine computes in bf16; a CPU that emulates it takes many times as long."""
    if torch.cuda.is_available() or not torch.backends.mkldnn.is_available():
        return True
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _can_train(model, batch: dict[str, torch.Tensor], precision: str) -> bool:
    """Whether a first pass works, which is not timed; some processors have no bf16 LSTM."""
    try:
        step_seconds(model, batch, precision)
    except RuntimeError:
        if precision != "bf16" or model.device.type != "cpu":
            raise
        model.zero_grad(set_to_none=True)
        return False
    return True


def count_steps(config: TrainConfig, rows: int) -> int:
    """Optimizer steps of a run on `rows` training rows, without regard to `max_seconds`."""
    if config.max_steps > 0:
        return config.max_steps
    devices = processes().num_processes
    if devices == 1:
        devices = max(1, torch.cuda.device_count())  # Trainer uses all of them
    batches = math.ceil(rows / (config.batch_size * devices))
    return math.ceil(math.ceil(batches / config.grad_accumulation) * config.num_epochs)


def plan_steps(
    config: TrainConfig, rows: int, pass_seconds: float, evaluation_seconds: float
) -> dict[str, int]:
    """How many "steps" and "evals" a run has, and no more than fit `config.max_seconds`.

    The learning rate's schedule is laid over the planned steps, so it ends with the time.
    """
    steps, limit = count_steps(config, rows), config.max_seconds
    if limit is None:
        return {"steps": steps, "evals": config.evals}
    evals = max(1, min(config.evals, int(EVALUATION_SHARE * limit / evaluation_seconds)))
    left = limit - evals * evaluation_seconds
    fitting = int(left / (OVERHEAD * pass_seconds * config.grad_accumulation))
    return agree({"steps": min(steps, max(FEWEST_STEPS, fitting)), "evals": evals})


def processes() -> PartialState:
    """Which of torchrun's processes this is; the only one when started without it."""
    # Without cpu=True accelerate takes each process on a machine without GPU for the only one.
    return PartialState(cpu=not torch.cuda.is_available())


def agree(value):
    """The first process's `value`, in every process."""
    processes()
    return broadcast_object_list([value])[0]
