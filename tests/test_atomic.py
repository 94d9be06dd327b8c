"""Files and folders are written whole or not at all, and what a kill leaves behind is put right."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seqlm.atomic import (
    MANIFEST,
    atomic_dir,
    atomic_path,
    is_changed,
    is_whole,
    read_manifest,
    sweep,
    write_manifest,
)
from seqlm.errors import SeqlmError
from seqlm.utils import write_text


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_block_puts_the_file_in_place_and_makes_its_folders(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(target) as aside:
        aside.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names_in(target.parent) == ["a.txt"]


def test_a_failed_block_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_the_temporary_name_keeps_the_suffix_that_numpy_chooses_a_format_by(tmp_path):
    with atomic_path(tmp_path / "book.npz") as aside:
        np.savez(aside, centers=np.arange(3))
    assert np.load(tmp_path / "book.npz")["centers"].tolist() == [0, 1, 2]


def test_a_linked_file_is_written_through_the_link(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_file_is_not_written_over_a_folder_nor_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SeqlmError, match="folder where a file should go"):
        write_text(tmp_path, "x")
    with pytest.raises(SeqlmError, match="cannot be made"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_a_folder_is_swapped_in_whole(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with atomic_dir(target) as aside:
        (aside / "new.txt").write_text("new")
        assert names_in(target) == ["old.txt"]
    assert names_in(target) == ["new.txt"]
    assert names_in(tmp_path) == ["model"]


def test_a_failed_block_leaves_the_old_folder_and_no_litter(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_dir(target) as aside:
        (aside / "new.txt").write_text("new")
        raise RuntimeError
    assert names_in(target) == ["old.txt"]
    assert names_in(tmp_path) == ["model"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_put_in_place(tmp_path, monkeypatch):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    rename = os.rename

    def failing(source, destination):
        if Path(source).name.startswith(".tmp-"):
            raise OSError("disk gone")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="disk gone"), atomic_dir(target) as aside:
        (aside / "new.txt").write_text("new")
    assert names_in(target) == ["old.txt"]
    assert names_in(tmp_path) == ["model"]


def test_a_folder_is_not_written_over_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    refused = pytest.raises(SeqlmError, match="a file where a folder should go")
    with refused, atomic_dir(tmp_path / "file"):
        pytest.fail("the block runs for nothing")
    assert (tmp_path / "file").read_text() == "mine" and names_in(tmp_path) == ["file"]


def test_a_place_that_is_not_writable_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(SeqlmError, match="not writable"):
        write_text(tmp_path / "a", "x")


@pytest.mark.parametrize("name", [".", ".."])
def test_the_current_folder_is_never_swapped_away(tmp_path, monkeypatch, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    with pytest.raises(SeqlmError, match="name a folder of its own"), atomic_dir(name):
        pass
    assert inside.is_dir()


def test_files_in_a_folder_follow_the_umask_whatever_wrote_them(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_dir(tmp_path / "model") as aside:
            (aside / "weights").touch(mode=0o600)
            (aside / "card").touch()
            (aside / "card").chmod(0o666)
            (aside / "adapter").mkdir(mode=0o700)
            (aside / "adapter" / "small").touch(mode=0o600)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*")}
    assert modes == {"weights": 0o640, "card": 0o640, "adapter": 0o750, "small": 0o640}


def test_contents_reach_the_disk_before_the_name_and_the_folder_after(tmp_path, monkeypatch):
    done, fsync = [], os.fsync

    def named(number):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{number}") else "file")
        fsync(number)

    def renaming(rename):
        return lambda *names: (done.append("rename"), rename(*names))

    monkeypatch.setattr(os, "fsync", named)
    monkeypatch.setattr(os, "replace", renaming(os.replace))
    monkeypatch.setattr(os, "rename", renaming(os.rename))
    write_text(tmp_path / "a.txt", "whole")
    assert done == ["file", "rename", "folder"]
    done.clear()
    with atomic_dir(tmp_path / "model") as aside:
        (aside / "weights").touch()
    assert done == ["file", "folder", "rename", "folder"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EFBIG, "File too large"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("basic_ios::clear: iostream error"),
        RuntimeError("PytorchStreamWriter failed writing file"),
        RuntimeError("I/O error: No space left on device"),
    ],
)
def test_a_full_disk_gets_a_sentence_and_leaves_the_old_file(tmp_path, error):
    (tmp_path / "a").write_text("old")
    message = "a: cannot be written .* make room"
    with pytest.raises(SeqlmError, match=message), atomic_path(tmp_path / "a"):
        raise error
    assert (tmp_path / "a").read_text() == "old" and names_in(tmp_path) == ["a"]


def killed_at(call: str, path: Path, block: str) -> None:
    """Run `block` in a process that is killed in place of its second `os` call of that name."""
    code = f"""
