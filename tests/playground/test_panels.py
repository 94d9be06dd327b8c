"""What the controls say is what is drawn, classified, completed and shown."""

import re
from itertools import product

import numpy as np
import pytest
from playable import playable, save_model

from seqlm.config import SampleConfig
from seqlm.data.codebook import PatchCodebook
from seqlm.data.images import load_digits
from seqlm.data.tokenizer import encode_tokens
from seqlm.data.tokens import class_ids, code_token, read_layout, reading_prompt
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import draw
from seqlm.models.gpt2 import build_lm
from seqlm.playground import html
from seqlm.playground.app import Playground
from seqlm.playground.panels import PicturePanel, SharedImage
from seqlm.playground.player import Player

MOVES = {
    "temperature": 0.3, "top_k": 7, "top_p": 0.5, "guidance": 4.0, "num_beams": 2, "seed": 5,
}  # fmt: skip


def drawn(panel, config: SampleConfig, label) -> np.ndarray:
    """What models.generation draws with the panel's model. (P,)"""
    player = panel.player
    return draw(player.model, player.vocab, [label], player.book.n_patches, config)[0]


def classified(player: Player, codes: np.ndarray) -> np.ndarray:
    """The class probabilities that evaluation computes for `codes` (P,). (C,)"""
    prompt = encode_tokens(reading_prompt(read_layout(codes, 0)), player.vocab)
    return class_probabilities(player.model, [prompt], class_ids(player.vocab))[0]


# --- draw -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MOVES, "strategy"])
def test_a_control_that_moves_draws_with_its_setting(play, name):
    panel, controls = play.panels["draw"], play.controls
    control = controls.strategy if name == "strategy" else controls.sliders[name]
    control.value = "beam" if name == "strategy" else MOVES[name]
    assert np.array_equal(panel.codes, drawn(panel, controls.config(), 7))
    assert np.array_equal(play.panels["complete"].shared.codes, panel.codes)


@pytest.mark.parametrize("label", [0, 3, None])
def test_the_chosen_digit_is_drawn_and_named(play, label):
    panel = play.panels["draw"]
    panel.label.value = label
    assert np.array_equal(panel.codes, drawn(panel, play.controls.config(), label))
    digit = "any digit" if label is None else f"a {label}"
    assert panel.shared.description == f"drawing of {digit}"
    classes = classified(panel.player, panel.codes)
    assert panel.message.text == (
        f"Drawing of {digit}, seed 42; classified as {classes.argmax()} ({classes.max():.0%})."
    )


def test_drawing_another_takes_the_next_seed_and_drawing_again_replays(play):
    panel, seed = play.panels["draw"], play.controls.sliders["seed"]
    panel.next_button.click()
    assert seed.whole == SampleConfig.seed + 1
    before = panel.codes
    assert np.array_equal(before, drawn(panel, play.controls.config(), 7))
    assert not panel.step.playing
    panel.draw_button.click()
    assert np.array_equal(panel.codes, before)
    assert panel.step.playing and panel.step.whole == 1


def test_the_code_slider_hides_later_codes(play):
    panel, player = play.panels["draw"], play.panels["draw"].player
    (image,) = player.book.decode(panel.codes[None])
    surprisal = player.trace_drawing(panel.codes, 7, play.controls.config()).surprisal
    for n in (1, 5, 16):
        panel.step.value = n
        partial, patch = image.copy(), player.book.patch
        for place in range(n, 16):
            y, x = (patch * i for i in divmod(place, 4))
            partial[y : y + patch, x : x + patch] = 0
        shown = panel.output.value
        assert html.image_figure(partial, f"drawing of a 7, first {n} of 16 codes") in shown
        assert f"in nats (−ln p); total {surprisal[:n].sum():.1f}<" in shown
        assert f"Next-token probabilities, code {n}<" in shown
        (chosen,) = re.findall(r"&lt;(Z_\d+)&gt; \(chosen\)", shown)
        assert f"<{chosen}>" == code_token(panel.codes[n - 1])


def test_the_classification_of_a_drawing_is_that_of_evaluation(play):
    panel = play.panels["draw"]
    expected = classified(panel.player, panel.codes)
    assert np.allclose(panel.classes, expected, atol=1e-6)
    assert html.class_table(expected, "Classification") in panel.output.value


# --- paint or select ------------------------------------------------------------------------------


def test_a_selected_test_image_is_shown_shared_and_classified(play):
    panel, player = play.panels["picture"], play.panels["picture"].player
    panel.number.value = 4
    assert np.allclose(panel.grid.image(), np.rint(player.images[4] * 16) / 16)
    (codes,) = player.book.encode(player.images[4:5])
    assert np.array_equal(panel.shared.codes, codes)
    assert panel.shared.description == f"test image 4, labelled {player.labels[4]}"
    classes = classified(player, codes)
    assert panel.message.text == f"Classified as {classes.argmax()} ({classes.max():.0%})."
    assert html.class_table(classes, "Classification") in panel.output.value
    total = player.trace_reading(codes).surprisal.sum()
    assert f"in nats (−ln p); total {total:.1f}<" in panel.output.value


