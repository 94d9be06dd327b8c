"""The command line: `seqlm <command>`.

Every flag is a field of a dataclass in config.py or options.py, so a flag, a line of a --config
file and a keyword in a notebook are one and the same thing, checked in one place.
"""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from seqlm.config import (
    DataConfig,
    DataFiles,
    ModelConfig,
    SampleConfig,
    TrainConfig,
)
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
    from seqlm.dataset import build_dataset

    options, config = _take(BuildOptions, given), _take(DataConfig, given)
    about = build_dataset(config, options.output_dir)
    print(f"{about['sentences']:,} sentences of {about['images']} images in {options.output_dir}/")


def train(given: dict) -> None:
    """Train a language model from scratch on your own sequences, measure it, write a report."""
    from seqlm.runs import train_language_model

    _tell_overridden(given)
    train_language_model(
        _take(DataFiles, given), _take(ModelConfig, given), _take(TrainConfig, given)
    )


def classify(given: dict) -> None:
    """Train a classifier on your own labelled sequences, measure it, write a report."""
    from seqlm.runs import train_sequence_classifier

    start_from, size = _take(ClassifyOptions, given).start_from, _take(SizeOptions, given).size
    if start_from is not None and size is not None:
        raise ConfigError(
            f"size: a classifier that starts from {start_from} has that model's own size; leave "
            "out either --size or --start_from"
        )
    _tell_overridden(given)
    train_sequence_classifier(
        _take(DataFiles, given),
        _take(ModelConfig, given),
        _take(TrainConfig, given),
        start_from,
    )


def sizes(given: dict) -> None:
    """Time the three sizes on this machine, before you choose one to train."""
    from seqlm.sizes import show_sizes

    show_sizes(_take(SizesOptions, given))


def _tell_overridden(given: dict) -> None:
    """A size keeps its name when a setting of its own is another; say which, before it trains."""
    preset = SIZES.get(_take(SizeOptions, given).size, {})
    other = [f"{name} {given[name]}" for name, value in preset.items() if given[name] != value]
    if other:
        print(f"size {given['size']}, but with {', '.join(other)} as asked for", file=sys.stderr)


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


def finetune(given: dict) -> None:
    """Go on training a saved model on other data; new tokens are appended, old ids stay."""
    from seqlm.finetuning import finetune_model

    options = _take(FinetuneOptions, given)
    files = _take(DataFiles, {**given, "vocab_path": options.model_path / "vocab.json"})
    finetune_model(files, options, _take(TrainConfig, given))


def infer(given: dict) -> None:
    """Ask a trained model: next tokens, new sentences, classes."""
    from seqlm.inference import classify_rows, interact, write_sentences

    options = _take(InferOptions, given)
    if options.mode == "interactive":
        interact(options.model_path, options.top, options.json, options.runtime)
    elif options.mode == "generate":
        write_sentences(
            options.model_path,
            options.prompt,
            options.label,
            options.n,
            _take(SampleConfig, given),
            options.output,
            options.json,
            options.runtime,
        )
    else:
        classify_rows(options.model_path, options.data_path, options.batch_size, options.runtime)


def export(given: dict) -> None:
    """Write a trained model as ONNX, checked against torch, for other runtimes."""
    from seqlm.corpus import load_corpus
    from seqlm.exporting import export_model
    from seqlm.runs import fitting

    options, corpus = _take(ExportOptions, given), None
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
        from seqlm.serving import serve_model
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serving needs the package {error.name}, which is not installed; install seqlm with "
            'its extra: pip install -e ".[serve]"'
        ) from error
    serve_model(_take(ServeOptions, given))


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

    `skip` names fields that are no flags, as "DataFiles.vocab_path". `resumes` says that, once
    interrupted, the same command goes on from its newest checkpoint.
    """

    run: Callable[[dict], None]
    options: tuple[type, ...]
    defaults: dict = field(default_factory=dict)
    skip: frozenset[str] = frozenset()
    resumes: bool = False


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


class _Help(DefaultHelpFormatter):
    """jsonargparse's help, with `Path` where it would say `<class 'Path'>`."""

    def _expand_help(self, action):
        return super()._expand_help(action).replace("<class 'Path'>", "Path")


def parser(size: str | None = None) -> ArgumentParser:
    """The parser of `seqlm`, with a subparser a command; a `size` sets other defaults."""
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
            of_this = f"{options.__name__}."
            hidden = {n.removeprefix(of_this) for n in command.skip if n.startswith(of_this)}
            sub.add_class_arguments(options, as_group=True, skip=hidden)
        preset = SIZES.get(size, {}) if SizeOptions in command.options else {}
        sub.set_defaults(command.defaults | preset)
        commands.add_subcommand(name, sub, help=what)
    return top


def _parsed(words: Sequence[str]):
    """What was asked. As the defaults a size sets, its settings give way to every flag and line."""
    size = _size_in(words)
    asked = parser(size).parse_args(words)
    found = asked[asked.subcommand].get("size")
    return asked if found == size else parser(found).parse_args(words)


def _size_in(words: Sequence[str]) -> str | None:
    """The size that flags or --config files ask for; --print_config ends parsing before it is told.

    What cannot be read here is left to the parser, which says what is wrong with it.
    """
    size = None
    parts = [part for word in words for part in word.split("=", 1)]
    for flag, value in zip(parts, parts[1:], strict=False):
        if flag == "--size":
            size = value
        elif flag == "--config":
            with suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
                held = yaml.safe_load(Path(value).read_text(encoding="utf-8"))
                size = held.get("size", size) if isinstance(held, dict) else size
    return size if isinstance(size, str) and size in SIZES else None


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """A bare `--repair_tail` means `--repair_tail=true`."""
    options = {option for command in COMMANDS.values() for option in command.options}
    switches = {
        f"--{f.name}" for option in options for f in fields(option) if f.type in (bool, bool | None)
    }
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
    asked = _parsed(_spelled_out(sys.argv[1:] if arguments is None else arguments))
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
