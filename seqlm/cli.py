"""The command line: `seqlm <command>`, a function each."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from seqlm.arguments import Command, parsed, take
from seqlm.config import DataConfig, DataFiles, ModelConfig, SampleConfig, TrainConfig
from seqlm.errors import ConfigError, DataWarning, PipelineError, SeqlmError
from seqlm.options import (
    DRAWING,
    GENTLY,
    SIZES,
    BuildOptions,
    ClassifyOptions,
    EvaluateOptions,
    ExportOptions,
    FinetuneOptions,
    InferOptions,
    ReportOptions,
    ServeOptions,
    SizeOptions,
    SizesOptions,
)


def build(given: dict) -> None:
    """Turn handwritten digits into sentences: data set, vocabulary and code book."""
    from seqlm.data.build import build_dataset

    options, config = take(BuildOptions, given), take(DataConfig, given)
    about = build_dataset(config, options.output_dir)
    print(f"{about['sentences']:,} sentences of {about['images']} images in {options.output_dir}/")


def train(given: dict) -> None:
    """Train a language model from scratch on your own sequences, measure it, write a report."""
    from seqlm.training.runs import train_language_model

    _tell_overridden(given)
    train_language_model(take(DataFiles, given), take(ModelConfig, given), take(TrainConfig, given))


def classify(given: dict) -> None:
    """Train a classifier on your own labelled sequences, measure it, write a report."""
    from seqlm.training.runs import train_sequence_classifier

    start_from, size = take(ClassifyOptions, given).start_from, take(SizeOptions, given).size
    if start_from is not None and size is not None:
        raise ConfigError(
            f"size: a classifier that starts from {start_from} has that model's own size; leave "
            "out either --size or --start_from"
        )
    _tell_overridden(given)
    train_sequence_classifier(
        take(DataFiles, given),
        take(ModelConfig, given),
        take(TrainConfig, given),
        start_from,
    )


def sizes(given: dict) -> None:
    """Time the three sizes on this machine, before you choose one to train."""
    from seqlm.training.sizes import show_sizes

    show_sizes(take(SizesOptions, given))


def _tell_overridden(given: dict) -> None:
    """A size keeps its name when a setting of its own is another; say which, before it trains."""
    preset = SIZES.get(take(SizeOptions, given).size, {})
    other = [f"{name} {given[name]}" for name, value in preset.items() if given[name] != value]
    if other:
        print(f"size {given['size']}, but with {', '.join(other)} as asked for", file=sys.stderr)


def evaluate(given: dict) -> None:
    """Measure a trained language model: perplexity with intervals, beside the baselines."""
    from seqlm.training.runs import evaluate_model

    options = take(EvaluateOptions, given)
    # The model's own: with another vocabulary its ids would mean other tokens.
    given = {**given, "vocab_path": options.model_path / "vocab.json"}
    evaluate_model(
        take(DataFiles, given),
        options.model_path,
        split=options.split,
        baselines=options.baselines,
        as_json=options.json,
        max_length=options.max_length,
    )


def finetune(given: dict) -> None:
    """Go on training a saved model on other data; new tokens are appended, old ids stay."""
    from seqlm.training.finetune import finetune_model

    options = take(FinetuneOptions, given)
    files = take(DataFiles, {**given, "vocab_path": options.model_path / "vocab.json"})
    finetune_model(files, options, take(TrainConfig, given))


def infer(given: dict) -> None:
    """Ask a trained model: next tokens, new sentences, classes."""
    from seqlm.deploy.infer import classify_rows, generate_rows, interact

    options = take(InferOptions, given)
    if options.mode == "interactive":
        interact(options.model_path, options.top, options.json, options.runtime)
    elif options.mode == "generate":
        generate_rows(
            options.model_path,
            options.prompt,
            options.label,
            options.n,
            take(SampleConfig, given),
            options.output,
            options.json,
            options.runtime,
        )
    else:
        classify_rows(options.model_path, options.data_path, options.batch_size, options.runtime)


def export(given: dict) -> None:
    """Write a trained model as ONNX, checked against torch, for other runtimes."""
    from seqlm.data.corpus import load_corpus
    from seqlm.deploy.export import export_model
    from seqlm.training.runs import fitting

    options, corpus = take(ExportOptions, given), None
    if options.data_path is not None:
        files = DataFiles(options.data_path, options.model_path / "vocab.json")
        corpus = load_corpus(files, fitting(options.model_path))
    print(
        export_model(
            options.model_path,
            options.output_dir,
            options.format,
            options.cache,
            options.int8,
            corpus,
        )
    )


def serve(given: dict) -> None:
    """Answer over HTTP what infer answers at the terminal, for many at once."""
    try:
        from seqlm.deploy.server import serve_model
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serving needs the package {error.name}, which is not installed; install seqlm with "
            'its extra: pip install -e ".[serve]"'
        ) from error
    serve_model(take(ServeOptions, given))


def report(given: dict) -> None:
    """Run the notebooks in order, rebuild every figure, and write the report."""
    from seqlm.pipeline import run_pipeline
    from seqlm.report import build_report
    from seqlm.workspace import Workspace

    options = take(ReportOptions, given)
    ws = Workspace(options.profile)
    run_pipeline(ws, force=options.force, laboratory=options.laboratory)
    for path in build_report(ws).values():
        print(f"wrote {path}")


COMMANDS = {
    "build": Command(build, (BuildOptions, DataConfig)),
    "train": Command(train, (DataFiles, SizeOptions, ModelConfig, TrainConfig), resumes=True),
    "classify": Command(
        classify,
        (DataFiles, ClassifyOptions, SizeOptions, ModelConfig, TrainConfig),
        {"output_dir": Path("outputs/classifier")},
        resumes=True,
    ),
    "sizes": Command(sizes, (SizesOptions,)),
    "evaluate": Command(
        evaluate, (EvaluateOptions, DataFiles), skip=frozenset({"DataFiles.vocab_path"})
    ),
    "finetune": Command(
        finetune,
        (FinetuneOptions, DataFiles, TrainConfig),
        GENTLY,
        skip=frozenset({"DataFiles.vocab_path"}),
        resumes=True,
    ),
    "infer": Command(infer, (InferOptions, SampleConfig), DRAWING),
    "export": Command(export, (ExportOptions,)),
    "serve": Command(serve, (ServeOptions,)),
    "report": Command(report, (ReportOptions,), resumes=True),
}


def _warn_plainly(message, category, filename, lineno, file=None, line=None) -> None:
    # A warning about the user's data is for the user; where in our code it arose is not.
    prefix = "warning" if issubclass(category, DataWarning) else category.__name__
    print(f"{prefix}: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 for what the user can fix, 1 for a notebook that failed.

    130 after Ctrl-C and 141 when the reader of a pipe has left: 128 + the signal's number.
    """
    name, given = parsed(COMMANDS, sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS[name]
    warnings.showwarning = _warn_plainly
    try:
        command.run(given)
        sys.stdout.flush()  # so that a closed pipe shows here, not when Python ends
    except SeqlmError as error:
        print(f"seqlm {name}: {error}", file=sys.stderr)
        return 2
    except PipelineError as error:
        print(f"seqlm {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        after = (
            "; the same command goes on from its newest checkpoint, if any"
            if command.resumes
            else ""
        )
        print(f"\nstopped{after}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # As in `seqlm infer … | head -1`. What is still in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0
