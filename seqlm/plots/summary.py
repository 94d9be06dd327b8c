"""The whole run on one page: what the model guesses, reads and draws, beside baselines and rivals."""

import textwrap
from collections.abc import Mapping

from matplotlib.figure import Figure

from seqlm.evaluation.estimates import Numbers, as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots.comparisons import ladder, ladder_words
from seqlm.plots.style import SMALL, canvas, finish, styled
from seqlm.utils import format_duration


@styled
def plot_summary(
    values03: Mapping | None,
    values04: Mapping | None,
    values05: Mapping | None,
    values06: Mapping | None,
) -> Figure:
    """The whole run on a page, from the values of metrics files 03 to 06; None leaves one out."""
    panels = [_codes_panel(values05), _classes_panel(values04), _drawn_panel(values06)]
    panels = [panel for panel in panels if panel]
    facts = _facts(values03, values05, values06)
    heights = [0.85 + 0.3 * len(names) for _, names, *_ in panels]
    heights += [0.35 + 0.24 * len(facts)] * bool(facts)
    figure = canvas(max(1.0, sum(heights)), "What the model can do, on digits it has never seen")
    figure.get_layout_engine().set(h_pad=0.11)
    grid = figure.add_gridspec(max(1, len(heights)), 1, height_ratios=heights or [1])
    told = ["One page of results on the test split."]
    for row, (title, names, numbers, ours, label) in enumerate(panels):
        ax = figure.add_subplot(grid[row])
        ladder(ax, names, numbers, ours, label)
        ax.set_title(f"{'abc'[row]}  {title}", fontweight="bold", x=0)
        told.append(f"Panel {'abc'[row]}, {title}: {ladder_words(names, numbers, ours, True)}")
    if facts:
        ax = figure.add_subplot(grid[len(panels)])
        ax.set_axis_off()
        ax.set_title(f"{'abcd'[len(panels)]}  In numbers", fontweight="bold")
        for line, (name, value) in enumerate(facts):
            y = 1 - (line + 0.5) / len(facts)
            style = {"transform": ax.transAxes, "va": "center", "fontsize": SMALL}
            ax.text(-0.015, y, name, ha="right", **style)
            ax.text(0.012, y, value, **style)
        told.append("In numbers: " + "; ".join(f"{name}: {value}" for name, value in facts) + ".")
    return finish(figure, *told)


def _codes_panel(values: Mapping | None):
    if not values:
        return None
    names = ["the GPT", *map(baseline_name, values["baselines"])]
    numbers = [values["read"]["code"]["nll"]]
    numbers += [baseline["code"]["nll"] for baseline in values["baselines"].values()]
    return ("Guessing the next code of a picture, against baselines", names,
            [as_estimate(e) for e in numbers], names[:1], "nats per code, less is better")  # fmt: skip


def _classes_panel(values: Mapping | None):
    if not values:
        return None
    found = {**values["methods"], **values["baselines"]}
    return ("Naming the digit, against rivals", list(found),
            [as_estimate(c["accuracy"]) for c in found.values()], list(values["methods"]),
            "share classified correctly")  # fmt: skip


def _drawn_panel(values: Mapping | None):
    if not values:
        return None
    drawn = {f"drawn: {name}": c["accuracy"] for name, c in values["drawn"].items()}
    judge = values.get("digit_classifier") or {}
    ceilings = {"test": "the judge on real digits", "reconstructed": "the judge on re-drawn codes"}
    real = {ceilings.get(name, f"the judge: {name}"): e for name, e in judge.items()}
    both = {**drawn, **real}
    return ("Drawing a digit that a judge takes for the one asked", list(both),
            [as_estimate(e) for e in both.values()], list(drawn)[:1],
            "share judged right (chance: 10%)")  # fmt: skip


def _facts(values03, values05, values06) -> list[tuple[str, str]]:
    facts = []
    if values03:
        facts.append(("size of the model", f"{values03['parameters_count']:,} parameters"))
        long = f"{values03['steps']:,} steps, {format_duration(values03['seconds'])}"
        facts.append(("training", f"{long}, in {values03['precision']['chosen']}"))
    if values05:
        gain = as_share(values05["below_best_baseline"])
        code = values05["read"]["code"]
        facts.append(
            (f"below the best baseline ({baseline_name(values05['best_baseline'])})", str(gain))
        )
        facts.append(("perplexity of a code", _bare(code["perplexity"])))
        facts.append(("cost of a picture", _bare(code["bits_per_image"], " bits")))
    if values06 and values06.get("completed"):
        name, found = next(iter(values06["completed"].items()))
        facts.append(
            (
                textwrap.shorten(name, 34),
                f"judged right {as_estimate(found['classified_as_asked'])}",
            )
        )
    return facts


def _bare(numbers: Numbers, unit: str = "") -> str:
    e = as_estimate(numbers)
    return f"{e.format_value()}{unit} (95 % interval {e.format_interval()}, n = {e.n:,})"
