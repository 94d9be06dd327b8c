"""The gallery shows every digit in every row, and its files can be read and drawn again."""

import base64
import io
import json
import re
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
from matplotlib.image import imread

from seqlm.config import SampleConfig
from seqlm.data.arrow import read_table
from seqlm.data.tokens import code_token, drawing_prompt
from seqlm.playground.controls import SamplingControls
from seqlm.playground.gallery import GalleryPanel, gallery_jsonl
from seqlm.playground.player import Player
from seqlm.plots.style import DPI, LARGEST_TILE


@pytest.fixture(scope="module")
def player(ws) -> Player:
    return Player.load(ws.best_model, ws.data)


def files_of(panel: GalleryPanel) -> dict[str, bytes]:
    links = re.findall(
        r'download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', panel.downloads.value
    )
    return {name: base64.b64decode(content) for name, content in links}


def draw(panel: GalleryPanel) -> None:
    panel.job.start_button.click()
    panel.job.thread.join()


def test_a_gallery_has_every_digit_in_every_row_and_can_be_drawn_again(play, tmp_path):
    panel, config = play.panels["gallery"], play.controls.config()
    panel.rows.value = 2
    draw(panel)
    assert panel.job.status.text == "done: 2 of 2 rows, 20 images"
    assert panel.job.progress.value == 1
    files = files_of(panel)
    assert imread(io.BytesIO(files["gallery.png"])).ndim == 3
    path = tmp_path / "gallery.jsonl"
    path.write_bytes(files["gallery.jsonl"])
    rows = read_table(path, panel.player.vocab)
    assert [row.label for row in rows] == [*range(10)] * 2
    for i, row in enumerate(rows):
        used = replace(config, seed=config.seed + i // 10)
        assert {**asdict(used), "number": i % 10}.items() <= row.meta.items()
        codes = panel.player.draw(range(10), used)[i % 10]
        assert list(row.tokens[3:19]) == [code_token(code) for code in codes]


def test_captions_name_the_digit_and_a_classification_that_differs(play):
    panel = play.panels["gallery"]
    panel.show(np.zeros((10, 16), int), [0, 1, 2, 3, 4, 5, 6, 7, 8, 4])
    captions = re.findall("<figcaption[^>]*>([^<]*)<", panel.output.value)
    assert captions == [*"012345678", "9, classified as 4"]


def test_a_stopped_gallery_keeps_the_rows_that_are_drawn(player):
    class Stopping:
        """The player; while it draws the second row, somebody presses Stop."""

        drawings = 0

        def __getattr__(self, name):
            return getattr(player, name)

        def draw(self, *arguments):
            self.drawings += 1
            if self.drawings == 2:
                panel.job.stop_button.click()
            return player.draw(*arguments)

    panel = GalleryPanel(Stopping(), SamplingControls())
    panel.rows.value = 5
    draw(panel)
    assert panel.job.status.text == "stopped: 2 of 5 rows, 20 images"
    assert len(files_of(panel)["gallery.jsonl"].splitlines()) == 20
    assert panel.output.value.count("<figure") == 20


def test_without_randomness_there_is_one_row_and_its_file_names_the_strategy(play):
    panel = play.panels["gallery"]
    play.controls.strategy.value = "greedy"
    draw(panel)
    assert panel.job.status.text == "done: 1 of 1 rows, 10 images; greedy has only one result"
    lines = files_of(panel)["gallery.jsonl"].decode().splitlines()
    assert {json.loads(line)["meta"]["strategy"] for line in lines} == {"greedy"}


def test_the_rows_of_a_gallery_follow_the_data_contract(player, vocab, tmp_path):
    config = SampleConfig(temperature=0.9, top_p=0.95, guidance=1.5, seed=11)
    labels = [*range(10), None]
    codes = player.draw(labels, config)
    settings = [{**asdict(config), "number": k} for k in range(len(labels))]
    path = tmp_path / "gallery.jsonl"
    path.write_bytes(gallery_jsonl(codes, labels, settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = read_table(path, vocab)
    assert [row.label for row in rows] == labels
    for row, drawn, label, number in zip(rows, codes, labels, range(11), strict=True):
        assert row.tokens[:3] == drawing_prompt(label)
        assert row.codes == tuple(f"<Z_{code:03d}>" for code in drawn)
        assert row.meta == {"drawn": True, **asdict(config), "number": number}
    used = {name: rows[4].meta[name] for name in asdict(config)}
    assert np.array_equal(player.draw(labels, SampleConfig(**used)), codes)


def test_the_png_of_a_gallery_shows_the_images(player):
    panel, codes = GalleryPanel(player, SamplingControls()), player.draw([0, 1, 2], SampleConfig())

    def offered(codes: np.ndarray) -> np.ndarray:
        panel.offer_downloads(codes, [0, 1, 2], [{}] * 3)
        return imread(io.BytesIO(files_of(panel)["gallery.png"]))

    (paper,) = player.book.encode(np.zeros((1, *player.book.image_shape)))
    shown, blank = offered(codes), offered(np.array([paper] * 3))
    assert shown.shape == blank.shape and shown.shape[1] > 300 and shown[..., :3].min() < 0.2
    images = player.book.decode(codes) - player.book.decode(paper[None])
    # The two differ by ink, as much as the images have.
    ink = (blank - shown)[..., :3].mean(-1).sum() / (LARGEST_TILE * DPI) ** 2
    assert ink == pytest.approx(images.mean((1, 2)).sum(), rel=0.15)
