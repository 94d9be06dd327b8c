"""What clients cannot do to the server, asked in this process, without workers or a network."""

import asyncio
import json
import queue
import string
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litserve.server import BaseRequestHandler
from litserve.utils import LitAPIStatus
from starlette.exceptions import HTTPException

from seqlm.config import ServeConfig
from seqlm.data.tokenizer import build_tokenizer, save_tokenizer
from seqlm.deploy import endpoints, middleware, server
from seqlm.deploy.middleware import Departures, StreamStart
from seqlm.deploy.schemas import MAX_TOKENS, ClassifyRequest, GenerateRequest, NextTokenRequest
from seqlm.errors import ConfigError
from seqlm.models.gpt2 import build_lm

KEY = "sixteen letters!"
PATHS = ("/next-token", "/generate", "/generate/stream", "/classify")


@pytest.fixture(scope="module")
def model_path(tiny, vocab, tmp_path_factory):
    directory = tmp_path_factory.mktemp("lm")
    build_lm(tiny, vocab).save_pretrained(directory)
    save_tokenizer(build_tokenizer(vocab, model_max_length=tiny.n_positions), directory)
    return directory


@pytest.fixture(scope="module")
def ask(model_path):
    """``ask(path, body, headers)`` gives the answer; a request for the workers is answered 503."""

    def build(key: str | None):
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(server.API_KEY, raising=False)
            if key:
                patch.setenv(server.API_KEY, key)
            return server.build_server(ServeConfig(model_path)).app

    apps = {key: build(key) for key in (None, KEY)}

    async def refuse(*_):
        raise HTTPException(503)

    def ask(path, body=b"", headers=None, key=None, method=None) -> Answer:
        sent = {"host": "127.0.0.1", "content-type": "application/json"} | (headers or {})
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method or ("POST" if body else "GET"),
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in sent.items()],
            "client": ("127.0.0.1", 9),
            "server": ("127.0.0.1", 8000),
        }
        news = [{"type": "http.request", "body": body, "more_body": False}]
        start, *parts = exchange(apps[key], news, scope)
        found = {k.decode(): v.decode() for k, v in start["headers"]}
        return Answer(start["status"], found, b"".join(part["body"] for part in parts).decode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseRequestHandler, "_submit_request", refuse)
        yield ask


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    def sentences(self) -> list[str]:
        assert self.status == 422, self
        return [problem["msg"] for problem in json.loads(self.text)["detail"]]


def exchange(app, news: list[dict], scope: dict) -> list[dict]:
    """What `app` sends when it receives `news`, one after the other, then nothing more."""
    waiting, sent = list(news), []

    async def receive():
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    # In a thread of its own: a browser test may have left an event loop in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, app(scope, receive, send)).result()
    return sent


opened = []  # the files opened since the last `clear`, once a test has asked for `opened_files`


@pytest.fixture(scope="module")
def opened_files() -> list:
    sys.addaudithook(lambda event, about: event == "open" and opened.append(about[0]))
    return opened


# --- who may ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_without_a_key_only_this_machines_names_are_answered(ask, host):
    assert ask("/openapi.json", headers={"host": host}).status == 400
    for name in ("localhost:8000", "127.0.0.1:9"):
        assert ask("/openapi.json", headers={"host": name}).status == 200


def test_with_a_key_any_name_is_answered_and_nothing_is_read_without_it(ask):
    for headers in ({}, {"x-api-key": KEY[:-1]}, {"x-api-key": KEY + "!"}, {"x-api-key": "ä"}):
        for path in (*PATHS, "/", "/health", "/info", "/nowhere"):
            answer = ask(path, b"[" * 9, headers, key=KEY)
            assert answer.status == 401, path
            assert json.loads(answer.text)["detail"].startswith("X-API-Key: ")
    answer = ask("/next-token", b"{}", {"x-api-key": KEY, "host": "seqlm.example"}, key=KEY)
    assert answer.sentences() == ["tokens: Field required"]


