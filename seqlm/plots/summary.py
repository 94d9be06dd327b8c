"""The figure that summarizes a run: language model, classification and generation on one page."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from seqlm.evaluation.estimates import as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.plots import style
from seqlm.plots.comparisons import draw_ranking
from seqlm.plots.style import canvas, finish, styled
from seqlm.utils import format_duration

SLIDE = (12.0, 6.75)  # inches


@styled
def plot_summary(values: Mapping[str, Mapping], slide: bool = False) -> Figure:
    """A run on one page. `values` maps a metrics file to its values, as for `results_table`.

    As a `slide` it is 16 by 9: two panels side by side, and two more below.
    """
    panels, facts = _panels(values), _facts(values)
    heights = [0.85 + 0.3 * len(estimates) for _, estimates, *_ in panels]
    heights += [0.35 + 0.24 * len(facts)] * bool(facts)
    columns = 2 if slide else 1
    size = (SLIDE[1] - 0.3, SLIDE[0]) if slide else (max(1.0, sum(heights)), style.WIDTH)
    figure = canvas(size[0], "Results on the test split", size[1])
    figure.get_layout_engine().set(h_pad=0.11)
    ratios = [max(heights[i : i + columns]) for i in range(0, len(heights), columns)] or [1]
    grid = figure.add_gridspec(len(ratios), columns, height_ratios=ratios)
    sentences = ["Results on the test split."]
    for row, (title, *ranking) in enumerate(panels):
        ax = figure.add_subplot(grid[divmod(row, columns)])
        sentences.append(f"{title}, {draw_ranking(ax, *ranking)}")
        ax.locator_params(axis="x", nbins=5 if slide else 8)
        ax.set_title(f"{'abc'[row]}  {title}", fontweight="bold", x=0)
    if facts:
        ax = figure.add_subplot(grid[divmod(len(panels), columns)])
        ax.set_axis_off()
        ax.set_title(f"{'abcd'[len(panels)]}  In numbers", fontweight="bold")
        for x, texts, side in ((-0.015, facts, "right"), (0.012, facts.values(), "left")):
            ax.text(x, 0.97, "\n".join(texts), ha=side, va="top", linespacing=1.75,
                    fontsize=style.SMALL, transform=ax.transAxes)  # fmt: skip
        sentences.append("; ".join(f"{name}: {value}" for name, value in facts.items()) + ".")
    return finish(figure, *sentences)


def _panels(values: Mapping[str, Mapping]) -> list[tuple]:
    """Title, estimates, names of those that stand out, and the label of each panel's axis."""
    panels = []
    if evaluated := values.get("evaluate"):
        losses = {"GPT": evaluated["read"], **evaluated["baselines"]}
        nats = {name: loss["code"]["nll"] for name, loss in losses.items()}
        label = "nats per code, lower is better"
        panels.append(("NLL of the next code, with baselines", nats, ["GPT"], label))
    if classified := values.get("classify_sequences"):
        methods = {**classified["methods"], **classified["baselines"]}
        shares = {name: metrics["accuracy"] for name, metrics in methods.items()}
        title = "Classification, with baselines"
        panels.append((title, shares, list(classified["methods"]), "accuracy"))
    if sampled := values.get("sample"):
        shares = {f"generated: {name}": c["accuracy"] for name, c in sampled["drawn"].items()}
        highlighted = list(shares)[:1]
        real = {"test": "real images", "reconstructed": "real images, encoded and decoded"}
        shares |= {real[k]: e for k, e in (sampled.get("digit_classifier") or {}).items()}
        title = "Generated digits classified as asked"
        panels.append((title, shares, highlighted, "share (chance: 10%)"))
    return panels


def _facts(values: Mapping[str, Mapping]) -> dict[str, str]:
    facts = {}
    if trained := values.get("train_causal_lm"):
        facts["model size"] = f"{trained['parameters_count']:,} parameters"
        time = f"{trained['steps']:,} steps, {format_duration(trained['seconds'])}"
        facts["training"] = f"{time}, in {trained['precision']['chosen']}"
    if evaluated := values.get("evaluate"):
        code, best = evaluated["read"]["code"], baseline_name(evaluated["best_baseline"])
        gain = as_share(evaluated["below_best_baseline"])
        facts[f"below the best baseline ({best})"] = gain.format(with_n=True)
        facts["perplexity per code"] = as_estimate(code["perplexity"]).format(with_n=True)
        facts["bits per image"] = as_estimate(code["bits_per_image"]).format(with_n=True)
    for name, completed in list(values.get("sample", {}).get("completed", {}).items())[:1]:
        share = as_estimate(completed["classified_as_asked"]).format(with_n=True)
        facts[f"completed, {name}"] = f"{share} classified as asked"
    return facts
