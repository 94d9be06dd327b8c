"""The model writes: next-token probabilities, ways to choose among them, pictures drawn.

Every row has a stream of random numbers of its own, made from the seed and the row's number. So a
sample does not change with the batch it is drawn in, and picture 5 of 10 is picture 5 of 100.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
from seqlm.models.beam_search import beam_search
from seqlm.models.decoding import Decoder

ROWS_A_BATCH = 256


@dataclass(frozen=True)
class NextToken:
    """One line of a next-token table."""

    token: str
    id: int
    probability: float


@torch.inference_mode()
def next_token_probabilities(model, ids: Sequence[int]) -> np.ndarray:
    """p(next token | ids), for every token of the vocabulary. (V,) float64, sums to 1."""
    _check_prompt(model, ids)
    model.eval()
    logits = model(torch.tensor([list(ids)], device=model.device), use_cache=False).logits
    return logits[0, -1].double().softmax(-1).cpu().numpy()


def next_token_table(model, tokenizer, ids: Sequence[int], k: int = 10) -> list[NextToken]:
    """The `k` likeliest next tokens after `ids`, likeliest first."""
    return top_tokens(next_token_probabilities(model, ids), tokenizer, k)


def top_tokens(probabilities: np.ndarray, tokenizer, k: int) -> list[NextToken]:
    """The `k` largest of `probabilities` (V,), largest first; of equal ones the lower id."""
    order = np.argsort(-probabilities, kind="stable")[:k].tolist()
    names = tokenizer.convert_ids_to_tokens(order)
    return [
        NextToken(name, index, float(probabilities[index]))
        for name, index in zip(names, order, strict=True)
    ]


def strategy_probabilities(logits: torch.Tensor, config: SampleConfig) -> torch.Tensor:
    """What a strategy makes of the model's logits (B, V): the probabilities it draws from. (B, V)

    In this order: temperature, top-k, nucleus. Ties at the edge are decided by the id, so that
    exactly k tokens stay. Nucleus: A. Holtzman et al., The Curious Case of Neural Text
    Degeneration, ICLR 2020: the smallest set of the likeliest tokens that holds at least top_p.
    """
    if config.strategy == "greedy":
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    ordered, order = torch.sort(
        logits.double() / config.temperature, dim=-1, descending=True, stable=True
    )
    if config.top_k:
        ordered[:, config.top_k :] = -torch.inf
    probabilities = ordered.softmax(-1)
    # A token is outside the nucleus when those before it already hold enough.
    before = probabilities.cumsum(-1) - probabilities
    probabilities[before >= config.top_p] = 0
    probabilities /= probabilities.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


def _choose(probabilities: torch.Tensor, uniform: np.ndarray) -> torch.Tensor:
    """Draw one id a row by where its number in 0..1 falls among the summed probabilities. (B,)"""
    summed = probabilities.cumsum(-1)
    point = torch.as_tensor(uniform, device=summed.device)[:, None] * summed[:, -1:]
    chosen = torch.searchsorted(summed, point, right=True).squeeze(-1)
    # Rounding may put a point past the last possible token.
    last = (probabilities > 0).int().cumsum(-1).argmax(-1)
    return torch.minimum(chosen, last)


@torch.inference_mode()
def generate(
    model,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    *,
    allowed: Sequence[int] | None = None,
    stop_id: int | None = None,
    free_prompts: Sequence[Sequence[int]] | None = None,
    streams: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Continue each prompt by up to `config.max_new_tokens` ids; returns the new ids alone.

    None there means as many as fit the model, for each prompt by its own length.

    Args:
        prompts: rows of ids, of any lengths.
        allowed: only these ids may be chosen; None allows all.
        stop_id: a row ends with this id.
        free_prompts: the prompts with the class withheld, each as long as its own; needed when
            `config.guidance` is not 1.
        streams: for each prompt what its random numbers are made from; None: (seed, its place).

    Raises DataError for an empty prompt or one too long for the model.
    """
    if config.guidance != 1 and free_prompts is None:
        raise ConfigError(
            "guidance: it compares a prompt that names a class with one that withholds it; give "
            f"a prompt of the form '{CLS} <CLS_k> {IMG}', or set guidance to 1"
        )
    for prompt in prompts:
        _check_prompt(model, prompt, config.max_new_tokens)
    model.eval()
    if streams is None:
        streams = [(config.seed, place) for place in range(len(prompts))]
    written: list[list[int]] = [[] for _ in prompts]
    beams = config.num_beams if config.strategy == "beam" else 1
    for batch in _batches(prompts, ROWS_A_BATCH // beams):
        room = model.config.n_positions - len(prompts[batch[0]]) + 1  # as _check_prompt counts
        fitted = config if config.max_new_tokens else replace(config, max_new_tokens=room)
        given = [list(prompts[i]) for i in batch]
        free = [list(free_prompts[i]) for i in batch] if config.guidance != 1 else []
        chance = [streams[i] for i in batch]
        new = _generate_batch(model, given, free, chance, fitted, allowed, stop_id)
        for i, ids in zip(batch, new, strict=True):
            written[i] = _until(ids, stop_id)
    return written


def _batches(prompts: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """The places of prompts of one length, at most so many at a time."""
    lengths = np.array([len(prompt) for prompt in prompts])
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length).tolist()
        for start in range(0, len(members), most):
            yield members[start : start + most]


def _generate_batch(model, given, free, streams, config, allowed, stop_id) -> list[list[int]]:
    """Prompts of one length, continued side by side."""
    barred = None
    if allowed is not None:
        barred = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
        barred[list(allowed)] = False
    steps, rows = config.max_new_tokens, len(given)
    if config.strategy == "beam":
        beams = config.num_beams
        given, free = ([row for row in some for _ in range(beams)] for some in (given, free))
        decoder = Decoder(model, given, free, config.guidance, barred)
        return beam_search(decoder, rows, beams, steps, stop_id)
    decoder = Decoder(model, given, free, config.guidance, barred)
    uniform = np.stack([np.random.default_rng(list(made)).random(steps) for made in streams])
    ended, new = torch.zeros(rows, dtype=torch.bool, device=model.device), []
    for step in range(steps):
        probabilities = strategy_probabilities(decoder.logits(), config)
        chosen = _choose(probabilities, uniform[:, step])  # (B,)
        new.append(chosen)
        if stop_id is not None:
            ended |= chosen == stop_id
            if ended.all():
                break
        decoder.append(chosen)
    return torch.stack(new, dim=1).tolist()


def _until(ids: list[int], stop_id: int | None) -> list[int]:
    return ids[: ids.index(stop_id) + 1] if stop_id in ids else ids


def _check_prompt(model, ids: Sequence[int], new: int | None = None) -> None:
    """Raises DataError when `ids` and `new` tokens after them (None: one or more) do not fit."""
    longest = model.config.n_positions
    if not len(ids):
        raise DataError("the prompt is empty; give at least one token, such as <IMG>")
    if len(ids) > longest:
        raise DataError(
            f"a prompt of {len(ids)} tokens does not fit the model's {longest} positions; shorten "
            "the prompt"
        )
    # The last new token needs no position: it is never read by the model.
    if new is not None and len(ids) + new - 1 > longest:
        raise DataError(
            f"a prompt of {len(ids)} tokens and {new} new ones do not fit the model's "
            f"{longest} positions; shorten the prompt or lower max_new_tokens"
        )


def withhold_class(tokens: Sequence[str]) -> tuple[str, ...] | None:
    """A drawing prompt with its class taken out; None when `tokens` is no prompt that names one."""
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
    begun: np.ndarray | None = None,
    n_codes: int | None = None,
) -> np.ndarray:
    """Draw one picture for each label; None lets the model choose what to draw.

    Args:
        labels: (N,) classes, or None where none is given (guidance is then off).
        n_patches: P, the codes a picture has; only codes may be drawn, and exactly so many.
        begun: (N, p) codes already there, p < P; the model draws the rest.
        n_codes: draw only codes below this, those of the code book; None: all that are known.

    Returns codes (N, P) int64, the begun ones included.
    """
    begun = np.zeros((len(labels), 0), dtype=np.int64) if begun is None else np.asarray(begun)
    if begun.ndim != 2 or len(begun) != len(labels) or begun.shape[1] >= n_patches:
        raise DataError(
            f"begun: expected {len(labels)} rows of fewer than {n_patches} codes, got an array of "
            f"shape {begun.shape}"
        )
    heads = [
        (*drawing_prompt(label), *map(code_token, row))
        for label, row in zip(labels, begun, strict=True)
    ]
    prompts = [_ids(head, vocab) for head in heads]
    free = [_ids(withhold_class(head) or head, vocab) for head in heads]
    config = replace(config, max_new_tokens=n_patches - begun.shape[1])
    n_codes = int((token_kinds(vocab) == KIND_CODE).sum()) if n_codes is None else n_codes
    names = [code_token(code) for code in range(n_codes)]
    code_of = {index: code for code, index in enumerate(_ids(names, vocab))}
    new = generate(model, prompts, config, allowed=list(code_of), free_prompts=free)
    drawn = np.array([[code_of[i] for i in row] for row in new], dtype=np.int64)
    drawn = drawn.reshape(len(labels), config.max_new_tokens)  # also when there are no labels
    return np.concatenate([begun, drawn], axis=1)  # (N, P)


