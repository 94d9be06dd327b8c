"""Your own labelled rows, cross-validated: a small GPT beside n-grams and random forests.

`make bench-user DATA=mine.jsonl VOCAB=vocab.json` divides the rows into five folds. Each fold is
measured once, by models that learned from the other four; a tenth of those rows chooses the
checkpoint. So every row is measured: with few rows the intervals are narrower than on one test
split. The table goes to outputs/user_rows, with the models; an interrupted run goes on.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# isort: split
import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold

from seqlm.config import DataFiles, ModelConfig, TrainConfig
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.splits import leaks
from seqlm.data.tokens import KIND_CODE
from seqlm.errors import DataError, SeqlmError
from seqlm.evaluation.classical import bag_of_codes
from seqlm.evaluation.estimates import proportion
from seqlm.evaluation.metrics import mean_over_tokens, perplexity
from seqlm.evaluation.ngrams import baseline_name, fit_ngrams
from seqlm.evaluation.scores import class_probabilities, score_tokens, sum_scores
from seqlm.evaluation.significance import mcnemar, ratio_of_rows
from seqlm.evaluation.tables import markdown_table
from seqlm.models.gpt2 import load_classifier, load_lm
from seqlm.training.tasks import train_classifier, train_lm
from seqlm.utils import write_text

ROOT = Path(__file__).parents[1]
FOLDS, VAL_FOLDS, SEED = 5, 10, 42
# Chosen on the val rows of the first fold (docs/experiments.md).
SIZE = ModelConfig(size="nano", dropout=0.1)
LM = TrainConfig(
    batch_size=4, max_steps=190, optimizer="muon", learning_rate=1e-2, evals=4, patience=0
)
CLASSIFIER = TrainConfig(batch_size=8, max_steps=50, learning_rate=5e-4, evals=3, patience=0)
GPT, TUNED = "GPT: class token", "GPT: fine-tuned classifier"
COUNTS, BAG = "forest on two counts of rare codes", "forest on counts of each code"


def divide(corpus: Corpus) -> Iterator[Corpus]:
    """A corpus for each fold: its rows are test, a tenth of the others val.

    Raises DataError when a fold shares a row of codes with another.
    """
    rows = corpus.records("all", "read")
    labels, sources = rows.column("label"), corpus.sources("all", "read")
    if labels.min(initial=0) < 0:
        raise DataError(f"{corpus.path}: every row needs a label here")
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
    inner = StratifiedGroupKFold(VAL_FOLDS, shuffle=True, random_state=SEED)
    for learned, tested in folds.split(labels, labels, sources):
        _, chosen = next(inner.split(learned, labels[learned], sources[learned]))
        side = np.zeros(len(rows), int)
        side[tested], side[learned[chosen]] = 2, 1
        splits = {name: rows[side == k] for k, name in enumerate(("train", "val", "test"))}
        if shared := leaks(splits):
            raise DataError(f"{corpus.path}: {shared[0]}; remove one of the rows")
        yield Corpus(corpus.vocab, splits, corpus.max_length, corpus.path)


def rare_codes(corpus: Corpus) -> np.ndarray:
    """Which ids are rare in the train rows, and which come at places far apart. (2, V) bool.

    Where a code means "about here, dark", bright pixels have the codes that are seldom and
    anywhere. Both limits lie half way between two clusters of codes.
    """
    rows, size = corpus.rows("train"), len(corpus.vocab)
    ids, places = rows.flat(), np.concatenate([np.arange(n) for n in rows.lengths])
    n, first, second = (np.bincount(ids, places**k, size) for k in (0.0, 1.0, 2.0))
    seen = n > 1
    spread = np.sqrt(np.maximum(second / np.maximum(n, 1) - (first / np.maximum(n, 1)) ** 2, 0))
    counted = seen & (corpus.kinds == KIND_CODE)

    def half_way(values: np.ndarray) -> float:
        return KMeans(2, n_init=5, random_state=0).fit(values[:, None]).cluster_centers_.mean()

    rare = np.log(np.maximum(n, 1)) < half_way(np.log(n[counted]))
    far = ~seen | (spread > half_way(spread[counted]))
    return np.stack([rare, far]) & (corpus.kinds == KIND_CODE)


def forest_guesses(corpus: Corpus) -> dict[str, np.ndarray]:
    """The test classes by two random forests: name -> (N,)."""
    rare, (train, labels) = rare_codes(corpus), corpus.to_classify("train")
    test = corpus.to_classify("test")[0]

    def count(rows) -> np.ndarray:
        return np.array([rare[:, row].sum(axis=1) for row in rows])  # (N, 2)

    guesses = {}
    for name, features, leaf in (
        (COUNTS, count, 5),
        (BAG, partial(bag_of_codes, kinds=corpus.kinds), 1),
    ):
        forest = RandomForestClassifier(300, min_samples_leaf=leaf, random_state=SEED)
        guesses[name] = forest.fit(features(train), labels).predict(features(test))
    return guesses


def measure(corpus: Corpus, folder: Path, longer: float = 1.0) -> tuple[dict, dict]:
    """Train on one fold; NLL of the codes of each test row, and guessed classes, by name.

    `longer` multiplies the steps of both trainings.
    """
    lm_config, class_config = (
        replace(c, output_dir=folder / name, max_steps=max(1, round(longer * c.max_steps)))
        for name, c in (("lm", LM), ("classifier", CLASSIFIER))
    )
    size, vocab = replace(SIZE, n_positions=corpus.longest), corpus.vocab
    train_lm(corpus, size, lm_config)
    start = folder / "lm" / "best_model"
    train_classifier(corpus, size, class_config, start)
    lm, prompts = load_lm(start), corpus.to_classify("test")[0]
    tuned = load_classifier(folder / "classifier" / "best_model")
    scorers = {"GPT": partial(score_tokens, lm)}
    scorers |= {
        name: ngram.score
        for name, ngram in fit_ngrams(
            corpus.rows("train"), corpus.rows("val"), len(vocab), corpus.kinds
        ).items()
    }
    sums = {k: sum_scores(score, corpus.rows("test"), corpus.kinds) for k, score in scorers.items()}
    nats = {name: of.nll[KIND_CODE] for name, of in sums.items()}
    nats["codes"] = sums["GPT"].tokens[KIND_CODE]
    guesses = {
        GPT: class_probabilities(lm, prompts, corpus.class_ids).argmax(1),
        TUNED: class_probabilities(tuned, prompts).argmax(1),
        **forest_guesses(corpus),
    }
    return nats, guesses | {"label": corpus.to_classify("test")[1]}


def summarize(nats: dict, guesses: dict) -> dict[str, str]:
    """The two tables, as Markdown; every number is over the rows of all folds."""
    nats, guesses = dict(nats), dict(guesses)
    codes, label = nats.pop("codes"), guesses.pop("label")
    rows, ranked = np.arange(len(codes)), sorted(nats, key=lambda name: nats[name].sum())
    losses, accuracies = [], []
    for name in ranked:
        nll = mean_over_tokens(nats[name], rows, "nats per token", codes)
        ratio = ratio_of_rows(rows, nats["GPT"], nats[name])
        saved = replace(ratio, value=1 - ratio.value, low=1 - ratio.high, high=1 - ratio.low)
        shown = "" if name == "GPT" else replace(saved, unit="share").format()
        losses.append((baseline_name(name), nll.format(), perplexity(nll).format(), shown))
    right = {name: guess == label for name, guess in guesses.items()}
    best = max((COUNTS, BAG), key=lambda name: right[name].sum())
    for name in sorted(right, key=lambda name: -right[name].sum()):
        gap = mcnemar(right[name], right[best]).difference.map(lambda x: 100 * x, "points")
        of_class = " ".join(f"{right[name][label == k].mean():.0%}" for k in np.unique(label))
        cells = (name, proportion(right[name]).format(), "" if name == best else gap.format())
        accuracies.append((*cells, of_class))
    header = ("model", "NLL per code", "perplexity", "the GPT saves")
    classes = f"accuracy of class {', '.join(map(str, np.unique(label)))}"
    return {
        "nll": markdown_table(header, losses, "lrrr"),
        "accuracy": markdown_table(
            ("classifier", "accuracy", f"minus {best}, points", classes), accuracies, "lrrl"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--vocab_path", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "user_rows")
    parser.add_argument("--longer", type=float, default=1.0, help="times the steps of training")
    options = parser.parse_args()
    files = DataFiles(options.data_path, options.vocab_path, repair_tail=True)
    measured = []
    for k, corpus in enumerate(divide(load_corpus(files, divide=False)), 1):
        sizes = ", ".join(f"{len(rows)} {name}" for name, rows in corpus.splits.items())
        print(f"== fold {k} of {FOLDS}: {sizes}", flush=True)
        measured.append(measure(corpus, options.output_dir / f"fold_{k}", options.longer))
    nats, guesses = (
        {name: np.concatenate([fold[i][name] for fold in measured]) for name in measured[0][i]}
        for i in (0, 1)
    )
    tables = summarize(nats, guesses)
    n = len(guesses["label"])
    note = f"{FOLDS} folds, n = {n:,} rows, each measured once; {SIZE.size}"
    write_text(options.output_dir / "results.md", "\n\n".join([note, *tables.values()]) + "\n")
    print((options.output_dir / "results.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    try:
        main()
    except SeqlmError as error:
        raise SystemExit(f"error: {error}") from error
