"""Dataclasses whose fields are checked when they are made: type, bounds, one sentence if wrong."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from seqlm.errors import ConfigError


def _accepts(kind: object, value: object) -> bool:
    """Does `value` fit the annotation `kind`? Enough of typing for the fields below."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_args(kind):
        return any(_accepts(part, value) for part in get_args(kind))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is Path:
        return isinstance(value, str | Path) and str(value) != ""
    return type(value) is kind


def _named(kind: object) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if type(None) in get_args(kind):
        return " or ".join(_named(k) for k in get_args(kind) if k is not type(None)) + " or None"
    return getattr(kind, "__name__", str(kind))


class Checked:
    """Rejects values of the wrong type, and whatever `limits` of the class forbids.

    `limits` maps a field to (lowest, highest), both allowed; None leaves that side open.
    """

    limits = {}

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, kind = getattr(self, field.name), hints[field.name]
            if not _accepts(kind, value):
                text_for_number = kind is float and isinstance(value, str)
                hint = "; in YAML write 1.0e-3, not 1e-3" if text_for_number else ""
                raise ConfigError(f"{field.name}: expected {_named(kind)}, got {value!r}{hint}")
            low, high = self.limits.get(field.name, (None, None))
            if value is not None and (
                (low is not None and value < low) or (high is not None and value > high)
            ):
                bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                raise ConfigError(f"{field.name}: must be {bounds}, got {value!r}")
