"""How sampling settings change generated images: one setting varied at a time."""

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

# Each holds the neutral value, which all curves share: temperature 1, top-k 0, top-p 1, guidance 1.
SWEPT_VALUES: dict[str, tuple[float, ...]] = {
    "temperature": (0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5),
    "top_k": (2, 5, 10, 25, 100, 0),
    "top_p": (0.5, 0.7, 0.8, 0.9, 0.95, 1.0),
    "guidance": (1.0, 1.5, 2.0, 3.0, 4.0),
}


def sweep_sampling(
    model,
    vocab: dict[str, int],
    book: PatchCodebook,
    classifier: ClassifierMixin,
    values: Mapping[str, Sequence[float]],
    labels: Sequence[int],
    seed: int,
    real: np.ndarray | None = None,
) -> dict[str, list[dict]]:
    """Generate `labels` with every value of every sampling setting, and evaluate the images.

    Other settings stay neutral, and every value uses the same random numbers.

    Args:
        values: field of SampleConfig -> its values, such as `SWEPT_VALUES`.
        labels: (N,) classes to generate, each at least twice, because diversity is within a class.
        seed: of the generated images, and of the random forests.
        real: real images (M, H, W) through the codebook; without them there is no AUC.

    Returns for each setting {"setting": the value, "classified_as_asked", "diversity",
    "real_vs_generated_auc"}, Estimates for a metrics file. Raises ConfigError for a setting or
    value that SampleConfig does not allow, and DataError for a class that is generated once only.
    """
    classes = np.asarray(labels)
    if not len(classes) or np.unique(classes, return_counts=True)[1].min() < 2:
        raise DataError("labels: a sweep generates every class at least twice; repeat the labels")
    unknown = values.keys() - SWEPT_VALUES.keys()
    if unknown:
        raise ConfigError(f"values: {unknown.pop()!r} is none of {', '.join(SWEPT_VALUES)}")
    neutral = SampleConfig(seed=seed)
    configs = {
        name: [replace(neutral, **{name: value}) for value in some] for name, some in values.items()
    }
    measured: dict[SampleConfig, dict] = {}
    for config in dict.fromkeys(config for some in configs.values() for config in some):
        images = book.decode(draw(model, vocab, classes.tolist(), book.n_patches, config))
        auc = None if real is None else real_vs_generated_auc(real, images, seed).to_json()
        measured[config] = {
            "classified_as_asked": proportion(classifier.predict(images) == classes).to_json(),
            "diversity": diversity(images, classes).to_json(),
            "real_vs_generated_auc": auc,
        }
    return {
        name: [{"setting": getattr(config, name), **measured[config]} for config in some]
        for name, some in configs.items()
    }
