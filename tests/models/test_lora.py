"""LoRA trains its own matrices alone, and merging them changes no answer."""

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from seqlm.evaluation.scores import score_tokens
from seqlm.models.gpt2 import build_lm, gpt2_config
from seqlm.models.resize import grow_embedding

pytest.importorskip("peft")

from seqlm.models.lora import add_lora  # noqa: E402


def test_where_the_output_layer_is_its_own_new_tokens_learn_there_too(tiny, vocab, tmp_path):
    model = GPT2LMHeadModel(gpt2_config(tiny, vocab, tie_word_embeddings=False))
    old = model.lm_head.weight.detach().clone()
    grow_embedding(model, len(vocab) + 2)
    assert torch.equal(model.lm_head.weight[: len(vocab)], old)
    assert torch.allclose(model.lm_head.weight[len(vocab) :], old.mean(0).expand(2, -1), atol=1e-6)
    under = add_lora(model, 2, 4, len(vocab), tmp_path, seed=1)
    ids = torch.tensor([[2, 7, 66, 9, 67, 3]])
    under(input_ids=ids, labels=ids).loss.backward()
    with torch.no_grad():
        for weight in under.parameters():
            if weight.grad is not None:
                weight -= weight.grad
    under.save_pretrained(tmp_path / "merged")
    plain = GPT2LMHeadModel.from_pretrained(tmp_path / "merged")
    assert torch.equal(plain.lm_head.weight[: len(vocab)], old)
    assert not torch.allclose(plain.lm_head.weight[66], plain.lm_head.weight[67])


def test_merging_changes_no_answer_and_leaves_the_model_under_lora(tiny, vocab, tmp_path):
    model = build_lm(tiny, vocab)
    base = {name: weight.clone() for name, weight in model.state_dict().items()}
    grow_embedding(model, len(vocab) + 2)
    under = add_lora(model, 4, 8, len(vocab), tmp_path, seed=1).eval()
    ids = torch.tensor([[2, 7, 66, 9, 67, 3, 4, 59, 5]])
    learning = [weight for weight in under.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, 1e-2, weight_decay=0.1)
    first = under(input_ids=ids, labels=ids).loss.item()
    for _ in range(20):
        under(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert under(input_ids=ids, labels=ids).loss.item() < first - 0.3
    under.save_pretrained(tmp_path / "merged")
    plain = GPT2LMHeadModel.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, under(input_ids=ids).logits, atol=1e-5)
    still = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): weight
        for name, weight in under.named_parameters()
    }
    frozen = [name for name in base if name in still]
    assert len(frozen) > 20, "every matrix, bias and norm"
    for name in frozen:
        assert torch.equal(still[name], base[name]), name
    scored = score_tokens(under, [ids[0].tolist()]).nll
    assert np.allclose(scored, score_tokens(plain, [ids[0].tolist()]).nll, atol=1e-5)
