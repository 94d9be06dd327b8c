"""Two small language models without attention, for the GPT to beat.

They train through the same `training.train` and are scored by the same `score_tokens`, on the
same tokens, so whatever the GPT does better it owes to its own shape. What each sees of the
tokens before::

    LSTM              all of them and their order, pressed into one vector that is carried along
    attention-free    their plain mean: which came before, in whatever order, all alike
    GPT               all of them, each weighed anew at every step
"""

from pathlib import Path

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from seqlm.config import ModelConfig
from seqlm.data.tokens import EOS, IMG, PAD
from seqlm.errors import DataError
from seqlm.models.gpt2 import build_seeded, check_model_directory, default_device, load_weights


class BaselineConfig(PretrainedConfig):
    """The size of a rival, in GPT-2's own names."""

    model_type = "seqlm_rival"

    vocab_size: int = 1
    n_positions: int = 1
    n_embd: int = 1
    dropout: float = 0.0
    initializer_range: float = 0.02  # GPT-2's; of the embedding and of linear layers
    layer_norm_epsilon: float = 1e-5


class BaselineLM(PreTrainedModel):
    """Embedding, something in between (`mix`), and the embedding again as output layer.

    A causal language model that Trainer and `score_tokens` take for a GPT-2: padding stands on the
    right, where nothing real looks.
    """

    config_class = BaselineConfig
    accepts_loss_kwargs = True  # Trainer hands over num_items_in_batch, and divides by nothing else

    def __init__(self, config: BaselineConfig):
        super().__init__(config)
        self.loss_type = "ForCausalLM"  # by this name Trainer knows that labels are shifted here
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.build()
        self.post_init()

    def build(self) -> None:
        """Make the layers that `mix` uses."""
        raise NotImplementedError

    def mix(self, embedded: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D): at each place what the tokens up to it say about the next."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> CausalLMOutput:
        """Logits (B, T, V) for ids (B, T); with `labels` (B, T) the loss, too.

        Labels are shifted in here, and -100 bears no loss. The loss is a mean over what is
        predicted, or the sum over `num_items_in_batch`. There is no cache, so `use_cache` changes
        nothing.
        """
        hidden = self.mix(self.wte(input_ids))  # (B, T, D)
        logits = nn.functional.linear(hidden, self.wte.weight)  # (B, T, V)
        loss = None
        if labels is not None:
            size = self.config.vocab_size
            loss = self.loss_function(logits, labels, size, num_items_in_batch=num_items_in_batch)
        return CausalLMOutput(loss=loss, logits=logits)

    def set_attn_implementation(self, *args, **kwargs) -> None:
        """Nothing to choose: there is no attention here."""


class LSTMLanguageModel(BaselineLM):
    """One LSTM layer as wide as the embedding, whose output the embedding turns into logits.

    Sources: S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, Neural Computation 9 (1997);
    tied output: O. Press and L. Wolf, Using the Output Embedding to Improve Language Models, EACL
    2017; forget gates that start open: R. Jozefowicz et al., An Empirical Exploration of Recurrent
    Network Architectures, ICML 2015.
    """

    def build(self) -> None:
        self.lstm = nn.LSTM(self.config.n_embd, self.config.n_embd, batch_first=True)

    def mix(self, embedded: torch.Tensor) -> torch.Tensor:
        return self.drop(self.lstm(self.drop(embedded))[0])

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.LSTM):
            width = module.hidden_size
            with torch.no_grad():
                module.bias_ih_l0[width : 2 * width] = 1  # gates stand in the order i, f, g, o


class MeanLanguageModel(BaselineLM):
    """One block of GPT-2 in which a running mean takes the place of attention.

    With x the embedding of token and place: h = x + mean of all x so far; then, as in GPT-2,
    h + MLP(norm(h)) with an MLP four times as wide, and a last norm before the output layer.
    """

    def build(self) -> None:
        width, epsilon = self.config.n_embd, self.config.layer_norm_epsilon
        self.wpe = nn.Embedding(self.config.n_positions, width)
        self.norm_mlp = nn.LayerNorm(width, epsilon)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )
        self.norm_out = nn.LayerNorm(width, epsilon)

    def mix(self, embedded: torch.Tensor) -> torch.Tensor:
        places = torch.arange(embedded.shape[1], device=embedded.device)  # (T,)
        x = self.drop(embedded + self.wpe(places))  # (B, T, D)
        h = x + x.cumsum(1) / (places + 1)[:, None]
        return self.norm_out(h + self.drop(self.mlp(self.norm_mlp(h))))


# No norm lifts an LSTM's input, and at 0.02 it is so faint that learning hardly begins (60 steps
# of 64 rows: 4.3 nats per token against 3.6); above 0.3 the first guesses are no longer even.
LSTM_INITIALIZER_RANGE = 0.3

_KINDS = {kind.__name__: kind for kind in (LSTMLanguageModel, MeanLanguageModel)}


def baseline_config(size: ModelConfig, vocab: dict[str, int], **extra) -> BaselineConfig:
    """A rival as wide as the GPT of that `size`; its layers and heads have no counterpart here."""
    return BaselineConfig(
        vocab_size=len(vocab),
        n_positions=size.n_positions,
        n_embd=size.n_embd,
        dropout=size.dropout,
        bos_token_id=vocab[IMG],
        eos_token_id=vocab[EOS],
        pad_token_id=vocab[PAD],
        **extra,
    )


def build_lstm(size: ModelConfig, vocab: dict[str, int], seed: int = 42) -> LSTMLanguageModel:
    """An LSTM of the GPT's width with random weights; the same seed gives the same weights."""
    config = baseline_config(size, vocab, initializer_range=LSTM_INITIALIZER_RANGE)
    return build_seeded(lambda: LSTMLanguageModel(config), seed)


def build_attention_free(
    size: ModelConfig, vocab: dict[str, int], seed: int = 42
) -> MeanLanguageModel:
    """A running-mean block of the GPT's width with random weights, the same for the same seed."""
    return build_seeded(lambda: MeanLanguageModel(baseline_config(size, vocab)), seed)


def load_baseline_lm(directory: Path) -> BaselineLM:
    """A saved rival, ready to evaluate. Raises DataError when `directory` holds none."""
    named = check_model_directory(directory).architectures or []
    kinds = [_KINDS[name] for name in named if name in _KINDS]
    if not kinds:
        raise DataError(f"{directory}: holds {named}, not one of the rivals {list(_KINDS)}")
    return load_weights(kinds[0], directory).to(default_device()).eval()
