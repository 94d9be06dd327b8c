"""Scores of every token of every row, in one table; and probabilities of the classes.

Padding is never in the table, so it cannot be counted; there are no batches in it, so they cannot
be averaged; and baselines and GPT make the same table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.nn.functional import log_softmax

from seqlm.data.table import row_lengths
from seqlm.data.tokens import KIND_CODE
from seqlm.errors import DataError
from seqlm.models.gpt2 import default_device, finite, is_classifier
from seqlm.models.inference import packed_copy

# On a CPU what fits its caches: 16,384 tokens were a fifth slower.
TOKENS_A_BATCH = 2048 if default_device() == "cpu" else 16_384
PACKED_TOKENS = 512  # fewer in all, and packing a model's weights takes longer than it saves
LOGITS_A_BATCH = 2**24  # as float32 64 MB, however long the rows and however large the vocabulary

N_KINDS = 4
TOKENS_AT_ONCE = 2**20  # scored before they are summed; their scores take 42 MB
LEAST = 1e-300  # a probability of 0 would cost infinitely many nats; this one costs 691

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, eq=False)
class TokenScores:
    """The predicted tokens of a whole split. All arrays are (M,)."""

    row: np.ndarray
    position: np.ndarray  # in the row, counted from 0; the first token is never predicted
    target: np.ndarray  # id
    nll: np.ndarray  # -ln p(token | all before it), in nats
    rank: np.ndarray  # how many other tokens are likelier; 0 where the top guess is right
    n_rows: int  # of the split

    def where(self, chosen: np.ndarray) -> "TokenScores":
        """Only the tokens that `chosen` keeps: a mask (M,) bool, or indices."""
        columns = (self.row, self.position, self.target, self.nll, self.rank)
        return TokenScores(*(column[chosen] for column in columns), self.n_rows)

    def of_kind(self, kinds: np.ndarray, *wanted: int) -> "TokenScores":
        """Only tokens of the `wanted` kinds; `kinds` (V,) comes from `tokens.token_kinds`."""
        return self.where(np.isin(kinds[self.target], wanted))


def batches(rows: Rows, batch_size: int | None = None, *, vocab_size: int = 1) -> list[np.ndarray]:
    """Indices of `rows`, grouped so that rows of like length share a batch.

    Raises DataError when there is no row, or one of fewer than two tokens.
    """
    lengths = row_lengths(rows)
    if not len(rows) or lengths.min() < 2:
        raise DataError("there is nothing to score: no rows, or a row of fewer than two tokens")
    order, longest = np.argsort(lengths, kind="stable"), int(lengths.max())
    size = batch_size or max(1, min(TOKENS_A_BATCH, LOGITS_A_BATCH // vocab_size) // longest)
    return [order[start : start + size] for start in range(0, len(order), size)]


def pad(rows: Rows, fill: int = 0) -> torch.Tensor:
    """Rows of ids -> (B, T) int64, padded on the right.

    Attention is causal, so no real token sees the padding, and no mask is needed.
    """
    longest = max(1, *map(len, rows))  # a batch of empty rows has a column, too
    padded = np.full((len(rows), longest), fill, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded)


def _fast(model, rows: Rows):
    """`model`, ready to evaluate, or its faster copy where there are rows enough."""
    model.eval()
    lengths = row_lengths(rows)
    enough = lengths.sum() >= PACKED_TOKENS
    return packed_copy(model, int(lengths.max())) if enough else model


@torch.inference_mode()
def score_tokens(model, rows: Rows, batch_size: int | None = None) -> TokenScores:
    """Scores of every token but the first of every row, by a causal language model.

    The result does not depend on `batch_size` nor on padding, beyond rounding. A tie counts against
    the model. Raises NotFiniteError for logits that are infinite or not numbers.
    """
    was_training = model.training
    fast = _fast(model, rows)
    parts = []
    for batch in batches(rows, batch_size, vocab_size=model.config.vocab_size):
        input_ids = pad([rows[i] for i in batch]).to(model.device)  # (B, T)
        logits = fast(input_ids, use_cache=False).logits[:, :-1].float()  # (B, T-1, V)
        labels = input_ids[:, 1:]  # (B, T-1)
        log_probs = log_softmax(logits, dim=-1)
        of_label = log_probs.gather(-1, labels[..., None])  # (B, T-1, 1)
        rank = (log_probs >= of_label).sum(-1) - 1  # the label itself is not before itself
        lengths = torch.tensor([len(rows[i]) for i in batch], device=model.device)
        place = torch.arange(1, input_ids.shape[1], device=model.device).expand_as(labels)
        real = place < lengths[:, None]  # (B, T-1)
        row = torch.as_tensor(batch, device=model.device)[:, None].expand_as(labels)
        finite(of_label[real])  # one bad logit spoils all of its softmax
        columns = (row, place, labels, -of_label[..., 0].double(), rank)
        parts.append([column[real].cpu().numpy() for column in columns])
    model.train(was_training)
    scores = TokenScores(*map(np.concatenate, zip(*parts, strict=True)), len(rows))
    return scores.where(np.lexsort((scores.position, scores.row)))


@torch.inference_mode()
def last_logits(model, rows: Rows) -> torch.Tensor:
    """A language model's logits after the last token of each row. (B, V) float32."""
    logits = model(pad(rows).to(model.device), use_cache=False).logits.float()  # (B, T, V)
    last = torch.tensor([len(row) - 1 for row in rows], device=model.device)
    return finite(logits[torch.arange(len(rows), device=model.device), last])


