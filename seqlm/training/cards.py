"""Write a model's card, and the report of a run on a user's own data."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from seqlm.atomic import atomic_path
from seqlm.evaluation.estimates import as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.evaluation.significance import baseline_verdict
from seqlm.evaluation.tables import code_span, escape_markdown, run_table
from seqlm.plots.style import as_png
from seqlm.plots.training import LOSSES, OF_CODES, plot_training_process
from seqlm.utils import fill_template, format_duration, write_text

PROCESS = "training_process"
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon and AdamW"}


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
    return fill_template(
        "training/model_card.md",
        front_matter=_front_matter(name, classifies, values or {}, file, split),
        name=name,
        classifies=classifies,
        vocab_size=vocab_size,
        data=data,
        kind="GPT2ForSequenceClassification" if classifies else "GPT2LMHeadModel",
        record=record,
        table=run_table(values) if values else "",
        val_numbers=_val_numbers(record["best"]),
        training=_describe_training(record),
        file=code_span(file) if file else "",
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


def _val_numbers(best: Mapping) -> list[str]:
    numbers = [
        f"{name.replace('val', 'NLL per code' if key in OF_CODES else 'NLL')} {best[key]:.3f}"
        for key, name in LOSSES.items()
        if key in best
    ]
    return numbers + [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]


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


def _against_baseline(values: Mapping) -> dict:
    """The best baseline, and how the model compares with it; {} where there are none."""
    if "below_best_baseline" in values:
        share, best = as_share(values["below_best_baseline"]), values["best_baseline"]
        return {"best": baseline_name(best), "share": share, "verdict": baseline_verdict(share)}
    if not ("accuracy" in values and values["baselines"]):
        return {}
    accuracy = {k: as_estimate(v["accuracy"]) for k, v in values["baselines"].items()}
    best, ours = max(accuracy, key=lambda k: accuracy[k].value), as_estimate(values["accuracy"])
    gap = as_estimate(values["baselines"][best]["accuracy_gap"])
    return {"best": best, "ours": ours, "theirs": accuracy[best], "gap": gap}


def write_report(directory: Path, record: Mapping, values: Mapping) -> None:
    """Write report.md and training_process.png (alt text beside it) into a user's own run."""
    baselines = {} if "accuracy" in values else values.get("baselines", {})
    nats = {name: baseline["code"]["nll"]["value"] for name, baseline in baselines.items()}
    figure, picture = plot_training_process(record, nats), Path(directory) / f"{PROCESS}.png"
    with atomic_path(picture) as aside:
        aside.write_bytes(as_png(figure))
    write_text(picture.with_suffix(".txt"), figure.alt + "\n")
    text = fill_template(
        "training/report.md",
        **_against_baseline(values),
        table=run_table(values),
        training=_describe_training(record),
        alt=escape_markdown(figure.alt),
        picture=picture.name,
        baselines={baseline_name(k): v["description"] for k, v in baselines.items()},
    )
    write_text(picture.with_name("report.md"), text)
