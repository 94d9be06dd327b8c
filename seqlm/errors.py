"""The errors and warnings of seqlm: one sentence each, for the user."""

from collections.abc import Iterator
from contextlib import contextmanager


class SeqlmError(ValueError):
    """One clear sentence: where it is, what is wrong, how to fix it. The command line exits 2."""

    def _render_traceback_(self) -> list[str]:
        # IPython calls this, so that a notebook shows the sentence without a traceback.
        return [f"{type(self).__name__}: {self}"]


class DataError(SeqlmError):
    """A file, a row or a token does not follow the data contract (data/README.md)."""


class NotFiniteError(DataError):
    """A model's logits are infinite or not numbers."""


class ConfigError(SeqlmError):
    """A setting has a value that cannot work."""


class DataWarning(UserWarning):
    """The data can be read, but some of it is probably not what its owner meant."""


class PipelineError(Exception):
    """A notebook failed while it ran: which cell, and what it said. The command line exits 1."""


def printable(text: object) -> str:
    """`text` for a terminal: what is no printable character, but for line ends, is escaped.

    So a token or a file name can neither move the cursor nor hide what it is.
    """
    shown = (c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))
    return "".join(shown)


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Imports of what only this extra of seqlm installs; ConfigError names what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the package {error.name} is not installed; install seqlm with its extra: "
            f'pip install -e ".[{extra}]"'
        ) from error


@contextmanager
def error_prefix(prefix: object) -> Iterator[None]:
    """Put `prefix` before the message of a DataError that does not start with it."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(str(prefix)):
            raise
        raise DataError(f"{prefix}: {error}") from error
