"""A trained model learns new words: its vocabulary, its embedding and its head get longer.

Everything is appended. Whatever had an id keeps it, and the weights behind it stay as they were.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import GPT2ForSequenceClassification, PreTrainedModel

from seqlm.data.corpus import Corpus
from seqlm.data.tokens import PAD, class_of, class_token
from seqlm.errors import DataError
from seqlm.models.gpt2 import check_model_directory, classifier_from_lm, load_classifier, load_lm
from seqlm.utils import why_unreadable

SHOWN = 8  # tokens named on one line


def count_new_tokens(path: Path, known: Mapping[str, int]) -> Counter[str]:
    """The tokens in a file of rows that `known` lacks, and how often each stands there.

    A label without a class token counts as one, so that ``<CLS_10>`` is there for `repair_tail`.
    What else may be wrong with a row is left to `records.read_records`, which names the line.
    """
    found: Counter[str] = Counter()
    try:
        with open(path, "rb") as plain:
            packed = plain.peek(2)[:2] == b"\x1f\x8b"
            with gzip.open(plain, "rb") if packed else plain as stream:
                for raw in stream:
                    found.update(t for t in _tokens_of(raw) if t not in known)
    except (OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno:
            raise DataError(why_unreadable(path, error)) from error
    return found


def _tokens_of(raw: bytes) -> list[str]:
    try:
        row = json.loads(raw.decode("utf-8-sig"))
        tokens, label = row["tokens"].split(), row.get("label")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    named = type(label) is int and label >= 0 and class_token(label) not in tokens
    return [t for t in tokens if t != PAD] + [class_token(label)] * named


def extend_vocab(known: Mapping[str, int], tokens: Iterable[str]) -> dict[str, int]:
    """`known` (token -> id) with those of `tokens` that it lacks appended, in their order.

    Raises DataError when class tokens would no longer run from ``<CLS_0>`` without a gap.
    """
    vocab = dict(sorted(known.items(), key=lambda entry: entry[1]))
    for token in tokens:
        vocab.setdefault(token, len(vocab))
    labels = {class_of(token) for token in vocab} - {None}
    absent = [class_token(k) for k in range(len(labels)) if k not in labels]
    if absent:
        raise DataError(
            f"{class_token(max(labels))} would be new, but there is no {absent[0]}: class tokens "
            "run from <CLS_0> without a gap; number the classes so, or fix the token"
        )
    return vocab


def sort_new_tokens(tokens: Iterable[str]) -> list[str]:
    """New tokens in an order that does not hang on that of the rows: by name, classes last."""
    return sorted(set(tokens), key=lambda t: (class_of(t) is not None, class_of(t) or 0, t))


def describe_token_counts(counts: Mapping[str, int]) -> str:
    """New tokens with how often each stands in the data, the rarest first: there typos are."""
    rare = sorted(counts, key=lambda token: (counts[token], token))
    told = ", ".join(f"{token} ({counts[token]:,} times)" for token in rare[:SHOWN])
    more = f" and {len(rare) - SHOWN:,} that are commoner" if len(rare) > SHOWN else ""
    return told.replace("(1 times)", "(once)") + more


@torch.no_grad()
def grow_embedding(model: PreTrainedModel, n_tokens: int) -> PreTrainedModel:
    """Give `model` an embedding (n_tokens, n_embd); the rows it had stay as they are.

    New rows start at the mean of the old ones. In a language model they are also the rows of the
    output layer, so a new token's logit begins as the mean of the others': it takes next to
    nothing away from what the model knew. Random rows can have any logit, and may take nearly all.
    Source: J. Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021.
    Raises DataError when there would be fewer tokens than before.
    """
    old = model.config.vocab_size
    if n_tokens < old:
        raise DataError(f"the model knows {old} tokens; a vocabulary of {n_tokens} is too small")
    if n_tokens > old:
        model.resize_token_embeddings(n_tokens, mean_resizing=False)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:  # a classifier has no output layer
                layer.weight[old:] = layer.weight[:old].mean(0)  # (n_tokens, n_embd)
    return model


@torch.no_grad()
def grow_head(model: PreTrainedModel, n_classes: int) -> PreTrainedModel:
    """Give a classifier `n_classes` outputs: its old rows stay, and new ones start at their mean.

    A model with as many outputs, or more, is left as it is.
    """
    old = model.score.weight  # (classes, n_embd)
    if n_classes > len(old):
        new = nn.Linear(old.shape[1], n_classes, bias=False, dtype=old.dtype, device=old.device)
        new.weight[: len(old)] = old
        new.weight[len(old) :] = old.mean(0)
        model.score = new
        model.config.num_labels = model.num_labels = n_classes
    return model


def start_model(directory: Path, corpus: Corpus, classifies: bool = False, seed: int = 42):
    """The model in `directory`, with an embedding and a head as large as `corpus` needs.

    Raises DataError when a classifier is wanted and the train rows are of one class.
    """
    if not classifies:
        return grow_embedding(load_lm(directory), len(corpus.vocab))
    n_classes = corpus.count_classes()
    if is_classifier(directory):
        model = grow_head(load_classifier(directory), n_classes)
    else:
        model = classifier_from_lm(directory, n_classes, seed=seed)
    return grow_embedding(model, len(corpus.vocab))


def is_classifier(model: nn.Module | Path) -> bool:
    """Whether a model, or the one in a directory, is a classifier.

    Raises DataError when there is no model in the directory.
    """
    if isinstance(model, nn.Module):
        return isinstance(model, GPT2ForSequenceClassification)
    kinds = check_model_directory(model).architectures or []
    return GPT2ForSequenceClassification.__name__ in kinds
