"""What the controls of the playground say is what is drawn, read, completed and saved."""

import base64
import io
import json
import re
import sys
import threading
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread
from playable import playable

from seqlm.config import DRAWING, DataConfig, ModelConfig, SampleConfig
from seqlm.data.records import read_records
from seqlm.data.tokenizer import encode_tokens
from seqlm.data.tokens import class_ids, code_token, read_layout, reading_prompt
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import draw
from seqlm.playground import app as playground
from seqlm.playground import html as views
from seqlm.playground import quick
from seqlm.playground.app import Playground, QuickTraining
from seqlm.playground.choices import Choice, Notice
from seqlm.playground.controls import HEEDED, Settings
from seqlm.playground.gallery import GalleryPanel
from seqlm.playground.player import Player
from seqlm.playground.sliders import Slider
from seqlm.workspace import Workspace


@pytest.fixture(scope="module")
def ws(built, tiny, tmp_path_factory) -> Workspace:
    return playable(tmp_path_factory.mktemp("home"), built.directory, tiny)


@pytest.fixture
def play(ws) -> Playground:
    return Playground(ws)


def drawn(panel, config: SampleConfig, label) -> np.ndarray:
    """What sampling.draw draws with the panel's model. (P,)"""
    player = panel.player
    return draw(player.model, player.vocab, [label], player.book.n_patches, config)[0]


def opinion(player: Player, codes: np.ndarray) -> np.ndarray:
    """What classes.class_probabilities says of `codes` (P,). (C,)"""
    prompt = encode_tokens(reading_prompt(read_layout(codes, 0)), player.vocab)
    return class_probabilities(player.model, [prompt], class_ids(player.vocab))[0]


# --- the controls ---------------------------------------------------------------------------------


def test_the_controls_begin_as_readme_draws():
    assert Settings().config() == SampleConfig(**DRAWING)


MOVES = {
    "temperature": 0.3, "top_k": 7, "top_p": 0.5, "guidance": 4.0, "num_beams": 2, "seed": 5,
}  # fmt: skip


@pytest.mark.parametrize("strategy", HEEDED)
@pytest.mark.parametrize("name", MOVES)
def test_each_slider_changes_its_setting_and_only_what_is_heeded_can_be_moved(name, strategy):
    settings = Settings()
    settings.strategy.value = strategy
    before = settings.config()
    settings.sliders[name].value = MOVES[name]
    assert settings.config() == replace(before, **{name: MOVES[name]})
    assert settings.sliders[name].disabled == (name not in HEEDED[strategy])


def test_a_slider_is_never_outside_its_limits():
    slider = Slider(label="rows", min=1, max=5, step=1, value=3)
    for wanted, kept in ((9, 5), (-2, 1), (4, 4)):
        slider.value = wanted
        assert slider.whole == kept


def test_after_the_last_seed_comes_the_first():
    settings = Settings()
    settings.sliders["seed"].value = 999
    settings.next_seed()
    assert settings.config().seed == 0


def test_a_choice_stands_for_a_value_and_none_is_one():
    choice = Choice("digit", {"0": 0, "1": 1, "any": None}, -1)
    assert (choice.index, choice.value, choice.names) == (2, None, ["0", "1", "any"])
    for index, value in ((1, 1), (9, None), (-1, 0)):
        choice.index = index
        assert choice.value == value


@pytest.mark.parametrize("widget", [Slider, Choice, Notice])
def test_what_the_page_runs_needs_no_network(widget):
    outside = ("http:", "https:", "import ", "url(")
    assert [word for word in outside if word in f"{widget._esm}{widget._css}"] == []


# --- draw -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MOVES, "strategy"])
def test_what_is_drawn_is_what_the_controls_say(play, name):
    panel, settings = play.panels["draw"], play.settings
    control = settings.strategy if name == "strategy" else settings.sliders[name]
    control.value = "beam" if name == "strategy" else MOVES[name]
    assert np.array_equal(panel.codes, drawn(panel, settings.config(), 7))
    assert np.array_equal(play.panels["complete"].desk.codes, panel.codes)


