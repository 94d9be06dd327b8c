"""Answers to every exercise: right ones, and wrong ones with words of the line they must get."""

import math

import numpy as np
import torch
from scipy import stats
from scipy.special import softmax
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from seqlm.exercises.gpt_by_hand import (
    check_block,
    check_completion,
    check_head,
    check_head_replaced,
    check_mask,
    check_next_token_loss,
    check_training_step,
)
from seqlm.exercises.measuring import (
    check_bits_per_byte,
    check_bootstrap,
    check_perplexity,
    check_selection,
    check_sign_test,
    check_training_operations,
    check_wrong_evaluations,
)
from seqlm.exercises.probabilities import (
    check_bayes,
    check_guidance,
    check_initial_loss,
    check_nucleus,
    check_temperature,
)
from seqlm.exercises.tokens_and_codes import (
    check_class_removed,
    check_classifier_input,
    check_end_counts,
    check_labels,
    check_larger_embedding,
    check_nearest_patch,
    check_split,
)

# --- the model's parts ----------------------------------------------------------------------------


def hide(scores, first=1):
    return scores.masked_fill(torch.ones_like(scores).triu(first).bool(), -torch.inf)


def attend(scores, v, dim=1):
    return scores.softmax(dim) @ v


def scaled(q, k):
    return q @ k.T / math.sqrt(q.shape[1])


def loss(logits, ids):
    return cross_entropy(logits[:-1], ids[1:])


def log_of_mean(logits, ids):
    p = logits.softmax(1)[range(len(ids) - 1), ids[1:]]
    return -p.mean().log()


def step(weight, loss_of, rate):
    weight.grad = None
    loss_of(weight).backward()
    return weight.detach() - rate * weight.grad


def cleared_too_late(weight, loss_of, rate):
    loss_of(weight).backward()
    weight.grad = torch.zeros_like(weight)
    return weight.detach() - rate * weight.grad


def step_in_place(weight, loss_of, rate):
    optimizer = torch.optim.SGD([weight], rate)
    optimizer.zero_grad()
    loss_of(weight).backward()
    optimizer.step()
    return weight


def gradient(weight, loss_of):
    (slope,) = torch.autograd.grad(loss_of(weight), weight)
    return slope


def step_on_old(weight, loss_of, rate):
    loss_of(weight).backward()
    return weight.detach() - rate * weight.grad


def block(x, norm_1, attention, norm_2, mlp):
    x = x + attention(norm_1(x))
    return x + mlp(norm_2(x))


def norm_after(x, norm_1, attention, norm_2, mlp):
    x = norm_1(x + attention(x))
    return norm_2(x + mlp(x))


def sum_of_norms(x, norm_1, attention, norm_2, mlp):
    x = norm_1(x) + attention(norm_1(x))
    return x + mlp(norm_2(x))


def never_normed(x, norm_1, attention, norm_2, mlp):
    x = x + attention(x)
    return x + mlp(x)


def complete(model, ids, n_new, seen=0, at=-1):
    for _ in range(n_new):
        ids = torch.cat([ids, model(ids[seen:])[at].argmax()[None]])
    return ids


def never_shown(model, ids, n_new):
    return torch.cat([ids, model(ids)[-1].argmax().repeat(n_new)])


def columns(head, n_head, width):
    d = width // n_head
    return slice(head * d, (head + 1) * d)


def replaced(mixed, mean, head, n_head):
    mixed = mixed.clone()
    return replaced_in_place(mixed, mean, head, n_head)


def replaced_in_place(mixed, mean, head, n_head):
    own = columns(head, n_head, mixed.shape[1])
    mixed[:, own] = mean[:, own]
    return mixed


def replaced_and_rejoined(mixed, mean, head, n_head):
    parts = [*mixed.chunk(n_head, dim=1)]
    parts[head] = mean.chunk(n_head, dim=1)[head]
    return torch.cat(parts, dim=1)


def interleaved(mixed, mean, head, n_head):
    mixed = mixed.clone()
    mixed[:, head::n_head] = mean[:, head::n_head]
    return mixed


def tokens_replaced(mixed, mean, head, n_head):
    mixed, own = mixed.clone(), columns(head, n_head, mixed.shape[1])
    mixed[own] = mean[own]
    return mixed


