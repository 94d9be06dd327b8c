"""Stop seqlm at random moments, start it again, and compare its end with a run never stopped.

A chain is one output folder: starts that are stopped one after the other, and a last one that is
not. Each start must go on, and what is there in the end must be what a run leaves that nobody
stopped. Meanwhile a process of its own reads every model, metrics file, figure and README it sees.

The first start of a chain is stopped while it imports its libraries. The others of train, classify
and finetune run in processes forked from one that has loaded them, so that a start costs a second.
report runs the notebooks of a small copy of the project, each in a kernel of its own. Where root
may mount, the full disk is a small file system in memory that is filled up; elsewhere the process
may suddenly write no file larger than 20 kB.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import re
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
PAGE, OPEN, CLOSE = ROOT / "docs" / "durability.md", "<!-- torture -->", "<!-- /torture -->"
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
FULL = "full disk"
KINDS = (*SIGNALS, FULL)
STOPS = {"report": 15, "train": 25, "classify": 25, "finetune": 25, "serve": 10}
ALLOWED = {"kill -9": {-9}, "SIGTERM": {-15}, "SIGINT": {130, -2}, FULL: {1, 2}}
CHAIN = 5  # stops in one output folder: one while importing, then one of each kind
DISK = "300m"  # for one command
SMALL_FILE = 20_000  # bytes; the log is smaller, a checkpoint larger
FILES = f"--data_path {SAMPLE}/sequences.jsonl --vocab_path {SAMPLE}/vocab.json".split()
SIZE = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--n_positions=64"]
TRAINING = ["--batch_size=8", "--max_steps=24", "--evals=12", "--patience=0", "--precision=fp32"]
VARIABLES = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
MARK = "SEQLM_TORTURE"  # a variable that tells the processes of one start from all others
# How far a run has come: a notebook begins or ends, a model was evaluated, it is measured on test.
MARKS = {"report": r"(?m)^\w+: (?:running|done)"}
STEPS = r"(?m)^step [\d,]+ · val|^measuring"
# The report's laptop profile, which publishes figures and fills in READMEs, on little data.
NOTEBOOKS = {"explore_data", "build_tokenizer", "train_causal_lm", "evaluate", "report"}
# An axis is in seconds, or a line says how long training took.
TIMED_FIGURES = {
    f"{name}.png"
    for name in ("training_process", "performance_summary", "performance_summary_slide")
}
OURS = {"README.md", "README.zh-CN.md"}
THEIRS = ("figures/mine.png", "outputs/laptop/figures/a.png", "outputs/laptop/metrics/a.txt")


@dataclass
class Result:
    """What happened to one command."""

    stops: Counter = field(default_factory=Counter)  # by kind
    importing: int = 0  # of these, while libraries were imported
    starts: int = 0
    resumed: int = 0  # starts that went on from a checkpoint, or kept notebooks
    chains: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Reference:
    """A run that nobody stops."""

    left: dict  # what must be equal (see `left_by`)
    seconds: float
    marks: dict[str, float]  # beginnings of lines -> seconds when they were printed


def words_of(command: str, out: Path, start_from: Path) -> list[str]:
    """The command line, for the output folder `out`."""
    if command == "report":
        return ["report", "--profile", "laptop"]
    own = ["--model_path", str(start_from)] if command == "finetune" else SIZE
    files = FILES[:2] if command == "finetune" else FILES
    return [command, *files, *own, *TRAINING, "--output_dir", str(out)]


def copy_project(folder: Path) -> None:
    """What report needs of the project, with the laptop profile cut down to some seconds."""
    for name in ("seqlm", "notebooks"):
        skipped = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "laboratory")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for path in folder.glob("notebooks/*.ipynb"):
        if path.stem.lstrip("0123456789_") not in NOTEBOOKS:
            path.unlink()
    profiles = folder / "notebooks" / "profiles"
    small = yaml.safe_load((profiles / "smoke.yaml").read_text(encoding="utf-8"))
    small = {name: values for name, values in small.items() if name in NOTEBOOKS}
    (profiles / "laptop.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")


def make_home(home: Path) -> None:
    """A folder for the report, with READMEs to fill in, and files of its user's."""
    for name in THEIRS:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(f"mine, {name}")
    for name in OURS:
        shutil.copy(ROOT / name, home)


