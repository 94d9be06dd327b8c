"""Figures of evaluation: the counts, frames and fillings that carry a number."""

import numpy as np
import pytest
from figure_samples import EMPTY_BIN, READ, a_bin, drawn, lines_with, words
from matplotlib.patches import Rectangle

from seqlm.models.generation import NextToken
from seqlm.plots.evaluation import plot_confusion_matrix, plot_next_tokens, plot_reliability


@pytest.mark.parametrize("token", ["$x$", "$\\bad$", "<script>", "a_b^c", "\x1b[2J"])
def test_a_token_is_written_as_it_is_and_no_formula(token, tmp_path):
    figure = plot_next_tokens([NextToken(token, 7, 0.5)], f"After {token}")
    figure.savefig(tmp_path / "figure.png")
    name = figure.axes[0].get_yticklabels()[0]
    assert name.get_text() == token.replace("\x1b", "\\x1b")
    assert not name.get_parse_math() and not figure._suptitle.get_parse_math()


def test_a_confusion_matrix_writes_counts_and_names_the_most_frequent_error():
    counts = np.diag([5, 5, 5])
    counts[1, 2] = 3
    figure = plot_confusion_matrix(counts, "Digits")
    assert "accuracy 83.3%, n = 18" in words(figure)
    assert "1 as 2 (3 of 8)" in figure.alt
    (ax,) = figure.axes
    assert sorted(text.get_text() for text in ax.texts if text.get_text()) == ["3", "5", "5", "5"]
    (frame,) = (patch for patch in ax.patches if isinstance(patch, Rectangle))
    assert frame.get_center() == pytest.approx((2.5, 1.5))  # predicted 2, true 1
    assert [label.get_text() for label in ax.get_yticklabels()][1] == "1  (5 of 8)"


def test_a_bin_is_filled_only_where_its_interval_misses_the_diagonal():
    figure = drawn("reliability, one method")
    filled = {
        round(float(line.get_xdata()[0]), 2): line.get_markerfacecolor() != "white"
        for line in lines_with(figure, "o")
    }
    assert filled == {0.46: False, 0.76: True, 0.96: False}  # the empty bin is not drawn
    assert "1 of 3 bins off the diagonal" in figure.alt
    assert "; confidence 76.0%, accuracy 40.0%" in figure.alt
    assert {"10", "40", "310"} <= set(words(figure).splitlines())


def test_a_calibrated_method_and_one_without_images_have_nothing_off_the_diagonal():
    figure = plot_reliability({READ: [a_bin(0.9, 310, 0.97)]}, "Calibration")
    assert figure.alt.endswith("n = 310: 0 of 1 bins off the diagonal.")
    assert "n = 0: 0 of 0 bins" in plot_reliability({READ: [EMPTY_BIN]}, "Calibration").alt
