"""What the benchmarks share: turns, facts about the machine, its matmul peak, results on disk.

Every benchmark is a script with `main()` and the flags of `arguments`. It writes what it measured
with `save`, as JSON and Markdown, to results/<kind of machine>/; `python bench/run.py` runs all.
"""

import argparse
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# isort: split
import psutil
import torch

from seqlm import utils
from seqlm.errors import SeqlmError
from seqlm.training.timing import has_native_bf16

RESULTS = Path(__file__).parent / "results"
QUICK_RESULTS = Path(__file__).parents[1] / "outputs" / "bench"
FLAGS = ("avx2", "fma3", "avx_vnni", "avx512_f", "avx512_bf16", "avx512_fp16", "amx_bf16")
MATMUL = 2048  # rows and columns; large enough for the processor's best
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def arguments(description: str) -> argparse.ArgumentParser:
    """The flags that every benchmark takes; a script may add its own."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    parser.add_argument("--results", type=Path, help="folder of all results")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The flags; results of --quick never stand among the real ones."""
    options = parser.parse_args()
    options.results = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    return options


# ---------------------------------------------------------------- the machine


def machine_kind() -> str:
    """A name for machines like this one, such as "2-cores-avx512_bf16"; it names the folder."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name().lower().replace(" ", "-")
    best = [flag for flag in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if flag in flags()]
    return f"{utils.machine()['cores']}-cores-{best[-1] if best else platform.machine()}"


def flags() -> list[str]:
    """The processor's instructions that decide how fast it multiplies matrices."""
    able = torch.cpu.get_capabilities()
    return [flag for flag in FLAGS if able.get(flag)]


def machine_facts() -> dict:
    """What decides how long things take, here and now."""
    return {
        "kind": machine_kind(),
        "processor": torch.cpu.get_capabilities().get("cpu_name") or platform.processor(),
        "flags": flags(),
        "used by torch": torch.backends.cpu.get_cpu_capability(),
        "bf16 in hardware": has_native_bf16(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        **utils.machine(),
        **utils.versions(),
    }


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> int:
    """The most bytes that this process has used, or that its tensors have on the GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes on a Mac, else kilobytes


# ---------------------------------------------------------------- turns


@dataclass(frozen=True)
class Turn:
    """One turn of one competitor."""

    amount: float  # of what was done: tokens, FLOPs, images
    seconds: float
    memory: int  # the peak so far, bytes

    @property
    def rate(self) -> float:
        return self.amount / self.seconds


class Turns:
    """Lets a loop, which runs in a process of its own, do `steps` steps whenever it is its turn."""

    def __init__(self, connection, steps: int):
        self.connection, self.steps = connection, steps
        self._begin()

    def _begin(self) -> None:
        self.left, self.amount, self.started = self.steps, 0.0, time.perf_counter()

    def step_done(self, amount: float) -> None:
        """Call it after every step; at the end of a turn it waits for the next one."""
        self.amount, self.left = self.amount + amount, self.left - 1
        if self.left:
            return
        synchronize()
        seconds = time.perf_counter() - self.started
        self.connection.send(Turn(self.amount, seconds, peak_memory()))
        self.connection.recv()
        self._begin()


@dataclass(frozen=True)
class Competitor:
    """`run(turns, *values)` is a loop without an end that calls `turns.step_done` at every step."""

    run: Callable
    values: tuple = ()
    steps: int = 1  # of a turn


def _work(connection, competitor: Competitor) -> None:
    try:
        competitor.run(Turns(connection, competitor.steps), *competitor.values)
    except EOFError:
        pass  # no more turns
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def take_turns(
    competitors: Mapping[str, Competitor], rounds: int, preload: Sequence[str] = ()
) -> dict[str, list[Turn]]:
    """Competitor -> its turns, one of each per round; the first, a warm-up, is left out.

    Each has a process of its own, so its peak memory is its own too. The order is reversed from
    round to round, so that other load on the machine affects all alike. `preload` names modules to
    import once for all. Raises SeqlmError when a competitor fails.
    """
    method = "spawn" if sys.platform == "win32" else "forkserver"
    context = multiprocessing.get_context(method)
    if preload:
        context.set_forkserver_preload(["__main__", *preload])
    processes, pipes, turns = [], {}, {name: [] for name in competitors}
    try:
        for name, competitor in competitors.items():
            pipes[name], theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, competitor), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            _receive(name, pipes[name])
        for turn in range(rounds):
            for name in list(pipes) if turn % 2 else list(reversed(pipes)):
                pipes[name].send(None)
                turns[name].append(_receive(name, pipes[name]))
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return turns


def _receive(name: str, pipe) -> Turn:
    try:
        answer = pipe.recv()
    except EOFError:
        answer = "its process ended (is there enough memory?)"
    if isinstance(answer, Turn):
        return answer
    raise SeqlmError(f"{name}: {answer}")


def multiply(turns: Turns, precision: str, seconds: float = 0.3) -> None:
    """The competitor that only multiplies matrices: its rate, FLOP/s, is the machine's peak."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(MATMUL, MATMUL, device=device, dtype=FORMATS[precision]) for _ in "ab")
    while True:
        started, products = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            a @ b
            synchronize()
            products += 1
        turns.step_done(2 * MATMUL**3 * products)


# ---------------------------------------------------------------- results


def path_of(name: str, results: Path, suffix: str = "json") -> Path:
    """Where the results of the benchmark `name` on this machine lie."""
    return results / machine_kind() / f"{name}.{suffix}"


def load(name: str, results: Path) -> dict:
    """What `save` wrote on a machine like this; {} when there is nothing."""
    path = path_of(name, results)
    return utils.read_json(path) if path.is_file() else {}


def save(name: str, results: Path, measured: Mapping, markdown: str) -> None:
    """Write the JSON and the Markdown of one benchmark, with the facts of this machine.

    Facts that are in `measured["machine"]` already are kept.
    """
    utils.write_json(path_of(name, results), {"machine": machine_facts(), **measured})
    utils.write_text(path_of(name, results, "md"), markdown.strip() + "\n")
