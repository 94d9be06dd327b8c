"""General-purpose compressors as baselines: bits per image of xz, bz2 and zstd.

A model's negative log-likelihood in bits is the length it could compress to, so these numbers
compare with `bits_per_image` of code tokens. Both leave out class and structural tokens.
"""

import bz2
import lzma
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product

import numpy as np
import zstandard
from scipy import stats

from seqlm.config import DataConfig
from seqlm.errors import DataError
from seqlm.evaluation.estimates import CONFIDENCE, UNKNOWN, Estimate

UNIT = "bits per image"
BLOCK = 20  # test images that the jackknife leaves out together
BZ2_WINDOW = 890_000  # bz2 sorts 900 kB at a time and forgets what came before
MOST_CODES = 2**16

Pack = Callable[[np.ndarray, np.ndarray], bytes]  # codes (N, P), rank of each code by frequency
Size = Callable[[bytes], float]
Learn = Callable[[bytes, int], Size]  # packed train rows, bytes of the rows to come


def two_bytes(codes: np.ndarray, ranks: np.ndarray) -> bytes:
    """Each code as a 16-bit number, low byte first."""
    return codes.astype("<u2").tobytes()


def commonest_first(codes: np.ndarray, ranks: np.ndarray) -> bytes:
    """One byte for each of the 255 most frequent train codes; the others are prefixed by 255s."""
    rank = ranks[codes].ravel()
    lengths = rank // 255 + 1
    packed = np.full(lengths.sum(), 255, dtype=np.uint8)
    packed[lengths.cumsum() - 1] = rank % 255
    return packed.tobytes()


PACKINGS: dict[str, Pack] = {
    "two bytes per code": two_bytes,
    "one byte for common codes": commonest_first,
}


def _xz(data: bytes, **literals: int) -> int:
    # Raw, because a container rounds sizes up to four bytes; the window covers all data.
    window = max(4_096, len(data))
    settings = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": window}
    return len(lzma.compress(data, lzma.FORMAT_RAW, filters=[settings | literals]))


def _bz2(data: bytes) -> int:
    return len(bz2.compress(data, 9))


def _zstd(data: bytes, past: bytes = b"") -> int:
    settings = zstandard.ZstdCompressionParameters.from_level(
        zstandard.MAX_COMPRESSION_LEVEL,
        source_size=len(data) + len(past),  # the window covers all data
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
    )
    raw = zstandard.DICT_TYPE_RAWCONTENT
    extra = {"dict_data": zstandard.ZstdCompressionDict(past, raw)} if past else {}
    return len(zstandard.ZstdCompressor(compression_params=settings, **extra).compress(data))


def _appended(size: Size, window: int = 2**40) -> Learn:
    """What rows cost that are appended to the train rows, as many as fit the window."""

    def learn(past: bytes, room: int) -> Size:
        kept = past[-max(window // 2, window - room) :]
        before = size(kept)
        return lambda data: size(kept + data) - before

    return learn


def _alone(size: Size) -> Learn:
    return lambda past, room: size


# xz models a byte after the byte before, or by its position in 16 bytes; chosen on val.
_XZ = {"": partial(_xz, lc=3, lp=0, pb=2), ", by position": partial(_xz, lc=0, lp=4, pb=4)}

METHODS: dict[str, dict[str, Learn]] = {
    "xz": {setting: _appended(size) for setting, size in _XZ.items()},
    "bz2": {"": _appended(_bz2, BZ2_WINDOW)},
    "zstd": {"": _appended(_zstd)},
    "zstd with the train rows as dictionary": {"": lambda past, room: partial(_zstd, past=past)},
    "xz on test alone": {setting: _alone(size) for setting, size in _XZ.items()},
    "bz2 on test alone": {"": _alone(_bz2)},
    "zstd on test alone": {"": _alone(_zstd)},
}


def compressed_bits(
    train_codes, test_codes, val_codes, n_codes: int = DataConfig.n_codes
) -> dict[str, Estimate]:
    """Name -> bits per image of the test rows, for every compressor. Codes are (rows, P) int.

    A compressor learns from the train rows: its cost is size(train + test) - size(train); "on test
    alone" sees none. How codes become bytes is chosen for each on val, and part of its name. "fixed
    length" is P log2(n_codes). Intervals as in `jackknife`; all rows must be different images.
    Raises DataError for codes that are not (rows, P) integers from 0 below `n_codes`.
    """
    train, val, test = splits = [np.asarray(c) for c in (train_codes, val_codes, test_codes)]
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
    for name, settings in METHODS.items():
        words, cost = _best_setting(settings, train, val, test, ranks)
        results[f"{name}, {words}"] = jackknife(cost, test)
    return results


def _best_setting(
    settings: dict[str, Learn], train, val, test, ranks: np.ndarray
) -> tuple[str, Callable[[np.ndarray], float]]:
    """Packing and setting with the lowest cost on val: their names, and bits per image of codes."""

    def evaluate(choice: tuple[str, str]) -> tuple[float, str, Callable]:
        packing, setting = choice
        pack = partial(PACKINGS[packing], ranks=ranks)
        size = settings[setting](pack(train), max(len(pack(val)), len(pack(test))))

        def cost(codes: np.ndarray) -> float:
            return float(8 * size(pack(codes)) / len(codes))

        return cost(val), packing + setting, cost

    with ThreadPoolExecutor() as pool:
        return min(pool.map(evaluate, product(PACKINGS, settings)), key=lambda each: each[0])[1:]


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