# ---------------------------------------------------------------- starting


class Started(subprocess.Popen):
    """`seqlm WORDS` as a user starts it, with its output in `log`, and `home` as its home."""

    def __init__(self, words: list[str], log: Path, home: Path, project: Path = ROOT):
        self.log, self.mark = log, f"{time.monotonic_ns()}"
        names = {MARK: self.mark, "SEQLM_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        names |= VARIABLES | {"PYTHONPATH": str(project)}
        with log.open("w") as written:
            super().__init__(
                [sys.executable, "-m", "seqlm", *words],
                env=os.environ | names,
                cwd=home,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def living(self) -> list[psutil.Process]:
        """Its processes; the kernel of a notebook is in a group of its own."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ended = process.status() == psutil.STATUS_ZOMBIE
                if not ended and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found


class Forked:
    """`seqlm WORDS` in a fork of a process that has loaded the libraries; used like `Started`."""

    def __init__(self, words: list[str], log: Path):
        self.log = log
        log.write_text("")
        os.environ.update(VARIABLES)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["seqlm.training.finetune", "seqlm.cli"])
        self.process = context.Process(target=run_forked, args=(words, log))
        self.process.start()
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def living(self) -> list[psutil.Process]:
        return [] if self.poll() is not None else [psutil.Process(self.pid)]


def run_forked(words: list[str], log: Path) -> None:
    """The command line, with its output in `log`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    from seqlm.__main__ import main

    sys.argv = ["seqlm", *words]
    code = main()
    sys.stdout.close()
    os._exit(code)


def end(process, wait: float = 30) -> bool:
    """Whether all processes of a start end by themselves; those that do not are killed."""
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        process.poll()
        if not process.living():
            return True
        time.sleep(0.05)
    for each in process.living():
        with suppress(psutil.Error):
            each.kill()
    process.wait(30)
    return False


# ---------------------------------------------------------------- stopping


@contextmanager
def full_disk(folder: Path, mounted: bool, process):
    """Meanwhile nothing more fits into `folder`, or into any file of `process`."""
    if not mounted:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE))
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


def wait_for(moment: float, marks: dict[str, float], process) -> bool:
    """Wait until a run is where the reference was after `moment` seconds; False: it has ended.

    A run that goes on from a checkpoint, or keeps notebooks, is there sooner: the lines count.
    Without `marks` it is no longer waited for than until the first line.
    """
    passed = [name for name, when in marks.items() if when <= moment]
    coming = [name for name in marks if name not in passed[:-1]] if passed else []
    while coming and process.poll() is None:
        said = process.log.read_text(errors="replace")
        if any(name in said for name in coming):
            break
        time.sleep(0.005)
    deadline = time.monotonic() + moment - (marks[passed[-1]] if passed else 0)
    while time.monotonic() < deadline and process.poll() is None:
        if not marks and process.log.stat().st_size:
            break
        time.sleep(0.005)
    return process.poll() is None


# ---------------------------------------------------------------- what a run leaves


