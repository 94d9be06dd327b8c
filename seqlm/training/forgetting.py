"""What fine-tuning gains on the new rows and loses on the old: asking before and after.

Both models answer for the very same tokens and rows, so the difference is paired, and its interval
is far narrower than those of the two numbers it is the difference of.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from seqlm.data.corpus import Corpus
from seqlm.data.tokens import KIND_CODE
from seqlm.evaluation.estimates import as_estimate, proportion
from seqlm.evaluation.metrics import nll
from seqlm.evaluation.scores import (
    TokenScores,
    class_probabilities,
    classifier_probabilities,
    score_tokens,
)
from seqlm.evaluation.significance import mcnemar, paired_difference
from seqlm.evaluation.tables import markdown_table
from seqlm.models.resize import is_classifier
from seqlm.training.tasks import classifier_measure, lm_measure
from seqlm.training.train import Measure

# Of the old rows, what a line of progress has room for.
OF_OLD = ("code_nll", "read_nll", "class_accuracy", "class_nll", "accuracy")
MEASURES = {"code_nll": "NLL of a code, nats", "accuracy": "classes classified correctly"}


def both_measures(corpus: Corpus, old: Corpus | None, classifies: bool = False) -> Measure:
    """What is measured on val at every evaluation; of the old rows with `old_` before its name.

    Returns what `training.train` takes as `measure`: of a model it gives a dict of floats, those of
    `experiment.lm_measure` (or `classifier_measure`) on val of `corpus`, and `OF_OLD` of them on
    val of `old`, under the vocabulary of `corpus`. The old rows are only looked at: which
    checkpoint is best, the new ones decide. Raises DataError for a classifier when val of either
    holds no labelled row in the read layout.
    """
    kind = classifier_measure if classifies else lm_measure
    new = kind(corpus)
    if old is None:
        return new
    before = kind(Corpus(corpus.vocab, old.splits, old.max_length))

    def measure(model) -> dict[str, float]:
        old_values = before(model)
        return new(model) | {f"old_{k}": old_values[k] for k in OF_OLD if k in old_values}

    return measure


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model made of one split.

    Attributes:
        codes: of each code token, in the first layout there is; None for a classifier.
        sources: what each row was made from, (rows,), so that intervals resample that.
        right: of each labelled row, whether its class was named, (N,) bool; None without labels.
    """

    codes: TokenScores | None
    sources: np.ndarray | None
    right: np.ndarray | None


def answers(model, corpus: Corpus, split: str = "test") -> Answers:
    """Ask a language model, or a classifier, about a split of `corpus`, which must not be empty."""
    is_lm = not is_classifier(model)
    codes = sources = right = None
    if is_lm:
        layout = next(name for name in ("read", "draw", "other") if corpus.records(split, name))
        scores = score_tokens(model, corpus.rows(split, layout))
        codes, sources = scores.of_kind(corpus.kinds, KIND_CODE), corpus.sources(split, layout)
    if corpus.labelled(split) and (corpus.class_ids or not is_lm):
        prompts, labels = corpus.to_classify(split)
        if is_lm:
            probabilities = class_probabilities(model, prompts, corpus.class_ids)
        else:
            probabilities = classifier_probabilities(model, prompts)
        right = probabilities.argmax(1) == labels
    return Answers(codes, sources, right)


def standing(found: Answers) -> dict[str, dict]:
    """ "code_nll" and "accuracy" of one model, each where it can be asked for, as Estimates."""
    codes, right = found.codes, found.right
    told = {} if codes is None else {"code_nll": nll(codes, found.sources).to_json()}
    return told if right is None else told | {"accuracy": proportion(right).to_json()}


def compared(a: str, ours: Answers, b: str, theirs: Answers) -> dict:
    """How many nats per code `a` needs more than `b` on the same rows, for a table of comparisons."""
    difference = paired_difference(ours.codes, theirs.codes, ours.sources)
    real = difference.has_interval and not difference.low <= 0 <= difference.high
    return {"a": a, "b": b, "difference": difference.to_json(), "real": bool(real)}


