"""The checkers behind the notebooks' exercises: they say which misconception is at work.

Each takes the learner's answer, prints one friendly line, and returns whether the answer is right.
An answer that was not given yet (``...``) is no mistake; it only says so. Whatever the answer is or
does, there is no traceback.
"""

import math

import numpy as np

from seqlm.exercises.checker import Answer, checker, number, numbers, tell, tokens, untried


@checker("the number of one centre")
def nearest_patch(function: Answer) -> bool:
    """Exercise 01: `function(patch, centers)` returns the number of the nearest centre."""
    centers = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0.6, 0.5, 0.6, 0.5], [0, 1, 0, 1]])
    patch = np.array([0.5, 0.5, 0.6, 0.5])
    answer = function(patch.copy(), centers.copy())
    if untried(answer):
        return False
    answer = number(answer)
    distances = ((centers - patch) ** 2).sum(1)
    if answer == 2:
        also = number(function(np.array([0.1, 0.0, 0.0, 0.1]), centers.copy()))
        words = "The smallest squared distance names the patch."
        return tell(
            also == 0, words if also == 0 else "But a nearly empty patch gets the wrong number."
        )
    if answer == int((centers @ patch).argmax()):
        return tell(False, "The largest dot product prefers centres full of ink; use the distance.")
    if answer == int(distances.argmax()):
        return tell(False, "That is the farthest centre: argmax where argmin is wanted.")
    if answer == 3:
        return tell(False, "Codes are counted from 0, so the third centre is number 2.")
    if np.isclose(answer, distances.min()):
        return tell(False, "That is the distance itself; its index is wanted (argmin, not min).")
    return tell(False, f"For the patch {patch} the nearest centre is number 2, not {answer}.")


@checker("a list of nine whole numbers")
def labels(function: Answer, ignored: int = -100) -> bool:
    """Exercise 02: `function(input_ids, pad_id)` returns the labels of one padded row."""
    given = [2, 45, 6, 3, 4, 509, 5, 0, 0]
    kept = list(given)
    answer = function(given, 0)
    if untried(answer):
        return False
    answer = numbers(answer, (len(kept),)).tolist()
    if given != kept:
        return tell(False, "Your function changed input_ids itself; make a copy for the labels.")
    want = [*given[:7], ignored, ignored]
    if answer == want:
        return tell(True, "The model shifts by one place itself, and padding is not counted.")
    if answer == given:
        return tell(False, f"Padding is still in the labels; it must be {ignored} there.")
    if answer[:6] == given[1:7]:
        return tell(
            False,
            "Shifted by hand: GPT2LMHeadModel shifts too, so it would learn to "
            "predict the token after the next. Leave the labels unshifted.",
        )
    if answer == [*given[:7], 0, 0]:
        return tell(False, f"0 is a token like any other; what is not to count is {ignored}.")
    if answer[5] == ignored:
        return tell(False, "The class is masked as well, so it could never be learned.")
    return tell(False, f"For {kept} the labels are {want}, not {answer}.")


@checker("one number", of_function=False)
def initial_loss(answer: float, vocab_size: int) -> bool:
    """Exercise 03: the loss, in nats, of a model that knows nothing yet."""
    answer = number(answer)
    want = math.log(vocab_size)
    if math.isclose(answer, want, abs_tol=0.02):
        return tell(True, f"-ln(1/{vocab_size}) = {want:.2f} nats: every token equally likely.")
    if math.isclose(answer, math.log2(vocab_size), abs_tol=0.05):
        return tell(False, "That is in bits (log2). PyTorch's losses are in nats: natural log.")
    if math.isclose(answer, math.log10(vocab_size), abs_tol=0.02):
        return tell(False, "That is log10; losses are in nats, the natural logarithm.")
    if math.isclose(answer, vocab_size, rel_tol=0.01):
        return tell(False, "That is the perplexity; the loss is its natural logarithm.")
    if math.isclose(answer, 1 / vocab_size, rel_tol=0.05):
        return tell(False, "That is the probability of one token; the loss is -ln of it.")
    if math.isclose(answer, -want, abs_tol=0.02):
        return tell(False, "The sign: a log-probability is negative, a loss is minus that.")
    return tell(False, "Start from the probability of one token among so many equally likely.")


