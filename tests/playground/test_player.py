"""The player gives what the functions of the other rooms give, and refuses unsuitable models."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from playable import save_model

from seqlm.config import SampleConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.codebook import PatchCodebook
from seqlm.data.records import Record, write_records
from seqlm.data.tokenizer import encode_tokens
from seqlm.data.tokens import CLS, IMG, class_ids, default_vocab, drawing_prompt, read_layout
from seqlm.deploy.infer import classify_rows
from seqlm.errors import DataError
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import draw
from seqlm.models.gpt2 import build_classifier, build_lm
from seqlm.models.tracing import attention_weights, trace
from seqlm.playground.player import Player

CODES = np.random.default_rng(2).integers(50, size=(4, 16))


@pytest.fixture(scope="module")
def directory(ws):
    return ws.best_model


@pytest.fixture(scope="module")
def player(directory, built):
    return Player.load(directory, built.directory)


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["sample", "greedy", "beam"])
def test_it_draws_what_generation_draws(player, strategy):
    config = SampleConfig(strategy=strategy, guidance=1.5, seed=4)
    labels = [3, None, 9]
    drawn = player.draw(labels, config)
    assert drawn.shape == (3, 16)
    assert np.array_equal(drawn, draw(player.model, player.vocab, labels, 16, config))


def test_it_continues_codes_and_leaves_them_unchanged(player):
    config, start = SampleConfig(seed=4), CODES[:2, :5]
    drawn = player.draw([3, 9], config, start)
    assert np.array_equal(drawn[:, :5], start)
    assert np.array_equal(drawn, draw(player.model, player.vocab, [3, 9], 16, config, start))
    assert not np.array_equal(drawn[:, 5:], player.draw([3, 9], config)[:, 5:])


@pytest.mark.parametrize("label", [7, None])
def test_completions_keep_the_upper_half_and_differ(player, label):
    config, codes = SampleConfig(seed=4), CODES[0]
    ways = player.complete(codes, label, config, 5)
    assert ways.shape == (5, 16)
    assert (ways[:, :8] == codes[:8]).all()
    assert len({tuple(way[8:]) for way in ways}) > 1
    start = np.tile(codes[:8], (5, 1))
    assert np.array_equal(ways, draw(player.model, player.vocab, [label] * 5, 16, config, start))


def test_completions_do_not_depend_on_the_lower_half(player):
    other = np.concatenate([CODES[0, :8], CODES[1, 8:]])
    config = SampleConfig(seed=4)
    assert np.array_equal(player.complete(CODES[0], 7, config), player.complete(other, 7, config))


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_greedy_and_beam_search_have_one_completion_only(player, strategy):
    ways = player.complete(CODES[0], 7, SampleConfig(strategy=strategy), 3)
    assert len({tuple(way) for way in ways}) == 1


# --- reading and looking --------------------------------------------------------------------------


def test_it_classifies_as_the_terminal_does(player, directory, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    write_records(path, [Record(read_layout(row, 3), 3) for row in CODES])
    classify_rows(directory, str(path))
    expected = [json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines()]
    classes = player.classify(CODES)
    assert classes == pytest.approx(np.array(expected), abs=1e-5)
    assert classes.sum(1) == pytest.approx(1, abs=1e-5)
    assert np.ptp(classes, axis=0).max() > 0.005  # images matter, or nothing is compared


def test_its_prompts_end_before_the_class(player, vocab):
    prompts = [
        encode_tokens((IMG, *(f"<Z_{code:03d}>" for code in row), "</IMG>", CLS), vocab)
        for row in CODES
    ]
    expected = class_probabilities(player.model, prompts, class_ids(vocab))
    assert np.array_equal(player.classify(CODES), expected)


def test_traces_start_with_the_prompt_of_their_layout(player, vocab):
    config = SampleConfig(guidance=2.0, top_k=5)
    for label in (3, None):
        mine = player.trace_drawing(CODES[0], label, config)
        expected = trace(player.model, vocab, drawing_prompt(label), CODES[0], config)
        assert np.array_equal(mine.expected, expected.expected)
        assert np.array_equal(mine.after, expected.after)
    reading = player.trace_reading(CODES[0])
    assert np.array_equal(reading.expected, trace(player.model, vocab, (IMG,), CODES[0]).expected)
    assert not np.array_equal(reading.expected, mine.expected)


def test_attention_is_over_the_prompt_that_asks_for_the_class(player, vocab):
    tokens = player.prompt(CODES[0])
    assert tokens == read_layout(CODES[0], 5)[:-2]  # no class, no <EOS>
    weights = player.attention(CODES[0])
    assert weights.shape == (2, 2, len(tokens), len(tokens))
    assert np.array_equal(weights, attention_weights(player.model, encode_tokens(tokens, vocab)))


# --- loading --------------------------------------------------------------------------------------


def test_it_loads_the_test_images_and_no_others(player, built):
    images, labels = built.pictures.of("test")
    assert np.array_equal(player.images, images) and np.array_equal(player.labels, labels)
    assert 0 < len(images) < len(built.pictures.images)
    assert player.n_classes == 10


@pytest.mark.parametrize("data", [None, "nowhere"])
def test_without_a_data_set_there_are_no_images_and_all_else_works(directory, data, tmp_path):
    player = Player.load(directory, data and tmp_path / data)
    assert player.images.shape == (0, 8, 8) and player.labels.shape == (0,)
    assert player.draw([3], SampleConfig()).shape == (1, 16)


def refused(directory) -> str:
    with pytest.raises(DataError) as caught:
        Player.load(directory)
    message = str(caught.value)
    assert message.startswith(str(directory))
    assert "\n" not in message and ". " not in message.removeprefix(str(directory))  # one sentence
    return message


def test_a_folder_without_a_model_is_refused(tmp_path):
    message = refused(tmp_path)
    assert "no model here" in message and "make report" in message


def test_a_classifier_is_refused(tiny, vocab, built, tmp_path):
    directory = save_model(build_classifier(tiny, vocab, 10), vocab, tmp_path / "c", built.book)
    assert "not a language model" in refused(directory)


def test_a_model_without_a_codebook_is_refused(tiny, vocab, tmp_path):
    message = refused(save_model(build_lm(tiny, vocab), vocab, tmp_path / "m"))
    assert CODEBOOK in message and "seqlm build" in message


def test_a_codebook_with_more_codes_than_the_vocabulary_is_refused(tiny, built, tmp_path):
    vocab = default_vocab(49)
    message = refused(save_model(build_lm(tiny, vocab), vocab, tmp_path / "m", built.book))
    assert "50 codes" in message and "vocabulary 49" in message


def test_only_codes_of_the_codebook_are_drawn(tiny, built, tmp_path):
    vocab = default_vocab(60)
    player = Player.load(save_model(build_lm(tiny, vocab), vocab, tmp_path / "m", built.book))
    codes = player.draw([3] * 40, SampleConfig(temperature=50.0))
    assert codes.max() < player.book.n_codes == 50
    assert len(np.unique(codes)) > 40  # so the ten others would have come, too


def test_a_model_without_classes_is_refused(tiny, built, tmp_path):
    vocab = default_vocab(50, n_classes=0)
    message = refused(save_model(build_lm(tiny, vocab), vocab, tmp_path / "m", built.book))
    assert "with 0 classes" in message


def test_images_of_another_size_than_the_models_are_refused(directory, built, tmp_path):
    large = np.zeros((3, 28, 28), np.float32)
    np.savez(tmp_path / "images.npz", images=large, labels=np.arange(3), split=["test"] * 3)
    with pytest.raises(DataError, match=r"28x28.*8x8") as caught:
        Player.load(directory, tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_model_too_short_for_an_image_is_refused(tiny, vocab, built, tmp_path):
    exact, short = (replace(tiny, n_positions=n) for n in (19, 18))
    long = save_model(build_lm(exact, vocab), vocab, tmp_path / "19", built.book)
    player = Player.load(long)
    drawn = player.draw([3], SampleConfig())
    assert player.classify(drawn).shape == (1, 10) and player.attention(drawn[0]).shape[-1] == 19
    message = refused(save_model(build_lm(short, vocab), vocab, tmp_path / "18", built.book))
    assert "19 tokens" in message and "at most 18" in message


def test_the_upper_half_is_whole_rows_of_patches(built):
    centers = np.zeros((50, 16), np.float32)
    for shape, half in (((28, 28), (21, 12)), ((8, 8), (2, 4)), ((16, 8), (4, 8))):
        book = PatchCodebook(centers, shape, 4)
        assert Player(Path(), None, {}, book, None, None).half == half


def test_attention_waits_until_a_drawing_is_done(directory):
    player = Player.load(directory)
    begun, go_on = Event(), Event()
    before = player.model.config._attn_implementation

    def stopped(*_):
        begun.set()
        go_on.wait(30)

    hook = player.model.register_forward_pre_hook(stopped)
    drawing = Thread(target=player.draw, args=([3], SampleConfig()))
    drawing.start()
    assert begun.wait(30)
    looking = Thread(target=player.attention, args=(np.zeros(16, int),))
    looking.start()
    looking.join(0.3)
    assert looking.is_alive() and player.model.config._attn_implementation == before
    go_on.set()
    drawing.join(30)
    looking.join(30)
    hook.remove()
    assert not drawing.is_alive() and not looking.is_alive()