def order_in_words(answered: Mapping[str, Answers], rows: str) -> str:
    """Who needs the fewest nats per code on the same `rows`, and against whom that may be chance.

    `answered` holds the answers of each model by its name, at least two. The numbers are paired
    differences: the lowest minus each of the others, with 95 % intervals.
    """
    best = min(answered, key=lambda name: answered[name].codes.nll.mean())
    found = {
        name: compared(best, answered[best], name, answered[name])
        for name in answered
        if name != best
    }
    gaps = {name: as_estimate(of["difference"]) for name, of in found.items()}
    chance = {name: "" if of["real"] else ", may be chance" for name, of in found.items()}
    told = "; ".join(
        f"{name} {gap.value:z.2f} ({gap.format_interval()}{chance[name]})"
        for name, gap in gaps.items()
    )
    alike = [name for name, of in found.items() if not of["real"]]
    lead = f"{best} needs the fewest nats per code"
    if alike:
        lead = f"no order is certain at the top: {' and '.join([best, *alike])} lie within chance"
    n = next(iter(gaps.values())).n
    return f"On {rows}, of {len(answered)} models, {lead}. {best} minus {told}; n = {n:,}."


def course(record: Mapping) -> dict[str, list]:
    """How a run of `both_measures` went: "step", and nats per code of "new" and "old" val rows."""
    lines = [{"step": 0, **record["initial"]}, *record["evals"]]
    names = {"step": "step", "new": "read_nll", "old": "old_read_nll"}
    return {name: [line[key] for line in lines] for name, key in names.items()}


def change(before: Answers, after: Answers) -> dict[str, dict]:
    """After minus before, on the very same tokens and rows: paired differences with intervals.

    Returns "code_nll" and "accuracy", each where both models can be asked for it, with "before",
    "after" and "difference" as Estimates for a metrics file.
    """
    found = {}
    if before.codes is not None and after.codes is not None:
        found["code_nll"] = {
            "before": nll(before.codes, before.sources).to_json(),
            "after": nll(after.codes, after.sources).to_json(),
            "difference": paired_difference(after.codes, before.codes, after.sources).to_json(),
        }
    if before.right is not None and after.right is not None:
        found["accuracy"] = {
            "before": proportion(before.right).to_json(),
            "after": proportion(after.right).to_json(),
            "difference": mcnemar(after.right, before.right).difference.to_json(),
        }
    return found


def verdict(found: Mapping, old: bool) -> str:
    """One of the entries of `change`, in a sentence; `old` rows are what may be forgotten."""
    before, after, difference = (as_estimate(found[k]) for k in ("before", "after", "difference"))
    told = f"{before.format_value()} before, {after.format_value()} after"
    # Nats are better when they are fewer, shares when they are more.
    low, high = difference.low, difference.high
    better, worse = (low > 0, high < 0) if difference.unit == "share" else (high < 0, low > 0)
    if worse:
        says = "some of it is forgotten" if old else "it has become worse"
    elif better:
        says = "it has become better, too" if old else "it has become better"
    else:
        says = "no change that could not be chance"
    return f"{told}; difference {difference}: {says}"


def change_lines(changes: Mapping[str, Mapping]) -> list[str]:
    """Rows (their name) -> `change`, as lines for a terminal."""
    return [
        f"{rows}, {MEASURES[key]}: {verdict(found, rows.startswith('old'))}"
        for rows, changed in changes.items()
        for key, found in changed.items()
    ]


def change_table(changes: Mapping[str, Mapping]) -> str:
    """The same as a Markdown table."""
    header = ("Rows", "Metric", "Before", "After", "After − before", "95 % interval", "n")
    lines = []
    for rows, changed in changes.items():
        for key, measured in changed.items():
            before, after, difference = (
                as_estimate(measured[name]) for name in ("before", "after", "difference")
            )
            numbers = (e.format_value() for e in (before, after, difference))
            interval, n = difference.format_interval(), f"{difference.n:,}"
            lines.append((rows, MEASURES[key], *numbers, interval, n))
    return markdown_table(header, lines, "llrrrrr")
