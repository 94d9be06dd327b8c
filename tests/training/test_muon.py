"""Muon is PyTorch's, many matrices at a time; a run with it can be killed without loss."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from training.test_train import (
    CALM,
    LIVELY,
    PAD,
    TOKENIZER,
    VAL,
    VOCAB,
    code_nll,
    equal,
    killed,
    learn,
    rows_alike,
    table,
    weights,
)

from seqlm.config import TrainConfig
from seqlm.errors import ConfigError
from seqlm.lab.recurrent import LSTMLanguageModel, MeanLanguageModel
from seqlm.models.gpt2 import build_classifier, build_lm
from seqlm.training import train as training
from seqlm.training.batches import Rows, collator
from seqlm.training.muon import (
    STEPS,
    MuonWithAdamW,
    build_optimizer,
    orthogonalize,
    parameter_groups,
)
from seqlm.training.trainer import ValidationMetric

SHAPES = [(16, 48), (48, 16), (16, 16), (16, 16), (8, 16)]


def random_matrices(shapes=SHAPES, seed=0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def steps(optimizer, parameters, n=4, seed=1) -> list[torch.Tensor]:
    """The weights after `n` steps on random gradients."""
    for step in range(n):
        gradients = random_matrices([p.shape for p in parameters], seed + step)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def ours(matrices, parts=1, dtype=torch.float32, **options):
    parameters = [nn.Parameter(matrix.clone()) for matrix in matrices]
    group = {"params": parameters, "parts": parts, "weight_decay": 0.1, **options}
    return MuonWithAdamW([group], lr=0.02, dtype=dtype), parameters


def torchs(matrices):
    parameters = [nn.Parameter(matrix.clone()) for matrix in matrices]
    settings = {"momentum": 0.95, "nesterov": True, "ns_steps": STEPS}
    settings["adjust_lr_fn"] = "match_rms_adamw"
    return torch.optim.Muon(parameters, lr=0.02, weight_decay=0.1, **settings), parameters


# ---------------------------------------------------------------- one step


def test_several_steps_are_those_of_pytorchs_muon(monkeypatch):
    matrices = random_matrices()
    # PyTorch's always computes in bf16; this lets it compute in fp32.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    expected = steps(*torchs(matrices))
    found = steps(*ours(matrices))
    for before, a, b in zip(matrices, expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
        assert (a - before).abs().max() > 0.02


def test_in_bf16_it_is_pytorchs_muon_up_to_that_precision():
    expected, found = (
        steps(*torchs(random_matrices())),
        steps(*ours(random_matrices(), dtype=torch.bfloat16)),
    )
    for a, b in zip(expected, found, strict=True):
        assert b.dtype == torch.float32
        assert torch.allclose(a, b, atol=5e-3)


def test_singular_values_are_near_one():
    matrices = (
        torch.stack(random_matrices([(16, 48)] * 3)) * torch.tensor([1e-4, 1, 1e4])[:, None, None]
    )
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.65 and values.max() < 1.25


def test_long_rows_take_another_way_to_the_same_matrix():
    matrices = torch.stack(random_matrices([(16, 48)] * 3))
    step_by_step = orthogonalize(matrices.double())  # only fp32 takes the other way
    assert not torch.equal(orthogonalize(matrices), step_by_step.float())
    assert torch.allclose(orthogonalize(matrices), step_by_step.float(), atol=1e-5)


def test_a_matrix_of_zeros_stays_one():
    assert torch.equal(orthogonalize(torch.zeros(1, 4, 8)), torch.zeros(1, 4, 8))


def test_many_matrices_at_once_are_updated_as_one_by_one():
    matrices = random_matrices()
    together = steps(*ours(matrices), seed=5)
    gradients = [random_matrices(seed=5 + step) for step in range(4)]
    for i, matrix in enumerate(matrices):
        optimizer, (parameter,) = ours([matrix])
        for step in range(4):
            parameter.grad = gradients[step][i]
            optimizer.step()
        assert torch.allclose(together[i], parameter, atol=1e-6)


def test_queries_keys_and_values_are_three_matrices():
    (whole,) = random_matrices([(16, 48)])
    (gradient,) = random_matrices([(16, 48)], seed=1)
    optimizer, (parameter,) = ours([whole], parts=3)
    parts_optimizer, parts = ours([whole[:, i : i + 16] for i in (0, 16, 32)])
    as_one, (one,) = ours([whole])
    parameter.grad, one.grad = gradient, gradient
    for i, part in enumerate(parts):
        part.grad = gradient[:, 16 * i : 16 * i + 16].contiguous()
    for each in (optimizer, parts_optimizer, as_one):
        each.step()
    assert torch.allclose(parameter, torch.cat(parts, 1), atol=1e-6)
    assert not torch.allclose(parameter, one, atol=1e-3)


# ---------------------------------------------------------------- which weight goes where


def split(model):
    """Names of Muon's weights with their number of matrices, and of AdamW's with their decay."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = parameter_groups(model, 0.3)
    listed = [names[id(weight)] for group in groups for weight in group["params"]]
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert sorted(listed) == sorted(trainable), "each in exactly one group"
    muon, adamw = {}, {}
    for group in groups:
        for weight in group["params"]:
            if group["parts"]:
                assert group["weight_decay"] == 0.3
                muon[names[id(weight)]] = group["parts"]
            else:
                assert group["weight_decay"] == (0.3 if weight.ndim > 1 else 0.0)
                adamw[names[id(weight)]] = group["weight_decay"]
    return muon, adamw


