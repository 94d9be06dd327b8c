"""Figures of images: what is flagged, counted and refused."""

import numpy as np
import pytest
from figure_samples import DIGITS, drawn, texts, words

from seqlm.plots.images import plot_generated


def test_a_generated_image_of_the_wrong_class_is_flagged_with_the_predicted_class():
    figure = plot_generated(DIGITS[:3], [0, 1, 2], [0, 1, 7], "Generated")
    written = [t.get_text() for t in texts(figure)]
    assert written.count("✗") == 1 and "7" in written
    assert "66.7%" in figure.alt and "lowest for class 2: 0 of 1" in figure.alt


def test_generated_images_refuse_booleans_in_place_of_predicted_classes():
    with pytest.raises(TypeError, match="not whether they are correct"):
        plot_generated(DIGITS[:3], [0, 1, 2], np.array([True, True, False]), "Generated")


def test_completions_name_their_digit_and_say_where_the_model_begins():
    figure = drawn("completions")
    shown = words(figure).splitlines()
    assert {"0", "1"} <= set(shown) and "digits 0, 1" in figure.alt
    assert "completed: below the orange mark the model draws" in shown