import os, pathlib, sys
from seqlm.atomic import atomic_dir, atomic_path
real, path, calls = os.{call}, pathlib.Path(sys.argv[1]), []
def killing(*names):
    calls.append(names)
    real(*names) if len(calls) == 1 else os._exit(9)
os.{call} = killing
{block}
"""
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9


def test_the_folder_comes_back_after_a_kill_between_the_two_renames(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    killed_at("rename", target, "with atomic_dir(path) as aside: (aside / 'new').touch()")
    assert not target.exists() and len(names_in(tmp_path)) == 2
    (tmp_path / ".tmp-my-model").touch()  # no name that we give
    sweep(target)
    assert names_in(tmp_path) == [".tmp-my-model", "model"] and names_in(target) == ["old.txt"]


def test_what_a_kill_left_is_swept_once_the_new_one_has_its_name(tmp_path):
    name = "model[1]"
    for folder in (name, f".old-01234567-{name}", f".tmp-01234567-{name}", ".tmp-01234567-model1"):
        (tmp_path / folder).mkdir()
    (tmp_path / name / ".tmp-89abcdef-README.md").write_text("half")
    (tmp_path / "link").symlink_to(tmp_path / name)
    sweep(tmp_path / "link")
    assert names_in(tmp_path) == [".tmp-01234567-model1", "link", name]
    assert names_in(tmp_path / name) == []


def test_a_folder_of_a_run_names_it_and_every_file(tmp_path):
    with atomic_dir(tmp_path / "model", "run 1", ours=["README.md"]) as aside:
        (aside / "weights").write_text("1")
    model = tmp_path / "model"
    about = json.loads((model / MANIFEST).read_text())
    assert (about["run"], [*about["files"]], about["ours"]) == ("run 1", ["weights"], ["README.md"])
    assert is_whole(model, "run 1") and not is_whole(model, "run 2")
    write_text(model / "card", "ours")
    (model / "notes").write_text("mine")
    assert [is_changed(model / name) for name in ("weights", "card", "notes")] == [0, 0, 1]
    (model / "weights").write_text("2")
    assert is_changed(model / "weights") and not is_whole(model, "run 1")
    (model / "weights").unlink()
    assert not is_whole(model, "run 1")


def test_a_file_is_ours_before_and_after_a_kill_in_the_middle_of_writing_it(tmp_path):
    write_manifest(tmp_path, "run 1")
    write_text(tmp_path / "a", "old")
    # The first to get its name is the manifest.
    killed_at("replace", tmp_path / "a", "with atomic_path(path) as aside: aside.write_text('new')")
    assert (tmp_path / "a").read_text() == "old" and not is_changed(tmp_path / "a")
    write_text(tmp_path / "a", "newer")
    assert not is_changed(tmp_path / "a")
    (tmp_path / "a").write_text("new")
    assert is_changed(tmp_path / "a")


def test_a_file_of_somebody_else_is_still_theirs_after_a_kill_in_the_middle_of_writing_it(tmp_path):
    write_manifest(tmp_path, "run 1", [tmp_path / "missing"])
    (tmp_path / "a").write_text("mine")
    killed_at("replace", tmp_path / "a", "with atomic_path(path) as aside: aside.write_text('new')")
    assert (tmp_path / "a").read_text() == "mine" and is_changed(tmp_path / "a")


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{}", '{"run": "x"}', "{", '{"run": "x", "files": {}, "ours": 3}']
    + ['{"run": "x", "files": [], "ours": []}', '{"run": [1], "files": {}, "ours": []}'],
)
def test_what_is_no_manifest_proves_nothing(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    (tmp_path / "a").touch()
    assert read_manifest(tmp_path)["run"] is None and is_changed(tmp_path / "a")
