"""Synthetic data with known entropy, to validate the evaluation.

The entropy of a Markov source can be computed. It is a lower bound on the expected NLL of every
model: an evaluation whose interval lies below it is wrong.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import entr

from seqlm.config import DataFiles
from seqlm.data.build import SEQUENCES, VOCAB
from seqlm.data.records import SPLITS, Record, write_records
from seqlm.data.tokens import code_token, default_vocab, draw_layout
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.scores import TokenScores
from seqlm.utils import write_json

MOST_CONTEXTS = 4_096  # the stationary distribution is solved for densely; more would take minutes


class MarkovSource:
    """Codes that depend on the last `order` codes only, in their stationary distribution.

    `transition` is p(next | the last `order` codes, oldest first), (K, …, K) with order + 1 axes.
    Raises ConfigError when it is no such table, or has several stationary distributions.
    """

    def __init__(self, transition: np.ndarray):
        table = np.array(transition, dtype=np.float64)
        square = table.ndim > 1 and table.shape[-1] > 1 and len(set(table.shape)) == 1
        if not square or (table < 0).any() or not np.allclose(table.sum(axis=-1), 1, atol=1e-9):
            raise ConfigError(
                f"transition: the shape is {table.shape}; give (K, K), or (K, K, K) for order 2, "
                "with K of at least 2, and in each row probabilities that sum to 1"
            )
        self.transition, self.stationary = table, _stationary(table)
        self.n_codes, self.order = table.shape[-1], table.ndim - 1

    @classmethod
    def random(
        cls, n_codes: int = 8, order: int = 2, concentration: float = 0.3, seed: int = 0
    ) -> "MarkovSource":
        """A random source: after every context a distribution from a symmetric Dirichlet.

        The smaller the `concentration`, the fewer codes are likely to follow a context. Raises
        ConfigError for settings out of bounds.
        """
        if n_codes < 2 or order < 1 or n_codes**order > MOST_CONTEXTS or concentration <= 0:
            raise ConfigError(
                f"n_codes: {n_codes}, order: {order}, concentration: {concentration}; the least is "
                f"2, 1 and above 0, and n_codes to the power of order at most {MOST_CONTEXTS:,}"
            )
        rng = np.random.default_rng(seed)
        return cls(rng.dirichlet(np.full(n_codes, float(concentration)), (n_codes,) * order))

    @cached_property
    def _tables(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For j = 0 … order known codes: p(known codes) (K^j,), p(next | known codes) (K^j, K)."""
        tables = []
        for known in range(self.order):
            joint = self.stationary.sum(axis=tuple(range(known + 1, self.order)))
            joint = joint.reshape(-1, self.n_codes)
            weight = joint.sum(axis=1)
            tables.append((weight, joint / np.where(weight > 0, weight, 1)[:, None]))
        return [*tables, (self.stationary.ravel(), self.transition.reshape(-1, self.n_codes))]

    @cached_property
    def entropies(self) -> np.ndarray:
        """H(X1), H(X2 | X1), …, and the entropy rate of all later codes. (order + 1,) nats."""
        return np.array([weight @ entr(table).sum(axis=1) for weight, table in self._tables])

    @property
    def entropy_rate(self) -> float:
        """Nats per code given all before (Cover, Thomas: Elements of Information Theory, 4.2.4)."""
        return float(self.entropies[-1])

    def limit(self, length: int) -> float:
        """The lowest expected NLL of any model on rows: the mean entropy of a code, in nats."""
        return float(self.entropies[np.minimum(np.arange(length), self.order)].mean())

    def rows(self, n: int, length: int, seed: int = 0) -> np.ndarray:
        """Sample `n` rows. (n, length) int64; a larger `n` only adds rows after these."""
        uniform = np.random.default_rng(seed).random((n, length))
        codes = np.zeros((n, length), dtype=np.int64)
        for place in range(length):
            cumulative = self._after(codes, place).cumsum(axis=1)  # (n, K)
            cumulative /= cumulative[:, -1:]  # ends at exactly 1
            codes[:, place] = (cumulative <= uniform[:, [place]]).sum(axis=1)
        return codes

    def score(self, rows: Sequence[Sequence[int]], vocab: Mapping[str, int]) -> TokenScores:
        """Score rows of ids that `write` wrote under the source itself, as `score_tokens` does.

        The result pairs with ``score_tokens(model, rows).of_kind(kinds, KIND_CODE)``. Raises
        DataError for codes that are not the source's.
        """
        ids = np.array(list(rows))[:, 3:-2]  # (N, P), without <CLS> <CLS> <IMG> and </IMG> <EOS>
        known = [vocab[code_token(k)] for k in range(self.n_codes)]
        if not np.isin(ids, known).all():
            raise DataError("score: these rows hold other codes than the source's; give its own")
        codes = np.searchsorted(known, ids)
        tables = [self._after(codes, place) for place in range(codes.shape[1])]
        probabilities = np.stack(tables, axis=1)  # (N, P, K)
        chosen = np.take_along_axis(probabilities, codes[..., None], axis=2)  # (N, P, 1)
        rank = (probabilities >= chosen).sum(axis=2) - 1  # a tie counts against it
        row, place = np.indices(codes.shape)
        with np.errstate(divide="ignore"):  # infinite for a code that cannot follow
            nll = -np.log(chosen)
        columns = (row, place + 3, ids, nll, rank)
        return TokenScores(*(column.ravel() for column in columns), len(codes))

    def _after(self, codes: np.ndarray, place: int) -> np.ndarray:
        """p(code at `place` | those before it) for each row of `codes` (N, P). (N, K)"""
        known = min(place, self.order)
        context = self.n_codes ** np.arange(known)[::-1] @ codes.T[place - known : place]
        return self._tables[known][1][context]  # the row's number: its context in base K

    def write(
        self, directory: str | Path, n_rows: Mapping[str, int], length: int, seed: int = 0
    ) -> DataFiles:
        """Write sequences.jsonl and vocab.json, with `n_rows` of "train", "val" and "test".

        Each row is ``<CLS> <CLS> <IMG> codes </IMG> <EOS>``; the vocabulary has no class tokens.
        `load_corpus` refuses rows that stand in two splits: take longer rows.
        """
        # Train comes last, so that val and test do not depend on its size.
        sides = [name for name in SPLITS[::-1] for _ in range(n_rows.get(name, 0))]
        codes = self.rows(len(sides), length, seed)
        records = [
            Record(draw_layout(row, None), None, {"split": side, "source_id": f"row-{i:06d}"})
            for i, (row, side) in enumerate(zip(codes, sides, strict=True))
        ]
        files = DataFiles(Path(directory) / SEQUENCES, Path(directory) / VOCAB)
        write_json(files.vocab_path, default_vocab(self.n_codes, 0))
        write_records(files.data_path, records)
        return files


def _stationary(transition: np.ndarray) -> np.ndarray:
    """The one distribution of contexts that a step does not change. (K, …, K) with order axes."""
    contexts, n_codes = transition[..., 0].size, transition.shape[-1]
    before = np.repeat(np.arange(contexts), n_codes)
    after = np.arange(contexts * n_codes) % contexts  # the oldest code drops out
    step = np.zeros((contexts, contexts))
    step[before, after] = transition.ravel()
    n_sets, member = connected_components(step, connection="strong")
    before, after = (member[states] for states in step.nonzero())
    closed = n_sets - len(np.unique(before[before != after]))
    if closed > 1:
        raise ConfigError(
            f"transition: there are {closed} sets of codes that the source never leaves, so it has "
            "no single entropy rate; make a way out of each, or use a larger concentration"
        )
    balance = step.T - np.eye(contexts)
    balance[-1] = 1  # one equation follows from the others; replace it by: they sum to 1
    solution = np.maximum(np.linalg.solve(balance, np.eye(contexts)[-1]), 0)  # rounding
    return (solution / solution.sum()).reshape(transition.shape[:-1])
