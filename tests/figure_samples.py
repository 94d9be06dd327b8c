"""Sample data for every figure, one registry of figures, and what every figure must pass."""

import io
from functools import cache
from itertools import combinations

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, imread
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from samples import BASELINES, cells_of, number, record, share, values

from seqlm.config import ModelConfig
from seqlm.data.codebook import PatchCodebook
from seqlm.data.images import load_digits
from seqlm.data.tokens import KIND_CODE, default_vocab, token_kinds
from seqlm.evaluation.estimates import UNKNOWN, Estimate, as_estimate
from seqlm.lab.traps import Trap
from seqlm.models.tracing import Trace
from seqlm.plots import style
from seqlm.plots.architecture import plot_architecture
from seqlm.plots.comparisons import plot_baselines
from seqlm.plots.data import plot_class_counts, plot_lengths
from seqlm.plots.evaluation import plot_nll_by_position, plot_reliability
from seqlm.plots.images import (
    plot_code_frequencies,
    plot_completions,
    plot_generated,
    plot_images,
)
from seqlm.plots.sampling import plot_diversity
from seqlm.plots.summary import plot_summary
from seqlm.plots.tracing import plot_attention, plot_candidates, plot_code_by_code
from seqlm.plots.training import plot_training_process

# --- figures that notebooks draw in cells of their own --------------------------------------------


NAMES = {"np": np, "style": style}  # of earlier cells
plot_curves = cells_of("label_efficiency", ("11-16", "11-17", "11-18"), **NAMES)["plot_curves"]
fine_tuning = cells_of("fine_tuning", ("09-34", "09-35", "09-36"), **NAMES)
plot_courses, plot_forgetting = fine_tuning["plot_courses"], fine_tuning["plot_forgetting"]
explored = cells_of("explore_data", ("01-11", "01-60"), patch=2, **NAMES)
plot_codebook, plot_encoding = explored["plot_codebook"], explored["plot_encoding"]
plot_confusion = cells_of("classify_sequences", ("04-30",), **NAMES)["plot_confusion"]
fooled = cells_of("how_to_be_fooled", ("08-41", "08-47", "08-68"), **NAMES)
plot_gap, plot_traps = fooled["plot_gap"], fooled["plot_traps"]
plot_growth = cells_of("scale_up", ("13-23", "13-12"), repeats=6, **NAMES)["plot_growth"]
DRAWN = ("draw-lens", "draw-gaps", "plot-lens", "draw-maps", "plot-positions", "draw-costs",
         "plot-codes", "draw-pairs", "draw-rise", "draw-numbers", "names", "plot-places",
         "plot-heads")  # fmt: skip
look_inside = cells_of("look_inside", [f"look-{name}" for name in DRAWN], **NAMES)

# --- images and the codebook ---------------------------------------------------------------------

DIGITS, LABELS = load_digits()
BOOK = PatchCodebook.fit(DIGITS[:200], 40, 2)
DECODED = BOOK.decode(BOOK.encode(DIGITS[:100]))

# --- training and fine-tuning ---------------------------------------------------------------------

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
KINDS = ("turned digits", "upright digits")


def model_on_both(new: float, old: float, accuracy: bool = True) -> dict:
    return {
        kind: {"code_nll": number(nats, "nats per token", 360)}
        | ({"accuracy": share(1 - nats / 20, 360)} if accuracy else {})
        for kind, nats in zip(KINDS, (new, old), strict=True)
    }


MODELS = {
    "before": model_on_both(6.1, 2.85),
    "fine-tuned": model_on_both(3.0, 3.6),
    "with replay": model_on_both(3.1, 2.9),
    "by LoRA": model_on_both(3.2, 3.1),
    "from scratch": model_on_both(3.9, 5.8),
    "best baseline": {KINDS[0]: {"code_nll": number(3.8, "nats per token", 360)}},
}
RUNS = {
    "fine-tuned": {"step": [0, 50, 100], "new": [6.1, 3.2, 3.0], "old": [2.85, 3.4, 3.6]},
    "with replay": {"step": [0, 50, 100], "new": [6.1, 3.3, 3.1], "old": [2.85, 3.0, 2.9]},
}

