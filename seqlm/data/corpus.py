"""A data set in three splits, with its vocabulary: what training and evaluation read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from seqlm.config import DataFiles
from seqlm.data.arrow import read_table
from seqlm.data.records import SPLITS, Record
from seqlm.data.splits import split_records
from seqlm.data.table import Ids, Table, first_rows
from seqlm.data.tokenizer import build_tokenizer, encode_tokens
from seqlm.data.tokens import class_ids, read_vocab, reading_prompt, token_kinds
from seqlm.errors import DataError, error_prefix

MAX_CLASSES = 1_000  # a confusion matrix has so many rows and columns


@dataclass(frozen=True, eq=False)
class Corpus:
    """Rows in three splits: a `Table` each where they were read, or a list."""

    vocab: dict[str, int]  # token -> id
    splits: dict[str, Sequence[Record]]  # "train", "val" and "test" -> records
    max_length: int | None = None  # the length that longer rows were cut to
    path: Path | None = None  # the file of the rows, for messages
    left_out: tuple[str, ...] = ()  # rows taken out of a split, and why, a sentence each

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A Hugging Face tokenizer with exactly the vocabulary's ids, and `max_length`."""
        length = {} if self.max_length is None else {"model_max_length": self.max_length}
        return build_tokenizer(self.vocab, **length)

    @cached_property
    def kinds(self) -> np.ndarray:
        """What each id is: structural, code or class. (V,) int8."""
        return token_kinds(self.vocab)

    @cached_property
    def class_ids(self) -> list[int]:
        """Ids of the class tokens, in the order of the classes."""
        return class_ids(self.vocab)

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {name: Table.of(records, self.vocab) for name, records in self.splits.items()}

    def records(self, split: str, layout: str | None = None) -> Table:
        """Rows of one split, and of one layout ("read", "draw", "other") when it is named."""
        rows = self._tables[split]
        return rows[:] if layout is None else rows.of_layout(layout)

    def rows(self, split: str, layout: str | None = None) -> Ids:
        """Ids of one split: what a language model learns from and is scored on."""
        return self.records(split, layout).ids()

    def sources(self, split: str, layout: str | None = None) -> np.ndarray:
        """The number of each row's source; a row that names none is a source of its own. (N,)."""
        first = first_rows(self.records(split, layout).column("source"))
        return np.unique(first, return_inverse=True)[1]

    def ids(self, sentences: Sequence[Sequence[str]]) -> list[list[int]]:
        """Tokens -> ids."""
        return [encode_tokens(tokens, self.vocab) for tokens in sentences]

    def labelled(self, split: str) -> Table:
        """Rows of one split that can be classified: those in the read layout with a label."""
        rows = self.records(split, "read")
        return rows[rows.column("label") >= 0]

    def to_classify(self, split: str) -> tuple[Ids, np.ndarray]:
        """Prompts that end at ``<CLS>``, with no class in them, and labels (N,) int64.

        Raises DataError when the split holds no labelled row in the read layout.
        """
        chosen = self.labelled(split)
        if not len(chosen):
            path = f"{self.path}: " if self.path else ""
            raise DataError(
                f"{path}the {split} split holds no row with a label in the read layout "
                "(<IMG> … </IMG> <CLS> …), so there is nothing to classify"
            )
        for wrong in np.flatnonzero(chosen.column("prompt") < 0)[:1]:
            with error_prefix(f"{self.path}:{chosen[wrong].line}"):
                reading_prompt(chosen[wrong].tokens)  # raises
        return chosen.ids("prompt"), chosen.column("label")

    def count_classes(self) -> int:
        """How many classes a classifier of these rows needs.

        Raises DataError when the labelled train rows are all of one class, or there are none, or
        there would be more than MAX_CLASSES.
        """
        labels = self.to_classify("train")[1]
        if len(np.unique(labels)) < 2:
            path = f"{self.path}: " if self.path else ""
            raise DataError(
                f"{path}all labelled train rows are of class {labels[0]}; a classifier needs rows "
                "of at least two classes"
            )
        n_classes = len(self.class_ids)
        for split in self.splits:
            labels = self.records(split, "read").column("label")
            n_classes = max(n_classes, 1 + int(labels.max(initial=0)))
            if n_classes > MAX_CLASSES:
                at = f"{self.path}:{self.records(split, 'read')[labels.argmax()].line}"
                raise DataError(
                    f"{at}: label: {n_classes - 1} would make {n_classes:,} classes, more than the "
                    f"{MAX_CLASSES:,} of a classifier; number the classes from 0 without gaps"
                )
        return n_classes

    @property
    def longest(self) -> int:
        """Tokens in the longest row of any split."""
        return max(int(self.rows(split).lengths.max(initial=0)) for split in self.splits)


def load_corpus(
    files: DataFiles,
    max_length: int | None = None,
    vocab: dict[str, int] | None = None,
    divide: bool = True,
) -> Corpus:
    """Read, check, shorten to `max_length` and split what `files` names.

    `vocab` takes the place of `files.vocab_path`. Without `divide` all rows are in one split,
    "all". Raises DataError for anything that breaks the data contract.
    """
    vocab = read_vocab(files.vocab_path) if vocab is None else vocab
    records = read_table(
        files.data_path,
        vocab,
        repair_tail=files.repair_tail,
        allow_unknown=files.allow_unknown,
        max_length=max_length,
    )
    if not divide:
        nothing = dict.fromkeys(SPLITS, records[:0])
        return Corpus(vocab, {**nothing, "all": records}, max_length, files.data_path)
    try:
        splits = split_records(
            records, test_size=files.test_size, val_size=files.val_size, seed=files.split_seed
        )
    except DataError as error:
        raise DataError(f"{files.data_path}: {error}") from error
    return Corpus(vocab, splits, max_length, files.data_path)
