"""A model as one HTML file: its JavaScript computes what torch does; what it holds stays data."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from playable import save_model

from seqlm.cli import main
from seqlm.config import DRAWING, DataFiles, SampleConfig
from seqlm.data.corpus import load_corpus
from seqlm.data.tokenizer import load_tokenizer, vocabulary_of
from seqlm.data.tokens import class_ids, drawing_prompt, read_layout, reading_prompt
from seqlm.deploy.export import quantisation_loss
from seqlm.deploy.html_page import PAGE, STATIC, bundle, export_page, pack_weights
from seqlm.errors import ConfigError, DataError, NotFiniteError
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import draw, generate_sentences, strategy_probabilities, token_ids
from seqlm.models.gpt2 import build_classifier, build_lm, load_lm
from seqlm.models.inference import guided_logits
from seqlm.models.tracing import attention_weights, trace

NODE = shutil.which("node")
SCRIPTS = sorted((Path(__file__).parent / "page").glob("*.test.mjs"))
PRECISIONS = ("fp32", "fp16", "int8")


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"))[1])


@pytest.fixture(scope="module")
def lm(tmp_path_factory, opinionated, vocab, built) -> Path:
    """A language model's directory."""
    folder = tmp_path_factory.mktemp("lm") / "best_model"
    return save_model(opinionated(), vocab, folder, built.book)


@pytest.fixture(scope="module")
def pages(lm, tmp_path_factory, vocab, built) -> Path:
    """A folder with a page in each precision, and torch.json: what torch answers."""
    folder = tmp_path_factory.mktemp("pages")
    for precision in PRECISIONS:
        export_page(lm, folder / f"{precision}.html", precision)
    (folder / "torch.json").write_text(json.dumps(answers(load_lm(lm), vocab, built)))
    return folder


def answers(model, vocab, built) -> dict:
    """What torch answers to everything that the scripts in page/ ask of the JavaScript."""
    rng, n = np.random.default_rng(0), 64
    codes = built.book.encode(built.pictures.images[:4])
    layouts = {
        "read": token_ids(read_layout(codes[0], 3), vocab),
        "draw": token_ids((*drawing_prompt(4), *read_layout(codes[1], 0)[1:]), vocab),
        "whole": rng.integers(0, len(vocab), n).tolist(),
    }
    with torch.inference_mode():
        logits = {
            name: model(torch.tensor([ids])).logits[0].tolist() for name, ids in layouts.items()
        }
    return {
        "layouts": layouts,
        "logits": logits,
        "random": [np.random.default_rng(seeds).random(5).tolist() for seeds in ([42, 0], [7, 3])],
        "strategies": strategies(rng),
        "drawings": drawings(model, vocab),
        "images": built.pictures.images[:4].reshape(4, -1).tolist(),
        "codes": codes.tolist(),
        "decoded": built.book.decode(codes).reshape(4, -1).tolist(),
        **reading(model, vocab, codes),
    }


def strategies(rng) -> list[dict]:
    """Logits, some equal and some barred, and what each strategy makes of them."""
    settings = [{"strategy": "greedy"}, {}, {"temperature": 0.3}, {"top_k": 3}, {"top_p": 0.7}]
    settings += [{"temperature": 1.7, "top_k": 5, "top_p": 0.6, "guidance": 2.5}, DRAWING]
    rows = rng.normal(0, 2, (2, 12)).round(1).astype(np.float32)
    rows[:, 4:6] = rows[:, 2:3]
    found = []
    for chosen in settings:
        config = SampleConfig(**chosen)
        logits = guided_logits(*torch.from_numpy(rows)[:, None], config.guidance)
        logits[:, 7] = -torch.inf
        values = {"logits": rows[0].tolist(), "free": rows[1].tolist(), "barred": 7}
        values["settings"] = {"top_k": 0, "top_p": 1, "temperature": 1, "guidance": 1}
        values["settings"] |= {"strategy": "sample", **chosen}
        found.append(values | {"after": strategy_probabilities(logits, config)[0].tolist()})
    return found


