"""The trained models that come with the project: whole, as good as their cards say, and used."""

import importlib
import json
import re
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from transformers import AutoTokenizer, GPT2LMHeadModel, GPT2Tokenizer

from seqlm import workspace
from seqlm.cli import main
from seqlm.config import DataConfig
from seqlm.data.build import CODEBOOK, SEQUENCES, load_pictures
from seqlm.data.codebook import PatchCodebook
from seqlm.data.images import load_images, split_indices
from seqlm.data.tokenizer import encode_tokens, load_tokenizer, vocabulary_of
from seqlm.data.tokens import (
    KIND_CODE,
    class_ids,
    code_token,
    draw_layout,
    read_layout,
    reading_prompt,
    token_kinds,
)
from seqlm.deploy.html_page import export_page
from seqlm.evaluation.scores import class_probabilities, score_tokens
from seqlm.models.gpt2 import count_parameters, load_lm
from seqlm.ownership import CARD
from seqlm.plots.style import as_png
from seqlm.utils import read_json, read_text
from seqlm.workspace import NANO8, NANO28, Workspace, read_notebooks

ROOT = Path(__file__).parents[1]
IMAGES = ROOT.parent / "shared" / "mnist-10k"
LARGEST = {NANO8: 2.1e6, NANO28: 4e6}  # bytes
both = pytest.mark.parametrize("directory", [NANO8, NANO28], ids=lambda path: path.name)


@both
def test_it_is_small_and_any_loader_reads_it(directory):
    assert sum(path.stat().st_size for path in directory.iterdir()) < LARGEST[directory]
    model = GPT2LMHeadModel.from_pretrained(directory)  # stored in fp16, computed with in fp32
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert count_parameters(model) == read_json(directory / "metrics.json")["record"]["parameters"]
    for loader in (GPT2Tokenizer, AutoTokenizer):
        ids = loader.from_pretrained(directory)("<CLS> <CLS_7> <IMG> <Z_017> <EOS>").input_ids
        assert ids == [4, 513, 2, 23, 5]


