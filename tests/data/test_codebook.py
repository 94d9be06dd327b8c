"""Pictures become codes and come back as near as the codebook allows."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from seqlm.data.codebook import PatchCodebook, psnr
from seqlm.data.images import load_digits
from seqlm.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def images():
    return load_digits()[0][:200]


@pytest.fixture(scope="module")
def book(images):
    return PatchCodebook.fit(images, n_codes=60, patch=2, seed=0)


def oblong_book() -> PatchCodebook:
    """Six codes over 2x2 patches of pictures of 4x6 pixels."""
    return PatchCodebook(np.arange(24, dtype=np.float32).reshape(6, 4) / 24, (4, 6), 2)


def test_codes_name_patches_row_by_row_from_the_top_left():
    book = oblong_book()
    assert book.grid == (2, 3) and book.n_patches == 6 and book.n_codes == 6
    (picture,) = book.decode(np.array([[0, 1, 2, 3, 4, 5]])) * 24
    assert picture.round().astype(int).tolist() == [
        [0, 1, 4, 5, 8, 9],
        [2, 3, 6, 7, 10, 11],
        [12, 13, 16, 17, 20, 21],
        [14, 15, 18, 19, 22, 23],
    ]
    assert book.encode(picture[None] / 24).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_every_patch_comes_back_as_its_nearest_centre(book, images):
    decoded = book.decode(book.encode(images))
    assert decoded.shape == images.shape and decoded.dtype == np.float32
    for row in range(0, 8, 2):
        for column in range(0, 8, 2):
            real = images[:, row : row + 2, column : column + 2].reshape(-1, 4)
            made = decoded[:, row : row + 2, column : column + 2].reshape(-1, 4)
            nearest = ((real[:, None] - book.centers[None]) ** 2).sum(-1).min(axis=1)
            assert np.allclose(((real - made) ** 2).sum(-1), nearest, atol=1e-6)


def test_codes_come_back_from_the_pictures_they_make(book):
    codes = np.random.default_rng(1).integers(0, 60, (50, 16))
    codes[0] = np.arange(16)
    codes[1:4] = np.arange(12, 60).reshape(3, 16)
    assert len(np.unique(codes)) == 60
    back = book.encode(book.decode(codes))
    assert np.array_equal(back, codes)
    assert back.dtype == np.int64


def test_decoding_twice_loses_no_more_than_decoding_once(book, images):
    once = book.decode(book.encode(images))
    assert np.array_equal(book.decode(book.encode(once)), once)


def test_a_book_with_a_code_for_every_patch_loses_nothing():
    images = np.random.default_rng(0).integers(0, 2, (20, 4, 4)).astype(np.float32)
    book = PatchCodebook.fit(images, n_codes=16, patch=2)
    assert np.allclose(book.decode(book.encode(images)), images, atol=1e-6)


def test_more_codes_come_nearer(images):
    ratios = []
    for n_codes in (5, 50, 400):
        book = PatchCodebook.fit(images, n_codes, 2)
        ratios.append(psnr(images, book.decode(book.encode(images))))
    assert ratios[0] + 3 < ratios[1] < ratios[2] - 3


def test_codes_are_numbered_from_paper_to_ink(book):
    darkness = book.centers.mean(axis=1)
    assert (np.diff(darkness) >= 0).all() and darkness[0] < 0.05 and darkness[-1] > 0.9


@pytest.mark.parametrize(("patch", "n_patches"), [(1, 64), (2, 16), (4, 4), (8, 1)])
def test_every_patch_size_that_divides_the_picture_works(images, patch, n_patches):
    book = PatchCodebook.fit(images, n_codes=10, patch=patch)
    codes = book.encode(images)
    assert codes.shape == (200, n_patches) and codes.min() >= 0 and codes.max() < 10
    assert book.decode(codes).shape == images.shape


def test_the_same_seed_gives_the_same_book(images):
    once, again, other = (PatchCodebook.fit(images, 30, 2, seed) for seed in (3, 3, 4))
    assert np.array_equal(once.centers, again.centers)
    assert not np.array_equal(once.centers, other.centers)
    assert once.centers.dtype == np.float32 and once.centers.shape == (30, 4)


def test_a_saved_book_is_the_same_book(book, images, tmp_path):
    path = tmp_path / "new" / "codebook.npz"
    book.save(path)
    loaded = PatchCodebook.load(path)
    assert np.array_equal(loaded.centers, book.centers)
    assert loaded.centers.dtype == np.float32
    assert (loaded.image_shape, loaded.patch) == (book.image_shape, book.patch)
    assert np.array_equal(loaded.encode(images), book.encode(images))


# ---------------------------------------------------------------- what is refused


def test_a_patch_that_does_not_divide_the_picture_is_refused(images):
    with pytest.raises(ConfigError, match="^patch: 3 does not divide images of 8x8"):
        PatchCodebook.fit(images, 10, patch=3)
    with pytest.raises(ConfigError, match="^patch: 4 does not divide images of 8x6"):
        PatchCodebook.fit(images[:, :, :6], 10, patch=4)


def test_more_codes_than_different_patches_are_refused():
    images = np.zeros((10, 4, 4), np.float32)
    images[0, 0, 0] = 1
    with pytest.raises(ConfigError, match="^n_codes: 3 .* only 2 different patches"):
        PatchCodebook.fit(images, 3, patch=2)
    assert PatchCodebook.fit(images, 2, patch=2).n_codes == 2


def test_pictures_of_another_size_are_refused(book):
    with pytest.raises(DataError, match=r"for \(8, 8\) images, these are \(8, 6\)"):
        book.encode(np.zeros((2, 8, 6), np.float32))


@pytest.mark.parametrize("shape", [(3, 15), (16,), (1, 16, 1)])
def test_too_few_codes_for_a_picture_are_refused(book, shape):
    with pytest.raises(DataError, match="needs 16 codes"):
        book.decode(np.zeros(shape, dtype=int))


@pytest.mark.parametrize("code", [60, -1])
def test_a_code_that_is_not_in_the_book_is_refused(book, code):
    codes = np.zeros((2, 16), dtype=int)
    codes[1, 3] = code
    with pytest.raises(DataError, match=f"no code {code}, only 0 to 59"):
        book.decode(codes)


def damaged(book, path, damage):
    if damage == "an array alone":
        with open(path, "wb") as file:
            np.save(file, book.centers)
    elif damage == "another archive":
        np.savez(path, images=np.zeros(3))
    elif damage == "pickled objects":  # reading them could run anything
        np.savez(path, centers=book.centers.astype(object), image_shape=(8, 8), patch=2)
    else:
        book.save(path)
        whole = path.read_bytes()
        kept = {"cut short": whole[:300], "empty": b"", "text": b"hello", "bits flipped": None}
        broken = whole[:200] + bytes(8) + whole[208:]
        path.write_bytes(broken if kept[damage] is None else kept[damage])


@pytest.mark.parametrize(
    "damage",
    ["cut short", "empty", "text", "bits flipped", "an array alone", "another archive"]
    + ["pickled objects"],
)
def test_a_damaged_book_is_named_in_one_sentence(book, tmp_path, damage):
    path = tmp_path / "codebook.npz"
    damaged(book, path, damage)
    with pytest.raises(DataError, match="not readable") as caught:
        PatchCodebook.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_book_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere.npz: not readable"):
        PatchCodebook.load(tmp_path / "nowhere.npz")


# ---------------------------------------------------------------- PSNR


def test_psnr_is_minus_ten_times_log10_of_the_mean_squared_error():
    images = np.zeros((2, 2, 2))
    assert psnr(images, images + 0.1) == pytest.approx(20)  # MSE 0.01
    one_pixel = images.copy()
    one_pixel[0, 0, 0] = 0.8  # MSE 0.64 / 8 = 0.08
    assert psnr(images, one_pixel) == pytest.approx(-10 * np.log10(0.08))
    assert psnr(images, images) == np.inf


def test_the_code_book_does_not_depend_on_the_number_of_threads():
    images = load_digits()[0][:600]
    books = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            books.append(PatchCodebook.fit(images, 200, 2, seed=42).centers)
    assert np.array_equal(books[0], books[1]) and np.array_equal(books[0], books[2])
