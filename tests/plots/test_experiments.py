"""Figures of experiments: places on axes, verdicts and gaps."""

import pytest
from figure_samples import SCRATCH, STARTED, curve, drawn, lines_with, plot_curves, words


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


def test_shares_and_perplexities_have_a_panel_each():
    figure = drawn("traps")
    nats, shares = figure.axes
    assert nats.get_xscale() == "log" and shares.get_xscale() == "linear"
    assert "lower is better" in nats.get_xlabel() and "higher is better" in shares.get_xlabel()
    assert nats.get_yticklabels()[0].get_text() == "padding counted: 1.30, not 26.00"
    assert "padding counted: 1.30 (1.28 to 1.32, n = 360), not 26.00 (" in figure.alt
    rings, diamonds = lines_with(figure, "o"), lines_with(figure, "D")
    assert rings[0].get_xdata().tolist() == [1.3, 60.0, 25.8]
    assert diamonds[0].get_xdata().tolist() == [26.0] * 3
    assert {ring.get_markerfacecolor() for ring in rings} == {"white"}
    assert "white" not in {diamond.get_markerfacecolor() for diamond in diamonds}


def test_the_gap_to_the_entropy_is_in_words_and_so_are_its_lines():
    figure = drawn("gap")
    assert {"the goal +0.010", "the source +0.000", "unigram +0.900", "GPT +0.0010"} <= set(
        words(figure).split("\n")
    )
    assert "GPT +1.000 to +0.0010" in figure.alt


def test_a_model_below_the_entropy_stands_below_its_line():
    (ax,) = drawn("gap, below the source").axes
    (line,) = (line for line in ax.lines if line.get_marker() == "o")
    assert line.get_ydata()[-1] == -0.006 and ax.get_ylim()[0] < -0.006


def test_the_line_of_growth_is_solid_where_it_was_fitted_and_goes_through_it():
    ax = drawn("growth, one").axes[0]
    dashed, solid = ax.lines[:2]
    assert list(dashed.get_xdata()) == [64, 128] and list(solid.get_xdata()) == [128, 256]
    assert solid.get_ydata() == pytest.approx([0.1, 0.4])
    assert "exponent 2.00" in ax.get_title(loc="left")
    assert "0.100 s to 0.400 s" in drawn("growth, one").alt
