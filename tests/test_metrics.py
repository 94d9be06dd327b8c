"""Numbers that are easy to get wrong, held against sums done by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seqlm import metrics
from seqlm.config import ModelConfig
from seqlm.errors import DataError
from seqlm.layout import (
    KIND_CLASS,
    KIND_CODE,
    KIND_STRUCTURAL,
    class_of,
    default_vocab,
    draw_layout,
    read_layout,
    token_kinds,
)
from seqlm.metrics import TokenScores
from seqlm.model import build_lm

VOCAB = default_vocab()
KINDS = token_kinds(VOCAB)
TINY = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64)


class BigramModel(torch.nn.Module):
    """A language model whose logits are a table that anyone can read: table[previous token]."""

    device = torch.device("cpu")

    def __init__(self, table):
        super().__init__()
        self.table = torch.as_tensor(table)
        self.config = SimpleNamespace(vocab_size=len(table))

    def forward(self, input_ids, use_cache=True):
        return SimpleNamespace(logits=self.table[input_ids])


def ids(tokens):
    return [VOCAB[token] for token in tokens]


def ragged_rows(seed=0, n=15):
    """Sentences of both layouts with 1 to 14 codes, shuffled in length."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        codes = rng.integers(0, 500, rng.integers(1, 15))
        layout = draw_layout if i % 2 else read_layout
        rows.append(ids(layout(codes, int(rng.integers(10)))))
    return rows


def scores_of(values, row=None, **columns):
    """A table of scores with the given NLL; what is not said is 0."""
    values = np.asarray(values, dtype=float)
    zeros = np.zeros(len(values), dtype=int)
    row = np.arange(len(values)) if row is None else np.asarray(row)
    columns = {"position": zeros, "target": zeros, "rank": zeros} | columns
    return TokenScores(row=row, nll=values, n_rows=int(row.max(initial=-1)) + 1, **columns)


@pytest.fixture(scope="module")
def lm():
    return sharpened(build_lm(TINY, VOCAB, seed=1))


