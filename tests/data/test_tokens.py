"""Codes and a class become a sentence and come back, and no question holds its answer."""

import numpy as np
import pytest

from seqlm.data.tokens import (
    CLS,
    EOS,
    IMG,
    IMG_END,
    KIND_CLASS,
    KIND_CODE,
    KIND_STRUCTURAL,
    KIND_UNKNOWN,
    PAD,
    STRUCTURAL,
    UNK,
    class_ids,
    class_of,
    class_token,
    code_token,
    codes_of,
    default_vocab,
    draw_layout,
    drawing_prompt,
    is_code,
    layout_of,
    read_layout,
    reading_prompt,
    shorten,
    token_kinds,
)
from seqlm.errors import DataError

CODES = [17, 0, 499, 203]
PICTURE = ("<IMG>", "<Z_017>", "<Z_000>", "<Z_499>", "<Z_203>", "</IMG>")
CLASSES = range(10)


def one_sentence(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message and len(message) < 250
    return message


# ---------------------------------------------------------------- names and ids


def test_the_vocabulary_is_the_contracts_516_tokens():
    vocab = default_vocab()
    structural = ["<PAD>", "<UNK>", "<IMG>", "</IMG>", "<CLS>", "<EOS>"]
    assert {vocab[token]: token for token in structural} == dict(enumerate(structural))
    assert [vocab[f"<Z_{code:03d}>"] for code in range(500)] == list(range(6, 506))
    assert [vocab[f"<CLS_{label}>"] for label in range(10)] == list(range(506, 516))
    assert len(vocab) == 516
    assert list(vocab.values()) == list(range(516))


def test_a_vocabulary_of_other_sizes_has_ids_without_gaps():
    vocab = default_vocab(3, 2)
    assert list(vocab) == [*STRUCTURAL, "<Z_000>", "<Z_001>", "<Z_002>", "<CLS_0>", "<CLS_1>"]
    assert list(vocab.values()) == list(range(11))


def test_only_class_tokens_name_a_class():
    assert [class_of(class_token(label)) for label in (0, 3, 12)] == [0, 3, 12]
    for token in (*STRUCTURAL, code_token(3), "<CLS_>", "<CLS_x>", "<CLS_3", "x<CLS_3>", "3"):
        assert class_of(token) is None, token


def test_a_code_is_what_is_neither_structural_nor_a_class():
    assert all(map(is_code, ("<Z_017>", "cat", "<CLS_x>", "CLS_3")))
    assert not any(map(is_code, (*STRUCTURAL, "<CLS_3>", "<CLS_44>")))


def test_every_id_is_structural_a_code_a_class_or_unknown():
    kinds = token_kinds(default_vocab())
    assert kinds.shape == (516,)
    assert kinds[:6].tolist() == [KIND_UNKNOWN if i == 1 else KIND_STRUCTURAL for i in range(6)]
    assert (kinds[6:506] == KIND_CODE).all()
    assert (kinds[506:] == KIND_CLASS).all()


def test_kinds_follow_the_ids_not_the_order_of_the_names():
    vocab = {"<CLS_0>": 3, "frog": 0, "<EOS>": 2, "<Z_000>": 1}
    assert token_kinds(vocab).tolist() == [KIND_CODE, KIND_CODE, KIND_STRUCTURAL, KIND_CLASS]


def test_class_ids_come_in_the_order_of_the_classes():
    shuffled = {"<CLS_10>": 4, "<CLS_2>": 7, "<Z_000>": 1, "<CLS_0>": 9, "<CLS>": 2}
    assert class_ids(shuffled) == [9, 7, 4]
    assert class_ids(default_vocab()) == list(range(506, 516))
    assert class_ids({"<CLS>": 0}) == []


# ---------------------------------------------------------------- the two layouts


def test_the_read_layout_asks_for_the_class_last():
    assert read_layout(CODES, 3) == (*PICTURE, "<CLS>", "<CLS_3>", "<EOS>")


def test_the_draw_layout_gives_the_class_first():
    assert draw_layout(CODES, 3) == ("<CLS>", "<CLS_3>", *PICTURE, "<EOS>")


def test_a_withheld_class_leaves_a_second_cls_in_its_place():
    assert draw_layout(CODES, None) == ("<CLS>", "<CLS>", *PICTURE, "<EOS>")


@pytest.mark.parametrize("label", [None, *CLASSES])
def test_a_drawing_prompt_is_how_the_draw_layout_begins(label):
    prompt = drawing_prompt(label)
    assert draw_layout(CODES, label)[: len(prompt)] == prompt
    assert prompt[-1] == IMG


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("write", [read_layout, draw_layout])
def test_codes_and_class_come_back_from_a_sentence(write, label):
    codes = np.random.default_rng(label).integers(0, 500, 16)
    tokens = write(codes, label)
    assert codes_of(tokens).tolist() == codes.tolist()
    assert codes_of(tokens).dtype == np.int64
    assert [class_of(token) for token in tokens if class_of(token) is not None] == [label]
    assert codes_of(list(tokens)).tolist() == codes.tolist()


def test_codes_come_back_from_a_picture_that_is_only_begun():
    assert codes_of((*drawing_prompt(3), code_token(7))).tolist() == [7]
    assert codes_of((IMG, IMG_END)).shape == (0,)


@pytest.mark.parametrize("stranger", [CLS, class_token(3), UNK, "frog", "<Z_>"])
def test_what_is_no_code_inside_a_picture_is_named(stranger):
    with pytest.raises(DataError, match="inside the image") as caught:
        codes_of((IMG, code_token(1), stranger, IMG_END, CLS))
    assert repr(stranger) in one_sentence(caught)


def test_a_layout_is_told_by_what_surrounds_the_picture():
    assert layout_of(read_layout(CODES, 3)) == "read"
    assert layout_of(list(read_layout(CODES, 3))) == "read"
    assert layout_of((*PICTURE, CLS, CLS, EOS)) == "read"
    assert layout_of((*PICTURE, CLS, EOS)) == "read"
    assert layout_of(draw_layout(CODES, 3)) == "draw"
    assert layout_of(draw_layout(CODES, None)) == "draw"


@pytest.mark.parametrize(
    "tokens",
    [(), (CLS,), (*PICTURE, EOS), (CLS, *PICTURE, EOS), (EOS, "<CLS_3>", *PICTURE), PICTURE[:-1]],
)
def test_a_sentence_of_neither_layout_is_other(tokens):
    assert layout_of(tokens) == "other"


# ---------------------------------------------------------------- the classifier's question


@pytest.mark.parametrize("tail", ["whole", "<CLS> <CLS> <EOS>", "<CLS> <EOS>", "<CLS>"])
@pytest.mark.parametrize("label", CLASSES)
def test_the_classifiers_question_never_holds_the_class(label, tail):
    codes = np.random.default_rng(label).integers(0, 500, 16)
    whole = read_layout(codes, label)
    tokens = whole if tail == "whole" else (*whole[: whole.index(IMG_END) + 1], *tail.split())
    prompt = reading_prompt(tokens)
    assert not [token for token in prompt if class_of(token) is not None]
    assert prompt == (IMG, *map(code_token, codes), IMG_END, CLS)
    assert reading_prompt(list(tokens)) == prompt


def test_the_classifiers_question_is_the_same_for_every_class():
    assert len({reading_prompt(read_layout(CODES, label)) for label in CLASSES}) == 1


@pytest.mark.parametrize("tokens", [draw_layout(CODES, 3), draw_layout(CODES, None), PICTURE, ()])
def test_what_cannot_be_classified_is_refused(tokens):
    with pytest.raises(DataError, match="can be classified only if") as caught:
        reading_prompt(tokens)
    one_sentence(caught)


@pytest.mark.parametrize(
    "tokens", [(CLS, class_token(3), *PICTURE, CLS, EOS), (IMG, class_token(3), IMG_END, CLS)]
)
def test_a_question_that_gives_its_answer_away_is_refused(tokens):
    with pytest.raises(DataError, match="<CLS_3> comes before") as caught:
        reading_prompt(tokens)
    one_sentence(caught)


# ---------------------------------------------------------------- shortening


@pytest.mark.parametrize("max_length", range(6, 14))
@pytest.mark.parametrize(
    ("write", "head", "tail"),
    [
        (read_layout, (IMG,), (IMG_END, CLS, "<CLS_3>", EOS)),
        (draw_layout, (CLS, "<CLS_3>", IMG), (IMG_END, EOS)),
    ],
)
def test_shortening_keeps_head_and_tail_and_the_last_codes(write, head, tail, max_length):
    whole = write(range(8), 3)  # 13 tokens, 8 of them codes
    short = shorten(whole, max_length)
    kept = min(max_length, 13) - 5
    assert short == (*head, *map(code_token, range(8 - kept, 8)), *tail)


def test_shortening_counts_unknown_codes_as_codes():
    tokens = (IMG, UNK, code_token(1), UNK, code_token(3), IMG_END, CLS, class_token(3), EOS)
    assert shorten(tokens, 7) == (IMG, UNK, code_token(3), IMG_END, CLS, class_token(3), EOS)


def test_shortening_works_for_codes_with_names_of_their_own():
    tokens = (IMG, "frog", "toad", "newt", IMG_END, CLS, class_token(0), EOS)
    assert shorten(tokens, 6) == (IMG, "newt", IMG_END, CLS, class_token(0), EOS)


@pytest.mark.parametrize("max_length", [1, 4, 5])
def test_a_row_is_never_shortened_to_a_picture_without_codes(max_length):
    with pytest.raises(DataError, match="raise max_length") as caught:
        shorten(read_layout(range(8), 3), max_length)
    assert f"13 tokens cannot be cut to {max_length}" in one_sentence(caught)


def test_padding_has_the_first_id():
    assert default_vocab()[PAD] == 0
