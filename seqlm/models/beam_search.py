"""Beam search.

B. Lowerre, The HARPY Speech Recognition System, 1976. Sequences of different lengths
are compared by their mean log probability per token, as in Y. Wu et al., Google's Neural Machine
Translation System, 2016, with a length penalty of 1.
"""

import math
from operator import itemgetter

import torch

from seqlm.models.inference import Decoder


@torch.inference_mode()
def beam_search(
    decoder: Decoder, n_rows: int, num_beams: int, steps: int, stop_id: int | None
) -> list[list[int]]:
    """The best sequence of each row: its new ids, `stop_id` included where it ended.

    `decoder` holds every row `num_beams` times, one after another: (n_rows * num_beams, T).
    """
    # All beams of a row are the same prompt still: only the first may have children.
    first = [(0.0, []), *[(-math.inf, [])] * (num_beams - 1)]  # log probability, new ids
    beams = [first] * n_rows
    # A row settles for good: its result does not depend on how long others of its batch go on.
    finished, settled = [[] for _ in beams], [False for _ in beams]
    for step in range(1, steps + 1):
        log_p = decoder.logits().double().log_softmax(-1).cpu()
        scores = torch.tensor([[score for score, _ in row] for row in beams], dtype=torch.double)
        total = scores[..., None] + log_p.view(n_rows, num_beams, -1)  # (B, K, V)
        # Each beam may end in one way only, so num_beams of these go on.
        values, places = total.flatten(1).topk(2 * num_beams)
        parents = []
        for row, candidates in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            grown = []
            for score, place in zip(*candidates, strict=True):
                parent, token = divmod(place, total.shape[-1])
                grown.append((score, [*beams[row][parent][1], token], row * num_beams + parent))
            likely = [(score / step, ids) for score, ids, _ in grown[:num_beams]]
            ended = [one for one in likely if one[1][-1] == stop_id and one[0] > -math.inf]
            grown = [one for one in grown if one[1][-1] != stop_id][:num_beams]
            beams[row] = [one[:2] for one in grown]
            parents += [parent for *_, parent in grown]
            if not settled[row]:
                best = sorted([*finished[row], *ended], key=itemgetter(0), reverse=True)
                finished[row] = best[:num_beams]
                settled[row] = len(best) >= num_beams and best[num_beams - 1][0] >= (
                    beams[row][0][0] / step
                )
        if all(settled):
            break
        if step < steps:
            device = decoder.model.device
            decoder.reorder(torch.tensor(parents, device=device))
            chosen = [ids[-1] for row in beams for _, ids in row]
            decoder.append(torch.tensor(chosen, device=device))
    # A row that has not settled also counts what the last step cut off.
    for row in range(n_rows):
        if not settled[row]:
            finished[row] += [(score / steps, ids) for score, ids in beams[row]]
    return [max(row, key=itemgetter(0))[1] for row in finished]
