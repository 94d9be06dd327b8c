"""Measure a trained model, and the baselines it has to beat, on one split."""

from functools import partial

import numpy as np

from seqlm.data.corpus import Corpus
from seqlm.data.table import LAYOUTS, Ids
from seqlm.data.tokens import KIND_CODE, UNK
from seqlm.errors import DataError
from seqlm.evaluation.classical import bag_of_codes, fit_classical_models
from seqlm.evaluation.classification import measure_classes
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.metrics import measure_tokens
from seqlm.evaluation.ngrams import fit_ngrams
from seqlm.evaluation.scores import RowSums, class_probabilities, score_tokens, sum_scores
from seqlm.evaluation.significance import mcnemar, ratio_of_rows

BASELINE_ROWS = 5_000  # what an SVM learns from in seconds; its time grows with the square
NGRAM_TOKENS = 2**22  # what the n-gram baselines count; of more rows they see so many at random
CLASS_BASELINES = {
    "dummy": "always the commonest class",
    "logistic": "logistic regression on counts of codes",
    "svm": "RBF-SVM on counts of codes",
    "bayes": "naive Bayes on counts of codes",
}


def evaluation_split(corpus: Corpus) -> str:
    """test; or val where there are no test rows, though val also chose the checkpoint."""
    return "test" if corpus.splits["test"] else "val"


def check_measurable(corpus: Corpus, classifies: bool, train: bool = True) -> None:
    """Raise DataError, before training, for rows on which its end could measure nothing.

    Without `train` the train split is not looked at.
    """
    for split in dict.fromkeys([*["train"] * train, "val", evaluation_split(corpus)]):
        if classifies:
            corpus.to_classify(split)
            continue
        for layout in LAYOUTS:
            rows = corpus.records(split, layout)
            coded = ((corpus.kinds[row[1:]] == KIND_CODE).any() for row in rows.ids())
            if len(rows) and not any(coded):
                raise DataError(
                    f"{corpus.path}: none of the {len(rows):,} rows of {split} in the layout "
                    f"{layout!r} (the first is line {rows.column('line')[0]}) holds a code token, "
                    "so there is nothing to measure; add the codes, or remove these rows"
                )


def evaluate_lm(model, corpus: Corpus, split: str = "test", baselines: bool = True) -> dict:
    """Measure a language model on one split, and the n-gram baselines on the same rows.

    Returns `measure_tokens` of each layout in the split; for the first of them also the baselines,
    the best of them, and how far below it the model comes. The baselines learn from the train rows
    and are tuned for codes. Intervals resample sources. Raises DataError when the split is empty.
    """
    if not len(corpus.splits[split]):
        other = "val" if split == "test" else "test"
        raise DataError(
            f"the {split} split is empty; use --split {other}, or mark some rows as {split}"
        )
    present = [name for name in ("read", "draw", "other") if len(corpus.records(split, name))]
    model_scores = partial(score_tokens, model)
    sums = {n: sum_scores(model_scores, corpus.rows(split, n), corpus.kinds) for n in present}
    values = {
        name: measure_tokens(sums[name], corpus.kinds, corpus.sources(split, name))
        for name in present
    }
    codes = sum(measured["code"]["tokens"] for measured in values.values())
    values |= _left_out(corpus, split, codes)
    if baselines:
        first = present[0]
        values["layout_compared"] = first
        values |= _against_baselines(sums[first], corpus, split, first)
    return values


def _left_out(corpus: Corpus, split: str, codes: int | None = None, n_classes: int = 0) -> dict:
    """What the numbers of a split do not count, a sentence each, as "left_out"; {} for nothing.

    `codes` tokens of a language model were measured, or `n_classes` classes of a classifier.
    """
    rows, sentences = corpus.records(split), list(corpus.left_out)
    of_rows = f"of the {len(rows):,} rows of {split}"
    cut = int(rows.column("cut").sum())
    if cut:
        sentences.append(f"the first codes of {cut:,} {of_rows}: {corpus.max_length} tokens fit")
    unknown = 0 if codes is None else rows.ids().count(corpus.vocab[UNK])
    if unknown:
        of_codes = f"{unknown:,} of {unknown + codes:,} codes of {split}"
        why = f"which the vocabulary lacks ({UNK}); numbers of all tokens count them"
        sentences.append(f"{of_codes}, {why}")
    labelled = corpus.labelled(split)
    if n_classes and len(labelled) < len(rows):
        why = "without a label, or not in the read layout"
        sentences.append(f"{len(rows) - len(labelled):,} {of_rows}, {why}")
    absent = n_classes and n_classes - len(np.unique(labelled.column("label")))
    if absent:
        sentences.append(f"{absent:,} of {n_classes:,} classes, without a row, from macro F1")
    return {"left_out": sentences} if sentences else {}


