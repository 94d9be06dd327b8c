"""How the next token is chosen, as controls; every panel of the playground reads the same ones."""

from collections.abc import Callable

import ipywidgets as widgets

from seqlm.config import DRAWING, SampleConfig
from seqlm.playground.choices import Choice
from seqlm.playground.sliders import Slider

STRATEGIES = {
    "sample: draw at random": "sample",
    "greedy: always the likeliest": "greedy",
    "beam: look for the likeliest whole picture": "beam",
}
# Which controls a strategy heeds.
HEEDED = {
    "sample": {"temperature", "top_k", "top_p", "guidance", "seed"},
    "greedy": {"guidance"},
    "beam": {"guidance", "num_beams"},
}


class Settings:
    """Buttons for the strategy and a slider for each setting; they begin as README draws."""

    def __init__(self):
        self.strategy = Choice("strategy", STRATEGIES)
        self.sliders = {
            "temperature": Slider(
                label="temperature", value=1.0, min=0.1, max=3.0, step=0.05,
                help="below 1 sharpens the probabilities, above 1 flattens them",
            ),
            "top_k": Slider(
                label="top-k", value=0, min=0, max=100, step=1, special={"0": "all"},
                help="only the k likeliest tokens may come",
            ),
            "top_p": Slider(
                label="top-p", value=1.0, min=0.05, max=1.0, step=0.05,
                help="only the smallest set that holds this much probability (the nucleus)",
            ),
            "guidance": Slider(
                label="guidance", value=1.0, min=0.0, max=5.0, step=0.25,
                help="how far the digit that was asked for is exaggerated; 1 is the model itself",
            ),
            "num_beams": Slider(
                label="beams", value=SampleConfig.num_beams, min=1, max=16, step=1,
                help="how many pictures beam search keeps at a time",
            ),
            "seed": Slider(
                label="seed", value=SampleConfig.seed, min=0, max=999, step=1,
                help="the same seed draws the same picture",
            ),
        }  # fmt: skip
        for name, value in DRAWING.items():
            self.sliders[name].value = value
        self.strategy.observe(self._grey_out, "index")
        self._grey_out()

    @property
    def box(self) -> widgets.Widget:
        """All controls, one below the other."""
        return widgets.VBox([self.strategy, *self.sliders.values()], layout={"max_width": "27em"})

    def config(self) -> SampleConfig:
        """What the controls say now."""
        whole = ("top_k", "num_beams", "seed")
        values = {
            name: slider.whole if name in whole else slider.value
            for name, slider in self.sliders.items()
        }
        return SampleConfig(strategy=self.strategy.value, **values)

    def next_seed(self) -> None:
        """One further; after the last comes the first."""
        seed = self.sliders["seed"]
        seed.value = (seed.whole + 1) % (int(seed.max) + 1)

    def observe(self, call: Callable[[], None]) -> None:
        """`call` after every change of a control."""
        self.strategy.observe(lambda change: call(), "index")
        for slider in self.sliders.values():
            slider.observe(lambda change: call(), "value")

    def _grey_out(self, change=None) -> None:
        for name, slider in self.sliders.items():
            slider.disabled = name not in HEEDED[self.strategy.value]
