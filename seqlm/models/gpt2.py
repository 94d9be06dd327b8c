"""GPT-2, small, from scratch: as a language model and as a classifier."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from seqlm.config import ModelConfig
from seqlm.data.tokens import EOS, IMG, PAD
from seqlm.errors import ConfigError, DataError

# Bars for files that load in a blink, and advice for cases that are none here (padding stands on
# the right, tied weights are one), would drown what is worth reading. Errors still come through.
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

SHORT_ROW = 64  # below this length plain attention beats the fused kernel on a CPU


def gpt2_config(config: ModelConfig, vocab: dict[str, int], **extra) -> GPT2Config:
    """Our choices in GPT-2's own configuration; `extra` fields are handed on as they are."""
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
    return GPT2Config(**ours | chosen | extra)


def build_seeded(build: Callable[[], PreTrainedModel], seed: int) -> PreTrainedModel:
    """What `build` makes with random weights from `seed`; other random numbers are left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def build_lm(config: ModelConfig, vocab: dict[str, int], seed: int = 42) -> GPT2LMHeadModel:
    """A causal language model with random weights; the same seed gives the same weights."""
    model = build_seeded(lambda: GPT2LMHeadModel(gpt2_config(config, vocab)), seed)
    model.generation_config.max_length = config.n_positions
    return fix_loss_reduction(model)


def fix_loss_reduction(model: PreTrainedModel) -> PreTrainedModel:
    """Make Trainer's loss a mean over what is predicted, however rows are put into batches.

    GPT-2's own language-model loss divides by one token a row too many: the first, which nothing
    predicts. And Trainer leaves it to a model to divide by the rows of all the batches of a step,
    which GPT-2's classifier does not do; told so, Trainer does it.
    """
    if isinstance(model, GPT2LMHeadModel):
        model.loss_type = "ForCausalLM"
    else:
        model.accepts_loss_kwargs = False
    return model


def build_classifier(
    config: ModelConfig, vocab: dict[str, int], n_classes: int = 10, seed: int = 42
) -> GPT2ForSequenceClassification:
    """A classifier with random weights; it reads the class at the last token that is no padding."""
    wide = gpt2_config(config, vocab, num_labels=n_classes)
    return fix_loss_reduction(build_seeded(lambda: GPT2ForSequenceClassification(wide), seed))


def classifier_from_lm(
    directory: Path, n_classes: int = 10, dropout: float | None = None, seed: int = 42
) -> GPT2ForSequenceClassification:
    """A classifier whose body is a trained language model's; only its last layer is new."""
    check_model_directory(directory)
    extra = {} if dropout is None else {"resid_pdrop": dropout, "embd_pdrop": dropout}
    kind = GPT2ForSequenceClassification
    model = build_seeded(
        lambda: load_weights(kind, directory, new={"score.weight"}, num_labels=n_classes, **extra),
        seed,
    )
    return fix_loss_reduction(model)


def load_lm(directory: Path) -> GPT2LMHeadModel:
    """A saved language model, ready to evaluate. Raises DataError when `directory` holds none."""
    config = check_model_directory(directory)
    if "GPT2LMHeadModel" not in (config.architectures or []):
        raise DataError(f"{directory}: holds {config.architectures}, not a language model")
    return fix_loss_reduction(load_weights(GPT2LMHeadModel, directory)).to(default_device()).eval()


def load_classifier(directory: Path) -> GPT2ForSequenceClassification:
    """A saved classifier, ready to evaluate. Raises DataError when `directory` holds none."""
    config = check_model_directory(directory)
    if "GPT2ForSequenceClassification" not in (config.architectures or []):
        raise DataError(f"{directory}: holds {config.architectures}, not a classifier")
    model = load_weights(GPT2ForSequenceClassification, directory)
    return fix_loss_reduction(model).to(default_device()).eval()


def load_weights(kind, directory: Path, new: Iterable[str] = (), **extra) -> PreTrainedModel:
    """A model of `kind` from `directory`, every weight of it but the `new` ones.

    Transformers alone would fill in what is missing at random and only mention it.
    """
    weights = Path(directory) / "model.safetensors"
    try:
        model, found = kind.from_pretrained(directory, output_loading_info=True, **extra)
    except Exception as error:  # transformers, torch and safetensors raise types of their own
        raise DataError(
            f"{weights}: these weights cannot be loaded ({briefly(error)}); save the model again"
        ) from error
    lacking = sorted(set(found["missing_keys"]) - set(new))
    if lacking:
        raise DataError(
            f"{weights}: {len(lacking)} weights are missing, {lacking[0]} among them; save the "
            "model again"
        )
    return model


def briefly(error: Exception) -> str:
    """What an exception of a library says, in a line."""
    return " ".join(str(error).split())[:160]


def check_model_directory(directory: Path) -> GPT2Config:
    """The configuration in `directory`; DataError in one sentence when there is no whole model."""
    return read_configuration(
        directory,
        ("config.json", "model.safetensors"),
        "no model here",
        "`seqlm train` or `make report` makes one",
        "save the model again",
    )


def read_configuration(
    directory: Path, files: Sequence[str], absent: str, made_by: str, fix: str
) -> GPT2Config:
    """The configuration beside a model that is whole if all `files` are there.

    Raises DataError in one sentence: what is `absent` and what it is `made_by`, or, where
    config.json is not that of a GPT-2, how to `fix` it.
    """
    directory = Path(directory)
    missing = [name for name in files if not (directory / name).is_file()]
    if missing:
        raise DataError(f"{directory}: {absent} ({' and '.join(missing)} missing); {made_by}")
    try:
        return GPT2Config.from_pretrained(directory)
    except Exception as error:  # transformers raises a type of its own for each thing wrong
        raise DataError(
            f"{directory}/config.json: no configuration of a GPT-2 ({briefly(error)}); {fix}"
        ) from error


def default_device() -> str:
    """The GPU when there is one, else the CPU (a Mac's GPU knows no float64, which we count in)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fit_attention(model: PreTrainedModel, longest_row: int) -> None:
    """Choose the attention kernel for the rows at hand: plain for short rows on a CPU, else fused.

    It changes the speed, not the answers.
    """
    short = longest_row <= SHORT_ROW and model.device.type == "cpu"
    model.set_attn_implementation("eager" if short else "sdpa")


def check_length(model: PreTrainedModel, longest_row: int) -> None:
    """Raises ConfigError when rows are longer than the model has positions for."""
    room = model.config.n_positions
    if longest_row > room:
        raise ConfigError(
            f"max_length: rows of {longest_row} tokens do not fit n_positions = {room}; lower "
            "max_length, or raise n_positions"
        )


def count_parameters(model: PreTrainedModel) -> int:
    """Trainable numbers, those shared between input and output counted once."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
