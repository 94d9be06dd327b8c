"""The command line: flags and --config files become the arguments of a function in commands.py.

Every setting is a field of a dataclass in config.py or a parameter of a command, so a flag, a line
of a --config file and a keyword in a notebook are the same thing, checked in one place.
"""

import codecs
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from seqlm.commands import COMMANDS, DEFAULTS, RESUMING, WITH_MODEL_VOCABULARY
from seqlm.config import DataFiles, ModelConfig
from seqlm.errors import DataWarning, PipelineError, SeqlmError, printable

# Words in errors of the system and the libraries, and the sentence for the user.
TROUBLE = (
    (
        "No space left|File too large|quota exceeded|iostream error|StreamWriter|unexpected pos",
        "the disk is full, or a file larger than this system allows ({:.120}); make room and run "
        "the same command again",
    ),
    (
        "out of memory|can't allocate memory|unable to allocate",
        "memory ran out ({:.120}); close other programs, or lower --batch_size and raise "
        "--grad_accumulation by the same factor",
    ),
)


class _Subparser(ArgumentParser):
    def dump(self, cfg, **options):
        """What --print_config prints: with the layers, heads and width that the size stands for."""
        if "size" in cfg:
            for name, value in asdict(_part_of(cfg, ModelConfig)).items():
                cfg[name] = value
        return super().dump(cfg, **options)

    def _load_config_parser_mode(self, content, *rest, **named):
        # To YAML 1.1 042 is 34, and comments alone are no settings.
        content = re.sub(r"(?m)^(\w+\s*:\s*)0+(?=\d+\s*(#.*)?$)", r"\1", content)
        content = content if re.search(r"(?m)^\s*[^\s#]", content) else "{}"
        return super()._load_config_parser_mode(content, *rest, **named)


def build_parser() -> ArgumentParser:
    """The parser of `seqlm`, with a subparser for each command."""
    top = ArgumentParser(
        prog="seqlm",
        version=version("seqlm"),
        description="A small GPT-2 for a laptop: it classifies and generates handwritten digits, "
        "and trains on your own token sequences. Start with `seqlm report`.",
    )
    subparsers = top.add_subcommands(metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        summary = command.__doc__.splitlines()[0]
        sub = _Subparser(description=summary)
        sub.add_argument("--config", action="config", help="YAML file with any of these settings")
        parts = _settings_of(command)
        for kind in parts.values():
            own_vocabulary = kind is DataFiles and name in WITH_MODEL_VOCABULARY
            hidden = {"vocab_path"} if own_vocabulary else set()
            sub.add_class_arguments(kind, as_group=True, skip=hidden)
        sub.add_function_arguments(command, as_group=False, skip=set(parts))
        sub.set_defaults(DEFAULTS.get(name, {}))
        subparsers.add_subcommand(name, sub, help=summary)
    return top


def _settings_of(command) -> dict[str, type]:
    """The parameters of a command that are dataclasses of settings."""
    parameters = signature(command).parameters.values()
    return {p.name: p.annotation for p in parameters if is_dataclass(p.annotation)}


def _part_of(values: dict[str, Any], kind: type) -> Any:
    """The `values` that belong to one dataclass, as that dataclass."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def _arguments(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a command, from the values of its flags."""
    parts = _settings_of(COMMANDS[name])
    for key, value in values.items():  # a shell leaves --model_path=~/x as it is
        if isinstance(value, Path) or key == "data_path" and value is not None:
            values[key] = type(value)(os.path.expanduser(value))
    arguments = {k: values[k] for k in signature(COMMANDS[name]).parameters if k not in parts}
    if name in WITH_MODEL_VOCABULARY:
        own = values | {"vocab_path": values["model_path"] / "vocab.json"}
    for parameter, kind in parts.items():
        with_own = kind is DataFiles and name in WITH_MODEL_VOCABULARY
        arguments[parameter] = _part_of(own if with_own else values, kind)
    return arguments


def _spelled_out(words: Sequence[str]) -> Iterator[str]:
    """A bare `--repair_tail` means `--repair_tail=true`."""
    switches = set()
    for command in COMMANDS.values():
        for kind in _settings_of(command).values():
            switches |= {f"--{f.name}" for f in fields(kind) if f.type in (bool, bool | None)}
        parameters = signature(command).parameters.values()
        switches |= {f"--{p.name}" for p in parameters if p.annotation is bool}
    for word, after in zip(words, [*words, ""][1:], strict=True):
        bare = word in switches and after.lower() not in ("true", "false")
        yield f"{word}=true" if bare else word


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    # A warning about the user's data is for the user; where in our code it arose is not.
    prefix = "warning" if issubclass(category, DataWarning) else category.__name__
    print(printable(f"{prefix}: {message}"), file=sys.stderr)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 for what the user can fix, 1 for a failed notebook or check.

    130 after Ctrl-C and 141 when the reader of a pipe has left: 128 + the signal's number.
    """
    codecs.register_error("escape", lambda e: (json.dumps(e.object[e.start : e.end])[1:-1], e.end))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what an ASCII or Latin-1 stream cannot hold
            stream.reconfigure(errors="escape")
    words = [*_spelled_out(sys.argv[1:] if words is None else words)]
    try:
        parsed = build_parser().parse_args(words)
    except UnicodeDecodeError as error:
        wrong = f"the file of --config is not UTF-8 ({error.reason}); save it as UTF-8"
        print(f"seqlm: {wrong}", file=sys.stderr)
        return 2
    name = parsed.subcommand
    warnings.showwarning = _show_warning
    try:
        code = COMMANDS[name](**_arguments(name, parsed[name].as_dict()))
        sys.stdout.flush()  # so that a closed pipe shows here, not when Python ends
    except (SeqlmError, PipelineError) as error:
        print(printable(f"seqlm {name}: {error}"), file=sys.stderr)
        return 1 if isinstance(error, PipelineError) else 2
    except KeyboardInterrupt:
        after = "; run the same command again to continue from the newest checkpoint, if any"
        print(f"\nstopped{after if name in RESUMING else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # As in `seqlm infer … | head -1`. What is still in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # torch and safetensors have types of their own for a full disk
        for words, sentence in TROUBLE:
            if re.search(words, str(error), re.IGNORECASE):
                wrong = printable(f"seqlm {name}: {sentence.format(str(error))}")
                print(wrong, file=sys.stderr)
                return 2
        raise
    return code or 0
