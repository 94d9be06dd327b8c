"""From sentences to a trained and measured model: what a notebook and the command line both do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from seqlm.config import ModelConfig, TrainConfig
from seqlm.data.corpus import Corpus
from seqlm.data.tokens import KIND_CODE, layout_of, reading_prompt
from seqlm.errors import DataError
from seqlm.evaluation.calibration import LEAST
from seqlm.evaluation.classification import measure_classes
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.metrics import measure_tokens
from seqlm.evaluation.ngrams import NgramModel, fit_ngrams
from seqlm.evaluation.scores import (
    TokenScores,
    class_probabilities,
    classifier_probabilities,
    score_tokens,
)
from seqlm.evaluation.significance import paired_ratio
from seqlm.models.gpt2 import build_classifier, build_lm, check_length, classifier_from_lm
from seqlm.training.timing import processes
from seqlm.training.train import Measure, Rows, train

FIRST_LOSS_TOLERANCE = 0.5  # nats; random weights are never quite even-handed


def lm_measure(corpus: Corpus, split: str = "val") -> Measure:
    """The ruler that chooses the best checkpoint: code-token NLL over the whole of `split`.

    Also measured: each layout apart, and, where rows have labels and class tokens, the share of
    classes read off correctly after ``<CLS>``.
    """
    rows = corpus.rows(split)
    layouts = np.array([layout_of(record.tokens) for record in corpus.records(split)])
    readable = corpus.labelled(split) and corpus.class_ids
    prompts, labels = corpus.to_classify(split) if readable else ([], [])

    def measure(model) -> dict[str, float]:
        scores = score_tokens(model, rows)
        codes = scores.of_kind(corpus.kinds, KIND_CODE)
        found = {"code_nll": codes.nll.mean(), "all_nll": scores.nll.mean()}
        for layout in ("read", "draw"):
            mine = codes.nll[layouts[codes.row] == layout]
            if len(mine):
                found[f"{layout}_nll"] = mine.mean()
        if len(labels):
            guess = class_probabilities(model, prompts, corpus.class_ids).argmax(1)
            found["class_accuracy"] = (guess == labels).mean()
        return {name: float(value) for name, value in found.items()}

    return measure


def first_loss(model, corpus: Corpus) -> str:
    """What an untrained model loses on some val rows, in words, beside the ln(V) it should lose.

    Much more means that something is broken at birth; much less, that the answer leaks.
    """
    found = score_tokens(model, corpus.rows("val")[:64]).nll.mean()
    expected = np.log(len(corpus.vocab))
    words = (
        f"before training {found:.2f} nats per token; to know nothing costs ln V = {expected:.2f}"
    )
    off = abs(found - expected) > FIRST_LOSS_TOLERANCE
    return words + (" (far off: check the data and the model's size first)" if off else "")


def train_lm(
    corpus: Corpus,
    size: ModelConfig,
    config: TrainConfig,
    log: Callable[[str], None] = print,
    build: Callable[[ModelConfig, dict[str, int], int], PreTrainedModel] = build_lm,
) -> dict:
    """Train a language model from scratch on the train split; returns training.py's record.

    `build(size, vocab, seed)` makes it: a GPT-2, or one of its rivals from `neural_rivals`. Raises
    ConfigError, before anything runs, when a row of any split is longer than the model.
    """
    model = build(size, corpus.vocab, config.seed)
    check_length(model, corpus.longest)
    rows, val = Rows(corpus.rows("train")), corpus.rows("val")
    if processes().is_main_process:
        log(first_loss(model, corpus))
    measure = lm_measure(corpus)
    return train(model, corpus.tokenizer, rows, measure, "code_nll", config, log, also=val)


def classifier_measure(corpus: Corpus, split: str = "val") -> Measure:
    """Cross-entropy in nats per image, and accuracy, over the whole of `split`."""
    prompts, labels = corpus.to_classify(split)

    def measure(model) -> dict[str, float]:
        probabilities = classifier_probabilities(model, prompts)
        of_label = probabilities[np.arange(len(labels)), labels]
        return {
            "class_nll": float(-np.log(np.maximum(of_label, LEAST)).mean()),
            "accuracy": float((probabilities.argmax(1) == labels).mean()),
        }

    return measure


def train_classifier(
    corpus: Corpus,
    size: ModelConfig,
    config: TrainConfig,
    start_from: Path | None = None,
    log: Callable[[str], None] = print,
) -> dict:
    """Train a classifier: from scratch, or with the body of the language model in `start_from`.

    Raises DataError when that model's vocabulary is not the corpus's, or the train split holds but
    one class; ConfigError when a row to classify, of any split, is longer than the model.
    """
    prompts, labels = corpus.to_classify("train")
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"all labelled train rows are of class {labels[0]}; a classifier needs rows of at "
            "least two classes"
        )
    asked = [record for split in corpus.splits for record in corpus.labelled(split)]
    n_classes = max(len(corpus.class_ids), 1 + max(record.label for record in asked))
    if start_from is None:
        model = build_classifier(size, corpus.vocab, n_classes, config.seed)
    else:
        model = classifier_from_lm(start_from, n_classes, size.dropout, config.seed)
        if model.config.vocab_size != len(corpus.vocab):
            raise DataError(
                f"{start_from}: knows {model.config.vocab_size} tokens, the data "
                f"{len(corpus.vocab)}; use the vocab.json the model was trained with"
            )
    check_length(model, max(len(reading_prompt(record.tokens)) for record in asked))
    rows, measure = Rows(prompts, labels.tolist()), classifier_measure(corpus)
    val_prompts, val_labels = corpus.to_classify("val")
    val = [val_prompts, val_labels.tolist()]
    return train(model, corpus.tokenizer, rows, measure, "class_nll", config, log, also=val)


def evaluate_lm(model, corpus: Corpus, split: str = "test", baselines: bool = True) -> dict:
    """Every number about the language model on one split, and about the baselines below it.

    Returns, for each layout the split holds, what `metrics.measure_tokens` says; and for the first
    of them (read, where there is one) the baselines, the best of them, and how far below it the model
    comes. The baselines learn from the very rows the model learned from, and are tuned for codes,
    where they are judged. Intervals resample sources, because rows of one source hang together.

    Raises DataError when the split is empty.
    """
    if not corpus.splits[split]:
        other = "val" if split == "test" else "test"
        raise DataError(
            f"the {split} split is empty; use --split {other}, or mark some rows as {split}"
        )
    present = [name for name in ("read", "draw", "other") if corpus.records(split, name)]
    scores = {name: score_tokens(model, corpus.rows(split, name)) for name in present}
    found = {
        name: measure_tokens(scores[name], corpus.kinds, corpus.sources(split, name))
        for name in present
    }
    if baselines:
        fitted = fit_ngrams(
            corpus.rows("train"), corpus.rows("val"), len(corpus.vocab), corpus.kinds
        )
        first = present[0]
        found["layout_compared"] = first
        found |= _against_baselines(scores[first], fitted, corpus, split, first)
    return found


def _against_baselines(
    scores: TokenScores, baselines: dict[str, NgramModel], corpus: Corpus, split: str, layout: str
) -> dict:
    """The baselines on the very rows that the model's `scores` are about, and how they compare."""
    rows, sources = corpus.rows(split, layout), corpus.sources(split, layout)
    codes = {
        name: baseline.score(rows).of_kind(corpus.kinds, KIND_CODE)
        for name, baseline in baselines.items()
    }
    mine = scores.of_kind(corpus.kinds, KIND_CODE)
    best = min(codes, key=lambda name: codes[name].nll.mean())
    ratio = paired_ratio(mine, codes[best], sources)
    share = Estimate(1 - ratio.value, 1 - ratio.high, 1 - ratio.low, ratio.n, "share")
    measured = {name: measure_tokens(codes[name], corpus.kinds, sources) for name in baselines}
    return {
        "baselines": {
            name: {"description": baseline.description, "code": measured[name]["code"]}
            for name, baseline in baselines.items()
        },
        "best_baseline": best,
        "below_best_baseline": share.to_json(),
        "by_position": {
            "model": _by_position(mine),
            "baselines": {name: _by_position(scored) for name, scored in codes.items()},
        },
    }


def _by_position(codes: TokenScores) -> list[float]:
    """Mean NLL of the first code, the second, … in nats."""
    _, place = np.unique(codes.position, return_inverse=True)
    return (np.bincount(place, weights=codes.nll) / np.bincount(place)).tolist()


def evaluate_classes(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy, macro F1, recalls, confusion of class probabilities (N, C) against labels (N,)."""
    return measure_classes(labels, probabilities.argmax(1), probabilities.shape[1], probabilities)