@checker("a list of tokens")
def classifier_input(function: Answer) -> bool:
    """Exercise 04: `function(tokens)` returns what a classifier may see of a read sentence."""
    sentence = ["<IMG>", "<Z_007>", "<Z_004>", "</IMG>", "<CLS>", "<CLS_3>", "<EOS>"]
    answer = function(list(sentence))
    if untried(answer):
        return False
    answer = tokens(answer)
    if any(token.startswith("<CLS_") for token in answer):
        return tell(False, "The class is still in the input: the model would merely copy it.")
    if answer == sentence[:5]:
        longer = ["<IMG>", *["<Z_001>"] * 9, *sentence[3:]]
        also = tokens(function(list(longer))) == longer[:-2]
        words = "It ends at <CLS>, where the model is asked; the answer comes after it."
        return tell(also, words if also else "But it is wrong for a picture of nine codes.")
    if answer == sentence[:4]:
        return tell(False, "<CLS> is missing: it is the token at which the class is read.")
    if answer[-1:] == ["<EOS>"]:
        return tell(False, "<EOS> comes after the class; the model is asked before that.")
    return tell(False, f"Of {' '.join(sentence)} the classifier may see all up to <CLS>.")


@checker("one number")
def perplexity(function: Answer) -> bool:
    """Exercise 05: `function(batches)`; a batch is (nll, counted), arrays of one shape (B, T)."""
    first = (np.array([[1.0, 3.0, 9.0], [2.0, 9.0, 9.0]]), np.array([[1, 1, 0], [1, 0, 0]], bool))
    second = (np.array([[5.0, 5.0]]), np.array([[1, 1]], bool))
    batches = [first, second]
    answer = function(batches)
    if untried(answer):
        return False
    answer = number(answer)
    kept = np.concatenate([loss[mask] for loss, mask in batches])
    everything = np.concatenate([loss.ravel() for loss, _ in batches])
    by_batch = np.mean([loss[mask].mean() for loss, mask in batches])
    wrong = {
        np.exp(everything.mean()): "Padding is counted: only take tokens where `counted` is true.",
        np.exp(by_batch): "That is a mean of batch means: a small batch weighs as much as a large "
        "one. Add up all losses and all tokens first, divide once.",
        np.exp(kept).mean(): "exp of each token and then the mean; take the mean first.",
        kept.mean(): "That is the mean NLL; perplexity is exp of it.",
        2 ** kept.mean(): "2 to the power of nats: with natural logarithms it is exp.",
        np.exp(kept.sum()): "The sum is not divided by the number of tokens.",
    }
    if math.isclose(answer, np.exp(kept.mean()), rel_tol=1e-6):
        return tell(True, "All counted tokens, one mean, then exp.")
    for value, words in wrong.items():
        if math.isclose(answer, value, rel_tol=1e-6):
            return tell(False, words)
    return tell(False, f"For the test batches it is {np.exp(kept.mean()):.4f}, not {answer:.4f}.")


@checker("an array of five probabilities")
def nucleus(function: Answer) -> bool:
    """Exercise 06: `function(probabilities, top_p)` returns what nucleus sampling draws from."""
    probabilities = np.array([0.1, 0.45, 0.05, 0.3, 0.1])
    answer = function(probabilities.copy(), 0.7)
    if untried(answer):
        return False
    if np.ndim(answer) == 1 and len(answer) != len(probabilities):
        return tell(False, "The answer keeps its five places; what is out gets probability 0.")
    answer = numbers(answer, probabilities.shape)
    kept = set(np.flatnonzero(answer > 0).tolist())
    if kept == {1}:
        return tell(
            False,
            "Too few: the token that takes the sum past top_p belongs in, too. "
            "0.45 alone does not hold 0.7.",
        )
    if kept == set():
        return tell(False, "Nothing is left: no single token has 0.7. The sum counts, not each.")
    if kept != {1, 3}:
        return tell(
            False,
            "The two likeliest already hold 0.75; sort by probability, likeliest "
            "first, before adding up.",
        )
    if not math.isclose(answer.sum(), 1, abs_tol=1e-6):
        return tell(False, "The right tokens, but they must sum to 1 again: divide by their sum.")
    if not np.allclose(answer[[1, 3]], [0.6, 0.4]):
        return tell(False, "Among the kept tokens the proportions must stay as they were.")
    whole = numbers(function(probabilities.copy(), 1.0), probabilities.shape)
    right = bool(np.allclose(whole, probabilities))
    return tell(
        right,
        "The smallest set of likeliest tokens that holds top_p, rescaled."
        if right
        else "But with top_p = 1 every token should stay.",
    )


