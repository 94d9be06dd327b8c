"""Checkers of the exercises on numbers: losses, perplexity, sampling, significance, cost."""

import math

import numpy as np
from scipy import stats

from seqlm.exercises.checker import Answer, Right, checker, mistake, number, numbers, yes_or_no


@checker("one number", of_function=False)
def check_initial_loss(answer: float, vocab_size: int) -> str:
    """The loss, in nats, of a model that knows nothing yet."""
    answer, want = number(answer), math.log(vocab_size)
    if math.isclose(answer, want, abs_tol=0.02):
        return Right(f"-ln(1/{vocab_size}) = {want:.2f} nats: every token equally likely.")
    wrong = {
        "That is in bits (log2). PyTorch's losses are in nats: natural log.": math.log2(vocab_size),
        "That is log10; losses are in nats, the natural logarithm.": math.log10(vocab_size),
        "That is the perplexity; the loss is its natural logarithm.": vocab_size,
        "That is the probability of one token; the loss is -ln of it.": 1 / vocab_size,
        "The sign: a log-probability is negative, a loss is minus that.": -want,
    }
    start = "Start from the probability of one token among so many equally likely."
    return mistake(answer, wrong, rel_tol=0.01) or start


@checker("one number")
def check_perplexity(function: Answer) -> str:
    """`function(batches)`; a batch is (nll, counted), arrays of one shape (B, T)."""
    first = (np.array([[1.0, 3.0, 9.0], [2.0, 9.0, 9.0]]), np.array([[1, 1, 0], [1, 0, 0]], bool))
    batches = [first, (np.array([[5.0, 5.0]]), np.array([[1, 1]], bool))]
    answer = number(function(batches))
    counted = np.concatenate([loss[mask] for loss, mask in batches])
    want = np.exp(counted.mean())
    wrong = {
        "Padding is counted: only take tokens where `counted` is true.": np.exp(
            _mean_with_padding(batches)
        ),
        "That is a mean of batch means: a small batch weighs as much as a large one. Add up all "
        "losses and all tokens first, divide once.": np.exp(_mean_of_batches(batches)),
        "exp of each token and then the mean; take the mean first.": np.exp(counted).mean(),
        "That is the mean NLL; perplexity is exp of it.": counted.mean(),
        "2 to the power of nats: with natural logarithms it is exp.": 2 ** counted.mean(),
        "The sum is not divided by the number of tokens.": np.exp(counted.sum()),
    }
    if math.isclose(answer, want, rel_tol=1e-6):
        return Right("All counted tokens, one mean, then exp.")
    return mistake(answer, wrong) or f"For the test batches it is {want:.4f}, not {answer:.4f}."


@checker("an array of five probabilities")
def check_nucleus(function: Answer) -> str:
    """`function(probabilities, top_p)` returns what nucleus sampling draws from."""
    probabilities = np.array([0.1, 0.45, 0.05, 0.3, 0.1])
    answer = function(probabilities.copy(), 0.7)
    if np.ndim(answer) == 1 and len(answer) != len(probabilities):
        return "The answer keeps its five places; what is out gets probability 0."
    answer = numbers(answer, probabilities.shape)
    kept = tuple(np.flatnonzero(answer > 0).tolist())
    wrong = {
        (
            1,
        ): "Too few: the token that takes the sum past top_p belongs in, too; 0.45 is below 0.7.",
        (): "Nothing is kept: no single token has 0.7. The sum counts, not each.",
    }
    if kept != (1, 3):
        add = "The two likeliest already hold 0.75; sort by probability, likeliest first, then add."
        return wrong.get(kept, add)
    if not math.isclose(answer.sum(), 1, abs_tol=1e-6):
        return "The right tokens, but they must sum to 1 again: divide by their sum."
    if not np.allclose(answer[[1, 3]], [0.6, 0.4]):
        return "Among the kept tokens the proportions must stay as they were."
    whole = numbers(function(probabilities.copy(), 1.0), probabilities.shape)
    if not np.allclose(whole, probabilities):
        return "But with top_p = 1 every token should stay."
    return Right("The smallest set of likeliest tokens that holds top_p, rescaled.")


