"""Every figure is drawn from data of the true shapes, and looked at by its pixels and its words."""

import io
from functools import cache
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from seqlm import plots
from seqlm.codebook import PatchCodebook
from seqlm.images import load_digits
from seqlm.metrics import measure_classes, proportion
from seqlm.plots_style import spread

# --- synthetic values in the shape of the metrics files, shared with test_report ------------------


def share(value: float, n: int = 360) -> dict:
    return proportion(np.arange(n) < round(value * n)).to_json()


def number(value: float, unit: str, n: int = 360, width: float = 0.012) -> dict:
    low, high = value * (1 - width), value * (1 + width)
    return {"value": value, "low": low, "high": high, "n": n, "unit": unit}


def tokens(nats: float, n: int = 360, top1: float = 0.2) -> dict:
    return {
        "tokens": 16 * n,
        "nll": number(nats, "nats a token", n),
        "perplexity": number(float(np.exp(nats)), "perplexity", n, 0.04),
        "top1": share(top1, n),
        "top5": share(min(1, 2 * top1), n),
        "bits_per_image": number(16 * nats / np.log(2), "bits an image", n),
    }


def measured(nats: float) -> dict:
    return {
        "code": tokens(nats),
        "class": tokens(0.09, top1=0.97),
        "structural": tokens(0.001, top1=1.0),
        "all": tokens(0.8 * nats),
    }


FLOORS = {
    "uniform": 6.246,
    "unigram": 4.93,
    "position": 4.05,
    "bigram": 4.50,
    "trigram": 4.31,
    "position_ngram": 3.93,
}


def classes(accuracy: float, n: int = 360) -> dict:
    rng = np.random.default_rng(round(accuracy * 1000))
    labels = np.arange(n) % 10
    predicted = np.where(rng.random(n) < accuracy, labels, rng.integers(0, 10, n))
    return measure_classes(labels, predicted)


def values(number_of_notebook: str) -> dict:
    """What notebook 01, 03, 04, 05 or 06 might leave; the numbers are invented."""
    positions = [1.1, 3.9, 3.6, 0.9, 2.9, 4.6, 4.4, 2.2, 3.0, 4.5, 4.6, 2.6, 1.2, 3.9, 4.0, 1.4]
    return {
        "01": {
            "images": {"train": 1257, "val": 180, "test": 360},
            "sentences": 104154,
            "codes_an_image": 16,
            "n_codes": 500,
            "codes_used_train": 497,
            "psnr_test": 28.71,
            "svm_pixels_test": share(0.992),
            "svm_reconstructed_test": share(0.989),
        },
        "03": {
            "parameters_count": 11238912,
            "initial_nll_all": 6.21,
            "ln_vocab": 6.246,
            "best": {"step": 1476, "code_nll": 3.31, "read_nll": 3.38, "draw_nll": 3.24,
                     "class_accuracy": 0.978},
            "steps": 1611,
            "tokens": 2370702,
            "seconds": 1043.0,
            "precision": {"chosen": "bf16", "asked": "auto",
                          "step_seconds": {"fp32": 1.255, "bf16": 0.654}},
            "rows": 103074,
            "stopped_early": False,
        },
        "04": {
            "routes": {
                "read off the language model": classes(0.975),
                "classifier started from the language model": classes(0.985),
                "classifier from scratch": classes(0.955),
            },
            "rivals": {
                "most frequent class": {**classes(0.0), "accuracy": share(0.1)},
                "logistic regression on pixels": classes(0.965),
                "RBF-SVM on pixels": classes(0.993),
            },
            "val_accuracy": {
                "read off the language model": share(0.978, 180),
                "classifier started from the language model": share(0.983, 180),
                "classifier from scratch": share(0.95, 180),
            },
            "best_route": "classifier started from the language model",
        },
        "05": {
            "read": measured(3.41),
            "draw": measured(3.25),
            "floors": {
                name: {"description": f"The floor {name}.", "code": tokens(nats, top1=0.1)}
                for name, nats in FLOORS.items()
            },
            "layout_compared": "read",
            "best_floor": "position_ngram",
            "below_best_floor": number(0.132, "share", width=0.05),
            "by_position": {
                "model": positions,
                "floors": {
                    "position": [1.18 * x for x in positions],
                    "position_ngram": [1.15 * x for x in positions],
                },
            },
        },
        "06": {
            "judge": {"test": share(0.992), "reconstructed": share(0.989)},
            "settings": {
                "default": {"strategy": "sample", "temperature": 0.7, "top_k": 0, "top_p": 0.9,
                            "guidance": 3.0, "max_new_tokens": 64, "seed": 42},
                "plain": {"strategy": "sample", "temperature": 1.0, "top_k": 0, "top_p": 1.0,
                          "guidance": 1.0, "max_new_tokens": 64, "seed": 42},
            },
            "drawn": {
                name: {"accuracy": share(rate, 500),
                       "per_class": {str(k): share(rate - 0.02 * (k % 3), 50) for k in range(10)}}
                for name, rate in
                [("default", 0.93), ("plain (temperature 1)", 0.71), ("greedy", 0.8)]
            },
            "completed": {
                "half image, class given": {"judged": share(0.902), "psnr": 12.3},
            },
            "free": {"class_counts": [22, 18, 20, 25, 15, 19, 21, 24, 17, 19], "n": 200},
            "nearest_train": {"drawn_median": 2.9, "test_median": 1.7},
        },
    }[number_of_notebook]  # fmt: skip


