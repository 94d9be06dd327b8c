"""Looking inside: what a model expected at each place of a picture, and where it looked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from seqlm.config import SampleConfig
from seqlm.data.tokenizer import encode_tokens
from seqlm.data.tokens import KIND_CODE, code_token, token_kinds
from seqlm.models.beam_search import guided_logits
from seqlm.models.generation import strategy_probabilities, withhold_class


@dataclass(frozen=True)
class Candidate:
    """One token that might have come at a place.

    Attributes:
        token: its name.
        probability: what the model gave it.
        after: what the settings made of that; what was drawn from.
        chosen: whether it is the one that stands there.
    """

    token: str
    probability: float
    after: float
    chosen: bool


@dataclass(frozen=True, eq=False)
class Trace:
    """A picture of P codes, place by place, as the model met it.

    Attributes:
        ids: what stands at each place. (P,) int64
        names: the token of every id. (V,)
        expected: p(token | all before it), the model's own. (P, V)
        after: the same after guidance, temperature, top-k and nucleus, codes alone. (P, V)
    """

    ids: np.ndarray
    names: list[str]
    expected: np.ndarray
    after: np.ndarray

    @cached_property
    def surprisal(self) -> np.ndarray:
        """-ln p of what stands at each place, in nats. (P,)"""
        return -np.log(self.expected[np.arange(len(self.ids)), self.ids])

    def candidates(self, place: int, k: int = 10) -> list[Candidate]:
        """The `k` tokens the model thought likeliest at `place`, and the one that stands there."""
        order = np.argsort(-self.expected[place], kind="stable")[:k].tolist()
        chosen = int(self.ids[place])
        return [
            Candidate(
                self.names[i],
                float(self.expected[place, i]),
                float(self.after[place, i]),
                i == chosen,
            )
            for i in (order if chosen in order else [*order, chosen])
        ]


@torch.inference_mode()
def trace(
    model,
    vocab: dict[str, int],
    head: Sequence[str],
    codes: Sequence[int],
    config: SampleConfig | None = None,
) -> Trace:
    """What the model expected at each place of `codes` (P,) that follow the tokens `head`.

    With the `config` that `sampling.draw` was given, `after` is what each code was drawn from; for
    beam search what its sums are made of. Without one it is what the model gives to codes.
    """
    config = config or SampleConfig()
    body = encode_tokens(map(code_token, codes), vocab)
    given = _logits(model, [*encode_tokens(head, vocab), *body], len(body))  # (P, V)
    logits, free = given, withhold_class(head)
    if free is not None and config.guidance != 1:
        without = _logits(model, [*encode_tokens(free, vocab), *body], len(body))
        logits = guided_logits(given, without, config.guidance)
    barred = torch.as_tensor(token_kinds(vocab) != KIND_CODE, device=logits.device)
    logits = logits.masked_fill(barred, -torch.inf)
    if config.strategy == "beam":
        config = SampleConfig()
    return Trace(
        np.array(body),
        sorted(vocab, key=vocab.get),
        given.double().softmax(-1).cpu().numpy(),
        strategy_probabilities(logits, config).cpu().numpy(),
    )


def _logits(model, ids: list[int], last: int) -> torch.Tensor:
    """What is expected before each of the `last` ids. (last, V) float."""
    model.eval()
    input_ids = torch.tensor([ids[:-1]], device=model.device)
    return model(input_ids, use_cache=False).logits[0, -last:].float()


def first_patches(image: np.ndarray, done: int, patch: int) -> np.ndarray:
    """`image` (H, W) with all but its first `done` patches left as paper."""
    columns = image.shape[1] // patch
    there = np.arange(image.size // patch**2).reshape(-1, columns) < done
    return image * np.kron(there, np.ones((patch, patch)))


@torch.inference_mode()
def attention_weights(model, ids: Sequence[int]) -> np.ndarray:
    """How much each token looks at each one before it. (n_layer, n_head, T, T), rows sum to 1.

    softmax(q k / sqrt(n_embd / n_head)) of every head: A. Vaswani et al., Attention Is All You
    Need, NIPS 2017, equation 1. What a head looks at is not yet what it makes of it: S. Jain and
    B. C. Wallace, Attention is not Explanation, NAACL 2019.
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
