"""The endpoints of a served model: a LitServe class for each kind of request.

A worker answers many requests at once, and an error there would be the answer to each of them. So
each request is checked before it is queued, and an error goes to its sender alone.
"""

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing import parent_process, util
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import SimpleNamespace
from typing import Annotated, TextIO

import litserve
from fastapi.responses import StreamingResponse
from litserve.loops import BatchedLoop, StreamingLoop
from litserve.utils import (
    LitAPIStatus,
    LoopResponseType,
    PickleableHTTPException,
    configure_logging,
)
from pydantic import AfterValidator
from transformers import GPT2Config

from seqlm.config import SampleConfig
from seqlm.data.tokenizer import encode_tokens, load_tokenizer, vocabulary_of
from seqlm.data.tokens import class_ids, reading_prompt
from seqlm.deploy import schemas
from seqlm.deploy.infer import TAIL
from seqlm.errors import DataError, error_prefix
from seqlm.evaluation.scores import class_probabilities, last_logits
from seqlm.models import generation
from seqlm.models.gpt2 import check_model_directory, load_model

BATCH_REQUESTS = 16
BATCH_WAIT = 0.01  # seconds that a request waits for others to share its batch
MEMORY = 2**32  # bytes for the keys and values of all sentences generated side by side
GIB = 2**30


def _end_with_parent() -> None:
    """Wait until the process that started this one has gone, by kill -9 or otherwise, then end."""
    parent_process().join()
    signal.raise_signal(signal.SIGKILL)


# Despite its name this reaches every process that imports this module, a spawned worker, too.
util.register_after_fork(_end_with_parent, lambda end: Thread(target=end, daemon=True).start())


class StderrOfServer:
    """Standard error of a process of the server; it ignores what comes once the first has gone.

    After kill -9 there is nobody left who could end the others in order, and each error of theirs
    says only that the first has gone.
    """

    def __init__(self, stream: TextIO, server: int):
        self._stream, self._server = stream, server

    def write(self, text: str) -> int:
        gone = self._server not in (os.getpid(), os.getppid())
        return len(text) if gone else self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


class _SleepingLoop(BatchedLoop):
    """LitServe's batches, but asleep until there is a request, and of clients still there.

    LitServe's own loop polls a thousand times a second, and three of them kept half a core busy.
    """

    def get_batch_requests(self, lit_api, request_queue: Queue, transport):
        try:
            first = [request_queue.get(timeout=1.0)]
        except Empty:
            return [], []

        def get(timeout: float):
            return first.pop() if first else request_queue.get(timeout=timeout)

        batch, late = super().get_batch_requests(lit_api, SimpleNamespace(get=get), transport)
        waiting = []
        for queue, uid, request in batch:
            if request.has_left(lit_api.gone):  # an answer all the same: LitServe waits for it
                error = PickleableHTTPException(499, "the client has left")
                answer = (error, LitAPIStatus.ERROR, LoopResponseType.REGULAR)
                self.put_response(transport, queue, uid, *answer)
            else:
                waiting.append((queue, uid, request))
        return waiting, late


class Endpoint(litserve.LitAPI):
    """One kind of request to the model in `directory`: a path, and workers of its own.

    `check` returns a request that the model can answer, and raises DataError for any other.
    """

    request_type: type[schemas.StrictRequest]

    def __init__(self, path: str, directory: Path):
        super().__init__(BATCH_REQUESTS, BATCH_WAIT, path, loop=_SleepingLoop())
        self.directory = directory
        self.config = check_model_directory(directory)
        self._read_tokenizer()
        self.gone = bytes(1)  # nobody; the server puts an array that it shares in its place

    def _read_tokenizer(self) -> None:
        self.tokenizer = load_tokenizer(self.directory)
        self.vocab = vocabulary_of(self.tokenizer)

    def __getstate__(self) -> dict:
        # A pipe holds 64 KiB. With more for one worker LitServe would start the next only when this
        # one has imported its libraries, and meanwhile could not be stopped.
        return {**self.__dict__, "tokenizer": None, "vocab": None}

    def __setstate__(self, state: dict) -> None:  # in a worker, before all else
        self.__dict__ = state
        sys.stderr = StderrOfServer(sys.stderr, self.server)
        configure_logging("warning", stream=sys.stderr)
        self._read_tokenizer()

    def setup(self, device: str) -> None:
        self.model = load_model(self.directory, device)

    @property
    def decode_request(self):
        """What FastAPI validates: the type of the request, then `check`.

        A property, because `check` knows this model's vocabulary, and a worker, which is another
        process, can receive this object but not a function made here.
        """

        def decode_request(request: Annotated[self.request_type, AfterValidator(self.check)]):
            return request

        return decode_request

    def check_tokens(self, tokens: Sequence[str], new: int | None = None) -> None:
        with error_prefix("tokens"):
            generation.token_ids(tokens, self.vocab)
            generation.check_prompt(self.config.n_positions, tokens, new)