def record(steps: int = 1611, evals: int = 12) -> dict:
    """What training.json might hold after a run of the language model."""
    rng = np.random.default_rng(0)
    history = [
        {"step": s, "epoch": s / 805, "tokens": s * 1470, "seconds": 0.64 * s,
         "loss": 2.1 + 4.0 * float(np.exp(-s / 90)) + 0.9 * float(np.exp(-s / 900))
         + 0.05 * rng.normal(),
         "learning_rate": 1e-3 * min(s / 80, 0.5 + 0.5 * float(np.cos(np.pi * s / steps))),
         "grad_norm": 0.5 + 2.5 * float(np.exp(-s / 60)) + 0.05 * rng.random()}
        for s in range(8, steps + 1, 8)
    ]  # fmt: skip
    places = np.linspace(steps / evals, steps, evals).astype(int)
    lines = [
        {"step": int(s), "epoch": s / 805, "tokens": int(s) * 1470, "seconds": 0.64 * float(s),
         "code_nll": 3.3 + float(np.exp(-s / 250)), "all_nll": 2.5 + float(np.exp(-s / 250)),
         "read_nll": 3.38 + float(np.exp(-s / 250)), "draw_nll": 3.24 + float(np.exp(-s / 240)),
         "class_accuracy": 0.98 - 0.7 * float(np.exp(-s / 200))}
        for s in places
    ]  # fmt: skip
    initial = {"code_nll": 6.21, "all_nll": 6.2, "read_nll": 6.22, "draw_nll": 6.2,
               "class_accuracy": 0.1}  # fmt: skip
    return {
        "history": history,
        "evals": lines,
        "best": lines[-2],
        "initial": initial,
        "settings": {"output_dir": "outputs/laptop", "batch_size": 64, "num_epochs": 1.0,
                     "learning_rate": 1e-3, "max_grad_norm": 1.0, "seed": 42,
                     "precision": "auto"},
        "parameters": 11238912,
        "rows": 103074,
        "steps": steps,
        "stopped_early": False,
        "tokens": 2370702,
        "seconds": 1043.0,
        "precision": {"chosen": "bf16", "asked": "auto",
                      "step_seconds": {"fp32": 1.255, "bf16": 0.654}},
        "versions": {"python": "3.11.7", "seqlm": "0.1.0", "torch": "2.13.0+cpu"},
    }  # fmt: skip


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
    "picture_grid": lambda: plots.picture_grid(
        DIGITS[:13], [f"is {k}" for k in LABELS[:13]], 5, "Digits", np.arange(13) % 4 == 0, "odd"
    ),
    "codebook_patches": lambda: plots.codebook_patches(BOOK),
    "encoding_steps": lambda: plots.encoding_steps(
        DIGITS[0], BOOK.encode(DIGITS[:1])[0], DECODED[0], 2
    ),
    "augmented_copies": lambda: plots.augmented_copies(DIGITS[:2], DIGITS[:6].reshape(2, 3, 8, 8)),
    "code_frequencies": lambda: plots.code_frequencies(BOOK.encode(DIGITS[:50]), 40),
    "floors_ladder": lambda: plots.floors_ladder(
        ["ours", "a", "b"], [share(0.9), share(0.95), share(0.1)], "Classes", "share right"
    ),
    "training_process": lambda: plots.training_process(record(160, 4), FLOORS),
    "training_process, own data": lambda: plots.training_process(OWN),
    "training_process, classifier": lambda: plots.training_process(CLASSIFIER),
    "training_process, nothing logged": lambda: plots.training_process(BARE),
    "nll_by_position": lambda: plots.nll_by_position(
        np.arange(16) / 4, {"position": np.arange(16) / 3}, (4, 4), 360
    ),
    "confusion_matrix": lambda: plots.confusion_matrix(classes(0.9)["confusion"], "Reading"),
    "next_token_bars": lambda: plots.next_token_bars(TABLE),
    "class_probabilities": lambda: plots.class_probabilities(
        DIGITS[:7], np.eye(10)[LABELS[:7]] * 0.5 + 0.05, [*LABELS[:6], (LABELS[6] + 1) % 10]
    ),
    "dots_by_class": lambda: plots.dots_by_class(
        {name: found["per_class"] for name, found in values("06")["drawn"].items()}
    ),
    "drawings": lambda: plots.drawings(DECODED, LABELS[:100], LABELS[:100] % 9, "Drawn"),
    "completions": lambda: plots.completions(DIGITS[:2], 4, DIGITS[:10].reshape(2, 5, 8, 8)),
    "performance_summary": lambda: plots.performance_summary(
        *(values(number) for number in ("03", "04", "05", "06"))
    ),
    "performance_summary, evaluated only": lambda: plots.performance_summary(
        values("03"), None, values("05"), None
    ),
}


