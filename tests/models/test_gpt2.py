"""A small GPT-2 as it should be: of the right size, seeded, undecided at first, and reloadable."""

import json
import math
import pickle
import shutil
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel

from seqlm.config import ModelConfig
from seqlm.data.tokens import default_vocab, draw_layout, read_layout
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.metrics import nll
from seqlm.evaluation.scores import score_tokens
from seqlm.models.gpt2 import (
    SHORT_ROW,
    build_classifier,
    build_lm,
    check_length,
    classifier_from_lm,
    count_parameters,
    fit_attention,
    gpt2_config,
    load_classifier,
    load_lm,
)


def rows_of(vocab, n=20, seed=0):
    codes = np.random.default_rng(seed).integers(0, 50, (n, 16))
    sentences = [
        (read_layout if i % 2 else draw_layout)(row, i % 10) for i, row in enumerate(codes)
    ]
    return [[vocab[token] for token in tokens] for tokens in sentences]


def same_weights(a, b) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


@pytest.fixture
def lm(tiny, vocab):
    return build_lm(tiny, vocab, seed=1).eval()


@pytest.fixture
def saved_lm(lm, tmp_path):
    lm.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


# ---------------------------------------------------------------- size


def weights_of_gpt2(vocab_size, n_positions, n_layer, n_embd) -> int:
    embeddings = (vocab_size + n_positions) * n_embd  # the output layer shares the first
    attention = n_embd * 3 * n_embd + 3 * n_embd + n_embd * n_embd + n_embd
    mlp = n_embd * 4 * n_embd + 4 * n_embd + 4 * n_embd * n_embd + n_embd
    norms = 2 * 2 * n_embd
    return embeddings + n_layer * (attention + mlp + norms) + 2 * n_embd


@pytest.mark.parametrize(
    "size",
    [
        ModelConfig(),
        ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64),
        ModelConfig(n_layer=1, n_head=4, n_embd=64, n_positions=100),
    ],
)
def test_the_number_of_weights_is_gpt2s(size):
    model = build_lm(size, default_vocab())
    wanted = weights_of_gpt2(516, size.n_positions, size.n_layer, size.n_embd)
    assert count_parameters(model) == wanted
    model.transformer.wpe.weight.requires_grad = False
    assert count_parameters(model) == wanted - size.n_positions * size.n_embd


def test_a_classifier_has_one_more_layer_without_bias(tiny, vocab):
    body = count_parameters(build_lm(tiny, vocab))  # its output layer is its input layer
    assert count_parameters(build_classifier(tiny, vocab, n_classes=7)) == body + 7 * 32


def test_the_settings_reach_gpt2_under_its_own_names(vocab):
    size = ModelConfig(n_layer=3, n_head=2, n_embd=8, n_positions=99, dropout=0.3, attn_pdrop=0.2)
    config = gpt2_config(size, vocab)
    assert (config.n_layer, config.n_head, config.n_embd, config.n_positions) == (3, 2, 8, 99)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.3, 0.3, 0.2)
    assert config.vocab_size == 66
    ids = (config.pad_token_id, config.bos_token_id, config.eos_token_id)
    assert ids == (vocab["<PAD>"], vocab["<IMG>"], vocab["<EOS>"])


# What finished runs were made with, and are recognised by.
BY_DEFAULT = {
    "transformers_version": "*",
    "architectures": None,
    "output_hidden_states": False,
    "return_dict": True,
    "dtype": None,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "problem_type": None,
    "vocab_size": 516,
    "n_positions": 1024,
    "n_embd": 384,
    "n_layer": 6,
    "n_head": 8,
    "n_inner": None,
    "activation_function": "gelu_pytorch_tanh",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.0,
    "layer_norm_epsilon": 1e-05,
    "initializer_range": 0.02,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "summary_activation": None,
    "summary_proj_to_labels": True,
    "summary_first_dropout": 0.1,
    "scale_attn_weights": True,
    "use_cache": True,
    "bos_token_id": 2,
    "eos_token_id": 5,
    "pad_token_id": 0,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "_name_or_path": "",
    "model_type": "gpt2",
    "output_attentions": False,
}

# Fields of GPT2Config that nobody sets, and why.
NOT_FOR_SETTING = {
    "vocab_size": "as many as vocab.json holds",
    "bos_token_id": "vocab.json says where <IMG> is",
    "eos_token_id": "vocab.json says where <EOS> is",
    "pad_token_id": "vocab.json says where <PAD> is",
    "use_cache": "the Trainer turns it off, whoever generates turns it on",
    "add_cross_attention": "there is no encoder to attend to",
    **dict.fromkeys(
        (
            f"summary_{name}"
            for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout")
        ),
        "for GPT2DoubleHeadsModel, which seqlm does not train",
    ),
}


