"""A number as it is told everywhere in seqlm: with its interval, its n and its unit."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval, and how many independent things (images) it rests on."""

    value: float
    low: float
    high: float
    n: int
    unit: str

    def __str__(self) -> str:
        form, unit = (".1%", "") if self.unit == "share" else (".3f", f" {self.unit}")
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
