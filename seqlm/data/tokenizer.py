"""A Hugging Face tokenizer with exactly the ids of vocab.json, whichever class loads it.

One token is one word between spaces. GPT2Tokenizer builds a byte-level BPE of its own from
vocab.json and merges.txt, which knows no word of ours. What it does keep are added tokens, which
are matched before any BPE; so every entry of the vocabulary is declared as one.
"""

import json
import re
from collections.abc import Iterable, Mapping
from os.path import commonprefix
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from seqlm.data.tokens import EOS, IMG, PAD, STRUCTURAL, UNK
from seqlm.errors import DataError
from seqlm.utils import read_json, write_json, write_text


def build_tokenizer(
    vocab: Mapping[str, int], *, model_max_length: int = 1024
) -> PreTrainedTokenizerFast:
    """A tokenizer over `vocab` (token -> id, ids from 0 without gaps) that adds no token itself.

    ``<PAD>`` is another token than ``<EOS>``, so that a model can learn to stop; ``<IMG>`` begins a
    sequence, as in the read layout. `model_max_length` is only written down: rows are cut by
    `tokens.shorten`, which keeps the tail with the class.
    """
    inner = Tokenizer(WordLevel(dict(vocab), unk_token=UNK))
    # Added tokens are looked for before words are split, so "foo" would be found in "foo/baz".
    known = _any_of(list(vocab))
    inner.normalizer = Replace(Regex(rf"(?<!\S)(?!{known}(?!\S))\S+"), UNK)
    inner.pre_tokenizer = WhitespaceSplit()
    inner.add_special_tokens([_word(token) for token in STRUCTURAL])
    inner.add_tokens([_word(token) for token in vocab if token not in STRUCTURAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=model_max_length, **_SPECIAL, **_SETTINGS
    )


_SPECIAL = {"bos_token": IMG, "eos_token": EOS, "unk_token": UNK, "pad_token": PAD}
_SETTINGS = {
    "clean_up_tokenization_spaces": False,
    "model_input_names": ["input_ids", "attention_mask"],
    "padding_side": "right",
}


def _any_of(words: list[str]) -> str:
    """A regular expression for these words, as a tree: time does not grow with their number."""
    start = commonprefix(words)
    branches: dict[str, list[str]] = {}
    for word in words:
        rest = word[len(start) :]
        branches.setdefault(rest[:1], []).append(rest)
    parts = (_any_of(branch) if letter else "" for letter, branch in branches.items())
    return re.escape(start) + ("" if [*branches] == [""] else f"(?:{'|'.join(parts)})")


def _word(token: str) -> AddedToken:
    # single_word: "foo" must not be found inside "food". The strips eat the spaces around a token,
    # which GPT2Tokenizer would otherwise try to encode. normalized: searched after the normalizer.
    flags = {"single_word": True, "lstrip": True, "rstrip": True, "normalized": True}
    return AddedToken(token, special=token in STRUCTURAL, **flags)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: str | Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json, vocab.json, merges.txt.

    GPT2Tokenizer, AutoTokenizer and PreTrainedTokenizerFast then load the same ids. (An unknown
    word becomes ``<UNK>`` under the last two; GPT2Tokenizer drops it.) The tokenizer's own
    `save_pretrained` writes no list of added tokens; without it GPT2Tokenizer finds none of ours.
    """
    directory = Path(directory)
    vocab = vocabulary_of(tokenizer)
    # Built anew: one loaded as GPT2Tokenizer holds a BPE, and one that has been called remembers
    # how it padded and cut.
    fresh = build_tokenizer(vocab, model_max_length=tokenizer.model_max_length)
    content = json.loads(fresh.backend_tokenizer.to_str())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.model_max_length,
        **_SPECIAL,
        **_SETTINGS,
        "added_tokens_decoder": {
            str(token["id"]): {k: v for k, v in token.items() if k != "id"}
            for token in content["added_tokens"]
        },
    }
    write_json(directory / "tokenizer.json", content)
    write_json(directory / "tokenizer_config.json", config)
    write_json(directory / "special_tokens_map.json", _SPECIAL)
    write_json(directory / "vocab.json", vocab)
    write_text(directory / "merges.txt", "#version: 0.2\n")


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerFast:
    """Load what `save_tokenizer` wrote. Raises DataError when the directory holds no tokenizer."""
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(f"{directory}: this model directory does not exist; check the path")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (directory / name).is_file():
            raise DataError(
                f"{directory}: {name} is missing, so this is no model directory; name one that "
                "training wrote, such as outputs/best_model"
            )
        read_json(directory / name)  # so that a damaged file is named
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # the library raises bare Exception for a malformed tokenizer.json
        raise DataError(
            f"{directory / 'tokenizer.json'}: no tokenizer can be made of it ({error}); "
            "save the model again"
        ) from error
    missing = [token for token in STRUCTURAL if token not in tokenizer.get_vocab()]
    if missing:
        raise DataError(
            f"{directory / 'tokenizer.json'}: it has no {missing[0]}, so it is the tokenizer of "
            "another kind of model; name a directory that seqlm wrote"
        )
    return tokenizer


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Token -> id, in the order of the ids: what vocab.json holds."""
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))


def encode_tokens(tokens: Iterable[str], vocab: Mapping[str, int]) -> list[int]:
    """The id of each token; a token that is not in the vocabulary gets the id of ``<UNK>``."""
    unknown = vocab[UNK]
    return [vocab.get(token, unknown) for token in tokens]
