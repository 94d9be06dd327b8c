"""Metrics of tokens: NLL, perplexity, bits per image, top-k accuracy.

Each is a mean over a table of scores; its interval resamples images, because the tokens of one
image depend on each other.
"""

import numpy as np

from seqlm.data.tokens import KIND_CLASS, KIND_CODE, KIND_STRUCTURAL
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
    """Share of tokens that are among the model's `k` likeliest.

    Where every image has only one such token (the class, say) the interval is Wilson's.
    """
    owner, hits = owners(scores.row, images), scores.rank < k
    if np.bincount(owner).max() == 1:
        return proportion(hits)
    return mean_over_tokens(hits.astype(float), owner, "share")


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
    sums = scores if isinstance(scores, RowSums) else RowSums.of(scores, kinds)
    groups = {
        "code": [KIND_CODE],
        "class": [KIND_CLASS],
        "structural": [KIND_STRUCTURAL],
        "all": [KIND_CODE, KIND_CLASS, KIND_STRUCTURAL],
    }
    measured = {}
    for name, wanted in groups.items():
        columns = (sums.nll, sums.tokens, sums.top1, sums.top5)
        nats, counts, *hits = (column[wanted].sum(axis=0) for column in columns)
        rows = np.flatnonzero(counts)
        if not len(rows):
            continue
        owner, counts = owners(rows, images), counts[rows]
        loss = mean_over_tokens(nats[rows], owner, "nats per token", counts)
        one_each = np.bincount(owner, weights=counts).max() == 1  # as in `top_k_accuracy`
        top1, top5 = (
            proportion(hit[rows])
            if one_each
            else mean_over_tokens(hit[rows], owner, "share", counts)
            for hit in hits
        )
        measured[name] = {
            "tokens": int(counts.sum()),
            "nll": loss.to_json(),
            "perplexity": perplexity(loss).to_json(),
            "top1": top1.to_json(),
            "top5": top5.to_json(),
        }
    if "code" not in measured:
        raise DataError("there are no code tokens in the split, so there is no image to measure")
    rows = np.flatnonzero(sums.tokens[KIND_CODE])
    bits = sums.nll[KIND_CODE][rows] / np.log(2)
    bits = mean_over_tokens(bits, owners(rows, images), "bits per image")
    measured["code"]["bits_per_image"] = bits.to_json()
    return measured
