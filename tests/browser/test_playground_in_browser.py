"""Every control of the playground, used as a person would, under Voila and in JupyterLab: the page
shows what the same settings give in Python."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playable import playable

from seqlm.config import DRAWING, SampleConfig
from seqlm.data.tokens import draw_layout
from seqlm.playground.player import Player

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "08_playground.ipynb"
# Tall, because JupyterLab takes cells that are far out of sight from the page.
SCREEN = {"viewport": {"width": 1280, "height": 4200}}
ROLES = (
    "slider",
    "button",
    "radio",
    "radiogroup",
    "image",
    "table",
    "grid",
    "gridcell",
)
LONG = 120_000  # milliseconds: patience, not a promise

# The contrast of a text with whatever is painted behind it, by WCAG's formula.
CONTRAST = """
element => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = parts(colour).map(x => x / 255)
      .map(x => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  const ground = () => getComputedStyle(behind).backgroundColor;
  while (behind.parentElement && parts(ground())[3] === 0) behind = behind.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(ground())];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
"""

# Presses a button as soon as the page shows a text, however slow the machine or a hand is.
PRESS_WHEN = """
([button, pattern]) => {
  const watching = new MutationObserver(() => {
    if (button.disabled || !new RegExp(pattern).test(document.body.textContent)) return;
    watching.disconnect();
    button.click();
  });
  watching.observe(document.body, { subtree: true, childList: true, characterData: true });
}
"""


def expect(what, **options):
    from playwright.sync_api import expect as expected

    expected.set_options(timeout=LONG)
    return expected(what, **options)


class Visitor:
    """A person who uses the page and finds everything by its name."""

    def __init__(self, page) -> None:
        self.page = page

    def slider(self, name: str):
        return self.page.get_by_role("slider", name=name, exact=True).first

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    def digit(self, name: str, group: str = "digit"):
        return self.page.get_by_role("radiogroup", name=group).get_by_role(
            "radio", name=name, exact=True
        )

    def strategy(self, name: str):
        row = self.page.get_by_role("radiogroup", name="strategy").first
        return row.get_by_role("radio", name=re.compile(f"^{name}: "))

    def press(self, name: str, *keys: str) -> None:
        expect(self.slider(name)).to_be_enabled()
        self.slider(name).focus()
        for key in keys:
            self.page.keyboard.press(key)

    def press_when(self, name: str, pattern: str) -> None:
        """Have the page press a button itself once it shows a text that matches `pattern`."""
        self.page.evaluate(PRESS_WHEN, [self.button(name).element_handle(), pattern])

    def sees(self, text: str | re.Pattern, n: int = 1) -> None:
        """Wait until `text` stands on the page."""
        expect(self.page.get_by_text(text)).to_have_count(n)

    def shows(self, name: str, value: str) -> None:
        """Wait until a slider shows `value`, on the page and to screen readers."""
        expect(self.slider(name)).to_have_attribute("aria-valuetext", value)
        beside = self.slider(name).locator("xpath=following-sibling::span")
        expect(beside).to_have_text(value)


@pytest.fixture(scope="module")
def home(built, opinionated, vocab, tmp_path_factory) -> Path:
    """A project's folder with an untrained model."""
    return playable(tmp_path_factory.mktemp("home"), built, opinionated(), vocab).root


@pytest.fixture(scope="module")
def player(home) -> Player:
    """The same model, for what the page should show."""
    return Player.load(home / "outputs/laptop/best_model", home / "data/laptop")


@pytest.fixture(scope="module")
def voila_address(voila, home) -> str:
    return voila(NOTEBOOK, "--template=seqlm", SEQLM_HOME=str(home))


