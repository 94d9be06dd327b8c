"""Every figure is drawn from data of the true shapes, and looked at by its pixels and its words."""

from functools import cache
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from samples import (
    BASELINES,
    check_ink_and_words,
    check_letters,
    classes,
    number,
    pixels,
    record,
    share,
    values,
    words,
)

from seqlm.data.codebook import PatchCodebook
from seqlm.data.images import load_digits
from seqlm.plots.comparisons import plot_baselines
from seqlm.plots.evaluation import (
    plot_accuracy_by_class,
    plot_confusion_matrix,
    plot_next_tokens,
    plot_nll_by_position,
)
from seqlm.plots.images import (
    plot_augmented,
    plot_code_frequencies,
    plot_codebook,
    plot_completions,
    plot_encoding,
    plot_generated,
    plot_images,
)
from seqlm.plots.style import spread
from seqlm.plots.summary import plot_summary
from seqlm.plots.training import plot_training_process

# --- the figures ----------------------------------------------------------------------------------

DIGITS, LABELS = load_digits()
BOOK = PatchCodebook.fit(DIGITS[:200], 40, 2)
DECODED = BOOK.decode(BOOK.encode(DIGITS[:100]))
TABLE = [SimpleNamespace(token=f"<Z_{k:03d}>", id=k, probability=0.4 / 2**k) for k in range(6)]
OWN = {
    **record(),
    "evals": [{"step": 100, "seconds": 9.0, "code_nll": 4.0, "all_nll": 3.9}],
    "initial": {"code_nll": 6.2, "all_nll": 6.2},
    "best": {"step": 100, "code_nll": 4.0},
}
CLASSIFIER = {**OWN, "evals": [{"step": 100, "seconds": 9.0, "class_nll": 0.4, "accuracy": 0.9}],
              "initial": {"class_nll": 2.3, "accuracy": 0.1},
              "best": {"step": 100, "class_nll": 0.4, "accuracy": 0.9}}  # fmt: skip
BARE = {**OWN, "history": [], "evals": [], "initial": {}, "best": {}}

FIGURES = {
    "picture_grid": lambda: plot_images(
        DIGITS[:13], [f"is {k}" for k in LABELS[:13]], 5, "Digits", np.arange(13) % 4 == 0, "odd"
    ),
    "codebook_patches": lambda: plot_codebook(BOOK),
    "encoding_steps": lambda: plot_encoding(DIGITS[0], BOOK.encode(DIGITS[:1])[0], DECODED[0], 2),
    "augmented_copies": lambda: plot_augmented(DIGITS[:2], DIGITS[:6].reshape(2, 3, 8, 8)),
    "code_frequencies": lambda: plot_code_frequencies(BOOK.encode(DIGITS[:50]), 40),
    "plot_baselines": lambda: plot_baselines(
        ["ours", "a", "b"], [share(0.9), share(0.95), share(0.1)], "Classes", "share right"
    ),
    "training_process": lambda: plot_training_process(record(160, 4), BASELINES),
    "training_process, own data": lambda: plot_training_process(OWN),
    "training_process, classifier": lambda: plot_training_process(CLASSIFIER),
    "training_process, nothing logged": lambda: plot_training_process(BARE),
    "nll_by_position": lambda: plot_nll_by_position(
        np.arange(16) / 4, {"position": np.arange(16) / 3}, (4, 4), 360
    ),
    "confusion_matrix": lambda: plot_confusion_matrix(classes(0.9)["confusion"], "Reading"),
    "next_token_bars": lambda: plot_next_tokens(TABLE),
    "dots_by_class": lambda: plot_accuracy_by_class(
        {name: found["per_class"] for name, found in values("sample")["drawn"].items()}
    ),
    "drawings": lambda: plot_generated(DECODED, LABELS[:100], LABELS[:100] % 9, "Drawn"),
    "completions": lambda: plot_completions(DIGITS[:2], 4, DIGITS[:10].reshape(2, 5, 8, 8)),
    "performance_summary": lambda: plot_summary(
        *(
            values(number)
            for number in ("train_causal_lm", "classify_sequences", "evaluate", "sample")
        )
    ),
    "performance_summary, evaluated only": lambda: plot_summary(
        values("train_causal_lm"), None, values("evaluate"), None
    ),
}


@cache
def drawn(name: str):
    """The figure, drawn once for all the tests that only look at it."""
    return FIGURES[name]()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_ink_fits_a_page_and_is_told_in_words(name):
    check_ink_and_words(drawn(name))


@pytest.mark.parametrize("name", FIGURES)
def test_no_letter_is_smaller_than_nine_points_or_cut_off_at_the_edge(name):
    check_letters(drawn(name))


def test_drawing_leaves_the_readers_own_settings_alone():
    with matplotlib.rc_context({"font.size": 23, "axes.grid": True}):
        plot_next_tokens(TABLE)
        assert matplotlib.rcParams["font.size"] == 23
        assert matplotlib.rcParams["axes.grid"]


