"""Metrics files in, words out: the report, README's table, and the card beside a model.

No number is typed here: each comes out of a metrics file or a training record, with its interval
and its n, so the text cannot drift from what was measured.
"""

import base64
import html
import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import mistune
import numpy as np
import yaml

from seqlm.errors import DataError, SeqlmError
from seqlm.files import atomic_path, read_json, read_text, write_json, write_text
from seqlm.metrics import proportion
from seqlm.plots import MEASURES, performance_summary, training_process
from seqlm.plots_style import DPI, Numbers, as_share, estimate, in_plain, interval, short
from seqlm.speed import in_words
from seqlm.training import RECORD
from seqlm.workspace import NOTEBOOKS, Workspace

SUMMARY, PROCESS = "performance_summary", "training_process"
OPEN, CLOSE = "<!-- results -->", "<!-- /results -->"
HEAD = "| Measure | Whose | Value | 95 % interval | n |\n|---|---|--:|--:|--:|"

NLL = "NLL of a code, nats (lower is better)"

Row = tuple[str, str, Numbers]


# --- the table ------------------------------------------------------------------------------------


def results_table(values: Mapping[str, Mapping], brief: bool = False) -> str:
    """Every number on test beside its floors and rivals, as a Markdown table.

    `values` maps notebooks ("04", "05", "06") to the values they left; those missing are left out.
    `brief` keeps the headline numbers only, for README.
    """
    rows: list[Row] = []
    if values.get("05"):
        rows += _code_rows(values["05"])
        rows += [] if brief else _more_code_rows(values["05"])
    if values.get("04"):
        rows += _class_rows(values["04"])
    if values.get("06"):
        rows += _drawing_rows(values["06"])
    return _table(rows)


def _table(rows: Iterable[Row]) -> str:
    lines = [HEAD]
    for measure, of, numbers in rows:
        e = estimate(numbers)
        cells = (measure, of, short(e.value, e.unit), interval(e), f"{e.n:,}")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def _layout(values: Mapping) -> str:
    """The layout in which the model was held against the floors."""
    present = next(name for name in ("read", "draw", "other") if name in values)
    return values.get("layout_compared") or present


def _code_rows(values: Mapping) -> list[Row]:
    """The language model first, then the floors, the hardest to beat first."""
    layout, floors = _layout(values), values.get("floors") or {}
    rows: list[Row] = [(NLL, f"**the GPT, {layout} layout**", values[layout]["code"]["nll"])]
    for name in sorted(floors, key=lambda name: floors[name]["code"]["nll"]["value"]):
        rows.append((NLL, f"floor: {in_plain(name)}", floors[name]["code"]["nll"]))
    if "below_best_floor" in values:
        best = in_plain(values["best_floor"])
        below = as_share(values["below_best_floor"])
        rows.append((f"how far below the best floor ({best})", "**the GPT**", below))
    return rows


def _more_code_rows(values: Mapping) -> list[Row]:
    """The same on other scales, the other layout, and what is no code."""
    layout, rows = _layout(values), []
    measures = {
        "perplexity of a code": "perplexity",
        "bits a picture": "bits_per_image",
        "next code guessed at once": "top1",
        "next code among the first five guesses": "top5",
    }
    for measure, key in measures.items():
        rows.append((measure, f"**the GPT, {layout} layout**", values[layout]["code"][key]))
        if values.get("best_floor"):
            best = values["best_floor"]
            rows.append((measure, f"floor: {in_plain(best)}", values["floors"][best]["code"][key]))
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
    routes, rivals, best = values["routes"], values["rivals"], values.get("best_route")
    named = {name: f"**{name}**" + " (chosen on val)" * (name == best) for name in routes}
    rows = []
    for group in (routes, rivals):
        order = sorted(group, key=lambda name: -group[name]["accuracy"]["value"])
        rows += [
            ("digits named right", named.get(name, f"rival: {name}"), group[name]["accuracy"])
            for name in order
        ]
    if best in routes:
        rows.append(("macro F1 over the classes", named[best], routes[best]["macro_f1"]))
    return rows


