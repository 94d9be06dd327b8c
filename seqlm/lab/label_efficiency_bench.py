"""One cell of the learning curve after another: trained, measured on test, kept, thrown away."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from seqlm.config import DataConfig, ModelConfig, TrainConfig
from seqlm.data.build import ABOUT, IMAGES, load_pictures
from seqlm.data.corpus import Corpus
from seqlm.data.images import LEVELS, augment
from seqlm.data.records import Record
from seqlm.data.tokens import PAD
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.classical import classical_models
from seqlm.evaluation.scores import classifier_probabilities
from seqlm.models.gpt2 import (
    build_classifier,
    check_length,
    check_model_directory,
    fit_attention,
    load_classifier,
)
from seqlm.training.tasks import train_classifier
from seqlm.training.timing import TIMED_STEPS, choose_precision
from seqlm.training.trainer import Rows, collator
from seqlm.utils import (
    check_folder,
    code_fingerprint,
    format_duration,
    read_json,
    sha256_of,
    write_json,
)

FROM_LM = "classifier started from the language model"
SCRATCH = "classifier from scratch"
SVM = "RBF-SVM on pixels"
SVM_BENT = "RBF-SVM on pixels, augmented images too"
ROUTES = (FROM_LM, SCRATCH, SVM, SVM_BENT)

_WATCHED = 100  # labelled train images on which a training is watched; they choose nothing


def hash_of(what: object) -> str:
    """First 16 hex characters of the SHA-256 of `what`, written as JSON."""
    return hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Cell:
    """One training of the table, and the labelled rows it may see."""

    route: str
    n_each: int | None
    seed: int
    records: list[Record]
    n_labelled: int  # images behind the rows
    rows: str  # a hash of the rows

    @property
    def size(self) -> str:
        return "all" if self.n_each is None else str(self.n_each)

    @property
    def originals(self) -> list[Record]:
        return [record for record in self.records if not record.meta.get("copy")]


@dataclass(eq=False)
class Bench:
    """What all cells share, and what is known of how long they take."""

    corpus: Corpus
    data_directory: Path
    lm_directory: Path
    work_dir: Path
    size: ModelConfig
    configs: dict[str, TrainConfig]
    precision: dict[str, str] = field(default_factory=dict)  # route -> fp32 or bf16
    to_come: list[str] = field(default_factory=list)  # route of each training still ahead
    seconds: dict[str, float] = field(default_factory=dict)  # route -> of one training

    @cached_property
    def test(self) -> tuple[list[list[int]], np.ndarray]:
        return self.corpus.to_classify("test")

    @cached_property
    def pixels(self) -> "_Pixels":
        return _Pixels(self.data_directory)

    def check(self, routes: Sequence[str], seeds: Sequence[int]) -> None:
        """Refuse, before anything runs, what could not run or would be no fair comparison."""
        strange = [route for route in routes if route not in ROUTES]
        if strange or not routes or min(seeds, default=-1) < 0:
            raise ConfigError(
                f"routes: {routes}, seeds: {seeds}; give at least one seed, none below 0, and some "
                f"of the routes {', '.join(map(repr, ROUTES))}"
            )
        classes = {record.label for record in self.corpus.labelled("train")}
        if len(classes) < 2:
            raise DataError(
                f"the labelled train rows hold {len(classes)} classes; a classifier needs two"
            )
        check_folder(self.work_dir)
        for route in set(routes) & set(self.configs):
            if self.configs[route].max_steps < 1:
                raise ConfigError(
                    f"max_steps: {self.configs[route].max_steps} would train the longer the more "
                    "labels there are; give a number of steps, the same for all"
                )
        if FROM_LM in routes:
            self._check_sizes()

    def _check_sizes(self) -> None:
        theirs, vocab = check_model_directory(self.lm_directory), self.corpus.vocab
        if theirs.vocab_size != len(vocab):
            raise DataError(
                f"{self.lm_directory}: knows {theirs.vocab_size} tokens, the data {len(vocab)}; "
                "use the vocab.json the model was trained with"
            )
        for name in ("n_layer", "n_head", "n_embd"):
            has, asked = getattr(theirs, name), getattr(self.size, name)
            if has != asked:
                raise ConfigError(
                    f"{name}: the language model in {self.lm_directory} has {has}, the classifiers "
                    f"were to have {asked}; compare models of one size"
                )

    @cached_property
    def shared(self) -> str:
        """A hash of the test rows and of the code."""
        code = code_fingerprint("seqlm.lab.label_efficiency_bench")
        return hash_of([code, self.test[0], self.test[1].tolist()])

    @cached_property
    def lm(self) -> str:
        return sha256_of(
            [self.lm_directory / name for name in ("config.json", "model.safetensors")]
        )

    def path(self, cell: Cell) -> Path:
        """Where the cell is kept: another place when anything its outcome depends on is another."""
        decides = [cell.route, self.shared, cell.rows]
        if cell.route in self.configs:
            config = asdict(self.configs[cell.route]) | {"seed": cell.seed}
            decides += [{k: v for k, v in config.items() if k not in ("output_dir", "resume")}]
            decides += [asdict(self.size), cell.route == FROM_LM and self.lm]
        else:
            decides += [self.pixels.identity]
        return self.work_dir / f"{hash_of(decides)}.json"

    def foretell(self, cells: Sequence[Cell], log: Callable[[str], None]) -> None:
        """Settle the precisions, time some steps of each route, say how long it will all take."""
        there = {cell: self.path(cell).is_file() for cell in cells}
        for route in self.configs:
            mine = [cell for cell in cells if cell.route == route]
            done = [cell for cell in mine if there[cell]]
            self.to_come += [route] * (len(mine) - len(done))
            if len(done) < len(mine):
                self._settle(route, mine[-1], done[0] if done else None)
        if any(there.values()):
            log(f"{sum(there.values())} of {len(cells)} cells of the table are there from before")
        if self.to_come:
            log(f"{len(self.to_come)} classifiers to train{self.left()}; the SVMs come on top")

    def _settle(self, route: str, cell: Cell, earlier: Cell | None) -> None:
        """One precision for all trainings of a route, and the seconds that each of them takes."""
        config, vocab = self.configs[route], self.corpus.vocab
        asked = read_json(self.path(earlier))["precision"] if earlier else config.precision
        few = self._few(cell)
        model = build_classifier(self.size, vocab, max(2, len(self.corpus.class_ids)), 0)
        check_length(model, max(map(len, self.test[0])))
        prompts, labels = few.to_classify("train")
        rows = Rows(prompts, np.zeros_like(labels).tolist())  # any class takes as long
        batch = [rows[i] for i in range(min(config.batch_size, len(rows)))]
        fit_attention(model, max(map(len, prompts)))
        timed = choose_precision(asked, model, collator(vocab[PAD])(batch))
        a_step = timed["step_seconds"][timed["chosen"]] * config.grad_accumulation
        self.precision[route] = timed["chosen"]
        # train() times the precision it is told once more, as one warm-up and TIMED_STEPS steps.
        self.seconds[route] = a_step * (config.max_steps + TIMED_STEPS + 1)

    def left(self) -> str:
        """How long the trainings still to come will take, in words; empty when there is none."""
        seconds = sum(self.seconds[route] for route in self.to_come)
        return f" · about {format_duration(seconds)} left" if self.to_come else ""

    def _few(self, cell: Cell) -> Corpus:
        """What a classifier is shown: no label but the cell's own is in it, in no split."""
        watched = (cell.originals or cell.records)[:_WATCHED]
        splits = {"train": cell.records, "val": watched, "test": []}
        return Corpus(self.corpus.vocab, splits, self.corpus.max_length)

    def right(self, cell: Cell) -> np.ndarray:
        """Which test images the cell's classifier gets right, (N,) bool: from before, or anew."""
        path = self.path(cell)
        if path.is_file():
            return np.array([answer == "1" for answer in read_json(path)["right"]])
        started = time.perf_counter()
        trained = cell.route in self.configs
        predicted = self._trained(cell) if trained else self._svm(cell)
        seconds = time.perf_counter() - started
        right = predicted == self.test[1]
        found = {
            "route": cell.route,
            "labels_a_class": cell.size,
            "seed": cell.seed,
            "precision": self.precision.get(cell.route),
            "seconds": round(seconds, 2),
            "right": "".join("01"[int(answer)] for answer in right),
        }
        write_json(path, found)
        if trained:
            self.to_come.remove(cell.route)
            self.seconds[cell.route] = seconds
        return right

    def _trained(self, cell: Cell) -> np.ndarray:
        """What a freshly trained classifier says of the test images. (N,) int64."""
        folder = self.work_dir / "training"
        config = replace(
            self.configs[cell.route],
            output_dir=folder,
            seed=cell.seed,
            precision=self.precision[cell.route],
            evals=1,
            patience=0,
            resume=False,
        )
        start = self.lm_directory if cell.route == FROM_LM else None
        try:
            train_classifier(self._few(cell), self.size, config, start, log=lambda line: None)
            model = load_classifier(folder / "final_model")
            return classifier_probabilities(model, self.test[0]).argmax(1)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _svm(self, cell: Cell) -> np.ndarray:
        """What an SVM on the images behind the cell's rows says of the test images. (N,) int64."""
        records = cell.records if cell.route == SVM_BENT else cell.originals
        images, labels = self.pixels.of(records), [record.label for record in records]
        svm = classical_models("pixels", images[0].size)["svm"].fit(images, labels)
        return svm.predict(self.pixels.of(self.corpus.labelled("test")))


