"""The grid holds pictures of seventeen levels, takes good ones and refuses others in a sentence."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from traitlets import TraitError

from seqlm.data.images import load_digits
from seqlm.errors import DataError
from seqlm.playground.painting import PaintGrid

ROOT = Path(__file__).parents[2]


def test_a_new_grid_is_a_blank_sheet_of_8_by_8():
    grid = PaintGrid()
    assert (grid.height, grid.width, grid.value) == (8, 8, [0] * 64)
    image = grid.image()
    assert image.shape == (8, 8) and image.dtype == np.float32 and not image.any()


def test_every_real_digit_comes_back_exactly_as_it_was_shown():
    grid = PaintGrid()
    for digit in load_digits()[0][:20]:
        grid.show(digit)
        assert np.array_equal(grid.image(), digit)


def test_rows_come_one_after_another():
    grid = PaintGrid(height=2, width=3)
    grid.show([[0, 0.5, 1], [0.25, 0, 0]])
    assert grid.value == [0, 8, 16, 4, 0, 0]
    assert grid.image()[0].tolist() == [0, 0.5, 1]


def test_ink_between_two_levels_is_rounded():
    grid = PaintGrid(height=1, width=2)
    grid.show([[0.49, 0.52]])
    assert grid.value == [8, 8]


def test_clear_blanks_the_sheet():
    grid = PaintGrid(value=[3] * 64)
    grid.clear()
    assert grid.value == [0] * 64


def test_whole_numbers_of_numpy_are_kept_as_plain_ones():
    grid = PaintGrid(height=1, width=2, value=list(np.array([3, 16])))
    assert grid.value == [3, 16] and {type(level) for level in grid.value} == {int}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([0] * 63, "value: 63 numbers, but 8 x 8 cells need 64"),
        ([0] * 10 + [17] + [0] * 53, "row 2, column 3 is 17; give whole numbers from 0"),
        ([-1] + [0] * 63, "row 1, column 1 is -1"),
        ([0.5] + [0] * 63, "row 1, column 1 is 0.5"),
        ([True] + [0] * 63, "row 1, column 1 is True"),
        (["1"] + [0] * 63, "row 1, column 1 is '1'"),
    ],
)
def test_a_value_that_is_no_picture_is_refused_and_the_old_one_stays(value, sentence):
    grid = PaintGrid(value=[5] * 64)
    with pytest.raises(TraitError, match=sentence):
        grid.value = value
    assert grid.value == [5] * 64


def test_what_a_page_sends_is_checked_too():
    grid = PaintGrid()
    grid.set_state({"value": [1] * 64})
    with pytest.raises(TraitError, match="64"):
        grid.set_state({"value": [1] * 65})
    assert grid.value == [1] * 64


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((8, 7)), r"its shape is \(8, 7\), but the grid's is \(8, 8\)"),
        (np.full((8, 8), 16), "run from 16 to 16; give ink from 0"),
        (np.full((8, 8), np.nan), "give ink from 0"),
        ([["ink"] * 8] * 8, "something that is not a number"),
        ([[0, 0], [0]], "something that is not a number"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_in_one_sentence(image, sentence):
    grid = PaintGrid(value=[5] * 64)
    with pytest.raises(DataError, match=sentence) as refused:
        grid.show(image)
    assert "\n" not in str(refused.value)
    assert grid.value == [5] * 64


@pytest.mark.parametrize("setting", [{"height": 0}, {"width": 65}, {"pen": 0.0}, {"pen": np.nan}])
def test_a_size_or_a_pen_that_cannot_be_is_refused(setting):
    with pytest.raises(TraitError, match=next(iter(setting))):
        PaintGrid(**setting)


def test_another_size_is_a_blank_sheet_unless_its_value_comes_with_it():
    grid = PaintGrid(value=[1] * 64)
    grid.height = 4
    assert grid.value == [0] * 32
    assert PaintGrid(height=2, width=2, value=[1, 2, 3, 4]).value == [1, 2, 3, 4]


def test_whoever_watches_hears_of_a_change_once():
    grid, heard = PaintGrid(), []
    grid.observe(lambda change: heard.append(change["new"][0]), names="value")
    grid.show(np.ones((8, 8)))
    grid.show(np.ones((8, 8)))
    grid.clear()
    assert heard == [16, 0]


def test_the_page_gets_the_script_and_the_style_and_neither_needs_a_network():
    grid = PaintGrid()
    outside = ("http:", "https:", "import ", "url(")
    for name, text in (("painting.js", str(grid._esm)), ("painting.css", str(grid._css))):
        assert text == (ROOT / "seqlm/playground/static" / name).read_text(encoding="utf-8")
        assert [word for word in outside if word in text] == []


def test_a_wheel_holds_the_script_and_the_style(tmp_path):
    # From a copy: setuptools leaves a build folder beside the sources.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(ROOT / "seqlm", tmp_path / "seqlm")
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    held = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {f"seqlm/playground/static/painting.{end}" for end in ("js", "css")} <= set(held)
