"""The playground: a trained model with controls, in JupyterLab and, through Voila, as a page."""

from pathlib import Path

import ipywidgets

from seqlm.errors import SeqlmError
from seqlm.playground import html, panels
from seqlm.playground.controls import SamplingControls
from seqlm.playground.gallery import GalleryPanel
from seqlm.playground.player import Player
from seqlm.playground.widgets import Notice
from seqlm.workspace import NANO28, Workspace

PANELS = ("draw", "picture", "complete", "attention", "gallery")


class Playground:
    """All panels, of the model in `directory`, or else of what `find_model` finds.

    Attributes:
        start, draw, picture, complete, attention, gallery: widgets to display, once or often.
        panels: name -> the panel behind the widget; empty while there is no model.
    """

    def __init__(
        self,
        ws: Workspace | None = None,
        directory: str | Path | None = None,
    ):
        self.ws, self.directory = ws or Workspace(), directory
        self.controls, self.message, self.panels = SamplingControls(), Notice(), {}
        self.start, self.draw, self.picture, self.complete, self.attention, self.gallery = (
            ipywidgets.VBox() for _ in ("start", *PANELS)
        )
        self.load()

    def find_model(self) -> Path:
        """The directory asked for, else the profile's model, else the one that comes with seqlm."""
        if self.directory:
            return self.ws.root / self.directory
        trained = (self.ws.drawing_model / "model.safetensors").is_file()
        return self.ws.drawing_model if trained else NANO28

    def load(self) -> None:
        """Load the model and fill the panels; show in one sentence what prevents it."""
        self.start.children = [self.message]
        for name in PANELS:
            note = html.note("This panel needs a model; see above.")
            getattr(self, name).children = [ipywidgets.HTML(note)]
        try:
            self._fill_panels(Player.load(self.find_model(), self.ws.data))
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
        ours = not self.directory and player.directory != self.ws.drawing_model
        own = " It comes with seqlm; `make report` trains one of your own." if ours else ""
        self.message.text = (
            f"Model: {path}, {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide; "
            f"{len(player.images)} test images.{own}"
        )
