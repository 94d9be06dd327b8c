"""The words beside a model: its card, and the report of a run on a user's own data."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from seqlm.evaluation.estimates import as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.evaluation.tables import escape_markdown, run_table
from seqlm.plots.style import DPI
from seqlm.plots.training import MEASURES, plot_training_process
from seqlm.utils import atomic_path, format_duration, write_text

PROCESS = "training_process"
# How runs.py says whose rows they were, and which of them were measured.
_MEASURED_ON = re.compile(r" rows of (?P<file>.+), measured on (?P<split>val|test)")


def model_card(
    name: str, record: Mapping, test_values: Mapping | None, vocab_size: int, data_note: str
) -> str:
    """README.md of a model directory, for the notebooks' model and for a user's own.

    `test_values` is what `experiment.evaluate_lm` or `evaluate_classes` returned, None before
    anything was measured; `data_note` says in a line what the data was. Where it names a
    file ("… rows of mine.jsonl, measured on val"), the data is a user's own, and so is its licence.
    """
    classifies = "class_nll" in record["best"] or (test_values or {}).get("accuracy") is not None
    kind = "GPT2ForSequenceClassification" if classifies else "GPT2LMHeadModel"
    own = _MEASURED_ON.search(data_note)
    what = "names the class of" if classifies else "continues"
    measured = _tested(record, test_values) if test_values else _validation(record)
    parts = [
        f"---\n{_front_matter(name, classifies, test_values or {}, own)}\n---",
        f"# {name}",
        f"A small GPT-2 that {what} sequences of code tokens, trained with seqlm. Its vocabulary "
        f"has {vocab_size:,} tokens; white space stands between one token and the next. Data: "
        f"{data_note}.",
        "## How to load it\n\nFrom inside this folder, or with its path in place of the dot:",
        f"```python\nfrom transformers import {kind}, GPT2Tokenizer\n"
        f'model = {kind}.from_pretrained(".")\ntokenizer = GPT2Tokenizer.from_pretrained(".")\n'
        'ids = tokenizer("<IMG>", return_tensors="pt").input_ids\n```',
        "## How well it does",
        measured,
        "## How it was trained",
        _settings(record),
        "## Limits",
        _card_limits(classifies),
        "## Licence",
        _licence(own),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(name: str, classifies: bool, values: Mapping, own: re.Match[str] | None) -> str:
    """What the Hugging Face Hub reads of a card, written by its own library."""
    task = "text-classification" if classifies else "text-generation"
    data = {
        "task_type": task,
        "dataset_type": "json",  # the loader of Hugging Face's datasets that reads such files
        "dataset_name": own["file"] if own else "handwritten digits as sequences of codes",
        "dataset_split": "validation" if own and own["split"] == "val" else "test",
    }
    results = [
        EvalResult(**data, metric_type=kind, metric_name=told, metric_value=round(value, 6))
        for kind, told, value in _results(values)
    ]
    known = {each.metric_type for each in results} & {"perplexity", "accuracy", "f1"}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        license="unknown" if own else "mit",
        tags=["gpt2", "seqlm", "token-sequences"],
        metrics=sorted(known) or None,
        model_name=name if results else None,
        eval_results=results or None,
        # A row to classify would have to be someone's; a sentence begins as they all do.
        widget=None
        if classifies
        else [{"text": "<IMG>", "example_title": "a row, from its start"}],
    ).to_yaml()


def _results(values: Mapping) -> Iterator[tuple[str, str, float]]:
    """Kind of metric, its name with interval and n, value: for each number the Hub should show."""
    found = [("accuracy", "accuracy", values.get("accuracy"))]
    found += [("f1", "macro F1", values.get("macro_f1"))]
    for layout in ("read", "draw", "other"):
        code = values.get(layout, {}).get("code") or {}
        found += [("perplexity", f"perplexity of a code, {layout} layout", code.get("perplexity"))]
        found += [("nll", f"NLL of a code in nats, {layout} layout", code.get("nll"))]
    read = values.get("read", {}).get("class") or {}
    found += [("accuracy", "class guessed at once, among all tokens", read.get("top1"))]
    for kind, told, numbers in found:
        if numbers is not None:
            e = as_estimate(numbers)
            yield kind, f"{told} (95 % interval {e.format_interval()}, n = {e.n:,})", e.value


def _licence(own: re.Match[str] | None) -> str:
    if own is None:
        return "MIT, as seqlm itself."
    return (
        f"seqlm cannot know it: whose {own['file']} is decides. Before you share this folder, put "
        "the licence you choose in place of `unknown` at the top of this file."
    )


def _tested(record: Mapping, values: Mapping) -> str:
    best, last = record["best"]["step"], record["steps"]
    table = run_table(values)
    if best == last:
        return table
    return (
        f"{table}\n\nThese numbers, and those at the top of this file, are best_model's, the "
        f"checkpoint of step {best:,}; final_model is the model after step {last:,}."
    )


def _validation(record: Mapping) -> str:
    best = record["best"]
    told = [f"{name} {best[key]:.3f}" for key, name in MEASURES.items() if key in best]
    told += [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]
    return (
        f"On the validation rows, at step {best['step']:,}: {', '.join(told)} (NLL in nats). These "
        "rows also chose the checkpoint, so the numbers flatter a little; the run's report has "
        "the test split, with intervals and baselines."
    )


def _settings(record: Mapping) -> str:
    chosen, settings = record["precision"]["chosen"], record["settings"]
    names = ("batch_size", "grad_accumulation", "learning_rate", "schedule", "weight_decay", "seed")
    told = ", ".join(f"{name} {settings[name]}" for name in names if name in settings)
    early = "; stopped early" if record.get("stopped_early") else ""
    return (
        f"{record['parameters']:,} parameters, n = {record['rows']:,} training rows, "
        f"{record['steps']:,} steps in {format_duration(record['seconds'])}, {chosen}{early}. AdamW with "
        f"{told}. The checkpoint of step {record['best']['step']:,} is kept as best_model. "
        + "Versions: " + ", ".join(f"{k} {v}" for k, v in record["versions"].items()) + "."
    )  # fmt: skip


def _card_limits(classifies: bool) -> str:
    limits = [
        "It knows the tokens of its vocab.json and nothing else: no words, no pictures.",
        "The intervals speak of other rows of the same kind, not of other data or another "
        "training run.",
    ]
    if classifies:
        limits.append(
            "Its input must end at `<CLS>`: a row with the class token in it gives the answer away."
        )
    else:
        limits.append(
            "NLL and perplexity of codes are the numbers to compare; those of all tokens are "
            "flattered by structural tokens that are nearly free."
        )
    return "\n".join(f"- {limit}" for limit in limits)


def _verdict(values: Mapping) -> str:
    """Whether the model beats what knows less than it; "" where nothing was held against it."""
    if "below_best_baseline" in values:
        share, baseline = (
            as_share(values["below_best_baseline"]),
            baseline_name(values["best_baseline"]),
        )
        if share.value > 0:
            return (
                f"The model needs fewer nats for a code than the best baseline, {baseline}; it saves "
                f"{share}."
            )
        return (
            f"The model does not beat the best baseline, {baseline}: the share it saves is {share}. It "
            "has learned nothing that counting would not give."
        )
    accuracy = {k: as_estimate(v["accuracy"]) for k, v in (values.get("rivals") or {}).items()}
    if not accuracy:
        return ""
    best, ours = (
        max(accuracy, key=lambda name: accuracy[name].value),
        as_estimate(values["accuracy"]),
    )
    held = f"the best rival, {best}: {ours} against {accuracy[best]}"
    if ours.value > accuracy[best].value:
        return f"The classifier names more rows right than {held}."
    return f"The classifier does not beat {held}. For these rows no GPT is needed."


def run_report(directory: Path, record: Mapping, values: Mapping) -> dict[str, Path]:
    """Write report.md and training_process.png (alt text beside it) into a user's own run.

    `values` is what `experiment.evaluate_lm` or `evaluate_classes` returned.
    """
    directory, baselines = Path(directory), values.get("baselines") or {}
    nats = {name: baseline["code"]["nll"]["value"] for name, baseline in baselines.items()}
    figure = plot_training_process(record, nats)
    picture = directory / f"{PROCESS}.png"
    with atomic_path(picture) as aside:
        figure.savefig(aside, dpi=DPI, metadata={"Software": None})
    write_text(picture.with_suffix(".txt"), figure.alt + "\n")
    told = [
        f"- {baseline_name(name)}: {baseline['description']}"
        for name, baseline in baselines.items()
    ]
    text = [
        "# How this run went",
        _verdict(values),
        run_table(values),
        "## Training",
        _settings(record),
        f"![{escape_markdown(figure.alt)}]({picture.name})",
        "## The baselines" if told else "",
        "\n".join(told),
        "Each number has its 95 % interval and n, the independent rows it rests on; rows that name "
        "one source count as one.",
    ]
    write_text(directory / "report.md", "\n\n".join(part for part in text if part) + "\n")
    return {"markdown": directory / "report.md", "figure": picture}
