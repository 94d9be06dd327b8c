"""Training that goes on: ids stay, vocabularies and heads grow, forgetting is measured, LoRA."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from seqlm.cli import main
from seqlm.config import DataFiles, FinetuneConfig, TrainConfig
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.records import Record, write_records
from seqlm.data.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer, vocabulary_of
from seqlm.data.tokens import (
    class_token,
    code_token,
    default_vocab,
    read_layout,
)
from seqlm.errors import ConfigError, DataError, DataWarning
from seqlm.models.gpt2 import build_classifier, build_lm, load_classifier, load_lm
from seqlm.models.resize import (
    grow_embedding,
    start_model,
)
from seqlm.training import forgetting
from seqlm.training.batches import Rows
from seqlm.training.finetune import finetune_model
from seqlm.training.measure import evaluate_lm
from seqlm.training.replay import LEARNED, read_learned, with_replay
from seqlm.training.runs import save_model_cards, train_and_evaluate
from seqlm.training.train import run_identity
from seqlm.training.trainer import ValidationMetric
from seqlm.utils import read_json, write_json

pytestmark = pytest.mark.slow

QUICK = {"batch_size": 16, "evals": 1, "patience": 0, "precision": "fp32"}


def rows(n, codes, labels, seed=0, first=0):
    """Rows of 8 codes out of `codes`; the class decides which half of them."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        label = labels[i % len(labels)]
        half = codes[: len(codes) // 2] if i % 2 else codes[len(codes) // 2 :]
        split = "test" if i % 5 == 0 else "val" if i % 5 == 1 else "train"
        meta = {"split": split, "source_id": f"{seed}-{first + i}"}
        yield Record(read_layout(rng.choice(half, 8), label), label, meta)


@pytest.fixture(scope="module")
def started(built, tiny, tmp_path_factory):
    """A model of 50 codes and ten classes after a few steps, its run around it."""
    out = tmp_path_factory.mktemp("started")
    files = DataFiles(built.directory / "sequences.jsonl", built.directory / "vocab.json")
    config = TrainConfig(out, max_steps=30, learning_rate=3e-3, **QUICK)
    train_and_evaluate(files, tiny, config)
    corpus = load_corpus(files)
    record = read_json(out / "training.json")
    save_model_cards(out, record, corpus, codebook=built.directory / "codebook.npz")
    return out / "best_model"


@pytest.fixture(scope="module")
def classifier(tiny, vocab, tmp_path_factory):
    """A classifier of three classes with random weights."""
    out = tmp_path_factory.mktemp("classifier")
    build_classifier(tiny, vocab, 3).save_pretrained(out)
    save_tokenizer(build_tokenizer(vocab), out)
    return out


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Rows with eight new codes and a new class, beside what the model knows."""
    path = tmp_path_factory.mktemp("mine") / "mine.jsonl"
    write_records(path, rows(120, range(40, 58), [3, 10]))
    return path


@pytest.fixture(scope="module")
def plain(started, mine, built, tmp_path_factory):
    """The whole command, with forgetting and replay, through the command line."""
    out = tmp_path_factory.mktemp("plain")
    words = ["finetune", "--model_path", str(started), "--data_path", str(mine), "--output_dir"]
    words += [str(out), "--old_data_path", str(built.directory / "sequences.jsonl")]
    words += ["--replay", "0.25", "--max_steps", "40", "--learning_rate", "3e-3"]
    words += ["--batch_size", "16", "--evals", "2", "--precision", "fp32"]
    return words, out


def files_of(path) -> DataFiles:
    return DataFiles(path, path)


def options_of(start, **more) -> FinetuneConfig:
    return FinetuneConfig(model_path=start, **more)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_from_end_to_end(plain, started, vocab, capsys):
    words, out = plain
    before = {p.name: p.read_bytes() for p in started.iterdir()}
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "9 tokens new to the model, ids 66 to 74: " in said and "<CLS_10> (60 times)" in said
    assert "parameters are trained (all of them)" in said
    assert "new rows (mine.jsonl, test), NLL per code, nats:" in said
    assert "old rows (sequences.jsonl, test), NLL per code, nats:" in said
    assert {p.name: p.read_bytes() for p in started.iterdir()} == before, "the start is untouched"

    grown = vocabulary_of(load_tokenizer(out / "best_model"))
    assert {token: grown[token] for token in vocab} == vocab
    assert list(grown)[66:] == [*map(code_token, range(50, 58)), class_token(10)]
    model = GPT2LMHeadModel.from_pretrained(out / "best_model")
    tokenizer = GPT2Tokenizer.from_pretrained(out / "best_model")
    assert len(tokenizer) == model.config.vocab_size == 75
    assert tokenizer("<Z_057> <CLS_10>")["input_ids"] == [73, 74]
    for name in ("best_model", "final_model"):
        assert (out / name / "codebook.npz").is_file(), "it goes along"
        card = (out / name / "README.md").read_text()
        assert f"fine-tuned from `{started.parent.name}/best_model`" in card
        assert "72 train, 24 val, 24 test rows of `mine.jsonl`" in card, "the new rows alone"
        assert "it learned from 72 new rows and 24 replayed rows of `sequences.jsonl`" in card

    held = json.loads((out / "metrics.json").read_text())["values"]
    assert held["read"]["code"]["nll"]["n"] == 24 and "baselines" in held
    told = held["finetuned"]
    assert told["new_tokens"] == list(grown)[66:] and told["trained"] == told["parameters"]
    assert told["rows"] == {"new": 72, "replayed": 24}
    new, old = told["changes"].values()
    assert new["code_nll"]["difference"]["high"] < 0, "the loss on the new rows falls"
    assert new["code_nll"]["after"]["value"] == pytest.approx(held["read"]["code"]["nll"]["value"])
    assert old["code_nll"]["difference"]["n"] == 60
    for numbers in (new["code_nll"], old["code_nll"], old["accuracy"]):
        gap = numbers["after"]["value"] - numbers["before"]["value"]
        assert numbers["difference"]["value"] == pytest.approx(gap, abs=1e-6)
    report = (out / "report.md").read_text()
    assert "## What fine-tuning changed" in report and "- old rows (sequences.jsonl" in report
    evals = read_json(out / "training.json")["evals"]
    assert all("old_code_nll" in line for line in evals), "the curve of forgetting"


def test_baselines_are_fitted_on_the_new_rows_alone(plain, mine):
    held = json.loads((plain[1] / "metrics.json").read_text())["values"]
    model = plain[1] / "best_model"
    alone = load_corpus(files_of(mine), 64, vocabulary_of(load_tokenizer(model)))
    want = evaluate_lm(load_lm(model), alone)["baselines"]
    for name, baseline in held["baselines"].items():
        assert baseline["code"]["nll"]["value"] == pytest.approx(want[name]["code"]["nll"]["value"])


def test_what_was_known_before_is_what_evaluate_says_of_the_starting_model(
    plain, started, built, capsys
):
    held = json.loads((plain[1] / "metrics.json").read_text())["values"]["finetuned"]["changes"]
    words = ["evaluate", "--data_path", str(built.directory / "sequences.jsonl"), "--baselines"]
    assert main([*words, "false", "--json", "--model_path", str(started)]) == 0
    known = json.loads(capsys.readouterr().out)["read"]["code"]["nll"]
    old = next(found for name, found in held.items() if name.startswith("old"))
    assert old["code_nll"]["before"] == pytest.approx(known)


def test_the_same_command_again_trains_nothing_but_measures(plain, capsys):
    words, out = plain
    stamp = (out / "best_model" / "model.safetensors").stat().st_mtime_ns
    assert main(words) == 0
    assert "already trained" in capsys.readouterr().out
    assert (out / "best_model" / "model.safetensors").stat().st_mtime_ns == stamp
    assert (out / "report.md").read_text().count("## What fine-tuning changed") == 1


def test_every_other_command_takes_the_result(plain, mine, capsys):
    model = str(plain[1] / "best_model")
    assert main(["evaluate", "--model_path", model, "--data_path", str(mine)]) == 0
    generate = "infer --mode generate --label 10 --max_new_tokens 4 --model_path"
    assert main([*generate.split(), model]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("<CLS> <CLS_10> <IMG>")
    classify = "infer --mode classify --model_path"
    assert main([*classify.split(), model, "--data_path", str(mine)]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert len(row["probabilities"]) == 11


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "best_model", "best_model/deeper"])
def test_the_starting_model_is_never_written_over(started, mine, place, capsys):
    out = started.parent / place
    words = ["finetune", "--model_path", str(started), "--data_path", str(mine)]
    assert main([*words, "--output_dir", str(out)]) == 2
    said = capsys.readouterr().err
    assert "contains the model to start from" in said and said.count("\n") == 1
    assert load_lm(started) is not None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"replay": 0.2}, "name their file with --old_data_path"),
        ({"replay": 0.95}, "^replay: must be between 0 and 0.9, got 0.95"),
        ({"lora_rank": -1}, "^lora_rank: must be at least 0, got -1"),
        ({"lora_rank": 1.5}, "^lora_rank: must be a valid integer, got 1.5"),
        ({"lora_rank": 33}, "^lora_rank: must be at most n_embd = 32 of .*, got 33$"),
        ({"lora_alpha": 0.0}, "^lora_alpha: must be at least"),
        ({"task": "both"}, "^task: must be 'lm' or 'classifier', got 'both'"),
        ({"grow": False}, "holds 9 tokens that the model does not know: .*--grow true"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    started, mine, tmp_path, more, said
):
    config = TrainConfig(tmp_path / "out", **QUICK)
    with pytest.raises((ConfigError, DataError), match=said):
        finetune_model(files_of(mine), options_of(started, **more), config)
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_file_says_what_may_be_new_so_a_typo_is_refused(started, vocab, tmp_path):
    write_json(tmp_path / "wider.json", default_vocab(52))
    (typo,) = (tmp_path / "typo.jsonl",)
    given = [*rows(30, range(40, 52), [3])]
    given[7] = replace(given[7], tokens=tuple(t.replace("Z_0", "Z_o") for t in given[7].tokens))
    write_records(typo, given)
    options = options_of(started, vocab_path=tmp_path / "wider.json")
    with pytest.raises(DataError, match=r"typo.jsonl:8: tokens: unknown token '<Z_o"):
        finetune_model(files_of(typo), options, TrainConfig(tmp_path / "out", **QUICK))
    options = replace(options, grow=False)
    with pytest.raises(DataError, match="wider.json: holds 2 tokens that the model does not"):
        finetune_model(files_of(typo), options, TrainConfig(tmp_path / "out", **QUICK))


def test_a_token_that_no_vocabulary_may_hold_is_refused_before_training(started, mine, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(mine.read_text().replace("<Z_050>", r"<Z\u001b[31m>"))
    with pytest.raises(DataError, match=rf"^{bad}: .* holds a control character"):
        finetune_model(files_of(bad), options_of(started), TrainConfig(tmp_path / "out", **QUICK))
    assert not (tmp_path / "out").exists()


def test_numbers_too_large_for_anyone_are_refused_in_one_sentence(started, mine, tmp_path, capsys):
    words = ["finetune", "--model_path", str(started), "--data_path", str(mine), "--output_dir"]
    for flag, value in (("--lora_rank", "200000000"), ("--seed", "99999999999999999999")):
        assert main([*words, str(tmp_path / "out"), flag, value]) == 2
        said = capsys.readouterr().err
        assert f"{flag[2:]}: must be" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("split", "replay", "said"),
    [
        ("test", 0.2, "meta.split leaves train empty"),
        ("train", 0.0, "meta.split leaves val empty"),
    ],
)
def test_old_rows_with_an_empty_split_are_named_by_their_file(
    started, mine, tmp_path, split, replay, said
):
    path = tmp_path / "elsewhere.jsonl"
    write_records(path, [replace(r, meta={"split": split}) for r in rows(9, range(40), [1])])
    options = options_of(started, old_data_path=path, replay=replay)
    with pytest.raises(DataError, match=f"^{path}: {said}"):
        finetune_model(files_of(mine), options, TrainConfig(tmp_path / "out", **QUICK))


def unlabelled(path, *splits) -> None:
    """Rows without labels in `splits`, with labels in the others."""
    given = [
        replace(r, label=None, tokens=(*r.tokens[:11], "<EOS>")) if r.meta["split"] in splits else r
        for r in rows(60, range(40), [0, 1], seed=5)
    ]
    write_records(path, given)


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (("train", "val", "test"), "no row can be replayed: it holds no labelled train row"),
        (("train",), "no row can be replayed: it holds no labelled train row"),
        (("val",), "the val split holds no row with a label"),
        (("test",), "the test split holds no row with a label"),
    ],
)
def test_a_classifier_refuses_rows_without_labels_before_training_and_names_their_file(
    classifier, tmp_path, splits, said
):
    write_records(tmp_path / "new.jsonl", rows(60, range(40), [0, 1]))
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    unlabelled(old, *splits)
    options = options_of(classifier, old_data_path=old, replay=0.2)
    with pytest.raises(DataError, match=f"^{old}: {said}"):
        finetune_model(files_of(new), options, TrainConfig(tmp_path / "out", **QUICK))
    with pytest.raises(DataError, match=f"^{old}: the {splits[0]} split holds no row with a label"):
        config = TrainConfig(tmp_path / "out", **QUICK)
        finetune_model(files_of(old), options_of(classifier), config)


def test_a_classifier_cannot_become_a_language_model(classifier, mine, tmp_path):
    with pytest.raises(ConfigError, match="holds a classifier, which has no output layer"):
        finetune_model(
            files_of(mine), options_of(classifier, task="lm"), TrainConfig(tmp_path, **QUICK)
        )


def test_without_peft_one_sentence_says_how_to_get_it(started, mine, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    monkeypatch.delitem(__import__("sys").modules, "seqlm.models.lora", raising=False)
    with pytest.raises(ConfigError, match=r'pip install -e "\.\[finetune\]"'):
        config = TrainConfig(tmp_path / "out", **QUICK)
        finetune_model(files_of(mine), options_of(started, lora_rank=2), config)


def test_one_class_makes_no_classifier(classifier, tmp_path):
    write_records(tmp_path / "one.jsonl", rows(30, range(20), [1]))
    with pytest.raises(DataError, match="of class 1; a classifier needs rows of at least two"):
        config = TrainConfig(tmp_path / "out", **QUICK)
        finetune_model(files_of(tmp_path / "one.jsonl"), options_of(classifier), config)


# --- classifiers, lengths, replay -----------------------------------------------------------------


def test_a_classifier_goes_on_with_its_head_and_learns_a_new_class(classifier, tmp_path, capsys):
    write_records(tmp_path / "rows.jsonl", rows(60, range(40), [0, 2, 1, 3]))
    config = TrainConfig(tmp_path / "out", max_steps=2, learning_rate=1e-9, **QUICK)
    finetune_model(files_of(tmp_path / "rows.jsonl"), options_of(classifier), config)
    start, after = load_classifier(classifier), load_classifier(tmp_path / "out" / "best_model")
    assert after.config.num_labels == 10, "as many as the vocabulary has class tokens"
    assert torch.allclose(after.score.weight[:3], start.score.weight, atol=1e-6)
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())["values"]
    assert values["accuracy"]["n"] == 12 and "baselines" in values
    assert "fine-tuned from" in (tmp_path / "out" / "final_model" / "README.md").read_text()
    assert "new rows (rows.jsonl, test), accuracy:" in capsys.readouterr().out


def test_one_new_class_is_learned_beside_replayed_ones(classifier, tmp_path):
    write_records(tmp_path / "new.jsonl", rows(40, range(40), [3], seed=1))
    write_records(tmp_path / "old.jsonl", rows(40, range(40), [0, 1], seed=2))
    options = options_of(classifier, old_data_path=tmp_path / "old.jsonl", replay=0.5)
    config = TrainConfig(tmp_path / "out", max_steps=1, **QUICK)
    finetune_model(files_of(tmp_path / "new.jsonl"), options, config)
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())["values"]
    assert values["baselines"] == {}, "of one class there is nothing to tell apart"
    assert values["finetuned"]["rows"] == {"new": 24, "replayed": 24}


def test_a_language_model_becomes_a_classifier_of_old_and_new_classes(started, mine, tmp_path):
    config = TrainConfig(tmp_path / "out", max_steps=2, **QUICK)
    finetune_model(files_of(mine), options_of(started, task="classifier"), config)
    model = load_classifier(tmp_path / "out" / "best_model")
    assert model.config.num_labels == 11 and model.config.vocab_size == 75


def test_rows_longer_than_what_the_model_learned_from_are_cut_and_it_says_so(
    tiny, vocab, tmp_path, capsys
):
    start = tmp_path / "start"
    build_lm(tiny, vocab).save_pretrained(start)
    save_tokenizer(build_tokenizer(vocab, model_max_length=10), start)
    write_records(tmp_path / "rows.jsonl", rows(30, range(50), [1, 2]))
    config = TrainConfig(tmp_path / "out", max_steps=1, **QUICK)
    finetune_model(files_of(tmp_path / "rows.jsonl"), options_of(start), config)
    assert "rows cut to max_length: 30 of" in capsys.readouterr().out
    assert load_tokenizer(tmp_path / "out" / "best_model").model_max_length == 10


def corpora(vocab, tmp_path):
    made = []
    for seed, name in ((1, "new"), (2, "old")):
        path = tmp_path / f"{name}.jsonl"
        write_records(path, rows(50, range(40), [1, 2], seed))
        made.append(load_corpus(files_of(path), None, vocab))
    return made


def test_replay_has_the_share_asked_for_and_leaves_val_and_test_alone(vocab, tmp_path):
    new, old = corpora(vocab, tmp_path)
    mixed = with_replay(new, old, 0.25)
    sources = [record.source for record in mixed.splits["train"]]
    assert sum(source.startswith("2-") for source in sources) == 10 and len(sources) == 40
    assert mixed.splits["test"] == new.splits["test"] and mixed.splits["val"] == new.splits["val"]
    trained = {record.source for record in old.splits["train"]}
    assert {source for source in sources if source.startswith("2-")} <= trained
    often = with_replay(new, old, 0.8)
    replayed = [r.source for r in often.splits["train"] if r.source.startswith("2-")]
    assert len(replayed) == 120 and {replayed.count(s) for s in replayed} == {4}, "in turn"


def with_rows(corpus: Corpus, split: str, more) -> Corpus:
    return replace(corpus, splits=corpus.splits | {split: [*corpus.splits[split], *more]})


def test_old_rows_that_the_new_model_learns_are_not_measured(started, tmp_path, capsys):
    """Forgetting would look smaller than it is."""
    given = [*rows(60, range(40), [1, 2], seed=1)]
    write_records(tmp_path / "old.jsonl", given)
    moved = [replace(r, meta={"split": "train"}) for r in given if r.meta["split"] == "test"][:3]
    new = [replace(r, meta={"split": r.meta["split"]}) for r in rows(60, range(40), [1, 2], seed=2)]
    write_records(tmp_path / "new.jsonl", [*new, *moved])
    options = options_of(started, old_data_path=tmp_path / "old.jsonl", replay=0.2)
    config = TrainConfig(tmp_path / "out", max_steps=1, **QUICK)
    refused = r"old.jsonl: 3 of the 12 rows of test \(lines 1, 6, 11\) .* that the new model was"
    with pytest.raises(DataError, match=refused):
        finetune_model(files_of(tmp_path / "new.jsonl"), options, config)
    assert not config.output_dir.exists()
    options = replace(options, only_unseen=True)
    finetune_model(files_of(tmp_path / "new.jsonl"), options, config)
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())["values"]
    old = values["finetuned"]["changes"]["old rows (old.jsonl, test)"]
    assert old["code_nll"]["difference"]["n"] == 9
    assert any("3 of the 12 rows of test" in sentence for sentence in values["left_out"])


def test_new_rows_that_the_starting_model_has_learned_are_not_measured(
    started, built, tiny, vocab, tmp_path
):
    known = load_corpus(
        DataFiles(built.directory / "sequences.jsonl", built.directory / "vocab.json")
    )
    taught = [replace(r, meta={"split": "test"}) for r in known.records("train", "read")[:2]]
    new = [replace(r, meta={"split": r.meta["split"]}) for r in rows(60, range(40), [1, 2])]
    write_records(tmp_path / "new.jsonl", [*new, *taught])
    config = TrainConfig(tmp_path / "out", max_steps=1, **QUICK)
    with pytest.raises(DataError, match=r"2 of the 14 rows of test \(lines 61, 62\)"):
        finetune_model(files_of(tmp_path / "new.jsonl"), options_of(started), config)
    bare = tmp_path / "bare"  # a model that does not say: what is left are the old rows' train rows
    build_lm(replace(tiny, n_positions=64), vocab).save_pretrained(bare)
    save_tokenizer(build_tokenizer(vocab), bare)
    old = built.directory / "sequences.jsonl"
    with pytest.raises(DataError, match=r"2 of the 14 rows of test \(lines 61, 62\)"):
        finetune_model(
            files_of(tmp_path / "new.jsonl"), options_of(bare, old_data_path=old), config
        )
    with pytest.warns(DataWarning, match="nobody can check"):
        finetune_model(files_of(tmp_path / "new.jsonl"), options_of(bare), config)
    assert not (config.output_dir / "best_model" / LEARNED).exists(), "half of it would mislead"
    learned = read_learned(started)
    finetune_model(files_of(tmp_path / "new.jsonl"), options_of(started, only_unseen=True), config)
    assert set(learned) < set(read_learned(config.output_dir / "best_model"))


def test_what_the_new_rows_are_measured_on_is_never_replayed(vocab, tmp_path):
    new, old = corpora(vocab, tmp_path)
    leaky = with_rows(
        with_rows(new, "val", old.splits["train"][:1]), "test", old.splits["train"][1:3]
    )
    held = {record.codes for record in old.splits["train"][:3]}
    mixed = with_replay(leaky, old, 0.8)  # many times all of the old rows
    replayed = [r for r in mixed.splits["train"] if r.source.startswith("2-")]
    assert len(replayed) == 120 and not held & {record.codes for record in replayed}
    with pytest.raises(DataError, match="no row can be replayed"):
        with_replay(with_rows(new, "test", old.splits["train"]), old, 0.2)


@pytest.mark.parametrize(
    ("unit", "ends", "old", "said"),
    [
        ("nats per token", (0.1, 0.3), True, "some of it is forgotten"),
        ("nats per token", (0.1, 0.3), False, "it has become worse"),
        ("nats per token", (-0.3, -0.1), True, "it has become better, too"),
        ("nats per token", (-0.1, 0.3), True, "not distinguishable from no change"),
        ("nats per token", (-0.3, -0.0004), False, "not distinguishable from no change"),
        ("share", (-0.3, -0.1), True, "some of it is forgotten"),
        ("share", (0.1, 0.3), False, "it has become better"),
    ],
)
def test_fewer_nats_are_better_and_fewer_right_answers_worse(unit, ends, old, said):
    number = {"value": sum(ends) / 2, "low": ends[0], "high": ends[1], "n": 9, "unit": unit}
    found = {"before": number, "after": number, "difference": number}
    assert forgetting.describe_change(found, old).endswith(said)


# --- LoRA -----------------------------------------------------------------------------------------


@pytest.fixture
def lora_run(started, mine, tmp_path):
    options = options_of(started, lora_rank=4, lora_alpha=8.0)
    config = TrainConfig(
        tmp_path / "out", max_steps=12, learning_rate=1e-2, **(QUICK | {"evals": 6})
    )
    return files_of(mine), options, config


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_another_alpha_of_lora_makes_it_another_run(tiny, vocab, tmp_path):
    from seqlm.models.lora import add_lora

    def identity(alpha):
        model = add_lora(build_lm(tiny, vocab), 2, alpha, len(vocab), tmp_path, seed=1)
        metric = ValidationMetric("code_nll", None, [])
        return run_identity(model, build_tokenizer(vocab), Rows([[2, 3]]), metric, TrainConfig())

    assert identity(8.0) == identity(8.0) != identity(16.0)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, which a user would call so
def test_lora_leaves_the_old_weights_and_teaches_new_tokens(lora_run, started, mine, capsys):
    from peft import PeftModel

    files, options, config = lora_run
    finetune_model(files, options, config)
    said, out = capsys.readouterr().out, config.output_dir
    # 9 rows of the embedding and, of two blocks, A and B beside four matrices.
    a_block = 4 * (32 + 96) + 4 * (32 + 32) + 2 * 4 * (32 + 128)
    trained = 9 * 32 + 2 * a_block
    assert f"{trained:,} of " in said and "(LoRA of rank 4)" in said
    assert "MB of merged weights, is in" in said
    new = json.loads((out / "metrics.json").read_text())["values"]["finetuned"]
    assert new["trained"] == trained
    for name in ("best_model", "final_model"):
        names = {path.name for path in (out / name).iterdir()}
        assert {"model.safetensors", "vocab.json", "README.md", "adapter"} <= names
        assert not {"adapter_config.json", "adapter_model.safetensors"} & names
    start, after = load_lm(started), load_lm(out / "best_model")
    assert torch.equal(after.transformer.wte.weight[:66], start.transformer.wte.weight)
    new_rows, mean = after.transformer.wte.weight[66:], start.transformer.wte.weight.mean(0)
    assert ((new_rows - mean).abs().max(1).values > 1e-3).all(), "each has learned"
    found = next(iter(new["changes"].values()))["code_nll"]["difference"]
    assert found["high"] < 0, "it learns"

    # The adapter upon the starting model is the merged model.
    grow_embedding(start, 75)
    under = PeftModel.from_pretrained(start, out / "best_model" / "adapter").eval()
    ids = torch.tensor([[2, 70, 7, 73, 3, 4, 74, 5]])
    with torch.no_grad():
        assert torch.allclose(under(input_ids=ids).logits, after(ids).logits, atol=1e-5)


def lines_in(readme: Path, start: Path) -> str:
    """The Python lines of an adapter's README, with real folders for the names in it."""
    code = readme.read_text().split("```python\n")[1].split("```")[0]
    for name, place in ((start.name, start), ("adapter", readme.parent)):
        assert f'"{name}"' in code
        code = code.replace(f'"{name}"', f'"{place}"')
    return code


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("task", "grows"), [("lm", True), ("lm", False), ("classifier", True)])
def test_the_lines_beside_an_adapter_load_it(started, mine, tmp_path, task, grows):
    path = mine
    if not grows:
        path = tmp_path / "rows.jsonl"
        write_records(path, rows(40, range(40), [1, 2]))
    options = options_of(started, task=task, lora_rank=2)
    config = TrainConfig(tmp_path / "out", max_steps=3, learning_rate=1e-2, **QUICK)
    finetune_model(files_of(path), options, config)
    folder = config.output_dir / "best_model" / "adapter"
    assert read_json(folder / "adapter_config.json")["base_model_name_or_path"] == "best_model"
    code = lines_in(folder / "README.md", started)
    assert ("resize_token_embeddings(75)" in code) == grows
    made = {}
    exec(code, made)
    after = (load_lm if task == "lm" else load_classifier)(config.output_dir / "best_model")
    ids = torch.tensor([[2, 70 if grows else 40, 7, 3, 4]])
    with torch.no_grad():
        under = made["model"].eval()(input_ids=ids).logits
        assert torch.allclose(under, after(ids).logits, atol=1e-5)


