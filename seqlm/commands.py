"""The commands of `seqlm`: one function each, its parameters are the flags, its docstring the help.

The fields of a parameter from config.py are flags of their own. Each function imports what it
needs, so that `seqlm --help` loads no library for training.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from seqlm import config
from seqlm.errors import ConfigError, needs_extra, printable

BEST_MODEL = Path("outputs/best_model")


def build(
    settings: config.DataConfig, output_dir: Path | None = None, overwrite: bool = False
) -> None:
    """Turn handwritten digits into token sequences: data set, vocabulary and codebook.

    Args:
        output_dir: folder for sequences.jsonl, vocab.json, codebook.npz and images.npz; None:
            data/digits or data/mnist.
        overwrite: replace whatever is in the way; false refuses what seqlm did not write.
    """
    from seqlm.data.build import build_dataset

    output_dir = output_dir or Path("data") / settings.source
    about = build_dataset(settings, output_dir, overwrite=overwrite)
    images = sum(about["images"].values())
    print(f"{about['sentences']:,} rows of {images:,} images in {printable(output_dir)}/")


def train(files: config.DataFiles, model: config.ModelConfig, training: config.TrainConfig) -> None:
    """Train a language model from scratch on your own sequences, measure it, write a report."""
    from seqlm.training.runs import train_and_evaluate

    _log_overridden(model)
    train_and_evaluate(files, model, training)


def check(
    files: config.DataFiles,
    model: config.ModelConfig,
    training: config.TrainConfig,
    task: Literal["lm", "classifier"] = "lm",
    json: bool = False,
    output_file: Path | None = None,
) -> int:
    """Check your data before training; the exit code is 1 when training would mislead.

    It takes all settings of `seqlm train`, to estimate the memory and time of that run.

    Args:
        task: what is to be trained: lm or classifier.
        json: print one JSON object.
        output_file: also write an HTML page with figures, which opens without a network.
    """
    from seqlm.health import check_data

    return check_data(files, model, training, task == "classifier", json, output_file)


def classify(
    files: config.DataFiles,
    model: config.ModelConfig,
    training: config.TrainConfig,
    start_from: Path | None = None,
    only_unseen: bool = False,
) -> None:
    """Train a classifier on your own labelled sequences, measure it, write a report.

    Args:
        start_from: directory of a trained language model; without it, random weights.
        only_unseen: where val or test hold rows that this model was trained on, leave those out
            instead of refusing.
    """
    from seqlm.training.runs import train_and_evaluate

    if start_from is not None:
        _check_size(model, start_from)
    _log_overridden(model)
    train_and_evaluate(files, model, training, True, start_from, only_unseen)


def _check_size(model: config.ModelConfig, start: Path) -> None:
    """Refuse a setting that the model in `start` has otherwise, and that would not be used."""
    from seqlm.models.gpt2 import check_model_directory

    known, usual = check_model_directory(start), config.ModelConfig()
    for name, value in asdict(model).items():
        own = getattr(known, name, None)
        if name != "dropout" and value not in (getattr(usual, name), own):
            raise ConfigError(
                f"{name}: a classifier that starts from {start} has that model's own {name}"
                f"{'' if own is None else f' {own}'}, not {value}; leave out either --{name} or "
                "--start_from"
            )


def _log_overridden(model: config.ModelConfig) -> None:
    preset = config.SIZES.get(model.size, {})
    other = [f"{k} {getattr(model, k)}" for k, v in preset.items() if getattr(model, k) != v]
    if other:
        print(f"size {model.size}, but with {', '.join(other)} as set", file=sys.stderr)


def sizes(
    training: config.TrainConfig,
    data_path: Path | None = None,
    vocab_path: Path | None = None,
    json: bool = False,
) -> None:
    """Time the three model sizes on this machine, to choose one before training.

    Args:
        data_path: JSON Lines file; without it, the digits as `seqlm build` makes them.
        vocab_path: JSON file that maps each token to its id.
        json: print JSON instead of a table.
    """
    from seqlm.lab.sizes import show_sizes

    show_sizes(training, data_path, vocab_path, json)


def evaluate(
    files: config.DataFiles,
    model_path: Path = BEST_MODEL,
    split: Literal["val", "test", "all"] = "test",
    baselines: bool = True,
    json: bool = False,
    max_length: int = 1024,
    only_unseen: bool = False,
) -> None:
    """Measure a trained language model and its baselines: perplexity with intervals.

    Args:
        model_path: directory of a trained language model.
        split: which rows to measure; all: every row of a file that is not divided.
        baselines: also measure the baselines, fitted on the rows the model was trained on.
        json: print JSON instead of a table.
        max_length: most tokens in a row; longer rows lose codes from the left.
        only_unseen: leave out rows that the model was trained on, instead of refusing.
    """
    from seqlm.training.runs import evaluate_model

    options = {"split": split, "baselines": baselines, "max_length": max_length}
    options |= {"only_unseen": only_unseen}
    evaluate_model(files, model_path, as_json=json, **options)


def finetune(
    files: config.DataFiles, start: config.FinetuneConfig, training: config.TrainConfig
) -> None:
    """Continue training a saved model on other data; new tokens are appended, old ids stay."""
    from seqlm.training.finetune import finetune_model

    finetune_model(files, start, training)


def infer(
    sampling: config.SampleConfig,
    model_path: Path = BEST_MODEL,
    runtime: config.Runtime = "torch",
    mode: Literal["interactive", "generate", "classify"] = "interactive",
    prompt: str | None = None,
    label: int | None = None,
    n: int = 1,
    output: Path | None = None,
    top: int = 10,
    data_path: str = "-",
    batch_size: int = 256,
    allow_unknown: bool = False,
    json: bool = False,
) -> None:
    """Use a trained model: next tokens, new sequences, classes.

    Args:
        model_path: directory of a trained model, or of an exported one.
        runtime: torch, or onnx for what `seqlm export` wrote.
        mode: interactive (next-token tables), generate (new sequences), classify (rows to JSONL).
        prompt: generate: the tokens to continue, separated by spaces.
        label: generate: draw this class; short for the prompt "<CLS> <CLS_k> <IMG>".
        n: generate: number of sequences.
        output: generate: also write rows to this .jsonl file, or images to this .png file.
        top: interactive: number of next tokens to show.
        data_path: classify: a JSONL file of rows, or - for standard input.
        batch_size: classify: rows per batch.
        allow_unknown: classify: read tokens that the model does not know as <UNK>.
        json: print JSON, one object per line (classify always does).
    """
    from seqlm.deploy import infer

    if mode == "interactive":
        infer.interact(model_path, top, json, runtime)
    elif mode == "generate":
        infer.generate_rows(model_path, prompt, label, n, sampling, output, json, runtime)
    else:
        infer.classify_rows(model_path, data_path, batch_size, runtime, allow_unknown)


def export(
    model_path: Path = BEST_MODEL,
    output_dir: Path = Path("outputs/onnx"),
    format: Literal["onnx", "html"] = "onnx",
    cache: bool = True,
    int8: bool = False,
    data_path: Path | None = None,
    overwrite: bool = False,
    output_file: Path = Path("outputs/model.html"),
    precision: config.Stored = "fp32",
) -> None:
    """Write a trained model for other runtimes: as ONNX, or as one page for a browser.

    Args:
        model_path: directory of a trained language model or classifier.
        output_dir: onnx: folder for the graph and its files; an earlier export is replaced.
        format: onnx, checked against torch; or html, a language model as one file to open anywhere.
        cache: onnx: language models get a key-value cache, so that each token is read once.
        int8: weights in 8 bits.
        data_path: with int8: rows (JSONL) whose val split shows what int8 costs.
        overwrite: replace whatever is in the way; false refuses what is not an export.
        output_file: html: the file to write; an earlier page is replaced.
        precision: html: the weights in fp32, fp16, or int8 with a scale for each row.
    """
    from seqlm.data.corpus import load_corpus
    from seqlm.deploy.export import export_model
    from seqlm.deploy.html_page import export_page
    from seqlm.training.replay import keep_unseen, read_learned
    from seqlm.training.runs import trained_length

    corpus = None
    if data_path is not None:
        files = config.DataFiles(data_path, model_path / "vocab.json")
        corpus = load_corpus(files, trained_length(model_path))
        corpus = keep_unseen(corpus, ["val"], read_learned(model_path), model_path, None)
    if format == "html":
        precision = "int8" if int8 else precision
        print(printable(export_page(model_path, output_file, precision, corpus, overwrite)))
    else:
        print(printable(export_model(model_path, output_dir, cache, int8, corpus, overwrite)))


def serve(settings: config.ServeConfig) -> None:
    """Serve a trained model over HTTP, to many clients at once."""
    with needs_extra("serve"):
        from seqlm.deploy.server import serve_model
    serve_model(settings)


def report(
    profile: Literal["smoke", "laptop", "mnist", "original", "gpu"] = "laptop",
    force: bool = False,
    laboratory: bool = False,
    notebooks_path: Path | None = None,
) -> None:
    """Run the notebooks in order, rebuild every figure, and write the report.

    Args:
        profile: smoke (a quick check), laptop (README's numbers), mnist (images of 28x28),
            original (the first hyperparameters), gpu.
        force: run every notebook, even if nothing changed.
        laboratory: also run the long notebooks, those in notebooks/laboratory.
        notebooks_path: folder of the same notebooks in other words; None: the project's own.
    """
    from seqlm.pipeline import run_pipeline
    from seqlm.report import export_report
    from seqlm.workspace import Workspace

    ws = Workspace(profile)
    run_pipeline(ws, folder=notebooks_path, force=force, laboratory=laboratory)
    for path in export_report(ws):
        print(printable(f"wrote {path}"))


def progress(notebooks_path: Path | None = None) -> None:
    """Show which exercises of the course are done, as the saved notebooks have it.

    Args:
        notebooks_path: folder of the notebooks; None: the project's own.
    """
    from seqlm.exercises.progress import show_progress

    show_progress(notebooks_path)


ORDER = (build, check, train, classify, sizes, evaluate, finetune, infer, export, serve, report)
ORDER += (progress,)
COMMANDS = {command.__name__: command for command in ORDER}
# Defaults of single commands; fine-tuning uses a lower rate and fewer epochs.
DEFAULTS = {
    "classify": {"output_dir": Path("outputs/classifier")},
    "finetune": {"output_dir": Path("outputs/finetuned"), "learning_rate": 2e-5, "num_epochs": 5.0},
    "infer": config.DRAWING,
}
# Their `files` are read with the model's own vocabulary: another's ids would mean other tokens.
WITH_MODEL_VOCABULARY = ("evaluate", "finetune")
# After an interruption the same command continues from its newest checkpoint.
RESUMING = ("train", "classify", "finetune", "report")