def left_by(command: str, out: Path) -> dict:
    """What must be equal: names of files; content of metrics, weights, figures and READMEs."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    left = {"names": [str(path.relative_to(out)) for path in files]}
    for path in files:
        name = str(path.relative_to(out))
        if command == "report" and path.parent.name == "metrics" and path.suffix == ".json":
            left[name] = _without_times(json.loads(path.read_bytes()))
        elif path.name in {"metrics.json", "model.safetensors"} or (
            command == "report" and (name in {*OURS, *THEIRS} or path.suffix == ".png")
        ):
            left[name] = path.read_bytes()
    return {name: content for name, content in left.items() if Path(name).name not in TIMED_FIGURES}


def _without_times(value):
    if isinstance(value, dict):
        timed = ("second", "duration", "speed", "machine", "forecast")
        kept = {k: v for k, v in value.items() if not any(word in k for word in timed)}
        return {k: _without_times(v) for k, v in kept.items()}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def watch(folder: Path, stop, found) -> None:
    """Read all that must be whole below `folder`, until `stop`; put how often, and what was not."""
    from seqlm.data.tokenizer import load_tokenizer
    from seqlm.models.gpt2 import load_model

    def load(model: Path) -> None:
        load_model(model)
        load_tokenizer(model)

    readers = {"*_model": load, "*.json": read_json, "*.png": read_png, "README*.md": read_page}
    os.nice(5)
    reads, torn = Counter(), []
    while not stop.is_set():
        for where, folders, names in os.walk(folder):
            left_out = {"gone", "checkpoints", "project"}
            folders[:] = [name for name in folders if name[0] != "." and name not in left_out]
            for path in (Path(where) / name for name in (*folders, *names) if name[0] != "."):
                pattern = next((pattern for pattern in readers if path.match(pattern)), None)
                if pattern is None:
                    continue
                with suppress(FileNotFoundError):
                    before = path.stat().st_ino
                    try:
                        readers[pattern](path)
                        reads[pattern] += 1
                    except Exception as error:
                        if path.stat().st_ino == before:  # not replaced meanwhile
                            torn.append(f"{path}: {error}")
        time.sleep(0.3)
    found.put((dict(reads), torn))


def read_json(path: Path) -> None:
    json.loads(path.read_bytes())


def read_png(path: Path) -> None:
    content = path.read_bytes()
    assert content.endswith(b"IEND\xaeB`\x82") or content.startswith(b"mine"), "cut short"


def read_page(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip(), "empty"


# ---------------------------------------------------------------- chains


class Torture:
    """Chains of one command after another in `folder`."""

    def __init__(self, folder: Path, seed: int = 0, log: Callable[[str], None] = print):
        self.folder, self.seed, self.log, self.mounted = folder, seed, log, {}
        self.base = folder / "start"  # finetune and serve start from it
        # The first start also tells how long the libraries take.
        self.base.mkdir()
        began = time.monotonic()
        process = self.start("train", self.base)
        while not process.log.read_bytes() and process.poll() is None:
            time.sleep(0.01)
        self.imports = time.monotonic() - began
        self.check_end("train", process)

    def run(self, command: str, stops: int) -> Result:
        """Stop `command` so many times, of each kind as often."""
        result, began = Result(), time.monotonic()
        rng = random.Random(f"{command} {self.seed}")
        with disk(self.folder / command) as self.mounted[command]:
            if command == "serve":
                self._serve(stops, result, rng)
            else:
                self._chains(command, stops, result, rng)
        result.seconds = time.monotonic() - began
        self.log("\n".join([table({command: result}), *result.faults]))
        return result

    def start(self, command: str, out: Path, forked: bool = False):
        """`command` with the output folder `out`, not waited for."""
        log = self.folder / f"{command}.log"
        words = words_of(command, out, self.base / "best_model")
        if forked:
            return Forked(words, log)
        if command != "report":
            return Started(words, log, self.folder)
        if not (self.folder / "project").exists():
            copy_project(self.folder / "project")
        if not out.exists():
            make_home(out)
        return Started(words, log, out, self.folder / "project")

    def check_end(self, command: str, process) -> None:
        if process.wait(1800):
            said = process.log.read_text()
            raise SystemExit(f"{command} does not even run undisturbed:\n{said}")

    def reference(self, command: str) -> Reference:
        """What `command` leaves, and how it goes on, when nobody stops it."""
        out, marks, began = self.folder / command / "never-stopped", {}, time.monotonic()
        process = self.start(command, out, forked=command != "report")
        while process.poll() is None:
            for name in re.findall(MARKS.get(command, STEPS), process.log.read_text()):
                marks.setdefault(name, time.monotonic() - began)
            time.sleep(0.01)
        seconds = time.monotonic() - began
        self.check_end(command, process)
        return Reference(left_by(command, out), seconds, marks)

    def _chains(self, command, stops, result, rng) -> None:
        reference = self.reference(command)
        left = [kind_of(number) for number in range(stops)]
        while left:
            result.chains += 1
            out = self.folder / command / f"{command}-{result.chains}"
            wanted = left[:CHAIN]
            first = wanted[0][1]  # whether one is made while importing
            for place, (kind, importing) in enumerate(wanted):
                # Later in the chain, later in the run.
                share = (place - first + rng.random()) / max(1, len(wanted) - first)
                moment = rng.random() * self.imports if importing else share * reference.seconds
                if not self._start(command, out, (kind, importing, moment), reference, result):
                    break  # it came to its end first
                left.pop(0)
            else:
                self._start(command, out, None, reference, result)
            found = left_by(command, out)
            if found != reference.left:
                other = [
                    k for k in {**found, **reference.left} if found.get(k) != reference.left.get(k)
                ]
                names = {*found["names"]} ^ {*reference.left["names"]}
                result.faults.append(f"{out.name}: not as if never stopped: {other} {names or ''}")
            (out.parent / "gone").mkdir()
            gone = out.rename(out.parent / "gone" / "run")  # in one moment, for the watcher
            shutil.rmtree(gone.parent)

    def _start(self, command, out, stop, reference, result) -> bool:
        """One start, stopped if there is a `stop`; whether it was stopped before its end."""
        kind, importing, moment = stop or (None, False, 0)
        whole = [*out.glob("checkpoints/checkpoint-*/.seqlm.json")]
        process = self.start(command, out, forked=not importing and command != "report")
        result.starts += 1
        marks = {} if importing else reference.marks
        stopped = kind is not None and wait_for(moment, marks, process)
        if stopped and kind == FULL:
            with full_disk(out.parent, self.mounted[command], process):
                process.wait(600)
        elif stopped:
            process.send_signal(SIGNALS[kind])
        code, said = process.wait(1800), process.log.read_text(errors="replace")
        if not end(process):
            result.faults.append(f"{out.name}: processes were left after {kind}")
        goes_on = any(w in said for w in ("picking up", "already trained", "unchanged, kept"))
        result.resumed += goes_on
        # A signal may come in its last moment; a disk may be full when all is written.
        if code not in (ALLOWED[kind] | {0} if stopped else {0}) or "Traceback" in said:
            how = f"after {kind}{' while importing' * importing}" if stopped else "undisturbed"
            result.faults.append(f"{out.name}, {how}: exit code {code}:\n{said[-3000:]}")
        if whole and not stopped and not goes_on:
            result.faults.append(f"{out.name}: began anew beside a whole checkpoint:\n{said}")
        if stopped:
            result.stops[kind] += 1
            result.importing += importing
            last = said.strip().splitlines()[-1:] or ["before its first line"]
            self.log(f"{out.name}: {kind} after {moment:.1f} s: {last[0][:90]}")
        return stopped

    def _serve(self, stops, result, rng) -> None:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port = trial.getsockname()[1]
        words = ["serve", "--model_path", str(self.base / "best_model"), "--port", str(port)]
        moments = [(kind, when) for when in ("starting", "busy", "idle") for kind in SIGNALS]
        wanted, seconds = None, 0.0
        for number in range(stops + 2):
            # The first and the last are no stops to count: they tell what the others are about.
            counts = 0 < number <= stops
            kind, when = moments[(number - 1) % len(moments)] if counts else ("SIGTERM", "idle")
            process, began = (
                Started(words, self.folder / "serve.log", self.folder),
                time.monotonic(),
            )
            result.starts += 1
            if when == "starting":
                time.sleep(rng.random() * seconds)
            else:
                answer = ask(port, process, "/next-token", {"tokens": ["<IMG>"], "k": 5})
                seconds = seconds or time.monotonic() - began
                wanted = wanted or answer
                if answer is None or answer != wanted:
                    said = process.log.read_text()
                    result.faults.append(f"serve: another answer: {answer}\n{said}")
            if when == "busy":
                many = {"tokens": "<CLS> <CLS_3> <IMG>", "n": 64}
                threading.Thread(target=ask, args=(port, process, "/generate", many)).start()
                time.sleep(0.05 + rng.random() * 0.2)
            if counts:
                result.stops[kind] += 1
                result.importing += when == "starting"
                self.log(f"serve: {kind} while {when}, after {time.monotonic() - began:.1f} s")
            process.send_signal(SIGNALS[kind])
            if not end(process):
                result.faults.append(f"serve: processes were left after {kind} while {when}")
            code, said = process.wait(60), process.log.read_text()
            if code not in ALLOWED[kind] | {0} or "Traceback" in said:
                result.faults.append(f"serve: {kind} while {when}: exit code {code}:\n{said}")
            with socket.socket() as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    result.faults.append(f"serve: somebody still answers after {kind}")
        result.chains = 1


def kind_of(number: int) -> tuple[str, bool]:
    """How the stop of this number is made, and whether while libraries are imported."""
    chain, place = divmod(number, CHAIN)
    if place == 0:
        return [*SIGNALS][chain % len(SIGNALS)], True
    return KINDS[(chain + place - 1) % len(KINDS)], False


def ask(port: int, process, path: str, asked: dict) -> dict | None:
    """The server's answer to one question, or None when there is none within two minutes."""
    kind = {"content-type": "application/json"}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        url = f"http://127.0.0.1:{port}{path}"
        request = urllib.request.Request(url, json.dumps(asked).encode(), kind)
        with suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=10) as answer:
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
    """A list that holds, in the end, how often each kind was read, and what was not whole."""
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
    head = ["command", *KINDS, "while importing", "starts", "went on", "chains", "faults"]
    lines = [[*head, "minutes"], ["---", *["--:"] * len(head)]]
    for name, r in results.items():
        counts = [r.importing, r.starts, r.resumed, r.chains, len(r.faults)]
        lines.append(
            [f"`{name}`", *(r.stops[kind] for kind in KINDS), *counts, f"{r.seconds / 60:.1f}"]
        )
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_page(text: str, page: Path = PAGE) -> None:
    """Put `text` between the marks of docs/durability.md."""
    before, rest = page.read_text(encoding="utf-8").split(OPEN)
    after = rest.split(CLOSE)[1]
    page.write_text(f"{before}{OPEN}\n\n{text}\n\n{CLOSE}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the 100 stops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="commands at the same time")
    parser.add_argument("--only", nargs="+", choices=STOPS, default=[*STOPS])
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in run_forked; inherited
    stops = {name: max(1, round(STOPS[name] * options.share)) for name in options.only}
    print(f"{sum(stops.values())} stops: {stops}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, watched(Path(folder)) as seen:
        torture = Torture(Path(folder), options.seed, lambda line: print(line, flush=True))
        with ThreadPoolExecutor(options.jobs) as pool:
            done = dict(zip(stops, pool.map(torture.run, stops, stops.values()), strict=True))
    minutes = (time.monotonic() - began) / 60
    filled = f"a file system of {DISK}" if all(torture.mounted.values()) else "RLIMIT_FSIZE"
    reads, torn = seen
    faults = [fault for result in done.values() for fault in result.faults] + torn
    read = ", ".join(f"{count:,} times a `{name}`" for name, count in reads.items())
    text = (
        f"{table(done)}\n\n{sum(stops.values())} stops in {minutes:.0f} minutes: "
        f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores, seed "
        f"{options.seed}; the full disk was {filled}. Meanwhile another process read {read}; not "
        f"whole: {len(torn)}."
    )
    print("\n".join([text, *faults]))
    if options.write:
        write_page(text)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
