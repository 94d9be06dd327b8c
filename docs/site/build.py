"""Build the website: executed notebooks, the pages of docs/, and the reference of the package.

    python docs/site/build.py --profile laptop

Nothing is executed and nothing is loaded from the network. First all pages are gathered in
build/site-source, each where it lies in the project, so that the links between them hold; links to
files that are no page are rewritten. The notebooks in Chinese are those that `make chinese` wrote,
with their results from build/zh-CN. Sphinx then writes build/site, which opens from the disk.
"""

import argparse
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from string import Template

import nbformat

from seqlm.errors import DataError, SeqlmError
from seqlm.utils import read_text, write_text
from seqlm.workspace import Notebook, Workspace, read_notebooks

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# The pages that lie elsewhere than in docs/.
PAGES = (
    "README.md", "README.zh-CN.md", "data/README.md", "seqlm/README.md",
    "bench/results/README.md", "bench/results/recipes.md",
)  # fmt: skip
# The site opens with README; its report is the notebook that wrote the other one.
MOVED = {"README.md": "index.md", "figures/report.md": "notebooks/report.ipynb"}
COLAB = "docs/colab.ipynb"
CHINESE = "zh-CN"  # in the names of Chinese pages, and of no other

FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
FENCE = re.compile(r"(^ *```.*?^ *```[^\n]*$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)|<(?:img|source)[^>]* src(?:set)?=\"([^\"]+)\"")


def gather(root: Path, profile: str, repository: str = "") -> tuple[dict, list[str]]:
    """All pages, path -> text or notebook; and what is wrong with the executed notebooks.

    Links to files that are no page lead to `repository`, owner/name on GitHub, or become plain
    text. Raises DataError when no notebook of the profile has been executed.
    """
    ws = Workspace(profile, root)
    found = [*sorted(root.glob("docs/*.md")), *sorted(root.glob("models/*/README.md"))]
    names = [*PAGES, *(path.relative_to(root).as_posix() for path in found)]
    # A model card begins with lines for the Hub, which are no text.
    pages = {MOVED.get(n, n): FRONT_MATTER.sub("", read_text(root / n)) for n in names}
    notebooks, remarks = {}, {}
    for folder, home in (("notebooks", root), (f"notebooks/{CHINESE}", root / "build" / CHINESE)):
        for notebook in read_notebooks(root / folder).values():
            name = notebook.path.relative_to(root).as_posix()
            notebooks[name] = notebook
            pages[name], remarks[name] = executed(Workspace(profile, home), notebook)
        if folder == "notebooks" and set(remarks.values()) == {NOT_RUN}:
            raise DataError(
                f"{ws.outputs / 'notebooks'}: no executed notebook; run `make report "
                f"PROFILE={profile}` first"
            )
    for name in notebooks:
        add_other_language(name, pages)
    pages |= reference(root, pages["seqlm/README.md"])
    pages["index.md"] = first_page(pages["index.md"], ws, notebooks)
    for name, page in pages.items():
        pages[name] = edited(
            page, lambda text, at=name: with_links(text, at, pages, root, repository)
        )
    return pages, [f"{name}: {remark}" for name, remark in remarks.items() if remark]


NOT_RUN = "it has not been run, so its page has no results"
CHANGED = "it was changed after it was run; the command that ran it runs it again"
NOTE = "*This notebook was not run for this site: the results of its cells are missing.*"
NOTE_CHINESE = "*生成本网站时没有运行这本笔记本，所以没有各单元格的结果。*"


def executed(ws: Workspace, notebook: Notebook) -> tuple[nbformat.NotebookNode, str]:
    """A notebook as the report left it, and a remark where that is not what it should be."""
    source = nbformat.read(notebook.path, as_version=4)
    path = ws.outputs / "notebooks" / notebook.path.name
    if not path.is_file():
        note = NOTE_CHINESE if CHINESE in notebook.path.parts else NOTE
        source.cells.insert(1, nbformat.v4.new_markdown_cell(note))
        return source, NOT_RUN
    page = nbformat.read(path, as_version=4)
    ours = [c for c in page.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell in page.cells:
        if notebook.part == "report":  # it is read for its results
            cell.metadata.tags = [*cell.metadata.get("tags", []), "remove-input"]
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):  # Markdown has the same figure, as a file
                output.data.pop("text/markdown", None)
    same = [cell.source for cell in ours] == [cell.source for cell in source.cells]
    return page, "" if same else CHANGED


def in_chinese(name: str) -> str:
    """Where the Chinese page would be of the page `name`."""
    if name == "index.md":
        return f"README.{CHINESE}.md"
    return re.sub("^notebooks/(?!zh-CN/)", f"notebooks/{CHINESE}/", name)


def add_other_language(name: str, pages: dict) -> None:
    """Below the title of a notebook: the link to the same page in the other language."""
    other, words = in_chinese(name), "中文"
    if CHINESE in name:
        other, words = name.replace(f"{CHINESE}/", ""), "English"
    if other in pages:
        title, _, rest = pages[name].cells[0].source.partition("\n")
        link = f"[{words}]({posixpath.relpath(other, posixpath.dirname(name))})"
        pages[name].cells[0].source = f"{title}\n\n{link}\n{rest}"


