"""Sliders, choices and the paint grid: their values, limits and refusals."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from traitlets import TraitError

from seqlm.data.images import load_digits
from seqlm.playground.widgets import Choice, Notice, PaintGrid, Slider

ROOT = Path(__file__).parents[2]


def test_a_slider_stays_within_its_limits():
    slider = Slider("rows", 1, 5, value=3)
    for value, kept in ((9, 5), (-2, 1), (4, 4)):
        slider.value = value
        assert slider.whole == kept


def test_the_options_of_a_choice_stand_for_values_and_none_is_one():
    choice = Choice("digit", {"0": 0, "1": 1, "any": None}, -1)
    assert (choice.index, choice.value, choice.names) == (2, None, ["0", "1", "any"])
    for index, value in ((1, 1), (9, None), (-1, 0)):
        choice.index = index
        assert choice.value == value


@pytest.mark.parametrize("widget", [Slider, Choice, Notice, PaintGrid])
def test_the_scripts_and_styles_of_the_widgets_need_no_network(widget):
    outside = ("http:", "https:", "import ", "url(")
    assert [word for word in outside if word in f"{widget._esm}{widget._css}"] == []


def test_a_new_grid_is_blank_with_8_by_8_cells():
    grid = PaintGrid()
    assert (grid.height, grid.width, grid.value) == (8, 8, [0] * 64)
    image = grid.image()
    assert image.shape == (8, 8) and image.dtype == np.float32 and not image.any()


def test_every_real_digit_is_returned_exactly_as_it_was_shown():
    grid = PaintGrid()
    for digit in load_digits()[0][:20]:
        grid.show(digit)
        assert np.array_equal(grid.image(), digit)


def test_the_values_run_row_by_row():
    grid = PaintGrid(height=2, width=3)
    grid.show([[0, 0.5, 1], [0.25, 0, 0]])
    assert grid.value == [0, 8, 16, 4, 0, 0]
    assert grid.image()[0].tolist() == [0, 0.5, 1]


def test_ink_between_two_levels_is_rounded():
    grid = PaintGrid(height=1, width=2)
    grid.show([[0.49, 0.52]])
    assert grid.value == [8, 8]


def test_clear_blanks_the_grid():
    grid = PaintGrid(value=[3] * 64)
    grid.value = [0] * len(grid.value)
    assert grid.value == [0] * 64


def test_whole_numbers_of_numpy_become_ints():
    grid = PaintGrid(height=1, width=2, value=list(np.array([3, 16])))
    assert grid.value == [3, 16] and {type(level) for level in grid.value} == {int}


@pytest.mark.parametrize(
    "value", [[0] * 63, [17] + [0] * 63, [-1] + [0] * 63, [0.5] + [0] * 63, ["1"] + [0] * 63]
)
def test_an_invalid_value_is_refused_and_the_old_one_stays(value):
    grid = PaintGrid(value=[5] * 64)
    with pytest.raises(TraitError, match=r"value: give 64 whole numbers from 0 .* 8 x 8 cells"):
        grid.value = value
    assert grid.value == [5] * 64


def test_values_from_the_page_are_checked_too():
    grid = PaintGrid()
    grid.set_state({"value": [1] * 64})
    with pytest.raises(TraitError, match="64"):
        grid.set_state({"value": [1] * 65})
    assert grid.value == [1] * 64


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 7)),
        np.full((8, 8), 16),
        np.full((8, 8), np.nan),
        [[0, 0], [0]],
    ],
)
def test_an_invalid_image_is_refused(image):
    grid = PaintGrid(value=[5] * 64)
    with pytest.raises((TraitError, ValueError)):
        grid.show(image)
    assert grid.value == [5] * 64


@pytest.mark.parametrize("setting", [{"height": 0}, {"width": 65}, {"pen": 0.0}, {"pen": 65.0}])
def test_an_invalid_size_or_pen_is_refused(setting):
    with pytest.raises(TraitError, match=next(iter(setting))):
        PaintGrid(**setting)


def test_another_size_blanks_the_grid_unless_its_value_comes_with_it():
    grid = PaintGrid(value=[1] * 64)
    grid.height = 4
    assert grid.value == [0] * 32
    assert PaintGrid(height=2, width=2, value=[1, 2, 3, 4]).value == [1, 2, 3, 4]


def test_observers_are_called_once_per_change():
    grid, calls = PaintGrid(), []
    grid.observe(lambda change: calls.append(change["new"][0]), names="value")
    grid.show(np.ones((8, 8)))
    grid.show(np.ones((8, 8)))
    grid.value = [0] * len(grid.value)
    assert calls == [16, 0]


def test_a_wheel_holds_the_scripts_and_styles(tmp_path):
    # From a copy: setuptools leaves a build folder beside the sources.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(ROOT / "seqlm", tmp_path / "seqlm")
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for folder in ("seqlm/static", "seqlm/deploy/page"):
        names = {str(path.relative_to(ROOT)) for path in (ROOT / folder).iterdir()}
        assert names <= set(files), folder
