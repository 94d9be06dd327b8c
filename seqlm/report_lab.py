"""The report's pages on the laboratory: traps, rivals that learn, few labels, two recipes."""

from collections.abc import Iterable, Mapping

from seqlm.plots_style import Numbers, estimate, interval, short
from seqlm.recipes import comparison_table
from seqlm.tables import NLL, Row, table_of


def laboratory(values: Mapping[str, Mapping]) -> list[str]:
    """Paragraphs of Markdown about what notebooks 08, 10, 11 and 12 measured; [] without them."""
    written = {
        "08": ("## Reported against true", traps_page),
        "10": ("## Rivals that learn", rivals_page),
        "11": ("## With few labels", few_labels_page),
        "12": ("## Two recipes", recipes_page),
    }
    parts: list[str] = []
    for number, (heading, page) in written.items():
        if values.get(number):
            parts += [heading, *page(values[number])]
    return parts


def traps_page(values: Mapping) -> list[str]:
    """Notebook 08: each way to be fooled, with what it reports and what is true."""
    lines = [
        "| The trap | What is told | Reported | True | Why |",
        "|---|---|--:|--:|---|",
    ]
    for trap in values["traps"].values():
        cells = (
            trap["name"],
            trap["quantity"],
            f"**{_bare(trap['reported'])}**",
            f"{_told(trap['true'])}",
            trap["cause"],
        )
        lines.append(_row(cells))
    said = [
        "Each of these was done on purpose, live, in notebook 8: the reported number is what the "
        "mistake makes of the very model whose true number stands beside it.",
        "\n".join(lines),
    ]
    ruler = values.get("ruler")
    if ruler:
        said.append(
            "And the ruler itself: on a source whose entropy is known, a GPT trained and measured "
            f"by the same code needs {estimate(ruler['gap'])} more than the least any model can."
        )
    return said


def rivals_page(values: Mapping) -> list[str]:
    """Notebook 10: networks without attention, compressors, and which differences are real."""
    rows: list[Row] = [(NLL, name, found["nll"]) for name, found in values["rivals"].items()]
    rows += [("bits a picture", name, found) for name, found in values["bits"].items()]
    return [
        table_of(rows),
        comparisons_table(values["comparisons"]),
    ]


def comparisons_table(comparisons: Iterable[Mapping]) -> str:
    """Differences between two models on the same pictures, and whether they are real."""
    lines = [
        "| One | less the other | Difference | 95 % interval | n | Real? |",
        "|---|---|--:|--:|--:|---|",
    ]
    for found in comparisons:
        e = estimate(found["difference"])
        verdict = "yes" if found["real"] else "may be chance"
        cells = (found["a"], found["b"], short(e.value, e.unit), interval(e), f"{e.n:,}", verdict)
        lines.append(_row(cells))
    return "\n".join(lines)


def few_labels_page(values: Mapping) -> list[str]:
    """Notebook 11: accuracy on test by the number of labelled images a class."""
    curves = values["curves"]
    sizes = list(next(iter(curves.values())))
    lines = [_row(("Labels a class", *curves)), "|--:|" + "--:|" * len(curves)]
    for size in sizes:
        means = (_told(found[size]["mean"]) for found in curves.values())
        lines.append(_row((size, *means)))
    return [
        "Share of test digits named right, mean over seeds. The language model that the first "
        "route starts from has read the pictures but no label. Intervals cover the draw of the "
        "labelled pictures as well as that of the test pictures.",
        "\n".join(lines),
    ]


def recipes_page(values: Mapping) -> list[str]:
    """Notebook 12: the settings the project began with, beside ours."""
    runs = {name: run for name, run in values["recipes"].items() if "padded" not in name}
    return [comparison_table(runs)]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _bare(numbers: Numbers) -> str:
    e = estimate(numbers)
    return short(e.value, e.unit)


def _told(numbers: Numbers) -> str:
    e = estimate(numbers)
    return f"{short(e.value, e.unit)} ({interval(e)}, n = {e.n:,})"
