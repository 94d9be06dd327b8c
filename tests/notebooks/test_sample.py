"""Notebook sample varies one setting at a time, always with the same random numbers."""

import nbformat
import numpy as np
import pytest

from seqlm.config import SampleConfig
from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.models.generation import draw
from seqlm.models.gpt2 import build_lm
from seqlm.workspace import read_notebooks


class PredictsOne:
    """A digit classifier that predicts 1 for every image."""

    def predict(self, images):
        return np.ones(len(images), dtype=int)


@pytest.fixture(scope="module")
def run_sweep(tiny, vocab, built):
    """Runs the notebook's own cells; returns their variables, and the settings drawn with."""
    notebook = nbformat.read(read_notebooks()["sample"].path, as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.id in ("06-31", "06-39")]
    shared = {
        "np": np, "SampleConfig": SampleConfig, "proportion": proportion, "vocab": vocab,
        "model": build_lm(tiny, vocab), "book": built.book, "classifier": PredictsOne(),
    }  # fmt: skip
    exec("from dataclasses import replace", shared)
    images, labels = built.pictures.of("test")

    def run(seed=7, n_swept=5):
        drawn_with = []

        def watched(*args):
            drawn_with.append(args[-1])
            return draw(*args)

        names = {**shared, "draw": watched, "seed": seed, "n_swept": n_swept, "n_classes": 10}
        names |= {"decoded": images, "test_labels": labels}
        for source in sources:
            exec(source, names)
        return names, drawn_with

    return run


@pytest.fixture(scope="module")
def swept(run_sweep):
    return run_sweep()


def test_every_value_is_measured_on_all_labels(swept):
    curves, values = swept[0]["swept"], swept[0]["values_of"]
    assert {name: tuple(c["setting"] for c in cells) for name, cells in curves.items()} == values
    for cell in (cell for cells in curves.values() for cell in cells):
        accuracy, varied = (
            Estimate.from_json(cell[name]) for name in ("classified_as_asked", "diversity")
        )
        assert accuracy.value == 0.1 and accuracy.n == varied.n == 50


def test_the_narrower_the_sampling_the_lower_the_diversity(swept):
    narrow, *_, all_ = (cell["diversity"]["value"] for cell in swept[0]["swept"]["top_k"])
    assert 0 < narrow < all_


def test_all_curves_share_the_neutral_point_which_is_generated_once(swept):
    (names, configs), plain = swept, SampleConfig(seed=7)
    through = [
        [{**cell, "setting": None} for cell in cells if cell["setting"] == getattr(plain, name)]
        for name, cells in names["swept"].items()
    ]
    assert all(cells == through[0] and len(cells) == 1 for cells in through)
    assert configs.count(plain) == 1 and len(configs) == len(set(configs))
    assert {config.seed for config in configs} == {7}
    values = names["values_of"]
    assert len(configs) == sum(map(len, values.values())) - len(values) + 1


def test_the_same_seed_gives_the_same_curves_and_another_gives_others(run_sweep, swept):
    assert run_sweep()[0]["swept"] == swept[0]["swept"] != run_sweep(seed=8)[0]["swept"]


def test_a_class_generated_once_is_refused(run_sweep):
    with pytest.raises(DataError, match="at least two images of each class"):
        run_sweep(n_swept=1)
