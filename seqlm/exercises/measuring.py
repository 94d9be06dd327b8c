"""Checkers of the exercises on measuring: perplexity, bootstrap, selection, significance, cost."""

import math

import numpy as np
from scipy import stats

from seqlm.exercises.checker import BUG, Cases, Rng, exercise


def _mean_over_tokens(batches) -> float:
    total = sum(float(np.asarray(nll)[np.asarray(real, bool)].sum()) for nll, real in batches)
    return total / sum(int(np.asarray(real, bool).sum()) for _, real in batches)


def _mean_with_padding(batches) -> float:
    return _mean_over_tokens([(nll, np.ones(np.shape(nll), bool)) for nll, _ in batches])


def _mean_of_batches(batches) -> float:
    kept = [batch for batch in batches if np.asarray(batch[1]).any()]
    return float(np.mean([_mean_over_tokens([batch]) for batch in kept]))


def _mean_of_rows(batches) -> float:
    rows = [([n], [r]) for nll, real in batches for n, r in zip(nll, real, strict=True)]
    return _mean_of_batches(rows)


@exercise("All counted tokens, one mean, then exp.")
def check_perplexity(rng: Rng) -> Cases:
    """`function(batches)`, pairs (nll, counted) of (B, T): exp of the mean over counted tokens."""
    for length in (4, 6):
        batches = []
        for lengths in ([length, 2, 1], [length - 1, length]):
            counted = np.arange(length) < np.array(lengths)[:, None]
            batches.append((rng.uniform(0, 4, counted.shape), counted))
        losses = np.concatenate([nll[counted] for nll, counted in batches])
        mean, padded = losses.mean(), _mean_with_padding(batches)
        zeroed = losses.sum() / sum(nll.size for nll, _ in batches)
        by_batch, by_row = _mean_of_batches(batches), _mean_of_rows(batches)
        wrong = {
            "Padding is counted: only take tokens where `counted` is true.": np.exp(padded),
            "A loss of 0 still counts as a token: divide by the counted ones.": np.exp(zeroed),
            "That is a mean of batch means: add up all losses and tokens first.": np.exp(by_batch),
            "That is a mean of row means: add up all losses and tokens first.": np.exp(by_row),
            "exp of each token and then the mean; take the mean first.": np.exp(losses).mean(),
            "That is the mean NLL; perplexity is exp of it.": mean,
            "2 to the power of nats: with natural logarithms it is exp.": 2**mean,
        }
        yield (batches,), np.exp(mean), wrong


@exercise("All nats, in bits, over all bytes.")
def check_bits_per_byte(rng: Rng) -> Cases:
    """`function(nll, pieces)`, (N,) and N bytes objects: all nats, in bits, over all bytes."""
    for text in ("def naïve ( ) :", "“é” is two bytes"):
        pieces = [piece.encode() for piece in text.split()]
        bits = rng.uniform(2, 8, len(pieces))
        lengths, nll = np.array([len(piece) for piece in pieces]), bits * np.log(2)
        ratios = bits / lengths
        wrong = {
            "Those are nats; a nat is 1 / ln 2 bits.": nll.sum() / lengths.sum(),
            "A bit is ln 2 nats: divide by ln 2.": nll.sum() * np.log(2) / lengths.sum(),
            "That is per token; divide by the bytes of all tokens.": bits.mean(),
            "That is a mean of ratios: add up all bits and all bytes first.": ratios.mean(),
            "That counts characters; é has two bytes.": bits.sum() / len("".join(text.split())),
        }
        yield (nll, pieces), bits.sum() / lengths.sum(), wrong


@exercise("The correct evaluation passes; padding, batch means and row means are caught.")
def check_wrong_evaluations(rng: Rng) -> Cases:
    """`function(evaluate)` returns whether `evaluate(batches)` is the mean over counted tokens."""
    lines = {
        _mean_over_tokens: "Your test rejects a correct evaluation: compute its numbers by hand.",
        _mean_with_padding: "An evaluation that counts padding passes: give it a row with "
        "padding in it.",
        _mean_of_batches: "An evaluation that takes the mean of batch means passes: give it two "
        "batches with different numbers of tokens.",
        _mean_of_rows: "An evaluation that takes the mean of row means passes: give it two rows of "
        "different lengths in one batch.",
    }
    for evaluate, line in lines.items():
        correct = evaluate is _mean_over_tokens
        yield (evaluate,), correct, {line: not correct}