def drawings(model, vocab) -> list[dict]:
    """Pictures of all ten digits with each strategy, some of which go on from four codes."""
    settings = [
        {"strategy": "greedy"},
        {"strategy": "greedy", "guidance": 1.5},
        {**DRAWING, "seed": 11},
        {"top_k": 9, "temperature": 1.3, "seed": 5},
        {"strategy": "beam", "num_beams": 3},
        {"strategy": "beam", "num_beams": 2, "guidance": 2.0},
    ]
    found = []
    for number, chosen in enumerate(settings):
        config = SampleConfig(**chosen)
        labels = list(range(10)) if number < 4 else [0, 7]
        start = [] if number % 2 else [3, 30, 12, 7]
        prefix = np.tile(start, (len(labels), 1)).astype(np.int64)
        codes = np.concatenate(
            [draw(model, vocab, [k], 16, config, prefix[:1]) for k in labels]
        )  # each on its own: row 0 of its seed
        full = {f: getattr(config, f) for f in SampleConfig.__dataclass_fields__}
        found.append({"settings": full, "labels": labels, "start": start, "codes": codes.tolist()})
    return found


def reading(model, vocab, codes) -> dict:
    prompts = [token_ids(reading_prompt(read_layout(row, 0)), vocab) for row in codes]
    read = trace(model, vocab, ("<IMG>",), codes[0])
    drawn = trace(model, vocab, drawing_prompt(3), codes[0], SampleConfig(**DRAWING))
    prompt, config = ["<CLS>", "<CLS_2>", "<IMG>"], SampleConfig(top_k=4, seed=3)
    return {
        "classes": class_probabilities(model, prompts, class_ids(vocab)).tolist(),
        "surprisal": read.surprisal.tolist(),
        "after": drawn.after.tolist(),
        "expected": drawn.expected.tolist(),
        "attention": attention_weights(model, prompts[0]).tolist(),
        "text": {"prompt": prompt, "top_k": 4, "seed": 3},
        "sentence": generate_sentences(model, vocab, [prompt], config)[0],
    }


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_javascript_answers_as_torch_does(script, pages):
    done = subprocess.run(
        [NODE, "--test", str(script)],
        env={"SEQLM_PAGES": str(pages), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_packed_weights_are_those_of_the_model_and_each_precision_is_smaller(lm, pages):
    sizes = [(pages / f"{name}.html").stat().st_size for name in PRECISIONS]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    before, model = load_lm(lm), load_lm(lm)
    packed, tensors = pack_weights(model, "int8")
    assert len(tensors) == len(list(model.parameters()))
    weight, rounded = (m.transformer.h[0].mlp.c_fc.weight.detach() for m in (before, model))
    steps = weight.abs().amax(0) / 127  # c_fc is (inputs, outputs) in torch: a scale per column
    assert not torch.equal(weight, rounded)
    assert bool(((weight - rounded).abs() <= steps * 0.5001).all())
    assert torch.equal(before.transformer.ln_f.weight, model.transformer.ln_f.weight)


def test_a_row_of_zeros_survives_int8(lm):
    model = load_lm(lm)
    model.transformer.wpe.weight.data[5] = 0
    pack_weights(model, "int8")
    assert bool((model.transformer.wpe.weight[5] == 0).all())


def test_the_loss_of_int8_is_measured_on_val_rows_and_stands_in_the_page(lm, built, tmp_path):
    rows, page = built.directory / "sequences.jsonl", tmp_path / "int8.html"
    asked = ["--format", "html", "--model_path", str(lm), "--output_file", str(page)]
    assert main(["export", *asked, "--precision", "int8", "--data_path", str(rows)]) == 0
    about, model = data_of(page)["about"], load_lm(lm)
    pack_weights(model, "int8")
    corpus = load_corpus(DataFiles(rows, lm / "vocab.json"), 64)
    loss = quantisation_loss(corpus, lm, model)
    assert about["loss"] == str(loss) and loss.nll.value != 0 and loss.classes is not None
    assert about["precision"].startswith("int8")


def test_the_page_says_which_model_data_and_version_it_holds(lm, pages, tmp_path):
    about = data_of(pages / "fp32.html")["about"]
    assert about["model"].endswith("/best_model") and "seqlm" in about["version"]
    assert about["training rows"] == "not known" and "not measured" in about["loss"]
    learned = shutil.copytree(lm, tmp_path / "learned")
    np.save(learned / "learned.npy", np.arange(3))
    export_page(learned, tmp_path / "known.html")
    known = data_of(tmp_path / "known.html")["about"]
    assert known["training rows"].startswith("sha256 ") and known["weights"] == about["weights"]
    assert str(lm.parent) not in (pages / "fp32.html").read_text("utf-8")


def test_only_the_script_and_the_style_of_the_file_may_run(pages):
    text = (pages / "fp32.html").read_text("utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    script, style = (
        re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1] for tag in ("script", "style")
    )
    digests = [
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        for part in (script, style)
    ]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digests[0]}'; style-src 'sha256-{digests[1]}'; "
        "worker-src blob:; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://|@import|url\(", script + style)


