"""The model behind HTTP, asked as a client would: over the network, many at once, and wrongly."""

import http.client
import json
import logging
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.configuration import set_hypothesis_home_dir
from litserve.utils import configure_logging
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, response_schema_conformance

from seqlm.checked import bounds_of
from seqlm.cli import main
from seqlm.config import DRAWING, SampleConfig
from seqlm.data.tokenizer import build_tokenizer, encode_tokens, save_tokenizer
from seqlm.data.tokens import class_ids, drawing_prompt, reading_prompt
from seqlm.deploy.endpoints import (
    ClassifyEndpoint,
    Endpoint,
    GenerateEndpoint,
    NextTokenEndpoint,
    StreamEndpoint,
    sentence_bytes,
)
from seqlm.errors import DataError
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import generate_sentences, next_token_table
from seqlm.models.gpt2 import build_classifier, build_lm, load_classifier, load_lm

pytestmark = [pytest.mark.slow, pytest.mark.subprocess]

PATIENCE = 300  # seconds for what takes a few where the machine is not busy
KEY = "a key of eleven words that nobody will guess in a hurry"
PROMPT = "<CLS> <CLS_3> <IMG>"
ROW = "<IMG> <Z_001> <Z_002> </IMG> <CLS>"


@pytest.fixture(scope="module")
def saved(tiny, vocab, tmp_path_factory) -> dict[str, Path]:
    """A language model and a classifier with random weights, as training leaves them."""
    built = {"lm": build_lm(tiny, vocab), "classifier": build_classifier(tiny, vocab)}
    tokenizer = build_tokenizer(vocab, model_max_length=tiny.n_positions)
    directories = {}
    for name, model in built.items():
        directories[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(directories[name])
        save_tokenizer(tokenizer, directories[name])
    return directories


@dataclass
class Server:
    """`seqlm serve` in processes of its own."""

    process: subprocess.Popen
    url: str
    key: str | None
    log: Path

    def open(self, path: str, body: bytes | None = None, headers: dict | None = None):
        """An answer to be read, whatever its status."""
        headers = {"X-API-Key": self.key} if self.key and headers is None else headers or {}
        headers = {"content-type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            return urllib.request.urlopen(request, timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            return error

    def ask(self, path: str, **asked):
        with self.open(path, json.dumps(asked).encode()) as answer:
            said = answer.read().decode()
            assert answer.status == 200, said
            return json.loads(said)

    def ask_all(self, asked: list[tuple[str, dict]]) -> list:
        """All at the same time."""
        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(lambda one: self.ask(one[0], **one[1]), asked))

    def refusal(self, path: str, body: bytes) -> tuple[int, list[str]]:
        with self.open(path, body) as answer:
            said = json.loads(answer.read())
            return answer.status, [problem["msg"] for problem in said["detail"]]

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with self.open("/health") as answer:
                    if answer.status == 200:
                        return
            except OSError:  # nobody listens yet
                pass
            time.sleep(0.2)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        finally:
            if self.alive():
                os.killpg(self.process.pid, signal.SIGKILL)

    def alive(self) -> bool:
        """Whether any process of the server's group is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def start(model_path: Path, log: Path, key: str | None = None) -> Server:
    port = free_port()
    words = ["-m", "seqlm", "serve", "--model_path", str(model_path), "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if k != "LIT_SERVER_API_KEY"}
    environment |= {"LIT_SERVER_API_KEY": key} if key else {}
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, *words],
            env=environment,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(process, f"http://127.0.0.1:{port}", key, log)


@pytest.fixture(scope="module")
def servers(saved, tmp_path_factory):
    """One of a language model, and one of a classifier with a key."""
    logs = tmp_path_factory.mktemp("logs")
    started = {
        "lm": start(saved["lm"], logs / "lm"),
        "classifier": start(saved["classifier"], logs / "classifier", KEY),
    }
    try:
        for server in started.values():
            server.wait()
        yield started
    finally:
        for server in started.values():
            server.stop()


@pytest.fixture(scope="module")
def lm(servers) -> Server:
    return servers["lm"]


def prompts_of_all_lengths(n: int) -> list[list[str]]:
    """Mostly drawings begun, from one token to 60."""
    codes = [f"<Z_{k * 7 % 50:03d}>" for k in range(57)]
    heads = [(*drawing_prompt(k % 10), *codes[: k * 57 // n]) for k in range(n - 1)]
    return [["<IMG>"], *map(list, heads)]


def assert_same_table(said: dict, expected) -> None:
    found = {line["token"]: line["probability"] for line in said["table"]}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert len(found) == len(expected)
    for line in expected:
        assert found[line.token] == pytest.approx(line.probability, abs=1e-6)
    assert {line["token"]: line["id"] for line in said["table"]} == {
        line.token: line.id for line in expected
    }


def test_the_next_tokens_are_those_of_generation_alone_and_in_a_mixed_batch(lm, saved, vocab):
    model, tokenizer = load_lm(saved["lm"]), build_tokenizer(vocab)
    prompts = prompts_of_all_lengths(24)
    sizes = [len(vocab) if k % 2 else 1000 for k in range(24)]
    asked = [
        ("/next-token", {"tokens": prompt, "k": k})
        for prompt, k in zip(prompts, sizes, strict=True)
    ]
    together = lm.ask_all(asked)
    for prompt, said in zip(prompts, together, strict=True):
        ids = encode_tokens(prompt, vocab)
        assert_same_table(said, next_token_table(model, tokenizer, ids, len(vocab)))
    alone = lm.ask("/next-token", tokens=PROMPT)
    assert_same_table(
        alone, next_token_table(model, tokenizer, encode_tokens(PROMPT.split(), vocab))
    )


@pytest.fixture
def worker(saved, monkeypatch) -> Callable[[type[Endpoint]], Endpoint]:
    """An endpoint of the language model as a worker holds it, without HTTP."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # a worker ignores Ctrl-C; tests do not

    def ready(kind: type[Endpoint]) -> Endpoint:
        endpoint = kind("/asked", saved["lm"])
        endpoint.setup("cpu")
        return endpoint

    return ready


def test_a_batch_of_different_lengths_is_answered_as_each_alone(worker):
    endpoint = worker(NextTokenEndpoint)
    asked = [endpoint.request_type(tokens=prompt, k=66) for prompt in prompts_of_all_lengths(7)]
    for one, answer in zip(asked, endpoint.predict(asked), strict=True):
        (alone,) = endpoint.predict([one])
        expected = {line.token: line.probability for line in alone["table"]}
        found = {line.token: line.probability for line in answer["table"]}
        assert found == pytest.approx(expected, abs=1e-6)


SETTINGS = [
    {"n": 3},
    {"n": 1},
    {"n": 2, "seed": 7},
    {"n": 2, "strategy": "greedy"},
    {"n": 2, "guidance": 1, "temperature": 1.0, "top_p": 1},
    {"n": 2, "guidance": 3.5, "top_k": 5},
    {"n": 1, "max_new_tokens": 1},
    {"n": 2, "max_new_tokens": 9, "temperature": 100},
    {"n": 2, "strategy": "beam"},
    {"n": 1, "strategy": "beam", "num_beams": 7, "guidance": 1, "max_new_tokens": 12},
    {"n": 1, "strategy": "beam", "num_beams": 3, "guidance": 4.0, "seed": 3},
]


def directly(model, vocab, tokens: list[str], asked: dict) -> list[list[str]]:
    """What sampling.py makes of a request."""
    given = {**DRAWING, **asked}
    n = given.pop("n", 1)
    return generate_sentences(model, vocab, [tokens] * n, SampleConfig(**given))


def test_sentences_are_those_of_generation_alone_and_in_a_mixed_batch(lm, saved, vocab):
    model = load_lm(saved["lm"])
    prompts = [PROMPT, "<CLS> <CLS> <IMG>", "<IMG>", f"{PROMPT} <Z_001> <Z_002>"]
    asked = [(tokens.split(), setting) for tokens in prompts for setting in SETTINGS]
    expected = [directly(model, vocab, tokens, setting) for tokens, setting in asked]
    said = lm.ask_all([("/generate", {"tokens": t, **setting}) for t, setting in asked])
    assert [one["sentences"] for one in said] == expected
    alone = [lm.ask("/generate", tokens=t, **setting) for t, setting in asked[: len(SETTINGS)]]
    assert [one["sentences"] for one in alone] == expected[: len(SETTINGS)]


WAYS = [
    {},
    {"strategy": "greedy"},
    {"strategy": "beam", "num_beams": 3},
    {"guidance": 1},
    {"max_new_tokens": 6, "top_k": 4},
]


def test_clients_with_equal_settings_but_other_prompts_and_seeds_get_their_own_answers(
    lm, saved, vocab
):
    model, prompts = load_lm(saved["lm"]), prompts_of_all_lengths(8)
    asked = [
        (tokens, {"n": 1 + place % 3, "seed": seed, "max_new_tokens": 5, **way})
        for place, tokens in enumerate(prompts)
        for seed, way in zip((1, 1, 2, 3, place), WAYS, strict=True)
        if len(tokens) < 59
    ]
    expected = [directly(model, vocab, tokens, setting) for tokens, setting in asked]
    said = lm.ask_all([("/generate", {"tokens": t, **setting}) for t, setting in asked])
    assert [one["sentences"] for one in said] == expected
    assert len({json.dumps(sentences) for sentences in expected}) > len(asked) // 2


def calls_of(endpoint: Endpoint, requests: list) -> int:
    """How often the model is called to answer them as one batch."""
    seen = []
    counting = endpoint.model.register_forward_pre_hook(lambda *_: seen.append(1))
    endpoint.predict(requests)
    counting.remove()
    return len(seen)


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_of_like_settings_calls_the_model_no_more_often_than_its_longest_alone(worker, way):
    endpoint = worker(GenerateEndpoint)
    requests = [
        endpoint.request_type(tokens=f"<CLS> <CLS_{k}> <IMG>", seed=k, n=1 + k % 3, **way)
        for k in range(10)
    ]
    alone = [calls_of(endpoint, [request]) for request in requests]
    assert calls_of(endpoint, requests) == max(alone) < sum(alone)


def test_the_bytes_of_a_sentence_are_those_of_the_models_cache(worker):
    endpoint = worker(GenerateEndpoint)
    request = endpoint.request_type(tokens=PROMPT, strategy="beam", num_beams=5, max_new_tokens=8)
    sizes = []

    def kept(module, given, named, output) -> None:
        layers = output.past_key_values.layers
        sizes.append(sum(part.nbytes for layer in layers for part in (layer.keys, layer.values)))

    watching = endpoint.model.register_forward_hook(kept, with_kwargs=True)
    endpoint.predict([request])
    watching.remove()
    # The last token is never read, so it keeps nothing.
    expected = sentence_bytes(endpoint.config, request.tokens, request.config()) * 10 // 11
    assert max(sizes) == expected
    plain = replace(request.config(), guidance=1.0, strategy="greedy")
    assert sentence_bytes(endpoint.config, request.tokens, plain) * 10 // 11 == expected // 10


def test_a_batch_that_would_need_too_much_memory_is_generated_in_parts(worker, monkeypatch):
    endpoint = worker(GenerateEndpoint)
    requests = [
        endpoint.request_type(tokens=f"<CLS> <CLS_{k}> <IMG>", n=3, max_new_tokens=9)
        for k in range(8)
    ]
    whole, calls = endpoint.predict(requests), calls_of(endpoint, requests)
    one = sentence_bytes(endpoint.config, PROMPT.split(), requests[0].config())
    monkeypatch.setattr("seqlm.deploy.endpoints.MEMORY", 7 * one)
    assert endpoint.predict(requests) == whole
    assert calls_of(endpoint, requests) > 3 * calls  # 24 sentences, 7 at a time


@pytest.mark.parametrize("kind", [GenerateEndpoint, StreamEndpoint])
def test_a_request_that_could_need_too_much_memory_is_refused(worker, monkeypatch, kind):
    endpoint = worker(kind)
    monkeypatch.setattr(endpoint.config, "n_layer", 12)
    monkeypatch.setattr(endpoint.config, "n_embd", 768)
    monkeypatch.setattr(endpoint.config, "n_positions", 1024)  # now it is the smallest GPT-2
    large = {"tokens": PROMPT, "strategy": "beam", "num_beams": 64}
    said = r"^n: these sequences may need 9\.0 GiB of memory, and 4\.0 are allowed; lower n, "
    for asked in (large, {"tokens": PROMPT, "n": 64}):
        with pytest.raises(DataError, match=said):
            endpoint.check(endpoint.request_type(**asked))
        endpoint.check(endpoint.request_type(**asked, max_new_tokens=400))
        endpoint.check(endpoint.request_type(**asked | {"n": 1, "num_beams": 28}))


def streamed(server: Server, **asked) -> tuple[list[list[str]], dict]:
    """The tokens told of each sentence, in the order they came, and the last line."""
    with server.open("/generate/stream", json.dumps(asked).encode()) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer]
    told = [[] for _ in range(asked.get("n", 1))]
    for line in lines[:-1]:
        assert set(line) == {"sentence", "token"}
        told[line["sentence"]].append(line["token"])
    return told, lines[-1]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_stream_sends_the_tokens_of_generation_and_ends_with_the_whole_answer(
    lm, saved, vocab, setting
):
    expected = directly(load_lm(saved["lm"]), vocab, PROMPT.split(), setting)
    told, last = streamed(lm, tokens=PROMPT, **setting)
    assert last == {"sentences": expected}
    assert [PROMPT.split() + tokens for tokens in told] == expected