def one_column(mixed, mean, head, n_head):
    mixed = mixed.clone()
    mixed[:, head] = mean[:, head]
    return mixed


RIGHT = [
    (check_mask, hide),
    (check_mask, lambda s: s + torch.full(s.shape, -1e9).triu(1)),  # as many libraries do
    (check_head, lambda q, k, v: attend(hide(scaled(q, k)), v)),
    (check_head, lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)),
    (check_block, block),
    (check_next_token_loss, loss),
    (check_next_token_loss, lambda logits, ids: loss(logits, ids).item()),
    (check_training_step, step),
    (check_training_step, step_in_place),
    (check_completion, complete),
    (check_head_replaced, replaced),
    (check_head_replaced, replaced_in_place),
    (check_head_replaced, replaced_and_rejoined),
]
WRONG = [
    (check_head_replaced, lambda x, m, h, n: x, "Nothing is replaced"),
    (check_head_replaced, lambda x, m, h, n: m, "All heads are replaced"),
    (check_head_replaced, lambda x, m, h, n: replaced(x, 0 * m, h, n), "zero, not the mean"),
    (check_head_replaced, lambda x, m, h, n: replaced(x, m, h - 1, n), "counted from 0"),
    (check_head_replaced, interleaved, "stand side by side"),
    (check_head_replaced, tokens_replaced, "a head owns columns"),
    (check_head_replaced, one_column, "One column is replaced"),
    (check_head_replaced, lambda x, m, h, n: replaced(x, -m, h, n), "come from mean"),
    (check_head_replaced, lambda x, m, h, n: x.mean(), "where a Tensor of shape (11, 12)"),
    (check_mask, lambda s: s, "Nothing is hidden"),
    (check_mask, lambda s: hide(s.T).T, "hides the past"),
    (check_mask, lambda s: hide(s, 0), "diagonal is hidden"),
    (check_mask, lambda s: s.tril(), "exp(0) is 1"),
    (check_mask, lambda s: hide(s).softmax(1), "Those are weights"),
    (check_mask, lambda s: s + torch.ones_like(s).triu(1) * -torch.inf, "times -inf is nan"),
    (check_mask, lambda s: hide(s, 2), "above the diagonal stands -inf"),
    (check_mask, lambda s: s > 0, "where a Tensor of shape (5, 5)"),
    (check_head, lambda q, k, v: attend(hide(q @ k.T), v), "not divided by √d"),
    (check_head, lambda q, k, v: attend(hide(q @ k.T / q.shape[1]), v), "by d, not"),
    (check_head, lambda q, k, v: attend(hide(q @ k.T / len(q) ** 0.5), v), "divides by √T"),
    (check_head, lambda q, k, v: attend(hide(q @ k.T / 32**0.5), v), "dot products by √d"),
    (check_head, lambda q, k, v: attend(scaled(q, k), v), "no mask"),
    (check_head, lambda q, k, v: scaled(q, k).softmax(1).tril() @ v, "after the softmax"),
    (check_head, lambda q, k, v: attend(hide(scaled(q, k), 0), v), "sees nothing"),
    (check_head, lambda q, k, v: attend(hide(scaled(q, k)), v, 0), "down the columns"),
    (check_head, lambda q, k, v: attend(hide(scaled(k, q)), v), "exchanged"),
    (check_head, lambda q, k, v: attend(hide(scaled(q, k)), k), "times v."),
    (
        check_head,
        lambda q, k, v: hide(scaled(q, k)).softmax(1),
        "shape (5, 5), where a Tensor of shape (5, 4)",
    ),
    (check_block, lambda x, n1, a, n2, m: m(n2(a(n1(x)))), "What came in is lost"),
    (check_block, norm_after, "as in the first GPT"),
    (check_block, lambda x, n1, a, n2, m: x + m(n2(x + a(n1(x)))), "starts from x again"),
    (check_block, lambda x, n1, a, n2, m: x + a(n1(x)) + m(n2(x)), "read the first sum"),
    (check_block, never_normed, "norms are missing"),
    (check_block, sum_of_norms, "add it to x"),
    (check_block, lambda x, n1, a, n2, m: block(x, n2, a, n1, m), "x plus attention of its norm"),
    (check_next_token_loss, lambda lo, ids: cross_entropy(lo, ids), "Not shifted"),
    (check_next_token_loss, lambda lo, ids: cross_entropy(lo[1:], ids[:-1]), "token before"),
    (check_next_token_loss, lambda lo, ids: loss(lo, ids) * (len(ids) - 1), "is the sum"),
    (
        check_next_token_loss,
        lambda lo, ids: loss(lo, ids) * (len(ids) - 1) / len(ids),
        "divide by T - 1",
    ),
    (check_next_token_loss, lambda lo, ids: loss(lo, ids) / math.log(2), "in bits"),
    (check_next_token_loss, log_of_mean, "First the logarithm"),
    (check_next_token_loss, lambda lo, ids: -loss(lo, ids), "negative"),
    (
        check_next_token_loss,
        lambda lo, ids: -lo[range(len(ids) - 1), ids[1:]].mean(),
        "Those are logits",
    ),
    (
        check_next_token_loss,
        lambda lo, ids: lo.softmax(1)[range(len(ids) - 1), ids[1:]].mean(),
        "mean of -log_softmax",
    ),
    (check_next_token_loss, lambda lo, ids: loss(lo.softmax(1), ids), "mean of -log_softmax"),
    (check_training_step, cleared_too_late, "before backward(), not after"),
    (check_training_step, step_on_old, "clear the old gradient"),
    (check_training_step, lambda w, f, r: w.detach() - r * w.grad, "That is the old gradient"),
    (check_training_step, lambda w, f, r: w + r * gradient(w, f), "Uphill"),
    (check_training_step, lambda w, f, r: w - gradient(w, f), "rate is missing"),
    (check_training_step, lambda w, f, r: w, "unchanged"),
    (check_training_step, lambda w, f, r: gradient(w, f), "return the weight"),
    (check_training_step, lambda w, f, r: w - r * gradient(w, f).sign(), "weight - rate"),
    (check_training_step, lambda w, f, r: f(w), "That is one number, where a Tensor"),
    (check_completion, lambda m, ids, n: complete(m, ids, n, seen=-1), "The bug is still there"),
    (check_completion, lambda m, ids, n: complete(m, ids, n, at=0), "after the first token"),
    (check_completion, never_shown, "never shown to the model"),
    (check_completion, lambda m, ids, n: complete(m, ids, n)[len(ids) :], "old ids, then new"),
    (
        check_completion,
        lambda m, ids, n: complete(m, ids, n - 1),
        "shape (11,), where a Tensor of shape (12,)",
    ),
    (
        check_completion,
        lambda m, ids, n: complete(m, ids, n + 1),
        "shape (13,), where a Tensor of shape (12,)",
    ),
    (check_completion, lambda m, ids, n: complete(m, ids, n).flip(0), "appends the likeliest"),
]

