"""The notebooks in Chinese: their text lies in catalogues, their code is that of the English ones.

`translate.py update` writes what there is to translate to zh_CN/*.po, and keeps what is translated;
`translate.py build` writes the notebooks to notebooks/zh-CN. README.md beside this file tells how
to translate.

What may be translated: paragraphs, comments, and strings that are only ever printed. A string that
is also a key, a file name or an argument of anything but print and Markdown is left alone, so the
program stays the same.
"""

import ast
import copy
import difflib
import io
import json
import os
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po

HERE = Path(__file__).resolve().parent
NOTEBOOKS = HERE.parent
CATALOGUES = HERE / "zh_CN"
BUILT = NOTEBOOKS / "zh-CN"
CHECKERS = NOTEBOOKS.parent / "seqlm" / "exercises"
COMMON = "common"  # the catalogue of what stands in more than one notebook
PACKAGE = "checkers"  # the catalogue of what the exercises' checkers say

Translate = Callable[[str, str], str]  # (English, where in the cell it stands) -> what to write


def read_notebooks() -> dict[str, dict]:
    """Name below notebooks/ without its ending -> the notebook."""
    paths = [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("laboratory/*.ipynb"))]
    return {
        path.relative_to(NOTEBOOKS).with_suffix("").as_posix(): json.loads(path.read_text("utf-8"))
        for path in paths
    }


# --- Markdown

PREFIX = re.compile(r"^( *(?:#{1,6}|[-*+]|\d+\.|>) +)(.*)$")
TAGS = re.compile(r"^((?:</?[a-z]+[^>]*>)*)(.*?)((?:</?[a-z]+[^>]*>)*)$")
NO_PROSE = re.compile(
    r"(`+).+?\1|\$[^$]+\$|\]\([^)]*\)|https?://\S+|</?[\w:]+[^>]*>|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}"
)


def has_words(text: str) -> bool:
    """Whether there is anything to translate: a word outside code, formulas and placeholders."""
    return bool(re.search(r"[A-Za-z]{2,}", NO_PROSE.sub(" ", text)))


def translate_markdown(text: str, translate: Translate) -> str:
    """The text with every paragraph, item, heading and table cell passed through `translate`.

    The lines of a paragraph are joined to one. Fenced and indented code stays, but for comments
    and printed strings of Python.
    """
    out, lines = [], text.split("\n")
    while lines:
        line = lines.pop(0)
        if line.startswith("```"):
            end = next(i for i, other in enumerate(lines) if other.startswith("```"))
            code = "\n".join(lines[:end])
            if line[3:].strip() == "python":
                code = Program([code]).translate(0, translate)
            out += [line, *([code] if end else []), lines[end]]
            lines = lines[end + 1 :]
        elif not line.strip() or line.startswith("    "):
            out.append(line)
        elif line.startswith("|"):
            cells = re.split(r"(\s*\|\s*)", line)
            out.append("".join(_message(cell, "table", translate) for cell in cells))
        else:
            prefix, first = match.groups() if (match := PREFIX.match(line)) else ("", line)
            if "#" not in prefix and not first.startswith("<"):
                while lines and lines[0].strip() and not re.match(r"```|\||<", lines[0]):
                    if PREFIX.match(lines[0]):
                        break
                    first = f"{first.rstrip()} {lines.pop(0).strip()}"
            kind = "heading" if "#" in prefix else "item" if prefix else "text"
            out.append(prefix + _message(first, kind, translate))
    return "\n".join(out)


def _message(text: str, kind: str, translate: Translate) -> str:
    """One message, without the spaces and tags around it."""
    before, middle, after = TAGS.match(text).groups() if text.startswith("<") else ("", text, "")
    if not has_words(middle):
        return text
    bare = middle.strip()
    start = middle.index(bare)
    return before + middle[:start] + translate(bare, kind) + middle[start + len(bare) :] + after


# --- code


