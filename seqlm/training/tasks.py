"""The two tasks, language model and classifier: what they train on, and their validation metric.

Every module that this one imports decides a run and belongs to its identity (`run_identity`), so
what is measured after training is in measure.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from seqlm.config import ModelConfig, TrainConfig
from seqlm.data.corpus import Corpus
from seqlm.data.table import LAYOUTS, Ids
from seqlm.data.tokenizer import load_tokenizer, vocabulary_of
from seqlm.data.tokens import KIND_CODE
from seqlm.errors import DataError
from seqlm.evaluation.scores import LEAST, class_probabilities, score_tokens, sum_scores
from seqlm.models.gpt2 import build_classifier, build_lm, check_length, classifier_from_lm
from seqlm.training.batches import Rows
from seqlm.training.replay import keep_unseen, learned_rows, read_learned
from seqlm.training.timing import processes
from seqlm.training.train import check_run, train_model
from seqlm.training.trainer import ValidationMetric

FIRST_LOSS_TOLERANCE = 0.5  # nats; random weights are never quite even-handed
# Of the old rows in fine-tuning, what a line of progress has room for.
OF_OLD_ROWS = ("code_nll", "read_nll", "class_accuracy", "class_nll", "accuracy")


def train_lm(
    corpus: Corpus,
    size: ModelConfig,
    config: TrainConfig,
    log: Callable[[str], None] = print,
    build: Callable[[ModelConfig, dict[str, int], int], PreTrainedModel] = build_lm,
) -> dict:
    """Train a language model from scratch on the train split; returns the record of `train`.

    `build(size, vocab, seed)` makes it: a GPT-2, or a model of `lab/recurrent.py`. Raises
    ConfigError, before anything runs, when a row of any split is longer than the model.
    """
    model = build(size, corpus.vocab, config.seed)
    check_length(model, corpus.longest)
    if processes().is_main_process:
        log(first_loss(model, corpus))
    metric = validation_metric(corpus)
    return train_model(model, corpus.tokenizer, train_rows(corpus), metric, config, log)


def train_classifier(
    corpus: Corpus,
    size: ModelConfig,
    config: TrainConfig,
    start_from: Path | None = None,
    log: Callable[[str], None] = print,
    measured: Sequence[str] = ("val", "test"),
) -> dict:
    """Train a classifier: from scratch, or with the body of the language model in `start_from`.

    Raises DataError when that model's vocabulary is not the corpus's, it has learned from rows of
    the `measured` splits, or the train split holds but one class; ConfigError when a row to
    classify, of any split, is longer than the model, or that model lies where this run would write.
    """
    n_classes = corpus.count_classes()
    if start_from is None:
        model = build_classifier(size, corpus.vocab, n_classes, config.seed)
    else:
        check_run(config, start_from)
        model = classifier_from_lm(start_from, n_classes, size.dropout, config.seed)
        _check_same_vocabulary(start_from, corpus.vocab)
        keep_unseen(corpus, measured, read_learned(start_from), start_from)
    labelled = [split for split in corpus.splits if len(corpus.labelled(split))]
    check_length(model, max(corpus.to_classify(split)[0].lengths.max() for split in labelled))
    rows, metric = train_rows(corpus, True, start_from), validation_metric(corpus, classifies=True)
    return train_model(model, corpus.tokenizer, rows, metric, config, log)


def _check_same_vocabulary(directory: Path, vocab: dict[str, int]) -> None:
    known = vocabulary_of(load_tokenizer(directory))
    other = [token for token in {**vocab, **known} if known.get(token) != vocab.get(token)]
    if other:
        there, here = (of.get(other[0], "missing") for of in (known, vocab))
        raise DataError(
            f"{directory}: its vocabulary is not that of the data: {len(other):,} tokens differ, "
            f"and the id of {other[0]!r} is {there} there and {here} here; use the vocab.json the "
            "model was trained with"
        )


def train_rows(corpus: Corpus, classifies: bool = False, start_from: Path | None = None) -> Rows:
    """The train split as the task learns from it; DataError where a classifier has no labels.

    What the model in `start_from` has learned from is added to what will be kept with the new one.
    """
    rows = corpus.labelled("train") if classifies else corpus.records("train")
    learned = learned_rows(rows, start_from)
    if not classifies:
        return Rows(corpus.rows("train"), learned=learned)
    prompts, labels = corpus.to_classify("train")
    return Rows(prompts, labels.tolist(), learned)


def first_loss(model, corpus: Corpus) -> str:
    """The loss of an untrained model on some val rows, in words, beside the ln(V) it should have.

    Much more means that something is broken at birth; much less, that the answer leaks.
    """
    loss = score_tokens(model, corpus.rows("val")[:64]).nll.mean()
    expected = np.log(len(corpus.vocab))
    words = (
        f"before training {loss:.2f} nats per token; to know nothing costs ln V = {expected:.2f}"
    )
    # Less where tokens repeat: with tied embeddings an untrained model expects the last one again.
    off = not expected / 2 < loss < expected + FIRST_LOSS_TOLERANCE
    return words + (" (far off: check the data and the model's size first)" if off else "")


def validation_metric(
    corpus: Corpus, classifies: bool = False, old: Corpus | None = None
) -> ValidationMetric:
    """What chooses the best checkpoint on the val split: NLL per code, or per class.

    In fine-tuning some values of `old` rows are measured beside it, with `old_` before their names;
    they choose nothing. Raises DataError for a classifier when val of either holds no labelled row
    in the read layout.
    """
    measure_on = _measure_classifier if classifies else _measure_lm
    new = measure_on(corpus)
    before = old and measure_on(replace(old, vocab=corpus.vocab))

    def measure(model) -> dict[str, float]:
        values = new(model)
        old_values = before(model) if before else {}
        return values | {f"old_{k}": old_values[k] for k in OF_OLD_ROWS if k in old_values}

    looked_at = [
        c and [c.rows("val").digest(), Ids.of([c.records("val").column("label")]).digest()]
        for c in (corpus, old)
    ]
    return ValidationMetric("class_nll" if classifies else "code_nll", measure, looked_at)


def _measure_lm(corpus: Corpus) -> Callable:
    """NLL in nats, and class accuracy where rows have labels and class tokens, over all of val."""
    rows = corpus.rows("val")
    layouts = corpus.records("val").column("layout")
    readable = len(corpus.labelled("val")) and corpus.class_ids
    prompts, labels = corpus.to_classify("val") if readable else ([], [])

    def measure(model) -> dict[str, float]:
        sums = sum_scores(partial(score_tokens, model), rows, corpus.kinds)
        nats, tokens = sums.nll[KIND_CODE], sums.tokens[KIND_CODE]
        values = {
            "code_nll": nats.sum() / tokens.sum(),
            "all_nll": sums.nll.sum() / sums.tokens.sum(),
        }
        for layout in ("read", "draw"):
            inside = layouts == LAYOUTS.index(layout)
            if tokens[inside].any():
                values[f"{layout}_nll"] = nats[inside].sum() / tokens[inside].sum()
        if len(labels):
            guess = class_probabilities(model, prompts, corpus.class_ids).argmax(1)
            values["class_accuracy"] = (guess == labels).mean()
        return {name: float(value) for name, value in values.items()}

    return measure


def _measure_classifier(corpus: Corpus) -> Callable:
    """Cross-entropy in nats per image, and accuracy, over the whole of val."""
    prompts, labels = corpus.to_classify("val")

    def measure(model) -> dict[str, float]:
        probabilities = class_probabilities(model, prompts)
        of_label = probabilities[np.arange(len(labels)), labels]
        return {
            "class_nll": float(-np.log(np.maximum(of_label, LEAST)).mean()),
            "accuracy": float((probabilities.argmax(1) == labels).mean()),
        }

    return measure
