"""The page of a model, from the disk and without a network: each control shows what Python says."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playable import save_model

from seqlm.config import DRAWING, SampleConfig
from seqlm.data.tokens import read_layout, reading_prompt
from seqlm.deploy.html_page import export_page
from seqlm.models.generation import generate_sentences, next_token_probabilities, token_ids
from seqlm.models.gpt2 import build_lm
from seqlm.playground.player import Player

# `npm install` in this folder, as its package.json says, brings axe-core; it is not in the project.
AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
OPTIONS = {"viewport": {"width": 1280, "height": 900}, "offline": True}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def expect(what):
    from playwright.sync_api import expect as expected

    expected.set_options(timeout=30_000)
    return expected(what)


class Visitor:
    """A person who finds everything by its name."""

    def __init__(self, page) -> None:
        self.page = page

    def slider(self, name: str):
        return self.page.get_by_role("slider", name=name, exact=True)

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    def radio(self, group: str, name: str):
        row = self.page.get_by_role("radiogroup", name=group)
        return row.get_by_role("radio", name=re.compile(f"^{name}(:|$)"))

    def sees(self, text: str | re.Pattern) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible()

    def press(self, name: str, *keys: str) -> None:
        self.slider(name).focus()
        for key in keys:
            self.page.keyboard.press(key)


@pytest.fixture(scope="module")
def player(built, opinionated, vocab, tmp_path_factory) -> Player:
    folder = tmp_path_factory.mktemp("page") / "best_model"
    return Player.load(save_model(opinionated(), vocab, folder, built.book))


@pytest.fixture(scope="module")
def file(player, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mailed") / "digits.html"
    export_page(player.directory, path)
    return path


@pytest.fixture(scope="module")
def seen(opened, file) -> Iterator:
    """The page, which all tests of the module use; nothing but the file itself was asked for."""
    with opened(file.as_uri(), **OPTIONS) as page:
        page.page.get_by_text("Model: ").wait_for()
        yield page
        asked = {url for url in page.requests if not url.startswith("blob:")}
        assert page.errors == [] and asked == {file.as_uri()}


@pytest.fixture
def visitor(seen) -> Iterator[Visitor]:
    """A 7 drawn with the default settings; after the test, no error in the console."""
    person = Visitor(seen.page)
    person.radio("strategy", "sample").check()
    for name, value in {**DRAWING, "top-k": 0, "seed": 42, "beams": 4}.items():
        person.slider(name.replace("_", "-")).evaluate(
            "(slider, value) => { slider.value = value;"
            " slider.dispatchEvent(new Event('change')); }",
            value,
        )
    person.radio("digit", "7").check()
    yield person
    assert seen.errors == []


def drawing_shows(visitor: Visitor, player: Player, label: int | None = 7, **changes) -> None:
    """Wait until the page shows what Python draws: seed, class, and surprisal of the codes."""
    config = replace(SampleConfig(**DRAWING), **changes)
    (codes,) = player.draw([label], config)
    (classes,) = player.classify(codes[None])
    total = player.trace_drawing(codes, label, config).surprisal.sum()
    digit = "any digit" if label is None else f"a {label}"
    result = f"classified as {classes.argmax()} \\({classes.max():.0%}\\)"
    visitor.sees(re.compile(f"Drawing of {digit}, seed {config.seed}, in .* s; {result}"))
    visitor.sees(f"surprisal per code in nats (−ln p); total {total:.1f}")


def test_it_draws_what_python_draws_whatever_digit_is_chosen(visitor, player):
    drawing_shows(visitor, player)
    visitor.radio("digit", "3").check()
    drawing_shows(visitor, player, 3)
    visitor.radio("digit", "3").focus()
    visitor.page.keyboard.press("ArrowRight")
    drawing_shows(visitor, player, 4)
    visitor.radio("digit", "any").check()
    drawing_shows(visitor, player, None)


@pytest.mark.parametrize(
    ("name", "keys", "changes"),
    [
        ("temperature", ["End"], {"temperature": 3.0}),
        ("top-k", ["ArrowUp"] * 3, {"top_k": 3}),
        ("top-p", ["Home"], {"top_p": 0.05}),
        ("guidance", ["End"], {"guidance": 5.0}),
        ("seed", ["ArrowRight"] * 2, {"seed": 44}),
    ],
)
def test_a_slider_moved_by_keyboard_draws_again(visitor, player, name, keys, changes):
    visitor.press(name, *keys)
    drawing_shows(visitor, player, **changes)


def test_every_strategy_and_the_sliders_it_uses(visitor, player):
    expect(visitor.slider("beams")).to_be_disabled()
    visitor.radio("strategy", "greedy").check()
    drawing_shows(visitor, player, strategy="greedy")
    expect(visitor.slider("temperature")).to_be_disabled()
    visitor.radio("strategy", "beam").check()
    drawing_shows(visitor, player, strategy="beam")
    visitor.press("beams", "Home", "ArrowRight")
    drawing_shows(visitor, player, strategy="beam", num_beams=2)


def test_another_is_drawn_with_the_next_seed_and_draw_plays_the_codes(visitor, player):
    visitor.button("Draw another (next seed)").click()
    drawing_shows(visitor, player, seed=43)
    visitor.button("Draw").click()
    visitor.button("Pause code").click()
    assert float(visitor.slider("code").input_value()) < 16
    visitor.press("code", "End", "ArrowLeft")
    visitor.button("Play code").click()
    visitor.sees("drawing of a 7, first 16 of 16 codes")
    expect(visitor.button("Play code")).to_be_visible()


def test_the_code_slider_shows_the_candidates_at_each_code(visitor, player):
    drawing_shows(visitor, player)
    config = SampleConfig(**DRAWING)
    (codes,) = player.draw([7], config)
    trace = player.trace_drawing(codes, 7, config)
    visitor.press("code", "Home", "ArrowRight", "ArrowRight")
    visitor.sees("drawing of a 7, first 3 of 16 codes")
    table = visitor.page.get_by_role("table", name="Next-token probabilities, code 3")
    for candidate in trace.candidates(2):
        cells = table.get_by_role("row").filter(has_text=candidate.token).get_by_role("cell")
        expect(cells).to_have_text([f"{candidate.probability:.1%}", f"{candidate.after:.1%}"])
    expect(table.get_by_role("row").filter(has_text="(chosen)")).to_have_count(1)
    box = visitor.page.get_by_role("img", name=re.compile("^surprisal")).first.bounding_box()
    x, y = box["x"] + 0.9 * box["width"], box["y"] + 0.4 * box["height"]
    visitor.page.mouse.click(x, y)  # the patch in column 4 of row 2
    visitor.sees("drawing of a 7, first 8 of 16 codes")


def painted(visitor: Visitor) -> np.ndarray:
    """What the grid shows. (8, 8) in 0..1"""
    names = visitor.page.get_by_role("gridcell").evaluate_all(
        "cells => cells.map(cell => cell.getAttribute('aria-label'))"
    )
    levels = [int(re.search(r"ink (\d+)", name)[1]) for name in names]
    return np.array(levels, np.float32).reshape(8, 8) / 16


def painting_shows(visitor: Visitor, player: Player) -> np.ndarray:
    """Wait until the painting is read as Python reads it; returns its codes."""
    (codes,) = player.book.encode(painted(visitor)[None])
    (classes,) = player.classify(codes[None])
    result = f"classified as {classes.argmax()} ({classes.max():.0%})."
    visitor.sees(f"Your painting is {result}")
    visitor.sees("Upper half of: your painting.")
    table = visitor.page.get_by_role("table", name="Classification").last
    expect(table.get_by_role("cell")).to_have_text([f"{share:.1%}" for share in classes])
    return codes


def paint(visitor: Visitor) -> None:
    visitor.button("Clear").click()
    grid = visitor.page.get_by_role("grid", name="Paint a digit")
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"]
    visitor.page.mouse.move(x, y + 12)
    visitor.page.mouse.down()
    visitor.page.mouse.move(x + 20, y + box["height"] - 12, steps=5)
    visitor.page.mouse.up()


def test_a_painting_is_read_by_mouse_and_by_keyboard(visitor, player):
    paint(visitor)
    painting_shows(visitor, player)
    visitor.button("Clear").click()
    visitor.sees("Nothing is painted yet.")
    visitor.button("Hard brush").click()
    visitor.page.get_by_role("gridcell").first.focus()
    for key in ("Space", *["Shift+ArrowDown"] * 4, *["Shift+ArrowRight"] * 3):
        visitor.page.keyboard.press(key)
    assert painted(visitor).sum() == 8
    painting_shows(visitor, player)


def test_half_a_painting_is_completed_as_python_completes_it(visitor, player):
    paint(visitor)
    codes = painting_shows(visitor, player)
    visitor.radio("class", "2").check()
    visitor.button("Draw 4 completions").click()
    done = player.complete(codes, 2, SampleConfig(**DRAWING), 4)
    classes = player.classify(done).argmax(1)
    visitor.sees(f"Classified as {', '.join(map(str, classes))}.")
    expect(visitor.page.get_by_role("img", name=re.compile("^4: classified"))).to_be_visible()
    visitor.radio("strategy", "greedy").check()
    drawing_shows(visitor, player, strategy="greedy")
    visitor.button("Draw 4 completions").click()
    visitor.sees("greedy has only one result.")


def test_attention_of_every_layer_and_head_is_that_of_torch(visitor, player):
    drawing_shows(visitor, player)
    (codes,) = player.draw([7], SampleConfig(**DRAWING))
    tokens, weights = reading_prompt(read_layout(codes, 0)), player.attention(codes)
    for layer, head, query in ((2, 1, 19), (1, 2, 19), (1, 2, 5)):
        for name, value in (("layer", layer), ("head", head), ("token", query)):
            visitor.press(name, "Home", *["ArrowRight"] * (value - 1))
        row = weights[layer - 1, head - 1, query - 1]
        best = int(row.argmax())
        words = f"gives most: {row[best]:.0%} to {tokens[best]} (token {best + 1})"
        visitor.sees(f"{tokens[query - 1]}, token {query} of drawing of a 7, {words}")
        name = re.compile(rf"^attention, layer {layer}, head {head}:.* Token {query}: ")
        expect(visitor.page.get_by_role("img", name=name)).to_be_visible()
    triangle = visitor.page.get_by_role("img", name=re.compile("^attention, layer"))
    box = triangle.bounding_box()
    triangle.click(position={"x": 5, "y": 10.5 / 19 * box["height"]})
    visitor.sees("token 11 of drawing of a 7")


def test_ten_sentences_explain_it_in_english_and_in_chinese(visitor):
    sentences = visitor.page.locator(".how p")
    for name, language, word in (("中文", "zh-CN", "模型"), ("English", "en", "model")):
        visitor.radio("explanations", name).check()
        numbers = [text.partition(".")[0] for text in sentences.all_inner_texts()]
        assert sorted(map(int, numbers)) == list(range(1, 11))
        assert any(word in text for text in sentences.all_inner_texts())
        assert sentences.first.get_attribute("lang") == language


def test_the_file_says_what_it_holds_and_checks_itself(visitor):
    about = visitor.page.get_by_role("region", name="About this file")
    words = about.inner_text()
    for part in ("best_model", "sha256", "seqlm 0.", "fp32", "not measured", "Training rows"):
        assert part.lower() in words.lower()
    assert float(re.search(r"differ by at most (\S+)", words)[1]) < 1e-4


def test_nothing_from_outside_may_run_or_load(opened, file):
    """Only what the file itself holds: its policy refuses every other script and address."""
    with opened(file.as_uri(), **OPTIONS) as seen:
        seen.page.get_by_text("Model: ").wait_for()
        refused = seen.page.evaluate(
            """async () => {
              const refused = [];
              document.addEventListener("securitypolicyviolation",
                (event) => refused.push(event.effectiveDirective));
              const script = document.createElement("script");
              script.textContent = "window.ran = true";
              document.body.append(script);
              await fetch("data:text/plain,x").catch(() => {});
              const image = new Image();
              image.src = "https://example.org/x.png";
              document.body.append(image);
              await new Promise((done) => setTimeout(done, 200));
              return [...refused, String(window.ran)];
            }"""
        )
        assert sorted(refused) == ["connect-src", "img-src", "script-src-elem", "undefined"]


def problems(page) -> list[str]:
    """What axe finds wrong, in words."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{v['id']}: {v['help']}: {node['html']}" for v in found for node in v["nodes"]]


