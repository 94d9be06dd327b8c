"""Two models are compared on the very same things, and a difference is called real with care."""

import numpy as np
import pytest
from samples import scores_of
from scipy.stats import binom

from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate
from seqlm.evaluation.metrics import nll
from seqlm.evaluation.significance import (
    baseline_verdict,
    mcnemar,
    paired_difference,
    ratio_of_rows,
)


def test_pairing_two_models_gives_the_ratio_of_their_nlls_and_a_narrow_interval():
    rng = np.random.default_rng(0)
    hard = rng.gamma(4.0, 1.0, 200)  # what makes an image hard is hard for both
    ours, theirs = scores_of(hard * rng.normal(0.8, 0.02, 200)), scores_of(hard)
    found = ratio_of_rows(ours.row, ours.nll, theirs.nll)
    assert found.value == pytest.approx(ours.nll.sum() / theirs.nll.sum())
    assert found.low < found.value < found.high
    alone = nll(ours)
    assert (found.high - found.low) / found.value < 0.2 * (alone.high - alone.low) / alone.value


def test_pairing_takes_two_rows_of_one_image_for_one_unit():
    rng = np.random.default_rng(0)
    hard = rng.gamma(4.0, 1.0, 60)
    easier = hard * rng.normal(0.8, 0.1, 60)
    ours, theirs = scores_of(easier.repeat(2)), scores_of(hard.repeat(2))
    by_row = ratio_of_rows(ours.row, ours.nll, theirs.nll)
    by_image = ratio_of_rows(ours.row, ours.nll, theirs.nll, images=np.arange(120) // 2)
    assert (by_row.n, by_image.n) == (120, 60)
    assert by_image.value == pytest.approx(by_row.value)
    assert by_row.high - by_row.low < 0.8 * (by_image.high - by_image.low)


def test_models_scored_on_different_tokens_are_never_paired():
    ours, theirs = scores_of([1.0, 2.0]), scores_of([1.0, 2.0], target=np.array([0, 3]))
    with pytest.raises(DataError, match="cannot be paired"):
        paired_difference(ours, theirs)


def test_the_paired_difference_is_the_mean_of_the_differences_of_every_token():
    rng = np.random.default_rng(0)
    hard, row = rng.gamma(4.0, 1.0, 300), np.arange(300) // 3
    ours, theirs = scores_of(hard + rng.normal(-0.1, 0.2, 300), row), scores_of(hard, row)
    found = paired_difference(ours, theirs)
    assert found.value == pytest.approx(nll(ours).value - nll(theirs).value)
    assert found.low < found.value < found.high < 0, "ours is better, and that must show"
    assert (found.n, found.unit) == (100, "nats per token")
    by_row = (ours.nll - theirs.nll).reshape(100, 3).mean(axis=1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * by_row.std() / np.sqrt(100), rel=0.1)
    alone = nll(ours)
    assert found.high - found.low < 0.3 * (alone.high - alone.low)


def test_the_paired_difference_takes_two_rows_of_one_image_for_one_unit():
    rng = np.random.default_rng(0)
    gain = rng.normal(0.1, 1.0, 60)
    ours, theirs = scores_of(gain.repeat(2) + 5), scores_of(np.full(120, 5.0))
    by_row = paired_difference(ours, theirs)
    by_image = paired_difference(ours, theirs, images=np.arange(120) // 2)
    assert (by_row.n, by_image.n) == (120, 60)
    assert by_row.high - by_row.low < 0.8 * (by_image.high - by_image.low)


@pytest.mark.parametrize("column", ["target", "position"])
def test_tokens_at_other_places_are_other_tokens(column):
    ours, theirs = scores_of([1.0, 2.0]), scores_of([1.0, 2.0], **{column: np.array([0, 3])})
    with pytest.raises(DataError, match="cannot be paired"):
        paired_difference(ours, theirs)
    with pytest.raises(DataError, match="cannot be paired"):
        paired_difference(scores_of([]), scores_of([]))


def answers(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 1), (1, 9), (5, 5), (12, 4), (3, 0)])
def test_mcnemars_p_is_the_binomial_tail_on_the_images_that_part_the_two(only_a, only_b):
    found = mcnemar(*answers(80, only_a, only_b, 7))
    m, most = only_a + only_b, max(only_a, only_b)
    by_hand = min(1.0, 2 * binom.sf(most - 1, m, 0.5))
    assert found.p_value == pytest.approx(by_hand)
    assert (found.only_a, found.only_b, found.difference.n) == (only_a, only_b, 87 + m)
    assert found.difference.value == pytest.approx((only_a - only_b) / (87 + m))
    zero_inside = found.difference.low <= 0 <= found.difference.high
    assert str(found).endswith("not distinguishable.") == zero_inside


def test_a_difference_that_a_table_of_the_binomial_knows():
    assert mcnemar(*answers(0, 9, 1, 0)).p_value == pytest.approx(22 / 1024)
    assert mcnemar(*answers(300, 0, 0, 60)).p_value == 1.0


def test_the_difference_of_two_accuracies_has_a_paired_interval():
    a, b = answers(320, 20, 5, 15)
    found = mcnemar(a, b).difference
    gain = a.astype(float) - b
    error = gain.std() / np.sqrt(360)
    assert (found.low, found.high) == (
        pytest.approx(gain.mean() - 1.96 * error, abs=0.006),
        pytest.approx(gain.mean() + 1.96 * error, abs=0.006),
    )
    assert found.n == 360 and found.unit == "share"
    turned = mcnemar(b, a).difference
    assert turned.value == -found.value and turned.high < 0


def test_a_comparison_is_written_in_one_sentence():
    real, chance = mcnemar(*answers(320, 20, 5, 15)), mcnemar(*answers(320, 5, 9, 26))
    assert str(real).startswith(
        "The first alone is right on 20 of 360 images, the second alone on 5: accuracy of the "
        "first minus that of the second is 4.2 percentage points (95 % interval "
    )
    assert str(real).endswith("; exact McNemar test: p = 0.004), so the two differ.")
    assert " is -1.1 percentage points " in str(chance)
    assert str(chance).endswith("p = 0.424), so the two are not distinguishable.")
    assert "p < 0.001" in str(mcnemar(*answers(300, 30, 0, 30)))
    assert "(interval unknown; " in str(mcnemar([True], [False]))


@pytest.mark.parametrize(("a", "b"), [([], []), ([True, False], [True])])
def test_answers_to_different_questions_are_not_compared(a, b):
    with pytest.raises(DataError, match="same images"):
        mcnemar(a, b)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((0.01, 0.03), "beats"),
        ((-0.03, -0.01), "does not beat"),
        ((-0.01, 0.03), "is not distinguishable from"),
        ((0.0004, 0.03), "is not distinguishable from"),  # "0.0% to 3.0%"
        ((-0.03, -0.0004), "is not distinguishable from"),
    ],
)
def test_a_baseline_is_beaten_where_the_printed_interval_excludes_nothing_gained(ends, said):
    assert baseline_verdict(Estimate(sum(ends) / 2, *ends, 9, "share")) == said