def _drawing_rows(values: Mapping) -> list[Row]:
    measure = "drawings judged to be what was asked"
    rows = []
    for place, (name, found) in enumerate(values["drawn"].items()):
        rows.append((measure, f"**{name}**" if place == 0 else name, found["accuracy"]))
    for name, found in (values.get("completed") or {}).items():
        rows.append(("completions judged right", name, found["judged"]))
    ceilings = {"test": "on real test digits", "reconstructed": "on digits re-drawn from codes"}
    for name, numbers in (values.get("judge") or {}).items():
        rows.append(("the judge itself is right", ceilings.get(name, name), numbers))
    return rows


def _commonest(values: Mapping) -> Numbers:
    """What one gets right who always names the commonest class of a confusion matrix."""
    rows = np.asarray(values["confusion"]).sum(axis=1)
    return proportion(np.arange(rows.sum()) < rows.max())


def _run_rows(values: Mapping) -> list[Row]:
    """A user's own run: a language model's values, or a classifier's."""
    if "accuracy" not in values:
        return _code_rows(values) + _more_code_rows(values)
    return [
        ("classes named right", "**the classifier**", values["accuracy"]),
        ("classes named right", "rival: always the commonest class", _commonest(values)),
        ("macro F1 over the classes", "**the classifier**", values["macro_f1"]),
    ]


# --- the report of a profile ----------------------------------------------------------------------


def build_report(ws: Workspace) -> dict[str, Path]:
    """Write report.md, report.html, training_data.json and the summary figure of a profile.

    With the laptop profile, also `publish`. Returns what was written, by name. Raises DataError,
    naming the notebook to run, when nothing was trained (03) or evaluated (05) yet.
    """
    ws.needs("03", "05")
    record = read_json(ws.outputs / RECORD)
    metrics = {n: ws.metrics(n) for n in NOTEBOOKS if ws.metrics_path(n).is_file()}
    values = {number: held["values"] for number, held in metrics.items()}
    figure = performance_summary(*(values.get(number) for number in ("03", "04", "05", "06")))
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


def publish(ws: Workspace) -> Path | None:
    """Copy figures, their alt texts, report.md and training_data.json to figures/, file by file.

    Only for the laptop profile, whose results README shows; any other is left where it is (None).
    """
    if ws.profile != "laptop":
        return None
    figures = sorted([*ws.figures.glob("*.png"), *ws.figures.glob("*.txt")])
    for source in [*figures, ws.outputs / "training_data.json"]:
        with atomic_path(ws.published / source.name) as aside:
            shutil.copyfile(source, aside)
    # There the report lies beside its figures, not above them.
    text = read_text(ws.outputs / "report.md").replace("](figures/", "](")
    write_text(ws.published / "report.md", text)
    return ws.published


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
        "**Table 1.** Every number on the test split, with its 95 % interval and n, beside the "
        "floors and rivals it has to beat. Bold: ours.",
        results_table(values),
        _figures(ws, shown[:1], 1),
        "## What was trained, on what, in how long",
        *_trained(record, metrics, values),
        _figures(ws, shown[1:2], 2),
        "## How to read the numbers",
        *_how_to_read(values["05"]),
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
    five, said = values["05"], []
    below, floor = as_share(five["below_best_floor"]), in_plain(five["best_floor"])
    verdict = (
        f"It needs {below} fewer nats for a code than the best floor, {floor}."
        if below.value > 0
        else f"It does not beat the best floor, {floor}: the share it saves is {below}."
    )
    said.append(
        f"A small GPT-2 learned to read and to draw digits as sentences of codes. {verdict}"
    )
    if "04" in values:
        best = values["04"]["best_route"]
        named = estimate(values["04"]["routes"][best]["accuracy"])
        said.append(
            f"By the route chosen on val ({best}) it names {named} of the test digits right."
        )
    if "06" in values:
        name, found = next(iter(values["06"]["drawn"].items()))
        judged = estimate(found["accuracy"])
        said.append(f"Of its drawings ({name}) a judge takes {judged} for the digit asked for.")
    if ws.profile == "smoke":
        said.append("**This is the smoke profile: it shows that everything runs; its numbers mean "
                    "nothing.**")  # fmt: skip
    return " ".join(said)


