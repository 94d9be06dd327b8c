"""What `make torture` compares."""

import importlib
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"


def test_what_takes_time_is_not_compared(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    torture = importlib.import_module("torture")
    fast, slow = ({"nll": [2.5], "seconds": s, "plan": {"step_seconds": s}} for s in (1, 9))
    assert torture._without_times(fast) == torture._without_times(slow)
    assert torture._without_times(fast) != torture._without_times({**slow, "nll": [2.6]})
