"""Build, load and check small GPT-2 language models and classifiers."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedModel

from seqlm.config import ModelConfig
from seqlm.data.tokens import EOS, IMG, PAD
from seqlm.errors import ConfigError, DataError, NotFiniteError

# Progress bars for files that load at once, and advice that does not apply here (padding stands on
# the right, tied weights are one), would hide what matters. Errors still come through.
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

# Up to this length plain attention is faster than the fused kernel on a CPU in bf16, equal in fp32.
SHORT_ROW = 128


def gpt2_config(
    config: ModelConfig, vocab: dict[str, int], kind: type[GPT2Config] = GPT2Config, **extra
) -> GPT2Config:
    """GPT-2's configuration for our settings; `extra` fields are passed on as they are."""
    ours = {
        "vocab_size": len(vocab),
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        # GPT-2's own "gelu_new" formula, as one fused kernel.
        "activation_function": "gelu_pytorch_tanh",
        "bos_token_id": vocab[IMG],
        "eos_token_id": vocab[EOS],
        "pad_token_id": vocab[PAD],
    }
    chosen = {
        k: v for k, v in asdict(config).items() if v is not None and k not in ("size", "dropout")
    }
    return kind(**ours | chosen | extra)


def build_seeded(build: Callable[[], PreTrainedModel], seed: int) -> PreTrainedModel:
    """Call `build` with torch seeded by `seed`; torch's own random state does not change."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def build_lm(config: ModelConfig, vocab: dict[str, int], seed: int = 42) -> GPT2LMHeadModel:
    """A causal language model with random weights; the same seed gives the same weights."""
    model = build_seeded(lambda: GPT2LMHeadModel(gpt2_config(config, vocab)), seed)
    model.generation_config.max_length = config.n_positions
    return fix_loss_reduction(model)


def fix_loss_reduction(model: PreTrainedModel) -> PreTrainedModel:
    """Make Trainer's loss the mean over all predictions of a step, however they are batched.

    GPT-2's language-model loss counts one token per row too many: the first, which is not
    predicted. And Trainer expects a model to divide by the rows of all batches of a step; GPT-2's
    classifier does not, so Trainer must.
    """
    if isinstance(model, GPT2LMHeadModel):
        model.loss_type = "ForCausalLM"
    else:
        model.accepts_loss_kwargs = False
    return model


def build_classifier(
    config: ModelConfig, vocab: dict[str, int], n_classes: int = 10, seed: int = 42
) -> GPT2ForSequenceClassification:
    """A classifier with random weights; it reads the class at the last token before padding."""
    ours = gpt2_config(config, vocab, num_labels=n_classes)
    return fix_loss_reduction(build_seeded(lambda: GPT2ForSequenceClassification(ours), seed))


def classifier_from_lm(
    directory: Path, n_classes: int = 10, dropout: float | None = None, seed: int = 42
) -> GPT2ForSequenceClassification:
    """A classifier with the body of a trained language model; only its last layer is new."""
    check_model_directory(directory)
    extra = {} if dropout is None else {"resid_pdrop": dropout, "embd_pdrop": dropout}
    extra |= {"new": {"score.weight"}, "num_labels": n_classes}
    kind = GPT2ForSequenceClassification
    return fix_loss_reduction(build_seeded(lambda: load_weights(kind, directory, **extra), seed))


def load_lm(directory: Path, device: str | None = None) -> GPT2LMHeadModel:
    """A saved language model, ready to evaluate; DataError when `directory` holds none."""
    return _load(GPT2LMHeadModel, directory, "a language model", device)


def load_classifier(directory: Path, device: str | None = None) -> GPT2ForSequenceClassification:
    """A saved classifier, ready to evaluate; DataError when `directory` holds none."""
    return _load(GPT2ForSequenceClassification, directory, "a classifier", device)


def load_model(directory: Path, device: str | None = None) -> PreTrainedModel:
    """The language model or classifier in `directory`, ready to evaluate."""
    return (load_classifier if is_classifier(directory) else load_lm)(directory, device)


def _load(kind, directory: Path, name: str, device: str | None) -> PreTrainedModel:
    architectures = check_model_directory(directory).architectures or []
    if kind.__name__ not in architectures:
        raise DataError(f"{directory}: holds {architectures}, not {name}")
    model = load_weights(kind, directory).to(device or default_device())
    return fix_loss_reduction(model).eval()


def is_classifier(model: PreTrainedModel | GPT2Config | Path) -> bool:
    """Whether `model`, its configuration or its directory is a classifier's; DataError for none."""
    if isinstance(model, PreTrainedModel):
        return isinstance(model, GPT2ForSequenceClassification)
    config = check_model_directory(model) if isinstance(model, str | Path) else model
    return "GPT2ForSequenceClassification" in (getattr(config, "architectures", None) or [])


