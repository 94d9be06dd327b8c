"""The notebooks, the folders of a profile, and how a notebook reads and writes its files."""

import base64
import html
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager

from seqlm import utils
from seqlm.atomic import atomic_path
from seqlm.config import PROFILES, DataConfig
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.tables import escape_markdown
from seqlm.plots.style import DPI, as_png

# Trained models that come with a checkout, of 8x8 and of 28x28 pixels: the profile "nano".
NANO8, NANO28 = (utils.PACKAGE.parent / "models" / name for name in ("nano8", "nano28"))
KERNEL = "python3"  # the name of the kernel that runs the notebooks
PARTS = ("course", "laboratory", "report")  # in the order they run


@dataclass(frozen=True)
class Notebook:
    """What a notebook's own metadata says about it, under "seqlm"."""

    path: Path
    title: str
    number: int  # its place within its part
    part: str  # one of PARTS; the laboratory's are long, and run only when asked for
    needs: tuple[str, ...]  # names of the notebooks whose results it reads
    makes: tuple[str, ...]  # files that prove it has run, below data/ or outputs/ of a profile
    minutes: float  # with the laptop profile on two cores

    @property
    def name(self) -> str:
        """The file's name without number and ending: "evaluate" for 06_evaluate.ipynb."""
        return re.sub(r"^\d+_", "", self.path.stem)


def notebooks_folder() -> Path:
    """Where the notebooks are: beside the package."""
    folder = utils.PACKAGE.parent / "notebooks"
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is missing: the report runs the notebooks, which come with a checkout of "
            "seqlm; install it with `pip install -e .` from there"
        )
    return folder


def read_notebooks(folder: Path | None = None) -> dict[str, Notebook]:
    """Name -> notebook, in the order they run: the course, the laboratory, the report.

    Raises ConfigError for a notebook whose metadata lacks an entry.
    """
    folder = folder or notebooks_folder()
    notebooks = []
    for path in [*folder.glob("*.ipynb"), *folder.glob("laboratory/*.ipynb")]:
        about = utils.read_json(path)["metadata"].get("seqlm", {})
        try:
            notebooks.append(Notebook(path, **about))
        except TypeError as error:
            raise ConfigError(f"{path}: metadata.seqlm: {error}") from error
    notebooks.sort(key=lambda notebook: (PARTS.index(notebook.part), notebook.number))
    return {notebook.name: notebook for notebook in notebooks}


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


def check_kernel() -> None:
    """Refuse to run notebooks in a Python that is gone, or that belongs to another environment.

    A kernel of that name in the user's own folders can come before this environment's.
    """
    spec = KernelSpecManager().get_kernel_spec(KERNEL)
    program = spec.argv[0]
    if re.fullmatch(r"python(\d(\.\d+)?)?", program):  # Jupyter then starts this very Python
        return
    question = [program, "-c", "import sys; print(sys.prefix)"]
    try:
        answer = subprocess.run(question, capture_output=True, text=True).stdout.strip()
    except OSError:
        answer = "nothing, since it cannot be started"
    if answer != sys.prefix:
        raise ConfigError(
            f"{spec.resource_dir}: this Jupyter kernel starts {program}, which uses {answer}, and "
            f"seqlm is in {sys.prefix}; remove it with `jupyter kernelspec remove {KERNEL}`"
        )


