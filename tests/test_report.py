"""The report notebook shows what the metrics files hold; its page opens offline."""

import re
from html.parser import HTMLParser

import nbformat
import pytest
from samples import number, share, values, workspace

from seqlm import pipeline, report
from seqlm.errors import DataError, SeqlmError
from seqlm.evaluation.tables import OURS
from seqlm.utils import read_json, write_text
from seqlm.workspace import notebooks_folder, read_notebooks

pytestmark = pytest.mark.slow

NATS = "nats per token"
LSTM = {"a": "LSTM", "b": OURS, "difference": number(0.4, NATS), "real": True}
MEAN = {"a": "plain | mean", "b": OURS, "difference": number(0.01, NATS, width=2), "real": False}
TUNED = {
    kind: {"code_nll": number(nats, NATS), "accuracy": share(0.9)}
    for kind, nats in (("rotated digits", 3.1), ("upright digits", 2.9))
}
TRAP = {
    "name": "padding counted",
    "quantity": "perplexity",
    "reported": number(1.09, "perplexity"),
    "true": number(143.8, "perplexity"),
    "cause": "Padding is easy.",
}
LABORATORY = {
    "how_to_be_fooled": {
        "traps": {"a": TRAP},
        "table": "| Mistake |\n|---|\n| padding counted |",
        "known_source": {"gap": number(0.0036, NATS)},
    },
    "competing_models": {
        "sequence_models": {"LSTM": {"nll": number(2.87, NATS)}},
        "bits": {"xz": number(95.9, "bits per image")},
        "comparisons": [LSTM, MEAN],
    },
    "fine_tuning": {
        "steps": 100,
        "baseline": "position_ngram",
        "models": {
            "before": TUNED,
            "baseline": {"rotated digits": {"code_nll": number(3.8, NATS)}},
        },
        "table": "| Metric |\n|---|\n| NLL per code, rotated digits |",
        "comparisons": [LSTM],
    },
    "label_efficiency": {
        "curves": {name: {"1": {"mean": share(0.5, 180)}} for name in ("fine-tuned", "SVM")}
    },
    "scale_up": {"curves": {"width": {"sizes": [64, 512], "exponent": number(1.9, "")}}},
    "look_inside": {"table": "| What is changed |\n|---|\n| hide: &lt;IMG> |"},
    "text": {"bits_per_byte": {"xz": number(1.8, "bits per byte")}},
}
TABLE = "| 指标 | Model |||n|\n|---|---|--:|--:|--:|\n" + "| 准确率 | **ours** | 1% | ? | 7 |\n" * 8


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.seen if name == tag]


def run_cells(ws, monkeypatch) -> None:
    """Run the report's code in this process: enough where it is to stop, and no kernel starts."""
    monkeypatch.setenv("SEQLM_HOME", str(ws.root))
    cells = nbformat.read(read_notebooks()["report"].path, as_version=4).cells
    names = {}
    for cell in cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            names["profile"] = ws.profile  # the first cell is that of the parameters


def build(ws):
    """Run the report notebook on a workspace, and export it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQLM_HOME", str(ws.root))  # the kernel's own workspace
        pipeline._run(ws, read_notebooks()["report"], {"profile": ws.profile}, "fingerprint")
    executed = (ws.outputs / "notebooks" / "report.ipynb").read_text()
    assert '"papermill"' in executed and str(notebooks_folder()) not in executed
    report.export_report(ws)
    return ws, (ws.outputs / "report.md").read_text(), (ws.outputs / "report.html").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A report of every notebook, in the profile that publishes, with two READMEs to fill in."""
    ws = workspace(tmp_path_factory.mktemp("whole"))
    for name, measured in LABORATORY.items():
        ws.save_metrics(name, {"seed": 1}, measured, 1.0)
    for name in ("README.md", "README.zh-CN.md"):
        write_text(
            ws.root / name, f"# Top\n\n<!-- results -->\n{TABLE}<!-- /results -->\n\nBottom.\n"
        )
    return build(ws)


@pytest.fixture(scope="module")
def least(tmp_path_factory):
    """A report of as few notebooks as possible, about a model that does not beat its baseline."""
    root = tmp_path_factory.mktemp("least")
    ws = workspace(root, "smoke", ("train_causal_lm", "evaluate"))
    poor = {**values("evaluate"), "below_best_baseline": number(-0.1, "ratio")}
    ws.save_metrics("evaluate", {"seed": 1}, poor, 1.0)
    return build(ws)


