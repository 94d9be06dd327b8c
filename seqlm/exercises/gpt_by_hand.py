"""Checkers of the exercises on the model's parts: mask, attention, block, loss, training step."""

import math
from collections.abc import Callable

import torch
from torch.nn.functional import layer_norm

from seqlm.exercises.checker import BUG, Cases, Rng, exercise


def _normal(rng: Rng, *size: int) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=size))


def _hide(scores: torch.Tensor, first: int = 1) -> torch.Tensor:
    return scores.masked_fill(torch.ones_like(scores).triu(first).bool(), -math.inf)


@exercise("A token sees itself and the tokens before it.")
def check_mask(rng: Rng) -> Cases:
    """`function(scores)`, (T, T): above the diagonal stands -inf, all else stays as it is."""
    for length in (5, 7):
        scores = _normal(rng, length, length)
        wrong = {
            "Nothing is hidden: each token still sees the later ones.": scores,
            "That hides the past; the future lies above the diagonal.": _hide(scores.T).T,
            "The diagonal is hidden as well; a token sees itself.": _hide(scores, 0),
            "0 is a score like any other, and exp(0) is 1: use -inf.": scores.tril(),
            "Those are weights; hide scores, before the softmax.": _hide(scores).softmax(1),
            "0 times -inf is nan: put -inf there, do not multiply.": _hide(scores * math.nan),
        }
        yield (scores,), _hide(scores), wrong


@exercise("Each token gets a weighted mean of the values up to its own.")
def check_head(rng: Rng) -> Cases:
    """`function(q, k, v)`, (T, d): dot products by √d, mask, softmax of each row, times v."""
    for size in ((5, 4), (7, 9)):
        q, k, v = (_normal(rng, *size) for _ in range(3))
        scores, (n, d) = q @ k.T, q.shape
        scaled = scores / math.sqrt(d)
        wrong = {
            "The scores are not divided by √d.": _hide(scores).softmax(1) @ v,
            "The scores are divided by d, not by √d.": _hide(scores / d).softmax(1) @ v,
            "That divides by √T; d is q.shape[1].": _hide(scores / math.sqrt(n)).softmax(1) @ v,
            "There is no mask: the first token sees the last.": scaled.softmax(1) @ v,
            "The mask came after the softmax: no row sums to 1.": scaled.softmax(1).tril() @ v,
            "The first token sees nothing; it sees itself.": _hide(scaled, 0).softmax(1) @ v,
            "The softmax ran down the columns; a row sums to 1.": _hide(scaled).softmax(0) @ v,
            "q and k are exchanged: row i belongs to q[i].": _hide(scaled.T).softmax(1) @ v,
        }
        yield (q, k, v), _hide(scaled).softmax(1) @ v, wrong


@exercise("Two sums: what came in is never lost.")
def check_block(rng: Rng) -> Cases:
    """`function(x, norm_1, attention, norm_2, mlp)`: x plus attention of its norm, then mlp so."""
    for length, width in ((5, 4), (7, 9)):
        x, mixing = _normal(rng, length, width), _normal(rng, length, length)
        matrix = _normal(rng, width, width)
        norm_1, norm_2 = (lambda x, g=g: g * layer_norm(x, x.shape[-1:]) for g in (0.5, 2.0))
        attention = mixing.matmul
        mlp = lambda x, matrix=matrix: torch.tanh(x @ matrix)  # noqa: E731
        half, bare, norm = x + attention(norm_1(x)), x + attention(x), norm_1(x)
        late, normed = norm_1(bare), norm + attention(norm)
        wrong = {
            "What came in is lost: add each part to it.": mlp(norm_2(attention(norm))),
            "Each norm stands after its sum, as in the first GPT.": norm_2(late + mlp(late)),
            "The second sum starts from x again.": x + mlp(norm_2(half)),
            "The network must read the first sum, not x.": half + mlp(norm_2(x)),
            "The norms are missing.": bare + mlp(bare),
            "Attention is added to norm_1(x); add it to x.": normed + mlp(norm_2(normed)),
        }
        yield (x, norm_1, attention, norm_2, mlp), half + mlp(norm_2(half)), wrong