def figure_html(png: bytes, alt: str, caption: str) -> str:
    """A picture in the page itself, with its caption, and its alt text for all to read."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    width = int.from_bytes(png[16:20], "big") * 100 // DPI  # from the PNG's own header
    words = html.escape(alt)
    return (
        f'<figure><img alt="{words}" width="{width}" src="{source}">'
        f"<figcaption>{html.escape(caption)}<details><summary>In words</summary>{words}</details>"
        "</figcaption></figure>"
    )


@dataclass(frozen=True)
class Workspace:
    """The folders of one profile."""

    profile: str = "laptop"  # one of PROFILES
    root: Path = field(default_factory=find_root)  # holds data/, outputs/ and figures/

    def __post_init__(self):
        if self.profile not in PROFILES:
            raise ConfigError(f"profile: {self.profile!r} is none of {', '.join(PROFILES)}")

    @property
    def data(self) -> Path:
        """The data set that explore_data builds."""
        return self.root / "data" / self.profile

    @property
    def outputs(self) -> Path:
        """What the other notebooks write."""
        return self.root / "outputs" / self.profile

    @property
    def best_model(self) -> Path:
        """The trained language model."""
        return NANO8 if self.profile == "nano" else self.outputs / "best_model"

    @property
    def drawing_model(self) -> Path:
        """The language model of the playground, where nothing need be measured on its data."""
        return NANO28 if self.profile == "nano" else self.best_model

    @property
    def figures(self) -> Path:
        """The profile's figures, each .png with its alt text in a .txt of the same name."""
        return self.outputs / "figures"

    @property
    def published(self) -> Path:
        """The committed figures; only the laptop profile writes there."""
        return self.root / "figures"

    def metrics_path(self, name: str) -> Path:
        """Where the notebook of this name ("evaluate") writes what it measured."""
        return self.outputs / "metrics" / f"{name}.json"

    def check_inputs(self, name: str) -> None:
        """Raise DataError, naming the notebook to run first, unless all that `name` needs ran.

        With the profile nano nothing was trained, and its model's data are built when not there.
        """
        notebooks = read_notebooks()
        needs = notebooks[name].needs
        if self.profile == "nano":
            self._build_nano_data()
            training = {"train_causal_lm", *notebooks["train_causal_lm"].needs}
            needs = [needed for needed in needs if needed not in training]
        self.check_ran(*needs)

    def _build_nano_data(self) -> None:
        """The digits of scikit-learn, in the codes of the model that was trained on them."""
        # Here, since it loads scikit-learn, which no other profile needs at this point.
        from seqlm.data.build import CODEBOOK, build_dataset, is_built
        from seqlm.data.codebook import PatchCodebook

        config = DataConfig(**utils.read_json(NANO8 / "metrics.json")["data"])
        book = PatchCodebook.load(NANO8 / CODEBOOK)
        if not is_built(config, self.data, book=book):
            print(f"building the data of models/{NANO8.name}, about ten seconds …")
            build_dataset(config, self.data, book=book)

    def check_ran(self, *names: str) -> None:
        """Raise DataError, naming the notebook to run, unless these notebooks have been run."""
        for name in names:
            if not self.metrics_path(name).is_file():
                raise DataError(
                    f"{self.metrics_path(name).relative_to(self.root)} is missing: run notebook "
                    f"{read_notebooks()[name].path.name} with profile '{self.profile}' first, or "
                    f"`seqlm report --profile {self.profile}`, which runs them all"
                )

    def metrics(self, name: str) -> dict:
        """What a notebook saved: notebook, parameters, seed, versions, data, seconds, values."""
        self.check_ran(name)
        return utils.read_json(self.metrics_path(name))

    def save_metrics(self, name: str, parameters: dict, values: dict, seconds: float) -> Path:
        """Write what a notebook measured, with all that is needed to measure it again."""
        sequences = self.data / "sequences.jsonl"
        metrics = {
            "notebook": name,
            "parameters": parameters,
            "seed": parameters.get("seed"),
            "versions": utils.versions(),
            "data": utils.sha256_of([sequences]) if sequences.is_file() else None,
            "seconds": round(seconds, 1),
            "values": values,
        }
        utils.write_json(self.metrics_path(name), metrics)
        return self.metrics_path(name)

    def save_figure(self, figure, name: str) -> bytes:
        """Write a figure with its alt text beside it; returns the PNG."""
        picture = as_png(figure)
        utils.write_text(self.figures / f"{name}.txt", figure.alt + "\n")  # first, so none lacks it
        with atomic_path(self.figures / f"{name}.png") as aside:
            aside.write_bytes(picture)
        return picture

    def show(self, figure, name: str) -> None:
        """Write a figure, and show it in the notebook with its alt text for screen readers."""
        from IPython.display import HTML, display

        picture = base64.b64encode(self.save_figure(figure, name)).decode()
        alt = html.escape(figure.alt, quote=True)
        source = f"data:image/png;base64,{picture}"
        display(HTML(f'<img alt="{alt}" style="max-width:100%" src="{source}">'))

    def show_saved(self, name: str) -> None:
        """Show a saved figure in the report: embedded in its HTML, linked in its Markdown."""
        from IPython.display import display

        path = self.figures / f"{name}.png"
        alt = " ".join(utils.read_text(path.with_suffix(".txt")).split())
        caption = name.replace("_", " ").capitalize().replace("Nll", "NLL")
        display(
            {
                "text/html": figure_html(path.read_bytes(), alt, caption),
                "text/markdown": f"![{escape_markdown(alt)}](figures/{name}.png)\n\n*{caption}*",
                "text/plain": alt,
            },
            raw=True,
        )