def test_keys_are_compared_in_constant_time(ask, monkeypatch):
    compared = []
    monkeypatch.setattr(middleware.hmac, "compare_digest", lambda *two: compared.append(two))
    assert ask("/health", headers={"x-api-key": "guess"}, key=KEY).status == 401
    assert compared == [(b"guess", KEY.encode())]


@pytest.mark.parametrize("key", ["k", "fifteen letters", " " * 20, "ends with a space ", "ä" * 20])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_key_that_is_short_or_that_no_header_can_hold_is_refused(
    model_path, monkeypatch, key, host
):
    monkeypatch.setenv(server.API_KEY, key)
    with pytest.raises(ConfigError, match=server.API_KEY):
        server.build_server(ServeConfig(model_path, host=host, port=18_765))


def test_the_docs_need_no_script_and_no_other_page_is_open(ask):
    page = ask("/docs")
    assert page.status == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text and "http" not in page.text
    for path in PATHS:
        assert f"POST {path}<" in page.text
    assert "max_new_tokens" in page.text
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert ask(path).status == 404


# --- what is refused, and how briefly -------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/next-token", {"tokens": [1] * 60_000}),
        ("/next-token", {"tokens": ["<IMG>"] * 100_000}),
        ("/next-token", {"tokens": "x" * 1_000_000}),
        ("/classify", {"rows": [7] * 100_000}),
        ("/classify", {"rows": [[7] * 500] * 250}),
        ("/classify", {"rows": [["<IMG>", 7]] * 256}),
        ("/generate", {f"field {k}": k for k in range(50_000)}),
        ("/generate", {f"{k}": k for k in range(15)}),
        ("/generate", {"tokens": "<IMG>", "strategy": "x" * 1_000_000}),
    ],
)
def test_however_much_is_wrong_the_answer_is_a_few_sentences(ask, path, body):
    answer = ask(path, json.dumps(body).encode())
    assert len(answer.sentences()) <= 5
    assert len(answer.text) < 4096


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (NextTokenRequest, {"tokens": [1] * 1000}),
        (NextTokenRequest, {"tokens": ["<IMG>"] * (MAX_TOKENS + 1)}),
        (ClassifyRequest, {"rows": [7] * 200}),
        (ClassifyRequest, {"rows": ["<IMG>"] * 257}),
        (GenerateRequest, {f"field {k}": k for k in range(50)}),
    ],
)
def test_a_request_is_read_no_further_than_its_first_mistake(kind, body):
    with pytest.raises(ValueError) as caught:
        kind(**body)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" * 100_000, "recursion"),
        (b'{"n": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"tokens": "\xff"}', "utf-8"),
    ],
)
def test_what_no_reader_of_json_can_hold_is_refused_with_a_sentence(ask, body, said):
    (sentence,) = ask("/generate", body).sentences()
    assert sentence.startswith("the body cannot be read as JSON: ") and said in sentence


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_wrong_content_type_is_named(ask, kind):
    (sentence,) = ask("/next-token", b'{"tokens": "<IMG>"}', {"content-type": kind}).sentences()
    assert sentence == f"content-type: send application/json, not {kind or 'no type'}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
fields = ["tokens", "rows", "k", "n", "strategy", "temperature", "seed", "num_beams", "top_p"]
bodies = st.one_of(
    st.binary(max_size=40),
    st.text(alphabet='{}[]",:\\u0d8 1eE+-.', max_size=30).map(str.encode),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(fields), json_values).map(lambda v: json.dumps(v).encode()),
)
quick = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@quick
@given(
    path=st.sampled_from(PATHS),
    body=bodies,
    kind=st.sampled_from(["application/json", "text/plain", "application/json; charset=latin-1"]),
)
def test_any_body_is_answered_or_refused_with_sentences(ask, path, body, kind):
    answer = ask(path, body, {"content-type": kind}, method="POST")
    if answer.status != 503:
        found = answer.sentences()
        assert found and all(found), body
        assert all(said.isprintable() or "\n" in said for said in found)


