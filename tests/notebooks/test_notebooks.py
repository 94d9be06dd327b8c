"""Every notebook, through papermill, at the smoke profile; and what the pipeline makes of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from samples import offline_words, write_idx

from seqlm import pipeline, workspace
from seqlm.errors import PipelineError
from seqlm.utils import read_json, write_json, write_text
from seqlm.workspace import Workspace, notebooks_folder, read_notebooks

NOTEBOOKS = read_notebooks()
LESSONS = {name: about for name, about in NOTEBOOKS.items() if about.part != "report"}


OFFLINE, WHY_ONLINE = offline_words()
THEIRS = ("figures/mine.png", "metrics/mine.txt")  # files of the user's own


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The whole report, as a user runs it, in a folder of its own: what it says, in lines.

    It is killed once, while its second notebook runs, and started again. There is no network.
    """
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLM_HOME", str(home))
        for name in THEIRS:
            write_text(home / "outputs" / "smoke" / name, "mine")
        words = [sys.executable, "-m", "seqlm", "report", "--profile", "smoke", "--laboratory"]
        online = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        how = {"env": online | {"PYTHONUNBUFFERED": "1"}, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([*OFFLINE, *words], **how) as run:
            said = list(takewhile(lambda line: "build_tokenizer: running" not in line, run.stdout))
            run.kill()
        again = subprocess.run([*OFFLINE, *words], stderr=subprocess.STDOUT, **how)
        assert again.returncode == 0, again.stdout
        yield Workspace("smoke", home), "".join(said).splitlines() + again.stdout.splitlines()


@pytest.fixture
def replayed(smoke, tmp_path, monkeypatch):
    """What decides which notebook runs is tested without kernels: one that runs restores its files.

    Every notebook has run once, in `smoke`; running some of them again would only cost time.
    """
    ws = smoke[0]
    copy = Workspace("smoke", tmp_path / "copy")
    shutil.copytree(ws.root, copy.root)

    def restore(source, executed, *args, **kwargs) -> None:
        notebook = NOTEBOOKS[re.sub(r"^\d+_", "", Path(source).stem)]
        kept = copy.outputs / "notebooks"
        figures = read_json(kept / f"{notebook.path.stem}.json")["figures"]
        made = [*pipeline._made_files(copy, notebook), kept / Path(executed).name]
        for path in [*made, *(copy.figures / name for name in figures)]:
            shutil.copy(path, ws.root / path.relative_to(copy.root))

    monkeypatch.setattr(pipeline.papermill, "execute_notebook", restore)
    return ws


def test_every_notebook_runs_and_leaves_its_metrics(smoke):
    ws, said = smoke
    ran = [line.split(":")[0] for line in said if re.match(r"\w+: done in", line)]
    assert ran == list(NOTEBOOKS) and "explore_data: unchanged, kept" in said
    for name in LESSONS:
        held = ws.metrics(name)
        assert held["notebook"] == name and held["values"] and held["versions"]["torch"]
        assert held["parameters"] and held["seconds"] > 0 and held["data"]


@pytest.mark.skipif(not OFFLINE, reason=WHY_ONLINE)
def test_the_report_needs_no_network(smoke):
    """`smoke` ran where there is none; here it is only said, and skipped where it was not so."""
    assert smoke[0].metrics_path("evaluate").is_file()


def test_executed_notebooks_are_kept_with_pages_that_open_offline(smoke):
    ws = smoke[0]
    for name, notebook in NOTEBOOKS.items():
        stem = notebook.path.stem
        executed = nbformat.read(ws.outputs / "notebooks" / f"{stem}.ipynb", as_version=4)
        code = [cell for cell in executed.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        page = (ws.outputs / "notebooks" / f"{stem}.html").read_text()
        assert 'src="http' not in page and "cdnjs" not in page
        folded = re.findall(r"<details>.*?</details>", page, re.S)
        solved = [part for part in folded if "return" in part or "my_initial_loss" in part]
        assert solved or name == "report", f"{name}: the solution is not folded"


def test_every_figure_has_a_picture_and_alt_text(smoke):
    pictures = [p for p in sorted(smoke[0].figures.glob("*.png")) if p.name != "mine.png"]
    assert {"training_process", "performance_summary"} <= {path.stem for path in pictures}
    for path in pictures:
        assert path.stat().st_size > 3_000
        assert len(path.with_suffix(".txt").read_text()) > 40, path.stem


def test_what_is_the_users_stays(smoke):
    assert [(smoke[0].outputs / name).read_text() for name in THEIRS] == ["mine", "mine"]


def test_the_smoke_profile_publishes_nothing(smoke):
    ws, said = smoke
    assert not ws.published.exists()
    made = [Path(line.removeprefix("wrote ")) for line in said if line.startswith("wrote ")]
    assert len(made) == 2
    for path in made:
        assert path.is_file() and ws.outputs in path.parents


SECONDS = {  # beyond the smoke profile's: what makes each notebook short
    "train_causal_lm": {"n_layer": 1, "num_epochs": 0.3},
    "classify_sequences": {"finetune_steps": 2, "scratch_steps": 2, "cnn_epochs": 1},
    "how_to_be_fooled": {"many": 2, "source_rows": 64},
}


def test_the_course_follows_images_of_28x28_pixels(tmp_path, monkeypatch):
    """In this process, where no kernel has to start: the mnist profile on made-up files."""
    monkeypatch.setenv("SEQLM_HOME", str(tmp_path))
    write_idx(tmp_path / "data" / "mnist", 300)
    ws = Workspace("mnist", tmp_path)
    small = pipeline.read_profile(Workspace("smoke", tmp_path), NOTEBOOKS)
    large = pipeline.read_profile(ws, NOTEBOOKS)
    course = [name for name, about in NOTEBOOKS.items() if about.part != "laboratory"]
    for name in course:
        names = large.get(name, {}) | small.get(name, {}) | SECONDS.get(name, {})
        names |= {"profile": "mnist"}
        for cell in nbformat.read(NOTEBOOKS[name].path, as_version=4).cells:
            if "parameters" in cell.metadata.get("tags", ()):
                names = names_of(cell.source) | names
            elif cell.cell_type == "code":
                exec(cell.source, names)
    values = {name: ws.metrics(name)["values"] for name in course if name != "report"}
    assert values["explore_data"]["images"] == {"train": 210, "val": 30, "test": 60}
    assert values["explore_data"]["codes_per_image"] == 49
    assert values["build_tokenizer"]["length"] == {"min": 54, "median": 54, "max": 54}
    assert len(values["evaluate"]["by_position"]["model"]) == 49
    assert len(values["playground"]["surprisal"]) == 49
    assert values["sample"]["completed"]["half image, class given"]["psnr"] > 0


def names_of(source: str) -> dict:
    names: dict = {}
    exec(source, names)
    return names


def test_what_has_not_changed_is_not_run_again(smoke):
    ws = smoke[0]
    done = pipeline.run_pipeline(ws, laboratory=True, log=lambda line: None)
    assert done == dict.fromkeys(NOTEBOOKS, "kept")


def test_the_long_notebooks_are_not_run_unasked_and_old_numbers_of_theirs_are_put_aside(replayed):
    ws, said = replayed, []
    assert pipeline.run_pipeline(ws, log=said.append) == dict.fromkeys(NOTEBOOKS, "kept")
    write_json(ws.metrics_path("competing_models"), {**ws.metrics("competing_models"), "seed": 99})
    done = pipeline.run_pipeline(ws, log=said.append)
    kept = dict.fromkeys(set(NOTEBOOKS) - {"competing_models"}, "kept")
    assert done == {**kept, "report": "ran"}
    assert not ws.metrics_path("competing_models").exists()
    assert any(line.startswith("competing_models: out of date") for line in said)
    assert read_json(ws.outputs / "metrics" / "competing_models.old.json")["seed"] == 99
    assert not (ws.figures / "competing_models.png").exists()
    done = pipeline.run_pipeline(ws, laboratory=True, log=said.append)
    assert done == {**dict.fromkeys(NOTEBOOKS, "kept"), "competing_models": "ran", "report": "ran"}


def test_a_lost_output_is_made_again_and_nothing_else(replayed):
    ws = replayed
    ws.metrics_path("build_tokenizer").unlink()
    done = pipeline.run_pipeline(ws, laboratory=True, log=lambda line: None)
    done.pop("report")  # it runs again when the seconds in that file have changed
    assert done == {**dict.fromkeys(LESSONS, "kept"), "build_tokenizer": "ran"}


def test_what_a_reader_overwrote_is_made_again(replayed):
    ws = replayed
    extra = ws.figures / "no_longer_made.png"
    extra.write_bytes((ws.figures / "drawn_default.png").read_bytes())
    write_json(ws.metrics_path("sample"), {**ws.metrics("sample"), "seed": 99})
    stamp_path = ws.outputs / "notebooks" / "07_sample.json"
    stamp = read_json(stamp_path)
    write_json(stamp_path, {**stamp, "figures": [*stamp["figures"], extra.name]})
    done = pipeline.run_pipeline(ws, laboratory=True, log=lambda line: None)
    done.pop("report")
    assert done == {**dict.fromkeys(LESSONS, "kept"), "sample": "ran"}
    assert ws.metrics("sample")["seed"] != 99
    assert (ws.figures / "drawn_default.png").exists() and not extra.exists()


def test_a_failing_cell_is_named_and_the_notebook_kept(smoke, tmp_path, monkeypatch):
    ws = Workspace("smoke", tmp_path)
    folder = tmp_path / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "smoke.yaml").write_text("")
    for path in notebooks_folder().glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[1:] = [
            cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
        ] + [nbformat.v4.new_code_cell("1 / 0")]
        nbformat.write(notebook, folder / path.name)
    monkeypatch.setattr(workspace, "notebooks_folder", lambda: folder)
    with pytest.raises(PipelineError, match="ZeroDivisionError: division by zero"):
        pipeline.run_pipeline(ws, log=lambda line: None)
    assert (ws.outputs / "notebooks" / "01_explore_data.ipynb").is_file()


def test_a_notebook_opened_first_says_in_one_sentence_what_is_missing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SEQLM_HOME", str(tmp_path))
    shell = InteractiveShell(colors="nocolor")
    shell.run_cell(
        "from seqlm.workspace import Workspace\nWorkspace('smoke').check_inputs('evaluate')"
    )
    said = "".join(capsys.readouterr()).strip()
    assert "run notebook 01_explore_data.ipynb" in said and "Traceback" not in said
    assert len(said.splitlines()) == 1


def test_notebooks_are_clean_and_follow_the_template():
    for path in [notebook.path for notebook in NOTEBOOKS.values()]:
        cells = nbformat.read(path, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        tagged = [c for c in code if "parameters" in c.metadata.get("tags", [])]
        assert len(tagged) == 1 and code[0] is tagged[0], path.name
        assert all("#" in line for line in tagged[0].source.splitlines()), path.name
        assert not any(cell.outputs or cell.execution_count for cell in code), path.name
        assert max(len(cell.source.splitlines()) for cell in code) <= 18, path.name
        text = "\n".join(cell.source for cell in cells)
        for part in ("By the end you can", "Predict, then run", "## Exercise", "What comes next"):
            assert part in text or path.stem == "report", f"{path.name}: {part}"
        defines = re.search(r"(?m)^class \w", "\n".join(cell.source for cell in code))
        assert not defines, f"{path.name}: logic belongs in the package"


def test_metrics_are_plain_json_without_paths_of_this_machine(smoke):
    ws = smoke[0]
    for name in LESSONS:
        text = ws.metrics_path(name).read_text()
        json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
        assert str(ws.root) not in text, name


def test_no_two_notebooks_write_a_figure_of_one_name(smoke):
    stamps = [smoke[0].outputs / "notebooks" / f"{n.path.stem}.json" for n in NOTEBOOKS.values()]
    figures = [name for stamp in stamps for name in read_json(stamp)["figures"]]
    assert len(figures) == len(set(figures)) and not any(name[0].isdigit() for name in figures)


def test_every_link_of_a_notebook_leads_to_a_file():
    for notebook in NOTEBOOKS.values():
        cells = nbformat.read(notebook.path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
        assert not [link for link in links if not (notebook.path.parent / link).exists()]
