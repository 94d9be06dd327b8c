"""Images in IDX files, the format of MNIST and its like, and MNIST's download."""

import gzip
import zlib
from pathlib import Path
from threading import Event, Thread

import numpy as np

from seqlm.errors import DataError

EVERY = 5.0  # seconds between two lines about a download
FILES = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two named t10k"


def idx_files(folder: Path) -> list[Path]:
    """The IDX files in `folder`, by name."""
    return sorted(folder.glob("*-ubyte*"))


def read_idx(path: Path, n_axes: int) -> np.ndarray:
    """The bytes of an IDX file, plain or .gz: images (N, H, W), three axes, or labels (N,), one.

    Format: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST Database of Handwritten Digits. Raises
    DataError when the file is missing, damaged, cut short or of another kind.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read()
        if content[:4] != bytes([0, 0, 8, n_axes]):
            raise ValueError(f"it begins with {content[:4].hex() or 'nothing'}")
        shape = [int.from_bytes(content[4 * i : 4 * i + 4]) for i in range(1, 1 + n_axes)]
        return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: not a whole IDX file of {n_axes} axes ({error}); copy or download it again"
        ) from error


def read_images(folder: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Images (N, H, W) uint8, their classes (N,), and how many of them, the last, are for test.

    Files named t10k or test are for test; where only one kind of files is there, the last fifth is.
    Raises DataError for a folder without such files, or with files that do not belong together.
    """
    files = {path.name.removesuffix(".gz"): path for path in idx_files(folder)}
    names = [name for name in files if "images" in name]
    if not names:
        raise DataError(f"{folder}: no images in IDX format are there; copy {FILES} into it")
    images, classes, n_test = [], [], 0
    for name in sorted(names, key=_is_test):
        labels = name.replace("images", "labels").replace("idx3", "idx1")
        labels = files.get(labels, files[name].with_name(labels))
        images.append(read_idx(files[name], 3))
        classes.append(read_idx(labels, 1))
        if len(images[-1]) != len(classes[-1]) or images[-1].shape[1:] != images[0].shape[1:]:
            shapes = f"{classes[-1].shape} of labels, {images[-1].shape} of images"
            raise DataError(
                f"{labels}: {shapes}; images of one size, with a label each, are needed"
            )
        n_test += len(classes[-1]) * _is_test(name)
    n = sum(map(len, classes))
    return np.concatenate(images), np.concatenate(classes), n_test % n or n // 5


def _is_test(name: str) -> bool:
    return name.startswith(("t10k", "test"))


def download_mnist(home: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """The same of MNIST, all 70,000 images, from OpenML or from an earlier download.

    Raises DataError, which names both ways to the images, when OpenML is out of reach.
    """
    from sklearn.datasets import fetch_openml

    folder, cache = home / "mnist", home / "cache"
    print(f"{folder}: no images there; MNIST from OpenML, 15 MB, downloaded once, into {cache} …")
    done = Event()
    Thread(target=_log_growth, args=(cache, done), daemon=True).start()
    try:  # what was downloaded is compared with OpenML's checksum
        table = fetch_openml("mnist_784", version=1, as_frame=False, data_home=cache)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}: no images there, and none from OpenML ({error}); connect to the internet "
            f"once, or copy {FILES} there or into the folder of --images_path"
        ) from error
    finally:
        done.set()
    return table.data.reshape(-1, 28, 28), table.target, 10_000


def _log_growth(folder: Path, done: Event) -> None:
    """Print how much is in `folder` until `done`: of a download scikit-learn says nothing."""
    while not done.wait(EVERY):
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{size / 1e6:.1f} MB so far")
