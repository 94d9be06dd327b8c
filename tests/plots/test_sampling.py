"""Figures of generated images: sampling settings, and distances to the training images."""

import numpy as np
from figure_samples import DISTANCES, SWEEPS, drawn, words

from seqlm.plots.sampling import plot_nearest_distances


def test_each_setting_has_a_column_and_each_measure_a_row():
    figure = drawn("diversity")
    assert len(figure.axes) == 8
    assert [ax.get_title("left") for ax in figure.axes[:4]] == list(SWEEPS)
    rows = [figure.axes[4 * row].get_ylim() for row in range(2)]
    assert all(figure.axes[i].get_ylim() == rows[i // 4] for i in range(8))
    assert len(drawn("diversity, one setting").axes) == 2


def test_a_top_k_of_zero_keeps_all_tokens_and_is_called_off():
    figure = drawn("diversity")
    labels = [label.get_text() for label in figure.axes[5].get_xticklabels()]
    assert labels == ["5", "20", "50", "100", "off"]


def test_each_measure_has_its_interval():
    figure = drawn("diversity")
    assert "real\n2.20" in words(figure)
    assert "classified as asked 95.0%" in figure.alt and "at 0.5" in figure.alt
    assert "diversity 2.20 (2.17 to 2.23)." in figure.alt


def test_near_copies_are_counted_with_their_interval():
    figure = drawn("distances")
    assert "near copies: up to 0.45" in words(figure)
    share = (DISTANCES["plain"] <= 0.45).mean()
    assert f"near copies {share:.1%} (" in words(figure)
    assert "default, n = 200: median" in figure.alt and "near copies 0.0% (" in figure.alt


def test_a_distance_on_the_line_is_a_near_copy_whatever_rounding_does():
    for distance in (0.3, 0.1 + 0.2):
        figure = plot_nearest_distances({"real": np.array([distance, 0.5])}, "Copies", near=0.3)
        assert "near copies 50.0%" in words(figure)