def sharpened(model):
    """Larger weights, so that what a token sees makes a difference well above rounding."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    return model.eval()


# Scoring


def test_nll_and_rank_equal_a_sum_done_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.1, 0.6, 0.3]])
    model = BigramModel(np.log(probabilities) + 3.0)  # a constant changes no probability
    scores = metrics.score_tokens(model, [[0, 1, 2, 0], [2, 2]])
    assert scores.row.tolist() == [0, 0, 0, 1]
    assert scores.position.tolist() == [1, 2, 3, 1]
    assert scores.target.tolist() == [1, 2, 0, 2]
    np.testing.assert_allclose(scores.nll, -np.log([0.2, 0.5, 0.1, 0.3]), rtol=1e-6)
    assert scores.rank.tolist() == [1, 0, 2, 1]
    by_hand = -np.log(0.2 * 0.5 * 0.1 * 0.3) / 4
    assert metrics.nll(scores).value == pytest.approx(by_hand, rel=1e-6)


def test_scores_come_row_by_row_and_in_order_of_position_whatever_the_lengths(lm):
    rows = ragged_rows()
    scores = metrics.score_tokens(lm, rows, batch_size=4)
    expected = [(i, j, token) for i, row in enumerate(rows) for j, token in enumerate(row) if j]
    assert list(zip(scores.row, scores.position, scores.target, strict=True)) == expected
    assert scores.n_rows == len(rows)


@pytest.mark.parametrize("batch_size", [2, 7, None])
def test_batch_size_never_changes_nll(lm, batch_size):
    rows = ragged_rows()
    one_by_one = metrics.score_tokens(lm, rows, batch_size=1)
    batched = metrics.score_tokens(lm, rows, batch_size)
    assert one_by_one.nll.std() > 0.5, "the model must tell tokens apart, or this shows nothing"
    np.testing.assert_allclose(batched.nll, one_by_one.nll, atol=1e-5)
    np.testing.assert_array_equal(batched.target, one_by_one.target)


def test_padding_never_changes_nll(lm):
    """A short row scored alone, and beside the longest row that fits, which pads it to 64."""
    short, long = [2, 17, 40, 3, 4, 509, 5], [2, *range(10, 69), 3, 4, 506, 5]
    alone = metrics.score_tokens(lm, [short])
    padded = metrics.score_tokens(lm, [short, long], batch_size=2)
    padded = padded.where(padded.row == 0)
    np.testing.assert_allclose(padded.nll, alone.nll, atol=1e-5)
    assert len(padded.nll) == len(short) - 1


def test_a_real_token_with_the_padding_id_is_still_scored():
    scores = metrics.score_tokens(BigramModel(np.eye(3)), [[1, 0, 2], [2, 1, 1, 1]], batch_size=2)
    assert len(scores.nll) == 5


def test_the_score_of_a_row_equals_the_loss_transformers_itself_computes(lm):
    row = ragged_rows()[0]
    input_ids = torch.tensor([row])
    with torch.no_grad():
        loss = lm(input_ids, labels=input_ids, num_items_in_batch=len(row) - 1).loss
    assert metrics.score_tokens(lm, [row]).nll.mean() == pytest.approx(float(loss), rel=1e-5)


def test_scoring_is_done_without_dropout_and_leaves_the_model_as_it_was():
    model = build_lm(ModelConfig(n_layer=2, n_head=2, n_embd=32, dropout=0.5), VOCAB).train()
    first = metrics.score_tokens(model, ragged_rows())
    assert model.training
    np.testing.assert_array_equal(first.nll, metrics.score_tokens(model, ragged_rows()).nll)


@pytest.mark.parametrize("level", [0.0, float("nan")])
def test_a_model_that_cannot_choose_has_guessed_nothing_right(level):
    model = BigramModel(np.full((8, 8), level))
    scores = metrics.score_tokens(model, [[0, 1, 2, 3]])
    assert metrics.top_k_accuracy(scores, 5).value == 0
    assert scores.rank.tolist() == [7, 7, 7]


@pytest.mark.parametrize("vocab_size", [516, 100_000])
@pytest.mark.parametrize("length", [20, 100])
def test_the_logits_of_a_batch_fit_into_64_megabytes_whatever_the_vocabulary(vocab_size, length):
    rows = [[1] * length] * 2_000
    found = metrics.batches(rows, vocab_size=vocab_size)
    assert sorted(np.concatenate(found)) == list(range(2_000))
    assert 2**23 < len(found[0]) * length * vocab_size * 4 <= 2**26
    large = metrics.batches([[1] * 1_000] * 3, vocab_size=10**6)
    assert [len(batch) for batch in large] == [1, 1, 1]


def test_scoring_goes_by_the_models_own_vocabulary(monkeypatch):
    sizes = []

    class Watched(BigramModel):
        def forward(self, input_ids, use_cache=True):
            sizes.append(len(input_ids))
            return super().forward(input_ids)

    rows = [[1, 2, 3, 4]] * 12
    monkeypatch.setattr(metrics, "LOGITS_A_BATCH", 4 * 8 * 3)  # three rows of four tokens of eight
    metrics.score_tokens(Watched(np.eye(8)), rows)
    assert sizes == [3, 3, 3, 3]


@pytest.mark.parametrize("rows", [[], [[2, 3], [2]]])
def test_nothing_to_score_is_said_in_a_sentence(lm, rows):
    with pytest.raises(DataError, match="nothing to score"):
        metrics.score_tokens(lm, rows)


def test_a_fresh_model_is_as_undecided_as_a_die_with_v_faces():
    scores = metrics.score_tokens(build_lm(TINY, VOCAB), ragged_rows(n=40))
    assert metrics.nll(scores).value == pytest.approx(np.log(len(VOCAB)), abs=0.1)


# Numbers about tokens


def test_code_class_and_structural_tokens_are_all_tokens_each_counted_once(lm):
    scores = metrics.score_tokens(lm, ragged_rows())
    parts = [scores.of_kind(KINDS, kind) for kind in (KIND_STRUCTURAL, KIND_CODE, KIND_CLASS)]
    assert sum(len(part.nll) for part in parts) == len(scores.nll)
    assert sum(part.nll.sum() for part in parts) == pytest.approx(scores.nll.sum())
    assert len(parts[2].nll) == 15  # one class a sentence
    names = {index: token for token, index in VOCAB.items()}
    assert all(class_of(names[target]) is not None for target in parts[2].target)
    assert all(names[target].startswith("<Z_") for target in parts[1].target)


def test_nll_is_weighted_by_token_not_by_row_nor_by_batch():
    scores = scores_of([1.0, 1.0, 1.0, 5.0], row=[0, 0, 0, 1])
    assert metrics.nll(scores).value == 2.0  # a mean of the rows' means would be 3


def test_perplexity_is_the_exponential_of_nll_with_its_whole_interval():
    loss = metrics.nll(scores_of(np.random.default_rng(0).gamma(2.0, 1.0, 50)))
    ppl = metrics.perplexity(loss)
    assert (ppl.value, ppl.low, ppl.high) == tuple(
        pytest.approx(np.exp(end)) for end in (loss.value, loss.low, loss.high)
    )
    assert (ppl.n, ppl.unit) == (50, "perplexity")


def test_bits_an_image_is_the_sum_over_its_tokens_in_bits():
    nats = np.log(2) * np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.bits_per_image(scores_of(nats, row=[0, 0, 0, 1])).value == pytest.approx(5.0)


def test_bits_an_image_takes_two_sentences_of_one_picture_for_one_unit():
    bits = np.random.default_rng(0).gamma(9.0, 1.0, 40).repeat(2)
    scores = scores_of(bits * np.log(2))
    by_row = metrics.bits_per_image(scores)
    by_image = metrics.bits_per_image(scores, images=np.arange(80) // 2)
    assert by_image.value == pytest.approx(by_row.value)
    assert (by_row.n, by_image.n) == (80, 40)
    assert by_image.high - by_image.low > 1.2 * (by_row.high - by_row.low)


def test_top_k_counts_the_tokens_among_the_k_likeliest():
    descending = np.tile(-np.arange(10.0), (10, 1))  # whatever came before: 0, then 1, then 2 …
    scores = metrics.score_tokens(BigramModel(descending), [[9, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
    assert [metrics.top_k_accuracy(scores, k).value for k in (1, 5, 9)] == pytest.approx(
        [1 / 9, 5 / 9, 1.0]
    )


def test_measure_tokens_holds_every_group_with_its_own_count(lm):
    scores = metrics.score_tokens(lm, ragged_rows())
    measured = metrics.measure_tokens(scores, KINDS, images=np.arange(15) // 2)
    assert set(measured) == {"code", "class", "structural", "all"}
    counted = sum(measured[name]["tokens"] for name in ("code", "class", "structural"))
    assert counted == measured["all"]["tokens"] == len(scores.nll)
    assert measured["class"]["tokens"] == 15
    assert measured["code"]["nll"]["value"] == pytest.approx(
        scores.nll[KINDS[scores.target] == KIND_CODE].mean()
    )
    assert measured["code"]["nll"]["n"] == measured["code"]["bits_per_image"]["n"] == 8


def test_measure_tokens_says_when_there_is_no_picture_to_measure():
    structural = scores_of([1.0, 2.0], target=np.array([VOCAB["</IMG>"], VOCAB["<EOS>"]]))
    with pytest.raises(DataError, match="no code tokens"):
        metrics.measure_tokens(structural, KINDS)


@pytest.mark.parametrize("measure", [metrics.nll, metrics.bits_per_image])
def test_the_mean_of_no_tokens_is_refused(measure):
    with pytest.raises(DataError, match="no tokens of this kind"):
        measure(scores_of([]))


# Intervals


def test_the_bootstrap_interval_holds_the_value_and_shrinks_with_n():
    values = np.random.default_rng(0).normal(3.0, 1.0, 900)
    few, many = metrics.nll(scores_of(values[:100])), metrics.nll(scores_of(values))
    assert few.low < few.value < few.high and many.low < many.value < many.high
    width = (few.high - few.low) / (many.high - many.low)
    assert width == pytest.approx(3.0, rel=0.2)  # sqrt(900 / 100)
    # 1.96 standard errors either way, for values this near to normal
    assert many.high - many.low == pytest.approx(2 * 1.96 / 30, rel=0.1)


def test_two_rows_of_one_image_are_one_unit():
    once = np.random.default_rng(0).normal(3.0, 1.0, 60)
    twice = scores_of(once.repeat(2))
    careless = metrics.nll(twice)
    honest = metrics.nll(twice, images=np.arange(120) // 2)
    assert (careless.n, honest.n) == (120, 60)
    plain = metrics.nll(scores_of(once))
    assert (honest.value, honest.low, honest.high) == (
        pytest.approx(plain.value),
        pytest.approx(plain.low),
        pytest.approx(plain.high),
    )
    assert careless.high - careless.low < 0.8 * (honest.high - honest.low)


def test_pairing_two_models_gives_the_ratio_of_their_nlls_and_a_narrow_interval():
    rng = np.random.default_rng(0)
    hard = rng.gamma(4.0, 1.0, 200)  # what makes an image hard is hard for both
    ours, theirs = scores_of(hard * rng.normal(0.8, 0.02, 200)), scores_of(hard)
    found = metrics.paired_ratio(ours, theirs)
    assert found.value == pytest.approx(ours.nll.sum() / theirs.nll.sum())
    assert found.low < found.value < found.high
    alone = metrics.nll(ours)
    assert (found.high - found.low) / found.value < 0.2 * (alone.high - alone.low) / alone.value


def test_pairing_takes_two_rows_of_one_image_for_one_unit():
    rng = np.random.default_rng(0)
    hard = rng.gamma(4.0, 1.0, 60)
    easier = hard * rng.normal(0.8, 0.1, 60)
    ours, theirs = scores_of(easier.repeat(2)), scores_of(hard.repeat(2))
    careless = metrics.paired_ratio(ours, theirs)
    honest = metrics.paired_ratio(ours, theirs, images=np.arange(120) // 2)
    assert (careless.n, honest.n) == (120, 60)
    assert honest.value == pytest.approx(careless.value)
    assert careless.high - careless.low < 0.8 * (honest.high - honest.low)


def test_models_scored_on_different_tokens_are_never_paired():
    ours, theirs = scores_of([1.0, 2.0]), scores_of([1.0, 2.0], target=np.array([0, 3]))
    with pytest.raises(DataError, match="cannot be paired"):
        metrics.paired_ratio(ours, theirs)


def test_images_that_all_give_the_same_have_an_interval_of_no_width():
    found = metrics.nll(scores_of([2.0] * 20))
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_wilsons_interval_equals_his_formula():
    hits, n, z = 354, 360, 1.959963984540054
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    found = metrics.proportion(np.arange(n) < hits)
    assert (found.value, found.n) == (pytest.approx(share), n)
    assert (found.low, found.high) == (
        pytest.approx(middle - half, abs=1e-9),
        pytest.approx(middle + half, abs=1e-9),
    )
    assert (round(found.low, 4), round(found.high, 4)) == (0.9641, 0.9923)


def test_wilsons_interval_has_width_even_when_nothing_went_wrong():
    found = metrics.proportion(np.ones(50, dtype=bool))
    assert found.value == 1.0 and found.low == pytest.approx(50 / (50 + 1.959964**2), abs=1e-6)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(DataError, match="share of nothing"):
        metrics.proportion(np.array([], dtype=bool))
