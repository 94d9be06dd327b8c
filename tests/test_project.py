"""The project's frame says the same thing wherever it says it twice."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from conftest import LONGEST_FIRST
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.subprocess

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# conda-forge's name, where it is not the package index's.
CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python"}
# conda has no extras: what an extra adds stands on lines of its own.
CONDA_EXTRAS = {("jsonargparse", "signatures"): {"docstring-parser", "typeshed-client"}}
# What a conda environment needs and a pip project cannot name.
CONDA_ONLY = {"python", "pip"}
# Import names that are not the package's own name.
IMPORT_NAMES = {
    "beautifulsoup4": "bs4",
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "ipython": "IPython",
}
# Our own modules, as tests import them.
OURS = {"seqlm", "tests", "training", *(path.stem for path in (ROOT / "tests").glob("*.py"))}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def project_requirements() -> list[Requirement]:
    """Every requirement of the package and of its extras."""
    extras = PROJECT["optional-dependencies"].values()
    lines = PROJECT["dependencies"] + [line for extra in extras for line in extra]
    return [Requirement(line) for line in lines]


def conda_name(requirement: Requirement) -> str:
    return CONDA_NAMES.get(requirement.name, canonicalize_name(requirement.name))


def conda_requirements() -> dict[str, SpecifierSet]:
    """environment.yml's packages and ranges, without its pip section."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    lines = [line for line in environment["dependencies"] if isinstance(line, str)]
    parsed = [Requirement(line) for line in lines]
    assert len({r.name for r in parsed}) == len(parsed), "environment.yml names a package twice"
    return {canonicalize_name(r.name): r.specifier for r in parsed}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    loose = [line for line in pinned if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not loose, f"constraints.txt holds lines that are no exact pin: {loose}"
    return {canonicalize_name(n): v for n, v in (line.split("==") for line in pinned)}


def reasons(path: Path, line_form: str) -> dict[str, str]:
    """Package -> what its line's comment says, for the lines that look like `line_form`."""
    lines = re.findall(line_form, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {canonicalize_name(name): reason for name, reason in lines}


def pyproject_reasons() -> dict[str, str]:
    return reasons(ROOT / "pyproject.toml", r'^    "([\w-]+)[\[<>=~!][^"]*",(?:  # (.+))?$')


def environment_reasons() -> dict[str, str]:
    return reasons(ROOT / "environment.yml", r"^  - ([\w-]+)(?: [^#\n]*?)?(?:  # (.+))?$")


def test_environment_names_the_same_packages_as_pyproject() -> None:
    requirements = project_requirements()
    expected = CONDA_ONLY | {conda_name(r) for r in requirements}
    for r in requirements:
        for extra in r.extras:
            expected |= CONDA_EXTRAS[(r.name, extra)]
    assert set(conda_requirements()) == expected


def test_environment_gives_the_same_ranges_as_pyproject() -> None:
    ranges = conda_requirements()
    assert ranges["python"] == SpecifierSet(PROJECT["requires-python"])
    for r in project_requirements():
        assert ranges[conda_name(r)] == r.specifier, r.name


def test_environment_uses_conda_forge_alone_and_installs_seqlm_itself() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}


def test_every_dependency_has_a_reason_and_it_is_the_same_in_both_files() -> None:
    ours, theirs = pyproject_reasons(), environment_reasons()
    assert set(ours) == {canonicalize_name(r.name) for r in project_requirements()}
    assert set(theirs) - {"pip"} == set(conda_requirements()) - {"pip"}
    assert all(ours.values()), [name for name, reason in ours.items() if not reason]
    assert all(theirs.values()), [name for name, reason in theirs.items() if not reason]
    for r in project_requirements():
        name = canonicalize_name(r.name)
        assert theirs[conda_name(r)] == ours[name], name


def test_constraints_pin_every_requirement_within_its_range() -> None:
    versions = pins()
    for r in project_requirements():
        version = versions.get(canonicalize_name(r.name))
        assert version is not None, f"constraints.txt does not pin {r.name}"
        assert r.specifier.contains(version), f"{r.name} is pinned to {version}, not {r.specifier}"


def test_constraints_pin_what_an_extra_adds() -> None:
    ranges, versions = conda_requirements(), pins()
    for added in CONDA_EXTRAS.values():
        for name in added:
            assert ranges[name].contains(versions[name]), name


def test_every_installed_pin_runs_on_the_oldest_python_that_is_promised() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    versions = pins()
    installed = [d for d in distributions() if versions.get(canonicalize_name(d.name)) == d.version]
    if not installed:
        pytest.skip("nothing here is installed as constraints.txt pins it")
    wanted = {d.name: d.metadata.get("Requires-Python") or "" for d in installed}
    assert not {n: w for n, w in wanted.items() if not SpecifierSet(w).contains(oldest)}


def imported_packages(path: Path) -> set[str]:
    """The top names that a Python file imports, wherever in the file."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.partition(".")[0] for name in names | {node.module or "" for node in froms}}


def test_every_imported_package_is_declared() -> None:
    declared = {IMPORT_NAMES.get(r.name, r.name.replace("-", "_")) for r in project_requirements()}
    known = declared | OURS | sys.stdlib_module_names
    files = [*ROOT.glob("seqlm/**/*.py"), *ROOT.glob("tests/**/*.py")]
    undeclared = {str(f.relative_to(ROOT)): imported_packages(f) - known for f in files}
    assert not {file: names for file, names in undeclared.items() if names}


def commands(script: str) -> list[str]:
    """A shell script's lines that do something: no comments, no preparation."""
    lines = [line.strip() for line in script.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]


def test_ci_runs_the_test_command_that_the_readme_names() -> None:
    asked = commands((ROOT / ".ci/run").read_text(encoding="utf-8"))
    assert {"make test", "make test-avx2"} <= set(asked)
    assert os.access(ROOT / ".ci/run", os.X_OK), ".ci/run is not executable"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    assert "make test" in lines, "README.md shows no code block with the line `make test`"


def test_the_workflows_name_every_action_by_its_commit() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob(".github/workflows/*.yml")]
    actions = re.findall(r"uses: (.*)", "\n".join(texts))
    assert len(texts) == 2 and len(actions) >= 9
    for action in actions:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action