def test_the_readers_own_settings_do_not_change_a_figure():
    usual = pixels(plot_confusion_matrix(classes(0.9)["confusion"], "Reading"))
    with matplotlib.rc_context({"font.size": 23, "image.cmap": "jet", "xtick.color": "red"}):
        figure = plot_confusion_matrix(classes(0.9)["confusion"], "Reading")
    assert np.array_equal(pixels(figure), usual)


def test_flagged_pictures_carry_a_cross_and_are_counted():
    plain = plot_images(DIGITS[:6])
    flagged = plot_images(DIGITS[:6], flags=[0, 1, 0, 0, 1, 0], flag_meaning="misread")
    crosses = [t for t in flagged.findobj(matplotlib.text.Text) if t.get_text() == "✗"]
    assert len(crosses) == 2
    assert "2 of 6" in flagged.alt and "misread" in flagged.alt
    assert "✗" not in words(plain)


def test_a_ladder_puts_the_best_on_top_whichever_way_is_better():
    def order(figure):
        (ax,) = figure.axes
        return [label.get_text() for label in ax.get_yticklabels()][::-1]

    nats = plot_baselines(
        ["ours", "baseline"],
        [number(3.4, "nats per token"), number(4.0, "nats per token")],
        "h",
        "u",
    )
    shares = plot_baselines(["ours", "rival"], [share(0.9), share(0.99)], "h", "u")
    assert order(nats) == ["◆ ours", "baseline"]
    assert order(shares) == ["rival", "◆ ours"]


def test_a_rival_far_off_the_axis_keeps_its_number():
    figure = drawn("plot_baselines")
    assert "off the axis" in words(figure)
    assert "10.0%" in words(figure)
    assert figure.axes[0].get_xlim()[0] > 0.5


def test_training_marks_the_best_step_and_every_floor():
    figure = drawn("training_process")
    best = record(160, 4)["best"]
    assert f"at step {best['step']}" in words(figure)
    for name, nats in (("unigram", 4.93), ("by position", 4.05), ("n-grams by position", 3.93)):
        assert f"baseline: {name} {nats:.2f}" in words(figure)
    assert "minutes of training" in words(figure) or "seconds of training" in words(figure)


def test_minutes_stand_above_the_steps_they_belong_to():
    figure = plot_training_process(record())
    panels = figure.findobj(matplotlib.axes.Axes)
    panel = next(ax for ax in panels if ax.get_ylabel() == "nats per token")
    (top,) = panel.child_axes
    marks = dict(zip([t.get_text() for t in top.get_xticklabels()], top.get_xticks(), strict=True))
    assert marks["10"] == pytest.approx(10 * 60 / 0.64, rel=0.01)


def test_a_drawing_judged_right_is_not_flagged_and_a_wrong_one_says_what_it_was_taken_for():
    figure = plot_generated(DIGITS[:3], [0, 1, 2], [0, 1, 7], "Drawn")
    texts = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    assert texts.count("✗") == 1
    assert "7" in texts
    assert "66.7%" in figure.alt


def test_drawings_take_what_was_judged_and_never_whether_it_was_right():
    with pytest.raises(TypeError, match="not whether that is right"):
        plot_generated(DIGITS[:3], [0, 1, 2], np.array([True, True, False]), "Drawn")


def test_a_confusion_matrix_writes_counts_and_names_the_commonest_mistake():
    counts = np.diag([5, 5, 5])
    counts[1, 2] = 3
    figure = plot_confusion_matrix(counts, "Reading")
    assert "83.3% right, n = 18" in words(figure)
    assert "1 read as 2 (3 of 8)" in figure.alt
    (ax, _) = figure.axes
    assert sorted(text.get_text() for text in ax.texts if text.get_text()) == ["3", "5", "5", "5"]
    (frame,) = (patch for patch in ax.patches if isinstance(patch, Rectangle))
    assert frame.get_center() == pytest.approx((2.5, 1.5))  # read as 2, is really 1
    assert [label.get_text() for label in ax.get_yticklabels()][1] == "1  (n = 8)"


def test_the_summary_leaves_out_what_was_not_measured():
    whole = drawn("performance_summary")
    part = drawn("performance_summary, evaluated only")
    assert len(whole.axes) == 4
    assert len(part.axes) == 2
    assert "judge" not in part.alt
    assert "13.2%" in part.alt


def test_labels_that_would_overlap_are_moved_apart_and_keep_their_order():
    moved = spread([1.0, 1.01, 1.02, 5.0], 0.5)
    assert (np.diff(moved) >= 0.499).all()
    assert moved[3] == pytest.approx(5.0)
    assert spread([3.0, 1.0], 0.5).tolist() == [3.0, 1.0]
