"""Generation: next-token probabilities, sampling strategies, guidance, and drawn images.

Every row has its own stream of random numbers, made from the seed and the row's number. So a
sample does not change with its batch, and image 5 of 10 is image 5 of 100.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch

from seqlm.config import SampleConfig
from seqlm.data.tokens import (
    CLS,
    EOS,
    IMG,
    KIND_CODE,
    class_of,
    code_token,
    drawing_prompt,
    token_kinds,
)
from seqlm.errors import ConfigError, DataError
from seqlm.models.gpt2 import finite
from seqlm.models.inference import PACKED_ROWS, Decoder, beam_search, packed_copy

MAX_BATCH_ROWS = 256


@dataclass(frozen=True)
class NextToken:
    """One line of a next-token table."""

    token: str
    id: int
    probability: float


@torch.inference_mode()
def next_token_probabilities(model, ids: Sequence[int]) -> np.ndarray:
    """p(next token | ids), for every token of the vocabulary. (V,) float64, sums to 1."""
    check_prompt(model.config.n_positions, ids)
    model.eval()
    logits = model(torch.tensor([list(ids)], device=model.device), use_cache=False).logits
    return finite(logits[0, -1]).double().softmax(-1).cpu().numpy()


def next_token_table(model, tokenizer, ids: Sequence[int], k: int = 10) -> list[NextToken]:
    """The `k` most likely next tokens after `ids`, the most likely first."""
    return top_tokens(next_token_probabilities(model, ids), tokenizer, k)


def top_tokens(probabilities: np.ndarray, tokenizer, k: int) -> list[NextToken]:
    """The `k` largest of `probabilities` (V,), largest first; of equal ones the lower id."""
    order = np.argsort(-probabilities, kind="stable")[:k].tolist()
    names = tokenizer.convert_ids_to_tokens(order)
    return [NextToken(*row, float(probabilities[row[1]])) for row in zip(names, order, strict=True)]


def strategy_probabilities(logits: torch.Tensor, config: SampleConfig) -> torch.Tensor:
    """The probabilities (B, V) that a strategy samples from, made from the model's logits (B, V).

    In this order: temperature, top-k, nucleus. Ties at the edge are decided by the id, so that
    exactly k tokens stay. Nucleus: A. Holtzman et al., The Curious Case of Neural Text
    Degeneration, ICLR 2020: the smallest set of the most likely tokens that holds at least top_p.
    """
    if config.strategy == "greedy":
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    if not config.top_k and config.top_p == 1:
        return (logits.double() / config.temperature).softmax(-1)
    ordered, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    ordered = ordered.double() / config.temperature
    if config.top_k:
        ordered[:, config.top_k :] = -torch.inf
    probabilities = ordered.softmax(-1)
    # A token is outside the nucleus when those before it already hold enough.
    before = probabilities.cumsum(-1) - probabilities
    probabilities[before >= config.top_p] = 0
    probabilities /= probabilities.sum(-1, keepdim=True)
    return torch.empty_like(probabilities).scatter_(-1, order, probabilities)


def _sample(probabilities: torch.Tensor, uniform: np.ndarray) -> torch.Tensor:
    """One id per row, by where its number in 0..1 falls among the summed probabilities. (B,)"""
    summed = probabilities.cumsum(-1)
    total = summed[:, -1:]
    point = torch.as_tensor(uniform, device=summed.device)[:, None] * total
    # Rounding may put a point on the total, which is past the last possible token.
    point = torch.minimum(point, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(summed, point, right=True).squeeze(-1)


@torch.inference_mode()
def generate_steps(
    model,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    *,
    allowed: Sequence[int] | None = None,
    stop_id: int | None = None,
    free_prompts: Sequence[Sequence[int] | None] | None = None,
    streams: Sequence[Sequence[int]] | None = None,
) -> Iterator[dict[int, int]]:
    """Continue each prompt by up to `config.max_new_tokens` ids; yields {row: chosen id} per step.

    Rows that have ended are left out. Rows of one length run side by side, the next length after
    them. Beam search yields its tokens after its last step. max_new_tokens None fills the model.

    Args:
        prompts: rows of ids, of any lengths.
        allowed: only these ids may be chosen; None allows all.
        stop_id: a row ends with this id.
        free_prompts: the prompts without their class, as long as they are, None for rows without
            guidance; needed when `config.guidance` is not 1.
        streams: for each prompt the seeds of its random numbers; None: (seed, row).

    Raises DataError for an empty prompt or one too long for the model.
    """
    if config.guidance != 1 and free_prompts is None:
        raise ConfigError(
            "guidance: it compares a prompt that names a class with one that withholds it; give "
            f"a prompt of the form '{CLS} <CLS_k> {IMG}', or set guidance to 1"
        )
    for prompt in prompts:
        check_prompt(model.config.n_positions, prompt, config.max_new_tokens)
    model.eval()
    streams = streams or [(config.seed, row) for row in range(len(prompts))]
    barred = None
    if allowed is not None:
        barred = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
        barred[list(allowed)] = False
    groups = defaultdict(list)  # (guided?, length) -> rows
    for row, prompt in enumerate(prompts):
        guided = config.guidance != 1 and free_prompts[row] is not None
        groups[guided, len(prompt)].append(row)
    beams = config.num_beams if config.strategy == "beam" else 1
    if len(prompts) * beams >= PACKED_ROWS:
        model = packed_copy(model, model.config.n_positions)
    size = MAX_BATCH_ROWS // beams
    for (guided, length), rows in sorted(groups.items()):
        steps = config.max_new_tokens or model.config.n_positions - length + 1
        for batch in (rows[start : start + size] for start in range(0, len(rows), size)):
            repeated = [row for row in batch for _ in range(beams)]
            free = [free_prompts[row] for row in repeated] if guided else []
            texts = [prompts[row] for row in repeated]
            decoder = Decoder(model, texts, free, config.guidance, barred, steps)
            seeds = [streams[row] for row in batch]
            for chosen in _batch_steps(decoder, seeds, config, steps, stop_id):
                yield {row: i for row, i in zip(batch, chosen, strict=True) if i is not None}


def _batch_steps(decoder, streams, config, steps, stop_id) -> Iterator[Sequence[int | None]]:
    """The ids chosen at each step for the rows of one batch; None for a row that has ended."""
    if config.strategy == "beam":
        beams = config.num_beams
        yield from zip_longest(*beam_search(decoder, len(streams), beams, steps, stop_id))
        return
    uniform = np.stack([np.random.default_rng(list(seeds)).random(steps) for seeds in streams])
    ended = np.zeros(len(streams), dtype=bool)
    for step in range(steps):
        chosen = _sample(strategy_probabilities(decoder.logits(), config), uniform[:, step])
        ids = chosen.tolist()
        yield [None if done else index for index, done in zip(ids, ended, strict=True)]
        ended |= [index == stop_id for index in ids]
        if ended.all():
            return
        decoder.append(chosen)


def generate(model, prompts: Sequence[Sequence[int]], config: SampleConfig, **settings):
    """The new ids of each prompt, collected from `generate_steps`; the same arguments."""
    new: list[list[int]] = [[] for _ in prompts]
    for chosen in generate_steps(model, prompts, config, **settings):
        for row, index in chosen.items():
            new[row].append(index)
    return new


def check_prompt(n_positions: int, prompt: Sequence, new: int | None = None) -> None:
    """Raises DataError when `prompt` and `new` tokens (None: one or more) do not fit the model."""
    if not len(prompt):
        raise DataError("the prompt is empty; give at least one token, such as <IMG>")
    if len(prompt) > n_positions:
        raise DataError(
            f"a prompt of {len(prompt)} tokens does not fit the model's {n_positions} positions; "
            "shorten the prompt"
        )
    # The last new token needs no position: the model never reads it.
    if new is not None and len(prompt) + new - 1 > n_positions:
        raise DataError(
            f"a prompt of {len(prompt)} tokens and {new} new ones do not fit the model's "
            f"{n_positions} positions; shorten the prompt or lower max_new_tokens"
        )


def withhold_class(tokens: Sequence[str]) -> tuple[str, ...] | None:
    """A drawing prompt without its class; None when `tokens` is no prompt that names one."""
    tokens = tuple(tokens)
    if len(tokens) < 2 or tokens[0] != CLS or class_of(tokens[1]) is None:
        return None
    return (CLS, CLS, *tokens[2:])


def draw(
    model,
    vocab: dict[str, int],
    labels: Sequence[int | None],
    n_patches: int,
    config: SampleConfig,
    prefix: np.ndarray | None = None,
    n_codes: int | None = None,
) -> np.ndarray:
    """Draw one image per label; for None the model chooses what to draw, without guidance.

    Args:
        labels: (N,) classes, or None.
        n_patches: P, the codes of an image; only codes may be drawn, and exactly so many.
        prefix: (N, p) the first codes, p < P; the model draws the rest.
        n_codes: draw only codes below this, those of the codebook; None: all in the vocabulary.

    Returns codes (N, P) int64, those of `prefix` included.
    """
    prefix = np.zeros((len(labels), 0), dtype=np.int64) if prefix is None else np.asarray(prefix)
    if prefix.ndim != 2 or len(prefix) != len(labels) or prefix.shape[1] >= n_patches:
        raise DataError(
            f"prefix: expected {len(labels)} rows of fewer than {n_patches} codes, got an array of "
            f"shape {prefix.shape}"
        )
    prompts = [
        (*drawing_prompt(label), *map(code_token, row))
        for label, row in zip(labels, prefix, strict=True)
    ]
    n_codes = int((token_kinds(vocab) == KIND_CODE).sum()) if n_codes is None else n_codes
    code_of = {
        index: k for k, index in enumerate(token_ids(map(code_token, range(n_codes)), vocab))
    }
    n_new = n_patches - prefix.shape[1]
    new = generate(
        model,
        [token_ids(prompt, vocab) for prompt in prompts],
        replace(config, max_new_tokens=n_new),
        allowed=list(code_of),
        free_prompts=[token_ids(withhold_class(prompt) or prompt, vocab) for prompt in prompts],
    )
    drawn = np.array([[code_of[i] for i in row] for row in new], dtype=np.int64)
    return np.concatenate([prefix, drawn.reshape(len(labels), n_new)], axis=1)  # (N, P)


def token_ids(tokens: Iterable[str], vocab: dict[str, int]) -> list[int]:
    """The id of each token. Raises DataError for a token outside the vocabulary."""
    try:
        return [vocab[token] for token in tokens]
    except KeyError as error:
        token = error.args[0][:40]
        raise DataError(
            f"{token!r} is not in the vocabulary of this model; see vocab.json"
        ) from None


def stream_sentences(
    model,
    vocab: dict[str, int],
    prompts: Sequence[Sequence[str]],
    config: SampleConfig,
    streams: Sequence[Sequence[int]] | None = None,
) -> Iterator[dict[int, str]]:
    """Continue prompts of tokens up to ``<EOS>``; yields {row: chosen token} per step.

    Guidance applies to prompts that name a class to draw. `streams` as in `generate_steps`.
    """
    names = {index: token for token, index in vocab.items()}
    free = [withhold_class(tokens) for tokens in prompts]
    for chosen in generate_steps(
        model,
        [token_ids(tokens, vocab) for tokens in prompts],
        config,
        stop_id=vocab[EOS],
        free_prompts=[tokens and token_ids(tokens, vocab) for tokens in free],
        streams=streams,
    ):
        yield {row: names[index] for row, index in chosen.items()}


def generate_sentences(model, vocab: dict[str, int], prompts, config: SampleConfig, streams=None):
    """The prompts with all tokens that `stream_sentences` adds to them: lists of tokens."""
    sentences = [list(tokens) for tokens in prompts]
    for chosen in stream_sentences(model, vocab, prompts, config, streams):
        for row, token in chosen.items():
            sentences[row].append(token)
    return sentences
