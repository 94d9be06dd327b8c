"""Files and folders that appear whole or not at all, also when the power fails in between.

A folder that seqlm fills has a manifest, which tells our files from those of its user: MANIFEST,
with the "run" that wrote it, the hashes of its "files", and names that are "ours" whatever they
hold. `atomic_path` keeps the manifest of a file's folder, where there is one.
"""

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seqlm.errors import SeqlmError

MANIFEST = ".seqlm.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
# How torch and safetensors, whose errors have no number, put it.
_CANNOT_WRITE = ("iostream error", "PytorchStreamWriter", "I/O error")


def _beside(target: Path, kind: str) -> Path:
    # The name ends as the target's does: numpy and matplotlib choose a format by the suffix.
    return target.with_name(f".{kind}-{secrets.token_hex(4)}-{target.name}")


def _prepare(path: str | Path) -> Path:
    # A link is written through, so that a folder linked to a bigger disk stays there.
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SeqlmError(
            f"{path}: its folder cannot be made ({error.strerror}); choose another place"
        ) from error
    if not os.access(target.parent, os.W_OK):
        raise SeqlmError(f"{path}: its folder is not writable; choose another place")
    return target


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder, and rename it to `path` at the end.

    The folder is made when it is missing. When the block raises, `path` stays as it was.
    Raises SeqlmError when the folder cannot be written, the disk is full, or `path` is a folder.
    """
    target = _prepare(path)
    if target.is_dir():
        raise SeqlmError(f"{path}: this is a folder where a file should go; choose another name")
    aside = _beside(target, "tmp")
    try:
        with writing(path):
            yield aside
            flush(aside)
            _record(target, aside)
        os.replace(aside, target)
        flush(target.parent)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


@contextmanager
def atomic_dir(
    path: str | Path, run: str | None = None, ours: Iterable[str] = ()
) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, and swap it in whole at the end.

    With a `run` it gets a manifest. What lay at `path` before is removed only once the new folder
    is in its place; when the block raises, it stays as it was. Raises SeqlmError when the disk is
    full, or `path` is a file, or holds the current folder (swapping that away would take everything
    in it along).
    """
    target = _prepare(path)
    if target.exists() and not target.is_dir():
        raise SeqlmError(f"{path}: this is a file where a folder should go; choose another name")
    here = Path.cwd().resolve()
    if target == here or target in here.parents:
        raise SeqlmError(f"{path}: everything in it would be replaced; name a folder of its own")
    aside, old = _beside(target, "tmp"), _beside(target, "old")
    aside.mkdir()
    try:
        with writing(path):
            yield aside
            if run is not None:
                write_manifest(aside, run, aside.iterdir(), ours)
            settle(aside)
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(aside, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        flush(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raise SeqlmError, in one sentence, when the block cannot write: a full disk, a size limit."""
    try:
        yield
    except Exception as error:  # torch and safetensors raise types of their own
        full = isinstance(error, OSError) and error.errno in _FULL
        if not full and not any(words in str(error) for words in _CANNOT_WRITE):
            raise
        why = error.strerror if full else "the disk is full, or a file may not become so large"
        raise SeqlmError(
            f"{path}: cannot be written ({why}); make room, then run the same command again"
        ) from error


def settle(folder: Path) -> None:
    """Put a folder and its files on the disk, readable by whom the user's umask says.

    Some libraries make files that only their owner may read.
    """
    mode = folder.stat().st_mode  # of a folder made just now: what the umask leaves
    for path in sorted(folder.rglob("*")):
        path.chmod(mode & (0o777 if path.is_dir() else 0o666))
        flush(path)
    flush(folder)


def flush(path: Path) -> None:
    """Have the system put a file, or the names in a folder, on the disk now."""
    if os.name == "nt":  # where neither works
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sweep(path: Path) -> None:
    """Put right what a process that was killed while it wrote `path`, or in it, left behind.

    A folder comes back that was to be replaced by one that never got its name. Nobody else may be
    writing `path` meanwhile.
    """
    target, some = Path(os.path.realpath(path)), "[0-9a-f]" * 8
    for folder, name in ((target.parent, glob.escape(target.name)), (target, "*")):
        litter = [*folder.glob(f".old-{some}-{name}"), *folder.glob(f".tmp-{some}-{name}")]
        for left in litter:
            wanted = left.with_name(left.name.split("-", 2)[2])
            if left.name.startswith(".old-") and not wanted.exists():
                os.rename(left, wanted)
            elif left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def read_manifest(folder: Path) -> dict:
    """The manifest in `folder`; where there is none, its "run" is None and it names no file."""
    empty = {"run": None, "files": {}, "ours": []}
    with suppress(OSError, ValueError, AttributeError):
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        types = {name: type(value) for name, value in about.items()}
        if types == {"run": str, "files": dict, "ours": list}:
            return about
    return empty


def write_manifest(
    folder: Path, run: str, files: Iterable[Path] = (), ours: Iterable[str] = ()
) -> None:
    """Write the manifest of `folder`, which `run` fills; `ours` may be patterns."""
    hashes = {path.name: [_hash(path)] for path in sorted(files) if path.is_file()}
    _put(folder, {"run": run, "files": hashes, "ours": [*ours]})


def _record(target: Path, aside: Path) -> None:
    # Before `aside` gets its name: where a kill comes between, the old content is still ours.
    about = read_manifest(target.parent)
    if about["run"] is not None and target.name != MANIFEST:
        old = [_hash(target)] if target.is_file() and not is_changed(target) else []
        about["files"][target.name] = [*old, _hash(aside)]
        _put(target.parent, about)


def _put(folder: Path, about: dict) -> None:
    with atomic_path(folder / MANIFEST) as aside:
        aside.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(folder: Path, run: str) -> bool:
    """Whether `run` filled the folder, and all its files are as it left them."""
    about = read_manifest(folder)
    paths = [folder / name for name in about["files"]]
    return about["run"] == run and all(path.is_file() and not is_changed(path) for path in paths)


def is_changed(path: Path) -> bool:
    """Whether the manifest of its folder lacks this file, or has it with other content."""
    return _hash(path) not in read_manifest(path.parent)["files"].get(path.name, [])
