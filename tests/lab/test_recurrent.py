"""LSTM and attention-free model: what they compute, that they see no future, and learn."""

import math

import numpy as np
import pytest
import torch
from samples import sharpened
from torch.nn.functional import cross_entropy, gelu, layer_norm

from seqlm.config import DataFiles, ModelConfig, TrainConfig
from seqlm.data.build import SEQUENCES
from seqlm.data.build import VOCAB as VOCAB_FILE
from seqlm.data.corpus import load_corpus
from seqlm.data.tokenizer import build_tokenizer
from seqlm.data.tokens import default_vocab, read_layout
from seqlm.errors import ConfigError
from seqlm.evaluation.scores import score_tokens
from seqlm.lab.recurrent import LSTMLanguageModel, MeanLanguageModel
from seqlm.models.gpt2 import build_lm, check_length, count_parameters, fit_attention
from seqlm.training.batches import Rows
from seqlm.training.tasks import train_lm
from seqlm.training.timing import has_native_bf16
from seqlm.training.train import train_model
from seqlm.training.trainer import ValidationMetric

VOCAB = default_vocab(12, 3)
SIZE = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64, dropout=0.0)
BUILDERS = pytest.mark.parametrize("build", [LSTMLanguageModel.new, MeanLanguageModel.new])


def rows_of_many_lengths(n=24, seed=0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, n)
    lengths[:2] = 1, 11
    return [
        [VOCAB[token] for token in read_layout(rng.integers(0, 12, length), i % 3)]
        for i, length in enumerate(lengths)
    ]


def torch_logits(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor(ids)).logits


def learn(directory, model, rows, **settings) -> dict:
    usual = {"evals": 1, "patience": 0, "precision": "fp32"}
    config = TrainConfig(output_dir=directory, **{**usual, **settings})

    def measure(model):
        return {"code_nll": float(score_tokens(model, rows).nll.mean())}

    tokenizer = build_tokenizer(VOCAB)
    metric = ValidationMetric("code_nll", measure, rows)
    return train_model(model, tokenizer, Rows(rows), metric, config, lambda line: None)


# ---------------------------------------------------------------- what they compute


def test_the_lstm_follows_the_textbook_equations():
    model = sharpened(LSTMLanguageModel.new(SIZE, VOCAB, seed=1))
    weights = model.state_dict()
    ids = [2, 7, 6, 7, 3]
    h = c = torch.zeros(32)
    by_hand = []
    for token in ids:
        seen = weights["lstm.weight_ih_l0"] @ weights["wte.weight"][token]
        carried = weights["lstm.weight_hh_l0"] @ h
        bias = weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]
        i, f, g, o = (seen + carried + bias).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        by_hand.append(weights["wte.weight"] @ h)
    torch.testing.assert_close(torch_logits(model, [ids])[0], torch.stack(by_hand))


def test_an_untrained_lstm_forgets_little():
    """Its forget gates start open: sigmoid(1) = 0.73, and not a half."""
    model = LSTMLanguageModel.new(SIZE, VOCAB)
    bias = (model.lstm.bias_ih_l0 + model.lstm.bias_hh_l0).detach()
    assert bias.chunk(4)[1].eq(1).all()
    assert all(bias.chunk(4)[gate].eq(0).all() for gate in (0, 2, 3))


def test_the_attention_free_model_sees_the_plain_mean_of_all_so_far():
    model = sharpened(MeanLanguageModel.new(SIZE, VOCAB, seed=1))
    weights = model.state_dict()
    ids = [2, 7, 6, 7, 3]
    x = weights["wte.weight"][ids] + weights["wpe.weight"][:5]
    by_hand = []
    for t in range(5):
        h = x[t] + sum(x[s] for s in range(t + 1)) / (t + 1)
        inner = layer_norm(h, (32,), weights["norm_mlp.weight"], weights["norm_mlp.bias"])
        inner = gelu(weights["mlp.0.weight"] @ inner + weights["mlp.0.bias"], approximate="tanh")
        h = h + weights["mlp.2.weight"] @ inner + weights["mlp.2.bias"]
        out = layer_norm(h, (32,), weights["norm_out.weight"], weights["norm_out.bias"])
        by_hand.append(weights["wte.weight"] @ out)
    torch.testing.assert_close(torch_logits(model, [ids])[0], torch.stack(by_hand))