# --- methods and their differences ----------------------------------------------------------------

READ, STARTED, SCRATCH = (
    "class token of the language model", "fine-tuned classifier",
    "classifier from scratch",
)  # fmt: skip


def a_bin(confidence: float, n: int, accuracy: float) -> dict:
    return {"n": n, "confidence": confidence, "accuracy": share(accuracy, n)}


CONFUSION = np.diag([5, 5, 5])
CONFUSION[1, 2] = 3
BINS = [a_bin(0.46, 30, 0.5), a_bin(0.76, 30, 0.4), a_bin(0.96, 29, 0.97)]
SURE = [a_bin(0.7, 36, 0.75), *(a_bin(0.95 + k / 200, 36, 1.0) for k in range(9))]
POINTS = {
    "RBF-SVM on pixels": Estimate(-0.3, -1.4, 0.8, 360, "points"),
    "naive Bayes on codes": Estimate(7.1, 4.2, 10.0, 360, "points"),
    "a single image": Estimate(1.0, *UNKNOWN, 1, "points"),
}


def curve(first: float, sizes=("1", "2", "5", "10", "20", "50", "all")) -> dict:
    return {
        size: {
            "labelled": 1257 if size == "all" else 10 * int(size),
            "mean": share(value),
            "runs": [share(value - 0.02), share(value + 0.01)],
        }
        for size, value in zip(sizes, np.linspace(first, 0.98, len(sizes)), strict=True)
    }


CURVES = {SCRATCH: curve(0.3), STARTED: curve(0.5), "RBF-SVM on pixels": curve(0.45)}

# --- inside a model -------------------------------------------------------------------------------


def gap(value: float, n: int = 360):
    """What an intervention costs, as an Estimate."""
    return as_estimate(number(value, "nats per token", n))


KNOWN = [as_estimate(share(value, 180)) for value in (0.1, 0.1, 0.4, 0.9, 0.97)]
ALIKE = np.cos(np.subtract.outer(np.arange(16), np.arange(16)))
REACHED = [(u, v) for u in range(4) for v in range(3, -4, -1) if u or v >= 0]
HEADS = np.array([gap(0.01 * k - 0.02, 180) for k in range(48)]).reshape(6, 8)

# --- sampling -------------------------------------------------------------------------------------


def sweep(settings) -> list[dict]:
    return [
        {
            "setting": setting,
            "classified_as_asked": share(0.95 - 0.05 * i, 200),
            "diversity": number(1.0 + 0.4 * i, "mean distance", 200),
        }
        for i, setting in enumerate(settings)
    ]


SWEEPS = {
    "temperature": sweep([0.5, 0.7, 0.9, 1, 1.2]),
    "top-k": sweep([5, 20, 50, 100, 0]),
    "nucleus (top-p)": sweep([0.5, 0.8, 0.9, 0.95, 1.0]),
    "guidance": sweep([1, 1.5, 2, 3]),
}
REAL = {"classified_as_asked": share(0.97), "diversity": number(2.2, "mean distance", 360)}
RNG = np.random.default_rng(5)

# --- traps and a source of known entropy ----------------------------------------------------------


def trap(name: str, reported: float, true: float, is_share: bool = False) -> Trap:
    make = share if is_share else lambda value: number(value, "perplexity")
    numbers = (as_estimate(make(value)) for value in (reported, true))
    return Trap(name, "accuracy" if is_share else "perplexity", *numbers, "", "")


TRAPS = [
    trap("padding counted", 1.3, 26.0),
    trap("labels shifted twice", 60.0, 26.0),
    trap("mean of batch means with ragged batches", 25.8, 26.0),
    trap("the class left in the classifier's input", 1.0, 0.9, is_share=True),
    trap("best of many picked on test", 0.95, 0.95, is_share=True),
]
GROWTH = {
    "width": {
        "sizes": [64, 128, 256],
        "seconds": [as_estimate(number(x, "seconds", 6)) for x in (0.1, 0.1, 0.4)],
        "exponent": as_estimate(number(2.0, "", 6)),
        "intercept": float(np.log(0.4 / 256**2)),
        "fitted": 2,
    },
}
GAPS = [10.0**k for k in (3, 4, 5, 6)], [1.0, 0.1, 0.01, 0.001]