def test_a_stream_leaves_out_what_is_written_after_the_end_of_a_shorter_sentence(lm):
    told, last = streamed(lm, tokens="<CLS> <CLS> <IMG>", n=64, temperature=100)
    lengths = {len(tokens) for tokens in told}
    assert len(lengths) > 5, "some of 64 sentences of a random model should end early"
    assert all("<EOS>" not in tokens[:-1] for tokens in told)
    assert [["<CLS>", "<CLS>", "<IMG>", *tokens] for tokens in told] == last["sentences"]


def test_a_stream_begins_before_it_is_done(lm):
    asked = {"tokens": PROMPT, "n": 64, "guidance": 1.5, "temperature": 0.05}

    def begins_early() -> bool:
        began = time.monotonic()
        with lm.open("/generate/stream", json.dumps(asked).encode()) as answer:
            answer.readline()
            first = time.monotonic() - began
            answer.read()
        return first < (time.monotonic() - began) / 2

    # On a busy machine a client may sleep through the beginning; one that is kept back never is.
    assert any(begins_early() for _ in range(5))


def rows_to_classify(built, n: int) -> list[list[str]]:
    lines = (built.directory / "sequences.jsonl").read_text().splitlines()
    rows = [json.loads(line)["tokens"].split() for line in lines]
    return [row for row in rows if row[0] == "<IMG>"][:n]


