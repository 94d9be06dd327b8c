"""The figures of the laboratory: what they draw and say, and that no word stands on another."""

from functools import cache
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text
from samples import check_ink_and_words, number, share, words

from seqlm.evaluation.estimates import Estimate, median
from seqlm.plots.comparisons import plot_comparisons
from seqlm.plots.evaluation import plot_reliability
from seqlm.plots.experiments import _verdict, plot_gap_to_entropy, plot_label_efficiency, plot_traps
from seqlm.plots.sampling import plot_diversity, plot_nearest_distances

# --- invented results -----------------------------------------------------------------------------

READ, STARTED, SCRATCH = (
    "read off the language model", "classifier started from the language model",
    "classifier from scratch",
)  # fmt: skip
EMPTY = {"low": 0.0, "high": 0.1, "n": 0, "confidence": None, "accuracy": None}


def a_bin(low: float, n: int, accuracy: float) -> dict:
    return {"low": low, "high": low + 0.1, "n": n, "confidence": low + 0.06,
            "accuracy": share(accuracy, n)}  # fmt: skip


BINS = [EMPTY, a_bin(0.4, 10, 0.5), a_bin(0.7, 40, 0.4), a_bin(0.9, 310, 0.97)]


def curve(first: float, sizes=("1", "2", "5", "10", "20", "50", "all")) -> dict:
    shares = np.linspace(first, 0.98, len(sizes))
    return {
        size: {
            "labelled": 1257 if size == "all" else 10 * int(size),
            "mean": share(value),
            "runs": [share(value - 0.02), share(value + 0.01)],
        }
        for size, value in zip(sizes, shares, strict=True)
    }


CURVES = {SCRATCH: curve(0.3), STARTED: curve(0.5), "RBF-SVM on pixels": curve(0.45)}


def knob(settings, told_apart: bool = True) -> list[dict]:
    return [
        {
            "setting": setting,
            "classified_as_asked": share(0.95 - 0.05 * i, 200),
            "diversity": number(1.0 + 0.4 * i, "mean distance", 200),
            "real_vs_generated_auc": share(0.9 - 0.03 * i, 200) if told_apart and i != 1 else None,
        }
        for i, setting in enumerate(settings)
    ]


KNOBS = {
    "temperature": knob([0.5, 0.7, 0.9, 1, 1.2]),
    "top-k": knob([0, 5, 20, 50, 100]),
    "nucleus (top-p)": knob([0.5, 0.8, 0.9, 0.95, 1.0]),
    "guidance": knob([1, 1.5, 2, 3]),
}
REAL = number(2.2, "mean distance", 360)
RNG = np.random.default_rng(5)
DISTANCES = {
    "default": RNG.uniform(0.5, 1.5, 200),
    "plain": RNG.uniform(0.2, 1.5, 200),
    "held-out real images": np.linspace(0.4, 1.4, 101),
}


def trap(name: str, reported: float, true: float, share_of: bool = False, **more) -> dict:
    make = share if share_of else lambda value: number(value, "perplexity")
    own = {"quantity": "accuracy", "unit": "share", "better": "high"}
    other = {"quantity": "perplexity", "unit": "perplexity", "better": "low"}
    return {"name": name, "reported": make(reported), "true": make(true),
            **(own if share_of else other), **more}  # fmt: skip


TRAPS = [
    trap("padding counted", 1.3, 26.0),
    trap("labels shifted twice", 60.0, 26.0),
    trap("mean of batch means with ragged batches", 25.8, 26.0),
    trap("the class left in the classifier's input", 1.0, 0.9, share_of=True),
    trap("best of many picked on test", 0.95, 0.95, share_of=True),
]
POINTS = [{"tokens": 10.0**k, "nll": 1.5 + 10.0 ** (3 - k)} for k in (6, 5, 4, 3)]
COMPARISONS = [
    {"a": STARTED, "b": "RBF-SVM on pixels", "p_value": 0.61, "real": False,
     "difference": {"value": -0.003, "low": -0.014, "high": 0.008, "n": 360, "unit": "share"}},
    {"a": STARTED, "b": "naive Bayes on codes", "p_value": 0.0002, "real": True,
     "difference": {"value": 0.071, "low": 0.042, "high": 0.1, "n": 360, "unit": "share"}},
    {"a": "ours", "b": "a small LSTM", "p_value": None, "real": False,
     "difference": {"value": -0.04, "low": None, "high": None, "n": 1, "unit": "nats per code"}},
]  # fmt: skip

