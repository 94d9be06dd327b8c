"""Quantise an exported model to 8 bits per weight, and measure what that costs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqlm.data.corpus import Corpus
from seqlm.data.tokens import KIND_CODE, read_vocab
from seqlm.deploy.onnx_model import load_onnx, quiet
from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.scores import class_probabilities, score_tokens
from seqlm.evaluation.significance import Comparison, mcnemar, paired_difference
from seqlm.models.gpt2 import is_classifier, load_model


@dataclass(frozen=True)
class QuantisationLoss:
    """What an exported model loses against the torch model it came from, on the same rows."""

    split: str
    nll: Estimate | None = None  # of code tokens, exported minus torch; None for a classifier
    exported: Estimate | None = None  # accuracy on the labelled rows; None without any
    torch: Estimate | None = None
    classes: Comparison | None = None  # McNemar's of the two, the exported model first

    def __str__(self) -> str:
        parts = [f"On the {self.split} rows."]
        if self.nll is not None:
            nll = self.nll.map(lambda nats: 1000 * nats, "thousandths of a nat per token")
            parts.append(f"NLL of code tokens, exported minus torch: {nll}.")
        if self.classes is not None:
            parts.append(
                f"Accuracy of classes: {self.exported} exported, {self.torch} in torch. "
                f"{self.classes}"
            )
        return " ".join(parts)


def quantisation_loss(
    corpus: Corpus, directory: Path, onnx_directory: Path, split: str = "val"
) -> QuantisationLoss:
    """Compare the model exported to `onnx_directory` with the torch model in `directory`.

    A language model is scored on the code tokens of all rows of `split`, rows of one source
    resampled together; classes are predicted for the labelled rows in the read layout, where both
    the rows and the vocabulary have any. Raises DataError when there is nothing to measure, or the
    vocabulary of `corpus` is not the model's.
    """
    if read_vocab(Path(directory) / "vocab.json") != corpus.vocab:
        raise DataError(f"{directory}: the data has another vocabulary than this model")
    pair, results = (load_onnx(onnx_directory), load_model(directory)), {}
    classifies = is_classifier(directory)
    if not classifies:
        rows = corpus.rows(split)
        codes = [score_tokens(model, rows).of_kind(corpus.kinds, KIND_CODE) for model in pair]
        results["nll"] = paired_difference(*codes, corpus.sources(split))
    if classifies or (corpus.class_ids and len(corpus.labelled(split))):
        prompts, labels = corpus.to_classify(split)
        exported, torch = (
            class_probabilities(model, prompts, corpus.class_ids).argmax(1) == labels
            for model in pair
        )  # (N,) bool each
        results |= {"exported": proportion(exported), "torch": proportion(torch)}
        results["classes"] = mcnemar(exported, torch)
    return QuantisationLoss(split, **results)


def quantise(graph: Path) -> None:
    """Put the weight matrices of the graph in this file in 8 bits.

    Dynamic quantisation: each column of a weight matrix has a fixed scale; a matrix of activations
    has one for the whole batch, so an answer depends a little on what else is in the batch.
    Embeddings, the output layer that shares theirs, norms and attention are not changed.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, weights = onnx.load(graph), graph.with_name(graph.name + ".data")
    large = weights.is_file()
    weights.unlink(missing_ok=True)  # onnx would append to it
    with quiet():
        quantize_dynamic(
            model,
            graph,
            op_types_to_quantize=["MatMul"],  # Gemm is turned into it
            per_channel=True,
            # Seven bits of the eight: processors without VNNI add two products in 16 bits, and
            # full-sized weights would overflow there, silently.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )


def relative_rmse(logits: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square difference from `reference`, as a share of its standard deviation."""
    spread = float(reference.std()) or 1.0
    return float(np.sqrt(np.mean((logits - reference) ** 2))) / spread
