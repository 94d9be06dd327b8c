"""One command, one run: from a user's own files to a model directory, honest numbers, a report."""

import json
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from seqlm.config import DataFiles, ModelConfig, TrainConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.tokenizer import load_tokenizer
from seqlm.errors import DataError, DataWarning
from seqlm.evaluation.classical import bag_of_codes, fit_classical_models
from seqlm.evaluation.classification import measure_classes
from seqlm.evaluation.estimates import as_estimate
from seqlm.evaluation.scores import classifier_probabilities
from seqlm.models.gpt2 import check_model_directory, load_classifier, load_lm
from seqlm.training.cards import model_card, run_report
from seqlm.training.tasks import evaluate_classes, evaluate_lm, train_classifier, train_lm
from seqlm.training.timing import processes
from seqlm.utils import atomic_path, check_folder, read_json, write_json, write_text

METRICS = "metrics.json"
RIVAL_ROWS = 5_000  # what an SVM learns from in seconds; its time grows with the square
RIVALS = {
    "dummy": "always the commonest class",
    "logistic": "logistic regression on counts of codes",
    "svm": "RBF-SVM on counts of codes",
    "bayes": "naive Bayes on counts of codes",
}


def train_language_model(files: DataFiles, size: ModelConfig, config: TrainConfig) -> None:
    """Train, then measure the best checkpoint once on test; everything lands in output_dir.

    Under torchrun every process trains; the first alone measures and writes.
    """
    check_folder(config.output_dir)
    corpus = load_corpus(files, config.max_length)
    say_what(corpus, files)
    record = train_lm(corpus, size, config, log=flushed)
    if processes().is_main_process:
        leave_language_model(Path(config.output_dir), record, corpus, files)


def train_sequence_classifier(
    files: DataFiles, size: ModelConfig, config: TrainConfig, start_from: Path | None
) -> None:
    """Train a classifier whose input ends at ``<CLS>``, then measure it once on test.

    Beside it stand rivals that see only how often each code comes in a row. Rows are cut to what
    the model in `start_from` was trained on, if that is less than `config.max_length`.
    """
    check_folder(config.output_dir)
    length = config.max_length if start_from is None else fitting(start_from, config.max_length)
    corpus = load_corpus(files, length)
    say_what(corpus, files)
    record = train_classifier(corpus, size, config, start_from, log=flushed)
    if processes().is_main_process:
        leave_classifier(Path(config.output_dir), record, corpus, files)


def leave_language_model(
    directory: Path,
    record: dict,
    corpus: Corpus,
    files: DataFiles,
    more: Mapping | None = None,
    **beside,
) -> None:
    """Measure best_model once on test; leave numbers, cards and report; print the numbers.

    `more` is measured already and goes into metrics.json, too; `beside` is for `finish_model`.
    """
    split = measured_split(corpus)
    print(f"measuring the best checkpoint on {split} …", flush=True)
    values = evaluate_lm(load_lm(directory / "best_model"), corpus, split) | dict(more or {})
    _leave(directory, "language model", record, values, corpus, files, **beside)
    print("\n".join(_table(values)))


def leave_classifier(
    directory: Path,
    record: dict,
    corpus: Corpus,
    files: DataFiles,
    more: Mapping | None = None,
    **beside,
) -> None:
    """The same for a classifier, with rivals that see only how often each code comes in a row."""
    split = measured_split(corpus)
    prompts, labels = corpus.to_classify(split)
    model = load_classifier(directory / "best_model")
    values = evaluate_classes(classifier_probabilities(model, prompts), labels)
    values["rivals"] = measure_rivals(corpus, split, model.config.num_labels)
    values |= dict(more or {})
    _leave(directory, "classifier", record, values, corpus, files, **beside)
    for name, found in {"the classifier": values, **values["rivals"]}.items():
        print(f"{name}: accuracy {as_estimate(found['accuracy'])}")
        print(f"{name}: macro F1 {as_estimate(found['macro_f1'])}")


def evaluate_model(
    files: DataFiles,
    directory: Path,
    *,
    split: str,
    baselines: bool,
    as_json: bool,
    max_length: int | None = None,
) -> None:
    """Measure a saved language model on one split of `files`; print a table, or JSON.

    Rows are cut to what the model was trained on, or to `max_length` if that is less. Warns when
    the model was trained on another division of the same file.
    """
    model = load_lm(directory)
    corpus = load_corpus(files, fitting(directory, max_length))
    warn_of_other_splits(corpus, files, Path(directory))
    values = evaluate_lm(model, corpus, split, baselines)
    print(json.dumps(values, indent=2) if as_json else "\n".join(_table(values)))