# --- tokens and codes -----------------------------------------------------------------------------


def distances(patch, centers):
    return ((centers - patch) ** 2).sum(1)


def dot_product(patch, centers):
    return (centers @ patch).argmax()


def shifted(ids, pad):
    return [*ids[1:], -100]


def in_place(ids, pad):
    for place, token in enumerate(ids):
        ids[place] = -100 if token == pad else token
    return ids


def ignore(ids, *ignored):
    return [-100 if token in ignored else token for token in ids]


def no_class(tokens, *more):
    return [token for token in tokens if not token.startswith(("<CLS_", *more))]


def until_cls(tokens):
    return tokens[: tokens.index("<CLS>") + 1]


def below(weight, rows):
    return np.vstack([weight, rows])


def tiled(row, n):
    return np.tile(row, (n, 1))


RIGHT += [
    (check_nearest_patch, lambda p, c: int(distances(p, c).argmin())),
    (check_nearest_patch, lambda p, c: np.linalg.norm(c - p, axis=1).argmin()),
    (check_split, lambda sources, order, n: [s in set(order[:n]) for s in sources]),
    (check_split, lambda sources, order, n: np.isin(sources, order[:n])),
    (check_labels, ignore),
    (check_labels, lambda ids, pad: np.where(np.array(ids) == pad, -100, ids)),
    (check_labels, lambda ids, pad: torch.tensor(ids).masked_fill(torch.tensor(ids) == pad, -100)),
    (check_end_counts, lambda row, length, pad: row + [-100] * (length - len(row))),
    (check_classifier_input, until_cls),
    (check_classifier_input, lambda tokens: tuple(until_cls(tokens))),
    (check_class_removed, no_class),
    (check_larger_embedding, lambda w, n: below(w, tiled(w.mean(0), n))),
]
WRONG += [
    (check_nearest_patch, dot_product, "centers full of ink"),
    (check_nearest_patch, lambda p, c: int(distances(p, c).argmax()), "farthest"),
    (check_nearest_patch, lambda p, c: int(distances(p, c).argmin()) + 1, "from 0"),
    (check_nearest_patch, lambda p, c: distances(p, c).min(), "That is the distance"),
    (check_nearest_patch, lambda p, c: 99, "sum of squared differences is smallest"),
    (check_nearest_patch, lambda p, c: (c - p).sum(1).argmin(), "Differences of two signs"),
    (check_nearest_patch, lambda p, c: abs(c.mean(1) - p.mean()).argmin(), "Equally dark"),
    (check_nearest_patch, lambda p, c: abs(c - p).sum(1).argmin(), "absolute differences"),
    (check_nearest_patch, lambda p, c: ((c - p) ** 2).sum(0).argmin(), "(axis 1)"),
    (check_nearest_patch, lambda p, c: ((c - p) ** 2).sum().argmin(), "use axis=1"),
    (check_nearest_patch, lambda p, c: abs(c - p).max(1).argmin(), "the widest differences"),
    (check_nearest_patch, lambda p, c: p.nonsense, "AttributeError"),
    (check_nearest_patch, lambda p, c: distances(p, c), "shape (12,), where one number is wanted"),
    (check_split, lambda s, order, n: [i in order[:n] for i, _ in enumerate(s)], "rows in train"),
    (check_split, lambda s, order, n: [x not in order[:n] for x in s], "True must mean test"),
    (check_split, lambda s, order, n: [x < n for x in s], "Not drawn at random"),
    (check_split, lambda s, order, n: [x in order[-n:] for x in s], "the last n_test"),
    (check_split, lambda s, order, n: [x == order[0] for x in s], "among the first n_test"),
    (check_split, lambda s, order, n: [x in order[:2] for x in s], "among the first n_test"),
    (check_split, lambda s, order, n: [int(x in order[:n]) for x in s], "a list of 10, where"),
    (check_labels, lambda ids, pad: list(ids), "Padding is still"),
    (check_labels, lambda ids, pad: shifted(ignore(ids, pad), pad), "Shifted by hand: "),
    (check_labels, lambda ids, pad: [*ids[1:], pad], "Shifted by hand, with"),
    (check_labels, in_place, "changed what it was called with"),
    (check_labels, lambda ids, pad: [-100 if t > 505 else t for t in ignore(ids, pad)], "class is"),
    (check_labels, lambda ids, pad: ignore(ids, pad, 5), "<EOS> is masked"),
    (check_labels, lambda ids, pad: [0 if t == pad else t for t in ids], "a token like any other"),
    (check_labels, lambda ids, pad: ignore(ids, 0), "pad_id is 520 here"),
    (check_labels, lambda ids, pad: ids[:7] + [-100, -100], "as many as the ids"),
    (check_labels, lambda ids, pad: ids[:7] + [-100] * (len(ids) - 7), "padding becomes -100"),
    (check_labels, lambda ids, pad: [2, 45, 6, 3, 4, 509, 5, -100, -100], "For [2, "),
    (
        check_end_counts,
        lambda row, n, pad: ignore(row + [pad] * (n - len(row)), pad),
        "bug is still",
    ),
    (check_end_counts, lambda row, n, pad: row + [pad] * (n - len(row)), "Now padding counts"),
    (
        check_end_counts,
        lambda row, n, pad: row + [pad] + [-100] * (n - len(row) - 1),
        "One padding",
    ),
    (check_end_counts, lambda row, n, pad: row, "as long as the padded row"),
    (check_end_counts, lambda row, n, pad: [*row[1:], -100] + [-100] * (n - len(row)), "shift"),
    (check_end_counts, lambda row, n, pad: row[:3] + [-100] * (n - 3), "padded by its length"),
    (check_classifier_input, lambda tokens: tokens, "class is still"),
    (check_classifier_input, lambda tokens: tokens[:-1], "Without <EOS>"),
    (check_classifier_input, lambda tokens: until_cls(tokens)[:-1], "<CLS> is missing"),
    (check_classifier_input, lambda tokens: [*until_cls(tokens), "<EOS>"], "<EOS> comes after"),
    (check_classifier_input, lambda tokens: tokens[:5], "not every image has two codes"),
    (check_classifier_input, lambda tokens: " ".join(tokens[:5]), "That is a string, where"),
    (check_class_removed, lambda t: list(t), "<CLS_k> names it"),
    (check_class_removed, lambda t: t[:-2] + t[-1:], "no fixed place"),
    (check_class_removed, lambda t: t if t[0] == "<CLS>" else no_class(t), "stands in front"),
    (check_class_removed, lambda t: [x for x in t if not x.startswith("<CLS")], "Keep it"),
    (check_class_removed, lambda t: no_class(t, "<EOS"), "<EOS> is gone"),
    (check_class_removed, lambda t: no_class(t)[::-1], "in its order"),
    (check_larger_embedding, lambda w, n: below(tiled(w.mean(0), n), w), "another id now"),
    (
        check_larger_embedding,
        lambda w, n: np.hstack([w, tiled(w.mean(1), n).T]),
        "each vector longer",
    ),
    (check_larger_embedding, lambda w, n: w, "Nothing was added"),
    (check_larger_embedding, lambda w, n: below(w * 0, tiled(w.mean(0), n)), "the old rows"),
    (check_larger_embedding, lambda w, n: below(w, tiled(0 * w[0], n)), "the logit 0"),
    (check_larger_embedding, lambda w, n: below(w, tiled(0 * w[0] + w.mean(), n)), "axis 0"),
    (check_larger_embedding, lambda w, n: below(w, tiled(w[-1], n)), "half of that token's"),
    (check_larger_embedding, lambda w, n: w.__imul__(2), "changed what it was called with"),
    (check_larger_embedding, lambda w, n: "larger", "a string, where an array of shape (7, 3)"),
]

