"""Completions held against the one true sentence: BLEU and ROUGE, tokens split at spaces alone.

Both libraries were made for prose, and their own tokenisers take ``<Z_017>`` apart: sacrebleu's
sees the brackets as words that always match, rouge-score's also lowers case and drops what is no
letter or digit. Here a token is what stands between two spaces, as in the data.
"""

from collections.abc import Sequence

import numpy as np

from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, bootstrap_interval

BLEU_ORDER = 4  # the longest n-gram that is counted

Sentences = Sequence[str | Sequence[str]]  # strings are split at white space


def bleu(completions: Sentences, truths: Sentences) -> Estimate:
    """How many n-grams of the completions stand in the truth, 0 to 100, over all rows at once.

    BP times the geometric mean of the n-gram precisions, n = 1 to 4, summed over rows before they
    are divided; BP = exp(1 - truths' length / completions') where the completions are shorter,
    else 1. Source: K. Papineni et al., BLEU, ACL 2002, as sacrebleu counts it (M. Post, A Call for
    Clarity in Reporting BLEU Scores, WMT 2018): one truth a row, case kept, tokens split at
    spaces, no effective order, exponential smoothing where an n-gram never matches. With these
    settings completions of fewer than four tokens have a BLEU of 0.

    The interval resamples rows, each with the counts of its own n-grams. Raises DataError when
    there are no rows, or not one truth for each completion.
    """
    from sacrebleu.metrics import BLEU  # here, so that nobody waits for it who does not need it

    ours, theirs = _texts(completions, truths)
    counter = BLEU(tokenize="none", effective_order=True)  # on one row the counts are the same
    scored = [counter.sentence_score(a, [b]) for a, b in zip(ours, theirs, strict=True)]
    counts = np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scored])  # (N, 10)

    def statistic(chosen: np.ndarray, axis: int = -1) -> np.ndarray:
        # One column after the other, because all ten at once would need ten times the memory.
        sums = np.stack([column[chosen].sum(axis=axis) for column in counts.T], axis=-1)
        flat = [_bleu_of_counts(row) for row in sums.reshape(-1, counts.shape[1]).tolist()]
        return np.reshape(flat, sums.shape[:-1])

    rows = np.arange(len(counts))
    low, high = bootstrap_interval(statistic, (rows,))
    return Estimate(float(statistic(rows)), low, high, len(rows), "BLEU")


def _bleu_of_counts(counts: list[int]) -> float:
    """BLEU of the two lengths, the n-grams that match, and those there are, as sacrebleu has it."""
    from sacrebleu.metrics import BLEU

    made, wanted, *ngrams = counts
    found, tried = ngrams[:BLEU_ORDER], ngrams[BLEU_ORDER:]
    return BLEU.compute_bleu(found, tried, made, wanted, smooth_method="exp").score


def rouge(completions: Sentences, truths: Sentences) -> dict[str, Estimate]:
    """How much of the truth the completions recall, and of them the truth: F1, averaged over rows.

    ``rouge1`` and ``rouge2`` count common tokens and pairs, ``rougeL`` the longest common
    subsequence; each is 2PR / (P + R) of one row. Source: C.-Y. Lin, ROUGE, Text Summarization
    Branches Out, 2004, as rouge-score counts it, without stemming, tokens split at spaces. Time
    grows with the product of the two lengths: a pair of 784 tokens takes half a second.

    The intervals resample rows. Raises DataError as `bleu` does.
    """
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes seconds

    ours, theirs = _texts(completions, truths)
    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, tokenizer=_AtSpaces())
    scored = [scorer.score(truth, made) for made, truth in zip(ours, theirs, strict=True)]
    found = {}
    for name in names:
        f1 = np.array([scores[name].fmeasure for scores in scored])  # (N,)
        low, high = bootstrap_interval(np.mean, (f1,))
        found[name] = Estimate(float(f1.mean()), low, high, len(f1), "F1")
    return found


class _AtSpaces:
    """A tokenizer in the form that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def _texts(completions: Sentences, truths: Sentences) -> tuple[list[str], list[str]]:
    if not len(completions) or len(completions) != len(truths):
        raise DataError(
            f"{len(completions)} completions and {len(truths)} truths cannot be compared; give "
            "one truth for each completion, and at least one"
        )
    both = [
        [" ".join(row.split() if isinstance(row, str) else row) for row in rows]
        for rows in (completions, truths)
    ]
    return both[0], both[1]
