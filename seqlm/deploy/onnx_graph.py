"""A GPT-2 traced into an ONNX graph, with torch's own exporter, and the graph checked."""

from pathlib import Path

import torch
from transformers import DynamicCache, PreTrainedModel

from seqlm.deploy.onnx_model import INPUT, LOGITS, PAST, PRESENT
from seqlm.deploy.quantize import quietly
from seqlm.errors import SeqlmError
from seqlm.models.gpt2 import briefly

ONE_FILE = 2**30  # bytes of weights; a single ONNX file cannot hold 2 GB


class _Plain(torch.nn.Module):
    """ids -> logits."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids, use_cache=False).logits


class _Cached(torch.nn.Module):
    """ids, and keys and values in turn -> logits, and keys and values with those of the ids."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, *past):
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
        # A tensor of its own for each: the tracer takes one tensor handed in twice for one input.
        example += [torch.zeros(shape) for _ in halves]
        dynamic["past"] = tuple({0: ids[0], 2: torch.export.Dim("past")} for _ in halves)
        names = tuple([f"{side}.{half}" for half in halves] for side in (PAST, PRESENT))
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    try:
        with quietly(), torch.no_grad():
            torch.onnx.export(
                (_Cached if cache else _Plain)(model).eval(),
                tuple(example),
                path,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[INPUT, *names[0]],
                output_names=[LOGITS, *names[1]],
                external_data=size > ONE_FILE,
                verbose=False,
            )
    except Exception as error:  # the exporter raises types of its own
        raise SeqlmError(f"torch could not write this model as ONNX ({briefly(error)})") from error
    _tidy(path)


def _tidy(path: Path) -> None:
    """Take out where in which file of this machine each node came from, and check the graph."""
    import onnx

    graph = onnx.load(path, load_external_data=False)
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(graph, path)
    check_graph(path)


def check_graph(path: Path) -> None:
    """Raises SeqlmError when the file does not follow ONNX's rules."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # onnx raises types of its own
        raise SeqlmError(
            f"the exported graph is not valid ONNX ({briefly(error)}), so it was not kept; export "
            "with the versions in constraints.txt"
        ) from error