class Program:
    """The code cells of a notebook, in which strings that are only printed are looked for."""

    def __init__(self, sources: list[str]):
        self.sources = sources
        self.trees = [ast.parse(source) for source in sources]
        self.parent, self.uses = {}, {}
        for tree in self.trees:
            for node in ast.walk(tree):
                for child in ast.iter_child_nodes(node):
                    self.parent[child] = node
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                    self.uses.setdefault(node.id, []).append(node)

    def shown_by(self, node: ast.AST, seen: frozenset = frozenset()) -> set[str]:
        """Which of "print" and "Markdown" show the value of `node`; empty if anything else does."""
        child, node = node, self.parent[node]
        if isinstance(
            node, ast.FormattedValue | ast.JoinedStr | ast.Starred | ast.List | ast.Tuple
        ):
            return self.shown_by(node, seen)
        if isinstance(node, ast.IfExp) and child is not node.test:
            return self.shown_by(node, seen)
        if isinstance(node, ast.BoolOp) or (isinstance(node, ast.BinOp) and _adds(node)):
            return self.shown_by(node, seen)
        if isinstance(node, ast.ListComp | ast.GeneratorExp) and child is node.elt:
            return self.shown_by(node, seen)
        if isinstance(node, ast.comprehension | ast.For) and child is node.iter:
            return self._shown_name(node.target, seen)
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            return self._shown_name(node.targets[0], seen)
        if isinstance(node, ast.AugAssign) and _adds(node):
            return self._shown_name(node.target, seen)
        if isinstance(node, ast.Attribute) and node.attr in ("append", "extend"):
            return {"print", "Markdown"}  # it adds to a list, which is looked at elsewhere
        if isinstance(node, ast.Call) and child in node.args:
            return self._shown_by_call(node, node.args.index(child), seen)
        return set()

    def _shown_by_call(self, call: ast.Call, place: int, seen: frozenset) -> set[str]:
        name = getattr(call.func, "id", None) or getattr(call.func, "attr", None)
        if name == "print" or (name == "answer_guess" and place == 2):
            return {"print"}
        if name == "Markdown":
            return {"Markdown"}
        if name == "join" or (name == "markdown_table" and place < 2):
            return self.shown_by(call, seen)
        if name in ("append", "extend"):
            return self._shown_name(call.func.value, seen)
        return set()

    def _shown_name(self, target: ast.AST, seen: frozenset) -> set[str]:
        """What shows a variable, wherever it is used; empty if anything else uses it, too."""
        if not isinstance(target, ast.Name) or target.id not in self.uses:
            return set()
        if target.id in seen:
            return {"print", "Markdown"}
        ways = [self.shown_by(use, seen | {target.id}) for use in self.uses[target.id]]
        return set.union(*ways) if all(ways) else set()

    def strings(self, cell: int) -> Iterator[tuple[ast.AST, set[str]]]:
        """The strings of a cell that are only shown, with what shows them."""
        todo = [self.trees[cell]]
        while todo:
            node = todo.pop(0)
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if (is_text or isinstance(node, ast.JoinedStr)) and (ways := self.shown_by(node)):
                yield node, ways
            else:  # a string within another string's placeholder stays
                todo[:0] = ast.iter_child_nodes(node)

    def translate(self, cell: int, translate: Translate) -> str:
        """The source of a cell with its comments and shown strings passed through `translate`."""
        source = self.sources[cell]
        changes = [*_comments(source, translate)]
        for node, ways in self.strings(cell):
            old = template_of(node)
            new = _translate_string(old, ways, translate)
            if new != old:
                changes.append((*_span(source, node), write_string(new, node)))
        for start, end, text in sorted(changes, reverse=True):
            source = source[:start] + text + source[end:]
        return source


def _adds(node: ast.BinOp | ast.AugAssign) -> bool:
    return isinstance(node.op, ast.Add)


def _translate_string(old: str, ways: set[str], translate: Translate) -> str:
    if ways == {"Markdown"}:
        return translate_markdown(old, translate)
    return "\n".join(_message(line, "printed", translate) for line in old.split("\n"))


