"""A number is told with its interval, its n and its unit, and comes back from a file unchanged."""

import json

import numpy as np
import pytest

from seqlm.estimates import Estimate
from seqlm.files import read_json, write_json
from seqlm.metrics import TokenScores, nll, perplexity
from seqlm.plots_style import estimate, interval


def test_an_estimate_says_its_interval_its_n_and_its_unit():
    share = Estimate(0.9833, 0.9641, 0.9923, 360, "share")
    assert str(share) == "98.3% (95 % interval 96.4% to 99.2%, n = 360)"
    loss = Estimate(3.25, 3.2, 3.3, 180, "nats a token")
    assert f"{loss}" == "3.250 nats a token (95 % interval 3.200 to 3.300, n = 180)"
    assert loss.to_json() == {
        "value": 3.25,
        "low": 3.2,
        "high": 3.3,
        "n": 180,
        "unit": "nats a token",
    }


def one_image() -> Estimate:
    """The NLL of a single row: nothing says how others would vary."""
    numbers = np.arange(3)
    zeros = np.zeros(3, dtype=int)
    return nll(TokenScores(zeros, numbers, zeros, numbers + 1.0, zeros, 1))


@pytest.mark.parametrize("of", [one_image, lambda: perplexity(one_image())])
def test_a_single_image_has_no_interval_and_says_so(of):
    assert not of().has_interval
    assert str(of()).endswith("(interval unknown, n = 1)")
    assert interval(of()) == "unknown"


def test_an_unknown_interval_goes_through_a_file_and_back(tmp_path):
    write_json(tmp_path / "e.json", one_image().to_json())
    held = read_json(tmp_path / "e.json")
    assert (held["low"], held["high"]) == (None, None)
    assert Estimate.from_json(held) == estimate(held) == one_image()


def test_a_known_interval_goes_through_json_and_back():
    share = Estimate(0.9, 0.8, 0.95, 40, "share")
    assert Estimate.from_json(json.loads(json.dumps(share.to_json()))) == share
    assert share.has_interval and interval(share) == "80.0% to 95.0%"
