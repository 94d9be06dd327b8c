"""The checkers of the exercises on the model's parts: right answers pass, wrong ones are named."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from seqlm.exercises.gpt_by_hand import (
    check_block,
    check_head,
    check_mask,
    check_next_token_loss,
    check_training_step,
)


def hide(scores, first=1):
    return scores.masked_fill(torch.ones_like(scores).triu(first).bool(), -torch.inf)


def attend(scores, v, dim=1):
    return scores.softmax(dim) @ v


def scaled(q, k):
    return q @ k.T / math.sqrt(q.shape[1])


def loss(logits, ids):
    return cross_entropy(logits[:-1], ids[1:])


def step(weight, loss_of, rate):
    weight.grad = None
    loss_of(weight).backward()
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
]
WRONG = [
    (check_mask, lambda s: s, "Nothing is hidden"),
    (check_mask, lambda s: hide(s.T).T, "hides the past"),
    (check_mask, lambda s: hide(s, 0), "diagonal is hidden"),
    (check_mask, lambda s: s.tril(), "exp(0) is 1"),
    (check_mask, lambda s: hide(s).softmax(1), "Those are weights"),
    (check_mask, lambda s: hide(s, 2), "above the diagonal becomes -inf"),
    (check_mask, lambda s: s > 0, "where a square of scores"),
    (check_head, lambda q, k, v: attend(hide(q @ k.T), v), "not divided by √d"),
    (check_head, lambda q, k, v: attend(hide(q @ k.T / q.shape[1]), v), "by d, not"),
    (check_head, lambda q, k, v: attend(scaled(q, k), v), "no mask"),
    (check_head, lambda q, k, v: scaled(q, k).softmax(1).tril() @ v, "after the softmax"),
    (check_head, lambda q, k, v: attend(hide(scaled(q, k), 0), v), "sees nothing"),
    (check_head, lambda q, k, v: attend(hide(scaled(q, k)), v, 0), "down the columns"),
    (check_head, lambda q, k, v: attend(hide(scaled(k, q)), v), "exchanged"),
    (check_head, lambda q, k, v: attend(hide(scaled(q, k)), k), "then weights times v"),
    (check_head, lambda q, k, v: hide(scaled(q, k)).softmax(1), "where a row of numbers"),
    (check_block, lambda x, n1, a, n2, m: m(n2(a(n1(x)))), "What came in is lost"),
    (check_block, norm_after, "as in the first GPT"),
    (check_block, lambda x, n1, a, n2, m: x + m(n2(x + a(n1(x)))), "starts from x again"),
    (check_block, lambda x, n1, a, n2, m: x + a(n1(x)) + m(n2(x)), "read the first sum"),
    (check_block, never_normed, "norms are missing"),
    (check_block, sum_of_norms, "add it to x"),
    (check_block, lambda x, n1, a, n2, m: block(x, n2, a, n1, m), "First x plus attention"),
    (check_next_token_loss, lambda lo, ids: cross_entropy(lo, ids), "Not shifted"),
    (check_next_token_loss, lambda lo, ids: cross_entropy(lo[1:], ids[:-1]), "token before"),
    (check_next_token_loss, lambda lo, ids: loss(lo, ids) * (len(ids) - 1), "is the sum"),
    (
        check_next_token_loss,
        lambda lo, ids: loss(lo, ids) * (len(ids) - 1) / len(ids),
        "Of 5 tokens only 4",
    ),
    (check_next_token_loss, lambda lo, ids: -loss(lo, ids), "negative"),
    (
        check_next_token_loss,
        lambda lo, ids: -lo[range(len(ids) - 1), ids[1:]].mean(),
        "Those are logits",
    ),
    (
        check_next_token_loss,
        lambda lo, ids: lo.softmax(1)[range(len(ids) - 1), ids[1:]].mean(),
        "mean of probabilities",
    ),
    (check_next_token_loss, lambda lo, ids: loss(lo.softmax(1), ids), "log_softmax of the logits"),
    (check_training_step, step_on_old, "clear the old gradient"),
    (check_training_step, lambda w, f, r: w.detach() - r * w.grad, "That is the old gradient"),
    (check_training_step, lambda w, f, r: w + r * gradient(w, f), "Uphill"),
    (check_training_step, lambda w, f, r: w - gradient(w, f), "rate is missing"),
    (check_training_step, lambda w, f, r: w, "unchanged"),
    (check_training_step, lambda w, f, r: gradient(w, f), "return the weight"),
    (check_training_step, lambda w, f, r: w - r * gradient(w, f).sign(), "weight minus rate"),
    (check_training_step, lambda w, f, r: f(w), "where the weight after the step"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_a_right_answer_passes_however_it_is_written(check, answer, capsys):
    assert check(answer) is True
    assert capsys.readouterr().out.startswith("✓ Right. ")


@pytest.mark.parametrize(("check", "answer", "words"), WRONG)
def test_a_wrong_answer_gets_a_line_about_its_mistake(check, answer, words, capsys):
    assert check(answer) is False
    printed = capsys.readouterr().out
    assert printed.startswith("✗ Not yet. ") and words in printed and printed.count("\n") == 1


def first_answers(check, answer):
    """What `answer` gives in the first of the two cases, whatever it is asked."""
    kept = []

    def repeating(*arguments):
        kept.append(answer(*arguments))
        return kept[0]

    return repeating


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_one_right_number_is_not_enough(check, answer, capsys):
    assert check(first_answers(check, answer)) is False


@pytest.mark.parametrize(
    ("check", "blank"),
    [
        (check_mask, lambda scores: ...),
        (check_head, lambda q, k, v: torch.softmax(..., dim=...) @ ...),
        (check_block, lambda x, *parts: x + ...),
        (check_training_step, lambda weight, loss_of, rate: weight.detach() - ...),
    ],
)
def test_a_blank_that_is_still_there_is_no_mistake(check, blank, capsys):
    assert check(blank) is False
    printed = capsys.readouterr().out
    assert "Nothing to check yet" in printed and "✗" not in printed


def test_a_check_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    check_next_token_loss(loss)
    assert torch.equal(torch.get_rng_state(), before)
