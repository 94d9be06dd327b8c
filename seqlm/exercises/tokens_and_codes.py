"""Checkers of the exercises on tokens: codebook, labels, a classifier's input, embeddings."""

import numpy as np

from seqlm.exercises.checker import Answer, Right, checker, mistake, number, numbers, tokens

READ = ["<IMG>", "<Z_007>", "<Z_004>", "</IMG>", "<CLS>", "<CLS_3>", "<EOS>"]
DRAW = ["<CLS>", "<CLS_0>", "<IMG>", "<Z_007>", "</IMG>", "<EOS>"]


@checker("the number of one centre")
def check_nearest_patch(function: Answer) -> str:
    """`function(patch, centers)` returns the number of the nearest centre."""
    centers = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0.6, 0.5, 0.6, 0.5], [0, 1, 0, 1]])
    patch = np.array([0.5, 0.5, 0.6, 0.5])
    answer = number(function(patch.copy(), centers.copy()))
    distances = ((centers - patch) ** 2).sum(1)
    if answer == 2:
        if number(function(np.array([0.1, 0.0, 0.0, 0.1]), centers.copy())) != 0:
            return "But a nearly empty patch gets the wrong number."
        return Right("The smallest squared distance names the patch.")
    wrong = {
        "The largest dot product prefers centres full of ink; use the distance.": 1,
        "That is the farthest centre: argmax where argmin is wanted.": distances.argmax(),
        "Codes are counted from 0, so the third centre is number 2.": 3,
        "That is the distance itself; its index is wanted (argmin, not min).": distances.min(),
    }
    line = mistake(answer, wrong)
    return line or f"For the patch {patch} the nearest centre is number 2, not {answer}."


@checker("a list of nine whole numbers")
def check_labels(function: Answer, ignored: int = -100) -> str:
    """`function(input_ids, pad_id)` returns the labels of one padded row."""
    row = [2, 45, 6, 3, 4, 509, 5, 0, 0]
    input_ids = list(row)
    answer = numbers(function(input_ids, 0), (len(row),)).tolist()
    if input_ids != row:
        return "Your function changed input_ids itself; make a copy for the labels."
    want = [*row[:7], ignored, ignored]
    if answer == want:
        return Right("The model shifts by one place itself, and padding is not counted.")
    if answer == row:
        return f"Padding is still in the labels; it must be {ignored} there."
    if answer[:6] == row[1:7]:
        return (
            "Shifted by hand: GPT2LMHeadModel shifts too, so it would learn to predict the token "
            "after the next. Do not shift the labels."
        )
    if answer == [*row[:7], 0, 0]:
        return f"0 is a token like any other; what is not to count is {ignored}."
    if answer[5] == ignored:
        return "The class is masked as well, so it could never be learned."
    return f"For {row} the labels are {want}, not {answer}."


@checker("a list of tokens")
def check_classifier_input(function: Answer) -> str:
    """`function(tokens)` returns what a classifier may see of a row in the read layout."""
    answer = tokens(function(list(READ)))
    if any(token.startswith("<CLS_") for token in answer):
        return "The class is still in the input: the model would merely copy it."
    if answer == READ[:5]:
        longer = ["<IMG>", *["<Z_001>"] * 9, *READ[3:]]
        if tokens(function(list(longer))) != longer[:-2]:
            return "But it is wrong for an image of nine codes."
        return Right("It ends at <CLS>, where the model predicts; the class comes after it.")
    if answer == READ[:4]:
        return "<CLS> is missing: it is the token at which the class is predicted."
    if answer[-1:] == ["<EOS>"]:
        return "<EOS> comes after the class; the model predicts before that."
    return f"Of {' '.join(READ)} the classifier may see all up to <CLS>."


@checker("a list of tokens")
def check_class_removed(function: Answer) -> str:
    """`function(tokens)` returns a row without its class, in either layout."""
    read, draw = tokens(function(list(READ))), tokens(function(list(DRAW)))
    if "<CLS_3>" in read:
        return "The class is still there: <CLS_3> names it."
    if "<CLS_0>" in draw:
        return "In the draw layout the class stands in front, and is still there."
    if "<CLS>" not in read or "<CLS>" not in draw:
        return "<CLS> names no class; it marks the place of the class. Keep it."
    if read == [t for t in READ if t != "<CLS_3>"] and draw == [t for t in DRAW if t != "<CLS_0>"]:
        return Right("No token names the digit, and all others are as they were.")
    return f"Of {' '.join(READ)} everything but <CLS_3> stays, in its order."


@checker("an array of numbers")
def check_larger_embedding(function: Answer) -> str:
    """`function(weight, n_new)` returns the embedding with rows for new tokens."""
    weight = np.random.default_rng(9).normal(1.0, 1.0, (5, 3))
    copy = weight.copy()
    answer = np.asarray(function(copy, 2))
    if not np.array_equal(copy, weight):
        return "The old matrix itself was changed; make a new one."
    if answer.ndim != 2 or answer.dtype.kind != "f":
        raise TypeError
    if answer.shape == (7, 3) and np.allclose(answer[2:], weight):
        return "The new rows stand in front, so every old token has another id now."
    if answer.shape == (5, 5):
        return "Tokens are rows: you have made each vector longer, not the vocabulary."
    if answer.shape != (7, 3):
        return f"5 tokens and 2 new ones make 7 rows of 3, not {answer.shape}."
    if not np.allclose(answer[:5], weight):
        return "The old rows are no longer what they were: what was learned is lost."
    new = answer[5:]
    if np.allclose(new, weight.mean(axis=0)):
        return Right("Every old id means what it meant; a new token's logit is the others' mean.")
    wrong = {
        "A row of zeros gets the logit 0, whatever the others have: where theirs are all negative "
        "it is the likeliest of all.": np.zeros((2, 3)),
        "That is one number for all; the mean is taken token by token (axis 0).": np.full(
            (2, 3), weight.mean()
        ),
        "A copy of one token takes half of that token's probability.": weight[[-1, -1]],
    }
    line = mistake(new, wrong)
    return line or "The new rows should be the mean of the old ones; random rows can have any."
