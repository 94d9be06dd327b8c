"""What seqlm says when something a person gave it cannot be used."""


class SeqlmError(ValueError):
    """One clear sentence: where it is, what is wrong, how to mend it. The command line exits 2."""


class DataError(SeqlmError):
    """A file, a row or a token does not follow the data contract (data/README.md)."""


class ConfigError(SeqlmError):
    """A setting has a value that cannot work."""


class DataWarning(UserWarning):
    """The data can be read, but some of it does not mean what its owner probably thinks."""
