"""Class probabilities are read where no class stands, and class numbers equal scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score
from transformers import GPT2ForSequenceClassification

from seqlm import classes
from seqlm.config import ModelConfig
from seqlm.errors import DataError
from seqlm.layout import class_ids, default_vocab, draw_layout, read_layout, reading_prompt
from seqlm.model import build_classifier, build_lm

VOCAB = default_vocab()
TINY = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_positions=64)


def ids(tokens):
    return [VOCAB[token] for token in tokens]


@pytest.fixture(scope="module")
def lm():
    return sharpened(build_lm(TINY, VOCAB, seed=1))


def sharpened(model):
    """Larger weights, so that what a token sees makes a difference well above rounding."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    return model.eval()


def labels_and_guesses(n=200, n_classes=10):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, n_classes, n)
    return labels, np.where(rng.random(n) < 0.8, labels, rng.integers(0, 10, n))


@pytest.mark.parametrize("n_classes", [10, 7])  # with 7, three are guessed that are never true
def test_macro_f1_equals_scikit_learns(n_classes):
    labels, guesses = labels_and_guesses(n_classes=n_classes)
    found = classes.macro_f1(labels, guesses)
    theirs = f1_score(labels, guesses, average="macro", labels=np.unique(labels), zero_division=0)
    assert found.value == pytest.approx(theirs, abs=1e-12)
    assert found.low < found.value < found.high and found.n == 200


def test_the_bootstrap_of_macro_f1_resamples_label_and_guess_together():
    """Apart, the guesses would be noise, and the interval would lie near chance."""
    labels, guesses = labels_and_guesses()
    found = classes.macro_f1(labels, guesses)
    assert found.low > 0.7 and found.high < 0.95


def test_macro_f1_of_nothing_is_refused():
    with pytest.raises(DataError, match="F1 of nothing"):
        classes.macro_f1(np.array([]), np.array([]))


def test_measure_classes_equals_scikit_learns_confusion_and_recall():
    labels, guesses = labels_and_guesses()
    measured = classes.measure_classes(labels, guesses)
    theirs = confusion_matrix(labels, guesses, labels=range(10))
    np.testing.assert_array_equal(measured["confusion"], theirs)
    assert not np.array_equal(theirs, theirs.T), "a symmetric matrix cannot tell rows from columns"
    assert measured["accuracy"]["value"] == pytest.approx(np.mean(labels == guesses))
    for k in range(10):
        assert measured["recall"][str(k)]["value"] == pytest.approx(theirs[k, k] / theirs[k].sum())
        assert measured["recall"][str(k)]["n"] == theirs[k].sum()


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
    found = classes.class_probabilities(lm, prompts, answers)
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
    together = classes.classifier_probabilities(model, prompts)
    alone = np.concatenate([classes.classifier_probabilities(model, [p]) for p in prompts])
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
    found = classes.classifier_probabilities(model, [prompt, longest])[0]
    np.testing.assert_allclose(found, by_hand, atol=1e-5)
