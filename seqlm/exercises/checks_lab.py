"""The checkers behind the exercises of the laboratory, notebooks 9 to 11 (see checks.py)."""

import math

import numpy as np

from seqlm.exercises.checker import Answer, checker, number, tell, tokens, untried


def _sign_test(only_a: int, only_b: int) -> float:
    n, k = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


@checker("one number")
def sign_test(function: Answer) -> bool:
    """Exercise 10: `function(only_a, only_b)` returns the exact two-sided p-value."""
    a, b = 2, 7
    answer = function(a, b)
    if untried(answer):
        return False
    answer, want = number(answer), _sign_test(a, b)
    n = a + b
    of_it = math.comb(n, a) / 2**n
    wrong = {
        want / 2: "That is one side only: a difference the other way would also have struck you.",
        2 * (want / 2 - of_it): "The outcome itself belongs to the tail: count 0 to k, with k.",
        of_it: "That is the probability of just this outcome; add those that are more extreme.",
        1 - want: "That is 1 - p.",
        math.erfc(abs(a - b) / math.sqrt(2 * n)): "That is the normal approximation; the counts "
        "are small, so add up the exact probabilities.",
    }
    if math.isclose(answer, want, rel_tol=1e-6):
        also = number(function(b, a)), number(function(4, 4))
        if not math.isclose(also[0], want, rel_tol=1e-6):
            return tell(False, "With the two counts exchanged the answer should be the same.")
        if not math.isclose(also[1], 1.0):
            return tell(False, "Right here, but for equal counts it is more than 1: cut it at 1.")
        return tell(
            True,
            f"With {a} against {b} p is {want:.2f}: chance alone parts equals so often.",
        )
    for value, words in wrong.items():
        if math.isclose(answer, value, rel_tol=1e-4, abs_tol=1e-9):
            return tell(False, words)
    return tell(False, f"For {a} against {b} it is {want:.4f}, not {answer:.4f}.")


@checker("an array of numbers")
def grown_embedding(function: Answer) -> bool:
    """Exercise 9: `function(weight, n_new)`: the embedding with rows for new tokens."""
    weight = np.random.default_rng(9).normal(1.0, 1.0, (5, 3))
    given = weight.copy()
    answer = function(given, 2)
    if untried(answer):
        return False
    answer = np.asarray(answer)
    if answer.ndim != 2 or answer.dtype.kind != "f" or not np.array_equal(given, weight):
        if not np.array_equal(given, weight):
            return tell(False, "The old matrix itself was changed; make a new one.")
        raise TypeError
    if answer.shape == (7, 3) and np.allclose(answer[2:], weight):
        return tell(False, "The new rows stand in front, so every old token has another id now.")
    if answer.shape == (5, 5):
        return tell(False, "Tokens are rows: you have made each vector longer, not the vocabulary.")
    if answer.shape != (7, 3):
        return tell(False, f"5 tokens and 2 new ones make 7 rows of 3, not {answer.shape}.")
    if not np.allclose(answer[:5], weight):
        return tell(False, "The old rows are no longer what they were: what was learned is lost.")
    return _new_rows(answer[5:], weight)


def _new_rows(new: np.ndarray, weight: np.ndarray) -> bool:
    if np.allclose(new, 0):
        return tell(False, "A row of noughts gets the logit 0, whatever the others have: where "
                    "theirs are all negative it is the likeliest of all.")  # fmt: skip
    if np.allclose(new, weight.mean()):
        return tell(False, "That is one number for all; the mean is taken token by token (axis 0).")
    if np.allclose(new, weight[-1]):
        return tell(False, "A copy of one token takes half of that token's probability.")
    if not np.allclose(new, weight.mean(axis=0)):
        return tell(False, "The new rows should be the mean of the old ones; random rows can have "
                    "any logit.")  # fmt: skip
    return tell(True, "Every old id means what it meant, and a new token's logit is the mean of "
                "the others'.")  # fmt: skip


@checker("a list of tokens")
def without_class(function: Answer) -> bool:
    """Exercise 11: `function(tokens)` returns a sentence with every class taken out."""
    read = ["<IMG>", "<Z_007>", "<Z_004>", "</IMG>", "<CLS>", "<CLS_3>", "<EOS>"]
    draw = ["<CLS>", "<CLS_0>", "<IMG>", "<Z_007>", "</IMG>", "<EOS>"]
    answer = function(list(read))
    if untried(answer):
        return False
    first, second = tokens(answer), tokens(function(list(draw)))
    if "<CLS_3>" in first:
        return tell(False, "The class is still there: <CLS_3> names it.")
    if "<CLS_0>" in second:
        return tell(False, "In the draw layout the class stands in front, and is still there.")
    if "<CLS>" not in first or "<CLS>" not in second:
        return tell(False, "<CLS> names no class; it is where one is asked for. Keep it.")
    if first == [t for t in read if t != "<CLS_3>"] and second == [
        t for t in draw if t != "<CLS_0>"
    ]:
        return tell(True, "Nothing is left that names the digit, and all else is as it was.")
    return tell(False, f"Of {' '.join(read)} everything but <CLS_3> stays, in its order.")
