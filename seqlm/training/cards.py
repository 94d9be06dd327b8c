"""Write a model's card, and the report of a run on a user's own data."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from seqlm.atomic import atomic_path
from seqlm.evaluation.estimates import as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.evaluation.significance import baseline_verdict
from seqlm.evaluation.tables import code_span, escape_markdown, run_table
from seqlm.plots.style import DPI
from seqlm.plots.training import LOSSES, plot_training_process
from seqlm.utils import format_duration, write_text

PROCESS = "training_process"
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon and AdamW"}
CARD = """---
{front_matter}
---

# {name}

A small GPT-2 that {does} sequences of code tokens, trained with seqlm. Its vocabulary has \
{vocab_size:,} tokens; white space stands between one token and the next. Data: {data}.

## How to load it

From inside this folder, or with its path in place of the dot:

```python
from transformers import {kind}, GPT2Tokenizer
model = {kind}.from_pretrained(".")
tokenizer = GPT2Tokenizer.from_pretrained(".")
ids = tokenizer("<IMG>", return_tensors="pt").input_ids
```

## How well it does

{metrics}

## How it was trained

{training}

## Limits

- It knows the tokens of its vocab.json and nothing else: no words, no pictures.
- The intervals speak of other rows of the same kind, not of other data or another training run.
- {limit}

## Licence