def test_the_workflow_runs_the_same_script_and_keeps_the_report() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    steps = {name: job["steps"] for name, job in yaml.safe_load(text)["jobs"].items()}
    assert "bash .ci/run" in [step.get("run") for step in steps["test"]]
    assert "make report PROFILE=smoke" in [step.get("run") for step in steps["report"]]
    kept = steps["report"][-1]["with"]
    # What `seqlm report` writes; a path that nothing makes would be kept in silence.
    for name in ("report.html", "report.md", "training_data.json", "figures", "notebooks"):
        assert f"outputs/smoke/{name}" in kept["path"].split()
    assert kept["if-no-files-found"] == "error"


def test_the_files_that_the_tests_begin_with_are_there() -> None:
    files = {path.stem for path in ROOT.glob("tests/**/test_*.py")}
    assert set(LONGEST_FIRST) <= files


def run_make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make as a person would: nothing is handed on from a make that runs these tests."""
    inherited = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PROFILE", "PYTHON"}
    environment = {k: v for k, v in os.environ.items() if k not in inherited}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def phony_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(" ".join(re.findall(r"^\.PHONY:(.*)$", makefile, flags=re.MULTILINE)).split())


@needs_make
def test_make_alone_lists_every_target_with_what_it_does() -> None:
    listed = re.findall(r"^  make ([a-z0-9-]+) +\S", run_make().stdout, flags=re.MULTILINE)
    assert set(listed) == phony_targets()
    assert len(listed) == len(set(listed))
    assert phony_targets() >= {"report", "laboratory", "test", "lint", "lab", "clean", "help"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the frame's files and an installed .venv, as far as make can tell."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1_000, 1_000))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()
    (tmp_path / ".venv/.site-installed").touch()
    return tmp_path


@needs_make
@pytest.mark.parametrize("target", sorted(phony_targets() - {"help", "clean"}))
def test_a_target_installs_only_what_is_missing_or_has_changed(checkout: Path, target: str) -> None:
    def installs() -> bool:
        planned = run_make("--dry-run", target, folder=checkout)
        assert planned.returncode == 0, planned.stderr
        return "pip install" in planned.stdout

    stamp = checkout / ".venv/.installed"
    assert not installs()
    for name in ("pyproject.toml", "constraints.txt"):
        later = stamp.stat().st_mtime + 60
        os.utime(checkout / name, (later, later))
        assert installs(), f"{target} does not notice that {name} changed"
        os.utime(checkout / name, (1_000, 1_000))
    shutil.rmtree(checkout / ".venv")
    assert installs(), f"{target} does not make a missing .venv"


@needs_make
@pytest.mark.parametrize("model", ['outputs/my "best" model', "", "/elsewhere/a b"])
def test_make_app_hands_on_a_model_with_spaces_and_asks_for_a_token(tmp_path, model):
    folder = tmp_path / "with spaces"
    (folder / ".venv/bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):
        (folder / name).touch()
    voila = folder / ".venv/bin/voila"
    voila.write_text('#!/bin/sh\necho "$SEQLM_MODEL|$@"\n', encoding="utf-8")
    voila.chmod(0o755)
    said = run_make("app", *([f"MODEL={model}"] if model else []), folder=folder)
    assert said.returncode == 0, said.stderr
    handed_on, words = said.stdout.splitlines()[-1].split("|")
    assert handed_on == model
    assert "--Voila.auto_token=True" in words and "open the address" in said.stdout.lower()


@needs_make
def test_an_old_python_is_refused_in_one_sentence(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    old = checkout / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    refused = run_make("lab", f"PYTHON={old}", folder=checkout)
    assert refused.returncode != 0
    assert "seqlm needs Python 3.11 or newer" in refused.stderr
    assert not (checkout / ".venv").exists()


@needs_make
def test_clean_removes_what_was_built_and_nothing_else(checkout: Path) -> None:
    kept = ["figures/a.png", "data/sample/s.jsonl", "data/README.md", "data/mine/rows.jsonl"]
    kept += ["data/mnist/train-images-idx3-ubyte.gz"]
    kept += ["notebooks/profiles/laptop.yaml", "seqlm/cli.py"]
    built = ["data/laptop/vocab.json", "outputs/laptop/report/report.html", ".ruff_cache/x"]
    built += ["data/mnist/vocab.json", "data/mnist/known_source/x.jsonl"]
    built += ["seqlm/__pycache__/cli.pyc", "notebooks/.ipynb_checkpoints/n.ipynb"]
    for name in kept + built:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    cleaned = run_make("clean", folder=checkout)
    assert cleaned.returncode == 0, cleaned.stderr
    assert [name for name in kept if not (checkout / name).exists()] == []
    assert [name for name in built if (checkout / name).exists()] == []
    assert not (checkout / ".venv").exists()


READMES = ["README.md", "README.zh-CN.md"]
PAGES = [*READMES, "data/README.md", "seqlm/README.md"]
PAGES += [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/*.md"))]


def links(text: str) -> list[str]:
    return re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_of_our_pages_is_there(page: str) -> None:
    named = links((ROOT / page).read_text(encoding="utf-8"))
    folder = (ROOT / page).parent
    assert not [name for name in named if not (folder / name).exists()]
    assert len(named) > 10 or page not in READMES  # links were found at all


def test_both_readmes_are_short_and_have_the_same_headings_commands_and_links() -> None:
    english, chinese = [(ROOT / page).read_text(encoding="utf-8") for page in READMES]
    for text in (english, chinese):
        assert len(text.splitlines()) < 130
    levels = [re.findall(r"^#+", text, re.MULTILINE) for text in (english, chinese)]
    assert levels[0] == levels[1] and len(levels[0]) > 5
    blocks = [re.findall(r"^```.*?^```", text, re.M | re.S) for text in (english, chinese)]
    assert blocks[0] == blocks[1]
    inline = [sorted(re.findall(r"`(make [\w-]+|seqlm \w+)`", text)) for text in (english, chinese)]
    assert inline[0] == inline[1]
    assert links(english)[1:] == links(chinese)[1:]  # the first leads from one to the other
    assert (links(english)[0], links(chinese)[0]) == tuple(reversed(READMES))


def test_the_results_of_both_readmes_are_the_same_numbers() -> None:
    tables = []
    for page in READMES:
        text = (ROOT / page).read_text(encoding="utf-8")
        table = text[text.index("<!-- results -->") : text.index("<!-- /results -->")]
        rows = [line.split("|")[3:-1] for line in table.splitlines() if line.startswith("|")][2:]
        tables.append([[cell.strip() for cell in row] for row in rows])
    assert tables[0] == tables[1] and len(tables[0]) == 8


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/launch/*.yaml")), ids=lambda p: p.stem)
def test_accelerate_reads_the_launch_files_and_knows_every_setting(path):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(path))
    assert config.num_processes == 8 * config.num_machines
    flags = vars(launch_command_parser().parse_args(["train.py"]))
    assert set(config.fsdp_config) <= set(flags)
    assert f"launch/{path.name}" in (ROOT / "docs/scaling.md").read_text()
