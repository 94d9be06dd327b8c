"""Which differences are real: two models on the very same tokens, or on the very same images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, bootstrap_interval
from seqlm.evaluation.metrics import mean_over_tokens, owners, ratio_of_sums
from seqlm.evaluation.scores import TokenScores

REAL_BELOW = 0.05  # the p-value from which on a difference is put down to chance


def paired_ratio(
    ours: TokenScores, theirs: TokenScores, images: np.ndarray | None = None
) -> Estimate:
    """Our summed NLL over theirs, on the very same tokens; both resampled by the same images.

    `images` as in `mean_over_tokens`. Pairing takes out what makes an image hard for everyone, so
    the interval is far narrower than those of the two NLLs would suggest. Raises DataError when
    the tokens are not the same.
    """
    _check_same_tokens(ours, theirs)
    owner = owners(ours, images)
    mine = np.bincount(owner, weights=ours.nll)
    other = np.bincount(owner, weights=theirs.nll)
    low, high = bootstrap_interval(ratio_of_sums, (mine, other))
    return Estimate(float(ratio_of_sums(mine, other)), low, high, len(mine), "ratio")


def paired_difference(
    ours: TokenScores, theirs: TokenScores, images: np.ndarray | None = None
) -> Estimate:
    """Our NLL minus theirs in nats per token, on the very same tokens; below 0 we are better.

    The mean over tokens of the difference of their NLLs, both resampled by the same images as in
    `paired_ratio`. Raises DataError when the tokens are not the same.
    """
    _check_same_tokens(ours, theirs)
    return mean_over_tokens(ours, ours.nll - theirs.nll, "nats per token", images)


def _check_same_tokens(ours: TokenScores, theirs: TokenScores) -> None:
    same = all(
        np.array_equal(getattr(ours, name), getattr(theirs, name))
        for name in ("row", "position", "target")
    )
    if not same or not len(ours.nll):
        raise DataError(
            "the two models were not scored on the same tokens, so they cannot be paired"
        )


@dataclass(frozen=True)
class Comparison:
    """Two classifiers a and b on the very same images (see `mcnemar`).

    Attributes:
        difference: accuracy of a minus accuracy of b.
        only_a: images that a alone gets right.
        only_b: images that b alone gets right.
        n: images in all.
        p_value: how often chance alone would part the two at least as far.
    """

    difference: Estimate
    only_a: int
    only_b: int
    n: int
    p_value: float

    @property
    def is_real(self) -> bool:
        """Whether p < 0.05. Of many comparisons at once put the p-values through `holm` first."""
        return self.p_value < REAL_BELOW

    def __str__(self) -> str:
        value, low, high = (
            f"{100 * end:z.1f}"
            for end in (self.difference.value, self.difference.low, self.difference.high)
        )
        known = self.difference.has_interval
        interval = f"95 % interval {low} to {high}" if known else "interval unknown"
        verdict = "which is more than chance" if self.is_real else "which may be chance"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return (
            f"The first alone is right on {self.only_a:,} of {self.n:,} images, the second alone "
            f"on {self.only_b:,}: accuracy of the first minus that of the second is {value} "
            f"percentage points ({interval}), {verdict} (exact McNemar test, {p})."
        )

    def to_json(self) -> dict:
        """For a metrics file, the verdict included."""
        return asdict(self) | {"difference": self.difference.to_json(), "is_real": self.is_real}


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> Comparison:
    """Is classifier a better than b? Asked of the images on which just one of them is right.

    `right_a` and `right_b` (N,) bool say of each image whether the classifier was right. Were both
    equally good, each would win half of the images that part them: p is the exact two-sided
    binomial probability, and 1 where nothing parts them. Source: Q. McNemar, Note on the Sampling
    Error of the Difference between Correlated Proportions or Percentages, Psychometrika 12 (1947).
    The interval of the difference resamples images; where nothing parts them it is unknown.

    Raises DataError when there are no images, or the two do not answer for equally many.
    """
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if not len(a) or a.shape != b.shape:
        raise DataError(
            f"{len(a)} and {len(b)} answers cannot be compared; both classifiers must answer for "
            "the same images, at least one"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    gain = a.astype(float) - b  # (N,) 1 where a alone is right, -1 where b alone is
    unknown = float("-inf"), float("inf")
    low, high = bootstrap_interval(np.mean, (gain,)) if gain.any() else unknown
    difference = Estimate(float(gain.mean()), low, high, len(gain), "share")
    return Comparison(difference, only_a, only_b, len(gain), float(p_value))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values (m,) of many comparisons at once -> adjusted (m,), in the same order.

    Of twenty comparisons of equals one comes out below 0.05; after this, none does 19 times of 20.
    The k-th smallest is multiplied by m - k + 1, capped at 1, and none falls below a smaller one.
    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal
    of Statistics 6 (1979). Raises DataError where a number is no probability.
    """
    found = np.asarray(p_values, dtype=float)
    if not ((found >= 0) & (found <= 1)).all():
        raise DataError(f"p-values lie between 0 and 1, but these do not: {found.tolist()}")
    order = np.argsort(found, kind="stable")
    steps = found[order] * np.arange(len(found), 0, -1)
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
