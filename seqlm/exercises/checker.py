"""What all checkers share: print one friendly line about an answer, never a traceback."""

from collections.abc import Callable, Mapping
from functools import wraps

import numpy as np

Answer = Callable[..., object]

# What numpy, math and plain Python raise for a value of another kind.
_MISFITS = (TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RuntimeError)


class Right(str):
    """The line about a right answer; any other string names a mistake."""


class _Missing(Exception):
    """There is no answer yet."""


class _Stopped(Exception):
    """The learner's function raised an exception, whose message ends the check."""


def checker(wanted: str, *, of_function: bool = True):
    """Decorate a check, which takes an answer and returns a line: `Right`, or the mistake.

    The decorated check prints the line and returns whether the answer is right. An answer that is
    missing (``...``) is no mistake. An answer of another kind than `wanted`, or a function that
    raises, gets a line as well.
    """

    def decorate(check: Callable[..., str]) -> Callable[..., bool]:
        @wraps(check)
        def checked(answer: object, *more, **named) -> bool:
            latest = [answer]  # what the check looks at, for the line about a misfit

            def function(*arguments) -> object:
                try:
                    latest[0] = answer(*arguments)
                except Exception as error:  # whatever a learner's code may raise
                    if "ellipsis" in str(error):  # it computed with a blank
                        raise _Missing from error
                    line = f"Your function stopped with {type(error).__name__}: {error}"
                    raise _Stopped(line) from error
                if latest[0] is None:
                    raise _Stopped("Your function returns nothing: it needs a `return`.")
                if latest[0] is ...:
                    raise _Missing
                return latest[0]

            try:
                if answer is ... or answer is None:
                    raise _Missing
                if of_function and not callable(answer):
                    line = f"That is {_described(answer)}, where a function is wanted."
                else:
                    line = check(function if of_function else answer, *more, **named)
            except _Missing:
                print(
                    "… Nothing to check yet: replace the ... with your answer and run this again."
                )
                return False
            except _Stopped as stopped:
                line = str(stopped)
            except _MISFITS:
                line = f"That is {_described(latest[0])}, where {wanted} is wanted."
            print(("✓ Right. " if isinstance(line, Right) else "✗ Not yet. ") + line)
            return isinstance(line, Right)

        return checked

    return decorate


def _described(answer: object) -> str:
    """The kind of an answer, and its size where it has one: "a list of 2"."""
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


def yes_or_no(answer: object) -> bool:
    """`answer` as True or False; TypeError when it is neither."""
    if not isinstance(answer, bool | np.bool_):
        raise TypeError
    return bool(answer)


def tokens(answer: object) -> list[str]:
    """`answer` as a list of tokens; TypeError for a bare string, or anything but strings."""
    listed = list(answer)
    if isinstance(answer, str) or not all(isinstance(token, str) for token in listed):
        raise TypeError
    return listed


def mistake(answer: object, wrong: Mapping[str, object], rel_tol: float = 1e-6) -> str | None:
    """The line about the first known mistake that gives `answer`, a number or an array."""
    for line, value in wrong.items():
        same = np.shape(value) == np.shape(answer)
        if same and np.allclose(answer, value, rtol=rel_tol, equal_nan=True):
            return line
    return None
