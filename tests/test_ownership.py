"""An output folder has one writer, and nothing that is not ours in it is lost or replaced."""

import shutil

import pytest
from filelock import FileLock, Timeout

from seqlm.atomic import MANIFEST, atomic_dir, write_manifest
from seqlm.errors import ConfigError, SeqlmError
from seqlm.ownership import LOCK, check_output, is_locked, locked, set_aside
from seqlm.utils import write_text


@pytest.fixture
def model(tmp_path):
    """A folder with a model of ours, whose card its owner may edit."""
    with atomic_dir(tmp_path / "model", "run 1", ours=["README.md"]) as aside:
        (aside / "weights").write_text("1")
    return tmp_path / "model"


def refused(folder, name="model"):
    return pytest.raises(ConfigError, match=f"{name} was not written by seqlm, or was changed")


def test_our_own_folder_may_be_replaced_whatever_is_in_its_card(model):
    check_output(model.parent, ["model", "absent"])
    (model / "README.md").write_text("licence: mine")
    check_output(model.parent, ["model"])


@pytest.mark.parametrize("name", ["notes.txt", "weights", "deep/er/notes.txt"])
def test_a_file_that_is_not_ours_or_was_changed_is_named(model, name):
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_text("mine")
    with refused(model.parent, f"model/{name}"):
        check_output(model.parent, ["model"])
    check_output(model.parent, ["model"], overwrite=True)
    check_output(model.parent, ["another"])


def test_a_folder_inside_with_a_manifest_of_its_own_is_ours(model):
    with atomic_dir(model / "adapter", "run 1") as aside:
        (aside / "weights").write_text("1")
    check_output(model.parent, ["model"])


def test_a_loose_file_is_ours_where_it_was_written_by_us(tmp_path):
    write_text(tmp_path / "report.md", "of whom?")
    with refused(tmp_path, "report.md"):
        check_output(tmp_path, ["report.md"])
    write_manifest(tmp_path, "run 1")
    write_text(tmp_path / "report.md", "ours")
    check_output(tmp_path, ["report.md"])


@pytest.mark.parametrize("folder", [".", "model", "model/out"])
def test_a_folder_that_holds_the_model_to_start_from_is_refused(model, folder):
    with pytest.raises(ConfigError, match="contains the model to start from"):
        check_output(model.parent / folder, ["model"], overwrite=True, start=model)
    check_output(model.parent, ["other"], start=model)


def test_the_model_to_start_from_may_lie_deeper_or_behind_a_link(model):
    (model.parent / "link").symlink_to(model)
    for start in (model / "adapter", model.parent / "link"):
        with pytest.raises(ConfigError, match="contains the model to start from"):
            check_output(model.parent, ["model"], start=start)


def test_an_earlier_run_moves_with_its_manifest_and_each_gets_a_number(tmp_path):
    assert set_aside(tmp_path, ["model"]) is None
    for number in (1, 2):
        write_manifest(tmp_path, f"run {number}")
        write_text(tmp_path / "report.md", f"of {number}")
        (tmp_path / "empty").mkdir(exist_ok=True)
        aside = set_aside(tmp_path, ["report.md", "empty"], also=[MANIFEST])
        assert aside == tmp_path / f"earlier_run_{number}"
        assert (aside / "report.md").read_text() == f"of {number}"
        check_output(aside, ["report.md"])
    assert not (tmp_path / MANIFEST).exists()
    write_manifest(tmp_path / "empty", "run 3")  # of checkpoints that are all gone
    assert set_aside(tmp_path, ["empty"]) is None
    shutil.rmtree(tmp_path / "empty")
    assert set_aside(tmp_path, ["report.md"], also=[MANIFEST]) is None


def test_what_lies_behind_a_link_is_moved_and_the_link_stays(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "model").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "big")
    aside = set_aside(tmp_path, ["link"])
    assert (aside / "link" / "model").read_text() == "1" and (tmp_path / "link").is_symlink()


def test_a_lock_may_be_nested_and_puts_right_what_a_kill_left(tmp_path):
    (tmp_path / ".tmp-01234567-a").touch()
    with locked(tmp_path), locked(tmp_path, [tmp_path / "a"]):
        assert not (tmp_path / ".tmp-01234567-a").exists()


def is_free(folder) -> bool:
    """Whether another process could lock the folder: each opens the file anew."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    lock.release()
    return True


def test_the_outermost_block_frees_the_folder_also_when_it_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        with locked(tmp_path):
            pass
        assert is_locked(tmp_path) and not is_free(tmp_path)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    assert not is_locked(tmp_path) and is_free(tmp_path)


def test_a_new_folder_in_which_nothing_was_made_goes_again(tmp_path):
    with locked(tmp_path / "new" / "out"):
        assert (tmp_path / "new" / "out" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "new" / "out"):
        (tmp_path / "new" / "out" / "made").touch()
    assert list((tmp_path / "new").rglob("*")) == [
        tmp_path / "new" / "out",
        tmp_path / "new" / "out" / "made",
    ]


def test_a_place_that_cannot_be_a_folder_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SeqlmError, match="is a file, not a folder"):
        check_output(tmp_path / "file" / "out", ["model"])
