"""Handwritten digits: loading, splitting and augmentation."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.model_selection import train_test_split

from seqlm.config import DataConfig
from seqlm.errors import DataError

LEVELS = {"digits": 16, "mnist": 255}  # the brightest pixel, as a whole number

_FINE = 4  # sub-pixels along a pixel: the digits were 32x32 bitmaps, counted in blocks of 4x4
_EDGE = 16.0  # steepness of the edge between paper and ink on the fine grid


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: images (1797, 8, 8) float32 in 0..1 and labels (1797,) int64.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits as load

    digits = load()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


def load_mnist(cache: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """MNIST from `cache` or OpenML: images (70000, 28, 28) float32 in 0..1, labels int64.

    Raises DataError when they are neither in the cache nor within reach.
    """
    from sklearn.datasets import fetch_openml

    try:
        table = fetch_openml("mnist_784", version=1, as_frame=False, data_home=cache)
    except OSError as error:
        raise DataError(
            f"MNIST could not be downloaded from OpenML ({error}); connect to the internet once, "
            "or use --source digits, which needs none"
        ) from error
    images = table.data.reshape(-1, 28, 28).astype(np.float32) / 255
    return images, table.target.astype(np.int64)


def load_images(config: DataConfig, cache: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, H, W) and labels (N,) that `config` names."""
    images, labels = load_mnist(cache) if config.source == "mnist" else load_digits()
    return images[: config.n_images], labels[: config.n_images]


def split_indices(labels: np.ndarray, seed: int = 42) -> dict[str, np.ndarray]:
    """Indices of train (70 %), val (10 %) and test (20 %), each with every class in proportion.

    test is scikit-learn's own ``train_test_split(test_size=0.2, stratify=labels)``, so that with
    seed 42 its numbers compare with everyone's; val is cut out of what remains.
    """
    everything = np.arange(len(labels))
    rest, test = train_test_split(everything, test_size=0.2, stratify=labels, random_state=seed)
    train, val = train_test_split(
        rest, test_size=round(len(labels) * 0.1), stratify=labels[rest], random_state=seed
    )
    return {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}


def _ink(values: np.ndarray) -> np.ndarray:
    """Paper (0) or ink (1), with an edge soft enough to move by less than a sub-pixel."""
    return 1 / (1 + np.exp(-_EDGE * (values - 0.5)))


def _block_means(fine: np.ndarray) -> np.ndarray:
    """(N, H*f, W*f) sub-pixels -> (N, H, W) pixels."""
    n, height, width = fine.shape
    blocks = fine.reshape(n, height // _FINE, _FINE, width // _FINE, _FINE)
    return blocks.mean(axis=(2, 4))


def sharpen(images: np.ndarray) -> np.ndarray:
    """Guess the fine bitmap behind each image: nearly black and white, with the same pixel means.

    (N, H, W) in 0..1 -> (N, 4H, 4W) in 0..1. A smooth enlargement is cut at a threshold, and the
    threshold of each pixel is moved until the mean inside it is the pixel's value again.
    """
    enlarge = partial(ndimage.zoom, zoom=_FINE, order=3, grid_mode=True, mode="grid-constant")
    smooth = np.stack([*map(enlarge, images)])  # (N, 4H, 4W)
    lift = np.zeros_like(images)
    for _ in range(30):
        fine = _ink(smooth + lift.repeat(_FINE, axis=1).repeat(_FINE, axis=2))
        lift += 0.5 * (images - _block_means(fine))
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

    To distort an 8x8 image directly blurs it, and a model trained on blurred images draws blurred
    images. So each copy is made on a grid four times finer, cut back to paper and ink, and counted
    in blocks again, as the originals were: float32 in 0..1, in steps of 1/`levels`.
    """
    rng = np.random.default_rng([config.seed, 1])
    fine = sharpen(images) if config.copies else images
    centre = (np.array(fine.shape[1:]) - 1) / 2
    for _ in range(config.copies):
        maps = _random_maps(len(images), config, rng)
        shifts = rng.uniform(-config.shift, config.shift, (len(images), 2)) * _FINE
        copy = [
            ndimage.affine_transform(image, turn, centre - turn @ centre + shift, order=1)
            for image, turn, shift in zip(fine, maps, shifts, strict=True)
        ]
        yield (np.round(_block_means(_ink(np.stack(copy))) * levels) / levels).astype(np.float32)


def augment(images: np.ndarray, config: DataConfig, levels: int = 16) -> np.ndarray:
    """All of `augmented_images` at once, (copies * N, H, W): copy c of image i is at c * N + i."""
    copies = list(augmented_images(images, config, levels))
    return np.concatenate(copies) if copies else images[:0]
