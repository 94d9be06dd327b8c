"""Append tokens and classes to a trained model: its vocabulary, embedding and head grow.

Everything is appended: old tokens keep their ids, and old weights do not change.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from seqlm.data.arrow import read_rows
from seqlm.data.corpus import Corpus
from seqlm.data.tokens import class_of, class_token, vocab_problem
from seqlm.errors import DataError
from seqlm.models.gpt2 import classifier_from_lm, is_classifier, load_classifier, load_lm

MAX_SHOWN = 8  # tokens named on one line


def count_new_tokens(path: Path, known: Mapping[str, int]) -> Counter[str]:
    """How often each token that `known` lacks occurs in a file of rows.

    A label without a class token counts as one, so that ``<CLS_10>`` is there for `repair_tail`.
    Rows without tokens are skipped here; `read_table` refuses them.
    """
    counts: Counter[str] = Counter()
    for _, _, row in read_rows(path):
        if isinstance(row, dict) and isinstance(row.get("tokens"), str):
            tokens, label = row["tokens"].split(), row.get("label")
            if type(label) is int and label >= 0 and class_token(label) not in tokens:
                tokens.append(class_token(label))
            counts.update(token for token in tokens if token not in known)
    return counts


def extend_vocab(known: Mapping[str, int], tokens: Iterable[str]) -> dict[str, int]:
    """`known` (token -> id) with the missing ones of `tokens` appended, in their order.

    Raises DataError where `read_vocab` would refuse the result.
    """
    vocab = dict(sorted(known.items(), key=lambda entry: entry[1]))
    for token in tokens:
        vocab.setdefault(token, len(vocab))
    problem = vocab_problem([*vocab.items()])
    if problem:
        raise DataError(f"with the new tokens: {problem}")
    return vocab


def sort_new_tokens(tokens: Iterable[str]) -> list[str]:
    """New tokens by name, classes last, so that ids do not depend on the order of the rows."""
    return sorted(set(tokens), key=lambda t: (class_of(t) is not None, class_of(t) or 0, t))


def describe_token_counts(counts: Mapping[str, int]) -> str:
    """New tokens and how often each occurs, the rarest first: those may be typing errors."""
    rare = sorted(counts, key=lambda token: (counts[token], token))
    shown = ", ".join(f"{token} ({counts[token]:,} times)" for token in rare[:MAX_SHOWN])
    more = f" and {len(rare) - MAX_SHOWN:,} more frequent ones" if len(rare) > MAX_SHOWN else ""
    return shown.replace("(1 times)", "(once)") + more


@torch.no_grad()
def grow_embedding(model: PreTrainedModel, n_tokens: int) -> PreTrainedModel:
    """Give `model` an embedding (n_tokens, n_embd); its old rows do not change.

    New rows start at the mean of the old ones. In a language model they are also rows of the
    output layer, so a new token's logit starts as the mean of the others' and takes little
    probability from them. Random rows can have any logit, and may take nearly all. Source: J.
    Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021. Raises DataError
    when there would be fewer tokens than before.
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
    """Give a classifier at least `n_classes` outputs; new ones start at the mean of the old."""
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
