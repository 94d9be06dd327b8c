"""Checkers of the exercises on the model's parts: mask, attention, block, loss, training step."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.nn.functional import layer_norm

from seqlm.exercises.checker import Answer, Right, checker, mistake, numbers


def _cases(*shapes: str) -> Iterator[list[torch.Tensor]]:
    """Two lists of random tensors of these shapes: "TD" is (tokens, width)."""
    for seed, sides in enumerate(({"T": 5, "D": 4}, {"T": 7, "D": 9})):
        how = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64}
        yield [torch.randn([sides[letter] for letter in shape], **how) for shape in shapes]


def _problem(answer: object, want: torch.Tensor, wrong: Mapping, otherwise: str) -> str | None:
    """The line about a wrong answer; None for a right one. A square may hold -1e9 for -inf."""
    if isinstance(answer, torch.Tensor):
        answer = answer.detach()
    array = numbers(answer, tuple(want.shape))
    array = np.where(array < -1e6, -np.inf, array)
    if np.allclose(array, want, rtol=1e-5):
        return None
    return mistake(array, wrong, rel_tol=1e-5) or otherwise


def _hide(scores: torch.Tensor, first: int = 1) -> torch.Tensor:
    return scores.masked_fill(torch.ones_like(scores).triu(first).bool(), -math.inf)


@checker("a square of scores, as large as before")
def check_mask(function: Answer) -> str:
    """`function(scores)`, (T, T), a row for each query, hides later tokens from each token."""
    for (scores,) in _cases("TT"):
        wrong = {
            "Nothing is hidden: each token still sees the later ones.": scores,
            "That hides the past; the future lies above the diagonal.": _hide(scores.T).T,
            "The diagonal is hidden as well; a token sees itself.": _hide(scores, 0),
            "0 is a score like any other, and exp(0) is 1: use -inf.": scores.tril(),
            "Those are weights; hide scores, before the softmax.": _hide(scores).softmax(1),
        }
        otherwise = "What lies above the diagonal becomes -inf, all else stays."
        if line := _problem(function(scores.clone()), _hide(scores), wrong, otherwise):
            return line
    return Right("A token sees itself and the tokens before it.")


@checker("a row of numbers for each token")
def check_head(function: Answer) -> str:
    """`function(q, k, v)`, each (T, d), is causal attention with one head: (T, d)."""
    for q, k, v in _cases("TD", "TD", "TD"):
        scores, d = q @ k.T, q.shape[1]
        scaled = scores / math.sqrt(d)
        wrong = {
            "The scores are not divided by √d.": _hide(scores).softmax(1) @ v,
            "The scores are divided by d, not by √d.": _hide(scores / d).softmax(1) @ v,
            "There is no mask: the first token sees the last.": scaled.softmax(1) @ v,
            "The mask came after the softmax: no row sums to 1.": scaled.softmax(1).tril() @ v,
            "The first token sees nothing; it sees itself.": _hide(scaled, 0).softmax(1) @ v,
            "The softmax ran down the columns; a row sums to 1.": _hide(scaled).softmax(0) @ v,
            "q and k are exchanged: row i belongs to q[i].": _hide(scaled.T).softmax(1) @ v,
        }
        otherwise = "Dot products by √d, mask, softmax of each row; then weights times v."
        if line := _problem(function(q, k, v), _hide(scaled).softmax(1) @ v, wrong, otherwise):
            return line
    return Right("Each token gets a weighted mean of the values up to its own.")


@checker("a row of numbers for each token")
def check_block(function: Answer) -> str:
    """`function(x, norm_1, attention, norm_2, mlp)`: GPT-2's block, of x (T, D) and functions."""
    for x, mixing, matrix in _cases("TD", "TT", "DD"):
        norm_1, norm_2 = (lambda x, g=g: g * layer_norm(x, x.shape[-1:]) for g in (0.5, 2.0))
        attention = mixing.matmul
        mlp = lambda x, matrix=matrix: torch.tanh(x @ matrix)  # noqa: E731
        want, bare, norm = x + attention(norm_1(x)), x + attention(x), norm_1(x)
        half, late = want, norm_1(bare)
        wrong = {
            "What came in is lost: add each part to it.": mlp(norm_2(attention(norm))),
            "Each norm stands after its sum, as in the first GPT.": norm_2(late + mlp(late)),
            "The second sum starts from x again.": x + mlp(norm_2(half)),
            "The network must read the first sum, not x.": half + mlp(norm_2(x)),
            "The norms are missing.": bare + mlp(bare),
            "Attention is added to norm_1(x); add it to x.": (
                (norm + attention(norm)) + mlp(norm_2(norm + attention(norm)))
            ),
        }
        otherwise = "First x plus attention of its norm, then that plus mlp of its norm."
        answer = function(x, norm_1, attention, norm_2, mlp)
        if line := _problem(answer, half + mlp(norm_2(half)), wrong, otherwise):
            return line
    return Right("Two sums: what came in is never lost.")


@checker("one number")
def check_next_token_loss(function: Answer) -> str:
    """`function(logits, ids)`, (T, V) and (T,): the mean of -ln p(next token), in nats."""
    for (logits,) in _cases("TD"):
        n, ids, nll = len(logits) - 1, logits.argmin(1), -logits.log_softmax(1)
        each = nll[range(n), ids[1:]]  # (T - 1,)
        own, earlier = nll[range(n + 1), ids], nll[1:][range(n), ids[:-1]]
        wrong = {
            "Not shifted: the logits at a token are about the NEXT one.": own.mean(),
            "Shifted the wrong way: that asks for the token before.": earlier.mean(),
            "That is the sum; divide by the number of predictions.": each.sum(),
            f"Of {n + 1} tokens only {n} are predicted: divide by {n}.": each.sum() / (n + 1),
            "A log-probability is negative; the loss is minus that.": -each.mean(),
            "Those are logits; take log_softmax first.": -logits[range(n), ids[1:]].mean(),
            "That is a mean of probabilities; take logarithms first.": each.neg().exp().mean(),
        }
        otherwise = "-log_softmax of the logits, at the id that comes next; then the mean."
        if line := _problem(function(logits, ids), each.mean(), wrong, otherwise):
            return line
    return Right("The last logits and the first id are not used.")


@checker("the weight after the step")
def check_training_step(function: Answer) -> str:
    """`function(weight, loss_of, rate)`: `weight` (D,) after one step of gradient descent.

    `weight.grad` still holds the gradient of the step before.
    """
    for weight, old, lowest in _cases("D", "D", "D"):
        before, gradient, rate = weight.clone(), 2 * (weight - lowest), 0.1
        both = gradient + old
        wrong = {
            "backward() adds to weight.grad: clear the old gradient.": before - rate * both,
            "That is the old gradient; call backward() on the loss.": before - rate * old,
            "Uphill: subtract the gradient, it points to more loss.": before + rate * gradient,
            "The rate is missing.": before - gradient,
            "The weight is unchanged.": before,
            "That is the gradient; return the weight after the step.": gradient,
        }
        weight.requires_grad_().grad = old.clone()
        answer = function(weight, lambda w, lowest=lowest: ((w - lowest) ** 2).sum(), rate)
        otherwise = "weight minus rate times the gradient of loss_of(weight)."
        if line := _problem(answer, before - rate * gradient, wrong, otherwise):
            return line
    return Right("Clear, backward, one small step downhill.")
