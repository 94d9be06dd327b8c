"""English prose: nothing is lost from pages to rows, and nothing stands in two splits."""

import json

import numpy as np
import pytest
from samples import cells_of

from seqlm.config import DataFiles
from seqlm.data.corpus import load_corpus
from seqlm.data.tokens import EOS, IMG, IMG_END, STRUCTURAL
from seqlm.utils import write_json

SEED = 42
IMPORTS = ["text-03"]
BY_HAND = ["text-09", "text-10", "text-11", "text-13", "text-14"]


def without_folders(ids, **names) -> dict:
    """What cells define after those of the imports, whose folders are replaced by `names`."""
    return cells_of("text", ids, **cells_of("text", IMPORTS, profile="smoke") | names)


@pytest.fixture(scope="module")
def pages() -> dict:
    return without_folders(["text-05", "text-07"], seed=SEED, answer_guess=print, my_guess=...)


def random_pages(rng, n: int = 5) -> list[str]:
    signs = list("aabbc“ \n.")  # few, so that pairs tie and repeat; one of them has three bytes
    return ["".join(rng.choice(signs, 200)) for _ in range(n)]


def by_hand(text: dict, vocab_size: int) -> dict:
    texts = dict(enumerate(page for pages in text.values() for page in pages))
    return without_folders(BY_HAND, text=text, texts=texts, vocab_size=vocab_size)


def test_no_paragraph_is_in_two_topics_and_no_topic_in_two_splits(pages):
    owners = {}
    for name, page in pages["texts"].items():
        for paragraph in page.split("\n\n"):
            owners.setdefault(paragraph.strip(), set()).add(name)
    owners.pop("", None)
    assert len(owners) > 500 and all(len(names) == 1 for names in owners.values())
    chosen = [name for names in pages["split"].values() for name in names]
    assert sorted(chosen) == sorted(pages["texts"])
    assert all(pages["text"].values()), "each split has pages"


def test_what_is_repeated_is_kept_once_and_not_lost(pages):
    every = {p.strip() for page in pages["topics"].values() for p in page.split("\n\n")}
    kept = {p.strip() for page in pages["texts"].values() for p in page.split("\n\n")}
    assert kept | {""} == every | {""}


def test_a_pair_is_joined_from_the_left_and_never_twice():
    merge = without_folders(["text-10"])["merge"]
    assert merge(tuple("aaa"), ("a", "a")) == ("aa", "a")
    assert merge(tuple("aaaa"), ("a", "a")) == ("aa", "aa")
    assert merge(("ab", "c", "ab", "b"), ("ab", "c")) == ("abc", "ab", "b")
    assert merge(tuple("ba"), ("a", "b")) == ("b", "a"), "the order counts"
    assert merge((), ("a", "b")) == ()


def test_frequent_is_what_occurs_often_in_the_text_not_in_many_words():
    frequent = without_folders(["text-10"])["most_frequent_pair"]
    vocab = {sign: index for index, sign in enumerate("abcd")}
    words = {tuple("ab"): 5, tuple("cd"): 3, tuple("acd"): 1, tuple("bcd"): 0}
    assert frequent(words, vocab) == ("a", "b")
    assert frequent(words | {tuple("dcd"): 1}, vocab) == ("a", "b"), "a tie: the lower ids"
    assert frequent(words | {tuple("dcd"): 2}, vocab) == ("c", "d")


@pytest.mark.parametrize("seed", range(3))
def test_by_hand_and_by_the_library_agree_on_any_text(seed):
    """The notebook's own assertions compare them; here on text with many ties."""
    rng = np.random.default_rng(seed)
    text = {"train": random_pages(rng), "test": random_pages(rng)}
    names = by_hand(text, vocab_size=60)
    assert len(names["vocab"]) == 60 - len(STRUCTURAL) > len(names["alphabet"])
    for page in text["test"]:
        spelled = "".join(names["tokens_of"](page))
        assert spelled == names["signs"](page) and len(spelled) == len(page.encode())


@pytest.mark.parametrize("skipped", [0.0, 0.3])
def test_rows_hold_every_page_whole_and_seqlm_reads_them(tmp_path, skipped):
    rng = np.random.default_rng(SEED)
    text = {part: random_pages(rng, 4) for part in ("train", "val", "test")}
    split = {part: [f"{part} {k}" for k in range(4)] for part in text}
    texts = {
        name: page for part in text for name, page in zip(split[part], text[part], strict=True)
    }
    names = by_hand(text, vocab_size=40)
    names |= {"split": split, "texts": texts, "folder": tmp_path / "new", "n_positions": 20,
              "IMG": IMG, "IMG_END": IMG_END, "EOS": EOS, "write_json": write_json}  # fmt: skip
    names |= {"copies": 2, "skipped": skipped, "seed": SEED}
    names = cells_of("text", ["text-16", "text-cut", "text-copy"], **names)
    joined = {name: "" for name in texts}
    for line in (tmp_path / "new" / "rows.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        first, *pieces, end, stop = row["tokens"].split(" ")
        assert (first, end, stop) == (IMG, IMG_END, EOS) and 0 < len(pieces) <= 17
        assert row["meta"]["source_id"] in split[row["meta"]["split"]]
        joined[row["meta"]["source_id"]] += "".join(pieces)
    spelled = {name: names["signs"](page) for name, page in texts.items()}
    assert joined == {name: sign * (3 if "train" in name else 1) for name, sign in spelled.items()}
    files = DataFiles(tmp_path / "new" / "rows.jsonl", tmp_path / "new" / "vocab.json")
    corpus = load_corpus(files)
    assert len(corpus.vocab) == 40 and corpus.longest == 20
    assert len(set(corpus.sources("test"))) == 4
    train = [tuple(row) for row in corpus.rows("train")]
    own, copied = train[: names["plain"]], train[names["plain"] :]
    assert len(set(copied) - set(own)) > 0.8 * len(copied) > 0, "copies begin elsewhere"
    lengths = [sum(len(row) - 3 for row in part) for part in (2 * own, copied)]
    assert lengths[1] > 1.1 * lengths[0] if skipped else lengths[1] == lengths[0]


def test_a_copy_skips_merges_and_still_spells_the_word():
    rng = np.random.default_rng(SEED)
    text = {"train": random_pages(rng), "test": random_pages(rng)}
    names = by_hand(text, vocab_size=60) | {"seed": SEED}
    word = max(names["words_of"](text["test"][0]), key=len)
    cuts = {}
    for skipped in (0.0, 0.5, 1.0):
        cut = cells_of("text", ["text-cut"], **names | {"skipped": skipped})["cut_differently"]
        cuts[skipped] = [cut(word) for _ in range(20)]
        assert {"".join(pieces) for pieces in cuts[skipped]} == {names["signs"](word)}
    assert set(cuts[0.0]) == {names["tokens_of_word"](word)}
    assert set(cuts[1.0]) == {tuple(names["signs"](word))} and len(set(cuts[0.5])) > 5


def test_a_compressor_that_saves_nothing_needs_eight_bits_per_byte():
    text = {"train": ["first “page”", "second"]}
    added = cells_of("text", ["text-27"], text=text)["added_bits"]
    assert added(bytes, ["third", "“”"]) == 8
    assert added(lambda data: data[::2], ["third", "seven"]) == 4
