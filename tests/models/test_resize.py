"""Vocabulary, embedding and head of a trained model grow; what was there does not change."""

import gzip

import pytest
import torch

from seqlm.data.tokens import KIND_CLASS, KIND_CODE, default_vocab, token_kinds
from seqlm.errors import DataError
from seqlm.models.gpt2 import build_classifier, build_lm, load_classifier
from seqlm.models.resize import (
    count_new_tokens,
    describe_token_counts,
    extend_vocab,
    grow_embedding,
    grow_head,
    sort_new_tokens,
)


def test_new_tokens_are_counted_and_rows_without_tokens_skipped(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    lines = ['{"tokens": "<IMG> a a b </IMG> <PAD>"}', '{"tokens": 7}', "[]"]
    lines += ['{"tokens": "<IMG> b </IMG> <CLS> <CLS> <EOS>", "label": 2}']
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    found = count_new_tokens(path, default_vocab(5, 2))
    assert found == {"a": 2, "b": 2, "<CLS_2>": 1}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="none.jsonl"):
        count_new_tokens(tmp_path / "none.jsonl", {})


def test_old_ids_stay_and_new_tokens_come_last_in_an_order_of_their_own(vocab):
    new = ["<CLS_11>", "zeta", "<CLS_10>", "<Z_050>", "zeta"]
    grown = extend_vocab(vocab, sort_new_tokens(new))
    assert {token: grown[token] for token in vocab} == vocab
    assert list(grown)[len(vocab) :] == ["<Z_050>", "zeta", "<CLS_10>", "<CLS_11>"]
    assert sorted(grown.values()) == list(range(len(vocab) + 4))
    kinds = token_kinds(grown)
    assert kinds[-4:].tolist() == [KIND_CODE, KIND_CODE, KIND_CLASS, KIND_CLASS]
    assert sort_new_tokens(reversed(new)) == sort_new_tokens(new)


@pytest.mark.parametrize(
    ("token", "said"),
    [("<CLS_12>", "11 class tokens, but no '<CLS_10>'"), ("<Z\x1b[31m>", "a control character")],
)
def test_what_no_vocabulary_may_hold_is_not_appended_to_one(vocab, token, said):
    with pytest.raises(DataError, match=f"^with the new tokens: .*{said}"):
        extend_vocab(vocab, [token])


def test_the_rarest_new_tokens_are_named_first():
    counts = {f"<Z_{k}>": k for k in range(1, 12)}
    told = describe_token_counts(counts)
    assert told.startswith("<Z_1> (once), <Z_2> (2 times)") and told.endswith(
        "3 more frequent ones"
    )


def test_the_embedding_grows_and_what_was_there_is_untouched(tiny, vocab):
    model = build_lm(tiny, vocab)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    ids = torch.tensor([[2, 7, 9, 3, 4]])
    logits = model.eval()(ids).logits.detach()
    grow_embedding(model, len(vocab) + 3)
    weight = model.transformer.wte.weight
    assert model.lm_head.weight is weight and model.config.vocab_size == len(vocab) + 3
    for name, old in before.items():
        assert torch.equal(model.state_dict()[name][: len(old)], old), name
    mean = before["transformer.wte.weight"].mean(0)
    assert torch.allclose(weight[len(vocab) :], mean.expand(3, -1), atol=1e-6)
    after = model(ids).logits.detach()
    assert torch.allclose(after[..., : len(vocab)], logits, atol=1e-5)
    assert torch.allclose(after[..., -1], logits.mean(-1), atol=1e-4), "the mean of the others"


def test_a_smaller_vocabulary_is_refused(tiny, vocab):
    with pytest.raises(DataError, match="too small"):
        grow_embedding(build_lm(tiny, vocab), 10)


def test_a_head_grows_at_its_end_and_survives_saving(tiny, vocab, tmp_path):
    model = build_classifier(tiny, vocab, 3)
    old = model.score.weight.detach().clone()
    grow_head(model, 5)
    assert torch.equal(model.score.weight[:3], old)
    assert torch.allclose(model.score.weight[3:], old.mean(0).expand(2, -1))
    model.save_pretrained(tmp_path)
    assert load_classifier(tmp_path).score.weight.shape == (5, tiny.n_embd)
    assert grow_head(model, 4).config.num_labels == 5, "never smaller"