@pytest.mark.parametrize("kind", ["lm", "classifier"])
def test_class_probabilities_are_those_of_classes_alone_and_in_a_mixed_batch(
    servers, saved, built, vocab, kind
):
    rows = [*rows_to_classify(built, 20), ROW.split(), ["<IMG>", "</IMG>", "<CLS>"]]
    prompts = [encode_tokens(reading_prompt(row), vocab) for row in rows]
    if kind == "lm":
        expected = class_probabilities(load_lm(saved["lm"]), prompts, class_ids(vocab))
    else:
        expected = class_probabilities(load_classifier(saved["classifier"]), prompts)
    split = [rows[:1], rows[1:9], rows[9:11], rows[11:], rows]
    together = servers[kind].ask_all([("/classify", {"rows": part}) for part in split])
    found = [opinion["probabilities"] for said in together[:4] for opinion in said["rows"]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    whole = [opinion["probabilities"] for opinion in together[4]["rows"]]
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    alone = servers[kind].ask("/classify", rows=[" ".join(rows[2])])["rows"][0]
    np.testing.assert_allclose(alone["probabilities"], expected[2], atol=1e-6)
    assert alone["predicted"] == expected[2].argmax()


def test_a_classifier_alone_can_only_classify(servers):
    with servers["classifier"].open("/generate", b"{}") as answer:
        assert answer.status == 404


LONG = " ".join(["<IMG>", *["<Z_001>"] * 61, "</IMG>", "<CLS>"])
MISTAKES = [
    ("/next-token", {"tokens": "<IMG> <NOPE>"}, "tokens: '<NOPE>' is not in the vocabulary"),
    ("/next-token", {"tokens": ["<IMG> <IMG>"]}, "tokens: '<IMG> <IMG>' is not in the vocabulary"),
    ("/next-token", {"tokens": ""}, "tokens: List should have at least 1 item"),
    ("/next-token", {"tokens": []}, "tokens: List should have at least 1 item"),
    ("/next-token", {"tokens": [4]}, "tokens.0: Input should be a valid string"),
    ("/next-token", {"tokens": ["<IMG>"] * 65}, "tokens: a prompt of 65 tokens does not fit"),
    ("/next-token", {}, "tokens: Field required"),
    ("/next-token", {"tokens": PROMPT, "k": 0}, "k: Input should be greater than or equal to 1"),
    ("/next-token", {"tokens": PROMPT, "k": 1001}, "k: Input should be less than or equal to 1000"),
    ("/next-token", {"tokens": PROMPT, "top": 3}, "top: Extra inputs are not permitted"),
    ("/next-token", [PROMPT], "Input should be a valid dictionary"),
    ("/next-token", {"tokens": ["\ud800"]}, "tokens: '\\ud800' is not in the vocabulary"),
    ("/generate", {"tokens": PROMPT, "\udfff": 1}, "Input should be a valid"),
    ("/generate", {"tokens": "<IMG> <NOPE>"}, "tokens: '<NOPE>' is not in the vocabulary"),
    ("/generate", {"tokens": PROMPT, "n": 0}, "n: Input should be greater than or equal to 1"),
    ("/generate", {"tokens": PROMPT, "n": 65}, "n: Input should be less than or equal to 64"),
    ("/generate", {"tokens": PROMPT, "n": True}, "n: Input should be a valid integer"),
    ("/generate", {"tokens": PROMPT, "n": "2"}, "n: Input should be a valid integer"),
    ("/generate", {"tokens": PROMPT, "n": 2.0}, "n: Input should be a valid integer"),
    (
        "/generate",
        {"tokens": PROMPT, "strategy": "best"},
        "strategy: Input should be 'sample', 'greedy' or 'beam'",
    ),
    ("/generate", {"tokens": PROMPT, "num_beams": 0}, "num_beams: Input should be greater"),
    ("/generate", {"tokens": PROMPT, "num_beams": 65}, "num_beams: Input should be less"),
    (
        "/generate",
        {"tokens": PROMPT, "strategy": "beam", "n": 13, "num_beams": 5},
        "n: 13 times 5 beams is 65, and a request may have 64 in all; lower n or num_beams",
    ),
    (
        "/generate/stream",
        {"tokens": PROMPT, "strategy": "beam", "n": 64},
        "n: 64 times 4 beams is 256, and a request may have 64 in all; lower n or num_beams",
    ),
    ("/generate", {"tokens": PROMPT, "temperature": 0}, "temperature: Input should be greater"),
    ("/generate", {"tokens": PROMPT, "temperature": 101}, "temperature: Input should be less"),
    ("/generate", {"tokens": PROMPT, "temperature": float("nan")}, "temperature: Input should be"),
    ("/generate", {"tokens": PROMPT, "temperature": "1"}, "temperature: Input should be a valid"),
    ("/generate", {"tokens": PROMPT, "top_p": 0}, "top_p: Input should be greater"),
    ("/generate", {"tokens": PROMPT, "top_p": 1.01}, "top_p: Input should be less"),
    ("/generate", {"tokens": PROMPT, "top_k": -1}, "top_k: Input should be greater"),
    ("/generate", {"tokens": PROMPT, "top_k": 2**64}, "top_k: Input should be less"),
    ("/generate", {"tokens": PROMPT, "guidance": 20.1}, "guidance: Input should be less"),
    ("/generate", {"tokens": PROMPT, "seed": -1}, "seed: Input should be greater"),
    ("/generate", {"tokens": PROMPT, "max_new_tokens": 0}, "max_new_tokens: Input should be"),
    ("/generate", {"tokens": PROMPT, "max_new_tokens": 63}, "do not fit the model's 64 positions"),
    ("/generate/stream", {"tokens": "<NOPE>"}, "tokens: '<NOPE>' is not in the vocabulary"),
    ("/generate/stream", {"tokens": PROMPT, "n": 65}, "n: Input should be less"),
    ("/classify", {"rows": []}, "rows: List should have at least 1 item"),
    ("/classify", {"rows": [ROW] * 257}, "rows: List should have at most 256 items"),
    ("/classify", {"rows": [ROW, "<IMG> <NOPE> </IMG> <CLS>"]}, "rows.1: '<NOPE>' is not in"),
    ("/classify", {"rows": [ROW, ROW, "<IMG> <Z_001>"]}, "rows.2: a row can be classified"),
    ("/classify", {"rows": ["<CLS> <CLS_3> <IMG> </IMG> <CLS>"]}, "rows.0: <CLS_3> comes before"),
    ("/classify", {"rows": [LONG]}, "rows.0: 64 tokens up to its last <CLS>"),
]


@pytest.mark.parametrize(("path", "asked", "said"), MISTAKES)
def test_a_mistake_is_answered_with_422_and_a_sentence_that_names_it(lm, path, asked, said):
    status, sentences = lm.refusal(path, json.dumps(asked).encode())
    assert status == 422
    assert len(sentences) == 1 and said in sentences[0]


@pytest.mark.parametrize("body", [b"", b"{", b'{"tokens": nothing}'])
def test_what_is_no_json_is_answered_with_422(lm, body):
    status, sentences = lm.refusal("/generate", body)
    assert status == 422 and len(sentences) == 1


def test_a_body_that_is_too_large_is_refused(lm):
    with lm.open("/classify", json.dumps({"rows": [ROW * 150_000]}).encode()) as answer:
        assert answer.status == 413


def test_the_most_that_may_be_asked_is_answered(lm):
    rows = lm.ask("/classify", rows=[ROW] * 256)["rows"]
    assert len(rows) == 256 and all(row == rows[0] for row in rows)
    longest = LONG.split()[:62]
    assert len(lm.ask("/generate", tokens=longest, n=64, max_new_tokens=3)["sentences"]) == 64
    assert len(lm.ask("/generate", tokens=PROMPT, n=64, num_beams=64)["sentences"]) == 64
    for n in (1, 16, 64):
        widest = {"strategy": "beam", "n": n, "num_beams": 64 // n, "guidance": 20}
        assert len(lm.ask("/generate", tokens=PROMPT, **widest)["sentences"]) == n
    assert len(lm.ask("/next-token", tokens=["<IMG>"] * 64)["table"]) == 10


def test_a_mistake_changes_no_other_answer(lm):
    asked = [{"tokens": PROMPT if k % 2 else "<NOPE>"} for k in range(16)]

    def status(one: dict) -> int:
        with lm.open("/next-token", json.dumps(one).encode()) as answer:
            return answer.status

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(status, asked)) == [422, 200] * 8


def test_nothing_is_answered_without_the_key(servers):
    server = servers["classifier"]
    body = json.dumps({"rows": [ROW]}).encode()
    for path, asked in (("/classify", body), ("/health", None), ("/info", None)):
        for headers, status in (({}, 401), ({"X-API-Key": "guess"}, 401), (None, 200)):
            with server.open(path, asked, headers) as answer:
                assert answer.status == status, (path, headers)


def test_a_server_of_this_machine_alone_listens_nowhere_else(lm):
    port = int(lm.url.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_no_client_file_is_left_in_the_working_folder(lm):
    assert not Path("client.py").exists()


@pytest.fixture(scope="module")
def api(lm, vocab, tmp_path_factory):
    """The server's own OpenAPI, with the vocabulary told, so that some of it reaches the model."""
    set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))  # else in the working folder
    with lm.open("/openapi.json") as answer:
        described = json.loads(answer.read())
    asked = described["components"]["schemas"]
    known = {"type": "array", "items": {"enum": sorted(vocab)}, "minItems": 1, "maxItems": 6}
    for name in ("NextTokenRequest", "GenerateRequest"):
        text, tokens = asked[name]["properties"]["tokens"]["anyOf"]
        assert (text["type"], tokens["type"]) == ("string", "array")
        asked[name]["properties"]["tokens"] = known
    assert "anyOf" in asked["ClassifyRequest"]["properties"]["rows"]["items"]
    asked["ClassifyRequest"]["properties"]["rows"]["items"] = {"enum": [ROW, ROW.split()]}
    schema = schemathesis.openapi.from_dict(described)
    schema.config.update(base_url=lm.url)
    return schema


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", ["/next-token", "/generate", "/generate/stream", "/classify"])
def test_what_its_openapi_allows_or_forbids_is_never_a_server_error(api, path, mode):
    checks = [not_a_server_error, response_schema_conformance, negative_data_rejection]
    statuses = set()

    @settings(
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=api[path]["POST"].as_strategy(generation_mode=mode))
    def ask(case):
        statuses.add(case.call_and_validate(checks=checks, timeout=PATIENCE).status_code)

    ask()
    assert (200 in statuses) is (mode is GenerationMode.POSITIVE), statuses


