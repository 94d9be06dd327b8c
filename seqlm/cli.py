"""The command line: `seqlm <command>`.

Every flag is a field of a dataclass in config.py, so a flag, a line of a --config file and a
keyword in a notebook are one and the same thing, checked in one place.
"""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from seqlm.config import (
    DataConfig,
    DataFiles,
    ModelConfig,
    SampleConfig,
    TrainConfig,
)
from seqlm.errors import DataWarning, PipelineError, SeqlmError


@dataclass(frozen=True)
class BuildOptions:
    """Where the data set goes.

    Attributes:
        output_dir: folder for sequences.jsonl, vocab.json, codebook.npz and images.npz.
    """

    output_dir: Path = Path("data/digits")


@dataclass(frozen=True)
class ClassifyOptions:
    """What a classifier starts from.

    Attributes:
        start_from: directory of a trained language model; without it, random weights.
    """

    start_from: Path | None = None


@dataclass(frozen=True)
class EvaluateOptions:
    """What to measure.

    Attributes:
        model_path: directory of a trained language model.
        split: which rows to measure.
        floors: also measure what a model must beat, fitted on the train rows.
        json: print JSON instead of a table.
        max_length: longer rows lose codes from the left.
    """

    model_path: Path = Path("outputs/best_model")
    split: Literal["val", "test"] = "test"
    floors: bool = True
    json: bool = False
    max_length: int = 1024


@dataclass(frozen=True)
class InferOptions:
    """What to ask a trained model.

    Attributes:
        model_path: directory of a trained model.
        mode: interactive (next-token tables), generate (new sentences), classify (rows to JSONL).
        prompt: generate: the tokens to go on from, separated by spaces.
        label: generate: draw this class; stands for the prompt "<CLS> <CLS_k> <IMG>".
        n: generate: how many sentences.
        top: interactive: how many next tokens to show.
        data_path: classify: a JSONL file of rows, or - for standard input.
    """

    model_path: Path = Path("outputs/best_model")
    mode: Literal["interactive", "generate", "classify"] = "interactive"
    prompt: str | None = None
    label: int | None = None
    n: int = 1
    top: int = 10
    data_path: str = "-"


@dataclass(frozen=True)
class ReportOptions:
    """Which notebooks to run, and how large.

    Attributes:
        profile: smoke (a minute or two), laptop (what README shows), original (the user's
            hyperparameters), gpu.
        force: run every notebook, also where nothing changed.
        laboratory: also run the long notebooks: rivals, few labels, two recipes.
    """

    profile: Literal["smoke", "laptop", "original", "gpu"] = "laptop"
    force: bool = False
    laboratory: bool = False


def build(given: dict) -> None:
    """Turn handwritten digits into sentences: data set, vocabulary and code book."""
    from seqlm.dataset import build_dataset

    options, config = _take(BuildOptions, given), _take(DataConfig, given)
    about = build_dataset(config, options.output_dir)
    print(f"{about['sentences']:,} sentences of {about['images']} images in {options.output_dir}/")


def train(given: dict) -> None:
    """Train a language model from scratch on your own sequences, measure it, write a report."""
    from seqlm.runs import train_language_model

    train_language_model(
        _take(DataFiles, given), _take(ModelConfig, given), _take(TrainConfig, given)
    )


def classify(given: dict) -> None:
    """Train a classifier on your own labelled sequences, measure it, write a report."""
    from seqlm.runs import train_sequence_classifier

    train_sequence_classifier(
        _take(DataFiles, given),
        _take(ModelConfig, given),
        _take(TrainConfig, given),
        _take(ClassifyOptions, given).start_from,
    )


def evaluate(given: dict) -> None:
    """Measure a trained language model: perplexity with intervals, beside the floors."""
    from seqlm.runs import evaluate_model

    options = _take(EvaluateOptions, given)
    # The model's own: with another vocabulary its ids would mean other tokens.
    given = {**given, "vocab_path": options.model_path / "vocab.json"}
    evaluate_model(
        _take(DataFiles, given),
        options.model_path,
        split=options.split,
        floors=options.floors,
        as_json=options.json,
        max_length=options.max_length,
    )


def infer(given: dict) -> None:
    """Ask a trained model: next tokens, new sentences, classes."""
    from seqlm.inference import classify_rows, interact, write_sentences

    options = _take(InferOptions, given)
    if options.mode == "interactive":
        interact(options.model_path, options.top)
    elif options.mode == "generate":
        sampling = _take(SampleConfig, given)
        write_sentences(options.model_path, options.prompt, options.label, options.n, sampling)
    else:
        classify_rows(options.model_path, options.data_path)


