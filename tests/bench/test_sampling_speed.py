"""The benchmark of sampling compares systems of one round, and runs."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from seqlm.utils import read_json

BENCH = Path(__file__).parents[2] / "bench"


def test_ratios_are_those_of_one_round(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    speed = importlib.import_module("sampling_speed")
    rates = {
        speed.BATCHED: np.array([10.0, 20, 40]),
        speed.OURS: np.array([20.0, 60, 80]),
        speed.GUIDED: np.array([10.0, 20, 20]),
    }
    found = speed.summarize(rates, speed.OURS)
    assert found[speed.BATCHED]["per_second"]["value"] == 20
    assert found[speed.BATCHED]["ours_times_as_fast"]["value"] == 2
    assert found[speed.GUIDED]["ours_times_as_fast"]["value"] == 3
    page = speed.markdown({"native": {"measured": {"64 images": found}}})
    assert "at least 2: met" in page and "at most 2.2: missed" in page


@pytest.mark.slow
def test_the_benchmark_runs_and_keeps_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCH)
    speed = importlib.import_module("sampling_speed")
    words = ["--quick", "--part", "native", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["sampling_speed.py", *words])
    for expected in ("measured", "kept"):
        speed.main()
        assert expected in capsys.readouterr().out
    (path,) = tmp_path.glob("*/sampling_speed.json")
    assert read_json(path)["native"]["measured"].keys() == {"1 images", "2 images", "32 rows"}
