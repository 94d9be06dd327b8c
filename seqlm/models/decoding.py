"""A model read token by token: keys and values kept, guidance and barred tokens applied."""

from collections.abc import Sequence

import torch


def guided_logits(given: torch.Tensor, free: torch.Tensor, guidance: float) -> torch.Tensor:
    """Classifier-free guidance: log p = (1 - w) log p_free + w log p_given, up to a constant.

    w = 1 is the model itself, w > 1 exaggerates what the class changes. `given`, `free`: (B, V)
    logits with and without the class. Source: J. Ho and T. Salimans, Classifier-Free Diffusion
    Guidance, 2022; G. Sanchez et al., Stay on Topic with Classifier-Free Guidance, 2023.
    """
    given, free = given.double().log_softmax(-1), free.double().log_softmax(-1)
    return free + guidance * (given - free)


class Decoder:
    """Rows of one length that grow by a token at a time; guided rows run twice, side by side.

    Args:
        given: the prompts (B, T).
        free: the same with the class withheld; empty without guidance.
        barred: (V,) True where a token may not be chosen; None allows all.
    """

    def __init__(
        self,
        model,
        given: Sequence[Sequence[int]],
        free: Sequence[Sequence[int]],
        guidance: float,
        barred: torch.Tensor | None,
    ):
        self.model, self.guidance, self.barred = model, guidance, barred
        self.guided = bool(free)
        self.input_ids = torch.tensor([*given, *free], device=model.device)  # (B or 2B, T)
        self.cache = None

    def logits(self) -> torch.Tensor:
        """What the model makes of the rows as they stand, barred tokens at -inf. (B, V) float."""
        output = self.model(self.input_ids, past_key_values=self.cache, use_cache=True)
        self.cache, logits = output.past_key_values, output.logits[:, -1].float()
        if self.guided:
            rows = len(logits) // 2
            logits = guided_logits(logits[:rows], logits[rows:], self.guidance)
        return logits if self.barred is None else logits.masked_fill(self.barred, -torch.inf)

    def append(self, chosen: torch.Tensor) -> None:
        """Each row goes on with its token of `chosen` (B,)."""
        self.input_ids = self._twice(chosen)[:, None]

    def follow(self, rows: torch.Tensor) -> None:
        """Row i becomes what row `rows[i]` was; (B,)."""
        index = self._twice(rows, len(rows))
        if hasattr(self.cache, "reorder_cache"):
            self.cache.reorder_cache(index)
        else:  # an exported model's: arrays, a row each
            self.cache = [part[index.numpy()] for part in self.cache]

    def _twice(self, values: torch.Tensor, further: int = 0) -> torch.Tensor:
        return torch.cat([values, values + further]) if self.guided else values
