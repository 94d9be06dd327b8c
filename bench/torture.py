"""Stop seqlm at random moments, start it again, and compare its end with a run never stopped.

A chain is one output folder: starts that are stopped one after the other, and a last one that is
not. Each start must go on, and what is there in the end must be, byte for byte, what a run leaves
that nobody stopped. Meanwhile a process of its own loads every best_model/ that it can see.

train, classify and finetune run in processes forked from one that has loaded the libraries, so that
a start costs a second; report and serve are started as a user starts them. Where root may mount,
the full disk is a small file system in memory that is filled up; elsewhere the process may suddenly
write no file larger than a kilobyte.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
FULL = "full disk"
KINDS = (*SIGNALS, FULL)
STOPS = {"train": 29, "classify": 28, "finetune": 28, "report": 7, "serve": 8}
ALLOWED = {"kill -9": {-9}, "SIGTERM": {-15, 0}, "SIGINT": {130, -2, 0}, FULL: {1, 2}}
CHAIN = 4  # stops in one output folder
DISK = "200m"  # for one command
FILES = f"--data_path {SAMPLE}/sequences.jsonl --vocab_path {SAMPLE}/vocab.json".split()
SIZE = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--n_positions=64"]
TRAINING = ["--batch_size=8", "--max_steps=24", "--evals=12", "--patience=0", "--precision=fp32"]
VARIABLES = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass
class Result:
    """What happened to one command."""

    stops: Counter = field(default_factory=Counter)  # by kind
    starts: int = 0
    resumed: int = 0  # starts that went on from a checkpoint, or kept notebooks
    chains: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def words_of(command: str, out: Path, start_from: Path) -> list[str]:
    """The command line, for the output folder `out`."""
    if command == "report":
        return ["report", "--profile", "smoke"]
    own = ["--model_path", str(start_from)] if command == "finetune" else SIZE
    files = FILES[:2] if command == "finetune" else FILES
    return [command, *files, *own, *TRAINING, "--output_dir", str(out)]


def start(words: list[str], home: Path, log: Path):
    """`seqlm WORDS` in its own group of processes, its output in `log`."""
    if words[0] in ("report", "serve"):
        with log.open("w") as written:
            return subprocess.Popen(
                [sys.executable, "-m", "seqlm", *words],
                env=os.environ | VARIABLES | {"SEQLM_HOME": str(home), "PYTHONUNBUFFERED": "1"},
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    log.write_text("")
    return Forked(words, log)


class Forked:
    """`seqlm WORDS` in a fork of a process that has loaded the libraries; used like a Popen."""

    def __init__(self, words: list[str], log: Path):
        os.environ.update(VARIABLES)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["seqlm.training.finetune", "seqlm.cli"])
        self.process = context.Process(target=run_forked, args=(words, log))
        self.process.start()
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float) -> int:
        self.process.join(timeout)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def run_forked(words: list[str], log: Path) -> None:
    """The command line, with its output in `log`."""
    os.setsid()
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    from seqlm.cli import main

    code = main(words)
    sys.stdout.close()
    os._exit(code)


def end(process: subprocess.Popen, wait: float = 60) -> bool:
    """Whether all processes of the group end by themselves; those that do not are killed."""
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    return False


# ---------------------------------------------------------------- stopping


@contextmanager
def full_disk(folder: Path, mounted: bool, process: subprocess.Popen):
    """Meanwhile nothing more fits into `folder`, or into any file of `process`."""
    if not mounted:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        yield
        return
    filler = folder / "filler"
    done = threading.Event()

    def fill() -> None:
        while not done.is_set():
            with suppress(OSError), filler.open("ab", buffering=0) as file:
                while not done.is_set():
                    file.write(bytes(1_000_000))
            time.sleep(0.002)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        filler.unlink()


def stop_at_random(process, kind: str, lines: int, log: Path, rng, place) -> bool:
    """Wait for one of the first `lines` lines and a little more, then stop; False: it was done."""
    line, more = rng.randrange(lines + 1), rng.random() * 0.3
    while log.read_bytes().count(b"\n") < line and process.poll() is None:
        time.sleep(0.005)
    time.sleep(more)
    if process.poll() is not None:
        return False
    if kind != FULL:
        process.send_signal(SIGNALS[kind])
        end(process)
        return True
    with full_disk(*place, process):
        process.wait(300)
    return True


# ---------------------------------------------------------------- what a run leaves


def left_by(command: str, out: Path) -> dict[str, bytes]:
    """What must be equal: names of files, and the bytes of metrics and weights."""
    if command == "report":
        files = sorted(out.glob("outputs/smoke/metrics/*.json"))
        return {path.name: _without_times(json.loads(path.read_bytes())) for path in files}
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    files = [out / "metrics.json", *sorted(out.glob("*_model/model.safetensors"))]
    return {str(p.relative_to(out)): p.read_bytes() for p in files} | {"names": names}


def _without_times(value):
    if isinstance(value, dict):
        timed = ("second", "duration", "speed", "machine", "forecast")
        kept = {k: v for k, v in value.items() if not any(word in k for word in timed)}
        return {k: _without_times(v) for k, v in kept.items()}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def watch(folder: Path, stop, found) -> None:
    """Load each best_model below `folder` again and again, until `stop`; put what was found."""
    from seqlm.data.tokenizer import load_tokenizer
    from seqlm.models.gpt2 import load_model

    os.nice(5)
    loads, torn = 0, []
    while not stop.is_set():
        for model in folder.glob("*/*/best_model"):
            with suppress(FileNotFoundError):
                before = model.stat().st_ino
                try:
                    load_model(model)
                    load_tokenizer(model)
                    loads += 1
                except Exception as error:
                    if model.stat().st_ino == before:  # not replaced meanwhile
                        torn.append(f"{model}: {error}")
        time.sleep(0.02)
    found.put((loads, torn))


# ---------------------------------------------------------------- chains


class Torture:
    """Chains of one command after another in `folder`."""

    def __init__(self, folder: Path, seed: int = 0, log=print):
        self.folder, self.seed, self.log, self.mounted = folder, seed, log, False
        self.base = folder / "start"  # finetune and serve start from it
        self.reference("train", self.base)

    def run(self, command: str, stops: int, kinds=KINDS) -> Result:
        """Stop `command` so many times, of each kind as often."""
        result, began = Result(), time.monotonic()
        rng = random.Random(f"{command} {self.seed}")
        with disk(self.folder / command) as self.mounted:
            if command == "serve":
                self._serve(stops, result, rng)
            else:
                self._chains(command, stops, kinds, result, rng)
        result.seconds = time.monotonic() - began
        self.log("\n".join([table({command: result}), *result.faults]))
        return result

    def reference(self, command: str, out: Path) -> tuple[dict, int]:
        """What `command` leaves, and the lines it prints, when nobody stops it."""
        log = self.folder / f"{command}.log"
        process = start(words_of(command, out, self.base / "best_model"), out, log)
        if process.wait(1800):
            raise SystemExit(f"{command} does not even run undisturbed:\n{log.read_text()}")
        return left_by(command, out), log.read_bytes().count(b"\n")

    def _chains(self, command, stops, kinds, result, rng) -> None:
        wanted, lines = self.reference(command, self.folder / command / "never-stopped")
        left = [kinds[k % len(kinds)] for k in range(stops)]
        while left:
            result.chains += 1
            out = self.folder / command / f"{command}-{result.chains}"
            for kind in left[:CHAIN]:
                if not self._start(command, out, kind, lines, result, rng):
                    break  # it came to its end first
                left.pop(0)
            else:
                self._start(command, out, None, lines, result, rng)
            found = left_by(command, out)
            if found != wanted:
                other = [k for k in {**found, **wanted} if found.get(k) != wanted.get(k)]
                result.faults.append(f"{out.name}: not as if never stopped: {other}")
            (out.parent / "gone").mkdir()
            gone = out.rename(out.parent / "gone" / "run")  # in one moment, for the watcher
            shutil.rmtree(gone.parent)

    def _start(self, command, out, kind, lines, result, rng) -> bool:
        """One start, stopped if there is a `kind`; whether it was stopped before its end."""
        log = self.folder / f"{command}.log"
        whole = [*out.glob("checkpoints/checkpoint-*/.seqlm.json")]
        process = start(words_of(command, out, self.base / "best_model"), out, log)
        result.starts += 1
        stopped = kind is not None
        if stopped:
            stopped = stop_at_random(process, kind, lines, log, rng, (out.parent, self.mounted))
        code, said = process.wait(1800), log.read_text(errors="replace")
        goes_on = any(w in said for w in ("picking up", "already trained", "unchanged, kept"))
        result.resumed += goes_on
        allowed = ALLOWED[kind] | {0} if stopped else {0}
        if code not in allowed or "Traceback" in said:
            how = f"after {kind}" if stopped else "undisturbed"
            result.faults.append(f"{out.name}, {how}: exit code {code}:\n{said[-1500:]}")
        if whole and not stopped and not goes_on:
            result.faults.append(f"{out.name}: began anew beside a whole checkpoint:\n{said}")
        if stopped:
            result.stops[kind] += 1
            self.log(f"{out.name}: {kind} after {said.count(chr(10))} of {lines} lines")
        return stopped

    def _serve(self, stops, result, rng) -> None:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port = str(trial.getsockname()[1])
        words = ["serve", "--model_path", str(self.base / "best_model"), "--port", port]
        wanted, seconds = None, 0.0
        for number in range(stops + 1):
            log = self.folder / "serve.log"
            process, began = start(words, self.folder, log), time.monotonic()
            result.starts += 1
            kind = [*SIGNALS][number % len(SIGNALS)]
            if number % 2:  # in the middle of starting
                time.sleep(rng.random() * seconds)
            else:
                answer = _ask(port, process)
                seconds = time.monotonic() - began
                wanted = wanted or answer
                if answer != wanted or answer is None:
                    result.faults.append(f"serve: another answer: {answer}\n{log.read_text()}")
            if number == stops:
                kind = "SIGTERM"  # the end of this test, no stop to count
            else:
                result.stops[kind] += 1
                self.log(f"serve: {kind} after {time.monotonic() - began:.1f} s")
            process.send_signal(SIGNALS[kind])
            if not end(process):
                result.faults.append(f"serve: processes were left after {kind}")
        result.chains = 1


def _ask(port: str, process) -> dict | None:
    """The server's answer to one question, or None when there is none within a minute."""
    asked = json.dumps({"tokens": ["<IMG>"], "k": 5}).encode()
    kind = {"content-type": "application/json"}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/next-token", asked, kind)
        with suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
        time.sleep(0.1)
    return None


