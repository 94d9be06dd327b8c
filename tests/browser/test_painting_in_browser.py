"""The paint grid, used as a person would, under Voila and in JupyterLab; Python sees the same."""

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from seqlm.data.images import load_digits, split_indices
from seqlm.lab.image_quality import train_digit_classifier

# `state` shows the value in Python; the buttons let the page ask Python to change the grid.
NOTEBOOK = """
import ipywidgets, json
import numpy as np
from seqlm.playground.widgets import PaintGrid

grid = PaintGrid(label="A digit of yours")
state = ipywidgets.HTML()
changes = 0

def show_state(change=None):
    global changes
    changes += change is not None
    values = {"value": grid.value, "changes": changes}
    state.value = f'<code id="state">{json.dumps(values)}</code>'

grid.observe(show_state, names="value")
show_state()
show = ipywidgets.Button(description="Show a ramp")
show.on_click(lambda _: grid.show(np.arange(64).reshape(8, 8) // 4 / 16))
wipe = ipywidgets.Button(description="Wipe it")
wipe.on_click(lambda _: grid.show(np.zeros((8, 8))))
ipywidgets.VBox([grid, state, show, wipe])
"""
RAMP = [cell // 4 for cell in range(64)]
# Strokes as a hand makes them, in cells: [x, y] corners.
DIGITS = {
    0: [[[4, 0.8], [2.6, 1.8], [2.1, 4], [2.6, 6.2], [4, 7.2], [5.4, 6.2], [5.9, 4], [5.4, 1.8],
         [4, 0.8]]],
    1: [[[2.8, 2.2], [4.3, 0.8], [4.3, 7.3]]],
    2: [[[2.3, 2.2], [2.9, 1], [4.4, 0.8], [5.5, 1.8], [5.3, 3.3], [2.2, 7.2], [6, 7.2]]],
    3: [[[2.3, 0.8], [5.2, 0.8], [3.8, 3.4], [5.2, 4.2], [5.5, 5.8], [4.2, 7.2], [2.3, 6.5]]],
    4: [[[4.3, 0.7], [2, 5], [6.2, 5]], [[4.6, 3.2], [4.6, 7.3]]],
    5: [[[5.8, 0.8], [2.8, 0.8], [2.6, 3.6], [4.4, 3.4], [5.6, 4.8], [5.2, 6.5], [3.8, 7.2],
         [2.3, 6.6]]],
    6: [[[4.6, 0.7], [3, 3], [2.6, 5.5], [3.4, 7], [4.6, 7], [5.4, 5.8], [4.8, 4.4], [3.2, 4.8]]],
    7: [[[2.2, 0.8], [5.8, 0.8], [3.6, 7.3]], [[2.8, 4.2], [5.6, 4.2]]],
    8: [[[4, 4], [2.7, 2.6], [3, 1.2], [4, 0.8], [5.2, 1.4], [5.1, 2.8], [4, 4], [2.6, 5.2],
         [2.6, 6.6], [4, 7.3], [5.4, 6.6], [5.4, 5.2], [4, 4]]],
    9: [[[5.5, 3], [4.2, 4.3], [2.8, 3.6], [2.5, 2.2], [3.6, 0.9], [5, 1.2], [5.6, 2.6], [5.4, 5],
         [4.6, 6.8], [2.6, 7.2]]],
}  # fmt: skip


class Painter:
    """A person who paints: every method does what a hand or an eye does."""

    def __init__(self, page) -> None:
        self.page, self.mouse, self.keyboard = page, page.mouse, page.keyboard
        self.grid = page.get_by_role("grid", name="A digit of yours")
        self.grid.wait_for()
        self.button("Soft brush").click()
        self.grid.scroll_into_view_if_needed()

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point in cells lies on the screen."""
        box = self.grid.bounding_box()
        return box["x"] + x / 8 * box["width"], box["y"] + y / 8 * box["height"]

    def drag(self, *points, button: str = "left", steps: int = 4) -> None:
        self.mouse.move(*self.at(*points[0]))
        self.mouse.down(button=button)
        for _, end in pairwise(points):
            self.mouse.move(*self.at(*end), steps=steps)
        self.mouse.up(button=button)

    def seen(self) -> list[int]:
        """The levels that the page shows, from the names of its cells."""
        names = self.grid.get_by_role("gridcell").evaluate_all(
            "cells => cells.map(cell => cell.getAttribute('aria-label'))"
        )
        assert [name.partition(":")[0] for name in names] == [
            f"row {row}, column {column}" for row in range(1, 9) for column in range(1, 9)
        ]
        return [int(name.partition("ink ")[2].removesuffix(" of 16")) for name in names]

    def state(self) -> dict:
        return json.loads(self.page.locator("#state").inner_text())

    def agreed(self) -> list[int]:
        """The levels, once Python and the page hold the same."""
        self.page.wait_for_function(
            """() => {
              const state = JSON.parse(document.querySelector("#state").textContent).value;
              const names = [...document.querySelectorAll("[role=gridcell]")]
                .map(cell => cell.ariaLabel ?? cell.getAttribute("aria-label"));
              return state.every((level, i) => names[i].endsWith(`: ink ${level} of 16`));
            }"""
        )
        assert self.seen() == self.state()["value"]
        return self.seen()

    def status(self) -> str:
        return self.page.locator(".seqlm-paint-status").inner_text()

    def focused(self) -> str:
        return self.page.evaluate("document.activeElement.getAttribute('aria-label')")

    def enter(self) -> None:
        """Reach the grid with the Tab key, from the caption just before it."""
        self.grid.evaluate("grid => { grid.previousSibling.tabIndex = -1;"
                           " grid.previousSibling.focus(); }")  # fmt: skip
        self.keyboard.press("Tab")
        self.press(*["ArrowLeft"] * 7, *["ArrowUp"] * 7)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.keyboard.press(key)


@pytest.fixture(scope="module")
def folder(write_notebook, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("notebook")
    write_notebook(folder / "paint.ipynb", NOTEBOOK)
    return folder


@pytest.fixture(scope="module")
def voila_address(voila, folder) -> str:
    return voila(folder / "paint.ipynb")


@pytest.fixture(scope="module", params=["voila", "lab"])
def opened_page(request, opened, run_all_cells, folder) -> Iterator:
    """The notebook's page under one framework; all tests of the module use it."""
    if request.param == "voila":
        with opened(request.getfixturevalue("voila_address")) as seen:
            yield seen
    else:
        address = request.getfixturevalue("lab")(folder)
        with opened(f"{address}/lab/tree/paint.ipynb") as seen:
            run_all_cells(seen.page)
            yield seen


@pytest.fixture
def painter(opened_page) -> Iterator[Painter]:
    """A blank grid; after the test, no error of ours in the console."""
    person = Painter(opened_page.page)
    person.button("Clear").click()
    assert person.agreed() == [0] * 64
    yield person
    assert opened_page.our_errors == []


@pytest.fixture(scope="module")
def judge():
    images, labels = load_digits()
    train = split_indices(labels)["train"]
    return train_digit_classifier(images[train], labels[train])


def test_a_click_inks_a_cell_and_a_little_of_its_neighbours(painter):
    painter.mouse.click(*painter.at(3.5, 2.5))
    levels = np.reshape(painter.agreed(), (8, 8))
    assert levels[2, 3] == 16
    beside = [levels[1, 3], levels[3, 3], levels[2, 2], levels[2, 4]]
    assert len(set(beside)) == 1 and 0 < beside[0] < 8
    assert levels.sum() == 16 + sum(beside)


def test_a_drag_paints_a_line_and_python_sees_it(painter):
    before = painter.state()["changes"]
    painter.drag((3.5, 0.5), (3.5, 7.5), steps=1)  # one event: no cell on the way may be skipped
    levels = np.reshape(painter.agreed(), (8, 8))
    assert (levels[:, 3] == 16).all()
    assert (levels[1:7, [2, 4]] == levels[1, 2]).all() and 0 < levels[1, 2] < 8
    assert not levels[:, [0, 1, 5, 6, 7]].any()
    assert painter.status() == "Painted: 24 of 64 cells have ink."
    assert painter.state()["changes"] > before


def test_a_stroke_never_reduces_ink(painter):
    painter.drag((1.5, 4.5), (6.5, 4.5))
    before = painter.agreed()
    painter.drag((3.8, 1), (4.2, 7))
    after = painter.agreed()
    assert all(new >= old for old, new in zip(before, after, strict=True)) and after != before


def test_a_slow_stroke_is_sent_while_it_goes_on_but_not_with_every_move(painter):
    before, began, moves = painter.state()["changes"], time.monotonic(), 60
    painter.mouse.move(*painter.at(0.5, 0.5))
    painter.mouse.down()
    for step in range(moves + 1):
        painter.mouse.move(*painter.at(0.5 + 6 * step / moves, 0.5 + 6 * step / moves))
        painter.page.wait_for_timeout(5)
    painter.page.wait_for_function(
        f"JSON.parse(document.querySelector('#state').textContent).changes > {before}"
    )
    painter.mouse.up()
    # Python's answers to the first messages came while the stroke went on, and took nothing back.
    assert (np.diag(np.reshape(painter.agreed(), (8, 8)))[:7] == 16).all()
    n_changes, seconds = painter.state()["changes"] - before, time.monotonic() - began
    assert 2 <= n_changes <= 10 * seconds + 2


def test_what_is_painted_looks_like_a_digit_to_a_judge_of_real_ones(painter, judge):
    pictures = []
    for strokes in DIGITS.values():
        for stroke in strokes:
            painter.drag(*stroke, steps=1)
        pictures.append(np.reshape(painter.seen(), (8, 8)) / 16)
        painter.button("Clear").click()
    pictures = np.array(pictures, dtype=np.float32)
    real = load_digits()[0]
    assert judge.predict(pictures).tolist() == list(DIGITS)
    assert abs(pictures.mean() - real.mean()) < 0.05
    assert abs((pictures == 0).mean() - (real == 0).mean()) < 0.08
    assert abs((pictures == 1).mean() - (real == 1).mean()) < 0.05


def test_the_hard_brush_fills_cells_and_the_eraser_blanks_them(painter):
    painter.button("Hard brush").click()
    assert painter.button("Hard brush").get_attribute("aria-pressed") == "true"
    assert painter.button("Soft brush").get_attribute("aria-pressed") == "false"
    painter.drag((1.5, 1.5), (1.5, 5.5), steps=1)
    filled = [8 * row + 1 for row in range(1, 6)]
    assert painter.agreed() == [16 * (cell in filled) for cell in range(64)]
    painter.button("Eraser").click()
    painter.drag((1.2, 3.5), (1.8, 4.5))
    assert painter.agreed() == [16 * (cell in {9, 17, 41}) for cell in range(64)]
    assert painter.status() == "Erased: 3 of 64 cells have ink."


def test_the_right_button_erases_and_opens_no_menu(painter):
    painter.drag((0.5, 3.5), (7.5, 3.5))
    painter.drag((0.5, 3.5), (3.5, 3.5), button="right")
    levels = np.reshape(painter.agreed(), (8, 8))
    assert not levels[3, :4].any() and (levels[3, 4:] == 16).all()
    assert painter.page.locator(".lm-Menu:visible").count() == 0


def test_erased_ink_does_not_come_back_with_the_next_stroke(painter):
    painter.drag((2, 3.5), (6, 3.5))
    painter.button("Eraser").click()
    painter.mouse.click(*painter.at(3.5, 3.5))
    painter.button("Soft brush").click()
    painter.drag((3.5, 1.5), (3.5, 2.5))  # only its edge reaches the erased cell
    assert 0 < np.reshape(painter.agreed(), (8, 8))[3, 3] < 8


def test_the_grid_is_painted_by_keyboard_alone(painter):
    painter.enter()
    assert painter.focused() == "row 1, column 1: ink 0 of 16"
    painter.press("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "Space")
    assert painter.focused() == "row 3, column 4: ink 16 of 16"
    assert painter.status() == "Row 3, column 4: ink 16 of 16."
    painter.press("-", "-", "+", "-")
    assert painter.agreed()[19] == 14
    painter.press("Delete")
    assert painter.agreed()[19] == 0
    painter.press("+", "Escape")
    assert painter.focused() == "row 3, column 4: ink 1 of 16"
    painter.press("Backspace", "Home", "Enter")
    levels = painter.agreed()
    assert levels[19] == 0 and levels[16] == 16
    painter.press("End", "Shift+ArrowUp", "Shift+ArrowUp")
    assert [painter.agreed()[cell] for cell in (23, 15, 7)] == [16, 16, 16]


def test_the_grid_is_one_stop_of_the_tab_key_and_remembers_where_it_was(painter):
    painter.enter()
    painter.press("ArrowRight", "ArrowDown", "Tab")
    assert painter.page.evaluate("document.activeElement.textContent") == "Soft brush"
    painter.press("Shift+Tab")
    assert painter.focused() == "row 2, column 2: ink 0 of 16"
    stops = painter.grid.locator("[tabindex='0']")
    assert stops.count() == 1


def test_arrow_keys_stop_at_the_edge_and_show_where_they_are(painter):
    painter.enter()
    painter.press("ArrowUp", "ArrowLeft")
    assert painter.focused().startswith("row 1, column 1:")
    outline = painter.page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"
    painter.press(*["ArrowDown"] * 9, *["ArrowRight"] * 9)
    assert painter.focused().startswith("row 8, column 8:")


def test_undo_goes_back_stroke_by_stroke(painter):
    painter.drag((1, 1), (6, 1))
    one = painter.agreed()
    painter.drag((1, 6), (6, 6))
    two = painter.agreed()
    painter.button("Clear").click()
    painter.agreed()
    painter.button("Undo").click()
    assert painter.agreed() == two
    painter.enter()
    painter.press("Control+z")
    assert painter.agreed() == one != two
    painter.button("Undo").click()
    assert painter.agreed() == [0] * 64


def test_what_python_sets_shows_at_once_and_can_be_undone(painter):
    painter.drag((1, 1), (6, 6))
    painted = painter.agreed()
    painter.button("Show a ramp").click()
    painter.page.wait_for_function(
        "document.querySelector('.seqlm-paint-status').textContent.startsWith('New picture')"
    )
    assert painter.agreed() == RAMP
    shade = painter.grid.get_by_role("gridcell").nth(63)
    painter.page.wait_for_function(  # the change of colour takes a moment
        "cell => getComputedStyle(cell).backgroundColor.startsWith('rgb(16,')",  # 15 of 16
        arg=shade.element_handle(),
    )
    painter.button("Undo").click()
    assert painter.agreed() == painted
    painter.button("Wipe it").click()
    painter.page.wait_for_function(
        "[...document.querySelectorAll('[role=gridcell]')]"
        ".every(cell => cell.getAttribute('aria-label').endsWith('ink 0 of 16'))"
    )


def test_on_a_telephone_a_finger_paints_and_nothing_is_cut_off(voila_address, opened):
    screen = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with opened(voila_address, **screen, reduced_motion="reduce") as seen:
        person = Painter(seen.page)
        box = person.grid.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360
        assert box["width"] / 8 >= 24  # as large as a finger needs, WCAG 2.2, 2.5.8
        seen.page.touchscreen.tap(*person.at(4.5, 4.5))
        assert person.agreed()[36] == 16
        cell = person.grid.get_by_role("gridcell").first
        assert cell.evaluate("cell => getComputedStyle(cell).transitionDuration") == "0s"
        assert seen.our_errors == []
