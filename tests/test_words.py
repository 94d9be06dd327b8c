"""The field's standard terms, in names and in prose: the words below are not used, others are."""

import io
import re
import tokenize
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "seqlm/README.md", "data/README.md", "tests/README.md"]
FILES = sorted(
    path
    for pattern in (
        "seqlm/**/*.py",
        "seqlm/**/*.js",
        "notebooks/**/*.ipynb",
        "docs/**/*.md",
        *PAGES,
    )
    for path in ROOT.glob(pattern)
)
# What to write in their place: a baseline or competing model, a metric, a method, the digit
# classifier, an augmented image, a sampling setting, real-vs-generated AUC, surprisal, classified
# correctly, per code, fix, at random, ...
PROSE = re.compile(
    r"\b(floors?|rivals?|rulers?|bent (cop(y|ies)|images?)|bend(s|ing)?|knobs?|told (apart|from)"
    r"|judges?|judged|judging|surprises?|named right|read rightly|rightly|mend(s|ed|ing)?|by lot"
    r"|warts?|whoever|whosoever|besides|foretell|foretold"
    r"|(nats|bits|seconds?|tokens|minutes) an? (code|token|step|row|picture|image|second|digit))\b",
    re.IGNORECASE,
)
# Names that do not say what they are.
NAMES = re.compile(
    r"_*((say|says|tell|told|leave|foretell|held(?!_out)|given|found)(_\w+)?|\w+_(held|given|found|told)"
    r"|besides|whoever|ruler\w*|rival\w*|floor\w*|knobs?|judge\w*|mend\w*|bent\w*|surprise\w*)"
)
# The command line still takes the old name of a flag; numpy and math round down; HTML has ARIA.
ALLOWED = re.compile(r"math\.floor|np\.floor|Math\.floor")


def names_in(source: str) -> list[str]:
    """Identifiers of Python text, attributes of other libraries' objects left out."""
    source = re.sub(r"(?m)^\s*[%!].*$", "", source)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    return [
        token.string
        for before, token in zip([None, *tokens], tokens, strict=False)
        if token.type == tokenize.NAME and not (before and before.string == ".")
    ]


def avoided(path: Path) -> list[str]:
    text, names = path.read_text(encoding="utf-8"), []
    if path.suffix == ".py":
        names = names_in(text)
    elif path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells)
        names = names_in("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    prose = ALLOWED.sub("", text)
    return sorted(
        {match.group() for match in PROSE.finditer(prose)}
        | {name for name in names if NAMES.fullmatch(name)}
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_our_own_stands_where_the_field_has_one(path):
    assert not avoided(path)


def test_the_check_sees_names_prose_and_numbers_per_code(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("Two rivals need 3.2 nats a code; it rounds with math.floor.")
    assert avoided(page) == ["nats a code", "rivals"]
    module = tmp_path / "a.py"
    module.write_text("def _foretell(given):\n    return given.held + told_apart\n")
    assert avoided(module) == ["_foretell", "given", "told_apart"]
