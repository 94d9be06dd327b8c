"""The Chinese notebooks: every paragraph is translated, and the program is that of the English."""

import ast
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "notebooks" / "locale"))
import translate  # noqa: E402

MESSAGES = translate.read_messages()
KNOWN = translate.read_translations()


@pytest.mark.parametrize("catalogue", MESSAGES)
def test_everything_is_translated_and_keeps_code_numbers_and_links(catalogue):
    problems = []
    for english, places in MESSAGES[catalogue].items():
        missing = ["no translation of"] if english not in KNOWN else []
        wrong = missing or translate.lost_in_translation(english, KNOWN[english])
        problems += [f"{catalogue}, {places[0]}: {each}: {english}" for each in wrong]
    advice = "python notebooks/locale/translate.py update; notebooks/locale/README.md says more"
    assert not problems, "\n".join([advice, *problems])


def test_the_catalogues_hold_what_the_notebooks_hold(tmp_path):
    """No paragraph that is gone, none in another order: `update` has nothing to write."""
    for path in translate.CATALOGUES.glob("*.po"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    translate.update(tmp_path)
    before = {path.name: path.read_text("utf-8") for path in translate.CATALOGUES.glob("*.po")}
    after = {path.name: path.read_text("utf-8") for path in tmp_path.glob("*.po")}
    assert [name for name in after | before if after.get(name) != before.get(name)] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder of the built notebooks; every translation is made up, so that each has its place."""
    folder = tmp_path_factory.mktemp("zh-CN")
    with pytest.MonkeyPatch.context() as patch:
        texts = [text for messages in MESSAGES.values() for text in messages]
        patch.setattr(translate, "read_translations", lambda _: {t: made_up(t) for t in texts})
        translate.build(folder)
    return folder


def made_up(text: str) -> str:
    """Another text with the same code, numbers, links and placeholders, and with quotes."""
    return f'“中文” "{text}" \\'


def cells_of(path: Path) -> dict[str, tuple[str, str]]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return {cell["id"]: (cell["cell_type"], "".join(cell["source"])) for cell in cells}


@pytest.mark.parametrize("name", translate.read_notebooks())
def test_a_built_notebook_is_the_same_program(built, name):
    english = cells_of(translate.NOTEBOOKS / f"{name}.ipynb")
    chinese = cells_of(built / f"{name}.ipynb")
    assert [cell for cell in chinese if cell != "language"] == [*english]
    for cell, (kind, source) in english.items():
        assert chinese[cell][0] == kind
        if kind == "code":
            ours, theirs = ast.parse(source), ast.parse(chinese[cell][1])
            assert changes(ours, theirs) == [], f"{name}, {cell}"


def changes(ours: object, theirs: object) -> list[str]:
    """Where two programs differ, but for strings that the catalogues translate."""
    if isinstance(ours, ast.Constant | ast.JoinedStr) and isinstance(theirs, type(ours)):
        fields = [Counter(translate.placeholders(node)) for node in (ours, theirs)]
        texts = [translate.template_of(n) if is_text(n) else n.value for n in (ours, theirs)]
        same = texts[0] == texts[1] or ("“中文”" in str(texts[1]) and fields[0] == fields[1])
        return [] if same else [f"{texts[0]!r} became {texts[1]!r}"]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [c for pair in zip(ours, theirs, strict=True) for c in changes(*pair)]
    if isinstance(ours, ast.AST) and type(ours) is type(theirs):
        return [
            c for key, value in ast.iter_fields(ours) for c in changes(value, getattr(theirs, key))
        ]
    return [] if ours == theirs else [f"{ours!r} became {theirs!r}"]


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(node.value, str)
