"""What a model expected and where it looked: held against scores, the sampler and its weights."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from seqlm.config import SampleConfig
from seqlm.data.tokenizer import encode_tokens
from seqlm.data.tokens import (
    IMG,
    KIND_CODE,
    class_ids,
    draw_layout,
    drawing_prompt,
    read_layout,
    token_kinds,
)
from seqlm.evaluation.scores import score_tokens
from seqlm.models.generation import _sample, draw
from seqlm.models.inference import guided_logits
from seqlm.models.tracing import Trace, attention_weights, trace

P = 16
CODES = np.random.default_rng(1).integers(50, size=P)


@pytest.fixture(scope="module")
def lm(opinionated, vocab):
    model = opinionated()
    with torch.no_grad():  # or guidance would change little
        model.transformer.wte.weight[class_ids(vocab)] *= 6
    return model


# --- what was expected ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (drawing_prompt(3), draw_layout(CODES, 3)),
        (drawing_prompt(None), draw_layout(CODES, None)),
        ((IMG,), read_layout(CODES, 3)),
    ],
    ids=["drawn", "drawn freely", "read"],
)
def test_surprisal_is_the_nll_that_the_metrics_count(lm, vocab, head, sentence):
    found = trace(lm, vocab, head, CODES)
    scores = score_tokens(lm, [encode_tokens(sentence, vocab)])
    codes = scores.of_kind(token_kinds(vocab), KIND_CODE)
    assert codes.target.tolist() == found.ids.tolist()
    assert found.surprisal == pytest.approx(codes.nll, abs=1e-5)
    assert np.ptp(found.surprisal) > 0.5  # opinions, or nothing was compared


def test_settings_never_change_the_models_own_prediction(lm, vocab):
    plain = trace(lm, vocab, drawing_prompt(3), CODES)
    config = SampleConfig(temperature=0.5, top_k=3, guidance=4.0)
    other = trace(lm, vocab, drawing_prompt(3), CODES, config)
    assert np.array_equal(plain.expected, other.expected)
    assert np.abs(plain.after - other.after).max() > 0.1


def test_all_probabilities_of_a_position_sum_to_one_and_ids_and_names_fit(lm, vocab):
    found = trace(lm, vocab, drawing_prompt(0), CODES, SampleConfig(top_p=0.7))
    assert found.expected.shape == found.after.shape == (P, len(vocab))
    assert found.expected.sum(1) == pytest.approx(1)
    assert found.after.sum(1) == pytest.approx(1)
    assert [vocab[name] for name in found.names] == list(range(len(vocab)))
    assert [found.names[i] for i in found.ids] == [f"<Z_{code:03d}>" for code in CODES]


# --- what was drawn from --------------------------------------------------------------------------

SETTINGS = {
    "plain": {},
    "hot": {"temperature": 1.7},
    "top-k": {"top_k": 4, "temperature": 0.9},
    "nucleus": {"top_p": 0.6},
    "guided": {"guidance": 2.5},
    "all at once": {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "guidance": 1.5, "seed": 7},
    "greedy": {"strategy": "greedy"},
    "greedy, guided": {"strategy": "greedy", "guidance": 2.5},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_code_is_where_its_random_number_falls_among_the_probabilities(lm, vocab, settings):
    config, labels = SampleConfig(**settings), [3, None, 9]
    for row, codes in enumerate(draw(lm, vocab, labels, P, config)):
        found = trace(lm, vocab, drawing_prompt(labels[row]), codes, config)
        uniform = np.random.default_rng([config.seed, row]).random(P)
        assert _sample(torch.as_tensor(found.after), uniform).tolist() == found.ids.tolist()


def test_replaying_with_other_settings_gives_other_codes(lm, vocab):
    config = SampleConfig(guidance=2.5)
    (codes,) = draw(lm, vocab, [3], P, config)
    uniform = np.random.default_rng([config.seed, 0]).random(P)
    for other in (SampleConfig(), SampleConfig(guidance=2.5, temperature=3.0)):
        found = trace(lm, vocab, drawing_prompt(3), codes, other)
        assert _sample(torch.as_tensor(found.after), uniform).tolist() != found.ids.tolist()


def test_the_codes_after_a_prefix_are_replayed_from_their_own_position_on(lm, vocab):
    config, begun = SampleConfig(top_k=10, seed=5), CODES[: P // 2]
    (codes,) = draw(lm, vocab, [3], P, config, begun[None])
    found = trace(lm, vocab, drawing_prompt(3), codes, config)
    uniform = np.random.default_rng([config.seed, 0]).random(P // 2)
    replayed = _sample(torch.as_tensor(found.after[P // 2 :]), uniform)
    assert replayed.tolist() == found.ids[P // 2 :].tolist()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_only_codes_can_come_and_only_as_many_as_the_settings_leave(lm, vocab, settings):
    config = SampleConfig(**settings)
    found = trace(lm, vocab, drawing_prompt(3), CODES, config)
    assert (found.after[:, token_kinds(vocab) != KIND_CODE] == 0).all()
    assert (found.expected[:, token_kinds(vocab) != KIND_CODE] > 0).all()
    left = (found.after > 0).sum(1)
    if config.strategy == "greedy":
        assert (left == 1).all()
    elif config.top_k:
        assert (left <= config.top_k).all()
    elif config.top_p == 1:
        assert (left == 50).all()


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_beam_search_is_shown_with_the_probabilities_its_sums_are_made_of(lm, vocab, guidance):
    # Temperature and top-k are there to be ignored, as beam search ignores them.
    config = SampleConfig(
        strategy="beam", num_beams=3, guidance=guidance, temperature=3.0, top_k=2, top_p=0.3
    )
    found = trace(lm, vocab, drawing_prompt(3), CODES, config)
    given = encode_tokens(draw_layout(CODES, 3), vocab)
    free = encode_tokens(draw_layout(CODES, None), vocab)
    with torch.no_grad():
        logits = lm(torch.tensor([given, free]), use_cache=False).logits[:, 2 : 2 + P]
    logits = guided_logits(logits[0], logits[1], guidance)
    logits[:, token_kinds(vocab) != KIND_CODE] = -torch.inf
    assert found.after == pytest.approx(logits.softmax(-1).numpy(), abs=1e-6)


def test_beams_that_found_a_more_likely_image_than_greedy_show_it_in_their_sums(lm, vocab):
    sums = []
    for strategy in ("greedy", "beam"):
        config = SampleConfig(strategy=strategy, num_beams=16)
        (codes,) = draw(lm, vocab, [3], P, config)
        found = trace(lm, vocab, drawing_prompt(3), codes)
        sums.append(np.log(found.after[np.arange(P), found.ids]).sum())
    assert sums[1] > sums[0] + 0.01


def test_a_prompt_that_names_no_class_is_not_guided(lm, vocab):
    for head in (drawing_prompt(None), (IMG,)):
        plain = trace(lm, vocab, head, CODES, SampleConfig())
        guided = trace(lm, vocab, head, CODES, SampleConfig(guidance=3.0))
        assert np.array_equal(plain.after, guided.after)


# --- candidates -----------------------------------------------------------------------------------


def test_candidates_come_most_likely_first_and_name_the_one_that_stands_there(lm, vocab):
    found = trace(lm, vocab, drawing_prompt(3), CODES, SampleConfig(top_k=5))
    for place in range(P):
        candidates = found.candidates(place, 6)
        chances = [c.probability for c in candidates]
        assert all(a >= b for a, b in pairwise(chances))
        assert chances[:6] == sorted(found.expected[place], reverse=True)[:6]
        (chosen,) = (c for c in candidates if c.chosen)
        assert chosen.token == f"<Z_{CODES[place]:03d}>"
        for c in candidates:
            assert c.probability == found.expected[place, vocab[c.token]]
            assert c.after == found.after[place, vocab[c.token]]


def test_the_one_that_stands_there_is_listed_even_outside_the_top_k():
    expected = np.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
    found = Trace(np.array([3, 3]), ["a", "b", "c", "d"], expected, expected)
    assert [c.token for c in found.candidates(0, 2)] == ["a", "b", "d"]
    assert [c.chosen for c in found.candidates(0, 2)] == [False, False, True]
    assert [c.token for c in found.candidates(1, 2)] == ["d", "c"]  # not told of twice
    assert found.surprisal == pytest.approx([-np.log(0.05), -np.log(0.4)])


# --- attention ------------------------------------------------------------------------------------

IDS = [4, 7, 30, 12, 12, 41, 3, 4]


def by_hand(model, ids) -> np.ndarray:
    """softmax(q k / sqrt(d)) of the first layer from its own weights. (n_head, T, T)"""
    first, n_head = model.transformer.h[0], model.config.n_head
    embedded = model.transformer.wte.weight[ids] + model.transformer.wpe.weight[: len(ids)]
    mean, var = embedded.mean(1, keepdim=True), embedded.var(1, correction=0, keepdim=True)
    normed = (embedded - mean) / (var + first.ln_1.eps).sqrt()
    normed = normed * first.ln_1.weight + first.ln_1.bias  # (T, n_embd)
    q, k, _ = (normed @ first.attn.c_attn.weight + first.attn.c_attn.bias).chunk(3, dim=1)
    weights = []
    for head in range(n_head):
        d = q.shape[1] // n_head
        some = slice(head * d, (head + 1) * d)
        scores = q[:, some] @ k[:, some].T / d**0.5
        future = torch.ones_like(scores, dtype=torch.bool).triu(1)
        weights.append(scores.masked_fill(future, -torch.inf).softmax(-1))
    return torch.stack(weights).detach().numpy()


def test_each_token_shares_out_all_its_attention_to_itself_and_those_before(lm):
    found = attention_weights(lm, IDS)
    assert found.shape == (lm.config.n_layer, lm.config.n_head, len(IDS), len(IDS))
    assert found.sum(-1) == pytest.approx(1, abs=1e-5)
    assert (found >= 0).all()
    assert (found[..., np.triu(np.ones((len(IDS), len(IDS)), bool), 1)] == 0).all()


def test_the_first_layers_attention_is_the_one_worked_out_by_hand(lm):
    found = attention_weights(lm, IDS)
    assert found[0] == pytest.approx(by_hand(lm, IDS), abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.1  # layers differ, or it could be any of them
    assert np.abs(found[0, 0] - found[0, 1]).max() > 0.1


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_the_attention_kernel_is_restored(lm, kind):
    lm.set_attn_implementation(kind)
    attention_weights(lm, IDS)
    assert lm.config._attn_implementation == kind


def test_the_attention_kernel_is_restored_after_an_error(lm):
    lm.set_attn_implementation("sdpa")
    with pytest.raises(IndexError):
        attention_weights(lm, [10_000])
    assert lm.config._attn_implementation == "sdpa"


def test_tracing_changes_nothing_that_is_drawn(lm, vocab):
    before = draw(lm, vocab, [3, 5], P, SampleConfig())
    attention_weights(lm, IDS)
    trace(lm, vocab, drawing_prompt(3), CODES)
    assert np.array_equal(draw(lm, vocab, [3, 5], P, SampleConfig()), before)