def _ids(tokens: Sequence[str], vocab: dict[str, int]) -> list[int]:
    missing = [token for token in tokens if token not in vocab]
    if missing:
        raise DataError(f"{missing[0]!r} is not in the vocabulary of this model; see vocab.json")
    return [vocab[token] for token in tokens]


def continue_prompt(
    model, vocab: dict[str, int], tokens: Sequence[str], n: int, config: SampleConfig
) -> list[list[str]]:
    """`n` continuations of the prompt `tokens`, each up to ``<EOS>``; whole sentences of tokens.

    Guidance applies where the prompt names a class to draw, and is left aside elsewhere.
    """
    streams = [(config.seed, number) for number in range(n)]
    return generate_sentences(model, vocab, [tokens] * n, streams, config)


def generate_sentences(
    model,
    vocab: dict[str, int],
    prompts: Sequence[Sequence[str]],
    streams: Sequence[Sequence[int]],
    config: SampleConfig,
) -> list[list[str]]:
    """As `write_sentences_from`, for prompts of any kind side by side, a sentence each.

    `streams` holds for each of them the seed and the number of the sentence; `config.seed` is not
    looked at.
    """
    names = {index: token for token, index in vocab.items()}
    written: list[list[str]] = [[] for _ in prompts]
    free = [withhold_class(tokens) for tokens in prompts]
    for guided in (False, True):
        members = [i for i, tokens in enumerate(free) if (tokens is not None) == guided]
        new = generate(
            model,
            [_ids(prompts[i], vocab) for i in members],
            config if guided else replace(config, guidance=1.0),
            stop_id=vocab[EOS],
            free_prompts=[_ids(free[i], vocab) for i in members] if guided else None,
            streams=[streams[i] for i in members],
        )
        for i, ids in zip(members, new, strict=True):
            written[i] = [*prompts[i], *(names[index] for index in ids)]
    return written
