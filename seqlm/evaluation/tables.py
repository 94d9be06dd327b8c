"""Metrics as Markdown tables: all results, README's eight rows, a run on one's own data."""

import re
from collections.abc import Iterable, Mapping, Sequence

from seqlm.errors import printable
from seqlm.evaluation.estimates import Estimate, Numbers, as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name

NLL = "NLL per code, nats (lower is better)"
AS_ASKED = "generated digits classified as asked"
AUC = "real-vs-generated AUC (0.5: cannot be separated)"
OURS = "our GPT"  # the language model's name among the models that notebook competing_models scores
Row = tuple[str, str, Numbers]  # metric, model, estimate


def markdown_table(header: Sequence[str], rows: Iterable[Sequence], align: str = "") -> str:
    """A Markdown table; `align` has a letter for each column, l or r, and l where it ends."""
    rule = "|".join("--:" if side == "r" else "---" for side in align.ljust(len(header), "l"))
    head, *body = (
        " | ".join(str(cell).replace("|", "\\|") for cell in cells) for cells in (header, *rows)
    )
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {line} |" for line in body)])


def escape_markdown(text: str) -> str:
    """`text` so that Markdown shows it as it is (in a table, `markdown_table` escapes the `|`)."""
    return re.sub(r"([\\`*_\[\]<>&~$])", r"\\\1", printable(text))


def code_span(text: object) -> str:
    """A token or a file name as code: Markdown finds no tag, link or emphasis in it."""
    text = printable(text).replace("\n", "\\n")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def estimates_table(rows: Iterable[Row]) -> str:
    """The Markdown table of `rows`: metric, model, value, 95 % interval, n."""
    estimates = ((metric, model, as_estimate(numbers)) for metric, model, numbers in rows)
    cells = (
        (metric, model, e.format_value(), e.format_interval(), f"{e.n:,}")
        for metric, model, e in estimates
    )
    return markdown_table(("Metric", "Model", "Value", "95 % interval", "n"), cells, "llrrr")


def results_table(values: Mapping[str, Mapping]) -> str:
    """Every metric on test, of our models beside their baselines, as a Markdown table.

    `values` maps a metrics file ("evaluate", "classify_sequences", "sample", "competing_models")
    to its values; those missing are left out.
    """
    rows: list[Row] = []
    if values.get("evaluate"):
        others = values.get("competing_models", {}).get("sequence_models", {})
        rows += _lm_rows(values["evaluate"], others)
    if values.get("classify_sequences"):
        rows += _classification_rows(values["classify_sequences"])
    if values.get("sample"):
        rows += _generation_rows(values["sample"])
    return estimates_table(rows)


def run_table(values: Mapping) -> str:
    """The metrics of a run on one's own data: a language model's, or a classifier's."""
    left_out = [f"- {escape_markdown(sentence)}" for sentence in values.get("left_out", [])]
    below = "\n".join(["\n\nLeft out of these numbers:\n", *left_out]) if left_out else ""
    if "accuracy" not in values:
        return estimates_table(_lm_rows(values)) + below
    models = {"**the classifier**": values}
    models |= {f"baseline: {name}": v for name, v in values.get("baselines", {}).items()}
    metrics = {"accuracy": "accuracy", "macro F1 over the classes": "macro_f1"}
    rows = (
        (metric, name, measured[key])
        for metric, key in metrics.items()
        for name, measured in models.items()
    )
    return estimates_table(rows) + below


def comparisons_table(comparisons: Iterable[Mapping]) -> str:
    """Paired differences between two models, and whether each interval excludes zero."""
    rows = []
    for pair in comparisons:
        e = as_estimate(pair["difference"])
        distinct = "yes" if pair["real"] else "no"
        cells = (pair["a"], pair["b"], e.format_value(), e.format_interval(), f"{e.n:,}", distinct)
        rows.append(cells)
    header = ("Model", "minus", "Difference", "95 % interval", "n", "Distinguishable")
    return markdown_table(header, rows, "llrrr")