def test_by_default_gpt2s_configuration_is_what_it_always_was():
    found = gpt2_config(ModelConfig(), default_vocab()).to_dict()
    assert found | {"transformers_version": "*"} == BY_DEFAULT


def test_every_field_of_gpt2s_configuration_can_be_set_or_has_a_reason_not_to_be():
    own = set(GPT2Config.__annotations__)
    settable = {field.name for field in fields(ModelConfig)} - {"size", "dropout"}
    assert {"n_layer", "n_inner", "tie_word_embeddings"} <= own
    assert own == settable | NOT_FOR_SETTING.keys()
    assert not settable & NOT_FOR_SETTING.keys()


OTHERWISE = {
    "resid_pdrop": 0.3,
    "embd_pdrop": 0.4,
    "n_inner": 24,
    "activation_function": "relu",
    "layer_norm_epsilon": 1e-3,
    "initializer_range": 0.1,
    "scale_attn_weights": False,
    "scale_attn_by_inverse_layer_idx": True,
    "reorder_and_upcast_attn": True,
    "tie_word_embeddings": False,
}


def test_every_setting_reaches_gpt2_and_nothing_else_changes(vocab):
    optional = {name for name, value in asdict(ModelConfig()).items() if value is None}
    assert optional == OTHERWISE.keys() | {"size"}
    default = gpt2_config(ModelConfig(), vocab).to_dict()
    for name, value in OTHERWISE.items():
        changed = gpt2_config(ModelConfig(**{name: value}), vocab).to_dict()
        assert value != default[name] and changed == default | {name: value}, name


def test_dropout_stands_in_for_those_that_are_not_set(vocab):
    size = ModelConfig(dropout=0.3, embd_pdrop=0.0)
    config = gpt2_config(size, vocab)
    assert (config.resid_pdrop, config.embd_pdrop) == (0.3, 0.0)


def test_the_fused_kernel_computes_gpt2s_own_activation(lm):
    from transformers.activations import ACT2FN

    x = torch.linspace(-5, 5, 1001)
    assert torch.allclose(ACT2FN["gelu_new"](x), lm.transformer.h[0].mlp.act(x), atol=1e-6)


def test_input_and_output_share_one_embedding(lm, saved_lm):
    for model in (lm, load_lm(saved_lm)):
        assert model.lm_head.weight is model.transformer.wte.weight


def untied() -> ModelConfig:
    return ModelConfig(
        n_layer=2, n_head=2, n_embd=32, n_positions=64, n_inner=24, tie_word_embeddings=False
    )


def test_embeddings_that_are_not_shared_come_back_as_two(vocab, tmp_path):
    model = build_lm(untied(), vocab, seed=1).eval()
    model.save_pretrained(tmp_path)
    again = load_lm(tmp_path)
    assert again.lm_head.weight is not again.transformer.wte.weight
    assert same_weights(model, again)
    tied = gpt2_config(untied(), vocab, tie_word_embeddings=True)
    assert count_parameters(again) == count_parameters(GPT2LMHeadModel(tied)) + 66 * 32
    body = classifier_from_lm(tmp_path).transformer.state_dict()
    assert all(torch.equal(body[k], v) for k, v in model.transformer.state_dict().items())


def test_an_output_layer_of_its_own_that_is_missing_is_not_made_up(vocab, tmp_path):
    model = build_lm(untied(), vocab)
    model.save_pretrained(tmp_path)
    weights = model.state_dict()
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="1 weights are missing, lm_head.weight") as caught:
        load_lm(tmp_path)
    one_sentence(caught, tmp_path)


# ---------------------------------------------------------------- seeds and first losses


@pytest.mark.parametrize("build", [build_lm, build_classifier])
def test_the_same_seed_gives_the_same_weights(tiny, vocab, build):
    first = build(tiny, vocab, seed=5)
    torch.manual_seed(99)  # what happened before must not matter
    torch.rand(3)
    assert same_weights(first, build(tiny, vocab, seed=5))
    assert not same_weights(first, build(tiny, vocab, seed=6))


@pytest.mark.parametrize("build", [build_lm, build_classifier])
def test_building_a_model_does_not_change_torchs_random_numbers(tiny, vocab, build):
    torch.manual_seed(3)
    undisturbed = torch.rand(4)
    torch.manual_seed(3)
    build(tiny, vocab, seed=5)
    assert torch.equal(torch.rand(4), undisturbed)