# --- probabilities --------------------------------------------------------------------------------


def rescaled(p):
    return p / p.sum()


def tempered(logits, temperature):
    scaled = np.exp((logits - logits.max()) / temperature)
    return scaled / scaled.sum()


def kept(p, top_p, before=True):
    order = np.argsort(-p)
    sums = np.cumsum(p[order]) - (p[order] if before else 0)
    return np.where(np.isin(np.arange(len(p)), order[sums < top_p]), p, 0)


def by_log_of_sum(logs):
    return np.exp(logs - np.log(np.exp(logs).sum()))


def nucleus(p, top_p):
    return rescaled(kept(p, top_p))


def rarest(p, top_p):
    order = np.argsort(p)
    before = np.cumsum(p[order]) - p[order]
    return rescaled(np.where(np.isin(np.arange(len(p)), order[before < top_p]), p, 0))


def at_least(p, least):
    return rescaled(np.where(p >= least, p, 0))


def mixed(conditional, free, w):
    return free ** (1 - w) * conditional**w


def guided(conditional, free, w):
    return rescaled(mixed(conditional, free, w))


RIGHT += [
    (check_initial_loss, math.log),
    (check_initial_loss, lambda n: -np.log(1 / n)),
    (check_temperature, tempered),
    (check_temperature, lambda lo, t: torch.from_numpy(lo).div(t).softmax(0)),
    (check_nucleus, nucleus),
    (check_guidance, guided),
    (check_bayes, lambda logs, prior: softmax(logs + np.log(prior))),
    (check_bayes, lambda logs, prior: rescaled(np.exp(logs - logs.max()) * prior)),
]
WRONG += [
    (check_initial_loss, math.log2, "bits"),
    (check_initial_loss, math.log10, "log10"),
    (check_initial_loss, lambda n: n, "perplexity"),
    (check_initial_loss, lambda n: 1 / n, "probability of one token"),
    (check_initial_loss, lambda n: -math.log(n), "sign"),
    (check_initial_loss, lambda n: math.log(50_257), "when all are equally likely. Here it is"),
    (check_initial_loss, lambda n: "10.8", "a string, where one number is wanted"),
    (check_temperature, lambda lo, t: tempered(lo, 1 / t), "Divide"),
    (check_temperature, lambda lo, t: rescaled(tempered(lo, 1) / t), "has no effect"),
    (check_temperature, lambda lo, t: tempered(lo, 1) / t, "only breaks their sum"),
    (check_temperature, lambda lo, t: lo / t, "logits still"),
    (check_temperature, lambda lo, t: np.exp(lo / t), "must sum to 1"),
    (check_temperature, lambda lo, t: rescaled(np.exp(lo / t)), "of a large number overflows"),
    (check_temperature, lambda lo, t: rescaled(np.exp(lo / t - lo.max())), "after dividing"),
    (check_temperature, lambda lo, t: np.exp((lo - lo.max()) / t), "must sum to 1"),
    (check_temperature, lambda lo, t: tempered(lo, t**2), "then take the softmax"),
    (check_nucleus, lambda p, top_p: rescaled(kept(p, top_p, before=False)), "Too few"),
    (check_nucleus, kept, "they must sum to 1"),
    (check_nucleus, lambda p, top_p: np.where(p > top_p, p, 0), "The sum counts"),
    (check_nucleus, lambda p, top_p: p, "Nothing is dropped"),
    (check_nucleus, lambda p, top_p: at_least(p, 0.3), "Too few"),
    (check_nucleus, lambda p, top_p: at_least(p, np.sort(p)[-2]), "together hold top_p"),
    (check_nucleus, lambda p, top_p: rescaled(p[kept(p, top_p) > 0]), "keep their places"),
    (check_nucleus, rarest, "Those are the rarest"),
    (check_nucleus, lambda p, top_p: -np.sort(-nucleus(p, top_p)), "its own place"),
    (check_nucleus, lambda p, top_p: rescaled(np.sign(kept(p, top_p))), "together hold top_p"),
    (check_nucleus, lambda p, top_p: 0.7, "one number, where an array of shape (5,)"),
    (check_guidance, lambda g, f, w: f + w * (g - f), "mixes probabilities"),
    (check_guidance, mixed, "must sum to 1"),
    (check_guidance, lambda g, f, w: np.log(mixed(g, f, w)), "take exp, then divide"),
    (check_guidance, lambda g, f, w: np.log(guided(g, f, w)), "mix log p"),
    (check_guidance, lambda g, f, w: guided(f, g, w), "exchanged"),
    (check_guidance, lambda g, f, w: rescaled(g**w * f), "weight is 1 - w"),
    (check_guidance, lambda g, f, w: g, "mix log p"),
    (check_guidance, lambda g, f, w: guided(g, f, 2.0), "mix log p"),
    (check_bayes, lambda logs, prior: softmax(logs), "prior is missing"),
    (check_bayes, lambda logs, prior: softmax(logs + prior), "add ln prior"),
    (check_bayes, lambda logs, prior: np.log(softmax(logs + np.log(prior))), "take exp"),
    (check_bayes, lambda logs, prior: np.exp(logs) * prior, "products do not sum to 1"),
    (check_bayes, lambda logs, prior: rescaled(np.exp(logs) * prior), "exp(-3000) is 0"),
    (check_bayes, lambda logs, prior: by_log_of_sum(logs + np.log(prior)), "ln of the sum is"),
    (check_bayes, lambda logs, prior: logs + np.log(prior) - max(logs + np.log(prior)), "are loga"),
    (check_bayes, lambda logs, prior: softmax(logs) * prior, "the sum last"),
    (check_bayes, lambda logs, prior: rescaled(logs + np.log(prior)), "add ln prior"),
    (check_bayes, lambda logs, prior: prior, "subtract the largest, take exp"),
]