@pytest.mark.skipif(
    not AXE.is_file(), reason="axe-core is not installed: npm install in this folder"
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wide_or_narrow(opened, file, scheme):
    with opened(file.as_uri(), color_scheme=scheme, **OPTIONS) as seen:
        seen.page.get_by_text("Model: ").wait_for()
        assert problems(seen.page) == []
        seen.page.set_viewport_size(PHONE["viewport"])
        assert problems(seen.page) == []


def test_on_a_telephone_nothing_is_cut_off_and_a_finger_paints(opened, file, player):
    with opened(file.as_uri(), **OPTIONS | PHONE) as seen:
        person = Visitor(seen.page)
        person.sees("Model: ")
        drawing_shows(person, player)
        wide = "document.documentElement.scrollWidth"
        assert seen.page.evaluate(wide) <= 360
        grid = seen.page.get_by_role("grid", name="Paint a digit")
        grid.scroll_into_view_if_needed()
        box = grid.bounding_box()
        seen.page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        painting_shows(person, player)
        assert painted(person).sum() > 0
        person.button("Draw").tap()
        person.button("Pause code").tap()
        assert seen.errors == []


@pytest.fixture(scope="module")
def odd(tmp_path_factory, tiny) -> Path:
    """A model of words, no pictures; some of the words look like markup."""
    words = ["<script>", "</script>", "<!--", "<b>x</b>", "&amp;", "$script", "word"]
    names = ["<PAD>", "<UNK>", "<IMG>", "</IMG>", "<CLS>", "<EOS>", *words]
    vocab = {name: index for index, name in enumerate(names)}
    model = build_lm(tiny, vocab, seed=3).eval()
    return save_model(model, vocab, tmp_path_factory.mktemp("odd") / "words")


def test_words_that_are_no_pictures_and_look_like_markup_stay_text(opened, odd, tmp_path):
    from seqlm.data.tokenizer import load_tokenizer, vocabulary_of
    from seqlm.models.gpt2 import load_lm

    model, vocab = load_lm(odd), vocabulary_of(load_tokenizer(odd))
    export_page(odd, tmp_path / "words.html")
    prompt = ["<script>", "</script>", "<!--", "word"]
    with opened((tmp_path / "words.html").as_uri(), **OPTIONS) as seen:
        person = Visitor(seen.page)
        person.sees("Model: ")
        seen.page.get_by_role("textbox", name="prompt").fill(" ".join(prompt))
        shares = next_token_probabilities(model, token_ids(prompt, vocab))
        best = np.argsort(-shares)[0]
        person.sees(f"Most likely next: {list(vocab)[best]}.")
        table = seen.page.get_by_role("table", name="Next-token probabilities after the prompt")
        row = table.get_by_role("row").filter(has_text=list(vocab)[best]).first
        expect(row.get_by_role("cell")).to_have_text([f"{shares[best]:.1%}"])
        config = SampleConfig(**DRAWING)
        (sentence,) = generate_sentences(model, vocab, [prompt], replace(config, guidance=1.0))
        person.button("Generate").click()
        person.sees(f"{len(sentence) - len(prompt)} new tokens.")
        expect(seen.page.get_by_role("region", name="text")).to_have_text(" ".join(sentence))
        person.sees(re.compile("of the text, gives most"))
        seen.page.get_by_role("textbox", name="prompt").fill("<NEW>")
        person.sees("This did not work: <NEW> is not in the vocabulary of this model.")
        assert seen.page.locator("main script, main b:not(.text b)").count() == 0
        assert seen.errors == []
