"""Compare the training settings of two finished runs on the same test rows, as Markdown tables.

`python bench/recipes.py outputs/original outputs/laptop` (after `make report` of both profiles, or
with the directories of two `seqlm train` runs) prints what each run reached, its NLL on val against
steps and tokens, and the ratio of their step times. Runs are made at different times, on a machine
busy with other things, so the steps are timed anew, side by side. `--pad_to 1024` also times the
first run's steps with every row padded to that length, which changes the time and nothing else.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from seqlm.data.build import CODEBOOK, VOCAB
from seqlm.errors import DataError, SeqlmError
from seqlm.evaluation.estimates import Estimate, as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.evaluation.tables import markdown_table
from seqlm.models.gpt2 import check_model_directory
from seqlm.training.sizes import TrainingStep, time_training_steps
from seqlm.training.train import RECORD
from seqlm.utils import format_duration, read_json, sha256_of


def load_run(directory: Path) -> dict:
    """training.json and the measured values of a finished run, with what makes it comparable."""
    record = read_json(directory / RECORD)
    if not record.get("finished"):
        raise DataError(f"{directory / RECORD}: this run is not finished; run it to its end")
    places = (directory / "metrics" / "evaluate.json", directory / "metrics.json")
    path = next((path for path in places if path.is_file()), None)
    if path is None:
        raise DataError(f"{directory}: not evaluated; run `make report` or `seqlm train`")
    measured = read_json(path)
    values = measured["values"]
    layout = values.get("layout_compared") or next(n for n in ("read", "draw") if n in values)
    model, code = directory / "best_model", values[layout]["code"]
    names = [name for name in (VOCAB, CODEBOOK) if (model / name).is_file()]
    test_rows = {
        "split": measured.get("split", "test"),
        "layout": layout,
        "number of images": as_estimate(code["nll"]).n,
        "number of codes": code["tokens"],
        **{name: sha256_of([model / name]) for name in names},
    }
    return {"record": record, "values": values, "layout": layout, "test_rows": test_rows}


def check_same_test_rows(runs: Mapping[str, Mapping]) -> None:
    (first, expected), *others = ((name, run["test_rows"]) for name, run in runs.items())
    for name, facts in others:
        for key in expected | facts:
            if facts.get(key) != expected.get(key):
                raise DataError(
                    f"{name}: measured with another {key} than {first}; evaluate both on the same "
                    "test rows"
                )


def training_step(directory: Path, record: Mapping) -> TrainingStep:
    """One optimizer step of a run, with rows of their mean length."""
    last, settings = record["evals"][-1], record["settings"]
    return TrainingStep(
        check_model_directory(directory / "best_model"),
        min(settings["batch_size"], record["rows"]),
        settings["grad_accumulation"],
        round(last["tokens"] / (last["epoch"] * record["rows"])),
        record["precision"]["chosen"],
        settings["max_grad_norm"],
    )


def summary_of(run: Mapping, seconds: Estimate) -> dict[str, str]:
    """Row -> cell of the first table."""
    record, code = run["record"], run["values"][run["layout"]]["code"]
    settings, last = record["settings"], record["evals"][-1]
    early = ", stopped early" * record["stopped_early"]
    where = f"({run['layout']} layout, {run['test_rows']['split']})"
    cells = {
        "training rows": f"{record['rows']:,}",
        "batch size": f"{settings['batch_size']:,}",
        "learning rate": f"{settings['learning_rate']:g}",
        "epochs": f"{last['epoch']:g} of {settings['num_epochs']:g}{early}",
        "optimizer steps": f"{record['steps']:,} (best: {record['best']['step']:,})",
        "tokens seen": f"{last['tokens']:,}",
        "milliseconds per step": seconds.map(lambda s: 1000 * s, "ms").format(with_n=True),
        "all steps at that speed": format_duration(record["steps"] * seconds.value),
        f"NLL, nats per code {where}": as_estimate(code["nll"]).format(with_n=True),
        f"perplexity {where}": as_estimate(code["perplexity"]).format(with_n=True),
    }
    best, saved = (run["values"].get(f"{name}best_baseline") for name in ("", "below_"))
    if best and saved:
        # Fitted on the run's own training rows: more rows make a stronger baseline.
        nll = as_estimate(run["values"]["baselines"][best]["code"]["nll"]).format(with_n=True)
        cells["best baseline on its own training rows"] = f"{baseline_name(best)}: {nll}"
        cells["nats saved below that baseline"] = as_share(saved).format(with_n=True)
    if run["layout"] == "read" and "class" in run["values"]["read"]:
        accuracy = as_estimate(run["values"]["read"]["class"]["top1"])
        cells["accuracy, read off the language model"] = accuracy.format(with_n=True)
    return cells


def report(directories: Sequence[Path], rounds: int, pad_to: int | None) -> str:
    """All three tables: results, NLL against steps and tokens, step times."""
    names = {f"{path.parent.name}/{path.name}": path for path in map(Path.absolute, directories)}
    runs = {name: load_run(path) for name, path in names.items()}
    check_same_test_rows(runs)
    steps = {name: training_step(path, runs[name]["record"]) for name, path in names.items()}
    first = next(iter(steps))
    if pad_to:
        steps[f"{first}, padded to {pad_to:,}"] = replace(steps[first], length=pad_to)
    times = time_training_steps(steps, rounds)
    summaries = [summary_of(run, times[name]) for name, run in runs.items()]
    rows = dict.fromkeys(row for summary in summaries for row in summary)
    results = [["", *runs], *([row, *(s.get(row, "–") for s in summaries)] for row in rows)]
    curve = [["run", "step", "tokens", "NLL on val, nats per code"]]
    for name, run in runs.items():
        for line in run["record"]["evals"]:
            nll = line.get(f"{run['layout']}_nll", line["code_nll"])
            curve.append([name, f"{line['step']:,}", f"{line['tokens']:,}", f"{nll:.3f}"])
    ratios = [[name, f"{e.value / times[first].value:.2f}"] for name, e in times.items()]
    ratios = [["step time", f"times {first}"], *ratios]
    tables = (results, curve, ratios)
    return "\n\n".join(markdown_table(header, rows) for header, *rows in tables)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs=2, help="outputs/<profile>, or a run's directory")
    parser.add_argument("--rounds", type=int, default=10, help="steps timed of each run")
    parser.add_argument("--pad_to", type=int, help="also time the first with rows of this length")
    arguments = parser.parse_args()
    try:
        print(report(arguments.runs, arguments.rounds, arguments.pad_to))
    except SeqlmError as error:
        raise SystemExit(f"error: {error}") from error
