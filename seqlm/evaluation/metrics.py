"""Metrics of tokens: NLL, perplexity, bits per image, top-k accuracy.

Each is a mean over a table of scores; its interval resamples images, because the tokens of one
image depend on each other.
"""

import numpy as np

from seqlm.data.tokens import KIND_CLASS, KIND_CODE, KIND_STRUCTURAL, KIND_UNKNOWN
from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, bootstrap, proportion
from seqlm.evaluation.scores import RowSums, TokenScores


def ratio_of_sums(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def owners(rows: np.ndarray, images: np.ndarray | None) -> np.ndarray:
    """The image of each of `rows` (M,), numbered from 0. (M,) int64; DataError when M is 0.

    `images` (n_rows,) is the image of every row of the split; with None each row is an image.
    """
    if not len(rows):
        raise DataError("there are no tokens of this kind in the split, so there is no mean")
    return np.unique(rows if images is None else np.asarray(images)[rows], return_inverse=True)[1]


def mean_over_tokens(
    values: np.ndarray, owner: np.ndarray, unit: str, counts: np.ndarray | None = None
) -> Estimate:
    """sum of `values` (M,) / M, with an interval that resamples their images, `owner` (M,).

    With `counts` (M,) each value is already the sum over so many tokens.
    """
    sums, n = np.bincount(owner, weights=values), np.bincount(owner, weights=counts).astype(float)
    return bootstrap(ratio_of_sums, (sums, n), unit)  # sums, n: (images,)


def nll(scores: TokenScores, images: np.ndarray | None = None) -> Estimate:
    """Negative log-likelihood: -(1/M) sum of ln p(token | before), in nats per token."""
    return mean_over_tokens(scores.nll, owners(scores.row, images), "nats per token")


def perplexity(nll_estimate: Estimate) -> Estimate:
    """exp(NLL): among how many equally likely tokens the model is, on average, undecided."""
    return nll_estimate.map(np.exp, "perplexity")


def top_k_accuracy(scores: TokenScores, k: int, images: np.ndarray | None = None) -> Estimate:
    """Share of tokens that are among the model's `k` likeliest."""
    return _share(scores.rank < k, owners(scores.row, images))


def _share(hits: np.ndarray, owner: np.ndarray, counts: np.ndarray | None = None) -> Estimate:
    # Where every image has only one such token (the class, say) the interval is Wilson's.
    if np.bincount(owner, weights=counts).max() == 1:
        return proportion(hits)
    return mean_over_tokens(hits, owner, "share", counts)


def bits_per_image(scores: TokenScores, images: np.ndarray | None = None) -> Estimate:
    """The sum of an image's NLL in bits, averaged over rows; the interval resamples images."""
    rows, inverse = np.unique(scores.row, return_inverse=True)
    bits = np.bincount(inverse, weights=scores.nll) / np.log(2)  # (rows,)
    return mean_over_tokens(bits, owners(rows, images), "bits per image")


def measure_tokens(
    scores: TokenScores | RowSums, kinds: np.ndarray, images: np.ndarray | None = None
) -> dict[str, dict]:
    """Every metric of the tokens of one split, ready for a metrics file.

    Code tokens are the headline; structural tokens are nearly free, so they would flatter the mean,
    and class tokens are measured apart. `kinds` (V,) comes from `tokens.token_kinds`.
    """
    sums = scores
    if isinstance(scores, TokenScores):
        sums = RowSums(scores.n_rows, 1 + scores.position.max(initial=0)).add(scores, kinds)
    if not sums.tokens[KIND_CODE].any():
        raise DataError("there are no code tokens in the split, so there is no image to measure")
    groups = {
        "code": [KIND_CODE],
        "class": [KIND_CLASS],
        "structural": [KIND_STRUCTURAL],
        "all": [KIND_CODE, KIND_CLASS, KIND_STRUCTURAL, KIND_UNKNOWN],
    }
    measured = {}
    for name, wanted in groups.items():
        rows = np.flatnonzero(sums.tokens[wanted].sum(axis=0))
        if not len(rows):
            continue
        owner = owners(rows, images)
        columns = (sums.tokens, sums.nll, sums.top1, sums.top5)
        counts, nats, top1, top5 = (column[wanted].sum(axis=0)[rows] for column in columns)
        loss = mean_over_tokens(nats, owner, "nats per token", counts)
        measures = {
            "nll": loss,
            "perplexity": perplexity(loss),
            "top1": _share(top1, owner, counts),
            "top5": _share(top5, owner, counts),
        }
        if name == "code":
            measures["bits_per_image"] = mean_over_tokens(nats / np.log(2), owner, "bits per image")
        measured[name] = {"tokens": int(counts.sum())}
        measured[name] |= {key: estimate.to_json() for key, estimate in measures.items()}
    return measured
