"""Trace one image: candidates and surprisal at each position, and the attention weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from seqlm.config import SampleConfig
from seqlm.data.tokenizer import encode_tokens
from seqlm.data.tokens import KIND_CODE, code_token, token_kinds
from seqlm.models.generation import strategy_probabilities, withhold_class
from seqlm.models.gpt2 import finite
from seqlm.models.inference import guided_logits


@dataclass(frozen=True)
class Candidate:
    """One token that was possible at a position."""

    token: str
    probability: float  # the model's own
    after: float  # after the sampling settings, as it was sampled from
    chosen: bool  # whether this token stands there


@dataclass(frozen=True, eq=False)
class Trace:
    """The model's predictions at each of the P codes of an image."""

    ids: np.ndarray  # (P,) int64, the code at each position
    names: list[str]  # (V,) the token of every id
    expected: np.ndarray  # (P, V) p(token | all before it), the model's own
    after: np.ndarray  # (P, V) after guidance, temperature, top-k and nucleus, codes only

    @cached_property
    def surprisal(self) -> np.ndarray:
        """-ln p of the code at each position, in nats. (P,)"""
        return -np.log(self.expected[np.arange(len(self.ids)), self.ids])

    def candidates(self, position: int, k: int = 10) -> list[Candidate]:
        """The `k` most likely tokens at `position`, and the one that stands there."""
        expected, after = self.expected[position].tolist(), self.after[position].tolist()
        order = np.argsort(-self.expected[position], kind="stable")[:k].tolist()
        chosen = int(self.ids[position])
        order += [chosen] * (chosen not in order)
        return [Candidate(self.names[i], expected[i], after[i], i == chosen) for i in order]


@torch.inference_mode()
def trace(
    model,
    vocab: dict[str, int],
    prompt: Sequence[str],
    codes: Sequence[int],
    config: SampleConfig | None = None,
) -> Trace:
    """The model's predictions at each of `codes` (P,), which follow the tokens `prompt`.

    With the `config` passed to `generation.draw`, `after` is what each code was sampled from; for
    beam search, and without a config, it is the model's own prediction limited to codes.
    """
    if config is None or config.strategy == "beam":
        config = SampleConfig(guidance=config.guidance if config else 1.0)
    body = encode_tokens(map(code_token, codes), vocab)
    own = _logits(model, [*encode_tokens(prompt, vocab), *body], len(body))  # (P, V)
    logits, free = own, withhold_class(prompt)
    if free is not None and config.guidance != 1:
        without = _logits(model, [*encode_tokens(free, vocab), *body], len(body))
        logits = guided_logits(own, without, config.guidance)
    barred = torch.as_tensor(token_kinds(vocab) != KIND_CODE, device=logits.device)
    return Trace(
        np.array(body),
        sorted(vocab, key=vocab.get),
        own.double().softmax(-1).cpu().numpy(),
        strategy_probabilities(logits.masked_fill(barred, -torch.inf), config).cpu().numpy(),
    )


def _logits(model, ids: list[int], last: int) -> torch.Tensor:
    """Logits of each of the `last` ids, from the ids before it. (last, V) float."""
    model.eval()
    input_ids = torch.tensor([ids[:-1]], device=model.device)
    return finite(model(input_ids, use_cache=False).logits[0, -last:].float())


@torch.inference_mode()
def attention_weights(model, ids: Sequence[int]) -> np.ndarray:
    """Attention of each token to those before it. (n_layer, n_head, T, T), rows sum to 1.

    softmax(q k / sqrt(n_embd / n_head)) of every head: A. Vaswani et al., Attention Is All You
    Need, NIPS 2017, equation 1. Weights alone explain little: S. Jain and B. C. Wallace, Attention
    is not Explanation, NAACL 2019.
    """
    model.eval()
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fused kernel keeps no weights
    try:
        input_ids = torch.tensor([list(ids)], device=model.device)
        layers = model(input_ids, use_cache=False, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    return torch.cat(layers).float().cpu().numpy()