def _trained(record: Mapping, metrics: Mapping, values: Mapping) -> list[str]:
    asked, chosen = metrics["03"].get("parameters") or {}, record["precision"]
    size = "".join(
        f", {asked[key]} {words}"
        for key, words in (("n_layer", "layers"), ("n_head", "heads"), ("n_embd", "wide"))
        if key in asked
    )
    said = [f"The model is a GPT-2 with {record['parameters']:,} parameters{size}, trained from "
            f"random weights on n = {record['rows']:,} sentences."]  # fmt: skip
    if "01" in values:
        one = values["01"]
        parts = ", ".join(f"{n:,} {split}" for split, n in one["images"].items())
        said.append(
            f"They are made of handwritten digits (images: {parts}), cut into "
            f"{one['codes_an_image']} patches each and named with a code book of {one['n_codes']} "
            "codes that was fitted on the training images alone. Only training images have bent "
            "copies; val and test hold originals."
        )
    times = chosen["step_seconds"]
    timed = " and ".join(f"{seconds * 1000:,.0f} ms in {name}" for name, seconds in times.items())
    early = ", stopped early" if record.get("stopped_early") else ""
    total = sum(held.get("seconds") or 0 for held in metrics.values())
    spent = (
        f"Training took {in_words(record['seconds'])} for {record['steps']:,} steps{early}, in "
        f"{chosen['chosen']} (a pass over one batch took {timed}). All notebooks together took "
        f"{in_words(total)}. The report was written on a machine with {os.cpu_count()} processor "
        f"cores ({platform.machine()})."
    )
    best = record["best"]
    told = ", ".join(f"{name} {best[key]:.3f}" for key, name in MEASURES.items() if key in best)
    kept = (
        f"The checkpoint kept is the one of step {best['step']:,}, which had the lowest code NLL "
        f"on val. In nats a token: {told}. These rows chose it, so they flatter it a little."
    )
    return [" ".join(said), spent, kept]


def _how_to_read(five: Mapping) -> list[str]:
    code = five["read"]["code"]
    return [
        f"**NLL of a code** is how surprised the model is, on average, by the next code of a "
        f"picture: -ln of the probability it gave to the code that came. Only codes count; the "
        f"structural tokens are nearly free and would flatter the mean. **Perplexity** is e to "
        f"that power: {estimate(code['perplexity']).value:.1f} means that the model is as "
        "undecided as among that many equally likely codes. **Bits a picture** is the same again, "
        "summed over a picture's codes.",
        "**Floors** are guesses that need no network: all tokens alike (uniform), counted tokens "
        "(unigram), counts by place, counts after the last one or two tokens, and mixtures of "
        "them. A model that is not clearly below the best of them has learned nothing worth "
        "having. **Rivals** are classifiers on the same split that know nothing of sequences.",
        "The **95 % interval** says how far a number could move had other pictures been drawn for "
        "the test: Wilson's for shares, a bootstrap over pictures for the rest. **n** is the "
        "number of pictures it rests on.",
    ]


