"""An exported model, run by onnxruntime: it stands where a torch model stands in evaluation.

`OnnxModel.run` takes and gives numpy arrays. Called like a model of transformers it gives what
`sampling`, `scores` and `classes` look at, so `generate`, `next_token_probabilities`, `draw`,
`score_tokens`, `class_probabilities` and `classifier_probabilities` take it as it is: how a token
is chosen stays written down in one place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config

from seqlm.errors import DataError, SeqlmError
from seqlm.models.gpt2 import briefly, read_configuration

GRAPH = "model.onnx"
INPUT, LOGITS = "input_ids", "logits"
PAST, PRESENT = "past", "present"
INSTALL = 'pip install -e ".[export]"'


@dataclass(frozen=True)
class OnnxOutput:
    """What one call gives.

    Attributes:
        logits: (B, T, V) of a language model, (B, C) of a classifier. float32, as a tensor.
        past_key_values: what to hand to the next call; None unless a cache was asked for.
    """

    logits: torch.Tensor
    past_key_values: list[np.ndarray] | None = None


class OnnxModel:
    """An exported GPT-2, on the CPU.

    Attributes:
        config: the model's own configuration.
        has_cache: whether the graph takes and gives keys and values, `past.0.key` and so on.
    """

    device = torch.device("cpu")
    training = False

    def __init__(self, session, config: GPT2Config):
        self._session = session
        self.config = config
        self._past = [i.name for i in session.get_inputs() if i.name != INPUT]
        self._outputs = [output.name for output in session.get_outputs()]

    @property
    def has_cache(self) -> bool:
        return bool(self._past)

    def eval(self) -> "OnnxModel":
        return self

    def train(self, mode: bool = True) -> "OnnxModel":
        """Here for `score_tokens`, which puts back what it found. Raises SeqlmError for True."""
        if mode:
            raise SeqlmError("an exported model cannot be trained; train the one it came from")
        return self

    def run(
        self, input_ids: np.ndarray, past: Sequence[np.ndarray] | None = None, more: bool = True
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """input_ids (B, T) int64, after `past` -> logits float32, and the past of the next call.

        With a cache in the graph the past is keys and values in turn, layer by layer, (B, n_head,
        P, n_embd / n_head) each; without one it is all ids so far, (B, P), which are read again.
        `more=False` says that no call will follow: the past given back is then empty.

        Raises DataError for ids the model has no row for, and for more tokens than positions.
        """
        input_ids = np.ascontiguousarray(input_ids, dtype=np.int64)
        self._check(input_ids, past)
        if not self.has_cache:
            ids = np.concatenate([*(past or []), input_ids], axis=1)  # (B, P + T)
            (logits,) = self._session.run([LOGITS], {INPUT: ids})
            seen = ids.shape[1] - input_ids.shape[1]
            return (logits[:, seen:] if logits.ndim == 3 else logits), [ids] if more else []
        if past is None:
            heads = self.config.n_head
            none = (len(input_ids), heads, 0, self.config.n_embd // heads)
            past = [np.zeros(none, dtype=np.float32)] * len(self._past)
        fed = {INPUT: input_ids, **dict(zip(self._past, past, strict=True))}
        logits, *present = self._session.run(self._outputs if more else [LOGITS], fed)
        return logits, present

    def _check(self, input_ids: np.ndarray, past: Sequence[np.ndarray] | None) -> None:
        if input_ids.ndim != 2 or not input_ids.size:
            raise DataError(f"rows of ids (B, T) are wanted, not an array of {input_ids.shape}")
        lowest, highest = input_ids.min(), input_ids.max()
        if lowest < 0 or highest >= self.config.vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise DataError(
                f"the id {wrong} is not among the model's {self.config.vocab_size} tokens; use "
                "the vocab.json beside the model"
            )
        seen = past[0].shape[-2 if self.has_cache else -1] if past else 0
        length, room = seen + input_ids.shape[1], self.config.n_positions
        if length > room:
            raise DataError(
                f"{length} tokens do not fit the model's {room} positions; shorten the row"
            )

    def __call__(
        self,
        input_ids: torch.Tensor,
        past_key_values: list[np.ndarray] | None = None,
        use_cache: bool = False,
    ) -> OnnxOutput:
        """As a model of transformers is called; `run` says what is checked."""
        logits, present = self.run(input_ids.numpy(), past_key_values, use_cache)
        return OnnxOutput(torch.from_numpy(logits), present if use_cache else None)


def holds_onnx(directory: Path) -> bool:
    """Whether `seqlm export` wrote this directory."""
    return (Path(directory) / GRAPH).is_file()


def is_classifier(config: GPT2Config) -> bool:
    return "GPT2ForSequenceClassification" in (config.architectures or [])


def onnx_config(directory: Path) -> GPT2Config:
    """The configuration of an export; DataError in one sentence when `directory` holds no whole."""
    return read_configuration(
        directory,
        (GRAPH, "config.json"),
        "no exported model here",
        "`seqlm export` makes one",
        "export the model again",
    )


def load_onnx(directory: Path, threads: int | None = None) -> OnnxModel:
    """The model that `export_model` wrote; `threads` None takes as many as torch does.

    Raises DataError when `directory` holds no whole export, SeqlmError without onnxruntime.
    """
    directory = Path(directory)
    config = onnx_config(directory)
    try:
        import onnxruntime
    except ImportError as error:
        raise SeqlmError(f"onnxruntime is not installed; get it with: {INSTALL}") from error
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads or torch.get_num_threads()
    settings.log_severity_level = 3  # errors; they come as exceptions, too
    try:
        session = onnxruntime.InferenceSession(
            directory / GRAPH, settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises types of its own
        raise DataError(
            f"{directory / GRAPH}: onnxruntime cannot read it ({briefly(error)}); export the model "
            "again"
        ) from error
    _check_graph(directory, session, config)
    return OnnxModel(session, config)


def load_onnx_lm(directory: Path) -> OnnxModel:
    """As `load_onnx`; DataError also when the export is a classifier."""
    if is_classifier(onnx_config(directory)):
        raise DataError(f"{directory}: holds a classifier, not a language model")
    return load_onnx(directory)


def _check_graph(directory: Path, session, config: GPT2Config) -> None:
    width = config.num_labels if is_classifier(config) else config.vocab_size
    outputs = {output.name: output.shape for output in session.get_outputs()}
    inputs = {i.name for i in session.get_inputs()}
    fits = INPUT in inputs and outputs.get(LOGITS, [None])[-1] == width
    if not fits or len(inputs) not in (1, 1 + 2 * config.n_layer):
        raise DataError(
            f"{directory}: {GRAPH} and config.json do not belong together; export the model again"
        )