# ---------------------------------------------------------------- the whole


@contextmanager
def disk(folder: Path):
    """Make `folder`, if possible a small file system of its own: yields whether it is one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = bool(shutil.which("mount"))
    mounted = mounted and not subprocess.run(mount, stderr=subprocess.DEVNULL).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=False)


@contextmanager
def watched(folder: Path):
    """A list that holds, in the end, how often a model was loaded, and what was not whole."""
    context = multiprocessing.get_context("spawn")
    stop, found, seen = context.Event(), context.Queue(), []
    watcher = context.Process(target=watch, args=(folder, stop, found))
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        seen.extend(found.get(timeout=60))
        watcher.join()


def table(results: dict[str, Result]) -> str:
    """The results as Markdown."""
    head = ["command", *KINDS, "starts", "of these went on", "chains", "faults", "minutes"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for name, r in results.items():
        counts = [r.starts, r.resumed, r.chains, len(r.faults), f"{r.seconds / 60:.1f}"]
        lines.append([f"`{name}`", *(r.stops[kind] for kind in KINDS), *counts])
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the 100 stops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="commands at the same time")
    parser.add_argument("--only", nargs="+", choices=STOPS, default=[*STOPS])
    options = parser.parse_args()
    stops = {name: max(1, round(STOPS[name] * options.share)) for name in options.only}
    print(f"{sum(stops.values())} stops: {stops}", flush=True)
    with tempfile.TemporaryDirectory() as folder, watched(Path(folder)) as seen:
        torture = Torture(Path(folder), options.seed, lambda line: print(line, flush=True))
        with ThreadPoolExecutor(options.jobs) as pool:
            done = dict(zip(stops, pool.map(torture.run, stops, stops.values()), strict=True))
        filled = f"a file system of {DISK}" if torture.mounted else "RLIMIT_FSIZE"
    loads, torn = seen
    faults = [fault for result in done.values() for fault in result.faults]
    print(table(done))
    loaded = f"best_model/ was loaded {loads:,} times meanwhile; not whole: {len(torn)}"
    print(f"\nThe full disk: {filled}. {loaded}.")
    print("\n".join(faults + torn))
    return bool(faults or torn)


if __name__ == "__main__":
    sys.exit(main())
