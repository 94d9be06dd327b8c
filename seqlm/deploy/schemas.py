"""Requests to a served model and its answers, as strict pydantic models."""

import json
from typing import Annotated

from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PrivateAttr,
    model_validator,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request

from seqlm.checked import bounds_of
from seqlm.config import DRAWING, SampleConfig, Strategy
from seqlm.deploy.middleware import TICKET
from seqlm.errors import printable
from seqlm.models.generation import NextToken
from seqlm.utils import fill_template

MAX_SENTENCES = 64  # generated side by side for one request, beams counted
MAX_TOKENS = 2**16  # in a prompt or a row; what the model has room for is far less
MAX_PROBLEMS = 5  # named in the answer to one request
MAX_SENTENCE = 400  # characters
MAX_INTEGER = 2**53  # readers of JSON agree on whole numbers up to here


def _setting(name: str):
    """A field of SampleConfig with its bounds and the default of `seqlm infer`."""
    low, high = bounds_of(SampleConfig, name)
    if low is not None and high is None:
        high = MAX_INTEGER
    return Field(DRAWING.get(name, getattr(SampleConfig, name)), ge=low, le=high)


def _split(value: object) -> object:
    return value.split() if isinstance(value, str) else value


# A list of tokens or, as in a row of data, one string with spaces between them.
Tokens = Annotated[
    list[str],
    Field(min_length=1, max_length=MAX_TOKENS, examples=["<CLS> <CLS_3> <IMG>"]),
    FailFast(),
    BeforeValidator(_split, json_schema_input_type=str | list[str]),
]


class StrictRequest(BaseModel):
    """Fields of the right type, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    _ticket: int = PrivateAttr(default_factory=TICKET.get)

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, fields):
        if isinstance(fields, dict) and len(fields) > 2 * len(cls.model_fields):
            known = ", ".join(cls.model_fields)
            raise ValueError(f"{len(fields):,} fields; a request has only {known}")
        return fields

    def has_left(self, gone) -> bool:
        """Whether the client has left, by the array of `middleware.Departures`."""
        return bool(gone[self._ticket])


class NextTokenRequest(StrictRequest):
    """The `k` most likely tokens after `tokens`."""

    tokens: Tokens
    k: int = Field(10, ge=1, le=1000)


class GenerateRequest(StrictRequest):
    """`n` sentences that begin with `tokens`; the settings are those of `seqlm infer`.

    With the strategy "beam", `n` times `num_beams` is at most 64.
    """

    tokens: Tokens
    n: int = Field(1, ge=1, le=MAX_SENTENCES)
    strategy: Strategy = _setting("strategy")
    num_beams: int = _setting("num_beams")
    temperature: float = _setting("temperature")
    top_k: int = _setting("top_k")
    top_p: float = _setting("top_p")
    guidance: float = _setting("guidance")
    max_new_tokens: int | None = _setting("max_new_tokens")
    seed: int = _setting("seed")

    @model_validator(mode="after")
    def _limit_rows(self):
        if self.strategy == "beam" and self.n * self.num_beams > MAX_SENTENCES:
            raise ValueError(
                f"n: {self.n} times {self.num_beams} beams is {self.n * self.num_beams}, and a "
                f"request may have {MAX_SENTENCES} in all; lower n or num_beams"
            )
        return self

    def config(self) -> SampleConfig:
        """The sampling settings; the seed stands in `samples`."""
        return SampleConfig(**self.model_dump(exclude={"tokens", "n", "seed"}))

    def samples(self) -> list[tuple[tuple[str, ...], tuple[int, int]]]:
        """For each sentence its prompt, and the seeds of its random numbers."""
        return [(tuple(self.tokens), (self.seed, number)) for number in range(self.n)]


class ClassifyRequest(StrictRequest):
    """The class of each of `rows`; a class token in a row is not used."""

    rows: Annotated[list[Tokens], Field(min_length=1, max_length=256), FailFast()]


class NextTokens(BaseModel):
    """The most probable first."""

    table: list[NextToken]


class Sentences(BaseModel):
    """Whole sentences, the prompt included."""

    sentences: list[list[str]]


class ClassPrediction(BaseModel):
    """One row's class probabilities, and the class of the largest."""

    predicted: int
    probabilities: list[float]


class ClassPredictions(BaseModel):
    """In the order of the rows that were sent."""

    rows: list[ClassPrediction]


async def refusal_response(request: Request, error: RequestValidationError) -> JSONResponse:
    """Status 422 with a sentence for each of the first problems in a request, naming the field.

    FastAPI's own answer would repeat the input, and fail when that holds what JSON cannot: NaN, or
    half of a surrogate pair.
    """
    sent = request.headers.get("content-type", "")
    if isinstance(error.body, bytes) and error.body:
        sentence = f"content-type: send application/json, not {sent[:80] or 'no type'}"
        return _refusal([(sentence, "content_type")])
    problems = []
    for problem in error.errors()[:MAX_PROBLEMS]:
        field = ".".join(str(part)[:40] for part in problem["loc"][1:])
        if problem["type"] == "json_invalid":
            field = f"no JSON from character {field} on"
        # The message of `check` or of the JSON reader; pydantic would put words before it.
        message = str(problem.get("ctx", {}).get("error", problem["msg"]))
        problems.append((f"{field}: {message}" if field else message, problem["type"]))
    return _refusal(problems)


async def unreadable_response(request: Request, error: HTTPException):
    """Status 422 with a sentence in place of FastAPI's 400 for a body that no reader can hold."""
    if error.status_code != 400:
        return await http_exception_handler(request, error)
    return _refusal([(f"the body cannot be read as JSON: {error.__cause__}", "json_unreadable")])


def _refusal(problems: list[tuple[str, str]]) -> JSONResponse:
    detail = [
        {"loc": ["body"], "msg": printable(message[:MAX_SENTENCE]), "type": kind}
        for message, kind in problems
    ]
    return JSONResponse({"detail": detail}, 422)


async def docs_page(request: Request) -> HTMLResponse:
    """What FastAPI knows of each endpoint, as a page without scripts."""
    described = request.app.openapi()
    schemas = {k: json.dumps(v, indent=2) for k, v in described["components"]["schemas"].items()}
    page = fill_template("deploy/docs.html", paths=described["paths"], schemas=schemas)
    return HTMLResponse(page, headers={"content-security-policy": "default-src 'none'"})
