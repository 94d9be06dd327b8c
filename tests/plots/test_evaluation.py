"""Figures of evaluation: the counts, frames and fillings that carry a number."""

import numpy as np
from figure_samples import READ, a_bin, drawn, lines_with, words
from matplotlib.colors import to_rgb

from seqlm.plots.evaluation import SUREST, plot_nll_by_position, plot_reliability


def test_a_confusion_matrix_writes_counts_and_names_the_errors():
    figure = drawn("confusion")
    assert "Digits (n = 18)" in words(figure)
    assert "n = 18, 15 correct. Errors: 1 as 2: 3." in figure.alt
    (ax,) = figure.axes
    at = {text.get_text(): text.get_position() for text in ax.texts}
    assert set(at) == {"", "5", "3"} and at["3"] == (2, 1)  # predicted 2, true 1
    assert drawn("confusion, no errors").alt.endswith("Errors: none.")


def test_a_bin_is_filled_only_where_its_interval_misses_the_line():
    figure = drawn("reliability, one method")
    filled = {
        round(float(line.get_xdata()[0]), 2): line.get_markerfacecolor() != "white"
        for line in lines_with(figure, "o")
    }
    assert filled == {0.46: False, 0.76: True, 0.96: False}
    assert "1 of 3 bins off the line" in figure.alt
    assert "; confidence 76.0%, accuracy 40.0%" in figure.alt
    assert "n = 89, 3 bins" in words(figure)


def test_a_confidence_of_one_is_drawn_at_the_end_of_the_axis():
    figure = plot_reliability({READ: [a_bin(1.0, 36, 1.0)]}, "Calibration")
    (line,) = lines_with(figure, "o")
    assert line.get_xdata()[0] == SUREST


def test_a_calibrated_method_has_nothing_off_the_line():
    figure = plot_reliability({READ: [a_bin(0.96, 310, 0.97)]}, "Calibration")
    assert figure.alt.endswith("n = 310: 0 of 1 bins off the line.")


def test_the_gap_is_that_to_the_baseline_with_the_lowest_mean():
    figure = drawn("nll by position")
    lines, model, gap = figure.axes
    assert {line.get_label() for line in lines.lines} == {"best baseline: by position", "model"}
    assert [t.get_text() for t in model.texts][-1] == "3.8"
    assert [t.get_text() for t in gap.texts][-1] == "1.2"  # 15 / 3 - 15 / 4
    assert "Best baseline: by position, mean 2.50; largest gap 1.25" in figure.alt


def light(colour) -> float:  # relative luminance, as WCAG 2 defines it
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_numbers_on_the_maps_are_readable_and_nothing_is_minus_nought():
    nats = np.linspace(0, 5, 16)
    figure = plot_nll_by_position(nats, {"position": nats - 0.001 + (nats > 3)}, (4, 4), n=9)
    for ax in figure.axes[1:]:
        assert "-0.0" not in [text.get_text() for text in ax.texts]
        for text, cell in zip(ax.texts, ax.collections[0].get_facecolors(), strict=True):
            dark, pale = sorted(light(c[:3]) for c in (to_rgb(text.get_color()), cell))
            assert (pale + 0.05) / (dark + 0.05) > 3.7
