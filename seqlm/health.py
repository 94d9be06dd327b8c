"""`seqlm check`: all that can be known before training, at the terminal, as JSON, as a page."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np

from seqlm.check import Finding, all_rows, find_all, near_copies, whole_lengths
from seqlm.config import DataFiles, ModelConfig, TrainConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.codebook import PatchCodebook
from seqlm.data.corpus import MAX_CLASSES, Corpus, load_corpus
from seqlm.data.records import SPLITS
from seqlm.data.table import LAYOUTS, Table
from seqlm.data.tokens import KIND_CODE, codes_of
from seqlm.errors import ConfigError, DataError, DataWarning, SeqlmError, printable
from seqlm.evaluation.label_noise import CrossCheck, cross_check
from seqlm.evaluation.tables import code_span, escape_markdown, markdown_table
from seqlm.lab import sizes
from seqlm.models.gpt2 import check_length, gpt2_config
from seqlm.ownership import check_output
from seqlm.plots.data import plot_class_counts, plot_lengths
from seqlm.plots.images import plot_code_frequencies, plot_images
from seqlm.plots.style import as_png
from seqlm.report import as_html
from seqlm.training.measure import check_measurable, evaluation_split
from seqlm.training.timing import count_steps, has_native_bf16
from seqlm.utils import format_duration, write_text
from seqlm.workspace import figure_html

MOST_FLOPS = 1e11  # of a pass that is timed: about a second on two cores
ALARMS = 0.001  # share of labels; of clean digits nearly so many are suspected
SHOWN = 40  # suspected labels on the page; more would not be looked at
MARKS = {"misleads": "✗&nbsp;misleads", "look": "!&nbsp;look", "fine": "✓&nbsp;fine"}  # worst first


def check_data(
    files: DataFiles, size: ModelConfig, config: TrainConfig, classifies: bool, as_json: bool,
    page: Path | None,
) -> int:  # fmt: skip
    """Print all findings, or JSON; 1 when training would mislead, or refuse these files; else 0.

    `page` is an HTML file to write; ConfigError where one is there already, unless
    `config.overwrite` is set. Raises DataError for files that cannot be read.
    """
    if page is not None:
        if page.suffix != ".html":
            raise ConfigError(f"output_file: {page} is to be an HTML page; let it end in .html")
        check_output(page.parent, [page.name], config.overwrite)
    corpus, refused = _load(files, config.max_length)
    rows, side = all_rows(corpus)
    group, run = near_copies(rows, corpus.kinds), None
    findings = find_all(corpus, classifies, group)
    compared, suspects, of_labels = _check_labels(cross_check(rows, corpus.kinds, group), rows)
    findings.append(of_labels)
    if "all" not in corpus.splits:
        try:
            check_measurable(corpus, classifies)
            if classifies:
                corpus.count_classes()
            run = estimate_run(corpus, size, config, classifies)
        except SeqlmError as error:
            refused.append(str(error))
    findings.sort(key=lambda finding: [*MARKS].index(finding.level))
    lengths = whole_lengths(rows)
    facts = {f"{name} rows": len(part) for name, part in corpus.splits.items()}
    facts |= {f"layout {k}": int((rows.column("layout") == i).sum()) for i, k in enumerate(LAYOUTS)}
    facts |= {f"{q}% of rows are up to": int(np.quantile(lengths, q / 100)) for q in (50, 99, 100)}
    misleads = bool(refused) or any(finding.level == "misleads" for finding in findings)
    lines = [", ".join(f"{name} {number:,}" for name, number in facts.items()), compared]
    lines += [_in_words(run)] if run else []
    lines += [f"refused: {sentence}" for sentence in refused]
    if as_json:
        each = [asdict(finding) | {"level": finding.level} for finding in findings]
        about = {"misleads": misleads, "refused": refused, "facts": facts, "run": run}
        print(json.dumps(about | {"suspected_labels": suspects, "findings": each}, indent=2))
    else:
        for line in (*lines, *(f"{finding.level}: {finding}" for finding in findings)):
            print(printable(line))
    if page is not None:
        verdict = "Training would mislead" if misleads else "Nothing here misleads"
        text = [f"# {code_span(files.data_path.name)}: data check", f"**{verdict}.**"]
        text += [*map(escape_markdown, lines), _table(findings)]
        text += _figures(corpus, rows, side, lengths, config.max_length)
        write_text(page, _as_page([*text, *_suspects(rows, suspects, files.data_path)]))
    return int(misleads)


def _load(files: DataFiles, length: int) -> tuple[Corpus, list[str]]:
    """The corpus, read and divided as far as that goes, and what training would refuse of it."""
    refused: dict[str, None] = {}
    for allow, divide in ((files.allow_unknown, True), (True, True), (True, False)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataWarning)  # a finding says it
                corpus = load_corpus(replace(files, allow_unknown=allow), length, divide=divide)
            break
        except DataError as error:
            if not divide:
                raise
            refused[str(error)] = None
    return corpus, [*refused]


def _check_labels(checked: CrossCheck, rows: Table) -> tuple[str, list[dict], Finding]:
    """What was looked at, in words; the suspected labels; the finding."""
    n, labels = int((rows.column("label") >= 0).sum()), rows.column("label")[checked.rows]
    at = np.flatnonzero((checked.guess >= 0) & (checked.guess != labels))
    places = checked.rows[at]
    columns = rows.column("line")[places], labels[at], checked.guess[at], places
    names = ("line", "label", "baselines", "row")
    suspects = [dict(zip(names, each, strict=True)) for each in np.stack(columns, 1).tolist()]
    words = f"labels: {len(labels):,} of {n:,} are compared with three baselines, cross-validated"
    if len(labels):
        words += f"; the best of them gets {checked.accuracy:.1%} right"
    name, lines = "labels that all three baselines contradict", tuple(s["line"] for s in suspects)
    advice = "look at these rows, which the page of --output_file shows"
    return words, suspects, Finding(name, len(at), len(labels), advice, ALARMS, 1, lines)


def estimate_run(corpus: Corpus, size: ModelConfig, config: TrainConfig, classifies: bool) -> dict:
    """Parameters, optimizer steps, memory in bytes, and seconds, of training on the train rows.

    Passes over a part of a batch are timed, so that it takes seconds for any size; "seconds" is
    None where memory is too short to try. Raises ConfigError when a row is longer than the model.
    """
    names = ("train", "val", evaluation_split(corpus))
    rows = {k: corpus.to_classify(k)[0] if classifies else corpus.rows(k) for k in names}
    shape, lengths = gpt2_config(size, corpus.vocab), rows["train"].lengths
    longest = max(int(part.lengths.max()) for part in rows.values())
    check_length(SimpleNamespace(config=shape), longest)
    batch, parameters = min(config.batch_size, len(lengths)), sizes.parameters_of(shape)
    step = sizes.TrainingStep(shape, batch, config.grad_accumulation, longest, "fp32")
    run = {"parameters": parameters, "steps": count_steps(config, len(lengths)), "seconds": None}
    run |= {
        "precision": "fp32",
        "memory": sizes.training_bytes(step),
        "free_memory": sizes.free_memory(),
    }
    if 2 * run["memory"] > run["free_memory"]:  # a model for each precision
        return run
    few = min(batch, max(1, int(MOST_FLOPS / (6 * parameters * lengths.mean()))))
    step = replace(step, batch_size=few, length=round(lengths.mean()))
    wanted = {"auto": ["fp32", "bf16"] if has_native_bf16() else ["fp32"]}
    wanted = wanted.get(config.precision, [config.precision])
    times = sizes.time_training_steps({k: replace(step, precision=k) for k in wanted}, 2)
    precision, timed = min(times.items(), key=lambda each: each[1].value)
    seconds = run["steps"] * timed.value * batch / few
    # Forward alone is about a third of a pass.
    tokens = few * step.length * config.grad_accumulation
    seconds += config.evals * rows["val"].lengths.sum() * timed.value / tokens / 3
    return run | {"seconds": min(seconds, config.max_seconds or seconds), "precision": precision}


def _in_words(run: dict) -> str:
    time = "not timed, because memory is short: lower --batch_size, or choose a smaller --size"
    if run["seconds"] is not None:
        time = f"at most about {format_duration(run['seconds'])} in {run['precision']}"
    memory, free = (sizes.format_bytes(run[name]) for name in ("memory", "free_memory"))
    of_model = f"{run['parameters']:,} parameters, {run['steps']:,} steps"
    return f"training: {of_model}, about {memory} of memory ({free} are free), {time}"


def _figures(
    corpus: Corpus, rows: Table, side: np.ndarray, lengths: np.ndarray, limit: int
) -> list[str]:
    """Lengths, classes and codes, as HTML."""
    figures = {"Lengths of rows": plot_lengths(lengths, limit)}
    labels = rows.column("label")
    if 0 <= labels.max() < MAX_CLASSES:
        places = {name: side == k for k, name in enumerate(("not divided", *SPLITS), -1)}
        counts = {name: np.bincount(labels[at & (labels >= 0)], minlength=labels.max() + 1)
                  for name, at in places.items() if at.any()}  # fmt: skip
        figures["Classes"] = plot_class_counts(counts)
    flat, coded = rows.ids().flat(), corpus.kinds == KIND_CODE
    codes = (np.cumsum(coded) - 1)[flat[coded[flat]]]  # numbered in the order of their ids
    if len(codes):
        figures["Codes"] = plot_code_frequencies(codes, int(coded.sum()))
    return [figure_html(as_png(figure), figure.alt, name) for name, figure in figures.items()]


def _suspects(rows: Table, suspects: list[dict], path: Path) -> list[str]:
    """The suspected labels: as pictures if the codebook lies beside the data, else as tokens."""
    shown = suspects[:SHOWN]
    if not shown:
        return []
    heading = f"## Suspected labels: {len(shown):,} of {len(suspects):,}"
    records = [rows[s["row"]] for s in shown]
    try:
        book = PatchCodebook.load(path.parent / CODEBOOK)
        images = book.decode(np.stack([codes_of(record.tokens) for record in records]))
    except ValueError:  # no codebook there, or one of other codes
        cells = [(s["line"], s["label"], s["baselines"], code_span(" ".join(record.tokens)[:300]))
                 for s, record in zip(shown, records, strict=True)]  # fmt: skip
        return [heading, markdown_table(("Line", "Label", "Baselines", "Row"), cells, "rrr")]
    titles = [f"line {s['line']}\nlabel {s['label']} → {s['baselines']}" for s in shown]
    figure = plot_images(images, titles, heading="Label → what the baselines say")
    return [heading, figure_html(as_png(figure), figure.alt, "Label → what the baselines say")]


def _table(findings: Sequence[Finding]) -> str:
    cells = []
    for f in findings:
        lines = ", ".join(map(str, f.lines[:5])) + (", …" if len(f.lines) > 5 else "")
        advice = "" if f.level == "fine" else f.advice
        count = f"{f.count:,}&nbsp;of&nbsp;{f.total:,}"
        name, advice = escape_markdown(f.name), escape_markdown(advice)
        cells.append((MARKS[f.level], name, count, lines, advice))
    return markdown_table(("Level", "Finding", "How many", "Lines", "What to do"), cells, "llrll")


def _as_page(parts: Sequence[str]) -> str:
    """Markdown and HTML, a part each, as one page that opens offline."""
    cells = [nbformat.v4.new_markdown_cell(part, id=str(k)) for k, part in enumerate(parts)]
    return as_html(nbformat.v4.new_notebook(cells=cells, metadata={"title": "Data check"}))