@exercise("The last logits and the first id are not used.")
def check_next_token_loss(rng: Rng) -> Cases:
    """`function(logits, ids)`, (T, V), (T,): the mean of -log_softmax at the next ids."""
    for n, size in ((4, 6), (6, 9)):
        logits, ids = _normal(rng, n + 1, size), torch.from_numpy(rng.permutation(size)[: n + 1])
        nll, here = -logits.log_softmax(1), range(n)
        each, own = nll[here, ids[1:]], nll[range(n + 1), ids]  # (T - 1,), (T,)
        wrong = {
            "Not shifted: the logits at a token are about the NEXT one.": own.mean(),
            "Shifted the wrong way: that asks for the token before.": nll[1:][here, ids[:n]].mean(),
            "That is the sum; divide by the number of predictions.": each.sum(),
            "T tokens have only T - 1 predictions: divide by T - 1.": each.sum() / (n + 1),
            "A log-probability is negative; the loss is minus that.": -each.mean(),
            "Those are logits; take log_softmax first.": -logits[here, ids[1:]].mean(),
            "That is in bits; nats need the natural logarithm.": each.mean() / math.log(2),
            "First the logarithm of each, then the mean.": -(-each).exp().mean().log(),
        }
        yield (logits, ids), each.mean(), wrong


@exercise("Clear, backward, one small step downhill.")
def check_training_step(rng: Rng) -> Cases:
    """`function(weight, loss_of, rate)`, (D,): weight - rate * gradient; weight.grad is older."""
    for width, rate in ((4, 0.1), (9, 0.03)):
        weight, old, lowest = (_normal(rng, width) for _ in range(3))
        before, gradient = weight.clone(), 2 * (weight - lowest)
        both = gradient + old
        wrong = {
            "backward() adds to weight.grad: clear the old gradient.": before - rate * both,
            "That is the old gradient; call backward() on the loss.": before - rate * old,
            "Uphill: subtract the gradient, it points to more loss.": before + rate * gradient,
            "The rate is missing.": before - gradient,
            "The weight is unchanged. Clear the gradient before backward(), not after.": before,
            "That is the gradient; return the weight after the step.": gradient,
        }
        weight.requires_grad_().grad = old
        loss_of = lambda w, lowest=lowest: ((w - lowest) ** 2).sum()  # noqa: E731
        yield (weight, loss_of, rate), before - rate * gradient, wrong


def _continued(model: Callable, ids: torch.Tensor, n_new: int, seen=slice(None), at=-1):
    for _ in range(n_new):
        ids = torch.cat([ids, model(ids[seen])[at].argmax()[None]])
    return ids


@exercise("Each new token depends on all before it, the new ones too.")
def check_completion(rng: Rng) -> Cases:
    """`function(model, ids, n_new)`, (T,): appends the likeliest next token, n_new times."""
    for length, n_new in ((4, 8), (6, 9)):
        table, ids = _normal(rng, 50, 50), torch.from_numpy(rng.integers(0, 50, length))
        model = lambda ids, table=table: table[ids.cumsum(0) % 50]  # noqa: E731
        new, first = _continued(model, ids, n_new), _continued(model, ids, n_new, at=0)
        forgetful = _continued(model, ids, n_new, slice(-1, None))
        prompt = [*ids, *[model(ids)[-1].argmax()] * n_new]
        wrong = {
            BUG + "other tokens before the last one change nothing.": forgetful,
            "Those are the logits after the first token; use the last, [-1].": first,
            "The new tokens are never shown to the model: it must see them, too.": prompt,
            "The prompt belongs to the answer as well: old ids, then new.": new[length:],
        }
        yield (model, ids, n_new), new, wrong


@exercise("All other heads stay as they were.")
def check_head_replaced(rng: Rng) -> Cases:
    """`function(mixed, mean, head, n_head)`: columns head * d to (head + 1) * d come from mean."""
    for n_head, d, head in ((3, 4, 1), (4, 3, 2)):
        mixed, mean = _normal(rng, 11, n_head * d), _normal(rng, 11, n_head * d)
        column, row = torch.arange(n_head * d), torch.arange(11)[:, None]
        wrong = {
            "Nothing is replaced.": mixed,
            "All heads are replaced; the others stay as they are.": mean,
            "That is zero, not the mean.": mixed.where(column // d != head, 0),
            "Heads are counted from 0.": mixed.where(column // d != head - 1, mean),
            "A head's numbers stand side by side.": mixed.where(column % n_head != head, mean),
            "Those are rows, so tokens; a head owns columns.": mixed.where(row // d != head, mean),
            "One column is replaced; a head owns d of them.": mixed.where(column != head, mean),
        }
        yield (mixed, mean, head, n_head), mixed.where(column // d != head, mean), wrong
