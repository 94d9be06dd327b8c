"""`seqlm serve`: serve a trained model over HTTP, with LitServe."""

import contextlib
import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from multiprocessing import resource_tracker
from pathlib import Path

import litserve
from fastapi.exceptions import RequestValidationError
from litserve.utils import WorkerSetupStatus, configure_logging
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from seqlm.config import ServeConfig
from seqlm.data.tokens import class_ids
from seqlm.deploy.endpoints import (
    ClassifyEndpoint,
    Endpoint,
    GenerateEndpoint,
    NextTokenEndpoint,
    StderrOfServer,
    StreamEndpoint,
)
from seqlm.deploy.middleware import Departures, KeyCheck, StreamStart
from seqlm.deploy.schemas import docs_page, refusal_response, unreadable_response
from seqlm.errors import ConfigError, SeqlmError, printable
from seqlm.models.gpt2 import default_device, is_classifier, load_model

API_KEY = "LIT_SERVER_API_KEY"  # LitServe reads it, once, when it is imported
MIN_KEY = 16  # characters
MAX_BODY = 2**22  # bytes
DEPARTURES = 2**16  # requests, the newest, of which the server knows whether the client has left
LOOPBACK = "127.0.0.1"
STREAM = "/generate/stream"


class _Server(litserve.LitServer):
    """LitServe that ends its workers in order also when it is stopped, or loses one, at the start.

    LitServe does so only once it runs, so until then a stop waits.
    """

    running = stopping = False
    pid: int  # of the process that starts all others

    def stop(self, number: int, _) -> None:
        """Handle SIGINT or SIGTERM, which LitServe's other processes inherit."""
        if os.getpid() == self.pid:
            # To LitServe a worker that ends is an error, even when it has just ended it.
            logging.getLogger("litserve").setLevel(logging.CRITICAL)
            self.stopping = True
            if self.running:
                raise KeyboardInterrupt
        elif multiprocessing.current_process().name.startswith("LitServer"):
            os._exit(128 + number)  # it answers HTTP, but not yet: no handlers of its own

    def launch_inference_worker(self, lit_api: Endpoint) -> list[multiprocessing.Process]:
        # Ctrl-C reaches every process of a terminal; the first of them stops the others in order.
        resource_tracker.ensure_running()  # its start would end the block, which workers inherit
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().launch_inference_worker(lit_api)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def verify_worker_status(self) -> None:
        """Wait until a worker is ready, one is lost, or somebody stops the server."""
        while not self.stopping and self._all_alive():
            if WorkerSetupStatus.READY in self.workers_setup_status.values():
                return
            time.sleep(0.05)

    def _start_server(self, *args, **kwargs) -> dict:  # LitServe cleans up after this
        if self.stopping:
            raise KeyboardInterrupt
        if not self._all_alive():
            raise EOFError
        configure_logging("warning", stream=sys.stderr)
        return super()._start_server(*args, **kwargs)

    def _start_worker_monitoring(self, *args) -> None:  # the last step of its start
        super()._start_worker_monitoring(*args)
        self.running = True
        if self.stopping:
            raise KeyboardInterrupt

    def _all_alive(self) -> bool:
        return all(worker.is_alive() for worker in self.inference_workers)


def endpoints(model_path: Path, classifier_path: Path | None = None) -> list[Endpoint]:
    """The endpoints of these models. Raises SeqlmError where a directory holds no such model.

    A classifier can only classify, and a language model without classes can do all but that.
    """
    classifies = is_classifier(model_path)
    if classifies and classifier_path is not None:
        raise ConfigError(
            f"model_path: {model_path} holds a classifier, and classifier_path names another; "
            "give a language model here, or leave classifier_path out"
        )
    if classifier_path is not None and not is_classifier(classifier_path):
        raise ConfigError(
            f"classifier_path: {classifier_path} holds a language model; `seqlm classify` "
            "trains a classifier"
        )
    served: list[Endpoint] = []
    if not classifies:
        served += [
            NextTokenEndpoint("/next-token", model_path),
            GenerateEndpoint("/generate", model_path),
            StreamEndpoint(STREAM, model_path),
        ]
    classify = ClassifyEndpoint("/classify", classifier_path or model_path)
    if is_classifier(classify.config) or class_ids(classify.vocab):
        served.append(classify)
    # Loaded here only so that damaged weights are reported before any worker starts.
    for directory in {endpoint.directory for endpoint in served}:
        load_model(directory, "cpu")
    return served


