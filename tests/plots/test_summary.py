"""The figure that sums up a run."""

import pytest
from figure_samples import drawn


def test_the_summary_leaves_out_what_was_not_measured():
    whole, part = drawn("summary"), drawn("summary, evaluated only")
    assert len(whole.axes) == 4
    assert len(part.axes) == 2
    assert "generated" in whole.alt and "generated" not in part.alt
    assert "13.2%" in part.alt


def test_the_slide_is_16_by_9_and_says_the_same():
    slide = drawn("summary, slide")
    assert slide.get_figwidth() / slide.get_figheight() == pytest.approx(16 / 9, rel=0.02)
    assert slide.alt == drawn("summary").alt