{licence}
"""
LM_LIMIT = (
    "NLL and perplexity of codes are the numbers to compare; those of all tokens are flattered by "
    "structural tokens that are nearly free."
)
CLASSIFIER_LIMIT = (
    "Its input must end at `<CLS>`: a row with the class token in it gives the answer away."
)
UNKNOWN_LICENCE = (
    "seqlm cannot know the licence of {file}, which decides. Before you share this folder, put the "
    "licence you choose in place of `unknown` at the top of this file."
)


def model_card(
    record: Mapping,
    values: Mapping | None,
    vocab_size: int,
    data: str,
    file: str | None = None,
    split: str = "test",
) -> str:
    """README.md of a model directory; arguments as in `runs.save_model_cards`, `data` in a line."""
    classifies = "class_nll" in record["best"]
    name = "seqlm classifier" if classifies else "seqlm language model"
    return CARD.format(
        front_matter=_front_matter(name, classifies, values or {}, file, split),
        name=name,
        does="classifies" if classifies else "continues",
        vocab_size=vocab_size,
        data=data,
        kind="GPT2ForSequenceClassification" if classifies else "GPT2LMHeadModel",
        metrics=_test_metrics(record, values) if values else _val_metrics(record),
        training=_describe_training(record),
        limit=CLASSIFIER_LIMIT if classifies else LM_LIMIT,
        licence=UNKNOWN_LICENCE.format(file=code_span(file)) if file else "MIT, as seqlm itself.",
    )


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
        for kind, words, value in _hub_metrics(values)
    ]
    known = {each.metric_type for each in results} & {"perplexity", "accuracy", "f1"}
    # A row to classify would have to be someone's; every sentence begins with <IMG>.
    example = {"text": "<IMG>", "example_title": "a row, from its start"}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        license="unknown" if file else "mit",
        tags=["gpt2", "seqlm", "token-sequences"],
        metrics=sorted(known) or None,
        model_name=name if results else None,
        eval_results=results or None,
        widget=None if classifies else [example],
    ).to_yaml()


def _hub_metrics(values: Mapping) -> Iterator[tuple[str, str, float]]:
    """Kind of metric, its name with interval and n, value: for each number the Hub should show."""
    places = [("accuracy", "accuracy", ("accuracy",)), ("f1", "macro F1", ("macro_f1",))]
    for layout in ("read", "draw", "other"):
        for kind, name in (("perplexity", "perplexity per code"), ("nll", "NLL per code in nats")):
            places.append((kind, f"{name}, {layout} layout", (layout, "code", kind)))
    top1 = ("read", "class", "top1")
    places.append(("accuracy", "top-1 accuracy of the class among all tokens", top1))
    for kind, name, keys in places:
        numbers = values
        for key in keys:
            numbers = numbers.get(key, {})
        if numbers:
            e = as_estimate(numbers)
            yield kind, f"{name} (95 % interval {e.format_interval()}, n = {e.n:,})", e.value


def _test_metrics(record: Mapping, values: Mapping) -> str:
    best, last, table = record["best"]["step"], record["steps"], run_table(values)
    if best == last:
        return table
    return (
        f"{table}\n\nThese numbers, and those at the top of this file, are best_model's, the "
        f"checkpoint of step {best:,}; final_model is the model after step {last:,}."
    )


def _val_metrics(record: Mapping) -> str:
    best = record["best"]
    numbers = [f"{name} {best[key]:.3f}" for key, name in LOSSES.items() if key in best]
    numbers += [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]
    return (
        f"On the validation rows, at step {best['step']:,}: {', '.join(numbers)} (NLL in nats). "
        "These rows also chose the checkpoint, so the numbers flatter a little; the run's report "
        "has the test split, with intervals and baselines."
    )


def _describe_training(record: Mapping) -> str:
    chosen, settings = record["precision"]["chosen"], record["settings"]
    names = ("batch_size", "grad_accumulation", "learning_rate", "schedule", "weight_decay", "seed")
    shown = ", ".join(f"{name} {settings[name]}" for name in names if name in settings)
    optimizer = OPTIMIZERS[settings.get("optimizer", "adamw")]
    ends = {"patience": "; stopped early", "max_seconds": "; stopped by max_seconds"}
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"{record['parameters']:,} parameters, n = {record['rows']:,} training rows, "
        f"{record['steps']:,} steps in {format_duration(record['seconds'])}, {chosen}"
        f"{ends.get(record.get('stopped_by'), '')}. {optimizer} with {shown}. The checkpoint of "
        f"step {record['best']['step']:,} is kept as best_model. Versions: {versions}."
    )


def _verdict(values: Mapping) -> str:
    """Whether the model beats its baselines; "" where there are none."""
    if "below_best_baseline" in values:
        share = as_share(values["below_best_baseline"])
        baseline = f"the best baseline, {baseline_name(values['best_baseline'])}"
        if share.low > 0:
            return f"The model needs fewer nats per code than {baseline}; it saves {share}."
        words = f"The model {baseline_verdict(share)} {baseline}: the share it saves is {share}."
        counting = " It has learned nothing that counting would not give."
        return words + (counting if share.high < 0 else "")  # else that is not shown
    if not ("accuracy" in values and values["baselines"]):
        return ""
    accuracy = {k: as_estimate(v["accuracy"]) for k, v in values["baselines"].items()}
    best, ours = max(accuracy, key=lambda k: accuracy[k].value), as_estimate(values["accuracy"])
    numbers = f"the best baseline, {best}: {ours} against {accuracy[best]}"
    gap = as_estimate(values["baselines"][best]["accuracy_gap"])
    if gap.low > 0:
        return f"The classifier classifies more rows correctly than {numbers}."
    if gap.high < 0:
        return f"The classifier does not beat {numbers}. For these rows no GPT is needed."
    return f"The classifier is not distinguishable from {numbers}; the difference is {gap}."


def write_report(directory: Path, record: Mapping, values: Mapping) -> None:
    """Write report.md and training_process.png (alt text beside it) into a user's own run."""
    baselines = {} if "accuracy" in values else values.get("baselines", {})
    nats = {name: baseline["code"]["nll"]["value"] for name, baseline in baselines.items()}
    figure, picture = plot_training_process(record, nats), Path(directory) / f"{PROCESS}.png"
    with atomic_path(picture) as aside:
        figure.savefig(aside, dpi=DPI, metadata={"Software": None})
    write_text(picture.with_suffix(".txt"), figure.alt + "\n")
    parts = [
        "# How this run went",
        _verdict(values),
        run_table(values),
        "## Training",
        _describe_training(record),
        f"![{escape_markdown(figure.alt)}]({picture.name})",
        "## The baselines" if baselines else "",
        "\n".join(f"- {baseline_name(k)}: {v['description']}" for k, v in baselines.items()),
        "Each number has its 95 % interval and n, the independent rows it rests on; rows that name "
        "one source count as one.",
    ]
    write_text(picture.with_name("report.md"), "\n\n".join(filter(None, parts)) + "\n")
