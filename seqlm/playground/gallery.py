"""The gallery: rows of generated images of every digit, to look at and to download."""

import time
from dataclasses import asdict, replace

import ipywidgets
import numpy as np

from seqlm.data.records import Record, as_line
from seqlm.data.tokens import draw_layout
from seqlm.playground import html
from seqlm.playground.controls import Job, SamplingControls, beside
from seqlm.playground.player import Player
from seqlm.playground.widgets import Slider
from seqlm.plots.images import plot_images
from seqlm.plots.style import as_png
from seqlm.utils import format_duration

MOST_ROWS = 20


def gallery_jsonl(codes: np.ndarray, labels: list[int], settings: list[dict]) -> bytes:
    """The images as rows of the data contract, each with its sampling settings."""
    rows = [
        Record(draw_layout(row, label), label, {"drawn": True, **used})
        for row, label, used in zip(codes, labels, settings, strict=True)
    ]
    return "".join(as_line(row) + "\n" for row in rows).encode()


class GalleryPanel:
    """Every digit several times, none selected; all of it can be downloaded."""

    def __init__(self, player: Player, controls: SamplingControls):
        self.player, self.controls = player, controls
        self.rows = Slider("rows", 1, MOST_ROWS, help="images of each digit", value=3)
        self.job = Job("Draw the gallery", self.draw)
        self.downloads, self.output = ipywidgets.HTML(), ipywidgets.HTML()
        self.box = beside(controls.box, self.rows, self.job.box, self.downloads, self.output)

    def draw(self) -> None:
        """Draw row after row, until all are there or the job is stopped."""
        config, status, started = self.controls.config(), self.job.status, time.perf_counter()
        # Without randomness all rows would be equal.
        n_rows = self.rows.whole if config.strategy == "sample" else 1
        labels = list(range(self.player.n_classes))
        rows, classes, settings = [], [], []
        self.downloads.value, status.text = "", f"drawing row 1 of {n_rows}"
        while len(rows) < n_rows and not self.job.stopping.is_set():
            # One seed per row: within a row, each digit has random numbers of its own.
            used = replace(config, seed=config.seed + len(rows))
            rows.append(self.player.draw(labels, used))
            settings += [{**asdict(used), "number": k} for k in labels]
            classes += self.player.classify(rows[-1]).argmax(1).tolist()
            self.show(np.concatenate(rows), classes)
            self.job.progress.value = len(rows) / n_rows
            left = (time.perf_counter() - started) / len(rows) * (n_rows - len(rows))
            status.text = f"{len(rows)} of {n_rows} rows, about {format_duration(left)} left"
        if rows:
            self.offer_downloads(np.concatenate(rows), labels * len(rows), settings)
        done = "done" if len(rows) == n_rows else "stopped"
        equal = "" if config.strategy == "sample" else f"; {config.strategy} has only one result"
        status.text = f"{done}: {len(rows)} of {n_rows} rows, {len(settings)} images{equal}"

    def show(self, codes: np.ndarray, classes: list[int]) -> None:
        """Show the images with their digits, and the classification where it differs."""
        labels = np.arange(len(codes)) % self.player.n_classes
        captions = [
            f"{label}" if label == k else f"{label}, classified as {k}"
            for label, k in zip(labels, classes, strict=True)
        ]
        images = self.player.book.decode(codes)
        self.output.value = html.page(html.gallery(images, captions, self.player.n_classes))

    def offer_downloads(self, codes: np.ndarray, labels: list[int], settings: list[dict]) -> None:
        """Show links to the images as PNG and as JSONL."""
        images, heading = self.player.book.decode(codes), "Drawn in the playground"
        png = as_png(plot_images(images, [*map(str, labels)], heading=heading))
        jsonl = gallery_jsonl(codes, labels, settings)
        self.downloads.value = html.page(
            html.download_link("gallery.png", png, "image/png", "Download PNG"),
            html.download_link("gallery.jsonl", jsonl, "application/x-ndjson", "Download JSONL"),
        )