@pytest.fixture(scope="module", params=["voila", "lab"])
def opened_page(request, opened, run_all_cells, home, tmp_path_factory) -> Iterator:
    """The playground under one framework; all tests of the module use this page."""
    if request.param == "voila":
        with opened(request.getfixturevalue("voila_address"), **SCREEN) as seen:
            yield seen
    else:
        folder = tmp_path_factory.mktemp("notebooks")
        shutil.copy(NOTEBOOK, folder)
        address = request.getfixturevalue("lab")(folder, SEQLM_HOME=str(home))
        with opened(f"{address}/lab/tree/{NOTEBOOK.name}", **SCREEN) as seen:
            run_all_cells(seen.page)
            yield seen


@pytest.fixture
def visitor(opened_page, player) -> Iterator[Visitor]:
    """A 7 drawn with the default settings; after the test, no error of ours in the console."""
    person = Visitor(opened_page.page)
    expect(person.button("Draw the gallery")).to_be_visible()
    person.strategy("sample").check()
    for name, value in {**DRAWING, "top-k": 0, "seed": 42, "beams": 4}.items():
        slider = person.slider(name.replace("_", "-"))
        if float(slider.input_value()) != value:
            slider.evaluate(
                "(slider, value) => { slider.value = value;"
                " slider.dispatchEvent(new Event('change')); }",
                value,
            )
    person.digit("7").check()
    person.press("code", "End")
    drawing_shows(person, player)  # from here on nothing moves by itself
    yield person
    assert opened_page.our_errors == []


def drawn(player: Player, label: int | None = 7, **changes) -> tuple[str, str]:
    """What the page shows of a drawing: its digit, seed and class, and its surprisal."""
    config = replace(SampleConfig(**DRAWING), **changes)
    (codes,) = player.draw([label], config)
    (classes,) = player.classify(codes[None])
    digit = "any digit" if label is None else f"a {label}"
    total = player.trace_drawing(codes, label, config).surprisal.sum()
    result = f"classified as {classes.argmax()} ({classes.max():.0%})."
    return (
        f"Drawing of {digit}, seed {config.seed}; {result}",
        f"surprisal per code in nats (−ln p); total {total:.1f}",
    )


def drawing_shows(visitor: Visitor, player: Player, label: int | None = 7, **changes) -> None:
    message, caption = drawn(player, label, **changes)
    visitor.sees(message)
    expect(visitor.page.get_by_text(caption).first).to_be_visible()


# --- draw ---


def test_it_begins_with_a_seven_and_names_the_model(visitor, player):
    visitor.sees(re.compile("Model: outputs/laptop/best_model, 2 layers, 2 heads, 32 wide"))
    drawing_shows(visitor, player)
    image = visitor.page.get_by_role("img", name="drawing of a 7, first 16")
    expect(image).to_be_visible()
    expect(
        visitor.page.get_by_role("table", name="Next-token probabilities, code 16")
    ).to_be_visible()


def test_every_digit_can_be_chosen_with_the_mouse_and_with_arrow_keys(visitor, player):
    visitor.digit("3").click()
    expect(visitor.digit("3")).to_be_checked()
    drawing_shows(visitor, player, 3)
    visitor.digit("3").focus()
    visitor.page.keyboard.press("ArrowRight")
    expect(visitor.digit("4")).to_be_checked()
    drawing_shows(visitor, player, 4)
    visitor.digit("any").click()
    drawing_shows(visitor, player, None)
    expect(visitor.digit("any", "class")).to_be_checked()  # another row


@pytest.mark.parametrize(
    ("name", "keys", "shown", "changes"),
    [
        ("temperature", ["ArrowLeft", "ArrowLeft", "ArrowDown"], "0.75", {"temperature": 0.75}),
        ("temperature", ["End"], "3.00", {"temperature": 3.0}),
        ("top-k", ["ArrowUp", "ArrowRight", "ArrowRight"], "3", {"top_k": 3}),
        ("top-p", ["Home"], "0.05", {"top_p": 0.05}),
        ("guidance", ["End"], "5.00", {"guidance": 5.0}),
        ("seed", ["ArrowRight", "ArrowRight"], "44", {"seed": 44}),
    ],
)
def test_a_slider_moved_by_keyboard_draws_again(visitor, player, name, keys, shown, changes):
    visitor.press(name, *keys)
    visitor.shows(name, shown)
    drawing_shows(visitor, player, **changes)


