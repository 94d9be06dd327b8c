"""Recipes for the same data, compared honestly: what each learned, from how much, how fast.

The project began with batches of 8, a learning rate of 5e-5, 20 passes and no augmented copies.
Set beside ours, three things must be said aloud, or the comparison flatters someone:

- Tokens. Twenty passes over sentences without copies see fewer tokens than one pass over forty
  times as many, and see each of them twenty times. NLL against tokens seen shows both.
- Seconds. Runs made at different times were made on machines busy with different things. So
  `recipe_speed.step_seconds` times the steps of all recipes side by side, and `on_the_clock` makes
  the axis of seconds out of steps times that. Evaluation and loading are not in it.
- Baselines. Each run's baselines learned from that run's own training rows, and those of more rows are
  lower. The share saved below the best baseline is each against its own; the NLL is comparable.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from seqlm.data.build import CODEBOOK, VOCAB
from seqlm.data.codebook import PatchCodebook
from seqlm.errors import DataError, SeqlmError
from seqlm.evaluation.estimates import Estimate, as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.training.train import RECORD
from seqlm.utils import format_duration, read_json


def compare(names_to_directories: Mapping[str, Path]) -> dict[str, dict]:
    """What each run did and what it came to, for a table and a figure.

    A directory is a profile's outputs (metrics/05.json and, for the classifier, metrics/04.json)
    or that of a `seqlm train` run (metrics.json); both hold training.json.

    Returns for each name, Estimates as in a metrics file: at each evaluation on val "step",
    "tokens" and "seconds" (lists; the seconds are the run's own, see the module's note) and "nll"
    (nats per code, in the layout that the baselines are in); "best", the index of the checkpoint kept,
    which has the lowest code NLL over all layouts; "steps", "epochs", "stopped_early",
    "batch_size", "learning_rate", "num_epochs", "rows"; on "split", which is test unless the data
    has none: "test_nll", "perplexity", "best_baseline" (name and NLL), "below_best_baseline", "accuracy"
    (class read off the language model, None where there is none) and "classifier" (best route,
    chosen on val, and its accuracy; or None).

    Raises DataError when a run is not finished or not measured, or when the runs were not measured
    on test rows of the same number and length, in the same layout, vocabulary and code book.
    """
    directories = {name: Path(path) for name, path in names_to_directories.items()}
    found = {name: _run(directory) for name, directory in directories.items()}
    _check_alike(found, directories)
    return found


def _run(directory: Path) -> dict:
    record, (split, values) = finished_record(directory), _measured(directory)
    try:
        present = next(name for name in ("read", "draw", "other") if name in values)
        layout = values.get("layout_compared") or present
        classifier = _classifier(directory)
        found = _course(record, layout) | _outcome(values, layout)
    except SeqlmError:
        raise
    except (KeyError, IndexError, StopIteration, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{directory}: its training.json or metrics are not those of a language model "
            f"({type(error).__name__}: {error}); train and evaluate it again"
        ) from error
    return found | {"split": split, "layout": layout, "classifier": classifier}


def _course(record: Mapping, layout: str) -> dict:
    """What training.json says."""
    lines, settings = record["evals"], record["settings"]
    key = f"{layout}_nll" if f"{layout}_nll" in lines[0] else "code_nll"
    found = {name: [line[name] for line in lines] for name in ("step", "tokens", "seconds")}
    return {
        **found,
        "nll": [line[key] for line in lines],
        "best": found["step"].index(record["best"]["step"]),
        "epochs": lines[-1]["epoch"],
        **{name: record[name] for name in ("steps", "stopped_early", "rows")},
        **{name: settings[name] for name in ("batch_size", "learning_rate", "num_epochs")},
    }


def _outcome(values: Mapping, layout: str) -> dict:
    """What was measured once, at the end."""
    code, name = values[layout]["code"], values.get("best_baseline")
    # In the draw layout the class stands first, where nobody can know it.
    read_off = values[layout].get("class") if layout == "read" else None
    return {
        "code_tokens": code["tokens"],
        "test_nll": code["nll"],
        "perplexity": code["perplexity"],
        "best_baseline": name and {"name": name, "nll": values["baselines"][name]["code"]["nll"]},
        "below_best_baseline": values.get("below_best_baseline"),
        "accuracy": read_off and read_off["top1"],
    }


def finished_record(directory: Path) -> dict:
    """training.json of a run. Raises DataError when it is not there or the run is not finished."""
    path = Path(directory) / RECORD
    record = read_json(path)
    if not isinstance(record, dict) or not record.get("finished"):
        raise DataError(f"{path}: this run is not finished; let it come to its end")
    return record


def _measured(directory: Path) -> tuple[str, dict]:
    """The split that was measured, and what `experiment.evaluate_lm` said of it."""
    for path in (directory / "metrics" / "05.json", directory / "metrics.json"):
        if path.is_file():
            held = read_json(path)
            if isinstance(held, dict) and isinstance(held.get("values"), dict):
                return held.get("split", "test"), held["values"]
    raise DataError(
        f"{directory}: no numbers on test here (metrics/05.json or metrics.json); run notebook "
        "05_evaluate of this profile, or `seqlm train` to its end"
    )


def _classifier(directory: Path) -> dict | None:
    path = directory / "metrics" / "04.json"
    if not path.is_file():
        return None
    values = read_json(path)["values"]
    return {
        "route": values["best_route"],
        "accuracy": values["routes"][values["best_route"]]["accuracy"],
    }


def _check_alike(found: Mapping[str, Mapping], directories: Mapping[str, Path]) -> None:
    seen: dict[str, tuple[str, object]] = {}
    for name, run in found.items():
        model = directories[name] / "best_model"
        facts = {
            "another split": run["split"],
            "another layout": run["layout"],
            "another number of images": as_estimate(run["test_nll"]).n,
            "another number of codes": run["code_tokens"],
            "another vocabulary": read_json(model / VOCAB),
            "another code book": _centers(model / CODEBOOK),
        }
        for difference, fact in facts.items():
            first, expected = seen.setdefault(difference, (name, fact))
            if fact != expected:
                raise DataError(
                    f"{directories[name]}: measured with {difference} than {directories[first]}; "
                    "only the same test rows can be compared, so build and evaluate both alike"
                )


def _centers(path: Path) -> list | None:
    """A code book to compare; rounded, for what is the same may differ in its last digits."""
    return np.round(PatchCodebook.load(path).centers, 4).tolist() if path.is_file() else None


def on_the_clock(run: Mapping, a_step: Estimate) -> dict:
    """A run of `compare` with seconds that can be held against another's: steps times `a_step`."""
    seconds = [step * a_step.value for step in run["step"]]
    return {**run, "seconds": seconds, "step_seconds": a_step.to_json()}


