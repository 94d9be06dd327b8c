"""Checkers of the exercises on tokens: codebook, splits, labels, embeddings."""

import numpy as np

from seqlm.exercises.checker import BUG, Cases, Rng, exercise


@exercise("The smallest squared distance names the patch.")
def check_nearest_patch(rng: Rng) -> Cases:
    """`function(patch, centers)`, (D,), (K, D): whose sum of squared differences is smallest?"""
    for size in ((12, 4), (16, 9)):
        wrong: dict = {}
        while len({*wrong.values()}) < 11:  # until each mistake leads to another place
            centers, patch = rng.uniform(size=size), rng.uniform(size=size[1])
            gaps = centers - patch
            distances, sums = (gaps**2).sum(1), (gaps**2).sum(0)
            widest, inkiest = abs(gaps).max(1).argmin(), (centers @ patch).argmax()
            wrong = {
                "": distances.argmin(),
                "The largest dot product prefers centers full of ink; use the distance.": inkiest,
                "That is the farthest center: argmax where argmin is wanted.": distances.argmax(),
                "Codes are counted from 0: the third center is number 2.": distances.argmin() + 1,
                "That is the distance; its place is wanted (argmin, not min).": distances.min(),
                "Differences of two signs cancel: square each, then sum.": gaps.sum(1).argmin(),
                "Equally dark is not near: square, then sum.": abs(gaps.sum(1)).argmin(),
                "Those are absolute differences; square each one.": abs(gaps).sum(1).argmin(),
                "That compares the widest differences alone; sum all squares.": widest,
                "Sum over the numbers of a center (axis 1), not over centers.": sums.argmin(),
                "Without an axis the sum is one number, at place 0: use axis=1.": 0,
            }
        yield (patch, centers), int(wrong.pop("")), wrong


@exercise("All rows of an image are on one side.")
def check_split(rng: Rng) -> Cases:
    """`function(sources, order, n_test)`: is a row's image among the first n_test of `order`?"""
    for n_images, copies, n in ((5, 2, 2), (8, 3, 3)):
        sources = rng.permutation(np.repeat(np.arange(n_images), copies)).tolist()
        order = [n_images - 2, 0, *range(1, n_images - 2), n_images - 1]
        rows = np.arange(len(sources))
        wrong = {
            BUG + "some images have rows in train and in test.": np.isin(rows, order[:n]),
            "That is train: True must mean test.": ~np.isin(sources, order[:n]),
            "Not drawn at random: the shuffled `order` is not used.": np.isin(sources, range(n)),
            "Those are the last n_test images of `order`.": np.isin(sources, order[-n:]),
            "Nothing is in test.": rows < 0,
        }
        yield (sources, order, n), np.isin(sources, order[:n]), wrong


def _labels(input_ids: list[int], *ignored: int) -> list[int]:
    return [-100 if token in ignored else token for token in input_ids]


@exercise("The model shifts by one place itself, and padding is not counted.")
def check_labels(rng: Rng) -> Cases:
    """`function(input_ids, pad_id)`: padding becomes -100, all else stays where it is."""
    for n_codes, pad, n_pad in ((2, 520, 2), (4, 0, 3)):
        codes, label = rng.integers(6, 506, n_codes).tolist(), int(rng.integers(506, 516))
        row = [2, *codes, 3, 4, label, 5, *[pad] * n_pad]
        want = _labels(row, pad)
        wrong = {
            f"Padding is still in the labels: pad_id is {pad} here, and becomes -100.": row,
            "Shifted by hand: GPT2LMHeadModel shifts too, so it would learn to predict the token "
            "after the next. Do not shift the labels.": [*want[1:], -100],
            "Shifted by hand, with the padding: do not shift, and mask it.": [*row[1:], pad],
            "0 is a token like any other; what is not to count is -100.": np.maximum(want, 0),
            "The class is masked as well, so it could never be learned.": _labels(row, pad, label),
            "<EOS> is masked as well: the model would never stop.": _labels(row, pad, 5),
            "Rows differ in length: the labels are as many as the ids.": [*row[:7], -100, -100],
        }
        yield (row, pad), want, wrong


