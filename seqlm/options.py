"""What a command is told beyond the settings of config.py: where to read, what to show."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqlm.checked import Checked

Runtime = Literal["torch", "onnx"]
Size = Literal["nano", "original", "large"]

# What a size stands for. The original is ModelConfig's own; the large has the body of GPT-2 small.
SIZES = {
    "nano": {"n_layer": 3, "n_head": 4, "n_embd": 96},
    "original": {"n_layer": 6, "n_head": 8, "n_embd": 384},
    "large": {"n_layer": 12, "n_head": 12, "n_embd": 768},
}

# Drawings as in README and notebook 6, which weighed them (docs/experiments.md); SampleConfig's
# own defaults are the model itself.
DRAWING = {"temperature": 0.9, "top_p": 0.95, "guidance": 1.5}


@dataclass(frozen=True)
class BuildOptions:
    """Where the data set goes.

    Attributes:
        output_dir: folder for sequences.jsonl, vocab.json, codebook.npz and images.npz.
    """

    output_dir: Path = Path("data/digits")


@dataclass(frozen=True)
class SizeOptions:
    """How large a model, in a word.

    Attributes:
        size: sets n_layer, n_head and n_embd where neither a flag nor a --config line does. nano is
            fast, original is the default, large has the body of GPT-2 small; `seqlm sizes` times
            them.
    """

    size: Size | None = None


@dataclass(frozen=True)
class SizesOptions:
    """The run that the sizes are timed for.

    Attributes:
        data_path: JSON lines, one row a line; without it, the digits as `seqlm build` makes them.
        vocab_path: JSON, token -> id.
        batch_size: rows a forward pass.
        grad_accumulation: forward passes an optimizer step.
        num_epochs: passes over the training rows.
        max_steps: stop after so many optimizer steps; -1 goes by num_epochs.
        max_length: longer rows lose codes from the left.
        json: print JSON instead of a table.
    """

    data_path: Path | None = None
    vocab_path: Path | None = None
    batch_size: int = 8
    grad_accumulation: int = 1
    num_epochs: float = 20.0
    max_steps: int = -1
    max_length: int = 1024
    json: bool = False


@dataclass(frozen=True)
class ClassifyOptions:
    """What a classifier starts from.

    Attributes:
        start_from: directory of a trained language model; without it, random weights.
    """

    start_from: Path | None = None


@dataclass(frozen=True)
class EvaluateOptions:
    """What to measure.

    Attributes:
        model_path: directory of a trained language model.
        split: which rows to measure.
        baselines: also measure what a model must beat, fitted on the train rows.
        json: print JSON instead of a table.
        max_length: longer rows lose codes from the left.
    """

    model_path: Path = Path("outputs/best_model")
    split: Literal["val", "test"] = "test"
    baselines: bool = True
    json: bool = False
    max_length: int = 1024


@dataclass(frozen=True)
class InferOptions:
    """What to ask a trained model.

    Attributes:
        model_path: directory of a trained model, or of an exported one.
        runtime: torch, or onnx for what `seqlm export` wrote.
        mode: interactive (next-token tables), generate (new sentences), classify (rows to JSONL).
        prompt: generate: the tokens to go on from, separated by spaces.
        label: generate: draw this class; stands for the prompt "<CLS> <CLS_k> <IMG>".
        n: generate: how many sentences.
        output: generate: also write rows to this .jsonl, or their pictures to this .png.
        top: interactive: how many next tokens to show.
        data_path: classify: a JSONL file of rows, or - for standard input.
        batch_size: classify: rows asked and answered at a time.
        json: answer in JSON, an object a line (classify always does).
    """

    model_path: Path = Path("outputs/best_model")
    runtime: Runtime = "torch"
    mode: Literal["interactive", "generate", "classify"] = "interactive"
    prompt: str | None = None
    label: int | None = None
    n: int = 1
    output: Path | None = None
    top: int = 10
    data_path: str = "-"
    batch_size: int = 256
    json: bool = False


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
        model_path: directory of a trained language model or classifier.
        output_dir: folder for the graph and all that belongs to it; an earlier export is replaced.
        format: onnx.
        cache: a language model takes and gives keys and values, so that drawing reads each token
            once.
        int8: weights in 8 bits.
        data_path: with int8: rows (JSONL) to measure on their val split what that costs.
    """

    model_path: Path = Path("outputs/best_model")
    output_dir: Path = Path("outputs/onnx")
    format: Literal["onnx"] = "onnx"
    cache: bool = True
    int8: bool = False
    data_path: Path | None = None


@dataclass(frozen=True)
class FinetuneOptions(Checked):
    """What to go on from, and how.

    Attributes:
        model_path: directory of the trained model to start from; it stays as it is.
        vocab_path: tokens that may be new, appended in their order; without it those of the data.
        task: lm or classifier; without it, whatever the model is.
        grow: take in tokens that the model lacks; false refuses them.
        lora_rank: train small matrices of this rank, at most n_embd, in place of all weights; 0
            trains all weights.
        lora_alpha: their product is scaled by lora_alpha / lora_rank.
        old_data_path: rows of what the model knew before, to measure what it forgets.
        replay: share of the training rows that is drawn from the old ones, to forget less.
    """

    model_path: Path = Path("outputs/best_model")
    vocab_path: Path | None = None
    task: Literal["lm", "classifier"] | None = None
    grow: bool = True
    lora_rank: int = 0
    lora_alpha: float = 16.0
    old_data_path: Path | None = None
    replay: float = 0.0

    limits = {"lora_rank": (0, None), "lora_alpha": (1e-6, None), "replay": (0, 0.9)}


# A model that has learned is moved gently, and not for long.
GENTLY = {"output_dir": Path("outputs/finetuned"), "learning_rate": 2e-5, "num_epochs": 5.0}


@dataclass(frozen=True)
class ReportOptions:
    """Which notebooks to run, and how large.

    Attributes:
        profile: smoke (a minute or two), laptop (what README shows), original (the user's
            hyperparameters), gpu.
        force: run every notebook, also where nothing changed.
        laboratory: also run the long notebooks: fine-tuning, rivals, few labels.
    """

    profile: Literal["smoke", "laptop", "original", "gpu"] = "laptop"
    force: bool = False
    laboratory: bool = False


@dataclass(frozen=True)
class ServeOptions:
    """What to serve, and to whom.

    Attributes:
        model_path: directory of a trained language model, or of a classifier.
        classifier_path: a classifier that answers /classify in place of the language model.
        host: 127.0.0.1 is for this machine alone; 0.0.0.0 and :: are for whoever can reach it, who
            must then know the key in the environment variable LIT_SERVER_API_KEY.
        port: where to listen.
        workers: processes for each kind of question, and on each GPU if there is one.
        timeout: seconds that a request may wait for its turn; then it is answered with 504.
    """

    model_path: Path = Path("outputs/best_model")
    classifier_path: Path | None = None
    host: Literal["127.0.0.1", "0.0.0.0", "::"] = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    timeout: float = 30.0
