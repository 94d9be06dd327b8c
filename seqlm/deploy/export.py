"""`seqlm export`: a trained model as an ONNX graph, held against torch before anyone gets it.

ONNX is a file format for networks that many runtimes read: in a browser, on a phone, in C++. The
graph is traced by torch's own exporter. What may differ from call to call is named there: batch,
length, and with a key-value cache the length of the past.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from seqlm.data.build import CODEBOOK
from seqlm.data.corpus import Corpus
from seqlm.data.tokenizer import load_tokenizer, save_tokenizer
from seqlm.deploy.onnx_card import onnx_card
from seqlm.deploy.onnx_graph import check_graph, write_graph
from seqlm.deploy.onnx_model import GRAPH, INSTALL, OnnxModel, is_classifier, load_onnx
from seqlm.deploy.quantize import QuantisationLoss, quantisation_loss, quantise, relative_rmse
from seqlm.errors import ConfigError, DataError, SeqlmError
from seqlm.models.gpt2 import check_model_directory, load_classifier, load_lm
from seqlm.utils import atomic_dir, write_text

FORMATS = ("onnx",)
TOLERANCE = 1e-4  # how far a logit may lie from torch's
ROUNDING = 1e-5  # and that share of the logit, for models whose logits go into the hundreds
MOST_SPREAD_LOST = 0.5  # int8 is approximate; beyond this it is broken
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
_WRITTEN = {GRAPH, GRAPH + ".data", "config.json", "README.md", CODEBOOK, *_TOKENIZER}


@dataclass(frozen=True)
class ExportResult:
    """What `export_model` wrote.

    Attributes:
        directory: the folder.
        megabytes: size of the graph with its weights.
        difference: largest difference of a logit from torch's, before any quantisation.
        int8: whether the weights are in 8 bits.
        loss: what the export costs against torch, where it was measured.
    """

    directory: Path
    megabytes: float
    difference: float
    int8: bool
    loss: QuantisationLoss | None = None

    def __str__(self) -> str:
        told = f"{self.directory}/{GRAPH}: {self.megabytes:.1f} MB, "
        told += f"logits within {self.difference:.0e} of torch's"
        told += " before int8" if self.int8 else ""
        return told + (f"\n{self.loss}" if self.loss else "")


def export_model(
    directory: Path,
    output_dir: Path,
    format: str = "onnx",
    cache: bool = True,
    int8: bool = False,
    corpus: Corpus | None = None,
) -> ExportResult:
    """Write the model in `directory` as ONNX to `output_dir`, and check it against torch.

    Beside the graph lie config.json, the tokenizer's files, the code book and a card. A classifier
    has no cache, whatever `cache` says. `int8` puts the weights in 8 bits. With a `corpus` what
    the export costs on its val rows is measured and stands in the card. `output_dir` appears whole
    or not at all, and takes the place of an earlier export.

    Raises ConfigError for settings that cannot work, DataError when `directory` holds no model of
    ours, and SeqlmError when a package is missing or the graph does not answer as torch does.
    """
    directory, output_dir = Path(directory), Path(output_dir)
    if format not in FORMATS:
        raise ConfigError(f"format: must be one of {', '.join(FORMATS)}, got {format!r}")
    config = check_model_directory(directory)
    check_output(directory, output_dir)
    _check_packages()
    tokenizer = load_tokenizer(directory)
    model = _ready(directory, is_classifier(config))
    cache = cache and not is_classifier(config)
    with atomic_dir(output_dir) as aside:
        model.config.save_pretrained(aside)
        save_tokenizer(tokenizer, aside)
        if (directory / CODEBOOK).is_file():
            shutil.copyfile(directory / CODEBOOK, aside / CODEBOOK)
        write_graph(model, aside / GRAPH, cache)
        difference = verify(model, aside)
        if int8:
            quantise_export(model, aside)
        loss = quantisation_loss(corpus, directory, aside) if corpus else None
        write_text(aside / "README.md", onnx_card(config, cache, int8, difference, loss))
        size = sum(file.stat().st_size for file in aside.glob(GRAPH + "*"))
    return ExportResult(output_dir, size / 1e6, difference, int8, loss)


def check_output(directory: Path, output_dir: Path) -> None:
    """Raises ConfigError when an export to `output_dir` would replace what no export wrote."""
    target = Path(os.path.realpath(output_dir))
    source = Path(os.path.realpath(directory))
    if target == source or target in source.parents:
        raise ConfigError(
            f"output_dir: {output_dir} holds the model itself; name a folder of its own"
        )
    strange = (
        [e.name for e in target.iterdir() if e.name not in _WRITTEN] if target.is_dir() else []
    )
    if strange:
        raise ConfigError(
            f"output_dir: {output_dir} holds {sorted(strange)[0]}, which no export wrote and which "
            "would be lost; name a folder of its own"
        )


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SeqlmError(f"{error.name} is not installed; get it with: {INSTALL}") from error


def _ready(directory: Path, classifies: bool) -> PreTrainedModel:
    """The model on the CPU, in float32, with the attention that is written out step by step."""
    model = load_classifier(directory) if classifies else load_lm(directory)
    if classifies and model.config.pad_token_id is None:
        raise DataError(
            f"{directory}/config.json: pad_token_id is missing, so the graph could not tell "
            "where a row ends; write it there"
        )
    model = model.float().cpu().eval()
    model.set_attn_implementation("eager")
    return model


def trials(model: PreTrainedModel, seed: int = 0) -> list[np.ndarray]:
    """Random ids (B, T) of several sizes, one row, one token and all positions among them.

    A classifier also gets rows that padding fills up on the right.
    """
    config, rng = model.config, np.random.default_rng(seed)
    room = config.n_positions
    sizes = [(1, 1), (4, 1), (1, 2), (3, min(7, room)), (5, min(19, room)), (1, room), (2, room)]
    found = [rng.integers(0, config.vocab_size, size) for size in sizes]
    if is_classifier(config):
        padded = found[4].copy()
        for row, ids in enumerate(padded):
            ids[max(1, len(ids) - 2 * row) :] = config.pad_token_id
        found.append(padded)
    return found


def verify(model: PreTrainedModel, directory: Path) -> float:
    """The largest difference of a logit in `directory` from torch's, over `trials`.

    With a cache each trial is also read piece by piece. Raises SeqlmError when a logit is further
    from torch's than `TOLERANCE`.
    """
    exported, largest = load_onnx(directory), 0.0
    for ids in trials(model):
        wanted = torch_logits(model, ids)
        answers = [exported.run(ids, more=False)[0]]
        if exported.has_cache:
            answers.append(piece_by_piece(exported, ids))
        for found in answers:
            difference = float(np.abs(found - wanted).max())
            if not np.allclose(found, wanted, rtol=ROUNDING, atol=TOLERANCE):
                raise SeqlmError(
                    f"the exported model's logits lie up to {difference:.1g} from torch's for ids "
                    f"of shape {ids.shape}, more than {TOLERANCE:g}, so it was not kept; export "
                    "with the versions in constraints.txt"
                )
            largest = max(largest, difference)
    return largest


@torch.inference_mode()
def torch_logits(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """torch's own logits for ids (B, T)."""
    return model(torch.from_numpy(ids), use_cache=False).logits.float().numpy()


