"""What stands between two clicks: its numbers are those given, and every picture says its own."""

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
from seqlm.playground import html as views

BOOK = PatchCodebook(np.array([[0, 0, 0, 0], [0, 0.5, 0, 1], [1, 1, 1, 1]], np.float32), (8, 8), 2)
IMAGE = np.linspace(0, 1, 64).reshape(8, 8)
VALUES = np.array([[0.5, 4.0], [1.25, 2.0]])
FOUND = [
    Candidate("<Z_001>", 0.5, 0.8, False),
    Candidate(EOS, 0.25, 0.0, False),
    Candidate("<Z_002>", 0.125, 0.2, True),
]
HEADS = np.random.default_rng(0).dirichlet(np.ones(16), (2, 3)).reshape(2, 3, 4, 4)
NASTY = "<script>alert('x')</script> & \"quotes\""


def parsed(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


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


# --- for eyes and for ears ------------------------------------------------------------------------

DRAWN = {
    "picture": lambda alt: views.picture(IMAGE, alt),
    "patch_map": lambda alt: views.patch_map(IMAGE, VALUES, alt),
    "heads": lambda alt: views.heads(HEADS, (1, 2), alt),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_every_drawing_is_an_image_with_a_label(draw):
    (svg,) = parsed(draw("A seven.")).find_all("svg")
    assert svg["role"] == "img"
    assert svg["aria-label"].startswith("A seven.")
    _, _, width, height = map(float, svg["viewbox"].split())
    assert (width, height) == (number(svg, "width"), number(svg, "height"))
    for square in svg.find_all("rect"):  # nothing lies outside
        assert number(square, "x") >= 0 and number(square, "y") >= 0
        assert number(square, "x") + number(square, "width") <= width + 1e-6
        assert number(square, "y") + number(square, "height") <= height + 1e-6


def test_a_page_holds_its_parts_and_every_image_in_it_is_told_or_hidden():
    page = parsed(
        views.page(
            views.figure(views.picture(IMAGE, "a seven"), "drawn"),
            views.candidates(FOUND, BOOK, "code 9"),
            views.gallery([IMAGE, IMAGE], ["one", "two"], 2),
        )
    )
    for svg in page.find_all("svg"):
        told = svg.get("role") == "img" and svg.get("aria-label")
        assert told or svg.find_parent(attrs={"aria-hidden": "true"})
    assert [c.text for c in page.find_all("figcaption")] == ["drawn", "one", "two"]
    labels = [svg["aria-label"] for svg in page.find_all("svg", role="img")]
    assert labels == ["a seven", "one", "two"]
    assert page.find("table") is not None


@pytest.mark.parametrize(
    "html",
    [
        views.note(NASTY),
        views.figure("", NASTY),
        views.picture(IMAGE, NASTY),
        views.patch_map(IMAGE, VALUES, NASTY),
        views.heads(HEADS, (0, 0), NASTY),
        views.candidates([Candidate(NASTY, 0.5, 0.5, True)], BOOK, "next"),
        views.candidates(FOUND, BOOK, NASTY),
        views.classes(np.ones(10) / 10, NASTY),
        views.gallery([IMAGE], [NASTY]),
        views.download(NASTY, b"", "text/plain", "get"),
        views.download("file", b"", "text/plain", NASTY),
    ],
)
def test_markup_in_a_name_stays_a_name(html):
    page = parsed(html)
    assert page.find("script") is None
    held = [page.get_text(), *(str(v) for tag in page.find_all() for v in tag.attrs.values())]
    assert any(NASTY in part for part in held)


# --- pictures -------------------------------------------------------------------------------------


def test_the_darkness_of_a_pixel_is_the_ink_of_its_square():
    image = np.array([[0, 0.25], [0.5, 1.0]])
    svg = parsed(views.picture(image, "four pixels", pixel=10)).svg
    assert inked(svg) == {(10, 0): 0.25, (0, 10): 0.5, (10, 10): 1.0}  # no ink, no square
    assert (svg["width"], svg["height"]) == ("20", "20")


def test_ink_beyond_black_or_below_paper_is_cut_off():
    svg = parsed(views.picture(np.array([[-0.3, 1.7]]), "two pixels", pixel=10)).svg
    assert inked(svg) == {(10, 0): 1.0}


def test_a_picture_need_not_be_square():
    svg = parsed(views.picture(np.ones((2, 3)), "six pixels", pixel=10)).svg
    assert (number(svg, "width"), number(svg, "height")) == (30, 20)


# --- maps -----------------------------------------------------------------------------------------


def test_a_map_writes_its_numbers_where_they_belong_and_says_them():
    svg = parsed(views.patch_map(IMAGE, VALUES, "Surprisal.", decimals=2, pixel=10)).svg
    spots = {(number(t, "x"), number(t, "y")): float(t.text) for t in svg.find_all("text")}
    assert spots == {(20, 20): 0.5, (60, 20): 4.0, (20, 60): 1.25, (60, 60): 2.0}
    assert svg["aria-label"] == "Surprisal. Row by row: 0.50, 4.00; 1.25, 2.00."


def test_a_larger_number_is_darker_and_the_largest_darkest():
    dark = shades(parsed(views.patch_map(IMAGE, VALUES, "Surprisal.")).svg)
    assert np.argsort(dark).tolist() == np.argsort(VALUES.ravel()).tolist()
    assert max(dark) == pytest.approx(0.9) and min(dark) > 0.05


def test_the_scale_can_be_given_so_that_maps_compare():
    half = shades(parsed(views.patch_map(IMAGE, VALUES, "Surprisal.", full=8)).svg)
    assert max(half) == pytest.approx(0.06 + 0.84 * 0.5)
    over = shades(parsed(views.patch_map(IMAGE, VALUES, "Surprisal.", full=1)).svg)
    assert max(over) == pytest.approx(0.9)  # and never beyond


def test_numbers_can_be_read_on_light_and_on_dark_places():
    svg = parsed(views.patch_map(IMAGE, VALUES, "Surprisal.")).svg
    colours = {float(t.text): t["fill"] for t in svg.find_all("text")}
    assert colours[4.0] == "#fff" and colours[0.5] == "#111"


def test_places_without_a_number_are_left_out():
    values = np.where(VALUES > 3, np.nan, VALUES)
    svg = parsed(views.patch_map(IMAGE, values, "Surprisal.")).svg
    assert sorted(float(t.text) for t in svg.find_all("text")) == [0.5, 1.2, 2.0]
    assert len(shades(svg)) == 3
    assert "0.5, –; 1.2, 2.0" in svg["aria-label"]


def test_a_map_without_any_number_is_a_faded_picture():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = parsed(views.patch_map(IMAGE, np.full((2, 2), np.nan), "Nothing yet.")).svg
    assert not svg.find_all("text") and not shades(svg)
    assert max(inked(svg).values()) == pytest.approx(0.25)


def test_a_map_of_zeros_is_light_everywhere():
    dark = shades(parsed(views.patch_map(IMAGE, np.zeros((2, 2)), "Sure of all.")).svg)
    assert dark == pytest.approx([0.06] * 4)


@pytest.mark.parametrize(("marked", "corner"), [(0, (0, 0)), (1, (40, 0)), (2, (0, 40))])
def test_the_marked_place_and_no_other_has_a_frame(marked, corner):
    svg = parsed(views.patch_map(IMAGE, VALUES, "Surprisal.", marked=marked, pixel=10)).svg
    (frame,) = frames(svg)
    assert (number(frame, "x") - 1.5, number(frame, "y") - 1.5) == corner
    assert number(frame, "width") == number(frame, "height") == 37
    assert not frames(parsed(views.patch_map(IMAGE, VALUES, "Surprisal.")).svg)


def test_all_heads_are_there_and_the_chosen_one_is_framed():
    svg = parsed(views.heads(HEADS, (1, 2), "All heads.")).svg
    assert [t.text for t in svg.find_all("text")] == ["1", "2", "3", "1", "2"]
    dark = np.array(shades(svg)).reshape(2, 3, 16)
    assert dark.max(-1) == pytest.approx(0.9)  # each shaded by its own most
    assert (dark.argmax(-1) == HEADS.reshape(2, 3, 16).argmax(-1)).all()
    (frame,) = frames(svg)
    others = [r for r in svg.find_all("rect") if r.get("fill") == "none" and r != frame]
    assert len(others) == 5
    assert all(number(r, "x") <= number(frame, "x") for r in others)
    assert all(number(r, "y") <= number(frame, "y") for r in others)


# --- tables ---------------------------------------------------------------------------------------


def rows_of(html: str) -> list[tuple[str, list[float], list[float]]]:
    """(name, shares as they are written, widths of the bars) of every line of a table."""
    lines = []
    for line in parsed(html).tbody.find_all("tr"):
        bars = line.find_all("td", class_="bar")
        shares = [float(bar.text.rstrip("%")) / 100 for bar in bars]
        widths = [float(re.search(r"width:\D*([\d.]+)", bar.span["style"])[1]) for bar in bars]
        lines.append((line.th.text, shares, widths))
    return lines


def test_candidates_stand_with_both_their_numbers_and_bars_as_long():
    lines = rows_of(views.candidates(FOUND, BOOK, "code 9"))
    longest = max(width for *_, widths in lines for width in widths)
    for (name, shares, widths), candidate in zip(lines, FOUND, strict=True):
        assert name.split(" (")[0] == candidate.token
        assert shares == pytest.approx([candidate.probability, candidate.after], abs=5e-4)
        assert np.array(widths) / longest == pytest.approx(np.array(shares) / 0.8, abs=0.01)
    assert parsed(views.candidates(FOUND, BOOK, "code 9")).caption.text == "code 9"


def test_the_token_that_stands_there_is_told_by_more_than_a_colour():
    table = parsed(views.candidates(FOUND, BOOK, "code 9"))
    (chosen,) = table.find_all("tr", class_="chosen")
    assert chosen.th.text == "<Z_002> (stands here)"


def test_a_code_has_its_patch_beside_it_and_other_tokens_have_none():
    first, second, third = parsed(views.candidates(FOUND, BOOK, "code 9")).tbody.find_all("tr")
    assert inked(first.svg) == {(1, 0): 0.5, (1, 1): 1.0}  # code 1 of the book
    assert second.svg is None
    assert len(inked(third.svg)) == 4


def test_without_settings_there_is_one_column_of_numbers():
    html = views.candidates(FOUND, BOOK, "code 9", settings=False)
    assert [len(shares) for _, shares, _ in rows_of(html)] == [1, 1, 1]
    assert len(parsed(html).thead.find_all("th")) == 2
    # As long as can be: what the settings made of it does not count.
    (_, _, (longest,)), *_ = rows_of(html)
    assert longest == max(rows_of(views.candidates(FOUND, BOOK, "code 9"))[0][2])


def test_classes_stand_with_their_probabilities_and_the_likeliest_is_marked():
    chances = np.array([0.1, 0.05, 0.7, 0.15])
    html = views.classes(chances, "Read back")
    assert [name for name, *_ in rows_of(html)] == ["0", "1", "2", "3"]
    assert [shares[0] for _, shares, _ in rows_of(html)] == pytest.approx(chances)
    widths = np.array([widths[0] for *_, widths in rows_of(html)])
    assert widths / widths[2] == pytest.approx(chances / chances[2], abs=0.01)
    (best,) = parsed(html).find_all("tr", class_="chosen")
    assert best.th.text == "2"


# --- galleries and files --------------------------------------------------------------------------


def test_a_gallery_needs_a_caption_for_each_picture():
    with pytest.raises(ValueError):
        views.gallery([IMAGE, IMAGE], ["only one"])


def test_large_pictures_take_no_more_room_in_a_gallery_than_small_ones():
    for image in (np.ones((8, 8)), np.ones((28, 28))):
        assert number(parsed(views.gallery([image], ["a"])).svg, "width") == pytest.approx(112)
        assert number(parsed(views.gallery([image], ["a"], 3)).svg, "width") == pytest.approx(64)


def test_what_is_downloaded_is_what_was_given_byte_for_byte():
    content = bytes(range(256)) + json.dumps({"schön": 1}).encode()
    link = parsed(views.download("gallery.jsonl", content, "application/x-ndjson", "Get it")).a
    assert link["download"] == "gallery.jsonl" and link.text == "Get it"
    kind, held = link["href"].split(",", 1)
    assert kind == "data:application/x-ndjson;base64"
    assert base64.b64decode(held, validate=True) == content