@pytest.mark.parametrize("width", [16, 384])
def test_they_are_as_wide_as_the_gpt_and_of_the_documented_size(width):
    size = ModelConfig(n_layer=1, n_head=2, n_embd=width, n_positions=100)
    vocab, d = default_vocab(), width
    assert count_parameters(LSTMLanguageModel.new(size, vocab)) == 516 * d + 8 * d * d + 8 * d
    wanted = (516 + 100) * d + 8 * d * d + 5 * d + 4 * d  # tables, MLP, its biases, two norms
    assert count_parameters(MeanLanguageModel.new(size, vocab)) == wanted


@BUILDERS
def test_the_same_seed_gives_the_same_weights_and_does_not_change_torchs_random_numbers(build):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build(SIZE, VOCAB, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    first = [model.wte.weight for model in (one, same, other)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


# ---------------------------------------------------------------- ignorance, causality, padding


@BUILDERS
@pytest.mark.parametrize("width", [32, 384])
def test_they_start_with_uniform_predictions(build, width):
    vocab = default_vocab()
    size = ModelConfig(n_layer=1, n_head=2, n_embd=width, n_positions=32)
    rows = np.random.default_rng(0).integers(6, 506, (40, 21)).tolist()
    found = score_tokens(build(size, vocab), rows).nll.mean()
    assert found == pytest.approx(math.log(len(vocab)), abs=0.5)


@BUILDERS
def test_a_later_token_changes_no_earlier_logits(build):
    model = sharpened(build(SIZE, VOCAB))
    row = rows_of_many_lengths()[1]
    before = torch_logits(model, [row])[0]
    for place in range(1, len(row)):
        changed = [*row]
        changed[place] = 7 if row[place] != 7 else 8
        after = torch_logits(model, [changed])[0]
        torch.testing.assert_close(after[:place], before[:place])
        assert (after[place] - before[place]).abs().max() > 1e-3


@BUILDERS
def test_scores_do_not_depend_on_batch_or_padding(build):
    model, rows = sharpened(build(SIZE, VOCAB)), rows_of_many_lengths()
    together = score_tokens(model, rows).nll
    assert together.std() > 0.1, "all alike, padding could hide"
    np.testing.assert_allclose(score_tokens(model, rows, batch_size=1).nll, together, atol=1e-5)
    np.testing.assert_allclose(score_tokens(model, rows, batch_size=5).nll, together, atol=1e-5)


@BUILDERS
def test_choosing_an_attention_kernel_and_a_cache_change_nothing(build):
    model, ids = sharpened(build(SIZE, VOCAB)), torch.tensor(rows_of_many_lengths()[:1])
    before = torch_logits(model, ids.tolist())
    fit_attention(model, 12)
    fit_attention(model, 500)
    with torch.no_grad():
        for use_cache in (True, False):
            torch.testing.assert_close(model(ids, use_cache=use_cache).logits, before)


@BUILDERS
def test_rows_beyond_n_positions_are_refused_as_for_the_gpt(build):
    with pytest.raises(ConfigError, match="65 tokens do not fit n_positions = 64"):
        check_length(build(SIZE, VOCAB), 65)


# ---------------------------------------------------------------- loss


@BUILDERS
def test_the_loss_shifts_the_labels_and_leaves_out_minus_100(build):
    model = sharpened(build(SIZE, VOCAB))
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 6, 3, 0, 0]])
    labels = ids.clone()
    labels[1, 3:] = -100
    logits = torch_logits(model, ids.tolist())
    predicted = [(0, t) for t in range(1, 5)] + [(1, 1), (1, 2)]
    by_hand = [-logits[b, t - 1].log_softmax(-1)[ids[b, t]] for b, t in predicted]
    expected = torch.stack(by_hand)
    assert model(ids, labels=labels).loss.item() == pytest.approx(expected.mean().item(), rel=1e-5)
    of_twelve = model(ids, labels=labels, num_items_in_batch=12).loss.item()
    assert of_twelve == pytest.approx(expected.sum().item() / 12, rel=1e-5)


@BUILDERS
def test_the_loss_is_the_one_the_gpt_trains_on(build):
    """On the same logits; so a difference in NLL is none in what was asked for."""
    model, gpt = build(SIZE, VOCAB), build_lm(SIZE, VOCAB)
    logits, labels = torch.randn(2, 5, len(VOCAB)), torch.randint(0, 9, (2, 5))
    ours, theirs = (
        m.loss_function(logits, labels, len(VOCAB), num_items_in_batch=7) for m in (model, gpt)
    )
    assert model.loss_function is gpt.loss_function and torch.equal(ours, theirs)