# --- measuring ------------------------------------------------------------------------------------


def all_losses(batches):
    return np.concatenate([loss.ravel() for loss, _ in batches])


def kept_losses(batches):
    return np.concatenate([loss[mask] for loss, mask in batches])


def batch_means(batches):
    return np.exp(np.mean([loss[mask].mean() for loss, mask in batches]))


def row_means(batches):
    rows = [loss[mask] for b in batches for loss, mask in zip(*b, strict=True)]
    return np.exp(np.mean([row.mean() for row in rows]))


EVEN = (np.array([[1.0, 3.0], [5.0, 7.0]]), np.ones((2, 2), bool))
PADDED = (np.array([[1.0, 3.0, 9.0], [5.0, 7.0, 9.0]]), np.array([[1, 1, 0], [1, 1, 0]], bool))
RAGGED = (np.array([[1.0, 2.0, 3.0], [6.0, 0.0, 0.0]]), np.array([[1, 1, 1], [1, 0, 0]], bool))


def row_by_row(batch):
    return [(nll[None], real[None]) for nll, real in zip(*batch, strict=True)]


def exact(only_a, only_b):
    return stats.binomtest(only_a, only_a + only_b, 0.5).pvalue


def ends(means, share=95):
    return np.percentile(means, [50 - share / 2, 50 + share / 2])


