"""The website's pages, links and settings; tests/browser looks at the built one."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from site_samples import FIRST, ROOT, load_build, site_tree

from seqlm.errors import DataError

SITE = ROOT / "docs/site"
site = load_build()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return site_tree(tmp_path)


def targets(page) -> list[str]:
    """The local files that a page's links name."""
    texts = [page] if isinstance(page, str) else [c.source for c in page.cells]
    links = [match[2] for text in texts for match in site.LINK.finditer(site.FENCE.sub("", text))]
    return [link.removeprefix("path:") for link in links if link and not link.startswith("http")]


def test_every_notebook_and_page_is_in_the_contents_once(tree: Path) -> None:
    pages, _ = site.gather(tree, "smoke")
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", pages["index.md"], re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith(":")]
    names = [re.sub(r".*<(.*)>", r"\1", line) for line in lines if line]  # title <name>, or name
    listed = [re.sub(r"\.(md|ipynb)$", "", name) for name in names]
    assert len(listed) == len(set(listed))
    assert set(listed) | {"index"} == {re.sub(r"\.(md|ipynb)$", "", name) for name in pages}
    named = {path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob("docs/*.md")}
    named |= {f"notebooks/{path.stem}" for path in ROOT.glob("notebooks/*.ipynb")}
    assert named <= set(listed) and "reference/data" in listed


def test_the_reference_has_every_module_of_the_package(tree: Path) -> None:
    pages, _ = site.gather(tree, "smoke")
    text = "".join(page for name, page in pages.items() if name.startswith("reference/"))
    documented = set(re.findall(r"automodule:: (\S+)", text))
    files = [p.relative_to(ROOT).with_suffix("") for p in ROOT.glob("seqlm/**/[!_]*.py")]
    assert documented >= {".".join(file.parts) for file in files}
    assert "seqlm.evaluation" in documented  # the table of metrics


@pytest.mark.parametrize("repository", ["", "someone/seqlm"])
def test_links_lead_to_a_page_a_module_or_the_project(tree: Path, repository: str) -> None:
    pages, _ = site.gather(tree, "smoke", repository)
    for name, page in pages.items():
        for target in targets(page):
            path = site.posixpath.normpath(f"{Path(name).parent.as_posix()}/{target}")
            assert path in pages or path == site.COLAB, f"{name}: {target}"
    colab = f"https://colab.research.google.com/github/{repository}/blob/main/{site.COLAB}"
    assert (colab in pages["index.md"]) == bool(repository)
    assert ("https://github.com/someone/seqlm/blob/main/Makefile" in pages["index.md"]) == bool(
        repository
    )
    assert "[notebook 1](notebooks/01_explore_data.ipynb)" in pages["index.md"]
    assert "(notebooks/report.ipynb)" in pages["index.md"]
    assert "[cli.py](#seqlm.cli)" in pages["seqlm/README.md"]
    assert "(../index.md#the-two-commands)" in pages["docs/teaching.md"]


def test_code_is_left_alone_and_pictures_come_along(tree: Path) -> None:
    text = "[a](Makefile)\n\n```python\nx[0](Makefile)\n```\n![](figures/digits.png)\n"
    pages = {"index.md": text}
    changed = site.edited(text, lambda part: site.with_links(part, "index.md", pages, tree, ""))
    assert changed == text.replace("[a](Makefile)", "a")
    assert "figures/digits.png" in site.other_files(pages, tree)


def test_notebooks_have_their_results_and_say_when_they_have_none(tree: Path) -> None:
    pages, remarks = site.gather(tree, "smoke")
    first = f"notebooks/{FIRST}"
    outputs = [output for cell in pages[first].cells for output in cell.get("outputs", [])]
    assert {tuple(o.get("data", o)) for o in outputs} >= {("text/html",)}  # not Markdown as well
    assert not [remark for remark in remarks if remark.startswith(first)]
    assert "notebooks/02_build_tokenizer.ipynb: " + site.NOT_RUN in remarks
    assert "not run" in pages["notebooks/02_build_tokenizer.ipynb"].cells[1].source
    path = tree / "outputs/smoke" / first
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source += " and more"
    nbformat.write(notebook, path)
    assert f"{first}: {site.CHANGED}" in site.gather(tree, "smoke")[1]
    path.unlink()
    with pytest.raises(DataError, match="make report PROFILE=smoke"):
        site.gather(tree, "smoke")


