"""The figures of fine-tuning: what they draw and say, whatever the numbers are."""

from functools import cache

import pytest
from samples import check_ink_and_words, check_letters, number, share

from seqlm.plots.comparisons import plot_forgetting
from seqlm.plots.training import plot_finetuning_process

KINDS = ("turned digits", "upright digits")


def standing(new: float, old: float, accuracy: bool = True) -> dict:
    found = {}
    for kind, nats in zip(KINDS, (new, old), strict=True):
        found[kind] = {"code_nll": number(nats, "nats per token", 360)}
        if accuracy:
            found[kind]["accuracy"] = share(1 - nats / 20, 360)
    return found


MODELS = {
    "before": standing(6.1, 2.85),
    "fine-tuned": standing(3.0, 3.6),
    "with replay": standing(3.1, 2.9),
    "by LoRA": standing(3.2, 3.1),
    "from scratch": standing(3.9, 5.8),
    "best baseline": {KINDS[0]: {"code_nll": number(3.8, "nats per token", 360)}},
}
RUNS = {
    "fine-tuned": {"step": [0, 50, 100], "new": [6.1, 3.2, 3.0], "old": [2.85, 3.4, 3.6]},
    "with replay": {"step": [0, 50, 100], "new": [6.1, 3.3, 3.1], "old": [2.85, 3.0, 2.9]},
}
FIGURES = {
    "gained_and_lost": lambda: plot_forgetting(MODELS, "What each way gains and loses"),
    "gained_and_lost, without classes": lambda: plot_forgetting(
        {name: standing(3, 4, accuracy=False) for name in ("before", "after")}, "No classes"
    ),
    "while_finetuning": lambda: plot_finetuning_process(RUNS, KINDS, "As training goes on", 180),
}


@cache
def drawn(name: str):
    return FIGURES[name]()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_ink_fits_a_page_and_is_told_in_words(name):
    check_ink_and_words(drawn(name))


@pytest.mark.parametrize("name", FIGURES)
def test_no_letter_is_smaller_than_nine_points_or_cut_off_at_the_edge(name):
    check_letters(drawn(name))


def test_the_first_model_is_the_baseline_in_every_panel():
    figure = drawn("gained_and_lost")
    for ax, kind in zip(figure.axes, KINDS, strict=True):
        dashed = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        assert MODELS["before"][kind]["code_nll"]["value"] in dashed


def test_the_best_of_each_kind_of_rows_is_named_and_numbers_have_their_intervals():
    alt = drawn("gained_and_lost").alt
    new, old = alt.split("On upright digits")
    assert new.strip().endswith("Lowest: fine-tuned.") and old.strip().endswith("Lowest: before.")
    assert alt.count(" to ") >= 2 * 2 * (len(MODELS) - 1) + 1, "every NLL and every share"


def test_a_floor_stands_where_it_was_fitted_and_nowhere_else():
    figure = drawn("gained_and_lost")
    new, old = figure.alt.split("On upright digits")
    assert "best baseline 3.80" in new and "best baseline" not in old
    lines = [len([ln for ln in ax.lines if len(ln.get_xdata()) == 1]) for ax in figure.axes]
    assert lines == [6, 5], "a marker for each model that was measured"


def test_every_model_is_told_by_its_marker_as_well_as_its_colour():
    ax = drawn("gained_and_lost").axes[0]
    markers = [
        line.get_marker() for line in ax.lines if line.get_marker() not in ("None", None, "")
    ]
    assert len(set(markers)) == len(MODELS)


def test_a_course_is_told_from_its_first_to_its_last_number():
    alt = drawn("while_finetuning").alt
    assert "fine-tuned, 100 steps: on turned digits from 6.10 to 3.00" in alt
    assert "on upright digits from 2.85 to 3.60" in alt
