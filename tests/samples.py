"""Sample metrics, a sample training record, models and scores to check by hand, image files."""

import gzip
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from seqlm.data.images import load_digits
from seqlm.data.tokens import default_vocab, draw_layout, read_layout
from seqlm.evaluation.classification import measure_classes
from seqlm.evaluation.estimates import proportion
from seqlm.evaluation.scores import TokenScores
from seqlm.plots.images import plot_images
from seqlm.plots.training import plot_training_process
from seqlm.utils import write_json
from seqlm.workspace import Workspace, read_notebooks

VOCAB = default_vocab()


def cells_of(notebook: str, ids: Sequence[str], **names) -> dict:
    """What cells of a notebook define, but not show; `names` are variables of earlier cells."""
    for cell in nbformat.read(read_notebooks()[notebook].path, as_version=4).cells:
        if cell.id in ids:
            exec(cell.source.partition("\n\n\nws.show(")[0], names)
    return names


def idx_bytes(values: np.ndarray) -> bytes:
    """`values` as uint8 in an IDX file: its kind, its shape, its bytes."""
    shape = b"".join(n.to_bytes(4) for n in values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


def write_idx(folder: Path, n: int, start: int = 0, name: str = "train", end: str = ".gz") -> None:
    """Two IDX files with `n` of scikit-learn's digits, each enlarged to 28x28 pixels."""
    images, labels = load_digits()
    large = np.kron(images[start : start + n] * 255, np.ones((3, 3)))
    large = np.pad(large, ((0, 0), (2, 2), (2, 2)))
    folder.mkdir(parents=True, exist_ok=True)
    for kind, values in (("images-idx3", large), ("labels-idx1", labels[start : start + n])):
        content = idx_bytes(values)
        path = folder / f"{name}-{kind}-ubyte{end}"
        path.write_bytes(gzip.compress(content) if end else content)


def share(value: float, n: int = 360) -> dict:
    return proportion(np.arange(n) < round(value * n)).to_json()


def number(value: float, unit: str, n: int = 360, width: float = 0.012) -> dict:
    low, high = value * (1 - width), value * (1 + width)
    return {"value": value, "low": low, "high": high, "n": n, "unit": unit}


def tokens(nats: float, n: int = 360, top1: float = 0.2) -> dict:
    return {
        "tokens": 16 * n,
        "nll": number(nats, "nats per token", n),
        "perplexity": number(float(np.exp(nats)), "perplexity", n, 0.04),
        "top1": share(top1, n),
        "top5": share(min(1, 2 * top1), n),
        "bits_per_image": number(16 * nats / np.log(2), "bits per image", n),
    }


def measured(nats: float) -> dict:
    return {
        "code": tokens(nats),
        "class": tokens(0.09, top1=0.97),
        "structural": tokens(0.001, top1=1.0),
        "all": tokens(0.8 * nats),
    }


BASELINES = {
    "uniform": 6.246,
    "unigram": 4.93,
    "position": 4.05,
    "bigram": 4.50,
    "trigram": 4.31,
    "position_ngram": 3.93,
}


def classes(accuracy: float, n: int = 360) -> dict:
    rng = np.random.default_rng(round(accuracy * 1000))
    labels = np.arange(n) % 10
    predicted = np.where(rng.random(n) < accuracy, labels, rng.integers(0, 10, n))
    return measure_classes(labels, predicted)


def values(number_of_notebook: str) -> dict:
    """The values of one notebook's metrics file; the numbers are made up."""
    positions = [1.1, 3.9, 3.6, 0.9, 2.9, 4.6, 4.4, 2.2, 3.0, 4.5, 4.6, 2.6, 1.2, 3.9, 4.0, 1.4]
    return {
        "explore_data": {
            "images": {"train": 1257, "val": 180, "test": 360},
            "sentences": 104154,
            "codes_per_image": 16,
            "n_codes": 500,
            "codes_used_train": 497,
            "psnr_test": 28.71,
            "svm_pixels_test": share(0.992),
            "svm_reconstructed_test": share(0.989),
        },
        "train_causal_lm": {
            "parameters_count": 11238912,
            "initial_nll_all": 6.21,
            "ln_vocab": 6.246,
            "best": {"step": 1476, "code_nll": 3.31, "read_nll": 3.38, "draw_nll": 3.24,
                     "class_accuracy": 0.978},
            "steps": 1611,
            "tokens": 2370702,
            "seconds": 1043.0,
            "precision": {"chosen": "bf16", "asked": "auto",
                          "step_seconds": {"fp32": 1.255, "bf16": 0.654}},
            "rows": 103074,
            "stopped_early": False,
        },
        "classify_sequences": {
            "methods": {
                "class token of the language model": classes(0.975),
                "fine-tuned classifier": classes(0.985),
                "classifier from scratch": classes(0.955),
            },
            "baselines": {
                "most frequent class": {**classes(0.0), "accuracy": share(0.1)},
                "logistic regression on pixels": classes(0.965),
                "RBF-SVM on pixels": classes(0.993),
            },
            "val_accuracy": {
                "class token of the language model": share(0.978, 180),
                "fine-tuned classifier": share(0.983, 180),
                "classifier from scratch": share(0.95, 180),
            },
            "best_method": "fine-tuned classifier",
        },
        "evaluate": {
            "read": measured(3.41),
            "draw": measured(3.25),
            "baselines": {
                name: {"description": f"The baseline {name}.", "code": tokens(nats, top1=0.1)}
                for name, nats in BASELINES.items()
            },
            "layout_compared": "read",
            "best_baseline": "position_ngram",
            "below_best_baseline": number(0.132, "share", width=0.05),
            "by_position": {
                "model": positions,
                "baselines": {
                    "position": [1.18 * x for x in positions],
                    "position_ngram": [1.15 * x for x in positions],
                },
            },
        },
        "sample": {
            "digit_classifier": {"test": share(0.992), "reconstructed": share(0.989)},
            "settings": {
                "default": {"strategy": "sample", "temperature": 0.7, "top_k": 0, "top_p": 0.9,
                            "guidance": 3.0, "max_new_tokens": None, "seed": 42},
                "plain": {"strategy": "sample", "temperature": 1.0, "top_k": 0, "top_p": 1.0,
                          "guidance": 1.0, "max_new_tokens": 64, "seed": 42},
            },
            "drawn": {
                name: {"accuracy": share(rate, 500),
                       "per_class": {str(k): share(rate - 0.02 * (k % 3), 50) for k in range(10)}}
                for name, rate in
                [("default", 0.93), ("plain (temperature 1)", 0.71), ("greedy", 0.8)]
            },
            "completed": {
                "half image, class given": {"classified_as_asked": share(0.902), "psnr": 12.3},
            },
            "free": {"class_counts": [22, 18, 20, 25, 15, 19, 21, 24, 17, 19], "n": 200},
            "nearest_train": {"drawn_median": 2.9, "test_median": 1.7},
            "real_vs_generated_auc": {
                "default": {"value": 0.74, "low": 0.71, "high": 0.77, "n": 720, "unit": "area"},
            },
        },
    }[number_of_notebook]  # fmt: skip


def record(steps: int = 1611, evals: int = 12) -> dict:
    """A training.json of a language model."""
    rng = np.random.default_rng(0)
    history = [
        {"step": s, "epoch": s / 805, "tokens": s * 1470, "seconds": 0.64 * s,
         "loss": 2.1 + 4.0 * float(np.exp(-s / 90)) + 0.9 * float(np.exp(-s / 900))
         + 0.05 * rng.normal(),
         "learning_rate": 1e-3 * min(s / 80, 0.5 + 0.5 * float(np.cos(np.pi * s / steps))),
         "grad_norm": 0.5 + 2.5 * float(np.exp(-s / 60)) + 0.05 * rng.random()}
        for s in range(8, steps + 1, 8)
    ]  # fmt: skip
    places = np.linspace(steps / evals, steps, evals).astype(int)
    lines = [
        {"step": int(s), "epoch": s / 805, "tokens": int(s) * 1470, "seconds": 0.64 * float(s),
         "code_nll": 3.3 + float(np.exp(-s / 250)), "all_nll": 2.5 + float(np.exp(-s / 250)),
         "read_nll": 3.38 + float(np.exp(-s / 250)), "draw_nll": 3.24 + float(np.exp(-s / 240)),
         "class_accuracy": 0.98 - 0.7 * float(np.exp(-s / 200))}
        for s in places
    ]  # fmt: skip
    initial = {"code_nll": 6.21, "all_nll": 6.2, "read_nll": 6.22, "draw_nll": 6.2,
               "class_accuracy": 0.1}  # fmt: skip
    return {
        "history": history,
        "evals": lines,
        "best": lines[-2],
        "initial": initial,
        "settings": {"output_dir": "outputs/laptop", "batch_size": 64, "num_epochs": 1.0,
                     "learning_rate": 1e-3, "max_grad_norm": 1.0, "seed": 42,
                     "precision": "auto"},
        "parameters": 11238912,
        "rows": 103074,
        "steps": steps,
        "stopped_early": False,
        "tokens": 2370702,
        "seconds": 1043.0,
        "precision": {"chosen": "bf16", "asked": "auto",
                      "step_seconds": {"fp32": 1.255, "bf16": 0.654}},
        "machine": {"system": "Linux", "cores": 2, "threads": 2, "gpus": 0, "gpu": "none"},
        "versions": {"python": "3.11.7", "seqlm": "0.1.0", "torch": "2.13.0+cpu"},
    }  # fmt: skip


class BigramModel(torch.nn.Module):
    """A language model whose logits are a table: table[previous token]."""

    device = torch.device("cpu")

    def __init__(self, table):
        super().__init__()
        self.table = torch.as_tensor(table)
        self.config = SimpleNamespace(vocab_size=len(table))

    def forward(self, input_ids, use_cache=True):
        return SimpleNamespace(logits=self.table[input_ids])


def ids(tokens):
    return [VOCAB[token] for token in tokens]


def ragged_rows(seed=0, n=15):
    """Sentences of both layouts with 1 to 14 codes, shuffled in length."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        codes = rng.integers(0, 500, rng.integers(1, 15))
        layout = draw_layout if i % 2 else read_layout
        rows.append(ids(layout(codes, int(rng.integers(10)))))
    return rows


def scores_of(values, row=None, **columns):
    """A table of scores with these NLL; other columns are 0 by default."""
    values = np.asarray(values, dtype=float)
    zeros = np.zeros(len(values), dtype=int)
    row = np.arange(len(values)) if row is None else np.asarray(row)
    columns = {"position": zeros, "target": zeros, "rank": zeros} | columns
    return TokenScores(row=row, nll=values, n_rows=int(row.max(initial=-1)) + 1, **columns)


def sharpened(model):
    """Larger weights, so that what a token sees makes a difference well above rounding."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    return model.eval()


def workspace(
    root,
    profile="laptop",
    numbers=("explore_data", "train_causal_lm", "classify_sequences", "evaluate", "sample"),
) -> Workspace:
    """A profile with sample metrics, a training record and two figures."""
    ws = Workspace(profile, root)
    for number in numbers:
        parameters = {"seed": 42, "n_layer": 6, "n_head": 8, "n_embd": 384}
        ws.save_metrics(number, parameters, values(number), 60.0)
    training = {**record(160, 4), "identity": "0123"}
    write_json(ws.outputs / "training.json", training)
    ws.save_figure(plot_training_process(training), "training_process")
    figure = plot_images(np.zeros((1, 4, 4)), ["<Z_017>"], heading='After "<IMG>" & <Z_000>')
    ws.save_figure(figure, "next_tokens")
    return ws


def offline_words() -> tuple[list[str], str]:
    """What to put before a command to run it without a network, or nothing, and why not.

    It runs in a network namespace of its own, where only loopback is up.
    """
    offline = ["unshare", "--map-root-user", "--net"]
    missing = next((tool for tool in ("unshare", "ip") if shutil.which(tool) is None), None)
    if missing:
        return [], f"{missing} is not installed, so the network cannot be cut"
    if subprocess.run([*offline, "true"], capture_output=True).returncode:
        return [], "no network namespace may be made here"
    # Two lines of heading, and one for each interface.
    alone = 'ip link set lo up && [ $(wc -l < /proc/net/dev) = 3 ] && exec "$@"'
    return [*offline, "sh", "-c", alone, "sh"], ""


def run_offline(words: list, **options) -> str:
    """What `seqlm WORDS` prints without a network; skips the test where that cannot be tried."""
    offline, why_not = offline_words()
    if why_not:
        pytest.skip(why_not)
    run = [*offline, sys.executable, "-m", "seqlm", *map(str, words)]
    done = subprocess.run(run, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
