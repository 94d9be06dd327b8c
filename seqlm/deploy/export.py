"""`seqlm export`: write a trained model as ONNX, and check it against torch.

ONNX is a file format for networks that many runtimes read: in a browser, on a phone, in C++.
torch's own exporter traces the graph, for any batch, length, and length of a key-value cache.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData
from transformers import GPT2Config, PreTrainedModel

from seqlm.atomic import atomic_dir
from seqlm.data.build import CODEBOOK
from seqlm.data.corpus import Corpus
from seqlm.data.tokenizer import load_tokenizer, save_tokenizer
from seqlm.data.tokens import KIND_CODE, read_vocab
from seqlm.deploy.onnx_model import (
    GRAPH,
    OnnxModel,
    check_graph,
    load_onnx,
    quantise,
    write_graph,
)
from seqlm.errors import DataError, SeqlmError, needs_extra
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.scores import class_probabilities, score_tokens
from seqlm.evaluation.significance import Comparison, mcnemar, paired_difference
from seqlm.models.gpt2 import finite, is_classifier, load_model
from seqlm.ownership import check_output, locked
from seqlm.utils import fill_template, write_text

TOLERANCE = 1e-4  # how far a logit may be from torch's
ROUNDING = 1e-5  # and that share of the logit, for models whose logits go into the hundreds
MAX_RMSE = 0.5  # int8 is approximate; beyond this it is broken


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


@dataclass(frozen=True)
class ExportResult:
    """What `export_model` wrote."""

    directory: Path
    megabytes: float  # of the graph with its weights
    difference: float  # the largest of a logit from torch's, before any quantisation
    int8: bool
    loss: QuantisationLoss | None = None  # against torch, where it was measured

    def __str__(self) -> str:
        before, loss = " before int8" * self.int8, f"\n{self.loss}" if self.loss else ""
        return (
            f"{self.directory}/{GRAPH}: {self.megabytes:.1f} MB, logits within "
            f"{self.difference:.0e} of torch's{before}{loss}"
        )


def export_model(
    directory: Path,
    output_dir: Path,
    cache: bool = True,
    int8: bool = False,
    corpus: Corpus | None = None,
    overwrite: bool = False,
) -> ExportResult:
    """Write the model in `directory` as ONNX to `output_dir`, and check it against torch.

    config.json, the tokenizer's files, the codebook and a card are written beside the graph. A
    classifier never has a cache. `int8` puts the weights in 8 bits. With a `corpus` the loss on
    its val rows is measured and stands in the card. `output_dir` appears whole or not at all, and
    replaces an earlier export, or with `overwrite` whatever is there.

    Raises ConfigError for settings that cannot work and a missing package, DataError when
    `directory` holds no model of ours, SeqlmError when the graph does not answer as torch does.
    """
    directory, output_dir = Path(directory), Path(output_dir)
    cache = cache and not is_classifier(directory)
    check_output(output_dir.parent, [output_dir.name], overwrite, directory)
    with needs_extra("export"):
        for package in ("onnx", "onnxruntime", "onnxscript"):
            import_module(package)
    tokenizer = load_tokenizer(directory)
    # The attention that is written out step by step can be traced.
    model = load_model(directory).float().cpu().eval()
    model.set_attn_implementation("eager")
    if is_classifier(model) and model.config.pad_token_id is None:
        raise DataError(
            f"{directory}/config.json: pad_token_id is missing, so the graph could not tell "
            "where a row ends; write it there"
        )
    lock = locked(output_dir.parent, [output_dir], f".{output_dir.name}.lock")
    with lock, atomic_dir(output_dir, "export") as aside:
        model.config.save_pretrained(aside)
        save_tokenizer(tokenizer, aside)
        if (directory / CODEBOOK).is_file():
            shutil.copyfile(directory / CODEBOOK, aside / CODEBOOK)
        write_graph(model, aside / GRAPH, cache)
        difference = verify(model, aside)
        if int8:
            quantise_export(model, aside)
        loss = quantisation_loss(corpus, directory, aside) if corpus else None
        card = onnx_card(model.config, cache, int8, difference, loss, _license(directory))
        write_text(aside / "README.md", card)
        size = sum(file.stat().st_size for file in aside.glob(GRAPH + "*"))
    return ExportResult(output_dir, size / 1e6, difference, int8, loss)


def _test_inputs(config: GPT2Config) -> list[np.ndarray]:
    """Random ids (B, T) of several sizes, one token and all positions among them.

    A classifier also gets rows that padding fills up on the right.
    """
    n, rng = config.n_positions, np.random.default_rng(0)
    sizes = [(1, 1), (4, 1), (1, 2), (3, min(7, n)), (5, min(19, n)), (1, n), (2, n)]
    inputs = [rng.integers(0, config.vocab_size, size) for size in sizes]
    if is_classifier(config):
        padded = inputs[4].copy()
        for row, ids in enumerate(padded):
            ids[max(1, len(ids) - 2 * row) :] = config.pad_token_id
        inputs.append(padded)
    return inputs


def verify(model: PreTrainedModel, directory: Path) -> float:
    """The largest difference of a logit in `directory` from torch's, on random rows.

    With a cache each row is also read in pieces. Raises SeqlmError when a logit is further from
    torch's than `TOLERANCE`.
    """
    exported, largest = load_onnx(directory), 0.0
    for ids in _test_inputs(exported.config):
        expected = torch_logits(model, ids)
        answers = [exported.run(ids, use_cache=False)[0]]
        if exported.has_cache:
            answers.append(_run_in_pieces(exported, ids))
        for logits in answers:
            difference = float(np.abs(logits - expected).max())
            if not np.allclose(logits, expected, rtol=ROUNDING, atol=TOLERANCE):
                raise SeqlmError(
                    f"the exported model's logits lie up to {difference:.1g} from torch's for ids "
                    f"of shape {ids.shape}, more than {TOLERANCE:g}, so it was not kept; export "
                    "with the versions in constraints.txt"
                )
            largest = max(largest, difference)
    return largest


@torch.inference_mode()
def torch_logits(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """torch's own logits for ids (B, T); NotFiniteError where they are no numbers."""
    return finite(model(torch.from_numpy(ids), use_cache=False).logits.float()).numpy()


