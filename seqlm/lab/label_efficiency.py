"""How many labels does a classifier need, if a language model has looked at the pictures first?

Labels cost work, pictures are cheap. So: hide all labels but a few, and compare a classifier
trained from scratch, one started from a language model, and an SVM that sees the pixels.

Two traps lie here, and both make transfer look better than it is.

The language model of notebook 03 has read ``<CLS_3>`` behind every picture of a three. A
classifier started from it and given "one label a class" has in truth been given all of them. So
the language model used here learns from `without_labels`, in which no class token is left, and
`learning_curve` refuses one that expects a class after ``<CLS>``.

And val holds 180 labelled images: whoever chooses a checkpoint on it has used 190 labels, not
ten. So nothing is chosen in a cell of the curve. Every classifier is trained for the same fixed
number of steps, and the last one is taken. (Rates and steps themselves, the same for every number
of labels, have to come from somewhere: they are settled beforehand, on val.)
"""

from collections.abc import Callable, Hashable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

from seqlm.config import ModelConfig, TrainConfig
from seqlm.data.corpus import Corpus
from seqlm.data.records import Record
from seqlm.data.tokens import CLS, IMG, IMG_END, KIND_CLASS, class_of, layout_of
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.estimates import ENDS, Estimate, proportion
from seqlm.evaluation.scores import score_tokens
from seqlm.lab.label_efficiency_bench import FROM_LM, ROUTES, SCRATCH, Bench, Cell, hash_of
from seqlm.models.gpt2 import load_lm

SIZES = (1, 2, 5, 10, 20, 50, None)

_ASKED = 20  # pictures on which a language model is asked whether it expects a class


def without_labels(corpus: Corpus) -> Corpus:
    """The same pictures in the same splits, with every class taken out: one row a picture.

    Each row reads ``<IMG> codes </IMG> <CLS>`` and stops there. That is just what a classifier is
    given, at the same positions. With an ``<EOS>`` behind it the model would learn to say ``<EOS>``
    at ``<CLS>`` whatever the picture is, at the very place where a classifier is to read the
    picture off, and would be a worse start. A picture that stands in both layouts would be the same
    row twice, and is kept once, so a pass costs half. Rows of neither layout only lose their class
    tokens. The vocabulary stays as it is.
    """
    splits = {}
    for name, records in corpus.splits.items():
        rows = [Record(_unlabelled(r.tokens), None, _place(r), r.line) for r in records]
        once = {(row.source, row.meta.get("copy"), row.tokens): row for row in rows}
        splits[name] = list(once.values())
    return Corpus(corpus.vocab, splits, corpus.max_length)


def _unlabelled(tokens: Sequence[str]) -> tuple[str, ...]:
    bare = tuple(token for token in tokens if class_of(token) is None)
    if layout_of(tokens) == "other":
        return bare
    return (*bare[bare.index(IMG) : bare.index(IMG_END) + 1], CLS)


def _place(record: Record) -> dict:
    """Where the row belongs; whatever else `meta` holds might name the class."""
    return {key: record.meta[key] for key in ("split", "source_id", "copy") if key in record.meta}


def few_labels(corpus: Corpus, n_each: int | None, seed: int) -> list[Record]:
    """Labelled train rows of `n_each` images a class drawn at random, with all their augmented images.

    A copy has its original's label, so copies cost no labels. None keeps all. With the same seed
    the images of a smaller `n_each` are among those of a larger one. Rows that name no source count
    as one image each. Raises DataError when a class has fewer images.
    """
    labelled = corpus.labelled("train")
    if n_each is None:
        return labelled
    if n_each < 1:
        raise ConfigError(f"sizes: {n_each} labelled images a class; ask for 1 or more, or None")
    if not labelled:
        raise DataError("the train split holds no labelled row in the read layout; give some")
    of_class: dict[int, dict[Hashable, None]] = {}
    for place, record in enumerate(labelled):
        of_class.setdefault(record.label, {})[_source(record, place)] = None
    fewest = min(sorted(of_class), key=lambda label: len(of_class[label]))
    if len(of_class[fewest]) < n_each:
        raise DataError(
            f"{n_each} labelled train images a class were asked for, but class {fewest} has only "
            f"{len(of_class[fewest])}; ask for fewer, or for None, which takes all"
        )
    rng = np.random.default_rng([seed, 3])
    kept = set()
    for label in sorted(of_class):
        sources = list(of_class[label])
        kept |= {sources[i] for i in rng.permutation(len(sources))[:n_each]}
    return [record for i, record in enumerate(labelled) if _source(record, i) in kept]


def _source(record: Record, place: int) -> Hashable:
    return ("row", place) if record.source is None else record.source


def check_saw_no_labels(lm_directory: Path, corpus: Corpus) -> None:
    """Raise DataError when this language model expects a class after ``<CLS>``.

    One that never saw a class token gives all of them together next to nothing there.
    """
    if not corpus.class_ids:
        return  # a vocabulary without class tokens has none to learn
    prompts = corpus.to_classify("train")[0][:_ASKED]
    rows = [[*prompt, class_id] for prompt in prompts for class_id in corpus.class_ids]
    scores = score_tokens(load_lm(lm_directory), rows).of_kind(corpus.kinds, KIND_CLASS)
    share = float(np.exp(-scores.nll).sum() / len(prompts))
    if share > 0.5:
        raise DataError(
            f"{lm_directory}: after <CLS> this language model puts {share:.0%} on class tokens, so "
            "it has read labels and few labels would not be few; train one on "
            "transfer.without_labels(corpus)"
        )


