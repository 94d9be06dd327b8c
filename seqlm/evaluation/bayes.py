"""The language model as a generative classifier: under which class is this picture likeliest?

It is never asked for the class. It is asked, for each class in turn, how likely it would have been
to draw just these codes, and Bayes' rule turns the answers round::

    p(k | codes)  is proportional to  p(k) * product over i of p(code_i | <CLS> <CLS_k> <IMG>
                                                                 and the codes before i)

A. Y. Ng and M. I. Jordan, On Discriminative vs. Generative Classifiers, NIPS 2001, compare such
classifiers with those that are trained to name the class.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from seqlm.data.tokens import IMG, IMG_END, KIND_CODE, class_ids, drawing_prompt, token_kinds
from seqlm.errors import DataError
from seqlm.evaluation.scores import score_tokens


def drawing_rows(prompts: Sequence[Sequence[int]], vocab: dict[str, int]) -> list[list[int]]:
    """Each prompt (``<IMG> … </IMG> <CLS>``) as the drawing of every class. N * C rows of ids.

    Row n * C + k holds ``<CLS> <CLS_k> <IMG>`` and the codes of prompt n, and ends with its last
    code, so it is no longer than the prompt. Raises DataError when the vocabulary has no classes,
    or a prompt does not hold codes between ``<IMG>`` and ``</IMG>``, or holds a class.
    """
    answers = class_ids(vocab)
    if not answers:
        raise DataError("the vocabulary has no class tokens, so there is nothing to choose among")
    rows = []
    for number, prompt in enumerate(prompts):
        prompt = list(prompt)
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


def class_probabilities_by_drawing(
    model,
    prompts: Sequence[Sequence[int]],
    vocab: dict[str, int],
    prior: Sequence[float] | None = None,
) -> np.ndarray:
    """p(class | codes) by Bayes' rule over the classes' drawing likelihoods. (N, C), sums to 1.

    Takes the prompts that `classes.class_probabilities` takes, in the read layout, so the two
    stand side by side. Only code tokens count. `prior` (C,) is p(k), uniform unless it is given.
    The model must have learned the draw layout; it costs C times the tokens of one reading.

    Raises DataError for a prompt without a picture, or a prior that is no distribution over C.
    """
    rows, n_classes = drawing_rows(prompts, vocab), len(class_ids(vocab))
    log_prior = _log_prior(prior, n_classes)
    scores = score_tokens(model, rows)
    codes = scores.of_kind(token_kinds(vocab), KIND_CODE)
    nll = np.bincount(codes.row, weights=codes.nll, minlength=len(prompts) * n_classes)
    return softmax(log_prior - nll.reshape(-1, n_classes), axis=1)  # (N, C)


def _log_prior(prior: Sequence[float] | None, n_classes: int) -> np.ndarray:
    prior = np.full(n_classes, 1 / n_classes) if prior is None else np.asarray(prior, dtype=float)
    if prior.shape != (n_classes,) or (prior < 0).any() or not np.isclose(prior.sum(), 1):
        raise DataError(
            f"prior: expected {n_classes} probabilities that sum to 1, one for each class, got "
            f"{prior.tolist()}"
        )
    with np.errstate(divide="ignore"):
        return np.log(prior)
