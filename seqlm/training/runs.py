"""Run one command: from a user's files to a model directory, its metrics, cards and report."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqlm.atomic import atomic_path, is_changed
from seqlm.check import find_all
from seqlm.config import DataFiles, ModelConfig, TrainConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.records import SPLITS
from seqlm.data.table import Table
from seqlm.data.tokenizer import load_tokenizer
from seqlm.errors import printable
from seqlm.evaluation.estimates import as_estimate
from seqlm.evaluation.significance import baseline_verdict
from seqlm.evaluation.tables import code_span
from seqlm.models.gpt2 import check_model_directory, is_classifier, load_lm, load_model
from seqlm.ownership import CARD, MODELS
from seqlm.training.cards import model_card, write_report
from seqlm.training.measure import (
    check_measurable,
    evaluate_classifier,
    evaluate_lm,
    evaluation_split,
)
from seqlm.training.replay import is_learned, keep_unseen, read_learned
from seqlm.training.tasks import train_classifier, train_lm
from seqlm.training.timing import processes
from seqlm.training.train import check_run, owned
from seqlm.utils import write_json, write_text

METRICS = "metrics.json"


def print_at_once(line: str) -> None:
    """Print `line`, without delay also into a file or a pipe; of torchrun's processes one does."""
    if processes().is_main_process:
        print(printable(line), flush=True)


def train_and_evaluate(
    files: DataFiles,
    size: ModelConfig,
    config: TrainConfig,
    classifies: bool = False,
    start_from: Path | None = None,
    only_unseen: bool = False,
) -> None:
    """Train a language model or a classifier, evaluate its best checkpoint on test, save it all.

    The rows of a classifier are cut to what the model in `start_from` was trained on, if that is
    less than `config.max_length`, and none that this model has learned from is measured (see
    `keep_unseen`). Under torchrun every process trains; the first alone evaluates and writes.
    """
    check_run(config, start_from)
    length = trained_length(start_from, config.max_length) if start_from else config.max_length
    corpus = load_corpus(files, length)
    if start_from and only_unseen:  # else train_classifier checks them
        learned = read_learned(start_from)
        corpus = keep_unseen(corpus, ("val", "test"), learned, start_from, only_unseen)
    log_corpus(corpus, classifies)
    check_measurable(corpus, classifies)
    with owned(config.output_dir):  # so that model and metrics are of one run
        if classifies:
            record = train_classifier(corpus, size, config, start_from, log=print_at_once)
        else:
            record = train_lm(corpus, size, config, log=print_at_once)
        if processes().is_main_process:
            values = evaluate_best_model(config.output_dir, corpus)
            save_run(config.output_dir, record, values, corpus, files)


def evaluate_model(
    files: DataFiles,
    directory: Path,
    *,
    split: str,
    baselines: bool,
    as_json: bool,
    max_length: int | None = None,
    only_unseen: bool = False,
) -> None:
    """Measure a saved language model on one split of `files`, or "all"; print a table, or JSON.

    Rows are cut to what the model was trained on, or to `max_length` if that is less. None that it
    was trained on is measured (see `keep_unseen`); on those the baselines are fitted.
    """
    model, learned = load_lm(directory), read_learned(directory)
    length = trained_length(directory, max_length)
    whole = load_corpus(files, length, divide=split != "all")
    corpus = keep_unseen(whole, [split], learned, directory, only_unseen)
    if baselines and learned is not None:
        corpus = replace(corpus, splits=corpus.splits | _baseline_rows(whole, learned))
    if baselines and not (len(corpus.splits["train"]) and len(corpus.splits["val"])):
        baselines, why = False, f"{files.data_path} holds no row that the model was trained on"
        if split == "all":
            why = "--split all leaves no rows to fit them on"
        else:
            why += "; --split all measures every row of it"
        corpus = replace(corpus, left_out=(*corpus.left_out, f"the baselines, because {why}"))
    values = evaluate_lm(model, corpus, split, baselines)
    print(json.dumps(values, indent=2) if as_json else "\n".join(_summary(values)))


def _baseline_rows(corpus: Corpus, learned: np.ndarray) -> dict[str, Table]:
    """The rows of any split that the model was trained on, as train; val without them."""
    train, val, test = (corpus.records(name) for name in SPLITS)
    new = ~is_learned(val, learned)
    train = train[is_learned(train, learned)]
    for rows, seen in ((val, ~new), (test, is_learned(test, learned))):
        train = train + rows[seen] if seen.any() else train
    return {"train": train, "val": val[new]}


