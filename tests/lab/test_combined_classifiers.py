"""Bayes' rule equals likelihoods computed by hand; experts are multiplied."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seqlm.config import ModelConfig
from seqlm.data.tokens import (
    CLS,
    EOS,
    class_ids,
    class_token,
    default_vocab,
    read_layout,
    reading_prompt,
)
from seqlm.errors import DataError
from seqlm.evaluation.scores import class_probabilities
from seqlm.lab.combined_classifiers import (
    bayes_class_probabilities,
    draw_layout_rows,
    product_of_experts,
)
from seqlm.models.gpt2 import build_lm

# --- combined classifiers -----------------------------------------------------------------------


def test_two_opinions_agree_on_their_geometric_mean():
    one, other = np.array([[0.5, 0.4, 0.1]]), np.array([[0.1, 0.4, 0.5]])
    roots = np.sqrt([0.05, 0.16, 0.05])
    assert product_of_experts(one, other) == pytest.approx((roots / roots.sum())[None])
    assert product_of_experts(one) == pytest.approx(one)


def test_what_one_rules_out_the_other_cannot_bring_back():
    sure, unsure = np.array([[1.0, 0.0]]), np.array([[0.01, 0.99]])
    assert product_of_experts(sure, unsure).argmax() == 0
    assert np.isfinite(product_of_experts(sure, 1 - sure)).all()


def test_opinions_about_different_images_are_refused():
    with pytest.raises(DataError, match="of one shape"):
        product_of_experts(np.ones((2, 3)) / 3, np.ones((3, 3)) / 3)


# --- Bayes' rule ------------------------------------------------------------------------------

VOCAB = default_vocab(n_codes=4, n_classes=3)
NAMES = list(VOCAB)


def prompt_of(codes) -> list[int]:
    return [VOCAB[token] for token in reading_prompt(read_layout(codes, 0))]


class KnownModel(torch.nn.Module):
    """p(next code | class, last token) from a table; what is no code is never predicted well.

    table (C, 5, 4): class, last code (4 stands for <IMG>), next code.
    """

    def __init__(self, table):
        super().__init__()
        self.table = torch.as_tensor(table)
        self.config = SimpleNamespace(vocab_size=len(VOCAB), n_positions=64)
        self.device = torch.device("cpu")
        self.seen = []

    def forward(self, input_ids, use_cache=None):
        self.seen += input_ids.tolist()
        logits = torch.full((*input_ids.shape, len(VOCAB)), -20.0)
        # After later classes <IMG> is likelier, so counting it, too, would be wrong.
        for b, row in enumerate(input_ids.tolist()):
            label = class_ids(VOCAB).index(row[1])
            logits[b, 1, VOCAB["<IMG>"]] += 3.0 * label
            for t in range(2, len(row)):
                last = 4 if t == 2 else row[t] - 6
                if 0 <= last <= 4:
                    logits[b, t, 6:10] = self.table[label, last].log()
        return SimpleNamespace(logits=logits)


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(0).dirichlet(np.ones(4), (3, 5)).astype(np.float32)


PICTURES = [[0, 3, 1], [2, 2, 2], [1, 0, 3], [3, 1, 1]]


def by_hand(table, codes, prior) -> np.ndarray:
    joint = []
    for label in range(3):
        likelihood, last = prior[label], 4
        for code in codes:
            likelihood *= table[label, last, code]
            last = code
        joint.append(likelihood)
    return np.array(joint) / sum(joint)


@pytest.mark.parametrize("prior", [None, [0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
def test_it_is_bayes_rule_over_the_code_likelihoods(table, prior):
    prompts = [prompt_of(codes) for codes in PICTURES]
    found = bayes_class_probabilities(KnownModel(table), prompts, VOCAB, prior)
    expected = [by_hand(table, codes, prior or [1 / 3] * 3) for codes in PICTURES]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert len(set(found.argmax(axis=1))) > 1, "all alike, the order is not tested"


def test_pictures_of_other_lengths_in_between_change_nothing(table):
    mixed = [[0, 3, 1], [2], [1, 0, 3, 3, 0, 1, 2], [3, 1]]
    found = bayes_class_probabilities(KnownModel(table), list(map(prompt_of, mixed)), VOCAB)
    expected = [by_hand(table, codes, [1 / 3] * 3) for codes in mixed]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_picture_is_shown_as_the_drawing_of_every_class_without_its_ending(table):
    model = KnownModel(table)
    bayes_class_probabilities(model, [prompt_of([2, 0])], VOCAB)
    seen = [" ".join(NAMES[i] for i in row) for row in model.seen]
    assert seen == [f"<CLS> <CLS_{label}> <IMG> <Z_002> <Z_000>" for label in range(3)]
    assert not {VOCAB[EOS], VOCAB["</IMG>"]} & set(model.seen[0])


def test_rows_are_no_longer_than_the_prompts_so_they_fit_the_same_model():
    prompts = [prompt_of(codes) for codes in PICTURES]
    rows = draw_layout_rows(prompts, VOCAB)
    assert len(rows) == 4 * 3
    assert all(len(rows[3 * n + k]) == len(prompts[n]) for n in range(4) for k in range(3))
    assert [rows[3 * n + 1][1] for n in range(4)] == [VOCAB[class_token(1)]] * 4


def test_it_takes_the_very_prompts_that_reading_takes_and_answers_in_the_same_shape():
    size = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=12)
    model = build_lm(size, VOCAB)
    prompts = [prompt_of(codes) for codes in PICTURES]
    read = class_probabilities(model, prompts, class_ids(VOCAB))
    drawn = bayes_class_probabilities(model, prompts, VOCAB)
    assert drawn.shape == read.shape == (4, 3)


def test_a_model_that_does_not_look_at_the_class_answers_with_the_prior(table):
    blind = KnownModel(np.repeat(table[:1], 3, axis=0))
    prompts = [prompt_of(codes) for codes in PICTURES]
    found = bayes_class_probabilities(blind, prompts, VOCAB, [0.5, 0.3, 0.2])
    np.testing.assert_allclose(found, [[0.5, 0.3, 0.2]] * 4, atol=1e-6)


def test_a_thousand_codes_do_not_underflow(table):
    found = bayes_class_probabilities(KnownModel(table), [prompt_of([0, 1] * 500)], VOCAB)
    assert np.isfinite(found).all() and found.sum() == pytest.approx(1)


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.5, 0.5, 0.5], [1.5, -0.5, 0.0], [[1, 0, 0]]])
def test_a_prior_that_is_none_is_refused(table, prior):
    with pytest.raises(DataError, match="prior: expected 3 probabilities that sum to 1"):
        bayes_class_probabilities(KnownModel(table), [prompt_of([1])], VOCAB, prior)


@pytest.mark.parametrize(
    "tokens", ["<CLS> <CLS_1> <IMG> <Z_000> </IMG>", "<IMG> </IMG> <CLS>", "<Z_000> <CLS>", "<CLS>"]
)
def test_a_prompt_without_a_picture_or_with_its_class_is_refused(table, tokens):
    prompts = [prompt_of([1]), [VOCAB[token] for token in tokens.split()]]
    with pytest.raises(DataError, match="prompt 1: expected <IMG>, codes, </IMG> and no class"):
        bayes_class_probabilities(KnownModel(table), prompts, VOCAB)


def test_without_class_tokens_there_is_nothing_to_choose(table):
    bare = {name: index for name, index in VOCAB.items() if not name.startswith("<CLS_")}
    assert CLS in bare
    with pytest.raises(DataError, match="no class tokens"):
        bayes_class_probabilities(KnownModel(table), [prompt_of([1])], bare)
