"""Controls that several panels use: the sampling settings, and buttons that run a long job."""

from collections.abc import Callable
from threading import Event, Thread

import ipywidgets

from seqlm.config import DRAWING, SampleConfig
from seqlm.playground.widgets import STATIC, Choice, Notice, Slider
from seqlm.utils import read_json

WRAPPED = {"flex_flow": "row wrap", "grid_gap": "0 1.5em"}
WIDE = {"flex": "1 1 38em", "width": "auto"}  # as wide as the page allows
# Names of the strategies, the settings that each uses, and a slider for each setting.
CONTROLS = read_json(STATIC / "sampling.json")


def beside(left: ipywidgets.Widget, *right: ipywidgets.Widget) -> ipywidgets.HBox:
    """Widgets in a column at the right of another; below it on a narrow page."""
    return ipywidgets.HBox([left, ipywidgets.VBox(right, layout=WIDE)], layout=WRAPPED)


class SamplingControls:
    """Buttons for the strategy, a slider for each setting; the defaults are README's."""

    def __init__(self):
        names, defaults = CONTROLS["strategies"], SampleConfig(**DRAWING)
        self.strategy = Choice("strategy", {name: key for key, name in names.items()})
        sliders = CONTROLS["sliders"].items()
        self.sliders = {key: Slider(**one, value=getattr(defaults, key)) for key, one in sliders}
        self.box = ipywidgets.VBox(
            [self.strategy, *self.sliders.values()], layout={"max_width": "27em"}
        )
        self.strategy.observe(self._disable_unused, "index")
        self._disable_unused()

    def config(self) -> SampleConfig:
        """The current settings."""
        values = {
            name: slider.whole if slider.step == 1 else slider.value
            for name, slider in self.sliders.items()
        }
        return SampleConfig(strategy=self.strategy.value, **values)

    def next_seed(self) -> None:
        """Add one to the seed; the first follows the last."""
        seed = self.sliders["seed"]
        seed.value = (seed.whole + 1) % (int(seed.max) + 1)

    def observe(self, call: Callable[[], None]) -> None:
        """Call `call` after every change of a control."""
        self.strategy.observe(lambda change: call(), "index")
        for slider in self.sliders.values():
            slider.observe(lambda change: call(), "value")

    def _disable_unused(self, change=None) -> None:
        for name, slider in self.sliders.items():
            slider.disabled = name not in CONTROLS["used"][self.strategy.value]


class Job:
    """A button that runs `work` in a thread, one that stops it, a progress bar and a status line.

    `work` reports to `progress` (0 to 1) and `status`, and ends early once `stopping` is set.
    """

    def __init__(self, description: str, work: Callable[[], None]):
        self.work, self.stopping, self.thread = work, Event(), None
        self.start_button = ipywidgets.Button(
            description=description, button_style="primary", layout={"width": "14em"}
        )
        self.stop_button = ipywidgets.Button(description="Stop", disabled=True)
        self.progress = ipywidgets.FloatProgress(min=0, max=1, layout={"width": "12em"})
        self.status = Notice()
        buttons = [self.start_button, self.stop_button, self.progress]
        self.box = ipywidgets.VBox([ipywidgets.HBox(buttons, layout=WRAPPED), self.status])
        self.start_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())

    def start(self) -> None:
        """Run the work in a thread, so that all controls still respond; one run at a time."""
        if self.thread is None or not self.thread.is_alive():
            self.stopping.clear()
            self.start_button.disabled, self.stop_button.disabled = True, False
            self.progress.value = 0
            self.thread = Thread(target=self._run, daemon=True)
            self.thread.start()

    def stop(self) -> None:
        """Ask the work to end; a click that comes after its end changes nothing."""
        if self.start_button.disabled:
            self.stopping.set()
            self.status.text = "stopping"

    def _run(self) -> None:
        try:
            self.work()
        finally:
            self.start_button.disabled, self.stop_button.disabled = False, True
