"""A knob is turned: whole grids, the same luck everywhere, and curves that go the right way."""

import numpy as np
import pytest

from seqlm.config import SampleConfig
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.estimates import Estimate
from seqlm.lab.sampling_study import KNOBS, sweep
from seqlm.models.gpt2 import build_lm

LABELS = [0, 0, 0, 1, 1, 1]


class SaysOne:
    """A judge to whom everything is a 1."""

    def predict(self, images):
        return np.ones(len(images), dtype=int)


@pytest.fixture(scope="module")
def turned(tiny, vocab, built):
    model = build_lm(tiny, vocab)

    def run(knobs, labels=LABELS, seed=7, real=None):
        return sweep(model, vocab, built.book, SaysOne(), knobs, labels, seed, real)

    return run


def test_every_setting_is_judged_on_the_whole_grid(turned):
    found = turned({"temperature": (0.5, 1.0), "top_k": (2,)})
    assert [cell["setting"] for cell in found["temperature"]] == [0.5, 1.0]
    assert list(found) == ["temperature", "top_k"]
    for cell in [*found["temperature"], *found["top_k"]]:
        judged, varied = (
            Estimate.from_json(cell[name]) for name in ("classified_as_asked", "diversity")
        )
        assert judged.value == 0.5 and judged.n == varied.n == len(LABELS)
        assert cell["real_vs_generated_auc"] is None


def test_the_duller_the_sampling_the_less_drawings_differ(turned):
    """With one token left to choose there is one drawing of each class, whatever the luck."""
    found = turned({"top_k": (1, 5, 0), "temperature": (0.01, 1.0)})
    one, few, all_ = (cell["diversity"]["value"] for cell in found["top_k"])
    assert one == 0 and 0 < few < all_
    cold, plain = (cell["diversity"]["value"] for cell in found["temperature"])
    assert cold < plain


def test_all_curves_pass_through_the_model_as_it_is_which_is_drawn_once(turned, monkeypatch):
    ways = []

    def drawn(model, vocab, labels, n_patches, config):
        ways.append(config)
        return np.random.default_rng(config.seed).integers(0, 50, (len(labels), n_patches))

    monkeypatch.setattr("seqlm.lab.sampling_study.draw", drawn)
    found = turned(KNOBS)
    plain = SampleConfig(seed=7)
    at_rest = {knob: getattr(plain, knob) for knob in KNOBS}
    through = [
        [{**cell, "setting": None} for cell in cells if cell["setting"] == at_rest[knob]]
        for knob, cells in found.items()
    ]
    assert all(cells == through[0] and len(cells) == 1 for cells in through)
    assert ways.count(plain) == 1 and len(ways) == len(set(ways))
    assert len(ways) == sum(map(len, KNOBS.values())) - len(KNOBS) + 1


def test_the_same_seed_gives_the_same_curves_and_another_gives_others(turned):
    knobs = {"guidance": (2.0,)}
    assert turned(knobs) == turned(knobs) != turned(knobs, seed=8)


def test_real_pictures_bring_in_the_forest(turned, built):
    real = built.book.decode(built.book.encode(built.pictures.of("test")[0]))
    apart = turned({"top_p": (1.0,)}, real=real)["top_p"][0]["real_vs_generated_auc"]
    assert apart["unit"] == "area" and apart["n"] == len(real) + len(LABELS)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [({"warmth": (1.0,)}, "'warmth' is none of"), ({"top_p": (1.0, 1.5)}, "top_p: must be")],
)
def test_what_cannot_be_turned_is_refused_before_anything_is_drawn(
    turned, monkeypatch, knobs, said
):
    monkeypatch.setattr("seqlm.lab.sampling_study.draw", None)
    with pytest.raises(ConfigError, match=said):
        turned({"temperature": (1.0,), **knobs})


@pytest.mark.parametrize("labels", [[0, 1, 1], []])
def test_a_class_drawn_once_is_refused(turned, monkeypatch, labels):
    monkeypatch.setattr("seqlm.lab.sampling_study.draw", None)
    with pytest.raises(DataError, match="every class at least twice"):
        turned({"temperature": (1.0,)}, labels)
