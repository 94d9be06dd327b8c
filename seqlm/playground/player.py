"""A trained model with its codebook and test images, as the playground uses it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np

from seqlm.config import SampleConfig
from seqlm.data import tokens
from seqlm.data.build import CODEBOOK, IMAGES, load_pictures
from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokenizer import encode_tokens, load_tokenizer, vocabulary_of
from seqlm.errors import DataError
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import draw
from seqlm.models.gpt2 import load_lm
from seqlm.models.tracing import Trace, attention_weights, trace


@dataclass(frozen=True, eq=False)
class Player:
    """A language model of images, for use from several threads.

    Attributes:
        directory: the model's.
        model: a GPT2LMHeadModel.
        vocab: token -> id.
        book: the codebook of its codes.
        images: (N, H, W) test images, not used in training; there may be none.
        labels: (N,) their classes.
    """

    directory: Path
    model: object
    vocab: dict[str, int]
    book: PatchCodebook
    images: np.ndarray
    labels: np.ndarray
    # For one call at a time: `attention` changes how the model computes meanwhile.
    lock: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def load(cls, directory: Path, data: Path | None = None) -> "Player":
        """The model in `directory`, and test images: those beside it, else of the data in `data`.

        Raises DataError when there is no such model, no codebook lies beside it, the codebook has
        more codes than the model's vocabulary, or its images are too long for the model or of
        another size than those in `data`.
        """
        model, vocab = load_lm(directory), vocabulary_of(load_tokenizer(directory))
        book = PatchCodebook.load(directory / CODEBOOK)
        n_codes = int((tokens.token_kinds(vocab) == tokens.KIND_CODE).sum())
        n_classes = len(tokens.class_ids(vocab))
        if book.n_codes > n_codes or not n_classes:
            raise DataError(
                f"{directory}: its codebook has {book.n_codes} codes and its vocabulary {n_codes}, "
                f"with {n_classes} classes; the playground needs a model of images with classes, "
                "as `make report` trains it"
            )
        length, most = book.n_patches + 3, model.config.n_positions  # <IMG> codes </IMG> <CLS>
        if length > most:
            raise DataError(
                f"{directory}: to classify an image takes {length} tokens and the model reads at "
                f"most {most}; train one with n_positions of {length} or more"
            )
        images, labels = np.zeros((0, *book.image_shape), np.float32), np.zeros(0, np.int64)
        folders = [folder for folder in (directory, data) if folder is not None]
        if data := next((folder for folder in folders if (folder / IMAGES).is_file()), None):
            images, labels = load_pictures(data).of("test")
            if images.shape[1:] != book.image_shape:
                sizes = ("x".join(map(str, s)) for s in (images.shape[1:], book.image_shape))
                raise DataError(
                    f"{data / IMAGES}: its images are {next(sizes)} pixels and the model's "
                    f"{next(sizes)}; use the data set that the model was trained with"
                )
        return cls(directory, model, vocab, book, images, labels)

    @property
    def n_classes(self) -> int:
        """The number of classes the model knows."""
        return len(tokens.class_ids(self.vocab))

    @property
    def half(self) -> tuple[int, int]:
        """The upper half, in whole rows of patches: how many codes, and how many rows of pixels."""
        rows, columns = self.book.grid
        return columns * (rows // 2), self.book.patch * (rows // 2)

    def draw(
        self, labels: Sequence[int | None], config: SampleConfig, prefix: np.ndarray | None = None
    ) -> np.ndarray:
        """An image for each label, continuing the codes `prefix` (N, p) if there are any. (N, P)"""
        n_patches, n_codes = self.book.n_patches, self.book.n_codes
        with self.lock:
            return draw(self.model, self.vocab, labels, n_patches, config, prefix, n_codes)

    def complete(
        self, codes: np.ndarray, label: int | None, config: SampleConfig, n: int = 5
    ) -> np.ndarray:
        """The upper half of `codes` (P,), continued `n` times. (n, P)

        With greedy and beam search all n are equal.
        """
        return self.draw([label] * n, config, np.tile(codes[: self.half[0]], (n, 1)))

    def trace_drawing(self, codes: np.ndarray, label: int | None, config: SampleConfig) -> Trace:
        """The next-token probabilities from which each of `codes` (P,) was drawn."""
        with self.lock:
            return trace(self.model, self.vocab, tokens.drawing_prompt(label), codes, config)

    def trace_reading(self, codes: np.ndarray) -> Trace:
        """The next-token probabilities at each of `codes` (P,) in the read layout."""
        with self.lock:
            return trace(self.model, self.vocab, (tokens.IMG,), codes)

    def classify(self, codes: np.ndarray) -> np.ndarray:
        """Class probabilities after ``<CLS>``, for codes (N, P). (N, C), rows sum to 1"""
        prompts = [encode_tokens(self.prompt(row), self.vocab) for row in codes]
        with self.lock:
            return class_probabilities(self.model, prompts, tokens.class_ids(self.vocab))

    def prompt(self, codes: np.ndarray) -> tuple[str, ...]:
        """The tokens that ask for the class of `codes` (P,): ``<IMG> codes </IMG> <CLS>``."""
        return tokens.reading_prompt(tokens.read_layout(codes, 0))

    def attention(self, codes: np.ndarray) -> np.ndarray:
        """Attention weights of every head over `prompt(codes)`. (n_layer, n_head, T, T)"""
        with self.lock:
            return attention_weights(self.model, encode_tokens(self.prompt(codes), self.vocab))
