"""`seqlm infer`: next tokens, generated rows and classes at the terminal, also in pipes."""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from seqlm.atomic import atomic_path
from seqlm.config import Runtime, SampleConfig
from seqlm.data.arrow import read_table
from seqlm.data.build import CODEBOOK
from seqlm.data.codebook import PatchCodebook
from seqlm.data.records import Record, as_line, write_records
from seqlm.data.tokenizer import encode_tokens, load_tokenizer, vocabulary_of
from seqlm.data.tokens import (
    UNK,
    class_ids,
    class_of,
    class_token,
    codes_of,
    drawing_prompt,
    reading_prompt,
    shorten,
)
from seqlm.deploy.onnx_model import load_onnx
from seqlm.errors import ConfigError, DataError, DataWarning, error_prefix, printable
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import generate_sentences, next_token_table, token_ids
from seqlm.models.gpt2 import is_classifier, load_model
from seqlm.ownership import check_output

_SHADES = " ░▒▓█"
BAR = 30
TAIL = 2  # <CLS_k> <EOS>: what a whole row has after the prompt


def _load(directory: Path, runtime: Runtime):
    return (load_onnx if runtime == "onnx" else load_model)(directory)


def _load_lm(directory: Path, runtime: Runtime):
    model = _load(directory, runtime)
    if is_classifier(model.config):
        raise DataError(f"{directory}: holds a classifier, not a language model")
    return model


def interact(
    directory: Path, top: int = 10, as_json: bool = False, runtime: Runtime = "torch"
) -> None:
    """Read prefixes line by line; print the next tokens and their probabilities after each.

    At a terminal it prompts, with history (arrow keys) and completion of tokens (tab); it ends at
    `quit` or end of input. `as_json` prints an object per line:
    {"prefix", "next": [{"token", "id", "probability"}]}.
    """
    if top < 1:
        raise ConfigError(f"top: must be at least 1, got {top}")
    tokenizer, model = load_tokenizer(directory), _load_lm(directory, runtime)
    vocab = vocabulary_of(tokenizer)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        _set_up_readline(vocab)
        print("Tokens, separated by spaces, for example: <CLS> <CLS_3> <IMG>")
        print("Tab completes a token, the arrow keys recall earlier lines, quit ends.")
    for line in _lines(at_terminal):
        tokens = line.split()
        try:
            table = next_token_table(model, tokenizer, token_ids(tokens, vocab), top)
        except DataError as error:
            print(printable(error), file=sys.stderr)
            continue
        if as_json:
            print(json.dumps({"prefix": " ".join(tokens), "next": [asdict(row) for row in table]}))
            continue
        for row in table:
            bar = "█" * round(row.probability * BAR)
            print(f"{printable(row.token):>10}  {row.probability:7.2%}  {bar}")


def _set_up_readline(vocab: dict[str, int]) -> None:
    """History and completion for `input`, where the system has readline."""
    try:
        import readline
    except ImportError:  # Windows
        return
    readline.set_completer_delims(" ")
    readline.set_completer(lambda start, index: complete_token(start, vocab, index))
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")


def complete_token(start: str, vocab: dict[str, int], index: int) -> str | None:
    """The `index`-th token that begins with `start`, in the order of ids; None after the last.

    ``<`` need not be typed: ``CLS_3`` is completed to ``<CLS_3>``.
    """
    matches = [token for token in vocab if token.startswith((start, f"<{start}"))]
    return matches[index] + " " if index < len(matches) else None


def _lines(at_terminal: bool) -> Iterator[str]:
    while True:
        try:
            line = input("> " if at_terminal else "").strip()
        except EOFError:
            if at_terminal:
                print()
            return
        if line in ("quit", "exit"):
            return
        if line:
            yield line


def generate_rows(
    directory: Path,
    prompt: str | None,
    label: int | None,
    n: int,
    config: SampleConfig,
    output: Path | None = None,
    as_json: bool = False,
    runtime: Runtime = "torch",
    overwrite: bool = False,
) -> None:
    """Print `n` continuations of `prompt`, or `n` drawings of `label`; at a terminal also images.

    `as_json` prints rows of the data contract. `output` also writes them to a file: rows to
    .jsonl, one grid of all images to .png. Raises ConfigError when both prompt and label or
    neither are set, for an output of another kind, and for one that is there already, unless
    `overwrite` is set.
    """
    if output is not None:
        if output.suffix not in (".jsonl", ".png"):
            raise ConfigError(f"output: {output} should end in .jsonl (rows) or .png (pictures)")
        check_output(output.parent, [output.name], overwrite)
    if (prompt is None) == (label is None):
        raise ConfigError("give either --prompt with tokens, or --label with a class to draw")
    if n < 1:
        raise ConfigError(f"n: must be at least 1, got {n}")
    vocab, model = vocabulary_of(load_tokenizer(directory)), _load_lm(directory, runtime)
    if label is not None and class_token(label) not in vocab:
        known = len(class_ids(vocab))
        classes = f"its classes are 0 to {known - 1}" if known else "it knows no classes"
        raise ConfigError(f"label: this model has no {class_token(label)}; {classes}")
    tokens = drawing_prompt(label) if prompt is None else prompt.split()
    settings = {"model": directory.name, **asdict(config)}
    rows = [
        Record(tuple(sentence), _class_in(sentence), {**settings, "number": number})
        for number, sentence in enumerate(generate_sentences(model, vocab, [tokens] * n, config))
    ]
    if output is not None:
        _write_output(directory, rows, output)
    shown = sys.stdout.isatty() and not as_json
    images = _images(directory, rows) if shown else [None] * n
    for row, image in zip(rows, images, strict=True):
        text = " ".join(row.tokens)
        print(as_line(row) if as_json else printable(text) if shown else text)
        if image is not None:
            print(_in_blocks(image))


