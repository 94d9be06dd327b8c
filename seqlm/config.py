"""Every choice a run makes, as frozen dataclasses: one field, one line, one check.

The command line, the YAML profiles and the notebooks all fill these in; nothing else in the
package invents a default.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqlm.checked import Checked
from seqlm.errors import ConfigError

PROFILES = ("smoke", "laptop", "original", "gpu")
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Strategy = Literal["sample", "greedy", "beam"]
SEEDS = (0, 2**32 - 1)  # numpy and scikit-learn take no larger ones


@dataclass(frozen=True)
class DataConfig(Checked):
    """How the digits become sentences.

    Attributes:
        source: "digits" ships with scikit-learn (8x8); "mnist" (28x28) is fetched when asked for.
        n_images: use only the first so many images; None uses all.
        n_codes: entries in the code book.
        patch: side of a square patch, in pixels; it must divide the image's sides.
        copies: augmented copies of every training image, beside the original.
        rotate: largest rotation of a copy, in degrees, either way.
        shift: largest shift of a copy, in pixels, either way.
        scale: largest stretch of a copy along each axis, as a fraction.
        shear: largest shear of a copy, as a slope.
        free_fraction: share of the draw sentences in which the class is withheld.
        seed: seed of augmentation, k-means and withheld classes.
    """

    source: Literal["digits", "mnist"] = "digits"
    n_images: int | None = None
    n_codes: int = 500
    patch: int = 2
    copies: int = 40
    rotate: float = 8.0
    shift: float = 0.2
    scale: float = 0.06
    shear: float = 0.12
    free_fraction: float = 0.1
    seed: int = 42

    limits = {
        "n_images": (100, None),
        "n_codes": (2, 1000),
        "patch": (1, None),
        "copies": (0, None),
        "rotate": (0, 180),
        "shift": (0, None),
        "scale": (0, 1),
        "shear": (0, 1),
        "free_fraction": (0, 1),
        "seed": SEEDS,
    }


@dataclass(frozen=True)
class DataFiles(Checked):
    """Sequences to learn from or to measure on, in the format of data/README.md.

    Attributes:
        data_path: JSON lines, one row a line, with "tokens" and, where there is one, a "label".
        vocab_path: JSON, token -> id.
        test_size: share of the rows that is measured once, at the end, if the rows name no split.
        val_size: share of the rows that chooses the best checkpoint, if the rows name no split.
        split_seed: seed of that split.
        repair_tail: put the class token in where a row's tail lacks it, from the row's label.
        allow_unknown: read tokens that are not in the vocabulary as <UNK> instead of refusing.
    """

    data_path: Path
    vocab_path: Path
    test_size: float = 0.2
    val_size: float = 0.1
    split_seed: int = 42
    repair_tail: bool = False
    allow_unknown: bool = False

    limits = {"test_size": (0, 0.9), "val_size": (0.001, 0.9), "split_seed": SEEDS}


def _check_activation(field: str, name: str | None) -> None:
    if name is None:
        return
    from transformers.activations import ACT2FN  # seconds to import, and seldom asked

    if name not in ACT2FN:
        known = ", ".join(sorted(ACT2FN))
        raise ConfigError(f"{field}: transformers knows no {name!r}; choose one of {known}")


@dataclass(frozen=True)
class ModelConfig(Checked):
    """A GPT-2, in GPT-2's own names. What is None is as GPT-2 has it, unless it says otherwise.

    Attributes:
        n_layer: transformer blocks.
        n_head: attention heads in a block; must divide n_embd.
        n_embd: width.
        n_positions: longest sentence the model can see, in tokens.
        dropout: dropout on embeddings and on what each block adds.
        attn_pdrop: dropout on attention weights; above 0 it costs most of the speed.
        resid_pdrop: dropout on what each block adds; None: as `dropout`.
        embd_pdrop: dropout on embeddings; None: as `dropout`.
        n_inner: width inside each block's MLP; None: 4 n_embd.
        activation_function: of the MLP, by transformers' name for it; None: gelu_pytorch_tanh.
        layer_norm_epsilon: what keeps layer norms from dividing by nothing; None: 1e-5.
        initializer_range: standard deviation of the first random weights; None: 0.02.
        scale_attn_weights: divide attention scores by the root of a head's width; None: true.
        scale_attn_by_inverse_layer_idx: divide them by the number of the block, too; None: false.
        reorder_and_upcast_attn: take attention in fp32, where it is not fused; None: false.
        tie_word_embeddings: one embedding for input and output; None: true.
        summary_type: this and the next four are for GPT2DoubleHeadsModel, which seqlm does not
            train; they are kept in config.json.
        summary_use_proj: as above.
        summary_activation: as above.
        summary_proj_to_labels: as above.
        summary_first_dropout: as above.
    """

    n_layer: int = 6
    n_head: int = 8
    n_embd: int = 384
    n_positions: int = 1024
    dropout: float = 0.1
    attn_pdrop: float = 0.0
    resid_pdrop: float | None = None
    embd_pdrop: float | None = None
    n_inner: int | None = None
    activation_function: str | None = None
    layer_norm_epsilon: float | None = None
    initializer_range: float | None = None
    scale_attn_weights: bool | None = None
    scale_attn_by_inverse_layer_idx: bool | None = None
    reorder_and_upcast_attn: bool | None = None
    tie_word_embeddings: bool | None = None
    summary_type: Literal["last", "first", "mean", "cls_index", "attn"] | None = None
    summary_use_proj: bool | None = None
    summary_activation: str | None = None
    summary_proj_to_labels: bool | None = None
    summary_first_dropout: float | None = None

    limits = {
        "n_layer": (1, None),
        "n_head": (1, None),
        "n_embd": (1, None),
        "n_positions": (2, None),
        "dropout": (0, 0.9),
        "attn_pdrop": (0, 0.9),
        "resid_pdrop": (0, 0.9),
        "embd_pdrop": (0, 0.9),
        "n_inner": (1, None),
        "layer_norm_epsilon": (1e-12, 0.1),
        "initializer_range": (1e-6, 1),
        "summary_first_dropout": (0, 0.9),
    }

    def __post_init__(self):
        super().__post_init__()
        for name in ("activation_function", "summary_activation"):
            _check_activation(name, getattr(self, name))
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"n_embd: {self.n_embd} cannot be shared among n_head = {self.n_head} heads; "
                "choose a multiple"
            )


@dataclass(frozen=True)
class TrainConfig(Checked):
    """One training run, of the language model or of a classifier.

    Attributes:
        output_dir: where best_model/, final_model/ and the checkpoints go.
        batch_size: rows a forward pass, on each device.
        grad_accumulation: forward passes an optimizer step.
        num_epochs: passes over the training rows.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's, on matrices only.
        warmup_ratio: share of the steps in which the learning rate climbs.
        schedule: how it comes down afterwards.
        max_grad_norm: gradients are clipped to this norm.
        max_length: longer rows lose codes from the left.
        max_steps: stop after so many optimizer steps; -1 goes by num_epochs.
        max_seconds: stop after this many seconds, keeping the best checkpoint; the schedule is that
            of the whole run. None: no limit.
        evals: how often to evaluate on val, evenly over the run.
        patience: stop after so many evaluations without a better one; 0 never stops early.
        precision: "auto" times bf16 against fp32 on this machine and takes the faster.
        seed: seed of weights, order of rows and dropout.
        resume: pick up the newest checkpoint of an interrupted run of the same settings.
    """

    output_dir: Path = Path("outputs")
    batch_size: int = 8
    grad_accumulation: int = 1
    num_epochs: float = 20.0
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_ratio: float = 0.05
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    max_grad_norm: float = 1.0
    max_length: int = 1024
    max_steps: int = -1
    max_seconds: float | None = None
    evals: int = 20
    patience: int = 5
    precision: Precision = "auto"
    seed: int = 42
    resume: bool = True

    limits = {
        "batch_size": (1, None),
        "grad_accumulation": (1, None),
        "num_epochs": (0.001, None),
        "learning_rate": (1e-9, 1),
        "weight_decay": (0, None),
        "warmup_ratio": (0, 0.99),
        "max_grad_norm": (1e-9, None),
        "max_length": (4, None),
        "max_steps": (-1, None),
        "max_seconds": (1e-3, None),
        "evals": (1, None),
        "patience": (0, None),
        "seed": SEEDS,
    }


@dataclass(frozen=True)
class SampleConfig(Checked):
    """How the next token is chosen.

    Attributes:
        strategy: "sample" draws at random, "greedy" always takes the likeliest token, "beam" looks
            for the likeliest whole sentence; the last two heed no temperature, top_k or top_p.
        temperature: below 1 sharpens the probabilities, above 1 flattens them.
        top_k: keep only the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of tokens that holds this much probability (the nucleus).
        guidance: how far to go from the free towards the class-given prediction; 1 is just there.
        max_new_tokens: stop after so many, if nothing else stopped it before; None: as many as fit
            the model's n_positions.
        seed: the same seed gives the same samples.
        num_beams: beam: how many sentences are kept at a time.
    """

    strategy: Strategy = "sample"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    max_new_tokens: int | None = None
    seed: int = 42
    num_beams: int = 4

    limits = {
        "num_beams": (1, 64),
        "temperature": (0.01, 100),
        "top_k": (0, None),
        "top_p": (0.001, 1),
        "guidance": (0, 20),
        "max_new_tokens": (1, None),
        "seed": SEEDS,
    }
