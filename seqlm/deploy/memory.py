"""What the sentences of a served model may keep in memory, so that nobody's wish ends the server.

Nearly all of it is keys and values: for each layer and position two vectors as wide as the model.
A sentence has a row of them, a beam each its own, and guidance doubles them. The weights, some
0.4 GB with torch, come on top, and so does what a single step needs.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from transformers import GPT2Config

from seqlm.config import SampleConfig
from seqlm.errors import DataError
from seqlm.models.generation import withhold_class

MEMORY = 2**32  # bytes
GIB = 2**30
FLOAT32 = 4  # bytes

One = TypeVar("One")


def sentence_bytes(model: GPT2Config, tokens: Sequence[str], config: SampleConfig) -> int:
    """The most bytes that one sentence from the prompt `tokens` can come to need."""
    most = model.n_positions
    if config.max_new_tokens is not None:
        most = min(most, len(tokens) + config.max_new_tokens)
    beams = config.num_beams if config.strategy == "beam" else 1
    rows = 2 * beams if config.guidance != 1 and withhold_class(tokens) else beams
    return rows * most * model.n_layer * 2 * model.n_embd * FLOAT32


def check_memory(model: GPT2Config, tokens: Sequence[str], n: int, config: SampleConfig) -> None:
    """Raises DataError when `n` sentences side by side could need more than MEMORY."""
    needed = n * sentence_bytes(model, tokens, config)
    if needed > MEMORY:
        raise DataError(
            f"n: the memory for as many and as long sentences as this may come to "
            f"{needed / GIB:.1f} GiB, and {MEMORY / GIB:.1f} are allowed; lower n, max_new_tokens "
            "or num_beams"
        )


def fit_into_memory(sentences: Iterable[tuple[One, int]]) -> list[list[One]]:
    """Sentences, each with its bytes, in order and in as few groups as keep to MEMORY."""
    groups, used = [], MEMORY  # full: the first sentence opens a group
    for sentence, needed in sentences:
        if used + needed > MEMORY:
            groups.append([])
            used = 0
        groups[-1].append(sentence)
        used += needed
    return groups