def _class_in(tokens: Sequence[str]) -> int | None:
    """The only class that a sentence names; None where it names none or several."""
    classes = {class_of(token) for token in tokens} - {None}
    return classes.pop() if len(classes) == 1 else None


def _write_output(directory: Path, rows: list[Record], output: Path) -> None:
    """Rows as JSON lines, or their images as one grid."""
    if output.suffix == ".jsonl":
        write_records(output, rows)
        return
    images = _images(directory, rows)
    missing = sum(image is None for image in images)
    if missing:
        raise ConfigError(
            f"output: {output} cannot be drawn: {missing} of {len(rows)} sequences have no "
            "complete image, or the model directory has no codebook; write .jsonl instead"
        )
    from seqlm.plots.images import plot_images
    from seqlm.plots.style import as_png

    titles = [f"{row.meta['number'] + 1}" for row in rows]
    figure = plot_images(np.stack(images), titles, heading=f"Drawn by {directory.name}")
    with atomic_path(output) as aside:
        aside.write_bytes(as_png(figure))


def _images(directory: Path, rows: list[Record]) -> list[np.ndarray | None]:
    """The image (H, W) of each row; None where it holds no whole one, or there is no codebook."""
    path, images = directory / CODEBOOK, [None] * len(rows)
    if path.is_file():
        book = PatchCodebook.load(path)
        for i, row in enumerate(rows):
            with suppress(DataError, IndexError):
                images[i] = book.decode(codes_of(row.tokens)[None])[0]
    return images


def _in_blocks(image: np.ndarray) -> str:
    shades = (image.clip(0, 1) * (len(_SHADES) - 1)).round().astype(int)
    return "\n".join("".join(_SHADES[shade] * 2 for shade in row) for row in shades)


def classify_rows(
    directory: Path,
    data_path: str,
    batch_size: int = 256,
    runtime: Runtime = "torch",
    allow_unknown: bool = False,
) -> None:
    """Read rows of the data contract, print a JSON object per row: class and probabilities.

    A classifier is asked directly; a language model's class is the most likely next token after
    ``<CLS>`` among the classes. A row's own class is never shown to either. Long rows lose codes
    from the left, as in training; standard error says how many did. `batch_size` rows are
    answered at a time; the answers do not depend on it.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: must be at least 1, got {batch_size}")
    model = _load(directory, runtime)
    tokenizer = load_tokenizer(directory)
    vocab = vocabulary_of(tokenizer)
    # Rows may well lack their class.
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        records = [*read_table(data_path, vocab, allow_unknown=allow_unknown)]
    unknown = sum(UNK in record.tokens for record in records)
    if unknown:
        said = f"{unknown} of {len(records)} rows hold {UNK}, for tokens the model does not know"
        print(f"{printable(data_path)}: {said}", file=sys.stderr)
    # Tokenizers that were never told how long a row may be say 1e30.
    limit = min(model.config.n_positions, tokenizer.model_max_length)
    prompts = [encode_tokens(row, vocab) for row in _prompts(records, data_path, limit)]
    for start in range(0, len(records), batch_size):
        batch = slice(start, start + batch_size)
        probabilities = class_probabilities(model, prompts[batch], class_ids(vocab))
        for record, row in zip(records[batch], probabilities, strict=True):
            answer = {
                "line": record.line,
                "predicted": int(row.argmax()),
                "label": record.label,
                "probabilities": [round(float(p), 6) for p in row],
            }
            print(json.dumps(answer))


def _prompts(records: list[Record], data_path: str, limit: int) -> list[tuple[str, ...]]:
    """The tokens of each row up to ``<CLS>``, cut as a whole row of `limit` tokens would be.

    Training cuts whole rows, class and ``<EOS>`` included. So a row gets the same answer with and
    without its class, and the same as in the evaluation.
    """
    prompts, n_cut = [], 0
    for record in records:
        with error_prefix(f"{data_path}:{record.line}: tokens"):
            whole = reading_prompt(record.tokens)
            try:
                prompts.append(shorten(whole, limit - TAIL))
            except DataError as error:
                raise DataError(
                    f"the model reads at most {limit} tokens per row, too few to keep even one "
                    "code of this one; train a model with a larger max_length"
                ) from error
        n_cut += len(prompts[-1]) < len(whole)
    if n_cut:
        print(
            f"{printable(data_path)}: {n_cut} of {len(records)} rows lost codes from the left, "
            f"because the model reads at most {limit} tokens per row",
            file=sys.stderr,
        )
    return prompts