def _run_in_pieces(model: OnnxModel, ids: np.ndarray) -> np.ndarray:
    """Logits (B, T, V) of ids (B, T) read one, then three, then one, … at a time."""
    cuts = np.cumsum([1, 3] * (ids.shape[1] // 4 + 1))
    past, pieces = None, []
    for piece in np.split(ids, cuts[cuts < ids.shape[1]], axis=1):
        logits, past = model.run(piece, past)
        pieces.append(logits)
    return np.concatenate(pieces, axis=1)


def quantisation_loss(
    corpus: Corpus, directory: Path, exported: Path | PreTrainedModel, split: str = "val"
) -> QuantisationLoss:
    """Compare a model that was `exported`, or its ONNX folder, with the one in `directory`.

    A language model is scored on the code tokens of all rows of `split`, rows of one source
    resampled together; classes are predicted for the labelled rows in the read layout, where both
    the rows and the vocabulary have any. Raises DataError when there is nothing to measure, or the
    vocabulary of `corpus` is not the model's.
    """
    if read_vocab(Path(directory) / "vocab.json") != corpus.vocab:
        raise DataError(f"{directory}: the data has another vocabulary than this model")
    exported = load_onnx(exported) if isinstance(exported, Path) else exported
    pair, results = (exported, load_model(directory)), {}
    classifies = is_classifier(directory)
    if not classifies:
        rows = corpus.rows(split)
        codes = [score_tokens(model, rows).of_kind(corpus.kinds, KIND_CODE) for model in pair]
        results["nll"] = paired_difference(*codes, corpus.sources(split))
    if classifies or (corpus.class_ids and len(corpus.labelled(split))):
        prompts, labels = corpus.to_classify(split)
        ours, torch = (
            class_probabilities(model, prompts, corpus.class_ids).argmax(1) == labels
            for model in pair
        )  # (N,) bool each
        results |= {"exported": proportion(ours), "torch": proportion(torch)}
        results["classes"] = mcnemar(ours, torch)
    return QuantisationLoss(split, **results)


def relative_rmse(logits: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square difference from `reference`, as a share of its standard deviation."""
    spread = float(reference.std()) or 1.0
    return float(np.sqrt(np.mean((logits - reference) ** 2))) / spread


def quantise_export(model: PreTrainedModel, directory: Path) -> None:
    """Put the weights of the verified graph in `directory` in 8 bits, and check that it works.

    Raises SeqlmError when its logits are too far from those of `model`.
    """
    quantise(directory / GRAPH)
    check_graph(directory / GRAPH)
    exported = load_onnx(directory)
    errors = [
        relative_rmse(exported.run(ids, use_cache=False)[0], torch_logits(model, ids))
        for ids in _test_inputs(exported.config)
    ]
    if not max(errors) < MAX_RMSE:  # also when it is not a number
        raise SeqlmError(
            f"in int8 the logits lie {max(errors):.0%} of their spread from torch's, so little is "
            "left of the model and it was not kept; export without int8"
        )


def _license(directory: Path) -> str | None:
    """The licence in the card of the source model, where it has one."""
    with suppress(Exception):  # a card that its user wrote may hold anything
        return ModelCard.load(directory / "README.md").data.license
    return None


def onnx_card(
    config: GPT2Config,
    cache: bool,
    int8: bool,
    difference: float,
    loss: QuantisationLoss | None = None,
    license: str | None = None,
) -> str:
    """README.md of an export: its inputs and outputs, an example, how close it is to torch."""
    classifies = is_classifier(config)
    front = ModelCardData(
        library_name="onnx",
        pipeline_tag="text-classification" if classifies else "text-generation",
        license=license,
        tags=["onnx", "gpt2", "seqlm", "token-sequences"],
    )
    return fill_template(
        "deploy/onnx_card.md",
        card_data=front.to_yaml(),
        config=config,
        classifies=classifies,
        width=config.n_embd // config.n_head,
        cache=cache,
        int8=int8,
        difference=f"{difference:.1e}",
        loss=loss,
    )
