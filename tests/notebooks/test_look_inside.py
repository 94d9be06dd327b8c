"""Each intervention of the notebook changes what it says, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from samples import cells_of

from seqlm.config import ModelConfig
from seqlm.data.tokenizer import encode_tokens
from seqlm.data.tokens import CLS, code_token, default_vocab, read_layout, token_kinds
from seqlm.models.gpt2 import build_lm
from seqlm.models.tracing import attention_weights

SIZE = ModelConfig(n_layer=2, n_head=2, n_embd=16, n_positions=32, dropout=0.0)
VOCAB = default_vocab(20)
RNG = np.random.default_rng(3)
N, SIDE = 40, 4  # enough tokens for the fast copy of a model
P = SIDE * SIDE


@pytest.fixture
def names():
    """The notebook's functions and its earlier variables, about a small model of random weights."""
    model = build_lm(SIZE, VOCAB).eval()
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.data += 0.3 * torch.randn_like(weight)  # so that every part matters
    codes = RNG.integers(0, 20, (N, P))
    rows = [encode_tokens(read_layout(row, row[0] % 10), VOCAB) for row in codes]
    down, across = np.divmod(np.arange(P), SIDE)
    known = {
        "np": np, "torch": torch, "model": model, "body": model.transformer,
        "blocks": model.transformer.h, "n_layer": 2, "n_head": 2, "n_embd": 16,
        "rows": {"train": rows, "val": rows, "test": rows}, "length": len(rows[0]),
        "at_cls": rows[0].index(VOCAB[CLS]), "P": P, "n_rows": SIDE, "n_columns": SIDE,
        "corpus": SimpleNamespace(
            vocab=VOCAB, kinds=token_kinds(VOCAB), sources=lambda split, layout: np.arange(N)
        ),
        "up": down[:, None] - down, "left": across[:, None] - across,
        "places": model.transformer.wpe.weight.detach()[1 : 1 + P], "prompts": torch.tensor(rows),
        "code_ids": torch.tensor([VOCAB[code_token(k)] for k in range(20)]),
    }  # fmt: skip
    cells = ("score", "effect", "skip", "positions", "codes", "places", "hide", "means", "heads")
    return cells_of("look_inside", [f"look-{cell}" for cell in cells], **known)


def losses(names, *hooks) -> dict[str, np.ndarray]:
    return {kind: scores.nll for kind, scores in names["score"]("val", *hooks).items()}


def same(names, changed) -> dict[str, bool]:
    intact = names["intact"]["val"]
    return {kind: np.allclose(changed[kind], intact[kind].nll, atol=1e-4) for kind in changed}


def test_hooks_are_removed_also_when_the_model_fails(names):
    def stop(*args):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        names["score"]("val", names["blocks"][0].register_forward_hook(stop))
    assert same(names, losses(names)) == {"code": True, "class": True}


def test_without_any_block_the_class_is_predicted_from_the_embedding(names):
    body, at = names["body"], names["at_cls"]
    changed = losses(names, *(names["skip"](layer, at) for layer in range(2)))
    with torch.no_grad():
        stream = body.wte.weight[VOCAB[CLS]] + body.wpe.weight[at]
        log_p = names["model"].lm_head(body.ln_f(stream)).log_softmax(-1)
    want = [-log_p[row[at + 1]].item() for row in names["rows"]["val"]]
    assert changed["class"] == pytest.approx(want, abs=1e-4)
    assert same(names, changed) == {"code": True, "class": False}, "codes come before <CLS>"


def test_to_exchange_two_places_matters_unless_their_vectors_are_equal(names):
    assert not same(names, losses(names, names["exchange"](2, 9)))["code"]
    names["body"].wpe.weight.data[1 + 2] = names["body"].wpe.weight.data[1 + 9]
    names["intact"]["val"] = names["score"]("val")
    assert same(names, losses(names, names["exchange"](2, 9)))["code"]
    assert not same(names, losses(names, names["exchange"](2, 10)))["code"]