@BUILDERS
@pytest.mark.parametrize("batch_size", [24, 4])
def test_accumulated_gradients_are_those_of_the_mean_over_all_tokens(build, batch_size, tmp_path):
    """Rows are of many lengths, so a mean of batch means would be another number."""
    rows, model = rows_of_many_lengths(), sharpened(build(SIZE, VOCAB))
    sums = []
    for row in rows:
        logits = model(torch.tensor([row])).logits[0, :-1]
        sums.append(cross_entropy(logits, torch.tensor(row[1:]), reduction="sum"))
    whole = sum(sums) / sum(len(row) - 1 for row in rows)
    whole.backward()
    norm = math.sqrt(sum(float(weight.grad.square().sum()) for weight in model.parameters()))
    model.zero_grad(set_to_none=True)
    whole = whole.item()
    of_means = np.mean([s.item() / (len(row) - 1) for s, row in zip(sums, rows, strict=True)])
    assert abs(whole - of_means) > 0.005, "the wrong mean must differ"

    settings = {"batch_size": batch_size, "grad_accumulation": 24 // batch_size, "max_steps": 1}
    record = learn(tmp_path, model, rows, learning_rate=1e-9, **settings)
    (line,) = record["history"]
    assert line["loss"] == pytest.approx(whole, abs=2e-4)
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-3)


# ---------------------------------------------------------------- training


@BUILDERS
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_they_learn_a_cycle_by_heart(build, precision, tmp_path):
    cycle = [6 + i % 5 for i in range(12)]
    rows = [[2, *cycle[start:], *cycle[:start], 3] for start in (0, 5)]  # both start alike
    settings = {"batch_size": 2, "max_steps": 120, "learning_rate": 1e-2, "precision": precision}
    if build == LSTMLanguageModel.new and precision == "bf16" and not has_native_bf16():
        with pytest.raises(ConfigError, match="cannot train a LSTMLanguageModel in bf16; use fp32"):
            learn(tmp_path, build(SIZE, VOCAB), rows, **settings)
        return
    record = learn(tmp_path, build(SIZE, VOCAB), rows, **settings)
    # Only where the cycle breaks is there something to guess.
    assert record["initial"]["code_nll"] > 2.5
    assert record["best"]["code_nll"] < 0.4
    saved = build.__self__.from_pretrained(tmp_path / "best_model")
    found = float(score_tokens(saved, rows).nll.mean())
    # Within training it was measured in the precision it is trained in.
    assert found == pytest.approx(record["best"]["code_nll"], abs=2e-3)


def test_only_the_lstm_sees_the_order_of_codes():
    """Codes and places are summed apart, so the mean is the same whichever code came first."""
    pairs = [[6, 7], [7, 6]]
    means = [
        torch_logits(sharpened(MeanLanguageModel.new(SIZE, VOCAB)), [[2, *pair, 3]])[0, 3]
        for pair in pairs
    ]
    torch.testing.assert_close(*means)
    states = [
        torch_logits(sharpened(LSTMLanguageModel.new(SIZE, VOCAB)), [[2, *pair, 3]])[0, 3]
        for pair in pairs
    ]
    assert (states[0] - states[1]).abs().max() > 1e-3


@BUILDERS
def test_what_is_saved_is_loaded_again(build, tmp_path):
    model, rows = sharpened(build(SIZE, VOCAB, seed=3)), rows_of_many_lengths()
    model.save_pretrained(tmp_path)
    loaded = build.__self__.from_pretrained(tmp_path)
    assert type(loaded) is type(model) and not loaded.training
    assert (loaded.config.vocab_size, loaded.config.n_positions) == (len(VOCAB), 64)
    assert loaded.config.pad_token_id == VOCAB["<PAD>"]
    np.testing.assert_array_equal(score_tokens(loaded, rows).nll, score_tokens(model, rows).nll)


@BUILDERS
def test_they_train_with_the_same_function_as_the_gpt(build, built, tiny, tmp_path):
    corpus = load_corpus(DataFiles(built.directory / SEQUENCES, built.directory / VOCAB_FILE))
    config = TrainConfig(
        output_dir=tmp_path, batch_size=16, max_steps=12, evals=2, learning_rate=1e-2, patience=0,
        precision="fp32",
    )  # fmt: skip
    said = []
    record = train_lm(corpus, tiny, config, said.append, build=build)
    model = build.__self__.from_pretrained(tmp_path / "best_model")
    assert record["parameters"] == count_parameters(model)
    assert not any("far off" in line for line in said)
    assert record["best"]["code_nll"] < record["initial"]["code_nll"] - 0.3
    assert {"read_nll", "draw_nll", "class_accuracy"} <= record["best"].keys()