def test_a_painted_over_test_image_is_a_painting_until_it_is_painted_back(play):
    panel = play.panels["picture"]
    panel.number.value = 4
    original = list(panel.grid.value)
    panel.grid.value = [16 - level for level in original]
    assert panel.shared.description == "your painting"
    (codes,) = panel.player.book.encode(panel.grid.image()[None])
    assert np.array_equal(panel.shared.codes, codes)
    panel.grid.value = original
    assert panel.shared.description.startswith("test image 4")


def test_a_painting_of_28x28_pixels_has_a_brush_as_wide_as_its_strokes(tiny, vocab, tmp_path):
    images = np.kron(load_digits()[0][:60], np.ones((3, 3), np.float32))
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    book, model = PatchCodebook.fit(images, 50, 4), build_lm(tiny, vocab)
    player = Player.load(save_model(model, vocab, tmp_path / "model", book))
    panel = PicturePanel(player, SharedImage())
    assert (panel.grid.height, panel.grid.width) == (28, 28)
    assert 2 < panel.grid.pen < 2.5  # MNIST's strokes: twice their ink over their edge is 2.3
    panel.grid.show(images[3])
    (codes,) = book.encode(panel.grid.image()[None])
    assert panel.shared.description == "your painting" and np.array_equal(panel.shared.codes, codes)


def test_the_first_test_image_is_shared_only_when_it_is_selected(play):
    panel = play.panels["picture"]
    assert panel.shared.description == "drawing of a 7"
    panel.number.value = 1
    panel.number.value = 0
    assert panel.shared.description.startswith("test image 0, labelled")


def test_without_test_images_one_can_still_paint(built, opinionated, vocab, tmp_path):
    bare = playable(tmp_path, built, opinionated(), vocab)
    (bare.data / "images.npz").unlink()
    panel = Playground(bare).panels["picture"]
    panel.grid.show(np.eye(8))
    assert panel.shared.description == "your painting"


# --- complete -------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [None, 2])
def test_completions_keep_the_upper_half_and_are_classified(play, label):
    panel, player = play.panels["complete"], play.panels["complete"].player
    play.panels["picture"].number.value = 2
    assert "Upper half of: test image 2, labelled" in panel.source.value
    panel.label.value = label
    panel.button.click()
    original = panel.shared.codes
    completions = player.complete(original, label, play.controls.config(), 5)
    assert (completions[:, :8] == original[:8]).all()
    for i, codes in enumerate(completions, 1):
        classes = classified(player, codes)
        caption = f"{i}: classified as {classes.argmax()} ({classes.max():.0%})"
        (image,) = player.book.decode(codes[None])
        assert html.gallery([image], [caption]) in panel.output.value
    half = player.book.decode(original[None])[0]
    half[4:] = 0
    assert html.gallery([half], ["upper half"]) in panel.output.value
    assert len(re.findall(r"\d", panel.message.text)) == 5


def test_another_image_clears_the_completions_of_the_last(play):
    panel = play.panels["complete"]
    panel.button.click()
    assert panel.output.value and panel.message.text
    play.panels["draw"].next_button.click()
    assert not panel.output.value and not panel.message.text


def test_without_randomness_there_is_one_completion(play):
    play.controls.strategy.value = "greedy"
    play.panels["complete"].complete()
    assert "Greedy search has only one result" in play.panels["complete"].message.text


# --- attention ------------------------------------------------------------------------------------


def test_the_attention_shown_is_that_of_the_chosen_head_and_token(play):
    panel, player = play.panels["attention"], play.panels["attention"].player
    weights = player.attention(panel.shared.codes)
    for layer, head, token in product((1, 2), (1, 2), (1, 6, 18, 19)):
        panel.layer.value, panel.head.value, panel.token.value = layer, head, token
        percent = 100 * weights[layer - 1, head - 1, token - 1]
        places = [f"{percent[1 + i]:.0f}" if i + 2 <= token else "–" for i in range(16)]
        rows = "; ".join(", ".join(places[row : row + 4]) for row in range(0, 16, 4))
        name = ["<IMG>", *map(code_token, panel.shared.codes), "</IMG>", "<CLS>"][token - 1]
        name = name.replace("<", "&lt;").replace(">", "&gt;")
        start = f"attention of layer {layer}, head {head}, from {name} to each code, in percent; "
        start += f"{percent[0] / 100:.0%} to &lt;IMG&gt;"
        assert start in panel.output.value
        assert f". Row by row: {rows}." in panel.output.value


def test_another_image_gets_attention_weights_of_its_own(play):
    panel = play.panels["attention"]
    play.panels["picture"].number.value = 3
    assert np.array_equal(panel.weights, panel.player.attention(panel.shared.codes))
    assert panel.shared.description in panel.output.value