@both
def test_its_card_says_what_its_metrics_file_says(directory, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    metrics = read_json(directory / "metrics.json")
    page = read_text(directory / CARD)
    assert page == importlib.import_module("nano_models").card(metrics)
    accuracy = metrics["images_measured"]["class_token"]["value"]
    assert f"| {accuracy:.1%} |" in page and metrics["command"] in page


def on_val(directory: Path, images_path: Path | None = None) -> tuple[float, float]:
    """NLL per code in both layouts, and accuracy of the class token, on the val images."""
    made = read_json(directory / "metrics.json")["data"]
    images, labels, n_test = load_images(DataConfig(**made, images_path=images_path))
    val = split_indices(labels, n_test=n_test)["val"]
    return measured(directory, images[val], labels[val])


def measured(directory: Path, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    model, vocab = load_lm(directory), vocabulary_of(load_tokenizer(directory))
    codes = PatchCodebook.load(directory / CODEBOOK).encode(images)
    pairs = [*zip(codes, labels.tolist(), strict=True)]
    rows = [layout(*pair) for layout in (read_layout, draw_layout) for pair in pairs]
    scores = score_tokens(model, [encode_tokens(row, vocab) for row in rows])
    prompts = [encode_tokens(reading_prompt(row), vocab) for row in rows[: len(codes)]]
    classes = class_probabilities(model, prompts, class_ids(vocab)).argmax(1)
    nll = scores.of_kind(token_kinds(vocab), KIND_CODE).nll.mean()
    return float(nll), float((classes == labels).mean())


def agrees(directory: Path, numbers: tuple[float, float]) -> None:
    said = read_json(directory / "metrics.json")["val"]
    assert numbers[0] == pytest.approx(said["code_nll"], abs=2e-3)
    assert numbers[1] == pytest.approx(said["class_accuracy"], abs=6e-3)


def test_the_weights_of_nano8_give_the_numbers_of_its_card():
    agrees(NANO8, on_val(NANO8))


@pytest.mark.skipif(not IMAGES.is_dir(), reason=f"{IMAGES}: the 10,000 images are not there")
def test_the_weights_of_nano28_give_the_numbers_of_its_card():
    agrees(NANO28, on_val(NANO28, IMAGES))


def test_nano28_classifies_the_test_images_beside_it():
    images, labels = load_pictures(NANO28).of("test")
    assert np.bincount(labels).tolist() == [10] * 10 and images.shape[1:] == (28, 28)
    nll, accuracy = measured(NANO28, images, labels)
    assert nll < 1.4 and accuracy >= 0.9


def test_infer_draws_a_digit_that_nano28_itself_classifies_as_asked(capsys):
    main(["infer", "--model_path", str(NANO28), "--mode", "generate", "--label", "7", "--json"])
    row = json.loads(capsys.readouterr().out)
    tokens = row["tokens"].split()
    assert tokens[:3] == ["<CLS>", "<CLS_7>", "<IMG>"] and tokens[-2:] == ["</IMG>", "<EOS>"]
    codes = [int(token[3:-1]) for token in tokens[3:-2]]
    assert len(codes) == 49 and [code_token(code) for code in codes] == tokens[3:-2]
    image = PatchCodebook.load(NANO28 / CODEBOOK).decode(np.array([codes]))
    assert measured(NANO28, image, np.array([7]))[1] == 1


def test_the_page_of_nano28_can_be_mailed(tmp_path):
    export_page(NANO28, tmp_path / "digits.html", "fp16")
    assert (tmp_path / "digits.html").stat().st_size < 6e6


# ---------------------------------------------------------------- the profile nano


def test_the_profile_needs_no_training_and_encodes_digits_as_its_model_does(tmp_path, monkeypatch):
    ws = Workspace("nano", tmp_path)
    made = read_json(NANO8 / "metrics.json")
    fewer = made | {"data": made["data"] | {"n_images": 300, "copies": 0}}
    monkeypatch.setattr(workspace.utils, "read_json", lambda path: (
        fewer if path == NANO8 / "metrics.json" else read_json(path)))  # fmt: skip
    for name, notebook in read_notebooks().items():
        if notebook.part == "course" and notebook.number >= 5:
            ws.check_inputs(name)
    assert (ws.best_model, ws.drawing_model) == (NANO8, NANO28)
    centers = (PatchCodebook.load(folder / CODEBOOK).centers for folder in (NANO8, ws.data))
    assert np.array_equal(*centers)
    written = (ws.data / SEQUENCES).stat().st_mtime_ns
    ws.check_inputs("evaluate")
    assert (ws.data / SEQUENCES).stat().st_mtime_ns == written  # not again


def test_the_first_cell_of_each_later_notebook_names_the_model_it_stands_on():
    course = [notebook for notebook in read_notebooks().values() if notebook.part == "course"]
    for notebook in course[4:]:
        first = nbformat.read(notebook.path, as_version=4).cells[0].source
        named = NANO28 if notebook.name == "playground" else NANO8
        assert f"](../models/{named.name}/README.md)" in first, notebook.path.name
        assert 'profile = "nano"' in first and "language model of notebook 4" in first


# ---------------------------------------------------------------- README's pictures


def test_readme_opens_with_what_nano28_draws_and_each_picture_has_its_words():
    for page in ("README.md", "README.zh-CN.md"):
        pictures = re.findall(r"!\[(.+?)\]\((\S+)\)", read_text(ROOT / page))
        assert [path for _, path in pictures[:2]] == [
            "figures/nano/drawn_beside_real.png", "figures/nano/code_by_code.gif",
        ]  # fmt: skip
    for path in (ROOT / "figures" / "nano").iterdir():
        assert path.stat().st_size < 300e3 and len(read_text(path.with_suffix(".txt"))) > 40


def test_the_picture_of_readme_is_of_the_model_that_lies_there(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "bench")
    pictures = importlib.import_module("readme_pictures")
    player = pictures.Player.load(NANO28)
    path = ROOT / "figures" / "nano" / "drawn_beside_real.png"
    figure = pictures.plot_beside_real(*pictures.digits(player))
    assert figure.alt + "\n" == read_text(path.with_suffix(".txt"))
    now, then = (imread(file, format="png") for file in (BytesIO(as_png(figure)), path))
    assert np.abs(now - then).mean() < 0.01  # another machine may round a digit differently