@quick
@given(
    parts=st.lists(
        st.sampled_from(["..", "%2e%2e", "etc", "passwd", "docs", "generate", "", "."])
        | st.text(string.printable, max_size=5),
        max_size=6,
    ),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
)
def test_no_path_of_a_request_reaches_the_disk(ask, opened_files, parts, method):
    path = "/" + "/".join(parts)
    ask("/openapi.json")  # whatever is imported late is imported by now
    opened_files.clear()
    answer = ask(path, b"{}", method=method)
    assert answer.status in (200, 307, 400, 404, 405, 422), path
    assert opened_files == []


# --- clients that leave, and streams that begin late ----------------------------------------------


SCOPE = {"type": "http", "path": "/generate/stream", "headers": []}
BODY = {"type": "http.request", "body": b"{}", "more_body": False}


@pytest.mark.parametrize("leaves", [True, False])
def test_a_client_that_leaves_is_marked_in_the_place_of_its_own_request(leaves):
    gone, tickets = bytearray(8), []

    async def app(scope, receive, send):
        tickets.append(NextTokenRequest(tokens="<IMG>"))
        await receive()
        for _ in range(5):  # the worker is busy
            await asyncio.sleep(0)

    marked = Departures(app, gone)
    for _ in range(3):
        exchange(marked, [BODY], SCOPE)
    exchange(marked, [BODY, {"type": "http.disconnect"}] if leaves else [BODY], SCOPE)
    assert [request.has_left(gone) for request in tickets] == [False] * 3 + [leaves]


def test_a_worker_leaves_out_requests_whose_clients_have_left(model_path):
    endpoint = endpoints.NextTokenEndpoint("/next-token", model_path)
    endpoint.request_timeout, endpoint.gone = 30, bytearray(8)
    asked = queue.Queue()
    for number in range(4):
        middleware.TICKET.set(number)
        request = NextTokenRequest(tokens="<IMG>")
        asked.put((0, f"request {number}", float("inf"), request))
    endpoint.gone[1] = endpoint.gone[3] = 1
    said = {}

    class Transport:
        def send(self, answer, consumer_id):
            uid, (error, status, *_) = answer
            if status != LitAPIStatus.START:
                said[uid] = (error.status_code, status)

    batch, late = endpoint.loop.get_batch_requests(endpoint, asked, Transport())
    assert [uid for _, uid, _ in batch] == ["request 0", "request 2"] and late == []
    assert said == {f"request {k}": (499, LitAPIStatus.ERROR) for k in (1, 3)}


def test_a_stream_ends_when_its_client_has_left(model_path, monkeypatch):
    monkeypatch.setattr(endpoints.signal, "signal", lambda *_: None)
    endpoint = endpoints.StreamEndpoint("/generate/stream", model_path)
    endpoint.setup("cpu")
    endpoint.gone = bytearray(1)
    middleware.TICKET.set(0)
    request = endpoint.request_type(tokens="<CLS> <CLS_3> <IMG>", strategy="greedy")
    assert len(list(endpoint.predict(request))) > 5
    lines = endpoint.predict(request)
    assert next(lines)["sentence"] == 0
    endpoint.gone[0] = 1
    assert list(lines) == []
    assert list(endpoint.predict(request)) == []


def stream(*chunks: bytes):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return StreamStart(app, "/generate/stream")


def test_a_stream_that_ends_before_its_first_line_has_status_504():
    start, body = exchange(stream(), [], SCOPE)
    assert start["status"] == 504 and json.loads(body["body"]) == {"detail": "Request timed out"}


def test_a_stream_keeps_its_lines_and_names_their_type():
    start, *parts = exchange(stream(b"1\n", b"2\n"), [], SCOPE)
    assert start["status"] == 200
    assert start["headers"] == [(b"content-type", b"application/x-ndjson")]
    assert [part["body"] for part in parts] == [b"1\n", b"2\n", b""]
    other = exchange(stream(b"1\n"), [], SCOPE | {"path": "/generate"})
    assert other[0]["headers"] == [] and len(other) == 3
