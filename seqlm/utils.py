"""Text files, templates, JSON, hashes, fingerprints of code, durations, versions."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from seqlm.atomic import atomic_path
from seqlm.errors import DataError, SeqlmError

PACKAGE = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(PACKAGE, encoding="utf-8"),
    autoescape=lambda name: name.endswith(".html"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["short"] = "{:.5g}".format  # numbers in SVG


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text with \\n line ends, all of it or nothing."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as JSON, indented by two, keys in the order they were put in.

    Numpy scalars and arrays, tuples and paths are written as plain JSON. Raises SeqlmError, naming
    the key, for a number that is not finite and for anything else JSON cannot hold.
    """
    plain = _plain(obj, str(path), "")
    write_text(path, json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any, path: str, key: str) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise SeqlmError(f"{path}: {key or 'value'}: {value} is not a number JSON can hold")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v, path, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, path, f"{key}[{i}]") for i, v in enumerate(value)]
    raise SeqlmError(f"{path}: {key or 'value'}: a {type(value).__name__} cannot be put into JSON")


def load_template(path: str) -> Template:
    """The Jinja template `path` of this package; in an .html file what is filled in is escaped."""
    return _TEMPLATES.get_template(path)


def fill_template(path: str, /, **values: Any) -> str:
    """A Jinja template filled in, "training/report.md" for one.

    Raises jinja2.UndefinedError for a value that is missing.
    """
    return load_template(path).render(values)


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file (a byte-order mark is dropped). Raises DataError when that fails."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(why_unreadable(path, error)) from error


def why_unreadable(path: str | Path, error: OSError | UnicodeDecodeError) -> str:
    """One sentence for a file that could not be opened or is not UTF-8."""
    if isinstance(error, FileNotFoundError):
        return f"{path}: there is no such file; check the path"
    if isinstance(error, IsADirectoryError):
        return f"{path}: this is a folder, a file is wanted; name the file in it"
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: the text is not UTF-8 ({error.reason}); save the file as UTF-8"
    return f"{path}: the file cannot be read ({error.strerror or error}); check the file"


def read_json(path: str | Path, *, pairs_hook: Callable[[list], Any] | None = None) -> Any:
    """Read one JSON document; `pairs_hook` is json's `object_pairs_hook`.

    Raises DataError, naming line and column, when the file is missing, empty or not JSON.
    """
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: the file is empty; it must contain JSON")
    try:
        return json.loads(text, object_pairs_hook=pairs_hook)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}:{error.colno}: not valid JSON ({error.msg}); fix it there"
        ) from error
    except (RecursionError, ValueError) as error:  # a number of thousands of digits, for one
        raise DataError(f"{path}: not readable as JSON ({error!s:.90}); fix it") from error


def sha256_of(paths: str | Path | Iterable[str | Path]) -> str:
    """First 16 hex characters of the SHA-256 over the names and contents of files.

    A folder stands for all files in it. Names are relative to the folder that holds all of them, so
    neither order nor place on the disk matters. Raises DataError for a file that is missing.
    """
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    files = sorted({Path(os.path.abspath(file)) for path in named for file in _files_at(path)})
    if not files:
        raise DataError("there are no files to take a hash of; name at least one")
    root = os.path.commonpath([file.parent for file in files])
    total = hashlib.sha256()
    for file in files:
        try:
            with open(file, "rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise DataError(why_unreadable(file, error)) from error
        name = file.relative_to(root).as_posix()
        total.update(hashlib.sha256(name.encode()).digest() + content)
    return total.hexdigest()[:16]


def _files_at(path: str | Path) -> list[Path]:
    path = Path(path)
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def json_name(value: Any) -> str:
    names = {bool: "true/false", type(None): "null", dict: "object", str: "text", int: "number"}
    return {**names, float: "number", list: "list"}[type(value)]


def check_folder(path: str | Path) -> None:
    """Raise SeqlmError unless a folder is at `path`, or could be made, and can be written.

    It makes nothing; call it before long work whose result is to go there.
    """
    nearest = Path(os.path.realpath(path))
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise SeqlmError(f"{path}: {nearest} is a file, not a folder; choose another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise SeqlmError(f"{path}: {nearest} is not writable; choose another place")


def code_fingerprint(*names: str) -> str:
    """A hash that changes with the modules named, as "seqlm.data.build", and all they import."""
    return sha256_of(modules_behind("\n".join(f"import {name}" for name in names)))


def modules_behind(source: str) -> list[Path]:
    """The files of this package that the Python text `source` imports, and what those import.

    Sorted; a module comes with the `__init__` of every package it lies in. Lines that only a
    notebook understands (%magic, !shell) are passed over.
    """
    finder = _OwnModules([str(PACKAGE.parent)])
    text = io.StringIO(re.sub(r"(?m)^\s*[%!].*$", "", source))
    finder.load_module("__main__", text, "", ("", "r", 1))  # 1: Python text
    return sorted(Path(module.__file__) for module in finder.modules.values() if module.__file__)


class _OwnModules(ModuleFinder):
    def find_module(self, name, path, parent=None):
        if path is None and name != PACKAGE.name:  # of another package
            raise ImportError(name)
        return super().find_module(name, path, parent)


def format_duration(seconds: float) -> str:
    """Seconds as "1 s", "40 s", "9 min" or "2 h 5 min"."""
    seconds = max(1, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    numbers = {"python": platform.python_version()}
    for name in ("seqlm", "torch", "transformers", "scikit-learn", "numpy", "scipy"):
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            numbers[name] = "not installed"
    return numbers


def machine() -> dict[str, str | int]:
    """What decides how long things take; nothing that identifies one machine."""
    import torch

    gpus = torch.cuda.device_count()
    return {
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "gpu": torch.cuda.get_device_name() if gpus else "none",
    }