def test_top_k_of_0_shows_as_all(visitor):
    visitor.shows("top-k", "all")


def test_a_strategy_disables_what_it_does_not_use(visitor, player):
    expect(visitor.slider("beams")).to_be_disabled()
    visitor.strategy("greedy").check()
    drawing_shows(visitor, player, strategy="greedy")
    for name in ("temperature", "top-k", "top-p", "beams", "seed"):
        expect(visitor.slider(name)).to_be_disabled()
    visitor.strategy("beam").check()
    drawing_shows(visitor, player, strategy="beam")
    expect(visitor.slider("temperature")).to_be_disabled()
    visitor.press("beams", "Home")
    visitor.shows("beams", "1")
    drawing_shows(visitor, player, strategy="beam", num_beams=1)
    visitor.strategy("sample").check()
    drawing_shows(visitor, player, num_beams=1)


def test_another_is_drawn_with_the_next_seed(visitor, player):
    visitor.button("Draw another (next seed)").click()
    visitor.shows("seed", "43")
    drawing_shows(visitor, player, seed=43)


def test_draw_plays_the_codes_from_the_first_and_can_be_paused(visitor):
    visitor.button("Draw").click()
    visitor.button("Pause code").click()
    expect(visitor.button("Play code")).to_be_visible()
    assert float(visitor.slider("code").input_value()) < 16


def test_the_code_slider_shows_the_drawing_so_far_and_play_goes_on_to_the_end(visitor, player):
    (codes,) = player.draw([7], SampleConfig(**DRAWING))
    trace = player.trace_drawing(codes, 7, SampleConfig(**DRAWING))
    visitor.press("code", "Home", "ArrowRight", "ArrowRight")
    visitor.sees("drawing of a 7, first 3 of 16 codes")
    visitor.sees(f"surprisal per code in nats (−ln p); total {trace.surprisal[:3].sum():.1f}")
    table = visitor.page.get_by_role("table", name="Next-token probabilities, code 3")
    for candidate in trace.candidates(2):
        row = table.get_by_role("row").filter(has_text=candidate.token)
        expect(row.get_by_role("cell")).to_have_text(
            [f"{candidate.probability:.1%}", f"{candidate.after:.1%}"]
        )
    expect(table.get_by_role("row").filter(has_text="(chosen)")).to_have_count(1)
    visitor.press("code", "End", "ArrowLeft")
    visitor.button("Play code").click()
    visitor.sees("drawing of a 7, first 16 of 16 codes")
    expect(visitor.button("Play code")).to_be_visible()  # it has stopped by itself


def test_the_strategy_and_the_buttons_work_by_keyboard(visitor, player):
    visitor.strategy("sample").focus()
    visitor.page.keyboard.press("ArrowRight")
    expect(visitor.strategy("greedy")).to_be_checked()
    drawing_shows(visitor, player, strategy="greedy")
    visitor.page.keyboard.press("ArrowLeft")
    drawing_shows(visitor, player)
    for key, seed in (("Enter", 43), ("Space", 44)):
        visitor.button("Draw another (next seed)").focus()
        visitor.page.keyboard.press(key)
        visitor.shows("seed", str(seed))
        drawing_shows(visitor, player, seed=seed)


# --- paint, complete, attention -----------------------------------------------------------------


def image_shows(visitor: Visitor, player: Player, image: np.ndarray, description: str) -> None:
    (codes,) = player.book.encode(image[None])
    classes, total = player.classify(codes[None])[0], player.trace_reading(codes).surprisal.sum()
    visitor.sees(f"{description}, encoded and decoded: the model’s input")
    visitor.sees(f"surprisal per code in nats (−ln p); total {total:.1f}")
    result = f"Classified as {classes.argmax()} ({classes.max():.0%})."
    expect(visitor.page.get_by_text(result, exact=True)).to_be_visible()
    visitor.sees(f"Upper half of: {description}.")


