"""The checkers behind the notebooks' exercises: they say which misconception is at work.

Each takes the learner's answer, prints one friendly line, and returns whether the answer is right.
An answer that was not given yet (``...``) is no mistake; it only says so. Whatever the answer is or
does, there is no traceback.
"""

import math
from collections.abc import Callable
from functools import wraps

import numpy as np

Answer = Callable[..., object]

# What numpy, math and plain Python raise when they are handed something of another kind.
_MISFITS = (TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RuntimeError)


class _Stopped(Exception):
    """The learner's function raised something: the check ends with these words."""


def _tell(right: bool, words: str) -> bool:
    print(("✓ Right. " if right else "✗ Not yet. ") + words)
    return right


def _untried(answer: object) -> bool:
    if answer is ... or answer is None:
        print("… Nothing to check yet: replace the ... with your answer and run this cell again.")
        return True
    return False


def _checker(wanted: str, *, of_function: bool = True):
    """Decorates a check, so that an answer of the wrong kind or one that raises gets a sentence.

    `wanted` says what kind of answer the check can judge. A function to be checked reaches the
    check wrapped: what it raises is told in the learner's words, not mistaken for a misfit.
    """

    def decorate(check: Callable[..., bool]) -> Callable[..., bool]:
        @wraps(check)
        def checked(answer: object, *more, **named) -> bool:
            if _untried(answer):
                return False
            if of_function and not callable(answer):
                return _tell(False, f"That is {_described(answer)}, where a function is wanted.")
            judged = [answer]  # the latest: the one a misfit is about

            def asked(*arguments) -> object:
                try:
                    judged[0] = answer(*arguments)
                except Exception as error:  # whatever a learner's code may raise
                    what = f"{type(error).__name__}: {error}"
                    raise _Stopped(f"Your function stopped with {what}") from error
                return judged[0]

            try:
                return check(asked if of_function else answer, *more, **named)
            except _Stopped as stopped:
                return _tell(False, str(stopped))
            except _MISFITS:
                return _tell(False, f"That is {_described(judged[0])}, where {wanted} is wanted.")

        return checked

    return decorate


def _described(answer: object) -> str:
    """The kind of an answer, and how large it is where it has a size: "a list of 2"."""
    if answer is None:
        return "None"
    kind = {"ndarray": "array", "str": "string"}.get(type(answer).__name__, type(answer).__name__)
    name = f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
    shape = getattr(answer, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{name} of shape {tuple(shape)}"
    return f"{name} of {len(answer)}" if isinstance(answer, list | tuple) else name


def _numbers(answer: object, shape: tuple[int, ...]) -> np.ndarray:
    """`answer` as an array of this shape; TypeError when it holds anything but numbers."""
    array = np.asarray(answer)
    if array.dtype.kind not in "iuf" or array.shape != shape:
        raise TypeError
    return array


def _number(answer: object) -> float:
    return _numbers(answer, ()).item()


@_checker("the number of one centre")
def nearest_patch(function: Answer) -> bool:
    """Exercise 01: `function(patch, centers)` returns the number of the nearest centre."""
    centers = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0.6, 0.5, 0.6, 0.5], [0, 1, 0, 1]])
    patch = np.array([0.5, 0.5, 0.6, 0.5])
    answer = function(patch.copy(), centers.copy())
    if _untried(answer):
        return False
    answer = _number(answer)
    distances = ((centers - patch) ** 2).sum(1)
    if answer == 2:
        also = _number(function(np.array([0.1, 0.0, 0.0, 0.1]), centers.copy()))
        words = "The smallest squared distance names the patch."
        return _tell(
            also == 0, words if also == 0 else "But a nearly empty patch gets the wrong number."
        )
    if answer == int((centers @ patch).argmax()):
        return _tell(
            False, "The largest dot product prefers centres full of ink; use the distance."
        )
    if answer == int(distances.argmax()):
        return _tell(False, "That is the farthest centre: argmax where argmin is wanted.")
    if answer == 3:
        return _tell(False, "Codes are counted from 0, so the third centre is number 2.")
    if np.isclose(answer, distances.min()):
        return _tell(False, "That is the distance itself; its index is wanted (argmin, not min).")
    return _tell(False, f"For the patch {patch} the nearest centre is number 2, not {answer}.")


