"""One vocabulary, three loaders, the same ids."""

import json
import random

import pytest
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from seqlm.data.tokenizer import (
    build_tokenizer,
    encode_tokens,
    load_tokenizer,
    save_tokenizer,
    vocabulary_of,
)
from seqlm.data.tokens import STRUCTURAL, UNK, default_vocab, draw_layout, read_layout
from seqlm.errors import DataError

LOADERS = [GPT2Tokenizer, AutoTokenizer, PreTrainedTokenizerFast]

# Names that tempt a tokenizer: one inside another, single bytes, byte-level BPE's own letters,
# composed and decomposed accents, ligatures, emoji, digits.
ODD_NAMES = ["foo", "food", "o", "a", "-", "x-y", "12", "1", "Ġ", "é", "e\u0301", "ﬁ", "龙", "🙂"]
VOCABS = {
    "default": default_vocab(),
    "odd names": {
        name: index
        for index, name in enumerate(
            [*ODD_NAMES, "<CLS_0>", *reversed(STRUCTURAL), "[MASK]", "<s>", "A"]
        )
    },
}


@pytest.fixture(scope="module", params=VOCABS)
def saved(request, tmp_path_factory):
    vocab = VOCABS[request.param]
    directory = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(build_tokenizer(vocab, model_max_length=4096), directory)
    return vocab, directory


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.__name__)
class TestEveryLoader:
    def test_gives_every_token_its_id_and_back(self, saved, loader):
        vocab, directory = saved
        tokenizer = loader.from_pretrained(directory)
        assert len(tokenizer) == tokenizer.vocab_size == len(vocab)
        assert tokenizer.get_vocab() == vocab
        for token, index in vocab.items():
            assert tokenizer.convert_tokens_to_ids(token) == index
            assert tokenizer.convert_ids_to_tokens(index) == token
            assert tokenizer(token).input_ids == [index]

    def test_reads_shuffled_sentences_and_adds_nothing(self, saved, loader):
        vocab, directory = saved
        tokenizer = loader.from_pretrained(directory)
        words = list(vocab) * 3
        random.Random(0).shuffle(words)
        ids = tokenizer(" ".join(words)).input_ids
        assert ids == [vocab[word] for word in words]
        assert tokenizer.convert_ids_to_tokens(ids) == words
        assert tokenizer("  \n".join(words) + " ").input_ids == ids

    def test_knows_the_special_tokens_and_the_length(self, saved, loader):
        vocab, directory = saved
        tokenizer = loader.from_pretrained(directory)
        assert tokenizer.eos_token_id == vocab["<EOS>"]
        assert tokenizer.pad_token_id == vocab["<PAD>"]
        assert tokenizer.unk_token_id == vocab["<UNK>"]
        assert tokenizer.bos_token_id == vocab["<IMG>"]
        assert tokenizer.model_max_length == 4096

    def test_pads_on_the_right_with_the_padding_token(self, saved, loader):
        vocab, directory = saved
        batch = loader.from_pretrained(directory)(["<IMG> <CLS>", "<IMG>"], padding=True)
        assert batch.input_ids[1] == [vocab["<IMG>"], vocab["<PAD>"]]
        assert batch.attention_mask[1] == [1, 0]

    def test_saved_again_stays_the_same(self, saved, loader, tmp_path):
        vocab, directory = saved
        tokenizer = loader.from_pretrained(directory)
        tokenizer(["<IMG> <CLS>", "<IMG>"], padding=True, truncation=True, max_length=7)
        save_tokenizer(tokenizer, tmp_path)
        for file in directory.iterdir():
            assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize("loader", LOADERS[1:], ids=lambda loader: loader.__name__)
def test_a_word_outside_the_vocabulary_is_one_unknown_token(saved, loader):
    vocab, directory = saved
    tokenizer = loader.from_pretrained(directory)
    unknown = vocab[UNK]
    for word in (
        *("nope", "foobar", "foods", "<Z_9999>", "éa", "龙龙", "foo/baz", "baz/foo", "x-foo-x"),
        *("<EOS>foo", "foo<EOS>", "<EOS>/<EOS>", "/", "<IMG><IMG>", "🙂🙂", "f_o_o", "foo_"),
    ):
        sentence = f"<IMG> {word} <EOS>"
        assert tokenizer(sentence).input_ids == [vocab["<IMG>"], unknown, vocab["<EOS>"]], word


def test_a_directory_holds_the_five_files_and_vocab_json_the_ids(saved):
    vocab, directory = saved
    assert {path.name for path in directory.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
    }
    written = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    assert written == vocab and list(written.values()) == list(range(len(vocab)))


def test_saving_leaves_other_files_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    save_tokenizer(build_tokenizer(default_vocab(3, 2)), tmp_path)
    assert (tmp_path / "config.json").read_text() == "{}"


@pytest.mark.parametrize("layout", [read_layout, draw_layout])
def test_tokens_become_ids_and_come_back(layout):
    vocab = default_vocab()
    tokenizer = build_tokenizer(vocab)
    tokens = layout([0, 17, 499, 17], 3)
    ids = encode_tokens(tokens, vocab)
    assert ids == tokenizer(" ".join(tokens)).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == list(tokens)


def test_an_unknown_token_is_encoded_as_unknown():
    vocab = default_vocab(3, 2)
    assert encode_tokens(["<IMG>", "<Z_003>"], vocab) == [2, 1]


def test_the_vocabulary_comes_in_the_order_of_ids():
    vocab = dict(reversed(default_vocab(3, 2).items()))
    entries = vocabulary_of(build_tokenizer(vocab))
    assert entries == vocab and list(entries.values()) == list(range(11))


def test_loading_says_what_is_not_a_model_directory(tmp_path):
    with pytest.raises(DataError, match="this model directory does not exist"):
        load_tokenizer(tmp_path / "gone")
    with pytest.raises(DataError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


def test_loading_says_what_is_damaged_or_foreign(tmp_path):
    save_tokenizer(build_tokenizer(default_vocab(3, 2)), tmp_path)
    good = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(good[:100])
    with pytest.raises(DataError, match=r"tokenizer\.json:\d+:\d+: not valid JSON"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(DataError, match="no tokenizer can be made of it"):
        load_tokenizer(tmp_path)
    foreign = good.replace("<IMG>", "<BOS>").replace("</IMG>", "</BOS>")
    (tmp_path / "tokenizer.json").write_text(foreign)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(DataError, match="it has no </IMG>"):
        load_tokenizer(tmp_path)


def test_what_was_saved_loads(tmp_path):
    vocab = default_vocab(3, 2)
    save_tokenizer(build_tokenizer(vocab, model_max_length=12), tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert vocabulary_of(loaded) == vocab
    assert loaded.model_max_length == 12
