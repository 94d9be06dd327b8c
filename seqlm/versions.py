"""What a number was made with: it stands in every metrics file."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

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


def machine() -> dict[str, str | int]:
    """What decides how long things take; nothing that tells one machine from its like."""
    gpus = torch.cuda.device_count()
    return {
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "gpu": torch.cuda.get_device_name() if gpus else "none",
    }