def test_one_vector_for_all_patches_and_only_for_them(names):
    weight = names["body"].wpe.weight.data
    changed = losses(names, names["one_vector"]())
    weight[1 : 1 + P] = names["places"].mean(0)
    names["intact"]["val"] = names["score"]("val")
    assert same(names, changed) == {"code": True, "class": True}


def test_codes_read_as_themselves_change_nothing_and_structure_is_never_exchanged(names):
    itself = np.arange(20)
    assert same(names, losses(names, names["read_codes_as"](itself)))["code"]
    assert not same(names, losses(names, names["read_codes_as"](np.roll(itself, 1))))["code"]
    same_class = [row for row in names["rows"]["val"] if row[-2] == VOCAB["<CLS_3>"]]
    names["rows"]["val"] = same_class
    assert np.ptp(losses(names, names["read_codes_as"](0 * itself))["class"]) < 1e-4
    assert np.ptp(losses(names)["class"]) > 0.01


def test_places_cover_what_a_code_may_see_exactly_once(names):
    seen = np.zeros((names["length"], names["length"]), dtype=int)
    for place in names["reached"]:
        seen[names["of_place"](*place)] += 1
    want = np.zeros_like(seen)
    want[1 : 1 + P, 1 : 1 + P] = np.tri(P, dtype=int)
    assert np.array_equal(seen, want)
    looking, above = names["of_place"](1, 0)
    assert (looking - above == SIDE).all() and len(looking) == P - SIDE


def test_a_hidden_place_gets_no_attention_and_its_share_goes_to_others(names):
    looking, seen = names["of_place"](1, 0)
    hooks = names["hide"](looking, seen)
    weights = attention_weights(names["model"], names["rows"]["val"][0])
    for hook in hooks:
        hook.remove()
    assert not weights[..., looking, seen].any() and not np.triu(weights, 1).any()
    assert np.allclose(weights.sum(-1), 1, atol=1e-5)
    assert not same(names, losses(names, *names["hide"](looking, seen)))["code"]
    nothing = np.array([], dtype=int)
    assert same(names, losses(names, *names["hide"](nothing, nothing)))["code"]


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_all_heads_replaced_are_an_attention_of_the_same_result_for_every_image(names, factor):
    block = names["blocks"][1]
    constant = block.attn.c_proj(factor * names["means"][1])  # (T, C)

    def replaced(attention, inputs, output):
        return constant.expand_as(output[0]), output[1]

    changed = losses(names, names["replace_heads"](1, range(2), factor))
    names["intact"]["val"] = names["score"]("val", block.attn.register_forward_hook(replaced))
    assert same(names, changed) == {"code": True, "class": True}


def test_one_head_replaced_leaves_the_other_as_it_was(names):
    mixed = torch.randn(3, names["length"], 16)
    seen = []
    c_proj = names["blocks"][0].attn.c_proj
    hooks = [names["replace_heads"](0, [1]), c_proj.register_forward_hook(
        lambda layer, inputs, output: seen.append(inputs[0]))]  # fmt: skip
    c_proj(mixed)
    for hook in hooks:
        hook.remove()
    assert torch.equal(seen[0][..., :8], mixed[..., :8])
    assert torch.equal(seen[0][..., 8:], names["means"][0][:, 8:].expand(3, -1, -1))
    assert not same(names, losses(names, names["replace_heads"](0, [1])))["code"]


def test_an_mlp_replaced_gives_its_mean_and_every_part_is_measured(names):
    names = cells_of("look_inside", ["look-mlp", "look-scan"], **names)
    mlp = names["blocks"][1].mlp
    hook = names["replace_mlp"](1)
    result = mlp(torch.randn(2, names["length"], 16))
    hook.remove()
    assert torch.equal(result, names["means"]["mlp", 1].expand(2, -1, -1))
    parts = [0, 1, names["EVERY"], names["MLP"]]
    assert [*names["scan"]] == [(layer, part) for layer in range(2) for part in parts]
    assert all(e["code"].value and e["code"].n == N for e in names["scan"].values())
