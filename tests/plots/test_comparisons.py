"""Figures that compare models: order, markers, intervals and verdicts."""

import pytest
from figure_samples import KINDS, MODELS, STARTED, drawn, lines_with, words
from samples import number, share

from seqlm.plots.comparisons import plot_baselines


def test_a_ranking_puts_the_best_on_top_whichever_way_is_better():
    def order(figure):
        return [label.get_text() for label in figure.axes[0].get_yticklabels()][::-1]

    nats = {"GPT": number(3.4, "nats per token"), "bigram": number(4.0, "nats per token")}
    shares = {"GPT": share(0.9), "SVM": share(0.99)}
    assert order(plot_baselines(nats, "h", "u")) == ["◆ GPT", "bigram"]
    assert order(plot_baselines(shares, "h", "u")) == ["SVM", "◆ GPT"]


def test_a_baseline_far_off_the_axis_keeps_its_number():
    figure = drawn("baselines")
    assert "off the axis" in words(figure)
    assert "10.0%" in words(figure)
    assert figure.axes[0].get_xlim()[0] > 0.5


def test_only_real_differences_are_filled_and_all_are_in_the_alt_text():
    figure = drawn("comparisons")
    (real,) = lines_with(figure, "D")
    assert real.get_xdata()[0] == pytest.approx(0.071)
    assert [line.get_markerfacecolor() for line in lines_with(figure, "o")] == ["white"] * 2
    assert "+7.1 (+4.2 to +10.0)\ndistinguishable, p < 0.001" in words(figure)
    assert "-0.3 (-1.4 to +0.8)\nnot distinguishable, p = 0.610" in words(figure)
    assert (
        f"{STARTED} against naive Bayes on codes: +7.1 points (+4.2 to +10.0), distinguishable"
        in figure.alt
    )
    assert "-0.040 nats per code (unknown), not distinguishable, p unknown" in figure.alt


def test_zero_is_in_the_middle_of_every_panel():
    for ax in drawn("comparisons").axes:
        low, high = ax.get_xlim()
        assert low == -high
    assert words(drawn("comparisons")).count("no difference") == 2


def test_forgetting_ranks_the_models_on_each_kind_of_rows():
    figure = drawn("forgetting")
    assert [ax.get_title("left") for ax in figure.axes] == [f"on {kind}" for kind in KINDS]
    first, second = ([label.get_text() for label in ax.get_yticklabels()] for ax in figure.axes)
    assert first[0] == "◆ before" and second[-1] == "◆ before"
    assert set(first) - set(second) == {"best baseline"}, "it was fitted to the new rows alone"


def test_forgetting_gives_every_number_with_its_interval():
    alt = drawn("forgetting").alt
    assert "fine-tuned 3.00 (2.96 to 3.04)" in alt
    assert alt.count(" to ") == 2 * (len(MODELS) - 1) + 1
