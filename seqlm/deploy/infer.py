"""`seqlm infer`: a trained model at the terminal, in pipes too."""

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from transformers import GPT2Config

from seqlm.config import Runtime, SampleConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.codebook import PatchCodebook
from seqlm.data.records import Record, as_line, read_records, write_records
from seqlm.data.tokenizer import encode_tokens, load_tokenizer, vocabulary_of
from seqlm.data.tokens import (
    class_ids,
    class_of,
    class_token,
    codes_of,
    drawing_prompt,
    reading_prompt,
    shorten,
)
from seqlm.deploy.onnx_model import is_classifier, load_onnx, load_onnx_lm, onnx_config
from seqlm.errors import ConfigError, DataError, DataWarning
from seqlm.evaluation.scores import class_probabilities, classifier_probabilities
from seqlm.models.generation import generate_sentences, next_token_table
from seqlm.models.gpt2 import check_model_directory, load_classifier, load_lm
from seqlm.utils import atomic_path, check_folder

_SHADES = " ░▒▓█"
BAR = 30
TAIL = 2  # <CLS_k> <EOS>: what a whole row has after the prompt


def interact(
    directory: Path, top: int = 10, as_json: bool = False, runtime: Runtime = "torch"
) -> None:
    """Read prefixes, line by line; print the next tokens and their probabilities after each.

    Asks with a prompt only when a person is at the terminal, who then has a history (arrow keys)
    and completion of tokens (tab); ends at `quit` or end of input. `as_json` prints an object a
    line: {"prefix", "next": [{"token", "id", "probability"}]}.
    """
    if top < 1:
        raise ConfigError(f"top: must be at least 1, got {top}")
    tokenizer, model = load_tokenizer(directory), _language_model(directory, runtime)
    vocab = vocabulary_of(tokenizer)
    asking = sys.stdin.isatty()
    if asking:
        _help_typing(vocab)
        print("Tokens, separated by spaces, for example: <CLS> <CLS_3> <IMG>")
        print("Tab completes a token, the arrow keys bring earlier lines back, quit leaves.")
    for line in _lines(asking):
        tokens = line.split()
        unknown = [token for token in tokens if token not in vocab]
        if unknown:
            print(f"{unknown[0]!r} is not in the vocabulary", file=sys.stderr)
            continue
        try:
            table = next_token_table(model, tokenizer, encode_tokens(tokens, vocab), top)
        except DataError as error:
            print(error, file=sys.stderr)
            continue
        if as_json:
            print(json.dumps({"prefix": " ".join(tokens), "next": [asdict(row) for row in table]}))
            continue
        for row in table:
            bar = "█" * round(row.probability * BAR)
            print(f"{row.token:>10}  {row.probability:7.2%}  {bar}")


def _help_typing(vocab: dict[str, int]) -> None:
    """History and completion for `input`, where the system has readline."""
    try:
        import readline
    except ImportError:  # Windows
        return
    readline.set_completer_delims(" ")
    readline.set_completer(lambda begun, place: complete_token(begun, vocab, place))
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")


def complete_token(begun: str, vocab: dict[str, int], place: int) -> str | None:
    """The `place`-th token that starts as `begun` does, in the order of ids; None after the last.

    ``<`` need not be typed: ``CLS_3`` is completed to ``<CLS_3>``.
    """
    fitting = [token for token in vocab if token.startswith((begun, f"<{begun}"))]
    return fitting[place] + " " if place < len(fitting) else None


def _lines(asking: bool) -> Iterable[str]:
    while True:
        try:
            line = input("> " if asking else "").strip()
        except EOFError:
            if asking:
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
) -> None:
    """Print `n` continuations of `prompt`, or `n` drawings of `label`; pictures beside sentences.

    `as_json` prints rows of the data contract in place of bare sentences. `output` writes them to
    a file as well: rows to .jsonl, one grid of all pictures to .png. Raises ConfigError when both
    prompt and label or neither are given, or for an output of another kind.
    """
    if output is not None and output.suffix not in (".jsonl", ".png"):
        raise ConfigError(f"output: {output} should end in .jsonl (rows) or .png (pictures)")
    if (prompt is None) == (label is None):
        raise ConfigError("give either --prompt with tokens, or --label with a class to draw")
    if n < 1:
        raise ConfigError(f"n: must be at least 1, got {n}")
    tokenizer, model = load_tokenizer(directory), _language_model(directory, runtime)
    tokens = tuple(prompt.split()) if prompt is not None else drawing_prompt(label)
    vocab = vocabulary_of(tokenizer)
    if label is not None and class_token(label) not in vocab:
        known = len(class_ids(vocab))
        classes = f"its classes are 0 to {known - 1}" if known else "it knows no classes"
        raise ConfigError(f"label: this model has no {class_token(label)}; {classes}")
    sentences = generate_sentences(model, vocab, [tokens] * n, config)
    made = {"model": Path(directory).name, **asdict(config)}
    rows = [
        Record(tuple(written), _class_named(written), {**made, "number": number})
        for number, written in enumerate(sentences)
    ]
    if output is not None:
        _write_out(directory, rows, output)
    book = _book(directory) if sys.stdout.isatty() else None
    for row in rows:
        if as_json:
            print(as_line(row))
            continue
        print(" ".join(row.tokens))
        image = _image(book, row)
        if image is not None:
            print(_in_blocks(image))


