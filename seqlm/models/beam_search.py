"""Beam search.

B. Lowerre, The HARPY Speech Recognition System, 1976. Sequences of different lengths
are compared by their mean log probability per token, as in Y. Wu et al., Google's Neural Machine
Translation System, 2016, with a length penalty of 1.
"""

import torch

from seqlm.models.inference import Decoder


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