@pytest.mark.parametrize("label", [0, 3, None])
def test_the_digit_that_is_asked_for_is_drawn_and_named(play, label):
    panel = play.panels["draw"]
    panel.digit.index = panel.digit.values.index(label)
    assert np.array_equal(panel.codes, drawn(panel, play.settings.config(), label))
    asked = "a digit of its own choice" if label is None else f"a {label}"
    assert panel.desk.origin == f"the model’s drawing of {asked}"
    said = opinion(panel.player, panel.codes)
    assert panel.told.text == (
        f"Drawn: {asked}, seed 42. The model says {said.argmax()} ({said.max():.0%})."
    )


def test_drawing_another_takes_the_next_seed_and_drawing_again_plays_the_same(play):
    panel, seed = play.panels["draw"], play.settings.sliders["seed"]
    panel.other.click()
    assert seed.whole == SampleConfig.seed + 1
    before = panel.codes
    assert np.array_equal(before, drawn(panel, play.settings.config(), 7))
    assert not panel.place.playing
    panel.again.click()
    assert np.array_equal(panel.codes, before)
    assert panel.place.playing and panel.place.whole == 1


def test_the_code_slider_hides_what_comes_later(play):
    panel, player = play.panels["draw"], play.panels["draw"].player
    (image,) = player.book.decode(panel.codes[None])
    surprisal = player.traced(panel.codes, 7, play.settings.config()).surprisal
    for done in (1, 5, 16):
        panel.place.value = done
        half, patch = image.copy(), player.book.patch
        for place in range(done, 16):
            y, x = (patch * i for i in divmod(place, 4))
            half[y : y + patch, x : x + patch] = 0
        shown = panel.shown.value
        assert views.picture(half, f"The model’s drawing of a 7, {done} codes of it.") in shown
        assert f"in nats; {surprisal[:done].sum():.1f} together" in shown
        assert f"What might have come as code {done}<" in shown
        (here,) = re.findall(r"<th[^>]*>(<|&lt;)(Z_\d+)(>|&gt;) \(stands here\)", shown)
        assert f"<{here[1]}>" == code_token(panel.codes[done - 1])


def test_reading_back_is_class_probabilities(play):
    panel = play.panels["draw"]
    expected = opinion(panel.player, panel.codes)
    assert np.allclose(panel.opinion, expected, atol=1e-6)
    assert views.classes(expected, "How the model reads it") in panel.shown.value


# --- a picture of one's own -----------------------------------------------------------------------


def test_a_test_picture_is_put_in_the_grid_on_the_desk_and_read(play):
    panel, player = play.panels["picture"], play.panels["picture"].player
    panel.number.value = 4
    assert np.allclose(panel.grid.image(), np.rint(player.images[4] * 16) / 16)
    (codes,) = player.book.encode(player.images[4:5])
    assert np.array_equal(panel.desk.codes, codes)
    assert panel.desk.origin == f"test picture 4, labelled {player.labels[4]}"
    said = opinion(player, codes)
    assert panel.told.text == f"The model says {said.argmax()} ({said.max():.0%})."
    assert views.classes(said, "How the model reads it") in panel.shown.value
    total = player.read_along(codes).surprisal.sum()
    assert f"surprisal of each code in nats; {total:.1f} together" in panel.shown.value


def test_painting_over_a_test_picture_makes_it_ones_own_and_painting_it_back_does_not(play):
    panel = play.panels["picture"]
    panel.number.value = 4
    as_it_was = list(panel.grid.value)
    panel.grid.value = [16 - level for level in as_it_was]
    assert panel.desk.origin == "your painting"
    (codes,) = panel.player.book.encode(panel.grid.image()[None])
    assert np.array_equal(panel.desk.codes, codes)
    panel.grid.value = as_it_was
    assert panel.desk.origin.startswith("test picture 4")


def test_the_first_picture_is_taken_only_when_it_is_picked(play):
    panel = play.panels["picture"]
    assert panel.desk.origin == "the model’s drawing of a 7"
    panel.number.value = 1
    panel.number.value = 0
    assert panel.desk.origin.startswith("test picture 0, labelled")


def test_without_test_pictures_one_can_still_paint(built, tiny, tmp_path):
    bare = playable(tmp_path, built.directory, tiny)
    (bare.data / "images.npz").unlink()
    panel = Playground(bare).panels["picture"]
    panel.grid.show(np.eye(8))
    assert panel.desk.origin == "your painting"