def _class_named(tokens: Sequence[str]) -> int | None:
    """The one class that a sentence names; None where it names none, or contradicts itself."""
    named = {class_of(token) for token in tokens} - {None}
    return named.pop() if len(named) == 1 else None


def _write_out(directory: Path, rows: list[Record], output: Path) -> None:
    """Rows as JSON lines, or their pictures as one grid; written aside, then renamed."""
    check_folder(output.parent)
    if output.suffix == ".jsonl":
        write_records(output, rows)
        return
    book = _book(directory)
    images = [_image(book, row) for row in rows]
    if any(image is None for image in images):
        raise ConfigError(
            f"output: {output} cannot be drawn: {images.count(None)} of {len(rows)} sentences hold "
            "no whole picture, or no code book lies beside the model; write .jsonl instead"
        )
    from seqlm.plots.images import plot_images

    titles = [f"{row.meta['number'] + 1}" for row in rows]
    figure = plot_images(np.stack(images), titles, heading=f"Drawn by {Path(directory).name}")
    with atomic_path(output) as aside:
        figure.savefig(aside, format="png", dpi=130, metadata={"Software": None})


def _book(directory: Path) -> PatchCodebook | None:
    """The code book beside a model; None where there is none."""
    path = Path(directory) / CODEBOOK
    return PatchCodebook.load(path) if path.is_file() else None


def _image(book: PatchCodebook | None, row: Record) -> np.ndarray | None:
    """The picture (H, W) of a sentence; None where it holds no whole one, or there is no book."""
    if book is None:
        return None
    try:
        return book.decode(codes_of(row.tokens)[None])[0]
    except (DataError, IndexError):
        return None


def _in_blocks(image: np.ndarray) -> str:
    shades = (image.clip(0, 1) * (len(_SHADES) - 1)).round().astype(int)
    return "\n".join("".join(_SHADES[shade] * 2 for shade in row) for row in shades)


def classify_rows(
    directory: Path, data_path: str, batch_size: int = 256, runtime: Runtime = "torch"
) -> None:
    """Rows in the data contract's format in, one JSON object a row out: class and probabilities.

    `batch_size` rows are asked and told at a time; the answers do not depend on it.

    With a classifier's directory it is asked directly; with a language model's the class is read
    off its next-token probabilities after ``<CLS>``. A row's own class is never shown to either.
    Long rows lose codes from the left, as in training; standard error says how many did.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: must be at least 1, got {batch_size}")
    longest = _configuration(directory, runtime).n_positions
    tokenizer = load_tokenizer(directory)
    vocab = vocabulary_of(tokenizer)
    with warnings.catch_warnings():
        # Rows that bring no class are just what a classifier is for.
        warnings.simplefilter("ignore", DataWarning)
        records = read_records(data_path, vocab)
    # Tokenizers that were never told how long a row may be say 1e30.
    prompts = _prompts(records, data_path, min(longest, tokenizer.model_max_length))
    prompts = [encode_tokens(prompt, vocab) for prompt in prompts]
    probabilities = _asked(directory, vocab, runtime)
    for start in range(0, len(records), batch_size):
        some = slice(start, start + batch_size)
        for record, row in zip(records[some], probabilities(prompts[some]), strict=True):
            answer = {
                "line": record.line,
                "predicted": int(row.argmax()),
                "label": record.label,
                "probabilities": [round(float(p), 6) for p in row],
            }
            print(json.dumps(answer))


def _prompts(records: list[Record], data_path: str, limit: int) -> list[tuple[str, ...]]:
    """What is asked of each row: its tokens up to ``<CLS>``, cut as a whole row of `limit` is.

    Whole rows are what training cuts, class and ``<EOS>`` included. So a row gets the same answer
    whether it brings its class or not, and the same as when the model was measured.
    """
    prompts, n_cut = [], 0
    for record in records:
        where = f"{data_path}:{record.line}: tokens: "
        try:
            whole = reading_prompt(record.tokens)
        except DataError as error:
            raise DataError(f"{where}{error}") from error
        try:
            prompts.append(shorten(whole, limit - TAIL))
        except DataError as error:
            raise DataError(
                f"{where}the model reads at most {limit} tokens per row, too few to keep even one "
                "code of this one; train a model with a larger max_length"
            ) from error
        n_cut += len(prompts[-1]) < len(whole)
    if n_cut:
        print(
            f"{data_path}: {n_cut} of {len(records)} rows lost codes from the left, because the "
            f"model reads at most {limit} tokens per row",
            file=sys.stderr,
        )
    return prompts


def _configuration(directory: Path, runtime: Runtime) -> GPT2Config:
    return onnx_config(directory) if runtime == "onnx" else check_model_directory(directory)


def _language_model(directory: Path, runtime: Runtime):
    return load_onnx_lm(directory) if runtime == "onnx" else load_lm(directory)


def _asked(
    directory: Path, vocab: dict[str, int], runtime: Runtime
) -> Callable[[list[list[int]]], np.ndarray]:
    """prompts -> class probabilities (N, C), by whichever kind of model lies in `directory`."""
    if is_classifier(_configuration(directory, runtime)):
        load = load_onnx if runtime == "onnx" else load_classifier
        return partial(classifier_probabilities, load(directory))
    model = _language_model(directory, runtime)
    return partial(class_probabilities, model, class_ids=class_ids(vocab))
