"""Two small language models without attention, as baselines for the GPT.

They are trained by the same `train` and scored by the same `score_tokens` on the same tokens, so
differences come from the architecture. How each uses the tokens before::

    LSTM              all of them in order, compressed into one vector that is carried along
    attention-free    their plain mean: order does not matter, all count alike
    GPT               all of them, weighted anew at every step
"""

import torch
from torch import nn
from transformers import GPT2Config, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from seqlm.config import ModelConfig
from seqlm.models.gpt2 import build_seeded, gpt2_config


class BaselineConfig(GPT2Config):
    """The size of a baseline, in GPT-2's own names; layers and heads have no counterpart."""

    model_type = "seqlm_baseline"  # so that no GPT-2 is loaded from its folder


class BaselineLM(PreTrainedModel):
    """Embedding, layers (`mix`), and the embedding again as output layer.

    Subclasses make their layers in `build`; `mix` maps embeddings (B, T, D) to hidden states
    (B, T, D), each from the tokens up to it. Trainer and `score_tokens` use it like a GPT-2, and
    `from_pretrained` loads what was trained.
    """

    config_class = BaselineConfig
    initializer_range = 0.02  # GPT-2's
    accepts_loss_kwargs = True  # Trainer passes num_items_in_batch, and divides by nothing else

    def __init__(self, config: BaselineConfig):
        super().__init__(config)
        self.loss_type = "ForCausalLM"  # tells Trainer that labels are shifted here
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.drop = nn.Dropout(config.resid_pdrop)
        self.build()
        self.post_init()

    @classmethod
    def new(cls, size: ModelConfig, vocab: dict[str, int], seed: int = 42) -> "BaselineLM":
        """A model of the GPT's width with random weights from `seed`."""
        config = gpt2_config(size, vocab, BaselineConfig, initializer_range=cls.initializer_range)
        return build_seeded(lambda: cls(config), seed)

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> CausalLMOutput:
        """Logits (B, T, V) for ids (B, T); with `labels` (B, T) the loss, too.

        Labels are shifted here, and -100 is ignored. The loss is the mean over predictions, or
        their sum divided by `num_items_in_batch`. There is no cache: `use_cache` has no effect.
        """
        hidden = self.mix(self.wte(input_ids))  # (B, T, D)
        logits = nn.functional.linear(hidden, self.wte.weight)  # (B, T, V)
        loss = None
        if labels is not None:
            size = self.config.vocab_size
            loss = self.loss_function(logits, labels, size, num_items_in_batch=num_items_in_batch)
        return CausalLMOutput(loss=loss, logits=logits)

    def set_attn_implementation(self, *args, **kwargs) -> None:
        """Does nothing: there is no attention."""


class LSTMLanguageModel(BaselineLM):
    """One LSTM layer as wide as the embedding, which is also the output layer.

    Sources: S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, Neural Computation 9 (1997);
    tied output: O. Press and L. Wolf, Using the Output Embedding to Improve Language Models, EACL
    2017; forget gates with bias 1: R. Jozefowicz et al., An Empirical Exploration of Recurrent
    Network Architectures, ICML 2015.
    """

    # Its input has no norm, and with 0.02 it is so small that learning hardly starts (60 steps of
    # 64 rows: 4.3 nats per token against 3.6); above 0.3 the first predictions are not uniform.
    initializer_range = 0.3

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
    """One block of GPT-2 with a running mean in place of attention.

    With x the embedding of token and position: h = x + mean of all x so far; then, as in GPT-2,
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
        positions = torch.arange(embedded.shape[1], device=embedded.device)  # (T,)
        x = self.drop(embedded + self.wpe(positions))  # (B, T, D)
        h = x + x.cumsum(1) / (positions + 1)[:, None]
        return self.norm_out(h + self.drop(self.mlp(self.norm_mlp(h))))
