"""What a served model answers: a class of LitServe's for each kind of question.

A worker answers many requests at once, and an error there would be the answer to each of them. So
whatever can be wrong with a request is found before it is queued, and said to its sender alone.
"""

import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue
from typing import Annotated

import litserve
import torch
from fastapi.responses import StreamingResponse
from litserve.loops import BatchedLoop, StreamingLoop
from pydantic import AfterValidator
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel

from seqlm.config import SampleConfig
from seqlm.data.tokenizer import encode_tokens, load_tokenizer, vocabulary_of
from seqlm.data.tokens import class_ids, reading_prompt
from seqlm.deploy.memory import check_memory, fit_into_memory, sentence_bytes
from seqlm.deploy.schemas import (
    ClassifyRequest,
    ClassPredictions,
    GenerateRequest,
    NextTokenRequest,
    NextTokens,
    Sentences,
    StrictRequest,
)
from seqlm.errors import DataError
from seqlm.evaluation.scores import class_probabilities, classifier_probabilities, pad
from seqlm.models.generation import generate_sentences, stream_sentences, top_tokens
from seqlm.models.gpt2 import check_model_directory, load_weights

REQUESTS_A_BATCH = 16
PATIENCE = 0.01  # seconds that a request waits for others to share its batch
TAIL = 2  # <CLS_k> <EOS>: what a whole row has after the prompt


def model_kind(directory: Path) -> type:
    """Language model or classifier? Raises DataError when `directory` holds neither."""
    names = check_model_directory(directory).architectures or []
    for kind in (GPT2LMHeadModel, GPT2ForSequenceClassification):
        if kind.__name__ in names:
            return kind
    raise DataError(f"{directory}: holds {names}, neither a language model nor a classifier")


class _PatientLoop(BatchedLoop):
    """LitServe's batches, but asleep until there is a request.

    LitServe's own loop looks a thousand times a second whether one has come, and three of them
    kept half a core busy with nothing.
    """

    def get_batch_requests(self, lit_api, request_queue: Queue, transport):
        try:
            first = request_queue.get(timeout=1.0)
        except Empty:
            return [], []
        return super().get_batch_requests(lit_api, _Returned(first, request_queue), transport)


class _Returned:
    """A queue to which `first`, taken from it a moment ago, is given back as the next."""

    def __init__(self, first, queue: Queue):
        self.waiting, self.queue = [first], queue

    def get(self, timeout: float):
        return self.waiting.pop() if self.waiting else self.queue.get(timeout=timeout)


class Endpoint(litserve.LitAPI):
    """One kind of question about the model in `directory`: a path, and workers of its own."""

    asks: type[StrictRequest]

    def __init__(self, path: str, directory: Path):
        super().__init__(REQUESTS_A_BATCH, PATIENCE, path, loop=_PatientLoop())
        self.directory, self.kind = directory, model_kind(directory)
        self.config = check_model_directory(directory)
        self.longest = self.config.n_positions
        self.tokenizer = load_tokenizer(directory)
        self.vocab = vocabulary_of(self.tokenizer)

    def setup(self, device: str) -> None:
        # Ctrl-C reaches every process of a terminal; the first of them stops the others in order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.model = load_weights(self.kind, self.directory).to(device).eval()

    def check(self, request) -> None:
        """Raises DataError when the model cannot answer `request`."""
        raise NotImplementedError

    @property
    def decode_request(self):
        """What FastAPI is to validate: the type of the request, and then `check`.

        A property, because `check` knows this model's vocabulary, and a worker, which is another
        process, is handed this object but could not be handed a function made here.
        """

        def checked(request):
            self.check(request)
            return request

        def decode_request(request: Annotated[self.asks, AfterValidator(checked)]):
            return request

        return decode_request

    def check_known(self, tokens: Sequence[str], where: str) -> None:
        unknown = next((token for token in tokens if token not in self.vocab), None)
        if unknown is not None:
            raise DataError(
                f"{where}: {unknown[:40]!r} is not in the vocabulary of this model; see the "
                "vocab.json beside it"
            )

    def check_prompt(self, tokens: Sequence[str], new: int) -> None:
        self.check_known(tokens, "tokens")
        # The last new token needs no position: it is never read by the model.
        if len(tokens) + new - 1 > self.longest:
            raise DataError(
                f"tokens: {len(tokens)} of them and {new} to come do not fit the model's "
                f"{self.longest} positions; shorten the prompt or lower max_new_tokens"
            )


