"""Traps that are set while training: small models learn wrongly in seconds, and are asked correctly.

Each function trains a model of its own, reads off the number that its own loop would report, and
measures the same model with the ruler. All need rows of one length in the read layout.
"""

from collections.abc import Sequence

import numpy as np
import torch

from seqlm.config import ModelConfig
from seqlm.data.corpus import Corpus
from seqlm.data.tokens import KIND_CODE, PAD, shorten
from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate, proportion
from seqlm.evaluation.metrics import nll, perplexity
from seqlm.evaluation.scores import (
    TokenScores,
    class_probabilities,
    classifier_probabilities,
    score_tokens,
)
from seqlm.lab.traps import (
    Rows,
    Trap,
    cut_from_the_right,
    prompts_with_the_class,
    scores_in_the_loop,
    shifted_twice,
    shifts_that_cancel,
    with_padding,
)
from seqlm.models.gpt2 import build_classifier, build_lm, default_device, fit_attention

ROWS = 8_000  # more than a few seconds of training get to see
BATCH = 32
RATE = 1e-2  # high, and right for models this small


def padding_counted(
    corpus: Corpus, length: int, steps: int, seed: int, n_rows: int = 60
) -> tuple[Trap, dict[int, Estimate]]:
    """Rows padded to `length`, padding learned and counted: perplexity falls towards 1.

    Returns the trap, and the perplexity that the very same model has when padded to 32, 64, … and
    `length`. `n_rows` test rows are measured padded; they are long.
    """
    rows, pad_id = _read_rows(corpus, "train"), corpus.vocab[PAD]
    padded = with_padding(rows, length, pad_id)
    model = fit(_small_lm(corpus, length, seed), padded, padded, steps, seed, batch_size=2)
    asked = with_padding(_read_rows(corpus, "test")[:n_rows], length, pad_id)
    scores = scores_in_the_loop(model, asked, asked)
    # Attention looks back only, so a shorter padding would have had the same scores so far.
    lengths = [*(2**k for k in range(5, 30) if len(rows[0]) < 2**k < length), length]
    by_length = {n: perplexity(nll(scores.where(scores.position < n))) for n in lengths}
    trap = Trap(
        "padding counted",
        "perplexity",
        "perplexity",
        by_length[length],
        _code_perplexity(model, corpus),
        f"Of {length - 1} predicted tokens {length - len(rows[0])} are padding, and free.",
        "test_padding_never_changes_nll",
        "low",
    )
    return trap, by_length


def labels_shifted(corpus: Corpus, steps: int, seed: int) -> dict[str, Trap]:
    """Labels shifted by hand for a model that shifts them itself: to the left, and to the right."""
    wrong_ways = {
        "labels shifted twice": (shifted_twice, "It learned the token after the next one."),
        "two shifts that cancel": (shifts_that_cancel, "It learned to repeat the token it sees."),
    }
    found = {}
    for name, (wrong, cause) in wrong_ways.items():
        inputs, labels = wrong(_read_rows(corpus, "train"))
        model = fit(_small_lm(corpus, len(inputs[0]) + 1, seed), inputs, labels, steps, seed)
        scores = scores_in_the_loop(model, *wrong(_read_rows(corpus, "test")))
        reported = perplexity(nll(scores.of_kind(corpus.kinds, KIND_CODE)))
        true = _code_perplexity(model, corpus)
        caught_by = "test_the_trainers_loss_is_our_own_nll"
        found[name] = Trap(
            name, "perplexity", "perplexity", reported, true, cause, caught_by, "low"
        )
    return found


def class_in_the_input(corpus: Corpus, steps: int, seed: int) -> Trap:
    """A classifier whose question holds the answer, and what it can do when it does not."""
    rows, test = _read_rows(corpus, "train"), _read_rows(corpus, "test")
    given = prompts_with_the_class(rows, corpus.class_ids)
    classes, truth = (_class_of(some, corpus) for some in (rows, test))
    size = _size(len(rows[0]))
    model = build_classifier(size, corpus.vocab, len(corpus.class_ids), seed)
    model = fit(model, given, classes, steps, seed)
    asked = prompts_with_the_class(test, corpus.class_ids)
    leaked = classifier_probabilities(model, asked).argmax(1) == truth
    honest = classifier_probabilities(model, [row[:-1] for row in asked]).argmax(1) == truth
    return Trap(
        "class left in the input",
        "test digits classified correctly",
        "share",
        proportion(leaked),
        proportion(honest),
        "The last token it was shown is the answer.",
        "test_no_input_of_a_classifier_holds_a_class",
        "high",
    )


def label_cut_off(corpus: Corpus, max_length: int, steps: int, seed: int) -> Trap:
    """The same rows cut from the right, and cut so that their class stays; a model for each.

    This one makes a model look worse than it need be: nothing was there to learn the class from.
    """
    records = corpus.records("train", "read")[:ROWS]
    ways = {
        "reported": cut_from_the_right(_read_rows(corpus, "train"), max_length),
        "true": corpus.ids([shorten(record.tokens, max_length) for record in records]),
    }
    test = corpus.records("test", "read")
    asked = corpus.ids([shorten(record.tokens, max_length) for record in test])
    prompts = [row[:-1] for row in prompts_with_the_class(asked, corpus.class_ids)]
    truth, read = _class_of(asked, corpus), {}
    for name, rows in ways.items():
        model = fit(_small_lm(corpus, max_length, seed), rows, rows, steps, seed, 2 * BATCH)
        guess = class_probabilities(model, prompts, corpus.class_ids).argmax(1)
        read[name] = proportion(guess == truth)
    return Trap(
        "label cut off",
        "test digits classified correctly",
        "share",
        read["reported"],
        read["true"],
        "Cut from the right, no training row had its class left.",
        "test_shortening_keeps_head_and_tail_and_the_last_codes",
        "high",
    )


def fit(model, inputs: Rows, labels: Sequence, steps: int, seed: int, batch_size: int = BATCH):
    """Train on ``model(inputs, labels=labels).loss``, whatever the labels are; returns the model.

    A loop as small as it can be: rows drawn with replacement, AdamW, the rate up and down once.
    The same seed gives the same batches. Raises DataError when rows differ in length.
    """
    if len({len(row) for row in inputs}) != 1:
        raise DataError("these small models learn from rows of one length, and these differ")
    model.to(default_device()).train()
    fit_attention(model, len(inputs[0]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = rng.integers(0, len(inputs), batch_size)
        batch = (torch.tensor([some[i] for i in chosen]) for some in (inputs, labels))
        ids, wanted = (tensor.to(model.device) for tensor in batch)
        loss = model(ids, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    return model.eval()


def _size(n_positions: int) -> ModelConfig:
    return ModelConfig(n_layer=2, n_head=2, n_embd=64, n_positions=n_positions, dropout=0.0)


def _small_lm(corpus: Corpus, n_positions: int, seed: int):
    return build_lm(_size(n_positions), corpus.vocab, seed)


def _read_rows(corpus: Corpus, split: str) -> list[list[int]]:
    return corpus.ids([record.tokens for record in corpus.records(split, "read")[:ROWS]])


def _class_of(rows: Rows, corpus: Corpus) -> np.ndarray:
    """The class that each row names last. (N,) int64."""
    named = prompts_with_the_class(rows, corpus.class_ids)
    return np.array([corpus.class_ids.index(row[-1]) for row in named])


def _code_perplexity(model, corpus: Corpus) -> Estimate:
    scores: TokenScores = score_tokens(model, _read_rows(corpus, "test"))
    return perplexity(nll(scores.of_kind(corpus.kinds, KIND_CODE)))
