"""General compressors as rivals: what does a picture's row of codes cost xz, bz2 and zstd?

A code of 500 takes log2(500) = 8.97 bits when nothing is known of it. Whatever predicts codes can
write them shorter, and whatever writes them shorter predicts them: the negative log-likelihood of
a language model, in bits, is the length it would compress to. So the bits per image of these
compressors stand in one table with those of `metrics.bits_per_image` for code tokens. Class and
structural tokens are left out on both sides.
"""

import bz2
import lzma
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import zstandard
from scipy import stats

from seqlm.config import DataConfig
from seqlm.errors import DataError
from seqlm.evaluation.estimates import CONFIDENCE, Estimate

UNIT = "bits per image"
BLOCK = 20  # test images that are left out together
BZ2_WINDOW = 890_000  # bz2 sorts 900 kB at a time and forgets what came before
STRETCHES = 8
XZ_SMALLEST_WINDOW = 4_096
MOST_CODES = 2**16

Pack = Callable[[np.ndarray, np.ndarray], bytes]
Size = Callable[[bytes], float]
Learn = Callable[[bytes, int], Size]

# ---------------------------------------------------------------- codes as bytes


def two_bytes(codes: np.ndarray, ranks: np.ndarray) -> bytes:
    """Each code as a 16-bit number, its low byte first."""
    return codes.astype("<u2").tobytes()


def two_planes(codes: np.ndarray, ranks: np.ndarray) -> bytes:
    """Row by row: the low bytes of all its codes, then the high bytes of all."""
    return np.concatenate([codes & 255, codes >> 8], axis=1).astype(np.uint8).tobytes()


def fewest_bits(codes: np.ndarray, ranks: np.ndarray) -> bytes:
    """Each code in as few bits as hold any (500 codes: nine); each row filled to a whole byte."""
    width = max(1, (len(ranks) - 1).bit_length())
    bits = codes[..., None] >> np.arange(width - 1, -1, -1) & 1  # (N, P, width)
    return np.packbits(bits.reshape(len(codes), -1).astype(np.uint8), axis=1).tobytes()


def commonest_first(codes: np.ndarray, ranks: np.ndarray) -> bytes:
    """One byte for each of the 255 commonest train codes; the others carry 255s in front."""
    rank = ranks[codes].ravel()
    lengths = rank // 255 + 1
    packed = np.full(lengths.sum(), 255, dtype=np.uint8)
    packed[lengths.cumsum() - 1] = rank % 255
    return packed.tobytes()


PACKINGS: dict[str, Pack] = {
    "two bytes a code": two_bytes,
    "low bytes, then high bytes": two_planes,
    "fewest bits per code": fewest_bits,
    "one byte for common codes": commonest_first,
}

# ---------------------------------------------------------------- compressors


def _xz(data: bytes, **literals: int) -> int:
    # Without a container, whose sizes are rounded up to four bytes; nothing lies out of its sight.
    seen = max(XZ_SMALLEST_WINDOW, len(data))
    chain = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": seen}
    return len(lzma.compress(data, lzma.FORMAT_RAW, filters=[chain | literals]))


def _bz2(data: bytes) -> int:
    return len(bz2.compress(data, 9))


def _zstd(data: bytes, known: bytes = b"") -> int:
    settings = zstandard.ZstdCompressionParameters.from_level(
        zstandard.MAX_COMPRESSION_LEVEL,
        source_size=len(data) + len(known),  # the window takes in all of it
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
    )
    raw = zstandard.DICT_TYPE_RAWCONTENT
    extra = {"dict_data": zstandard.ZstdCompressionDict(known, raw)} if known else {}
    return len(zstandard.ZstdCompressor(compression_params=settings, **extra).compress(data))