FIGURES = {
    "reliability_diagram": lambda: plot_reliability(
        {READ: BINS, STARTED: BINS, SCRATCH: BINS}, "As sure as right?"
    ),
    "reliability_diagram, one route": lambda: plot_reliability({READ: BINS}, "Sure?"),
    "learning_curves": lambda: plot_label_efficiency(CURVES, "Few labels"),
    "learning_curves, one route": lambda: plot_label_efficiency(
        {SCRATCH: curve(0.4, ("1", "10"))}, "Few labels"
    ),
    "diversity_curves": lambda: plot_diversity(KNOBS, REAL, "Knobs"),
    "diversity_curves, one knob": lambda: plot_diversity(
        {"temperature": knob([1, 2], told_apart=False)},
        {"classified_as_asked": share(0.97), "diversity": REAL}, "Knobs"
    ),
    "neighbour_distances": lambda: plot_nearest_distances(DISTANCES, "Copies?", 0.45),
    "neighbour_distances, three pictures": lambda: plot_nearest_distances(
        {"drawings": np.zeros(3)}, "Copies?"
    ),
    "reported_against_true": lambda: plot_traps(TRAPS, "Fooled"),
    "reported_against_true, one trap": lambda: plot_traps(TRAPS[2:3], "Fooled"),
    "closing_gap": lambda: plot_gap_to_entropy(POINTS, 1.5, {"unigram": 2.4}, "Limit", 500),
    "closing_gap, limit passed": lambda: plot_gap_to_entropy(
        [*POINTS, {"tokens": 3e6, "nll": 1.4995}, {"tokens": 4e6, "nll": None}],
        number(1.5, "nats per code", 900), {}, "Limit",
    ),
    "comparison_ladder": lambda: plot_comparisons(COMPARISONS, "Real?"),
    "comparison_ladder, one": lambda: plot_comparisons(COMPARISONS[:1], "Real?"),
}  # fmt: skip


@cache
def drawn(name: str):
    """The figure, drawn once for all the tests that only look at it."""
    return FIGURES[name]()


def boxes(figure) -> list[tuple[str, matplotlib.transforms.Bbox]]:
    """What is written and where, tick labels outside the limits of their axis left out."""
    figure.draw_without_rendering()
    outside = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    outside |= {tick.label1, tick.label2}
    seen = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    return [(t.get_text(), Text.get_window_extent(t)) for t in seen if t not in outside]


def lines_with(figure, marker: str) -> list[Line2D]:
    return [line for line in figure.findobj(Line2D) if line.get_marker() == marker]


# --- every figure ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_ink_fits_a_page_and_is_told_in_words(name):
    check_ink_and_words(drawn(name))
    for odd in ("inf ", "None", "{", "  "):
        assert odd not in drawn(name).alt