@pytest.mark.parametrize("size", [ModelConfig(), ModelConfig(n_layer=2, n_head=2, n_embd=32)])
def test_before_training_the_loss_is_that_of_uniform_guessing(size):
    vocab = default_vocab()
    model = build_lm(size, vocab)
    loss = nll(score_tokens(model, rows_of(vocab))).value
    assert abs(loss - math.log(516)) < 0.2


def test_before_training_a_classifier_guesses_too(tiny, vocab):
    model = build_classifier(tiny, vocab).eval()
    labels = torch.arange(20) % 10
    with torch.no_grad():
        loss = model(torch.tensor(rows_of(vocab)), labels=labels).loss.item()
    assert abs(loss - math.log(10)) < 0.2


def test_the_loss_counts_the_tokens_that_are_predicted(lm, vocab):
    rows = [row[:length] for row, length in zip(rows_of(vocab), range(5, 21), strict=False)]
    longest = max(map(len, rows))
    input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    with torch.no_grad():
        loss = lm(input_ids, labels=labels).loss.item()
    assert loss == pytest.approx(nll(score_tokens(lm, rows)).value, abs=1e-5)


# ---------------------------------------------------------------- a classifier reads the last token


def test_a_classifier_reads_the_class_at_the_last_real_token(tiny, vocab):
    model = build_classifier(tiny, vocab).eval()
    short, long = rows_of(vocab)[1][:7], rows_of(vocab)[0]
    padded = torch.tensor([short + [vocab["<PAD>"]] * (len(long) - len(short)), long])
    with torch.no_grad():
        together = model(padded).logits
        alone = model(torch.tensor([short])).logits
        hidden = model.transformer(torch.tensor([short])).last_hidden_state[0, -1]
        by_hand = model.score(hidden)
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert torch.allclose(by_hand, alone[0], atol=1e-5)


def test_a_classifier_started_from_a_language_model_has_its_body(lm, saved_lm):
    classifier = classifier_from_lm(saved_lm, n_classes=7)
    body, theirs = classifier.transformer.state_dict(), lm.transformer.state_dict()
    assert body.keys() == theirs.keys()
    assert all(torch.equal(body[name], theirs[name]) for name in body)
    assert classifier.score.weight.shape == (7, 32)
    assert classifier.config.num_labels == 7