class _Pixels:
    """The images behind the rows of a data set that `build_dataset` made."""

    def __init__(self, directory: Path):
        self.directory, self.pictures = directory, load_pictures(directory)
        self.identity = sha256_of([directory / IMAGES, directory / ABOUT])

    @cached_property
    def bent(self) -> dict[tuple[int, int], np.ndarray]:
        """(image, copy) -> the bent image (H, W), made again just as `build_dataset` made it."""
        config = DataConfig(**read_json(self.directory / ABOUT)["config"])
        train = np.flatnonzero(self.pictures.split == "train")
        copies = augment(self.pictures.images[train], config, LEVELS[config.source])
        return {
            (int(train[i % len(train)]), 1 + i // len(train)): image
            for i, image in enumerate(copies)
        }

    def of(self, records: Sequence[Record]) -> np.ndarray:
        """The image of each row, (N, H, W). Raises DataError for a row that names none."""
        return np.array([self._image(record) for record in records])

    def _image(self, record: Record) -> np.ndarray:
        copy = record.meta.get("copy", 0)
        try:
            index = int(str(record.source).rsplit("-", 1)[1])
            return self.bent[index, copy] if copy else self.pictures.images[index]
        except (IndexError, KeyError, ValueError) as error:
            raise DataError(
                f"meta.source_id {record.source!r}, copy {copy!r}: there is no such image in "
                f"{self.directory}; take the sentences that `seqlm build` made there, or leave the "
                "SVMs out of routes"
            ) from error
