"""What a number was made with: it stands in every metrics file."""

import platform
from importlib.metadata import PackageNotFoundError, version

_NAMED = ("seqlm", "torch", "transformers", "scikit-learn", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in _NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
