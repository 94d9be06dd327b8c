"""Tokens, layouts and the vocabulary: codes and a class as a sequence of tokens, and back.

One vocabulary, two layouts of the same image::

    read   <IMG> <Z_017> … <Z_203> </IMG> <CLS> <CLS_3> <EOS>    to classify
    draw   <CLS> <CLS_3> <IMG> <Z_017> … <Z_203> </IMG> <EOS>    to generate

In some draw rows the class is hidden (``<CLS> <CLS> <IMG> …``), so that the same model also learns
to generate without a class, which guidance needs.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from seqlm.errors import DataError
from seqlm.utils import json_name, read_json

PAD, UNK, IMG, IMG_END, CLS, EOS = "<PAD>", "<UNK>", "<IMG>", "</IMG>", "<CLS>", "<EOS>"
STRUCTURAL = (PAD, UNK, IMG, IMG_END, CLS, EOS)
KIND_STRUCTURAL, KIND_CODE, KIND_CLASS, KIND_UNKNOWN = 0, 1, 2, 3

_CLASS_TOKEN = re.compile(r"<CLS_(\d+)>")

Tokens = tuple[str, ...]


def code_token(code: int) -> str:
    """The name of codebook entry `code`: 17 -> ``<Z_017>``."""
    return f"<Z_{code:03d}>"


def class_token(label: int) -> str:
    """The name of class `label`: 3 -> ``<CLS_3>``."""
    return f"<CLS_{label}>"


@lru_cache(maxsize=1 << 16)  # as is_code, below
def class_of(token: str) -> int | None:
    """The class a token names, or None when it names none: ``<CLS_3>`` -> 3."""
    match = _CLASS_TOKEN.fullmatch(token)
    return int(match[1]) if match else None


@lru_cache(maxsize=1 << 16)  # asked once for every token of every row, of few different ones
def is_code(token: str) -> bool:
    """Whether a token is a code: whatever is neither structural nor a ``<CLS_k>``.

    So vocabularies with names of their own are cut and measured in the same way.
    """
    return token not in STRUCTURAL and class_of(token) is None


def default_vocab(n_codes: int = 500, n_classes: int = 10) -> dict[str, int]:
    """Token -> id: the six structural tokens, then the codes, then the classes."""
    names = [*STRUCTURAL, *map(code_token, range(n_codes)), *map(class_token, range(n_classes))]
    return {name: index for index, name in enumerate(names)}


def read_vocab(path: str | Path) -> dict[str, int]:
    """Read vocab.json: token -> id, in the order of the ids.

    Raises DataError unless the ids run from 0 without gaps or
    repeats, the six structural tokens are there, and class tokens (if any) run from ``<CLS_0>``.
    """
    entries = read_json(path, pairs_hook=tuple)  # a dict would hide a token that is there twice
    if not isinstance(entries, tuple):
        raise DataError(
            f"{path}: expected an object that maps tokens to ids, got {json_name(entries)}"
        )
    problem = vocab_problem(entries)
    if problem:
        raise DataError(f"{path}: {problem}")
    return dict(sorted(entries, key=lambda entry: entry[1]))


def vocab_problem(entries: Sequence[tuple[str, Any]]) -> str | None:
    """What is wrong with these (token, id) pairs, in words, or None; `read_vocab` has the rules."""
    counts = Counter(token for token, _ in entries)
    owner: dict[int, str] = {}
    for token, index in entries:
        if token.split() != [token]:
            why = "is empty or holds white space, and rows are split at white space; rename it"
            return f"token {token!r} {why}"
        if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in token):
            return f"token {token!r} holds a control character or half a surrogate pair; rename it"
        if counts[token] > 1:
            return f"token {token!r} is listed twice; remove one of the two"
        if type(index) is not int or index < 0:
            wrong = json.dumps(index)
            return f"token {token!r} has the id {wrong}; give it a whole number from 0 up"
        if index in owner:
            both = f"{owner[index]!r} and {token!r}"
            return f"id {index} is used by both {both}; give each token its own id"
        owner[index] = token
    missing = [token for token in STRUCTURAL if token not in counts]
    if missing:
        names = ", ".join(missing)
        return f"the structural token {missing[0]!r} is missing; add {names} with ids of their own"
    n = len(owner)
    gap = next((index for index in range(n) if index not in owner), None)
    if gap is not None:
        above = f"though ids go up to {max(owner)}; number the {n} tokens from 0 to {n - 1}"
        return f"no token has the id {gap}, {above}"
    classes = sum(class_of(token) is not None for token in counts)
    absent = next((class_token(k) for k in range(classes) if class_token(k) not in counts), None)
    if absent is not None:
        names = f"<CLS_0> to <CLS_{classes - 1}>"
        return f"there are {classes} class tokens, but no {absent!r}; name them {names}"
    return None


def token_kinds(vocab: dict[str, int]) -> np.ndarray:
    """What each id is, as a number: ``KIND_CODE``, say; <UNK> is ``KIND_UNKNOWN``. (V,) int8."""
    kinds = np.full(len(vocab), KIND_STRUCTURAL, dtype=np.int8)  # (V,)
    kinds[[index for token, index in vocab.items() if is_code(token)]] = KIND_CODE
    kinds[class_ids(vocab)] = KIND_CLASS
    kinds[vocab.get(UNK, [])] = KIND_UNKNOWN
    return kinds


def class_ids(vocab: dict[str, int]) -> list[int]:
    """The ids of ``<CLS_0>``, ``<CLS_1>``, … in the order of the classes."""
    classes = [token for token in vocab if class_of(token) is not None]
    return [vocab[token] for token in sorted(classes, key=class_of)]


def read_layout(codes: Iterable[int], label: int) -> Tokens:
    """`codes` (P,) and their class in the read layout: the class comes last."""
    return (IMG, *map(code_token, codes), IMG_END, CLS, class_token(label), EOS)


def draw_layout(codes: Iterable[int], label: int | None) -> Tokens:
    """`codes` (P,) in the draw layout: the class comes first; None hides it."""
    return (*drawing_prompt(label), *map(code_token, codes), IMG_END, EOS)


def drawing_prompt(label: int | None) -> Tokens:
    """The prompt of the draw layout; None lets the model choose the class."""
    return (CLS, CLS if label is None else class_token(label), IMG)


def reading_prompt(tokens: Sequence[str]) -> Tokens:
    """`tokens` up to and including the ``<CLS>`` after the image: a classifier's input.

    Raises DataError when there is no ``</IMG> <CLS>``, or when a class token comes before it.
    """
    tokens = tuple(tokens)
    end = tokens.index(IMG_END) if IMG_END in tokens else -1
    if end < 0 or tokens[end + 1 : end + 2] != (CLS,):
        raise DataError(
            f"a row can be classified only if it holds '{IMG_END} {CLS}' (the read layout); this "
            f"one ends in '{' '.join(tokens[-4:])}'"
        )
    prompt = tokens[: end + 2]
    leaked = [token for token in prompt if class_of(token) is not None]
    if leaked:
        raise DataError(
            f"{leaked[0]} comes before the last {CLS}, so the input would contain the answer; use "
            "the read layout for classification"
        )
    return prompt


def layout_of(tokens: Sequence[str]) -> str:
    """ "read", "draw", or "other" for a row that follows neither layout."""
    if IMG not in tokens or IMG_END not in tokens:
        return "other"
    start, end = tokens.index(IMG), tokens.index(IMG_END)
    if start == 0 and tuple(tokens[end + 1 : end + 2]) == (CLS,):
        return "read"
    if start == 2 and tokens[0] == CLS:
        return "draw"
    return "other"


def codes_of(tokens: Sequence[str]) -> np.ndarray:
    """The code numbers between ``<IMG>`` and ``</IMG>``. (P,) int64.

    Raises DataError for a token there that is no ``<Z_k>``.
    """
    body = tokens[tokens.index(IMG) + 1 :] if IMG in tokens else tokens
    body = body[: body.index(IMG_END)] if IMG_END in body else body
    wrong = [token for token in body if not re.fullmatch(r"<Z_\d+>", token)]
    if wrong:
        raise DataError(f"{wrong[0]!r} is inside the image, where only <Z_k> is allowed")
    return np.array([int(token[3:-1]) for token in body], dtype=np.int64)


def shorten(tokens: Sequence[str], max_length: int) -> Tokens:
    """At most `max_length` tokens: codes are cut from the left, so the tail with the class stays.

    Cutting from the right, as tokenizers do unasked, would remove the class from every long row.
    An ``<UNK>`` stands for a code that the vocabulary lacks, and is cut like one. Raises DataError
    when not even one code would be left.
    """
    tokens = tuple(tokens)
    surplus = len(tokens) - max_length
    if surplus <= 0:
        return tokens
    codes = [place for place, token in enumerate(tokens) if token == UNK or is_code(token)]
    if len(codes) <= surplus:
        raise DataError(
            f"a row of {len(tokens)} tokens cannot be cut to {max_length}: only {len(codes)} of "
            "them are codes; raise max_length"
        )
    cut = set(codes[:surplus])
    return tuple(token for place, token in enumerate(tokens) if place not in cut)
