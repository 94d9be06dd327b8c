"""HTML and SVG show the numbers they are called with, and every image has a label."""

import base64
import json
import re
import warnings

import numpy as np
import pytest
from bs4 import BeautifulSoup

from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokens import EOS
from seqlm.models.tracing import Candidate
from seqlm.playground import html

BOOK = PatchCodebook(np.array([[0, 0, 0, 0], [0, 0.5, 0, 1], [1, 1, 1, 1]], np.float32), (8, 8), 2)
IMAGE = np.linspace(0, 1, 64).reshape(8, 8)
VALUES = np.array([[0.5, 4.0], [1.25, 2.0]])
CANDIDATES = [
    Candidate("<Z_001>", 0.5, 0.8, False),
    Candidate(EOS, 0.25, 0.0, False),
    Candidate("<Z_002>", 0.125, 0.2, True),
]
HEADS = np.random.default_rng(0).dirichlet(np.ones(16), (2, 3)).reshape(2, 3, 4, 4)
NASTY = "<script>alert('x')</script> & \"quotes\""


def parsed(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


def number(element, name: str) -> float:
    return float(element[name])


def inked(svg) -> dict[tuple[float, float], float]:
    """(x, y) -> the ink of each black rectangle."""
    squares = [r for r in svg.find_all("rect") if not r.get("fill")]
    return {(number(r, "x"), number(r, "y")): number(r, "fill-opacity") for r in squares}


def shades(svg) -> list[float]:
    """How dark the places of a map are, in the order they were drawn."""
    squares = [r for r in svg.find_all("rect") if r.get("fill", "").startswith("#")]
    return [number(r, "fill-opacity") for r in squares]


def frames(svg) -> list:
    return [r for r in svg.find_all("rect") if r.get("fill") == "none" and r["stroke"] == "#d55e00"]


# --- labels ---------------------------------------------------------------------------------------

DRAWN = {
    "image": lambda caption: html.image_figure(IMAGE, caption),
    "patches": lambda caption: html.patch_figure(IMAGE, VALUES, caption),
    "heads": lambda caption: html.heads_figure(HEADS, (1, 2), caption),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_every_figure_is_an_image_whose_label_is_read_once(draw):
    page = parsed(draw("a seven"))
    (svg,) = page.find_all("svg")
    assert svg["role"] == "img"
    assert svg["aria-label"].startswith("a seven")
    assert page.figcaption.text == "a seven" and page.figcaption["aria-hidden"] == "true"
    assert page.figure["role"] == "none"
    _, _, width, height = map(float, svg["viewbox"].split())
    assert (width, height) == (number(svg, "width"), number(svg, "height"))
    for square in svg.find_all("rect"):  # nothing lies outside
        assert number(square, "x") >= 0 and number(square, "y") >= 0
        assert number(square, "x") + number(square, "width") <= width + 1e-3
        assert number(square, "y") + number(square, "height") <= height + 1e-3


def test_a_page_holds_its_parts_and_every_image_is_labelled_or_hidden():
    page = parsed(
        html.page(
            html.image_figure(IMAGE, "a seven"),
            html.candidate_table(CANDIDATES, BOOK, "code 9"),
            html.gallery([IMAGE, IMAGE], ["one", "two"], 2),
        )
    )
    for svg in page.find_all("svg"):
        labelled = svg.get("role") == "img" and svg.get("aria-label")
        assert labelled or svg["aria-hidden"] == "true"
    assert [c.text for c in page.find_all("figcaption")] == ["a seven", "one", "two"]
    labels = [svg["aria-label"] for svg in page.find_all("svg", role="img")]
    assert labels == ["a seven", "one", "two"]
    assert page.find("table") is not None


@pytest.mark.parametrize(
    "text",
    [
        html.note(NASTY),
        html.image_figure(IMAGE, NASTY),
        html.patch_figure(IMAGE, VALUES, NASTY),
        html.heads_figure(HEADS, (0, 0), NASTY),
        html.candidate_table([Candidate(NASTY, 0.5, 0.5, True)], BOOK, "next"),
        html.candidate_table(CANDIDATES, BOOK, NASTY),
        html.class_table(np.ones(10) / 10, NASTY),
        html.gallery([IMAGE], [NASTY]),
        html.download_link(NASTY, b"", "text/plain", "get"),
        html.download_link("file", b"", "text/plain", NASTY),
    ],
)
def test_markup_in_a_name_stays_text(text):
    page = parsed(text)
    assert page.find("script") is None
    texts = [page.get_text(), *(str(v) for tag in page.find_all() for v in tag.attrs.values())]
    assert any(NASTY in part for part in texts)


# --- images ---------------------------------------------------------------------------------------


def test_the_darkness_of_a_pixel_is_the_ink_of_its_square():
    image = np.array([[0, 0.25], [0.5, 1.0]])
    svg = parsed(html.image_figure(image, "four pixels", side=20)).svg
    assert inked(svg) == {(10, 0): 0.25, (0, 10): 0.5, (10, 10): 1.0}  # no ink, no square
    assert (svg["width"], svg["height"]) == ("20", "20")


def test_ink_above_1_or_below_0_is_clipped():
    svg = parsed(html.image_figure(np.array([[-0.3, 1.7]]), "two pixels", side=20)).svg
    assert inked(svg) == {(10, 0): 1.0}


def test_an_image_need_not_be_square():
    svg = parsed(html.image_figure(np.ones((2, 3)), "six pixels", side=30)).svg
    assert (number(svg, "width"), number(svg, "height")) == (30, 20)


# --- maps -----------------------------------------------------------------------------------------


def test_a_map_shows_its_numbers_in_their_places_and_in_its_label():
    svg = parsed(html.patch_figure(IMAGE, VALUES, "Surprisal", decimals=2)).svg
    places = {(number(t, "x"), number(t, "y")): float(t.text) for t in svg.find_all("text")}
    assert places == {(44, 44): 0.5, (132, 44): 4.0, (44, 132): 1.25, (132, 132): 2.0}
    assert svg["aria-label"] == "Surprisal. Row by row: 0.50, 4.00; 1.25, 2.00."


def test_a_map_of_surprisal_shows_the_first_codes_and_their_sum():
    page = parsed(html.surprisal_figure(IMAGE, VALUES.ravel(), (2, 2), 3))
    assert page.figcaption.text == "surprisal per code in nats (−ln p); total 5.8"
    assert [float(t.text) for t in page.find_all("text")] == [0.5, 4.0, 1.2]
    assert max(shades(page.svg)) == pytest.approx(0.06 + 0.84 * 0.5)  # 8 nats are darkest
    (frame,) = frames(page.svg)
    assert (number(frame, "x") - 1.5, number(frame, "y") - 1.5) == (0, 88)
    whole = parsed(html.surprisal_figure(IMAGE, VALUES.ravel(), (2, 2)))
    assert len(whole.find_all("text")) == 4 and not frames(whole.svg)


def test_larger_numbers_are_darker():
    dark = shades(parsed(html.patch_figure(IMAGE, VALUES, "Surprisal")).svg)
    assert np.argsort(dark).tolist() == np.argsort(VALUES.ravel()).tolist()
    assert max(dark) == pytest.approx(0.9) and min(dark) > 0.05


def test_maps_can_share_a_scale():
    half = shades(parsed(html.patch_figure(IMAGE, VALUES, "Surprisal", full=8)).svg)
    assert max(half) == pytest.approx(0.06 + 0.84 * 0.5)
    over = shades(parsed(html.patch_figure(IMAGE, VALUES, "Surprisal", full=1)).svg)
    assert max(over) == pytest.approx(0.9)  # and never beyond


def test_numbers_contrast_with_light_and_dark_places():
    svg = parsed(html.patch_figure(IMAGE, VALUES, "Surprisal")).svg
    colours = {float(t.text): t["fill"] for t in svg.find_all("text")}
    assert colours[4.0] == "#fff" and colours[0.5] == "#111"


def test_nan_is_left_out():
    values = np.where(VALUES > 3, np.nan, VALUES)
    svg = parsed(html.patch_figure(IMAGE, values, "Surprisal")).svg
    assert sorted(float(t.text) for t in svg.find_all("text")) == [0.5, 1.2, 2.0]
    assert len(shades(svg)) == 3
    assert "0.5, –; 1.2, 2.0" in svg["aria-label"]


def test_a_map_of_nan_is_a_faded_image():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = parsed(html.patch_figure(IMAGE, np.full((2, 2), np.nan), "Nothing yet")).svg
    assert not svg.find_all("text") and not shades(svg)
    assert max(inked(svg).values()) == pytest.approx(0.25)


def test_a_map_of_zeros_is_light_everywhere():
    dark = shades(parsed(html.patch_figure(IMAGE, np.zeros((2, 2)), "Certain")).svg)
    assert dark == pytest.approx([0.06] * 4)


@pytest.mark.parametrize(("marked", "corner"), [(0, (0, 0)), (1, (88, 0)), (2, (0, 88))])
def test_only_the_marked_place_has_a_frame(marked, corner):
    svg = parsed(html.patch_figure(IMAGE, VALUES, "Surprisal", marked=marked)).svg
    (frame,) = frames(svg)
    assert (number(frame, "x") - 1.5, number(frame, "y") - 1.5) == corner
    assert number(frame, "width") == number(frame, "height") == 85
    assert not frames(parsed(html.patch_figure(IMAGE, VALUES, "Surprisal")).svg)


def test_all_heads_are_shown_and_the_chosen_one_is_framed():
    svg = parsed(html.heads_figure(HEADS, (1, 2), "All heads")).svg
    assert sorted(t.text for t in svg.find_all("text")) == ["1", "1", "2", "2", "3"]
    dark = np.array(shades(svg)).reshape(2, 3, 16)
    assert dark.max(-1) == pytest.approx(0.9)  # each shaded by its own most
    assert (dark.argmax(-1) == HEADS.reshape(2, 3, 16).argmax(-1)).all()
    (frame,) = frames(svg)
    others = [r for r in svg.find_all("rect") if r.get("fill") == "none" and r != frame]
    assert len(others) == 5
    assert all(number(r, "x") <= number(frame, "x") for r in others)
    assert all(number(r, "y") <= number(frame, "y") for r in others)


# --- tables ---------------------------------------------------------------------------------------


def rows_of(text: str) -> list[tuple[str, list[float], list[float]]]:
    """(name, shares as they are written, widths of the bars) of every line of a table."""
    lines = []
    for line in parsed(text).tbody.find_all("tr"):
        bars = line.find_all("td", class_="bar")
        shares = [float(bar.text.rstrip("%")) / 100 for bar in bars]
        widths = [float(re.search(r"width:\D*([\d.]+)", bar.span["style"])[1]) for bar in bars]
        lines.append((line.th.text, shares, widths))
    return lines


def test_candidates_have_both_probabilities_and_bars_in_proportion():
    lines = rows_of(html.candidate_table(CANDIDATES, BOOK, "code 9"))
    longest = max(width for *_, widths in lines for width in widths)
    for (name, shares, widths), candidate in zip(lines, CANDIDATES, strict=True):
        assert name.split(" (")[0] == candidate.token
        assert shares == pytest.approx([candidate.probability, candidate.after], abs=5e-4)
        assert np.array(widths) / longest == pytest.approx(np.array(shares) / 0.8, abs=0.01)
    assert parsed(html.candidate_table(CANDIDATES, BOOK, "code 9")).caption.text == "code 9"


def test_the_chosen_token_is_marked_by_more_than_colour():
    table = parsed(html.candidate_table(CANDIDATES, BOOK, "code 9"))
    (chosen,) = table.find_all("tr", class_="chosen")
    assert chosen.th.text == "<Z_002> (chosen)"


def test_codes_have_their_patch_beside_them_and_other_tokens_have_none():
    first, second, third = parsed(html.candidate_table(CANDIDATES, BOOK, "code 9")).tbody.find_all(
        "tr"
    )
    assert inked(first.svg) == {(8, 0): 0.5, (8, 8): 1.0}  # code 1 of the book
    assert second.svg is None
    assert len(inked(third.svg)) == 4


def test_classes_have_their_probabilities_and_the_largest_is_marked():
    chances = np.array([0.1, 0.05, 0.7, 0.15])
    table = html.class_table(chances, "Classification")
    assert [name for name, *_ in rows_of(table)] == ["0", "1", "2", "3"]
    assert [shares[0] for _, shares, _ in rows_of(table)] == pytest.approx(chances)
    widths = np.array([widths[0] for *_, widths in rows_of(table)])
    assert widths / widths[2] == pytest.approx(chances / chances[2], abs=0.01)
    (best,) = parsed(table).find_all("tr", class_="chosen")
    assert best.th.text == "2"


# --- galleries and files --------------------------------------------------------------------------


def test_a_gallery_needs_a_caption_for_each_image():
    with pytest.raises(ValueError):
        html.gallery([IMAGE, IMAGE], ["only one"])


def test_large_and_small_images_have_one_size_in_a_gallery():
    for image in (np.ones((8, 8)), np.ones((28, 28))):
        assert number(parsed(html.gallery([image], ["a"])).svg, "width") == pytest.approx(112)
        assert number(parsed(html.gallery([image], ["a"], 3)).svg, "width") == pytest.approx(64)


def test_a_download_is_its_content_byte_for_byte():
    content = bytes(range(256)) + json.dumps({"schön": 1}).encode()
    link = parsed(html.download_link("gallery.jsonl", content, "application/x-ndjson", "Get it")).a
    assert link["download"] == "gallery.jsonl" and link.text == "Get it"
    kind, data = link["href"].split(",", 1)
    assert kind == "data:application/x-ndjson;base64"
    assert base64.b64decode(data, validate=True) == content