def _appended(size: Size, window: int | None = None) -> Learn:
    """Cost of what is appended to the train rows, as far as these fit the window beside it.

    Where they do not, it is the mean over stretches of them, because the size of one stretch jumps
    by tens of bytes with every row more.
    """

    def learn(past: bytes, room: int) -> Size:
        fits = len(past) if window is None else max(window // 2, window - room)
        starts = np.unique(np.linspace(0, max(0, len(past) - fits), STRETCHES).astype(int))
        stretches = [past[start : start + fits] for start in starts]
        already = [size(stretch) for stretch in stretches]
        return lambda now: np.mean([size(s + now) for s in stretches]) - np.mean(already)

    return learn


def _alone(size: Size) -> Learn:
    return lambda past, room: size


def _with_dictionary(past: bytes, room: int) -> Size:
    return partial(_zstd, known=past)


# xz counts what byte follows, by default, in a context of the byte before; told that rows repeat
# every 16 bytes, it counts by place instead. Which serves better is settled on val, too.
_XZ = {"": partial(_xz, lc=3, lp=0, pb=2), ", counted by place": partial(_xz, lc=0, lp=4, pb=4)}

METHODS: dict[str, dict[str, Learn]] = {
    "xz": {words: _appended(size) for words, size in _XZ.items()},
    "bz2": {"": _appended(_bz2, BZ2_WINDOW)},
    "zstd": {"": _appended(_zstd)},
    "zstd with the train rows as dictionary": {"": _with_dictionary},
    "xz on test alone": {words: _alone(size) for words, size in _XZ.items()},
    "bz2 on test alone": {"": _alone(_bz2)},
    "zstd on test alone": {"": _alone(_zstd)},
}

# ---------------------------------------------------------------- what an image costs


@dataclass(frozen=True, eq=False)
class _Way:
    """One packing with one setting, after the train rows: rows of codes -> bytes."""

    words: str
    pack: Callable[[np.ndarray], bytes]
    size: Size

    def bits(self, codes: np.ndarray) -> float:
        """Bits per image of codes (N, P)."""
        return float(8 * self.size(self.pack(codes)) / len(codes))


def compressed_bits(
    train_codes: np.ndarray,
    test_codes: np.ndarray,
    val_codes: np.ndarray,
    n_codes: int = DataConfig.n_codes,
) -> dict[str, Estimate]:
    """Name -> bits per image of the test rows, for every compressor. Codes are (rows, P) int.

    A compressor learns from the train rows, too: its cost is size(train + test) - size(train).
    Train rows are shuffled first, so that a compressor of short memory (bz2) sees a fair sample.
    "on test alone" knows no train row. How codes become bytes, and how xz counts, is chosen for
    each by the cost of the val rows, and stands in its name. "fixed length" is P log2(n_codes).

    The interval is a jackknife over blocks of about 20 test images: a block is left out, the rest
    compressed anew, and so with each (`jackknife`). A single image's share cannot be read off:
    sizes are whole bytes, and each image also changes what its neighbours cost. Leaving out
    neighbours together keeps what hangs together, such as one writer's digits, on one side. All
    rows must be different pictures, one row each.

    Raises DataError for codes that are not (rows, P) whole numbers from 0 below `n_codes`.
    """
    splits = {"train": train_codes, "val": val_codes, "test": test_codes}
    train, val, test = (_checked(name, codes, n_codes) for name, codes in splits.items())
    if len({codes.shape[1] for codes in (train, val, test)}) > 1:
        raise DataError("rows of train, val and test hold different numbers of codes")
    train = np.random.default_rng(0).permutation(train)
    ranks = np.bincount(train.ravel(), minlength=n_codes).argsort(kind="stable")[::-1].argsort()
    fixed = test.shape[1] * float(np.log2(n_codes))
    found = {"fixed length": Estimate(fixed, fixed, fixed, len(test), UNIT)}
    for name, settings in METHODS.items():
        way = _best_way(settings, train, val, test, ranks)
        found[f"{name}, {way.words}"] = jackknife(way.bits, test)
    return found


def _checked(name: str, codes: np.ndarray, n_codes: int) -> np.ndarray:
    codes = np.asarray(codes)
    if codes.ndim != 2 or not codes.size or codes.dtype.kind not in "iu":
        raise DataError(
            f"{name} codes: expected whole numbers (rows, codes a row) and at least one row, got "
            f"an array {codes.shape} of {codes.dtype}"
        )
    if not 2 <= n_codes <= MOST_CODES:
        raise DataError(f"n_codes: must be between 2 and {MOST_CODES}, got {n_codes}")
    if codes.min() < 0 or codes.max() >= n_codes:
        raise DataError(
            f"{name} codes: run from {codes.min()} to {codes.max()}, but must lie between 0 and "
            f"n_codes - 1 = {n_codes - 1}"
        )
    return codes.astype(np.int64)


def _best_way(settings: dict[str, Learn], train, val, test, ranks: np.ndarray) -> _Way:
    """The packing and setting under which the val rows cost least."""

    def way(choice: tuple[str, str]) -> tuple[float, _Way]:
        packing, setting = choice
        pack = partial(PACKINGS[packing], ranks=ranks)
        room = max(len(pack(val)), len(pack(test)))
        found = _Way(packing + setting, pack, settings[setting](pack(train), room))
        return found.bits(val), found

    with ThreadPoolExecutor() as pool:
        return min(pool.map(way, product(PACKINGS, settings)), key=lambda costed: costed[0])[1]


def jackknife(cost: Callable[[np.ndarray], float], codes: np.ndarray) -> Estimate:
    """`cost` of codes (N, P), with an interval from leaving out one block of images at a time.

    With g blocks and c_b the cost without block b, the variance is (g - 1) / g times the sum over
    b of (c_b - mean c)^2, and the interval Student's with g - 1 degrees of freedom. Source:
    J. W. Tukey, Bias and Confidence in Not-quite Large Samples, Ann. Math. Stat. 29 (1958).
    A single image has no interval.
    """
    n, blocks = len(codes), max(2, round(len(codes) / BLOCK))
    if n < 2:
        return Estimate(cost(codes), float("-inf"), float("inf"), n, UNIT)
    without = [np.delete(codes, left_out, axis=0) for left_out in np.array_split(range(n), blocks)]
    with ThreadPoolExecutor() as pool:
        value, *costs = pool.map(cost, [codes, *without])
    error = np.sqrt((blocks - 1) * np.var(costs))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, blocks - 1) * error)
    return Estimate(value, value - reach, value + reach, n, UNIT)
