"""Class probabilities are read where no class stands, whatever the padding and the batch."""

import numpy as np
import pytest
import torch
from samples import VOCAB, ids, sharpened
from transformers import GPT2ForSequenceClassification

from seqlm.config import ModelConfig
from seqlm.data.tokens import class_ids, draw_layout, read_layout, reading_prompt
from seqlm.errors import DataError
from seqlm.evaluation import classification, scores
from seqlm.models.gpt2 import build_classifier, build_lm

TINY = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64)


@pytest.fixture(scope="module")
def lm():
    return sharpened(build_lm(TINY, VOCAB, seed=1))


def reading_prompts(n=12):
    rng = np.random.default_rng(5)
    sentences = [
        read_layout(rng.integers(0, 500, rng.integers(1, 15)), int(rng.integers(10)))
        for _ in range(n)
    ]
    return [ids(reading_prompt(sentence)) for sentence in sentences]


def test_the_classifiers_input_never_holds_the_class():
    answers = set(class_ids(VOCAB))
    for label in range(10):
        prompt = ids(reading_prompt(read_layout([3, 1, 4, 1], label)))
        assert not answers & set(prompt)
        assert prompt == ids(reading_prompt(read_layout([3, 1, 4, 1], 9 - label)))
    with pytest.raises(DataError):
        reading_prompt(draw_layout([3, 1, 4, 1], 7))


def test_class_probabilities_are_a_softmax_over_the_class_logits_at_cls(lm):
    prompts, answers = reading_prompts(), class_ids(VOCAB)
    found = scores.class_probabilities(lm, prompts, answers)
    assert found.shape == (12, 10)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    for prompt, row in zip(prompts, found, strict=True):
        with torch.no_grad():
            logits = lm(torch.tensor([prompt])).logits[0, -1].double().numpy()
        likelihoods = np.exp(logits[answers])
        np.testing.assert_allclose(row, likelihoods / likelihoods.sum(), atol=1e-5)
    assert found.std(axis=0).max() > 0.01, "prompts must differ, or their order is not tested"


def test_classifier_probabilities_do_not_depend_on_padding_or_batch():
    model = sharpened(build_classifier(TINY, VOCAB))
    prompts = reading_prompts()
    together = scores.classifier_probabilities(model, prompts)
    alone = np.concatenate([scores.classifier_probabilities(model, [p]) for p in prompts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    assert together.std(axis=0).max() > 0.01


def test_classifier_probabilities_are_read_at_the_last_real_token():
    model = sharpened(build_classifier(TINY, VOCAB))
    assert isinstance(model, GPT2ForSequenceClassification)
    prompt, longest = reading_prompts()[0], [2] * 60
    with torch.no_grad():
        hidden = model.transformer(torch.tensor([prompt])).last_hidden_state[0, -1]
        by_hand = model.score(hidden).softmax(-1).numpy()
    found = scores.classifier_probabilities(model, [prompt, longest])[0]
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


def test_two_opinions_agree_on_their_geometric_mean():
    one, other = np.array([[0.5, 0.4, 0.1]]), np.array([[0.1, 0.4, 0.5]])
    roots = np.sqrt([0.05, 0.16, 0.05])
    assert classification.product_of_experts(one, other) == pytest.approx(
        (roots / roots.sum())[None]
    )
    assert classification.product_of_experts(one) == pytest.approx(one)


def test_what_one_rules_out_the_other_cannot_bring_back():
    sure, unsure = np.array([[1.0, 0.0]]), np.array([[0.01, 0.99]])
    assert classification.product_of_experts(sure, unsure).argmax() == 0
    assert np.isfinite(classification.product_of_experts(sure, 1 - sure)).all()


def test_opinions_about_different_images_are_refused():
    with pytest.raises(DataError, match="of one shape"):
        classification.product_of_experts(np.ones((2, 3)) / 3, np.ones((3, 3)) / 3)
