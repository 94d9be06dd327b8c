"""A source of codes whose entropy is known exactly: the straight edge that the ruler is held to.

Of real data nobody knows how well it could be predicted. Of a Markov source everybody can work it
out, so a model's NLL on its rows has a true limit: a good model comes down to it, and a ruler that
shows less, by more than luck, is bent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from seqlm.config import DataFiles
from seqlm.data.build import SEQUENCES, VOCAB
from seqlm.data.records import SPLITS, Record, write_records
from seqlm.data.splits import leaks
from seqlm.data.tokens import KIND_CODE, code_token, default_vocab, draw_layout, token_kinds
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.scores import TokenScores
from seqlm.lab.chains import (
    check_contexts,
    check_transition,
    cumulative,
    row_entropies,
    stationary_state,
    surprisal,
)
from seqlm.utils import write_json

NO_CODE, STRANGER = -1, -2


@dataclass(frozen=True, eq=False)
class MarkovSource:
    """Codes in which each depends on the last `order` codes, and on nothing else.

    It runs in its stationary state from the first code on: wherever a window of codes is taken,
    its probability is the same.

    Attributes:
        transition: p(next | the last `order` codes, oldest first), (K, …, K) with order + 1 axes;
            the last axis sums to 1.

    Raises ConfigError when `transition` is no such table, or when more than one stationary state
    fits it, so that no single entropy rate belongs to it.
    """

    transition: np.ndarray

    def __post_init__(self):
        try:
            table = np.array(self.transition, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "transition: not a table of numbers; give one of the shape (K, K) or (K, K, K)"
            ) from error
        check_transition(table)
        table.setflags(write=False)
        object.__setattr__(self, "transition", table)
        _ = (
            self.stationary
        )  # at once, so that a source without just one is refused where it is made

    @classmethod
    def random(
        cls, n_codes: int = 8, order: int = 2, concentration: float = 0.3, seed: int = 0
    ) -> "MarkovSource":
        """A source drawn at random: after every context a distribution from a symmetric Dirichlet.

        The smaller the `concentration`, the fewer codes are likely to follow a context; 1 makes
        all distributions equally likely, and large numbers make all codes about equally likely.
        """
        _check_count("n_codes", n_codes, 2)
        _check_count("order", order, 1)
        _check_count("seed", seed, 0)
        check_contexts(n_codes**order)
        if not isinstance(concentration, int | float) or not 0 < concentration < np.inf:
            raise ConfigError(f"concentration: must be a number above 0, got {concentration!r}")
        lots = np.random.default_rng(seed)
        return cls(lots.dirichlet(np.full(n_codes, float(concentration)), (n_codes,) * order))

    @property
    def n_codes(self) -> int:
        """How many different codes there are: K."""
        return self.transition.shape[-1]

    @property
    def order(self) -> int:
        """How many codes back the next one looks."""
        return self.transition.ndim - 1

    @cached_property
    def stationary(self) -> np.ndarray:
        """Probability of each context, oldest code first. (K, …, K) with `order` axes, float64.

        It is the one distribution that a step of the source leaves as it is.
        """
        return stationary_state(self.transition)

    @cached_property
    def _given(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For j = 0 … order codes known: their probability (K^j,), and p(next | them) (K^j, K).

        The first codes of a row have fewer before them than `order`; what is known of those is
        what the stationary distribution says.
        """
        tables = []
        for known in range(self.order):
            joint = self.stationary.sum(axis=tuple(range(known + 1, self.order)))
            joint = joint.reshape(-1, self.n_codes)
            weight = joint.sum(axis=1)
            possible = np.where(weight > 0, weight, 1)  # what never comes keeps a row of zeros
            tables.append((weight, joint / possible[:, None]))
        tables.append((self.stationary.ravel(), self.transition.reshape(-1, self.n_codes)))
        return tables

    @cached_property
    def entropies(self) -> np.ndarray:
        """Expected surprisal of the first code, the second, …, in nats; the last is the rate's.

        (order + 1,) float64: H(X1), H(X2 | X1), …, and h for every later code. None is larger than
        the one before it: to know more never hurts on average.
        """
        return np.array([weight @ row_entropies(table) for weight, table in self._given])

    @property
    def entropy_rate(self) -> float:
        """h = - sum_i pi_i sum_j P_ij ln P_ij, in nats per code; i runs over contexts.

        Sources: C. E. Shannon, A Mathematical Theory of Communication (1948), section 7;
        T. M. Cover and J. A. Thomas, Elements of Information Theory (2006), theorem 4.2.4.
        """
        return float(self.entropies[-1])

    def limit(self, length: int) -> float:
        """The least expected NLL that any model can have on rows of `length` codes, nats per code.

        (H(X1) + H(X2 | X1) + … + (length - order) h) / length, by the chain rule of entropy. It
        lies above `entropy_rate`, because the first codes have less before them to go by.
        """
        return float(self.limit_by_position(length).mean())

    def limit_by_position(self, length: int) -> np.ndarray:
        """The same for each place in a row. (length,) float64, nats."""
        _check_count("length", length, 1)
        return self.entropies[np.minimum(np.arange(length), self.order)]

    def rows(self, n: int, length: int, seed: int = 0) -> np.ndarray:
        """`n` independent rows of `length` codes, (n, length) int64; of more, these come first."""
        _check_count("n", n, 1)
        _check_count("length", length, 1)
        _check_count("seed", seed, 0)
        lots = np.random.default_rng(seed).random((n, length))
        codes = np.zeros((n, length), dtype=np.int64)
        climbs = [cumulative(table) for _, table in self._given]
        for place in range(length):
            known = min(place, self.order)
            context = self._number(codes[:, place - back] for back in range(known, 0, -1))
            climb = climbs[known][context]  # (n, K), or (K,) for the first code
            codes[:, place] = (climb <= lots[:, place, None]).sum(axis=1)
        return codes

    def nll(self, codes: np.ndarray) -> np.ndarray:
        """The source's own -ln p(code | all codes before it), nats. (N, L) int -> (N, L) float64.

        Infinite for a code that the source would never say there. Raises DataError for numbers
        that are no codes of it.
        """
        codes = np.asarray(codes)
        if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
            raise DataError(
                f"codes: whole numbers of the shape (N, L) are wanted, got {codes.dtype} of the "
                f"shape {codes.shape}"
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < self.n_codes:
            raise DataError(
                f"codes: they go from {codes.min()} to {codes.max()}, this source's from 0 to "
                f"{self.n_codes - 1}; give rows of this source"
            )
        flat, place = codes.ravel(), np.tile(np.arange(codes.shape[1]), len(codes))
        of_target = self._foreseen(flat, place)[np.arange(len(flat)), flat]
        return surprisal(of_target).reshape(codes.shape)

    def score(self, rows: Sequence[Sequence[int]], vocab: Mapping[str, int]) -> TokenScores:
        """What `metrics.score_tokens` says of a model, said of the source itself: codes alone.

        `rows` are lists of ids under `vocab`, of any lengths, such as `corpus.rows("test")`. The
        lines are those of ``score_tokens(model, rows).of_kind(kinds, KIND_CODE)``, in the same
        order, so that the two can be paired. Rows cut from the left are scored right as well:
        wherever a window begins, its first code has the same distribution.

        Raises DataError when a row holds codes that are not this source's, or other tokens
        among them.
        """
        code_of_id = self._codes_of_ids(vocab)
        found = [_codes_in(ids, code_of_id, f"row {i + 1}") for i, ids in enumerate(rows)]
        if not found:
            raise DataError("there are no rows to score; give some, such as corpus.rows('test')")
        position, target, place = (np.concatenate(column) for column in zip(*found, strict=True))
        row = np.repeat(np.arange(len(rows)), [len(columns[0]) for columns in found])
        codes = code_of_id[target]
        foreseen = self._foreseen(codes, place)  # (M, K)
        of_target = foreseen[np.arange(len(codes)), codes]
        rank = (foreseen >= of_target[:, None]).sum(axis=1) - 1  # a tie counts against it
        scores = TokenScores(row, position, target, surprisal(of_target), rank, len(rows))
        return scores.where(position > 0)  # nobody predicts the first token of a row

    def _codes_of_ids(self, vocab: Mapping[str, int]) -> np.ndarray:
        """The code that each id stands for, NO_CODE, or STRANGER: another's code. (V,) int64."""
        is_code = token_kinds(dict(vocab)) == KIND_CODE
        codes = np.where(is_code, STRANGER, NO_CODE)
        for code in range(self.n_codes):
            if code_token(code) in vocab:
                codes[vocab[code_token(code)]] = code
        return codes

    def _foreseen(self, codes: np.ndarray, place: np.ndarray) -> np.ndarray:
        """p(every code | those before it in its row). `codes`, `place` (M,) -> (M, K).

        Rows stand one after the other in `codes`; `place` counts from 0 within each.
        """
        found = np.empty((len(codes), self.n_codes))
        for known, (_, table) in enumerate(self._given):
            at = np.flatnonzero(np.minimum(place, self.order) == known)
            found[at] = table[self._number(codes[at - back] for back in range(known, 0, -1))]
        return found

    def _number(self, codes: Iterable[np.ndarray]) -> np.ndarray | int:
        """Codes, oldest first, as the digits of one number in base K: the line of their context."""
        number = 0
        for column in codes:
            number = number * self.n_codes + column
        return number

    def write(
        self, directory: str | Path, n_rows: Mapping[str, int], length: int, seed: int = 0
    ) -> DataFiles:
        """Write sequences.jsonl and vocab.json in the data contract; `load_corpus` reads both.

        `n_rows` says how many rows each split gets: {"train": 1000, "val": 100, "test": 100}. The
        source knows no classes, so each row is one to draw with the class withheld,
        ``<CLS> <CLS> <IMG> codes </IMG> <EOS>``, and the vocabulary has no class tokens.

        Raises ConfigError when the same row turns up on two sides of the split: to leave it out
        would bend the distribution, and with it the limit.
        """
        _check_splits(n_rows)
        # Train comes last, so that another size of it leaves val and test as they are.
        sides = [name for name in SPLITS[::-1] for _ in range(n_rows.get(name, 0))]
        codes = self.rows(len(sides), length, seed)
        records = [
            Record(draw_layout(row, None), None, {"split": side, "source_id": f"row-{i:06d}"})
            for i, (row, side) in enumerate(zip(codes, sides, strict=True))
        ]
        found = leaks({name: [r for r in records if r.meta["split"] == name] for name in SPLITS})
        if found:
            raise ConfigError(
                f"length: at {length} codes a row, {len(found)} rows come up in two splits; take "
                "longer rows, or a source with more codes"
            )
        files = DataFiles(Path(directory) / SEQUENCES, Path(directory) / VOCAB)
        write_json(files.vocab_path, default_vocab(self.n_codes, 0))
        write_records(files.data_path, records)
        return files


def _codes_in(
    ids: Sequence[int], code_of_id: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each code in one row: its position, its id, and how many codes stand before it."""
    ids = np.asarray(ids, dtype=np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(code_of_id):
        raise DataError(
            f"{where}: its ids run from {ids.min()} to {ids.max()}, the vocabulary's from 0 to "
            f"{len(code_of_id) - 1}; give the vocabulary that the rows were encoded with"
        )
    at = np.flatnonzero(code_of_id[ids] != NO_CODE)
    if (code_of_id[ids] == STRANGER).any():
        raise DataError(f"{where}: it holds a code that this source does not have; leave it out")
    if len(at) and at[-1] - at[0] != len(at) - 1:
        raise DataError(f"{where}: other tokens stand among its codes; take them out")
    return at, ids[at], np.arange(len(at))


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name}: must be a whole number of at least {least}, got {value!r}")


def _check_splits(n_rows: Mapping[str, int]) -> None:
    if not {"train", "val"} <= set(n_rows) <= set(SPLITS):
        raise ConfigError(
            f"n_rows: it has {', '.join(n_rows) or 'nothing'}; train and val are wanted, test may "
            "stand beside them"
        )
    for name, count in n_rows.items():
        _check_count(f"n_rows: {name}", count, 1)