def test_the_headline_numbers_come_from_the_metrics_files(whole):
    text = whole[1]
    assert "beats the best baseline" in text and "saves: 13.2% (95 % interval" in text
    for words in ("3.41", "3.93", "6.25", "11,238,912", "28.7 dB", "103,074", "6 layers"):
        assert words in text
    methods = values("classify_sequences")["methods"]
    accuracy = methods[values("classify_sequences")["best_method"]]["accuracy"]["value"]
    assert f"Accuracy on test: {accuracy:.1%}" in text


def test_every_notebook_has_its_part_and_its_table(whole):
    text = whole[1]
    headings = ("## Summary", "## Results", "## Training", "## Reported and correct metrics",
                "## Fine-tuning", "## Competing models", "## Few labels", "## Look inside",
                "## Limits", "## All other figures", "## Run it again")  # fmt: skip
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    assert "Not measured:" not in text
    assert "| padding counted |" in text and "| NLL per code, rotated digits |" in text
    assert "0.004 nats per token" in text, "two decimals would make the gap nought"
    assert re.search(r"\| LSTM \| our GPT \| 0.40 \| .* \| 360 \| yes \|", text)
    assert re.search(r"\| plain \\\| mean \| our GPT \| 0.01 \| .* \| 360 \| no \|", text)
    assert "| bits per image | xz | 95.90 |" in text
    assert "| 1 | 50.0% (" in text
    assert "| width | 64 to 512 | 1.90 (" in text
    assert "| hide: &lt;IMG> |" in text


def test_what_was_not_measured_is_named_and_a_poor_model_not_praised(least):
    text = least[1]
    assert "does not beat the best baseline" in text and "The model beats" not in text
    assert "numbers mean nothing" in text
    assert "Not measured here: 01_explore_data.ipynb, 02_build_tokenizer.ipynb, 03_gpt" in text
    assert text.count("Not measured: run `make laboratory`") == 6


def test_the_page_opens_offline_and_is_readable_by_screen_readers(whole):
    page = whole[2]
    tags = Tags(page)
    assert not tags.all("script") and not tags.all("link") and not tags.all("iframe")
    for _, attributes in tags.seen:
        for name in ("src", "href", "srcset", "data"):
            address = attributes.get(name) or "data:"
            assert not address.startswith(("http", "//", "file", "/"))
    assert "url(" not in page and "@import" not in page
    assert tags.all("html")[0]["lang"] == "en" and "<title>What seqlm measured</title>" in page
    assert len(tags.all("main")) == len(tags.all("h1")) == 1
    pictures = tags.all("img")
    assert len(pictures) == len(tags.all("figure")) == len(tags.all("figcaption")) == 3
    assert all(len(image["alt"]) > 40 and "n = " in image["alt"] for image in pictures)
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in pictures)
    assert {cell.get("scope") for cell in tags.all("th")} == {"col"}
    regions = [division for division in tags.all("div") if division.get("role") == "region"]
    assert len(regions) == len(tags.all("table")) == 10
    assert all(region["aria-label"] and region["tabindex"] == "0" for region in regions)
    assert "ws.show_saved" not in page, "code is left out"


def test_signs_in_an_alt_text_arrive_as_they_were_written(whole):
    ws, text, page = whole
    alt = (ws.figures / "next_tokens.txt").read_text().strip()
    assert '"<IMG>" & <Z_000>' in alt
    assert alt in [image["alt"] for image in Tags(page).all("img")]
    assert r"&" in text and r"\<Z\_000\>" in text


def test_images_are_where_the_markdown_links_to(whole):
    ws = whole[0]
    for place in (ws.outputs, ws.published):
        links = re.findall(r"\]\(([^)]+\.png)\)", (place / "report.md").read_text())
        assert len(links) == 3
        assert all((place / link).is_file() for link in links)


def test_training_data_holds_history_and_metrics(whole):
    ws = whole[0]
    everything = read_json(ws.outputs / "training_data.json")
    assert everything["training"]["history"] and "identity" not in everything["training"]
    assert everything["metrics"]["evaluate"]["values"] == values("evaluate")
    for path in ("training_data.json", "report.md", "report.html"):
        assert str(ws.root) not in (ws.outputs / path).read_text()