class NextTokenEndpoint(Endpoint):
    """The likeliest next tokens, with their probabilities"""

    asks = NextTokenRequest

    def check(self, request: NextTokenRequest) -> None:
        self.check_prompt(request.tokens, 1)

    @torch.inference_mode()
    def predict(self, requests: list[NextTokenRequest]) -> list[dict]:
        rows = [encode_tokens(request.tokens, self.vocab) for request in requests]
        last = torch.tensor([len(row) - 1 for row in rows], device=self.model.device)
        logits = self.model(pad(rows).to(self.model.device), use_cache=False).logits  # (B, T, V)
        at_end = logits[torch.arange(len(rows), device=self.model.device), last]  # (B, V)
        found = at_end.double().softmax(-1).cpu().numpy()
        return [
            {"table": top_tokens(row, self.tokenizer, request.k)}
            for row, request in zip(found, requests, strict=True)
        ]

    def encode_response(self, output) -> NextTokens:
        return output


class GenerateEndpoint(Endpoint):
    """Sentences that go on from a prompt"""

    asks = GenerateRequest

    def check(self, request: GenerateRequest) -> None:
        self.check_prompt(request.tokens, request.max_new_tokens or 1)
        check_memory(self.config, request.tokens, request.n, request.config())

    def predict(self, requests: list[GenerateRequest]) -> list[dict]:
        """All sentences that are drawn in the same way side by side, whoever wants them.

        Sentence 3 of 5 is sentence 3 of 50, so those of which several want the same are written
        once.
        """
        found: dict[SampleConfig, dict[tuple, list[str]]] = defaultdict(dict)
        for request in requests:
            found[_way(request)] |= dict.fromkeys(_wanted(request), [])
        for config, sentences in found.items():
            costs = [sentence_bytes(self.config, tokens, config) for tokens, _ in sentences]
            for some in fit_into_memory(zip(list(sentences), costs, strict=True)):
                prompts, streams = zip(*some, strict=True)
                written = generate_sentences(self.model, self.vocab, prompts, config, streams)
                sentences |= zip(some, written, strict=True)
        return [
            {"sentences": [found[_way(request)][wanted] for wanted in _wanted(request)]}
            for request in requests
        ]

    def encode_response(self, output) -> Sentences:
        return output


def _way(request: GenerateRequest) -> SampleConfig:
    return replace(request.config(), seed=0)  # the seeds are in `_wanted`


def _wanted(request: GenerateRequest) -> list[tuple]:
    """Each sentence asked for: its prompt, and its seed and number."""
    return [(tuple(request.tokens), (request.seed, number)) for number in range(request.n)]


class StreamEndpoint(GenerateEndpoint):
    """The same sentences token by token: lines of JSON, the last of them the whole answer"""

    def __init__(self, path: str, directory: Path):
        super().__init__(path, directory)
        self.stream, self.max_batch_size, self.loop = True, 1, StreamingLoop()

    def predict(self, request: GenerateRequest) -> Iterator[dict]:
        """Lines {"sentence", "token"} as they come, then the whole {"sentences"}."""
        prompts, streams = zip(*_wanted(request), strict=True)
        sentences = [list(prompt) for prompt in prompts]
        for chosen in stream_sentences(self.model, self.vocab, prompts, request.config(), streams):
            for row, token in chosen.items():
                sentences[row].append(token)
                yield {"sentence": row, "token": token}
        yield {"sentences": sentences}

    def encode_response(self, output) -> StreamingResponse:  # what FastAPI will see
        yield from output


class ClassifyEndpoint(Endpoint):
    """Class probabilities of each row, from a classifier or read off a language model"""

    asks = ClassifyRequest

    def check(self, request: ClassifyRequest) -> None:
        # `seqlm infer` cuts longer rows and says so; here only the sender could.
        room = min(self.longest, self.tokenizer.model_max_length) - TAIL
        for number, row in enumerate(request.rows):
            self.check_known(row, f"rows.{number}")
            try:
                prompt = reading_prompt(row)
            except DataError as error:
                raise DataError(f"rows.{number}: {error}") from error
            if len(prompt) > room:
                raise DataError(
                    f"rows.{number}: {len(prompt)} tokens up to its last <CLS>, and the model "
                    f"reads at most {room}; leave out codes from the left, as training does"
                )

    def predict(self, requests: list[ClassifyRequest]) -> list[dict]:
        rows = [reading_prompt(row) for request in requests for row in request.rows]
        prompts = [encode_tokens(row, self.vocab) for row in rows]
        if self.kind is GPT2ForSequenceClassification:
            found = classifier_probabilities(self.model, prompts)  # (N, C)
        else:
            found = class_probabilities(self.model, prompts, class_ids(self.vocab))
        opinions = iter(
            {"predicted": int(row.argmax()), "probabilities": row.tolist()} for row in found
        )
        return [{"rows": [next(opinions) for _ in request.rows]} for request in requests]

    def encode_response(self, output) -> ClassPredictions:
        return output
