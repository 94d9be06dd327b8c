"""What the ways to choose a token do to drawings: one knob turned at a time, whole grids judged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from sklearn.base import ClassifierMixin

from seqlm.config import SampleConfig
from seqlm.data.codebook import PatchCodebook
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.estimates import proportion
from seqlm.evaluation.image_quality import diversity, real_vs_generated_auc
from seqlm.models.generation import draw

# Each list holds the value that leaves the model as it is: temperature 1, top-k 0, top-p 1,
# guidance 1. So every curve passes through the same point.
KNOBS: dict[str, tuple[float, ...]] = {
    "temperature": (0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5),
    "top_k": (2, 5, 10, 25, 100, 0),
    "top_p": (0.5, 0.7, 0.8, 0.9, 0.95, 1.0),
    "guidance": (1.0, 1.5, 2.0, 3.0, 4.0),
}


def sweep(
    model,
    vocab: dict[str, int],
    book: PatchCodebook,
    judge: ClassifierMixin,
    knobs: Mapping[str, Sequence[float]],
    labels: Sequence[int],
    seed: int,
    real: np.ndarray | None = None,
) -> dict[str, list[dict]]:
    """Judge a whole grid of drawings at every setting of every knob.

    One field of `SampleConfig` is changed at a time; the others stay at temperature 1 and nothing
    else. Every setting draws all of `labels` from the same random numbers, so that neighbouring
    settings differ by the setting and not by luck; none is picked.

    Args:
        judge: says which class a picture shows (`image_quality.train_digit_classifier`); it errs, too.
        knobs: field of SampleConfig -> its settings, such as `KNOBS`.
        labels: (N,) what to draw; every class at least twice, or diversity means nothing.
        seed: of the drawings, and of the forests.
        real: real pictures (M, H, W) through the code book; when given, a random forest also
            tries to tell the drawings from them, which takes longer than the drawing itself.

    Returns for each knob, in the order given, {"setting", "classified_as_asked", "diversity", "real_vs_generated_auc"}:
    the share judged right, `image_quality.diversity`, and the area of `image_quality.real_vs_generated_auc` or
    None; the numbers as Estimates for a metrics file.

    Raises ConfigError for a knob that SampleConfig does not have, or a setting it does not allow,
    and DataError for a class that is drawn once only; both before anything is drawn.
    """
    wanted = np.asarray(labels)
    if not len(wanted) or np.unique(wanted, return_counts=True)[1].min() < 2:
        raise DataError("labels: a sweep draws every class at least twice; repeat the labels")
    ways = {
        knob: [(setting, _way(knob, setting, seed)) for setting in settings]
        for knob, settings in knobs.items()
    }
    found: dict[SampleConfig, dict] = {}  # the model as it is comes once in every knob
    for way in dict.fromkeys(way for settings in ways.values() for _, way in settings):
        codes = draw(model, vocab, wanted.tolist(), book.n_patches, way)
        found[way] = _judged(book.decode(codes), wanted, judge, real, seed)
    return {
        knob: [{"setting": setting, **found[way]} for setting, way in settings]
        for knob, settings in ways.items()
    }


def _way(knob: str, setting: float, seed: int) -> SampleConfig:
    if knob not in KNOBS:
        raise ConfigError(f"knobs: {knob!r} is none of {', '.join(KNOBS)}")
    return replace(SampleConfig(seed=seed), **{knob: setting})


def _judged(drawn: np.ndarray, labels: np.ndarray, judge, real, seed: int) -> dict:
    apart = None if real is None else real_vs_generated_auc(real, drawn, seed).to_json()
    return {
        "classified_as_asked": proportion(judge.predict(drawn) == labels).to_json(),
        "diversity": diversity(drawn, labels).to_json(),
        "real_vs_generated_auc": apart,
    }