@torch.inference_mode()
def class_probabilities(model, prompts: Rows, class_ids: Sequence[int] | None = None) -> np.ndarray:
    """Probabilities of the classes after each prompt, (N, C), each row sums to 1.

    Those of the tokens `class_ids`, by a language model; a classifier needs none. A prompt ends in
    ``<CLS>`` and holds no class, as `tokens.reading_prompt` makes it.
    """
    classifies = class_ids is None or is_classifier(model.config)
    fast, order, parts = _fast(model, prompts), [], []
    for batch in batches(prompts, vocab_size=model.config.vocab_size):
        rows = [prompts[i] for i in batch]
        if classifies:
            logits = fast(pad(rows, model.config.pad_token_id).to(model.device)).logits
        else:
            logits = last_logits(fast, rows)[:, list(class_ids)]
        order.append(batch)
        parts.append(finite(logits.float()).softmax(-1).double().cpu().numpy())  # (B, C)
    return np.concatenate(parts)[np.argsort(np.concatenate(order))]  # (N, C)


class RowSums:
    """Scores summed over the tokens of each kind in each row: their memory is that of the rows."""

    def __init__(self, n_rows: int, longest: int):
        """Sums of no scores yet, of rows of up to `longest` tokens."""
        self.nll, self.tokens, self.top1, self.top5 = np.zeros((4, N_KINDS, n_rows))
        self.nll_at, self.tokens_at = np.zeros((2, longest))  # of the codes at each position

    def add(self, scores: TokenScores, kinds: np.ndarray, first: int = 0) -> "RowSums":
        """Add scores whose row 0 is row `first` here; `kinds` (V,) is `tokens.token_kinds`."""
        kind, n = kinds[scores.target].astype(np.int64), scores.n_rows
        weights = (scores.nll, None, scores.rank < 1, scores.rank < 5)
        columns = (self.nll, self.tokens, self.top1, self.top5)
        for column, weight in zip(columns, weights, strict=True):
            total = np.bincount(kind * n + scores.row, weight, N_KINDS * n)
            column[:, first : first + n] += total.reshape(N_KINDS, n)
        codes, longest = scores.where(kind == KIND_CODE), len(self.nll_at)
        self.nll_at += np.bincount(codes.position, codes.nll, longest)
        self.tokens_at += np.bincount(codes.position, None, longest)
        return self


def sum_scores(score: Callable[[Rows], TokenScores], rows: Rows, kinds: np.ndarray) -> RowSums:
    """`RowSums` of `score(rows)`, a part of the rows at a time, so that memory stays the same."""
    lengths = row_lengths(rows)
    sums, part = RowSums(len(rows), lengths.max(initial=0)), np.cumsum(lengths) // TOKENS_AT_ONCE
    starts = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(rows)]
    for start, stop in pairwise(starts):
        sums.add(score(rows[start:stop]), kinds, start)
    return sums
