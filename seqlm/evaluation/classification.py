"""Classes: accuracy and F1, class probabilities by Bayes' rule, several classifiers combined."""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from seqlm.data.tokens import IMG, IMG_END, KIND_CODE, class_ids, drawing_prompt, token_kinds
from seqlm.errors import DataError
from seqlm.evaluation.calibration import calibration_error, class_nll, reliability
from seqlm.evaluation.estimates import Estimate, bootstrap_interval, proportion
from seqlm.evaluation.scores import LEAST, score_tokens


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> Estimate:
    """The mean over classes of 2PR / (P + R), each class counting alike; bootstrap over images."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if not len(labels):
        raise DataError("macro F1 of nothing is not a number: no cases were given")
    classes = np.unique(labels)

    def statistic(truth, guess, axis=-1):
        scores = []
        for k in classes:
            true, guessed = truth == k, guess == k
            both = (true & guessed).sum(axis=axis)
            either = true.sum(axis=axis) + guessed.sum(axis=axis)
            scores.append(2 * both / np.maximum(either, 1))  # 2PR / (P + R), and 0 for 0 / 0
        return np.mean(scores, axis=0)

    low, high = bootstrap_interval(statistic, (labels, predicted))
    return Estimate(float(statistic(labels, predicted)), low, high, len(labels), "F1")


def measure_classes(
    labels: np.ndarray,
    predicted: np.ndarray,
    n_classes: int = 10,
    probabilities: np.ndarray | None = None,
) -> dict:
    """Accuracy, macro F1, recall of every class, confusion matrix [true][predicted] of counts.

    With `probabilities` (N, C) also "calibration_error", "nll" and "reliability"; each `predicted`
    class must then be the likeliest, or one of several equally likely. Raises DataError when it is
    not, for the numbers would speak of two different guesses.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    confusion = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    recalls = {str(k): proportion(predicted[labels == k] == k).to_json() for k in np.unique(labels)}
    measured = {
        "accuracy": proportion(labels == predicted).to_json(),
        "macro_f1": macro_f1(labels, predicted).to_json(),
        "recall": recalls,
        "confusion": confusion.tolist(),
    }
    return (
        measured
        if probabilities is None
        else measured | _sureness(labels, predicted, probabilities)
    )


def _sureness(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict:
    found = {
        "calibration_error": calibration_error(probabilities, labels).to_json(),
        "nll": class_nll(probabilities, labels).to_json(),
        "reliability": reliability(probabilities, labels),
    }
    probabilities = np.asarray(probabilities)
    of_guess = np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0]
    if (of_guess < probabilities.max(axis=1)).any():
        raise DataError(
            "some predicted classes are not the likeliest by the probabilities given with them; "
            "give the probabilities that the predictions were made from"
        )
    return found


def product_of_experts(*opinions: np.ndarray) -> np.ndarray:
    """What several classifiers say together: the geometric mean of (N, C) each. (N, C), sums to 1.

    Each has a veto: a class that one of them all but rules out stays unlikely. Source: G. Hinton,
    Products of Experts, ICANN 1999. Raises DataError when they do not answer for the same images
    and classes.
    """
    if len({np.shape(opinion) for opinion in opinions}) != 1:
        shapes = " and ".join(str(np.shape(opinion)) for opinion in opinions) or "nothing"
        raise DataError(f"opinions of one shape can agree, and these have {shapes}")
    logs = np.mean([np.log(np.maximum(opinion, LEAST)) for opinion in opinions], axis=0)  # (N, C)
    product = np.exp(logs - logs.max(axis=1, keepdims=True))
    return product / product.sum(axis=1, keepdims=True)


def draw_layout_rows(prompts: Sequence[Sequence[int]], vocab: dict[str, int]) -> list[list[int]]:
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


def bayes_class_probabilities(
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
    rows, n_classes = draw_layout_rows(prompts, vocab), len(class_ids(vocab))
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