@checker("an array of three probabilities")
def check_guidance(function: Answer) -> str:
    """`function(conditional, unconditional, w)` returns the guided probabilities (V,).

    The arguments are next-token probabilities (V,) with and without the class.
    """
    with_class, free = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    answer = numbers(function(with_class.copy(), free.copy(), 2.0), free.shape)
    right = with_class**2 / free
    want, exchanged, added = (
        p / p.sum() for p in (right, free**2 / with_class, with_class**2 * free)
    )
    wrong = {
        "That mixes probabilities; guidance mixes their logarithms.": 2 * with_class - free,
        "The right proportions, but they must sum to 1: divide by their sum.": right,
        "Those are logarithms still: take exp, then divide by the sum.": np.log(right),
        "Those are logarithms still: take exp.": np.log(want),
        "The two are exchanged: w moves towards the conditional probabilities.": exchanged,
        "Move away from the unconditional one: its weight is 1 - w, below zero.": added,
    }
    if not np.allclose(answer, want):
        weights = "Mix log p with the weights 1 - w (unconditional) and w (conditional)"
        return mistake(answer, wrong) or f"{weights}, then exp, then rescale."
    same = numbers(function(with_class.copy(), free.copy(), 1.0), free.shape)
    if not np.allclose(same, with_class):
        return "But w = 1 should be the conditional probabilities themselves."
    return Right("w = 1 is the model itself; a larger w exaggerates what the class changes.")


def _mean_over_tokens(batches) -> float:
    total = sum(float(np.asarray(nll)[np.asarray(real, bool)].sum()) for nll, real in batches)
    return total / sum(int(np.asarray(real, bool).sum()) for _, real in batches)


def _mean_with_padding(batches) -> float:
    return _mean_over_tokens([(nll, np.ones(np.shape(nll), bool)) for nll, _ in batches])


def _mean_of_batches(batches) -> float:
    return float(np.mean([_mean_over_tokens([batch]) for batch in batches if np.any(batch[1])]))


def _mean_of_rows(batches) -> float:
    rows = [([n], [r]) for nll, real in batches for n, r in zip(nll, real, strict=True)]
    return _mean_of_batches(rows)


@checker("True or False")
def check_wrong_evaluations(function: Answer) -> str:
    """`function(evaluate)` returns whether `evaluate(batches)` is the mean over tokens.

    `batches` as in `check_perplexity`. The function is called with a correct evaluation and
    three wrong ones.
    """
    if not yes_or_no(function(_mean_over_tokens)):
        return "Your test rejects a correct evaluation: compute its numbers by hand."
    wrong = {
        _mean_with_padding: "An evaluation that counts padding passes: give it a row with "
        "padding in it.",
        _mean_of_batches: "An evaluation that takes the mean of batch means passes: give it two "
        "batches with different numbers of tokens.",
        _mean_of_rows: "An evaluation that takes the mean of row means passes: give it two rows of "
        "different lengths in one batch.",
    }
    for evaluate, line in wrong.items():
        if yes_or_no(function(evaluate)):
            return line
    return Right("The correct evaluation passes; padding, batch means and row means are caught.")


@checker("one number")
def check_sign_test(function: Answer) -> str:
    """`function(only_a, only_b)` returns the exact two-sided p-value."""
    a, b = 2, 7
    answer, want, n = number(function(a, b)), stats.binomtest(a, a + b).pvalue, a + b
    outcome = math.comb(n, a) / 2**n
    if math.isclose(answer, want, rel_tol=1e-6):
        if not math.isclose(number(function(b, a)), want, rel_tol=1e-6):
            return "With the two counts exchanged the answer should be the same."
        if not math.isclose(number(function(4, 4)), 1.0):
            return "Right here, but for equal counts it is more than 1: cut it at 1."
        return Right(f"With {a} against {b} p is {want:.2f}: equal models differ so often.")
    wrong = {
        "That is one side only: a difference the other way counts as well.": want / 2,
        "The outcome itself belongs to the tail: count 0 to k, with k.": want - 2 * outcome,
        "That is the probability of just this outcome; add those that are more extreme.": outcome,
        "That is 1 - p.": 1 - want,
        "That is the normal approximation; the counts are small, so add up the exact "
        "probabilities.": math.erfc(abs(a - b) / math.sqrt(2 * n)),
    }
    line = mistake(answer, wrong, rel_tol=1e-4)
    return line or f"For {a} against {b} it is {want:.4f}, not {answer:.4f}."


@checker("one number")
def check_training_operations(function: Answer) -> str:
    """`function(n_weights, n_tokens)` counts the additions and multiplications of training."""
    weights, tokens = 3_000, 500
    answer, product = number(function(weights, tokens)), weights * tokens
    wrong = {
        "Each weight has a multiplication and an addition, and not only forward.": product,
        "That is the way forward alone; the gradients cost twice as much again.": 2 * product,
        "A multiplication and an addition are two operations, not one.": 3 * product,
        "That is the way back alone; the way forward comes before it.": 4 * product,
        "That is for one token.": 6 * weights,
    }
    if math.isclose(answer, 6 * product):
        return Right("Two operations per weight and token forward, four back: 6ND.")
    return mistake(answer, wrong) or f"For {weights:,} weights and {tokens} tokens it is otherwise."
