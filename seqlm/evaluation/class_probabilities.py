"""Which class is it? A model's probabilities; what they are worth is counted in class_metrics."""

from collections.abc import Sequence

import numpy as np
import torch

from seqlm.errors import DataError
from seqlm.evaluation.calibration import LEAST
from seqlm.evaluation.classification import macro_f1, measure_classes
from seqlm.evaluation.scores import batches, pad

__all__ = [
    "agreed",
    "class_probabilities",
    "classifier_probabilities",
    "macro_f1",
    "measure_classes",
]


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


def agreed(*opinions: np.ndarray) -> np.ndarray:
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
