"""Samples follow the probabilities, filters keep what they promise, and nothing else matters."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from seqlm.config import SampleConfig
from seqlm.data.tokenizer import build_tokenizer
from seqlm.data.tokens import (
    CLS,
    EOS,
    IMG,
    class_token,
    code_token,
    default_vocab,
    draw_layout,
    drawing_prompt,
    read_layout,
)
from seqlm.errors import ConfigError, DataError, NotFiniteError
from seqlm.evaluation.scores import class_probabilities
from seqlm.models import generation
from seqlm.models.generation import (
    draw,
    generate,
    generate_sentences,
    generate_steps,
    next_token_probabilities,
    next_token_table,
    strategy_probabilities,
    withhold_class,
)
from seqlm.models.gpt2 import build_classifier, build_lm
from seqlm.models.inference import guided_logits
from seqlm.models.tracing import trace

GREEDY = SampleConfig(strategy="greedy")
P = torch.tensor([[0.1, 0.4, 0.2, 0.3]])  # (1, 4)


class Table:
    """A mock model: what comes next depends on the last token alone, by a table (V, V) of p."""

    def __init__(self, rows, n_positions=100):
        self.logits = torch.tensor(rows, dtype=torch.float64).log()
        self.config = SimpleNamespace(vocab_size=len(rows), n_positions=n_positions)
        self.device = torch.device("cpu")

    def eval(self):
        return self

    def __call__(self, input_ids, past_key_values=None, use_cache=None):
        return SimpleNamespace(logits=self.logits[input_ids], past_key_values="cache")


def always(probabilities, **settings) -> Table:
    return Table([probabilities] * len(probabilities), **settings)


@pytest.fixture(scope="module")
def lm(opinionated):
    return opinionated()


def filtered(config: SampleConfig, probabilities=P) -> np.ndarray:
    return strategy_probabilities(torch.as_tensor(probabilities).log(), config)[0].numpy()


def prompts_of(vocab, n, length=6, seed=0):
    codes = np.random.default_rng(seed).integers(0, 50, (n, length))
    return [[vocab[IMG], *(vocab[code_token(code)] for code in row)] for row in codes]


# ---------------------------------------------------------------- what a strategy keeps


def test_plain_sampling_leaves_the_probabilities_as_they_are():
    assert np.allclose(filtered(SampleConfig()), P[0])


def test_temperature_divides_the_logits():
    assert np.allclose(filtered(SampleConfig(temperature=0.5)), P[0] ** 2 / (P[0] ** 2).sum())
    assert np.allclose(filtered(SampleConfig(temperature=2.0)), P[0] ** 0.5 / (P[0] ** 0.5).sum())


def test_a_low_temperature_is_greedy_and_a_high_one_uniform():
    assert filtered(SampleConfig(temperature=0.01)).round(6).tolist() == [0, 1, 0, 0]
    assert np.allclose(filtered(SampleConfig(temperature=100)), 0.25, atol=0.005)


def test_greedy_has_one_choice_whatever_else_is_set():
    config = SampleConfig(strategy="greedy", temperature=5.0, top_k=3, top_p=0.99)
    assert filtered(config).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_top_k_keeps_exactly_the_k_most_likely(k):
    kept = filtered(SampleConfig(top_k=k))
    order = [1, 3, 2, 0][:k]
    assert sorted(np.flatnonzero(kept)) == sorted(order)
    assert np.allclose(kept[order], P[0, order] / P[0, order].sum())


def test_top_k_keeps_exactly_k_of_equals_and_those_of_the_lowest_ids():
    assert filtered(SampleConfig(top_k=2), torch.full((1, 5), 0.2)).tolist() == [0.5, 0.5, 0, 0, 0]
    kept = filtered(SampleConfig(top_k=2), torch.tensor([[0.2, 0.4, 0.2, 0.2]]))
    assert np.flatnonzero(kept).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.001, [1]),
        (0.39, [1]),
        (0.41, [1, 3]),
        (0.69, [1, 3]),
        (0.71, [1, 2, 3]),
        (0.89, [1, 2, 3]),
        (0.91, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_the_nucleus_is_the_smallest_set_that_holds_enough(top_p, kept):
    found = filtered(SampleConfig(top_p=top_p))
    assert np.flatnonzero(found).tolist() == kept
    assert np.allclose(found[kept], P[0, kept] / P[0, kept].sum())


def test_a_nucleus_that_holds_just_enough_takes_no_more():
    halves = torch.tensor([[0.125, 0.5, 0.25, 0.125]])  # exact in binary
    assert np.flatnonzero(filtered(SampleConfig(top_p=0.5), halves)).tolist() == [1]
    assert np.flatnonzero(filtered(SampleConfig(top_p=0.75), halves)).tolist() == [1, 2]


def test_a_nucleus_among_equals_takes_the_lowest_ids():
    kept = filtered(SampleConfig(top_p=0.5), torch.full((1, 4), 0.25))
    assert kept.tolist() == [0.5, 0.5, 0, 0]
    kept = filtered(SampleConfig(top_p=0.7), torch.tensor([[0.2, 0.4, 0.2, 0.2]]))
    assert np.flatnonzero(kept).tolist() == [0, 1, 2]


def test_filters_work_in_the_order_temperature_top_k_nucleus():
    # Squared: .01 .16 .04 .09. The best three hold .29; .16/.29 = .55, with .09 it is .86.
    found = filtered(SampleConfig(temperature=0.5, top_k=3, top_p=0.8))
    assert np.allclose(found, [0, 0.16 / 0.25, 0, 0.09 / 0.25])
    # The nucleus is of what top-k left: of 0.4 and 0.3 the first holds 0.57.
    assert np.flatnonzero(filtered(SampleConfig(top_k=2, top_p=0.5))).tolist() == [1]


def test_every_row_is_filtered_by_itself():
    together = torch.cat([P, P.flip(1), torch.full((1, 4), 0.25)])
    config = SampleConfig(temperature=0.7, top_k=3, top_p=0.6)
    found = strategy_probabilities(together.log(), config)
    for row, probabilities in zip(found, together, strict=True):
        assert np.allclose(row, filtered(config, probabilities[None]))
    assert np.allclose(found.sum(-1), 1)


def test_what_is_impossible_stays_impossible():
    logits = torch.tensor([[0.0, -torch.inf, 1.0, -torch.inf]])
    for config in (SampleConfig(), SampleConfig(top_k=3), SampleConfig(temperature=100), GREEDY):
        assert (strategy_probabilities(logits, config)[0, [1, 3]] == 0).all()


def test_filtering_leaves_the_logits_as_they_were():
    logits = P.log()
    before = logits.clone()
    strategy_probabilities(logits, SampleConfig(top_k=1, top_p=0.5))
    assert torch.equal(logits, before)


# ---------------------------------------------------------------- frequencies


@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(),
        SampleConfig(temperature=0.6),
        SampleConfig(top_k=3),
        SampleConfig(top_p=0.8),
        SampleConfig(temperature=1.5, top_k=4, top_p=0.9, seed=7),
    ],
    ids=["plain", "temperature", "top-k", "nucleus", "all three"],
)
def test_tokens_come_as_often_as_their_probabilities_say(config):
    probabilities = [0.05, 0.3, 0.15, 0.02, 0.38, 0.1]
    model = always(probabilities)
    wanted = strategy_probabilities(model.logits[:1], config)[0].numpy()
    new = generate(model, [[0]] * 4000, SampleConfig(**{**vars(config), "max_new_tokens": 2}))
    for step in (0, 1):
        counts = np.bincount([row[step] for row in new], minlength=6)
        assert counts[wanted == 0].sum() == 0
        kept = wanted > 0
        assert stats.chisquare(counts[kept], wanted[kept] * 4000).pvalue > 0.001


def test_each_token_depends_on_the_one_before_as_the_table_says():
    table = [[0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.3, 0.1, 0.6]]
    new = np.array(generate(Table(table), [[0]] * 500, SampleConfig(max_new_tokens=12)))
    for before in range(3):
        after = new[:, 1:][new[:, :-1] == before]
        counts = np.bincount(after, minlength=3)
        assert stats.chisquare(counts, np.array(table[before]) * len(after)).pvalue > 0.001


def test_rows_and_steps_draw_independently():
    new = np.array(generate(always([0.5, 0.5]), [[0]] * 300, SampleConfig(max_new_tokens=20)))
    assert len(np.unique(new, axis=0)) > 290
    together = np.corrcoef(new.T)  # (20, 20)
    assert np.abs(together - np.eye(20)).max() < 0.25
    assert np.abs(np.corrcoef(new[::2, 0], new[1::2, 0])[0, 1]) < 0.25


def test_a_random_number_at_the_edge_picks_a_token_that_is_possible():
    probabilities = torch.tensor([[0.0, 0.5, 0.5, 0.0]], dtype=torch.float64)
    for uniform, wanted in ((0.0, 1), (0.499, 1), (0.5, 2), (np.nextafter(1, 0), 2), (1.0, 2)):
        assert generation._sample(probabilities, np.array([uniform])).item() == wanted


# ---------------------------------------------------------------- greedy, and transformers


@pytest.mark.parametrize("length", [1, 6, 20])
def test_greedy_writes_what_transformers_generate_writes(lm, vocab, length):
    prompts = prompts_of(vocab, 8, length)
    stop = vocab[EOS]
    ours = generate(lm, prompts, SampleConfig(strategy="greedy", max_new_tokens=25), stop_id=stop)
    input_ids = torch.tensor(prompts)
    theirs = lm.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        max_new_tokens=25,
        eos_token_id=stop,
        pad_token_id=vocab["<PAD>"],
    )
    for mine, other in zip(ours, theirs[:, length + 1 :].tolist(), strict=True):
        assert mine == other[: len(mine)]
        assert len(mine) == 25 or mine[-1] == stop
    assert len({tuple(row) for row in ours}) > 4  # prompts matter, or nothing was compared


def by_hand(model, prompt, number, config, free=None):
    """The same sample without cache or batch, straight from the definition."""
    uniform = np.random.default_rng([config.seed, number]).random(config.max_new_tokens)
    ids, new = list(prompt), []
    for point in uniform:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[:, -1]
            if free is not None:
                others = model(torch.tensor([[*free, *new]]), use_cache=False).logits[:, -1]
                given, withheld_ = logits.log_softmax(-1), others.log_softmax(-1)
                logits = (1 - config.guidance) * withheld_ + config.guidance * given
        summed = np.cumsum(strategy_probabilities(logits, config)[0].numpy())
        new.append(int(np.flatnonzero(summed > point * summed[-1])[0]))
        ids.append(new[-1])
    return new


@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_the_cache_and_the_batch_change_nothing(lm, vocab, temperature):
    config = SampleConfig(temperature=temperature, top_p=0.95, max_new_tokens=15, seed=5)
    prompts = prompts_of(vocab, 3) + prompts_of(vocab, 2, length=3)
    found = generate(lm, prompts, config)
    assert found == [by_hand(lm, prompt, i, config) for i, prompt in enumerate(prompts)]
    assert len({tuple(row) for row in found}) == 5


@pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
def test_guided_samples_are_those_of_the_guided_probabilities(lm, vocab, guidance):
    config = SampleConfig(guidance=guidance, max_new_tokens=12, temperature=2.0)
    given = [[vocab[t] for t in drawing_prompt(label)] for label in range(4)]
    free = [[vocab[t] for t in drawing_prompt(None)]] * 4
    found = generate(lm, given, config, free_prompts=free)
    assert found == [by_hand(lm, p, i, config, free[i]) for i, p in enumerate(given)]
    plain = generate(lm, given, SampleConfig(max_new_tokens=12, temperature=2.0))
    assert found != plain or guidance == 0.5  # which is a small step


# ---------------------------------------------------------------- batches, seeds, neighbours


def test_the_size_of_a_batch_changes_nothing(lm, vocab, monkeypatch):
    prompts = prompts_of(vocab, 11) + prompts_of(vocab, 5, length=2)
    config = SampleConfig(max_new_tokens=10, temperature=2.0)
    found = []
    for size in (1, 3, 256):
        monkeypatch.setattr(generation, "MAX_BATCH_ROWS", size)
        found.append(generate(lm, prompts, config))
    assert found[0] == found[1] == found[2]


def test_picture_i_of_ten_is_picture_i_of_a_hundred(lm, vocab):
    config = SampleConfig(temperature=2.0)
    labels = [i % 10 for i in range(100)]
    few, many = (draw(lm, vocab, labels[:n], 16, config) for n in (10, 100))
    assert np.array_equal(few, many[:10])
    others = draw(lm, vocab, [*labels[:3], *[9] * 30], 16, config)
    assert np.array_equal(others[:3], many[:3])


def test_neighbours_of_other_lengths_change_nothing(lm, vocab):
    config = SampleConfig(max_new_tokens=8, temperature=2.0)
    first = prompts_of(vocab, 2)
    alone = generate(lm, first, config)
    mixed = generate(lm, [*first, *prompts_of(vocab, 3, length=9)], config)
    assert mixed[:2] == alone
    between = generate(lm, [first[0], prompts_of(vocab, 1, length=9)[0], first[1]], config)
    assert between[0] == alone[0]


def test_the_same_prompt_is_continued_differently_in_every_row(lm, vocab):
    new = generate(lm, prompts_of(vocab, 1) * 20, SampleConfig(temperature=3.0, max_new_tokens=10))
    assert len({tuple(row) for row in new}) == 20


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(lm, vocab):
    prompts = prompts_of(vocab, 6)
    once, again, other = (
        generate(lm, prompts, SampleConfig(temperature=2.0, max_new_tokens=10, seed=seed))
        for seed in (1, 1, 2)
    )
    assert once == again
    assert all(mine != theirs for mine, theirs in zip(once, other, strict=True))


def test_samples_neither_use_nor_move_torchs_own_random_numbers(lm, vocab):
    torch.manual_seed(1)
    undisturbed = torch.rand(3)
    torch.manual_seed(1)
    generate(lm, prompts_of(vocab, 3), SampleConfig(max_new_tokens=5))
    assert torch.equal(torch.rand(3), undisturbed)


def test_a_model_in_training_mode_samples_without_dropout(lm, vocab):
    config = SampleConfig(temperature=2.0, max_new_tokens=10)
    wanted = generate(lm, prompts_of(vocab, 4), config)
    lm.train()
    try:
        assert generate(lm, prompts_of(vocab, 4), config) == wanted
        ids = prompts_of(vocab, 1)[0]
        lm.train()
        assert np.array_equal(next_token_probabilities(lm, ids), next_token_probabilities(lm, ids))
    finally:
        lm.eval()


# ---------------------------------------------------------------- what may be written, and how far


@pytest.mark.parametrize("config", [SampleConfig(max_new_tokens=30, temperature=3.0), GREEDY])
def test_only_allowed_tokens_are_written(lm, vocab, config):
    prompts = prompts_of(vocab, 8, length=3)
    allowed = [7, 11, 13]
    new = generate(lm, prompts, SampleConfig(**{**vars(config), "max_new_tokens": 30}))
    assert not {i for row in new for i in row} <= set(allowed)
    new = generate(
        lm, prompts, SampleConfig(**{**vars(config), "max_new_tokens": 30}), allowed=allowed
    )
    assert {i for row in new for i in row} <= set(allowed)


def test_allowed_tokens_keep_their_proportions():
    model = always([0.5, 0.1, 0.3, 0.1])
    new = generate(model, [[0]] * 3000, SampleConfig(max_new_tokens=1), allowed=[1, 2])
    counts = np.bincount([row[0] for row in new], minlength=4)
    assert counts[[0, 3]].sum() == 0
    assert stats.chisquare(counts[1:3], [750, 2250]).pvalue > 0.001


def test_a_row_ends_with_the_stop_token_and_the_others_go_on():
    new = generate(always([0.5, 0.3, 0.2]), [[0]] * 200, SampleConfig(max_new_tokens=6), stop_id=2)
    lengths = {len(row) for row in new}
    assert lengths == set(range(1, 7))
    for row in new:
        assert 2 not in row[:-1]
        assert row[-1] == 2 or len(row) == 6


def test_the_stop_token_only_cuts_what_would_have_been_written_anyway():
    model, prompts = always([0.5, 0.3, 0.2]), [[0]] * 50
    config = SampleConfig(max_new_tokens=8)
    endless, stopped = generate(model, prompts, config), generate(model, prompts, config, stop_id=2)
    for whole, cut in zip(endless, stopped, strict=True):
        assert whole[: len(cut)] == cut


@pytest.mark.parametrize("strategy", ["sample", "beam"])
def test_generation_yields_the_token_of_each_running_row_step_by_step(lm, vocab, strategy):
    config = SampleConfig(strategy, temperature=2.0, max_new_tokens=8)
    prompts = [*prompts_of(vocab, 3), *prompts_of(vocab, 1, length=2)]
    stop = generate(lm, prompts, config)[0][4]  # so that at least one row ends early
    steps = list(generate_steps(lm, prompts, config, stop_id=stop))
    rows = [[step[row] for step in steps if row in step] for row in range(4)]
    assert rows == generate(lm, prompts, config, stop_id=stop) and len(rows[0]) <= 5
    assert set(steps[0]) == {3} and len(steps[-1]) <= 3, "the next length follows"


def test_without_a_stop_token_rows_are_as_long_as_asked_for():
    new = generate(always([0.5, 0.5]), [[0]] * 3, SampleConfig(max_new_tokens=9))
    assert [len(row) for row in new] == [9, 9, 9]
    assert generate(always([0.5, 0.5]), [], SampleConfig()) == []


# ---------------------------------------------------------------- guidance


def test_guided_logits_by_hand():
    given = torch.tensor([[0.5, 0.25, 0.25]]).log()
    free = torch.tensor([[0.25, 0.25, 0.5]]).log()
    for weight in (0, 1, 2, 3.5):
        wanted = given.exp() ** weight * free.exp() ** (1 - weight)
        found = guided_logits(given + 3, free - 7, weight).softmax(-1)  # constants do not matter
        assert torch.allclose(found.float(), wanted / wanted.sum(), atol=1e-6)
    assert torch.allclose(
        guided_logits(given, free, 2.0).softmax(-1)[0].float(), torch.tensor([8, 2, 1]) / 11
    )


def test_guidance_of_one_is_no_guidance(lm, vocab):
    given = [[vocab[t] for t in drawing_prompt(label)] for label in range(5)]
    free = [[vocab[t] for t in drawing_prompt(None)]] * 5
    config = SampleConfig(guidance=1.0, max_new_tokens=10, temperature=2.0)
    assert generate(lm, given, config, free_prompts=free) == generate(lm, given, config)


def test_guidance_without_anything_to_compare_with_is_refused(lm, vocab):
    with pytest.raises(ConfigError, match="^guidance: .*set guidance to 1") as caught:
        generate(lm, prompts_of(vocab, 1), SampleConfig(guidance=2.0))
    assert "\n" not in str(caught.value)


def test_only_a_drawing_prompt_has_a_class_to_withhold():
    assert withhold_class(drawing_prompt(3)) == drawing_prompt(None)
    assert withhold_class([CLS, class_token(3), IMG, code_token(4)]) == (
        CLS,
        CLS,
        IMG,
        code_token(4),
    )
    assert withhold_class(draw_layout([1, 2], 3)) == draw_layout([1, 2], None)
    for tokens in (drawing_prompt(None), (), (CLS,), read_layout([1], 3), (IMG, class_token(3))):
        assert withhold_class(tokens) is None


# ---------------------------------------------------------------- drawing


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("labels", [[3, 1, 4], [None, None], [None, 7, None]])
def test_a_drawing_is_exactly_as_many_codes_as_a_picture_needs(lm, vocab, labels, guidance):
    codes = draw(lm, vocab, labels, 16, SampleConfig(temperature=5.0, guidance=guidance))
    assert codes.shape == (len(labels), 16) and codes.dtype == np.int64
    assert codes.min() >= 0 and codes.max() < 50


def test_drawn_codes_are_those_the_model_named(lm, vocab):
    config = SampleConfig(temperature=2.0, max_new_tokens=16)
    codes = draw(lm, vocab, [3], 16, config)
    prompt = [vocab[token] for token in drawing_prompt(3)]
    names = {index: token for token, index in vocab.items()}
    allowed = [vocab[code_token(code)] for code in range(50)]
    (ids,) = generate(lm, [prompt], config, allowed=allowed)
    assert [names[i] for i in ids] == [code_token(code) for code in codes[0]]


def test_codes_are_recognised_by_name_whatever_their_ids(tiny, vocab):
    shuffled = dict(zip(vocab, np.random.default_rng(0).permutation(66).tolist(), strict=True))
    plain, other = build_lm(tiny, vocab, seed=3), build_lm(tiny, vocab, seed=3)
    order = torch.tensor([shuffled[token] for token in vocab])
    with torch.no_grad():
        other.transformer.wte.weight[order] = plain.transformer.wte.weight.clone()
    greedy = draw(plain, vocab, [1, 2, None], 16, GREEDY)
    assert np.array_equal(draw(other, shuffled, [1, 2, None], 16, GREEDY), greedy)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("given", [0, 1, 8, 15])
def test_a_prefix_is_kept_and_the_rest_is_drawn(lm, vocab, given, guidance):
    begun = np.random.default_rng(2).integers(0, 50, (3, given))
    config = SampleConfig(temperature=3.0, guidance=guidance)
    codes = draw(lm, vocab, [1, None, 2], 16, config, begun)
    assert codes.shape == (3, 16)
    assert np.array_equal(codes[:, :given], begun)
    prompt = [vocab[t] for t in (*drawing_prompt(1), *map(code_token, begun[0]))]
    if guidance == 1:
        config = SampleConfig(temperature=3.0, max_new_tokens=16 - given)
        (ids,) = generate(lm, [prompt], config, allowed=range(6, 56))
        assert codes[0, given:].tolist() == [i - 6 for i in ids]


def test_guidance_is_off_where_no_class_is_given(lm, vocab):
    plain, guided = (
        draw(lm, vocab, [None] * 5, 16, SampleConfig(temperature=2.0, guidance=g))
        for g in (1.0, 4.0)
    )
    assert np.array_equal(plain, guided)
    plain, guided = (
        draw(lm, vocab, [3] * 5, 16, SampleConfig(temperature=2.0, guidance=g)) for g in (1.0, 4.0)
    )
    assert not np.array_equal(plain, guided)


def test_the_class_changes_the_drawing(lm, vocab):
    drawn = draw(lm, vocab, [*range(10), None], 16, GREEDY)
    assert len(np.unique(drawn, axis=0)) > 3


def test_no_labels_are_no_drawings(lm, vocab):
    assert draw(lm, vocab, [], 16, SampleConfig()).shape == (0, 16)


@pytest.mark.parametrize("shape", [(2, 16), (2, 17), (1, 3), (3, 3), (2,), (2, 3, 1)])
def test_a_prefix_of_the_wrong_shape_is_refused(lm, vocab, shape):
    with pytest.raises(DataError, match="^prefix: expected 2 rows of fewer than 16") as caught:
        draw(lm, vocab, [1, 2], 16, SampleConfig(), np.zeros(shape, dtype=int))
    assert str(shape) in str(caught.value)


def test_a_class_or_code_the_model_does_not_know_is_refused(lm, vocab):
    with pytest.raises(DataError, match="'<CLS_12>' is not in the vocabulary"):
        draw(lm, vocab, [12], 16, SampleConfig())
    with pytest.raises(DataError, match="'<Z_050>' is not in the vocabulary"):
        draw(lm, vocab, [1], 16, SampleConfig(), np.array([[50]]))


def test_a_vocabulary_without_code_book_names_cannot_be_drawn_from(tiny):
    vocab = {token.replace("<Z_", "<frog_"): index for token, index in default_vocab(50).items()}
    with pytest.raises(DataError, match="'<Z_000>' is not in the vocabulary"):
        draw(build_lm(tiny, vocab), vocab, [1], 16, SampleConfig())


# ---------------------------------------------------------------- sentences and tables


def sentence(model, vocab, tokens, **settings):
    return generate_sentences(model, vocab, [tokens] * 3, SampleConfig(**settings))


def test_sentences_begin_with_their_prompt_and_end_with_eos_or_at_max_new_tokens(lm, vocab):
    prompt = [IMG, code_token(3)]
    for written in sentence(lm, vocab, prompt, temperature=5.0, max_new_tokens=40):
        assert written[:2] == prompt
        assert EOS not in written[:-1]
        assert written[-1] == EOS or len(written) == 42


def test_sentences_are_guided_only_where_a_class_is_named(lm, vocab):
    hot = {"temperature": 3.0, "max_new_tokens": 20}
    for tokens in (drawing_prompt(None), (IMG, code_token(3)), (CLS,)):
        assert sentence(lm, vocab, tokens, guidance=3.0, **hot) == sentence(
            lm, vocab, tokens, guidance=1.0, **hot
        )
    named = drawing_prompt(3)
    assert sentence(lm, vocab, named, guidance=3.0, **hot) != sentence(lm, vocab, named, **hot)


def test_a_prompt_with_a_strange_token_is_refused(lm, vocab):
    with pytest.raises(DataError, match="'<frog>' is not in the vocabulary"):
        sentence(lm, vocab, [IMG, "<frog>"])


def test_an_empty_prompt_is_refused(lm, vocab):
    for ask in (
        lambda: generate(lm, [[1], []], SampleConfig(max_new_tokens=5)),
        lambda: next_token_probabilities(lm, []),
        lambda: sentence(lm, vocab, []),
    ):
        with pytest.raises(DataError, match="the prompt is empty; give at least one token"):
            ask()


def test_a_prompt_too_long_for_the_model_is_refused(lm, vocab):
    prompt = [vocab[IMG]] * 54
    with pytest.raises(DataError, match="54 tokens and 12 new ones do not fit .* 64 positions"):
        generate(lm, [prompt], SampleConfig(max_new_tokens=12))
    for ask in (
        lambda: next_token_probabilities(lm, [2] * 65),
        lambda: generate(lm, [[2] * 65], SampleConfig()),
        lambda: generate(lm, [[2], [2] * 65], SampleConfig()),
        lambda: generate(lm, [[2] * 65], SampleConfig(max_new_tokens=1)),
    ):
        with pytest.raises(DataError, match="65 tokens does not fit the model's 64 positions"):
            ask()
    assert len(next_token_probabilities(lm, [2] * 64)) == 66


@pytest.mark.parametrize("length", [1, 54, 63, 64])
def test_the_last_new_token_needs_no_position(lm, vocab, length):
    """So the longest continuation is one longer than what the prompt leaves of the positions."""
    prompt, most = [vocab[IMG]] * length, 64 - length + 1
    config = SampleConfig(temperature=2.0, max_new_tokens=most)
    (new,) = generate(lm, [prompt], config)
    assert new == by_hand(lm, prompt, 0, config) and len(new) == most
    with pytest.raises(DataError, match=f"{most + 1} new ones do not fit"):
        generate(lm, [prompt], SampleConfig(max_new_tokens=most + 1))


def test_without_a_number_rows_are_as_long_as_fit_each_by_its_own_length(lm, vocab):
    prompts = [[vocab[IMG]] * length for length in (60, 3, 64, 60)]
    config = SampleConfig(temperature=2.0)
    new = generate(lm, prompts, config)
    assert [len(row) for row in new] == [5, 62, 1, 5]
    assert generate(lm, prompts[:1], config) == new[:1]  # a neighbour's length changes nothing
    fixed = SampleConfig(temperature=2.0, max_new_tokens=5)
    assert generate(lm, prompts[1:2] * 2, fixed)[1] == new[1][:5]


def test_without_a_number_rows_still_end_with_the_stop_token():
    new = generate(always([0.5, 0.3, 0.2]), [[0]] * 200, SampleConfig(), stop_id=2)
    assert max(map(len, new)) < 100 and all(row[-1] == 2 for row in new)


def test_a_drawing_has_its_patches_whatever_number_is_set(lm, vocab):
    for most in (None, 3, 60):
        assert draw(lm, vocab, [1], 16, SampleConfig(max_new_tokens=most)).shape == (1, 16)


def test_next_token_probabilities_are_the_models_softmax(lm, vocab):
    ids = prompts_of(vocab, 1)[0]
    found = next_token_probabilities(lm, ids)
    with torch.no_grad():
        wanted = lm(torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()
    assert found.shape == (66,) and found.dtype == np.float64
    assert np.allclose(found, wanted, atol=1e-7) and found.sum() == pytest.approx(1)


def test_the_table_lists_the_most_likely_first(lm, vocab):
    ids = prompts_of(vocab, 1)[0]
    probabilities = next_token_probabilities(lm, ids)
    names = {index: token for token, index in vocab.items()}
    table = next_token_table(lm, build_tokenizer(vocab), ids, k=5)
    assert len(table) == 5
    assert [line.id for line in table] == np.argsort(-probabilities, kind="stable")[:5].tolist()
    for line in table:
        assert line.token == names[line.id]
        assert line.probability == probabilities[line.id]
    whole = next_token_table(lm, build_tokenizer(vocab), ids, k=1000)
    assert sum(line.probability for line in whole) == pytest.approx(1) and len(whole) == 66


@pytest.mark.parametrize("level", [float("nan"), float("inf")])
def test_a_model_whose_logits_are_no_numbers_is_never_asked_further(tiny, vocab, level):
    lm, classifier = build_lm(tiny, vocab), build_classifier(tiny, vocab)
    for model in (lm, classifier):
        model.transformer.ln_f.weight.data[0] = level
    prompt = prompts_of(vocab, 1)[0]
    for answer in (
        *(lambda c=c: generate(lm, [prompt] * 2, c) for c in (GREEDY, SampleConfig())),
        lambda: generate(lm, [prompt], SampleConfig(strategy="beam", num_beams=2)),
        lambda: draw(lm, vocab, [1], 16, SampleConfig(guidance=1.5)),
        lambda: draw(lm, vocab, [1], 16, SampleConfig(strategy="beam", num_beams=2)),
        lambda: next_token_probabilities(lm, prompt),
        lambda: trace(lm, vocab, drawing_prompt(1), [1, 2, 3]),
        lambda: class_probabilities(lm, [prompt], [60, 61]),
        lambda: class_probabilities(classifier, [prompt] * 2),
        lambda: class_probabilities(classifier, [prompt] * 200),  # enough for a packed copy
    ):
        with pytest.raises(NotFiniteError, match="logits are not finite numbers"):
            answer()


def test_a_picture_can_be_finished_and_closed_by_the_model_itself(lm, vocab):
    """Greedy text, unlike a drawing, may hold any token: nothing is barred in it."""
    (written, *_) = sentence(lm, vocab, drawing_prompt(1), strategy="greedy", max_new_tokens=20)
    ids = [vocab[token] for token in written]
    for at in range(3, len(ids)):
        assert ids[at] == next_token_probabilities(lm, ids[:at]).argmax()