@_checker("a list of nine whole numbers")
def labels(function: Answer, ignored: int = -100) -> bool:
    """Exercise 02: `function(input_ids, pad_id)` returns the labels of one padded row."""
    given = [2, 45, 6, 3, 4, 509, 5, 0, 0]
    kept = list(given)
    answer = function(given, 0)
    if _untried(answer):
        return False
    answer = _numbers(answer, (len(kept),)).tolist()
    if given != kept:
        return _tell(False, "Your function changed input_ids itself; make a copy for the labels.")
    want = [*given[:7], ignored, ignored]
    if answer == want:
        return _tell(True, "The model shifts by one place itself, and padding is not counted.")
    if answer == given:
        return _tell(False, f"Padding is still in the labels; it must be {ignored} there.")
    if answer[:6] == given[1:7]:
        return _tell(
            False,
            "Shifted by hand: GPT2LMHeadModel shifts too, so it would learn to "
            "predict the token after the next. Leave the labels unshifted.",
        )
    if answer == [*given[:7], 0, 0]:
        return _tell(False, f"0 is a token like any other; what is not to count is {ignored}.")
    if answer[5] == ignored:
        return _tell(False, "The class is masked as well, so it could never be learned.")
    return _tell(False, f"For {kept} the labels are {want}, not {answer}.")


@_checker("one number", of_function=False)
def initial_loss(answer: float, vocab_size: int) -> bool:
    """Exercise 03: the loss, in nats, of a model that knows nothing yet."""
    answer = _number(answer)
    want = math.log(vocab_size)
    if math.isclose(answer, want, abs_tol=0.02):
        return _tell(True, f"-ln(1/{vocab_size}) = {want:.2f} nats: every token equally likely.")
    if math.isclose(answer, math.log2(vocab_size), abs_tol=0.05):
        return _tell(False, "That is in bits (log2). PyTorch's losses are in nats: natural log.")
    if math.isclose(answer, math.log10(vocab_size), abs_tol=0.02):
        return _tell(False, "That is log10; losses are in nats, the natural logarithm.")
    if math.isclose(answer, vocab_size, rel_tol=0.01):
        return _tell(False, "That is the perplexity; the loss is its natural logarithm.")
    if math.isclose(answer, 1 / vocab_size, rel_tol=0.05):
        return _tell(False, "That is the probability of one token; the loss is -ln of it.")
    if math.isclose(answer, -want, abs_tol=0.02):
        return _tell(False, "The sign: a log-probability is negative, a loss is minus that.")
    return _tell(False, "Start from the probability of one token among so many equally likely.")


def _tokens(answer: object) -> list[str]:
    tokens = list(answer)
    if isinstance(answer, str) or not all(isinstance(token, str) for token in tokens):
        raise TypeError
    return tokens


@_checker("a list of tokens")
def classifier_input(function: Answer) -> bool:
    """Exercise 04: `function(tokens)` returns what a classifier may see of a read sentence."""
    sentence = ["<IMG>", "<Z_007>", "<Z_004>", "</IMG>", "<CLS>", "<CLS_3>", "<EOS>"]
    answer = function(list(sentence))
    if _untried(answer):
        return False
    answer = _tokens(answer)
    if any(token.startswith("<CLS_") for token in answer):
        return _tell(False, "The class is still in the input: the model would merely copy it.")
    if answer == sentence[:5]:
        longer = ["<IMG>", *["<Z_001>"] * 9, *sentence[3:]]
        also = _tokens(function(list(longer))) == longer[:-2]
        words = "It ends at <CLS>, where the model is asked; the answer comes after it."
        return _tell(also, words if also else "But it is wrong for a picture of nine codes.")
    if answer == sentence[:4]:
        return _tell(False, "<CLS> is missing: it is the token at which the class is read.")
    if answer[-1:] == ["<EOS>"]:
        return _tell(False, "<EOS> comes after the class; the model is asked before that.")
    return _tell(False, f"Of {' '.join(sentence)} the classifier may see all up to <CLS>.")


