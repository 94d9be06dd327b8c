"""Compare fine-tuned models: validation curves, paired differences, a ranking in a sentence."""

from collections.abc import Mapping

from seqlm.evaluation.significance import paired_difference
from seqlm.training.forgetting import SplitScores


def compare_scores(a: str, ours: SplitScores, b: str, theirs: SplitScores) -> dict:
    """How many nats per code `a` needs more than `b` on the same rows; "real": distinguishable."""
    difference = paired_difference(ours.codes, theirs.codes, ours.sources)
    real = not difference.low <= 0 <= difference.high
    return {"a": a, "b": b, "difference": difference.to_json(), "real": real}


def describe_ranking(scores: Mapping[str, SplitScores], rows: str) -> str:
    """Which model needs the fewest nats per code on the same `rows`, in one sentence.

    `scores` holds at least two models by name. The numbers are paired differences: the lowest minus
    each of the others, with 95 % intervals.
    """
    best = min(scores, key=lambda name: scores[name].codes.nll.mean())
    ours = scores[best]
    gaps = {
        name: paired_difference(ours.codes, theirs.codes, ours.sources)
        for name, theirs in scores.items()
        if name != best
    }
    alike = [name for name, gap in gaps.items() if gap.low <= 0 <= gap.high]
    chance = ", not distinguishable"
    numbers = "; ".join(
        f"{name} {gap.value:z.2f} ({gap.format_interval()}{chance * (name in alike)})"
        for name, gap in gaps.items()
    )
    lead = f"{best} needs the fewest nats per code"
    if alike:
        lead = f"{' and '.join([best, *alike])} are not distinguishable at the top"
    n = next(iter(gaps.values())).n
    return f"On {rows}, of {len(scores)} models, {lead}. {best} minus {numbers}; n = {n:,}."


def validation_curves(record: Mapping) -> dict[str, list]:
    """The read layout's nats per code on "new" and "old" val rows at each "step" of a run."""
    lines = [{"step": 0, **record["initial"]}, *record["evals"]]
    names = {"step": "step", "new": "read_nll", "old": "old_read_nll"}
    return {name: [line[key] for line in lines] for name, key in names.items()}
