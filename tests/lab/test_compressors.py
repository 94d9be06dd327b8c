"""Bits per image of compressors: sizes added up by hand, packings undone, nothing from test."""

import bz2
import lzma

import numpy as np
import pytest
import zstandard
from samples import cells_of
from scipy import stats

from seqlm.errors import DataError
from seqlm.lab import compressors
from seqlm.lab.compressors import jackknife

# The compressors and the forms of codes, as the notebook defines them.
COMPETING = cells_of("competing_models", ("10-22", "10-24", "10-25", "10-26", "10-27"), np=np)
METHODS, PACKINGS, appended = (COMPETING[k] for k in ("methods", "packings", "appended"))


def compressed_bits(train, test, val, n_codes=500):
    return compressors.compressed_bits(METHODS, PACKINGS, train, val, test, n_codes)


def codes_of(n, seed, n_codes=500, per_row=16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n_codes, (n, per_row))


def skewed(n, seed) -> np.ndarray:
    """Rows in which low codes are far more common, and each place has favourites of its own."""
    thrown = np.random.default_rng(seed).geometric(0.1, (n, 16)) - 1
    return (thrown + 20 * np.arange(16)) % 500


@pytest.fixture(scope="module")
def results():
    return compressed_bits(skewed(3000, 0), skewed(100, 1), skewed(80, 2))


def named(results, name):
    (key,) = [key for key in results if key.split(", ")[0] == name]
    return results[key]


# ---------------------------------------------------------------- packings


def unpacked(name: str, data: bytes, ranks: np.ndarray, shape) -> np.ndarray:
    """The codes again, read by other means than they were written."""
    if name == "two bytes per code":
        return np.frombuffer(data, dtype="<u2").reshape(shape)
    ordered, codes, above = np.argsort(ranks), [], 0
    for byte in data:
        if byte == 255:
            above += 255
        else:
            codes.append(ordered[above + byte])
            above = 0
    return np.reshape(codes, shape)


@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize("n_codes", [2, 50, 256, 257, 500, 1000])
def test_every_packing_can_be_undone(name, n_codes):
    """What cannot be undone would be charged too little."""
    codes = codes_of(30, 3, n_codes, per_row=7)
    codes[0, 0], codes[0, 1] = 0, n_codes - 1
    ranks = np.random.default_rng(4).permutation(n_codes)
    packed = PACKINGS[name](codes, ranks)
    np.testing.assert_array_equal(unpacked(name, packed, ranks, codes.shape), codes)


def test_packed_sizes_follow_from_the_packing():
    codes, ranks = codes_of(10, 0), np.arange(500)
    sizes = {name: len(pack(codes, ranks)) for name, pack in PACKINGS.items()}
    rare = int((codes >= 255).sum())
    assert list(sizes.values()) == [320, 160 + rare]


# ---------------------------------------------------------------- sizes by hand


def sizes_by_hand(data: bytes) -> dict[str, int]:
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return {
        "xz": len(lzma.compress(data, lzma.FORMAT_RAW, filters=chain)),
        "bz2": len(bz2.compress(data, 9)),
    }


@pytest.mark.parametrize("name", ["xz", "bz2"])
def test_the_cost_is_what_the_test_rows_add_to_the_compressed_train_rows(name):
    train, test = skewed(2000, 0).astype("<u2").tobytes(), skewed(60, 1).astype("<u2").tobytes()
    by_hand = sizes_by_hand(train + test)[name] - sizes_by_hand(train)[name]
    assert METHODS[name][""](train, len(test))(test) == by_hand
    assert METHODS[f"{name} on test alone"][""](train, len(test))(test) == sizes_by_hand(test)[name]


def test_zstd_costs_a_usual_frame_without_its_magic_number():
    train, test = skewed(2000, 0).astype("<u2").tobytes(), skewed(60, 1).astype("<u2").tobytes()
    usual = len(zstandard.ZstdCompressor(level=22).compress(test))
    ours = METHODS["zstd on test alone"][""](train, len(test))(test)
    assert 4 <= usual - ours <= 8


def test_bz2_gets_as_many_train_rows_as_fit_its_window():
    seen = []

    def size(data: bytes) -> int:
        seen.append(data)
        return len(data) ** 2

    past, now = bytes(range(100)), b"now"
    cost = appended(size, window=40)(past, 10)
    assert seen == [past[-30:]], "the last that fit beside the test rows"
    assert cost(now) == 33**2 - 30**2
    assert appended(size, window=40)(past, 1_000)(now) == 23**2 - 20**2
    assert appended(size, window=400)(past, 10)(now) == 103**2 - 100**2
    assert appended(size)(past, 10)(now) == 103**2 - 100**2


def test_the_windows_of_xz_and_zstd_cover_all_data():
    """What stood at the very beginning of a megabyte costs far less when it comes again."""
    noise = np.random.default_rng(0).bytes(1_000_000)
    again, new = noise[:2_000], np.random.default_rng(1).bytes(2_000)
    for name in ("xz", "zstd", "zstd with the train rows as dictionary"):
        cost = METHODS[name][""](noise, 2_000)
        assert cost(again) < 600 < 1_900 < cost(new)


