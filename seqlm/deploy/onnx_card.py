"""README.md of an exported model: what lies in the folder, and how any runtime calls it."""

import yaml
from transformers import GPT2Config

from seqlm.deploy.onnx_model import is_classifier
from seqlm.deploy.quantize import QuantisationLoss


def onnx_card(
    config: GPT2Config,
    cache: bool,
    int8: bool,
    difference: float,
    loss: QuantisationLoss | None = None,
) -> str:
    """The card of an export: `difference` is the largest of a logit from torch's, before int8."""
    classifies = is_classifier(config)
    front = {
        "library_name": "onnx",
        "pipeline_tag": "text-classification" if classifies else "text-generation",
        "license": "mit",
        "tags": ["onnx", "gpt2", "seqlm", "token-sequences"],
    }
    what = "names the class of" if classifies else "continues"
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False) + "---",
        "# A small GPT-2 in ONNX",
        f"It {what} sequences of code tokens: {config.n_layer} layers, width {config.n_embd}, "
        f"{config.vocab_size:,} tokens, rows of up to {config.n_positions:,}. Trained and exported "
        "with seqlm; the card of the trained model says how well it does.",
        "## What goes in and what comes out\n\n" + _signature(config, cache),
        "## How to run it\n\nFrom inside this folder:\n\n" + _example(config, cache),
        "seqlm runs it too: `seqlm infer --runtime onnx --model_path` and this folder.",
        "## How close it is\n\n" + _closeness(int8, difference, loss),
    ]
    return "\n\n".join(parts) + "\n"


def _signature(config: GPT2Config, cache: bool) -> str:
    half = f"(batch, {config.n_head}, {{}}, {config.n_embd // config.n_head}) float32"
    lines = ["- in: `input_ids` (batch, length) int64, ids of vocab.json"]
    if cache:
        last = config.n_layer - 1
        lines += [
            f"- in: `past.0.key`, `past.0.value` to `past.{last}.value` {half.format('past')}; "
            "past is 0 at first",
            f"- out: `logits` (batch, length, {config.vocab_size}) float32: at each place, of the "
            "token that follows",
            f"- out: `present.0.key` to `present.{last}.value` {half.format('past + length')}: the "
            "past of the next call, which then needs the new ids alone",
        ]
    elif is_classifier(config):
        lines += [
            f"- out: `logits` (batch, {config.num_labels}) float32, one a class; softmax makes "
            "them probabilities",
            "",
            "The class is read at a row's last token that is no padding: a row ends at `<CLS>`, "
            f"and shorter ones are filled up on the right with {config.pad_token_id} (`<PAD>`).",
        ]
    else:
        lines += [
            f"- out: `logits` (batch, length, {config.vocab_size}) float32: at each place, of the "
            "token that follows"
        ]
    if not is_classifier(config):
        lines += ["", "Attention is causal, so rows filled up on the right need no mask."]
    return "\n".join(lines)


def _example(config: GPT2Config, cache: bool) -> str:
    lines = [
        "import json",
        "import numpy as np",
        "import onnxruntime",
        'session = onnxruntime.InferenceSession("model.onnx")',
        'vocab = json.load(open("vocab.json"))',
        'fed = {"input_ids": np.array([[vocab["<IMG>"], vocab["<CLS>"]]])}',
    ]
    if cache:
        shape = f"(1, {config.n_head}, 0, {config.n_embd // config.n_head})"
        lines += [
            "for place in session.get_inputs()[1:]:",
            f'    fed[place.name] = np.zeros({shape}, dtype="float32")',
        ]
    lines += ["logits = session.run(None, fed)[0]"]
    return "```python\n" + "\n".join(lines) + "\n```"


def _closeness(int8: bool, difference: float, loss: QuantisationLoss | None) -> str:
    told = (
        f"On random rows of several sizes no logit was further than {difference:.1e} from torch's"
    )
    measured = "" if loss is None else f" Against torch: {loss}"
    if not int8:
        return f"{told}.{measured}"
    told += (
        " before the weights were put in 8 bits (7 of them used, so that every processor counts "
        "alike). In 8 bits an answer depends a little on what else is in the batch."
    )
    return told + (measured or " What 8 bits cost was not measured here; weigh it on your rows.")
