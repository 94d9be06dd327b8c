"""Markov chains as tables of probabilities: checked, solved for their stationary state, summed up.

A table of order o over K codes has the shape (K, …, K) with o + 1 axes: p(next | the last o codes,
oldest first). A context is those o codes; written as the digits of a number in base K, it is a
state of an ordinary chain of K^o states.
"""

import numpy as np
from scipy.sparse.csgraph import connected_components

from seqlm.errors import ConfigError

MOST_CONTEXTS = 4_096  # the stationary state is solved for densely; more would take minutes


def check_transition(table: np.ndarray) -> None:
    """Is this p(next | context), with an axis for each code looked back at and one for the next?"""
    if table.ndim < 2 or table.shape[-1] < 2 or len(set(table.shape)) > 1:
        raise ConfigError(
            f"transition: the shape is {table.shape}, where (K, K) is wanted, or (K, K, K) for a "
            "source of order 2, with K of at least 2"
        )
    check_contexts(table[..., 0].size)
    sums = table.sum(axis=-1)
    wrong = ~((table >= 0).all(axis=-1) & (np.abs(sums - 1) < 1e-9))
    if wrong.any():
        context = tuple(np.argwhere(wrong)[0].tolist())
        raise ConfigError(
            f"transition: after {context} the probabilities sum to {sums[context]:.6g}, or some is "
            "below 0; each row must be a distribution"
        )


def check_contexts(count: int) -> None:
    if count > MOST_CONTEXTS:
        raise ConfigError(
            f"n_codes: to the power of the order they make {count:,} contexts, and "
            f"{MOST_CONTEXTS:,} are the most; take fewer codes, or a lower order"
        )


def context_moves(transition: np.ndarray) -> np.ndarray:
    """p(context one code later | context), for all pairs. (K^o, K^o)."""
    contexts, n_codes = transition[..., 0].size, transition.shape[-1]
    before = np.repeat(np.arange(contexts), n_codes)
    after = np.arange(contexts * n_codes) % contexts  # the oldest code drops out
    moves = np.zeros((contexts, contexts))
    moves[before, after] = transition.ravel()
    return moves


def stationary_state(transition: np.ndarray) -> np.ndarray:
    """The distribution of contexts that a step leaves as it is. (K, …, K) with o axes, sums to 1.

    Raises ConfigError when there is more than one.
    """
    moves = context_moves(transition)
    _check_one_stationary_state(moves)
    still = np.eye(len(moves))
    balance = moves.T - still
    balance[-1] = 1  # one equation follows from the others; in its place: they sum to 1
    found = np.maximum(np.linalg.solve(balance, still[-1]), 0)  # rounding may fall below 0
    return (found / found.sum()).reshape(transition.shape[:-1])


def _check_one_stationary_state(moves: np.ndarray) -> None:
    """Raises ConfigError when the chain can end up in more than one set of contexts for good."""
    n_sets, member = connected_components(moves, connection="strong")
    before, after = moves.nonzero()
    left = np.unique(member[before[member[before] != member[after]]])
    if n_sets - len(left) > 1:
        raise ConfigError(
            f"transition: there are {n_sets - len(left)} sets of codes that the source never "
            "leaves once it is in one, so it has no single entropy rate; give each a way out, or "
            "draw with a larger concentration"
        )


def row_entropies(table: np.ndarray) -> np.ndarray:
    """Entropy of each row of probabilities, in nats; 0 ln 0 is 0. (M, K) -> (M,)."""
    return -(table * np.log(np.where(table > 0, table, 1))).sum(axis=-1)


def cumulative(table: np.ndarray) -> np.ndarray:
    """Each row of probabilities added up from the left, to draw from. (…, K) -> (…, K)."""
    climb = table.cumsum(axis=-1)
    # Exactly 1 at the end, so that no lot below 1 falls off it.
    return climb / np.where(climb[..., -1:] > 0, climb[..., -1:], 1)


def surprisal(probabilities: np.ndarray) -> np.ndarray:
    """-ln p in nats; of what cannot come it is infinite. Any shape -> the same shape."""
    with np.errstate(divide="ignore"):
        return -np.log(probabilities)
