"""The codebook of image patches: fit it by k-means, encode images as codes, decode them."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin
from threadpoolctl import threadpool_limits

from seqlm.atomic import atomic_path
from seqlm.errors import ConfigError, DataError


def load_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz file. Raises DataError when it is missing, damaged, or lacks one."""
    try:
        with np.load(path) as stored:
            return [stored[name] for name in names]
    except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: not readable ({error}); notebook 01_explore_data or `seqlm build` makes it"
        ) from error


@dataclass(frozen=True, eq=False)
class PatchCodebook:
    """Cuts an image into square patches and names each by the nearest of K typical patches."""

    centers: np.ndarray  # the typical patches, flattened, darkest last. (K, patch * patch) float32
    image_shape: tuple[int, int]  # (H, W) in pixels
    patch: int  # side of a patch, in pixels

    @classmethod
    def fit(
        cls, images: np.ndarray, n_codes: int = 500, patch: int = 2, seed: int = 42
    ) -> "PatchCodebook":
        """Find `n_codes` typical patches of `images` (N, H, W) by k-means.

        Raises ConfigError when `patch` does not divide the sides or when the images hold fewer
        different patches than `n_codes`.
        """
        _, height, width = images.shape
        if height % patch or width % patch:
            raise ConfigError(f"patch: {patch} does not divide images of {height}x{width} pixels")
        patches = _cut(images, patch).reshape(-1, patch * patch)
        different = len(np.unique(patches, axis=0))
        if different < n_codes:
            raise ConfigError(
                f"n_codes: {n_codes} codes wanted, but the images have only {different} "
                "different patches; choose fewer codes or larger patches"
            )
        with threadpool_limits(1):  # sums taken by more threads end in other codes
            centers = KMeans(n_codes, n_init=1, random_state=seed).fit(patches).cluster_centers_
        # Ordered by darkness, so that close numbers look alike.
        centers = centers[np.argsort(centers.mean(axis=1), kind="stable")].astype(np.float32)
        return cls(centers, (height, width), patch)

    @property
    def n_codes(self) -> int:
        """K, the number of typical patches."""
        return len(self.centers)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in an image."""
        return self.image_shape[0] // self.patch, self.image_shape[1] // self.patch

    @property
    def n_patches(self) -> int:
        """P, the codes of an image."""
        return self.grid[0] * self.grid[1]

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images (N, H, W) -> codes (N, P) int64, row by row from the top left."""
        if images.shape[1:] != self.image_shape:
            raise DataError(
                f"the codebook is for {self.image_shape} images, these are {images.shape[1:]}"
            )
        if not len(images):
            return np.zeros((0, self.n_patches), dtype=np.int64)
        patches = _cut(images, self.patch).reshape(-1, self.patch**2).astype(np.float32)
        nearest = pairwise_distances_argmin(patches, self.centers)
        return nearest.reshape(len(images), self.n_patches).astype(np.int64)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (N, P) -> images (N, H, W) float32."""
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != self.n_patches:
            raise DataError(f"an image needs {self.n_patches} codes, got shape {codes.shape}")
        unknown = codes[(codes < 0) | (codes >= self.n_codes)]
        if unknown.size:
            raise DataError(
                f"the codebook has no code {unknown[0]}, only 0 to {self.n_codes - 1}; use the "
                "codebook that the codes were made with"
            )
        rows, columns = self.grid
        patches = self.centers[codes].reshape(len(codes), rows, columns, self.patch, self.patch)
        return patches.transpose(0, 1, 3, 2, 4).reshape(len(codes), *self.image_shape)

    def save(self, path: Path) -> None:
        """Write the codebook to `path` (.npz)."""
        with atomic_path(path) as aside, open(aside, "wb") as file:
            np.savez(file, centers=self.centers, image_shape=self.image_shape, patch=self.patch)

    @classmethod
    def load(cls, path: Path) -> "PatchCodebook":
        """Read what `save` wrote. Raises DataError when it is not there or not a codebook."""
        centers, (height, width), patch = load_arrays(path, "centers", "image_shape", "patch")
        return cls(centers, (int(height), int(width)), int(patch))


def _cut(images: np.ndarray, patch: int) -> np.ndarray:
    """(N, H, W) -> (N, P, patch, patch), row by row from the top left."""
    n, height, width = images.shape
    cells = images.reshape(n, height // patch, patch, width // patch, patch)
    return cells.transpose(0, 1, 3, 2, 4).reshape(n, -1, patch, patch)


def psnr(images: np.ndarray, decoded: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, for images in 0..1; infinite for equal images."""
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(np.mean((images - decoded) ** 2)))
