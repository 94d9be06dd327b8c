"""Reading vocab.json: which token has which id."""

import json
from pathlib import Path
from typing import Any

from seqlm.data.tokens import STRUCTURAL, class_of, class_token
from seqlm.errors import DataError
from seqlm.utils import json_name, read_json


def read_vocab(path: str | Path) -> dict[str, int]:
    """Read vocab.json: token -> id, in the order of the ids.

    Raises DataError, naming the token or the id, unless the ids run from 0 without gaps or
    repeats, the six structural tokens are there, and class tokens (if any) run from ``<CLS_0>``.
    """
    vocab = read_json(path, pairs_hook=lambda pairs: _object_of(pairs, path))
    if not isinstance(vocab, dict):
        raise DataError(f"{path}: a {json_name(vocab)} where an object of token: id is wanted")
    owner: dict[int, str] = {}
    for token, index in vocab.items():
        if not token or token.split() != [token]:
            raise DataError(
                f"{path}: token {token!r} is empty or holds white space, and rows are split at "
                "white space; rename it"
            )
        if type(index) is not int or index < 0:
            raise DataError(
                f"{path}: token {token!r} has the id {json.dumps(index)}; "
                "give it a whole number from 0 up"
            )
        if index in owner:
            raise DataError(
                f"{path}: id {index} is used by both {owner[index]!r} and {token!r}; "
                "give each token its own id"
            )
        owner[index] = token
    _check_vocab_names(owner, path)
    return {owner[index]: index for index in range(len(owner))}


def _object_of(pairs: list[tuple[str, Any]], path: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for token, index in pairs:
        if token in found:
            raise DataError(f"{path}: token {token!r} stands there twice; keep one of the two")
        found[token] = index
    return found


def _check_vocab_names(owner: dict[int, str], path: str | Path) -> None:
    names = set(owner.values())
    missing = [token for token in STRUCTURAL if token not in names]
    if missing:
        raise DataError(
            f"{path}: the structural token {missing[0]!r} is missing; add "
            f"{', '.join(missing)} with ids of their own"
        )
    gap = next((index for index in range(len(owner)) if index not in owner), None)
    if gap is not None:
        raise DataError(
            f"{path}: no token has the id {gap}, though ids go up to {max(owner)}; "
            f"number the {len(owner)} tokens from 0 to {len(owner) - 1}"
        )
    classes = sum(class_of(name) is not None for name in names)
    absent = [class_token(k) for k in range(classes) if class_token(k) not in names]
    if absent:
        raise DataError(
            f"{path}: there are {classes} class tokens, but no {absent[0]!r}; "
            f"name them <CLS_0> to <CLS_{classes - 1}>"
        )
