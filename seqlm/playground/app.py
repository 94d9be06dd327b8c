"""The playground: a trained model between sliders, in JupyterLab and, through Voila, on its own.

Notebook 07_playground shows its panels one by one. Nothing here decides how a token is chosen or a
class is read: that is sampling.py's and classes.py's, which `player.Player` asks.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import ipywidgets as widgets

from seqlm.errors import SeqlmError
from seqlm.playground import html as views
from seqlm.playground.choices import Notice
from seqlm.playground.controls import Settings
from seqlm.playground.gallery import GalleryPanel
from seqlm.playground.panels import (
    WRAPPED,
    AttentionPanel,
    CompletePanel,
    Desk,
    DrawPanel,
    PicturePanel,
)
from seqlm.playground.player import Player
from seqlm.playground.quick import SECONDS
from seqlm.workspace import Workspace

PANELS = ("draw", "picture", "complete", "attention", "gallery")
MODEL = "model.safetensors"


def quick_folder(ws: Workspace) -> Path:
    """Where the two-minute model lies."""
    return ws.root / "outputs" / "playground"


def find_model(ws: Workspace) -> tuple[Path, Path] | None:
    """The profile's model and data, else the two-minute one's; None where there is neither.

    A model without a code book is found, too: what it lacks is better said than passed over.
    """
    quick = quick_folder(ws)
    for model, data in ((ws.best_model, ws.data), (quick / "best_model", quick / "data")):
        if (model / MODEL).is_file():
            return model, data
    return None


class Playground:
    """All panels. `start` says which model plays; the others fill once there is one.

    It plays with the model in `directory`, or with what `find_model` finds. A model that is trained
    here may learn for `quick_seconds`.

    Attributes:
        start, draw, picture, complete, attention, gallery: widgets to display, once or often.
        panels: name -> the panel behind the widget; empty while there is no model.
    """

    def __init__(
        self,
        ws: Workspace | None = None,
        quick_seconds: float = SECONDS,
        directory: str | Path | None = None,
    ):
        self.ws, self.directory = ws or Workspace(), directory
        self.settings = Settings()
        self.panels: dict[str, object] = {}
        self.about = Notice()
        self.start = widgets.VBox([self.about])
        self.draw, self.picture, self.complete, self.attention, self.gallery = (
            widgets.VBox() for _ in PANELS
        )
        self.training = QuickTraining(quick_folder(self.ws), quick_seconds, self.load)
        self.load()

    def load(self) -> None:
        """Look for a model, and fill the panels; or say how to come by one."""
        given = self.directory and (Path(self.directory), self.ws.data)
        found = given or find_model(self.ws)
        if found is None:
            self.start.children = [self.about, self.training.box]
            self._wait()
            return
        self.start.children = [self.about]
        try:
            player = Player.load(*found)
            self.panels = self._panels(player)
        except SeqlmError as error:
            self.about.text = f"This model cannot be played with. {error}"
            self._wait()
            return
        self.about.text = self._about(player)
        boxes = {name: panel.box for name, panel in self.panels.items()}
        for name in ("draw", "complete", "gallery"):
            boxes[name] = widgets.HBox([self.settings.box, boxes[name]], layout=WRAPPED)
        self._fill(boxes)

    def _panels(self, player: Player) -> dict[str, object]:
        desk = Desk()
        return {
            "draw": DrawPanel(player, self.settings, desk),
            "picture": PicturePanel(player, desk),
            "complete": CompletePanel(player, self.settings, desk),
            "attention": AttentionPanel(player, desk),
            "gallery": GalleryPanel(player, self.settings),
        }

    def _wait(self) -> None:
        self._fill({name: _say("This panel waits for a model; see above.") for name in PANELS})

    def _fill(self, boxes: dict[str, widgets.Widget]) -> None:
        for name, box in boxes.items():
            getattr(self, name).children = [box]

    def _about(self, player: Player) -> str:
        config, where = player.model.config, player.directory.resolve()
        if where.is_relative_to(self.ws.root.resolve()):
            where = where.relative_to(self.ws.root.resolve())
        quick = quick_folder(self.ws).resolve() in player.directory.resolve().parents
        more = " `make report` trains a better one, in some twenty minutes." if quick else ""
        return (
            f"Playing with {where}: {config.n_layer} layers, {config.n_head} heads, "
            f"{config.n_embd} wide; {len(player.images)} test pictures to pick from.{more}"
        )


def _say(text: str) -> widgets.HTML:
    return widgets.HTML(views.note(text))


class QuickTraining:
    """What is shown where there is no model: the command that makes one, and a two-minute one.

    `done` is called when it is trained.
    """

    def __init__(self, folder: Path, seconds: float, done: Callable[[], None]):
        self.folder, self.seconds, self.done = folder, seconds, done
        self.process: subprocess.Popen | None = None
        self.worker: Thread | None = None
        self.halted = False
        self.go = widgets.Button(
            description="Train a two-minute model", button_style="primary", layout={"width": "16em"}
        )
        self.stop = widgets.Button(description="Stop", disabled=True)
        self.progress = widgets.FloatProgress(min=0.0, max=1.0, layout={"width": "16em"})
        self.status = Notice()
        self.box = widgets.VBox(
            [
                _say(
                    "There is no trained model yet. In a terminal, in the project's folder, "
                    "`make report` trains the real one (some twenty minutes on two cores). Or "
                    "train a small one here, in about two minutes: it draws less well, and "
                    "everything below works with it."
                ),
                widgets.HBox([self.go, self.stop, self.progress], layout=WRAPPED),
                self.status,
            ]
        )
        self.go.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.halt())

    def begin(self) -> None:
        """Train in a process of its own; a thread tells how it goes."""
        if self.process is not None and self.process.poll() is None:
            return
        self.go.disabled, self.stop.disabled, self.halted = True, False, False
        self.status.text = "starting"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "seqlm.playground.quick", str(self.folder), str(self.seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.worker = Thread(target=self._follow, args=(self.process,), daemon=True)
        self.worker.start()

    def halt(self) -> None:
        """End the process; what it has learned so far is picked up by the next `begin`."""
        if self.process is not None:
            self.halted = True
            self.process.terminate()

    def _follow(self, process: subprocess.Popen) -> None:
        last = ""
        for line in process.stdout:
            last = line.strip() or last
            self.status.text = last
            step = re.match(r"step ([\d,]+) of ([\d,]+)", last)
            if step:
                now, most = (int(number.replace(",", "")) for number in step.groups())
                self.progress.value = now / most
        code = process.wait()
        self.stop.disabled = True
        if code == 0:
            self.progress.value = 1.0
            self.done()
        elif self.halted:
            self.status.text = "stopped; the button goes on from the last checkpoint"
        else:
            self.status.text = f"this did not work: {last or f'it ended with code {code}'}"
        self.go.disabled = False
