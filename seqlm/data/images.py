"""Handwritten digits: loading, splitting and augmentation."""

import gzip
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.model_selection import train_test_split

from seqlm.config import DataConfig
from seqlm.errors import DataError

LEVELS = {"digits": 16, "mnist": 255}  # the brightest pixel, as a whole number

_EDGE = 16.0  # steepness of the edge between paper and ink on the fine grid


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: images (1797, 8, 8) float32 in 0..1 and labels (1797,) int64.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits as load

    digits = load()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def read_idx(path: Path, n_axes: int) -> np.ndarray:
    """The bytes of an IDX file, plain or .gz: images (N, H, W), three axes, or labels (N,), one.

    Format: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST Database of Handwritten Digits. Raises
    DataError when the file is missing, damaged, cut short or of another kind.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read()
        if content[:4] != bytes([0, 0, 8, n_axes]):
            raise ValueError(f"it begins with the bytes {content[:4].hex() or 'of nothing'}")
        shape = [int.from_bytes(content[4 * i : 4 * i + 4]) for i in range(1, 1 + n_axes)]
        return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: not a whole IDX file of {n_axes} axes ({error}); copy or download it again"
        ) from error


def idx_files(config: DataConfig, home: Path) -> list[Path]:
    """The IDX files in `config.images_path` or, without it, in `home`/mnist; of digits none."""
    folder = config.images_path or home / "mnist"
    return sorted(folder.glob("*-ubyte*")) if config.source == "mnist" else []


def load_mnist(config: DataConfig, home: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Images (N, H, W) uint8, their classes (N,), and how many at the end are for test.

    From IDX files: those named test or t10k are for test, of one kind alone the last fifth. Without
    files from OpenML, asked once and kept in `home`/cache. Raises DataError, one sentence.
    """
    files = {path.name.removesuffix(".gz"): path for path in idx_files(config, home)}
    images, classes, n_test = [], [], 0
    for name in sorted(files, key=lambda name: (name.startswith(("t10k", "test")), name)):
        if "images" not in name:
            continue
        labels = name.replace("images", "labels").replace("idx3", "idx1")
        labels = files.get(labels, files[name].with_name(labels))
        images.append(read_idx(files[name], 3))
        classes.append(read_idx(labels, 1))
        if len(images[-1]) != len(classes[-1]) or images[-1].shape[1:] != images[0].shape[1:]:
            shapes = f"{classes[-1].shape} of labels, {images[-1].shape} of images"
            raise DataError(
                f"{labels}: {shapes}; images of one size, with a label each, are needed"
            )
        n_test += len(classes[-1]) * name.startswith(("t10k", "test"))
    if not images:
        return *_fetch_mnist(config, home), 10_000
    n = sum(map(len, classes))
    return np.concatenate(images), np.concatenate(classes), n_test % n or n // 5


def _fetch_mnist(config: DataConfig, home: Path) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import fetch_openml

    folder, cache = config.images_path or home / "mnist", home / "cache"
    try:
        if config.images_path:
            raise OSError("it is not asked when a folder is named")
        print(f"{folder}: no IDX files; downloading MNIST, 15 MB, once, into {cache} …")
        # It compares the file with OpenML's checksum.
        table = fetch_openml("mnist_784", version=1, as_frame=False, data_home=cache)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}: no images in IDX format, and none from OpenML ({error}); copy the four "
            "files of MNIST there, such as train-images-idx3-ubyte.gz, or name their folder with "
            "--images_path, or connect to the internet once"
        ) from error
    return table.data.reshape(-1, 28, 28), table.target


def load_images(
    config: DataConfig, home: Path = Path("data")
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """The images (N, H, W) and labels (N,) that `config` names, and `n_test` of `split_indices`.

    `home` is the folder with mnist/ and cache/. Of MNIST the first `n_images` are the first to
    learn from and the first to test on, in the same proportion as all.
    """
    if config.source == "digits":
        images, labels = load_digits()
        return images[: config.n_images], labels[: config.n_images], None
    images, labels, n_test = load_mnist(config, home)
    n = min(config.n_images or len(labels), len(labels))
    fewer = n * n_test // len(labels)
    kept = np.r_[: n - fewer, len(labels) - n_test : len(labels) - n_test + fewer]
    return images[kept].astype(np.float32) / 255, labels[kept].astype(np.int64), fewer


def split_indices(
    labels: np.ndarray, seed: int = 42, n_test: int | None = None
) -> dict[str, np.ndarray]:
    """Indices of train (70 %), val (10 %) and test (20 %), each with every class in proportion.

    test is scikit-learn's own ``train_test_split(test_size=0.2, stratify=labels)``, so that with
    seed 42 its numbers compare with everyone's, or the last `n_test`; val is cut out of what
    remains. Raises DataError for images too few to be divided.
    """
    rest, n_val = np.arange(len(labels)), round(len(labels) * 0.1)
    divide = partial(train_test_split, random_state=seed)
    try:
        if n_test is None:
            rest, test = divide(rest, test_size=0.2, stratify=labels)
        else:
            rest, test = np.split(rest, [len(rest) - n_test])
        train, val = divide(rest, test_size=n_val, stratify=labels[rest])
    except ValueError as error:
        raise DataError(f"{len(labels)} images cannot be divided: {error}; use more") from error
    return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}