def load_weights(kind, directory: Path, new: Iterable[str] = (), **extra) -> PreTrainedModel:
    """A model of class `kind` from `directory`, with every weight except the `new` ones.

    Transformers alone would fill in missing weights at random and only mention it.
    """
    weights = Path(directory) / "model.safetensors"
    try:
        model, info = kind.from_pretrained(directory, output_loading_info=True, **extra)
    except Exception as error:  # transformers, torch and safetensors raise types of their own
        raise DataError(
            f"{weights}: these weights cannot be loaded ({error_text(error)}); save the model again"
        ) from error
    missing = sorted(set(info["missing_keys"]) - set(new))
    if missing:
        raise DataError(
            f"{weights}: {len(missing)} weights are missing, {missing[0]} among them; save the "
            "model again"
        )
    return model


def error_text(error: Exception) -> str:
    """The message of a library's exception, on one line."""
    return " ".join(str(error).split())[:160]


def check_model_directory(
    directory: Path,
    weights: str = "model.safetensors",
    command: str = "`seqlm train` or `make report`",
) -> GPT2Config:
    """The configuration in `directory`; DataError in one sentence when there is no whole model."""
    directory = Path(directory)
    missing = [name for name in ("config.json", weights) if not (directory / name).is_file()]
    if missing:
        raise DataError(
            f"{directory}: no model here ({' and '.join(missing)} missing); {command} makes one"
        )
    try:
        return GPT2Config.from_pretrained(directory)
    except Exception as error:  # transformers raises many types
        raise DataError(
            f"{directory}/config.json: no configuration of a GPT-2 ({error_text(error)}); write "
            f"the model again with {command}"
        ) from error


def default_device() -> str:
    """The GPU when there is one, else the CPU (a Mac's GPU has no float64, which we count in)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fit_attention(model: PreTrainedModel, longest_row: int) -> None:
    """Choose the attention kernel: plain for short rows on a CPU, else fused.

    It changes the speed, not the answers.
    """
    short = longest_row <= SHORT_ROW and model.device.type == "cpu"
    model.set_attn_implementation("eager" if short else "sdpa")


def check_length(model: PreTrainedModel, longest_row: int) -> None:
    """Raises ConfigError when rows are longer than the model has positions for."""
    n_positions = model.config.n_positions
    if longest_row > n_positions:
        raise ConfigError(
            f"max_length: rows of {longest_row} tokens do not fit n_positions = {n_positions}; "
            "lower max_length, or raise n_positions"
        )


def finite(logits: torch.Tensor) -> torch.Tensor:
    """`logits` as they are. Raises NotFiniteError when one is infinite or not a number."""
    if not bool(logits.isfinite().all()):
        raise NotFiniteError(
            "the model's logits are not finite numbers: its training diverged, or its weights are "
            "damaged; use an earlier checkpoint, or train again with a lower learning rate"
        )
    return logits


def count_parameters(model: PreTrainedModel) -> int:
    """Trainable parameters; those shared between input and output count once."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
