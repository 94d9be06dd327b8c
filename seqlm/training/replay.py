"""Replay: mix old rows into the new ones, so that the model forgets less; check for leaks."""

import warnings
from dataclasses import replace

import numpy as np

from seqlm.data.corpus import Corpus
from seqlm.errors import DataError, DataWarning


def with_replay(
    corpus: Corpus, old: Corpus, share: float, classifies: bool = False, seed: int = 42
) -> Corpus:
    """`corpus` with old train rows appended to its own, so many that they are `share` of all.

    They are drawn at random, none twice before all have been drawn once, and never one whose codes
    are those of a new row in val or test. A classifier gets those it can learn from: labelled, in
    the read layout. `corpus` itself where `share` (0 or more, below 1) is 0. Raises DataError when
    no old row can be replayed.
    """
    if not share:
        return corpus
    own, pool = (c.labelled("train") if classifies else c.records("train") for c in (corpus, old))
    pool = pool[~np.isin(pool.column("codes"), _held_out_codes(corpus))]
    wanted, rng = round(len(own) * share / (1 - share)), np.random.default_rng([seed, 4])
    if not len(pool):
        kind = "labelled train row in the read layout" if classifies else "train row"
        raise DataError(
            f"{old.path}: no row can be replayed: it holds no {kind} whose codes are not those of "
            "a new row in val or test; bring other old rows, or set replay to 0"
        )
    drawn = [rng.permutation(len(pool)) for _ in range(-(-wanted // len(pool)))]
    replayed = pool[np.concatenate([np.empty(0, np.int64), *drawn])[:wanted]]
    return replace(corpus, splits=corpus.splits | {"train": own + replayed})


def warn_of_shared(corpus: Corpus, old: Corpus, split: str, replayed: bool = False) -> None:
    """Warn of rows that are learned from on one side and measured on the other, either way.

    The starting model has learned from the train rows of `old`, and forgetting is measured on its
    `split`. Where old rows are `replayed`, those that leak are left out, and the warning says so.
    """
    learned = _count_among(corpus, "train", _codes(old, split))
    known = _codes(old, "train")
    counts = {name: _count_among(corpus, name, known) for name in ("val", "test")}
    messages = []
    if learned:
        messages.append(
            f"{corpus.path}: of its rows {learned:,} in train hold the same codes as rows of "
            f"{old.path} that forgetting is measured on, so it will look smaller than it is; take "
            "them out"
        )
    if any(counts.values()):
        leaked = " and ".join(f"{n:,} in {name}" for name, n in counts.items() if n)
        dropped = _count_among(old, "train", _held_out_codes(corpus))
        left_out = f"; old rows like them ({dropped}) are not replayed" if replayed else ""
        messages.append(
            f"{corpus.path}: of its rows {leaked} hold the same codes as train rows of {old.path}, "
            "which the starting model has learned from, so both models will look better than "
            f"they are{left_out}; take them out"
        )
    for message in messages:
        warnings.warn(message, DataWarning, stacklevel=3)


def _codes(corpus: Corpus, split: str) -> np.ndarray:
    """Hashes of the codes of each row; equal tokens have equal ids on both sides. (N,)."""
    return corpus.records(split).column("codes")


def _held_out_codes(corpus: Corpus) -> np.ndarray:
    return np.concatenate([_codes(corpus, name) for name in ("val", "test")])


def _count_among(corpus: Corpus, split: str, codes: np.ndarray) -> int:
    return int(np.isin(_codes(corpus, split), codes).sum())
