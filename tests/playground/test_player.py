"""The player is the same functions the metrics and the terminal use, with one model in its hand."""

import io
import json
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from matplotlib.image import imread

from seqlm.config import SampleConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.codebook import PatchCodebook
from seqlm.data.records import Record, read_records, write_records
from seqlm.data.tokenizer import build_tokenizer, encode_tokens, save_tokenizer
from seqlm.data.tokens import CLS, IMG, class_ids, default_vocab, drawing_prompt, read_layout
from seqlm.deploy.infer import classify_rows
from seqlm.errors import DataError
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import draw
from seqlm.models.gpt2 import build_classifier, build_lm
from seqlm.models.tracing import attention_weights, trace
from seqlm.playground.gallery import gallery_jsonl, gallery_png
from seqlm.playground.player import Player
from seqlm.plots.style import DPI, LARGEST_TILE

CODES = np.random.default_rng(2).integers(50, size=(4, 16))


def saved(model, vocab, directory, book=None):
    model.save_pretrained(directory)
    save_tokenizer(build_tokenizer(vocab), directory)
    if book is not None:
        book.save(directory / CODEBOOK)
    return directory


@pytest.fixture(scope="module")
def directory(tiny, vocab, built, tmp_path_factory):
    """An untrained model as training leaves one, its code book beside it. Read it only."""
    model = build_lm(tiny, vocab, seed=3)
    for weight in (p for p in model.parameters() if p.ndim == 2):
        weight.data.mul_(4)  # opinions
    return saved(model, vocab, tmp_path_factory.mktemp("run") / "best_model", built.book)


@pytest.fixture(scope="module")
def player(directory, built):
    return Player.load(directory, built.directory)


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["sample", "greedy", "beam"])
def test_it_draws_what_sampling_draws(player, strategy):
    config = SampleConfig(strategy=strategy, guidance=1.5, seed=4)
    labels = [3, None, 9]
    drawn = player.draw(labels, config)
    assert drawn.shape == (3, 16)
    assert np.array_equal(drawn, draw(player.model, player.vocab, labels, 16, config))


def test_it_draws_on_from_what_is_begun_and_leaves_that_alone(player):
    config, begun = SampleConfig(seed=4), CODES[:2, :5]
    drawn = player.draw([3, 9], config, begun)
    assert np.array_equal(drawn[:, :5], begun)
    assert np.array_equal(drawn, draw(player.model, player.vocab, [3, 9], 16, config, begun))
    assert not np.array_equal(drawn[:, 5:], player.draw([3, 9], config)[:, 5:])


@pytest.mark.parametrize("label", [7, None])
def test_completions_keep_the_upper_half_and_go_on_in_several_ways(player, label):
    config, codes = SampleConfig(seed=4), CODES[0]
    ways = player.complete(codes, label, config, 5)
    assert ways.shape == (5, 16)
    assert (ways[:, :8] == codes[:8]).all()
    assert len({tuple(way[8:]) for way in ways}) > 1
    begun = np.tile(codes[:8], (5, 1))
    assert np.array_equal(ways, draw(player.model, player.vocab, [label] * 5, 16, config, begun))


def test_the_lower_half_of_what_is_completed_does_not_matter(player):
    other = np.concatenate([CODES[0, :8], CODES[1, 8:]])
    config = SampleConfig(seed=4)
    assert np.array_equal(player.complete(CODES[0], 7, config), player.complete(other, 7, config))


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_greedy_and_beam_complete_in_one_way_only(player, strategy):
    ways = player.complete(CODES[0], 7, SampleConfig(strategy=strategy), 3)
    assert len({tuple(way) for way in ways}) == 1


# --- reading and looking --------------------------------------------------------------------------


