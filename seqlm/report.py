"""Metrics files in, a report out: its prose, its tables, its page.

No number is typed here: each comes out of a metrics file or a training record, with its interval
and its n, so the text cannot drift from what was measured.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from seqlm.errors import DataError
from seqlm.evaluation.estimates import as_estimate, as_share
from seqlm.evaluation.ngrams import baseline_name
from seqlm.evaluation.tables import escape_markdown, results_table
from seqlm.page import to_html
from seqlm.plots.summary import plot_summary
from seqlm.plots.training import LOSSES
from seqlm.publish import publish
from seqlm.report_lab import laboratory
from seqlm.training.cards import PROCESS
from seqlm.training.train import RECORD
from seqlm.utils import format_duration, read_json, read_text, write_json, write_text
from seqlm.workspace import Workspace, read_notebooks

SUMMARY = "performance_summary"


def build_report(ws: Workspace) -> dict[str, Path]:
    """Write report.md, report.html, training_data.json and the summary figure of a profile.

    With the laptop profile, also `publish`. Returns what was written, by name. Raises DataError,
    naming the notebook to run, when nothing was trained (03) or evaluated (05) yet.
    """
    ws.check_ran("train_causal_lm", "evaluate")
    record = read_json(ws.outputs / RECORD)
    metrics = {n: ws.metrics(n) for n in read_notebooks() if ws.metrics_path(n).is_file()}
    values = {number: held["values"] for number, held in metrics.items()}
    figure = plot_summary(
        *(
            values.get(number)
            for number in ("train_causal_lm", "classify_sequences", "evaluate", "sample")
        )
    )
    ws.save_figure(figure, SUMMARY)
    written = {
        "figure": ws.figures / f"{SUMMARY}.png",
        "markdown": ws.outputs / "report.md",
        "html": ws.outputs / "report.html",
        "data": ws.outputs / "training_data.json",
    }
    text = _report(ws, record, metrics, values)
    write_text(written["markdown"], text)
    write_text(written["html"], to_html(text, ws.outputs))
    everything = {"profile": ws.profile, "training": record, "metrics": metrics}
    write_json(written["data"], _without_paths(everything, ws.root))
    if ws.profile == "laptop":
        written["published"] = publish(ws)
    return written


def _without_paths(held, root: Path):
    """The same, with no path of this machine in it."""
    if isinstance(held, Mapping):
        return {
            key: _without_paths(value, root) for key, value in held.items() if key != "identity"
        }
    if isinstance(held, list | tuple):
        return [_without_paths(value, root) for value in held]
    if isinstance(held, str | Path) and str(held).startswith((str(root), os.sep)):
        path = Path(held)
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return held


def _report(ws: Workspace, record: Mapping, metrics: Mapping, values: Mapping) -> str:
    figures = sorted(ws.figures.glob("*.png"))
    first = [path for name in (SUMMARY, PROCESS) for path in figures if path.stem == name]
    shown = [*first, *(path for path in figures if path not in first)]
    parts = [
        f"# What seqlm measured: the {ws.profile} profile",
        _opening(ws, values),
        "## Results",
        "**Table 1.** Every number on the test split with its 95 % interval and n, beside the "
        "baselines and rivals it has to beat. Bold marks our own headline numbers.",
        results_table(values),
        _figures(ws, shown[:1], 1),
        "## What was trained, on what, and how long it took",
        *_trained(record, metrics, values),
        _figures(ws, shown[1:2], 2),
        "## How to read the numbers",
        *_how_to_read(values["evaluate"]),
        *laboratory(values),
        "## What the numbers do not say",
        "\n".join(f"- {limit}" for limit in _limits(ws, values)),
        "## All other figures",
        _figures(ws, shown[2:], 3),
        "## How to get the same",
        *_again(ws, record, metrics),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(ws: Workspace, values: Mapping) -> str:
    """The three headlines, each in a sentence."""
    five, said = values["evaluate"], []
    below, baseline = as_share(five["below_best_baseline"]), baseline_name(five["best_baseline"])
    verdict = (
        f"It needs fewer nats for a code than the best baseline, {baseline}; it saves {below}."
        if below.value > 0
        else f"It does not beat the best baseline, {baseline}: the share it saves is {below}."
    )
    said.append(
        f"A small GPT-2 learned to read and to draw digits as sentences of codes. {verdict}"
    )
    if "classify_sequences" in values:
        best = values["classify_sequences"]["best_method"]
        named = as_estimate(values["classify_sequences"]["methods"][best]["accuracy"])
        said.append(
            f"By the route that val chose ({best}) it names {named} of the test digits right."
        )
    if "sample" in values:
        name, found = next(iter(values["sample"]["drawn"].items()))
        judged = as_estimate(found["accuracy"])
        said.append(f"A judge takes {judged} of its drawings ({name}) for the digit asked for.")
    if ws.profile == "smoke":
        said.append("**This is the smoke profile: it shows that everything runs, and its "
                    "numbers mean nothing.**")  # fmt: skip
    return " ".join(said)


def _trained(record: Mapping, metrics: Mapping, values: Mapping) -> list[str]:
    asked, chosen = metrics["train_causal_lm"].get("parameters") or {}, record["precision"]
    sizes = ", ".join(
        words.format(asked[key])
        for key, words in (("n_layer", "{} layers"), ("n_head", "{} heads"), ("n_embd", "width {}"))
        if key in asked
    )
    size = f" ({sizes})" if sizes else ""
    said = [f"The model is a GPT-2 with {record['parameters']:,} parameters{size}. It began with "
            f"random weights and was trained on n = {record['rows']:,} sentences."]  # fmt: skip
    if "explore_data" in values:
        one = values["explore_data"]
        parts = ", ".join(f"{n:,} {split}" for split, n in one["images"].items())
        said.append(
            f"The sentences come from handwritten digits (images: {parts}). Each is cut into "
            f"{one['codes_an_image']} patches, and each patch is named by one of {one['n_codes']} "
            "codes; the code book was fitted on training images alone. Only training images have "
            "augmented images; val and test hold originals."
        )
    times = chosen["step_seconds"]
    timed = " and ".join(f"{seconds * 1000:,.0f} ms in {name}" for name, seconds in times.items())
    early = ", stopped early" if record.get("stopped_early") else ""
    total = sum(held.get("seconds") or 0 for held in metrics.values())
    spent = (
        f"Training took {format_duration(record['seconds'])} for {record['steps']:,} steps{early}, in "
        f"{chosen['chosen']} (a pass over one batch took {timed}). All notebooks together took "
        f"{format_duration(total)}, on {_machine(record['machine'])}."
    )
    best = record["best"]
    told = ", ".join(f"{name} {best[key]:.3f}" for key, name in LOSSES.items() if key in best)
    kept = (
        f"The checkpoint kept is the one of step {best['step']:,}, which had the lowest code NLL "
        f"on val. There, in nats per token: {told}. Val chose it, so these numbers flatter it a "
        "little."
    )
    return [" ".join(said), spent, kept]


def _machine(machine: Mapping) -> str:
    gpu = "no GPU" if not machine["gpus"] else f"{machine['gpus']} GPU ({machine['gpu']})"
    return f"a machine with {machine['cores']} processor cores and {gpu}"


def _how_to_read(five: Mapping) -> list[str]:
    code = five["read"]["code"]
    return [
        "**NLL of a code** says how much the next code of a picture surprises the model, on "
        "average: it is -ln of the probability that the model gave to the code that came. Only "
        "codes count; structural tokens are nearly free and would flatter the mean. "
        f"**Perplexity** is e to that power: {as_estimate(code['perplexity']).value:.1f} means that "
        "the model is as undecided as among that many equally likely codes. **Bits per picture** is "
        "the same surprisal in bits, summed over the codes of a picture.",
        "**Baselines** are guesses that need no network: every token alike (uniform), how often each "
        "token comes (unigram), how often at this place, how often after the last one or two "
        "tokens, and mixtures of these. A model that is not clearly below the best of them has "
        "learned nothing worth having. **Rivals** are classifiers on the same split that know "
        "nothing of sequences.",
        "The **95 % interval** says how far a number might well have moved with other test "
        "pictures. It is Wilson's where each picture counts once, as right or wrong, and a "
        "bootstrap over pictures elsewhere. **n** is the number of pictures a number rests on.",
    ]


def _limits(ws: Workspace, values: Mapping) -> list[str]:
    limits = [
        "One split and one seed. The intervals speak of other test pictures, not of another "
        "training run, which would differ a little too.",
        "Checkpoint and route were chosen on val; test was measured once, at the end.",
    ]
    if "explore_data" in values:
        one = values["explore_data"]
        pixels, redrawn = (as_estimate(one[f"svm_{k}_test"]) for k in ("pixels", "reconstructed"))
        limits.append(
            f"The code book loses something before the model starts: PSNR {one['psnr_test']:.1f} "
            f"dB on n = {pixels.n} test pictures. An SVM names {pixels} right from pixels and "
            f"{redrawn} from pictures re-drawn from their codes: what is lost between the two is "
            "not the model's doing."
        )
    if "classify_sequences" in values:
        rivals, four = values["classify_sequences"]["baselines"], values["classify_sequences"]
        name = max(rivals, key=lambda rival: rivals[rival]["accuracy"]["value"])
        rival = as_estimate(rivals[name]["accuracy"])
        ours = as_estimate(four["methods"][four["best_method"]]["accuracy"])
        if rival.value >= ours.value:
            limits.append(f"For the class alone no GPT is needed: {name} names {rival} right, at a "
                          "fraction of the cost.")  # fmt: skip
    return limits + (_drawing_limits(values["sample"]) if "sample" in values else [])


def _drawing_limits(six: Mapping) -> list[str]:
    judge = as_estimate(six["digit_classifier"]["test"])
    limits = [
        f"The judge of the drawings errs too: of real test digits it names {judge} right. It says "
        "which digit a drawing looks like, not whether a person would have drawn it so."
    ]
    settings = (six.get("settings") or {}).get("default")
    if settings:
        shown = ("strategy", "temperature", "top_k", "top_p", "guidance")
        told = ", ".join(f"{k} {settings[k]}" for k in shown if k in settings)
        limits.append(f"Default drawings use {told}. Guidance above 1 exaggerates what sets a "
                      "class apart: drawings get clearer, and less varied.")  # fmt: skip
    near = six.get("nearest_train")
    if near:
        limits.append(
            f"To the nearest training picture it is {near['drawn_median']:.2f} from a drawing and "
            f"{near['test_median']:.2f} from a real test digit (median distances). Drawings much "
            "nearer than real digits would be copies; much farther, they are not quite like them."
        )
    repeated = six.get("repeated")
    if repeated:
        told = "; ".join(f"{name}: {as_estimate(share)}" for name, share in repeated.items())
        limits.append(f"Pictures that repeat a training sentence code for code: {told}.")
    free = six.get("free")
    if free:
        counts = free["class_counts"]
        limits.append(
            f"With no class asked for (n = {free['n']} drawings) the judge sees each class "
            f"{min(counts)} to {max(counts)} times; {free['n'] / len(counts):.0f} each would be "
            "even."
        )
    return limits


def _figures(ws: Workspace, paths: Sequence[Path], number: int) -> str:
    parts = []
    for k, path in enumerate(paths, number):
        words = path.with_suffix(".txt")
        if not words.is_file():
            raise DataError(f"{words}: this figure has no alt text; save it with Workspace.show")
        caption = re.sub(r"^\d+_", "", path.stem).replace("_", " ").capitalize()
        caption = caption.replace("Nll", "NLL")
        alt = escape_markdown(" ".join(read_text(words).split()))
        parts += [f"![{alt}](figures/{path.name})", f"*Figure {k}. {caption}.*"]
    return "\n\n".join(parts)


def _again(ws: Workspace, record: Mapping, metrics: Mapping) -> list[str]:
    seed, data = metrics["train_causal_lm"].get("seed"), metrics["train_causal_lm"].get("data")
    chosen = record["precision"]
    timed = (
        f" The precision was chosen by timing (here {chosen['chosen']}); to be sure of the same, "
        "set the notebooks' `precision` to it."
        if chosen["asked"] == "auto"
        else ""
    )
    print_of = f" The fingerprint of the sentences is `{data}`." if data else ""
    return [
        f"    make report PROFILE={ws.profile}",
        f"The seed is {seed}.{print_of} The same machine should give the same numbers; another "
        "one, or another number of threads, rounds differently, so that they drift a little."
        f"{timed} Every number above is also in training_data.json.",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in record["versions"].items()) + ".",
    ]