@pytest.mark.parametrize("name", FIGURES)
def test_no_word_is_small_cut_off_or_stands_on_another(name):
    figure = drawn(name)
    found = boxes(figure)
    for text, box in found:
        assert box.x0 > -2 and box.x1 < figure.bbox.width + 2, text
        assert box.y0 > -2 and box.y1 < figure.bbox.height + 2, text
    for (one, a), (other, b) in combinations(found, 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide < 2 or high < 3, f"{one!r} stands on {other!r}"
    assert min(t.get_fontsize() for t in figure.findobj(Text) if t.get_text()) >= 9


def test_the_check_for_words_on_words_notices_one():
    figure = plot_comparisons(COMPARISONS[:1], "Real?")
    figure.axes[0].annotate("difference", (0, 1), (0, 3), xycoords=("data", "axes fraction"),
                            textcoords="offset points", ha="center")  # fmt: skip
    clashes = [
        (one, other) for (one, a), (other, b) in combinations(boxes(figure), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 3
    ]  # fmt: skip
    assert clashes == [("no difference", "difference")]


# --- each of them ---------------------------------------------------------------------------------


def test_a_bin_is_filled_only_where_its_interval_misses_the_diagonal():
    figure = drawn("reliability_diagram, one route")
    filled = {
        round(float(line.get_xdata()[0]), 2): line.get_markerfacecolor() != "white"
        for line in lines_with(figure, "o")
    }
    assert filled == {0.46: False, 0.76: True, 0.96: False}  # the empty bin is not drawn
    assert "1 bin misses the diagonal" in figure.alt
    assert "76.0% sure: right 40.0%" in figure.alt and "too sure there" in figure.alt
    assert {"10", "40", "310"} <= set(words(figure).splitlines())


def test_a_route_that_knows_how_sure_to_be_is_told_so():
    figure = plot_reliability({READ: [a_bin(0.9, 310, 0.97)]}, "Sure?")
    assert "No bin's interval misses the diagonal" in figure.alt
    assert "97.1% (95 % interval" in figure.alt
    none = plot_reliability({READ: [EMPTY]}, "Sure?")
    assert "no images (n = 0)" in none.alt


def test_learning_curves_stand_at_their_number_of_labels_and_all_at_its_own():
    figure = plot_label_efficiency({SCRATCH: curve(0.3)}, "Few labels")
    (ax,) = figure.axes
    ticks = {t.get_text(): x for t, x in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)}
    assert ticks == {
        "1": 1,
        "2": 2,
        "5": 5,
        "10": 10,
        "20": 20,
        "50": 50,
        "all (126)": pytest.approx(125.7),
    }
    assert "chance: 10%" in words(figure)
    assert "means of 2 seeds" in figure.alt


def test_learning_curves_say_who_leads_at_every_size():
    alt = drawn("learning_curves").alt
    assert f"With 1, {STARTED} leads by 5.0 points." in alt
    assert "30.0% (25.5% to 34.9%) with 1" in alt
    assert "leads" not in drawn("learning_curves, one route").alt


def test_seeds_are_dots_of_their_own_and_may_be_missing():
    dots = [line for line in lines_with(drawn("learning_curves"), ".") if len(line.get_xdata())]
    assert sum(len(line.get_xdata()) for line in dots) == 3 * 7 * 2
    bare = {size: {**cell, "runs": None} for size, cell in curve(0.3).items()}
    assert "one run each" in plot_label_efficiency({SCRATCH: bare}, "Few labels").alt


def test_each_knob_has_a_column_and_each_measure_a_row():
    figure = drawn("diversity_curves")
    assert len(figure.axes) == 12
    titles = [ax.get_title("left") for ax in figure.axes[:4]]
    assert titles == list(KNOBS)
    rows = [figure.axes[4 * row].get_ylim() for row in range(3)]
    assert all(figure.axes[i].get_ylim() == rows[i // 4] for i in range(12))
    assert len(drawn("diversity_curves, one knob").axes) == 2


def test_a_top_k_of_zero_keeps_all_tokens_and_stands_last():
    figure = drawn("diversity_curves")
    labels = [label.get_text() for label in figure.axes[9].get_xticklabels()]
    assert labels == ["5", "20", "50", "100", "off"]
    (curve_,) = (line for line in figure.axes[1].lines if line.get_marker() == "o")
    assert curve_.get_ydata()[-1] == pytest.approx(0.95)  # what was measured at 0


def test_diversity_curves_name_the_setting_as_varied_as_real_images():
    figure = drawn("diversity_curves")
    assert "as varied as real images most nearly at 1, with 80.0% judged right" in figure.alt
    assert "real images\n2.20" in words(figure)
    assert "told apart from real (AUC) 0.90 (0.85 to 0.93) at 0.5" in figure.alt
    assert "Real test images: diversity 2.200 mean distance" in figure.alt


def test_a_measure_missing_at_one_setting_leaves_a_gap_of_one_marker():
    apart = drawn("diversity_curves").axes[8]
    (line,) = (line for line in apart.lines if line.get_marker() == "s")
    assert line.get_xdata().tolist() == [0, 2, 3, 4]


def test_near_copies_are_those_within_the_line_and_the_real_images_stand_out():
    figure = drawn("neighbour_distances")
    assert "near copies lie left of 0.45" in words(figure)
    near = (DISTANCES["plain"] <= 0.45).mean()
    assert f"near copies: {near:.1%}" in words(figure)
    assert "default, n = 200: median" in figure.alt and "near copies 0.0% (" in figure.alt
    assert "Near copies lie left of a line at 0.45." in figure.alt
    assert "a copy would be at 0" in words(figure)


def test_one_who_lies_on_the_line_is_a_near_copy_whatever_rounding_says():
    line = 0.1 + 0.2
    figure = plot_nearest_distances({"real": np.array([0.3, 0.5])}, "Copies?", near=0.3)
    other = plot_nearest_distances({"real": np.array([line, 0.5])}, "Copies?", near=0.3)
    assert "near copies: 50.0%" in words(figure) and "near copies: 50.0%" in words(other)


def test_the_interval_of_a_median_ends_at_the_ranks_of_a_fair_coin():
    e = median(np.arange(1.0, 21.0))
    assert (e.value, e.low, e.high, e.n) == (10.5, 6, 15, 20)  # the ranks in tables for N = 20
    assert not median(np.arange(5.0)).has_interval
    rng = np.random.default_rng(0)
    caught = [median(np.sort(rng.exponential(size=60))) for _ in range(400)]
    assert 0.94 <= np.mean([e.low <= np.log(2) <= e.high for e in caught]) <= 0.99


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (TRAPS[0], "20 times too good"),
        (TRAPS[1], "2.31 times too bad"),
        (TRAPS[3], "10.0 points too good"),
        (TRAPS[4], "the same"),
        (trap("", 0.1, 0.9, share_of=True), "80.0 points too bad"),
        (trap("", 0.3, 0.1, share_of=True, better="low"), "20.0 points too bad"),
    ],
)
def test_a_claim_is_told_by_how_far_and_to_which_side_it_is_wrong(row, said):
    both = {which: Estimate.from_json(row[which]) for which in ("reported", "true")}
    assert _verdict({**row, **both}) == said


def test_shares_and_perplexities_have_a_panel_each():
    figure = drawn("reported_against_true")
    nats, shares = figure.axes
    assert nats.get_xscale() == "log" and shares.get_xscale() == "linear"
    assert "lower is better" in nats.get_title("left")
    names = [label.get_text().replace("\n", " ") for label in nats.get_yticklabels()]
    assert names == [row["name"] for row in TRAPS[:3]]
    assert "padding counted: perplexity reported 1.30 (1.28 to 1.32), true 26.00" in figure.alt
    rings, diamonds = lines_with(figure, "o"), lines_with(figure, "D")
    assert [ring.get_xdata()[0] for ring in rings[:2]] == [1.3, 60.0]
    assert all(ring.get_markerfacecolor() == "white" for ring in rings)
    assert all(diamond.get_markerfacecolor() != "white" for diamond in diamonds)
    assert len(rings) == len(diamonds) == len(TRAPS)


def test_the_gap_to_the_limit_is_drawn_on_its_own_logarithmic_axis():
    figure = drawn("closing_gap")
    _, gap = figure.axes
    (line,) = (line for line in gap.lines if line.get_marker() == "o")
    assert gap.get_yscale() == "log"
    assert line.get_ydata() == pytest.approx([1, 0.1, 0.01, 0.001])  # in order of tokens
    assert "0.01 nats: close enough" in words(figure)
    assert "the true limit 1.500" in words(figure)
    assert "0.0010 above it after 1,000,000 tokens" in figure.alt


def test_a_model_that_seems_better_than_the_limit_gets_an_arrow_and_is_told_so():
    figure = drawn("closing_gap, limit passed")
    assert "at or below the limit" in words(figure)
    assert "0.0005 below it" in figure.alt
    (arrow,) = (line for line in lines_with(figure, "v") if len(line.get_xdata()))
    assert arrow.get_xdata().tolist() == [3e6]
    assert "within 0.01 first after 1,000,000 tokens" in figure.alt


def test_a_model_that_never_comes_near_is_told_so_too():
    figure = plot_gap_to_entropy(POINTS[2:], 1.5, {}, "Limit")
    assert "it never comes within 0.01" in figure.alt


def test_only_real_differences_are_filled_and_all_are_named_in_words():
    figure = drawn("comparison_ladder")
    (real,) = lines_with(figure, "D")
    assert real.get_xdata()[0] == pytest.approx(0.071)
    assert [line.get_markerfacecolor() for line in lines_with(figure, "o")] == ["white"] * 2
    assert "+7.1 (+4.2 to +10.0)\nreal, p < 0.001" in words(figure)
    assert "-0.3 (-1.4 to +0.8)\nmay be chance, p = 0.610" in words(figure)
    assert f"Real: {STARTED} against naive Bayes on codes." in figure.alt
    assert "-0.040 nats per code (unknown), may be chance, p unknown" in figure.alt
    assert "Real: none." in drawn("comparison_ladder, one").alt


def test_the_line_of_no_difference_is_in_the_middle_of_every_panel():
    for ax in drawn("comparison_ladder").axes:
        low, high = ax.get_xlim()
        assert low == -high
    assert words(drawn("comparison_ladder")).count("no difference") == 2