@checker("an array of three probabilities")
def guidance(function: Answer) -> bool:
    """Exercise 07: `function(given, free, w)` returns the guided probabilities (V,).

    `given` and `free` (V,) are next-token probabilities with and without the class.
    """
    given, free = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    answer = function(given.copy(), free.copy(), 2.0)
    if untried(answer):
        return False
    answer = numbers(answer, given.shape)
    right = given**2 / free
    if np.allclose(answer, free + 2 * (given - free)):
        words = "That mixes probabilities; guidance mixes their logarithms."
    elif np.allclose(answer, right):
        words = "The right proportions, but they must sum to 1: divide by their sum."
    elif np.allclose(answer, np.log(right)) or np.allclose(answer, np.log(right / right.sum())):
        words = "Those are logarithms still: take exp, then divide by the sum."
    elif np.allclose(answer, free**2 / given / (free**2 / given).sum()):
        words = "The two are exchanged: w leans towards what the class says, away from free."
    elif np.allclose(answer, given**2 * free / (given**2 * free).sum()):
        words = "The free prediction is to be leaned away from: its weight is 1 - w, below zero."
    elif not np.allclose(answer, right / right.sum()):
        words = "Mix log p with the weights 1 - w (free) and w (given), then exp, then rescale."
    elif not np.allclose(numbers(function(given.copy(), free.copy(), 1.0), given.shape), given):
        words = "But w = 1 should be the given probabilities themselves."
    else:
        return tell(True, "w = 1 is the model itself, and what the class changes is exaggerated.")
    return tell(False, words)


def _honest(batches) -> float:
    total = sum(float(np.asarray(nll)[np.asarray(real, bool)].sum()) for nll, real in batches)
    return total / sum(int(np.asarray(real, bool).sum()) for _, real in batches)


def _counting_padding(batches) -> float:
    return _honest([(nll, np.ones(np.shape(nll), bool)) for nll, _ in batches])


def _averaging_batches(batches) -> float:
    return float(np.mean([_honest([batch]) for batch in batches if np.any(batch[1])]))


def _averaging_rows(batches) -> float:
    rows = [([n], [r]) for nll, real in batches for n, r in zip(nll, real, strict=True)]
    return _averaging_batches(rows)


@checker("True or False")
def catches_wrong_rulers(function: Answer) -> bool:
    """Exercise 08: `function(ruler)` returns whether `ruler(batches)` is the mean over tokens.

    `batches` as in exercise 05. The function is handed an honest ruler and three wrong ones.
    """
    verdict = function(_honest)
    if untried(verdict):
        return False
    if not _yes_or_no(verdict):
        return tell(False, "Your test rejects an honest ruler: work its numbers out by hand.")
    wrong = {
        _counting_padding: "A ruler that counts padding passes: give it a row with padding in it.",
        _averaging_batches: "A ruler that takes the mean of batch means passes: give it two "
        "batches with different numbers of tokens.",
        _averaging_rows: "A ruler that takes the mean of row means passes: give it two rows of "
        "different lengths in one batch.",
    }
    for ruler, words in wrong.items():
        if _yes_or_no(function(ruler)):
            return tell(False, words)
    return tell(True, "The honest ruler passes; padding, batch means and row means are caught.")


def _yes_or_no(answer: object) -> bool:
    if not isinstance(answer, bool | np.bool_):
        raise TypeError
    return bool(answer)