def comparison_table(runs: Mapping[str, Mapping]) -> str:
    """Recipes side by side, a column each, as a Markdown table; numbers with interval and n.

    `runs` comes from `compare`, through `on_the_clock` where seconds are known.
    """
    lines = [["", *runs], ["---", *["---"] * len(runs)]]
    columns = [_told(run) for run in runs.values()]
    for row in dict.fromkeys(row for column in columns for row in column):
        lines.append([row, *(column.get(row, "not measured") for column in columns)])
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in cells)} |" for cells in lines)


def _told(run: Mapping) -> dict[str, str]:
    early = ", stopped early" * run["stopped_early"]
    told = {
        "rows to learn from": f"{run['rows']:,}",
        "batch size": f"{run['batch_size']:,}",
        "learning rate": f"{run['learning_rate']:g}",
        "passes over the rows": f"{run['epochs']:g} of {run['num_epochs']:g}{early}",
        "optimizer steps": f"{run['steps']:,} (kept: {run['step'][run['best']]:,})",
        "tokens seen": f"{run['tokens'][-1]:,}",
    }
    if run.get("step_seconds"):
        a_step = as_estimate(run["step_seconds"])
        told["milliseconds a step, side by side"] = a_step.map(lambda s: 1000 * s, "ms").format(
            with_n=True
        )
        told["all its steps at that pace"] = format_duration(run["steps"] * a_step.value)
    where = f"{run['layout']} layout, {run['split']}"
    told[f"NLL of a code, nats ({where})"] = as_estimate(run["test_nll"]).format(with_n=True)
    told[f"perplexity of a code ({where})"] = as_estimate(run["perplexity"]).format(with_n=True)
    if run["best_baseline"]:
        baseline = run["best_baseline"]
        told["best baseline on its own rows"] = (
            f"{baseline_name(baseline['name'])}: {as_estimate(baseline['nll']).format(with_n=True)}"
        )
    if run["below_best_baseline"]:
        told["share of that baseline's nats saved"] = as_share(run["below_best_baseline"]).format(
            with_n=True
        )
    if run["accuracy"]:
        told["classes read off the language model"] = as_estimate(run["accuracy"]).format(
            with_n=True
        )
    if run["classifier"]:
        route = run["classifier"]["route"]
        told["classes classified correctly, best route"] = (
            f"{route}: {as_estimate(run['classifier']['accuracy']).format(with_n=True)}"
        )
    return told
