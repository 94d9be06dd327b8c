"""Figures that compare models: order, markers, intervals and verdicts."""

from figure_samples import KINDS, MODELS, drawn, lines_with, words
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


def test_only_real_differences_are_filled_and_zero_has_a_line():
    figure = drawn("differences")
    (real,) = lines_with(figure, "D")
    assert real.get_xdata()[0] == 7.1 and "◆ naive Bayes on codes" in words(figure)
    assert [line.get_markerfacecolor() for line in lines_with(figure, "o")] == ["white"] * 2
    assert "RBF-SVM on pixels -0.30 (-1.40 to 0.80)" in figure.alt
    assert [0, 0] in [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert not lines_with(drawn("differences, none real"), "D")


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