# --- one picture ----------------------------------------------------------------------------------

VOCAB = default_vocab(40)


def make_trace(codes: np.ndarray) -> Trace:
    """Each code a little likelier than chance; after the settings only twelve codes are left."""
    ids, n = codes + VOCAB["<Z_000>"], len(codes)
    expected = RNG.dirichlet(np.full(len(VOCAB), 0.2), n) + 1e-6
    expected[np.arange(n), ids] += 0.02
    expected /= expected.sum(1, keepdims=True)
    codes_alone = expected * (token_kinds(VOCAB) == KIND_CODE)
    least = np.sort(codes_alone, axis=1)[:, [-12]]
    after = np.where(codes_alone >= least, codes_alone**1.5, 0)
    return Trace(ids, list(VOCAB), expected, after / after.sum(1, keepdims=True))


CODES = BOOK.encode(DIGITS[:1])[0]
TRACE = make_trace(CODES)
(IMAGE,) = BOOK.decode(CODES[None])
LARGE = np.kron(DIGITS[1], np.ones((4, 4)))[2:30, 2:30]  # 28 by 28
LARGE_BOOK = PatchCodebook(BOOK.centers, (28, 28), 2)
LARGE_TRACE = make_trace(LARGE_BOOK.encode(LARGE[None])[0])
TINY_BOOK = PatchCodebook(BOOK.centers, (4, 4), 2)
TINY_TRACE = make_trace(CODES[:4])


def attention(n_layer: int, n_head: int, side: int) -> tuple:
    """Weights of <IMG>, side x side codes, </IMG> and <CLS>, and what goes with them."""
    names = ["<IMG>", *(f"<Z_{k:03d}>" for k in range(side**2)), "</IMG>", "<CLS>"]
    weights = np.tril(RNG.dirichlet(np.full(len(names), 0.3), (n_layer, n_head, len(names))))
    return weights / weights.sum(-1, keepdims=True), names, (side, side)


FEW, MANY, FINE = attention(2, 3, 4), attention(12, 12, 4), attention(4, 4, 14)

SUMMED_UP = {
    name: values(name) for name in ("train_causal_lm", "classify_sequences", "evaluate", "sample")
}

# --- the registry ---------------------------------------------------------------------------------