# --- half a picture -------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [None, 2])
def test_completing_keeps_the_upper_half_and_reads_each_way(play, label):
    panel, player = play.panels["complete"], play.panels["complete"].player
    play.panels["picture"].number.value = 2
    assert "The upper half of: test picture 2, labelled" in panel.about.value
    panel.digit.index = panel.digit.values.index(label)
    panel.go.click()
    whole = panel.desk.codes
    ways = player.complete(whole, label, play.settings.config(), 5)
    assert (ways[:, :8] == whole[:8]).all()
    for i, way in enumerate(ways):
        said = opinion(player, way)
        caption = f"{i + 1}: read as {said.argmax()} ({said.max():.0%})"
        (image,) = player.book.decode(way[None])
        assert views.gallery([image], [caption]) in panel.shown.value
    half = player.book.decode(whole[None])[0]
    half[4:] = 0
    assert views.gallery([half], ["the upper half"]) in panel.shown.value
    assert len(re.findall(r"\d", panel.told.text)) == 5


def test_another_picture_takes_the_completions_of_the_last_away(play):
    panel = play.panels["complete"]
    panel.go.click()
    assert panel.shown.value and panel.told.text
    play.panels["draw"].other.click()
    assert not panel.shown.value and not panel.told.text


# --- attention ------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_chosen_head_and_token(play):
    panel, player = play.panels["attention"], play.panels["attention"].player
    weights = player.attention(panel.desk.codes)
    for layer, head, token in product((1, 2), (1, 2), (1, 6, 18, 19)):
        panel.layer.value, panel.head.value, panel.token.value = layer, head, token
        mine = 100 * weights[layer - 1, head - 1, token - 1]
        places = [f"{mine[1 + i]:.0f}" if i + 2 <= token else "–" for i in range(16)]
        rows = "; ".join(", ".join(places[row : row + 4]) for row in range(0, 16, 4))
        name = ["<IMG>", *map(code_token, panel.desk.codes), "</IMG>", "<CLS>"][token - 1]
        who = f"layer {layer}, head {head}, {name}".replace("<", "&lt;").replace(">", "&gt;")
        assert f"Attention of {who} to each code, in percent. Row by row: {rows}." in (
            panel.shown.value
        )
        assert f"{mine[0] / 100:.0%} to &lt;IMG&gt;" in panel.shown.value


def test_another_picture_is_attended_to_anew(play):
    panel = play.panels["attention"]
    play.panels["picture"].number.value = 3
    assert np.array_equal(panel.weights, panel.player.attention(panel.desk.codes))
    assert panel.desk.origin.replace("’", "&#x27;") in panel.shown.value


# --- the gallery ----------------------------------------------------------------------------------


def files_of(panel: GalleryPanel) -> dict[str, bytes]:
    links = re.findall(r'download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', panel.saved.value)
    return {name: base64.b64decode(held) for name, held in links}


