"""The figures of one picture: what they draw and say is what the trace and the weights hold."""

from functools import cache
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from samples import check_ink_and_words, pixels, words

from seqlm.data.codebook import PatchCodebook
from seqlm.data.images import load_digits
from seqlm.data.tokens import EOS, KIND_CODE, default_vocab, token_kinds
from seqlm.models.tracing import Trace
from seqlm.plots.style import BLUE, VERMILLION
from seqlm.plots.tracing import plot_attention, plot_candidates, plot_code_by_code

# --- an invented model's opinions -----------------------------------------------------------------

DIGITS, _ = load_digits()
BOOK = PatchCodebook.fit(DIGITS[:200], 40, 2)
VOCAB = default_vocab(40)
RNG = np.random.default_rng(5)


def opinion(codes: np.ndarray) -> Trace:
    """Each code a little likelier than chance; after the settings only twelve codes are left."""
    ids, n = codes + VOCAB["<Z_000>"], len(codes)
    expected = RNG.dirichlet(np.full(len(VOCAB), 0.2), n) + 1e-6
    expected[np.arange(n), ids] += 0.02
    expected /= expected.sum(1, keepdims=True)
    codes_alone = expected * (token_kinds(VOCAB) == KIND_CODE)
    least = np.sort(codes_alone, axis=1)[:, [-12]]
    after = np.where(codes_alone >= least, codes_alone**1.5, 0)
    return Trace(ids, list(VOCAB), expected, after / after.sum(1, keepdims=True))


CODES = BOOK.encode(DIGITS[:1])[0]
TRACE = opinion(CODES)
(IMAGE,) = BOOK.decode(CODES[None])
LARGE = np.kron(DIGITS[1], np.ones((4, 4)))[2:30, 2:30]  # 28 by 28
LARGE_BOOK = PatchCodebook(BOOK.centers, (28, 28), 2)
LARGE_TRACE = opinion(LARGE_BOOK.encode(LARGE[None])[0])
TINY_BOOK = PatchCodebook(BOOK.centers, (4, 4), 2)
TINY_TRACE = opinion(CODES[:4])


def weights(n_layer: int, n_head: int, side: int) -> np.ndarray:
    shares = RNG.dirichlet(np.full(side**2 + 3, 0.3), (n_layer, n_head))
    return shares[..., : side**2].reshape(n_layer, n_head, side, side)


FEW, MANY, FINE = weights(2, 3, 4), weights(12, 12, 4), weights(4, 4, 14)

FIGURES = {
    "code_by_code": lambda: plot_code_by_code(BOOK, TRACE, "How a picture was drawn"),
    "code_by_code, 196 codes": lambda: plot_code_by_code(LARGE_BOOK, LARGE_TRACE, "A large one"),
    "code_by_code, 4 codes": lambda: plot_code_by_code(TINY_BOOK, TINY_TRACE, "A tiny one"),
    "attention_heads": lambda: plot_attention(IMAGE, FEW, "<CLS>"),
    "attention_heads, one larger": lambda: plot_attention(IMAGE, FEW, "<CLS>", (1, 2)),
    "attention_heads, 12 x 12": lambda: plot_attention(IMAGE, MANY, "<Z_017>", (0, 11)),
    "attention_heads, 196 patches": lambda: plot_attention(LARGE, FINE, "<CLS>", (3, 0)),
    "traced_choices": lambda: plot_candidates(TRACE, BOOK, [0, 5, 15]),
    "traced_choices, one": lambda: plot_candidates(TRACE, BOOK, [7], 10),
    "traced_choices, four": lambda: plot_candidates(TRACE, BOOK, [1, 2, 3, 4]),
    "traced_choices, large": lambda: plot_candidates(LARGE_TRACE, LARGE_BOOK, [100, 195]),
}


@cache
def drawn(name: str):
    """The figure, drawn once for all the tests that only look at it."""
    return FIGURES[name]()