def ink(visitor: Visitor) -> np.ndarray:
    """What the grid shows. (8, 8) in 0..1"""
    names = visitor.page.get_by_role("gridcell").evaluate_all(
        "cells => cells.map(cell => cell.getAttribute('aria-label'))"
    )
    levels = [int(re.search(r"ink (\d+)", name)[1]) for name in names]
    return np.array(levels, np.float32).reshape(8, 8) / 16


def test_a_test_image_is_selected_by_keyboard(visitor, player):
    visitor.press("test image", "Home", "ArrowRight", "ArrowRight")
    image_shows(visitor, player, player.images[2], f"test image 2, labelled {player.labels[2]}")
    assert np.allclose(ink(visitor), player.images[2])


def test_an_image_painted_with_the_mouse_is_classified(visitor, player):
    visitor.press("test image", "Home", "ArrowRight")
    visitor.sees(f"Upper half of: test image 1, labelled {player.labels[1]}.")
    visitor.button("Clear").click()
    box = visitor.page.get_by_role("grid", name="Paint a digit").bounding_box()
    x, y = (box[side] + box[size] / 2 for side, size in (("x", "width"), ("y", "height")))
    visitor.page.mouse.move(x, box["y"] + 12)
    visitor.page.mouse.down()
    visitor.page.mouse.move(x, y, steps=4)
    visitor.page.mouse.up()
    expect(visitor.page.get_by_role("gridcell", name="row 2, column 4: ink 0 of 16")).to_have_count(
        0
    )
    image_shows(visitor, player, ink(visitor), "your painting")


def test_an_image_painted_by_keyboard_is_classified(visitor, player):
    visitor.button("Clear").click()
    visitor.button("Hard brush").click()
    cell = visitor.page.get_by_role("gridcell", name="row 1, column 1: ink 0 of 16")
    cell.focus()
    for key in ("Space", *["Shift+ArrowDown"] * 4, *["Shift+ArrowRight"] * 3):
        visitor.page.keyboard.press(key)
    expect(visitor.page.get_by_role("gridcell", name=re.compile("ink 16 of 16"))).to_have_count(8)
    image_shows(visitor, player, ink(visitor), "your painting")


@pytest.mark.parametrize("name", ["any", "4"])
def test_half_an_image_is_completed_five_times(visitor, player, name):
    # The page may show image 3 already, and would clear the completions when the keys arrive.
    last = len(player.labels) - 1
    visitor.press("test image", "End")
    visitor.sees(f"Upper half of: test image {last}, labelled {player.labels[last]}.")
    visitor.press("test image", "Home", "ArrowRight", "ArrowRight", "ArrowRight")
    visitor.sees(f"Upper half of: test image 3, labelled {player.labels[3]}.")
    visitor.digit(name, "class").check()
    visitor.button("Draw 5 completions").click()
    (codes,) = player.book.encode(player.images[3:4])
    label = None if name == "any" else int(name)
    classes = player.classify(player.complete(codes, label, SampleConfig(**DRAWING)))
    for i, p in enumerate(classes, 1):
        visitor.sees(f"{i}: classified as {p.argmax()} ({p.max():.0%})")
    visitor.sees(f"Classified as {', '.join(str(digit) for digit in classes.argmax(1))}.")
    visitor.sees("original")


