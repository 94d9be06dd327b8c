"""Compare the speed of a model under torch and under onnxruntime, as ratios.

`python bench/runtimes.py --model_path outputs/laptop/best_model` exports the model four ways (with
and without key-value cache, in 32 and in 8 bits) and prints, for scoring rows and for generating 64
images, how many times as fast as torch each of them is.

Every round times torch and each export in turn, the order reversed from round to round, so that
other load on the machine affects all alike. A ratio is that of one round's times; the table holds
medians over rounds, with the sign test's interval.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# isort: split
import numpy as np
import torch

from seqlm.config import SampleConfig
from seqlm.data.tokens import read_vocab
from seqlm.deploy.export import export_model
from seqlm.deploy.onnx_model import GRAPH, load_onnx, quantise
from seqlm.evaluation.estimates import Estimate, median
from seqlm.evaluation.scores import score_tokens
from seqlm.evaluation.tables import markdown_table
from seqlm.models.generation import draw
from seqlm.models.gpt2 import fit_attention, load_lm

BASE = "torch"


def exports(directory: Path, folder: Path) -> dict[str, Path]:
    """Name -> directory of four exports in `folder`; those that exist are kept."""
    paths = {}
    for name, cache in (("with cache", True), ("without cache", False)):
        stem = name.replace(" ", "_")
        whole, small = folder / stem, folder / f"{stem}_int8"
        if not (whole / GRAPH).is_file():
            export_model(directory, whole, cache=cache)
        if not (small / GRAPH).is_file():
            shutil.copytree(whole, small)
            quantise(small / GRAPH)
        paths |= {f"onnxruntime, fp32, {name}": whole, f"onnxruntime, int8, {name}": small}
    return paths


def times_as_fast(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Estimate]:
    """How many times as fast as `BASE` each task is: median over rounds of paired ratios."""
    for task in tasks.values():
        task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds):
        for name in list(tasks) if turn % 2 else list(reversed(tasks)):
            started = time.perf_counter()
            tasks[name]()
            times[name].append(time.perf_counter() - started)
    ratios = {name: np.divide(times[BASE], seconds) for name, seconds in times.items()}
    return {name: median(ratio, "times as fast") for name, ratio in ratios.items() if name != BASE}


def compare(directory: Path, folder: Path, rows: int, length: int, rounds: int) -> dict[str, dict]:
    """Task -> runtime -> how many times as fast as torch."""
    vocab, rng = read_vocab(directory / "vocab.json"), np.random.default_rng(0)
    base = load_lm(directory).cpu()
    fit_attention(base, length)  # the fastest torch, too
    models = {BASE: base}
    models |= {name: load_onnx(path) for name, path in exports(directory, folder).items()}
    ids = rng.integers(0, len(vocab), (rows, length)).tolist()
    labels = [image % 10 for image in range(64)]
    config = SampleConfig(temperature=0.9, top_p=0.95)
    guided = replace(config, guidance=1.5)
    kinds: dict[str, Callable] = {
        f"score {rows} rows of {length} tokens": lambda model: score_tokens(model, ids),
        "generate 64 images": lambda model: draw(model, vocab, labels, 16, config),
        "generate 64 images, guided": lambda model: draw(model, vocab, labels, 16, guided),
    }
    return {
        task: times_as_fast({name: lambda m=m, r=run: r(m) for name, m in models.items()}, rounds)
        for task, run in kinds.items()
    }


def table(results: Mapping[str, Mapping[str, Estimate]], threads: int) -> str:
    """Markdown: a row per export, a column per task."""
    first = next(iter(results.values()))
    rows = [(name, *(measured[name].format() for measured in results.values())) for name in first]
    n = next(iter(first.values())).n
    return (
        f"{markdown_table(('times as fast as torch', *results), rows)}\n\n"
        f"Median of n = {n} rounds, 95 % interval of the sign test; {threads} thread(s)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_path", type=Path, default=Path("outputs/laptop/best_model"))
    parser.add_argument(
        "--exports", type=Path, help="keep the four exports here, or use those there"
    )
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--length", type=int, default=22)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as temporary:
        folder = arguments.exports or Path(temporary)
        results = compare(
            arguments.model_path, folder, arguments.rows, arguments.length, arguments.rounds
        )
    print(table(results, arguments.threads))


if __name__ == "__main__":
    main()