def _comments(source: str, translate: Translate) -> Iterator[tuple[int, int, str]]:
    starts = _line_starts(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string.lstrip("# ")
        words = re.sub(r"\([^()]*\)|\b(?:int|float|bool|uint)\d*\b|\b[A-Z]\b", " ", text)
        is_note = token.type == tokenize.COMMENT and not re.match(r"fmt:|noqa|type:", text)
        if is_note and re.search(r"[A-Za-z]{2,}", NO_PROSE.sub(" ", words)):
            start = starts[token.start[0] - 1] + token.start[1]
            yield start, start + len(token.string), f"# {translate(text, 'comment')}"


def _line_starts(source: str) -> list[int]:
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def _span(source: str, node: ast.AST) -> tuple[int, int]:
    """Where a node begins and ends in the source; Python counts bytes within a line."""
    lines, starts = source.split("\n"), _line_starts(source)

    def place(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)


def placeholders(node: ast.AST) -> list[str]:
    """The {…} of an f-string, spelled as `ast` spells them, so that every Python agrees."""
    return [_placeholder(part) for part in parts_of(node) if isinstance(part, ast.FormattedValue)]


def parts_of(node: ast.AST) -> list[ast.AST]:
    return node.values if isinstance(node, ast.JoinedStr) else [node]


def _placeholder(part: ast.FormattedValue) -> str:
    conversion = "" if part.conversion == -1 else f"!{chr(part.conversion)}"
    spec = f":{template_of(part.format_spec)}" if part.format_spec else ""
    return f"{{{ast.unparse(part.value)}{conversion}{spec}}}"


def template_of(node: ast.AST) -> str:
    """The text of a string; of an f-string with its placeholders, and its braces doubled."""
    if isinstance(node, ast.Constant):
        return node.value
    texts = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            texts.append(_placeholder(part))
        else:
            texts.append(part.value.replace("{", "{{").replace("}", "}}"))
    return "".join(texts)


def write_string(template: str, node: ast.AST) -> str:
    """`template` as Python writes it: a plain string, or an f-string where `node` is one."""
    fields = sorted(set(placeholders(node)), key=len, reverse=True)
    pattern = f"({'|'.join(map(re.escape, fields))})" if fields else r"(?!)()"
    quote = '"""' if "\n" in template or any('"' in text for text in fields) else '"'
    texts = []
    for text in re.split(pattern, template):
        if text not in fields:
            text = text.replace("\\", "\\\\").replace('"', '\\"')
        texts.append(text)
    return f"{'f' if isinstance(node, ast.JoinedStr) else ''}{quote}{''.join(texts)}{quote}"


# --- notebooks


def translate_notebook(notebook: dict, translate: Callable[[str, str], str]) -> dict:
    """A copy with every text passed through `translate`, which is told cell and kind, too."""
    new = copy.deepcopy(notebook)
    code = [cell for cell in new["cells"] if cell["cell_type"] == "code"]
    program = Program(["".join(cell["source"]) for cell in code])
    about = new["metadata"].get("seqlm", {})
    if "title" in about:
        about["title"] = translate(about["title"], "the notebook's title")
    for cell in new["cells"]:

        def here(text: str, kind: str, name: str = cell["id"]) -> str:
            return translate(text, f"{name}, {kind}")

        if cell["cell_type"] == "markdown":
            text = translate_markdown("".join(cell["source"]), here)
        else:
            text = program.translate(code.index(cell), here)
        cell["source"] = text.splitlines(keepends=True)
    return new


def checker_messages() -> Iterator[tuple[str, str]]:
    """What the exercises answer in a notebook, as templates, and in which module it stands.

    That is every string of more than one word, but for docstrings and the messages of errors; of
    the checkers' docstrings the first line, which they say where they know no better.
    """
    for path in sorted(CHECKERS.glob("*.py")):
        if path.stem == "progress":  # the terminal's
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            decorators = getattr(node, "decorator_list", [])
            if any(ast.unparse(each).startswith("exercise(") for each in decorators):
                yield ast.get_docstring(node).split("\n")[0], f"{path.stem}, wanted"
        todo = [tree]
        while todo:
            node = todo.pop(0)
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text or isinstance(node, ast.JoinedStr):
                text = template_of(node).strip()
                words = len(re.findall(r"[A-Za-z]+", NO_PROSE.sub(" ", text)))
                if (words > 1 or text[:1] == "✓") and " " in text:  # less is a part of a line
                    yield text, f"{path.stem}, printed"
                inner = [part for part in parts_of(node) if isinstance(part, ast.FormattedValue)]
                todo[:0] = [part.value for part in inner]
            elif not isinstance(node, ast.Raise | ast.Subscript) or "_Stopped" in ast.unparse(node):
                children = ast.iter_child_nodes(node)
                is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                todo[:0] = [] if is_docstring else children


def read_messages() -> dict[str, dict[str, list[str]]]:
    """Catalogue -> English -> the places where it stands, in their order."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, notebook in read_notebooks().items():
        messages = found.setdefault(Path(name).name, {})

        def note(text: str, place: str, messages: dict = messages) -> str:
            messages.setdefault(text, []).append(place)
            return text

        translate_notebook(notebook, note)
    count = Counter(text for messages in found.values() for text in messages)
    shared: dict[str, list[str]] = {}
    for name, messages in found.items():
        for text in [text for text in messages if count[text] > 1]:
            places = [f"{name}: {place}" for place in messages.pop(text)]
            shared.setdefault(text, []).extend(places)
    said: dict[str, list[str]] = {}
    for text, place in checker_messages():
        said.setdefault(text, []).append(place)
    return {COMMON: shared, **found, PACKAGE: said}


# --- catalogues


def read_catalogue(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale="zh_CN")


def read_translations(folder: Path = CATALOGUES) -> dict[str, str]:
    """English -> Chinese, of every catalogue; what has no translation yet is missing."""
    known: dict[str, str] = {}
    for path in sorted(folder.glob("*.po")):
        for message in read_catalogue(path):
            if message.id and message.string and not message.fuzzy:
                known.setdefault(message.id, message.string)
    return known


def update(folder: Path = CATALOGUES) -> None:
    """Write the catalogues anew: what is translated stays, wherever its English went."""
    known = read_translations(folder)
    found = read_messages()
    everywhere = {text for messages in found.values() for text in messages}
    folder.mkdir(exist_ok=True)
    for name, messages in found.items():
        path = folder / f"{name}.po"
        before = [*read_catalogue(path)][1:] if path.exists() else []
        lost = {m.id: m.string for m in before if m.string and m.id not in everywhere}
        notes = {m.id: m.user_comments for m in before}
        catalogue = Catalog(locale="zh_CN", fuzzy=False)
        for text, places in messages.items():
            string, said = known.get(text, ""), notes.get(text, [])
            near = difflib.get_close_matches(text, lost, 1, 0.6) if not string and not said else []
            if near:
                said = [f"was: {near[0]}", f"was: {lost[near[0]]}"]
            shown = list(dict.fromkeys(places))[:3]
            notes_now = [] if string else said
            message = catalogue.add(text, string, auto_comments=shown, user_comments=notes_now)
            message.flags.clear()  # Babel takes "95 % interval" for a format of C
        _write(path, catalogue)
    for path in folder.glob("*.po"):
        if path.stem not in found:
            path.unlink()


def _write(path: Path, catalogue: Catalog) -> None:
    """One message in one line, and no dates: then git can merge what several people translate."""
    out = io.BytesIO()
    write_po(out, catalogue, width=0, omit_header=True)
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n'
    path.write_text(head + out.getvalue().decode().strip() + "\n", "utf-8")


# --- what a translation must keep

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
LINK = re.compile(r"\]\(([^)]*)\)|(https?://[^\s)]+)")
CODE = re.compile(r"(`+)(.+?)\1")
TOKEN = re.compile(r"</?[^<>\s]+>")
FORMULA = re.compile(r"\$[^$]+\$")
FIELD = re.compile(r"(?<!\{)\{(?!\{)[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")


def lost_in_translation(english: str, chinese: str) -> list[str]:
    """What the two do not have alike: code, formulas, links, placeholders, numbers, emphasis."""
    problems = []
    if not broken_emphasis(english) and (part := broken_emphasis(chinese)):
        problems.append(f"Markdown shows the * in {part!r}: put a space outside of it")
    if english.count("**") != chinese.count("**"):
        problems.append("the number of ** differs")
    for what, pattern in {
        "placeholders": FIELD,
        "code": CODE,
        "formulas": FORMULA,
        "links": LINK,
        "tokens": TOKEN,
        "numbers": NUMBER,
    }.items():
        pair = [
            Counter(match[0] for match in pattern.finditer(text)) for text in (english, chinese)
        ]
        for these, where in ((pair[0] - pair[1], "lacks"), (pair[1] - pair[0], "has too much")):
            if these:
                problems.append(f"the translation {where}: {what} {', '.join(these.elements())}")
        english, chinese = pattern.sub(" ", english), pattern.sub(" ", chinese)
    return problems


def broken_emphasis(text: str) -> str | None:
    """The first * or ** that Markdown would show as it is, with what stands around it.

    Beside a letter, and Chinese has no spaces, none may open before punctuation or close after it.
    """
    text = CODE.sub(lambda match: f"`{'x' * (len(match[0]) - 2)}`", text)
    is_open = {"*": False, "**": False}
    for match in re.finditer(r"\*\*|(?<![\s*])\*(?!\*)|(?<!\*)\*(?![\s*])", text):
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        inner, outer = (before, after) if is_open[match[0]] else (after, before)
        is_open[match[0]] = not is_open[match[0]]
        if not inner.strip() or (not re.match(r"\w", inner) and re.match(r"\w", outer)):
            return text[max(0, match.start() - 5) : match.end() + 5]
    return text if any(is_open.values()) else None


# --- building


def fix_links(text: str, name: str) -> str:
    """Relative links for a notebook one folder deeper: those to other notebooks stay."""
    here, there = (NOTEBOOKS / name).parent, (BUILT / name).parent

    def fix(match: re.Match) -> str:
        path, mark, place = match[1].partition("#")
        target = Path(os.path.normpath(here / path))
        if target.suffix == ".ipynb" and target.is_relative_to(NOTEBOOKS):
            return match[0]
        chinese = target.with_suffix(f".zh-CN{target.suffix}")
        target = chinese if chinese.exists() else target
        return f"]({Path(os.path.relpath(target, there)).as_posix()}{mark}{place})"

    return re.sub(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)", fix, text)


def build(folder: Path = BUILT, catalogues: Path = CATALOGUES) -> None:
    """Write the notebooks in Chinese, and what the checkers say.

    What has no translation stays English, and so does what its translation would break.
    """
    known = {}
    for english, chinese in read_translations(catalogues).items():
        if problems := lost_in_translation(english, chinese):
            print(f"left in English: {english}\n  {'; '.join(problems)}", file=sys.stderr)
        else:
            known[english] = chinese
    for name, notebook in read_notebooks().items():
        new = translate_notebook(notebook, lambda text, place: known.get(text, text))
        for cell in new["cells"]:
            if cell["cell_type"] == "markdown":
                text = fix_links("".join(cell["source"]), name)
                cell["source"] = text.splitlines(keepends=True)
        if any("seqlm.exercises" in "".join(cell["source"]) for cell in new["cells"]):
            first = next(i for i, cell in enumerate(new["cells"]) if is_parameters(cell))
            new["cells"].insert(first + 1, copy.deepcopy(SPEAK))
        path = folder / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n", "utf-8")
    said = {text for text, _ in checker_messages()}
    patterns = checker_patterns({text: known[text] for text in said if text in known})
    text = json.dumps(patterns, indent=1, ensure_ascii=False)
    (folder / "messages.json").write_text(text + "\n", "utf-8")


# The one cell that a built notebook has more than the English one.
SPEAK = {
    "cell_type": "code",
    "execution_count": None,
    "id": "language",
    "metadata": {},
    "outputs": [],
    "source": [
        "from seqlm.exercises.checker import use_language\n",
        "\n",
        'use_language("zh-CN")  # 练习的检查和对猜测的回答用中文\n'.rstrip(),
    ],
}


def is_parameters(cell: dict) -> bool:
    return "parameters" in cell["metadata"].get("tags", ())


def checker_patterns(known: dict[str, str]) -> list[list[str]]:
    """A regular expression for each message with the translation that str.format fills in.

    The plain ones come first, then those with most words of their own.
    """
    rows = []
    for english, chinese in known.items():
        fields = list(dict.fromkeys(FIELD.findall(english)))
        parts = re.split(f"({FIELD.pattern})", english)
        pattern = r"(\s*)" + "".join(
            "(.*?)" if text in fields else re.escape(text) for text in parts
        )
        pattern += " ?" if chinese.endswith(("。", "：", "！", "？")) else ""  # wide enough
        pattern += r"(.*)" if english.endswith(":") else r"(\s*)"
        number = {text: index + 1 for index, text in enumerate(fields)}
        words = FIELD.sub(lambda match, number=number: f"{{{number[match[0]]}}}", chinese)
        rows.append((bool(fields), -len(FIELD.sub("", english)), pattern, words, len(fields)))
    return [[pattern, f"{{0}}{words}{{{n + 1}}}"] for _, _, pattern, words, n in sorted(rows)]


if __name__ == "__main__":
    commands = {"update": update, "build": build}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit("give one of: update, build")
    commands[sys.argv[1]]()
