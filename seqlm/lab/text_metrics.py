"""BLEU and ROUGE of completions against the true sequence, with tokens split at white space.

The libraries' own tokenizers are made for prose and break ``<Z_017>`` into parts.
"""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, bootstrap

BLEU_ORDER = 4  # the longest n-gram that is counted

Sentences = Sequence[str | Sequence[str]]  # strings are split at white space


def bleu(completions: Sentences, truths: Sentences) -> Estimate:
    """How many n-grams of the completions stand in the truth, 0 to 100, over all rows at once.

    BP times the geometric mean of the n-gram precisions, n = 1 to 4, summed over rows before they
    are divided; BP = exp(1 - truths' length / completions') where the completions are shorter,
    else 1. Source: K. Papineni et al., BLEU, ACL 2002, as sacrebleu counts it (M. Post, WMT 2018),
    with exponential smoothing and no effective order. The interval resamples rows. Raises DataError
    when there are no rows, or not one truth for each completion.
    """
    from sacrebleu.metrics import BLEU  # here, so that only those who need it wait for it

    ours, theirs = _texts(completions, truths)
    counter = BLEU(tokenize="none", effective_order=True)  # on one row the counts are the same
    scored = [counter.sentence_score(a, [b]) for a, b in zip(ours, theirs, strict=True)]
    counts = np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scored])  # (N, 10)

    def of_counts(sums: list[int]) -> float:
        made, wanted, *ngrams = sums
        matched, tried = ngrams[:BLEU_ORDER], ngrams[BLEU_ORDER:]
        return BLEU.compute_bleu(matched, tried, made, wanted, smooth_method="exp").score

    def statistic(chosen: np.ndarray, axis: int = -1) -> np.ndarray:
        # One column after the other, because all ten at once would need ten times the memory.
        sums = np.stack([column[chosen].sum(axis=axis) for column in counts.T], axis=-1)
        flat = [of_counts(row) for row in sums.reshape(-1, counts.shape[1]).tolist()]
        return np.reshape(flat, sums.shape[:-1])

    return bootstrap(statistic, (np.arange(len(counts)),), "BLEU")


def rouge(completions: Sentences, truths: Sentences) -> dict[str, Estimate]:
    """Common tokens of completion and truth: F1 = 2PR / (P + R) of a row, averaged over rows.

    ``rouge1`` and ``rouge2`` count common tokens and pairs, ``rougeL`` the longest common
    subsequence. Source: C.-Y. Lin, ROUGE, Text Summarization Branches Out, 2004, as rouge-score
    counts it, without stemming. The intervals resample rows. Raises DataError as `bleu`.
    """
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes seconds

    ours, theirs = _texts(completions, truths)
    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, tokenizer=SimpleNamespace(tokenize=str.split))
    scored = [scorer.score(truth, made) for made, truth in zip(ours, theirs, strict=True)]
    f1 = {name: np.array([scores[name].fmeasure for scores in scored]) for name in names}  # (N,)
    return {name: bootstrap(np.mean, (values,), "F1") for name, values in f1.items()}


def _texts(completions: Sentences, truths: Sentences) -> list[list[str]]:
    if not len(completions) or len(completions) != len(truths):
        raise DataError(
            f"{len(completions)} completions and {len(truths)} truths cannot be compared; give "
            "one truth for each completion, and at least one"
        )
    return [
        [" ".join(row.split() if isinstance(row, str) else row) for row in rows]
        for rows in (completions, truths)
    ]
