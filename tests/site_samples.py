"""A project whose first notebook alone was run, and the program that builds its website."""

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat

ROOT = Path(__file__).parents[1]
FIRST = "01_explore_data.ipynb"
READ = ("README.md", "README.zh-CN.md", "Makefile", "bench", "data", "docs", "figures", "models",
        "notebooks", "seqlm", "tests")  # fmt: skip


def load_build() -> ModuleType:
    return load_program("docs/site/build.py")


def load_program(name: str) -> ModuleType:
    """A program that is no part of a package."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def site_tree(folder: Path) -> Path:
    """In `folder`: links to what the website is built from, the notebooks in Chinese, and FIRST
    as a report leaves it, in both languages."""
    for name in READ:
        if name != "notebooks":
            (folder / name).symlink_to(ROOT / name)
    (folder / "notebooks").mkdir()
    for path in (ROOT / "notebooks").iterdir():
        if path.name != "zh-CN":  # what is built there may be of another day
            (folder / "notebooks" / path.name).symlink_to(path)
    load_program("notebooks/locale/translate.py").build(folder / "notebooks/zh-CN")
    notebook = nbformat.read(ROOT / "notebooks" / FIRST, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[1].outputs = [nbformat.v4.new_output("stream", text="one line\n" + "<Z_017> " * 100)]
    dot = "R0lGODdhAQABAIAAAP8AAAAAACwAAAAAAQABAAACAkQBADs="
    figure = f'<img alt="A red dot" src="data:image/gif;base64,{dot}">'
    shown = {"text/html": figure, "text/markdown": "![A red dot](figures/dot.png)"}
    code[2].outputs = [nbformat.v4.new_output("display_data", data=shown)]
    table = {"text/markdown": "| model | NLL |\n|---|--:|\n| **GPT** | 2.88 |\n"}
    code[3].outputs = [nbformat.v4.new_output("display_data", data=table)]
    executed = folder / "outputs/smoke/notebooks" / FIRST
    executed.parent.mkdir(parents=True)
    nbformat.write(notebook, executed)
    chinese = nbformat.read(folder / "notebooks/zh-CN" / FIRST, as_version=4)
    shown = [cell for cell in chinese.cells if cell.cell_type == "code"]
    shown[1].outputs = [nbformat.v4.new_output("stream", text="印出的一行\n")]
    executed = folder / "build/zh-CN" / executed.relative_to(folder)
    executed.parent.mkdir(parents=True)
    nbformat.write(chinese, executed)
    return folder
