"""One command, one run: from a user's own files to a model directory, honest numbers, a report."""

import json
import shutil
from pathlib import Path

from seqlm.cards import model_card, run_report
from seqlm.config import DataFiles, ModelConfig, TrainConfig
from seqlm.corpus import Corpus, load_corpus
from seqlm.dataset import CODEBOOK
from seqlm.experiment import (
    evaluate_classes,
    evaluate_lm,
    train_classifier,
    train_lm,
)
from seqlm.files import atomic_path, write_json, write_text
from seqlm.metrics import Estimate, classifier_probabilities
from seqlm.model import load_classifier, load_lm
from seqlm.speed import processes


def train_language_model(files: DataFiles, size: ModelConfig, config: TrainConfig) -> None:
    """Train, then measure the best checkpoint once on test; everything lands in output_dir.

    Under torchrun every process trains; the first alone measures and writes.
    """
    corpus = load_corpus(files, config.max_length)
    _say_what(corpus, files)
    record = train_lm(corpus, size, config, say=_flushed)
    if processes().is_main_process:
        split = _measured_split(corpus)
        print(f"measuring the best checkpoint on {split} …", flush=True)
        values = evaluate_lm(load_lm(Path(config.output_dir) / "best_model"), corpus, split)
        _leave(Path(config.output_dir), "language model", record, values, corpus, files)
        print("\n".join(_table(values)))


def train_sequence_classifier(
    files: DataFiles, size: ModelConfig, config: TrainConfig, start_from: Path | None
) -> None:
    """Train a classifier whose input ends at ``<CLS>``, then measure it once on test."""
    corpus = load_corpus(files, config.max_length)
    _say_what(corpus, files)
    record = train_classifier(corpus, size, config, start_from, say=_flushed)
    if processes().is_main_process:
        split = _measured_split(corpus)
        prompts, labels = corpus.to_classify(split)
        model = load_classifier(Path(config.output_dir) / "best_model")
        values = evaluate_classes(classifier_probabilities(model, prompts), labels)
        _leave(Path(config.output_dir), "classifier", record, values, corpus, files)
        print(f"accuracy {Estimate(**values['accuracy'])}")
        print(f"macro F1 {Estimate(**values['macro_f1'])}")


def evaluate_model(
    files: DataFiles,
    directory: Path,
    *,
    split: str,
    floors: bool,
    as_json: bool,
    max_length: int,
) -> None:
    """Measure a saved language model on one split of `files`; print a table, or JSON."""
    model = load_lm(directory)
    corpus = load_corpus(files, min(max_length, model.config.n_positions))
    values = evaluate_lm(model, corpus, split, floors)
    print(json.dumps(values, indent=2) if as_json else "\n".join(_table(values)))


def _flushed(line: str) -> None:
    print(line, flush=True)


def _say_what(corpus: Corpus, files: DataFiles) -> None:
    if processes().is_main_process:
        counts = ", ".join(f"{len(rows):,} {name}" for name, rows in corpus.splits.items())
        print(f"{files.data_path}: {counts}; at most {corpus.longest} tokens a row", flush=True)


def _measured_split(corpus: Corpus) -> str:
    """test; or val where the user kept no test rows, though val also chose the checkpoint."""
    return "test" if corpus.splits["test"] else "val"


def finish_model(
    directory: Path,
    record: dict,
    corpus: Corpus,
    values: dict | None = None,
    *,
    codebook: Path | None = None,
    note: str = "",
    kind: str = "language model",
) -> None:
    """Put a model card with the metrics, and the code book if there is one, beside both models.

    `values` is what `evaluate_lm` measured on test; before that the card says what val said.
    """
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in corpus.splits.items())
    card = model_card(f"seqlm {kind}", record, values, len(corpus.vocab), f"{counts} rows{note}")
    for name in ("best_model", "final_model"):
        write_text(directory / name / "README.md", card)
        if codebook is not None:
            with atomic_path(directory / name / CODEBOOK) as aside:
                shutil.copyfile(codebook, aside)


def _leave(
    directory: Path, kind: str, record: dict, values: dict, corpus: Corpus, files: DataFiles
) -> None:
    split = _measured_split(corpus)
    note = f" of {Path(files.data_path).name}, measured on {split}"
    if split == "val":
        note += ", which also chose the checkpoint and so flatters a little"
    write_json(directory / "metrics.json", {"kind": kind, "split": split, "values": values})
    finish_model(directory, record, corpus, values, note=note, kind=kind)
    run_report(directory, record, values)


def _table(values: dict) -> list[str]:
    """The numbers that matter, a line each, for a terminal."""
    lines = []
    for layout in ("read", "draw", "other"):
        for kind, measured in values.get(layout, {}).items():
            loss, perplexity = (Estimate(**measured[name]) for name in ("nll", "perplexity"))
            lines.append(
                f"{layout:>5} {kind:<10} NLL {loss.value:.3f} [{loss.low:.3f}, {loss.high:.3f}]  "
                f"perplexity {perplexity.value:,.2f}  top-1 {measured['top1']['value']:.1%}  "
                f"n = {loss.n} rows, {measured['tokens']:,} tokens"
            )
    for name, floor in values.get("floors", {}).items():
        loss = Estimate(**floor["code"]["nll"])
        lines.append(f"floor {name}: code NLL {loss.value:.3f} [{loss.low:.3f}, {loss.high:.3f}]")
    if "below_best_floor" in values:
        lines.append(f"below the best floor by {Estimate(**values['below_best_floor'])}")
    return lines