@cache
def drawn(name: str):
    """The figure, drawn once for all the tests that only look at it."""
    return FIGURES[name]()


def pixels(figure) -> np.ndarray:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=100)
    held.seek(0)
    return imread(held)[..., :3]


def words(figure) -> str:
    """All text in a figure, tick labels included."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_ink_fits_a_page_and_is_told_in_words(name):
    figure = drawn(name)
    shown = pixels(figure)
    assert 0.005 < (shown < 0.9).any(axis=2).mean() < 0.9
    assert 400 <= shown.shape[1] <= 900
    assert "n = " in figure.alt
    assert "n = " in words(figure)
    assert figure.alt.endswith(".")
    assert "nan" not in figure.alt


@pytest.mark.parametrize("name", FIGURES)
def test_no_letter_is_smaller_than_nine_points_or_cut_off_at_the_edge(name):
    figure = drawn(name)
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_text() and text.get_visible() and text.axes is not None:
            assert text.get_fontsize() >= 9, text
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert box.x0 > -4 and box.y0 > -4 and box.x1 < width + 4 and box.y1 < height + 4


def test_drawing_leaves_the_readers_own_settings_alone():
    with matplotlib.rc_context({"font.size": 23, "axes.grid": True}):
        plots.next_token_bars(TABLE)
        assert matplotlib.rcParams["font.size"] == 23
        assert matplotlib.rcParams["axes.grid"]


def test_the_readers_own_settings_do_not_change_a_figure():
    usual = pixels(plots.confusion_matrix(classes(0.9)["confusion"], "Reading"))
    with matplotlib.rc_context({"font.size": 23, "image.cmap": "jet", "xtick.color": "red"}):
        figure = plots.confusion_matrix(classes(0.9)["confusion"], "Reading")
    assert np.array_equal(pixels(figure), usual)


def test_flagged_pictures_carry_a_cross_and_are_counted():
    plain = plots.picture_grid(DIGITS[:6])
    flagged = plots.picture_grid(DIGITS[:6], flags=[0, 1, 0, 0, 1, 0], flag_meaning="misread")
    crosses = [t for t in flagged.findobj(matplotlib.text.Text) if t.get_text() == "✗"]
    assert len(crosses) == 2
    assert "2 of 6" in flagged.alt and "misread" in flagged.alt
    assert "✗" not in words(plain)


def test_a_ladder_puts_the_best_on_top_whichever_way_is_better():
    def order(figure):
        (ax,) = figure.axes
        return [label.get_text() for label in ax.get_yticklabels()][::-1]

    nats = plots.floors_ladder(
        ["ours", "floor"], [number(3.4, "nats a token"), number(4.0, "nats a token")], "h", "u"
    )
    shares = plots.floors_ladder(["ours", "rival"], [share(0.9), share(0.99)], "h", "u")
    assert order(nats) == ["◆ ours", "floor"]
    assert order(shares) == ["rival", "◆ ours"]


def test_a_rival_far_off_the_axis_keeps_its_number():
    figure = drawn("floors_ladder")
    assert "off the axis" in words(figure)
    assert "10.0%" in words(figure)
    assert figure.axes[0].get_xlim()[0] > 0.5


def test_training_marks_the_best_step_and_every_floor():
    figure = drawn("training_process")
    best = record(160, 4)["best"]
    assert f"at step {best['step']}" in words(figure)
    for name, nats in (("unigram", 4.93), ("by position", 4.05), ("n-grams by position", 3.93)):
        assert f"floor: {name} {nats:.2f}" in words(figure)
    assert "minutes of training" in words(figure) or "seconds of training" in words(figure)


def test_minutes_stand_above_the_steps_they_belong_to():
    figure = plots.training_process(record())
    panels = figure.findobj(matplotlib.axes.Axes)
    panel = next(ax for ax in panels if ax.get_ylabel() == "nats a token")
    (top,) = panel.child_axes
    marks = dict(zip([t.get_text() for t in top.get_xticklabels()], top.get_xticks(), strict=True))
    assert marks["10"] == pytest.approx(10 * 60 / 0.64, rel=0.01)


def test_a_drawing_judged_right_is_not_flagged_and_a_wrong_one_says_what_it_was_taken_for():
    figure = plots.drawings(DIGITS[:3], [0, 1, 2], [0, 1, 7], "Drawn")
    texts = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    assert texts.count("✗") == 1
    assert "7" in texts
    assert "66.7%" in figure.alt


def test_a_confusion_matrix_writes_counts_and_names_the_commonest_mistake():
    counts = np.diag([5, 5, 5])
    counts[1, 2] = 3
    figure = plots.confusion_matrix(counts, "Reading")
    assert "83.3% right, n = 18" in words(figure)
    assert "1 read as 2 (3 of 8)" in figure.alt


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
