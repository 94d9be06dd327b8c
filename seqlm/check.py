"""What a data set holds that would mislead: findings of `seqlm check`, and before training."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from seqlm.data.corpus import Corpus
from seqlm.data.splits import SPLITS
from seqlm.data.table import Table, first_rows
from seqlm.data.tokens import KIND_CODE, UNK

SOME, HALF = 0.01, 0.5  # shares that are worth a look, or mislead
RUN, NEAR = 3, 0.6  # codes in a run; of the runs in two near copies, the share that is in both
RUNS_COMPARED, WIDEST = 100, 1_000  # of an average row, at random; most rows with one run
QUICK = 2**20  # tokens that are searched for near copies within seconds


@dataclass(frozen=True)
class Finding:
    """`count` of `total` rows, codes or classes, and what to do about them."""

    name: str
    count: int
    total: int
    advice: str
    look: float = 0.0  # a larger share is worth a look
    misleads: float = 1.0  # with a larger share, what is trained or measured would mislead
    lines: tuple[int, ...] = ()  # in the file

    @property
    def level(self) -> str:
        """ "fine", "look" or "misleads"."""
        share = self.count / max(1, self.total)
        return "misleads" if share > self.misleads else "look" if share > self.look else "fine"

    def __str__(self) -> str:
        lines = f" (first line {self.lines[0]})" if self.lines else ""
        advice = "" if self.level == "fine" else f"; {self.advice}"
        return f"{self.name}: {self.count:,} of {self.total:,}{lines}{advice}"


def all_rows(corpus: Corpus) -> tuple[Table, np.ndarray]:
    """The rows of all splits, in the order of the file, and the side of each: a place in SPLITS.

    The side is -1 where rows are not divided and name no split.
    """
    parts = [corpus.records(name) for name in corpus.splits]
    rows, places = sum(parts[1:], parts[0]), [[*SPLITS, "all"].index(k) for k in corpus.splits]
    side = np.repeat(places, [*map(len, parts)])
    side = np.where(side < len(SPLITS), side, rows.column("split"))
    order = np.argsort(rows.column("line"), kind="stable")
    return rows[order], side[order]


def count_tokens(rows: Table, which: np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each token is in the rows that `which` (N,) bool names. (V,) int64."""
    counts = np.zeros(vocab_size, np.int64)
    for row in rows[which].ids():
        np.add.at(counts, row, 1)
    return counts


def whole_lengths(rows: Table) -> np.ndarray:
    """Tokens in each row of the file, before codes were cut. (N,) int64."""
    lengths, cut = rows.column("length"), np.flatnonzero(rows.column("cut"))
    lengths[cut] += np.array([row.meta["cut_codes"] for row in rows[cut]], np.int64)
    return lengths