def test_a_gallery_is_every_digit_in_every_row_and_can_be_drawn_again(play, tmp_path):
    panel, config = play.panels["gallery"], play.settings.config()
    panel.rows.value = 2
    panel.go.click()
    panel.worker.join()
    assert panel.status.text == "done: 2 of 2 rows, 20 drawings"
    assert panel.progress.value == panel.progress.max == 2
    assert (panel.go.disabled, panel.stop.disabled) == (False, True)
    held = files_of(panel)
    assert imread(io.BytesIO(held["gallery.png"])).ndim == 3
    path = tmp_path / "gallery.jsonl"
    path.write_bytes(held["gallery.jsonl"])
    rows = read_records(path, panel.player.vocab)
    assert [row.label for row in rows] == [*range(10)] * 2
    for i, row in enumerate(rows):
        now = replace(config, seed=config.seed + i // 10)
        assert {**asdict(now), "number": i % 10}.items() <= row.meta.items()
        codes = panel.player.draw(range(10), now)[i % 10]
        assert list(row.tokens[3:19]) == [code_token(code) for code in codes]


def test_a_gallery_can_be_stopped_and_what_is_there_by_then_stays(ws):
    player = Player.load(ws.best_model, ws.data)

    class Stopping:
        """The player; while it draws the second row, somebody presses Stop."""

        drawings = 0

        def __getattr__(self, name):
            return getattr(player, name)

        def draw(self, *asked):
            self.drawings += 1
            if self.drawings == 2:
                panel.stop.click()
            return player.draw(*asked)

    panel = GalleryPanel(Stopping(), Settings())
    panel.rows.value = 5
    panel.start()
    panel.worker.join()
    assert panel.status.text == "stopped after 2 of 5 rows, 20 drawings"
    assert len(files_of(panel)["gallery.jsonl"].splitlines()) == 20
    assert panel.shown.value.count("<figure") == 20
    assert (panel.go.disabled, panel.stop.disabled) == (False, True)


def test_a_gallery_under_way_is_not_begun_twice(ws):
    player, gate = Player.load(ws.best_model, ws.data), threading.Event()
    slow = SimpleNamespace(
        n_classes=10, book=player.book, classes=player.classes,
        draw=lambda *asked: gate.wait(60) and player.draw(*asked),
    )  # fmt: skip
    panel = GalleryPanel(slow, Settings())
    panel.start()
    worker = panel.worker
    assert panel.go.disabled and not panel.stop.disabled
    panel.start()
    assert panel.worker is worker
    gate.set()
    worker.join()
    assert panel.status.text.startswith("done: 3 of 3 rows")


# --- no model, a damaged one, a small one ---------------------------------------------------------


def words(box) -> str:
    """All that a box of widgets says."""
    said = [getattr(box, name, "") for name in ("text", "description", "value")]
    parts = [words(child) for child in getattr(box, "children", ())]
    return " ".join([*(part for part in said if isinstance(part, str)), *parts])


def test_without_a_model_it_says_what_makes_one_and_offers_a_small_one(tmp_path):
    play = Playground(Workspace("laptop", tmp_path))
    said = words(play.start)
    assert "`make report`" in said and "Train a two-minute model" in said
    assert play.panels == {}
    for name in playground.PANELS:
        assert "waits for a model" in words(getattr(play, name))


def test_a_damaged_model_is_told_in_one_sentence(built, tiny, tmp_path):
    damaged = playable(tmp_path, built.directory, tiny)
    (damaged.best_model / "model.safetensors").write_bytes(b"half a file")
    play = Playground(damaged)
    said = words(play.start).strip()
    assert said.startswith("This model cannot be played with.")
    assert "model.safetensors" in said and "\n" not in said and "Traceback" not in said
    assert "waits for a model" in words(play.gallery)


def test_a_model_is_named_with_its_size(play):
    assert words(play.start).strip() == (
        "Playing with outputs/laptop/best_model: 2 layers, 2 heads, 32 wide; "
        f"{len(play.panels['picture'].player.images)} test pictures to pick from."
    )


@pytest.fixture
def quickly(monkeypatch):
    """A still smaller model, in a few steps."""
    monkeypatch.setattr(quick, "SIZE", ModelConfig(n_layer=1, n_head=2, n_embd=32, n_positions=64))
    monkeypatch.setattr(quick, "_steps_within", lambda seconds, corpus: 10)
    return DataConfig(n_images=100, copies=0, n_codes=20)


def test_a_small_model_is_trained_once_and_then_played_with(quickly, tmp_path, capsys):
    ws = Workspace("laptop", tmp_path)
    play = Playground(ws)
    folder = playground.quick_folder(ws)
    directory = quick.train_quick(folder, 1, quickly)
    steps = re.findall(r"step ([\d,]+) of ([\d,]+)", capsys.readouterr().out)
    assert steps and steps[-1] == ("10", "10")
    weights = directory / "model.safetensors"
    first = weights.stat().st_mtime_ns
    assert quick.train_quick(folder, 1, quickly) == directory
    assert weights.stat().st_mtime_ns == first and "step" not in capsys.readouterr().out
    play.load()
    assert "outputs/playground/best_model" in play.about.text
    assert "`make report` trains a better one" in play.about.text
    assert sorted(play.panels) == sorted(playground.PANELS)
    assert play.panels["draw"].codes.max() < 20


def test_the_real_model_comes_before_the_small_one(ws, tmp_path):
    both = Workspace("laptop", tmp_path)
    small = playground.quick_folder(both) / "best_model"
    for model in (small, both.best_model):
        model.parent.mkdir(parents=True)
        model.symlink_to(ws.best_model)
        assert playground.find_model(both)[0] == model


def test_the_steps_fit_the_seconds(built, vocab, monkeypatch):
    monkeypatch.setattr(quick, "choose_precision", lambda *_: {"chosen": "fp32"})
    taken = iter([0.04, 0.09] * quick.TIMED)  # the machine had something else to do now and then
    monkeypatch.setattr(quick, "step_seconds", lambda *_: next(taken))
    corpus = SimpleNamespace(
        vocab=vocab, rows=lambda split: [[2, 7, 3]] * 8, tokenizer=SimpleNamespace(pad_token_id=0)
    )
    assert quick._steps_within(10, corpus) == 200
    assert quick._steps_within(0.1, corpus) == 10


def test_what_stands_in_the_way_of_training_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit) as ended:
        quick.main(str(tmp_path / "file" / "playground"), "1")
    assert "file" in str(ended.value) and "\n" not in str(ended.value)