def reference(root: Path, package_map: str) -> dict[str, str]:
    """A page per room of the package, with the docstrings of its modules, in the map's order."""
    pages, room = {}, ""
    for name, subject in re.findall(r"^\| (\S+) \|(.*)\|$", package_map, re.MULTILINE):
        if name.startswith("**"):
            room = name.strip("*")
            title = "The top of the package" if room == "top" else f"{room}: {subject.strip(' *')}"
            pages[f"reference/{room}.md"] = f"# {title}\n"
            if room != "top" and read_text(root / "seqlm" / room / "__init__.py"):
                pages[f"reference/{room}.md"] += automodule(f"seqlm.{room}")
        elif name.endswith(".py`") and name != "`__init__.py`":
            module = ".".join(["seqlm", *([room] if room != "top" else []), name[1:-4]])
            pages[f"reference/{room}.md"] += f"\n## {module}\n{automodule(module)}"
    return pages


def automodule(name: str) -> str:
    return f"\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n"


def first_page(readme: str, ws: Workspace, notebooks: dict[str, Notebook]) -> str:
    """README, what the site adds to it, and the contents of the site."""
    parts = {"course": [], "laboratory": [], "chinese": []}
    for name, notebook in notebooks.items():
        part = "chinese" if CHINESE in name else notebook.part
        parts.setdefault(part, []).append(name)
    contents = Template(read_text(HERE / "contents.md"))
    note = [f"Here you can read every notebook with its results (profile `{ws.profile}`)."]
    if page_of_the_model(ws).is_file():
        note.append(
            '<a href="page.html">Open the trained model</a>: one HTML file that draws and reads'
            " digits, and that you can save and mail."
        )
    opening, heading, rest = readme.partition("\n## ")
    text = f"{opening}\n\n```{{admonition}} On this site\n{' '.join(note)}\n```\n{heading}{rest}"
    return text + contents.substitute({part: "\n".join(names) for part, names in parts.items()})


def page_of_the_model(ws: Workspace) -> Path:
    """What `make page` writes."""
    return ws.outputs / "page.html"


def edited(page, change: Callable[[str], str]):
    """A page with `change` made to its Markdown outside blocks of code."""
    if isinstance(page, str):
        pieces = FENCE.split(page)
        return "".join(p if FENCE.match(p) else change(p) for p in pieces)
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = edited(cell.source, change)
    return page


def with_links(text: str, page: str, pages: dict, root: Path, repository: str) -> str:
    """`text` of the page at `page`, each link leading to where its target is on the site."""

    def link(match: re.Match) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if not target or re.match(r"\w+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        path = MOVED.get(path, path)
        if CHINESE in page and words != "English" and in_chinese(path) in pages:
            path = in_chinese(path)
        if path == COLAB and repository:
            address = f"https://colab.research.google.com/github/{repository}/blob/main/{COLAB}"
            return f"[{words}]({address})"
        there = posixpath.relpath(path, posixpath.dirname(page) or ".")
        if path in pages:
            return f"[{words}]({there}{anchor})"
        if path == COLAB:
            return f"[{words}](path:{there})"
        if path.startswith("seqlm/") and path.endswith(".py"):
            module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            return f"[{words}](#{module})"
        if repository:
            kind = "tree" if (root / path).is_dir() else "blob"
            return f"[{words}](https://github.com/{repository}/{kind}/main/{path})"
        return words

    return LINK.sub(link, text)


def other_files(pages: dict, root: Path) -> dict[str, Path]:
    """Pictures, and the notebook for Colab: where on the site each must lie -> its file."""
    files = {COLAB: root / COLAB}
    for name, page in pages.items():
        texts = [page] if isinstance(page, str) else [c.source for c in page.cells]
        for names in PICTURE.findall("\n".join(texts)):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), "".join(names)))
            if (root / path).is_file():
                files[path] = root / path
    return files


def build(root: Path, profile: str, repository: str = "") -> Path:
    """Write the site to build/site, and return its first page. Raises DataError if Sphinx warns."""
    pages, remarks = gather(root, profile, repository)
    for remark in remarks:
        print(remark)
    source, target = root / "build/site-source", root / "build/site"
    for folder in (source, target):
        shutil.rmtree(folder, ignore_errors=True)
    for name, page in pages.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(source / name, page if isinstance(page, str) else nbformat.writes(page))
    for name, file in other_files(pages, root).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, source / name)
    from sphinx.cmd.build import main as sphinx

    options = ["--fresh-env", "--fail-on-warning", "--quiet", "--jobs", "2"]
    doctrees = ["-d", str(root / "build/site-doctrees"), "-c", str(HERE)]
    if sphinx([*options, *doctrees, str(source), str(target)]):
        raise DataError("the site has warnings, printed above; fix the pages that they name")
    model = page_of_the_model(Workspace(profile, root))
    if model.is_file():
        shutil.copyfile(model, target / "page.html")
    return target / "index.html"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", help="the profile whose notebooks were run")
    try:
        # GitHub's own variable, which its workflows have.
        first = build(ROOT, parser.parse_args().profile, os.environ.get("GITHUB_REPOSITORY", ""))
    except SeqlmError as error:
        sys.exit(str(error))
    print(f"wrote {first}")


if __name__ == "__main__":
    main()
