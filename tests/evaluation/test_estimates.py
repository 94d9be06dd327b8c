"""Estimates: written with interval, n and unit, and the same when read from a file."""

import json

import numpy as np
import pytest

from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, as_estimate, bootstrap, proportion
from seqlm.evaluation.metrics import nll, perplexity
from seqlm.evaluation.scores import TokenScores
from seqlm.utils import read_json, write_json


def test_an_estimate_says_its_interval_its_n_and_its_unit():
    share = Estimate(0.9833, 0.9641, 0.9923, 360, "share")
    assert str(share) == "98.3% (95 % interval 96.4% to 99.2%, n = 360)"
    loss = Estimate(3.25, 3.2, 3.3, 180, "nats per token")
    assert f"{loss}" == "3.250 nats per token (95 % interval 3.200 to 3.300, n = 180)"
    assert loss.to_json() == {
        "value": 3.25,
        "low": 3.2,
        "high": 3.3,
        "n": 180,
        "unit": "nats per token",
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
    assert of().format_interval() == "unknown"


def test_an_unknown_interval_goes_through_a_file_and_back(tmp_path):
    write_json(tmp_path / "e.json", one_image().to_json())
    held = read_json(tmp_path / "e.json")
    assert (held["low"], held["high"]) == (None, None)
    assert Estimate.from_json(held) == as_estimate(held) == one_image()


def test_a_known_interval_goes_through_json_and_back():
    share = Estimate(0.9, 0.8, 0.95, 40, "share")
    assert Estimate.from_json(json.loads(json.dumps(share.to_json()))) == share
    assert share.has_interval and share.format_interval() == "80.0% to 95.0%"


def test_wilsons_interval_equals_his_formula():
    hits, n, z = 354, 360, 1.959963984540054
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    found = proportion(np.arange(n) < hits)
    assert (found.value, found.n) == (pytest.approx(share), n)
    assert (found.low, found.high) == (
        pytest.approx(middle - half, abs=1e-9),
        pytest.approx(middle + half, abs=1e-9),
    )
    assert (round(found.low, 4), round(found.high, 4)) == (0.9641, 0.9923)


def test_wilsons_interval_has_width_even_when_nothing_went_wrong():
    found = proportion(np.ones(50, dtype=bool))
    assert found.value == 1.0 and found.low == pytest.approx(50 / (50 + 1.959964**2), abs=1e-6)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(DataError, match="a share needs"):
        proportion(np.array([], dtype=bool))


def test_a_number_below_zero_keeps_its_sign_and_nothing_has_none():
    lost = Estimate(-0.0194, -0.0444, 0.0056, 360, "share")
    assert str(lost) == "-1.9% (95 % interval -4.4% to 0.6%, n = 360)"
    gained = Estimate(-0.0004, -0.25, 0.0004, 360, "nats per token")
    assert str(gained) == "0.000 nats per token (95 % interval -0.250 to 0.000, n = 360)"
    assert str(Estimate(-0.0001, -0.01, 0.01, 9, "share")).startswith("0.0% (")


def test_the_bootstrap_of_a_mean_equals_the_normal_interval_where_many_are_drawn():
    values = np.random.default_rng(0).normal(2.0, 1.0, 1_000)
    mean = bootstrap(np.mean, (values,), "")
    error = values.std() / np.sqrt(1_000)  # 0.03
    assert mean.low == pytest.approx(values.mean() - 1.96 * error, abs=0.008)
    assert mean.high == pytest.approx(values.mean() + 1.96 * error, abs=0.008)
