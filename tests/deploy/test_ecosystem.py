"""A saved directory under the tools that others know: transformers' pipelines and its server."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline
from transformers.utils.import_utils import is_serve_available

from seqlm.config import SampleConfig
from seqlm.data.tokenizer import build_tokenizer, encode_tokens, save_tokenizer
from seqlm.data.tokens import (
    EOS,
    STRUCTURAL,
    class_token,
    code_token,
    drawing_prompt,
    reading_prompt,
)
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import (
    generate_sentences,
    next_token_probabilities,
    strategy_probabilities,
)
from seqlm.models.gpt2 import build_classifier, build_lm, load_classifier, load_lm

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

RE = re.M | re.S
ROOM = 24  # new tokens; the model has 64 positions


def with_opinions(model):
    """Untrained, but far from indifferent: its weights are larger."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.mul_(2 if "wte" in name else 6)
    return model


@pytest.fixture(scope="module")
def saved(tiny, vocab, tmp_path_factory) -> dict[str, Path]:
    """A language model and a classifier with random weights, as training leaves them."""
    built = {"lm": build_lm(tiny, vocab, seed=3), "classifier": build_classifier(tiny, vocab)}
    directories = {}
    for name, model in built.items():
        directories[name], embedding = tmp_path_factory.mktemp(name), model.transformer.wte.weight
        with_opinions(model)
        with torch.no_grad():  # <EOS> for what would be <CLS_1>: some sentences then end
            embedding[vocab[EOS]] = 1.05 * embedding[vocab[class_token(1)]]
        model.save_pretrained(directories[name])
        save_tokenizer(build_tokenizer(vocab, model_max_length=64), directories[name])
    return directories


@pytest.fixture(scope="module")
def lm(saved):
    return load_lm(saved["lm"])


@pytest.fixture(scope="module")
def write(saved):
    return pipeline("text-generation", model=str(saved["lm"]))


@pytest.fixture(scope="module")
def prompts(vocab) -> list[tuple[str, ...]]:
    """Some of the sentences that go on from them end, and some run on."""
    return [*map(drawing_prompt, range(10)), *[("<IMG>", code_token(k)) for k in range(20)]]


def ours(lm, vocab, tokens, **settings) -> list[str]:
    config = SampleConfig(max_new_tokens=ROOM, **settings)
    return generate_sentences(lm, vocab, [tokens], config)[0]


def theirs(write, tokens, **settings) -> list[str]:
    """As README shows it."""
    (made,) = write(
        " ".join(tokens),
        max_new_tokens=ROOM,
        return_full_text=False,
        skip_special_tokens=False,
        **settings,
    )
    return [*tokens, *made["generated_text"].split()]


def test_the_pipeline_writes_what_greedy_sampling_writes_up_to_the_end(write, lm, vocab, prompts):
    expected = [ours(lm, vocab, tokens, strategy="greedy") for tokens in prompts]
    assert [theirs(write, tokens, do_sample=False) for tokens in prompts] == expected
    ended = [tokens[-1] == EOS for tokens in expected]
    assert any(ended) and not all(ended), "both kinds should be among them"


def test_the_pipeline_finds_what_beam_search_finds(write, lm, vocab, prompts):
    expected = [ours(lm, vocab, tokens, strategy="beam", num_beams=4) for tokens in prompts[:12]]
    found = [theirs(write, tokens, do_sample=False, num_beams=4) for tokens in prompts[:12]]
    assert found == expected
    assert found != [ours(lm, vocab, tokens, strategy="greedy") for tokens in prompts[:12]]


def test_the_pipeline_gives_ids_too_and_they_are_those_of_the_vocabulary(write, lm, vocab, prompts):
    asked = {"max_new_tokens": ROOM, "do_sample": False, "return_tensors": True}
    (made,) = write(" ".join(prompts[3]), **asked)
    expected = ours(lm, vocab, prompts[3], strategy="greedy")
    assert made["generated_token_ids"] == encode_tokens(expected, vocab)
    assert write.tokenizer.convert_ids_to_tokens(made["generated_token_ids"]) == expected