def _ink(values: np.ndarray) -> np.ndarray:
    """Paper (0) or ink (1), with an edge soft enough to move by less than a sub-pixel."""
    return 1 / (1 + np.exp(-_EDGE * (values - 0.5)))


def _sub_pixels(images: np.ndarray) -> int:
    """Sub-pixels along a pixel: the 8x8 digits were 32x32 bitmaps, counted in blocks of 4x4."""
    return max(2, 32 // max(images.shape[1:]))


def _block_means(fine: np.ndarray, f: int) -> np.ndarray:
    """(N, H*f, W*f) sub-pixels -> (N, H, W) pixels."""
    n, height, width = fine.shape
    return fine.reshape(n, height // f, f, width // f, f).mean(axis=(2, 4))


def sharpen(images: np.ndarray) -> np.ndarray:
    """Guess the fine bitmap behind each image: nearly black and white, with the same pixel means.

    (N, H, W) in 0..1 -> (N, fH, fW) in 0..1, f of `_sub_pixels`. A smooth enlargement is cut at a
    threshold, and the threshold of each pixel is moved until the mean inside it is the pixel's
    value again.
    """
    f = _sub_pixels(images)
    enlarge = partial(ndimage.zoom, zoom=f, order=3, grid_mode=True, mode="grid-constant")
    smooth = np.stack([*map(enlarge, images)])  # (N, fH, fW)
    lift = np.zeros_like(images)
    for _ in range(30):
        fine = _ink(smooth + lift.repeat(f, axis=1).repeat(f, axis=2))
        lift += 0.5 * (images - _block_means(fine, f))
    return fine


def _random_maps(n: int, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """`n` small linear maps: rotation x shear x stretch. (n, 2, 2)."""
    angle = np.deg2rad(rng.uniform(-config.rotate, config.rotate, n))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.tile(np.eye(2), (n, 1, 1))
    shear[:, 0, 1] = rng.uniform(-config.shear, config.shear, n)
    stretch = np.exp(rng.uniform(-config.scale, config.scale, (n, 2)))
    return rotation.transpose(2, 0, 1) @ shear * stretch[:, None, :]


def augmented_images(
    images: np.ndarray, config: DataConfig, levels: int = 16
) -> Iterator[np.ndarray]:
    """Yield `config.copies` times all images (N, H, W), rotated, shifted, scaled, sheared.

    To distort a small image directly blurs it, and a model trained on blurred images draws blurred
    images. So each copy is made on a finer grid, cut back to paper and ink, and counted in blocks
    again, as the originals were: float32 in 0..1, in steps of 1/`levels`.
    """
    rng, f = np.random.default_rng([config.seed, 1]), _sub_pixels(images)
    # In parts: the enlargements of all MNIST at once would take gigabytes.
    parts = np.array_split(images, 1 + len(images) // 8192)
    fine = np.concatenate([*map(sharpen, parts)]) if config.copies else images
    centre = (np.array(fine.shape[1:]) - 1) / 2
    for _ in range(config.copies):
        maps = _random_maps(len(images), config, rng)
        shifts = rng.uniform(-config.shift, config.shift, (len(images), 2)) * f
        copy = [
            ndimage.affine_transform(image, turn, centre - turn @ centre + shift, order=1)
            for image, turn, shift in zip(fine, maps, shifts, strict=True)
        ]
        yield (np.round(_block_means(_ink(np.stack(copy)), f) * levels) / levels).astype(np.float32)


def augment(images: np.ndarray, config: DataConfig, levels: int = 16) -> np.ndarray:
    """All of `augmented_images` at once, (copies * N, H, W): copy c of image i is at c * N + i."""
    copies = list(augmented_images(images, config, levels))
    return np.concatenate(copies) if copies else images[:0]
