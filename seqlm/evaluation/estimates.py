"""A number as it is told everywhere in seqlm: with its interval, its n and its unit.

And the two ways an interval comes about: Wilson's for a share, the bootstrap for all else.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from seqlm.errors import DataError

CONFIDENCE = 0.95
ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)  # what is cut off on either side
RESAMPLES = 2_000
RESAMPLED_AT_ONCE = 2**22  # numbers; without a limit 14,000 images would need gigabytes


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval, and how many independent things (images) it rests on."""

    value: float
    low: float
    high: float
    n: int
    unit: str

    def __str__(self) -> str:
        # z: what rounds to nothing is 0.0%, not -0.0%.
        form, unit = ("z.1%", "") if self.unit == "share" else ("z.3f", f" {self.unit}")
        if self.has_interval:
            ends = f"95 % interval {self.low:{form}} to {self.high:{form}}"
        else:
            ends = "interval unknown"
        return f"{self.value:{form}}{unit} ({ends}, n = {self.n})"

    @property
    def has_interval(self) -> bool:
        """Whether the interval has two ends; one image alone says nothing of how others vary."""
        return bool(np.isfinite([self.low, self.high]).all())

    def map(self, function: Callable[[float], float], unit: str) -> "Estimate":
        """The same estimate on another scale; `function` must be increasing."""
        ends = (float(function(end)) for end in (self.value, self.low, self.high))
        return Estimate(*ends, self.n, unit)

    def to_json(self) -> dict:
        """For a metrics file; an end that is not known is None, because JSON has no infinity."""
        ends = {name: getattr(self, name) for name in ("low", "high")}
        known = {name: end if np.isfinite(end) else None for name, end in ends.items()}
        return asdict(self) | known

    @classmethod
    def from_json(cls, numbers: Mapping) -> "Estimate":
        """What `to_json` made, out of a metrics file."""
        ends = {"low": float("-inf"), "high": float("inf")}
        return cls(**{k: ends.get(k) if v is None else v for k, v in numbers.items()})


def proportion(hits: np.ndarray) -> Estimate:
    """Share of `hits` (N,) bool that are true, with Wilson's interval.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
    JASA 22 (1927).
    """
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        raise DataError("a share of nothing is not a number: no cases were given")
    found = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, "wilson")
    return Estimate(float(hits.mean()), float(found.low), float(found.high), len(hits), "share")


def bootstrap_interval(statistic, samples: tuple[np.ndarray, ...]) -> tuple[float, float]:
    """BCa bootstrap over the first axis of `samples`, resampled together.

    Source: B. Efron, Better Bootstrap Confidence Intervals, JASA 82 (1987). Where every image
    gives the same value there is nothing to resample, and the interval is that value. A single
    image has no interval: its ends are infinite.
    """
    if len(samples[0]) < 2:
        return float("-inf"), float("inf")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, RESAMPLED_AT_ONCE // len(samples[0])),
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(0),
        )
    low, high = found.confidence_interval
    if not np.isfinite([low, high]).all():  # BCa has no answer; the plain percentiles have
        low, high = np.quantile(found.bootstrap_distribution, ENDS)
    return float(low), float(high)