def test_a_lora_run_that_was_killed_goes_on_to_the_same_end(lora_run, tmp_path, capsys):
    files, options, config = lora_run
    whole = replace(config, output_dir=tmp_path / "whole")
    finetune_model(files, options, whole)

    class Killed(Exception):
        pass

    from seqlm.training.trainer import MeasuringTrainer

    original, calls = MeasuringTrainer.evaluate, []

    def dies(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise Killed
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeasuringTrainer, "evaluate", dies)
        with pytest.raises(Killed):
            finetune_model(files, options, config)
    load_lm(config.output_dir / "best_model")  # a whole model even in the middle of the run
    capsys.readouterr()
    finetune_model(files, options, config)
    assert "picking up the interrupted run at step" in capsys.readouterr().out
    ends = [load_lm(place.output_dir / "final_model") for place in (whole, config)]
    ids = torch.tensor([[2, 70, 7, 73, 3, 4, 74, 5]])
    assert torch.allclose(ends[0](ids).logits, ends[1](ids).logits, atol=1e-4)


def test_a_lora_run_of_other_settings_sets_the_one_before_aside(lora_run):
    files, options, config = lora_run
    for rate in (1e-2, 5e-3):
        finetune_model(files, options, replace(config, max_steps=2, learning_rate=rate))
    assert (config.output_dir / "earlier_run_1" / "best_model" / "adapter" / "README.md").is_file()


def test_under_lora_a_classifiers_head_learns_whole(started, mine, tmp_path):
    options = options_of(started, task="classifier", lora_rank=2)
    config = TrainConfig(tmp_path / "out", max_steps=3, learning_rate=1e-2, **QUICK)
    finetune_model(files_of(mine), options, config)
    vocab = vocabulary_of(load_tokenizer(tmp_path / "out" / "best_model"))
    corpus = load_corpus(files_of(mine), 64, vocab)
    start = start_model(started, corpus, classifies=True)
    after = load_classifier(tmp_path / "out" / "best_model")
    assert torch.equal(after.transformer.wte.weight[:66], start.transformer.wte.weight[:66])
    assert not torch.allclose(after.score.weight, start.score.weight)
