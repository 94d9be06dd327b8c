"""What was measured, as Markdown tables: a line a number, with its interval and its n."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from seqlm.errors import SeqlmError
from seqlm.evaluation.estimates import Numbers, as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.utils import format_duration, read_text, write_text
from seqlm.workspace import Workspace, read_notebooks

OPEN, CLOSE = "<!-- results -->", "<!-- /results -->"
HEAD = "| Measure | Whose | Value | 95 % interval | n |\n|---|---|--:|--:|--:|"

NLL = "NLL of a code, nats (lower is better)"
OURS = "our GPT"  # what notebook 10 calls the language model among its rivals

Row = tuple[str, str, Numbers]


def results_table(values: Mapping[str, Mapping], brief: bool = False) -> str:
    """Every number on test beside its baselines and rivals, as a Markdown table.

    `values` maps notebooks ("classify_sequences", "evaluate", "sample", "competing_models") to the values they left; those missing are left
    out.
    `brief` keeps the headline numbers only, for README.
    """
    rows: list[Row] = []
    if values.get("evaluate"):
        rows += _code_rows(values["evaluate"], values.get("competing_models"))
        rows += [] if brief else _more_code_rows(values["evaluate"])
    if values.get("classify_sequences"):
        rows += _class_rows(values["classify_sequences"])
    if values.get("sample"):
        rows += _drawing_rows(values["sample"], brief)
    return table_of(rows)


def table_of(rows: Iterable[Row]) -> str:
    """The Markdown table of `rows`: what was measured, whose number it is, the number."""
    lines = [HEAD]
    for measure, of, numbers in rows:
        e = as_estimate(numbers)
        cells = (measure, of, e.format_value(), e.format_interval(), f"{e.n:,}")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """`text` so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


def _layout(values: Mapping) -> str:
    """The layout in which the model was held against the baselines."""
    present = next(name for name in ("read", "draw", "other") if name in values)
    return values.get("layout_compared") or present


def _code_rows(values: Mapping, laboratory: Mapping | None = None) -> list[Row]:
    """The language model, the rivals that learn, then the baselines, the hardest to beat first."""
    layout, baselines = _layout(values), values.get("baselines") or {}
    rows: list[Row] = [(NLL, f"**the GPT, {layout} layout**", values[layout]["code"]["nll"])]
    for name, found in (laboratory or {}).get("sequence_models", {}).items():
        rows += [] if name == OURS else [(NLL, f"rival that learns: {name}", found["nll"])]
    for name in sorted(baselines, key=lambda name: baselines[name]["code"]["nll"]["value"]):
        rows.append((NLL, f"baseline: {baseline_name(name)}", baselines[name]["code"]["nll"]))
    if "below_best_baseline" in values:
        best = baseline_name(values["best_baseline"])
        below = as_share(values["below_best_baseline"])
        rows.append((f"how far below the best baseline ({best})", "**the GPT**", below))
    return rows


def _more_code_rows(values: Mapping) -> list[Row]:
    """The same on other scales, the other layout, and what is no code."""
    layout, rows = _layout(values), []
    measures = {
        "perplexity of a code": "perplexity",
        "bits per picture": "bits_per_image",
        "next code guessed at once": "top1",
        "next code among the first five guesses": "top5",
    }
    for measure, key in measures.items():
        rows.append((measure, f"**the GPT, {layout} layout**", values[layout]["code"][key]))
        if values.get("best_baseline"):
            best = values["best_baseline"]
            rows.append(
                (
                    measure,
                    f"baseline: {baseline_name(best)}",
                    values["baselines"][best]["code"][key],
                )
            )
    for name in ("read", "draw", "other"):
        if name in values and name != layout:
            rows.append((NLL, f"the GPT, {name} layout", values[name]["code"]["nll"]))
    if "class" in values[layout]:
        of_class = values[layout]["class"]
        rows.append(("class guessed at once, among all tokens", "the GPT", of_class["top1"]))
    rows.append(
        ("NLL of any token, nats", f"the GPT, {layout} layout", values[layout]["all"]["nll"])
    )
    return rows


