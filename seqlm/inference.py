"""`seqlm infer`: a trained model at the terminal, in pipes too."""

import json
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from seqlm.classes import class_probabilities, classifier_probabilities
from seqlm.codebook import PatchCodebook
from seqlm.config import SampleConfig
from seqlm.dataset import CODEBOOK
from seqlm.errors import ConfigError, DataError, DataWarning
from seqlm.layout import class_ids, class_token, codes_of, drawing_prompt, reading_prompt, shorten
from seqlm.model import check_model_directory, load_classifier, load_lm
from seqlm.records import Record, read_records
from seqlm.sampling import next_token_table, write_sentences_from
from seqlm.tokenizer import encode_tokens, load_tokenizer, vocabulary_of

_SHADES = " ░▒▓█"
BAR = 30
TAIL = 2  # <CLS_k> <EOS>: what a whole row has after the prompt


def interact(directory: Path, top: int = 10) -> None:
    """Read prefixes, line by line; print the next tokens and their probabilities after each.

    Asks with a prompt only when a person is at the terminal; ends at `quit` or end of input.
    """
    if top < 1:
        raise ConfigError(f"top: must be at least 1, got {top}")
    tokenizer, model = load_tokenizer(directory), load_lm(directory)
    vocab = vocabulary_of(tokenizer)
    asking = sys.stdin.isatty()
    if asking:
        print("Tokens, separated by spaces, for example: <CLS> <CLS_3> <IMG>   (quit to leave)")
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
        for row in table:
            bar = "█" * round(row.probability * BAR)
            print(f"{row.token:>10}  {row.probability:7.2%}  {bar}")


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


def write_sentences(
    directory: Path, prompt: str | None, label: int | None, n: int, config: SampleConfig
) -> None:
    """Print `n` continuations of `prompt`, or `n` drawings of `label`; pictures beside sentences.

    Raises ConfigError when both or neither are given.
    """
    if (prompt is None) == (label is None):
        raise ConfigError("give either --prompt with tokens, or --label with a class to draw")
    if n < 1:
        raise ConfigError(f"n: must be at least 1, got {n}")
    tokenizer, model = load_tokenizer(directory), load_lm(directory)
    tokens = tuple(prompt.split()) if prompt is not None else drawing_prompt(label)
    vocab = vocabulary_of(tokenizer)
    if label is not None and class_token(label) not in vocab:
        known = len(class_ids(vocab))
        classes = f"its classes are 0 to {known - 1}" if known else "it knows no classes"
        raise ConfigError(f"label: this model has no {class_token(label)}; {classes}")
    for sentence in write_sentences_from(model, vocab, tokens, n, config):
        print(" ".join(sentence))
        picture = _picture(directory, sentence)
        if picture and sys.stdout.isatty():
            print(picture)


def _picture(directory: Path, sentence: list[str]) -> str | None:
    """The sentence's picture in block characters, where a code book lies beside the model."""
    if not (Path(directory) / CODEBOOK).is_file():
        return None
    book = PatchCodebook.load(Path(directory) / CODEBOOK)
    try:
        codes = codes_of(sentence)
        image = book.decode(codes[None])[0]  # (H, W)
    except (DataError, IndexError):
        return None
    shades = (image.clip(0, 1) * (len(_SHADES) - 1)).round().astype(int)
    return "\n".join("".join(_SHADES[shade] * 2 for shade in row) for row in shades)


def classify_rows(directory: Path, data_path: str) -> None:
    """Rows in the data contract's format in, one JSON object a row out: class and probabilities.

    With a classifier's directory it is asked directly; with a language model's the class is read
    off its next-token probabilities after ``<CLS>``. A row's own class is never shown to either.
    Long rows lose codes from the left, as in training; standard error says how many did.
    """
    longest = check_model_directory(directory).n_positions
    tokenizer = load_tokenizer(directory)
    vocab = vocabulary_of(tokenizer)
    with warnings.catch_warnings():
        # Rows that bring no class are just what a classifier is for.
        warnings.simplefilter("ignore", DataWarning)
        records = read_records(data_path, vocab)
    # Tokenizers that were never told how long a row may be say 1e30.
    prompts = _prompts(records, data_path, min(longest, tokenizer.model_max_length))
    prompts = [encode_tokens(prompt, vocab) for prompt in prompts]
    found = _probabilities(directory, prompts, vocab)
    for record, row in zip(records, found, strict=True):
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
                f"{where}the model reads at most {limit} tokens a row, too few to keep even one "
                "code of this one; train a model with a larger max_length"
            ) from error
        n_cut += len(prompts[-1]) < len(whole)
    if n_cut:
        print(
            f"{data_path}: {n_cut} of {len(records)} rows lost codes from the left, because the "
            f"model reads at most {limit} tokens a row",
            file=sys.stderr,
        )
    return prompts


def _probabilities(directory: Path, prompts: list[list[int]], vocab: dict[str, int]):
    kind = check_model_directory(directory).architectures or []
    if "GPT2ForSequenceClassification" in kind:
        return classifier_probabilities(load_classifier(directory), prompts)
    return class_probabilities(load_lm(directory), prompts, class_ids(vocab))
