"""A trained model with all that one needs to play with it: no widgets here, they stand on this."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from threading import RLock

import numpy as np

from seqlm.config import SampleConfig
from seqlm.data.build import CODEBOOK, IMAGES, load_pictures
from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokenizer import encode_tokens, load_tokenizer, vocabulary_of
from seqlm.data.tokens import (
    IMG,
    KIND_CODE,
    class_ids,
    code_token,
    drawing_prompt,
    read_layout,
    reading_prompt,
    token_kinds,
)
from seqlm.errors import DataError
from seqlm.evaluation.scores import TokenScores, class_probabilities, score_tokens
from seqlm.models.generation import draw
from seqlm.models.gpt2 import load_lm
from seqlm.models.tracing import Trace, attention_weights, trace


def _alone(ask):
    """One question at a time: attention changes how the model computes while it is looked at."""

    @wraps(ask)
    def asked(self, *args, **kwargs):
        with self.lock:
            return ask(self, *args, **kwargs)

    return asked


@dataclass(frozen=True, eq=False)
class Player:
    """A language model of pictures, which several threads may ask.

    Attributes:
        directory: where the model lies.
        model: a GPT2LMHeadModel.
        vocab: token -> id.
        book: the code book its codes come from.
        images: (N, H, W) pictures it has not learned from; there may be none.
        labels: (N,) what they show.
    """

    directory: Path
    model: object
    vocab: dict[str, int]
    book: PatchCodebook
    images: np.ndarray
    labels: np.ndarray
    lock: RLock = field(default_factory=RLock, repr=False)

    @classmethod
    def load(cls, directory: Path, data: Path | None = None) -> "Player":
        """The model in `directory`, and the test pictures of the data set in `data`.

        Raises DataError when there is no such model, no code book lies beside it, the book has
        more codes than the model knows, or its pictures are too long for the model or of another
        size than those in `data`.
        """
        directory = Path(directory)
        model, vocab = load_lm(directory), vocabulary_of(load_tokenizer(directory))
        book = PatchCodebook.load(directory / CODEBOOK)
        known = int((token_kinds(vocab) == KIND_CODE).sum())
        if book.n_codes > known or not class_ids(vocab):
            raise DataError(
                f"{directory}: its code book has {book.n_codes} codes and its vocabulary {known}, "
                f"with {len(class_ids(vocab))} classes; the playground wants a model of pictures "
                "with classes, as `make report` makes one"
            )
        length, most = book.n_patches + 3, model.config.n_positions  # <IMG> codes </IMG> <CLS>
        if length > most:
            raise DataError(
                f"{directory}: a picture of its code book takes {length} tokens to read and the "
                f"model reads at most {most}; train one with n_positions of {length} or more"
            )
        images, labels = np.zeros((0, *book.image_shape), np.float32), np.zeros(0, np.int64)
        if data is not None and (Path(data) / IMAGES).is_file():
            images, labels = load_pictures(data).of("test")
            if images.shape[1:] != book.image_shape:
                given, known = ("x".join(map(str, s)) for s in (images.shape[1:], book.image_shape))
                raise DataError(
                    f"{Path(data) / IMAGES}: its pictures are {given} pixels and the model draws "
                    f"{known}; give the data set that the model was trained with"
                )
        return cls(directory, model, vocab, book, images, labels)

    @property
    def n_classes(self) -> int:
        """C, how many kinds of picture the model knows."""
        return len(class_ids(self.vocab))

    @property
    def half(self) -> tuple[int, int]:
        """The upper half, in whole rows of patches: how many codes, and how many rows of pixels."""
        rows, columns = self.book.grid
        return columns * (rows // 2), self.book.patch * (rows // 2)

    @_alone
    def draw(
        self,
        labels: Sequence[int | None],
        config: SampleConfig,
        begun: np.ndarray | None = None,
    ) -> np.ndarray:
        """A picture for each label, after the codes `begun` (N, p) if there are any. (N, P)"""
        n_patches, n_codes = self.book.n_patches, self.book.n_codes
        return draw(self.model, self.vocab, labels, n_patches, config, begun, n_codes)

    def complete(
        self, codes: np.ndarray, label: int | None, config: SampleConfig, n: int = 5
    ) -> np.ndarray:
        """The upper half of `codes` (P,) completed in `n` ways. (n, P)

        Greedy and beam search know one way only, so there the n are alike.
        """
        begun = np.tile(codes[: self.half[0]], (n, 1))
        return self.draw([label] * n, config, begun)

    @_alone
    def traced(self, codes: np.ndarray, label: int | None, config: SampleConfig) -> Trace:
        """What the model expected at each place while it drew `codes` (P,)."""
        return trace(self.model, self.vocab, drawing_prompt(label), codes, config)

    @_alone
    def read_along(self, codes: np.ndarray) -> Trace:
        """What the model expects at each place of `codes` (P,) that it is given to read."""
        return trace(self.model, self.vocab, (IMG,), codes)

    @_alone
    def scores(self, codes: np.ndarray, labels: Sequence[int | None]) -> TokenScores:
        """What each code of `codes` (N, P) costs the model, told what each picture shows."""
        rows = [
            encode_tokens([*drawing_prompt(label), *map(code_token, row)], self.vocab)
            for row, label in zip(codes, labels, strict=True)
        ]
        return score_tokens(self.model, rows).of_kind(token_kinds(self.vocab), KIND_CODE)

    @_alone
    def classes(self, codes: np.ndarray) -> np.ndarray:
        """Which digit is it? Read off after ``<CLS>``, for codes (N, P). (N, C), sums to 1."""
        prompts = [encode_tokens(self.reading(row), self.vocab) for row in codes]
        return class_probabilities(self.model, prompts, class_ids(self.vocab))

    def reading(self, codes: np.ndarray) -> tuple[str, ...]:
        """The sentence that asks which digit `codes` (P,) show, up to its ``<CLS>``."""
        return reading_prompt(read_layout(codes, 0))

    @_alone
    def attention(self, codes: np.ndarray) -> np.ndarray:
        """Where every head looks while the model reads `codes` (P,). (n_layer, n_head, T, T)"""
        return attention_weights(self.model, encode_tokens(self.reading(codes), self.vocab))