def build_server(config: ServeConfig) -> "_Server":
    """The server, not yet running. Raises SeqlmError for what would keep it from running."""
    _check_settings(config)
    served = endpoints(config.model_path, config.classifier_path)
    gone = multiprocessing.get_context("spawn").RawArray("b", DEPARTURES)
    for endpoint in served:
        endpoint.gone, endpoint.server = gone, os.getpid()
    key = os.environ.get(API_KEY)
    # The last one is asked first. Without a key a web page could reach this machine's own address
    # under a name of its own ("DNS rebinding"), so only local names are answered.
    guard = (KeyCheck, {"key": key})
    if not key:
        guard = (TrustedHostMiddleware, {"allowed_hosts": [LOOPBACK, "localhost"]})
    server = _Server(
        served,
        accelerator=default_device(),
        workers_per_device=config.workers,
        timeout=config.timeout,
        max_payload_size=MAX_BODY,
        middlewares=[(StreamStart, {"path": STREAM}), (Departures, {"gone": gone}), guard],
    )
    server.pid, server.app.title = os.getpid(), "seqlm"
    server.app.add_exception_handler(RequestValidationError, refusal_response)
    server.app.add_exception_handler(HTTPException, unreadable_response)
    # FastAPI's own pages load their scripts from the web.
    routes = server.app.router.routes
    routes[:] = [each for each in routes if not each.path.startswith(("/docs", "/redoc"))]
    server.app.add_route("/docs", docs_page)
    summaries = {endpoint.api_path: endpoint.__doc__ for endpoint in served}
    for route in server.app.routes:
        if route.path in summaries:
            route.summary = summaries[route.path]
    return server


def serve_model(config: ServeConfig) -> None:
    """Serve until stopped. Raises SeqlmError as `build_server` does, and when a worker is lost."""
    server = build_server(config)
    for number in (signal.SIGINT, signal.SIGTERM):  # `kill` does what Ctrl-C does
        signal.signal(number, server.stop)
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{host}:{config.port}"
    model = printable(config.model_path)
    print(f"serving {model} at {address}, docs at {address}/docs", flush=True)
    print(f"{address}/health says ok once the workers are ready; Ctrl-C stops", flush=True)
    try:
        with contextlib.redirect_stderr(StderrOfServer(sys.stderr, server.pid)):
            server.run(
                host=config.host,
                port=config.port,
                num_api_servers=1,
                log_level="warning",
                generate_client_file=False,
            )
    except (EOFError, ConnectionError) as error:  # LitServe's own processes have gone
        raise SeqlmError(
            "a worker stopped unexpectedly, so the server stopped; if memory ran out, serve with "
            "fewer workers, or a smaller model"
        ) from error


def _check_settings(config: ServeConfig) -> None:
    key = os.environ.get(API_KEY, "")
    if config.host != LOOPBACK and not key.strip():
        raise ConfigError(
            f"host: others can reach {config.host}; set the environment variable {API_KEY} to a "
            f"key that they must send, or serve {LOOPBACK}"
        )
    if key and (len(key) < MIN_KEY or not re.fullmatch("[!-~]([ -~]*[!-~])?", key)):
        raise ConfigError(
            f"{API_KEY}: the key must have at least {MIN_KEY} characters, all ASCII and none a "
            "space at an end; `openssl rand -hex 32` makes one"
        )
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((config.host, config.port))
        except OSError as error:
            raise ConfigError(
                f"port: {config.port} of {config.host} is not available ({error.strerror}); choose "
                "another"
            ) from error
