"""Which class is it? A model's probabilities, and the numbers that say how often it is right."""

from collections.abc import Sequence

import numpy as np
import torch

from seqlm.errors import DataError
from seqlm.estimates import Estimate
from seqlm.metrics import batches, bootstrap_interval, pad, proportion


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


def measure_classes(labels: np.ndarray, predicted: np.ndarray, n_classes: int = 10) -> dict:
    """Accuracy, macro F1, recall of every class, confusion matrix [true][predicted] of counts."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    confusion = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    recalls = {str(k): proportion(predicted[labels == k] == k).to_json() for k in np.unique(labels)}
    return {
        "accuracy": proportion(labels == predicted).to_json(),
        "macro_f1": macro_f1(labels, predicted).to_json(),
        "recall": recalls,
        "confusion": confusion.tolist(),
    }


@torch.inference_mode()
def class_probabilities(
    model, prompts: Sequence[Sequence[int]], class_ids: Sequence[int]
) -> np.ndarray:
    """What a language model expects after each prompt, among the class tokens. (N, C), sums to 1.

    The prompt must end in ``<CLS>`` and hold no class (`layout.reading_prompt` sees to both).
    """
    model.eval()
    found = np.zeros((len(prompts), len(class_ids)))
    for batch in batches(prompts, vocab_size=model.config.vocab_size):
        rows = [prompts[i] for i in batch]
        logits = model(pad(rows).to(model.device), use_cache=False).logits.float()  # (B, T, V)
        last = torch.tensor([len(row) - 1 for row in rows], device=model.device)
        at_end = logits[torch.arange(len(rows), device=model.device), last]  # (B, V)
        found[batch] = at_end[:, list(class_ids)].softmax(-1).cpu().numpy()
    return found


@torch.inference_mode()
def classifier_probabilities(model, prompts: Sequence[Sequence[int]]) -> np.ndarray:
    """Class probabilities of a GPT2ForSequenceClassification, read at the last token. (N, C)."""
    model.eval()
    found = np.zeros((len(prompts), model.config.num_labels))
    for batch in batches(prompts, vocab_size=model.config.vocab_size):
        rows = [prompts[i] for i in batch]
        input_ids = pad(rows, fill=model.config.pad_token_id).to(model.device)  # (B, T)
        found[batch] = model(input_ids).logits.float().softmax(-1).cpu().numpy()
    return found
