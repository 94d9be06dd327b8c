"""The report's pages on the laboratory: traps, fine-tuning, rivals and few labels."""

from collections.abc import Iterable, Mapping

from seqlm.evaluation.estimates import Numbers, as_estimate
from seqlm.evaluation.ngrams import baseline_name
from seqlm.evaluation.tables import Row, estimates_table, markdown_table


def laboratory(values: Mapping[str, Mapping]) -> list[str]:
    """Paragraphs of Markdown about what notebooks 08 to 11 measured; [] without them."""
    written = {
        "how_to_be_fooled": ("## Reported against true", traps_page),
        "fine_tuning": ("## Fine-tuned on turned digits", finetuning_page),
        "competing_models": ("## Rivals that learn", rivals_page),
        "label_efficiency": ("## With few labels", few_labels_page),
    }
    parts: list[str] = []
    for number, (heading, page) in written.items():
        if values.get(number):
            parts += [heading, *page(values[number])]
    return parts


def traps_page(values: Mapping) -> list[str]:
    """Notebook 08: each way to be fooled, with what it reports and what is true."""
    said = [
        "Each of these was done on purpose, live, in notebook 8. The reported number is what the "
        "mistake makes of a model; beside it stands what is true of the same model, or, where the "
        "mistake lies in the data, of the same method on honest data.",
        traps_table(values["traps"].values()),
    ]
    ruler = values.get("known_source")
    if ruler:
        said.append(
            "And the ruler itself: on a source whose entropy is known, a GPT trained and measured "
            f"by the same code needs {as_estimate(ruler['gap'])} more than the source itself, and no "
            "model can need less on average."
        )
    return said


def traps_table(traps: Iterable[Mapping]) -> str:
    """Reported against true, a line a trap (`Trap.to_json`), as a Markdown table."""
    lines = []
    for trap in traps:
        reported, true = (
            as_estimate(trap[key]).format(with_n=True) for key in ("reported", "true")
        )
        lines.append((trap["name"], trap["quantity"], reported, f"**{true}**", trap["cause"]))
    return markdown_table(("What was done", "Metric", "Reported", "True", "Why"), lines)


def finetuning_page(values: Mapping) -> list[str]:
    """Notebook 09: each way to go on training, on what is new and on what was known."""
    n = as_estimate(next(iter(values["models"].values()))["turned digits"]["code_nll"]).n
    said = ", ".join(f"{name} {decibel:.1f} dB" for name, decibel in values["psnr"].items())
    return [
        "The language model had learned upright digits; then it went on with digits turned by 90 "
        "degrees, of the same pictures in the same splits, named by the same code book (PSNR on "
        f"n = {values['psnr_pictures']:,} val pictures: {said}). Every way took "
        f"{values['steps']:,} steps, once, with one seed: the intervals speak of other pictures, "
        f"not of other runs. Measured on n = {n:,} test pictures, in the read layout; drawing is "
        "not measured here. The best baseline, "
        f"{baseline_name(values['baseline'])}, only counts, and learned from turned digits alone.",
        standing_table(values["models"]),
        "And the differences, picture by picture on the same codes, in nats; below 0 the first is "
        "better. Each interval stands for itself.",
        comparisons_table(values["comparisons"]),
    ]


def standing_table(models: Mapping[str, Mapping]) -> str:
    """Name -> kind of rows -> "code_nll" and "accuracy", as a Markdown table.

    The first has every kind; what another lacks is a dash.
    """
    kinds = list(next(iter(models.values())))
    heads = [f"{what}, {kind}" for kind in kinds for what in ("NLL of a code", "read off")]
    lines = []
    for name, found in models.items():
        numbers = [
            found.get(kind, {}).get(key) for kind in kinds for key in ("code_nll", "accuracy")
        ]
        lines.append((name, *(_with_interval(found) for found in numbers)))
    return markdown_table(("Model", *heads), lines)


def rivals_page(values: Mapping) -> list[str]:
    """Notebook 10: networks without attention, compressors, and which differences are real."""
    rows: list[Row] = [("bits per picture", name, found) for name, found in values["bits"].items()]
    return [
        "Their NLL stands in the first table, among the baselines. Here is how far each is from the "
        "GPT, picture by picture on the same codes, in nats; above 0 the GPT is better.",
        comparisons_table(values["comparisons"]),
        "And what a picture costs whom, compressors included. They, too, had read the training "
        "pictures, unless their name says otherwise.",
        estimates_table(rows),
    ]


def comparisons_table(comparisons: Iterable[Mapping]) -> str:
    """Differences between two models on the same pictures, and whether they are real."""
    lines = []
    for found in comparisons:
        e = as_estimate(found["difference"])
        verdict = "yes" if found["real"] else "may be chance"
        cells = (found["a"], found["b"], e.format_value(), e.format_interval(), f"{e.n:,}", verdict)
        lines.append(cells)
    header = ("One", "less the other", "Difference", "95 % interval", "n", "Real?")
    return markdown_table(header, lines, "llrrr")


def few_labels_page(values: Mapping) -> list[str]:
    """Notebook 11: accuracy on test by the number of labelled images a class."""
    curves = values["curves"]
    sizes = list(next(iter(curves.values())))
    lines = []
    for size in sizes:
        means = [as_estimate(found[size]["mean"]) for found in curves.values()]
        lines.append((size, *(e.format() for e in means)))
    return [
        f"Share of n = {means[0].n:,} test digits classified correctly, mean over seeds, with 95 % "
        "intervals, which cover the draw of the labelled pictures as well as that of the test "
        "pictures. The language model that the first route starts from has read the pictures but "
        "no label.",
        markdown_table(("Labels a class", *curves), lines, "r"),
    ]


def _with_interval(numbers: Numbers | None) -> str:
    return "–" if numbers is None else as_estimate(numbers).format()
