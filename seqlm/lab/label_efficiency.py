"""Accuracy by number of labels: classifiers from scratch, from a language model, and SVMs.

No label is used that is not counted: the language model reads rows up to `<CLS>`, and every
classifier for a fixed number of steps, because choosing a checkpoint would use the labels of val.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

from seqlm.config import DataConfig, ModelConfig, TrainConfig
from seqlm.data.build import ABOUT, IMAGES, SEQUENCES, load_pictures
from seqlm.data.corpus import Corpus
from seqlm.data.images import LEVELS, augmented_images
from seqlm.data.records import Record
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.classical import classical_models
from seqlm.evaluation.estimates import ENDS, Estimate, proportion
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.gpt2 import load_classifier
from seqlm.training.tasks import train_classifier
from seqlm.utils import code_fingerprint, format_duration, read_json, sha256_of, write_json

SIZES = (1, 2, 5, 10, 20, 50, None)
FROM_LM = "classifier started from the language model"
SCRATCH = "classifier from scratch"
SVM = "RBF-SVM on pixels"
SVM_AUGMENTED = "RBF-SVM on pixels, augmented images too"
CLASSIFIERS = (FROM_LM, SCRATCH, SVM, SVM_AUGMENTED)


def few_labels(corpus: Corpus, n_each: int | None, seed: int) -> list[Record]:
    """Labelled train rows of `n_each` random images per class, with all their augmented images.

    None takes all. With the same seed the images of a smaller `n_each` are among those of a larger
    one. Raises DataError when a class has fewer.
    """
    labelled = corpus.labelled("train")
    if n_each is None:
        return labelled
    of_class: dict[int, dict[str, None]] = {}
    for record in labelled:
        of_class.setdefault(record.label, {})[record.source] = None
    rng = np.random.default_rng([seed, 3])
    chosen = set()
    for label, sources in sorted(of_class.items()):
        if len(sources) < n_each:
            raise DataError(
                f"sizes: {n_each} labelled train images per class, but class {label} has only "
                f"{len(sources)}; take fewer, or None, which takes all"
            )
        order = rng.permutation(len(sources))[:n_each]
        chosen |= {list(sources)[i] for i in order}
    return [record for record in labelled if record.source in chosen]


def mean_over_seeds(correct: np.ndarray) -> Estimate:
    """Mean accuracy of S trained models on the same N images, `correct` (S, N) bool.

    The interval covers other seeds and other images, as crossed random effects: the variance of the
    mean is (MS_seeds + MS_images - MS_rest) / SN, at least that of either alone; Student's t on the
    log-odds has Satterthwaite's degrees of freedom (S. Hillis, Statistics in Medicine 26, 2007; F.
    Satterthwaite, Biometrics Bulletin 2, 1946). With one seed, or constant answers, it is Wilson's.
    """
    correct = np.asarray(correct, dtype=float)
    n_seeds, n = correct.shape
    mean = correct.mean()
    if n_seeds < 2 or n < 2 or mean in (0.0, 1.0):
        return proportion(correct[0])
    of_seed, of_image = correct.mean(1), correct.mean(0)
    rest = correct - of_seed[:, None] - of_image + mean
    free = np.array([n_seeds - 1, n - 1, (n_seeds - 1) * (n - 1)])
    squares = ((of_seed - mean) ** 2).sum(), ((of_image - mean) ** 2).sum(), (rest**2).sum()
    parts = squares * np.array([n, n_seeds, -1]) / free / correct.size
    variance = max(parts.sum(), parts[0], parts[1])
    degrees = variance**2 / (parts**2 / free).sum()
    half = stats.t.ppf(ENDS[1], degrees) * np.sqrt(variance) / (mean * (1 - mean))
    low, high = 1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + np.array([-half, half]))))
    return Estimate(float(mean), float(low), float(high), n, "share")


def learning_curve(
    corpus: Corpus,
    data_directory: Path,
    lm_directory: Path,
    results_path: Path,
    *,
    size: ModelConfig,
    config: TrainConfig,
    scratch: TrainConfig,
    sizes: Sequence[int | None] = SIZES,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    log: Callable[[str], None] = print,
) -> dict:
    """Test accuracy of all `CLASSIFIERS`, for every number of labelled images per class and seed.

    Args:
        corpus: the rows that `build_dataset` wrote to `data_directory`.
        lm_directory: a language model of `size` that was trained on the rows up to `<CLS>`.
        results_path: JSON file of finished results, so that a killed run goes on. It starts anew
            when code, data, settings or the language model change.
        config, scratch: of the classifier from the language model, and of the one from scratch.
        sizes: labelled images per class; None takes all.
        seeds: each draws other images, weights and orders.

    Returns ``{classifier: {"1" … "all": {"labelled", "runs", "mean", "right"}}}``: the number of
    labelled images, an Estimate for each seed, their mean, and for each seed a text with a 1 for
    each test image classified correctly. Raises DataError or ConfigError, before any training.
    """
    configs = {FROM_LM: config, SCRATCH: scratch}
    if any(each.max_steps < 1 or each.precision == "auto" for each in configs.values()):
        raise ConfigError("max_steps, precision: set both, the same for all numbers of labels")
    draws = {(n, seed): few_labels(corpus, n, seed) for n, seed in product(sizes, seeds)}
    images = cache(partial(load_row_images, data_directory))
    training = results_path.parent / "training"
    runs: dict[str, Callable[[], np.ndarray]] = {}
    for (n, seed), name in product(draws, CLASSIFIERS):
        if name in configs:
            few = replace(configs[name], output_dir=training, seed=seed, evals=1, patience=0)
            start = lm_directory if name == FROM_LM else None
            run = partial(_test_classifier, corpus, draws[n, seed], size, few, start)
        else:
            run = partial(_test_svm, corpus, draws[n, seed], images, name == SVM_AUGMENTED)
        runs[_cell(name, n, seed)] = run
    files = [data_directory / name for name in (SEQUENCES, IMAGES, ABOUT)]
    data = sha256_of([*files, lm_directory / "model.safetensors"])
    code = code_fingerprint("seqlm.lab.label_efficiency")
    key = [code, data, *map(asdict, (size, *configs.values()))]
    right = _run_missing(runs, results_path, json.dumps(key, default=str), log)
    curves: dict = {name: {} for name in CLASSIFIERS}
    for name, n in product(CLASSIFIERS, sizes):
        texts = [right[_cell(name, n, seed)] for seed in seeds]
        correct = np.array([[answer == "1" for answer in text] for text in texts])  # (S, N)
        curves[name]["all" if n is None else str(n)] = {
            "labelled": len({record.source for record in draws[n, seeds[0]]}),
            "runs": [proportion(row).to_json() for row in correct],
            "mean": mean_over_seeds(correct).to_json(),
            "right": texts,
        }
    return curves


def _cell(name: str, n: int | None, seed: int) -> str:
    # With all labels an SVM is the same for every seed.
    same = n is None and name in (SVM, SVM_AUGMENTED)
    return f"{name}, labels per class: {n or 'all'}" + f", seed {seed}" * (not same)


def _run_missing(runs: Mapping[str, Callable], path: Path, key: str, log: Callable) -> dict:
    """For each run a text with a 1 for each correct prediction; only what is not stored is run."""
    stored = read_json(path) if path.is_file() else {}
    results = stored["results"] if stored.get("key") == key else {}
    todo = [name for name in runs if name not in results]
    log(f"{len(runs) - len(todo)} of {len(runs)} results are stored")
    started = time.perf_counter()
    for done, name in enumerate(todo, start=1):
        correct = runs[name]()
        results[name] = "".join(np.where(correct, "1", "0"))
        write_json(path, {"key": key, "results": results})
        left = (time.perf_counter() - started) / done * (len(todo) - done)
        log(f"{name}: {correct.mean():.1%} correct, about {format_duration(left)} left")
    return results


def _test_classifier(
    corpus: Corpus, records: list[Record], size: ModelConfig, config: TrainConfig, start
) -> np.ndarray:
    """Train on `records` alone; which test images are classified correctly? (N,) bool."""
    originals = [record for record in records if not record.meta.get("copy")] or records
    splits = {"train": records, "val": originals[:100], "test": []}  # val chooses nothing
    few = Corpus(corpus.vocab, splits, corpus.max_length)
    try:
        anew, quiet = replace(config, resume=False), lambda line: None
        train_classifier(few, size, anew, start, log=quiet, measured=())
        model = load_classifier(config.output_dir / "final_model")
        prompts, labels = corpus.to_classify("test")
        return class_probabilities(model, prompts).argmax(1) == labels
    finally:
        shutil.rmtree(config.output_dir, ignore_errors=True)


def _test_svm(
    corpus: Corpus, records: list[Record], images: Callable[[], dict], augmented: bool
) -> np.ndarray:
    """The same for an SVM on the images of `records`."""
    rows = [record for record in records if augmented or not record.meta.get("copy")]
    tested = corpus.labelled("test")

    def pixels(some: list[Record]) -> np.ndarray:  # (N, H, W)
        return np.array([images()[record.source, record.meta.get("copy", 0)] for record in some])

    svm = classical_models("pixels", pixels(tested)[0].size)["svm"]
    svm.fit(pixels(rows), [record.label for record in rows])
    return svm.predict(pixels(tested)) == [record.label for record in tested]


def load_row_images(directory: Path) -> dict[tuple[str, int], np.ndarray]:
    """(source, copy) -> image (H, W), augmented again exactly as `build_dataset` did."""
    pictures = load_pictures(directory)
    config = DataConfig(**read_json(directory / ABOUT)["config"])
    train = np.flatnonzero(pictures.split == "train")
    copies = augmented_images(pictures.images[train], config, LEVELS[config.source])
    images = {(f"{config.source}-{i:05d}", 0): image for i, image in enumerate(pictures.images)}
    for copy, augmented in enumerate(copies, start=1):
        of_copy = zip(train, augmented, strict=True)
        images |= {(f"{config.source}-{i:05d}", copy): image for i, image in of_copy}
    return images
