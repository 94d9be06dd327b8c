"""Labels that are probably wrong: classical classifiers, cross-validated, agree on another one."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import MultinomialNB
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from seqlm.data.table import Ids, Table, first_rows
from seqlm.data.tokens import KIND_CODE

SURE = 0.9  # the probability of another class, at least, by each classifier that has one
FOLDS = 5
MOST_ROWS, MOST_WORK = 5_000, 2**23  # rows, and codes times classes, that take seconds


@dataclass(frozen=True, eq=False)
class CrossCheck:
    """What classifiers that have not seen a row say of its label. Arrays are (M,)."""

    rows: np.ndarray  # those that were looked at: places in the table
    guess: np.ndarray  # the class that all agree on with SURE or more; -1 where they do not
    accuracy: float  # of the best classifier, on rows it has not seen


def cross_check(rows: Table, kinds: np.ndarray, group: np.ndarray) -> CrossCheck:
    """What the codes of other rows say of each label; no rows where no two classes have enough.

    Three classifiers see the code at each place (logistic regression, naive Bayes) or how often
    each code comes (a linear SVM, without probabilities), trained on four fifths of the rows. Of
    one source, and of near copies, which `group` (N,) numbers, one row is looked at, because the
    others would repeat its label; of many rows so many, at random, that it takes seconds.
    """
    labels, every = rows.column("label"), np.arange(len(rows))
    first = (first_rows(rows.column("source")) == every) & (first_rows(1 + group) == every)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(first & (labels >= 0)))
    codes = np.cumsum(rows.column("length")[chosen]) * len(np.unique(labels[chosen]))
    chosen = np.sort(chosen[codes <= MOST_WORK][:MOST_ROWS])
    classes, counts = np.unique(labels[chosen], return_counts=True)
    chosen = chosen[np.isin(labels[chosen], classes[counts >= FOLDS])]
    labels = labels[chosen]
    if len(np.unique(labels)) < 2:
        return CrossCheck(chosen[:0], labels[:0], 0.0)
    by_place, bag = (_count_codes(rows[chosen].ids(), kinds, at) for at in (True, False))
    folds = {"cv": StratifiedKFold(FOLDS, shuffle=True, random_state=0)}
    surest = [LogisticRegression(max_iter=50, tol=1e-3), MultinomialNB()]
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # more steps would hardly change it
        sure = [cross_val_predict(model, by_place, labels, method="predict_proba", **folds)
                for model in surest]  # fmt: skip
        by_counts = cross_val_predict(LinearSVC(), bag, labels, **folds)  # (M,)
    sure = np.stack(sure)  # (2, M, C)
    guesses = np.stack([*np.unique(labels)[sure.argmax(2)], by_counts])  # (3, M)
    agree = (guesses == guesses[0]).all(0) & (sure.max(2) >= SURE).all(0)
    accuracy = float((guesses == labels).mean(1).max())
    return CrossCheck(chosen, np.where(agree, guesses[0], -1), accuracy)


def _count_codes(ids: Ids, kinds: np.ndarray, by_place: bool) -> csr_array:
    """How often each code is in each row, or whether it is at each place. (N, columns used)."""
    flat, owner = ids.flat(), np.repeat(np.arange(len(ids)), ids.lengths)
    flat, owner = (part[kinds[flat] == KIND_CODE] for part in (flat, owner))
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)  # counted from 0 in each row
    column = np.unique(flat + len(kinds) * place * by_place, return_inverse=True)[1]
    kept = np.bincount(column)[column] > 1  # what is in one row says nothing of another
    column = np.unique(column[kept], return_inverse=True)[1].astype(np.int32)  # liblinear's type
    shape = len(ids), column.max(initial=0) + 1
    return csr_array((np.ones(len(column)), (owner[kept].astype(np.int32), column)), shape)
