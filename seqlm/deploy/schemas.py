"""What may be asked of a served model, and the shape of each answer: pydantic, at its strictest."""

from dataclasses import fields
from typing import Annotated

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from seqlm.checked import bounds_of
from seqlm.config import DRAWING, SampleConfig, Strategy
from seqlm.models.generation import NextToken

MOST_SENTENCES = 64  # written side by side for one request, beams counted
LARGEST_NUMBER = 2**53  # readers of JSON agree on whole numbers up to here


def _setting(name: str):
    """A field of SampleConfig with its limits; left out, it is what `seqlm infer` draws with."""
    low, high = bounds_of(SampleConfig, name)
    if low is not None and high is None:
        high = LARGEST_NUMBER
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
    """What may come after `tokens`: the `k` likeliest."""

    tokens: Tokens
    k: int = Field(10, ge=1, le=1000)


class GenerateRequest(StrictRequest):
    """`n` sentences that begin with `tokens`; the settings are those of `seqlm infer`.

    With the strategy "beam", `n` times `num_beams` is at most 64.
    """

    tokens: Tokens
    n: int = Field(1, ge=1, le=MOST_SENTENCES)
    strategy: Strategy = _setting("strategy")
    num_beams: int = _setting("num_beams")
    temperature: float = _setting("temperature")
    top_k: int = _setting("top_k")
    top_p: float = _setting("top_p")
    guidance: float = _setting("guidance")
    max_new_tokens: int | None = _setting("max_new_tokens")
    seed: int = _setting("seed")

    @model_validator(mode="after")
    def _few_enough(self):
        if self.strategy == "beam" and self.n * self.num_beams > MOST_SENTENCES:
            raise ValueError(
                f"n: {self.n} times {self.num_beams} beams is {self.n * self.num_beams}, and a "
                f"request may have {MOST_SENTENCES} in all; lower n or num_beams"
            )
        return self

    def config(self) -> SampleConfig:
        """The settings as `sampling` takes them."""
        return SampleConfig(**{f.name: getattr(self, f.name) for f in fields(SampleConfig)})


class ClassifyRequest(StrictRequest):
    """Which class is each of `rows`? A class that a row brings along is not looked at."""

    rows: list[Tokens] = Field(min_length=1, max_length=256)


class NextTokens(BaseModel):
    """The likeliest first."""

    table: list[NextToken]


class Sentences(BaseModel):
    """Whole sentences, the prompt included."""

    sentences: list[list[str]]


class ClassPrediction(BaseModel):
    """One row's class probabilities, and the place of the largest."""

    predicted: int
    probabilities: list[float]


class ClassPredictions(BaseModel):
    """In the order of the rows that were sent."""

    rows: list[ClassPrediction]


async def refusal_response(_, error: RequestValidationError) -> JSONResponse:
    """A sentence for each thing wrong with a request, with the field that it is about; 422.

    FastAPI's own answer would repeat the input, and fail when that holds what JSON cannot: NaN, or
    half of a surrogate pair.
    """
    detail = []
    for found in error.errors():
        where = ".".join(str(part)[:40] for part in found["loc"][1:])
        if found["type"] == "json_invalid":
            where = f"no JSON from character {where} on"
        # What `check` and the reader of JSON said; pydantic would put words of its own before it.
        said = str(found.get("ctx", {}).get("error", found["msg"]))
        said = f"{where}: {said}" if where else said
        said = said.encode("utf-8", "backslashreplace").decode()
        detail.append({"loc": ["body"], "msg": said, "type": found["type"]})
    return JSONResponse({"detail": detail}, 422)