def pick_means(nll, image, picks):
    sums, counts = np.bincount(image, nll), np.bincount(image)
    return np.array([sums[row].sum() / counts[row].sum() for row in picks])


def tokens_joined(nll, image, picks):  # slowly, and as one would say it
    return ends([np.concatenate([nll[image == k] for k in row]).mean() for row in picks])


def image_means(nll, image, picks):
    means = np.bincount(image, nll) / np.bincount(image)
    return ends(means[picks].mean(1))


def normal_interval(nll, image, picks, shrink=1.0):
    means = pick_means(nll, image, picks)
    half = 1.96 * means.std() / shrink
    return means.mean() - half, means.mean() + half


def standard_error(nll, image, picks):
    return normal_interval(nll, image, picks, math.sqrt(len(picks)))


def trusted_in_torch(evaluate):
    nll, real = map(torch.tensor, RAGGED)
    return bool(evaluate([(nll, real)]) == 3 and evaluate(row_by_row((nll, real))) == 3)


RIGHT += [
    (check_perplexity, lambda b: np.exp(kept_losses(b).mean())),
    (check_wrong_evaluations, lambda e: np.isclose(e([RAGGED]), 3) and e(row_by_row(RAGGED)) == 3),
    (
        check_wrong_evaluations,
        lambda e: e([RAGGED]) == 3 and np.isclose(e([RAGGED, row_by_row(RAGGED)[1]]), 18 / 5),
    ),
    (check_wrong_evaluations, trusted_in_torch),
    (check_bootstrap, lambda *question: ends(pick_means(*question))),
    (check_bootstrap, tokens_joined),
    (check_selection, lambda val, test: test[val.sum(1).argmax()].mean()),
    (check_sign_test, exact),
    (check_training_operations, lambda n, d: 6 * n * d),
    (check_bits_per_byte, lambda nll, pieces: nll.sum() / math.log(2) / len(b"".join(pieces))),
]
WRONG += [
    (check_bits_per_byte, lambda nll, pieces: nll.sum() / len(b"".join(pieces)), "1 / ln 2 bits"),
    (
        check_bits_per_byte,
        lambda nll, pieces: nll.sum() * math.log(2) / len(b"".join(pieces)),
        "divide by ln 2",
    ),
    (check_bits_per_byte, lambda nll, pieces: nll.mean() / math.log(2), "per token"),
    (
        check_bits_per_byte,
        lambda nll, pieces: np.mean(nll / math.log(2) / [len(p) for p in pieces]),
        "mean of ratios",
    ),
    (
        check_bits_per_byte,
        lambda nll, pieces: nll.sum() / math.log(2) / len(b"".join(pieces).decode()),
        "counts characters",
    ),
    (check_perplexity, lambda b: np.exp(all_losses(b).mean()), "Padding is counted"),
    (check_perplexity, batch_means, "mean of batch means"),
    (check_perplexity, row_means, "mean of row means"),
    (
        check_perplexity,
        lambda b: np.exp(kept_losses(b).sum() / len(all_losses(b))),
        "A loss of 0 still counts",
    ),
    (check_perplexity, lambda b: kept_losses(b).mean(), "mean NLL"),
    (check_perplexity, lambda b: 2 ** kept_losses(b).mean(), "power of nats"),
    (check_perplexity, lambda b: np.exp(kept_losses(b)).mean(), "take the mean first"),
    (check_perplexity, lambda b: 7.0, "Here it is"),
    (check_wrong_evaluations, lambda evaluate: True, "counts padding passes"),
    (check_wrong_evaluations, lambda evaluate: False, "rejects a correct evaluation"),
    (check_wrong_evaluations, lambda e: e([RAGGED]) == 4, "rejects a correct evaluation"),
    (check_wrong_evaluations, lambda e: e([EVEN]) == 4, "counts padding passes"),
    (check_wrong_evaluations, lambda e: e([PADDED]) == 4, "mean of batch means"),
    (check_wrong_evaluations, lambda e: e([RAGGED]) == 3, "mean of batch means"),
    (
        check_wrong_evaluations,
        lambda e: e([PADDED]) == 4 and e([EVEN, row_by_row(EVEN)[0]]) == 10 / 3,
        "mean of row means",
    ),
    (check_wrong_evaluations, lambda evaluate: evaluate(3), "stopped with TypeError"),
    (check_wrong_evaluations, lambda evaluate: 1, "one number, where True or False is wanted"),
    (check_bootstrap, lambda nll, image, picks: ends(nll[picks].mean(1)), "draws tokens"),
    (check_bootstrap, image_means, "mean of image means"),
    (
        check_bootstrap,
        lambda nll, image, picks: ends([nll[np.isin(image, row)].mean() for row in picks]),
        "counts twice",
    ),
    (check_bootstrap, lambda *question: ends(pick_means(*question), 90), "leave 2.5 %"),
    (
        check_bootstrap,
        lambda *question: np.percentile(pick_means(*question), (0.025, 0.975)),
        "np.percentile wants percent",
    ),
    (check_bootstrap, lambda *question: ends(pick_means(*question))[::-1], "lower end comes first"),
    (check_bootstrap, normal_interval, "takes the means as normal"),
    (check_bootstrap, pick_means, "Those are all means"),
    (check_bootstrap, standard_error, "when you merely draw more often"),
    (check_bootstrap, lambda *question: ends(pick_means(*question), 100), "the 95 % interval of"),
    (check_bootstrap, lambda nll, image, picks: ends(nll), "the 95 % interval of"),
    (check_selection, lambda val, test: test.mean(1).max(), "The bug is still there"),
    (check_selection, lambda val, test: val.mean(1).max(), "accuracy on val"),
    (check_selection, lambda val, test: test.mean(), "mean of all methods"),
    (check_selection, lambda val, test: val.sum(1).argmax(), "number of the method"),
    (check_selection, lambda v, t: t[np.hstack([v, t]).sum(1).argmax()].mean(), "Chosen on both"),
    (check_selection, lambda val, test: test.mean(1).min(), "of the best on val"),
    (check_selection, lambda val, test: test.mean(1)[val.mean(1).argmin()], "of the best on val"),
    (check_sign_test, lambda a, b: exact(a, b) / 2, "one side only"),
    (check_sign_test, lambda a, b: math.comb(a + b, a) / 2 ** (a + b), "just this outcome"),
    (check_sign_test, lambda a, b: 2 * stats.binom.cdf(min(a, b) - 1, a + b, 0.5), "with k"),
    (check_sign_test, lambda a, b: 1 - exact(a, b), "doubled. Here it is"),
    (check_sign_test, lambda a, b: 2 * stats.norm.sf(abs(a - b) / math.sqrt(a + b)), "normal"),
    (check_sign_test, lambda a, b: exact(a, b) if a <= b else 0.3, "doubled. Here it is"),
    (check_sign_test, lambda a, b: 2 * stats.binom.cdf(min(a, b), a + b, 0.5), "more than 1"),
    (check_sign_test, lambda a, b: "small", "where one number is wanted"),
    (check_training_operations, lambda n, d: n * d, "multiplication and an addition, and"),
    (check_training_operations, lambda n, d: 2 * n * d, "forward alone"),
    (check_training_operations, lambda n, d: 3 * n * d, "two operations, not one"),
    (check_training_operations, lambda n, d: 4 * n * d, "way back alone"),
    (check_training_operations, lambda n, d: 6 * n, "for one token"),
    (check_training_operations, lambda n, d: 9_000_000, "forward and back"),
]
