"""The baselines under the GPT: models that only count tokens.

They are fitted on the GPT's own training rows and hand back its own table of scores,
so `seqlm.metrics` measures both with the same code. A baseline sees just what the GPT sees: the
tokens before the one to be predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.sparse import csr_matrix

from seqlm.data.tokens import KIND_CODE
from seqlm.errors import DataError
from seqlm.evaluation.scores import TokenScores

CHUNK = 4_096  # tokens at a time: their distributions over 516 tokens are 17 MB
EM_STEPS = 500
EM_TOLERANCE = 1e-10  # nats per token; EM stops when a step gains less

Rows = Sequence[Sequence[int]]

# Which counts a baseline draws on, weakest first. Weights of more than one are tuned on val.
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


def baseline_name(name: str) -> str:
    """The name of a baseline in figures and tables, from its key in the metrics files."""
    return {"position": "by position", "position_ngram": "n-grams by position"}.get(name, name)


@dataclass(frozen=True, eq=False)
class _Predicted:
    """Every token of every row but the first, with all a baseline may look at. Arrays are (M,)."""

    row: np.ndarray
    position: np.ndarray
    target: np.ndarray
    first: np.ndarray
    previous: np.ndarray
    before_previous: np.ndarray  # -1 where there is none

    def __getitem__(self, chosen: slice | np.ndarray) -> "_Predicted":
        return _Predicted(*(column[chosen] for column in vars(self).values()))


def _predicted(rows: Rows, vocab_size: int) -> _Predicted:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    if not len(rows) or lengths.min() < 2:
        raise DataError("there is nothing to count: no rows, or a row of fewer than two tokens")
    ids = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
    if ids.min() < 0 or ids.max() >= vocab_size:
        stranger = ids.min() if ids.min() < 0 else ids.max()
        raise DataError(
            f"token id {stranger} is outside the vocabulary of {vocab_size}; give the rows the "
            "vocabulary that they were encoded with"
        )
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.arange(len(ids)) - starts
    at = np.flatnonzero(position)  # every token but the first of its row
    return _Predicted(
        row=np.repeat(np.arange(len(rows)), lengths)[at],
        position=position[at],
        target=ids[at],
        first=ids[starts[at]],
        previous=ids[at - 1],
        before_previous=np.where(position[at] > 1, ids[at - 2], -1),
    )


class _WittenBell:
    """What followed each context in training, smoothed with a `lower` distribution.

    p(w | h) = (c(h w) + T(h) p_lower(w)) / (c(h) + T(h)), where T(h) counts the different tokens
    that followed h. A context never met hands on `lower` as it is. Source: S. F. Chen and
    J. Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, Computer Speech
    and Language 13 (1999), section 2.5, after I. H. Witten and T. C. Bell (1991).
    """

    def __init__(self, contexts: np.ndarray, targets: np.ndarray, vocab_size: int):
        """`contexts` (M,) name what stood before `targets` (M,); below 0 they name nothing."""
        real = contexts >= 0
        self.known, inverse = np.unique(contexts[real], return_inverse=True)
        shape = (len(self.known) + 1, vocab_size)  # the last row is for contexts never met
        ones = np.ones(len(inverse))
        self.seen = csr_matrix((ones, (inverse, targets[real])), shape)  # adds up repeats
        followers = np.diff(self.seen.indptr)  # T(h)
        total = np.asarray(self.seen.sum(axis=1))[:, 0] + followers
        total[-1] = followers[-1] = 1
        self.seen.data /= np.repeat(total, np.diff(self.seen.indptr))
        self.left_over = followers / total

    def __call__(self, contexts: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """`contexts` (m,), `lower` (m, V) -> (m, V); every row that sums to 1 still does."""
        place = np.searchsorted(self.known, contexts)
        met = place < len(self.known)
        met[met] = self.known[place[met]] == contexts[met]
        place[~met] = len(self.known)
        return self.seen[place].toarray() + self.left_over[place, None] * lower


# Part -> the part it falls back on, and what it looks at, as one number a token (-1: nothing).
# "begin alike" is what tells the layouts apart: a sentence to read begins with <IMG>, one to draw
# with <CLS>, so the same place means another thing in each.
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


class _Counts:
    """All that is counted in the training rows; every baseline is made of these parts."""

    def __init__(self, train_rows: Rows, vocab_size: int):
        self.vocab_size = vocab_size
        train = _predicted(train_rows, vocab_size)
        self.parts = {
            name: (lower, _WittenBell(context(train, vocab_size), train.target, vocab_size))
            for name, (lower, context) in PARTS.items()
        }

    def distributions(self, tokens: _Predicted, names: Sequence[str]) -> dict[str, np.ndarray]:
        """name -> (M, V) probabilities of every token, in the order of `names`."""
        found = {"uniform": np.full((len(tokens.row), self.vocab_size), 1 / self.vocab_size)}

        def part(name: str) -> np.ndarray:
            if name not in found:
                lower, smoothed = self.parts[name]
                contexts = PARTS[name][1](tokens, self.vocab_size)
                found[name] = smoothed(contexts, part(lower))
            return found[name]

        return {name: part(name) for name in names}


@dataclass(frozen=True, eq=False)
class NgramModel:
    """A model that only counts: a mixture of what `fit_ngrams` counted.

    Attributes:
        name: its key among the baselines.
        description: what it knows, in one plain sentence.
        weights: part -> its share in the mixture; they sum to 1.
    """

    name: str
    description: str
    weights: Mapping[str, float]
    _counts: _Counts

    def probabilities(self, rows: Rows) -> np.ndarray:
        """p(token | all before it) for every token of every row but the first. (M, V) float64.

        Each line sums to 1 and holds no zero. For a whole split this is large; `score` is not.
        """
        return self._mixed(_predicted(rows, self._counts.vocab_size))

    def _mixed(self, tokens: _Predicted) -> np.ndarray:
        parts = self._counts.distributions(tokens, tuple(self.weights))
        return sum(self.weights[name] * part for name, part in parts.items())

    def score(self, rows: Rows) -> TokenScores:
        """The table that `metrics.score_tokens` makes of a GPT, in the same order.

        Counts often tie. Among tokens exactly as likely as the target its rank is drawn at random
        (seeded), so the uniform baseline's top-1 accuracy is 1/V on average and not 1.
        """
        tokens = _predicted(rows, self._counts.vocab_size)
        lots = np.random.default_rng(0).random(len(tokens.row))
        nll, rank = np.empty(len(tokens.row)), np.empty(len(tokens.row), dtype=np.int64)
        for chosen in _chunks(len(tokens.row)):
            some = tokens[chosen]
            table = self._mixed(some)  # (m, V)
            of_target = table[np.arange(len(table)), some.target]  # (m,)
            tied = (table == of_target[:, None]).sum(axis=1)  # the target among them
            likelier = (table > of_target[:, None]).sum(axis=1)
            nll[chosen] = -np.log(of_target)
            rank[chosen] = likelier + (lots[chosen] * tied).astype(np.int64)
        return TokenScores(tokens.row, tokens.position, tokens.target, nll, rank, len(rows))


def _chunks(n: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]


def fit_ngrams(
    train_rows: Rows, val_rows: Rows, vocab_size: int, kinds: np.ndarray | None = None
) -> dict[str, NgramModel]:
    """The baselines of `RECIPES`, weakest first; rows are lists of ids of any lengths.

    Counts come from `train_rows` alone, smoothed by Witten and Bell's rule down to the uniform
    distribution. The weights of the mixtures are those likeliest to have made `val_rows`, found by
    EM: all their tokens, or, with `kinds` (V,) from `layout.token_kinds`, their codes alone, so
    that a baseline is as strong as it can be where it is judged. Source of the interpolation:
    F. Jelinek and R. L. Mercer, Interpolated Estimation of Markov Source Parameters from Sparse
    Data (1980).

    Raises DataError when either is empty, or holds an id outside 0..vocab_size-1, or when codes
    are wanted and val has none.
    """
    counts, val = _Counts(train_rows, vocab_size), _predicted(val_rows, vocab_size)
    if kinds is not None:
        val = val[kinds[val.target] == KIND_CODE]
        if not len(val.row):
            raise DataError("there are no code tokens in the val rows, so no baseline can be tuned")
    of_target = _target_probabilities(counts, val)
    baselines = {}
    for name, (parts, description) in RECIPES.items():
        shares = mixture_weights(np.stack([of_target[part] for part in parts], axis=1))
        weights = dict(zip(parts, shares.tolist(), strict=True))
        baselines[name] = NgramModel(name, description, weights, counts)
    return baselines


def _target_probabilities(counts: _Counts, tokens: _Predicted) -> dict[str, np.ndarray]:
    """What each part gives the tokens that really came: part -> (M,)."""
    names = ("uniform", *PARTS)
    found = {name: np.empty(len(tokens.row)) for name in names}
    for chosen in _chunks(len(tokens.row)):
        some = tokens[chosen]
        for name, table in counts.distributions(some, names).items():
            found[name][chosen] = table[np.arange(len(table)), some.target]
    return found


def mixture_weights(probabilities: np.ndarray) -> np.ndarray:
    """The weights (K,) under which mixing K models makes the tokens likeliest, by EM.

    `probabilities` (M, K) is what each model gives each token. The likelihood has one peak, so
    the equal weights that EM starts from decide nothing. Source: A. P. Dempster, N. M. Laird and
    D. B. Rubin, Maximum Likelihood from Incomplete Data via the EM Algorithm, JRSS B 39 (1977).
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
