"""`seqlm export --format html`: a language model as one HTML file that holds all it needs.

Weights, codebook and vocabulary lie in it as data, and beside them the JavaScript of page/ and of
seqlm/static/, which computes GPT-2 and shows it. A browser opens the file without any network.
"""

import base64
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from seqlm.config import DRAWING, SampleConfig, Stored
from seqlm.data.build import CODEBOOK
from seqlm.data.codebook import PatchCodebook
from seqlm.data.corpus import Corpus
from seqlm.data.tokenizer import load_tokenizer, vocabulary_of
from seqlm.data.tokens import class_ids, code_token, drawing_prompt
from seqlm.deploy.export import quantisation_loss, torch_logits
from seqlm.errors import ConfigError
from seqlm.models.generation import token_ids
from seqlm.models.gpt2 import load_lm
from seqlm.ownership import check_output
from seqlm.training.replay import LEARNED
from seqlm.utils import fill_template, read_json, read_text, sha256_of, versions, write_text

PAGE, STATIC = Path(__file__).parent / "page", Path(__file__).parents[1] / "static"
STYLES = (STATIC / "page.css", STATIC / "widgets.css", STATIC / "painting.css", PAGE / "look.css")
MARK = '<meta name="generator" content="seqlm">'  # tells our files from those of the user
SIZES = ("n_layer", "n_head", "n_embd", "n_inner", "n_positions", "vocab_size")
IMPORT = re.compile(r'^import \{ (.+) \} from "(.+)";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?:async )?(?:function\*?|class|const) (\w+)", re.MULTILINE)


def export_page(
    directory: Path,
    output: Path,
    precision: Stored = "fp32",
    corpus: Corpus | None = None,
    overwrite: bool = False,
) -> str:
    """Write the language model in `directory` as the HTML file `output`; returns what it wrote.

    The page shows images where a codebook lies beside the model and its images fit, else tokens.
    With a `corpus` the loss on its val rows against torch is measured and stands in the page.
    Raises ConfigError for a model that the page cannot compute, and for a file that is not ours
    unless `overwrite` is set; DataError where `directory` holds no language model.
    """
    directory, output = Path(directory), Path(output)
    ours = output.is_file() and MARK.encode() in output.read_bytes()
    check_output(output.parent, [output.name], overwrite or ours, directory)
    model, vocab = load_lm(directory, "cpu").float(), vocabulary_of(load_tokenizer(directory))
    config, learned = model.config, directory / LEARNED
    ordinary = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
    if not ordinary or config.activation_function not in ("gelu_new", "gelu_pytorch_tanh"):
        raise ConfigError(
            f"{directory}: a page computes attention and gelu_new as in GPT-2 itself, and this "
            "model has others; use --format onnx"
        )
    weights, tensors = pack_weights(model, precision)
    loss = "What this precision costs was not measured; --data_path measures it on val rows."
    loss = str(quantisation_loss(corpus, directory, model)) if corpus else loss
    book = PatchCodebook.load(directory / CODEBOOK) if (directory / CODEBOOK).is_file() else None
    fits = book and book.n_patches + 3 <= config.n_positions  # <IMG> codes </IMG> <CLS>
    if fits and class_ids(vocab) and code_token(book.n_codes - 1) in vocab:
        weights += book.centers.astype("<f4").tobytes()
        tensors.append(["codebook", book.centers.shape, "fp32"])
    else:
        book = None
    probe = token_ids(drawing_prompt(None), vocab)
    data = {
        "config": {name: getattr(config, name) for name in (*SIZES, "layer_norm_epsilon")},
        "tokens": list(vocab),
        "tensors": tensors,
        "codebook": book and [*book.image_shape, book.patch],
        "controls": read_json(STATIC / "sampling.json"),
        "settings": asdict(SampleConfig(**DRAWING)),
        "probe": {"ids": probe, "logits": torch_logits(model, np.array([probe]))[0, -1].tolist()},
        "about": {
            "model": "/".join(directory.resolve().parts[-2:]),
            "weights": f"sha256 {sha256_of(directory / 'model.safetensors')}",
            "training rows": f"sha256 {sha256_of(learned)}" if learned.is_file() else "not known",
            "version": ", ".join(f"{k} {v}" for k, v in versions().items() if "-" not in k),
            "precision": f"{precision}; {len(weights) / 1e6:.1f} MB",
            "loss": loss,
        },
    }
    write_text(output, page_text(data, weights))
    return f"{output}: {output.stat().st_size / 1e6:.1f} MB, open it in a browser. {loss}"


def pack_weights(model, precision: Stored) -> tuple[bytes, list]:
    """The weights of `model` one after another, and a list of [name, shape, kind] of each.

    Matrices are (outputs, inputs) in `precision`, int8 with a scale for each row before them, and
    all else is in fp32; page/weights.js reads them. `model` then holds the rounded weights.
    """
    parts, tensors = [], []
    for name, parameter in model.named_parameters():
        turned = re.search(r"(c_attn|c_proj|c_fc)\.weight$", name)
        values = parameter.detach().numpy().T if turned else parameter.detach().numpy()
        kind = precision if values.ndim == 2 else "fp32"
        if kind == "int8":
            scale = np.abs(values).max(axis=1, keepdims=True).astype("<f4") / 127
            whole = np.rint(values / np.where(scale == 0, 1, scale)).astype(np.int8)
            stored, rounded = [scale, whole], whole * scale
        else:
            stored = [values.astype("<f2" if kind == "fp16" else "<f4")]
            rounded = stored[0].astype(np.float32)
        parts += [part.tobytes() for part in stored]
        tensors.append([name.removeprefix("transformer."), values.shape, kind])
        parameter.data.copy_(torch.from_numpy(rounded.T if turned else rounded))
    return b"".join(parts), tensors


def page_text(data: dict, weights: bytes) -> str:
    """The whole file. Its content-security policy lets run what stands in it and nothing else."""
    script, style = bundle(PAGE / "main.js"), "\n".join(map(read_text, STYLES))
    digests = [hashlib.sha256(text.encode()).digest() for text in (script, style)]
    return fill_template(
        "deploy/page/page.html",
        mark=MARK,
        style=style,
        script=script,
        worker=bundle(PAGE / "worker.js"),
        script_hash=base64.b64encode(digests[0]).decode(),
        style_hash=base64.b64encode(digests[1]).decode(),
        # A token may be named </script>; to JSON \u003c is the same sign.
        data=json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
        weights=base64.b64encode(weights).decode(),
    )


def bundle(path: Path, modules: dict[str, str] | None = None) -> str:
    """A JavaScript module and all that it imports as one script, in the order of need."""
    source, modules = read_text(path), {} if modules is None else modules
    for _, other in IMPORT.findall(source):
        if Path(other).name not in modules:
            bundle(path.parent / other, modules)
    body = IMPORT.sub(
        lambda m: f'const {{ {m[1].replace(" as ", ": ")} }} = modules["{Path(m[2]).name}"];',
        source,
    )
    body = body.replace("\nexport default ", "\nexports.default = ").replace("\nexport ", "\n")
    modules[path.name] = (
        f'modules["{path.name}"] = ((exports) => {{\n{body}\n'
        f"return Object.assign(exports, {{ {', '.join(EXPORT.findall(source))} }});\n}})({{}});"
    )
    return '"use strict";\nconst modules = {};\n' + "\n\n".join(modules.values())