def test_the_new_last_layer_is_seeded(saved_lm):
    once, again, other = (classifier_from_lm(saved_lm, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(once.score.weight, again.score.weight)
    assert not torch.equal(once.score.weight, other.score.weight)
    assert 0.005 < once.score.weight.std() < 0.05  # GPT-2's own 0.02


def test_a_classifier_may_have_a_dropout_of_its_own(saved_lm):
    kept, changed = classifier_from_lm(saved_lm), classifier_from_lm(saved_lm, dropout=0.4)
    assert (kept.config.resid_pdrop, kept.config.embd_pdrop) == (0.1, 0.1)
    assert (changed.config.resid_pdrop, changed.config.embd_pdrop) == (0.4, 0.4)
    assert changed.transformer.drop.p == changed.transformer.h[0].mlp.dropout.p == 0.4


# ---------------------------------------------------------------- loading


def test_a_saved_model_comes_back_ready_to_evaluate(lm, saved_lm, tiny, vocab, tmp_path):
    loaded = load_lm(saved_lm)
    assert same_weights(loaded, lm) and not loaded.training
    assert loaded.loss_type == "ForCausalLM"  # so that training on it counts correctly too
    classifier = build_classifier(tiny, vocab)
    classifier.save_pretrained(tmp_path / "classifier")
    again = load_classifier(tmp_path / "classifier")
    assert same_weights(again, classifier) and not again.training


def test_transformers_loads_it_without_us(lm, saved_lm, vocab):
    theirs = GPT2LMHeadModel.from_pretrained(saved_lm).eval()
    rows = torch.tensor(rows_of(vocab))
    with torch.no_grad():
        assert torch.equal(theirs(rows).logits, lm(rows).logits)


def one_sentence(caught, directory) -> str:
    message = str(caught.value)
    assert str(directory) in message and "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("load", [load_lm, load_classifier, classifier_from_lm])
def test_a_directory_without_a_model_is_named(load, tmp_path):
    with pytest.raises(DataError, match="no model here.*makes one") as caught:
        load(tmp_path / "nowhere")
    one_sentence(caught, tmp_path / "nowhere")


@pytest.mark.parametrize("load", [load_lm, load_classifier, classifier_from_lm])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_model_with_a_file_missing_is_named_and_the_file_too(load, name, saved_lm):
    (saved_lm / name).unlink()
    with pytest.raises(DataError, match=f"{name} missing") as caught:
        load(saved_lm)
    one_sentence(caught, saved_lm)


def test_a_classifier_is_no_language_model_nor_the_other_way_round(saved_lm, tiny, vocab, tmp_path):
    build_classifier(tiny, vocab).save_pretrained(tmp_path / "classifier")
    with pytest.raises(DataError, match="not a language model") as caught:
        load_lm(tmp_path / "classifier")
    one_sentence(caught, tmp_path / "classifier")
    with pytest.raises(DataError, match="not a classifier") as caught:
        load_classifier(saved_lm)
    one_sentence(caught, saved_lm)


@pytest.mark.parametrize("load", [load_lm, classifier_from_lm])
@pytest.mark.parametrize("text", ["{", "", "[]", "3", '{"n_layer": "two"}'])
def test_a_damaged_configuration_is_reported_in_one_sentence(load, text, saved_lm):
    (saved_lm / "config.json").write_text(text)
    with pytest.raises(DataError) as caught:
        load(saved_lm)
    one_sentence(caught, saved_lm)


@pytest.mark.parametrize("load", [load_lm, classifier_from_lm])
@pytest.mark.parametrize("damage", ["cut short", "empty", "text"])
def test_damaged_weights_are_reported_in_one_sentence(load, damage, saved_lm):
    weights = saved_lm / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes({"cut short": whole[:-100], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(DataError, match="weights") as caught:
        load(saved_lm)
    one_sentence(caught, saved_lm)


@pytest.mark.parametrize("load", [load_lm, classifier_from_lm])
def test_weights_that_do_not_fit_the_configuration_are_reported_in_one_sentence(load, saved_lm):
    config = GPT2Config.from_pretrained(saved_lm)
    config.n_embd = 64
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(saved_lm)
    with pytest.raises(DataError, match="weights") as caught:
        load(saved_lm)
    one_sentence(caught, saved_lm)


@pytest.mark.parametrize("load", [load_lm, classifier_from_lm])
def test_weights_that_are_missing_are_not_made_up(load, lm, saved_lm):
    weights = lm.state_dict()
    del weights["transformer.h.1.mlp.c_fc.weight"], weights["lm_head.weight"]
    save_file(weights, saved_lm / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="1 weights are missing, .*c_fc.weight") as caught:
        load(saved_lm)
    one_sentence(caught, saved_lm)


# ---------------------------------------------------------------- rows and kernels


def test_rows_longer_than_the_model_are_refused(lm):
    check_length(lm, 64)
    with pytest.raises(ConfigError, match="^max_length: rows of 65 .*n_positions = 64"):
        check_length(lm, 65)


def test_the_attention_kernel_changes_the_speed_not_the_answers(lm, vocab):
    rows = torch.tensor(rows_of(vocab))
    answers = {}
    for longest in (SHORT_ROW, SHORT_ROW + 1):
        fit_attention(lm, longest)
        with torch.no_grad():
            answers[lm.config._attn_implementation] = lm(rows).logits
    assert answers.keys() == {"eager", "sdpa"}
    assert torch.allclose(answers["eager"], answers["sdpa"], atol=1e-5)


class Planted:
    """Unpickled, it writes a file: what a hostile model directory could do, and worse."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (type(self.proof).touch, (self.proof,))


PICKLES = ["training_args.bin", "pytorch_model.bin", "optimizer.pt", "adapter_model.bin"]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("load", [load_lm, load_classifier])
def test_planted_pickles_and_code_beside_a_model_are_never_run(load, alone, saved_lm, tmp_path):
    directory, proof = tmp_path / "planted", tmp_path / "ran"
    shutil.copytree(saved_lm, directory)
    for name in PICKLES:
        (directory / name).write_bytes(pickle.dumps(Planted(proof)))
    (directory / "modeling.py").write_text(f"open({str(proof)!r}, 'w')")
    config = json.loads((directory / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Model", "AutoConfig": "modeling.Config"}
    (directory / "config.json").write_text(json.dumps(config))
    if alone:  # nothing but pickles to read
        (directory / "model.safetensors").unlink()
    if alone or load is load_classifier:
        with pytest.raises(DataError) as caught:
            load(directory)
        assert str(caught.value).startswith(str(directory))
    else:
        load(directory)
    assert not proof.exists()
    pickle.loads((directory / PICKLES[0]).read_bytes())
    assert proof.exists(), "the pickle would have run"
