"""A trained model asked at the terminal: long rows, long prefixes, drawings to the end."""

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from seqlm.cli import main
from seqlm.config import ModelConfig, SampleConfig
from seqlm.data.arrow import read_table
from seqlm.data.codebook import PatchCodebook
from seqlm.data.images import load_digits
from seqlm.data.tokenizer import build_tokenizer, encode_tokens, save_tokenizer
from seqlm.data.tokens import (
    class_ids,
    code_token,
    default_vocab,
    read_layout,
    reading_prompt,
    shorten,
)
from seqlm.deploy.infer import classify_rows, complete_token, generate_rows, interact
from seqlm.errors import ConfigError, DataError
from seqlm.evaluation.scores import class_probabilities
from seqlm.models.generation import generate_sentences
from seqlm.models.gpt2 import build_classifier, build_lm, load_classifier, load_lm


def saved(model, vocab, directory, longest):
    model.save_pretrained(directory)
    save_tokenizer(build_tokenizer(vocab, model_max_length=longest), directory)
    return directory


@pytest.fixture
def directory(tiny, vocab, tmp_path):
    """An untrained model of 64 positions, its tokenizer told of 1024."""
    return saved(build_lm(tiny, vocab, seed=3), vocab, tmp_path / "lm", 1024)


def long_row(n_codes, label=3, seed=0):
    return read_layout(np.random.default_rng(seed).integers(0, 50, n_codes), label)