def test_temperature_top_k_and_top_p_mean_the_same_in_the_pipeline(write, lm, vocab):
    n, way = 4000, {"temperature": 1.3, "top_k": 12, "top_p": 0.8}
    made = write(
        "<CLS> <CLS_3> <IMG>",
        max_new_tokens=1,
        num_return_sequences=n,
        do_sample=True,
        return_tensors=True,
        **way,
    )
    counted = Counter(one["generated_token_ids"][-1] for one in made)
    p = next_token_probabilities(lm, encode_tokens(drawing_prompt(3), vocab))
    expected = strategy_probabilities(torch.tensor(p).log()[None], SampleConfig(**way))[0].numpy()
    found = np.array([counted[index] for index in range(len(vocab))]) / n
    assert set(counted) <= set(np.flatnonzero(expected)) and len(counted) > 3
    assert np.all(np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / n))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_classification_pipeline_gives_the_probabilities_of_our_own(saved, vocab, batch_size):
    judge = pipeline("text-classification", model=str(saved["classifier"]), batch_size=batch_size)
    rng = np.random.default_rng(0)
    codes = [[code_token(k) for k in rng.integers(0, 50, size)] for size in (1, 16, 16, 5, 40)]
    rows = [reading_prompt(("<IMG>", *row, "</IMG>", "<CLS>")) for row in codes]
    ids = [encode_tokens(row, vocab) for row in rows]
    expected = class_probabilities(load_classifier(saved["classifier"]), ids)
    answers = judge([" ".join(row) for row in rows], top_k=None)
    found = [{one["label"]: one["score"] for one in answer} for answer in answers]
    told = [[answer[f"LABEL_{k}"] for k in range(10)] for answer in found]
    np.testing.assert_allclose(told, expected, atol=1e-5)
    assert len(set(expected.argmax(1))) > 1


def blocks_of_page(language: str) -> list[str]:
    text = (Path(__file__).parents[2] / "docs/runtimes.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, RE)


def test_the_lines_that_the_page_shows_of_pipelines_run_as_they_stand(saved, capsys):
    (shown,) = [block for block in blocks_of_page("python") if "pipeline(" in block]
    for name, path in (
        ("laptop/best_model", "lm"),
        ("classifier_from_lm/best_model", "classifier"),
    ):
        shown, n = re.subn(rf'"[\w/]*{name}"', repr(str(saved[path])), shown)
        assert n == 1
    exec(shown, {})
    written, judged = capsys.readouterr().out.splitlines()
    assert written.split()[-1] == EOS or len(written.split()) == 18
    assert re.match(r"\{'label': 'LABEL_\d', 'score': 0\.\d+\}", judged)


@dataclass
class Served:
    """`transformers serve` in a process of its own."""

    url: str

    def ask(self, **asked) -> dict:
        body, kind = json.dumps(asked).encode(), {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/completions", body, kind)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def served(saved, tmp_path_factory):
    if not is_serve_available():
        pytest.skip("`transformers serve` needs openai, fastapi, uvicorn and pydantic")
    program = shutil.which("transformers", path=Path(sys.executable).parent)
    if program is None:
        pytest.skip("the command transformers is not beside this Python")
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "serve"
    with log.open("w") as written:
        process = subprocess.Popen(
            [program, "serve", str(saved["lm"]), "--port", str(port)],
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(process, f"http://localhost:{port}/health", log)
        yield Served(f"http://localhost:{port}")
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(process: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:  # nobody listens yet
            time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{log.read_text()}")


def as_completion(sentence: list[str], prompt) -> list[str]:
    """Its text leaves out the structural tokens."""
    return [token for token in sentence[len(prompt) :] if token not in STRUCTURAL]


def test_transformers_serve_completes_as_greedy_sampling_does(served, lm, vocab, prompts):
    reasons = set()
    for tokens in prompts[8::3]:
        expected = ours(lm, vocab, tokens, strategy="greedy")
        said = served.ask(prompt=" ".join(tokens), max_tokens=ROOM, temperature=0)
        (choice,) = said["choices"]
        assert choice["text"].split() == as_completion(expected, tokens)
        assert said["usage"]["prompt_tokens"] == len(tokens)
        assert said["usage"]["total_tokens"] == len(expected)
        reasons.add(choice["finish_reason"])
    assert reasons == {"stop", "length"}


def test_what_readme_asks_transformers_serve_is_answered_greedily_and_by_sampling(
    served, lm, vocab
):
    (shown,) = [block for block in blocks_of_page("sh") if "transformers serve" in block]
    greedy, sampled = map(json.loads, re.findall(r"/v1/completions --json '(.*?)'$", shown, RE))
    prompt = tuple(greedy["prompt"].split())
    expected = generate_sentences(lm, vocab, [prompt], SampleConfig("greedy", max_new_tokens=18))
    said = served.ask(**greedy)["choices"][0]["text"]
    assert said.split() == as_completion(expected[0], prompt)
    texts = [served.ask(**sampled | {"seed": s})["choices"][0]["text"] for s in (1, 1, 2, 3)]
    assert texts[0] == texts[1] and len(set(texts)) == 3
    assert all(token in vocab for text in texts for token in text.split())