def texts(figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]


def written(figure) -> list[str]:
    return [t.get_text() for t in texts(figure)]


def tiles(figure, side: float) -> list[AxesImage]:
    """The pictures and maps that are `side` inches wide."""
    images = figure.findobj(AxesImage)
    return [i for i in images if abs(i.get_extent()[1] - i.get_extent()[0] - side) < 1e-6]


def frames(figure) -> list[Rectangle]:
    """What is framed in the colour that marks."""
    squares = [p for p in figure.findobj(Rectangle) if to_hex(p.get_edgecolor()) == "#d55e00"]
    return [p for p in squares if not p.get_fill()]


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_ink_fits_a_page_and_is_told_in_words(name):
    check_ink_and_words(drawn(name), 0.02)
    assert len(drawn(name).alt) < 2500


@pytest.mark.parametrize("name", FIGURES)
def test_no_letter_is_small_cut_off_or_stands_on_another(name):
    figure = drawn(name)
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = []
    for text in texts(figure):
        assert text.get_fontsize() >= 9, text
        box = text.get_window_extent()
        assert box.x0 > -2 and box.y0 > -2 and box.x1 < width + 2 and box.y1 < height + 2, text
        boxes.append((box, text.get_text()))
    for (one, said), (other, also) in combinations(boxes, 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        high = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert wide < 1 or high < 3, (said, also)  # a box is a little higher than its letters


def test_drawing_leaves_the_readers_own_settings_alone():
    with matplotlib.rc_context({"font.size": 23, "image.cmap": "jet"}):
        before = pixels(plot_candidates(TRACE, BOOK, [7], 10))
        assert matplotlib.rcParams["font.size"] == 23
    assert np.array_equal(before, pixels(drawn("traced_choices, one")))


# --- code by code ---------------------------------------------------------------------------------


def test_each_stage_holds_the_codes_so_far_and_nothing_of_what_follows():
    stages = tiles(drawn("code_by_code"), 0.98)
    assert len(stages) == 16
    for done, stage in enumerate(stages, 1):
        shown = stage.get_array().reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(16, 2, 2)
        whole = IMAGE.reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(16, 2, 2)
        assert np.allclose(shown[:done], whole[:done]) and not shown[done:].any()


def test_each_stage_names_its_last_code_with_its_chance_and_surprise_and_frames_it():
    figure = drawn("code_by_code")
    said, framed = written(figure), frames(figure)
    for place, (index, surprisal) in enumerate(zip(TRACE.ids, TRACE.surprisal, strict=True)):
        assert f"after {place + 1}" in said
        assert TRACE.names[index] in said
        assert f"p = {np.exp(-surprisal):.1%}" in said
        assert f"{surprisal:.2f} nats" in said
    stages = tiles(figure, 0.98)
    assert len(framed) == 16
    for place, (frame, stage) in enumerate(zip(framed, stages, strict=True)):
        left, _, _, top = stage.get_extent()
        at = (np.array(frame.get_xy()) - (left, top)) / (0.98 / 4)
        assert at == pytest.approx(divmod(place, 4)[::-1])


def test_a_picture_of_many_codes_is_shown_at_evenly_spaced_stages_from_first_to_last():
    said = written(drawn("code_by_code, 196 codes"))
    stages = [int(t.removeprefix("after ")) for t in said if t.startswith("after ")]
    assert len(stages) == 16 and stages[0] == 1 and stages[-1] == 196
    assert np.ptp(np.diff(stages)) <= 1


def test_the_map_writes_the_surprise_of_every_code_into_its_patch():
    numbers = [t for t in texts(drawn("code_by_code")) if t.get_text() in
               {f"{s:.1f}" for s in TRACE.surprisal}]  # fmt: skip
    assert len(numbers) == 16
    numbers.sort(key=lambda t: (round(t.get_position()[1], 3), t.get_position()[0]))
    assert [t.get_text() for t in numbers] == [f"{s:.1f}" for s in TRACE.surprisal]


def test_the_sum_its_ends_and_blind_guessing_are_told_in_the_figure_and_beside_it():
    figure, total = drawn("code_by_code"), TRACE.surprisal.sum()
    most, least = TRACE.surprisal.argmax(), TRACE.surprisal.argmin()
    for said in (figure.alt, " ".join(words(figure).split())):
        assert f"{total:.1f} nats ({total / np.log(2):.1f} bits)" in said
        assert f"Blind guessing among 40 codes: {16 * np.log(40):.1f} nats" in said
        assert f"Most surprising: code {most + 1} (row {most // 4 + 1}, " in said
        assert f"Least surprising: code {least + 1} (row {least // 4 + 1}, " in said
    assert ", ".join(f"{s:.1f}" for s in TRACE.surprisal) in figure.alt


# --- attention ------------------------------------------------------------------------------------


def test_every_head_has_its_map_and_its_share_layers_down_and_heads_across():
    figure = drawn("attention_heads")
    maps = tiles(figure, 1.2)
    assert len(maps) == 6
    corners = [(round(m.get_extent()[3], 3), round(m.get_extent()[0], 3)) for m in maps]
    assert corners == sorted(corners) and len({down for down, _ in corners}) == 2
    for drawn_map, grid in zip(maps, FEW.reshape(6, 4, 4), strict=True):
        darkness = np.asarray(drawn_map.get_array())[..., 3]
        assert darkness == pytest.approx(0.06 + 0.84 * grid / grid.max())
    said = written(figure)
    shares = [t for t in said if t.endswith("%") and "\n" not in t]
    assert shares == [f"{share:.0%}" for share in FEW.sum((2, 3)).ravel()]
    assert {"head 1", "head 3", "layer 1", "2"} <= set(said)


def test_the_chosen_head_is_framed_marked_and_written_out_in_percent():
    figure = drawn("attention_heads, one larger")
    grid, (frame,) = FEW[1, 2], frames(figure)
    last = max(tiles(figure, 1.2), key=lambda m: (m.get_extent()[3], m.get_extent()[0]))
    assert frame.get_xy() == pytest.approx((last.get_extent()[0], last.get_extent()[3]))
    said = written(figure)
    assert f"▸ {grid.sum():.0%}" in said
    assert "▸ layer 2, head 3: percent" in said
    form = ".1f" if grid.max() < 0.1 else ".0f"
    for value in grid.ravel():
        assert f"{100 * value:{form}}" in said
    assert f"each patch would get {grid.mean():.1%}" in words(figure)


def test_without_a_chosen_head_none_is_framed():
    assert not frames(drawn("attention_heads"))
    assert "▸" not in words(drawn("attention_heads"))


def test_patches_too_small_for_numbers_have_none_and_the_most_is_told():
    figure = drawn("attention_heads, 196 patches")
    assert f"▸ layer 4, head 1: most {FINE[3, 0].max():.0%}" in written(figure)
    assert len(written(figure)) < 40


def test_the_heads_that_give_the_picture_most_and_least_are_named():
    shares = FEW.sum((2, 3))
    for word, flat in (("most", shares.argmax()), ("least", shares.argmin())):
        layer, head = divmod(int(flat), 3)
        assert (
            f"{word} with layer {layer + 1}, head {head + 1} ({shares[layer, head]:.0%})"
            in drawn("attention_heads").alt
        )
    row, column = divmod(int(FEW[1, 2].argmax()), 4)
    told = drawn("attention_heads, one larger").alt
    assert f"most of it to row {row + 1}, column {column + 1} ({FEW[1, 2].max():.0%}" in told


# --- choices --------------------------------------------------------------------------------------


def bars(figure) -> dict[str, list[Rectangle]]:
    """The bars of each kind from top to bottom, those of the key left out."""
    squares = [p for p in figure.findobj(Rectangle) if p.get_fill() and p.get_height() < 0.12]
    squares = sorted((p for p in squares if p.get_y() > 0.3), key=lambda p: p.get_y())
    return {
        "own": [p for p in squares if to_hex(p.get_facecolor()) == BLUE.lower()],
        "after": [p for p in squares if to_hex(p.get_edgecolor()) == VERMILLION.lower()],
    }


def test_every_token_has_a_plain_bar_and_a_hatched_one_as_long_as_its_probabilities():
    found, drawn_bars = TRACE.candidates(7, 10), bars(drawn("traced_choices, one"))
    assert all(bar.get_hatch() is None for bar in drawn_bars["own"])
    assert all(bar.get_hatch() for bar in drawn_bars["after"])
    own = np.array([bar.get_width() for bar in drawn_bars["own"]])
    chances = np.array([c.probability for c in found])
    assert len(own) == len(found)
    scale = own.max() / chances.max()
    assert own == pytest.approx(np.maximum(chances * scale, 0.012))
    after = np.array([c.after for c in found if c.after])
    assert [bar.get_width() for bar in drawn_bars["after"]] == pytest.approx(
        np.maximum(after * scale, 0.012)
    )


def test_each_bar_has_its_number_and_one_that_was_cut_away_says_0():
    trace = opinion(CODES)
    trace.after[3] = np.eye(len(VOCAB))[trace.ids[3]]  # as greedy would have it
    figure = plot_candidates(trace, BOOK, [3], 4)
    said, found = written(figure), trace.candidates(3, 4)
    for c in found:
        assert f"{c.probability:.1%}" in said
    assert said.count("0") == sum(c.after == 0 for c in found) >= 3
    assert "100.0%" in said


def test_the_token_that_stands_there_is_marked_and_bold_even_outside_the_likeliest():
    trace = opinion(CODES)
    trace.expected[5, trace.ids[5]] = 1e-5
    figure = plot_candidates(trace, BOOK, [5], 3)
    name = trace.names[trace.ids[5]]
    (label,) = (t for t in texts(figure) if t.get_text() == f"▸ {name}")
    assert label.get_fontweight() == "bold"
    others = [t for t in texts(figure) if t.get_text().startswith("<Z_")]
    assert len(others) == 3 and all(t.get_fontweight() == "normal" for t in others)
    assert f"▸ {name} stands here\nsurprise {-np.log(1e-5):.2f} nats" in words(figure)
    assert f"where {name} stands" in figure.alt


def test_a_token_that_is_no_code_has_bars_and_no_patch():
    trace = opinion(CODES)
    trace.expected[5, VOCAB[EOS]] = 0.99
    patches = tiles(plot_candidates(trace, BOOK, [5], 3), 0.26)
    found = [c.token for c in trace.candidates(5, 3)]
    codes = [token for token in found if token.startswith("<Z_")]
    assert EOS in found and codes
    for patch, token in zip(patches, codes, strict=True):
        assert np.array_equal(patch.get_array(), BOOK.centers[int(token[3:-1])].reshape(2, 2))


def test_what_was_there_before_is_shown_and_the_place_itself_is_empty_and_framed():
    figure = drawn("traced_choices")
    for place, tile in zip([0, 5, 15], tiles(figure, 1.0), strict=True):
        shown = np.asarray(tile.get_array())
        down, across = divmod(place, 4)
        assert not shown[2 * down : 2 * down + 2, 2 * across : 2 * across + 2].any()
        assert np.allclose(shown[: 2 * down], IMAGE[: 2 * down])
    assert len(frames(figure)) == 3


def test_choices_are_told_with_both_numbers_and_what_a_guess_would_give():
    figure = drawn("traced_choices")
    assert "An even guess among 40 codes would be 2.5%" in figure.alt
    for place in (0, 5, 15):
        for c in TRACE.candidates(place, 6):
            assert f"{c.token} {c.probability:.1%}, after the settings {c.after:.1%}" in figure.alt
