"""Measure what fine-tuning gains on new rows and loses on old ones.

Both models are measured on the same tokens and rows. So the difference is paired, and its interval
is far narrower than those of the two numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seqlm.data.corpus import Corpus
from seqlm.data.tokens import KIND_CODE
from seqlm.evaluation.estimates import as_estimate, proportion
from seqlm.evaluation.metrics import nll
from seqlm.evaluation.scores import TokenScores, class_probabilities, score_tokens
from seqlm.evaluation.significance import mcnemar, paired_difference
from seqlm.models.gpt2 import is_classifier, load_model
from seqlm.models.resize import grow_embedding
from seqlm.training.measure import evaluation_split

MEASURES = {"code_nll": "NLL per code, nats", "accuracy": "accuracy"}


@dataclass(frozen=True, eq=False)
class SplitScores:
    """What a model made of one split."""

    codes: TokenScores | None  # in the first layout there is; None for a classifier
    sources: np.ndarray | None  # of each row, (rows,): intervals resample them
    right: np.ndarray | None  # which labelled rows were classified correctly, (N,) bool


def score_split(model, corpus: Corpus, split: str = "test") -> SplitScores:
    """Score a language model, or a classifier, on a split of `corpus`, which must not be empty."""
    codes = sources = right = None
    if not is_classifier(model):
        layout = next(
            name for name in ("read", "draw", "other") if len(corpus.records(split, name))
        )
        scores = score_tokens(model, corpus.rows(split, layout))
        codes, sources = scores.of_kind(corpus.kinds, KIND_CODE), corpus.sources(split, layout)
    if len(corpus.labelled(split)) and (corpus.class_ids or is_classifier(model)):
        prompts, labels = corpus.to_classify(split)
        right = class_probabilities(model, prompts, corpus.class_ids).argmax(1) == labels
    return SplitScores(codes, sources, right)


def measure_split(scores: SplitScores) -> dict[str, dict]:
    """ "code_nll" and "accuracy" of one model, each where it can be measured, as Estimates."""
    measured = {}
    if scores.codes is not None:
        measured["code_nll"] = nll(scores.codes, scores.sources).to_json()
    if scores.right is not None:
        measured["accuracy"] = proportion(scores.right).to_json()
    return measured


def measure_change(before: SplitScores, after: SplitScores) -> dict[str, dict]:
    """Before, after and paired difference, as Estimates, of what both models can be measured on."""
    one, other = measure_split(before), measure_split(after)
    differences, both = {}, one.keys() & other.keys()
    if "code_nll" in both:
        differences["code_nll"] = paired_difference(after.codes, before.codes, after.sources)
    if "accuracy" in both:
        differences["accuracy"] = mcnemar(after.right, before.right).difference
    return {
        key: {"before": one[key], "after": other[key], "difference": difference.to_json()}
        for key, difference in differences.items()
    }


def measure_changes(start: Path, directory: Path, new: Corpus, old: Corpus | None) -> dict:
    """Which rows -> `measure_change` from the model in `start` to that in `directory`.

    `new` has the grown vocabulary, `old` that of the starting model.
    """
    before, after = load_model(start), load_model(directory)
    changes, split = {}, evaluation_split(new)
    if old is not None:  # first, while `before` has the vocabulary it was trained with
        old_split, grown = evaluation_split(old), replace(old, vocab=new.vocab)
        changes[f"old rows ({old.path.name}, {old_split})"] = measure_change(
            score_split(before, old, old_split), score_split(after, grown, old_split)
        )
    grow_embedding(before, len(new.vocab))
    changed = measure_change(score_split(before, new, split), score_split(after, new, split))
    return {f"new rows ({new.path.name}, {split})": changed, **changes}


def describe_change(change: Mapping, old: bool) -> str:
    """One entry of `measure_change` in a sentence; `old` rows are what may be forgotten."""
    before, after, difference = (as_estimate(change[k]) for k in ("before", "after", "difference"))
    numbers = f"{before.format_value()} before, {after.format_value()} after"
    # Nats are better when they are fewer, shares when they are more.
    gained = difference.sign if difference.unit == "share" else -difference.sign
    verdict = "not distinguishable from no change"
    if gained < 0:
        verdict = "some of it is forgotten" if old else "it has become worse"
    elif gained > 0:
        verdict = "it has become better" + ", too" * old
    return f"{numbers}; difference {difference}: {verdict}"


def change_lines(changes: Mapping[str, Mapping]) -> list[str]:
    """Rows (their name) -> `measure_change`, as lines of text."""
    return [
        f"{rows}, {MEASURES[key]}: {describe_change(change, rows.startswith('old'))}"
        for rows, changed in changes.items()
        for key, change in changed.items()
    ]
