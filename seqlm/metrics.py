"""What is measured, each with its definition, its unit, its n and its interval.

Every sentence is scored token by token, in one table (`TokenScores`), and every number about
tokens is a mean over rows of that table. So padding cannot be counted (it is never in the table),
batches cannot be averaged (there are no batches in it), and a floor is measured by the same code
as the model it stands under.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch.nn.functional import log_softmax

from seqlm.errors import DataError
from seqlm.estimates import Estimate
from seqlm.layout import KIND_CLASS, KIND_CODE, KIND_STRUCTURAL

TOKENS_A_BATCH = 16_384
LOGITS_A_BATCH = 2**24  # as float32 64 MB, however long the rows and however large the vocabulary
RESAMPLES = 2_000
RESAMPLED_AT_ONCE = 2**22  # numbers; without a limit 14,000 images would need gigabytes
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class TokenScores:
    """One line a predicted token, over a whole split. All arrays are (M,).

    Attributes:
        row: which sentence the token stands in.
        position: where in the sentence, counted from 0; the first token is never predicted.
        target: its id.
        nll: -ln p(token | all before it), in nats.
        rank: how many other tokens came before it in the model's order; 0 means that its first
            guess was right.
        n_rows: sentences in the split.
    """

    row: np.ndarray
    position: np.ndarray
    target: np.ndarray
    nll: np.ndarray
    rank: np.ndarray
    n_rows: int

    def where(self, mask: np.ndarray) -> "TokenScores":
        """Only the tokens that `mask` (M,) bool keeps."""
        columns = (self.row, self.position, self.target, self.nll, self.rank)
        return TokenScores(*(column[mask] for column in columns), self.n_rows)

    def of_kind(self, kinds: np.ndarray, *wanted: int) -> "TokenScores":
        """Only tokens of the `wanted` kinds; `kinds` (V,) comes from `layout.token_kinds`."""
        return self.where(np.isin(kinds[self.target], wanted))


def batches(
    rows: Sequence[Sequence[int]], batch_size: int | None = None, *, vocab_size: int = 1
) -> list[np.ndarray]:
    """Indices of `rows`, grouped so that rows of like length share a batch.

    Unless `batch_size` is given, the longer the rows and the larger the vocabulary, the fewer
    share one, and never fewer than one. Raises DataError when there is no row, or
    one of fewer than two tokens.
    """
    if not len(rows) or min(map(len, rows)) < 2:
        raise DataError("there is nothing to score: no rows, or a row of fewer than two tokens")
    order = np.argsort([len(row) for row in rows], kind="stable")
    longest = max(map(len, rows))
    size = batch_size or max(1, min(TOKENS_A_BATCH, LOGITS_A_BATCH // vocab_size) // longest)
    return [order[start : start + size] for start in range(0, len(order), size)]


def pad(rows: Sequence[Sequence[int]], fill: int = 0) -> torch.Tensor:
    """Rows of ids -> (B, T) int64, filled up on the right.

    On the right nothing real can see the filling: attention is causal. So no mask is needed.
    """
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


@torch.inference_mode()
def score_tokens(
    model, rows: Sequence[Sequence[int]], batch_size: int | None = None
) -> TokenScores:
    """Let a causal language model predict every token of every row but the first.

    `rows` are lists of ids of any lengths. The result does not depend on `batch_size` nor on how
    rows are padded, beyond rounding. A tie counts against the model: one that holds all tokens
    equally likely (or whose logits are not numbers) has guessed nothing right.
    """
    was_training = model.training
    model.eval()
    parts: list[TokenScores] = []
    for batch in batches(rows, batch_size, vocab_size=model.config.vocab_size):
        input_ids = pad([rows[i] for i in batch]).to(model.device)  # (B, T)
        logits = model(input_ids, use_cache=False).logits[:, :-1].float()  # (B, T-1, V)
        labels = input_ids[:, 1:]  # (B, T-1)
        log_probs = log_softmax(logits, dim=-1)
        of_label = log_probs.gather(-1, labels[..., None])  # (B, T-1, 1)
        rank = (~(log_probs < of_label)).sum(-1) - 1  # the label itself is not before itself
        lengths = torch.tensor([len(rows[i]) for i in batch], device=model.device)
        place = torch.arange(1, input_ids.shape[1], device=model.device).expand_as(labels)
        real = place < lengths[:, None]  # (B, T-1)
        row = torch.as_tensor(batch, device=model.device)[:, None].expand_as(labels)
        columns = (row, place, labels, -of_label[..., 0].double(), rank)
        parts.append(TokenScores(*(c[real].cpu().numpy() for c in columns), len(rows)))
    model.train(was_training)
    return _joined(parts)


def _joined(parts: Sequence[TokenScores]) -> TokenScores:
    names = ("row", "position", "target", "nll", "rank")
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    order = np.lexsort((columns[1], columns[0]))
    return TokenScores(*(column[order] for column in columns), parts[0].n_rows)


def bootstrap_interval(statistic, samples: tuple[np.ndarray, ...]) -> tuple[float, float]:
    """BCa bootstrap over the first axis of `samples`, resampled together.

    Source: B. Efron, Better Bootstrap Confidence Intervals, JASA 82 (1987). Where every image
    gives the same value there is nothing to resample, and the interval is that value. A single
    image has no interval: its ends are infinite.
    """
    value = float(statistic(*samples))
    if len(samples[0]) < 2:
        return float("-inf"), float("inf")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            samples,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=max(1, RESAMPLED_AT_ONCE // len(samples[0])),
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
    if not np.isfinite([found.low, found.high]).all():
        return value, value
    return float(found.low), float(found.high)


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _owners(scores: TokenScores, images: np.ndarray | None) -> np.ndarray:
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
    owner = _owners(scores, images)
    counts = np.bincount(owner).astype(float)  # (images,)
    sums = np.bincount(owner, weights=values)
    low, high = bootstrap_interval(_ratio, (sums, counts))
    return Estimate(float(_ratio(sums, counts)), low, high, len(counts), unit)


def paired_ratio(
    ours: TokenScores, theirs: TokenScores, images: np.ndarray | None = None
) -> Estimate:
    """Our summed NLL over theirs, on the very same tokens; both resampled by the same images.

    `images` as in `mean_over_tokens`. Pairing takes out what makes an image hard for everyone, so
    the interval is far narrower than those of the two NLLs would suggest. Raises DataError when
    the tokens are not the same.
    """
    same = np.array_equal(ours.row, theirs.row) and np.array_equal(ours.target, theirs.target)
    if not same or not len(ours.nll):
        raise DataError(
            "the two models were not scored on the same tokens, so they cannot be paired"
        )
    owner = _owners(ours, images)
    mine = np.bincount(owner, weights=ours.nll)
    other = np.bincount(owner, weights=theirs.nll)
    low, high = bootstrap_interval(_ratio, (mine, other))
    return Estimate(float(_ratio(mine, other)), low, high, len(mine), "ratio")


def nll(scores: TokenScores, images: np.ndarray | None = None) -> Estimate:
    """Negative log-likelihood: -(1/M) sum of ln p(token | before), in nats a token."""
    return mean_over_tokens(scores, scores.nll, "nats a token", images)


def perplexity(nll_estimate: Estimate) -> Estimate:
    """exp(NLL): how many equally likely tokens the model is, on average, undecided among."""
    return nll_estimate.map(np.exp, "perplexity")


def top_k_accuracy(scores: TokenScores, k: int, images: np.ndarray | None = None) -> Estimate:
    """Share of tokens that are among the model's `k` likeliest.

    Where every image has but one such token (the class, say) the interval is Wilson's.
    """
    if len(scores.row) and np.bincount(_owners(scores, images)).max() == 1:
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
    low, high = bootstrap_interval(_ratio, (sums, counts))
    return Estimate(float(_ratio(sums, counts)), low, high, len(counts), "bits an image")


def proportion(hits: np.ndarray) -> Estimate:
    """Share of `hits` (N,) bool that are true, with Wilson's interval.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference,
    JASA 22 (1927).
    """
    hits = np.asarray(hits, dtype=bool)
    if not len(hits):
        raise DataError("a share of nothing is not a number: no cases were given")
    found = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(CONFIDENCE, "wilson")
    return Estimate(float(hits.mean()), float(found.low), float(found.high), len(hits), "share")


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
