"""Time training steps: choose a precision, forecast a run, keep a time limit, log progress."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from seqlm.config import TrainConfig
from seqlm.errors import ConfigError
from seqlm.training.batches import HalfBatches
from seqlm.utils import format_duration

TIMED_PASSES = 3  # of a precision, at most
TOO_SLOW = 1.5  # a precision whose first pass takes so many times the other's is not timed again
TIMING_SHARE = 0.02  # of the run; after so long no more passes are timed
FEWEST_STEPS = 10  # of a run with a time limit
EVALUATION_SHARE = 0.25  # at most so much of a time limit goes to evaluations
COPIES_SAVED = 4  # at an evaluation: weights and AdamW's two moments, and the best model
LOG_SECONDS = 20.0  # between two lines of progress
BUSY = "less than half the speed of the forecast: another program is using the processor"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def step_seconds(model, batch: dict[str, torch.Tensor], precision: str) -> float:
    """Seconds of one forward and backward pass over `batch`; leaves model and seeds untouched."""
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    started = time.perf_counter()
    train = partial(forward_backward, model, precision=precision)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        HalfBatches().run(train, model, batch)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def forward_backward(model, batch: dict[str, torch.Tensor], precision: str) -> torch.Tensor:
    """One forward and backward pass; `batch` is on the model's device. Returns the loss."""
    dtype = _DTYPES.get(precision)
    with torch.autocast(model.device.type, dtype, enabled=dtype is not None):
        loss = model(**batch).loss
    loss.backward()
    return loss.detach()


def update_weights(model, optimizer, max_grad_norm: float) -> None:
    """Clip the gradients, take an optimizer step and drop the gradients, as Trainer does."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def update_seconds(model, optimizer, max_grad_norm: float) -> float:
    """Seconds of `update_weights`; leaves model and seeds untouched, but `optimizer` is used up."""
    for _ in range(2):  # the first makes the optimizer's state
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # no weight changes
            for weight in group["params"]:
                weight.grad = torch.ones_like(weight)
        started = time.perf_counter()
        update_weights(model, optimizer, max_grad_norm)
        seconds = time.perf_counter() - started
    return seconds


def saving_seconds(model, directory: Path) -> float:
    """Seconds that saving takes at an evaluation, from writing the weights once to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with tempfile.TemporaryFile(dir=directory) as file:
        torch.save(model.state_dict(), file)
    return COPIES_SAVED * (time.perf_counter() - started)


def choose_precision(
    config: TrainConfig, model, batch: dict[str, torch.Tensor], rows: int
) -> dict[str, str | float]:
    """Choose the precision of a run on `rows` training rows, and time it on one real batch.

    "auto" times fp32 and bf16 in turn and takes the faster, or takes fp32 where bf16 would only be
    emulated. A precision that is clearly slower is timed once, and timing ends at `TIMING_SHARE` of
    the run. Returns "chosen", "asked", "timing_seconds", and "step_seconds": the median pass in
    each precision. Raises ConfigError for a precision that this machine cannot train the model in.
    """
    wanted, started = config.precision, time.perf_counter()
    if wanted == "fp16" and not torch.cuda.is_available():
        raise ConfigError("precision: fp16 needs a GPU; use bf16, fp32 or auto on this machine")
    model.train()
    auto = ("fp32", "bf16") if has_native_bf16() else ("fp32",)
    asked = auto if wanted == "auto" else (wanted,)
    possible = [name for name in asked if _can_train(model, batch, name)]
    if not possible:
        raise ConfigError(
            f"precision: this machine cannot train a {type(model).__name__} in {wanted}; use fp32 "
            "or auto"
        )
    times = {name: [step_seconds(model, batch, name)] for name in possible}
    fastest = min(times.values())[0]
    run = fastest * count_steps(config, rows) * config.grad_accumulation
    allowed = TIMING_SHARE * min(run, config.max_seconds or math.inf)
    for _ in range(TIMED_PASSES - 1):
        for name, taken in times.items():
            if taken[0] < TOO_SLOW * fastest and time.perf_counter() - started < allowed:
                taken.append(step_seconds(model, batch, name))
    medians = {name: median(taken) for name, taken in times.items()}
    # Under torchrun every process timed for itself; they must not train in different precisions.
    return {
        "chosen": agree(min(medians, key=medians.get)),
        "asked": wanted,
        "step_seconds": medians,
        "timing_seconds": time.perf_counter() - started,
    }


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


