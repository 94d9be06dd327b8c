"""Traps that are set after training: nothing wrong with the model, only with how it is measured."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.linear_model import LogisticRegression

from seqlm.config import DataConfig
from seqlm.data.build import Pictures
from seqlm.data.codebook import PatchCodebook
from seqlm.data.corpus import Corpus
from seqlm.data.images import LEVELS, augment
from seqlm.data.records import Record
from seqlm.data.tokens import KIND_CODE, codes_of, read_layout
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.metrics import nll, perplexity
from seqlm.evaluation.scores import TokenScores, score_tokens
from seqlm.lab.traps import Trap, mean_of_batch_means, picked_on_test, rows_at_random

TESTED = 400  # rows that a neighbour is looked for; each is compared with all the others


def siblings_measured(
    model, corpus: Corpus, book: PatchCodebook, pictures: Pictures, bending: DataConfig
) -> Trap:
    """Fresh copies of images that the model learned from, against fresh copies of test images.

    Both are bent in the same way, with a seed that training did not have, so no sentence need be
    known already; they differ only in whether siblings of theirs were trained on. `bending` is how
    the training copies were made, with the seed for these.
    """
    once = replace(bending, copies=1)
    rng = np.random.default_rng(bending.seed)
    n = min(np.sum(pictures.split == "train"), np.sum(pictures.split == "test"))
    found = {}
    for split in ("train", "test"):
        images, labels = pictures.of(split)
        chosen = rng.permutation(len(images))[:n]
        codes = book.encode(augment(images[chosen], once, LEVELS[bending.source]))  # (n, P)
        sentences = [read_layout(row, k) for row, k in zip(codes, labels[chosen], strict=True)]
        scores = score_tokens(model, corpus.ids(sentences))
        found[split] = perplexity(nll(scores.of_kind(corpus.kinds, KIND_CODE)))
    return Trap(
        "siblings across the split",
        "perplexity",
        "perplexity",
        found["train"],
        found["test"],
        "Other copies of the measured images were trained on.",
        "test_no_source_stands_on_two_sides",
        "low",
    )


def neighbours_measured(corpus: Corpus, copies: int, seed: int) -> Trap:
    """The class of the nearest row, with rows divided at random and with sources divided.

    Only originals and their first `copies` copies are used, of the train split. One row of each
    source is asked for, because rows of one source hang together.
    """
    records = first_copies(corpus, copies)
    sources = np.array([record.source for record in records])
    different = np.unique(sources)
    drawn = np.random.default_rng(seed).permutation(different)[: max(1, len(different) // 5)]
    tested = np.isin(sources, drawn)
    apart = {
        "train": [records[i] for i in np.flatnonzero(~tested)],
        "test": [records[i] for i in np.flatnonzero(tested)],
    }
    reported, true = (
        proportion(nearest_is_right(**sides)) for sides in (rows_at_random(records, seed), apart)
    )
    return Trap(
        "twins across the split",
        "digits read by the nearest row",
        "share",
        reported,
        true,
        "The nearest row is the same picture in its other layout.",
        "test_sources_and_duplicates_stay_on_one_side",
        "high",
    )


def first_copies(corpus: Corpus, copies: int) -> list[Record]:
    """The training rows of originals and of their first `copies` copies, in both layouts."""
    return [r for r in corpus.splits["train"] if r.meta.get("copy", 0) <= copies]


def nearest_is_right(train: Sequence[Record], test: Sequence[Record]) -> np.ndarray:
    """Whether the train row with the most codes in common is of the same class. (n,) bool.

    One row for each source in `test` is asked about, at most `TESTED`.
    """
    asked = list({record.source: record for record in test}.values())[:TESTED]
    known, codes = (np.array([codes_of(r.tokens) for r in some]) for some in (train, asked))
    nearest = [(known != row).sum(1).argmin() for row in codes]  # of (N, P), for each (P,)
    return np.array([train[i].label == r.label for i, r in zip(nearest, asked, strict=True)])


def unfinished(scores: TokenScores, seed: int) -> TokenScores:
    """Of each row only what follows a random number of given tokens, from none to all but one.

    So the rows of what is still to be predicted become ragged.
    """
    counts = np.bincount(scores.row, minlength=scores.n_rows)  # (rows,)
    given = np.random.default_rng(seed).integers(0, np.maximum(counts, 1))
    place = np.arange(len(scores.row)) - (np.cumsum(counts) - counts)[scores.row]
    return scores.where(place >= given[scores.row])


def ragged_batches(scores: TokenScores, batch_size: int) -> Trap:
    """The mean of batch means against the one mean, of the very same tokens of the same model."""
    return Trap(
        "mean of batch means",
        "perplexity",
        "perplexity",
        perplexity(mean_of_batch_means(scores, batch_size)),
        perplexity(nll(scores)),
        "A batch of short rows weighs as much as one of long rows, and short rows are easier.",
        "test_batch_size_never_changes_nll",
        "low",
    )


def candidates(pictures: Pictures, many: int, learn_from: int, seed: int) -> np.ndarray:
    """`many` logistic regressions, alike but for the images they learned from, asked on test.

    Each learns from the pixels of `learn_from` training images drawn at random. Returns which is
    right about which test image, (many, N) bool.
    """
    images, labels = pictures.of("train")
    asked, truth = pictures.of("test")
    known, unknown = images.reshape(len(images), -1), asked.reshape(len(asked), -1)
    rng, hits = np.random.default_rng(seed), []
    for _ in range(many):
        some = rng.permutation(len(known))[:learn_from]
        model = LogisticRegression(max_iter=200).fit(known[some], labels[some])
        hits.append(model.predict(unknown) == truth)
    return np.array(hits)


def best_of_many(hits: np.ndarray, halvings: int, seed: int) -> Trap:
    """The best of many candidates, reported on the half that picked it, against the other half.

    `hits` (C, N) bool. Both numbers are means over `halvings` random halvings of the same images.
    Halvings are not independent, so these means have no interval; n is the images in a half.
    """
    reported, true = picked_on_test(hits, halvings, seed)
    lucky, rest = (hits.shape[1] // 2, hits.shape[1] - hits.shape[1] // 2)
    unknown = {"low": float("-inf"), "high": float("inf"), "unit": "share"}
    return Trap(
        "best of many, picked on test",
        f"test digits read by the best of {len(hits)}",
        "share",
        Estimate(float(reported.mean()), n=lucky, **unknown),
        Estimate(float(true.mean()), n=rest, **unknown),
        "The best of many on one half was also the luckiest there: in "
        f"{(reported > true).mean():.0%} of {halvings} halvings it did worse on the other half.",
        "test_the_best_of_many_is_flattered_where_it_was_picked",
        "high",
    )
