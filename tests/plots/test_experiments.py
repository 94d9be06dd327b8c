"""Figures of experiments: places on axes, verdicts and gaps."""

import pytest
from figure_samples import (
    ENTROPY,
    POINTS,
    SCRATCH,
    STARTED,
    TRAPS,
    curve,
    drawn,
    lines_with,
    plot_curves,
    trap,
    words,
)

from seqlm.evaluation.estimates import Estimate
from seqlm.plots.experiments import _verdict, plot_gap_to_entropy


def test_accuracies_stand_at_their_number_of_labels_and_all_at_its_own():
    figure = plot_curves({SCRATCH: curve(0.3)}, "Few labels")
    (ax,) = figure.axes
    ticks = {t.get_text(): x for t, x in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)}
    assert ticks.pop("all (126)") == pytest.approx(125.7)
    assert ticks == {str(x): x for x in (1, 2, 5, 10, 20, 50)}
    assert "chance: 10%" in words(figure)
    assert "means of 2 seeds" in figure.alt


def test_every_mean_is_in_the_alt_text_with_its_interval():
    alt = drawn("label efficiency").alt
    assert f"{STARTED}: 50.0%" in alt and "30.0% (25.5% to 34.9%) with 1;" in alt


def test_seeds_are_dots_of_their_own():
    dots = [line for line in lines_with(drawn("label efficiency"), ".") if len(line.get_xdata())]
    assert sum(len(line.get_xdata()) for line in dots) == 3 * 7 * 2


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (TRAPS[0], "20 times too good"),
        (TRAPS[1], "2.31 times too bad"),
        (TRAPS[3], "10.0 points too good"),
        (TRAPS[4], "the same"),
        (trap("", 0.1, 0.9, is_share=True), "80.0 points too bad"),
    ],
)
def test_a_verdict_says_how_far_and_to_which_side_a_number_is_wrong(row, verdict):
    both = {which: Estimate.from_json(row[which]) for which in ("reported", "true")}
    assert _verdict({**row, **both}) == verdict


def test_shares_and_perplexities_have_a_panel_each():
    figure = drawn("traps")
    nats, shares = figure.axes
    assert nats.get_xscale() == "log" and shares.get_xscale() == "linear"
    assert "lower is better" in nats.get_title("left")
    names = [label.get_text().replace("\n", " ") for label in nats.get_yticklabels()]
    assert names == [row["name"] for row in TRAPS[:3]]
    assert "padding counted: perplexity reported 1.30 (1.28 to 1.32), true 26.00" in figure.alt
    rings, diamonds = lines_with(figure, "o"), lines_with(figure, "D")
    assert [ring.get_xdata()[0] for ring in rings[:2]] == [1.3, 60.0]
    assert all(ring.get_markerfacecolor() == "white" for ring in rings)
    assert all(diamond.get_markerfacecolor() != "white" for diamond in diamonds)
    assert len(rings) == len(diamonds) == len(TRAPS)


def test_the_gap_to_the_entropy_is_drawn_in_order_of_tokens():
    figure = drawn("gap")
    (ax,) = figure.axes
    (line,) = (line for line in ax.lines if line.get_marker() == "o")
    assert line.get_ydata() == pytest.approx([1, 0.1, 0.01, 0.001])
    assert {"0.01 nats", "source 1.500", "baseline: unigram 2.400"} <= set(
        words(figure).split("\n")
    )
    assert "after 1,000,000 tokens" in figure.alt and "Gap +0.0010" in figure.alt


def test_a_model_below_the_entropy_stands_below_its_line():
    figure = drawn("gap, below the source")
    (ax,) = figure.axes
    (line,) = (line for line in ax.lines if line.get_marker() == "o")
    assert line.get_ydata()[-1] == pytest.approx(-0.0005) and ax.get_ylim()[0] < -0.0005
    assert "Gap -0.0005" in figure.alt
    assert "within 0.01: first after 1,000,000 tokens" in figure.alt


def test_a_model_that_never_comes_near_has_never_in_its_alt_text():
    assert "within 0.01: never" in plot_gap_to_entropy(POINTS[2:], ENTROPY, {}, "Source", 9).alt


def test_the_line_of_growth_is_solid_where_it_was_fitted_and_goes_through_it():
    ax = drawn("growth, one").axes[0]
    dashed, solid = ax.lines[:2]
    assert list(dashed.get_xdata()) == [64, 128] and list(solid.get_xdata()) == [128, 256]
    assert solid.get_ydata() == pytest.approx([0.1, 0.4])
    assert "exponent 2.00" in ax.get_title(loc="left")
    assert "0.100 s to 0.400 s" in drawn("growth, one").alt
