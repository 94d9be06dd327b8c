"""Fast inference: weights in oneDNN's own layout, a cache that is never copied, beam search."""

import copy
import math
from operator import itemgetter

import torch
from torch import nn
from transformers import Cache, DynamicLayer, GPT2PreTrainedModel
from transformers.pytorch_utils import Conv1D

from seqlm.models.gpt2 import finite, fit_attention

PACKED_ROWS = 16  # fewer rows at once, and packing costs more time than it saves


class _PackedLinear(nn.Module):
    """A linear layer as one call of oneDNN.

    Most of the time goes into these products. torch leaves them to MKL, which on an AMD processor
    with AVX-512 took twice as long as oneDNN for 64 rows of a 384 wide model.
    """

    def __init__(self, layer: nn.Linear | Conv1D):
        super().__init__()
        weight = layer.weight.detach()
        weight = weight.t() if isinstance(layer, Conv1D) else weight  # (out, in)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


def packed_copy(model, longest_row: int):
    """A faster copy of a GPT-2 in float32 on a CPU for rows up to `longest_row`, else `model`.

    It answers the same up to rounding and has no gradients. Later changes of the weights of
    `model` may not reach it: make it for one task, and drop it.
    """
    packable = isinstance(model, GPT2PreTrainedModel) and torch.backends.mkldnn.is_available()
    plain = packable and model.device.type == "cpu" and model.dtype == torch.float32
    # These layers take no bf16. Accelerate gives a model in training a forward with autocast.
    if not plain or torch.is_autocast_enabled("cpu") or "forward" in vars(model):
        return model
    # The weights are shared; of the model only its structure is copied.
    shared = (*model.parameters(), *model.buffers())
    fast = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    for module in list(fast.modules()):
        for name, child in module.named_children():
            if type(child) in (nn.Linear, Conv1D):
                setattr(module, name, _PackedLinear(child))
    fit_attention(fast, longest_row)
    return fast


class _FixedLayer(DynamicLayer):
    """The keys and values of a layer in one tensor of their final length, so appending is cheap."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def update(self, key_states, value_states, *args, **kwargs):
        """Append to both; returns keys and values so far, as views. (B, n_head, T, width) each."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self.is_initialized:
            batch, heads, _, width = key_states.shape
            self.both = key_states.new_empty(2, batch, heads, self.length, width)
            self.is_initialized = True
        self.both[0, :, :, start:end], self.both[1, :, :, start:end] = key_states, value_states
        self.keys, self.values = self.both[:, :, :, :end]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Make row i a copy of row `beam_idx[i]`, which may be more rows than before."""
        self.both = self.both[:, beam_idx]
        self.keys, self.values = self.both[:, :, :, : self.keys.shape[-2]]


def guided_logits(logits: torch.Tensor, free: torch.Tensor, guidance: float) -> torch.Tensor:
    """Classifier-free guidance: (1 - w) log p_free + w log p, up to a constant. (B, V)

    `logits` and `free` (B, V) are with and without the class. w = 1 is the model itself, w > 1
    exaggerates what the class changes. Source: J. Ho and T. Salimans, Classifier-Free Diffusion
    Guidance, 2022; G. Sanchez et al., Stay on Topic with Classifier-Free Guidance, 2023.
    """
    logits, free = logits.double().log_softmax(-1), free.double().log_softmax(-1)
    return free + guidance * (logits - free)


class Decoder:
    """Rows of one length that grow by up to `steps` tokens, with a key-value cache.

    Guided rows run twice, side by side: `prompts` (B, T) and `free` (B, T), the same without the
    class. `free` is empty without guidance. `barred` (V,) is True where a token may not be chosen.
    """

    def __init__(self, model, prompts, free, guidance: float, barred, steps: int):
        self.model, self.guidance, self.barred = model, guidance, barred
        self.guided, self.cache, self.repeated, self.extra = bool(free), None, None, {}
        self.input_ids = torch.tensor([*prompts, *free], device=model.device)  # (B or 2B, T)
        if isinstance(model, nn.Module):  # not an exported model
            length = self.input_ids.shape[1] + steps - 1  # the last new token is never read
            self.cache = Cache([_FixedLayer(length) for _ in range(model.config.n_layer)])
            self.extra = {"logits_to_keep": 1}
            # Many rows begin alike, as all beams of a row do: each prompt is read once.
            self.input_ids, self.repeated = self.input_ids.unique(dim=0, return_inverse=True)

    def logits(self) -> torch.Tensor:
        """Logits of the next token of each row, -inf for barred ones. (B, V) float."""
        output = self.model(
            self.input_ids, past_key_values=self.cache, use_cache=True, **self.extra
        )
        self.cache, logits = output.past_key_values, finite(output.logits[:, -1].float())
        if self.repeated is not None:
            self.cache.reorder_cache(self.repeated)
            logits, self.repeated = logits[self.repeated], None
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


@torch.inference_mode()
def beam_search(
    decoder: Decoder, n_rows: int, num_beams: int, steps: int, stop_id: int | None
) -> list[list[int]]:
    """The best sequence of each row by beam search: its new ids, with `stop_id` where it ended.

    `decoder` holds every row `num_beams` times, one after another: (n_rows * num_beams, T).
    Source: B. Lowerre, The HARPY Speech Recognition System, 1976. Sequences of different lengths
    are compared by their mean log probability per token, as in Y. Wu et al., Google's Neural
    Machine Translation System, 2016, with a length penalty of 1.
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
