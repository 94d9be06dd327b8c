"""Write a model's card, and the report of a run on a user's own data."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from seqlm.evaluation.estimates import as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.evaluation.tables import escape_markdown, run_table
from seqlm.plots.style import DPI
from seqlm.plots.training import LOSSES, plot_training_process
from seqlm.utils import atomic_path, format_duration, write_text

PROCESS = "training_process"


def model_card(
    record: Mapping,
    values: Mapping | None,
    vocab_size: int,
    data: str,
    file: str | None = None,
    split: str = "test",
) -> str:
    """README.md of a model directory, for the notebooks' model and for a user's own.

    `values` is what measure.py returned, None before anything was measured; `data` says in a line
    what the data was. `file` is the name of a user's own data, whose licence is the user's; `split`
    was measured.
    """
    classifies = "class_nll" in record["best"]
    kind = "GPT2ForSequenceClassification" if classifies else "GPT2LMHeadModel"
    does = "classifies" if classifies else "continues"
    name = "seqlm classifier" if classifies else "seqlm language model"
    measured = _tested(record, values) if values else _validation(record)
    parts = [
        f"---\n{_front_matter(name, classifies, values or {}, file, split)}\n---",
        f"# {name}",
        f"A small GPT-2 that {does} sequences of code tokens, trained with seqlm. Its vocabulary "
        f"has {vocab_size:,} tokens; white space stands between one token and the next. Data: "
        f"{data}.",
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
        _licence(file),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(
    name: str, classifies: bool, values: Mapping, file: str | None, split: str
) -> str:
    """What the Hugging Face Hub reads of a card, written by its own library."""
    task = "text-classification" if classifies else "text-generation"
    data = {
        "task_type": task,
        "dataset_type": "json",  # the loader of Hugging Face's datasets that reads such files
        "dataset_name": file or "handwritten digits as sequences of codes",
        "dataset_split": "validation" if file and split == "val" else "test",
    }
    results = [
        EvalResult(**data, metric_type=kind, metric_name=words, metric_value=round(value, 6))
        for kind, words, value in _results(values)
    ]
    known = {each.metric_type for each in results} & {"perplexity", "accuracy", "f1"}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        license="unknown" if file else "mit",
        tags=["gpt2", "seqlm", "token-sequences"],
        metrics=sorted(known) or None,
        model_name=name if results else None,
        eval_results=results or None,
        # A row to classify would have to be someone's; every sentence begins with <IMG>.
        widget=None
        if classifies
        else [{"text": "<IMG>", "example_title": "a row, from its start"}],
    ).to_yaml()


def _results(values: Mapping) -> Iterator[tuple[str, str, float]]:
    """Kind of metric, its name with interval and n, value: for each number the Hub should show."""
    rows = [("accuracy", "accuracy", values.get("accuracy"))]
    rows += [("f1", "macro F1", values.get("macro_f1"))]
    for layout in ("read", "draw", "other"):
        code = values.get(layout, {}).get("code") or {}
        rows += [("perplexity", f"perplexity of a code, {layout} layout", code.get("perplexity"))]
        rows += [("nll", f"NLL of a code in nats, {layout} layout", code.get("nll"))]
    read = values.get("read", {}).get("class") or {}
    rows += [("accuracy", "class guessed at once, among all tokens", read.get("top1"))]
    for kind, words, numbers in rows:
        if numbers is not None:
            e = as_estimate(numbers)
            yield kind, f"{words} (95 % interval {e.format_interval()}, n = {e.n:,})", e.value


def _licence(file: str | None) -> str:
    if file is None:
        return "MIT, as seqlm itself."
    return (
        f"seqlm cannot know the licence of {file}, which decides. Before you share this folder, "
        "put the licence you choose in place of `unknown` at the top of this file."
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
    numbers = [f"{name} {best[key]:.3f}" for key, name in LOSSES.items() if key in best]
    numbers += [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]
    return (
        f"On the validation rows, at step {best['step']:,}: {', '.join(numbers)} (NLL in nats). "
        "These rows also chose the checkpoint, so the numbers flatter a little; the run's report "
        "has the test split, with intervals and baselines."
    )


def _settings(record: Mapping) -> str:
    chosen, settings = record["precision"]["chosen"], record["settings"]
    names = ("batch_size", "grad_accumulation", "learning_rate", "schedule", "weight_decay", "seed")
    adamw = ", ".join(f"{name} {settings[name]}" for name in names if name in settings)
    ends = {"patience": "; stopped early", "max_seconds": "; stopped by max_seconds"}
    ended = ends.get(record.get("stopped_by"), "")
    return (
        f"{record['parameters']:,} parameters, n = {record['rows']:,} training rows, "
        f"{record['steps']:,} steps in {format_duration(record['seconds'])}, {chosen}{ended}. "
        f"AdamW with {adamw}. The checkpoint of step {record['best']['step']:,} is kept as "
        "best_model. "
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
    """Whether the model beats its baselines; "" where there are none."""
    if "below_best_baseline" in values:
        share, name = (
            as_share(values["below_best_baseline"]),
            baseline_name(values["best_baseline"]),
        )
        if share.value > 0:
            return (
                f"The model needs fewer nats per code than the best baseline, {name}; it saves "
                f"{share}."
            )
        return (
            f"The model does not beat the best baseline, {name}: the share it saves is {share}. It "
            "has learned nothing that counting would not give."
        )
    baselines = values.get("baselines", {}) if "accuracy" in values else {}
    if not baselines:
        return ""
    accuracy = {name: as_estimate(measured["accuracy"]) for name, measured in baselines.items()}
    best, ours = (
        max(accuracy, key=lambda name: accuracy[name].value),
        as_estimate(values["accuracy"]),
    )
    numbers = f"the best baseline, {best}: {ours} against {accuracy[best]}"
    if ours.value > accuracy[best].value:
        return f"The classifier classifies more rows correctly than {numbers}."
    return f"The classifier does not beat {numbers}. For these rows no GPT is needed."


def run_report(directory: Path, record: Mapping, values: Mapping) -> dict[str, Path]:
    """Write report.md and training_process.png (alt text beside it) into a user's own run.

    `values` is what measure.py returned.
    """
    directory = Path(directory)
    baselines = {} if "accuracy" in values else values.get("baselines") or {}
    nats = {name: baseline["code"]["nll"]["value"] for name, baseline in baselines.items()}
    figure = plot_training_process(record, nats)
    picture = directory / f"{PROCESS}.png"
    with atomic_path(picture) as aside:
        figure.savefig(aside, dpi=DPI, metadata={"Software": None})
    write_text(picture.with_suffix(".txt"), figure.alt + "\n")
    descriptions = [f"- {baseline_name(name)}: {b['description']}" for name, b in baselines.items()]
    text = [
        "# How this run went",
        _verdict(values),
        run_table(values),
        "## Training",
        _settings(record),
        f"![{escape_markdown(figure.alt)}]({picture.name})",
        "## The baselines" if descriptions else "",
        "\n".join(descriptions),
        "Each number has its 95 % interval and n, the independent rows it rests on; rows that name "
        "one source count as one.",
    ]
    write_text(directory / "report.md", "\n\n".join(part for part in text if part) + "\n")
    return {"markdown": directory / "report.md", "figure": picture}
