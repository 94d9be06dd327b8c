"""The benchmark of training counts FLOPs as by hand, and runs."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqlm.utils import read_json

BENCH = Path(__file__).parents[2] / "bench"


def bench(monkeypatch, name: str):
    """A module of bench/, which is no package."""
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module(name)


def test_flops_are_those_counted_by_hand(monkeypatch):
    speed = bench(monkeypatch, "training_speed")
    shape = {"n_layer": 1, "n_embd": 2}
    # Weights: 2 x 6 (q, k, v), 2 x 2, 2 x 8 and 8 x 2 in the block, 2 x 5 outputs: 58, each used in
    # 6 FLOPs. Attention over 4 tokens without a mask: 2 products of 2 x 4 multiply-adds forward and
    # twice as many backward, 2 FLOPs each: 96; the mask halves it.
    assert speed.flops_per_token(shape, 5, 4) == 6 * 58 + 96 / 2
    # One row of 2 tokens and one of 4.
    assert speed.mean_flops_per_token(shape, 5, [2, 4]) == (2 * (348 + 24) + 4 * (348 + 48)) / 6


def test_shares_and_ratios_are_those_of_one_round(monkeypatch):
    speed = bench(monkeypatch, "training_speed")
    rates = {
        "Trainer fp32": [10, 20, 40],
        "nanoGPT bf16": [20, 40, 80],
        "seqlm bf16": [40, 60, 160],
        "matmul bf16": [800, 1200, 3200],
        "matmul fp32": [100, 200, 400],
    }
    turns = {name: [speed.Turn(r, 1.0, 7) for r in values] for name, values in rates.items()}
    summary = speed.summarize(turns, flops=5.0)
    ours = summary["seqlm bf16"]
    assert ours["tokens_per_second"]["value"] == 60
    assert ours["times_as_fast_as"]["Trainer"]["value"] == 4
    assert ours["times_as_fast_as"]["nanoGPT"]["value"] == 2
    assert ours["share_of_peak"]["value"] == 0.25 and ours["memory"] == 7
    assert summary["nanoGPT bf16"]["times_as_fast_as"].keys() == {"Trainer"}


@pytest.mark.slow
@pytest.mark.subprocess
def test_the_benchmark_runs_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    words = ["--quick", "--part", "native", "--results", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, BENCH / "training_speed.py", *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(BENCH.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("measured") == 2
    monkeypatch.setattr(sys, "argv", ["training_speed.py", *words])
    bench(monkeypatch, "training_speed").main()  # here, where nothing has to be imported again
    assert capsys.readouterr().out.count("kept") == 2
    (path,) = tmp_path.glob("*/training_speed.json")
    systems = read_json(path)["native"]["6"]["systems"]
    assert {"Trainer fp32", "nanoGPT fp32", "seqlm fp32", "matmul fp32"} <= systems.keys()
    assert all(systems[name]["memory"] > 1e8 for name in systems if "matmul" not in name)
    page = bench(monkeypatch, "run").page(tmp_path)
    assert "| seqlm, fp32 |" in page and f"## {path.parent.name}" in page