def piece_by_piece(model: OnnxModel, ids: np.ndarray) -> np.ndarray:
    """Logits (B, T, V) of ids (B, T) read one, then three, then one, … at a time."""
    cuts = np.cumsum([1, 3] * (ids.shape[1] // 4 + 1))
    pieces = [piece for piece in np.split(ids, cuts[cuts < ids.shape[1]], axis=1) if piece.size]
    past, found = None, []
    for piece in pieces:
        logits, past = model.run(piece, past)
        found.append(logits)
    return np.concatenate(found, axis=1)


def quantise_export(model: PreTrainedModel, directory: Path) -> None:
    """Put the weights of the verified graph in `directory` in 8 bits, and see that it still works.

    Raises SeqlmError when little of its logits is left.
    """
    whole, small = directory / GRAPH, directory / "int8"
    small.mkdir()
    quantise(whole, small / GRAPH)
    (directory / (GRAPH + ".data")).unlink(missing_ok=True)
    for file in small.iterdir():  # by its own name: a graph names the file that holds its weights
        os.replace(file, directory / file.name)
    small.rmdir()
    check_graph(whole)
    exported = load_onnx(directory)
    lost = [
        relative_rmse(exported.run(x, more=False)[0], torch_logits(model, x)) for x in trials(model)
    ]
    if not max(lost) < MOST_SPREAD_LOST:  # also when it is not a number
        raise SeqlmError(
            f"in int8 the logits lie {max(lost):.0%} of their spread from torch's, so little is "
            "left of the model and it was not kept; export without int8"
        )
