"""Reading, training and evaluation with more and more rows: seconds, rows per second, memory.

Rows of 789 tokens, 784 of them codes; each step is a process of its own. Memory is the peak of what
the process (with its workers, when it reads) holds for itself, without pages of mapped files, which
the system takes back whenever it needs them. "one by one" reads a row at a time, all of
them into memory.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from common import arguments, load, machine_facts, parse, save

from seqlm.data.tokens import default_vocab, read_layout
from seqlm.utils import write_json

NAME = "corpus_scale"
CODES = 784
SMALL = ["--n_layer", "1", "--n_head", "1", "--n_embd", "16", "--n_positions", "1024"]
READ = """
import sys, time, warnings
from pathlib import Path
from seqlm.data import arrow, records, splits, tokens
if __name__ == "__main__":
    folder, way = Path(sys.argv[1]), sys.argv[2]
    started, vocab = time.perf_counter(), tokens.read_vocab(folder / "vocab.json")
    if way == "one by one":
        reader = records.RowReader(vocab)
        rows = [reader(row, line)[0] for _, line, row in arrow.read_rows(folder / "rows.jsonl")]
    else:
        rows = arrow.read_table(folder / "rows.jsonl", vocab)
    splits.split_records(rows)
    print("seconds", time.perf_counter() - started)
"""


def write_data(folder: Path, n: int) -> None:
    """`n` rows of random codes, ten classes; a thousandth is val and another test."""
    vocab, rng = default_vocab(), np.random.default_rng(0)
    write_json(folder / "vocab.json", vocab)
    parts = ("test", "val")
    with open(folder / "rows.jsonl", "w") as file:
        for i in range(n):
            label = i % 10
            split = parts[i % 1000] if i % 1000 < len(parts) else "train"
            tokens = " ".join(read_layout(rng.integers(0, 500, CODES), label))
            row = {"tokens": tokens, "label": label, "meta": {"split": split}}
            file.write(json.dumps(row) + "\n")


def measure(command: list[str], environment: dict) -> dict:
    """Seconds, and the peak memory of a command in MB, asked for every tenth of a second."""
    started, peak, done = time.perf_counter(), [0], threading.Event()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

        def watch() -> None:
            parent = psutil.Process(process.pid)
            while not done.wait(0.1):
                try:
                    family = [parent, *parent.children(recursive=True)]
                    peak[0] = max(peak[0], sum(own_memory(member) for member in family))
                except psutil.NoSuchProcess:
                    pass

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
        output.seek(0)
        text = output.read()
    if code:
        raise SystemExit(f"error: {' '.join(command)}: {text[-500:]}")
    seconds = time.perf_counter() - started
    for line in text.splitlines():
        if line.startswith("seconds "):  # without the start of Python
            seconds = float(line.split()[1])
    return {"seconds": round(seconds, 2), "memory_mb": round(peak[0] / 1e6)}


def own_memory(process: psutil.Process) -> int:
    """Bytes of a process that no file stands for."""
    memory = process.memory_info()
    return memory.rss - getattr(memory, "shared", 0)


def measure_rows(n: int, one_by_one: bool) -> dict:
    """All steps with `n` rows."""
    import os

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, n)
        (folder / "read.py").write_text(READ)
        root = str(Path(__file__).parents[1])
        environment = os.environ | {"HF_DATASETS_CACHE": name, "PYTHONPATH": root}
        read = [sys.executable, str(folder / "read.py"), name]
        seqlm = [sys.executable, "-m", "seqlm"]
        files = ["--data_path", str(folder / "rows.jsonl")]
        train = [*files, "--vocab_path", str(folder / "vocab.json"), "--output_dir", f"{name}/out"]
        steps = ["--max_steps", "4", "--batch_size", "2", "--evals", "1", "--precision", "fp32"]
        commands = {
            "read, one by one": [*read, "one by one"] if one_by_one else None,
            "read": [*read, "first"],
            "read again": [*read, "again"],
            "train, 4 steps, and evaluate": [*seqlm, "train", *train, *SMALL, *steps],
            "evaluate": [*seqlm, "evaluate", *files, "--model_path", f"{name}/out/best_model"],
        }
        measured = {}
        for step, command in commands.items():
            if command:
                measured[step] = measure(command, environment)
                print(f"{n:,} rows, {step}: {measured[step]}", flush=True)
    return measured


def markdown(results: dict) -> str:
    """Seconds, rows per second and memory of each step."""
    lines = [
        "### Data larger than memory",
        "",
        "| rows of 789 tokens | step | seconds | rows per second | peak memory, MB |",
        "|---:|---|---:|---:|---:|",
    ]
    for n, steps in results.items():
        for step, numbers in steps.items():
            rate = f"{int(n) / numbers['seconds']:,.0f}" if step.startswith("read") else ""
            seconds = f"{numbers['seconds']:,.1f}"
            lines.append(f"| {int(n):,} | {step} | {seconds} | {rate} | {numbers['memory_mb']:,} |")
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", help="how many rows, once each")
    options = parse(parser)
    sizes = options.rows or ([2_000] if options.quick else [10_000, 100_000, 1_000_000])
    before = {} if options.fresh else load(NAME, options.results).get("rows", {})
    rows = {k: v for k, v in before.items() if int(k) not in sizes}
    for n in sizes:
        rows[str(n)] = measure_rows(n, one_by_one=n <= 20_000)
        rows = dict(sorted(rows.items(), key=lambda item: int(item[0])))
        save(NAME, options.results, {"machine": machine_facts(), "rows": rows}, markdown(rows))


if __name__ == "__main__":
    main()
