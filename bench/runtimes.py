"""How fast does a model run under torch and under onnxruntime? Timed side by side, told as ratios.

README: `python bench/runtimes.py --model_path outputs/laptop/best_model` exports the model four
ways (with and without key-value cache, in 32 and in 8 bits) and prints, for scoring rows and for
drawing 64 pictures, how many times as fast as torch each of them is.

Every round times torch and each export in turn, the order reversed from round to round, so that
whatever else the machine does meets them all. A ratio is that of one round's times; what is told
is the median over rounds, with the sign test's interval. Seconds are not told: they would be this
machine's, at this moment.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from seqlm.config import SampleConfig
from seqlm.data.tokens import read_vocab
from seqlm.deploy.export import export_model
from seqlm.deploy.onnx_model import GRAPH, load_onnx
from seqlm.deploy.quantize import quantise
from seqlm.evaluation.estimates import Estimate, median
from seqlm.evaluation.scores import score_tokens
from seqlm.evaluation.tables import markdown_table
from seqlm.models.generation import draw
from seqlm.models.gpt2 import fit_attention, load_lm

BASE = "torch"


def exports(directory: Path, folder: Path) -> dict[str, Path]:
    """Name -> directory of four exports in `folder`; those already there are taken as they are."""
    made = {}
    for name, cache in (("with cache", True), ("without cache", False)):
        stem = name.replace(" ", "_")
        whole, small = folder / stem, folder / f"{stem}_int8"
        if not (whole / GRAPH).is_file():
            export_model(directory, whole, cache=cache)
        if not (small / GRAPH).is_file():
            shutil.copytree(whole, small, ignore=shutil.ignore_patterns(GRAPH + "*"))
            quantise(whole / GRAPH, small / GRAPH)
        made |= {f"onnxruntime, fp32, {name}": whole, f"onnxruntime, int8, {name}": small}
    return made


def times_as_fast(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Estimate]:
    """How many times as fast as `BASE` each task is: median over rounds of paired ratios."""
    for task in tasks.values():
        task()
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds):
        for name in list(tasks) if turn % 2 else list(reversed(tasks)):
            started = time.perf_counter()
            tasks[name]()
            taken[name].append(time.perf_counter() - started)
    ratios = {name: np.divide(taken[BASE], seconds) for name, seconds in taken.items()}
    return {name: median(ratio, "times as fast") for name, ratio in ratios.items() if name != BASE}


def compare(directory: Path, folder: Path, rows: int, length: int, rounds: int) -> dict[str, dict]:
    """Task -> runtime -> how many times as fast as torch."""
    vocab, rng = read_vocab(directory / "vocab.json"), np.random.default_rng(0)
    base = load_lm(directory).cpu()
    fit_attention(base, length)  # torch, too, at its best
    models = {BASE: base}
    models |= {name: load_onnx(path) for name, path in exports(directory, folder).items()}
    ids = rng.integers(0, len(vocab), (rows, length)).tolist()
    labels = [picture % 10 for picture in range(64)]
    config = SampleConfig(temperature=0.9, top_p=0.95)
    guided = replace(config, guidance=1.5)
    kinds: dict[str, Callable] = {
        f"score {rows} rows of {length} tokens": lambda model: score_tokens(model, ids),
        "draw 64 pictures": lambda model: draw(model, vocab, labels, 16, config),
        "draw 64 pictures, guided": lambda model: draw(model, vocab, labels, 16, guided),
    }
    return {
        what: times_as_fast({name: lambda m=m, d=do: d(m) for name, m in models.items()}, rounds)
        for what, do in kinds.items()
    }


def table(found: Mapping[str, Mapping[str, Estimate]], threads: int) -> str:
    """Markdown: a row an export, a column a task."""
    first = next(iter(found.values()))
    rows = [(name, *(measured[name].format() for measured in found.values())) for name in first]
    n = next(iter(first.values())).n
    return (
        f"{markdown_table(('times as fast as torch', *found), rows)}\n\n"
        f"Median of n = {n} rounds, 95 % interval of the sign test; {threads} thread(s)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_path", type=Path, default=Path("outputs/laptop/best_model"))
    parser.add_argument("--exports", type=Path, help="keep the four exports here, or find them")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--length", type=int, default=22)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with TemporaryDirectory() as aside:
        folder = asked.exports or Path(aside)
        found = compare(asked.model_path, folder, asked.rows, asked.length, asked.rounds)
    print(table(found, asked.threads))


if __name__ == "__main__":
    main()
