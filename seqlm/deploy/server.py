"""`seqlm serve`: a trained model behind HTTP. LitServe brings batches, workers, key and docs."""

import logging
import os
import signal
import socket
from pathlib import Path

import litserve
from fastapi.exceptions import RequestValidationError
from transformers import GPT2ForSequenceClassification

from seqlm.config import ServeConfig
from seqlm.data.tokens import class_ids
from seqlm.deploy.endpoints import (
    ClassifyEndpoint,
    Endpoint,
    GenerateEndpoint,
    NextTokenEndpoint,
    StreamEndpoint,
    model_kind,
)
from seqlm.deploy.schemas import refusal_response
from seqlm.errors import ConfigError, SeqlmError
from seqlm.models.gpt2 import default_device, load_weights

API_KEY = "LIT_SERVER_API_KEY"  # LitServe reads it, once, when it is imported
LARGEST_BODY = 2**22  # bytes
STREAM = "/generate/stream"


def endpoints(model_path: Path, classifier_path: Path | None = None) -> list[Endpoint]:
    """What can be asked of these models. Raises SeqlmError where a directory holds no such model.

    A classifier can only classify, and a language model that knows no classes can do all but that.
    """
    is_classifier = model_kind(model_path) is GPT2ForSequenceClassification
    if classifier_path is not None:
        if is_classifier:
            raise ConfigError(
                f"model_path: {model_path} holds a classifier, and classifier_path names another; "
                "give a language model here, or leave classifier_path out"
            )
        if model_kind(classifier_path) is not GPT2ForSequenceClassification:
            raise ConfigError(
                f"classifier_path: {classifier_path} holds a language model; `seqlm classify` "
                "trains a classifier"
            )
    found: list[Endpoint] = []
    if not is_classifier:
        found += [
            NextTokenEndpoint("/next-token", model_path),
            GenerateEndpoint("/generate", model_path),
            StreamEndpoint(STREAM, model_path),
        ]
    judge = ClassifyEndpoint("/classify", classifier_path or model_path)
    if judge.kind is GPT2ForSequenceClassification or class_ids(judge.vocab):
        found.append(judge)
    # Loaded here only so that damaged weights get their sentence before any worker starts.
    for directory, kind in {endpoint.directory: endpoint.kind for endpoint in found}.items():
        load_weights(kind, directory)
    return found


def build_server(options: ServeConfig) -> litserve.LitServer:
    """The server, not yet running. Raises SeqlmError for what would keep it from running."""
    _check_settings(options)
    found = endpoints(options.model_path, options.classifier_path)
    server = litserve.LitServer(
        found,
        accelerator=default_device(),
        workers_per_device=options.workers,
        timeout=options.timeout,
        max_payload_size=LARGEST_BODY,
        middlewares=[_NamesLines],
    )
    server.app.title = "seqlm"
    server.app.add_exception_handler(RequestValidationError, refusal_response)
    about = {endpoint.api_path: endpoint.__doc__ for endpoint in found}
    for route in server.app.routes:
        if route.path in about:
            route.summary = about[route.path]
    return server


def serve_model(options: ServeConfig) -> None:
    """Serve until stopped. Raises SeqlmError as `build_server` does, and when a worker is lost."""
    server = build_server(options)
    _stop_in_order()
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{options.port}"
    print(f"serving {options.model_path} at {address}, docs at {address}/docs", flush=True)
    print(f"{address}/health says ok once the workers are ready; Ctrl-C stops", flush=True)
    try:
        server.run(
            host=options.host,
            port=options.port,
            num_api_servers=1,
            log_level="warning",
            generate_client_file=False,
        )
    except (EOFError, ConnectionError) as error:  # LitServe's own processes have gone
        raise SeqlmError(
            "a worker ended unasked, so the server stopped; perhaps memory ran short: serve with "
            "fewer workers, or a smaller model"
        ) from error


def _check_settings(options: ServeConfig) -> None:
    if options.host != "127.0.0.1" and not os.environ.get(API_KEY, "").strip():
        raise ConfigError(
            f"host: others can reach {options.host}; set the environment variable {API_KEY} to a "
            "key that they must send, or serve 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((options.host, options.port))
        except OSError as error:
            raise ConfigError(
                f"port: {options.port} of {options.host} cannot be had ({error.strerror}); choose "
                "another"
            ) from error


def _stop_in_order() -> None:
    """`kill` stops the workers too, as Ctrl-C does, and neither leaves a traceback."""
    first = os.getpid()

    def stop(*_) -> None:
        if os.getpid() == first:  # LitServe's other processes inherit this; it ends them itself
            # To LitServe a worker that ends is an error, even when it has just ended it.
            logging.getLogger("litserve").setLevel(logging.CRITICAL)
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


class _NamesLines:
    """Gives the stream its content type, of which LitServe says nothing."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def named(message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                message["headers"].append((b"content-type", b"application/x-ndjson"))
            await send(message)

        await self.app(scope, receive, named if scope.get("path") == STREAM else send)