def _against_baselines(ours: RowSums, corpus: Corpus, split: str, layout: str) -> dict:
    """The baselines on the rows of the model's sums, and how they compare."""
    train, val = (_some_rows(corpus.rows(name)) for name in ("train", "val"))
    baselines = fit_ngrams(train, val, len(corpus.vocab), corpus.kinds)
    rows, sources = corpus.rows(split, layout), corpus.sources(split, layout)
    sums = {
        name: sum_scores(partial(b.score, rng=np.random.default_rng(0)), rows, corpus.kinds)
        for name, b in baselines.items()
    }
    measured = {name: measure_tokens(sums[name], corpus.kinds, sources) for name in sums}
    best = min(sums, key=lambda name: measured[name]["code"]["nll"]["value"])
    at = np.flatnonzero(ours.tokens[KIND_CODE])
    pair = (s.nll[KIND_CODE][at] for s in (ours, sums[best]))
    ratio = ratio_of_rows(at, *pair, sources)
    share = Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low, ratio.n, "share")
    n_train = len(corpus.splits["train"])
    fewer = f" Counted on {len(train):,} of the train rows." if len(train) < n_train else ""
    return {
        "baselines": {
            name: {"description": baseline.description + fewer, "code": measured[name]["code"]}
            for name, baseline in baselines.items()
        },
        "best_baseline": best,
        "below_best_baseline": share.to_json(),
        "by_position": {
            "model": _by_position(ours),
            "baselines": {name: _by_position(of_baseline) for name, of_baseline in sums.items()},
        },
    }


def _some_rows(rows: Ids) -> Ids:
    """At most so many random rows that they hold NGRAM_TOKENS: counts take memory, too."""
    if rows.lengths.sum() <= NGRAM_TOKENS:
        return rows
    drawn = np.random.default_rng(0).permutation(len(rows))
    return rows[np.sort(drawn[np.cumsum(rows.lengths[drawn]) <= NGRAM_TOKENS])]


def _by_position(sums: RowSums) -> list[float]:
    """Mean NLL of the first code, the second, … in nats."""
    there = sums.tokens_at > 0
    return (sums.nll_at[there] / sums.tokens_at[there]).tolist()


def evaluate_classifier(model, corpus: Corpus, split: str = "test") -> dict:
    """Measure a classifier on one split, and baselines that see how often each code occurs."""
    prompts, labels = corpus.to_classify(split)
    probabilities = class_probabilities(model, prompts)  # (N, C)
    n_classes = probabilities.shape[1]
    guesses = probabilities.argmax(1)
    values = measure_classes(labels, guesses, n_classes, probabilities)
    values |= _left_out(corpus, split, n_classes=n_classes)
    return values | {"baselines": measure_class_baselines(corpus, split, n_classes, guesses)}


def measure_class_baselines(
    corpus: Corpus, split: str, n_classes: int, guesses: np.ndarray | None = None
) -> dict[str, dict]:
    """Name -> `measure_classes` on `split` of classical classifiers that learn from the train rows.

    They see how often each code comes, and no order. Of many train rows they see `BASELINE_ROWS` at
    random, and the name says so. There are none, {}, where the train rows are of one class.
    With `guesses` (N,), a classifier's, each has "accuracy_gap": that one's accuracy minus its own.
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
    parts = []
    for start in range(0, len(test_prompts), BASELINE_ROWS):
        bag = bag_of_codes(test_prompts[start : start + BASELINE_ROWS], corpus.kinds)
        parts.append([baseline.predict(bag) for baseline in fitted.values()])
    measured = {}
    for name, classes in zip(fitted, np.concatenate(parts, axis=1), strict=True):
        values = measured[CLASS_BASELINES[name] + fewer] = measure_classes(
            test_labels, classes, n_classes
        )
        if guesses is not None:
            gap = mcnemar(guesses == test_labels, classes == test_labels).difference
            values["accuracy_gap"] = gap.to_json()
    return measured