@pytest.mark.parametrize("tied", [True, False])
def test_the_matrices_of_a_language_models_blocks_go_to_muon(tied):
    model = build_lm(replace(CALM, tie_word_embeddings=tied), VOCAB)
    muon, adamw = split(model)
    assert muon == {
        f"transformer.h.{i}.{name}.weight": 3 if name == "attn.c_attn" else 1
        for i in (0, 1)
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert {"transformer.wte.weight", "transformer.wpe.weight"} <= adamw.keys()
    assert ("lm_head.weight" in adamw) is not tied


def test_a_classifiers_head_goes_to_adamw():
    muon, adamw = split(build_classifier(CALM, VOCAB, n_classes=3))
    assert len(muon) == 8 and "score.weight" in adamw


def test_models_without_attention_have_their_linear_layers_updated_by_muon_if_any():
    assert split(LSTMLanguageModel.new(CALM, VOCAB))[0] == {}
    assert split(MeanLanguageModel.new(CALM, VOCAB))[0] == {"mlp.0.weight": 1, "mlp.2.weight": 1}


def test_loras_two_factors_of_a_matrix_go_to_adamw():
    lora = pytest.importorskip("seqlm.models.lora")
    model = build_classifier(CALM, VOCAB, n_classes=3)
    muon, adamw = split(lora.add_lora(model, 2, 4.0, len(VOCAB), "somewhere", 0))
    assert muon == {} and any("lora_A" in name for name in adamw)
    assert any("score" in name for name in adamw)


def test_muon_is_refused_under_fsdp(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="^optimizer: muon needs whole matrices"):
        build_optimizer(build_lm(CALM, VOCAB), TrainConfig(optimizer="muon"))


# ---------------------------------------------------------------- in a run


@pytest.mark.parametrize("build", [build_lm, LSTMLanguageModel.new, MeanLanguageModel.new])
def test_the_loss_falls(tmp_path, build):
    record = learn(tmp_path, rows_alike(), model=build(CALM, VOCAB), optimizer="muon", evals=1)
    assert record["history"][-1]["loss"] < record["history"][0]["loss"] - 0.5
    assert record["settings"]["optimizer"] == "muon"


def test_a_resumed_run_ends_as_if_nothing_had_happened(tmp_path):
    settings = {"size": LIVELY, "optimizer": "muon"}
    whole = learn(tmp_path / "whole", rows_alike(), **settings)
    killed(tmp_path / "killed", rows_alike(), 4, **settings)
    resumed = learn(tmp_path / "killed", rows_alike(), **settings)
    assert table(resumed) == table(whole) and len(whole["history"]) == 18
    for name in ("final_model", "best_model"):
        assert equal(weights(tmp_path / "whole" / name), weights(tmp_path / "killed" / name))


def test_state_goes_through_a_state_dict_in_fp32():
    batch = collator(PAD)([{"input_ids": row} for row in rows_alike(4)])
    models = [build_lm(CALM, VOCAB) for _ in range(2)]
    optimizers = [build_optimizer(model, TrainConfig(optimizer="muon")) for model in models]

    def step(model, optimizer):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    step(models[0], optimizers[0])
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    stored = optimizers[1].state_dict()["state"].values()
    assert {tensor.dtype for state in stored for tensor in state.values()} == {torch.float32}
    assert {tuple(sorted(state)) for state in stored} == {
        ("exp_avg", "exp_avg_sq", "step"),
        ("momentum",),
    }
    for model, optimizer in zip(models, optimizers, strict=True):
        step(model, optimizer)
    assert equal(models[0].state_dict(), models[1].state_dict())


def test_another_optimizer_is_another_run():
    metric = ValidationMetric("code_nll", code_nll, VAL)

    def identity(optimizer):
        model, rows = build_lm(CALM, VOCAB), Rows(rows_alike())
        config = TrainConfig(optimizer=optimizer)
        return training.run_identity(model, TOKENIZER, rows, metric, config)

    assert identity("muon") == identity("muon") != identity("adamw")


def test_what_a_run_does_depends_on_the_text_of_muon():
    files = {path.name for path in training.utils.modules_behind("import seqlm.training.train")}
    assert "muon.py" in files


def test_warmup_stable_decay_falls_linearly_in_the_last_fifth(tmp_path):
    record = learn(
        tmp_path,
        rows_alike(),
        max_steps=20,
        warmup_ratio=0.1,
        learning_rate=0.01,
        schedule="warmup_stable_decay",
    )
    rates = [line["learning_rate"] for line in record["history"]]
    assert np.allclose(rates, [0, 0.005, *[0.01] * 14, 0.01, 0.0075, 0.005, 0.0025], atol=1e-6)
