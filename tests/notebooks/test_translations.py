"""The Chinese notebooks: every paragraph is translated, and the program is that of the English."""

import ast
import json
import os
import re
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from seqlm.exercises import checker
from seqlm.exercises.guesses import answer_guess

ROOT = Path(__file__).parents[2]
SPEC = spec_from_file_location("translate", ROOT / "notebooks" / "locale" / "translate.py")
translate = module_from_spec(SPEC)
SPEC.loader.exec_module(translate)

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


def test_every_link_of_a_built_notebook_leads_to_a_file():
    """Computed for the folder they are built to, which need not be there."""
    for name in translate.read_notebooks():
        for kind, source in cells_of(translate.NOTEBOOKS / f"{name}.ipynb").values():
            links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", translate.fix_links(source, name))
            for link in links if kind == "markdown" else ():
                path = Path(os.path.normpath((translate.BUILT / name).parent / link))
                if path.is_relative_to(translate.BUILT):
                    path = translate.NOTEBOOKS / path.relative_to(translate.BUILT)
                assert path.exists(), f"{name}: {link}"


NOTEBOOK = """# Title

One paragraph
of two lines with `code`.

- an item
  and more of it
- **another** item

<details><summary>Hint</summary>

| word | 3 |
|---|--:|

```python
x = 1  # a note
```

</details>"""


def test_markdown_is_cut_into_paragraphs_and_put_together_again():
    seen = []

    def note(text, kind):
        seen.append((kind, text))
        return text.upper()

    text = translate.translate_markdown(NOTEBOOK, note)
    assert seen == [
        ("heading", "Title"),
        ("text", "One paragraph of two lines with `code`."),
        ("item", "an item and more of it"),
        ("item", "**another** item"),
        ("text", "Hint"),
        ("table", "word"),
        ("comment", "a note"),
    ]
    expected = NOTEBOOK.replace("\nof two", " of two").replace("\n  and", " and")
    assert text.lower() == expected.lower() and "x = 1  # A NOTE" in text


CELL = """
kinds = {"a key": 1}
text = f"n = {len(kinds)} things"
name = "a name"
if name == "a name":
    text += " and more"
lines = ["one line"]
lines.append("another line" if kinds else "no lines")
ax.set_title("a title")
print(text, "printed here", kinds["a key"], sep=", then ")
print(name)
answer_guess("a guess", 3, "of them")
Markdown("\\n".join(f"- {line}" for line in lines))
"""


def test_only_strings_that_are_shown_and_nothing_else_are_translated():
    seen = []
    translate.Program([CELL]).translate(0, lambda text, kind: seen.append(text) or text)
    shown = ["n = {len(kinds)} things", "and more", "one line", "another line", "no lines"]
    assert seen == [*shown, "printed here", "of them"]


def test_update_keeps_what_is_translated_and_empties_what_has_changed(tmp_path, monkeypatch):
    texts = {"one": ["It takes a minute or two.", "Gone for good."], "two": ["It stays."]}

    def found():
        return {n: {text: ["here"] for text in some} for n, some in texts.items()}

    monkeypatch.setattr(translate, "read_messages", found)
    translate.update(tmp_path)
    for path in tmp_path.glob("*.po"):
        path.write_text(re.sub(r'(msgid ("\w.*"))\nmsgstr ""', r"\1\nmsgstr \2", path.read_text()))
    assert len(translate.read_translations(tmp_path)) == 3
    texts |= {"one": ["It takes a minute or three.", "It stays."], "two": []}
    translate.update(tmp_path)
    assert translate.read_translations(tmp_path) == {"It stays.": "It stays."}
    changed = (tmp_path / "one.po").read_text()
    assert "# was: It takes a minute or two.\n#. here" in changed and "Gone" not in changed
    translate.update(tmp_path)
    assert (tmp_path / "one.po").read_text() == changed


@pytest.mark.parametrize(
    "chinese, problem",
    [
        ("在 `x` 中有 3 个 **好** [链接](a.md) {y:.2f} <CLS>", None),
        ("在 `z` 中有 3 个 **好** [链接](a.md) {y:.2f} <CLS>", "code `x`"),
        ("在 `x` 中有 4 个 **好** [链接](a.md) {y:.2f} <CLS>", "numbers 3"),
        ("在 `x` 中有 3 个 **好** [链接](b.md) {y:.2f} <CLS>", "links"),
        ("在 `x` 中有 3 个 **好** [链接](a.md) {y:.1f} <CLS>", "placeholders {y:.2f}"),
        ("在 `x` 中有 3 个 **好** [链接](a.md) {y:.2f} <EOS>", "tokens <CLS>"),
        ("在 `x` 中有 3 个好 [链接](a.md) {y:.2f} <CLS>", "the number of **"),
        ("在 `x` 中有 3 个**好。**链接 [链接](a.md) {y:.2f} <CLS>", "shows the *"),
        ("在 `x` 中有 3 个**“好”** [链接](a.md) {y:.2f} <CLS>", "shows the *"),
    ],
)
def test_what_a_translation_lost_is_named(chinese, problem):
    english = "In `x` there are 3 **good** [links](a.md) {y:.2f} <CLS>"
    said = "; ".join(translate.lost_in_translation(english, chinese))
    assert problem in said if problem else not said


def test_the_checkers_answer_in_the_language_of_the_notebook(monkeypatch, capsys):
    known = {
        "✓ Right.": "✓ 对。",
        "Wanted is {otherwise}": "要的是 {otherwise}",
        "Here it is {want}, not {answer}.": "这里是 {want}，不是 {answer}。",
        "It is {x}.": "结果是 {x}。",
        "✗ You guessed {guess:g}: {verdict}. {shown}": "✗ 你猜的是 {guess:g}：{verdict}。{shown}",
        "too high": "太大了",
        "… The bug is still there:": "… 错误还在：",
    }
    monkeypatch.setattr(checker, "MESSAGES", translate.checker_patterns(known))
    assert checker.translated("✓ Right. ") + checker.translated("Well.") == "✓ 对。Well."
    assert checker.translated(" Here it is 3, not 4.") == " 这里是 3，不是 4。"
    assert checker.translated("… The bug is still there: too high") == "… 错误还在：太大了"
    answer_guess(0.9, 0.5, "行")
    assert capsys.readouterr().out == "✗ 你猜的是 0.9：太大了。结果是 0.5 行。\n"