def _limits(ws: Workspace, values: Mapping) -> list[str]:
    limits = [
        "One split and one seed. The intervals speak of other test pictures, not of another "
        "training run, which would differ a little too.",
        "Checkpoint and route were chosen on val; test was measured once, at the end.",
    ]
    if "01" in values:
        one = values["01"]
        pixels, redrawn = (estimate(one[f"svm_{k}_test"]) for k in ("pixels", "reconstructed"))
        limits.append(
            f"The code book loses something before the model starts: PSNR {one['psnr_test']:.1f} "
            f"dB on n = {pixels.n} test pictures. An SVM names {pixels} right from pixels and "
            f"{redrawn} from pictures re-drawn from their codes; that part of any error is not "
            "the model's."
        )
    if "04" in values:
        rivals, four = values["04"]["rivals"], values["04"]
        name = max(rivals, key=lambda rival: rivals[rival]["accuracy"]["value"])
        rival = estimate(rivals[name]["accuracy"])
        ours = estimate(four["routes"][four["best_route"]]["accuracy"])
        if rival.value >= ours.value:
            limits.append(f"For the class alone no GPT is needed: {name} names {rival} right, at a "
                          "fraction of the cost.")  # fmt: skip
    return limits + (_drawing_limits(values["06"]) if "06" in values else [])


def _drawing_limits(six: Mapping) -> list[str]:
    judge = estimate(six["judge"]["test"])
    limits = [
        f"The judge of the drawings errs too: on real test digits it is right in {judge}. It says "
        "which digit a drawing looks like, not whether a person would have drawn it so."
    ]
    settings = (six.get("settings") or {}).get("default")
    if settings:
        told = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in settings.items() if k != "seed")
        limits.append(f"Default drawings use {told}. Guidance above 1 exaggerates what makes a "
                      "class: drawings get clearer and less varied.")  # fmt: skip
    near = six.get("nearest_train")
    if near:
        limits.append(
            f"Nearest training picture, median distance: {near['drawn_median']:.2f} from a "
            f"drawing, {near['test_median']:.2f} from a real test digit. A drawing much nearer "
            "than a real digit would be a copy; one much farther is not quite like the real ones."
        )
    free = six.get("free")
    if free:
        counts = free["class_counts"]
        limits.append(
            f"Drawn freely (n = {free['n']}), the classes come {min(counts)} to {max(counts)} "
            f"times each; equal shares would be {free['n'] / len(counts):.0f}."
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
        alt = _escaped(" ".join(read_text(words).split()))
        parts += [f"![{alt}](figures/{path.name})", f"*Figure {k}. {caption}.*"]
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


def _again(ws: Workspace, record: Mapping, metrics: Mapping) -> list[str]:
    seed, data = metrics["03"].get("seed"), metrics["03"].get("data")
    print_of = f" The sentences have the fingerprint `{data}`." if data else ""
    return [
        f"    make report PROFILE={ws.profile}",
        f"The seed is {seed}.{print_of} The same machine should give the same numbers; another "
        "one, or another number of threads, rounds differently and drifts away in the last "
        "digits. Every number above is also in training_data.json.",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in record["versions"].items()) + ".",
    ]


# --- README and model cards -----------------------------------------------------------------------


def readme_results(ws: Workspace) -> str:
    """The results as README shows them: the table, and how they came about in a sentence."""
    ws.needs("03", "05")
    values = {n: ws.metrics(n)["values"] for n in NOTEBOOKS if ws.metrics_path(n).is_file()}
    three = values["03"]
    made = (
        f"Profile `{ws.profile}`: {three['parameters_count']:,} parameters, {three['steps']:,} "
        f"steps in {in_words(three['seconds'])} of training ({three['precision']['chosen']}). "
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


def model_card(
    name: str, record: Mapping, test_values: Mapping | None, vocab_size: int, data_note: str
) -> str:
    """README.md of a model directory, for the notebooks' model and for a user's own.

    `test_values` is what `experiment.evaluate_lm` or `evaluate_classes` returned, None before
    anything was measured; `data_note` says in a line what the data was.
    """
    classifies = "class_nll" in record["best"] or (test_values or {}).get("accuracy") is not None
    kind = "GPT2ForSequenceClassification" if classifies else "GPT2LMHeadModel"
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if classifies else "text-generation",
        "license": "mit",
        "tags": ["gpt2", "seqlm", "token-sequences"],
    }
    what = "names the class of" if classifies else "continues"
    measured = _table(_run_rows(test_values)) if test_values else _validation(record)
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False) + "---",
        f"# {name}",
        f"A small GPT-2 that {what} sequences of code tokens, trained from scratch with seqlm. Its "
        f"vocabulary has {vocab_size:,} tokens; one token is one word between white space. Data: "
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
    ]
    return "\n\n".join(parts) + "\n"