def test_the_sliders_of_attention_choose_layer_head_and_token(visitor, player):
    visitor.digit("2").check()
    drawing_shows(visitor, player, 2)
    (codes,) = player.draw([2], SampleConfig(**DRAWING))
    weights, tokens = player.attention(codes), player.prompt(codes)

    def caption(layer: int, head: int, token: int) -> str:
        row = weights[layer - 1, head - 1, token - 1]
        others = ", ".join(f"{row[i]:.0%} to {tokens[i]}" for i in (0, 17, 18) if i < token)
        name = f"layer {layer}, head {head}, from {tokens[token - 1]}"
        return f"attention of {name} to each code, in percent; {others}"

    for name in ("layer", "head"):
        visitor.press(name, "Home")
    visitor.press("token", "End")
    visitor.sees(caption(1, 1, 19))
    visitor.press("layer", "ArrowRight")
    visitor.sees(caption(2, 1, 19))
    visitor.press("head", "End")
    visitor.sees(caption(2, 2, 19))
    visitor.press("token", "Home", *["ArrowRight"] * 4)
    visitor.sees(caption(2, 2, 5))


# --- the gallery ----------------------------------------------------------------------------------


def saved(visitor: Visitor, name: str) -> bytes:
    """What a link downloads; the page holds the bytes."""
    link = visitor.page.get_by_role("link", name=f"Download {name}")
    expect(link).to_be_visible()
    return base64.b64decode(link.get_attribute("href").partition("base64,")[2])


def test_a_gallery_is_drawn_and_can_be_downloaded(visitor, player):
    visitor.press("rows", "ArrowLeft")  # one change: of two, the second may come after the click
    visitor.shows("rows", "2")
    visitor.button("Draw the gallery").click()
    visitor.sees("done: 2 of 2 rows, 20 images")
    assert saved(visitor, "PNG").startswith(b"\x89PNG\r\n\x1a\n")
    rows = [json.loads(line) for line in saved(visitor, "JSONL").decode().splitlines()]
    codes = player.draw(range(10), SampleConfig(**DRAWING))
    expected = [" ".join(draw_layout(row, label)) for label, row in enumerate(codes)]
    assert [row["tokens"] for row in rows[:10]] == expected
    assert [row["label"] for row in rows] == [*range(10)] * 2
    expect(visitor.button("Stop")).to_be_disabled()


def test_a_long_gallery_shows_its_progress_and_can_be_stopped(visitor):
    visitor.press("rows", "End")
    visitor.shows("rows", "20")
    for _ in range(20):  # Python may be done before it hears of the button
        visitor.press_when("Stop", r"\d+ of 20 rows, about .+ left")
        visitor.button("Draw the gallery").click()
        visitor.sees(re.compile(r"^(stopped|done): \d+ of 20 rows, \d+ images$"))
        if visitor.page.get_by_text(re.compile("^stopped:")).count():
            break
    visitor.sees(re.compile(r"^stopped: \d+ of 20 rows, \d+ images$"))
    assert len(saved(visitor, "JSONL").splitlines()) % 10 == 0
    expect(visitor.button("Draw the gallery")).to_be_enabled()


# --- keyboards, screen readers, themes ------------------------------------------------------------


def test_tab_goes_through_the_controls_of_a_drawing_in_order(visitor):
    visitor.strategy("sample").focus()
    order = []
    for _ in range(12):
        order.append(
            visitor.page.evaluate(
                """() => {
                  const at = document.activeElement;
                  const named = at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent;
                  return (named ?? at.textContent).trim();
                }"""
            )
        )
        visitor.page.keyboard.press("Tab")
    assert order[1:-1] == [
        "temperature", "top-k", "top-p", "guidance", "seed", "7", "Draw",
        "Draw another (next seed)", "code", "Play code",
    ]  # fmt: skip


def test_every_control_has_a_name(visitor):
    session = visitor.page.context.new_cdp_session(visitor.page)
    controls = []
    for area in visitor.page.locator(".jp-OutputArea-output").all():
        area.evaluate("area => { window.area = area; }")
        node = session.send("Runtime.evaluate", {"expression": "window.area"})["result"]
        for role in ROLES:
            query = {"objectId": node["objectId"], "role": role}
            nodes = session.send("Accessibility.queryAXTree", query)["nodes"]
            controls += [(role, node["name"]["value"].strip()) for node in nodes]
    assert set(ROLES) == {role for role, _ in controls}
    assert len(controls) > 60 and [role for role, name in controls if not name] == []


