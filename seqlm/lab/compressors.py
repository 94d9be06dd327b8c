"""General-purpose compressors as baselines: bits per image of those that a notebook defines.

A model's negative log-likelihood in bits is the length it could compress to, so these numbers
compare with `bits_per_image` of code tokens. Both leave out class and structural tokens.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

import numpy as np
from scipy import stats

from seqlm.config import DataConfig
from seqlm.errors import DataError
from seqlm.evaluation.estimates import CONFIDENCE, UNKNOWN, Estimate

UNIT = "bits per image"
BLOCK = 20  # test images that the jackknife leaves out together
MOST_CODES = 2**16

Pack = Callable[[np.ndarray, np.ndarray], bytes]  # codes (N, P), rank of each code by frequency
Size = Callable[[bytes], float]
Learn = Callable[[bytes, int], Size]  # packed train rows, bytes of the rows to come


def compressed_bits(
    methods: Mapping[str, Mapping[str, Learn]],
    packings: Mapping[str, Pack],
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
    n_codes: int = DataConfig.n_codes,
) -> dict[str, Estimate]:
    """Name -> bits per image of the `test` codes, for every compressor. Codes are (rows, P) int.

    `methods` holds for each compressor its settings: what a setting learns from packed train codes
    is the size of further codes. How codes become bytes (one of `packings`) and the setting are
    chosen for each on `val`, and part of its name. "fixed length" is P log2(n_codes). Intervals as
    in `jackknife`; all rows must be different images. Raises DataError for codes that are not
    (rows, P) integers from 0 below `n_codes`.
    """
    splits = train, val, test = [np.asarray(codes) for codes in (train, val, test)]
    for codes in splits:
        integers = codes.ndim == 2 and codes.size and codes.dtype.kind in "iu"
        if not integers or not 0 <= codes.min() <= codes.max() < n_codes <= MOST_CODES:
            raise DataError(
                f"codes: give integers (rows, codes per row) from 0 to {n_codes - 1:,}, and at "
                f"most {MOST_CODES:,} different ones; this is {codes.shape} of {codes.dtype}"
            )
    train = np.random.default_rng(0).permutation(train)  # a fair sample for bz2, which forgets
    ranks = np.bincount(train.ravel(), minlength=n_codes).argsort(kind="stable")[::-1].argsort()
    fixed = test.shape[1] * float(np.log2(n_codes))
    results = {"fixed length": Estimate(fixed, fixed, fixed, len(test), UNIT)}
    for name, settings in methods.items():
        words, cost = _best_setting(settings, packings, train, val, test, ranks)
        results[f"{name}, {words}"] = jackknife(cost, test)
    return results


def _best_setting(
    settings: Mapping[str, Learn], packings: Mapping[str, Pack], train, val, test, ranks: np.ndarray
) -> tuple[str, Callable[[np.ndarray], float]]:
    """Packing and setting with the lowest cost on val: their names, and bits per image of codes."""

    def evaluate(choice: tuple[str, str]) -> tuple[float, str, Callable]:
        packing, setting = choice
        pack = partial(packings[packing], ranks=ranks)
        size = settings[setting](pack(train), max(len(pack(val)), len(pack(test))))

        def cost(codes: np.ndarray) -> float:
            return float(8 * size(pack(codes)) / len(codes))

        return cost(val), packing + setting, cost

    with ThreadPoolExecutor() as pool:
        return min(pool.map(evaluate, product(packings, settings)), key=lambda each: each[0])[1:]


def jackknife(cost: Callable[[np.ndarray], float], codes: np.ndarray) -> Estimate:
    """`cost` of codes (N, P), with an interval from leaving out one block of images at a time.

    With g blocks and c_b the cost without block b, the variance is (g - 1) / g times the sum over b
    of (c_b - mean c)^2, and the interval Student's with g - 1 degrees of freedom. A single image
    has none. Source: J. W. Tukey, Bias and Confidence in Not-quite Large Samples, Ann. Math. Stat.
    29 (1958).
    """
    n, blocks = len(codes), max(2, round(len(codes) / BLOCK))
    if n < 2:
        return Estimate(cost(codes), *UNKNOWN, n, UNIT)
    without = [np.delete(codes, left_out, axis=0) for left_out in np.array_split(range(n), blocks)]
    with ThreadPoolExecutor() as pool:
        value, *costs = pool.map(cost, [codes, *without])
    error = np.sqrt((blocks - 1) * np.var(costs))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, blocks - 1) * error)
    return Estimate(value, value - half, value + half, n, UNIT)
