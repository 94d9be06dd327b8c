"""Figures of training: the best step, the baselines, the time axis, and fine-tuning."""

import matplotlib
import pytest
from figure_samples import drawn, words
from samples import record

from seqlm.plots.training import plot_training_process


def test_training_marks_the_best_step_and_every_baseline():
    figure = drawn("training")
    best = record(160, 4)["best"]
    assert f"at step {best['step']}" in words(figure)
    for name, nats in (("unigram", 4.93), ("by position", 4.05), ("n-grams by position", 3.93)):
        assert f"baseline: {name} {nats:.2f}" in words(figure)
    assert "seconds of training" in words(figure)


def test_minutes_stand_above_the_steps_they_belong_to():
    figure = plot_training_process(record())
    panels = figure.findobj(matplotlib.axes.Axes)
    panel = next(ax for ax in panels if ax.get_ylabel() == "nats per token")
    (top,) = panel.child_axes
    marks = dict(zip([t.get_text() for t in top.get_xticklabels()], top.get_xticks(), strict=True))
    assert marks["10"] == pytest.approx(10 * 60 / 0.64, rel=0.01)


def test_fine_tuning_names_the_first_and_the_last_number_of_each_run():
    alt = drawn("fine-tuning").alt
    assert "fine-tuned, 100 steps: turned digits 6.10 to 3.00" in alt
    assert "upright digits 2.85 to 3.60" in alt
