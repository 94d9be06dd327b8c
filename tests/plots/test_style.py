"""Every figure is drawn from sample data, and looked at by its pixels and its words."""

import matplotlib
import numpy as np
import pytest
from figure_samples import BOOK, COMPARISONS, FIGURES, TRACE, check_figure, drawn, overlaps, pixels
from samples import classes

from seqlm.plots.comparisons import plot_comparisons
from seqlm.plots.evaluation import plot_confusion_matrix
from seqlm.plots.style import spread
from seqlm.plots.tracing import plot_candidates


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_legible_and_has_alt_text_with_n(name):
    check_figure(drawn(name), 1200 if "slide" in name else 900)


def test_the_check_notices_text_on_text():
    figure = plot_comparisons(COMPARISONS[:1], "Difference")
    figure.axes[0].annotate("difference", (0, 1), (0, 3), xycoords=("data", "axes fraction"),
                            textcoords="offset points", ha="center")  # fmt: skip
    assert overlaps(figure) == [("no difference", "difference")]


def test_drawing_leaves_the_readers_settings_alone():
    with matplotlib.rc_context({"font.size": 23, "axes.grid": True}):
        plot_candidates(TRACE, BOOK, [5])
        assert matplotlib.rcParams["font.size"] == 23
        assert matplotlib.rcParams["axes.grid"]


def test_the_readers_settings_do_not_change_a_figure():
    usual = pixels(plot_confusion_matrix(classes(0.9)["confusion"], "Digits"))
    with matplotlib.rc_context({"font.size": 23, "image.cmap": "jet", "xtick.color": "red"}):
        figure = plot_confusion_matrix(classes(0.9)["confusion"], "Digits")
    assert np.array_equal(pixels(figure), usual)


def test_labels_that_would_overlap_are_moved_apart_and_keep_their_order():
    moved = spread([1.0, 1.01, 1.02, 5.0], 0.5)
    assert (np.diff(moved) >= 0.499).all()
    assert moved[3] == pytest.approx(5.0)
    assert spread([3.0, 1.0], 0.5).tolist() == [3.0, 1.0]
