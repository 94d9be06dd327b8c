"""Many clients at one server: is each answer right, does memory grow, how long do clients wait?

`python bench/serving_load.py` serves a model with random weights (answers cost as much as those of
a trained one), asks it from 200 threads for 60 seconds, and prints a Markdown table. Each answer is
compared with the answer to the same request asked alone. `--clients` and `--seconds` change that.
"""

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from seqlm.config import ModelConfig
from seqlm.data.tokenizer import build_tokenizer, save_tokenizer
from seqlm.data.tokens import default_vocab, read_layout
from seqlm.evaluation.tables import markdown_table
from seqlm.models.gpt2 import build_lm

PORT = 8731
ATOL = 1e-5  # of probabilities: a batch of another size adds in another order


def requests() -> list[tuple[str, dict]]:
    """Forty different requests to each of three endpoints."""
    codes = np.random.default_rng(0).integers(0, 500, (40, 16))
    asked = []
    for seed, row in enumerate(codes):
        whole = " ".join(read_layout(row, 0)[:-2])
        prompt = f"<CLS> <CLS_{seed % 10}> <IMG>"
        asked += [
            ("/next-token", {"tokens": " ".join(whole.split()[: 2 + seed % 14]), "k": 5}),
            ("/generate", {"tokens": prompt, "seed": seed, "max_new_tokens": 17}),
            ("/classify", {"rows": [whole]}),
        ]
    return asked


def ask(path: str, body: dict):
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def same(one, other) -> bool:
    """Equal, but for the last digits of numbers that are no integers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return abs(one - other) <= ATOL if isinstance(one, float) else one == other


def megabytes(process: subprocess.Popen) -> float:
    """Memory of the server and all its workers."""
    first = psutil.Process(process.pid)
    return sum(p.memory_info().rss for p in [first, *first.children(recursive=True)]) / 2**20


def load(process: subprocess.Popen, clients: int, seconds: float) -> str:
    """Ask from `clients` threads for `seconds`; the table of what came back."""
    asked = requests()
    alone = [ask(*request) for request in asked]
    ends = time.monotonic() + seconds
    waits, other, memory = defaultdict(list), defaultdict(int), [megabytes(process)]

    def client(number: int) -> None:
        turn = number
        while time.monotonic() < ends:
            which = turn % len(asked)
            began = time.monotonic()
            status, answer = ask(*asked[which])
            path = asked[which][0]
            waits[path].append(time.monotonic() - began)
            other[path] += not (status == 200 and same(answer, alone[which][1]))
            turn += 7

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        memory.append(megabytes(process))
    rows = []
    for path, times in waits.items():
        p50, p95, p99 = np.percentile(times, (50, 95, 99))
        cells = (f"{value:.2f} s" for value in (p50, p95, p99, max(times)))
        rows.append((f"`{path}`", f"{len(times):,}", f"{other[path]:,}", *cells))
    header = ("Endpoint", "Answers", "Other than alone", "Median", "95 %", "99 %", "Longest")
    quarter = max(1, len(memory) // 4)
    first, last = np.median(memory[1 : 1 + quarter]), np.median(memory[-quarter:])
    about = (
        f"{clients} clients, {seconds:.0f} s; memory of all processes {memory[0]:,.0f} MB before, "
    )
    about += f"{first:,.0f} MB in the first quarter, {last:,.0f} MB in the last"
    return f"{about}\n\n{markdown_table(header, rows, 'lrrrrrr')}"


def main() -> None:
    """Serve, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--n_layer", type=int, default=6)
    parser.add_argument("--n_embd", type=int, default=384)
    given = parser.parse_args()
    vocab = default_vocab()
    size = ModelConfig(n_layer=given.n_layer, n_head=8, n_embd=given.n_embd, n_positions=64)
    with TemporaryDirectory() as folder:
        build_lm(size, vocab).save_pretrained(folder)
        save_tokenizer(build_tokenizer(vocab, model_max_length=64), folder)
        words = ["-m", "seqlm", "serve", "--model_path", folder, "--port", str(PORT)]
        environment = {k: v for k, v in os.environ.items() if k != "LIT_SERVER_API_KEY"}
        process = subprocess.Popen([sys.executable, *words], env=environment, cwd=Path(folder))
        try:
            for _ in range(600):
                try:
                    if ask("/next-token", {"tokens": "<IMG>"})[0] == 200:
                        break
                except OSError:
                    time.sleep(0.2)
            print(load(process, given.clients, given.seconds))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


if __name__ == "__main__":
    main()