FIGURES = {
    "architecture": lambda: plot_architecture(ModelConfig(4, 4, 128, 21), 516, 64, 20),
    "architecture, GPT-2": lambda: plot_architecture(
        ModelConfig(12, 12, 768, 1024), 50_257, 512, 1024
    ),
    "images": lambda: plot_images(
        DIGITS[:13], [f"is {k}" for k in LABELS[:13]], 5, "Digits"
    ),
    "lengths": lambda: plot_lengths(np.arange(300, 1300), 1024),
    "lengths, all alike": lambda: plot_lengths(np.full(30, 21), 1024),
    "classes": lambda: plot_class_counts(
        {name: np.arange(10) * k for k, name in enumerate(("test", "val", "train"), 1)}
    ),
    "classes, very many": lambda: plot_class_counts({"train": np.arange(900) % 7}),
    "codebook": lambda: plot_codebook(BOOK),
    "codebook, 500 patches": lambda: plot_codebook(
        PatchCodebook(np.linspace(0, 1, 500)[:, None] * np.ones(16), (28, 28), 4)
    ),
    "encoding": lambda: plot_encoding(
        DIGITS[0], BOOK.encode(DIGITS[:1]).reshape(BOOK.grid), DECODED[0]
    ),
    "code frequencies": lambda: plot_code_frequencies(BOOK.encode(DIGITS[:50]), 40),
    "generated": lambda: plot_generated(DECODED, LABELS[:100], LABELS[:100] % 9, "Generated"),
    "completions": lambda: plot_completions(
        DIGITS[:2], 4, DIGITS[:10].reshape(2, 5, 8, 8), LABELS[:2]
    ),
    "training": lambda: plot_training_process(record(160, 4), BASELINES),
    "training, own data": lambda: plot_training_process(OWN),
    "training, classifier": lambda: plot_training_process(CLASSIFIER),
    "training, nothing logged": lambda: plot_training_process(BARE),
    "fine-tuning": lambda: plot_courses(RUNS, KINDS, "Fine-tuning (n = 180)"),
    "baselines": lambda: plot_baselines(
        {"GPT": share(0.9), "a": share(0.95), "b": share(0.1)}, "Classes", "accuracy"
    ),
    "differences": lambda: plot_baselines(POINTS, "Ours", "points", ["naive Bayes on codes"]),
    "differences, none real": lambda: plot_baselines(POINTS, "Ours", "points", []),
    "forgetting": lambda: plot_forgetting(MODELS, "Forgetting"),
    "forgetting, no classes": lambda: plot_forgetting(
        {name: model_on_both(3, 4, accuracy=False) for name in ("before", "after")}, "Forgetting"
    ),
    "nll by position": lambda: plot_nll_by_position(
        np.arange(16) / 4, {"position": np.arange(16) / 3, "bigram": np.full(16, 5)}, (4, 4), 360
    ),
    "nll by position, 196 codes": lambda: plot_nll_by_position(
        np.sin(np.arange(196) / 9) + 3, {"bigram": np.full(196, 5)}, (14, 14), 360
    ),
    "confusion": lambda: plot_confusion(CONFUSION, "Digits"),
    "confusion, no errors": lambda: plot_confusion(np.diag(range(10)), "Digits"),
    "reliability": lambda: plot_reliability(
        {READ: BINS, STARTED: SURE, SCRATCH: SURE}, "Calibration"
    ),
    "reliability, one method": lambda: plot_reliability({READ: BINS}, "Calibration"),
    "diversity": lambda: plot_diversity(SWEEPS, REAL, "Sampling settings"),
    "diversity, one setting": lambda: plot_diversity(
        {"temperature": sweep([1, 2])}, REAL, "Sampling settings"
    ),
    "summary": lambda: plot_summary(SUMMED_UP),
    "summary, slide": lambda: plot_summary(SUMMED_UP, slide=True),
    "summary, evaluated only": lambda: plot_summary(
        {name: SUMMED_UP[name] for name in ("train_causal_lm", "evaluate")}
    ),
    "label efficiency": lambda: plot_curves(CURVES, "Few labels"),
    "label efficiency, one method": lambda: plot_curves(
        {SCRATCH: curve(0.4, ("1", "10"))}, "Few labels"
    ),
    "traps": lambda: plot_traps(TRAPS, "5 metrics"),
    "gap": lambda: plot_gap(*GAPS, {"unigram": 0.9}, 500),
    "gap, below the source": lambda: plot_gap([1e3, 1e6], [0.4, -0.006], {"unigram": 0.9}, 500),
    "growth": lambda: plot_growth(
        {name: GROWTH["width"] for name in ("rows", "length", "width", "depth")}, "Growth"
    ),
    "growth, one": lambda: plot_growth(GROWTH, "Growth"),
    "logit lens": lambda: look_inside["plot_lens"](
        KNOWN, np.linspace(0, 1, 5), [gap(0.1 * k) for k in range(4)], "Lens"
    ),
    "position vectors": lambda: look_inside["plot_positions"](
        ALIKE, (4, 4), {"most similar": gap(0.1), "all the same": gap(1.3)}, "Position vectors"
    ),
    "token vectors": lambda: look_inside["plot_codes"](
        np.linspace(0, 3, 600), np.cos(np.linspace(0, 3, 600)),
        {rank: gap(np.log1p(rank)) for rank in (1, 3, 10, 30, 100, 300)}, gap(0.5), "Vectors",
    ),
    "attention by place": lambda: look_inside["plot_places"](
        {place: 20.0 / (1 + sum(map(abs, place))) for place in REACHED},
        {place: gap(0.02 * sum(place), 180) for place in REACHED}, (4, 4), "Places",
    ),
    "heads": lambda: look_inside["plot_heads"](
        {"nats per code more": HEADS, "nats for the class more": HEADS.T[::-1].T}, "Heads"
    ),
    "code by code": lambda: plot_code_by_code(BOOK, TRACE, "A picture"),
    "code by code, 196 codes": lambda: plot_code_by_code(LARGE_BOOK, LARGE_TRACE, "A large one"),
    "code by code, 4 codes": lambda: plot_code_by_code(TINY_BOOK, TINY_TRACE, "A tiny one"),
    "attention": lambda: plot_attention(IMAGE, *FEW),
    "attention, 12 x 12": lambda: plot_attention(IMAGE, *MANY),
    "attention, 196 patches": lambda: plot_attention(LARGE, *FINE),
    "candidates": lambda: plot_candidates(TRACE, BOOK, [0, 5, 15]),
    "candidates, no settings": lambda: plot_candidates(TRACE, BOOK, [5], 10, settings=False),
    "candidates, one": lambda: plot_candidates(TRACE, BOOK, [7], 10),
    "candidates, large": lambda: plot_candidates(LARGE_TRACE, LARGE_BOOK, [100, 195]),
}  # fmt: skip


