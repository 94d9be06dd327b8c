"""Where a profile's files lie, and how a notebook reads and leaves them."""

import base64
import html
import io
import os
from dataclasses import dataclass, field
from pathlib import Path

from seqlm.config import PROFILES
from seqlm.errors import ConfigError, DataError
from seqlm.utils import atomic_path, read_json, sha256_of, versions, write_json, write_text

NOTEBOOKS = {
    "01": "01_explore_data",
    "02": "02_build_tokenizer",
    "03": "03_train_causal_lm",
    "04": "04_classify_sequences",
    "05": "05_evaluate",
    "06": "06_sample",
    "07": "07_playground",
    "08": "08_how_to_be_fooled",
    "09": "09_fine_tune",
    "10": "10_rivals",
    "11": "11_few_labels",
}
LABORATORY = ("09", "10", "11")  # long ones, run only when asked for


def find_root(start: Path | None = None) -> Path:
    """The project's top folder: SEQLM_HOME when it is set, else the nearest one with notebooks/.

    Raises ConfigError when neither is found.
    """
    if os.environ.get("SEQLM_HOME"):
        return Path(os.environ["SEQLM_HOME"]).resolve()
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "notebooks" / "profiles").is_dir():
            return folder
    raise ConfigError(
        f"{start}: not inside the seqlm project (no notebooks/profiles above it); change to the "
        "project's folder, or set SEQLM_HOME to it"
    )


@dataclass(frozen=True)
class Workspace:
    """The folders of one profile.

    Attributes:
        profile: "smoke", "laptop", "original" or "gpu".
        root: the folder that holds data/, outputs/ and figures/.
    """

    profile: str = "laptop"
    root: Path = field(default_factory=find_root)

    def __post_init__(self):
        if self.profile not in PROFILES:
            raise ConfigError(f"profile: {self.profile!r} is none of {', '.join(PROFILES)}")

    @property
    def data(self) -> Path:
        """What notebook 01 builds."""
        return self.root / "data" / self.profile

    @property
    def outputs(self) -> Path:
        """What the other notebooks make."""
        return self.root / "outputs" / self.profile

    @property
    def best_model(self) -> Path:
        """The trained language model."""
        return self.outputs / "best_model"

    @property
    def figures(self) -> Path:
        """The profile's figures, each .png with its alt text in a .txt of the same name."""
        return self.outputs / "figures"

    @property
    def published(self) -> Path:
        """The committed figures; only the laptop profile writes there."""
        return self.root / "figures"

    def metrics_path(self, number: str) -> Path:
        """Where notebook `number` ("03") leaves what it measured."""
        return self.outputs / "metrics" / f"{number}.json"

    def needs(self, *numbers: str) -> None:
        """Raise DataError, naming the notebook to run first, unless those have been run."""
        for number in numbers:
            if not self.metrics_path(number).is_file():
                raise DataError(
                    f"{self.metrics_path(number).relative_to(self.root)} is missing: run notebook "
                    f"{NOTEBOOKS[number]}.ipynb with profile '{self.profile}' first, or "
                    f"`seqlm report --profile {self.profile}`, which runs them all"
                )

    def metrics(self, number: str) -> dict:
        """All that notebook `number` left: notebook, parameters, versions, seconds, values."""
        self.needs(number)
        return read_json(self.metrics_path(number))

    def save_metrics(self, number: str, parameters: dict, values: dict, seconds: float) -> Path:
        """Leave what a notebook measured, with all that is needed to measure it again."""
        sequences = self.data / "sequences.jsonl"
        path = self.metrics_path(number)
        write_json(
            path,
            {
                "notebook": NOTEBOOKS[number],
                "parameters": parameters,
                "seed": parameters.get("seed"),
                "versions": versions(),
                "data": sha256_of([sequences]) if sequences.is_file() else None,
                "seconds": round(seconds, 1),
                "values": values,
            },
        )
        return path

    def save_figure(self, figure, name: str) -> bytes:
        """Write a figure with its alt text beside it; returns the PNG."""
        held = io.BytesIO()
        # Without a fixed date and version the same picture would be another file each run.
        figure.savefig(held, format="png", dpi=130, metadata={"Software": None})
        with atomic_path(self.figures / f"{name}.png") as aside:
            aside.write_bytes(held.getvalue())
        write_text(self.figures / f"{name}.txt", figure.alt + "\n")
        return held.getvalue()

    def show(self, figure, name: str) -> None:
        """Write a figure, and show it in the notebook with its alt text for screen readers."""
        from IPython.display import HTML, display

        picture = base64.b64encode(self.save_figure(figure, name)).decode()
        alt = html.escape(figure.alt, quote=True)
        display(
            HTML(f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{picture}">')
        )
