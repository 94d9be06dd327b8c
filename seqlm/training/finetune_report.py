"""What a fine-tuning run leaves: the numbers, cards and report of any run, and what changed.

What is learned may hold replayed rows. Everything that is told of the data is about the new rows
alone: what they are measured on, what the baselines and rivals are fitted on, and how many they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seqlm.config import DataFiles, FinetuneConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.corpus import Corpus
from seqlm.models.gpt2 import load_classifier, load_lm
from seqlm.models.resize import grow_embedding, is_classifier
from seqlm.training.forgetting import answers, change, change_lines, change_table
from seqlm.training.runs import leave_classifier, leave_language_model, measured_split
from seqlm.utils import read_text, write_text


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be learned, and upon what.

    Attributes:
        files: where the new rows are.
        options: what to start from, and how to go on.
        known: the starting model's vocabulary, token -> id.
        corpus: the new rows alone, under the grown vocabulary: what is measured.
        mixed: the same with replayed rows among those of train: what is learned.
        old: the old rows, under `known`; None when none were named.
        classifies: whether a classifier is trained, or a language model.
    """

    files: DataFiles
    options: FinetuneConfig
    known: dict[str, int]
    corpus: Corpus
    mixed: Corpus
    old: Corpus | None
    classifies: bool

    @property
    def replayed(self) -> int:
        """How many of the rows that are learned are old ones."""
        own = set(map(id, self.corpus.splits["train"]))
        return sum(id(record) not in own for record in self.mixed.splits["train"])

    @property
    def start(self) -> str:
        """The starting model's folder and the one around it, as they are told of."""
        return "/".join(Path(self.options.model_path).resolve().parts[-2:])


def leave(job: Job, directory: Path, record: Mapping, about: Mapping) -> None:
    """metrics.json, cards and report in `directory` as `seqlm train` leaves them, and the changes.

    `record` and `about` are what `finetuning.train_from` returned. Prints the numbers.
    """
    changes = _changes(job, directory)
    told = dict(about) | {
        "from": job.start,
        "new_tokens": list(job.corpus.vocab)[len(job.known) :],
        "replay": job.options.replay,
        "rows": {"new": len(job.mixed.splits["train"]) - job.replayed, "replayed": job.replayed},
        "changes": changes,
    }
    book = Path(job.options.model_path) / CODEBOOK
    leave_run = leave_classifier if job.classifies else leave_language_model
    leave_run(
        directory,
        dict(record) | {"parameters": about["parameters"]},
        job.corpus,
        job.files,
        more={"finetuned": told},
        note=_note(job, told),
        codebook=book if book.is_file() else None,
    )
    section = f"## What fine-tuning changed\n\n{_in_short(job, told)}\n\n{change_table(changes)}\n"
    report = directory / "report.md"
    write_text(report, f"{read_text(report)}\n{section}")
    print("\n".join(change_lines(changes)))


def _note(job: Job, told: Mapping) -> str:
    """What a card says of the data beyond the counts of the new rows."""
    note = f"; fine-tuned from {told['from']}"
    if told["lora"]:
        note += f" by LoRA of rank {told['lora']['rank']} ({told['trained']:,} parameters)"
    if job.replayed:
        note += f"; {_mixture(job, told)}"
    return note


def _mixture(job: Job, told: Mapping) -> str:
    new, replayed = told["rows"]["new"], told["rows"]["replayed"]
    name = Path(job.options.old_data_path).name
    return f"it learned from {new:,} new rows and {replayed:,} replayed rows of {name}"


def _changes(job: Job, directory: Path) -> dict[str, dict]:
    """Which rows -> `forgetting.change` of the starting model and the fine-tuned one."""
    start, corpus, old = job.options.model_path, job.corpus, job.old
    before = (load_classifier if is_classifier(start) else load_lm)(start)
    after = (load_classifier if job.classifies else load_lm)(directory / "best_model")
    found = {}
    if old is not None:  # first: here the model is still as it was, its vocabulary, too
        split = measured_split(old)
        grown = Corpus(corpus.vocab, old.splits, old.max_length)
        changed = change(answers(before, old, split), answers(after, grown, split))
        found[f"old rows ({Path(job.options.old_data_path).name}, {split})"] = changed
    grow_embedding(before, len(corpus.vocab))
    split = measured_split(corpus)
    changed = change(answers(before, corpus, split), answers(after, corpus, split))
    return {f"new rows ({Path(job.files.data_path).name}, {split})": changed, **found}


def _in_short(job: Job, told: Mapping) -> str:
    new, lora = told["new_tokens"], told["lora"]
    by = f" by LoRA of rank {lora['rank']}" if lora else ""
    said = [
        f"It started from {told['from']}; {told['trained']:,} of {told['parameters']:,} parameters "
        f"were trained{by}."
    ]
    if new:
        tokens = f"{len(new):,} tokens were" if len(new) > 1 else "1 token was"
        run = f"from {new[0]} to {new[-1]}" if len(new) > 1 else new[0]
        said.append(f"{tokens} appended to its vocabulary, {run}.")
    if job.replayed:
        said.append(
            f"To forget less, {_mixture(job, told)}; whatever it is held against has seen the new "
            "ones alone."
        )
    said.append("Both models were asked about the very same rows.")
    return " ".join(said)
