"""Measure a trained model, and the baselines it has to beat, on one split."""

import numpy as np

from seqlm.data.corpus import Corpus
from seqlm.data.tokens import KIND_CODE
from seqlm.errors import DataError
from seqlm.evaluation.classical import bag_of_codes, fit_classical_models
from seqlm.evaluation.classification import measure_classes
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.metrics import measure_tokens
from seqlm.evaluation.ngrams import NgramModel, fit_ngrams
from seqlm.evaluation.scores import TokenScores, classifier_probabilities, score_tokens
from seqlm.evaluation.significance import paired_ratio

BASELINE_ROWS = 5_000  # what an SVM learns from in seconds; its time grows with the square
CLASS_BASELINES = {
    "dummy": "always the commonest class",
    "logistic": "logistic regression on counts of codes",
    "svm": "RBF-SVM on counts of codes",
    "bayes": "naive Bayes on counts of codes",
}


def evaluation_split(corpus: Corpus) -> str:
    """test; or val where there are no test rows, though val also chose the checkpoint."""
    return "test" if corpus.splits["test"] else "val"


def evaluate_lm(model, corpus: Corpus, split: str = "test", baselines: bool = True) -> dict:
    """Measure a language model on one split, and the n-gram baselines on the same rows.

    Returns `measure_tokens` of each layout in the split; for the first of them also the baselines,
    the best of them, and how far below it the model comes. The baselines learn from the train rows
    and are tuned for codes. Intervals resample sources. Raises DataError when the split is empty.
    """
    if not corpus.splits[split]:
        other = "val" if split == "test" else "test"
        raise DataError(
            f"the {split} split is empty; use --split {other}, or mark some rows as {split}"
        )
    present = [name for name in ("read", "draw", "other") if corpus.records(split, name)]
    scores = {name: score_tokens(model, corpus.rows(split, name)) for name in present}
    values = {
        name: measure_tokens(scores[name], corpus.kinds, corpus.sources(split, name))
        for name in present
    }
    if baselines:
        fitted = fit_ngrams(
            corpus.rows("train"), corpus.rows("val"), len(corpus.vocab), corpus.kinds
        )
        first = present[0]
        values["layout_compared"] = first
        values |= _against_baselines(scores[first], fitted, corpus, split, first)
    return values


def _against_baselines(
    scores: TokenScores, baselines: dict[str, NgramModel], corpus: Corpus, split: str, layout: str
) -> dict:
    """The baselines on the rows of the model's `scores`, and how they compare."""
    rows, sources = corpus.rows(split, layout), corpus.sources(split, layout)
    codes = {
        name: baseline.score(rows).of_kind(corpus.kinds, KIND_CODE)
        for name, baseline in baselines.items()
    }
    ours = scores.of_kind(corpus.kinds, KIND_CODE)
    best = min(codes, key=lambda name: codes[name].nll.mean())
    ratio = paired_ratio(ours, codes[best], sources)
    share = Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low, ratio.n, "share")
    measured = {name: measure_tokens(codes[name], corpus.kinds, sources) for name in baselines}
    return {
        "baselines": {
            name: {"description": baseline.description, "code": measured[name]["code"]}
            for name, baseline in baselines.items()
        },
        "best_baseline": best,
        "below_best_baseline": share.to_json(),
        "by_position": {
            "model": _by_position(ours),
            "baselines": {name: _by_position(scored) for name, scored in codes.items()},
        },
    }


def _by_position(codes: TokenScores) -> list[float]:
    """Mean NLL of the first code, the second, … in nats."""
    _, place = np.unique(codes.position, return_inverse=True)
    return (np.bincount(place, weights=codes.nll) / np.bincount(place)).tolist()


def evaluate_classifier(model, corpus: Corpus, split: str = "test") -> dict:
    """Measure a classifier on one split, and baselines that see how often each code occurs."""
    prompts, labels = corpus.to_classify(split)
    probabilities = classifier_probabilities(model, prompts)  # (N, C)
    n_classes = probabilities.shape[1]
    values = measure_classes(labels, probabilities.argmax(1), n_classes, probabilities)
    return values | {"baselines": measure_class_baselines(corpus, split, n_classes)}


def measure_class_baselines(corpus: Corpus, split: str, n_classes: int) -> dict[str, dict]:
    """Name -> `measure_classes` on `split` of classical classifiers that learn from the train rows.

    They see how often each code comes, and no order. Of many train rows they see `BASELINE_ROWS` at
    random, and the name says so. There are none, {}, where the train rows are of one class.
    """
    prompts, labels = corpus.to_classify("train")
    one_per_class = np.unique(labels, return_index=True)[1]  # no class may be lost by the draw
    if len(one_per_class) < 2:  # a fine-tuned classifier has the others from replayed rows
        return {}
    drawn = np.random.default_rng(0).permutation(len(prompts))
    chosen = list(dict.fromkeys([*one_per_class, *drawn]))[:BASELINE_ROWS]
    rows = [prompts[i] for i in chosen]
    fitted = fit_classical_models(bag_of_codes(rows, corpus.kinds), labels[chosen], kind="bag")
    fewer = f" ({BASELINE_ROWS:,} of the train rows)" if len(prompts) > BASELINE_ROWS else ""
    test_prompts, test_labels = corpus.to_classify(split)
    bag = bag_of_codes(test_prompts, corpus.kinds)
    return {
        CLASS_BASELINES[name] + fewer: measure_classes(
            test_labels, baseline.predict(bag), n_classes
        )
        for name, baseline in fitted.items()
    }
