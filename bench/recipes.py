"""Training recipes over several seeds: NLL on val against tokens seen and against seconds.

`python bench/recipes.py` trains the digits with the settings the project began with, with AdamW as
it was tuned first, and with notebook 4's own settings, three seeds each. It writes recipes.json,
recipes.md and recipes.png to bench/results. Runs are kept in outputs/recipes, and what is finished
is not run again. A busy machine spoils only the seconds, so these are a recipe's steps times the
median of its step, and all steps are timed side by side; evaluation is not counted.
`--recipe NAME --seed N` trains a single run and writes nothing else; `--time` only times the steps.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import seqlm  # noqa: F401  (it sets GOMP_SPINCOUNT, before torch is imported)

# isort: split
import torch
from matplotlib.figure import Figure

from seqlm.config import DataConfig, DataFiles, ModelConfig, TrainConfig
from seqlm.data.build import SEQUENCES, VOCAB, build_dataset, is_built
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.errors import SeqlmError
from seqlm.evaluation.tables import markdown_table
from seqlm.models.gpt2 import build_lm, fit_attention
from seqlm.plots import style
from seqlm.training.batches import collator
from seqlm.training.muon import build_optimizer
from seqlm.training.tasks import train_lm, train_rows
from seqlm.training.timing import forward_backward, has_native_bf16
from seqlm.utils import machine, read_json, versions, write_json

ROOT = Path(__file__).parents[1]
SEEDS = (42, 43, 44)  # of weights and of the order of rows; the sequences are the same
REACHED = "AdamW"  # whose mean NLL at the end the others are to reach
SHOWN = ("step", "tokens", "code_nll", "read_nll", "draw_nll", "class_accuracy")


@dataclass(frozen=True)
class Recipe:
    """A run but for its seed: augmented images of each training image, dropout, settings."""

    copies: int
    dropout: float
    train: TrainConfig
    note: str = ""


RECIPES = {
    "first settings": Recipe(
        40,
        0.1,
        TrainConfig(num_epochs=0.2, evals=10, patience=0),
        "AdamW, batch 8, rate 5e-5; stopped after a fifth of an epoch, its schedule ends there",
    ),
    REACHED: Recipe(
        40,
        0.0,
        TrainConfig(batch_size=64, num_epochs=1.0, learning_rate=1e-3, evals=16, patience=0),
        "AdamW, batch 64, rate 1e-3; one epoch",
    ),
    "Muon": Recipe(
        7,
        0.0,
        TrainConfig(
            batch_size=64, num_epochs=1.0, optimizer="muon", learning_rate=3e-3, evals=9, patience=0
        ),
        "Muon with AdamW, batch 64, rate 3e-3; one epoch (notebook 4's own settings)",
    ),
}


def load_rows(copies: int, folder: Path) -> Corpus:
    """The digits with so many augmented images of each, built when they are not there."""
    config, directory = DataConfig(copies=copies), folder / f"data_{copies}"
    if not is_built(config, directory):
        build_dataset(config, directory)
    return load_corpus(DataFiles(directory / SEQUENCES, directory / VOCAB))


def run_once(name: str, seed: int, folder: Path) -> dict:
    """Train one recipe with one seed, or read what it reached before."""
    recipe = RECIPES[name]
    path = folder / f"{name.replace(' ', '_')}-{seed}.json"
    settings = {"copies": recipe.copies, "dropout": recipe.dropout, **asdict(recipe.train)}
    settings = json.loads(json.dumps(settings | {"seed": seed}, default=str))
    if path.is_file() and read_json(path)["settings"] == settings:
        return read_json(path)
    config = replace(recipe.train, output_dir=path.with_suffix(""), seed=seed)
    size = ModelConfig(dropout=recipe.dropout)
    record = train_lm(load_rows(recipe.copies, folder), size, config)
    evals = [{key: line[key] for key in SHOWN} for line in record["evals"]]
    start = {**record["initial"], "step": 0, "tokens": 0}
    run = {"recipe": name, "seed": seed, "settings": settings, "rows": record["rows"]}
    run |= {"steps": record["steps"], "precision": record["precision"]["chosen"]}
    run |= {"versions": versions(), "evals": [{key: start[key] for key in SHOWN}, *evals]}
    write_json(path, run)
    return run


def time_steps(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of whole optimizer steps of each recipe, in turn, after two that warm up."""
    steps, seconds = {}, {name: [] for name in RECIPES}
    for name, recipe in RECIPES.items():
        corpus = load_rows(recipe.copies, folder)
        rows = train_rows(corpus)
        batch = collator(0)([rows[i] for i in range(recipe.train.batch_size)])
        model = build_lm(ModelConfig(dropout=recipe.dropout), corpus.vocab).train()
        fit_attention(model, corpus.longest)
        precision = "bf16" if has_native_bf16() else "fp32"
        steps[name] = model, build_optimizer(model, recipe.train), batch, precision
    for turn in range(rounds + 2):
        for name in list(steps) if turn % 2 else list(reversed(steps)):
            model, optimizer, batch, precision = steps[name]
            started = perf_counter()
            forward_backward(model, batch, precision)
            torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPES[name].train.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            seconds[name] += [perf_counter() - started] * (turn >= 2)
    return seconds