def test_no_module_can_end_the_element_that_it_stands_in():
    for entry in ("main.js", "worker.js"):
        assert not re.search(r"</script|<!--", bundle(PAGE / entry), re.IGNORECASE)


def test_the_page_has_the_playgrounds_own_modules_and_each_module_once():
    script = bundle(PAGE / "main.js")
    for name in ("choice.js", "slider.js", "notice.js", "painting.js"):
        body = (STATIC / name).read_text("utf-8")
        assert max(body.split("\n\n"), key=len) in script and script.count(f'["{name}"] =') == 1
    assert not re.search(r"(?m)^(import|export) ", script)


def test_any_token_is_data_and_comes_back_as_it_was(tmp_path, tiny):
    words = ["<script>", "</script>", "<!--", "$script", "数", '"', "\\u003c"]
    names = ["<PAD>", "<UNK>", "<IMG>", "</IMG>", "<CLS>", "<EOS>", *words]
    vocab = {name: index for index, name in enumerate(names)}
    model = save_model(build_lm(tiny, vocab), vocab, tmp_path / "odd")
    export_page(model, tmp_path / "odd.html")
    data = data_of(tmp_path / "odd.html")
    assert data["tokens"] == list(vocabulary_of(load_tokenizer(model))) == names
    assert data["codebook"] is None
    assert (tmp_path / "odd.html").read_text("utf-8").count("</script>") == 4


def test_a_codebook_whose_images_do_not_fit_is_left_out(tmp_path, opinionated, vocab, built, tiny):
    short = build_lm(replace(tiny, n_positions=18), vocab)
    model = save_model(short, vocab, tmp_path / "short", built.book)
    export_page(model, tmp_path / "short.html")
    assert data_of(tmp_path / "short.html")["codebook"] is None


def test_what_a_page_cannot_compute_or_would_replace_is_refused(lm, tmp_path, tiny, vocab, capsys):
    def refused(model, wanted, error=ConfigError, page="new.html"):
        with pytest.raises(error, match=wanted):
            export_page(model, tmp_path / page)

    spoilt = build_lm(tiny, vocab)
    spoilt.transformer.ln_f.weight.data[0] = torch.nan
    spoilt = save_model(spoilt, vocab, tmp_path / "spoilt")
    refused(spoilt, "logits are not finite numbers", NotFiniteError)
    with pytest.raises(NotFiniteError):
        export_page(spoilt, tmp_path / "new.html", "int8")
    assert not (tmp_path / "new.html").exists()
    classifier = save_model(build_classifier(tiny, vocab), vocab, tmp_path / "classifier")
    refused(classifier, "not a language model", DataError)
    relu = shutil.copytree(lm, tmp_path / "relu")
    config = json.loads((relu / "config.json").read_text("utf-8"))
    (relu / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    refused(relu, "this model has others")
    (tmp_path / "mine.html").write_text("a letter")
    refused(lm, "was not written by seqlm", page="mine.html")
    export_page(lm, tmp_path / "mine.html", overwrite=True)
    export_page(lm, tmp_path / "mine.html", "int8")  # it is ours now
    asked = ["export", "--format", "html", "--model_path", str(tmp_path / "nothing")]
    assert main(asked) == 2 and "no model here" in capsys.readouterr().err