def test_the_docs_name_every_question_and_what_it_takes(lm):
    with lm.open("/openapi.json") as answer:
        described = json.loads(answer.read())
    for path in ("/next-token", "/generate", "/generate/stream", "/classify"):
        assert described["paths"][path]["post"]["summary"] != "Endpoint Handler"
    asked = described["components"]["schemas"]["GenerateRequest"]
    assert asked["additionalProperties"] is False
    for name in (
        "num_beams",
        "temperature",
        "top_k",
        "top_p",
        "guidance",
        "max_new_tokens",
        "seed",
    ):
        low, high = bounds_of(SampleConfig, name)
        (number,) = [
            kind
            for kind in asked["properties"][name].get("anyOf", [asked["properties"][name]])
            if kind["type"] != "null"
        ]
        assert number["minimum"] == low
        assert number["maximum"] == (2**53 if high is None else high)
    defaults = {name: found.get("default") for name, found in asked["properties"].items()}
    for name, value in DRAWING.items():
        assert defaults[name] == value


REFUSALS = [
    ("--host 0.0.0.0", "LIT_SERVER_API_KEY"),
    ("--host ::", "LIT_SERVER_API_KEY"),
    ("--port 80", "port: must be between 1024 and 65535, got 80"),
    ("--port TAKEN", "is not available (Address already in use)"),
    ("--workers 0", "workers: must be between 1 and 64, got 0"),
    ("--timeout 0", "timeout: must be between 1 and 86400, got 0"),
    ("--model_path nowhere", "nowhere: no model here"),
    ("--classifier_path LM", "holds a language model; `seqlm classify` trains a classifier"),
    ("--model_path CLASSIFIER --classifier_path CLASSIFIER", "holds a classifier, and"),
    ("--model_path DAMAGED", "these weights cannot be loaded"),
]