def readme_estimates(values: Mapping[str, Mapping]) -> list[Estimate | None]:
    """The estimates of README's eight rows, None where not measured; as in `results_table`."""
    lm, classes = values.get("evaluate", {}), values.get("classify_sequences", {})
    places = (
        ("evaluate", "read", "code", "nll"),
        ("competing_models", "sequence_models", "LSTM", "nll"),
        ("evaluate", "baselines", lm.get("best_baseline"), "code", "nll"),
        ("classify_sequences", "methods", classes.get("best_method"), "accuracy"),
        ("classify_sequences", "baselines", "RBF-SVM on pixels", "accuracy"),
        ("sample", "drawn", "default", "accuracy"),
        ("sample", "drawn", "plain (temperature 1)", "accuracy"),
        ("sample", "real_vs_generated_auc", "default"),
    )
    estimates = []
    for keys in places:
        place: Mapping = values
        for key in keys:
            place = place.get(key, {})
        estimates.append(as_estimate(place) if place else None)
    return estimates


def _lm_rows(values: Mapping, sequence_models: Mapping[str, Mapping] | None = None) -> list[Row]:
    """The language model, competing models, then the baselines, the hardest to beat first."""
    layouts = [name for name in ("read", "draw", "other") if name in values]
    layout = values.get("layout_compared") or layouts[0]
    ours, gpt = values[layout], f"**GPT, {layout} layout**"
    baselines = {
        f"baseline: {baseline_name(name)}": baseline["code"]
        for name, baseline in (values.get("baselines") or {}).items()
    }
    models = {gpt: ours["code"]}
    models |= {name: model for name, model in (sequence_models or {}).items() if name != OURS}
    models |= dict(sorted(baselines.items(), key=lambda item: item[1]["nll"]["value"]))
    rows: list[Row] = [(NLL, name, model["nll"]) for name, model in models.items()]
    compared = {gpt: ours["code"]}
    if values.get("best_baseline"):
        best = baseline_name(values["best_baseline"])
        compared[f"baseline: {best}"] = baselines[f"baseline: {best}"]
        saved = as_share(values["below_best_baseline"])
        rows.append((f"NLL saved against the best baseline ({best})", gpt, saved))
    metrics = {
        "perplexity per code": "perplexity",
        "bits per image": "bits_per_image",
        "top-1 accuracy of the next code": "top1",
        "top-5 accuracy of the next code": "top5",
    }
    rows += [(k, name, v[key]) for k, key in metrics.items() for name, v in compared.items()]
    rows += [(NLL, f"GPT, {k} layout", values[k]["code"]["nll"]) for k in layouts if k != layout]
    if "class" in ours:
        rows.append(("top-1 accuracy of the class among all tokens", gpt, ours["class"]["top1"]))
    rows.append(("NLL per token of any kind, nats", gpt, ours["all"]["nll"]))
    return rows


def _classification_rows(values: Mapping) -> list[Row]:
    methods, best = values["methods"], values.get("best_method")
    names = {k: f"**{k}**" + " (chosen on val)" * (k == best) for k in methods}
    rows: list[Row] = []
    for group in (methods, values["baselines"]):
        order = sorted(group, key=lambda k: -group[k]["accuracy"]["value"])
        rows += [("accuracy", names.get(k, f"baseline: {k}"), group[k]["accuracy"]) for k in order]
    metrics = {
        "macro F1 over the classes": "macro_f1",
        "expected calibration error": "calibration_error",
    }
    chosen = methods.get(best, {})
    rows += [(k, names[best], chosen[key]) for k, key in metrics.items() if key in chosen]
    return rows


def _generation_rows(values: Mapping) -> list[Row]:
    rows: list[Row] = [(AS_ASKED, f"**{k}**", v["accuracy"]) for k, v in values["drawn"].items()]
    metrics = (
        ("completions classified as asked", "completed", "classified_as_asked"),
        ("completion against the true half, BLEU (0 to 100)", "overlap", "bleu"),
        ("completion against the true half, ROUGE-1 (0 to 1)", "overlap", "rouge1"),
        ("completion against the true half, ROUGE-L (0 to 1)", "overlap", "rougeL"),
    )
    for metric, group, key in metrics:
        rows += [(metric, name, v[key]) for name, v in (values.get(group) or {}).items()]
    for name, shares in ((values.get("nearest_train") or {}).get("copies") or {}).items():
        setting, searched = name.split(", ", 1)
        metric = f"near copies of training images ({searched})"
        real = (metric, "real test images", shares["real"])
        rows += [(metric, f"generated, {setting}", shares["drawn"]), *[real] * (real not in rows)]
    rows += [(AUC, name, e) for name, e in (values.get("real_vs_generated_auc") or {}).items()]
    images = {"test": "real test digits", "reconstructed": "digits decoded from their codes"}
    for name, share in (values.get("digit_classifier") or {}).items():
        rows.append(("accuracy of the digit classifier", images.get(name, name), share))
    return rows
