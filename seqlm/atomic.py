"""Files and folders that appear whole or not at all, also when the power fails in between."""

import errno
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from seqlm.errors import SeqlmError

LOCK = ".seqlm.lock"
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
        os.replace(aside, target)
        flush(target.parent)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


@contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, and swap it in whole at the end.

    What lay at `path` before is removed only once the new folder is in its place; when the block
    raises, it stays as it was. Raises SeqlmError when the disk is full, or `path` is a file, or
    holds the current folder (swapping that away would take everything in it along).
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process use `folder`, which is made, meanwhile. Locks may be nested.

    The system frees the lock of a process that was killed. A new folder that is still empty
    in the end goes again. Raises SeqlmError, naming process, machine and time, when another holds
    the lock.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = Path(os.path.realpath(folder)) / LOCK
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        holder = file.read_text(encoding="utf-8") or "another process"
        raise SeqlmError(
            f"{folder}: in use by {holder}; wait until it is done, or choose another folder"
        ) from None
    try:
        now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        file.write_text(f"process {os.getpid()} on {platform.node()} since {now}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            if lock.lock_counter == 1:
                file.unlink()  # who opened it meanwhile notices, and makes a new one
            for path in made:
                path.rmdir()
        lock.release()
