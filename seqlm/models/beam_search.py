"""Decode token by token with a key-value cache and guidance; beam search.

Beam search: B. Lowerre, The HARPY Speech Recognition System, 1976. Sequences of different lengths
are compared by their mean log probability per token, as in Y. Wu et al., Google's Neural Machine
Translation System, 2016, with a length penalty of 1.
"""

import torch


def guided_logits(logits: torch.Tensor, free: torch.Tensor, guidance: float) -> torch.Tensor:
    """Classifier-free guidance: (1 - w) log p_free + w log p, up to a constant. (B, V)

    `logits` and `free` (B, V) are with and without the class. w = 1 is the model itself, w > 1
    exaggerates what the class changes. Source: J. Ho and T. Salimans, Classifier-Free Diffusion
    Guidance, 2022; G. Sanchez et al., Stay on Topic with Classifier-Free Guidance, 2023.
    """
    logits, free = logits.double().log_softmax(-1), free.double().log_softmax(-1)
    return free + guidance * (logits - free)


class Decoder:
    """Rows of one length that grow by a token at a time, with a key-value cache.

    Guided rows run twice, side by side: `prompts` (B, T) and `free` (B, T), the same without the
    class. `free` is empty without guidance. `barred` (V,) is True where a token may not be chosen.
    """

    def __init__(self, model, prompts, free, guidance: float, barred: torch.Tensor | None):
        self.model, self.guidance, self.barred = model, guidance, barred
        self.guided, self.cache = bool(free), None
        self.input_ids = torch.tensor([*prompts, *free], device=model.device)  # (B or 2B, T)

    def logits(self) -> torch.Tensor:
        """Logits of the next token of each row, -inf for barred ones. (B, V) float."""
        output = self.model(self.input_ids, past_key_values=self.cache, use_cache=True)
        self.cache, logits = output.past_key_values, output.logits[:, -1].float()
        if self.guided:
            logits = guided_logits(*logits.chunk(2), self.guidance)
        return logits if self.barred is None else logits.masked_fill(self.barred, -torch.inf)

    def append(self, chosen: torch.Tensor) -> None:
        """Append to each row its token of `chosen` (B,)."""
        self.input_ids = self._twice(chosen)[:, None]

    def reorder(self, rows: torch.Tensor) -> None:
        """Make row i a copy of row `rows[i]`; (B,)."""
        index = self._twice(rows, len(rows))
        if hasattr(self.cache, "reorder_cache"):
            self.cache.reorder_cache(index)
        else:  # an exported model's: arrays, one entry per row
            self.cache = [part[index.numpy()] for part in self.cache]

    def _twice(self, values: torch.Tensor, offset: int = 0) -> torch.Tensor:
        return torch.cat([values, values + offset]) if self.guided else values


class _Finished:
    """The best finished sequences of one row, at most `size` of them.

    A row settles for good: its result does not depend on how long others of its batch go on.
    """

    def __init__(self, size: int):
        self.size, self.best, self.settled = size, [], False

    def add(self, score: float, ids: list[int]) -> None:
        if not self.settled:
            self.best = sorted([*self.best, (score, ids)], key=lambda one: -one[0])[: self.size]

    def settle(self, best_running: float) -> bool:
        """Are there enough of them, none worse than the best that still runs?"""
        enough = len(self.best) == self.size
        self.settled |= enough and self.best[-1][0] >= best_running
        return self.settled


@torch.inference_mode()
def beam_search(
    decoder: Decoder, n_rows: int, num_beams: int, steps: int, stop_id: int | None
) -> list[list[int]]:
    """The best sequence of each row: its new ids, `stop_id` included where it ended.

    `decoder` holds every row `num_beams` times, one after another: (n_rows * num_beams, T).
    """
    finished = [_Finished(num_beams) for _ in range(n_rows)]
    # All beams of a row are the same prompt still: only the first may have children.
    scores = torch.full((n_rows, num_beams), -torch.inf, dtype=torch.double)
    scores[:, 0] = 0
    new = torch.zeros((n_rows, num_beams, 0), dtype=torch.long)
    first = torch.arange(n_rows)[:, None] * num_beams  # each row's place among all beams
    for step in range(steps):
        log_p = decoder.logits().double().log_softmax(-1).cpu()
        total = scores[..., None] + log_p.view(n_rows, num_beams, -1)  # (B, K, V)
        if stop_id is not None:
            _collect(total, new, stop_id, finished)
            total[..., stop_id] = -torch.inf
        scores, index = total.flatten(1).topk(num_beams)  # (B, K)
        parents, chosen = index // total.shape[-1], index % total.shape[-1]
        before = new.gather(1, parents[..., None].expand(-1, -1, step))
        new = torch.cat([before, chosen[..., None]], dim=-1)
        best = (scores[:, 0] / (step + 1)).tolist()
        if all([row.settle(running) for row, running in zip(finished, best, strict=True)]):
            break
        if step + 1 < steps:
            decoder.reorder((first + parents).flatten().to(decoder.model.device))
            decoder.append(chosen.flatten().to(decoder.model.device))
    return [_best(*row) for row in zip(finished, scores, new, strict=True)]


def _collect(total, new, stop_id, finished) -> None:
    """Keep the sequences that end here, if ending is among a row's most likely continuations."""
    num_beams, n_tokens = total.shape[1:]
    values, index = total.flatten(1).topk(num_beams)
    for row, beam in (index % n_tokens == stop_id).nonzero().tolist():
        score = values[row, beam].item()
        if score > -torch.inf:
            ids = new[row, index[row, beam] // n_tokens].tolist()
            finished[row].add(score / (len(ids) + 1), [*ids, stop_id])


def _best(finished: _Finished, scores: torch.Tensor, new: torch.Tensor) -> list[int]:
    """The best of a row; one that has not settled also counts what the last step cut off."""
    if finished.settled:
        return finished.best[0][1]
    length = new.shape[-1]
    running = [(score / length, ids) for score, ids in zip(scores.tolist(), new, strict=True)]
    cut_off = [(score, ids.tolist()) for score, ids in running if score > -torch.inf]
    return max([*finished.best, *cut_off], key=lambda one: one[0])[1]
