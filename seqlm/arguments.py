"""Flags and --config files: every one of them is a field of a dataclass in config.py or options.py.

So a flag, a line of a --config file and a keyword in a notebook are one and the same thing, checked
in one place.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from seqlm.options import SIZES, SizeOptions


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


Commands = Mapping[str, Command]


class _Help(DefaultHelpFormatter):
    """jsonargparse's help, with `Path` where it would say `<class 'Path'>`."""

    def _expand_help(self, action):
        return super()._expand_help(action).replace("<class 'Path'>", "Path")


def parser(commands: Commands, size: str | None = None) -> ArgumentParser:
    """The parser of `seqlm`, with a subparser a command; a `size` sets other defaults."""
    top = ArgumentParser(
        prog="seqlm",
        version=version("seqlm"),
        description="A laptop-sized GPT that you can see: it reads and draws handwritten digits, "
        "and learns from any token sequences you bring. Start with `seqlm report`.",
    )
    named = top.add_subcommands(metavar="COMMAND", title="commands")
    for name, command in commands.items():
        what = command.run.__doc__
        sub = ArgumentParser(description=what, formatter_class=_Help)
        sub.add_argument("--config", action="config", help="YAML file with any of these settings")
        for options in command.options:
            of_this = f"{options.__name__}."
            hidden = {n.removeprefix(of_this) for n in command.skip if n.startswith(of_this)}
            sub.add_class_arguments(options, as_group=True, skip=hidden)
        preset = SIZES.get(size, {}) if SizeOptions in command.options else {}
        sub.set_defaults(command.defaults | preset)
        named.add_subcommand(name, sub, help=what)
    return top


def parsed(commands: Commands, arguments: Sequence[str]) -> tuple[str, dict]:
    """The subcommand that was asked for, and all its settings.

    What a size sets are defaults, so its settings give way to every flag and line.
    """
    words = _spelled_out(commands, arguments)
    size = _size_in(words)
    asked = parser(commands, size).parse_args(words)
    found = asked[asked.subcommand].get("size")
    if found != size:
        asked = parser(commands, found).parse_args(words)
    return asked.subcommand, asked[asked.subcommand].as_dict()


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


def _spelled_out(commands: Commands, arguments: Sequence[str]) -> list[str]:
    """A bare `--repair_tail` means `--repair_tail=true`."""
    options = {option for command in commands.values() for option in command.options}
    switches = {
        f"--{f.name}" for option in options for f in fields(option) if f.type in (bool, bool | None)
    }
    # The flag's name before it was called what everyone calls it; scripts that use it still work.
    arguments = ["--baselines" + a[8:] if a.split("=")[0] == "--floors" else a for a in arguments]
    following = [*arguments, ""][1:]
    return [
        f"{word}=true" if word in switches and after.lower() not in ("true", "false") else word
        for word, after in zip(arguments, following, strict=True)
    ]


def take(kind: type, given: dict):
    """The part of `given` that belongs to one dataclass, as that dataclass."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})
