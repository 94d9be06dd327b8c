"""Figures of one picture: what they show is what the trace and the weights hold."""

import numpy as np
import pytest
from figure_samples import (
    BOOK,
    CODES,
    FEW,
    IMAGE,
    TRACE,
    VOCAB,
    drawn,
    frames,
    make_trace,
    texts,
    tiles,
    words,
)
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.offsetbox import OffsetImage

from seqlm.data.tokens import EOS
from seqlm.plots.style import BLUE
from seqlm.plots.tracing import plot_candidates


def written(figure) -> list[str]:
    return [t.get_text() for t in texts(figure)]


def test_each_stage_holds_the_codes_so_far_and_nothing_of_what_follows():
    stages = tiles(drawn("code by code"), 0.98)
    assert len(stages) == 16
    for done, stage in enumerate(stages, 1):
        shown = stage.get_array().reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(16, 2, 2)
        whole = IMAGE.reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(16, 2, 2)
        assert np.allclose(shown[:done], whole[:done]) and not shown[done:].any()


def test_each_stage_names_its_last_code_with_its_probability_and_surprisal_and_frames_it():
    figure = drawn("code by code")
    shown, framed = written(figure), frames(figure)
    for place, (index, surprisal) in enumerate(zip(TRACE.ids, TRACE.surprisal, strict=True)):
        assert f"after {place + 1}" in shown
        numbers = f"p = {np.exp(-surprisal):.1%}\n{surprisal:.2f} nats"
        assert f"{TRACE.names[index]}\n{numbers}" in shown
    stages = tiles(figure, 0.98)
    assert len(framed) == 16
    for place, (frame, stage) in enumerate(zip(framed, stages, strict=True)):
        left, _, _, top = stage.get_extent()
        at = (np.array(frame.get_xy()) - (left, top)) / (0.98 / 4)
        assert at == pytest.approx(divmod(place, 4)[::-1])


def test_a_picture_of_many_codes_is_shown_at_evenly_spaced_stages_from_first_to_last():
    shown = written(drawn("code by code, 196 codes"))
    stages = [int(t.removeprefix("after ")) for t in shown if t.startswith("after ")]
    assert len(stages) == 16 and stages[0] == 1 and stages[-1] == 196
    assert np.ptp(np.diff(stages)) <= 1


def test_the_map_writes_the_surprisal_of_every_code_into_its_patch():
    numbers = [t for t in texts(drawn("code by code")) if t.get_text() in
               {f"{s:.1f}" for s in TRACE.surprisal}]  # fmt: skip
    assert len(numbers) == 16
    numbers.sort(key=lambda t: (round(t.get_position()[1], 3), t.get_position()[0]))
    assert [t.get_text() for t in numbers] == [f"{s:.1f}" for s in TRACE.surprisal]


def test_total_baseline_highest_and_lowest_are_in_the_figure_and_in_its_alt_text():
    figure, total = drawn("code by code"), TRACE.surprisal.sum()
    most, least = TRACE.surprisal.argmax(), TRACE.surprisal.argmin()
    for shown in (figure.alt, " ".join(words(figure).split())):
        assert f"{total:.1f} nats ({total / np.log(2):.1f} bits)" in shown
        assert f"Uniform baseline over 40 codes: {np.log(40):.2f} nats per code" in shown
        assert f"Highest: code {most + 1} (row {most // 4 + 1}, " in shown
        assert f"Lowest: code {least + 1} (row {least // 4 + 1}, " in shown


def test_one_head_and_the_mean_of_all_are_triangles_without_what_comes_later():
    figure, (weights, names, _) = drawn("attention"), FEW
    one, mean = (ax.images[0].get_array() for ax in figure.findobj(Axes)[:2])
    later = np.triu(np.ones((19, 19), dtype=bool), 1)
    for triangle, values in ((one, weights[0, 0]), (mean, weights.mean((0, 1)))):
        assert np.array_equal(triangle.mask, later)
        assert np.allclose(triangle.filled(0), np.where(later, 0, values))
    assert written(figure).count("masked:\nlater tokens") == 2
    assert [t.get_text() for t in figure.findobj(Axes)[0].get_yticklabels()] == names


def test_each_layer_has_a_map_of_what_the_last_token_sees_and_its_share():
    figure, (weights, *_) = drawn("attention"), FEW
    picture, *maps = figure.findobj(Axes)[2:]
    assert np.allclose(picture.images[0].get_array(), IMAGE) and len(maps) == 2
    for ax, of_layer in zip(maps, weights[:, :, -1, 1:17].mean(1), strict=True):
        assert np.allclose(ax.images[0].get_array(), of_layer.reshape(4, 4))
        assert ax.get_title("left").endswith(f"\n{of_layer.sum():.0%}")


def test_the_average_shares_of_itself_the_one_before_and_the_first_are_in_the_alt_text():
    mean = FEW[0].mean((0, 1))
    before = np.mean([mean[i, i - 1] for i in range(1, 19)])
    shares = np.mean(np.diag(mean)), before, mean[1:, 0].mean()
    text = "{:.0%} go to the token itself, {:.0%} to the one before, {:.0%} to the first"
    assert text.format(*shares) in drawn("attention").alt


