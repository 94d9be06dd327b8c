"""Handwritten digits: loading, splitting and augmentation."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.model_selection import train_test_split

from seqlm import idx
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


def image_files(config: DataConfig, home: Path) -> list[Path]:
    """The files that `load_images` would read: none of digits, none of MNIST to be downloaded."""
    folder = config.images_path or home / "mnist"
    return idx.idx_files(folder) if config.source == "mnist" else []


def load_images(
    config: DataConfig, home: Path = Path("data")
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """The images (N, H, W) and labels (N,) that `config` names, and `n_test` of `split_indices`.

    MNIST's files lie in `config.images_path`, without it in `home`/mnist; downloaded, it is kept in
    `home`/cache. Its first `n_images` are the first to learn from and the first to test on, in
    proportion. Raises DataError when it is not there.
    """
    if config.source == "digits":
        images, labels = load_digits()
        return images[: config.n_images], labels[: config.n_images], None
    if config.images_path or image_files(config, home):
        images, labels, n_test = idx.read_images(config.images_path or home / "mnist")
    else:
        images, labels, n_test = idx.download_mnist(home)
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
