"""What a model has learned from: kept with it, never measured, and replayed, to forget less."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seqlm.data.corpus import Corpus
from seqlm.data.table import Table
from seqlm.errors import DataError, DataWarning

LEARNED = "learned.npy"  # beside the weights
MAX_SHOWN = 5  # lines named in a message


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
    held_out = [corpus.records(name).column("codes") for name in ("val", "test")]
    pool = pool[~np.isin(pool.column("codes"), np.concatenate(held_out))]
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


def learned_rows(rows: Table, start: Path | None = None) -> np.ndarray | None:
    """Hashes of the codes of `rows`, and of all that the model in `start` has learned from.

    Sorted, (N,) int64: what LEARNED holds. None where `start` does not say what it learned from.
    """
    hashes = [rows.column("codes"), rows.column("original")]
    if start is not None:
        hashes.append(read_learned(start))
    return None if hashes[-1] is None else np.unique(np.concatenate(hashes))


def read_learned(directory: Path) -> np.ndarray | None:
    """What `learned_rows` saved with a model; None for a model that has no such file."""
    path = Path(directory) / LEARNED
    try:
        learned = np.load(path) if path.exists() else None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: the hashes of the training rows cannot be read ({error!s:.90}); train the "
            "model again, or remove the file to go on without them"
        ) from error
    return learned


def is_learned(rows: Table, learned: np.ndarray) -> np.ndarray:
    """Whether each of `rows` holds the codes of a row in `learned`, cut or not. (N,) bool."""
    return np.isin(rows.column("codes"), learned) | np.isin(rows.column("original"), learned)


def keep_unseen(
    corpus: Corpus,
    splits: Sequence[str],
    learned: np.ndarray | None,
    teacher: Path | str,
    only_unseen: bool | None = False,
) -> Corpus:
    """`corpus`, checked: no row of `splits` is among the `learned` ones, those of `teacher`.

    With `only_unseen` such rows are left out, and `left_out` says so. Raises DataError, naming how
    many and which lines, without it (None: the command has no such flag), or where no row would be
    left. Where `learned` is None nothing can be checked, and a warning says so.
    """
    if learned is None:
        message = (
            f"{teacher}: this model does not say which rows it was trained on ({LEARNED} is "
            f"missing), so nobody can check whether {corpus.path} is measured on some of them"
        )
        warnings.warn(message, DataWarning, stacklevel=3)
        return corpus
    kept, sentences = dict(corpus.splits), list(corpus.left_out)
    for split in splits:
        rows = corpus.records(split)
        seen = is_learned(rows, learned)
        if not seen.any():
            continue
        count = f"{seen.sum():,} of the {len(rows):,} rows of {split}"
        lines = ", ".join(map(str, rows.column("line")[seen][:MAX_SHOWN]))
        more = ", …" if seen.sum() > MAX_SHOWN else ""
        if seen.all() or not only_unseen:
            no_flag = seen.all() or only_unseen is None
            fix = "bring other rows" if no_flag else "leave these rows out with --only_unseen"
            raise DataError(
                f"{corpus.path}: {count} (lines {lines}{more}) hold the codes of rows that "
                f"{teacher} was trained on, so their numbers would flatter; use the file and the "
                f"split settings of that training, or {fix}"
            )
        kept[split] = rows[~seen]
        sentences.append(f"{count} in {corpus.path.name}, because the model was trained on them")
    return replace(corpus, splits=kept, left_out=tuple(sentences))
