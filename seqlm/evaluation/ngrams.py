"""Baselines that only count tokens: unigram, bigram, trigram, by position, and mixtures.

They are fitted on the GPT's training rows and make the same table of scores, so the same metrics
measure both. Like the GPT, a baseline sees only the tokens before the one to be predicted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from seqlm.data.table import Ids, row_lengths
from seqlm.data.tokens import KIND_CODE
from seqlm.errors import DataError
from seqlm.evaluation.scores import Rows, TokenScores

CHUNK = 4_096  # tokens at a time: their distributions over 516 tokens are 17 MB
EM_STEPS = 500
EM_TOLERANCE = 1e-10  # nats per token; EM stops when a step gains less

# Baseline -> the parts that it mixes and what it knows, weakest first. Weights are tuned on val.
RECIPES = {
    "uniform": (("uniform",), "Every token of the vocabulary is equally likely."),
    "unigram": (("unigram",), "How often each token comes in training, whatever stands before it."),
    "position": (
        ("position",),
        "How often each token comes at this place of sentences that begin alike.",
    ),
    "bigram": (
        ("uniform", "unigram", "bigram"),
        "What followed the last token in training, mixed with plain frequencies.",
    ),
    "trigram": (
        ("uniform", "unigram", "bigram", "trigram"),
        "What followed the last two tokens in training, mixed with the bigram and frequencies.",
    ),
    "position_ngram": (
        ("uniform", "unigram", "bigram", "trigram", "position", "position_bigram"),
        "What followed the last token at this very place, mixed with all the baselines above.",
    ),
}

# Part -> the part it is smoothed with, and its context as one number per token (-1: none). The
# first token of a row is part of a place, because it distinguishes the layouts (<IMG> or <CLS>).
PARTS = {
    "unigram": ("uniform", lambda tokens, size: np.zeros_like(tokens.row)),
    "position": ("unigram", lambda tokens, size: tokens.position * size + tokens.first),
    "bigram": ("unigram", lambda tokens, size: tokens.previous),
    "position_bigram": (
        "position",
        lambda tokens, size: (tokens.position * size + tokens.first) * size + tokens.previous,
    ),
    "trigram": (
        "bigram",
        lambda tokens, size: np.where(
            tokens.before_previous < 0, -1, tokens.before_previous * size + tokens.previous
        ),
    ),
}


def baseline_name(name: str) -> str:
    """The name of a baseline in figures and tables, from its key in the metrics files."""
    return {"position": "by position", "position_ngram": "n-grams by position"}.get(name, name)


def _predicted_tokens(rows: Rows, vocab_size: int) -> np.recarray:
    """Every token of every row but the first, with what a baseline sees of its past. (M,)."""
    lengths = row_lengths(rows)
    if not len(rows) or lengths.min() < 2:
        raise DataError("there is nothing to count: no rows, or a row of fewer than two tokens")
    ids = Ids.of(rows).flat()
    if ids.min() < 0 or ids.max() >= vocab_size:
        stranger = ids.min() if ids.min() < 0 else ids.max()
        raise DataError(
            f"token id {stranger} is outside the vocabulary of {vocab_size}; give the rows the "
            "vocabulary that they were encoded with"
        )
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.arange(len(ids)) - starts
    at = np.flatnonzero(position)  # every token but the first of its row
    columns = {
        "row": np.repeat(np.arange(len(rows)), lengths)[at],
        "position": position[at],
        "target": ids[at],
        "first": ids[starts[at]],
        "previous": ids[at - 1],
        "before_previous": np.where(position[at] > 1, ids[at - 2], -1),  # -1: there is none
    }
    return np.rec.fromarrays(list(columns.values()), names=list(columns))


class _WittenBell:
    """Frequencies of tokens after each context in training, smoothed with a `lower` distribution.

    p(w | h) = (c(h w) + T(h) p_lower(w)) / (c(h) + T(h)), where T(h) counts the different tokens
    that followed h. After an unseen context it is `lower` itself. Source: S. F. Chen and
    J. Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, Computer Speech
    and Language 13 (1999), section 2.5, after I. H. Witten and T. C. Bell (1991).
    """

    def __init__(self, contexts: np.ndarray, targets: np.ndarray, vocab_size: int):
        """`contexts` (M,) number what stood before `targets` (M,); below 0 there is none."""
        real = contexts >= 0
        self.known, inverse = np.unique(contexts[real], return_inverse=True)
        shape = (len(self.known) + 1, vocab_size)  # the last row is for unseen contexts
        ones = np.ones(len(inverse))
        self.seen = csr_matrix((ones, (inverse, targets[real])), shape)  # adds up repeats
        followers = np.diff(self.seen.indptr)  # T(h)
        total = np.asarray(self.seen.sum(axis=1))[:, 0] + followers
        total[-1] = followers[-1] = 1
        self.seen.data /= np.repeat(total, np.diff(self.seen.indptr))
        self.weight_of_lower = followers / total

    def __call__(self, contexts: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """`contexts` (m,), `lower` (m, V) -> (m, V); every row that sums to 1 still does."""
        place = np.searchsorted(self.known, contexts)
        seen = place < len(self.known)
        seen[seen] = self.known[place[seen]] == contexts[seen]
        place[~seen] = len(self.known)
        return self.seen[place].toarray() + self.weight_of_lower[place, None] * lower


class _Counts:
    """Counts of the training rows; every baseline mixes these parts."""

    def __init__(self, train_rows: Rows, vocab_size: int):
        self.vocab_size = vocab_size
        train = _predicted_tokens(train_rows, vocab_size)
        self.parts = {
            name: _WittenBell(context(train, vocab_size), train.target, vocab_size)
            for name, (_, context) in PARTS.items()
        }

    def distributions(self, tokens: np.recarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Part -> (M, V) probabilities of every token, in the order of `names`."""
        needed = set(names)
        for name in reversed(PARTS):  # each comes after the one it is smoothed with
            needed |= {PARTS[name][0]} if name in needed else set()
        tables = {"uniform": np.full((len(tokens), self.vocab_size), 1 / self.vocab_size)}
        for name, (lower, context) in PARTS.items():
            if name in needed:
                contexts = context(tokens, self.vocab_size)
                tables[name] = self.parts[name](contexts, tables[lower])
        return {name: tables[name] for name in names}


