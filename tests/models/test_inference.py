"""The fast copy answers as the model does, and its cache is written in place."""

import itertools

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from seqlm.config import ModelConfig, SampleConfig
from seqlm.data.tokens import CLS, EOS, IMG, PAD, drawing_prompt
from seqlm.errors import ConfigError
from seqlm.lab.recurrent import LSTMLanguageModel
from seqlm.models import generation
from seqlm.models.generation import draw, generate, generate_sentences, next_token_probabilities
from seqlm.models.gpt2 import build_classifier, build_lm
from seqlm.models.inference import Decoder, beam_search, guided_logits, packed_copy
from seqlm.models.lora import add_lora

SETTINGS = [
    {},
    {"n_inner": 40, "tie_word_embeddings": False},
    {"scale_attn_weights": False, "layer_norm_epsilon": 1e-3, "n_layer": 3},
    {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
]
PINNED = [
    ([53, 27, 59, 47, 6, 65, 51, 53, 7], [28, 65, 53, 48, 40, 5, 23, 63, 62]),
    ([54, 24, 59, 50, 6, 65, 53, 55, 6], [22, 65, 55, 46, 38, 5, 21, 63, 62]),
    ([2, 2, 63, 60, 2, 7, 7, 2, 29], [2, 65, 65, 29, 12, 12, 10, 7, 29]),
]


def model_of(vocab, **settings):
    """A tiny model of opinions: its context matters, and its biases are not zero."""
    size = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 32} | settings
    model = build_lm(ModelConfig(**size), vocab, seed=5).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5) if weight.ndim == 2 else weight.add_(
                torch.randn(weight.shape, generator=generator) / 5
            )
    return model


def rows_of(vocab, n, length, seed=0):
    return np.random.default_rng(seed).integers(6, len(vocab), (n, length)).tolist()


@torch.inference_mode()
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_copy_answers_as_the_model_in_every_configuration(vocab, settings):
    model, rows = model_of(vocab, **settings), torch.tensor(rows_of(vocab, 5, 12))
    fast = packed_copy(model, 12)
    assert fast is not model
    assert torch.allclose(fast(rows).logits, model(rows).logits, atol=1e-5)
    assert model(rows).logits.std() > 0.3  # else little could differ


def test_the_copy_shares_its_embeddings_and_leaves_the_model_as_it_was(vocab):
    model = model_of(vocab)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    kinds, attention = [type(m) for m in model.modules()], model.config._attn_implementation
    fast = packed_copy(model, 12)
    assert fast.transformer.wte.weight is model.transformer.wte.weight
    assert fast.config._attn_implementation == "eager"  # rows of 12 tokens on a CPU
    assert model.config._attn_implementation == attention
    assert [type(m) for m in model.modules()] == kinds
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_classifiers_are_packed_and_other_models_are_not(vocab, tiny, tmp_path):
    rows = torch.tensor(rows_of(vocab, 4, 9))
    classifier = build_classifier(tiny, vocab).eval()
    fast = packed_copy(classifier, 9)
    with torch.inference_mode():
        assert fast is not classifier
        assert torch.allclose(fast(rows).logits, classifier(rows).logits, atol=1e-6)
    lm = build_lm(tiny, vocab)
    lora = add_lora(build_lm(tiny, vocab), 2, 4.0, len(vocab), tmp_path, seed=1)
    for other in (LSTMLanguageModel.new(tiny, vocab), lora, lm.to(torch.bfloat16), object()):
        assert packed_copy(other, 9) is other
    with torch.autocast("cpu", torch.bfloat16):
        assert packed_copy(classifier, 9) is classifier


def of_transformers(model, prompts, steps, stop_id, num_beams=1) -> list[list[int]]:
    """The new ids of each prompt by transformers' own `generate`, padded where rows end early."""
    ids = torch.tensor(prompts)
    whole = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=num_beams,
        do_sample=False,
        max_new_tokens=steps,
        eos_token_id=stop_id,
        pad_token_id=0,
    )
    return whole[:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("n_rows", "length", "new"), [(1, 3, 29), (3, 9, 7), (40, 3, 16)])
def test_greedy_ids_are_those_of_transformers_one_by_one(vocab, settings, n_rows, length, new):
    model, prompts = model_of(vocab, **settings), rows_of(vocab, n_rows, length)
    config = SampleConfig("greedy", max_new_tokens=new)
    stop = generate(model, prompts[:1], config)[0][-2]
    ours = generate(model, prompts, config, stop_id=stop)
    for prompt, mine in zip(prompts, ours, strict=True):
        assert [mine] == of_transformers(model, [prompt], new, stop)
    assert ours[0][-1] == stop  # rows end early


