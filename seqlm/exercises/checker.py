"""What the checkers of checks.py and checks_lab.py are made of.

An answer that was not given yet (``...``) is no mistake; it only says so. Whatever the answer is or
does, there is no traceback.
"""

from collections.abc import Callable
from functools import wraps

import numpy as np

Answer = Callable[..., object]

# What numpy, math and plain Python raise when they are handed something of another kind.
_MISFITS = (TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RuntimeError)


class _Stopped(Exception):
    """The learner's function raised something: the check ends with these words."""


def tell(right: bool, words: str) -> bool:
    """Print the verdict with its reason; returns `right`."""
    print(("✓ Right. " if right else "✗ Not yet. ") + words)
    return right


def untried(answer: object) -> bool:
    """Whether no answer was given yet; says so, kindly."""
    if answer is ... or answer is None:
        print("… Nothing to check yet: replace the ... with your answer and run this cell again.")
        return True
    return False


def checker(wanted: str, *, of_function: bool = True):
    """Decorates a check, so that an answer of the wrong kind or one that raises gets a sentence.

    `wanted` says what kind of answer the check can judge. A function to be checked reaches the
    check wrapped: what it raises is told in the learner's words, not mistaken for a misfit.
    """

    def decorate(check: Callable[..., bool]) -> Callable[..., bool]:
        @wraps(check)
        def checked(answer: object, *more, **named) -> bool:
            if untried(answer):
                return False
            if of_function and not callable(answer):
                return tell(False, f"That is {_described(answer)}, where a function is wanted.")
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
                return tell(False, str(stopped))
            except _MISFITS:
                return tell(False, f"That is {_described(judged[0])}, where {wanted} is wanted.")

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


def numbers(answer: object, shape: tuple[int, ...]) -> np.ndarray:
    """`answer` as an array of this shape; TypeError when it holds anything but numbers."""
    array = np.asarray(answer)
    if array.dtype.kind not in "iuf" or array.shape != shape:
        raise TypeError
    return array


def number(answer: object) -> float:
    """`answer` as one number; TypeError when it is none."""
    return numbers(answer, ()).item()


def tokens(answer: object) -> list[str]:
    """`answer` as a list of tokens; TypeError for a bare string, or anything but strings."""
    found = list(answer)
    if isinstance(answer, str) or not all(isinstance(token, str) for token in found):
        raise TypeError
    return found
