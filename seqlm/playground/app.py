"""The playground: a trained model with controls, in JupyterLab and, through Voila, as a page."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ipywidgets

from seqlm.config import DataConfig
from seqlm.data.build import CODEBOOK, SEQUENCES, VOCAB, is_built
from seqlm.errors import SeqlmError
from seqlm.playground import html, panels
from seqlm.playground.controls import Job, SamplingControls
from seqlm.playground.gallery import GalleryPanel
from seqlm.playground.player import Player
from seqlm.playground.widgets import Notice
from seqlm.utils import check_folder
from seqlm.workspace import Workspace

PANELS = ("draw", "picture", "complete", "attention", "gallery")
MAX_SECONDS = 120  # of training; building the data and evaluation come on top
DATA = DataConfig(copies=10)
# Settings of `seqlm train` for the small model.
SMALL = {
    "n_layer": 4, "n_head": 4, "n_embd": 192, "n_positions": 64, "dropout": 0.0, "batch_size": 64,
    "learning_rate": 2e-3, "evals": 5, "patience": 0,
}  # fmt: skip


class Playground:
    """All panels, of the model in `directory`, or else of what `find_model` finds.

    Without a model, `start` offers to train a small one for `max_seconds`.

    Attributes:
        start, draw, picture, complete, attention, gallery: widgets to display, once or often.
        panels: name -> the panel behind the widget; empty while there is no model.
    """

    def __init__(
        self,
        ws: Workspace | None = None,
        max_seconds: float = MAX_SECONDS,
        directory: str | Path | None = None,
    ):
        self.ws, self.directory = ws or Workspace(), directory
        self.folder = self.ws.root / "outputs" / "playground"  # of the small model
        self.controls, self.message, self.panels = SamplingControls(), Notice(), {}
        self.training = Training(self.folder, max_seconds, self.load)
        self.start, self.draw, self.picture, self.complete, self.attention, self.gallery = (
            ipywidgets.VBox() for _ in ("start", *PANELS)
        )
        self.load()

    def find_model(self) -> tuple[Path, Path] | None:
        """The profile's model and data, else those of the small model; None without a model."""
        if self.directory:
            return self.ws.root / self.directory, self.ws.data
        if (self.ws.best_model / "model.safetensors").is_file():
            return self.ws.best_model, self.ws.data
        small = self.folder / "best_model"
        if (small / CODEBOOK).is_file():  # else its training has not ended
            return small, self.folder / "data"
        return None

    def load(self) -> None:
        """Load the model and fill the panels; without one, show how to train it."""
        self.start.children = [self.message]
        for name in PANELS:
            note = html.note("This panel needs a model; see above.")
            getattr(self, name).children = [ipywidgets.HTML(note)]
        directories = self.find_model()
        if directories is None:
            self.message.text = (
                "There is no trained model yet. `make report`, in a terminal in the project’s "
                "folder, trains one in about ten minutes on two cores. Or train a small one "
                "here in about two minutes: its images are worse, but all panels work with it."
            )
            self.start.children = [self.message, self.training.box]
            return
        try:
            self._fill_panels(Player.load(*directories))
        except SeqlmError as error:
            self.message.text = f"This model cannot be used. {error}"

    def _fill_panels(self, player: Player) -> None:
        controls, shared = self.controls, panels.SharedImage()
        self.panels = {
            "draw": panels.DrawPanel(player, controls, shared),
            "picture": panels.PicturePanel(player, shared),
            "complete": panels.CompletePanel(player, controls, shared),
            "attention": panels.AttentionPanel(player, shared),
            "gallery": GalleryPanel(player, controls),
        }
        for name, panel in self.panels.items():
            getattr(self, name).children = [panel.box]
        config, path = player.model.config, player.directory.resolve()
        if path.is_relative_to(self.ws.root.resolve()):
            path = path.relative_to(self.ws.root.resolve())
        small = player.directory == self.folder / "best_model"
        better = " `make report` trains a better one, in about ten minutes." if small else ""
        self.message.text = (
            f"Model: {path}, {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide; "
            f"{len(player.images)} test images.{better}"
        )


class Training(Job):
    """Train a small model in processes of `seqlm build` and `seqlm train`; then call `done`."""

    def __init__(self, folder: Path, max_seconds: float, done: Callable[[], None]):
        super().__init__("Train a two-minute model", self.train)
        self.folder, self.max_seconds, self.done = folder, max_seconds, done
        self.process: subprocess.Popen | None = None

    def stop(self) -> None:
        """End the process."""
        super().stop()
        if self.process is not None:
            self.process.terminate()

    def train(self) -> None:
        """Build the data and train; show in one sentence what prevents it."""
        data, model = self.folder / "data", self.folder / "best_model"
        try:
            check_folder(self.folder)
            self.status.text = "building the data set"
            if not is_built(DATA, data):
                self._run_command("build", output_dir=data, copies=DATA.copies)
            files = {"data_path": data / SEQUENCES, "vocab_path": data / VOCAB}
            settings = {"output_dir": self.folder, "max_seconds": self.max_seconds, **SMALL}
            self._run_command("train", **files, **settings)
            shutil.copy(data / CODEBOOK, model)
            self.progress.value = 1
            self.done()
        except (SeqlmError, OSError) as error:
            self.status.text = str(error)

    def _run_command(self, command: str, **settings) -> None:
        """Run a command of seqlm; its lines are the status."""
        flags = [f"--{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "seqlm", command, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if self.stopping.is_set():  # before there was a process to end
            self.process.terminate()
        for line in self.process.stdout:
            self.status.text = line.strip() or self.status.text
            step = re.match(r"step ([\d,]+) of ([\d,]+)", line)
            if step:
                now, last = (int(number.replace(",", "")) for number in step.groups())
                self.progress.value = now / last
        code = self.process.wait()
        if code and self.stopping.is_set():
            raise SeqlmError("stopped; the button continues from the last checkpoint")
        if code:
            raise SeqlmError(f"training failed with exit code {code}: {self.status.text}")
