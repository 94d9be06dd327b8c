"""Notebook 5: Bayes' rule equals likelihoods computed by hand; experts are multiplied."""

from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch

from seqlm.config import ModelConfig
from seqlm.data.corpus import Corpus
from seqlm.data.tokens import (
    EOS,
    KIND_CODE,
    class_ids,
    default_vocab,
    read_layout,
    reading_prompt,
)
from seqlm.evaluation.scores import LEAST, class_probabilities
from seqlm.models.gpt2 import build_lm
from seqlm.workspace import read_notebooks

VOCAB = default_vocab(n_codes=4, n_classes=3)
NAMES = list(VOCAB)


def functions() -> dict:
    """The functions of the notebook's own cells, for rows of VOCAB."""
    notebook = nbformat.read(read_notebooks()["classify_sequences"].path, as_version=4)
    names = {"np": np, "corpus": Corpus(VOCAB, {}), "KIND_CODE": KIND_CODE, "LEAST": LEAST}
    for cell in notebook.cells:
        if cell.id in ("04-14", "04-41", "04-60"):  # of the latter only the function
            exec(cell.source.split("\n\n\ntuned")[0], names)
    return names


by_bayes_rule, product_of_experts, holm = map(
    functions().get, ("by_bayes_rule", "product_of_experts", "holm")
)

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


# --- Bayes' rule ------------------------------------------------------------------------------


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


def by_hand(table, codes) -> np.ndarray:
    joint = []
    for label in range(3):
        likelihood, last = 1 / 3, 4
        for code in codes:
            likelihood *= table[label, last, code]
            last = code
        joint.append(likelihood)
    return np.array(joint) / sum(joint)


def test_it_is_bayes_rule_over_the_code_likelihoods(table):
    prompts = [prompt_of(codes) for codes in PICTURES]
    found = by_bayes_rule(KnownModel(table), prompts)
    expected = [by_hand(table, codes) for codes in PICTURES]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert len(set(found.argmax(axis=1))) > 1, "all alike, the order is not tested"


def test_pictures_of_other_lengths_in_between_change_nothing(table):
    mixed = [[0, 3, 1], [2], [1, 0, 3, 3, 0, 1, 2], [3, 1]]
    found = by_bayes_rule(KnownModel(table), list(map(prompt_of, mixed)))
    expected = [by_hand(table, codes) for codes in mixed]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_picture_is_shown_as_the_drawing_of_every_class_without_its_ending(table):
    model = KnownModel(table)
    by_bayes_rule(model, [prompt_of([2, 0])])
    seen = [" ".join(NAMES[i] for i in row) for row in model.seen]
    assert seen == [f"<CLS> <CLS_{label}> <IMG> <Z_002> <Z_000>" for label in range(3)]
    assert not {VOCAB[EOS], VOCAB["</IMG>"]} & set(model.seen[0])


def test_it_takes_the_very_prompts_that_reading_takes_and_answers_in_the_same_shape():
    size = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=12)
    model = build_lm(size, VOCAB)
    prompts = [prompt_of(codes) for codes in PICTURES]
    read = class_probabilities(model, prompts, class_ids(VOCAB))
    drawn = by_bayes_rule(model, prompts)
    assert drawn.shape == read.shape == (4, 3)


def test_a_model_that_does_not_look_at_the_class_finds_all_equally_likely(table):
    blind = KnownModel(np.repeat(table[:1], 3, axis=0))
    prompts = [prompt_of(codes) for codes in PICTURES]
    found = by_bayes_rule(blind, prompts)
    np.testing.assert_allclose(found, [[1 / 3] * 3] * 4, atol=1e-6)


def test_a_thousand_codes_do_not_underflow(table):
    found = by_bayes_rule(KnownModel(table), [prompt_of([0, 1] * 500)])
    assert np.isfinite(found).all() and found.sum() == pytest.approx(1)


# --- many comparisons -----------------------------------------------------------------------------


def test_holms_p_values_equal_those_done_by_hand():
    # in order: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6, 0.5]) == pytest.approx([1.0, 1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2]) and len(holm([])) == 0


def test_holm_lets_twenty_comparisons_of_equals_err_together_as_seldom_as_one():
    p_values = np.random.default_rng(0).random((2_000, 20))
    some_real = [(holm(row) < 0.05).any() for row in p_values]
    assert np.mean((p_values < 0.05).any(axis=1)) > 0.6
    assert np.mean(some_real) == pytest.approx(0.05, abs=0.015)