def training(tmp_path: Path, monkeypatch, script: str) -> tuple[QuickTraining, list[str]]:
    """A QuickTraining whose process runs `script`; and a list that says when it is done."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\nimport sys, time\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(playground, "sys", SimpleNamespace(executable=str(program)))
    done = []
    return QuickTraining(tmp_path / "model", 2.5, lambda: done.append("done")), done


def test_training_tells_its_steps_and_calls_when_it_is_done(tmp_path, monkeypatch):
    script = "print('step 500 of 1,000'); print('said:', *sys.argv[1:])"
    train, done = training(tmp_path, monkeypatch, script)
    told, bars = [], []
    train.status.observe(lambda change: told.append(change["new"]), "text")
    train.progress.observe(lambda change: bars.append(change["new"]), "value")
    train.go.click()
    train.worker.join()
    assert told == [
        "starting",
        "step 500 of 1,000",
        f"said: -m seqlm.playground.quick {train.folder} 2.5",
    ]
    assert bars == [0.5, 1.0] and done == ["done"]
    assert (train.go.disabled, train.stop.disabled) == (False, True)


def test_stopping_ends_the_process_and_says_so(tmp_path, monkeypatch):
    train, done = training(tmp_path, monkeypatch, "print('step 1 of 9'); time.sleep(600)")
    begun = threading.Event()
    train.status.observe(lambda change: change["new"] == "step 1 of 9" and begun.set(), "text")
    train.go.click()
    assert begun.wait(60) and train.go.disabled and not train.stop.disabled
    process = train.process
    train.begin()
    assert train.process is process  # one at a time
    train.stop.click()
    train.worker.join()
    assert process.returncode < 0 and not done
    assert train.status.text == "stopped; the button goes on from the last checkpoint"
    assert (train.go.disabled, train.stop.disabled) == (False, True)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("print('step 1 of 9'); sys.exit('no space left')", "this did not work: no space left"),
        ("sys.exit(3)", "this did not work: it ended with code 3"),
        ("import os; os.kill(os.getpid(), 9)", "this did not work: it ended with code -9"),
    ],
)
def test_a_training_that_fails_is_told_in_one_sentence(tmp_path, monkeypatch, script, sentence):
    train, done = training(tmp_path, monkeypatch, script)
    train.go.click()
    train.worker.join()
    assert train.status.text == sentence and not done
    assert not train.go.disabled


def test_a_gallery_line_is_json_with_its_settings(play):
    panel = play.panels["gallery"]
    play.settings.strategy.value = "greedy"
    panel.rows.value = 1
    panel.go.click()
    panel.worker.join()
    lines = files_of(panel)["gallery.jsonl"].decode().splitlines()
    assert {json.loads(line)["meta"]["strategy"] for line in lines} == {"greedy"}


def test_one_folder_is_trained_by_one_process_at_a_time(tmp_path):
    folder = tmp_path / "not" / "there" / "yet"
    with quick._nobody_else(folder), pytest.raises(SystemExit, match="trained already"):
        quick.main(str(folder), "1")


def test_a_model_may_be_named(tmp_path, play):
    named = Playground(Workspace("laptop", tmp_path), directory=play.ws.best_model)
    assert named.panels and "2 layers" in named.about.text


def test_completing_without_chance_shows_the_one_way_there_is(play):
    play.settings.strategy.value = "greedy"
    play.panels["complete"].complete()
    assert "Greedy knows one way only" in play.panels["complete"].told.text
