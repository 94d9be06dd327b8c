"""Beam search: the likeliest whole sentence that can be found by keeping a few at a time.

B. Lowerre, The HARPY Speech Recognition System, 1976. Sentences of different lengths are compared
by their mean log probability a token, as in Y. Wu et al., Google's Neural Machine Translation
System, 2016, with a length penalty of 1.
"""

import torch

from seqlm.models.decoding import Decoder


class _Ended:
    """The best ended sentences of one row, at most `most` of them.

    A row settles for good, so that its sentence does not hang on how long the others of its batch
    go on.
    """

    def __init__(self, most: int):
        self.most, self.found, self.settled = most, [], False

    def add(self, score: float, ids: list[int]) -> None:
        if not self.settled:
            self.found.append((score, ids))
            self.found.sort(key=lambda one: -one[0])
            del self.found[self.most :]

    def settle(self, best_running: float) -> bool:
        """Are there enough of them, none worse than the best that still runs?"""
        enough = len(self.found) == self.most
        self.settled |= enough and self.found[-1][0] >= best_running
        return self.settled


@torch.inference_mode()
def beam_search(
    decoder: Decoder, n_rows: int, num_beams: int, steps: int, stop_id: int | None
) -> list[list[int]]:
    """The best sentence found for each row: its new ids, ``stop_id`` included where it ended.

    `decoder` holds every row `num_beams` times, one after another: (n_rows * num_beams, T).
    """
    ended = [_Ended(num_beams) for _ in range(n_rows)]
    # All beams of a row are the same prompt still: only the first may have children.
    scores = torch.full((n_rows, num_beams), -torch.inf, dtype=torch.double)
    scores[:, 0] = 0
    written = torch.zeros((n_rows, num_beams, 0), dtype=torch.long)
    first = torch.arange(n_rows)[:, None] * num_beams  # each row's place among all beams
    for step in range(steps):
        log_p = decoder.logits().double().log_softmax(-1).cpu()
        total = scores[..., None] + log_p.view(n_rows, num_beams, -1)  # (B, K, V)
        if stop_id is not None:
            _collect(total, written, stop_id, ended)
            total[..., stop_id] = -torch.inf
        scores, index = total.flatten(1).topk(num_beams)  # (B, K)
        parents, chosen = index // total.shape[-1], index % total.shape[-1]
        before = written.gather(1, parents[..., None].expand(-1, -1, step))
        written = torch.cat([before, chosen[..., None]], dim=-1)
        best = (scores[:, 0] / (step + 1)).tolist()
        if all([one.settle(running) for one, running in zip(ended, best, strict=True)]):
            break
        if step + 1 < steps:
            decoder.follow((first + parents).flatten().to(decoder.model.device))
            decoder.append(chosen.flatten().to(decoder.model.device))
    return [_best(*row) for row in zip(ended, scores, written, strict=True)]


def _collect(total, written, stop_id, ended) -> None:
    """Keep the sentences that end here, if ending is among a row's likeliest ways to go on."""
    num_beams, n_tokens = total.shape[1:]
    values, index = total.flatten(1).topk(num_beams)
    for row, beam in (index % n_tokens == stop_id).nonzero().tolist():
        score = values[row, beam].item()
        if score > -torch.inf:
            ids = written[row, index[row, beam] // n_tokens].tolist()
            ended[row].add(score / (len(ids) + 1), [*ids, stop_id])


def _best(ended: _Ended, scores: torch.Tensor, written: torch.Tensor) -> list[int]:
    """The best of a row; of one that has not settled, what was cut off at the last step counts."""
    if ended.settled:
        return ended.found[0][1]
    length = written.shape[-1]
    running = [(score / length, ids) for score, ids in zip(scores.tolist(), written, strict=True)]
    cut_off = [(score, ids.tolist()) for score, ids in running if score > -torch.inf]
    return max([*ended.found, *cut_off], key=lambda one: one[0])[1]
