"""What several test files share: a small built data set, a tiny model, a quiet machine."""

import os

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# Before torch, matplotlib and transformers are imported: they read these once. Tests are about
# what is right, not how fast it is, so they run the same on a machine with a GPU.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"

import functools
import gc
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from seqlm import utils
from seqlm.config import DataConfig, ModelConfig
from seqlm.data.build import CODEBOOK, Pictures, build_dataset, load_pictures
from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokens import default_vocab
from seqlm.models.gpt2 import build_lm

torch.set_num_threads(1)


# Files that take longer than ten seconds, the longest first.
LONGEST_FIRST = (
    "test_notebooks", "test_playground_in_browser", "test_server", "test_train", "test_finetune",
    "test_painting_in_browser", "test_cli", "test_export", "test_report", "test_ecosystem",
    "test_runs", "test_middleware", "test_training_speed", "test_cards", "test_replay",
    "test_label_efficiency", "test_muon", "test_init", "test_recurrent", "test_sizes",
)  # fmt: skip


def pytest_collection_modifyitems(items) -> None:
    """Mark what is slow throughout, or needs a browser; elsewhere a test says so itself.

    Two processes share the files in this order, so that both end at about the same time.
    """
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)
        if "browser" in item.path.parts or item.path.stem == "test_notebooks":
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Take modules and tests out of every later collection of garbage: they stay to the end.

    Each Trainer asks for such a collection, which otherwise looks at millions of objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def spared():
    """What every training does again, and needs not do again in one process of the tests.

    No test cuts the power, so nothing waits for the disk; test_atomic watches the order of these
    waits, and whatever runs in a process of its own does wait. The package's modules import the
    same modules to the end; what these hold is still read and hashed each time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        patch.setattr(utils, "modules_behind", functools.cache(utils.modules_behind))
        yield


@dataclass(frozen=True, eq=False)
class Built:
    """A data set on disk, and what it was built with."""

    config: DataConfig
    directory: Path
    about: dict
    pictures: Pictures
    book: PatchCodebook


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    """300 digits, one copy of each training image, 50 codes. Read it, never write to it."""
    config = DataConfig(n_images=300, copies=1, n_codes=50)
    directory = tmp_path_factory.mktemp("data")
    about = build_dataset(config, directory)
    book = PatchCodebook.load(directory / CODEBOOK)
    return Built(config, directory, about, load_pictures(directory), book)


@pytest.fixture(scope="session")
def vocab() -> dict[str, int]:
    """The vocabulary of `built`: 6 structural tokens, 50 codes, 10 classes."""
    return default_vocab(50)


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """A GPT-2 so small that a test can train it."""
    return ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64)


@pytest.fixture(scope="session")
def opinionated(tiny, vocab):
    """Makes a model of `tiny` that nobody trained, but of opinions: context matters to it.

    Its weights are larger than random ones are.
    """

    def make():
        model = build_lm(tiny, vocab, seed=3).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 2:
                    weight.mul_(2 if "wte" in name else 6)
        return model

    return make