# ---------------------------------------------------------------- what an image costs


def test_the_fixed_length_is_log2_of_the_number_of_codes(results):
    fixed = results["fixed length"]
    assert fixed.value == fixed.low == fixed.high == pytest.approx(16 * np.log2(500))
    assert fixed.value == pytest.approx(143.4526, abs=1e-4)


def test_every_compressor_has_unit_n_interval_and_the_name_of_its_packing(results):
    assert len(results) == 1 + len(METHODS)
    for name in METHODS:
        estimate = named(results, name)
        assert estimate.low < estimate.value < estimate.high
        assert (estimate.n, estimate.unit) == (100, "bits per image")
    assert all(
        any(words in name for words in PACKINGS) for name in results if name != "fixed length"
    )


def test_no_compressor_beats_the_entropy_of_the_source_and_train_rows_help(results):
    """Each code is a geometric throw moved to its place: its entropy is known."""
    p = 0.1
    entropy = 16 * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / p
    for name in ("xz", "zstd"):
        learned, alone = named(results, name), named(results, f"{name} on test alone")
        assert entropy < learned.value < alone.value
    assert all(estimate.low > entropy * 0.97 for estimate in results.values())
    assert named(results, "xz").value < results["fixed length"].value


def test_random_codes_cost_their_fixed_length():
    results = compressed_bits(codes_of(2000, 0), codes_of(100, 1), codes_of(80, 2))
    for name in ("xz", "zstd"):
        assert named(results, name).value > 0.99 * results["fixed length"].value


def test_images_of_the_train_rows_cost_little_after_these_and_the_usual_alone():
    train = codes_of(600, 0)
    results = compressed_bits(train, train[:100], train[100:180])
    for name in ("xz", "zstd", "zstd with the train rows as dictionary"):
        assert named(results, name).value < 45
        assert named(results, f"{name.split(' ')[0]} on test alone").value > 130


def test_the_packing_is_chosen_on_val_and_not_on_test(results):
    names = set(results)
    other = compressed_bits(skewed(3000, 0), codes_of(100, 7), skewed(80, 2))
    assert set(other) == names
    dearer = compressed_bits(skewed(3000, 0), skewed(100, 1), codes_of(80, 2, n_codes=3))
    assert set(dearer) != names


def test_the_order_of_the_train_rows_does_not_matter(results):
    """Sorted train rows would leave bz2, which looks back but 900 kB, those of the last class."""
    shuffled = np.random.default_rng(9).permutation(skewed(3000, 0))
    other = compressed_bits(shuffled, skewed(100, 1), skewed(80, 2))
    for name in METHODS:
        if "alone" in name:
            assert named(other, name).value == named(results, name).value
        else:
            assert named(other, name).value == pytest.approx(named(results, name).value, rel=0.06)


# ---------------------------------------------------------------- the interval


def test_for_additive_costs_the_jackknife_is_students_interval_of_block_means():
    codes = codes_of(200, 0)
    results = jackknife(lambda kept: kept.sum() / len(kept), codes)
    means = codes.sum(axis=1).reshape(10, 20).mean(axis=1)
    low, high = stats.t.interval(0.95, 9, loc=means.mean(), scale=stats.sem(means))
    assert results.value == pytest.approx(codes.sum() / 200)
    assert (results.low, results.high) == pytest.approx((low, high))
    assert results.n == 200


def test_each_block_is_left_out_once_and_blocks_are_of_about_twenty():
    seen = []
    jackknife(lambda kept: float(seen.append(kept[:, 0]) or len(kept)), np.arange(130)[:, None])
    kept = sorted(seen, key=len)[:-1]
    left_out = [np.setdiff1d(np.arange(130), some) for some in kept]
    assert len(left_out) == 6 and {len(block) for block in left_out} == {21, 22}
    assert sorted(np.concatenate(left_out)) == list(range(130))
    assert all(np.ptp(block) == len(block) - 1 for block in left_out), "neighbours stay together"


def test_a_single_image_has_no_interval_and_two_have_one():
    one = jackknife(lambda kept: 7.0, np.zeros((1, 4)))
    assert one.value == 7 and not one.has_interval
    assert jackknife(lambda kept: float(kept.mean()), np.array([[1.0], [3.0]])).has_interval


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "spoil",
    [
        lambda codes: codes[0],
        lambda codes: codes[:0],
        lambda codes: codes / 2,
        lambda codes: codes + 1,
        lambda codes: codes - 1,
    ],
)
def test_codes_out_of_bounds_are_refused_in_a_sentence(spoil):
    codes = codes_of(50, 0)
    codes[0, 0], codes[0, 1] = 0, 499
    with pytest.raises(DataError, match="codes: give integers .* from 0 to 499"):
        compressed_bits(codes, spoil(codes), codes)


def test_a_number_of_codes_that_no_two_bytes_hold_is_refused():
    with pytest.raises(DataError, match="at most 65,536"):
        compressed_bits(*[codes_of(5, 0)] * 3, n_codes=70_000)
