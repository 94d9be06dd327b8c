"""Is the difference of two models real? Paired tests on the same tokens or images."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from seqlm.errors import DataError
from seqlm.evaluation.estimates import UNKNOWN, Estimate, bootstrap
from seqlm.evaluation.metrics import mean_over_tokens, owners
from seqlm.evaluation.scores import TokenScores


def ratio_of_rows(
    rows: np.ndarray, ours: np.ndarray, theirs: np.ndarray, images: np.ndarray | None = None
) -> Estimate:
    """Our summed NLL over theirs, on the same tokens; both resampled by the same images.

    `ours` and `theirs` are NLL of tokens, or sums of them, that stand in `rows`; all three are
    (M,). `images` as in `metrics.owners`.
    """
    return mean_over_tokens(ours, owners(rows, images), "ratio", theirs)


def paired_difference(
    ours: TokenScores, theirs: TokenScores, images: np.ndarray | None = None
) -> Estimate:
    """Our NLL minus theirs in nats per token, on the same tokens; below 0 we are better.

    `images` as in `metrics.owners`. Raises DataError when the tokens are not the same.
    """
    same = all(
        np.array_equal(getattr(ours, name), getattr(theirs, name))
        for name in ("row", "position", "target")
    )
    if not same or not len(ours.nll):
        raise DataError(
            "the two models were not scored on the same tokens, so they cannot be paired"
        )
    gaps = ours.nll - theirs.nll
    return mean_over_tokens(gaps, owners(ours.row, images), "nats per token")


def baseline_verdict(saved: Estimate) -> str:
    """Whether a model beats a baseline, by the interval of the share of its nats saved."""
    return ("is not distinguishable from", "beats", "does not beat")[saved.sign]


@dataclass(frozen=True)
class Comparison:
    """Two classifiers a and b on the same images (see `mcnemar`).

    `difference` is a's accuracy minus b's. They differ where its interval excludes zero.
    """

    difference: Estimate
    only_a: int
    only_b: int
    p_value: float

    def __str__(self) -> str:
        gap = self.difference.map(lambda share: 100 * share, "percentage points")
        interval = f"95 % interval {gap.low:z.1f} to {gap.high:z.1f}"
        interval = interval if gap.has_interval else "interval unknown"
        verdict = "are not distinguishable" if gap.low <= 0 <= gap.high else "differ"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return (
            f"The first alone is right on {self.only_a:,} of {gap.n:,} images, the second alone "
            f"on {self.only_b:,}: accuracy of the first minus that of the second is "
            f"{gap.value:z.1f} {gap.unit} ({interval}; exact McNemar test: {p}), "
            f"so the two {verdict}."
        )


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> Comparison:
    """Is classifier a better than b? Tested on the images that only one of them gets right.

    `right_a` and `right_b` (N,) bool: whether the classifier was right. p is the exact two-sided
    binomial probability, and 1 where the two never differ. Source: Q. McNemar, Note on the
    Sampling Error of the Difference between Correlated Proportions or Percentages, Psychometrika
    12 (1947). The interval of the difference resamples images; it is unknown where they never
    differ. Raises DataError when there are no images, or not equally many answers.
    """
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if not len(a) or a.shape != b.shape:
        raise DataError(
            f"{len(a)} and {len(b)} answers cannot be compared; both classifiers must answer for "
            "the same images, at least one"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    gain = a.astype(float) - b  # (N,) 1 where only a is right, -1 where only b is
    difference = Estimate(0.0, *UNKNOWN, len(gain), "share")
    if gain.any():
        difference = bootstrap(np.mean, (gain,), "share")
    return Comparison(difference, only_a, only_b, float(p_value))