@cache
def drawn(name: str) -> Figure:
    """The figure, drawn once for all the tests that only look at it."""
    return FIGURES[name]()


# --- looking at figures ---------------------------------------------------------------------------


def pixels(figure) -> np.ndarray:
    """A figure as it is drawn, (height, width, 3) in 0..1."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    png.seek(0)
    return imread(png)[..., :3]


def texts(figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def words(figure) -> str:
    """All text in a figure, tick labels included."""
    return "\n".join(text.get_text() for text in texts(figure))


def lines_with(figure, marker: str) -> list[Line2D]:
    return [line for line in figure.findobj(Line2D) if line.get_marker() == marker]


def tiles(figure, side: float) -> list[AxesImage]:
    """The pictures and maps that are `side` wide in the units of their axes."""
    images = figure.findobj(AxesImage)
    return [i for i in images if abs(i.get_extent()[1] - i.get_extent()[0] - side) < 1e-6]


def frames(figure) -> list[Rectangle]:
    """What is framed in the colour that marks."""
    squares = [p for p in figure.findobj(Rectangle) if to_hex(p.get_edgecolor()) == "#d55e00"]
    return [p for p in squares if not p.get_fill()]


def text_boxes(figure) -> list[tuple[str, Bbox]]:
    """What is written and where, tick labels outside the limits of their axis left out."""
    figure.draw_without_rendering()
    outside = set()
    for ax in figure.findobj(lambda artist: hasattr(artist, "xaxis")):
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not (ax.axison and low - 1e-9 <= tick.get_loc() <= high + 1e-9):
                    outside |= {tick.label1, tick.label2}
    # Text's own extent: an annotation's would reach to the end of its arrow.
    return [(t.get_text(), Text.get_window_extent(t)) for t in texts(figure) if t not in outside]


def overlaps(figure) -> list[tuple[str, str]]:
    """Texts that stand on each other; a box is a little higher than its letters."""
    return [
        (one, other)
        for (one, a), (other, b) in combinations(text_boxes(figure), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 3
    ]


def check_figure(figure, widest: int = 900) -> None:
    """Ink, size, alt text, letters of nine points or more, nothing cut off, no text on text."""
    shown = pixels(figure)
    assert 0.005 < (shown < 0.9).any(axis=2).mean() < 0.9
    assert 400 <= shown.shape[1] <= widest
    assert "n = " in figure.alt and "n = " in words(figure)
    assert figure.alt.endswith(".") and len(figure.alt) < 2000
    for odd in ("nan", "inf ", "None", "{", "  ", ".."):
        assert odd not in figure.alt, figure.alt
    assert min(text.get_fontsize() for text in texts(figure)) >= 9
    for text, box in text_boxes(figure):
        assert box.x0 > -2 and box.x1 < figure.bbox.width + 2, text
        assert box.y0 > -2 and box.y1 < figure.bbox.height + 2, text
    assert not overlaps(figure)
