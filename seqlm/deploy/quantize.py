"""Eight bits a weight: an exported model made small, and what that costs, measured."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqlm.data.corpus import Corpus
from seqlm.data.tokens import KIND_CODE, read_vocab
from seqlm.deploy.onnx_model import is_classifier, load_onnx
from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.scores import class_probabilities, classifier_probabilities, score_tokens
from seqlm.evaluation.significance import Comparison, mcnemar, paired_difference
from seqlm.models.gpt2 import check_model_directory, load_classifier, load_lm


@dataclass(frozen=True)
class QuantisationLoss:
    """What an exported model loses against the torch model it came from, on the same rows.

    Attributes:
        split: the rows it was measured on.
        nll: NLL of code tokens, exported minus torch; None for a classifier.
        exported, torch: accuracy of each on the split's labelled rows; None where it has none.
        classes: McNemar's comparison of the two, the exported model first; None likewise.
    """

    split: str
    nll: Estimate | None
    exported: Estimate | None
    torch: Estimate | None
    classes: Comparison | None

    def __str__(self) -> str:
        told = []
        if self.nll is not None:
            small = self.nll.map(lambda nats: 1000 * nats, "thousandths of a nat a token")
            told.append(f"NLL of code tokens, exported minus torch: {small}.")
        if self.classes is not None:
            told.append(
                f"Accuracy of classes: {self.exported} exported, {self.torch} in torch. "
                f"{self.classes}"
            )
        return f"On the {self.split} rows. " + " ".join(told)

    def to_json(self) -> dict:
        """For a metrics file."""
        parts = {name: getattr(self, name) for name in ("nll", "exported", "torch", "classes")}
        plain = {name: part and part.to_json() for name, part in parts.items()}
        return {"split": self.split, **plain}


def quantisation_loss(
    corpus: Corpus, directory: Path, onnx_directory: Path, split: str = "val"
) -> QuantisationLoss:
    """Hold the model exported to `onnx_directory` against the torch model in `directory`.

    A language model is scored on the code tokens of all rows of `split`, rows of one source
    resampled together; classes are read off the labelled rows in the read layout, where both the
    rows and the vocabulary have any. Raises DataError when there is nothing to measure, or the
    vocabulary of `corpus` is not the model's.
    """
    config = check_model_directory(directory)
    if read_vocab(Path(directory) / "vocab.json") != corpus.vocab:
        raise DataError(f"{directory}: the data has another vocabulary than this model")
    exported = load_onnx(onnx_directory)
    if is_classifier(config):
        prompts, labels = corpus.to_classify(split)
        found = [
            classifier_probabilities(m, prompts) for m in (exported, load_classifier(directory))
        ]
        return QuantisationLoss(split, None, *_compared(found, labels))
    pair, rows = (exported, load_lm(directory)), corpus.rows(split)
    codes = [score_tokens(model, rows).of_kind(corpus.kinds, KIND_CODE) for model in pair]
    nll = paired_difference(*codes, corpus.sources(split))
    if not (corpus.class_ids and corpus.labelled(split)):
        return QuantisationLoss(split, nll, None, None, None)
    prompts, labels = corpus.to_classify(split)
    found = [class_probabilities(model, prompts, corpus.class_ids) for model in pair]
    return QuantisationLoss(split, nll, *_compared(found, labels))


def _compared(found: list[np.ndarray], labels: np.ndarray) -> tuple[Estimate, Estimate, Comparison]:
    ours, theirs = (probabilities.argmax(1) == labels for probabilities in found)  # (N,) bool
    return proportion(ours), proportion(theirs), mcnemar(ours, theirs)


def quantise(source: Path, target: Path) -> None:
    """Write the graph at `source` with its weight matrices in 8 bits to `target`.

    Dynamic quantisation: each column of a weight matrix has a scale of its own, fixed here; a
    matrix of activations gets one scale for the whole batch as it comes, so that an answer depends
    a little on what else is in the batch. Embeddings, the output layer that shares
    theirs, norms and attention stay as they are.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quietly():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],  # Gemm is turned into it
            per_channel=True,
            # Seven bits of the eight: processors without VNNI add two products in 16 bits, and
            # full-sized weights would overflow there, silently.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=source.with_name(source.name + ".data").is_file(),
        )


@contextmanager
def quietly() -> Iterator[None]:
    """Libraries that talk of their own insides while they work, kept from the user's screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def relative_rmse(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square difference of two sets of logits, as a share of the spread of `wanted`."""
    spread = float(wanted.std()) or 1.0
    return float(np.sqrt(np.mean((found - wanted) ** 2))) / spread