@dataclass(frozen=True)
class Forecast:
    """Seconds that the parts of a run take, timed before it begins."""

    step: float  # forward and backward passes, clipping, optimizer
    evaluation: float  # evaluating on val, and saving

    def seconds(self, done: int, steps: int, eval_steps: int) -> float:
        """Seconds left after `done` of `steps`, evaluated every `eval_steps` and at the end."""
        evals = math.ceil(steps / eval_steps) - done // eval_steps
        return (steps - done) * self.step + evals * self.evaluation


def plan_steps(config: TrainConfig, rows: int, forecast: Forecast) -> dict[str, int]:
    """How many "steps" and "evals" a run has, and no more than fit `config.max_seconds`.

    The learning rate's schedule is laid over the planned steps, so it ends with the time.
    """
    steps, limit = count_steps(config, rows), config.max_seconds
    if limit is None:
        return {"steps": steps, "evals": config.evals}
    evals = max(1, min(config.evals, int(EVALUATION_SHARE * limit / forecast.evaluation)))
    fitting = int((limit - evals * forecast.evaluation) / forecast.step)
    return agree({"steps": min(steps, max(FEWEST_STEPS, fitting)), "evals": evals})


def processes() -> PartialState:
    """Which of torchrun's processes this is; the only one when started without it."""
    # Without cpu=True accelerate takes each process on a machine without GPU for the only one.
    return PartialState(cpu=not torch.cuda.is_available())


def agree(value):
    """The first process's `value`, in every process."""
    processes()
    return broadcast_object_list([value])[0]


class TimeLimit(TrainerCallback):
    """Stops after so many seconds, those of an interrupted run included."""

    def __init__(self, elapsed: Callable[[], float], limit: float | None):
        self.elapsed, self.limit, self.reached = elapsed, limit, False

    def on_step_end(self, args, state, control, **kwargs):
        if agree(self.elapsed() > self.limit):
            control.should_training_stop = self.reached = True


class Progress(TrainerCallback):
    """A line now and then: the step, the loss, tokens per second of training, the time left.

    `step_tokens` are those of an average step: batches of long rows take longer than others.
    """

    def __init__(self, log: Callable[[str], None], forecast: Forecast, step_tokens: float):
        self.log, self.step_tokens = log, step_tokens
        self.forecast, self.best_speed = forecast, step_tokens / forecast.step
        self.warned = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.first_step, self.began = state.global_step, time.perf_counter()
        self.mark = self.last_logged = self.began
        self.pauses = self.evals = 0

    def on_evaluate(self, args, state, control, **kwargs):
        self.evals += 1
        self.on_save(args, state, control)

    def on_save(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.pauses, self.mark = self.pauses + now - self.mark, now

    def on_step_end(self, args, state, control, **kwargs):
        now, done = time.perf_counter(), state.global_step - self.first_step
        self.mark = now
        if done == 1:  # it is slow, and left out of the speed
            self.start, self.seen, self.shown = now, state.num_input_tokens_seen, (0.0, 0)
        if done == 1 or done != 10 and now - self.last_logged < LOG_SECONDS:
            return
        self.last_logged = now
        seconds = now - self.start - self.pauses
        tokens = state.num_input_tokens_seen - self.seen
        speed = tokens / seconds
        evaluation = self.pauses / self.evals if self.evals else self.forecast.evaluation
        measured = Forecast(self.step_tokens / speed, evaluation)
        left = measured.seconds(state.global_step, state.max_steps, args.eval_steps)
        losses = [line["loss"] for line in state.log_history if "loss" in line]
        loss = f" · loss {losses[-1]:.3f}" if losses else ""
        line = f"step {state.global_step:,} of {state.max_steps:,}{loss} · {speed:,.0f} tokens/s · "
        line += f"{format_duration(left)} left"
        if done == 10:
            line += f"; corrected: {format_duration(now - self.began + left)} in all"
            self.best_speed = max(self.best_speed, speed)
        self.log(line)
        recent = (tokens - self.shown[1]) / (seconds - self.shown[0])
        self.shown = seconds, tokens
        if done >= 10 and recent < self.best_speed / 2 and not self.warned:
            self.warned = True
            self.log(BUSY)