@pytest.mark.parametrize("n_rows", [3, 20])
def test_guided_greedy_ids_are_those_of_two_whole_forward_passes(vocab, n_rows):
    model = model_of(vocab)
    given = [[vocab[t] for t in drawing_prompt(row % 10)] for row in range(n_rows)]
    free = [[vocab[t] for t in drawing_prompt(None)]] * n_rows
    config = SampleConfig("greedy", guidance=2.5, max_new_tokens=12)
    ours = generate(model, given, config, free_prompts=free)
    for prompt, other, mine in zip(given, free, ours, strict=True):
        new = []
        for _ in range(12):
            pair = torch.tensor([[*prompt, *new], [*other, *new]])
            with torch.inference_mode():
                logits = model(pair, use_cache=False).logits[:, -1:]
            new.append(guided_logits(*logits, 2.5).argmax().item())
        assert mine == new
    assert len({tuple(row) for row in ours}) > 2


def test_samples_of_a_seed_are_those_of_earlier_versions(vocab):
    """Pinned with transformers' own cache and unpacked weights; committed figures rest on them."""
    prompts = [[vocab[t] for t in drawing_prompt(row % 10)] for row in range(20)]
    found = []
    for settings in ({}, {"top_p": 0.8, "temperature": 1.3}, {"top_k": 5, "seed": 3}):
        new = generate(model_of(vocab), prompts, SampleConfig(max_new_tokens=9, **settings))
        found.append((new[0], new[19]))
    assert found == PINNED


@torch.inference_mode()
def test_the_cache_is_written_in_place_and_is_just_long_enough(vocab):
    model = model_of(vocab)
    decoder = Decoder(model, rows_of(vocab, 2, 4) * 3, [], 1.0, None, steps=5)
    assert len(decoder.input_ids) == 2  # of six prompts
    places = set()
    for _ in range(5):
        chosen = decoder.logits().argmax(-1)
        layers = decoder.cache.layers
        places.add(tuple(half.data_ptr() for layer in layers for half in layer.both))
        assert {layer.both.shape for layer in layers} == {(2, 6, 2, 8, 16)}
        assert all(layer.keys.data_ptr() == layer.both.data_ptr() for layer in layers)
        decoder.append(chosen)
    assert len(places) == 1


@torch.inference_mode()
def test_the_cache_holds_what_transformers_own_holds_also_when_reordered(vocab):
    model, prompts = model_of(vocab), rows_of(vocab, 3, 4)
    decoder = Decoder(model, prompts, [], 1.0, None, steps=4)
    decoder.logits()
    rows, chosen = torch.tensor([2, 2, 0]), torch.tensor([7, 8, 9])
    decoder.reorder(rows)
    decoder.append(chosen)
    found = decoder.logits()
    theirs = DynamicCache()
    ids = torch.cat([torch.tensor(prompts)[rows], chosen[:, None]], dim=1)
    wanted = model(ids, past_key_values=theirs, use_cache=True).logits[:, -1]
    assert torch.allclose(found, wanted, atol=1e-3)
    for mine, other in zip(decoder.cache.layers, theirs.layers, strict=True):
        assert torch.allclose(mine.keys, other.keys, atol=1e-4)
        assert torch.allclose(mine.values, other.values, atol=1e-4)


def test_beam_search_reads_a_prompt_once_however_many_beams(vocab):
    model, (prompt,) = model_of(vocab), rows_of(vocab, 1, 6)
    decoder = Decoder(model, [prompt] * 4, [], 1.0, None, steps=8)
    assert decoder.input_ids.tolist() == [prompt]
    (found,) = beam_search(decoder, 1, 4, 8, None)
    config = SampleConfig("beam", num_beams=4, max_new_tokens=8)
    assert generate(model, [prompt], config) == [found]


def test_a_row_is_the_same_in_few_rows_and_in_many(vocab, monkeypatch):
    """Few rows use the model itself, many its fast copy."""
    model, prompts = model_of(vocab), [[vocab[IMG], *row] for row in rows_of(vocab, 30, 2)]
    config = SampleConfig(temperature=1.5, top_p=0.9, max_new_tokens=20)
    many = generate(model, prompts, config, stop_id=vocab[EOS])
    monkeypatch.setattr(generation, "PACKED_ROWS", 31)
    assert generate(model, prompts, config, stop_id=vocab[EOS]) == many


# ---------------------------------------------------------------- beam search


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
    theirs = of_transformers(lm, prompts, steps, vocab[EOS], num_beams=num_beams)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other[: len(mine)]
        assert set(other[len(mine) :]) <= {vocab[PAD]}
    assert len({tuple(row) for row in ours}) > 3  # prompts matter, or nothing was compared


def test_with_a_stop_token_that_is_likely_it_still_agrees_with_transformers(lm, vocab):
    # Any id may be the stop token: one the model likes makes sentences end early and often.
    prompts = prompts_of(vocab, 8, 3)
    liked = generate(lm, prompts, beam(3, max_new_tokens=6))
    ended = 0
    for stop in {row[3] for row in liked}:
        ours = generate(lm, prompts, beam(3, max_new_tokens=6), stop_id=stop)
        theirs = of_transformers(lm, prompts, 6, stop, num_beams=3)
        for mine, other in zip(ours, theirs, strict=True):
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