def test_names_that_do_not_fit_are_left_out():
    axes = drawn("attention, 196 patches").findobj(Axes)
    assert 10 < len(axes[0].get_yticklabels()) <= 22


def bars(figure) -> tuple[list[float], list[float]]:
    """Lengths of the model's own bars and of the hatched ones, from top to bottom."""
    both = [p for p in figure.axes[1].patches if p.get_width() is not None]
    own = [p for p in both if to_hex(p.get_facecolor()) == BLUE.lower() and not p.get_hatch()]
    return [p.get_width() for p in own], [p.get_width() for p in both if p.get_hatch()]


def test_every_token_has_a_plain_bar_and_a_hatched_one_as_long_as_its_probabilities():
    candidates, (own, after) = TRACE.candidates(7, 10), bars(drawn("candidates, one"))
    assert own == pytest.approx([c.probability for c in candidates])
    assert after == pytest.approx([c.after for c in candidates])


def test_each_bar_has_its_number_and_one_that_was_cut_away_has_0():
    trace = make_trace(CODES)
    trace.after[3] = np.eye(len(VOCAB))[trace.ids[3]]  # as greedy decoding would have it
    shown, candidates = written(plot_candidates(trace, BOOK, [3], 4)), trace.candidates(3, 4)
    for c in candidates:
        assert f"{c.probability:.1%}" in shown
    assert shown.count("0") == sum(c.after == 0 for c in candidates) >= 3
    assert "100.0%" in shown


def test_the_actual_token_is_marked_and_bold_even_outside_the_most_likely():
    trace = make_trace(CODES)
    trace.expected[5, trace.ids[5]] = 1e-5
    figure = plot_candidates(trace, BOOK, [5], 3)
    name = trace.names[trace.ids[5]]
    (label,) = (t for t in texts(figure) if t.get_text() == f"▸ {name}")
    assert label.get_fontweight() == "bold"
    others = [t for t in texts(figure) if t.get_text().startswith("<")]
    assert len(others) == 3 and all(t.get_fontweight() == "normal" for t in others)
    assert f"▸ came: {name}, {-np.log(1e-5):.2f} nats" in words(figure)


def test_a_token_that_is_no_code_has_bars_and_no_patch():
    trace = make_trace(CODES)
    trace.expected[5, VOCAB[EOS]] = 0.99
    patches = plot_candidates(trace, BOOK, [5], 3).findobj(OffsetImage)
    tokens = [c.token for c in trace.candidates(5, 3)]
    codes = [token for token in tokens if token.startswith("<Z_")]
    assert EOS in tokens and codes
    for patch, token in zip(patches, codes, strict=True):
        center = BOOK.centers[int(token[3:-1])].reshape(2, 2)
        assert np.array_equal(patch.get_data(), center)
        assert (patch.image.norm.vmin, patch.image.norm.vmax) == (0, 1)  # paper is white


def test_the_codes_before_are_shown_and_the_place_itself_is_empty_and_framed():
    figure = drawn("candidates")
    for place, tile in zip([0, 5, 15], tiles(figure, 1.0), strict=True):
        shown = np.asarray(tile.get_array())
        down, across = divmod(place, 4)
        assert not shown[2 * down : 2 * down + 2, 2 * across : 2 * across + 2].any()
        assert np.allclose(shown[: 2 * down], IMAGE[: 2 * down])
    assert len(frames(figure)) == 3


def test_candidates_have_both_numbers_and_the_uniform_one_in_the_alt_text():
    alt = drawn("candidates").alt
    assert "Uniform: 2.5%." in alt
    for place in (0, 5, 15):
        for c in TRACE.candidates(place, 6):
            came = " (what came)" * c.chosen
            assert f"{c.token}{came} {c.probability:.1%}, then {c.after:.1%}" in alt


def test_without_sampling_settings_there_is_one_bar_for_each_token_and_for_what_came():
    figure, candidates = drawn("candidates, no settings"), TRACE.candidates(5, 10)
    own, after = bars(figure)
    assert own == pytest.approx([c.probability for c in candidates]) and not after
    assert "then" not in figure.alt and "sampling" not in words(figure) + figure.alt
    assert any(t.startswith("▸ <Z_") for t in written(figure))


@pytest.mark.parametrize("token", ["$x$", "$\\bad$", "<script>", "a_b^c", "\x1b[2J"])
def test_a_token_is_written_as_it_is_and_no_formula(token, tmp_path):
    trace = make_trace(CODES)
    absent = np.setdiff1d(np.arange(len(trace.names)), trace.ids)  # the picture has codes only
    trace.names[absent[trace.expected[5][absent].argmax()]] = token
    figure = plot_candidates(trace, BOOK, [5], 10)
    figure.savefig(tmp_path / "figure.png")
    names = figure.axes[1].get_yticklabels()
    assert token.replace("\x1b", "\\x1b") in [name.get_text() for name in names]
    assert not any(name.get_parse_math() for name in names)