def evaluate_best_model(directory: Path, corpus: Corpus) -> dict:
    """Measure the best checkpoint of the run in `directory`, once, beside its baselines."""
    split, model = evaluation_split(corpus), load_model(Path(directory) / "best_model")
    print_at_once(f"measuring the best checkpoint on {split} …")
    return (evaluate_classifier if is_classifier(model) else evaluate_lm)(model, corpus, split)


def save_run(
    directory: Path,
    record: Mapping,
    values: Mapping,
    corpus: Corpus,
    files: DataFiles,
    *,
    note: str = "",
    codebook: Path | None = None,
) -> None:
    """Write metrics.json, model cards (see `save_model_cards`) and report.md; print the numbers."""
    directory, split = Path(directory), evaluation_split(corpus)
    kind = "classifier" if "accuracy" in values else "language model"
    data = _split_settings(files)
    about = {"run": record["identity"], "kind": kind, "split": split, "data": data}
    write_json(directory / METRICS, {**about, "values": values})
    save_model_cards(
        directory, record, corpus, values, codebook=codebook, note=note, file=data["file"]
    )
    write_report(directory, record, values)
    print("\n".join(_summary(values)))


def save_model_cards(
    directory: Path,
    record: Mapping,
    corpus: Corpus,
    values: Mapping | None = None,
    *,
    codebook: Path | None = None,
    note: str = "",
    file: str | None = None,
) -> None:
    """Put a model card, unless its owner edited it, and the codebook into both models of a run.

    `values` was measured on test; without it the card has the numbers on val. `file` is the name of
    a user's own data, and `note` goes on with the sentence about the data.
    """
    split = evaluation_split(corpus)
    data = ", ".join(f"{len(rows):,} {name}" for name, rows in corpus.splits.items()) + " rows"
    if file is not None:
        data += f" of {code_span(file)}, measured on {split}"
        if split == "val":
            data += ", which also chose the checkpoint and so flatters a little"
    card = model_card(record, values, len(corpus.vocab), data + note, file, split)
    for path in (directory / name / CARD for name in MODELS):
        if path.is_file() and is_changed(path):
            print_at_once(f"{path}: was edited, so it stays; without it a new card is written")
        else:
            write_text(path, card)
        if codebook is not None:
            with atomic_path(path.with_name(CODEBOOK)) as aside:
                shutil.copyfile(codebook, aside)


def trained_length(directory: Path, wanted: int | None = None) -> int:
    """Tokens in the longest row that a model was trained on, or `wanted` if that is less.

    Embeddings of later positions are still random, whatever n_positions says.
    """
    room = check_model_directory(directory).n_positions
    known = min(room, load_tokenizer(directory).model_max_length)
    return known if wanted is None else min(known, wanted)


def log_corpus(corpus: Corpus, classifies: bool = False) -> None:
    """Print how many rows each split has, how long the longest is, and what may mislead."""
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in corpus.splits.items())
    print_at_once(f"{corpus.path}: {counts}; at most {corpus.longest} tokens per row")
    for finding in find_all(corpus, classifies):
        print_at_once(f"warning: {finding}")
    for sentence in corpus.left_out:
        print_at_once(f"left out: {sentence}")


def _split_settings(files: DataFiles) -> dict:
    """What decides which rows are test rows, where the rows do not name their split."""
    names = ("test_size", "val_size", "split_seed")
    return {"file": Path(files.data_path).name, **{name: getattr(files, name) for name in names}}


def _summary(values: Mapping) -> list[str]:
    """The numbers that matter, a line each, for a terminal."""
    left_out = [f"left out: {sentence}" for sentence in values.get("left_out", [])]
    if "accuracy" in values:
        return [
            f"{name}: {words} {as_estimate(measured[key])}"
            for name, measured in {"the classifier": values, **values["baselines"]}.items()
            for key, words in (("accuracy", "accuracy"), ("macro_f1", "macro F1"))
        ] + left_out
    lines = []
    for layout in ("read", "draw", "other"):
        for kind, measured in values.get(layout, {}).items():
            loss, perplexity = (as_estimate(measured[name]) for name in ("nll", "perplexity"))
            lines.append(
                f"{layout:>5} {kind:<10} NLL {loss}, perplexity {perplexity.value:,.2f}, "
                f"top-1 {measured['top1']['value']:.1%} of {measured['tokens']:,} tokens"
            )
    for name, baseline in values.get("baselines", {}).items():
        lines.append(f"baseline {name}: code NLL {as_estimate(baseline['code']['nll'])}")
    if "below_best_baseline" in values:
        share = as_estimate(values["below_best_baseline"])
        verdict = baseline_verdict(share)
        lines.append(f"{verdict} the best baseline; the share of its nats that is saved: {share}")
    return [*lines, *left_out]