def contrasts(visitor: Visitor) -> dict[str, float]:
    texts = {
        "label": ".seqlm-slider:not(:has(:disabled)) label",
        "help": ".seqlm-slider:not(:has(:disabled)) p",
        "digit": ".seqlm-choice span",
        "chosen digit": ".seqlm-choice input:checked + span",
        "notice": ".seqlm-notice:not(:empty)",
        "caption": ".seqlm figcaption",
        "head of a table": ".seqlm thead th",
        "cell": ".seqlm td.bar",
        "legend": ".seqlm-choice legend",
    }
    return {
        name: visitor.page.locator(selector).first.evaluate(CONTRAST)
        for name, selector in texts.items()
    }


def too_faint(visitor: Visitor) -> dict[str, float]:
    return {name: ratio for name, ratio in contrasts(visitor).items() if ratio < 4.5}


def in_theme(page, theme: str) -> None:
    page.evaluate(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}})")
    light = str("Light" in theme).lower()
    expect(page.locator(f"body[data-jp-theme-light={light}]")).to_be_attached()


def test_texts_can_be_read_in_a_light_theme(visitor):
    assert too_faint(visitor) == {}


def test_texts_can_be_read_in_jupyterlabs_dark_theme(visitor):
    if visitor.page.locator("body[data-voila]").count():
        pytest.skip("Voila takes its theme from the address; the test on a narrow screen does so")
    in_theme(visitor.page, "JupyterLab Dark")
    try:
        assert too_faint(visitor) == {}
    finally:
        in_theme(visitor.page, "JupyterLab Light")


@pytest.fixture(scope="module")
def telephone(opened, voila_address) -> Iterator:
    """The application on a narrow screen, in the dark theme."""
    screen = {"viewport": {"width": 400, "height": 900}}
    with opened(f"{voila_address}?theme=dark", **screen) as seen:
        expect(Visitor(seen.page).button("Draw the gallery")).to_be_visible()
        yield seen
        assert seen.our_errors == []


def test_texts_can_be_read_in_voilas_dark_theme(telephone):
    assert too_faint(Visitor(telephone.page)) == {}


def test_on_a_telephone_nothing_is_cut_off(telephone):
    beyond = telephone.page.evaluate(
        """() => [...document.querySelectorAll(".jp-OutputArea-output *")]
          .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
          .map(element => element.outerHTML.slice(0, 80))"""
    )
    assert beyond == []


def test_the_application_has_a_name_and_asks_no_other_host(telephone):
    page = telephone.page
    assert page.title() == "The playground · seqlm"
    assert page.locator("html").get_attribute("lang") == "en"
    heading = page.get_by_role("main").get_by_role("heading", level=1)
    expect(heading).to_have_text(re.compile("The playground"))
    expect(page.get_by_text("Likely is not typical")).to_have_count(0)  # it is tagged no-app
    assert telephone.left_the_machine == []


# --- no model yet ---------------------------------------------------------------------------------


def test_without_a_trained_model_the_one_of_28x28_pixels_fills_the_panels(voila, opened, tmp_path):
    address = voila(NOTEBOOK, "--template=seqlm", SEQLM_HOME=str(tmp_path / "home"))
    with opened(address, **SCREEN) as seen:
        visitor = Visitor(seen.page)
        visitor.sees(re.compile("It comes with seqlm; `make report` trains one of your own"))
        expect(visitor.button("Draw the gallery")).to_be_visible()
        visitor.sees(re.compile(r"^Drawing of a 7, seed 42;"))
        visitor.press("seed", "Home")
        visitor.shows("seed", "0")
        assert seen.our_errors == []
