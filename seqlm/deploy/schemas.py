"""Requests to a served model and its answers, as strict pydantic models."""

from typing import Annotated

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from seqlm.checked import bounds_of
from seqlm.config import DRAWING, SampleConfig, Strategy
from seqlm.models.generation import NextToken

MAX_SENTENCES = 64  # generated side by side for one request, beams counted
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
    Field(min_length=1, examples=["<CLS> <CLS_3> <IMG>"]),
    BeforeValidator(_split, json_schema_input_type=str | list[str]),
]


class StrictRequest(BaseModel):
    """Fields of the right type, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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

    rows: list[Tokens] = Field(min_length=1, max_length=256)


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


async def refusal_response(_, error: RequestValidationError) -> JSONResponse:
    """Status 422 with a sentence for each problem in a request, which names the field.

    FastAPI's own answer would repeat the input, and fail when that holds what JSON cannot: NaN, or
    half of a surrogate pair.
    """
    detail = []
    for problem in error.errors():
        field = ".".join(str(part)[:40] for part in problem["loc"][1:])
        if problem["type"] == "json_invalid":
            field = f"no JSON from character {field} on"
        # The message of `check` or of the JSON reader; pydantic would put words before it.
        message = str(problem.get("ctx", {}).get("error", problem["msg"]))
        message = f"{field}: {message}" if field else message
        message = message.encode("utf-8", "backslashreplace").decode()
        detail.append({"loc": ["body"], "msg": message, "type": problem["type"]})
    return JSONResponse({"detail": detail}, 422)
