"""Train small models with common bugs; compare reported and correct metrics.

All rows are in the read layout and of one length.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from seqlm.config import DataConfig, ModelConfig
from seqlm.data.build import Pictures
from seqlm.data.codebook import PatchCodebook
from seqlm.data.corpus import Corpus
from seqlm.data.images import LEVELS, augment
from seqlm.data.records import Record
from seqlm.data.tokens import KIND_CODE, PAD, codes_of, read_layout, shorten
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.metrics import nll, perplexity
from seqlm.evaluation.scores import (
    Rows,
    TokenScores,
    class_probabilities,
    classifier_probabilities,
    score_tokens,
)
from seqlm.lab import traps
from seqlm.lab.traps import Trap
from seqlm.models.gpt2 import build_classifier, build_lm, default_device, fit_attention

TRAIN_ROWS = 8_000  # more than these short trainings see
BATCH = 32
LEARNING_RATE = 1e-2  # high, and right for models this small
NEIGHBOUR_ROWS = 400  # rows whose nearest row is searched for


def train_with_padding_counted(
    corpus: Corpus, length: int, steps: int, seed: int, n_rows: int = 60
) -> tuple[Trap, dict[int, Estimate]]:
    """Rows padded to `length`, padding learned and counted: perplexity falls towards 1.

    Returns the trap, and the perplexity of the same model when padded to 32, 64, … and `length`.
    """
    rows, pad_id = _read_rows(corpus, "train"), corpus.vocab[PAD]
    padded = traps.pad_rows(rows, length, pad_id)
    model = fit_small_model(_small_lm(corpus, length, seed), padded, padded, steps, seed, 2)
    test = traps.pad_rows(_read_rows(corpus, "test")[:n_rows], length, pad_id)
    scores = traps.score_training_loop(model, test, test)
    # Attention is causal, so shorter padding gives the same scores up to there.
    lengths = [*(2**k for k in range(5, 30) if len(rows[0]) < 2**k < length), length]
    by_length = {n: perplexity(nll(scores.where(scores.position < n))) for n in lengths}
    trap = Trap(
        "padding counted",
        "perplexity",
        by_length[length],
        _code_perplexity(model, corpus),
        f"Of {length - 1} predicted tokens {length - len(rows[0])} are padding, and free.",
        "test_padding_never_changes_nll",
    )
    return trap, by_length


def train_with_shifted_labels(corpus: Corpus, steps: int, seed: int) -> dict[str, Trap]:
    """Labels shifted by hand for a model that shifts them itself: to the left, and to the right."""
    mistakes = {
        "labels shifted twice": (traps.shift_labels, "It learned the token after the next one."),
        "two shifts that cancel": (traps.shift_inputs, "It learned to repeat the token it sees."),
    }
    results = {}
    for name, (shift, cause) in mistakes.items():
        inputs, labels = shift(_read_rows(corpus, "train"))
        model = _small_lm(corpus, len(inputs[0]) + 1, seed)
        model = fit_small_model(model, inputs, labels, steps, seed)
        scores = traps.score_training_loop(model, *shift(_read_rows(corpus, "test")))
        results[name] = Trap(
            name,
            "perplexity",
            perplexity(nll(scores.of_kind(corpus.kinds, KIND_CODE))),
            _code_perplexity(model, corpus),
            cause,
            "test_the_trainers_loss_is_our_own_nll",
        )
    return results


def train_with_class_in_input(corpus: Corpus, steps: int, seed: int) -> Trap:
    """A classifier whose input holds the class, measured with it and without it."""
    rows, test = _read_rows(corpus, "train"), _read_rows(corpus, "test")
    inputs = traps.prompts_with_class(rows, corpus.class_ids)
    model = build_classifier(_size(len(rows[0])), corpus.vocab, len(corpus.class_ids), seed)
    model = fit_small_model(model, inputs, _labels(corpus, "train"), steps, seed)
    leaky, truth = traps.prompts_with_class(test, corpus.class_ids), _labels(corpus, "test")
    accuracy = [
        proportion(classifier_probabilities(model, prompts).argmax(1) == truth)
        for prompts in (leaky, [row[:-1] for row in leaky])
    ]
    return Trap(
        "class left in the input",
        "test digits classified correctly",
        *accuracy,
        "The last token it was shown is the answer.",
        "test_no_input_of_a_classifier_holds_a_class",
    )


def train_with_label_cut_off(corpus: Corpus, max_length: int, steps: int, seed: int) -> Trap:
    """The same rows cut from the right, and cut so that their class stays; one model for each."""
    cut = traps.truncate_right(_read_rows(corpus, "train"), max_length)
    shortened = _read_rows(corpus, "train", max_length)
    test = traps.prompts_with_class(_read_rows(corpus, "test", max_length), corpus.class_ids)
    prompts, accuracy = [row[:-1] for row in test], []
    for rows in (cut, shortened):
        model = _small_lm(corpus, max_length, seed)
        model = fit_small_model(model, rows, rows, steps, seed, 2 * BATCH)
        predicted = class_probabilities(model, prompts, corpus.class_ids).argmax(1)
        accuracy.append(proportion(predicted == _labels(corpus, "test")))
    return Trap(
        "label cut off",
        "test digits classified correctly",
        *accuracy,
        "Cut from the right, no training row had its class left.",
        "test_shortening_keeps_head_and_tail_and_the_last_codes",
    )


def fit_small_model(
    model, inputs: Rows, labels: Sequence, steps: int, seed: int, batch_size: int = BATCH
):
    """Train on ``model(inputs, labels=labels).loss``; returns the model."""
    model.to(default_device()).train()
    fit_attention(model, len(inputs[0]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = rng.integers(0, len(inputs), batch_size)
        batch = (torch.tensor([some[i] for i in chosen]) for some in (inputs, labels))
        ids, targets = (tensor.to(model.device) for tensor in batch)
        loss = model(ids, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def _size(n_positions: int) -> ModelConfig:
    return ModelConfig(n_layer=2, n_head=2, n_embd=64, n_positions=n_positions, dropout=0.0)


def _small_lm(corpus: Corpus, n_positions: int, seed: int):
    return build_lm(_size(n_positions), corpus.vocab, seed)


def _read_rows(corpus: Corpus, split: str, max_length: int | None = None) -> list[list[int]]:
    rows = [record.tokens for record in corpus.records(split, "read")[:TRAIN_ROWS]]
    return corpus.ids([shorten(row, max_length or len(row)) for row in rows])


def _labels(corpus: Corpus, split: str) -> np.ndarray:
    """The class of each of these rows. (N,) int64."""
    return np.array([record.label for record in corpus.records(split, "read")[:TRAIN_ROWS]])


def _code_perplexity(model, corpus: Corpus) -> Estimate:
    scores = score_tokens(model, _read_rows(corpus, "test"))
    return perplexity(nll(scores.of_kind(corpus.kinds, KIND_CODE)))


def measure_siblings(
    model, corpus: Corpus, book: PatchCodebook, pictures: Pictures, augmentation: DataConfig
) -> Trap:
    """New copies of images that the model learned from, against new copies of test images.

    `augmentation` is that of the training data with another seed: no copy was seen in training.
    """
    once = replace(augmentation, copies=1)
    rng = np.random.default_rng(augmentation.seed)
    splits = pictures.of("train"), pictures.of("test")
    n = min(len(labels) for _, labels in splits)
    measured = []
    for images, labels in splits:
        chosen = rng.permutation(len(images))[:n]
        codes = book.encode(augment(images[chosen], once, LEVELS[augmentation.source]))  # (n, P)
        rows = [read_layout(row, k) for row, k in zip(codes, labels[chosen], strict=True)]
        scores = score_tokens(model, corpus.ids(rows))
        measured.append(perplexity(nll(scores.of_kind(corpus.kinds, KIND_CODE))))
    return Trap(
        "siblings across the split",
        "perplexity",
        *measured,
        "Other copies of the measured images were trained on.",
        "test_no_source_stands_on_two_sides",
    )


def measure_twins(corpus: Corpus, copies: int, seed: int) -> Trap:
    """Classify by the nearest row, with rows split at random and with sources split."""
    records = first_copies(corpus, copies)
    sources = np.unique([record.source for record in records])
    drawn = set(np.random.default_rng(seed).permutation(sources)[: max(1, len(sources) // 5)])
    by_source = {
        "train": [record for record in records if record.source not in drawn],
        "test": [record for record in records if record.source in drawn],
    }
    return Trap(
        "twins across the split",
        "digits classified correctly by the nearest row",
        proportion(nearest_row_hits(**traps.split_rows(records, seed))),
        proportion(nearest_row_hits(**by_source)),
        "The nearest row is the same image in its other layout.",
        "test_sources_and_duplicates_stay_on_one_side",
    )


def first_copies(corpus: Corpus, copies: int) -> list[Record]:
    """The training rows of originals and of their first `copies` copies, in both layouts."""
    return [r for r in corpus.splits["train"] if r.meta.get("copy", 0) <= copies]


def nearest_row_hits(train: Sequence[Record], test: Sequence[Record]) -> np.ndarray:
    """Whether the train row with the most codes in common is of the same class. (n,) bool.

    For one row of each source in `test`, at most `NEIGHBOUR_ROWS`.
    """
    chosen = list({record.source: record for record in test}.values())[:NEIGHBOUR_ROWS]
    known, codes = (np.array([codes_of(r.tokens) for r in some]) for some in (train, chosen))
    nearest = [(known != row).sum(1).argmin() for row in codes]  # of (N, P), for each (P,)
    return np.array([train[i].label == r.label for i, r in zip(nearest, chosen, strict=True)])


def drop_prefixes(scores: TokenScores, seed: int) -> TokenScores:
    """Scores without a random number of first tokens of each row, so that rows become ragged."""
    counts = np.bincount(scores.row, minlength=scores.n_rows)  # (rows,)
    dropped = np.random.default_rng(seed).integers(0, np.maximum(counts, 1))
    place = np.arange(len(scores.row)) - (np.cumsum(counts) - counts)[scores.row]
    return scores.where(place >= dropped[scores.row])


def measure_batch_means(scores: TokenScores, batch_size: int) -> Trap:
    """The mean of batch means against the mean over tokens, of the same scores."""
    return Trap(
        "mean of batch means",
        "perplexity",
        perplexity(traps.mean_of_batch_means(scores, batch_size)),
        perplexity(nll(scores)),
        "A batch of short rows weighs as much as one of long rows, and short rows are easier.",
        "test_batch_size_never_changes_nll",
    )


def train_candidates(pictures: Pictures, many: int, n_images: int, seed: int) -> np.ndarray:
    """`many` logistic regressions, each on the pixels of `n_images` random training images.

    Returns which classifies which test image correctly, (many, N) bool.
    """
    (train, labels), (test, truth) = pictures.of("train"), pictures.of("test")
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    rng, hits = np.random.default_rng(seed), []
    with threadpool_limits(1, "blas"):  # more threads would spend their time waiting
        for _ in range(many):
            some = rng.permutation(len(train))[:n_images]
            model = LogisticRegression(max_iter=200).fit(train[some], labels[some])
            hits.append(model.predict(test) == truth)
    return np.array(hits)


def measure_best_of_many(hits: np.ndarray, halvings: int, seed: int) -> Trap:
    """The best of many candidates on the half of test that selected it, and on the other half.

    `hits` (C, N) bool. Both are means over `halvings` random halvings of the same images, which are
    not independent, so there is no interval.
    """
    reported, true = traps.select_on_test(hits, halvings, seed)
    n, unknown = hits.shape[1], {"low": -np.inf, "high": np.inf, "unit": "share"}
    return Trap(
        "best of many, picked on test",
        f"test digits classified correctly by the best of {len(hits)}",
        Estimate(float(reported.mean()), n=n // 2, **unknown),
        Estimate(float(true.mean()), n=n - n // 2, **unknown),
        "The best of many on one half was also the luckiest there: in "
        f"{(reported > true).mean():.0%} of {halvings} halvings it did worse on the other half.",
        "test_the_best_of_many_is_flattered_where_it_was_picked",
    )