@_checker("one number")
def perplexity(function: Answer) -> bool:
    """Exercise 05: `function(batches)`; a batch is (nll, counted), arrays of one shape (B, T)."""
    first = (np.array([[1.0, 3.0, 9.0], [2.0, 9.0, 9.0]]), np.array([[1, 1, 0], [1, 0, 0]], bool))
    second = (np.array([[5.0, 5.0]]), np.array([[1, 1]], bool))
    batches = [first, second]
    answer = function(batches)
    if _untried(answer):
        return False
    answer = _number(answer)
    kept = np.concatenate([loss[mask] for loss, mask in batches])
    everything = np.concatenate([loss.ravel() for loss, _ in batches])
    by_batch = np.mean([loss[mask].mean() for loss, mask in batches])
    wrong = {
        np.exp(everything.mean()): "Padding is counted: only take tokens where `counted` is true.",
        np.exp(by_batch): "That is a mean of batch means: a small batch weighs as much as a large "
        "one. Add up all losses and all tokens first, divide once.",
        np.exp(kept).mean(): "exp of each token and then the mean; take the mean first.",
        kept.mean(): "That is the mean NLL; perplexity is exp of it.",
        2 ** kept.mean(): "2 to the power of nats: with natural logarithms it is exp.",
        np.exp(kept.sum()): "The sum is not divided by the number of tokens.",
    }
    if math.isclose(answer, np.exp(kept.mean()), rel_tol=1e-6):
        return _tell(True, "All counted tokens, one mean, then exp.")
    for value, words in wrong.items():
        if math.isclose(answer, value, rel_tol=1e-6):
            return _tell(False, words)
    return _tell(False, f"For the test batches it is {np.exp(kept.mean()):.4f}, not {answer:.4f}.")


@_checker("an array of five probabilities")
def nucleus(function: Answer) -> bool:
    """Exercise 06: `function(probabilities, top_p)` returns what nucleus sampling draws from."""
    probabilities = np.array([0.1, 0.45, 0.05, 0.3, 0.1])
    answer = function(probabilities.copy(), 0.7)
    if _untried(answer):
        return False
    if np.ndim(answer) == 1 and len(answer) != len(probabilities):
        return _tell(False, "The answer keeps its five places; what is out gets probability 0.")
    answer = _numbers(answer, probabilities.shape)
    kept = set(np.flatnonzero(answer > 0).tolist())
    if kept == {1}:
        return _tell(
            False,
            "Too few: the token that takes the sum past top_p belongs in, too. "
            "0.45 alone does not hold 0.7.",
        )
    if kept == set():
        return _tell(False, "Nothing is left: no single token has 0.7. The sum counts, not each.")
    if kept != {1, 3}:
        return _tell(
            False,
            "The two likeliest already hold 0.75; sort by probability, likeliest "
            "first, before adding up.",
        )
    if not math.isclose(answer.sum(), 1, abs_tol=1e-6):
        return _tell(False, "The right tokens, but they must sum to 1 again: divide by their sum.")
    if not np.allclose(answer[[1, 3]], [0.6, 0.4]):
        return _tell(False, "Among the kept tokens the proportions must stay as they were.")
    whole = _numbers(function(probabilities.copy(), 1.0), probabilities.shape)
    right = bool(np.allclose(whole, probabilities))
    return _tell(
        right,
        "The smallest set of likeliest tokens that holds top_p, rescaled."
        if right
        else "But with top_p = 1 every token should stay.",
    )