def find_all(corpus: Corpus, classifies: bool, group: np.ndarray | None = None) -> list[Finding]:
    """All findings; `group` comes from `near_copies` of `all_rows`.

    Without it only what is worth a look, without what reading the rows reports, and slow work.
    """
    rows, side = all_rows(corpus)
    labels, codes, every = rows.column("label"), rows.column("codes"), np.arange(len(rows))
    labelled, quick = labels >= 0, group is None
    used = [count_tokens(rows, part, len(corpus.kinds)) for part in (side <= 0, side > 0)]
    used = np.stack(used)  # by train rows, by those of val and test. (2, V)
    unknown, used = int(used[:, corpus.vocab[UNK]].sum()), used[:, corpus.kinds == KIND_CODE]
    counts = np.unique(labels[labelled], return_counts=True)[1]
    classes = max(len(corpus.class_ids), len(counts)) if len(counts) else 0
    rare = classes - int((10 * counts >= counts.max(initial=0)).sum())
    single = classifies and len(counts) < 2

    def of_rows(name: str, which: np.ndarray, *rest) -> Finding:
        lines = tuple(rows.column("line")[which].tolist())
        return Finding(name, int(which.sum()), len(rows), *rest, lines)

    findings = [
        of_rows("rows cut to max_length", rows.column("cut"), "raise --max_length", 0, HALF),
        of_rows("rows with the codes of an earlier row",
                first_rows(codes + rows.column("layout")) != every,
                "they stay in one split, but count twice: remove them", SOME, 1),
        of_rows("rows with the codes of an earlier row, but another label",
                labels != labels[first_rows(np.where(labelled, codes, 0))],
                "one label is wrong, or codes lose what the classes differ in", 0, 1),
        of_rows("rows without a label", ~labelled & classifies,
                "a classifier leaves them out: add labels", 0, HALF),
        Finding("classes without a row, or with less than a tenth of the largest class's", rare,
                classes, "collect more of them; read macro F1 beside accuracy"),
        Finding("classes too few for a classifier", int(single), 1, "label rows of two", 0, 0),
        Finding("unknown codes", unknown, unknown + int(used.sum()), f"each is read as {UNK}: add "
                "them to the vocabulary", 0, HALF),
        Finding("codes in val and test that no train row holds", int(used[1, used[0] == 0].sum()),
                int(used[1].sum()), "no model can learn them from these rows: collect more, or "
                "make fewer different codes", SOME, HALF),
    ]  # fmt: skip
    if not quick:
        codes_cut = int((whole_lengths(rows) - rows.column("length")).sum())
        of_codes = codes_cut + unknown + int(used.sum()), "raise --max_length", 0, HALF
        findings.append(Finding("codes cut to max_length", codes_cut, *of_codes))
        unused = int((used.sum(0) == 0).sum())
        advice = "make sure that it is the vocabulary of these rows; a smaller one trains faster"
        name = "codes of the vocabulary that no row holds"
        findings.append(Finding(name, unused, used.shape[1], advice, HALF))
        lacks, most = rows.column("lacks"), 1 if classifies else SOME
        advice = "no model can learn the class from them: use --repair_tail"
        findings.append(of_rows("rows that lack their class token", lacks, advice, 0, most))
    if not quick or rows.column("length").sum() <= QUICK:
        group = near_copies(rows, corpus.kinds) if quick else group
        advice = "give a row and its copies one meta.source_id, which keeps them in one split"
        near = (first_rows(1 + group) != every) & (first_rows(codes) == every)
        leaks = np.isin(group, group[side == 0]) & (side > 0)
        findings.append(of_rows("near copies of an earlier row", near, advice, SOME, 1))
        leak = of_rows("rows of val and test that nearly copy a train row", leaks, advice, 0, SOME)
        findings.append(replace(leak, total=int((side > 0).sum())))
    return findings if not quick else [f for f in findings if f.level != "fine"]


def near_copies(rows: Table, kinds: np.ndarray) -> np.ndarray:
    """The group of each row: rows linked by near or exact copies; rows of one source are not near.

    Near is a Jaccard similarity of at least NEAR of their sets of runs of RUN codes (of long rows
    a random part of the runs). Runs in more than WIDEST rows do not count. (N,) int.
    """
    ids, n = rows.ids(), len(rows)
    flat, owner = ids.flat(), np.repeat(np.arange(n), ids.lengths)
    flat, owner = (part[kinds[flat] == KIND_CODE] for part in (flat, owner))
    names = np.random.default_rng(0).integers(2**64, size=len(kinds), dtype=np.uint64)[flat]
    runs = sum(np.roll(names, -k) * np.uint64(2 * 10**k + 1) for k in range(RUN)) >> np.uint64(40)
    share = min(1.0, RUNS_COMPARED * n / max(1, len(flat)))
    kept = (owner == np.roll(owner, 1 - RUN)) & (runs % 997 < 997 * share)
    bag = csr_array((np.ones(kept.sum()), (owner[kept], runs[kept].astype(int))), (n, 2**24))
    bag.data[:] = 1  # a set of runs: csr_array has added up those of one row
    bag = bag[:, np.flatnonzero(bag.sum(0) <= WIDEST)]
    sizes, source = bag.sum(1), rows.column("source")
    bag = bag[:, np.flatnonzero(bag.sum(0) > 1)]
    pairs = [np.stack([first_rows(rows.column("codes")), np.arange(n)])]
    for start in range(0, n, 256):
        both = (bag[start : start + 256] @ bag.T).tocoo()
        a, b = both.coords[0] + start, both.coords[1]
        near = both.data >= NEAR * (sizes[a] + sizes[b] - both.data)
        near &= (source[a] != source[b]) | (source[a] == 0)
        pairs.append(np.stack([a[near], b[near]]))
    pairs = np.concatenate(pairs, axis=1)
    links = csr_array((np.ones(pairs.shape[1]), tuple(pairs)), (n, n))
    return connected_components(links, directed=False)[1]
