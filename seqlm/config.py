"""Every setting of a run, as frozen dataclasses with the bounds of each field.

The command line, the profiles and the notebooks fill these in. Defaults are set here; those of a
single command are in `commands.DEFAULTS`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Strict

from seqlm.checked import checked_dataclass
from seqlm.errors import ConfigError

PROFILES = ("smoke", "nano", "laptop", "mnist", "original", "gpu")
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Strategy = Literal["sample", "greedy", "beam"]
Runtime = Literal["torch", "onnx"]
Stored = Literal["fp32", "fp16", "int8"]  # how a page holds its weights
Size = Literal["nano", "original", "large"]
FilePath = Annotated[Path, Strict(False)]  # text will do, too
MAX_SEED = 2**32 - 1  # numpy and scikit-learn take no larger ones

SIZES = {
    "nano": {"n_layer": 3, "n_head": 4, "n_embd": 96},
    "original": {"n_layer": 6, "n_head": 8, "n_embd": 384},
    "large": {"n_layer": 12, "n_head": 12, "n_embd": 768},
}

# What `seqlm infer`, the server and the playground generate with, chosen in notebook 7
# (docs/experiments.md); SampleConfig's own defaults are the model itself.
DRAWING = {"temperature": 0.9, "top_p": 0.95, "guidance": 1.5}


@checked_dataclass
class DataConfig:
    """How the digits become token sequences.

    Attributes:
        source: "digits" ships with scikit-learn (8x8); "mnist" (28x28), or other images in its IDX
            format, is read from `images_path` or, where no such files are, downloaded once.
        n_images: use only the first `n_images` images; None uses all.
        n_codes: entries in the codebook.
        patch: side of a square patch, in pixels; it must divide the image's sides.
        copies: augmented copies of every training image, beside the original.
        rotate: largest rotation of a copy, in degrees, either way.
        shift: largest shift of a copy, in pixels, either way.
        scale: largest stretch of a copy along each axis, as a fraction.
        shear: largest shear of a copy, as a slope.
        free_fraction: share of the draw rows that do not show their class, for guidance.
        seed: seed of augmentation, k-means and hidden classes.
        images_path: folder of IDX files, plain or .gz, for source mnist; None: data/mnist.
    """

    source: Literal["digits", "mnist"] = "digits"
    n_images: int | None = Field(None, ge=100)
    n_codes: int = Field(500, ge=2, le=1000)
    patch: int = Field(2, ge=1)
    copies: int = Field(7, ge=0)
    rotate: float = Field(8.0, ge=0, le=180)
    shift: float = Field(0.2, ge=0)
    scale: float = Field(0.06, ge=0, le=1)
    shear: float = Field(0.12, ge=0, le=1)
    free_fraction: float = Field(0.1, ge=0, le=1)
    seed: int = Field(42, ge=0, le=MAX_SEED)
    images_path: Path | None = Field(None, strict=False)

    def __post_init__(self):
        if self.images_path and self.source != "mnist":
            raise ConfigError("images_path: only source mnist reads files; set it as well")


@checked_dataclass
class DataFiles:
    """Sequences to learn from or to measure on, in the format of data/README.md.

    Attributes:
        data_path: JSON Lines file, one row per line, with "tokens" and, if known, a "label"; or a
            directory that `datasets` saved with save_to_disk.
        vocab_path: JSON file that maps each token to its id.
        test_size: share of test rows, measured once at the end, unless the rows name their split.
        val_size: share of val rows, which choose the best checkpoint, unless rows name their split.
        split_seed: seed of the split.
        repair_tail: insert the class token, from the row's label, where the tail of a row lacks it.
        allow_unknown: read tokens that are not in the vocabulary as <UNK> instead of refusing.
    """

    data_path: FilePath
    vocab_path: FilePath
    test_size: float = Field(0.2, ge=0, le=0.9)
    val_size: float = Field(0.1, ge=0.001, le=0.9)
    split_seed: int = Field(42, ge=0, le=MAX_SEED)
    repair_tail: bool = False
    allow_unknown: bool = False


@checked_dataclass
class ModelConfig:
    """A GPT-2 with GPT-2's own names; None means GPT-2's own value, unless stated otherwise.

    Attributes:
        size: sets n_layer, n_head and n_embd where they are None: nano to 3, 4 and 96;
            original, the default, to 6, 8 and 384; large to 12, 12 and 768, as in GPT-2 small.
            `seqlm sizes` times all three.
        n_layer: transformer blocks.
        n_head: attention heads in a block; must divide n_embd.
        n_embd: width of the embeddings and of each block.
        n_positions: longest sequence the model can see, in tokens.
        dropout: dropout on embeddings and on the outputs of attention and MLP.
        attn_pdrop: dropout on attention weights; above 0 it costs most of the speed.
        resid_pdrop: dropout on the outputs of attention and MLP; None: as `dropout`.
        embd_pdrop: dropout on embeddings; None: as `dropout`.
        n_inner: width inside each block's MLP; None: 4 n_embd.
        activation_function: of the MLP, by its name in transformers; None: gelu_pytorch_tanh.
        layer_norm_epsilon: keeps layer norms from dividing by zero; None: 1e-5.
        initializer_range: standard deviation of the initial random weights; None: 0.02.
        scale_attn_weights: divide attention scores by the root of the head width; None: true.
        scale_attn_by_inverse_layer_idx: also divide them by the number of the block; None: false.
        reorder_and_upcast_attn: compute attention in fp32 where it is not fused; None: false.
        tie_word_embeddings: use one embedding for input and output; None: true.
    """

    size: Size | None = Field(None, kw_only=True)
    n_layer: int | None = Field(None, ge=1)
    n_head: int | None = Field(None, ge=1)
    n_embd: int | None = Field(None, ge=1)
    n_positions: int = Field(1024, ge=2)
    dropout: float = Field(0.1, ge=0, le=0.9)
    attn_pdrop: float = Field(0.0, ge=0, le=0.9)
    resid_pdrop: float | None = Field(None, ge=0, le=0.9)
    embd_pdrop: float | None = Field(None, ge=0, le=0.9)
    n_inner: int | None = Field(None, ge=1)
    activation_function: str | None = None
    layer_norm_epsilon: float | None = Field(None, ge=1e-12, le=0.1)
    initializer_range: float | None = Field(None, ge=1e-6, le=1)
    scale_attn_weights: bool | None = None
    scale_attn_by_inverse_layer_idx: bool | None = None
    reorder_and_upcast_attn: bool | None = None
    tie_word_embeddings: bool | None = None

    def __post_init__(self):
        for name, value in SIZES[self.size or "original"].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.n_embd % self.n_head:
            raise ConfigError(
                f"n_embd: {self.n_embd} cannot be shared among n_head = {self.n_head} heads; "
                "choose a multiple"
            )
        if self.activation_function is not None:
            from transformers.activations import ACT2FN  # seconds to import, and seldom asked

            if self.activation_function not in ACT2FN:
                raise ConfigError(
                    f"activation_function: transformers knows no {self.activation_function!r}; "
                    f"choose one of {', '.join(sorted(ACT2FN))}"
                )


@checked_dataclass
class TrainConfig:
    """One training run, of the language model or of a classifier.

    Attributes:
        output_dir: folder for best_model/, final_model/ and the checkpoints.
        batch_size: rows per forward pass, on each device.
        grad_accumulation: forward passes per optimizer step.
        num_epochs: passes over the training rows.
        optimizer: "muon" updates the matrices inside the blocks by Muon and all else by AdamW; it
            learns from fewer tokens, at higher learning rates, such as 2e-3.
        learning_rate: peak of the learning-rate schedule.
        weight_decay: decoupled weight decay, on matrices only.
        warmup_ratio: share of the steps in which the learning rate rises.
        schedule: shape of the learning rate after the warmup; "warmup_stable_decay" is constant
            and falls linearly in the last fifth of the steps.
        max_grad_norm: gradients are clipped to this norm.
        max_length: most tokens in a row; longer rows lose codes from the left.
        max_steps: stop after this many optimizer steps; -1 follows num_epochs.
        max_seconds: stop after this many seconds and keep the best checkpoint; the schedule is
            planned to end then. None: no limit.
        evals: number of evaluations on val, evenly over the run.
        patience: stop after this many evaluations without improvement; 0 never stops early.
        precision: "auto" times bf16 against fp32 on this machine and takes the faster.
        seed: seed of weights, order of rows and dropout.
        resume: continue an interrupted run of the same settings from its newest checkpoint.
        overwrite: replace files in output_dir that seqlm did not write; false refuses to.
    """

    output_dir: FilePath = Path("outputs")
    batch_size: int = Field(8, ge=1)
    grad_accumulation: int = Field(1, ge=1)
    num_epochs: float = Field(20.0, ge=0.001)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(5e-5, ge=1e-9, le=1)
    weight_decay: float = Field(0.01, ge=0)
    warmup_ratio: float = Field(0.05, ge=0, le=0.99)
    schedule: Literal["cosine", "linear", "constant_with_warmup", "warmup_stable_decay"] = "cosine"
    max_grad_norm: float = Field(1.0, ge=1e-9)
    max_length: int = Field(1024, ge=4)
    max_steps: int = Field(-1, ge=-1)  # but not 0
    max_seconds: float | None = Field(None, ge=0.001)
    evals: int = Field(20, ge=1)
    patience: int = Field(5, ge=0)
    precision: Precision = "auto"
    seed: int = Field(42, ge=0, le=MAX_SEED)
    resume: bool = True
    overwrite: bool = False

    def __post_init__(self):
        if self.max_steps == 0:
            raise ConfigError("max_steps: must be at least 1, or -1 to follow num_epochs, got 0")


@checked_dataclass
class SampleConfig:
    """How the next token is chosen.

    Attributes:
        strategy: "sample" draws at random, "greedy" always takes the most probable token, "beam"
            searches for the most probable sequence; the last two ignore temperature, top_k and
            top_p.
        temperature: below 1 sharpens the probabilities, above 1 flattens them.
        top_k: keep only the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set of tokens with this total probability (the nucleus).
        guidance: strength of classifier-free guidance; 1 is the model itself, 0 ignores the class.
        max_new_tokens: most new tokens of a sequence; None: as many as fit the model's n_positions.
        seed: the same seed gives the same samples.
        num_beams: beam: number of sequences kept at each step.
    """

    strategy: Strategy = "sample"
    temperature: float = Field(1.0, ge=0.01, le=100)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, ge=0.001, le=1)
    guidance: float = Field(1.0, ge=0, le=20)
    max_new_tokens: int | None = Field(None, ge=1)
    seed: int = Field(42, ge=0, le=MAX_SEED)
    num_beams: int = Field(4, ge=1, le=64)


@checked_dataclass
class FinetuneConfig:
    """Which model to fine-tune, and how.

    Attributes:
        model_path: directory of the trained model to start from; it stays as it is.
        vocab_path: tokens that may be new, appended in this order; without it, those of the data.
        task: lm or classifier; without it, the model's own.
        grow: append tokens that the model lacks; false refuses them.
        lora_rank: LoRA: train small matrices of this rank, at most n_embd, instead of the
            weights; 0 trains all weights.
        lora_alpha: LoRA: the product of the matrices is scaled by lora_alpha / lora_rank.
        old_data_path: rows of the kind it was trained on before, to measure what it forgets.
        replay: share of the training rows that are old rows, so that the model forgets less.
        only_unseen: where val or test hold rows that the model was trained on, leave those out
            instead of refusing.
    """

    model_path: FilePath = Path("outputs/best_model")
    vocab_path: Path | None = Field(None, strict=False)
    task: Literal["lm", "classifier"] | None = None
    grow: bool = True
    lora_rank: int = Field(0, ge=0)
    lora_alpha: float = Field(16.0, ge=1e-6)
    old_data_path: Path | None = Field(None, strict=False)
    replay: float = Field(0.0, ge=0, le=0.9)
    only_unseen: bool = False


@checked_dataclass
class ServeConfig:
    """Which model to serve, and where.

    Attributes:
        model_path: directory of a trained language model, or of a classifier.
        classifier_path: a classifier that answers /classify in place of the language model.
        host: 127.0.0.1 serves this machine only; 0.0.0.0 and :: serve other machines, too, which
            must send the key of the environment variable LIT_SERVER_API_KEY.
        port: port of the server.
        workers: processes per endpoint, and per GPU if there is one.
        timeout: seconds that a request may wait; after that it gets status 504.
    """

    model_path: FilePath = Path("outputs/best_model")
    classifier_path: Path | None = Field(None, strict=False)
    host: Literal["127.0.0.1", "0.0.0.0", "::"] = "127.0.0.1"
    port: int = Field(8000, ge=1024, le=65535)
    workers: int = Field(1, ge=1, le=64)
    timeout: float = Field(30.0, ge=1, le=86_400)