def test_each_notebook_links_to_its_page_in_the_other_language(tree: Path) -> None:
    pages, remarks = site.gather(tree, "smoke")
    english = [path.relative_to(ROOT) for path in ROOT.glob("notebooks/**/*.ipynb")]
    english = [p.as_posix() for p in english if "zh-CN" not in p.parts and p.parts[1][0] != "."]
    assert len(english) == 16
    for name in english:
        other = f"notebooks/zh-CN/{name.removeprefix('notebooks/')}"
        for one, its, words in ((name, other, "中文"), (other, name, "English")):
            line = pages[one].cells[0].source.splitlines()[2]
            target = line.removeprefix(f"[{words}](").removesuffix(")")
            assert site.posixpath.normpath(f"{Path(one).parent.as_posix()}/{target}") == its
    assert "(README.zh-CN.md)" in pages["index.md"] and "(index.md)" in pages["README.zh-CN.md"]


def test_a_chinese_page_leads_on_to_chinese_pages_and_has_its_own_results(tree: Path) -> None:
    pages, remarks = site.gather(tree, "smoke")
    assert "[看数据](notebooks/zh-CN/01_explore_data.ipynb)" in pages["README.zh-CN.md"]
    assert "](notebooks/zh-CN" not in pages["index.md"]
    first = f"notebooks/zh-CN/{FIRST}"
    outputs = [output for cell in pages[first].cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs] == ["印出的一行\n"]
    assert not [remark for remark in remarks if remark.startswith(first)]
    second = "notebooks/zh-CN/02_build_tokenizer.ipynb"
    assert f"{second}: {site.NOT_RUN}" in remarks
    assert pages[second].cells[1].source == site.NOTE_CHINESE
    assert set(targets(pages[second])) > {"../02_build_tokenizer.ipynb", "03_gpt_by_hand.ipynb"}


def test_the_site_can_be_built_without_the_chinese_notebooks(tree: Path) -> None:
    shutil.rmtree(tree / "notebooks/zh-CN")
    pages, _ = site.gather(tree, "smoke")
    assert not [name for name in pages if name.startswith("notebooks/zh-CN")]
    assert "[看数据](notebooks/01_explore_data.ipynb)" in pages["README.zh-CN.md"]


def test_the_first_page_links_to_the_mailed_page_when_it_was_made(tree: Path) -> None:
    link = '<a href="page.html">'
    assert link not in site.gather(tree, "smoke")[0]["index.md"]
    (tree / "outputs/smoke/page.html").touch()
    assert link in site.gather(tree, "smoke")[0]["index.md"]


def test_the_settings_name_no_other_host_and_run_no_notebook() -> None:
    files = [
        SITE / "conf.py",
        SITE / "contents.md",
        *SITE.glob("static/*"),
        *SITE.glob("templates/*"),
    ]
    for file in files:
        text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//\w", text.replace("// ", "")), file
    settings = {}
    exec((SITE / "conf.py").read_text(encoding="utf-8"), settings)
    assert settings["nb_execution_mode"] == "off" and settings["nb_ipywidgets_js"] == {}


def test_the_workflow_publishes_what_make_site_builds() -> None:
    text = (ROOT / ".github/workflows/site.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    runs = [step.get("run") for step in jobs["build"]["steps"]]
    steps = ["make laboratory", "make chinese RUN=report", "make page", "make site"]
    assert [run for run in runs if run in steps] == steps
    assert jobs["build"]["steps"][-1]["with"]["path"] == "build/site"
    assert jobs["publish"]["needs"] == "build"
    assert jobs["publish"]["permissions"] == {"pages": "write", "id-token": "write"}


def test_colab_keeps_its_own_notebook_programs() -> None:
    notebook = nbformat.read(ROOT / site.COLAB, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count]
    (install,) = [cell.source for cell in code if "%pip" in cell.source]
    stays = re.search(r"stays = \((.*?)\)", install, re.DOTALL)[1]
    stays = re.findall(r'"(.+?)"', stays)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    kept = [line for line in project["dependencies"] if line.startswith(tuple(stays))]
    assert len(kept) == len(stays) and {"torch", "ipython", "ipykernel"} <= set(stays)


def test_the_dev_container_installs_as_a_user_who_may_start_jupyterlab() -> None:
    about = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert about["postCreateCommand"] == "make install"
    docker = (ROOT / ".devcontainer" / about["build"]["dockerfile"]).read_text(encoding="utf-8")
    assert f"useradd --create-home --shell /bin/bash {about['remoteUser']}\n" in docker
    assert "FROM python:3.11" in docker
