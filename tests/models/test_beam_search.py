"""Beam search finds what a search of everything finds, and what transformers' own finds."""

import itertools

import numpy as np
import pytest
import torch

from seqlm.config import SampleConfig
from seqlm.data.tokens import CLS, EOS, IMG, PAD, drawing_prompt
from seqlm.errors import ConfigError
from seqlm.models.generation import draw, generate, generate_sentences, next_token_probabilities
from seqlm.models.inference import guided_logits


@pytest.fixture(scope="module")
def lm(opinionated):
    return opinionated()


def beam(num_beams=4, **settings) -> SampleConfig:
    return SampleConfig(strategy="beam", num_beams=num_beams, **settings)


def prompts_of(vocab, n, length=4):
    rng = np.random.default_rng(0)
    return rng.integers(6, len(vocab), size=(n, length)).tolist()


def log_probability(model, prompt, new) -> float:
    """Of a whole continuation, token by token, from the definition."""
    total, ids = 0.0, list(prompt)
    for index in new:
        total += np.log(next_token_probabilities(model, ids)[index])
        ids.append(index)
    return total


@pytest.mark.parametrize(("num_beams", "length", "steps"), [(2, 1, 12), (4, 6, 20), (7, 3, 9)])
def test_it_writes_what_transformers_beam_search_writes(lm, vocab, num_beams, length, steps):
    prompts = prompts_of(vocab, 6, length)
    ours = generate(lm, prompts, beam(num_beams, max_new_tokens=steps), stop_id=vocab[EOS])
    input_ids = torch.tensor(prompts)
    theirs = lm.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        num_beams=num_beams,
        do_sample=False,
        max_new_tokens=steps,
        eos_token_id=vocab[EOS],
        pad_token_id=vocab[PAD],
    )
    for mine, other in zip(ours, theirs[:, length:].tolist(), strict=True):
        assert mine == other[: len(mine)]
        assert set(other[len(mine) :]) <= {vocab[PAD]}
    assert len({tuple(row) for row in ours}) > 3  # prompts matter, or nothing was compared


def test_with_a_stop_token_that_is_likely_it_still_agrees_with_transformers(lm, vocab):
    # Any id may be the stop token: one the model likes makes sentences end early and often.
    prompts, input_ids = prompts_of(vocab, 8, 3), torch.tensor(prompts_of(vocab, 8, 3))
    liked = generate(lm, prompts, beam(3, max_new_tokens=6))
    ended = 0
    for stop in {row[3] for row in liked}:
        ours = generate(lm, prompts, beam(3, max_new_tokens=6), stop_id=stop)
        theirs = lm.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            num_beams=3,
            do_sample=False,
            max_new_tokens=6,
            eos_token_id=stop,
            pad_token_id=vocab[PAD],
        )
        for mine, other in zip(ours, theirs[:, 3:].tolist(), strict=True):
            assert mine == other[: len(mine)]
            ended += mine[-1] == stop
    assert ended > 3


def test_one_beam_is_greedy(lm, vocab):
    prompts = prompts_of(vocab, 5)
    greedy = generate(lm, prompts, SampleConfig(strategy="greedy", max_new_tokens=15))
    assert generate(lm, prompts, beam(1, max_new_tokens=15)) == greedy


def test_as_many_beams_as_sentences_find_the_very_best(lm, vocab):
    prompt, allowed = prompts_of(vocab, 1)[0], [7, 9, 12, 30]
    (found,) = generate(lm, [prompt], beam(64, max_new_tokens=3), allowed=allowed)
    with torch.no_grad():
        rows = torch.tensor([[*prompt, *new] for new in itertools.product(allowed, repeat=3)])
        logits = lm(rows, use_cache=False).logits.double()
    barred = torch.ones(logits.shape[-1], dtype=torch.bool)
    barred[allowed] = False
    log_p = logits.masked_fill(barred, -torch.inf).log_softmax(-1)
    new = rows[:, len(prompt) :]
    picked = log_p[:, len(prompt) - 1 : -1].gather(-1, new[..., None]).sum((1, 2))
    assert found == new[picked.argmax()].tolist()