def asked(directory, rows, tmp_path, capsys):
    """The probabilities (N, C) that `classify_rows` prints, and what it says beside them."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"tokens": " ".join(row)}) for row in rows))
    classify_rows(directory, str(path))
    said = capsys.readouterr()
    answers = [json.loads(line) for line in said.out.splitlines()]
    return np.array([answer["probabilities"] for answer in answers]), said.err


def as_in_training(directory, rows, longest, vocab):
    prompts = [encode_tokens(reading_prompt(shorten(row, longest)), vocab) for row in rows]
    return class_probabilities(load_lm(directory), prompts, class_ids(vocab))


def test_rows_longer_than_the_model_are_cut_as_in_training(directory, vocab, tmp_path, capsys):
    rows = [long_row(n, seed=n) for n in (16, 58, 59, 60, 61, 200)]
    found, said = asked(directory, rows, tmp_path, capsys)
    assert np.allclose(found, as_in_training(directory, rows, 64, vocab), atol=1e-5)
    assert said.splitlines() == [
        f"{tmp_path / 'rows.jsonl'}: 3 of 6 rows lost codes from the left, because the model reads "
        "at most 64 tokens per row"
    ]


def test_a_long_row_gets_the_same_answer_with_and_without_its_class(directory, tmp_path, capsys):
    rows = [long_row(n) for n in (59, 60, 61, 62, 90)]
    whole, _ = asked(directory, rows, tmp_path, capsys)
    bare, said = asked(directory, [reading_prompt(row) for row in rows], tmp_path, capsys)
    assert np.array_equal(whole, bare) and "4 of 5 rows" in said


def test_rows_are_cut_to_the_length_of_training_where_the_tokenizer_knows_it(
    tiny, vocab, tmp_path, capsys
):
    directory = saved(build_lm(tiny, vocab, seed=3), vocab, tmp_path / "lm", 20)
    rows = [long_row(n, seed=n) for n in (15, 16, 30)]
    found, said = asked(directory, rows, tmp_path, capsys)
    assert np.allclose(found, as_in_training(directory, rows, 20, vocab), atol=1e-5)
    assert not np.allclose(found, as_in_training(directory, rows, 64, vocab), atol=1e-3)
    assert "2 of 3 rows" in said and "at most 20 tokens" in said


def test_a_tokenizer_that_knows_no_length_leaves_it_to_the_model(tiny, vocab, tmp_path, capsys):
    directory = saved(build_lm(tiny, vocab, seed=3), vocab, tmp_path / "lm", int(1e30))
    rows = [long_row(100)]
    found, said = asked(directory, rows, tmp_path, capsys)
    assert np.allclose(found, as_in_training(directory, rows, 64, vocab), atol=1e-5)
    assert "at most 64 tokens" in said


def test_a_classifier_is_asked_about_long_rows_too(tiny, vocab, tmp_path, capsys):
    directory = saved(build_classifier(tiny, vocab, seed=3), vocab, tmp_path / "c", 1024)
    rows = [long_row(80)]
    found, _ = asked(directory, rows, tmp_path, capsys)
    prompts = [encode_tokens(reading_prompt(shorten(row, 64)), vocab) for row in rows]
    wanted = class_probabilities(load_classifier(directory), prompts)
    assert np.allclose(found, wanted, atol=1e-5)


def test_rows_that_fit_are_read_without_a_warning(directory, tmp_path, capsys):
    _, said = asked(directory, [long_row(16), long_row(59)], tmp_path, capsys)
    assert said == ""


def test_a_model_too_short_for_one_code_is_reported_with_the_row(tiny, vocab, tmp_path, capsys):
    short = build_lm(replace(tiny, n_positions=5), vocab, seed=3)
    directory = saved(short, vocab, tmp_path / "lm", 1024)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: tokens: the model reads at most 5 tokens"):
        asked(directory, [long_row(16)], tmp_path, capsys)


def test_a_prefix_longer_than_the_model_gets_an_error_and_the_next_its_table(
    directory, monkeypatch, capsys
):
    lines = [" ".join([code_token(1)] * 65), " ".join([code_token(1)] * 64), "quit"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    interact(directory, top=3)
    said = capsys.readouterr()
    assert said.err == (
        "a prompt of 65 tokens does not fit the model's 64 positions; shorten the prompt\n"
    )
    assert len(said.out.splitlines()) == 3


def test_unknown_tokens_are_read_where_the_flag_that_the_refusal_names_allows_it(
    directory, tmp_path, capsys
):
    path = tmp_path / "rows\x1b[2J.jsonl"
    path.write_text('{"tokens": "<IMG> <Z_001> <NEW> </IMG> <CLS>"}\n')
    words = [
        "infer",
        "--model_path",
        str(directory),
        "--mode",
        "classify",
        "--data_path",
        str(path),
    ]
    assert main(words) == 2
    refused = capsys.readouterr().err
    assert "--allow_unknown" in refused and "\x1b" not in refused and r"rows\x1b[2J" in refused
    assert main([*words, "--allow_unknown"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)["probabilities"]) == 10
    assert "1 of 1 rows hold <UNK>" in said.err and "\x1b" not in said.err


def test_no_token_of_a_model_reaches_the_terminal_raw(tiny, tmp_path, monkeypatch, capsys):
    tokens = ["<script>", "\x1b[2J\x1b]0;x\x07", "\u202eabc", "\x9b31m"]
    vocab = {t: i for i, t in enumerate([*default_vocab(0, 2), *tokens])}
    directory = saved(build_lm(tiny, vocab), vocab, tmp_path / "lm\x1b[31m", 64)
    monkeypatch.setattr("sys.stdin", io.StringIO("<IMG>\n\x1b[2J\n"))
    interact(directory, top=len(vocab))
    said = capsys.readouterr()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    generate_rows(directory, f"<IMG> {tokens[1]}", None, 3, SampleConfig(max_new_tokens=20))
    shown = capsys.readouterr()
    for text in (said.out, said.err, shown.out):
        assert text and all(sign.isprintable() or sign == "\n" for sign in text)
    assert "<script>" in said.out and r"\x1b[2J" in said.out and r"\x1b[2J" in shown.out


def test_sentences_go_on_to_their_end_when_no_length_is_given(directory, vocab, capsys):
    hot = SampleConfig(temperature=100)
    generate_rows(directory, None, 3, 30, hot)
    lengths = [len(line.split()) for line in capsys.readouterr().out.splitlines()]
    # By chance alone one token in 66 is <EOS>: some rows end by it, some fill the model.
    assert len(lengths) == 30 and max(lengths) == 65 and min(lengths) < 65


def test_interactive_answers_can_be_one_json_object_per_line(directory, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("<IMG>\n<CLS> <CLS_3>\n"))
    interact(directory, top=4, as_json=True)
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["prefix"] == "<IMG>" and second["prefix"] == "<CLS> <CLS_3>"
    assert [set(row) for row in first["next"]] == [{"token", "id", "probability"}] * 4


def test_a_partial_token_is_completed_with_and_without_its_bracket(vocab):
    found = []
    while (token := complete_token("<CLS_", vocab, len(found))) is not None:
        found.append(token)
    assert found == [f"<CLS_{k}> " for k in range(10)]
    assert (
        complete_token("CLS_3", vocab, 0) == "<CLS_3> "
        and complete_token("CLS_3", vocab, 1) is None
    )


def test_what_is_written_as_json_is_a_row_of_the_data_contract(directory, vocab, tmp_path, capsys):
    way = SampleConfig(max_new_tokens=5, seed=9)
    generate_rows(directory, None, 3, 4, way, tmp_path / "some" / "rows.jsonl", as_json=True)
    (tmp_path / "printed.jsonl").write_text(capsys.readouterr().out)
    kept = read_table(tmp_path / "some" / "rows.jsonl", vocab)
    assert kept == read_table(tmp_path / "printed.jsonl", vocab) and len(kept) == 4
    assert 3 in {row.label for row in kept} and kept[2].meta["seed"] == 9
    assert [row.meta["number"] for row in kept] == [0, 1, 2, 3]


def test_images_are_written_as_one_grid_where_there_is_a_codebook(tmp_path, capsys):
    images = load_digits()[0][:100]
    book = PatchCodebook.fit(images, 12, 2)
    names = default_vocab(12)
    tiny = ModelConfig(n_layer=1, n_head=1, n_embd=8, n_positions=64)
    directory = saved(build_lm(tiny, names, seed=3), names, tmp_path / "lm", 64)
    whole = " ".join(["<CLS>", "<CLS_3>", "<IMG>", *[code_token(1)] * 16, "</IMG>"])
    way = SampleConfig(max_new_tokens=1)
    with pytest.raises(ConfigError, match="the model directory has no codebook"):
        generate_rows(directory, whole, None, 2, way, tmp_path / "grid.png")
    book.save(directory / "codebook.npz")
    generate_rows(directory, whole, None, 2, way, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="2 of 2 sequences have no complete image"):
        generate_rows(directory, "<IMG>", None, 2, way, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.png"])
def test_an_output_that_is_there_already_is_replaced_only_when_asked(directory, tmp_path, name):
    mine = tmp_path / name
    mine.write_text("mine")
    told = ["infer", "--model_path", str(directory), "--mode", "generate", "--prompt", "<IMG>"]
    told += ["--max_new_tokens", "2", "--output", str(mine)]
    assert main(told) == 2 and mine.read_text() == "mine"
    if mine.suffix == ".jsonl":  # this model has no codebook
        assert main([*told, "--overwrite"]) == 0 and "<IMG>" in mine.read_text()


def test_an_output_of_another_kind_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match="should end in .jsonl"):
        generate_rows(tmp_path / "missing", None, 3, 1, SampleConfig(), tmp_path / "a.gif")


def test_beam_search_at_the_terminal_writes_what_generation_finds(directory, vocab, capsys):
    told = ["infer", "--model_path", str(directory), "--mode", "generate", "--prompt", "<IMG>"]
    told += ["--strategy", "beam", "--num_beams", "5", "--max_new_tokens", "9", "--n", "2"]
    config = SampleConfig(strategy="beam", num_beams=5, max_new_tokens=9)
    wanted = generate_sentences(load_lm(directory), vocab, [["<IMG>"]] * 2, config)
    assert main(told) == 0
    assert capsys.readouterr().out.splitlines() == [" ".join(sentence) for sentence in wanted]
    assert main([*told, "--json", "true"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["tokens"].split() for row in rows] == wanted
    assert {(row["meta"]["strategy"], row["meta"]["num_beams"]) for row in rows} == {("beam", 5)}


@pytest.mark.parametrize("beams", ["0", "65"])
def test_beams_too_few_or_too_many_are_refused_in_one_sentence(directory, beams, capsys):
    told = ["infer", "--model_path", str(directory), "--mode", "generate", "--label", "3"]
    assert main([*told, "--strategy", "beam", "--num_beams", beams]) == 2
    said = capsys.readouterr().err
    assert f"num_beams: must be between 1 and 64, got {beams}" in said
    assert len(said.strip().splitlines()) == 1


def test_help_says_what_beams_are(capsys):
    with pytest.raises(SystemExit):
        main(["infer", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert '"beam" searches for the most probable sequence' in told
    assert "beam: number of sequences kept at each step" in told


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_answers_do_not_depend_on_how_many_rows_are_asked_at_a_time(
    size, directory, tmp_path, capsys
):
    rows = [long_row(n, seed=n) for n in range(1, 8)]
    together, _ = asked(directory, rows, tmp_path, capsys)
    classify_rows(directory, str(tmp_path / "rows.jsonl"), batch_size=size)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert np.allclose([answer["probabilities"] for answer in answers], together, atol=2e-6)
    with pytest.raises(ConfigError, match="batch_size"):
        classify_rows(directory, str(tmp_path / "rows.jsonl"), batch_size=0)
