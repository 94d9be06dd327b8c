"""Every figure is drawn from sample data, and looked at by its pixels and its words."""

import matplotlib
import numpy as np
import pytest
from figure_samples import BOOK, FIGURES, TRACE, check_figure, drawn, overlaps, pixels

from seqlm.plots.style import spread
from seqlm.plots.tracing import plot_candidates


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_legible_and_has_alt_text_with_n(name):
    check_figure(drawn(name), 1200 if "slide" in name else 900)


def test_the_check_notices_text_on_text():
    figure = FIGURES["lengths"]()
    for x in (0.5, 0.51):
        figure.axes[0].text(x, 0.5, "written", transform=figure.axes[0].transAxes)
    assert overlaps(figure) == [("written", "written")]


def test_drawing_leaves_the_readers_settings_alone():
    with matplotlib.rc_context({"font.size": 23, "axes.grid": True}):
        plot_candidates(TRACE, BOOK, [5])
        assert matplotlib.rcParams["font.size"] == 23
        assert matplotlib.rcParams["axes.grid"]


def test_the_readers_settings_do_not_change_a_figure():
    usual = pixels(FIGURES["nll by position"]())
    with matplotlib.rc_context({"font.size": 23, "image.cmap": "jet", "xtick.color": "red"}):
        figure = FIGURES["nll by position"]()
    assert np.array_equal(pixels(figure), usual)


def test_labels_that_would_overlap_are_moved_apart_and_keep_their_order():
    moved = spread([1.0, 1.01, 1.02, 5.0], 0.5)
    assert (np.diff(moved) >= 0.499).all()
    assert moved[3] == pytest.approx(5.0)
    assert spread([3.0, 1.0], 0.5).tolist() == [3.0, 1.0]