def _class_rows(values: Mapping) -> list[Row]:
    routes, rivals, best = (
        values["methods"],
        values["baselines"],
        values.get("best_method"),
    )
    named = {name: f"**{name}**" + " (chosen on val)" * (name == best) for name in routes}
    rows = []
    for group in (routes, rivals):
        order = sorted(group, key=lambda name: -group[name]["accuracy"]["value"])
        rows += [
            (
                "digits classified correctly",
                named.get(name, f"rival: {name}"),
                group[name]["accuracy"],
            )
            for name in order
        ]
    measures = {
        "macro F1 over the classes": "macro_f1",
        "calibration error: how far sureness lies from truth": "calibration_error",
    }
    for measure, key in measures.items():
        if key in routes.get(best, {}):
            rows.append((measure, named[best], routes[best][key]))
    return rows


def _drawing_rows(values: Mapping, brief: bool) -> list[Row]:
    measure = "drawings judged to be what was asked"
    rows = []
    for place, (name, found) in enumerate(values["drawn"].items()):
        rows.append((measure, f"**{name}**" if place == 0 else name, found["accuracy"]))
    for name, found in (values.get("completed") or {}).items():
        rows.append(("completions judged right", name, found["classified_as_asked"]))
    rows += [] if brief else _more_drawing_rows(values)
    for name, area in (values.get("real_vs_generated_auc") or {}).items():
        rows.append(("told from real digits (area; 0.5 is not at all, 1 is always)", name, area))
    ceilings = {"test": "on real test digits", "reconstructed": "on digits re-drawn from codes"}
    for name, numbers in (values.get("digit_classifier") or {}).items():
        rows.append(("the judge itself is right", ceilings.get(name, name), numbers))
    return rows


def _more_drawing_rows(values: Mapping) -> list[Row]:
    """What completions share with the truth, how near drawings come to training images."""
    rows: list[Row] = []
    for name, found in (values.get("overlap") or {}).items():
        rows.append(("codes shared with the true half, BLEU (0 to 100)", name, found["bleu"]))
    for key, unit in (("rouge1", "ROUGE-1"), ("rougeL", "ROUGE-L")):
        for name, found in (values.get("overlap") or {}).items():
            rows.append((f"codes shared with the true half, {unit} (0 to 1)", name, found[key]))
    copies = (values.get("nearest_train") or {}).get("copies") or {}
    for name, found in copies.items():
        way, searched = name.split(", ", 1)
        near = f"near copies of training images ({searched})"
        rows.append((near, f"drawn, {way}", found["drawn"]))
        if (near, "real test images", found["real"]) not in rows:
            rows.append((near, "real test images", found["real"]))
    return rows


def run_rows(values: Mapping) -> list[Row]:
    """A user's own run: a language model's values, or a classifier's."""
    if "accuracy" not in values:
        return _code_rows(values) + _more_code_rows(values)
    measures = {"classes classified correctly": "accuracy", "macro F1 over the classes": "macro_f1"}
    rows: list[Row] = []
    for measure, key in measures.items():
        rows.append((measure, "**the classifier**", values[key]))
        rows += [
            (measure, f"rival: {name}", rival[key])
            for name, rival in (values.get("rivals") or {}).items()
        ]
    return rows


def readme_results(ws: Workspace) -> str:
    """The results as README shows them: the table, and how they came about in a sentence."""
    ws.check_ran("train_causal_lm", "evaluate")
    values = {n: ws.metrics(n)["values"] for n in read_notebooks() if ws.metrics_path(n).is_file()}
    three = values["train_causal_lm"]
    made = (
        f"Profile `{ws.profile}`: {three['parameters_count']:,} parameters, {three['steps']:,} "
        f"steps in {format_duration(three['seconds'])} of training ({three['precision']['chosen']}). "
        "Every number is on the test split; bold is ours."
    )
    return f"{results_table(values, brief=True)}\n\n{made}"


def write_readme_results(ws: Workspace, readme_path: Path) -> None:
    """Put `readme_results` between the two marks in a README. SeqlmError when they are missing."""
    text = read_text(readme_path)
    start, end = text.find(OPEN), text.find(CLOSE)
    if start < 0 or end < start or text.count(OPEN) > 1 or text.count(CLOSE) > 1:
        raise SeqlmError(
            f"{readme_path}: the results go between '{OPEN}' and '{CLOSE}', each once and in that "
            "order; add these two lines where the table should stand"
        )
    inside = f"{OPEN}\n\n{readme_results(ws)}\n\n"
    write_text(readme_path, text[:start] + inside + text[end:])