@exercise("Padding is known by its place, so <EOS> counts whatever id padding has.")
def check_end_counts(rng: Rng) -> Cases:
    """`function(row, length, pad_id)`: the labels of `row`, padded by its length, not by an id."""
    for length in (7, 9):  # and <PAD> has the id of <EOS>, 5
        row, rest = [2, *rng.integers(6, 506, 3).tolist(), 5], [-100] * (length - 5)
        no_end = "with <PAD> = <EOS> no label is <EOS>; nothing teaches the model to stop."
        wrong = {
            BUG + no_end: [*row[:-1], -100, *rest],
            "Now padding counts: its labels must be -100.": row + [5] * len(rest),
            "One padding counts as well: only the row's own <EOS> does.": [*row, 5, *rest[1:]],
            "The labels must be as long as the padded row.": row,
            "Do not shift: the model does it itself.": [*row[1:], -100, *rest],
        }
        yield (row, length, 5), row + rest, wrong


def _rows(rng: Rng) -> list[list[str]]:
    """Two rows in the read layout, with two codes and with six."""
    drawn = [[f"<Z_{code:03}>" for code in rng.integers(0, 500, n)] for n in (2, 6)]
    name = f"<CLS_{rng.integers(10)}>"
    return [["<IMG>", *codes, "</IMG>", "<CLS>", name, "<EOS>"] for codes in drawn]


@exercise("It ends at <CLS>, where the model predicts; the class comes after it.")
def check_classifier_input(rng: Rng) -> Cases:
    """`function(tokens)`: of a row in the read layout, all up to <CLS>."""
    for row in _rows(rng):
        wrong = {
            "The class is still in the input: the model would merely copy it.": row,
            "Without <EOS> the class is still there, and would be copied.": row[:-1],
            "<CLS> is missing: it is the token at which the class is predicted.": row[:-3],
            "<EOS> comes after the class; the model predicts before that.": [*row[:-2], "<EOS>"],
            "But not every image has two codes: look for <CLS>.": row[:5],
        }
        yield (row,), row[:-2], wrong


def _without(tokens: list[str], *prefixes: str) -> list[str]:
    return [token for token in tokens if not token.startswith(prefixes)]


@exercise("No token names the digit, and all others are as they were.")
def check_class_removed(rng: Rng) -> Cases:
    """`function(tokens)`: everything but <CLS_k>, in its order, in either layout."""
    read, other = _rows(rng)
    for row in (read, ["<CLS>", other[-2], *other[:-3], "<EOS>"]):
        drawn = row if row[0] == "<CLS>" else None
        wrong = {
            "In the draw layout the class stands in front, and is still there.": drawn,
            "The class is still there: <CLS_k> names it.": row,
            "<CLS> names no class; it marks its place. Keep it.": _without(row, "<CLS"),
            "<EOS> is gone as well; only the class is to go.": _without(row, "<CLS_", "<EOS>"),
            "The class has no fixed place: its name begins with <CLS_.": [*row[:-2], row[-1]],
        }
        yield (row,), _without(row, "<CLS_"), wrong


@exercise("Every old id means what it meant; a new token's logit is the others' mean.")
def check_larger_embedding(rng: Rng) -> Cases:
    """`function(weight, n_new)`: the old rows (V, D), then n_new rows with their mean."""
    for size, n in (((5, 3), 2), ((7, 4), 3)):
        weight = rng.normal(1.0, 1.0, size)
        new = np.tile(weight.mean(0), (n, 1))
        flat = np.full_like(new, weight.mean())
        wider = np.hstack([weight, np.tile(weight.mean(1)[:, None], n)])
        wrong = {
            "The new rows stand in front, so every old token has another id now.": [*new, *weight],
            "Tokens are rows: you have made each vector longer, not the vocabulary.": wider,
            "Nothing was added: each new token needs a row.": weight,
            "A row of zeros gets the logit 0, whatever the others have: where theirs are all "
            "negative it is the likeliest of all.": [*weight, *(0 * new)],
            "That is one number for all; take the mean over tokens (axis 0).": [*weight, *flat],
            "A copy takes half of that token's probability.": [*weight, *weight[[-1] * n]],
        }
        yield (weight, n), np.vstack([weight, new]), wrong
