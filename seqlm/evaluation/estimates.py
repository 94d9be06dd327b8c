"""A number with its 95 % interval, its n and its unit: how it is computed, written and stored."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy import stats

from seqlm.errors import DataError

CONFIDENCE = 0.95
ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)  # the quantiles at which an interval ends
UNKNOWN = (float("-inf"), float("inf"))  # the interval of a single image
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
        """Whether the interval has two ends; that of a single image has none."""
        return bool(np.isfinite([self.low, self.high]).all())

    @property
    def ends(self) -> tuple[float, float]:
        """Where an error bar begins and ends; it has no length where the interval is unknown."""
        return (self.low, self.high) if self.has_interval else (self.value, self.value)

    @property
    def sign(self) -> int:
        """1 or -1 where the interval, as `str` writes it, lies above or below zero; else 0."""
        return (round(self.low, 3) > 0) - (round(self.high, 3) < 0)

    def format_value(self) -> str:
        """The value alone: "96.9%"."""
        return format_number(self.value, self.unit)

    def format_interval(self) -> str:
        """The interval alone: "94.6% to 98.3%", or "unknown" where n = 1 gives none."""
        if not self.has_interval:
            return "unknown"
        return f"{format_number(self.low, self.unit)} to {format_number(self.high, self.unit)}"

    def format(self, with_n: bool = False) -> str:
        """Value and interval: "96.9% (94.6% to 98.3%)", or with n "96.9% (…, n = 360)"."""
        n = f", n = {self.n:,}" * with_n
        return f"{self.format_value()} ({self.format_interval()}{n})"

    def map(self, function: Callable[[float], float], unit: str) -> "Estimate":
        """The same estimate on another scale; `function` must be increasing."""
        ends = (float(function(end)) for end in (self.value, self.low, self.high))
        return Estimate(*ends, self.n, unit)

    def to_json(self) -> dict:
        """For a metrics file; an unknown end is None, because JSON has no infinity."""
        ends = {name: getattr(self, name) for name in ("low", "high")}
        return asdict(self) | {k: end if np.isfinite(end) else None for k, end in ends.items()}

    @classmethod
    def from_json(cls, numbers: Mapping) -> "Estimate":
        """The Estimate that `to_json` stored in a metrics file."""
        ends = dict(zip(("low", "high"), UNKNOWN, strict=True))
        return cls(**{k: ends.get(k) if v is None else v for k, v in numbers.items()})


Numbers = Estimate | Mapping  # an Estimate, or the same as a metrics file stores it


def as_estimate(numbers: Numbers) -> Estimate:
    """An Estimate, whether it is one already or comes from a metrics file."""
    return numbers if isinstance(numbers, Estimate) else Estimate.from_json(numbers)


def as_share(numbers: Numbers) -> Estimate:
    """A ratio, such as how far one number lies below another, to be written in percent."""
    return replace(as_estimate(numbers), unit="share")


def format_number(value: float, unit: str = "") -> str:
    """A number as it stands in a figure or a table: "96.9%" of a share, "3.41", "6,930"."""
    if unit == "share":
        return f"{value:z.1%}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:z.{2 if abs(value) < 100 else 1}f}"


def format_n(estimates: Sequence[Estimate]) -> str:
    """The n of several estimates: "n = 360", or "n = 33 to 37" when they differ."""
    low, high = min(e.n for e in estimates), max(e.n for e in estimates)
    return f"n = {low:,}" if low == high else f"n = {low:,} to {high:,}"


def proportion(hits: np.ndarray) -> Estimate:
    """Share of `hits` (N,) bool that are true, with Wilson's interval.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
    JASA 22 (1927).
    """
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        raise DataError("a share needs at least one case")
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, "wilson")
    ends = float(interval.low), float(interval.high)
    return Estimate(float(hits.mean()), *ends, len(hits), "share")


def median(values: Sequence[float], unit: str = "") -> Estimate:
    """The median of `values` (N,), with the interval of the sign test; unknown for N below 6.

    How many of N values lie below the true median is binomial with p = 1/2.
    """
    ends = stats.quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    low, high = np.nan_to_num(ends.low, nan=-np.inf), np.nan_to_num(ends.high, nan=np.inf)
    return Estimate(float(np.median(values)), float(low), float(high), len(values), unit)


def bootstrap(
    statistic: Callable, samples: tuple[np.ndarray, ...], unit: str, method: str = "BCa"
) -> Estimate:
    """`statistic` of `samples`, with an interval; their first axis is resampled together.

    A single image has no interval; where all give one value, the interval is that value. Source:
    B. Efron, Better Bootstrap Confidence Intervals, JASA 82 (1987).
    """
    value, n = float(statistic(*samples)), len(samples[0])
    if n < 2:
        return Estimate(value, *UNKNOWN, n, unit)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, RESAMPLED_AT_ONCE // n),
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(0),
        )
    low, high = result.confidence_interval
    if not np.isfinite([low, high]).all():  # where BCa fails, the plain percentiles do not
        low, high = np.quantile(result.bootstrap_distribution, ENDS)
    return Estimate(value, float(low), float(high), n, unit)