@dataclass(frozen=True, eq=False)
class NgramModel:
    """A baseline that `fit_ngrams` fitted: a mixture; `weights` maps each part to its share."""

    name: str
    description: str
    weights: Mapping[str, float]
    _counts: _Counts

    def probabilities(self, tokens: np.recarray) -> np.ndarray:
        """p(token | all before it), for `tokens` (m,). (m, V) float64, rows sum to 1, without 0."""
        parts = self._counts.distributions(tokens, self.weights)
        return sum(self.weights[name] * part for name, part in parts.items())

    def score(self, rows: Rows, rng: np.random.Generator | None = None) -> TokenScores:
        """The table that `scores.score_tokens` makes of a GPT, in the same order.

        Among tokens exactly as likely as the target its rank is drawn at random, by `rng` where
        `rows` are a part of what is scored.
        """
        tokens = _predicted_tokens(rows, self._counts.vocab_size)
        random = (rng or np.random.default_rng(0)).random(len(tokens))
        nll, rank = np.empty(len(tokens)), np.empty(len(tokens), dtype=np.int64)
        for chosen in _chunks(len(tokens)):
            table = self.probabilities(tokens[chosen])  # (m, V)
            of_target = table[np.arange(len(table)), tokens.target[chosen]]  # (m,)
            tied = (table == of_target[:, None]).sum(axis=1)  # the target among them
            likelier = (table > of_target[:, None]).sum(axis=1)
            nll[chosen] = -np.log(of_target)
            rank[chosen] = likelier + (random[chosen] * tied).astype(np.int64)
        columns = (tokens.row, tokens.position, tokens.target)
        return TokenScores(*map(np.ascontiguousarray, columns), nll, rank, len(rows))


def _chunks(n: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def fit_ngrams(
    train_rows: Rows, val_rows: Rows, vocab_size: int, kinds: np.ndarray | None = None
) -> dict[str, NgramModel]:
    """The baselines of `RECIPES`, weakest first; rows are lists of ids of any lengths.

    Counts come from `train_rows` alone. The weights of a mixture are those that make `val_rows`
    likeliest: all their tokens, or, with `kinds` (V,) from `tokens.token_kinds`, their codes.
    Source: F. Jelinek and R. L. Mercer, Interpolated Estimation of Markov Source Parameters from
    Sparse Data (1980). Raises DataError when either is empty, or holds an id outside
    0..vocab_size-1, or when codes are wanted and val has none.
    """
    counts, val = _Counts(train_rows, vocab_size), _predicted_tokens(val_rows, vocab_size)
    if kinds is not None:
        val = val[kinds[val.target] == KIND_CODE]
        if not len(val):
            raise DataError("there are no code tokens in the val rows, so no baseline can be tuned")
    names = ("uniform", *PARTS)
    of_target = dict(zip(names, np.empty((len(names), len(val))), strict=True))
    for chosen in _chunks(len(val)):
        for name, table in counts.distributions(val[chosen], names).items():
            of_target[name][chosen] = table[np.arange(len(table)), val.target[chosen]]
    baselines = {}
    for name, (parts, description) in RECIPES.items():
        shares = mixture_weights(np.stack([of_target[part] for part in parts], axis=1))
        weights = dict(zip(parts, shares.tolist(), strict=True))
        baselines[name] = NgramModel(name, description, weights, counts)
    return baselines


def mixture_weights(probabilities: np.ndarray) -> np.ndarray:
    """The weights (K,) under which a mixture of K models makes the tokens likeliest, by EM.

    `probabilities` (M, K) is what each model gives each token. Source: A. P. Dempster, N. M. Laird
    and D. B. Rubin, Maximum Likelihood from Incomplete Data via the EM Algorithm, JRSS B 39 (1977).
    """
    weights = np.full(probabilities.shape[1], 1 / probabilities.shape[1])
    before = -np.inf
    for _ in range(EM_STEPS):
        mixed = probabilities @ weights  # (M,)
        now = np.log(mixed).mean()
        if now - before < EM_TOLERANCE:
            break
        before = now
        weights = weights * (probabilities / mixed[:, None]).mean(axis=0)
    return weights / weights.sum()