def test_more_beams_find_no_worse_a_sentence_here_and_better_ones_than_greedy(lm, vocab):
    prompts = prompts_of(vocab, 6)
    greedy = generate(lm, prompts, SampleConfig(strategy="greedy", max_new_tokens=10))
    wide = generate(lm, prompts, beam(16, max_new_tokens=10))
    gained = [
        log_probability(lm, prompt, found) - log_probability(lm, prompt, first)
        for prompt, found, first in zip(prompts, wide, greedy, strict=True)
    ]
    assert min(gained) > -1e-5 and max(gained) > 0.01


def test_a_guided_drawing_is_the_beam_of_guided_probabilities(lm, vocab):
    given, free = drawing_prompt(3), drawing_prompt(None)
    given, free = [vocab[t] for t in given], [vocab[t] for t in free]
    config = beam(2, max_new_tokens=4, guidance=2.0)
    (found,) = generate(lm, [given], config, free_prompts=[free])
    beams = [(0.0, [])]
    for _ in range(4):
        grown = []
        for score, new in beams:
            with torch.no_grad():
                mine = lm(torch.tensor([[*given, *new]]), use_cache=False).logits[:, -1]
                other = lm(torch.tensor([[*free, *new]]), use_cache=False).logits[:, -1]
            log_p = guided_logits(mine, other, 2.0).log_softmax(-1)[0]
            grown += [(score + p, [*new, i]) for i, p in enumerate(log_p.tolist())]
        beams = sorted(grown, key=lambda one: -one[0])[:2]
    assert found == beams[0][1]


def test_a_row_is_the_same_alone_and_among_others_of_any_length(lm, vocab, monkeypatch):
    monkeypatch.setattr(
        "seqlm.models.generation.MAX_BATCH_ROWS", 8
    )  # two rows of four beams at a time
    prompts = [*prompts_of(vocab, 5, 4), *prompts_of(vocab, 2, 7)]
    config = beam(max_new_tokens=8)
    together = generate(lm, prompts, config, stop_id=vocab[EOS])
    assert together == [generate(lm, [p], config, stop_id=vocab[EOS])[0] for p in prompts]


def test_a_row_that_has_settled_does_not_change_while_others_go_on(lm, vocab):
    prompts = prompts_of(vocab, 16, 3)
    liked = generate(lm, prompts, beam(4, max_new_tokens=8))
    lengths = set()
    for stop in sorted({index for row in liked for index in row[2:6]})[:12]:
        config = beam(4, max_new_tokens=25)
        together = generate(lm, prompts, config, stop_id=stop)
        assert together == [generate(lm, [p], config, stop_id=stop)[0] for p in prompts]
        lengths |= {len(row) for row in together if row[-1] == stop}
    assert len(lengths) > 5  # they end at different steps, or nothing was tried


def test_seed_and_temperature_change_nothing(lm, vocab):
    prompts = prompts_of(vocab, 3)
    plain = generate(lm, prompts, beam(max_new_tokens=9))
    other = beam(max_new_tokens=9, seed=7, temperature=3.0, top_k=1, top_p=0.5)
    assert generate(lm, prompts, other) == plain


def test_whole_pictures_and_sentences_come_out(lm, vocab):
    codes = draw(lm, vocab, [3, None, 5], 16, beam(guidance=1.5))
    assert codes.shape == (3, 16) and codes.min() >= 0 and codes.max() < 50
    (sentence,) = generate_sentences(lm, vocab, [(CLS, CLS, IMG)], beam(max_new_tokens=12))
    assert sentence[:3] == [CLS, CLS, IMG] and 3 < len(sentence) <= 15


@pytest.mark.parametrize("num_beams", [0, -1, 65, 2.5])
def test_a_number_of_beams_out_of_range_is_refused(num_beams):
    with pytest.raises(ConfigError, match="^num_beams: "):
        beam(num_beams)