class NextTokenEndpoint(Endpoint):
    """The most probable next tokens, with their probabilities"""

    request_type = schemas.NextTokenRequest

    def check(self, request: schemas.NextTokenRequest):
        self.check_tokens(request.tokens)
        return request

    def predict(self, requests: list[schemas.NextTokenRequest]) -> list[dict]:
        rows = [encode_tokens(request.tokens, self.vocab) for request in requests]
        probabilities = last_logits(self.model, rows).double().softmax(-1).cpu().numpy()  # (B, V)
        return [
            {"table": generation.top_tokens(row, self.tokenizer, request.k)}
            for row, request in zip(probabilities, requests, strict=True)
        ]

    def encode_response(self, output) -> schemas.NextTokens:
        return output


class GenerateEndpoint(Endpoint):
    """Sequences that continue a prompt"""

    request_type = schemas.GenerateRequest

    def check(self, request: schemas.GenerateRequest):
        self.check_tokens(request.tokens, request.max_new_tokens)
        needed = request.n * sentence_bytes(self.config, request.tokens, request.config())
        if needed > MEMORY:
            raise DataError(
                f"n: these sequences may need {needed / GIB:.1f} GiB of memory, and "
                f"{MEMORY / GIB:.1f} are allowed; lower n, max_new_tokens or num_beams"
            )
        return request

    def predict(self, requests: list[schemas.GenerateRequest]) -> list[dict]:
        """Generate all sentences with the same settings side by side, equal ones once."""
        sentences: dict[SampleConfig, dict[tuple, list[str]]] = defaultdict(dict)
        for request in requests:
            sentences[request.config()] |= dict.fromkeys(request.samples())
        for config, samples in sentences.items():
            largest = max(sentence_bytes(self.config, tokens, config) for tokens, _ in samples)
            unique, size = list(samples), MEMORY // largest
            for group in (unique[i : i + size] for i in range(0, len(unique), size)):
                prompts, streams = zip(*group, strict=True)
                generated = generation.generate_sentences(
                    self.model, self.vocab, prompts, config, streams
                )
                samples |= zip(group, generated, strict=True)
        return [
            {"sentences": [sentences[request.config()][sample] for sample in request.samples()]}
            for request in requests
        ]

    def encode_response(self, output) -> schemas.Sentences:
        return output


class StreamEndpoint(GenerateEndpoint):
    """The same sequences token by token: lines of JSON, the last one the whole answer"""

    def __init__(self, path: str, directory: Path):
        super().__init__(path, directory)
        self.stream, self.max_batch_size, self.loop = True, 1, StreamingLoop()

    def predict(self, request: schemas.GenerateRequest) -> Iterator[dict]:
        """Lines {"sentence", "token"} as they come, then the whole {"sentences"}."""
        prompts, streams = zip(*request.samples(), strict=True)
        sentences = [list(prompt) for prompt in prompts]
        steps = generation.stream_sentences(
            self.model, self.vocab, prompts, request.config(), streams
        )
        while not request.has_left(self.gone):
            chosen = next(steps, None)
            if chosen is None:
                yield {"sentences": sentences}
                return
            for row, token in chosen.items():
                sentences[row].append(token)
                yield {"sentence": row, "token": token}

    def encode_response(self, output) -> StreamingResponse:  # what FastAPI will see
        yield from output


class ClassifyEndpoint(Endpoint):
    """Class probabilities of each row, from a classifier or a language model"""

    request_type = schemas.ClassifyRequest

    def check(self, request: schemas.ClassifyRequest):
        # `seqlm infer` cuts longer rows and says so; here only the sender could.
        limit = min(self.config.n_positions, self.tokenizer.model_max_length) - TAIL
        for number, row in enumerate(request.rows):
            with error_prefix(f"rows.{number}"):
                generation.token_ids(row, self.vocab)
                prompt = reading_prompt(row)
                if len(prompt) > limit:
                    raise DataError(
                        f"{len(prompt)} tokens up to its last <CLS>, and the model reads at most "
                        f"{limit}; leave out codes from the left, as training does"
                    )
        return request

    def predict(self, requests: list[schemas.ClassifyRequest]) -> list[dict]:
        rows = [reading_prompt(row) for request in requests for row in request.rows]
        prompts = [encode_tokens(row, self.vocab) for row in rows]
        predictions = iter(
            {"predicted": int(row.argmax()), "probabilities": row.tolist()}
            for row in class_probabilities(self.model, prompts, class_ids(self.vocab))
        )
        return [{"rows": [next(predictions) for _ in request.rows]} for request in requests]

    def encode_response(self, output) -> schemas.ClassPredictions:
        return output


def sentence_bytes(model: GPT2Config, tokens: Sequence[str], config: SampleConfig) -> int:
    """The most bytes of keys and values that one sentence from the prompt `tokens` can need.

    For each layer and position two float32 vectors as wide as the model; a row per beam, and twice
    as many rows with guidance. The weights, and what a single step needs, come on top.
    """
    length = model.n_positions
    if config.max_new_tokens is not None:
        length = min(length, len(tokens) + config.max_new_tokens)
    rows = config.num_beams if config.strategy == "beam" else 1
    if config.guidance != 1 and generation.withhold_class(tokens):
        rows *= 2
    return rows * length * model.n_layer * 2 * model.n_embd * 4
