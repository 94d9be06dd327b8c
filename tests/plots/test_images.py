"""Figures of images: what is flagged, counted and refused."""

import numpy as np
import pytest
from figure_samples import DIGITS, texts, words

from seqlm.plots.images import plot_generated, plot_images


def test_flagged_images_carry_a_cross_and_are_counted():
    plain = plot_images(DIGITS[:6])
    flagged = plot_images(DIGITS[:6], flags=[0, 1, 0, 0, 1, 0], flag_meaning="misread")
    assert [t.get_text() for t in texts(flagged)].count("✗") == 2
    assert "2 of 6" in flagged.alt and "misread" in flagged.alt
    assert "✗" not in words(plain)


def test_a_generated_image_of_the_wrong_class_is_flagged_with_the_predicted_class():
    figure = plot_generated(DIGITS[:3], [0, 1, 2], [0, 1, 7], "Generated")
    written = [t.get_text() for t in texts(figure)]
    assert written.count("✗") == 1 and "7" in written
    assert "66.7%" in figure.alt and "lowest for class 2: 0 of 1" in figure.alt


def test_generated_images_refuse_booleans_in_place_of_predicted_classes():
    with pytest.raises(TypeError, match="not whether they are correct"):
        plot_generated(DIGITS[:3], [0, 1, 2], np.array([True, True, False]), "Generated")
