"""Sampling sweeps: every value generates all labels from the same random numbers."""

import numpy as np
import pytest

from seqlm.config import SampleConfig
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.estimates import Estimate
from seqlm.lab.sampling_study import SWEPT_VALUES, sweep_sampling
from seqlm.models.gpt2 import build_lm

LABELS = [0, 0, 0, 1, 1, 1]


class PredictsOne:
    """A digit classifier that predicts 1 for every image."""

    def predict(self, images):
        return np.ones(len(images), dtype=int)


@pytest.fixture(scope="module")
def run_sweep(tiny, vocab, built):
    model = build_lm(tiny, vocab)

    def run(values, labels=LABELS, seed=7, real=None):
        return sweep_sampling(model, vocab, built.book, PredictsOne(), values, labels, seed, real)

    return run


def test_every_value_is_measured_on_all_labels(run_sweep):
    curves = run_sweep({"temperature": (0.5, 1.0), "top_k": (2,)})
    assert [cell["setting"] for cell in curves["temperature"]] == [0.5, 1.0]
    assert list(curves) == ["temperature", "top_k"]
    for cell in [*curves["temperature"], *curves["top_k"]]:
        accuracy, varied = (
            Estimate.from_json(cell[name]) for name in ("classified_as_asked", "diversity")
        )
        assert accuracy.value == 0.5 and accuracy.n == varied.n == len(LABELS)
        assert cell["real_vs_generated_auc"] is None


def test_the_narrower_the_sampling_the_lower_the_diversity(run_sweep):
    """With one token to choose from there is one image of each class, whatever the seed."""
    curves = run_sweep({"top_k": (1, 5, 0), "temperature": (0.01, 1.0)})
    one, few, all_ = (cell["diversity"]["value"] for cell in curves["top_k"])
    assert one == 0 and 0 < few < all_
    cold, plain = (cell["diversity"]["value"] for cell in curves["temperature"])
    assert cold < plain


def test_all_curves_share_the_neutral_point_which_is_generated_once(run_sweep, monkeypatch):
    configs = []

    def drawn(model, vocab, labels, n_patches, config):
        configs.append(config)
        return np.random.default_rng(config.seed).integers(0, 50, (len(labels), n_patches))

    monkeypatch.setattr("seqlm.lab.sampling_study.draw", drawn)
    curves = run_sweep(SWEPT_VALUES)
    plain = SampleConfig(seed=7)
    neutral = {name: getattr(plain, name) for name in SWEPT_VALUES}
    through = [
        [{**cell, "setting": None} for cell in cells if cell["setting"] == neutral[name]]
        for name, cells in curves.items()
    ]
    assert all(cells == through[0] and len(cells) == 1 for cells in through)
    assert configs.count(plain) == 1 and len(configs) == len(set(configs))
    assert len(configs) == sum(map(len, SWEPT_VALUES.values())) - len(SWEPT_VALUES) + 1


def test_the_same_seed_gives_the_same_curves_and_another_gives_others(run_sweep):
    values = {"guidance": (2.0,)}
    assert run_sweep(values) == run_sweep(values) != run_sweep(values, seed=8)


def test_with_real_images_the_auc_is_measured(run_sweep, built):
    real = built.book.decode(built.book.encode(built.pictures.of("test")[0]))
    auc = run_sweep({"top_p": (1.0,)}, real=real)["top_p"][0]["real_vs_generated_auc"]
    assert auc["unit"] == "area" and auc["n"] == len(real) + len(LABELS)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"warmth": (1.0,)}, "'warmth' is none of"), ({"top_p": (1.0, 1.5)}, "top_p: must be")],
)
def test_unknown_settings_and_values_are_refused_before_anything_is_generated(
    run_sweep, monkeypatch, values, message
):
    monkeypatch.setattr("seqlm.lab.sampling_study.draw", None)
    with pytest.raises(ConfigError, match=message):
        run_sweep({"temperature": (1.0,), **values})


@pytest.mark.parametrize("labels", [[0, 1, 1], []])
def test_a_class_generated_once_is_refused(run_sweep, monkeypatch, labels):
    monkeypatch.setattr("seqlm.lab.sampling_study.draw", None)
    with pytest.raises(DataError, match="every class at least twice"):
        run_sweep({"temperature": (1.0,)}, labels)