def report(given: dict) -> None:
    """Run the notebooks in order, rebuild every figure, and write the report."""
    from seqlm.pipeline import run_pipeline
    from seqlm.report import build_report
    from seqlm.workspace import Workspace

    options = _take(ReportOptions, given)
    ws = Workspace(options.profile)
    run_pipeline(ws, force=options.force, laboratory=options.laboratory)
    for path in build_report(ws).values():
        print(f"wrote {path}")


@dataclass(frozen=True)
class Command:
    """A subcommand: the function it runs and the dataclasses whose fields are its flags.

    `resumes` says that, once interrupted, the same command goes on from its newest checkpoint.
    """

    run: Callable[[dict], None]
    options: tuple[type, ...]
    defaults: dict = field(default_factory=dict)
    skip: frozenset[str] = frozenset()
    resumes: bool = False


COMMANDS = {
    "build": Command(build, (BuildOptions, DataConfig)),
    "train": Command(train, (DataFiles, ModelConfig, TrainConfig), resumes=True),
    "classify": Command(
        classify,
        (DataFiles, ClassifyOptions, ModelConfig, TrainConfig),
        {"output_dir": Path("outputs/classifier")},
        resumes=True,
    ),
    "evaluate": Command(evaluate, (EvaluateOptions, DataFiles), skip=frozenset({"vocab_path"})),
    # Drawings as in README and notebook 6, which weighed them (docs/experiments.md); SampleConfig's
    # own defaults are the model itself.
    "infer": Command(
        infer,
        (InferOptions, SampleConfig),
        {"temperature": 0.9, "top_p": 0.95, "guidance": 1.5},
    ),
    "report": Command(report, (ReportOptions,), resumes=True),
}


class _Help(DefaultHelpFormatter):
    """jsonargparse's help, with `Path` where it would say `<class 'Path'>`."""

    def _expand_help(self, action):
        return super()._expand_help(action).replace("<class 'Path'>", "Path")


def parser() -> ArgumentParser:
    """The parser of `seqlm`, with a subparser a command."""
    top = ArgumentParser(
        prog="seqlm",
        description="A laptop-sized GPT that you can see: it reads and draws handwritten digits, "
        "and learns from any token sequences you bring. Start with `seqlm report`.",
    )
    commands = top.add_subcommands(metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        what = command.run.__doc__
        sub = ArgumentParser(description=what, formatter_class=_Help)
        sub.add_argument("--config", action="config", help="YAML file with any of these settings")
        for options in command.options:
            sub.add_class_arguments(options, as_group=True, skip=command.skip)
        sub.set_defaults(command.defaults)
        commands.add_subcommand(name, sub, help=what)
    return top


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """A bare `--repair_tail` means `--repair_tail=true`."""
    options = {option for command in COMMANDS.values() for option in command.options}
    switches = {f"--{f.name}" for option in options for f in fields(option) if f.type is bool}
    following = [*arguments, ""][1:]
    return [
        f"{word}=true" if word in switches and after.lower() not in ("true", "false") else word
        for word, after in zip(arguments, following, strict=True)
    ]


def _take(kind: type, given: dict):
    """The part of `given` that belongs to one dataclass, as that dataclass."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})


def _warn_plainly(message, category, filename, lineno, file=None, line=None) -> None:
    # A warning about the user's data is for the user; where in our code it arose is not.
    prefix = "warning" if issubclass(category, DataWarning) else category.__name__
    print(f"{prefix}: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 for what the user can mend, 1 for a notebook that failed.

    130 after Ctrl-C and 141 when the reader of a pipe has left: 128 + the signal's number.
    """
    asked = parser().parse_args(_spelled_out(sys.argv[1:] if arguments is None else arguments))
    command = COMMANDS[asked.subcommand]
    given = asked[asked.subcommand].as_dict()
    warnings.showwarning = _warn_plainly
    try:
        command.run(given)
        sys.stdout.flush()  # so that a closed pipe shows here, not when Python ends
    except SeqlmError as error:
        print(f"seqlm {asked.subcommand}: {error}", file=sys.stderr)
        return 2
    except PipelineError as error:
        print(f"seqlm {asked.subcommand}: {error}", file=sys.stderr)
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