@pytest.mark.parametrize("key", [None, ""])
@pytest.mark.parametrize(("words", "named"), REFUSALS)
def test_what_cannot_be_served_is_refused_in_one_sentence_with_exit_code_2(
    words, named, key, saved, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("LIT_SERVER_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("LIT_SERVER_API_KEY", key)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in saved["lm"].iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "model.safetensors").write_bytes(b"none")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        places = {
            "TAKEN": str(taken.getsockname()[1]),
            "LM": str(saved["lm"]),
            "CLASSIFIER": str(saved["classifier"]),
            "DAMAGED": str(damaged),
        }
        given = [places.get(word, word) for word in words.split()]
        defaults = ["--model_path", places["LM"], "--port", str(free_port())]
        assert main(["serve", *defaults, *given]) == 2
    said = capsys.readouterr()
    assert named in said.err and len(said.err.strip().splitlines()) == 1
    assert not said.out


def test_without_litserve_the_error_says_how_to_install_it(monkeypatch, capsys):
    for name in ("seqlm.deploy.server", "seqlm.deploy.endpoints", "seqlm.deploy.schemas"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "litserve", None)
    assert main(["serve"]) == 2
    assert re.search(r"the package litserve.*\[serve\]", capsys.readouterr().err)


def gone(server: Server) -> bool:
    deadline = time.monotonic() + PATIENCE
    while server.alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not server.alive()


def ask_in_vain(server: Server) -> None:
    """One question after another, until the server has gone."""
    rows = [[*drawing_prompt(3), *["<Z_001>"] * 40, "<CLS>"]] * 200
    with suppress(OSError, http.client.HTTPException):
        while server.open("/classify", json.dumps({"rows": rows}).encode()).read():
            pass


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # nobody may have asked for its exit code
    except psutil.NoSuchProcess:
        return True


def test_no_process_outlives_a_server_that_is_killed_at_once(saved, tmp_path):
    server = start(saved["classifier"], tmp_path / "log")
    try:
        server.wait()
        started = psutil.Process(server.process.pid).children(recursive=True)
        # A worker, the manager of the queues, the process that answers HTTP.
        assert len(started) >= 3
        asking = Thread(target=lambda: ask_in_vain(server))
        asking.start()
        time.sleep(0.3)  # it computes
        server.process.kill()
        server.process.wait(PATIENCE)
        asking.join(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while not all(map(ended, started)) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = [process for process in started if not ended(process)]
        assert not left
        assert "Traceback" not in server.log.read_text()
        with socket.socket() as trial:  # the next server can have the port
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", int(server.url.rpartition(":")[2])))
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("stopped", "code"), [("all by Ctrl-C", 0), ("the first", 0), ("the workers", 2)]
)
def test_a_server_that_is_stopped_while_it_starts_ends_in_order(saved, tmp_path, stopped, code):
    server = start(saved["lm"], tmp_path / "log")
    try:
        workers = []
        deadline = time.monotonic() + PATIENCE
        while len(workers) < 4 and time.monotonic() < deadline:  # the last waits in `import torch`
            time.sleep(0.05)
            started = psutil.Process(server.process.pid).children()
            workers = [each for each in started if "spawn_main" in " ".join(each.cmdline())]
        if stopped == "all by Ctrl-C":
            os.killpg(server.process.pid, signal.SIGINT)
        else:
            for process in workers if stopped == "the workers" else [server.process]:
                process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == code
        assert gone(server)
        said = server.log.read_text()
        assert said.startswith("serving ") and "Traceback" not in said
        assert len(said.splitlines()) == (3 if code else 2), said
        assert ("seqlm serve: a worker stopped unexpectedly" in said) == bool(code)
    finally:
        server.stop()


@pytest.mark.parametrize("gone", [True, False])
def test_a_worker_says_nothing_more_once_its_server_has_gone(saved, monkeypatch, capsys, gone):
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # put back in the end
    endpoint = ClassifyEndpoint("/classify", saved["classifier"])
    endpoint.server = os.getpid() + 1 if gone else os.getpid()
    try:
        received = pickle.loads(pickle.dumps(endpoint))
        logging.getLogger("litserve.loops").error("the queue has gone")
        print("and so has all else", file=sys.stderr)
    finally:
        configure_logging()
    said = "".join(capsys.readouterr())
    assert received.vocab == endpoint.vocab
    assert ("the queue has gone" in said) == ("and so has all else" in said) == (not gone)


# The last two, because they stop the servers that others ask.
def test_kill_ends_every_process_of_the_server_without_output(servers):
    server = servers["classifier"]
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0
    assert gone(server)
    said = server.log.read_text()
    assert said.startswith("serving ") and len(said.splitlines()) == 2, said


@pytest.mark.skipif(shutil.which("ps") is None, reason="ps is not installed")
def test_a_worker_that_is_lost_ends_the_server_with_a_sentence(lm):
    listed = subprocess.run(["ps", "-wweo", "pid=,pgid=,args="], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    group = str(lm.process.pid)
    workers = [int(pid) for pid, of, words in rows if of == group and "spawn_main" in words]
    os.kill(workers[0], signal.SIGKILL)
    assert lm.process.wait(PATIENCE) == 2
    assert gone(lm)
    said = lm.log.read_text()
    assert "seqlm serve: a worker stopped unexpectedly" in said and "Traceback" not in said
