"""Synthetic data with known entropy, to validate the evaluation.

The entropy of a Markov source can be computed. It is a lower bound on the expected NLL of every
model: an evaluation whose interval lies below it is wrong.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import entr

from seqlm.config import DataFiles
from seqlm.data.build import SEQUENCES, VOCAB
from seqlm.data.records import SPLITS, Record, write_records
from seqlm.data.tokens import KIND_CODE, code_token, default_vocab, draw_layout, token_kinds
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
        if table.ndim < 2 or table.shape[-1] < 2 or len(set(table.shape)) > 1:
            raise ConfigError(
                f"transition: the shape is {table.shape}; give (K, K), or (K, K, K) for order 2, "
                "with K of at least 2"
            )
        if (table < 0).any() or not np.allclose(table.sum(axis=-1), 1, atol=1e-9):
            raise ConfigError(
                "transition: some probabilities are below 0 or do not sum to 1; each row must be a "
                "distribution"
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

    def limit_by_position(self, length: int) -> np.ndarray:
        """The lowest expected NLL of any model for each code of a row. (length,) nats."""
        return self.entropies[np.minimum(np.arange(length), self.order)]

    def limit(self, length: int) -> float:
        """Its mean: (H(X1) + H(X2 | X1) + … + (length - order) h) / length, nats per code."""
        return float(self.limit_by_position(length).mean())

    def rows(self, n: int, length: int, seed: int = 0) -> np.ndarray:
        """Sample `n` rows. (n, length) int64; a larger `n` only adds rows after these."""
        uniform = np.random.default_rng(seed).random((n, length))
        codes = np.zeros((n, length), dtype=np.int64)
        for place in range(length):
            known = min(place, self.order)
            context = self._context(codes.T[place - known : place])
            cumulative = self._tables[known][1][context].cumsum(axis=1)  # (n, K)
            cumulative /= cumulative[:, -1:]  # ends at exactly 1
            codes[:, place] = (cumulative <= uniform[:, [place]]).sum(axis=1)
        return codes

    def score(self, rows: Sequence[Sequence[int]], vocab: Mapping[str, int]) -> TokenScores:
        """Score rows of ids under the source itself, as `score_tokens` does under a model.

        The result pairs with ``score_tokens(model, rows).of_kind(kinds, KIND_CODE)``. Rows may be
        cut from the left. Raises DataError for codes that are not consecutive ones of the source.
        """
        row = np.repeat(np.arange(len(rows)), [len(ids) for ids in rows])
        position = np.arange(len(row)) - np.searchsorted(row, row)
        target = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
        is_code = token_kinds(dict(vocab))[target] == KIND_CODE
        row, position, target = row[is_code], position[is_code], target[is_code]
        first = np.searchsorted(row, row)  # where the codes of the same row begin
        place = np.arange(len(row)) - first
        code_of_id = np.full(len(vocab), self.n_codes)
        code_of_id[[vocab[code_token(k)] for k in range(self.n_codes)]] = np.arange(self.n_codes)
        codes = code_of_id[target]
        wrong = (codes == self.n_codes) | (position - place != position[first])
        if wrong.any():
            raise DataError(
                f"row {row[wrong][0] + 1}: its codes are not consecutive codes of this source; "
                "score rows that the source wrote"
            )
        probabilities = np.empty((len(codes), self.n_codes))  # (M, K)
        for known, (_, table) in enumerate(self._tables):
            at = np.flatnonzero(np.minimum(place, self.order) == known)
            before = at - np.arange(known, 0, -1)[:, None]  # (known, ·)
            probabilities[at] = table[self._context(codes[before])]
        chosen = probabilities[np.arange(len(codes)), codes]
        rank = (probabilities >= chosen[:, None]).sum(axis=1) - 1  # a tie counts against it
        with np.errstate(divide="ignore"):  # infinite for a code that cannot follow
            scores = TokenScores(row, position, target, -np.log(chosen), rank, len(rows))
        return scores.where(position > 0)  # no model predicts the first token of a row

    def _context(self, columns: np.ndarray) -> np.ndarray:
        """Rows of a table for known codes (j, M), oldest first: numbers in base K. (M,)."""
        return self.n_codes ** np.arange(len(columns))[::-1] @ columns

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
