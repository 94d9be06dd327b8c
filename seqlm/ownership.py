"""Whose an output folder is: one process writes to it at a time, and over nothing but our files."""

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from seqlm.atomic import MANIFEST, is_changed, read_manifest, sweep
from seqlm.errors import ConfigError, SeqlmError
from seqlm.utils import check_folder

LOCK = ".seqlm.lock"
CARD = "README.md"  # of a model; its owner is asked to edit it
MODELS = ("best_model", "final_model")
_NEVER_FOREIGN = (MANIFEST, LOCK, ".tmp-*", ".old-*")


@contextmanager
def locked(folder: Path, outputs: Iterable[Path] = (), lock: str = LOCK) -> Iterator[None]:
    """Let no other process use `folder`, which is made, meanwhile. Locks may be nested.

    What a killed process left where it wrote `outputs` is put right. The system frees the lock of a
    process that was killed. A new folder that is still empty in the end goes again. Raises
    SeqlmError, naming process, machine and time, when another holds the lock.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = Path(os.path.realpath(folder)) / lock
    file_lock = FileLock(file, is_singleton=True)
    try:
        file_lock.acquire(blocking=False)
    except Timeout:
        holder = "another process"
        with suppress(OSError):  # it may be gone by now
            holder = file.read_text(encoding="utf-8") or holder
        raise SeqlmError(
            f"{folder}: in use by {holder}; wait until it is done, or choose another folder"
        ) from None
    try:
        now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        file.write_text(f"process {os.getpid()} on {platform.node()} since {now}", encoding="utf-8")
        for path in outputs:
            sweep(path)
        yield
    finally:
        with suppress(OSError):
            if file_lock.lock_counter == 1:
                file.unlink()  # who opened it meanwhile notices, and makes a new one
            for path in made:
                path.rmdir()
        file_lock.release()


def is_locked(folder: Path) -> bool:
    """Whether this process has locked `folder`."""
    return FileLock(Path(os.path.realpath(folder)) / LOCK, is_singleton=True).is_locked


def check_output(
    folder: Path, names: Iterable[str], overwrite: bool = False, start: Path | None = None
) -> None:
    """Raise an error unless `names` may be written in `folder`; it makes nothing.

    ConfigError where one of them is not ours, unless `overwrite` is set, or where the model in
    `start` lies in one of them, or `folder` in a model; SeqlmError where it cannot be written.
    """
    check_folder(folder)
    out = folder.resolve()
    if start is not None:
        source = start.resolve()
        replaced = {(out / name).resolve() for name in names}
        if source in (out, *out.parents) or replaced & {source, *source.parents}:
            raise ConfigError(
                f"output_dir: {folder} contains the model to start from ({start}), or lies in it; "
                "choose another folder"
            )
    if any(path.name in MODELS and read_manifest(path)["run"] for path in (out, *out.parents)):
        raise ConfigError(f"output_dir: {folder} lies in a run's model; choose another folder")
    for path in (path for name in names if not overwrite for path in foreign(folder / name)):
        raise ConfigError(
            f"output_dir: {path} was not written by seqlm, or was changed since, and would be "
            "replaced; move it away, choose another folder, or pass --overwrite true"
        )


def foreign(path: Path) -> Iterator[Path]:
    """The files at `path` that no manifest proves ours."""
    if path.is_dir():
        ours = (*_NEVER_FOREIGN, *read_manifest(path)["ours"])
        for inside in sorted(path.iterdir()):
            if not any(fnmatchcase(inside.name, name) for name in ours):
                yield from foreign(inside)
    elif path.is_file() and is_changed(path):
        yield path


def set_aside(folder: Path, names: Iterable[str], also: Iterable[str] = ()) -> Path | None:
    """Move what an earlier run left at `names`, and `also`, to a new folder there; returns that.

    None where there is nothing at `names`. A manifest should go last: after a kill in between the
    rest is still ours. A folder behind a link is moved, not the link.
    """
    there = [name for name in names if _has_files(folder / name)]
    if not there:
        return None
    number = next(n for n in count(1) if not (folder / f"earlier_run_{n}").exists())
    aside = folder / f"earlier_run_{number}"
    aside.mkdir()
    for name in (*there, *also):
        if (folder / name).exists():
            shutil.move(os.path.realpath(folder / name), aside / name)
    return aside


def _has_files(path: Path) -> bool:
    return path.is_file() or path.is_dir() and bool({*os.listdir(path)} - {MANIFEST})
