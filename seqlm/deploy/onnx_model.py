"""ONNX models: write a GPT-2 as a graph, and run one with onnxruntime in place of a torch model.

`OnnxModel.run` takes and returns numpy arrays. Called like a model of transformers it returns what
generation and evaluation use, so `generate`, `draw`, `score_tokens` and the others accept it.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import DynamicCache, GPT2Config, PreTrainedModel

from seqlm.errors import DataError, SeqlmError, needs_extra
from seqlm.models.gpt2 import check_model_directory, error_text, is_classifier

GRAPH = "model.onnx"
INPUT, LOGITS = "input_ids", "logits"
PAST, PRESENT = "past", "present"
MAX_FILE = 2**30  # bytes of weights; a single ONNX file cannot hold 2 GB


class OnnxModel:
    """An exported GPT-2 on the CPU, with its `config`."""

    device = torch.device("cpu")
    training = False

    def __init__(self, session, config: GPT2Config):
        self._session = session
        self.config = config
        self._past = [i.name for i in session.get_inputs() if i.name != INPUT]
        self._outputs = [output.name for output in session.get_outputs()]

    @property
    def has_cache(self) -> bool:
        """Whether the graph takes and returns keys and values, `past.0.key` and so on."""
        return bool(self._past)

    def eval(self) -> "OnnxModel":
        """Does nothing: an exported model has no training mode."""
        return self

    def train(self, mode: bool) -> "OnnxModel":
        return self

    def run(
        self,
        input_ids: np.ndarray,
        past: Sequence[np.ndarray] | None = None,
        use_cache: bool = True,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Logits float32 of input_ids (B, T) int64 after `past`, and the past of the next call.

        With a cache in the graph the past is keys and values in turn, layer by layer, (B, n_head,
        P, n_embd / n_head) each; without one it is all ids so far, (B, P), which are read again.
        Without `use_cache` the returned past is empty.

        Raises DataError for ids outside the vocabulary, and for more tokens than positions.
        """
        input_ids = np.ascontiguousarray(input_ids, dtype=np.int64)
        self._check(input_ids, past)
        if not self.has_cache:
            ids = np.concatenate([*(past or []), input_ids], axis=1)  # (B, P + T)
            (logits,) = self._session.run([LOGITS], {INPUT: ids})
            if logits.ndim == 3:
                logits = logits[:, -input_ids.shape[1] :]
            return logits, [ids] if use_cache else []
        if past is None:
            heads = self.config.n_head
            empty = (len(input_ids), heads, 0, self.config.n_embd // heads)
            past = [np.zeros(empty, dtype=np.float32)] * len(self._past)
        feed = {INPUT: input_ids, **dict(zip(self._past, past, strict=True))}
        logits, *present = self._session.run(self._outputs if use_cache else [LOGITS], feed)
        return logits, present

    def _check(self, input_ids: np.ndarray, past: Sequence[np.ndarray] | None) -> None:
        unknown = input_ids[(input_ids < 0) | (input_ids >= self.config.vocab_size)]
        if unknown.size:
            raise DataError(
                f"the id {unknown[0]} is not among the model's {self.config.vocab_size} tokens; "
                "use the vocab.json beside the model"
            )
        length = input_ids.shape[1]
        if past:
            length += past[0].shape[-2 if self.has_cache else -1]
        if length > self.config.n_positions:
            raise DataError(
                f"{length} tokens do not fit the model's {self.config.n_positions} positions; "
                "shorten the row"
            )

    def __call__(self, input_ids: torch.Tensor, past_key_values=None, use_cache: bool = False):
        """Called as a model of transformers is; returns logits and past_key_values."""
        logits, present = self.run(input_ids.numpy(), past_key_values, use_cache)
        present = present if use_cache else None
        return SimpleNamespace(logits=torch.from_numpy(logits), past_key_values=present)


def load_onnx(directory: Path) -> OnnxModel:
    """The model that `seqlm export` wrote, with as many threads as torch.

    Raises DataError when `directory` holds no whole export, ConfigError without onnxruntime.
    """
    graph = Path(directory) / GRAPH
    config = check_model_directory(directory, GRAPH, "`seqlm export`")
    with needs_extra("export"):
        import onnxruntime
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3  # errors; they come as exceptions, too
    try:
        session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types
        raise DataError(
            f"{graph}: onnxruntime cannot read it ({error_text(error)}); export the model again"
        ) from error
    width = config.num_labels if is_classifier(config) else config.vocab_size
    outputs = {output.name: output.shape for output in session.get_outputs()}
    inputs = {i.name for i in session.get_inputs()}
    matches = INPUT in inputs and outputs.get(LOGITS, [None])[-1] == width
    if not matches or len(inputs) not in (1, 1 + 2 * config.n_layer):
        raise DataError(
            f"{directory}: {GRAPH} and config.json do not belong together; export the model again"
        )
    return OnnxModel(session, config)


class _Traced(torch.nn.Module):
    """ids, and keys and values in turn -> logits, and keys and values with those of the ids."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, *past):
        if not past:
            return self.model(input_ids, use_cache=False).logits
        cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        output = self.model(input_ids, past_key_values=cache, use_cache=True)
        layers = output.past_key_values.layers
        return output.logits, *(half for layer in layers for half in (layer.keys, layer.values))


def write_graph(model: PreTrainedModel, path: Path, cache: bool) -> None:
    """Trace `model` and write the graph to `path` (weights beside it where one file is too small).

    Inputs: input_ids (batch, length) int64 and, with `cache`, past.0.key, past.0.value, … (batch,
    n_head, past, n_embd / n_head), where past may be 0. Outputs: logits and present.0.key, ….
    Raises SeqlmError when torch cannot trace it.
    """
    config = model.config
    ids = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    halves = [f"{layer}.{half}" for layer in range(config.n_layer) for half in ("key", "value")]
    example, dynamic, names = [torch.zeros((2, 3), dtype=torch.long)], {INPUT: ids}, ([], [])
    if cache:
        shape = 2, config.n_head, 5, config.n_embd // config.n_head
        # A tensor of its own for each: the tracer takes one tensor passed twice for one input.
        example += [torch.zeros(shape) for _ in halves]
        dynamic["past"] = tuple({0: ids[0], 2: torch.export.Dim("past")} for _ in halves)
        names = tuple([f"{side}.{half}" for half in halves] for side in (PAST, PRESENT))
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                _Traced(model).eval(),
                tuple(example),
                path,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[INPUT, *names[0]],
                output_names=[LOGITS, *names[1]],
                external_data=size > MAX_FILE,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many types
        raise SeqlmError(
            f"torch could not write this model as ONNX ({error_text(error)})"
        ) from error
    import onnx

    graph = onnx.load(path, load_external_data=False)
    for node in graph.graph.node:  # the file and line on this machine that it came from
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(graph, path)
    check_graph(path)


def check_graph(path: Path) -> None:
    """Raises SeqlmError when the file does not follow ONNX's rules."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # onnx raises many types
        raise SeqlmError(
            f"the exported graph is not valid ONNX ({error_text(error)}), so it was not kept; "
            "export with the versions in constraints.txt"
        ) from error


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


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and log lines of the exporter's libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