@exercise("Whole images are drawn again, and an image drawn twice counts twice.")
def check_bootstrap(rng: Rng) -> Cases:
    """`function(nll, image, picks)`: the 95 % interval of the mean over the tokens of each pick."""
    for images in (8, 12):
        image = np.repeat(np.arange(images), rng.integers(2, 9, images))
        nll = rng.uniform(0, 2, len(image)) + rng.uniform(0, 3, images)[image]
        picks = rng.integers(0, images, (200, images))
        sums, counts = np.bincount(image, nll), np.bincount(image)
        means, ends = sums[picks].sum(1) / counts[picks].sum(1), (0.025, 0.975)
        once = [sums[kept].sum() / counts[kept].sum() for kept in map(np.unique, picks)]
        by_token = np.quantile(nll[picks].mean(1), ends)
        by_image = np.quantile((sums / counts)[picks].mean(1), ends)
        normal = 1.96 * means.std() * np.array([-1, 1])
        error = normal / np.sqrt(len(picks))
        wrong = {
            "That draws tokens: `picks` are images, with all their tokens.": by_token,
            "That is a mean of image means: divide all nats by all tokens.": by_image,
            "An image drawn twice counts twice.": np.quantile(once, ends),
            "That leaves 5 % on each side; 95 % leave 2.5 %.": np.quantile(means, (0.05, 0.95)),
            "Those are all means: take their 2.5 % and 97.5 % quantiles.": means,
            "np.percentile wants percent, np.quantile shares.": np.percentile(means, ends),
            "The lower end comes first.": np.quantile(means, ends[::-1]),
            "That takes the means as normal; take their quantiles.": means.mean() + normal,
            "Divided by √R it shrinks when you merely draw more often.": means.mean() + error,
        }
        yield (nll, image, picks), np.quantile(means, ends), wrong


@exercise("Val chooses, test measures, once.")
def check_selection(rng: Rng) -> Cases:
    """`function(on_val, on_test)`, (methods, images): the accuracy on test of the best on val."""
    for images in (40, 60):
        val, test = np.array([[19, 26, 25, 21, 20], [30, 31, 34, 32, 36]])[:, rng.permutation(5)]
        at = np.arange(images)
        on_val, on_test = (rng.permuted(at < n[:, None], axis=1) for n in (val, test))
        wrong = {
            BUG + "of many equal methods, it reports the luckiest.": test.max() / images,
            "That is the accuracy on val, where it was chosen: as flattering.": val.max() / images,
            "That is the mean of all methods, and only one is used.": test.mean() / images,
            "That is the number of the method, not its accuracy.": val.argmax(),
            "Chosen on both: then test has helped to choose.": test[(val + test).argmax()] / images,
        }
        yield (on_val, on_test), test[val.argmax()] / images, wrong


@exercise("Two equal models would differ as much, or more, this often.")
def check_sign_test(rng: Rng) -> Cases:
    """`function(only_a, only_b)`: the p-value: the smaller side's tail in fair tosses, doubled."""
    few, more = int(rng.integers(1, 4)), int(rng.integers(7, 10))
    for a, b in ((few, more), (more, few), (4, 4)):
        n, outcome = a + b, math.comb(a + b, a) / 2 ** (a + b)
        tail = stats.binom.cdf(min(a, b), n, 0.5)
        p, approximate = min(1.0, 2 * tail), math.erfc(abs(a - b) / math.sqrt(2 * n))
        wrong = {
            "No probability is more than 1: cut it there, for equal counts.": 2 * tail,
            "That is one side only: a difference the other way counts as well.": tail,
            "The outcome itself belongs to the tail: count 0 to k, with k.": 2 * (tail - outcome),
            "That is the probability of just this outcome; add the more extreme ones.": outcome,
            "That is the normal approximation; add up the exact probabilities.": approximate,
        }
        yield (a, b), p, wrong


@exercise("Two operations per weight and token forward, four back: 6ND.")
def check_training_operations(rng: Rng) -> Cases:
    """`function(n_weights, n_tokens)`: additions and multiplications, forward and back."""
    for weights, tokens in rng.integers(100, 10_000, (2, 2)).tolist():
        product = weights * tokens
        wrong = {
            "Each weight has a multiplication and an addition, and not only forward.": product,
            "That is the way forward alone; the gradients cost twice as much again.": 2 * product,
            "A multiplication and an addition are two operations, not one.": 3 * product,
            "That is the way back alone; the way forward comes before it.": 4 * product,
            "That is for one token.": 6 * weights,
        }
        yield (weights, tokens), 6 * product, wrong
