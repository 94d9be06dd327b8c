"""The gallery: rows of drawings, to look at as a whole and to take along."""

import io
import time
from dataclasses import asdict, replace
from threading import Event, Thread

import ipywidgets as widgets
import numpy as np

from seqlm.config import SampleConfig
from seqlm.data.records import Record, as_line
from seqlm.data.tokens import draw_layout
from seqlm.playground import html as views
from seqlm.playground.choices import Notice
from seqlm.playground.controls import Settings
from seqlm.playground.panels import BESIDE, WRAPPED
from seqlm.playground.player import Player
from seqlm.playground.sliders import Slider
from seqlm.plots.images import plot_images
from seqlm.utils import format_duration

MOST_ROWS = 20


def gallery_png(images: np.ndarray, titles: list[str]) -> bytes:
    """The grid as a PNG."""
    held = io.BytesIO()
    plot_images(images, titles, heading="Drawn in the playground").savefig(held, format="png")
    return held.getvalue()


def gallery_jsonl(codes: np.ndarray, labels: list[int], settings: list[dict]) -> bytes:
    """The grid as rows of the data contract, each with the settings it was drawn with."""
    rows = [
        Record(draw_layout(row, label), label, {"drawn": True, **how})
        for row, label, how in zip(codes, labels, settings, strict=True)
    ]
    return "".join(as_line(row) + "\n" for row in rows).encode()


class GalleryPanel:
    """Every digit several times: nothing is picked, and what is shown can be saved."""

    def __init__(self, player: Player, settings: Settings):
        self.player, self.settings = player, settings
        self.rows = Slider(
            label="rows", min=1, max=MOST_ROWS, step=1, value=3, help="drawings of each digit"
        )
        self.go = widgets.Button(description="Draw the gallery", button_style="primary")
        self.stop = widgets.Button(description="Stop", disabled=True)
        self.progress = widgets.IntProgress(min=0, max=1, layout={"width": "16em"})
        self.status, self.shown, self.saved = Notice(), widgets.HTML(), widgets.HTML()
        self.box = widgets.VBox(
            [
                self.rows,
                widgets.HBox([self.go, self.stop, self.progress], layout=WRAPPED),
                self.status,
                self.saved,
                self.shown,
            ],
            layout=BESIDE,
        )
        self.go.on_click(lambda _: self.start())
        self.stop.on_click(lambda _: self.end())
        self.halt, self.worker = Event(), None

    def start(self) -> None:
        """Draw in a thread of its own, so that Stop and all other controls still answer."""
        if self.worker is not None and self.worker.is_alive():
            return
        self.halt.clear()
        self.go.disabled, self.stop.disabled, self.saved.value = True, False, ""
        config = self.settings.config()
        # Where chance plays no part every row would be the first one again.
        rows = self.rows.whole if config.strategy == "sample" else 1
        self.progress.value, self.progress.max = 0, rows
        self.status.text = f"drawing row 1 of {rows}"
        self.worker = Thread(target=self._draw, args=(rows, config), daemon=True)
        self.worker.start()

    def end(self) -> None:
        """Draw no further row."""
        self.halt.set()
        self.status.text = "stopping after this row"

    def _draw(self, rows: int, config: SampleConfig) -> None:
        labels, started = list(range(self.player.n_classes)), time.perf_counter()
        codes, says, settings = [], [], []
        try:
            for row in range(rows):
                if self.halt.is_set():
                    break
                # A seed a row: within one, each digit has random numbers of its own.
                now = replace(config, seed=config.seed + row)
                codes.append(self.player.draw(labels, now))
                says += self.player.classes(codes[-1]).argmax(1).tolist()
                settings += [{**asdict(now), "number": k} for k in labels]
                self.progress.value = row + 1
                left = (time.perf_counter() - started) / (row + 1) * (rows - row - 1)
                more = f", about {format_duration(left)} left" if row + 1 < rows else ""
                self.status.text = f"{row + 1} of {rows} rows drawn{more}"
                self._show(np.concatenate(codes), says)
            if codes:
                self._offer(np.concatenate(codes), labels * len(codes), settings)
            alike = "" if config.strategy == "sample" else f"; {config.strategy} draws no other"
            self.status.text = (
                f"{'stopped after' if len(codes) < rows else 'done:'} {len(codes)} of {rows} rows, "
                f"{len(codes) * len(labels)} drawings{alike}"
            )
        finally:
            self.go.disabled, self.stop.disabled = False, True

    def _show(self, codes: np.ndarray, says: list[int]) -> None:
        images = self.player.book.decode(codes)
        asked = np.arange(len(codes)) % self.player.n_classes
        captions = [
            f"{k}" if k == read else f"{k}, read as {read}"
            for k, read in zip(asked, says, strict=True)
        ]
        self.shown.value = views.page(views.gallery(images, captions, self.player.n_classes))

    def _offer(self, codes: np.ndarray, labels: list[int], settings: list[dict]) -> None:
        images = self.player.book.decode(codes)
        png = gallery_png(images, [str(label) for label in labels])
        jsonl = gallery_jsonl(codes, labels, settings)
        self.saved.value = views.page(
            views.download("gallery.png", png, "image/png", "Download PNG"),
            views.download("gallery.jsonl", jsonl, "application/x-ndjson", "Download JSONL"),
        )
