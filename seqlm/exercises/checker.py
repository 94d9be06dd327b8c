"""What all checkers share: each is a list of cases with the known mistakes, and prints one line."""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import wraps

import numpy as np

from seqlm.utils import read_json
from seqlm.workspace import notebooks_folder

# What a learner's function is called with, the right answer, and for each known mistake its line
# and what a function with that mistake returns; None where these arguments do not show it.
Case = tuple[tuple, object, Mapping[str, object]]
Cases = Iterator[Case]
Rng = np.random.Generator

BLANK = "… Nothing to check yet: replace the ... with your answer and run this again."
BUG = "… The bug is still there: "  # begins the line about a function as the notebook shows it
MESSAGES: list[tuple[str, str]] = []  # pattern, translation; empty where a notebook is English


def use_language(folder: str) -> None:
    """Say from now on what notebooks/<folder>/messages.json makes of the lines of exercises."""
    MESSAGES[:] = read_json(notebooks_folder() / folder / "messages.json")


def translated(text: str) -> str:
    """`text` in the language in use; so is what stands in its places for values."""
    for pattern, words in MESSAGES:
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return words.format(*map(translated, match.groups()))
    return text


class _Stopped(Exception):
    """The learner's function cannot be checked; the message says why."""


def exercise(right: str):
    """Decorate a generator of cases: it becomes the check of a learner's function.

    The check prints one line, never a traceback, and returns whether every answer is right; then
    the line is `right`. About a mistake that nobody thought of, it is the first paragraph of the
    docstring. `seed` is that of the random numbers in the cases.
    """

    def decorate(cases: Callable[[Rng], Cases]) -> Callable[..., bool]:
        @wraps(cases)
        def check(function: object, seed: int = 0) -> bool:
            try:
                line = None
                with np.errstate(all="ignore"):  # where exp overflows, a line of ours says it
                    for case in cases(np.random.default_rng(seed)):
                        line = line or _mistake(function, case, cases.__doc__.split("\n")[0])
            except _Stopped as stopped:
                line = str(stopped)
            begin = "✓ Right. " if line is None else "" if line[0] == "…" else "✗ Not yet. "
            print(translated(begin) + translated(line or right))
            return line is None

        check.cases = cases
        return check

    return decorate


def _mistake(function: object, case: Case, otherwise: str) -> str | None:
    """The line about the answer of `function` in one case; None when it is right."""
    arguments, want, mistakes = case
    own = deepcopy(arguments)
    answer = _call(function, own)
    texts = [repr([a for a in some if not hasattr(a, "detach")]) for some in (arguments, own)]
    if texts[0] != texts[1]:  # lists and arrays only: an optimizer may change a tensor
        return "Your function changed what it was called with; make a copy first."
    try:
        if _equal(answer, want):
            return None
        for line, value in mistakes.items():
            if value is not None and _equal(answer, value):
                return line
        if np.shape(answer) == np.shape(want):
            example = translated(_example(arguments, want, answer))
            return translated(f"Wanted is {otherwise}") + example
    except (TypeError, ValueError, RuntimeError):  # numpy, torch: a value of another kind
        pass
    wanted = "True or False" if isinstance(want, bool) else _described(want)
    return f"That is {_described(answer)}, where {wanted} is wanted."


def _call(function: object, arguments: tuple) -> object:
    if function is ...:
        raise _Stopped(BLANK)
    if not callable(function):
        raise _Stopped(f"That is {_described(function)}, where a function is wanted.")
    try:
        answer = function(*arguments)
    except Exception as error:  # whatever a learner's code may raise
        if "ellipsis" in str(error):  # it computed with a blank
            raise _Stopped(BLANK) from error
        first = str(error).split("\n")[0]  # torch's messages have many lines
        raise _Stopped(f"Your function stopped with {type(error).__name__}: {first}") from error
    if answer is None:
        raise _Stopped("Your function returns nothing: it needs a `return`.")
    if answer is ...:
        raise _Stopped(BLANK)
    return answer.detach() if hasattr(answer, "detach") else answer


def _equal(answer: object, value: object) -> bool:
    """Are both the same, numbers to five digits? TypeError for an answer of another kind."""
    value = value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)
    array, kind = np.asarray(answer), value.dtype.kind
    if array.dtype.kind not in (kind if kind in "bU" else "iuf"):
        raise TypeError
    if array.shape != value.shape or kind in "bU":
        return np.array_equal(array, value)
    array = np.where(array < -1e6, -np.inf, array)  # -1e9 hides a token as well as -inf does
    return np.allclose(array, value, rtol=1e-5, equal_nan=True)


def _example(arguments: tuple, want: object, answer: object) -> str:
    """One number, or one list of tokens or ids, beside the right one."""
    if isinstance(want, list):
        return f" For {arguments[0]} it is {want}, not {np.asarray(answer).tolist()}."
    is_number = np.ndim(want) == 0 and np.asarray(want).dtype.kind in "iuf"
    return f" Here it is {float(want):.6g}, not {float(answer):.6g}." if is_number else ""


def _described(answer: object) -> str:
    """The kind of an answer, and its size where it has one: "a list of 2"."""
    if answer is None or isinstance(answer, bool | np.bool_):
        return str(answer)
    if isinstance(answer, int | float | np.number) or getattr(answer, "shape", None) == ():
        return "one number"
    kind = {"ndarray": "array", "str": "string"}.get(type(answer).__name__, type(answer).__name__)
    name = f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
    shape = getattr(answer, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{name} of shape {tuple(shape)}"
    return f"{name} of {len(answer)}" if isinstance(answer, list | tuple) else name