def fitting(directory: Path, wanted: int | None = None) -> int:
    """The longest row that the model in `directory` has learned from, or `wanted` if it is less.

    Positions beyond that are random numbers still, whatever the model has room for.
    """
    room = check_model_directory(directory).n_positions
    known = min(room, load_tokenizer(directory).model_max_length)
    return known if wanted is None else min(known, wanted)


def measure_rivals(corpus: Corpus, split: str, n_classes: int) -> dict[str, dict]:
    """Name -> `measure_classes` on `split` of classifiers that learned from the train rows.

    They see how often each code comes and no order. Of many train rows they see a random
    `RIVAL_ROWS`, and the name says so. There are none, {}, where those rows are of one class.
    """
    prompts, labels = corpus.to_classify("train")
    one_of_each = np.unique(labels, return_index=True)[1]  # no class may be lost by the draw
    if len(one_of_each) < 2:  # a fine-tuned classifier has the others from replayed rows
        return {}
    drawn = np.random.default_rng(0).permutation(len(prompts))
    chosen = list(dict.fromkeys([*one_of_each, *drawn]))[:RIVAL_ROWS]
    rows = [prompts[i] for i in chosen]
    fitted = fit_classical_models(bag_of_codes(rows, corpus.kinds), labels[chosen], kind="bag")
    fewer = f" ({RIVAL_ROWS:,} of the train rows)" if len(prompts) > RIVAL_ROWS else ""
    asked, truth = corpus.to_classify(split)
    bag = bag_of_codes(asked, corpus.kinds)
    return {
        RIVALS[name] + fewer: measure_classes(truth, rival.predict(bag), n_classes)
        for name, rival in fitted.items()
    }


def flushed(line: str) -> None:
    """Print a line at once, also into a file or a pipe."""
    print(line, flush=True)


def say_what(corpus: Corpus, files: DataFiles) -> None:
    """Print how many rows each split has, and how long the longest is."""
    if processes().is_main_process:
        counts = ", ".join(f"{len(rows):,} {name}" for name, rows in corpus.splits.items())
        print(f"{files.data_path}: {counts}; at most {corpus.longest} tokens per row", flush=True)


def measured_split(corpus: Corpus) -> str:
    """test; or val where the user kept no test rows, though val also chose the checkpoint."""
    return "test" if corpus.splits["test"] else "val"


def _split_settings(files: DataFiles) -> dict:
    """What decides who is a test row, where the rows do not say so themselves."""
    names = ("test_size", "val_size", "split_seed")
    return {"file": Path(files.data_path).name, **{name: getattr(files, name) for name in names}}


def warn_of_other_splits(corpus: Corpus, files: DataFiles, directory: Path) -> None:
    """Warn when the model in `directory` was trained on another division of the same file."""
    held = {}
    with suppress(DataError):  # a model on its own, without its run, is fine
        held = read_json(directory.resolve().parent / METRICS)
    trained = held.get("data") if isinstance(held, Mapping) else None
    now = _split_settings(files)
    if not isinstance(trained, Mapping) or trained.get("file") != now["file"]:
        return
    own = any(r.meta.get("split") is not None for r in corpus.splits["train"])
    other = [k for k, v in now.items() if trained.get(k, v) != v]
    if other and not own:
        told = ", ".join(f"{name} {trained[name]} then and {now[name]} now" for name in other)
        warnings.warn(
            f"{files.data_path}: the model was trained on another division of this file ({told}), "
            "so it may have learned from rows that are measured here; use the same settings",
            DataWarning,
            stacklevel=3,
        )


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
    directory: Path,
    kind: str,
    record: dict,
    values: dict,
    corpus: Corpus,
    files: DataFiles,
    *,
    note: str = "",
    codebook: Path | None = None,
) -> None:
    split = measured_split(corpus)
    where = f" of {Path(files.data_path).name}, measured on {split}"
    if split == "val":
        where += ", which also chose the checkpoint and so flatters a little"
    data = _split_settings(files)
    write_json(directory / METRICS, {"kind": kind, "split": split, "data": data, "values": values})
    note = where + note
    finish_model(directory, record, corpus, values, codebook=codebook, note=note, kind=kind)
    run_report(directory, record, values)


def _table(values: dict) -> list[str]:
    """The numbers that matter, a line each, for a terminal."""
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
        verdict = "beats" if share.value > 0 else "does not beat"
        lines.append(f"{verdict} the best baseline; the share of its nats that is saved: {share}")
    return lines
