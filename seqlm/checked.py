"""Frozen dataclasses whose fields pydantic checks; a wrong value raises one plain sentence."""

from dataclasses import asdict
from inspect import signature
from typing import Any, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from seqlm.errors import ConfigError


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def checked_dataclass(kind: type) -> type:
    """Make `kind` a frozen dataclass whose fields are checked; a wrong one raises ConfigError."""
    rules = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
    checked = dataclass(frozen=True, config=rules)(kind)
    check = checked.__init__

    def __init__(self, *values, **named):
        try:
            check(self, *values, **named)
        except ValidationError as error:
            raise _config_error(checked, error.errors()[0]) from None

    checked.__init__ = __init__
    return checked


def _config_error(kind: type, problem: dict[str, Any]) -> ConfigError:
    if "error" in problem.get("ctx", {}):  # raised in __post_init__
        return problem["ctx"]["error"]
    name, value = problem["loc"][0], problem["input"]
    if isinstance(name, int):  # the place of a value given without its name
        name = list(signature(kind).parameters)[name]
    message = problem["msg"].replace("Input should be", "must be").replace("Input is", "is")
    message = message.removesuffix(" for <class 'pathlib.Path'>")
    if problem["type"] in ("greater_than_equal", "less_than_equal"):
        low, high = bounds_of(kind, name)
        message = f"must be at least {low}" if high is None else f"must be between {low} and {high}"
    hint = ""
    if problem["type"] == "float_type" and isinstance(value, str):
        hint = "; in YAML write 1.0e-3, not 1e-3"
    return ConfigError(f"{name}: {message}, got {value!r}{hint}")


def bounds_of(kind: type, name: str) -> tuple[float | None, float | None]:
    """The lowest and the highest value of a field; None where that side is open."""
    limits = {k: v for x in kind.__pydantic_fields__[name].metadata for k, v in asdict(x).items()}
    return limits.get("ge"), limits.get("le")
