"""Numbers about tokens: what they cost, and how often the model's first guesses were right.

Each is a mean over rows of one table (`scores.TokenScores`), with an interval that resamples
images, because the tokens of one picture hang together.
"""

import numpy as np

from seqlm.data.tokens import KIND_CLASS, KIND_CODE, KIND_STRUCTURAL
from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, bootstrap_interval, proportion
from seqlm.evaluation.scores import TokenScores


def ratio_of_sums(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def owners(scores: TokenScores, images: np.ndarray | None) -> np.ndarray:
    """The image of each token, as a number from 0 up. (M,) int64."""
    owner = scores.row if images is None else np.asarray(images)[scores.row]
    return np.unique(owner, return_inverse=True)[1]


def mean_over_tokens(
    scores: TokenScores, values: np.ndarray, unit: str, images: np.ndarray | None = None
) -> Estimate:
    """sum of `values` (M,) / M, with an interval from resampling images, not tokens.

    Tokens of one picture hang together, so resampling tokens would promise too narrow an interval.
    `images` (n_rows,) says which rows show the same picture; None takes every row for its own.
    """
    if not len(values):
        raise DataError("there are no tokens of this kind in the split, so nothing to average")
    owner = owners(scores, images)
    counts = np.bincount(owner).astype(float)  # (images,)
    sums = np.bincount(owner, weights=values)
    low, high = bootstrap_interval(ratio_of_sums, (sums, counts))
    return Estimate(float(ratio_of_sums(sums, counts)), low, high, len(counts), unit)


def nll(scores: TokenScores, images: np.ndarray | None = None) -> Estimate:
    """Negative log-likelihood: -(1/M) sum of ln p(token | before), in nats per token."""
    return mean_over_tokens(scores, scores.nll, "nats per token", images)


def perplexity(nll_estimate: Estimate) -> Estimate:
    """exp(NLL): how many equally likely tokens the model is, on average, undecided among."""
    return nll_estimate.map(np.exp, "perplexity")


def top_k_accuracy(scores: TokenScores, k: int, images: np.ndarray | None = None) -> Estimate:
    """Share of tokens that are among the model's `k` likeliest.

    Where every image has but one such token (the class, say) the interval is Wilson's.
    """
    if len(scores.row) and np.bincount(owners(scores, images)).max() == 1:
        return proportion(scores.rank < k)
    return mean_over_tokens(scores, (scores.rank < k).astype(float), "share", images)


def bits_per_image(scores: TokenScores, images: np.ndarray | None = None) -> Estimate:
    """What a picture costs: the sum of its tokens' NLL in bits, averaged over rows.

    `images` as in `mean_over_tokens`: the interval comes from resampling images.
    """
    if not len(scores.nll):
        raise DataError("there are no tokens of this kind in the split, so no bits to count")
    rows, inverse = np.unique(scores.row, return_inverse=True)
    bits = np.bincount(inverse, weights=scores.nll) / np.log(2)  # (rows,)
    _, owner = np.unique(rows if images is None else np.asarray(images)[rows], return_inverse=True)
    sums, counts = np.bincount(owner, weights=bits), np.bincount(owner).astype(float)
    low, high = bootstrap_interval(ratio_of_sums, (sums, counts))
    return Estimate(float(ratio_of_sums(sums, counts)), low, high, len(counts), "bits per image")


def measure_tokens(
    scores: TokenScores, kinds: np.ndarray, images: np.ndarray | None = None
) -> dict[str, dict]:
    """Every number about tokens of one split, ready for a metrics file.

    Code tokens are the headline; structural tokens are nearly free, so they would flatter the mean,
    and class tokens are a question of their own. `kinds` (V,) comes from `layout.token_kinds`.
    """
    groups = {
        "code": (KIND_CODE,),
        "class": (KIND_CLASS,),
        "structural": (KIND_STRUCTURAL,),
        "all": (KIND_CODE, KIND_CLASS, KIND_STRUCTURAL),
    }
    measured = {}
    for name, wanted in groups.items():
        chosen = scores.of_kind(kinds, *wanted)
        if not len(chosen.nll):
            continue
        loss = nll(chosen, images)
        measured[name] = {
            "tokens": len(chosen.nll),
            "nll": loss.to_json(),
            "perplexity": perplexity(loss).to_json(),
            "top1": top_k_accuracy(chosen, 1, images).to_json(),
            "top5": top_k_accuracy(chosen, 5, images).to_json(),
        }
    codes = scores.of_kind(kinds, KIND_CODE)
    if not len(codes.nll):
        raise DataError("there are no code tokens in the split, so there is no picture to measure")
    measured["code"]["bits_per_image"] = bits_per_image(codes, images).to_json()
    return measured