def summarize(runs: Sequence[Mapping], steps: Mapping[str, Sequence[float]]) -> list[dict]:
    """For each recipe: its curve as mean and range over the seeds, and what it takes to reach."""
    rows = []
    for name in RECIPES:
        of_name = [run for run in runs if run["recipe"] == name]
        lines = list(zip(*(run["evals"] for run in of_name), strict=True))
        per_step = median(steps[name])
        curve = [
            {
                "tokens": at[0]["tokens"],
                "seconds": at[0]["step"] * per_step,
                **{key: [line[key] for line in at] for key in SHOWN[2:]},
            }
            for at in lines
        ]
        rows.append({"recipe": name, "steps": of_name[0]["steps"], "ms": 1000 * per_step,
                     "n_steps_timed": len(steps[name]), "seeds": [r["seed"] for r in of_name],
                     "rows": round(of_name[0]["rows"] * RECIPES[name].train.num_epochs),
                     "curve": curve})  # fmt: skip
    return rows


def first_below(curve: Sequence[Mapping], nll: float, key: str) -> float | None:
    """Tokens or seconds at which the mean over seeds reaches `nll`, between two evaluations."""
    points = [(line[key], mean(line["code_nll"])) for line in curve]
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if y1 <= nll:
            return x1 - (x1 - x0) * (nll - y1) / (y0 - y1)
    return None


def over_seeds(values: Sequence[float], digits: int = 3) -> str:
    """Mean and range."""
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def as_markdown(rows: Sequence[Mapping], about: Mapping) -> str:
    """The table, and how it was measured."""
    reference = next(row for row in rows if row["recipe"] == REACHED)["curve"][-1]
    target = mean(reference["code_nll"])
    header = ["recipe", "rows seen", "tokens", "steps", "ms per step", "seconds", "NLL per code",
              "read", "draw", "accuracy from the LM", f"tokens to {target:.3f}",
              f"seconds to {target:.3f}"]  # fmt: skip
    cells = []
    for row in rows:
        end = row["curve"][-1]
        reached = [first_below(row["curve"], target, key) for key in ("tokens", "seconds")]
        shares = [f"{r:,.0f} ({r / reference[key]:.0%})" if r else "not reached"
                  for key, r in zip(("tokens", "seconds"), reached, strict=True)]  # fmt: skip
        nll = [over_seeds(end[key]) for key in SHOWN[2:]]
        cells.append([row["recipe"], f"{row['rows']:,}", f"{end['tokens']:,}", f"{row['steps']:,}",
                      f"{row['ms']:.0f}", f"{end['seconds']:.0f}", *nll, *shares])  # fmt: skip
    seeds = ", ".join(map(str, rows[0]["seeds"]))
    notes = [f"- {name}: {recipe.note}" for name, recipe in RECIPES.items()]
    return "\n\n".join([
        "# Recipes: NLL on val against tokens and seconds",
        f"Mean and range over seeds {seeds}; val, n = 180 images in two layouts. Shares are of the "
        f"whole {REACHED} run. Seconds are steps times the median of {rows[0]['n_steps_timed']} "
        "steps, all recipes timed side by side; evaluation is not counted.",
        markdown_table(header, cells, "l" + "r" * (len(header) - 1)),
        "\n".join(notes),
        f"{about['machine']}",
        "![NLL per code on val against tokens and seconds](recipes.png)",
    ]) + "\n"  # fmt: skip


@style.styled
def draw(rows: Sequence[Mapping]) -> Figure:
    """NLL against tokens and against seconds: the mean over seeds, and the range as a band."""
    figure = style.canvas(4.4, f"NLL per code on val, mean and range of {len(SEEDS)} seeds")
    target = mean(next(r for r in rows if r["recipe"] == REACHED)["curve"][-1]["code_nll"])
    label = {"tokens": "tokens seen in training", "seconds": "seconds of training, steps alone"}
    for ax, key in zip(figure.subplots(1, 2, sharey=True), label, strict=True):
        for row, (colour, marker, line) in zip(rows, style.SERIES, strict=False):
            points = row["curve"][1:]
            x, nll = [p[key] for p in points], [p["code_nll"] for p in points]
            ax.fill_between(x, [*map(min, nll)], [*map(max, nll)], color=colour, alpha=0.2, lw=0)
            ax.plot(x, [*map(mean, nll)], color=colour, marker=marker, ls=line, ms=5,
                    label=row["recipe"])  # fmt: skip
        ax.axhline(target, **style.DASHED)
        ax.set_xlabel(label[key])
        ax.set_xlim(left=0)
        ax.grid(axis="y")
        ax.xaxis.set_major_formatter(style._format_count)
    figure.axes[0].set_ylabel("nats per code")
    figure.axes[1].legend(loc="upper right")
    return figure


def write_results(folder: Path, results: Path, rounds: int) -> None:
    """Train what is missing, time the steps once, write the table and the figure."""
    runs = [run_once(name, seed, folder) for name in RECIPES for seed in SEEDS]
    if not (folder / "steps.json").is_file():
        write_json(folder / "steps.json", time_steps(folder, rounds))
    rows = summarize(runs, read_json(folder / "steps.json"))
    about = {"machine": machine(), "versions": versions()}
    write_json(results / "recipes.json", {**about, "recipes": rows})
    (results / "recipes.md").write_text(as_markdown(rows, about), encoding="utf-8")
    draw(rows).savefig(results / "recipes.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=list(RECIPES), help="train this one alone")
    parser.add_argument("--seed", type=int, default=SEEDS[0], help="its seed")
    parser.add_argument("--time", action="store_true", help="only time the steps (anew)")
    parser.add_argument("--rounds", type=int, default=20, help="steps timed of each recipe")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "recipes")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    arguments = parser.parse_args()
    try:
        if arguments.recipe:
            run_once(arguments.recipe, arguments.seed, arguments.folder)
        elif arguments.time:
            write_json(
                arguments.folder / "steps.json", time_steps(arguments.folder, arguments.rounds)
            )
        else:
            write_results(arguments.folder, arguments.results, arguments.rounds)
    except SeqlmError as error:
        raise SystemExit(f"error: {error}") from error
