"""Checkers of the exercises on probabilities: the first loss, sampling, Bayes' rule."""

import math

import numpy as np
from scipy.special import softmax

from seqlm.exercises.checker import Cases, Rng, exercise


@exercise("-ln(1/V) nats: every token is equally likely.")
def check_initial_loss(rng: Rng) -> Cases:
    """`function(vocab_size)`: -ln of a token's probability when all are equally likely."""
    for size in rng.integers(100, 100_000, 2).tolist():
        wrong = {
            "That is in bits (log2). PyTorch's losses are in nats: natural log.": math.log2(size),
            "That is log10; losses are in nats, the natural logarithm.": math.log10(size),
            "That is the perplexity; the loss is its natural logarithm.": size,
            "That is the probability of one token; the loss is -ln of it.": 1 / size,
            "The sign: a log-probability is negative, a loss is minus that.": -math.log(size),
        }
        yield (size,), math.log(size), wrong


@exercise("Below 1 the likely tokens gain, above 1 the others do.")
def check_temperature(rng: Rng) -> Cases:
    """`function(logits, temperature)`, (V,): divide the logits, then take the softmax."""
    for size, mean, temperature in ((5, 0, 0.5), (7, 2000, 1.7)):
        logits = rng.normal(mean, 2, size)
        scaled, plain = logits / temperature, softmax(logits)
        multiplied, naive = softmax(logits * temperature), np.exp(scaled) / np.exp(scaled).sum()
        wrong = {
            "Multiplied: a low temperature then is the wild one. Divide.": multiplied,
            "The temperature has no effect: it divides logits, before the softmax.": plain,
            "Dividing probabilities only breaks their sum: divide the logits.": plain / temperature,
            "Those are logits still: the softmax is missing.": scaled,
            "exp of a large number overflows: after dividing, subtract the largest.": naive,
            "They must sum to 1: divide by their sum.": np.exp(scaled),
            "They must sum to 1: divide by their sum, last of all.": np.exp(scaled - scaled.max()),
        }
        yield (logits, temperature), softmax(scaled), wrong


def _nucleus(p: np.ndarray, top_p: float, more: int = 0) -> np.ndarray:
    order = np.argsort(-p)
    before = np.cumsum(p[order]) - p[order]
    return np.where(np.isin(np.arange(len(p)), order[: (before < top_p).sum() + more]), p, 0)


@exercise("The smallest set of likeliest tokens that holds top_p, rescaled.")
def check_nucleus(rng: Rng) -> Cases:
    """`function(probabilities, top_p)`: the likeliest tokens that together hold top_p, rescaled."""
    for size in (5, 7, 4):
        p = rng.permutation(np.arange(1, size + 1) + rng.uniform(0, 0.4, size))
        p /= p.sum()
        top_p = 1.0 if size == 4 else np.sort(p)[-2:].sum() - 0.01  # two tokens, or all
        kept, short = _nucleus(p, top_p), _nucleus(p, top_p, more=-1)
        longer = _nucleus(p, top_p, more=1)
        rare = np.where(np.where(p < p[:, None], p, 0).sum(1) < top_p, p, 0)
        wrong = {
            "Too few: the token that takes the sum past top_p belongs in.": short / short.sum(),
            "Too many: stop when the kept tokens hold top_p.": longer / longer.sum(),
            "Nothing is kept: no token alone has top_p. The sum counts.": 0 * p,
            "Nothing is dropped: keep the likeliest until they hold top_p.": p,
            "The right tokens, but they must sum to 1: divide by their sum.": kept,
            "Those are the rarest: argsort puts the smallest first, so sort -p.": rare / rare.sum(),
            "Sorted; each token keeps its own place.": np.sort(kept / kept.sum())[::-1],
            "All keep their places; what is out gets probability 0.": p[kept > 0] / kept.sum(),
        }
        yield (p, top_p), kept / kept.sum(), wrong


@exercise("w = 1 is the model itself; a larger w exaggerates what the class changes.")
def check_guidance(rng: Rng) -> Cases:
    """`function(conditional, unconditional, w)`: mix log p with w and 1 - w; exp; rescale."""
    for size, w in ((3, 2.0), (5, 1.4), (4, 1.0)):
        p, free = rng.dirichlet([5] * size), rng.dirichlet([5] * size)
        logs = (1 - w) * np.log(free) + w * np.log(p)
        exchanged, added = (1 - w) * np.log(p) + w * np.log(free), np.log(free) + w * np.log(p)
        wrong = {
            "That mixes probabilities; guidance mixes their logarithms.": free + w * (p - free),
            "They must sum to 1: divide by their sum.": np.exp(logs),
            "Those are logarithms still: take exp, then divide by the sum.": logs,
            "The two are exchanged: the conditional one has the weight w.": softmax(exchanged),
            "Move away from the unconditional one: its weight is 1 - w.": softmax(added),
        }
        yield (p, free, w), softmax(logs), wrong


@exercise("Only differences of logarithms matter, so the largest can be 0.")
def check_bayes(rng: Rng) -> Cases:
    """`function(log_p, prior)`, (C,): add ln prior, subtract the largest, take exp, rescale."""
    for size, mean in ((3, -60), (5, -3000)):
        log_p, prior = rng.normal(mean, 1, size), rng.dirichlet([5] * size)
        logs = log_p + np.log(prior)
        total, shares = np.exp(logs).sum(), softmax(log_p)
        naive, by_log = np.exp(logs) / total, np.exp(logs - np.log(total))
        wrong = {
            "Those are logarithms: take exp, then divide by the sum.": logs - logs.max(),
            "exp(-3000) is 0, so ln of the sum is -inf: subtract the largest first.": by_log,
            "Divide by the sum last: after the prior it is no longer 1.": shares * prior,
            "The prior is missing: multiply by it, that is, add its logarithm.": softmax(log_p),
            "The prior was added to a logarithm; add ln prior.": softmax(log_p + prior),
            "Those are logarithms still: take exp.": np.log(softmax(logs)),
            "They do not sum to 1 yet: divide by their sum.": np.exp(logs - logs.max()),
            "The products do not sum to 1: divide by their sum.": np.exp(logs),
            "exp(-3000) is 0 for a float, and that is 0/0: subtract the largest first.": naive,
        }
        yield (log_p, prior), softmax(logs), wrong
