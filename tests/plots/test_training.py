"""Figures of training: the best step, the baselines, the panels, and fine-tuning."""

import numpy as np
from figure_samples import drawn, words
from matplotlib.axes import Axes
from samples import record

from seqlm.plots.training import plot_training_process


def test_training_marks_the_best_step_and_every_baseline():
    figure = drawn("training")
    best = record(160, 4)["best"]
    assert f"at step {best['step']}" in words(figure)
    for name, nats in (("unigram", 4.93), ("by position", 4.05), ("n-grams by position", 3.93)):
        assert f"{name} {nats:.2f}" in words(figure)


def test_codes_and_tokens_of_all_kinds_have_a_panel_each_and_both_have_ln_v():
    codes, everything, *_ = drawn("training").findobj(Axes)
    labels = [[line.get_label() for line in ax.lines] for ax in (codes, everything)]
    assert "val (draw layout)" in labels[0] and "val (all tokens)" not in labels[0]
    assert "val (all tokens)" in labels[1] and "training, per batch" in labels[1]
    assert "training, per batch" not in labels[0]
    for ax in (codes, everything):
        assert ax.get_xscale() == "log" and "ln V 6.25" in [t.get_text() for t in ax.texts]


def test_a_classifier_has_one_panel_of_losses():
    titles = [ax.get_title("left") for ax in drawn("training, classifier").findobj(Axes)]
    assert titles == ["classes", "accuracy on val", "learning rate", "gradient norm"]


def test_fine_tuning_names_the_first_and_the_last_number_of_each_run():
    alt = drawn("fine-tuning").alt
    assert "fine-tuned, 100 steps: turned digits 6.10 to 3.00" in alt
    assert "upright digits 2.85 to 3.60" in alt


def test_the_running_median_is_drawn_only_where_its_window_is_complete():
    for steps, half in ((1600, 5), (16, 0), (24, 1)):  # 200, 2 and 3 steps in the history
        saved = record(steps, 2)
        figure = plot_training_process(saved)
        lines = {line.get_label(): line for ax in figure.findobj(Axes) for line in ax.lines}
        median = lines["training, running median"]
        loss = np.array([line["loss"] for line in saved["history"]])
        assert len(median.get_xdata()) == len(loss) - 2 * half
        assert median.get_ydata()[0] == np.median(loss[: 2 * half + 1])
        assert f"Training loss {loss[0]:.2f} to {median.get_ydata()[-1]:.2f} nats" in figure.alt