@pytest.mark.parametrize("missing", ["train_causal_lm", "evaluate"])
def test_a_missing_notebook_is_named(tmp_path, monkeypatch, missing):
    ws = workspace(tmp_path, "smoke", {"train_causal_lm", "evaluate"} - {missing})
    with pytest.raises(DataError, match=f"run notebook 0._{missing}.ipynb"):
        run_cells(ws, monkeypatch)


def test_only_the_laptop_profile_publishes(whole, least):
    published = {path.name for path in whole[0].published.iterdir()}
    assert {"report.md", "training_data.json", "performance_summary.png"} <= published
    assert "performance_summary.txt" in published
    assert not least[0].published.exists()


def test_a_report_exported_twice_is_the_same(whole):
    ws, text, page = whole
    report.export_report(ws)
    assert (ws.outputs / "report.md").read_text() == text
    assert (ws.outputs / "report.html").read_text() == page


def test_figures_of_an_earlier_run_are_removed_and_nothing_else(whole):
    ws = whole[0]
    made = {path.name for path in ws.published.iterdir()}
    stale, others = {"gone.png", "gone.txt"}, {"photo.png", "notes.txt", "photo.jpg", "table.csv"}
    for name in stale | others:
        write_text(ws.published / name, name)
    report.publish(ws)
    assert {path.name for path in ws.published.iterdir()} == made | others
    ws.metrics_path("fine_tuning").rename(ws.outputs / "fine_tuning.json")
    for name in ("gained_and_lost.png", "gained_and_lost.txt"):
        write_text(ws.published / name, name)
    report.publish(ws)
    assert (ws.published / "gained_and_lost.png").is_file(), "its notebook was not run here"
    (ws.outputs / "fine_tuning.json").rename(ws.metrics_path("fine_tuning"))
    for name in others:
        (ws.published / name).unlink()


def test_readmes_get_their_numbers_between_the_marks_and_keep_the_rest(whole):
    ws = whole[0]
    for name in ("README.md", "README.zh-CN.md"):
        text = (ws.root / name).read_text()
        assert text.startswith("# Top\n\n<!-- results -->\n") and text.endswith("-->\n\nBottom.\n")
        assert "| 指标 | Model |||n|\n" in text and "| 1% |" not in text
        assert (
            len(re.findall(r"\| 准确率 \| \*\*ours\*\* \| [\d.%]+ \| \S+–\S+ \| \d+ \|", text)) == 8
        )
        assert "| **ours** | 3.41 | 3.37–3.45 | 360 |" in text
    report.write_readme_results(ws)
    assert (ws.root / name).read_text() == text


def test_a_row_of_readme_that_was_not_measured_has_dashes(tmp_path):
    ws = workspace(tmp_path, numbers=("train_causal_lm", "evaluate"))
    write_text(tmp_path / "README.md", f"<!-- results -->\n{TABLE}<!-- /results -->")
    assert report.write_readme_results(ws) == [tmp_path / "README.md"]
    assert (tmp_path / "README.md").read_text().count("| **ours** | – | – | – |\n") == 6


@pytest.mark.parametrize(
    "text",
    [
        "<!-- results -->",
        "<!-- /results -->\n<!-- results -->",
        "<!-- results -->\n<!-- /results -->",
        f"<!-- results -->\n{TABLE}| one | more | 1 | 1 | 1 |\n<!-- /results -->",
    ],
)
def test_a_readme_whose_marks_or_rows_are_wrong_is_refused(tmp_path, text):
    ws = workspace(tmp_path, numbers=("train_causal_lm", "evaluate"))
    readme = tmp_path / "README.md"
    write_text(readme, text)
    with pytest.raises(SeqlmError, match="<!-- results -->"):
        report.write_readme_results(ws)
    assert readme.read_text() == text
    write_text(readme, "# No place for a table\n")
    assert report.write_readme_results(ws) == []


def test_the_notebook_calls_the_language_model_as_the_table_does():
    notebook = (notebooks_folder() / "laboratory/competing_models.ipynb").read_text()
    assert OURS in notebook, "the table would list the GPT among its own competing models"


def test_a_figure_without_alt_text_stops_the_report(tmp_path, monkeypatch):
    ws = workspace(tmp_path, "smoke", ("train_causal_lm", "evaluate"))
    (ws.figures / "training_process.txt").unlink()
    with pytest.raises((OSError, SeqlmError), match="training_process.txt"):
        run_cells(ws, monkeypatch)
