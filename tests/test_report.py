"""The report says what the metrics files say, opens offline, and goes only where it may."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from samples import values, workspace
from seqlm.publish import publish, write_readme_results

from seqlm import page, report
from seqlm.errors import DataError, SeqlmError
from seqlm.utils import read_json, write_text


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    ws = workspace(tmp_path_factory.mktemp("root"))
    return ws, report.build_report(ws)


def test_every_file_it_promises_is_written(built):
    ws, written = built
    assert all(path.exists() for path in written.values())
    assert (ws.figures / "performance_summary.txt").read_text().startswith("One page")


def test_the_headline_numbers_come_from_the_metrics_files(built):
    text = built[1]["markdown"].read_text()
    assert "13.2% (95 % interval" in text
    for number in ("3.41", "3.93", "6.25", "11,238,912", "28.7 dB", "103,074"):
        assert number in text
    ours = values("classify_sequences")["methods"][values("classify_sequences")["best_method"]][
        "accuracy"
    ]["value"]
    assert f"{ours:.1%}" in text


def test_every_line_of_the_table_has_a_value_an_interval_and_n(built):
    lines = [x for x in built[1]["markdown"].read_text().splitlines() if x.startswith("| ")]
    assert len(lines) > 25
    for line in lines[1:]:
        measure, whose, value, interval, n = (cell.strip() for cell in line.strip("|").split("|"))
        assert measure and whose
        assert re.fullmatch(r"[\d.,]+%?", value)
        assert re.fullmatch(r"[\d.,]+%? to [\d.,]+%?", interval)
        assert int(n) > 0


def test_a_model_above_the_floor_is_not_praised(tmp_path):
    ws = workspace(tmp_path, "smoke", ("train_causal_lm", "evaluate"))
    poor = values("evaluate")
    poor["below_best_baseline"] = {
        "value": -0.1,
        "low": -0.2,
        "high": -0.01,
        "n": 9,
        "unit": "ratio",
    }
    ws.save_metrics("evaluate", {"seed": 1}, poor, 1.0)
    text = report.build_report(ws)["markdown"].read_text()
    assert "does not beat the best baseline" in text
    assert "fewer nats" not in text
    assert "numbers mean nothing" in text


def test_the_page_opens_offline_and_speaks_to_screen_readers(built):
    page = built[1]["html"].read_text()
    tags = Tags(page)
    assert not tags.all("script") and not tags.all("link") and not tags.all("iframe")
    for _, attributes in tags.found:
        for name in ("src", "href", "srcset", "data"):
            assert not attributes.get(name, "data:").startswith(("http", "//", "file", "/"))
    assert "url(" not in page and "@import" not in page
    assert tags.all("html")[0]["lang"] == "en"
    assert len(tags.all("main")) == len(tags.all("h1")) == 1
    pictures = tags.all("img")
    assert len(pictures) == 3
    assert all(len(img["alt"]) > 40 and "n = " in img["alt"] for img in pictures)
    assert all(img["src"].startswith("data:image/png;base64,iVBOR") for img in pictures)
    assert len(tags.all("figcaption")) == len(pictures)
    assert len(tags.all("caption")) == len(tags.all("table")) == 1
    assert {cell.get("scope") for cell in tags.all("th")} == {"col", "row"}
    assert "prefers-color-scheme: dark" in page


def test_signs_in_an_alt_text_arrive_as_they_were_written(built):
    ws, written = built
    wanted = (ws.figures / "01_next_tokens.txt").read_text().strip()
    assert '"<IMG>" & <Z_000>' in wanted
    alts = [img["alt"] for img in Tags(written["html"].read_text()).all("img")]
    assert wanted in alts


def test_training_data_holds_history_and_metrics_but_no_path_of_this_machine(built):
    ws, written = built
    held = read_json(written["data"])
    assert held["training"]["history"] and held["training"]["evals"]
    assert held["training"]["settings"]["output_dir"] == "outputs/laptop"
    assert held["metrics"]["evaluate"]["values"] == values("evaluate")
    assert held["metrics"]["train_causal_lm"]["parameters"]["cache"] == "data/cache"
    for path in (written["data"], written["markdown"], written["html"]):
        assert str(ws.root) not in path.read_text()


@pytest.mark.parametrize("missing", ["train_causal_lm", "evaluate"])
def test_a_missing_notebook_is_named(tmp_path, missing):
    names = {"train_causal_lm": "03_train_causal_lm", "evaluate": "05_evaluate"}
    ws = workspace(tmp_path, "smoke", [n for n in names if n != missing])
    with pytest.raises(SeqlmError, match=names[missing]):
        report.build_report(ws)


def test_a_figure_without_alt_text_is_refused(tmp_path):
    ws = workspace(tmp_path, "smoke", ("train_causal_lm", "evaluate"))
    (ws.figures / "training_process.txt").unlink()
    with pytest.raises(DataError, match="training_process.txt.*no alt text"):
        report.build_report(ws)


def test_pictures_are_found_from_both_places_of_the_report(built):
    ws, written = built
    for place in (ws.outputs, ws.published):
        links = re.findall(r"\]\(([^)]+\.png)\)", (place / "report.md").read_text())
        assert len(links) == 3
        assert all((place / link).is_file() for link in links)


def test_only_the_laptop_profile_publishes(built, tmp_path):
    published = {path.name for path in built[0].published.iterdir()}
    assert {"report.md", "training_data.json", "performance_summary.png"} <= published
    assert "performance_summary.txt" in published
    ws = workspace(tmp_path, "smoke", ("train_causal_lm", "evaluate"))
    assert "published" not in report.build_report(ws)
    assert publish(ws) is None
    assert not ws.published.exists()


def test_publishing_writes_the_table_of_a_readme_that_has_a_place_for_it(tmp_path):
    ws = workspace(tmp_path, numbers=("train_causal_lm", "evaluate"))
    readme = ws.root / "README.md"
    write_text(readme, "# Top\n\n<!-- results -->\n<!-- /results -->\n")
    report.build_report(ws)
    assert "| Metric |" in readme.read_text()
    write_text(readme, "# No place for a table\n")
    report.build_report(ws)
    assert readme.read_text() == "# No place for a table\n"


def test_figures_of_an_earlier_run_go_and_nothing_else(tmp_path):
    ws = workspace(tmp_path, numbers=("train_causal_lm", "evaluate"))
    report.build_report(ws)
    made = {path.name for path in ws.published.iterdir()}
    stale = {"01_long_gone.png", "01_long_gone.txt"}
    theirs = {"photo.png", "notes.txt", "photo.jpg", "README.md", "table.csv"}
    for name in stale | theirs:
        write_text(ws.published / name, name)
    (ws.published / "more").mkdir()
    for name in ("old.png", "old.txt"):
        write_text(ws.published / "more" / name, name)
    publish(ws)
    assert {path.name for path in ws.published.iterdir()} == made | theirs | {"more"}
    assert len(list((ws.published / "more").iterdir())) == 2
    (ws.figures / "01_next_tokens.png").unlink()
    (ws.figures / "01_next_tokens.txt").unlink()
    report.build_report(ws)
    assert not list(ws.published.glob("01_next_tokens.*"))
    assert "01_next_tokens" not in (ws.published / "report.md").read_text()


def test_a_report_written_twice_is_the_same(built):
    ws, written = built
    before = {name: path.read_bytes() for name, path in written.items() if path.is_file()}
    again = report.build_report(ws)
    assert before == {name: path.read_bytes() for name, path in again.items() if path.is_file()}


def test_readme_gets_its_results_between_the_marks_and_keeps_the_rest(built, tmp_path):
    readme = tmp_path / "README.md"
    write_text(readme, "# Top\n\n<!-- results -->\nold 99%\n<!-- /results -->\n\nBottom.\n")
    write_readme_results(built[0], readme)
    text = readme.read_text()
    assert text.startswith("# Top\n\n<!-- results -->\n") and text.endswith("-->\n\nBottom.\n")
    assert "old 99%" not in text
    assert "| 3.41 | 3.37 to 3.45 | 360 |" in text
    write_readme_results(built[0], readme)
    assert readme.read_text() == text


@pytest.mark.parametrize("text", ["nothing", "<!-- /results -->\n<!-- results -->"])
def test_a_readme_without_marks_is_left_alone(built, tmp_path, text):
    readme = tmp_path / "README.md"
    write_text(readme, text)
    with pytest.raises(SeqlmError, match="<!-- results -->"):
        write_readme_results(built[0], readme)
    assert readme.read_text() == text


def test_the_page_refuses_a_picture_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="gone.png"):
        page.to_html("![words](figures/gone.png)", tmp_path)


def test_values_in_a_table_are_those_of_the_json_files(built):
    held = json.loads(built[0].metrics_path("sample").read_text())["values"]["drawn"]["default"]
    value = held["accuracy"]["value"]
    assert np.isclose(value, 0.93)
    assert f"| **default** | {value:.1%} |" in built[1]["markdown"].read_text()
