"""Bayes' rule over the draw layout, and classifiers combined."""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from seqlm.data.tokens import IMG, IMG_END, KIND_CODE, class_ids, drawing_prompt, token_kinds
from seqlm.errors import DataError
from seqlm.evaluation.scores import LEAST, Rows, score_tokens


def product_of_experts(*experts: np.ndarray) -> np.ndarray:
    """Combine class probabilities (N, C) by their geometric mean. (N, C), sums to 1.

    A class that one expert all but rules out stays unlikely. Source: G. Hinton, Products of
    Experts, ICANN 1999. Raises DataError when their shapes differ.
    """
    if len({np.shape(expert) for expert in experts}) != 1:
        shapes = " and ".join(str(np.shape(expert)) for expert in experts) or "nothing"
        raise DataError(f"only class probabilities of one shape can be combined, not {shapes}")
    logs = np.mean([np.log(np.maximum(expert, LEAST)) for expert in experts], axis=0)  # (N, C)
    product = np.exp(logs - logs.max(axis=1, keepdims=True))
    return product / product.sum(axis=1, keepdims=True)


def draw_layout_rows(prompts: Rows, vocab: dict[str, int]) -> list[list[int]]:
    """Each prompt (``<IMG> … </IMG> <CLS>``) in the draw layout of every class. N * C rows of ids.

    Row n * C + k holds ``<CLS> <CLS_k> <IMG>`` and the codes of prompt n. Raises DataError when the
    vocabulary has no classes, or a prompt has no codes, or holds a class.
    """
    answers = class_ids(vocab)
    if not answers:
        raise DataError("the vocabulary has no class tokens, so there is nothing to choose among")
    rows = []
    for number, prompt in enumerate(map(list, prompts)):
        start, end = (prompt.index(vocab[t]) if vocab[t] in prompt else -1 for t in (IMG, IMG_END))
        if not 0 <= start < end - 1 or set(answers) & set(prompt):
            raise DataError(
                f"prompt {number}: expected {IMG}, codes, {IMG_END} and no class token, as "
                "Corpus.to_classify gives it"
            )
        for label in range(len(answers)):
            begin = [vocab[token] for token in drawing_prompt(label)]
            rows.append([*begin, *prompt[start + 1 : end]])
    return rows


def bayes_class_probabilities(
    model, prompts: Rows, vocab: dict[str, int], prior: Sequence[float] | None = None
) -> np.ndarray:
    """p(class | codes) by Bayes' rule over the draw layout's likelihoods. (N, C), sums to 1.

    p(k | codes) is proportional to p(k) * product over i of p(code_i | <CLS> <CLS_k> <IMG> and the
    codes before i): A. Y. Ng and M. I. Jordan, On Discriminative vs. Generative Classifiers, NIPS
    2001. `prompts` are those of `scores.class_probabilities`; each costs C rows in the draw layout.
    `prior` (C,) is p(k), uniform when it is None.

    Raises DataError for a prompt without codes, or a prior that is no distribution over C.
    """
    rows, n_classes = draw_layout_rows(prompts, vocab), len(class_ids(vocab))
    prior = np.full(n_classes, 1 / n_classes) if prior is None else np.asarray(prior, dtype=float)
    if prior.shape != (n_classes,) or (prior < 0).any() or not np.isclose(prior.sum(), 1):
        raise DataError(
            f"prior: expected {n_classes} probabilities that sum to 1, one for each class, got "
            f"{prior.tolist()}"
        )
    with np.errstate(divide="ignore"):
        log_prior = np.log(prior)
    codes = score_tokens(model, rows).of_kind(token_kinds(vocab), KIND_CODE)
    nll = np.bincount(codes.row, weights=codes.nll, minlength=len(rows))
    return softmax(log_prior - nll.reshape(-1, n_classes), axis=1)  # (N, C)