def _validation(record: Mapping) -> str:
    best = record["best"]
    told = [f"{name} {best[key]:.3f}" for key, name in MEASURES.items() if key in best]
    told += [f"{k.replace('_', ' ')} {v:.1%}" for k, v in best.items() if "accuracy" in k]
    return (
        f"On the validation rows, at step {best['step']:,}: {', '.join(told)} (NLL in nats). These "
        "rows also chose the checkpoint, so the numbers flatter a little; the run's report has "
        "the test split, with intervals and floors."
    )


def _settings(record: Mapping) -> str:
    chosen, settings = record["precision"]["chosen"], record["settings"]
    names = ("batch_size", "grad_accumulation", "learning_rate", "schedule", "weight_decay", "seed")
    told = ", ".join(f"{name} {settings[name]}" for name in names if name in settings)
    early = "; stopped early" if record.get("stopped_early") else ""
    return (
        f"{record['parameters']:,} parameters, n = {record['rows']:,} training rows, "
        f"{record['steps']:,} steps in {in_words(record['seconds'])}, {chosen}{early}. AdamW with "
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


def run_report(directory: Path, record: Mapping, values: Mapping) -> dict[str, Path]:
    """Write report.md and training_process.png (alt text beside it) into a user's own run.

    `values` is what `experiment.evaluate_lm` or `evaluate_classes` returned.
    """
    directory, floors = Path(directory), values.get("floors") or {}
    nats = {name: floor["code"]["nll"]["value"] for name, floor in floors.items()}
    figure = training_process(record, nats)
    picture = directory / f"{PROCESS}.png"
    with atomic_path(picture) as aside:
        figure.savefig(aside, dpi=DPI, metadata={"Software": None})
    write_text(picture.with_suffix(".txt"), figure.alt + "\n")
    told = [f"- {in_plain(name)}: {floor['description']}" for name, floor in floors.items()]
    below = ""
    if "below_best_floor" in values:
        share = as_share(values["below_best_floor"])
        below = f"Below the best floor, {in_plain(values['best_floor'])}, by {share}."
        if share.value <= 0:
            below += " So the model has learned nothing that counting would not give."
    text = [
        "# How this run went",
        below,
        _table(_run_rows(values)),
        "## Training",
        _settings(record),
        f"![{_escaped(figure.alt)}]({picture.name})",
        "## The floors" if told else "",
        "\n".join(told),
        "Each number has its 95 % interval and n, the independent rows it rests on.",
    ]
    write_text(directory / "report.md", "\n\n".join(part for part in text if part) + "\n")
    return {"markdown": directory / "report.md", "figure": picture}


# --- one HTML page --------------------------------------------------------------------------------


def to_html(markdown: str, folder: Path) -> str:
    """Markdown as one HTML page that opens offline: pictures inlined, no script, no reference.

    Pictures are looked for from `folder`. Raises DataError when one is missing.
    """
    convert = mistune.create_markdown(renderer=_Page(Path(folder)), plugins=["table"])
    convert.before_render_hooks.append(_join_captions)
    title = re.search(r"^# (.+)$", markdown, re.MULTILINE)
    page = _PAGE.replace("TITLE", html.escape(title[1] if title else "seqlm"))
    return page.replace("BODY", convert(markdown))


def _join_captions(_, state) -> None:
    """A paragraph "**Table …" goes into the table after it, "*Figure …" into the picture before."""
    joined = []
    for token in state.tokens:
        if token["type"] == "blank_line":
            continue
        before = joined[-1] if joined else {"type": ""}
        text = token.get("text", "")
        if token["type"] == "table" and before.get("text", "").startswith("**Table "):
            token["children"].insert(0, {"type": "caption", "text": joined.pop()["text"]})
        elif token["type"] == "paragraph" and text.startswith("*Figure "):
            joined[-1] = {"type": "figure", "text": f"{before['text']}\n{text}"}
            continue
        joined.append(token)
    state.tokens = joined


class _Page(mistune.HTMLRenderer):
    """HTML with what a screen reader needs: captions, scopes, and alt texts that can be read."""

    def __init__(self, folder: Path):
        super().__init__(escape=True)
        self.folder = folder

    def image(self, text: str, url: str, title: str | None = None) -> str:
        path = self.folder / url
        if not path.is_file():
            raise DataError(f"{path}: the report shows this figure, but it is not there; run again")
        png = path.read_bytes()
        wide = round(int.from_bytes(png[16:20], "big") * 100 / DPI)  # from the PNG's own header
        alt = html.escape(html.unescape(re.sub(r"<[^>]*>", "", text)))
        data = base64.b64encode(png).decode()
        return f'<img alt="{alt}" width="{wide}" src="data:image/png;base64,{data}">'

    def figure(self, text: str) -> str:
        picture, caption = text.rsplit("\n", 1)
        alt = re.search(r'alt="([^"]*)"', picture)[1]
        words = f"<details><summary>In words</summary><p>{alt}</p></details>"
        return f"<figure>{picture}<figcaption>{caption}{words}</figcaption></figure>\n"

    def caption(self, text: str) -> str:
        return f"<caption>{text}</caption>\n"

    def table(self, text: str) -> str:
        # A region that scrolls must be reachable by keyboard, and have a name.
        around = '<div class="wide" role="region" aria-label="Table" tabindex="0">'
        return f"{around}<table>\n{text}</table></div>\n"

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        side = f' class="{align}"' if align else ""
        return f'<th scope="col"{side}>{text}</th>' if head else f"<td{side}>{text}</td>"

    def table_row(self, text: str) -> str:
        # The second cell says whose number it is, so both head the row.
        for _ in range(2):
            text = re.sub(r"<td>(.*?)</td>", r'<th scope="row">\1</th>', text, count=1)
        return f"<tr>{text}</tr>\n"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
:root {
  color-scheme: light dark;
  --ink: #1d2530; --paper: #fdfdfb; --line: #d5d9de; --soft: #f1f3f5;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --paper: #16191d; --line: #3b424a; --soft: #20252b }
}
* { box-sizing: border-box }
body {
  margin: 0; color: var(--ink); background: var(--paper);
  font: 1.05rem/1.6 system-ui, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1, h2 { line-height: 1.25; text-wrap: balance }
h1 { font-size: 1.8rem }
h2 {
  margin-top: 2.8rem; padding-top: 0.6rem; border-top: 1px solid var(--line);
  font-size: 1.35rem;
}
p, li { max-width: 44rem; overflow-wrap: break-word }
figure { margin: 2rem 0 }
img {
  display: block; max-width: 100%; height: auto; padding: 0.5rem;
  background: white; border-radius: 6px; border: 1px solid var(--line);
}
figcaption { margin-top: 0.5rem; font-size: 0.95rem }
details p { margin: 0.3rem 0 0 }
summary { cursor: pointer }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.93rem; line-height: 1.35 }
caption { text-align: left; padding-bottom: 0.7rem; max-width: 44rem }
th, td { padding: 0.35rem 0.8rem 0.35rem 0; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid var(--line) }
th[scope="row"] { font-weight: normal }
thead tr { border-bottom-width: 2px }
th.right, td.right {
  text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
}
@media (max-width: 40rem) {
  table { font-size: 0.8rem }
  th, td { padding-right: 0.5rem }
  th.right, td.right { white-space: normal }
}
pre { background: var(--soft); padding: 0.8rem 1rem; border-radius: 6px; overflow-x: auto }
</style>
</head>
<body>
<main>
BODY</main>
</body>
</html>
"""