def mean_over_seeds(right: np.ndarray) -> Estimate:
    """The share of right answers, `right` (S, N) bool: S trained models on the same N images.

    The interval covers both that other seeds (other labels drawn, other weights) and that other
    images would have come out otherwise. Seeds and images are crossed random effects: the variance
    of the mean is (MS_seeds + MS_images - MS_rest) / SN, never below either of the first two
    alone, and its degrees of freedom are Satterthwaite's, of which five seeds leave few: hence
    Student's t, on the log-odds, so that the ends stay within 0 and 1. (S. Hillis, Statistics in
    Medicine 26, 2007, does so for readers and cases; F. Satterthwaite, Biometrics Bulletin 2,
    1946.) Resampling five seeds instead gives intervals too narrow: in a simulation 95 % ones held
    the truth 86 times in 100, these 92 times. Of one seed, or where all answers are right (or all
    wrong), the variance over seeds is unknown, and the interval is Wilson's over images.
    """
    right = np.asarray(right, dtype=float)
    n_seeds, n = right.shape
    mean = right.mean()
    if n_seeds < 2 or n < 2 or mean in (0.0, 1.0):
        return proportion(right[0])
    of_seed, of_image = right.mean(1), right.mean(0)
    rest = right - of_seed[:, None] - of_image + mean
    free = np.array([n_seeds - 1, n - 1, (n_seeds - 1) * (n - 1)])
    about_mean = ((of_seed - mean) ** 2).sum(), ((of_image - mean) ** 2).sum(), (rest**2).sum()
    parts = about_mean * np.array([n, n_seeds, -1]) / free / right.size
    variance = max(parts.sum(), parts[0], parts[1])
    degrees = variance**2 / (parts**2 / free).sum()
    half = stats.t.ppf(ENDS[1], degrees) * np.sqrt(variance) / (mean * (1 - mean))
    low, high = 1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + np.array([-half, half]))))
    return Estimate(float(mean), float(low), float(high), n, "share")


def learning_curve(
    corpus: Corpus,
    data_directory: Path,
    lm_directory: Path,
    work_dir: Path,
    *,
    size: ModelConfig,
    config: TrainConfig,
    scratch: TrainConfig | None = None,
    sizes: Sequence[int | None] = SIZES,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    routes: Sequence[str] = ROUTES,
    log: Callable[[str], None] = print,
) -> dict:
    """Accuracy on test for every route, number of labelled images a class, and seed.

    Args:
        corpus: labelled sentences of the pictures in `data_directory`.
        data_directory: what `build_dataset` filled; the SVMs take the images from there.
        lm_directory: a language model of `size` that learned from `without_labels(corpus)`.
        work_dir: finished cells of the table are kept here, a small file each, so that a killed
            run goes on where it was. Other settings, rows, code or another language model make a
            cell anew. Trained weights are thrown away.
        size: of both classifiers; of the first, dropout alone is taken from here.
        config: how the classifier started from the language model is trained: `max_steps` steps,
            the same for every number of labels, the last model taken, nothing chosen on val.
            `seed`, `evals` and `patience` are set here.
        scratch: the same for the classifier from scratch; None trains both alike.
        sizes: labelled images a class; None is all there are.
        seeds: each draws other images, other weights and another order; all routes get the same
            images. The SVMs see the originals of these, or the originals and the augmented images.
        routes: some of ROUTES.

    Returns ``{route: {"1" … "all": {"labelled", "runs", "mean", "right"}}}``: labelled images in
    all, an Estimate as JSON a seed (Wilson), their mean (`mean_over_seeds`), and for each seed a
    text of one character a test image, 1 where it was right.

    Raises DataError when a class has too few images, when the language model has read labels, or
    when pictures are missing; ConfigError for settings that would not be a fair comparison.
    """
    sizes, seeds, routes = (list(dict.fromkeys(some)) for some in (sizes, seeds, routes))
    configs = {FROM_LM: config, SCRATCH: scratch or config}
    bench = Bench(corpus, Path(data_directory), Path(lm_directory), Path(work_dir), size, configs)
    bench.check(routes, seeds)
    if FROM_LM in routes:
        check_saw_no_labels(bench.lm_directory, corpus)
    cells = _cells(corpus, sizes, seeds, routes)
    bench.foretell(cells, log)
    found: dict = {route: {} for route in routes}
    for n, route in product(sizes, routes):
        mine = [cell for cell in cells if (cell.route, cell.n_each) == (route, n)]
        right = np.array([bench.right(cell) for cell in mine])  # (S, N)
        mean = mean_over_seeds(right)
        found[route][mine[0].size] = {
            "labelled": mine[0].n_labelled,
            "runs": [proportion(row).to_json() for row in right],
            "mean": mean.to_json(),
            "right": ["".join("01"[int(answer)] for answer in row) for row in right],
        }
        log(f"{mine[0].size} a class · {route}: {mean}{bench.left()}")
    return found


def _cells(corpus: Corpus, sizes, seeds, routes) -> list[Cell]:
    """The whole table; every route is given the very same rows."""
    drawn: dict = {}
    for n, seed in product(sizes, seeds):
        key = n, None if n is None else seed  # all are all, whatever the seed
        if key not in drawn:
            records = few_labels(corpus, n, seed)
            rows = [(r.tokens, r.label, r.source, r.meta.get("copy")) for r in records]
            images = {_source(record, place) for place, record in enumerate(records)}
            drawn[key] = records, len(images), hash_of(rows)
        drawn[n, seed] = drawn[key]
    return [Cell(r, n, seed, *drawn[n, seed]) for n, r, seed in product(sizes, routes, seeds)]