def test_it_reads_as_the_terminal_reads(player, directory, tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    write_records(path, [Record(read_layout(row, 3), 3) for row in CODES])
    classify_rows(directory, str(path))
    said = [json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines()]
    found = player.classes(CODES)
    assert found == pytest.approx(np.array(said), abs=1e-5)
    assert found.sum(1) == pytest.approx(1, abs=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01  # pictures matter, or nothing was compared


def test_its_classes_are_those_of_the_prompts_that_end_before_the_class(player, vocab):
    prompts = [
        encode_tokens((IMG, *(f"<Z_{code:03d}>" for code in row), "</IMG>", CLS), vocab)
        for row in CODES
    ]
    expected = class_probabilities(player.model, prompts, class_ids(vocab))
    assert np.array_equal(player.classes(CODES), expected)


def test_it_looks_inside_with_the_prompt_it_was_drawn_or_read_with(player, vocab):
    config = SampleConfig(guidance=2.0, top_k=5)
    for label in (3, None):
        mine = player.traced(CODES[0], label, config)
        its = trace(player.model, vocab, drawing_prompt(label), CODES[0], config)
        assert np.array_equal(mine.expected, its.expected)
        assert np.array_equal(mine.after, its.after)
    along = player.read_along(CODES[0])
    assert np.array_equal(along.expected, trace(player.model, vocab, (IMG,), CODES[0]).expected)
    assert not np.array_equal(along.expected, mine.expected)


def test_attention_is_over_the_sentence_that_asks_for_the_class(player, vocab):
    tokens = player.reading(CODES[0])
    assert tokens == read_layout(CODES[0], 5)[:-2]  # no class, no <EOS>
    found = player.attention(CODES[0])
    assert found.shape == (2, 2, len(tokens), len(tokens))
    assert np.array_equal(found, attention_weights(player.model, encode_tokens(tokens, vocab)))


# --- loading --------------------------------------------------------------------------------------


def test_it_brings_the_test_pictures_and_no_others(player, built):
    images, labels = built.pictures.of("test")
    assert np.array_equal(player.images, images) and np.array_equal(player.labels, labels)
    assert 0 < len(images) < len(built.pictures.images)
    assert player.n_classes == 10


@pytest.mark.parametrize("data", [None, "nowhere"])
def test_without_a_data_set_there_are_no_pictures_and_all_else_works(directory, data, tmp_path):
    player = Player.load(directory, data and tmp_path / data)
    assert player.images.shape == (0, 8, 8) and player.labels.shape == (0,)
    assert player.draw([3], SampleConfig()).shape == (1, 16)


def refused(directory) -> str:
    with pytest.raises(DataError) as caught:
        Player.load(directory)
    said = str(caught.value)
    assert said.startswith(str(directory))
    assert "\n" not in said and ". " not in said.removeprefix(str(directory))  # one sentence
    return said


def test_a_folder_without_a_model_is_refused(tmp_path):
    said = refused(tmp_path)
    assert "no model here" in said and "make report" in said


def test_a_classifier_is_refused(tiny, vocab, built, tmp_path):
    directory = saved(build_classifier(tiny, vocab, 10), vocab, tmp_path / "c", built.book)
    assert "not a language model" in refused(directory)


def test_a_model_without_a_code_book_is_refused(tiny, vocab, tmp_path):
    said = refused(saved(build_lm(tiny, vocab), vocab, tmp_path / "m"))
    assert CODEBOOK in said and "seqlm build" in said


def test_a_code_book_with_more_codes_than_the_model_knows_is_refused(tiny, built, tmp_path):
    vocab = default_vocab(49)
    said = refused(saved(build_lm(tiny, vocab), vocab, tmp_path / "m", built.book))
    assert "50 codes" in said and "vocabulary 49" in said


def test_of_a_code_book_with_fewer_codes_only_those_are_drawn(tiny, built, tmp_path):
    vocab = default_vocab(60)
    player = Player.load(saved(build_lm(tiny, vocab), vocab, tmp_path / "m", built.book))
    codes = player.draw([3] * 40, SampleConfig(temperature=50.0))
    assert codes.max() < player.book.n_codes == 50
    assert len(np.unique(codes)) > 40  # so the ten others would have come, too


def test_a_model_that_knows_no_classes_is_refused(tiny, built, tmp_path):
    vocab = default_vocab(50, n_classes=0)
    said = refused(saved(build_lm(tiny, vocab), vocab, tmp_path / "m", built.book))
    assert "with 0 classes" in said


def test_pictures_of_another_size_than_the_models_are_refused(directory, built, tmp_path):
    large = np.zeros((3, 28, 28), np.float32)
    np.savez(tmp_path / "images.npz", images=large, labels=np.arange(3), split=["test"] * 3)
    with pytest.raises(DataError, match=r"28x28.*8x8") as caught:
        Player.load(directory, tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_model_too_short_for_a_picture_is_refused(tiny, vocab, built, tmp_path):
    exact, short = (replace(tiny, n_positions=n) for n in (19, 18))
    held = saved(build_lm(exact, vocab), vocab, tmp_path / "19", built.book)
    player = Player.load(held)
    drawn = player.draw([3], SampleConfig())
    assert player.classes(drawn).shape == (1, 10) and player.attention(drawn[0]).shape[-1] == 19
    said = refused(saved(build_lm(short, vocab), vocab, tmp_path / "18", built.book))
    assert "19 tokens" in said and "at most 18" in said


# --- the gallery that is taken along --------------------------------------------------------------


def test_a_gallery_is_rows_that_can_be_read_back_and_drawn_again(player, vocab, tmp_path):
    config = SampleConfig(temperature=0.9, top_p=0.95, guidance=1.5, seed=11)
    labels = [*range(10), None]
    codes = player.draw(labels, config)
    settings = [{**asdict(config), "number": k} for k in range(len(labels))]
    path = tmp_path / "gallery.jsonl"
    path.write_bytes(gallery_jsonl(codes, labels, settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = read_records(path, vocab)
    assert [row.label for row in rows] == labels
    for row, drawn, label, number in zip(rows, codes, labels, range(11), strict=True):
        assert row.tokens[:3] == drawing_prompt(label)
        assert row.codes == tuple(f"<Z_{code:03d}>" for code in drawn)
        assert row.meta == {"drawn": True, **asdict(config), "number": number}
    held = {name: rows[4].meta[name] for name in asdict(config)}
    assert np.array_equal(player.draw(labels, SampleConfig(**held)), codes)


def test_a_gallery_is_a_png_whose_pictures_are_the_drawings(player):
    codes = player.draw([0, 1, 2], SampleConfig())
    images = player.book.decode(codes)
    png = gallery_png(images, ["0", "1", "2"])
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    shown = imread(io.BytesIO(png))
    assert shown.shape[1] > 300 and shown[..., :3].min() < 0.2
    blank = imread(io.BytesIO(gallery_png(np.zeros_like(images), ["0", "1", "2"])))
    assert shown.shape == blank.shape
    # What the two differ by is ink, as much as the drawings have.
    ink = (blank - shown)[..., :3].mean(-1).sum() / (LARGEST_TILE * DPI) ** 2
    assert ink == pytest.approx(images.mean((1, 2)).sum(), rel=0.15)


def test_half_a_picture_is_whole_rows_of_patches(built):
    centers = np.zeros((50, 16), np.float32)
    for shape, half in (((28, 28), (21, 12)), ((8, 8), (2, 4)), ((16, 8), (4, 8))):
        book = PatchCodebook(centers, shape, 4)
        assert Player(Path(), None, {}, book, None, None).half == half


def test_attention_waits_for_a_drawing_that_is_under_way(directory):
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
