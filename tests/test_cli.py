"""The command line, used as a person would: flags, files, mistakes."""

import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
import tomllib
from functools import wraps
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import run_offline, write_idx

from seqlm import cli
from seqlm.cli import main
from seqlm.plots.training import plot_training_process

pytestmark = pytest.mark.subprocess

ROOT = Path(__file__).parents[1]
TINY = "--n_layer 1 --n_head 2 --n_embd 16 --n_positions 64 --batch_size 16 --precision fp32"


@pytest.fixture(scope="module")
def trained(built, tmp_path_factory) -> Path:
    """What `seqlm train` left after a few steps."""
    out = tmp_path_factory.mktemp("trained")
    assert main(train_words(built, out)) == 0
    return out


def train_words(built, out, *more):
    paths = ["--data_path", str(built.directory / "sequences.jsonl"), "--vocab_path"]
    paths += [str(built.directory / "vocab.json"), "--output_dir", str(out)]
    return ["train", *paths, *TINY.split(), "--max_steps", "4", "--evals", "2", *more]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for name in ("build", "train", "classify", "evaluate", "infer", "report"):
        assert name in said


def test_the_flags_the_user_knows_are_taken(capsys):
    words = "train --data_path a --vocab_path b --batch_size 16 --num_epochs 30 "
    words += "--learning_rate 1e-4 --max_length 512 --repair_tail --print_config"
    with pytest.raises(SystemExit):
        main(words.split())
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["batch_size"] == 16 and config["num_epochs"] == 30
    assert config["learning_rate"] == 1e-4 and config["max_length"] == 512
    assert config["repair_tail"] is True


def test_flags_win_over_the_config_file(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("batch_size: 4\nlearning_rate: 1.0e-3\n")
    words = f"train --config {path} --data_path a --vocab_path b --batch_size 2 --print_config"
    with pytest.raises(SystemExit):
        main(words.split())
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["batch_size"] == 2 and config["learning_rate"] == 1e-3


def test_training_leaves_whole_directories_and_honest_numbers(trained):
    wanted = {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "training_args.bin",
        "README.md",
    }  # fmt: skip
    for name in ("best_model", "final_model"):
        assert wanted <= {path.name for path in (trained / name).iterdir()}
    values = json.loads((trained / "metrics.json").read_text())["values"]
    assert values["read"]["code"]["nll"]["n"] == 60
    assert values["baselines"]["uniform"]["code"]["nll"]["value"] == pytest.approx(4.19, abs=0.01)
    assert (trained / "report.md").is_file()


def test_the_four_lines_of_the_readme_load_the_model(trained):
    from transformers import GPT2LMHeadModel, GPT2Tokenizer

    model = GPT2LMHeadModel.from_pretrained(trained / "best_model")
    tokenizer = GPT2Tokenizer.from_pretrained(trained / "best_model")
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer("<CLS> <CLS_3> <IMG>")["input_ids"] == [4, 59, 2]


def test_evaluate_prints_numbers_and_json(built, trained, capsys):
    words = ["evaluate", "--data_path", str(built.directory / "sequences.jsonl")]
    words += ["--model_path", str(trained / "best_model")]
    assert main(words) == 0
    assert "does not beat the best baseline" in capsys.readouterr().out
    assert main([*words, "--json", "--baselines", "false"]) == 0
    values = json.loads(capsys.readouterr().out)
    stored = json.loads((trained / "metrics.json").read_text())["values"]
    assert values["read"] == stored["read"]


def test_infer_generates_the_same_sentence_for_the_same_seed(trained, capsys):
    words = ["infer", "--model_path", str(trained / "best_model"), "--mode", "generate"]
    words += ["--label", "3", "--n", "2", "--max_new_tokens", "10"]
    said = []
    for seed in ("1", "1", "2"):
        assert main([*words, "--seed", seed]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
    assert said[0].startswith("<CLS> <CLS_3> <IMG> ")


def infer_settings(capsys, *words) -> dict:
    with pytest.raises(SystemExit):
        main(["infer", *words, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def test_infer_draws_as_the_readme_and_notebook_6_do(capsys):
    notebook = json.loads((ROOT / "notebooks/07_sample.ipynb").read_text())
    (parameters,) = (
        "".join(cell["source"])
        for cell in notebook["cells"]
        if "parameters" in cell["metadata"].get("tags", [])
    )
    wanted: dict = {}
    exec(parameters, wanted)
    settings = infer_settings(capsys)
    for name in ("temperature", "top_k", "top_p", "guidance"):
        assert settings[name] == wanted[name], name
    assert settings["max_new_tokens"] is None
    assert infer_settings(capsys, "--guidance", "1", "--max_new_tokens", "9")["guidance"] == 1


def test_infer_without_settings_draws_with_the_defaults_and_to_the_end(trained, capsys):
    words = ["infer", "--model_path", str(trained / "best_model"), "--mode", "generate"]
    words += ["--label", "3", "--n", "3"]
    said = []
    default = ["--temperature", "0.9", "--top_p", "0.95", "--guidance", "1.5"]
    itself = ["--temperature", "1", "--top_p", "1", "--guidance", "1"]
    for more in ([], default, itself):
        assert main([*words, *more]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
    for line in said[0].splitlines():
        assert line.endswith("<EOS>") or len(line.split()) == 65


def test_a_reader_that_leaves_early_ends_infer_quietly(built, trained):
    lines = (built.directory / "sequences.jsonl").read_text().splitlines()
    rows = [line for line in lines if json.loads(line)["tokens"].startswith("<IMG>")][:2]
    asked = [sys.executable, "-m", "seqlm", "infer", "--mode", "classify"]
    asked += ["--model_path", str(trained / "best_model")]
    pipe = subprocess.PIPE
    with subprocess.Popen(asked, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        running.stdout.close()  # before it can have written: it waits for its rows
        running.stdin.write("\n".join(rows))
        running.stdin.close()
        said = running.stderr.read()
    assert running.returncode == 141
    assert "BrokenPipe" not in said and "Traceback" not in said


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_ctrl_c_promises_to_go_on_only_where_it_does(name, monkeypatch, capsys):
    @wraps(cli.COMMANDS[name])
    def interrupted(**arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, name, interrupted)
    reads = ("train", "classify", "check", "evaluate", "finetune")
    needed = ["--data_path", "a"] if name in reads else []
    needed += ["--vocab_path", "b"] if name in reads[:3] else []
    assert main([name, *needed]) == 130
    said = capsys.readouterr().err
    if name in ("train", "classify", "finetune", "report"):
        again = "run the same command again to continue from the newest checkpoint, if any"
        assert said == f"\nstopped; {again}\n"
    else:
        assert said == "\nstopped\n"


def test_the_python_in_the_page_on_data_runs(capsys):
    page = (ROOT / "data/README.md").read_text()
    (block,) = re.findall(r"^ *```python\n(.*?)^ *```", page, re.M | re.S)
    sample = ROOT / "data/sample"
    for mine, ours in (("rows.jsonl", "sequences.jsonl"), ("vocab.json", "vocab.json")):
        assert f'"data/mine/{mine}"' in block
        block = block.replace(f"data/mine/{mine}", str(sample / ours))
    exec(textwrap.dedent(block), {})
    said = capsys.readouterr().out
    assert "'rows': 200" in said and "{'train': 140, 'val': 20, 'test': 40}" in said


def test_infer_classifies_rows_from_a_pipe(built, trained, monkeypatch, capsys):
    lines = (built.directory / "sequences.jsonl").read_text().splitlines()
    rows = [line for line in lines if json.loads(line)["tokens"].startswith("<IMG>")][:3]
    piped = io.BufferedReader(io.BytesIO("\n".join(rows).encode()))  # as standard input is
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(piped))
    assert main(["infer", "--mode", "classify", "--model_path", str(trained / "best_model")]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 3
    assert all(sum(a["probabilities"]) == pytest.approx(1, abs=1e-4) for a in answers)


def test_infer_tables_come_without_prompts_in_a_pipe(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("<CLS> <CLS_3>\n<NOPE>\nquit\n"))
    assert main(["infer", "--model_path", str(trained / "best_model"), "--top", "4"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 4 and "%" in said.out and ">" not in said.out[:1]
    assert "'<NOPE>' is not in the vocabulary" in said.err


def test_classify_trains_from_the_language_model(built, trained, tmp_path, capsys):
    words = train_words(built, tmp_path / "c", "--start_from", str(trained / "best_model"))
    assert main(["classify", *words[1:]]) == 0
    assert "accuracy" in capsys.readouterr().out
    values = json.loads((tmp_path / "c" / "metrics.json").read_text())["values"]
    assert values["accuracy"]["n"] == 60


def test_a_run_sets_one_of_other_settings_aside_and_says_so(built, tmp_path, capsys):
    assert main(train_words(built, tmp_path / "r")) == 0
    before = (tmp_path / "r" / "metrics.json").read_bytes()
    assert "earlier" not in capsys.readouterr().out
    assert main(train_words(built, tmp_path / "r", "--seed", "7")) == 0
    aside = tmp_path / "r" / "earlier_run_1"
    assert f"the earlier run is now in {aside}" in capsys.readouterr().out
    assert (aside / "metrics.json").read_bytes() == before
    # Nothing is out of the ordinary: neither starts a third time.
    assert main(train_words(built, tmp_path / "r", "--seed", "7")) == 0
    assert main(train_words(built, aside)) == 0
    assert capsys.readouterr().out.count("already trained with the same settings") == 2


def test_an_output_folder_that_cannot_be_is_refused_before_any_work(built, tmp_path, capsys):
    blocked = tmp_path / "afile"
    blocked.write_text("here first")
    assert main(train_words(built, blocked / "out")) == 2
    said = capsys.readouterr()
    assert "is a file, not a folder" in said.err and not said.out
    assert blocked.read_text() == "here first"


MISTAKES = [
    ("train --data_path nowhere.jsonl --vocab_path VOCAB", "nowhere.jsonl"),
    ("train --data_path DATA --vocab_path nowhere.json", "nowhere.json"),
    ("train --data_path DATA --vocab_path VOCAB --learning_rate 7", "learning_rate"),
    ("train --data_path DATA --vocab_path VOCAB --n_head 5", "n_embd"),
    (
        "classify --data_path DATA --vocab_path VOCAB --start_from MODEL --n_layer 3",
        "own n_layer 1",
    ),
    ("classify --data_path DATA --vocab_path VOCAB --start_from MODEL --size nano", "own size"),
    ("train --data_path DATA --vocab_path VOCAB --precision fp16", "fp16 needs a GPU"),
    ("train --data_path DATA --vocab_path VOCAB --n_positions 8", "n_positions"),
    ("train --data_path DATA --vocab_path VOCAB --max_length 5", "max_length"),
    ("infer --model_path nowhere --mode generate --label 3", "nowhere"),
    ("infer --model_path MODEL --mode generate", "--prompt"),
    ("infer --model_path MODEL --top 0", "top"),
    ("infer --model_path MODEL --mode generate --label 12", "its classes are 0 to 9"),
    ("infer --model_path MODEL --mode generate --label 44", "<CLS_44>"),
    ("infer --model_path MODEL --mode generate --prompt <IMG> --max_new_tokens 99", "positions"),
    ("infer --model_path MODEL --mode generate --prompt <Z_999>", "<Z_999>"),
    ("evaluate --data_path DATA --model_path nowhere", "nowhere"),
]


@pytest.mark.parametrize(("words", "named"), MISTAKES)
def test_a_mistake_gets_one_sentence_and_exit_code_2(
    words, named, built, trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {
        "DATA": str(built.directory / "sequences.jsonl"),
        "VOCAB": str(built.directory / "vocab.json"),
        "MODEL": str(trained / "best_model"),
    }
    assert main([places.get(word, word) for word in words.split()]) == 2
    said = capsys.readouterr().err.strip()
    assert named in said and "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert not any(tmp_path.iterdir()), "nothing may be left half-written"


def test_a_file_name_reaches_neither_the_terminal_nor_markdown_raw(built, tmp_path, capsys):
    rows = (built.directory / "sequences.jsonl").read_text()
    data = tmp_path / "\x1b[31m<b>`rows`.jsonl"
    words = train_words(built, tmp_path / "out")
    words[2] = str(data)
    for text, code in ((re.sub("<CLS_.>", "<CLS>", rows), 0), ("[]", 2)):
        data.write_text(text)
        assert main(words) == code
        said = capsys.readouterr()
        assert r"\x1b[31m<b>`rows`.jsonl" in said.err
        assert "\x1b" not in said.out + said.err
    card = (tmp_path / "out/best_model/README.md").read_text().partition("\n---\n")[2]
    shown = r"``\x1b[31m<b>`rows`.jsonl``"
    assert shown in card and "<b>" not in card.replace(shown, "")


def test_a_broken_row_is_named_with_file_line_and_field(built, tmp_path, capsys):
    lines = (built.directory / "sequences.jsonl").read_text().splitlines()
    lines[16] = lines[16].replace("<IMG>", "<Z_999>", 1)
    data = tmp_path / "mine.jsonl"
    data.write_text("\n".join(lines))
    words = train_words(built, tmp_path / "out")
    words[2] = str(data)
    assert main(words) == 2
    assert f"{data}:17: tokens: " in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "--nonsense", "1"], ["dance"], ["train"], []])
def test_an_unknown_flag_or_command_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("asked", [[], ["--laboratory"], ["--laboratory", "--force"]])
def test_the_laboratory_is_run_when_it_is_asked_for_and_only_then(asked, monkeypatch, capsys):
    options = {}
    monkeypatch.setattr("seqlm.pipeline.run_pipeline", lambda ws, **named: options.update(named))
    monkeypatch.setattr("seqlm.report.export_report", lambda ws: [])
    folder = Path("notebooks/zh-CN") if asked else None
    named = ["--notebooks_path", str(folder)] if folder else []
    assert main(["report", "--profile", "smoke", *asked, *named]) == 0
    assert options.pop("folder") == folder
    assert options == {"force": "--force" in asked, "laboratory": "--laboratory" in asked}


def test_infer_answers_in_json_and_writes_rows_that_can_be_read_again(trained, tmp_path, capsys):
    words = ["infer", "--model_path", str(trained / "best_model"), "--mode", "generate"]
    words += ["--label", "3", "--n", "2", "--max_new_tokens", "5", "--json"]
    assert main([*words, "--output", str(tmp_path / "rows.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "rows.jsonl").read_text()
    assert [json.loads(line)["meta"]["number"] for line in printed.splitlines()] == [0, 1]
    assert main([*words, "--output", str(tmp_path / "rows.gif")]) == 2
    assert "should end in .jsonl" in capsys.readouterr().err


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.strip() == "seqlm 0.1.0"


# --- encodings and systems ------------------------------------------------------------------------


def printed_config(path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data_path", "a", "--vocab_path", "b", "--config", path, "--print_config"])
    assert ended.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_a_leading_zero_in_a_config_file_is_no_octal_number(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("seed: 042  # as written\nnum_epochs: 3\n")
    assert printed_config(str(tmp_path / "c.yaml"), capsys)["seed"] == 42


def test_a_config_file_of_comments_alone_sets_nothing(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("# seed: 7\n\n  # later\n")
    assert printed_config(str(tmp_path / "c.yaml"), capsys)["seed"] == 42


def test_a_config_file_in_another_encoding_is_named_in_one_sentence(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("seed: 7\n", encoding="utf-16")
    assert main(["train", "--config", str(tmp_path / "c.yaml")]) == 2
    said = capsys.readouterr().err
    assert "the file of --config is not UTF-8" in said and said.count("\n") == 1


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("output_dir: ~/out\n")
    given = {}
    monkeypatch.setitem(cli.COMMANDS, "build", wraps(cli.COMMANDS["build"])(
        lambda settings, output_dir, overwrite: given.update(output_dir=output_dir)))  # fmt: skip
    assert main(["build", "--output_dir=~/digits"]) == 0
    assert given["output_dir"] == tmp_path / "digits"
    assert main(["build", "--config", "c.yaml"]) == 0
    assert given["output_dir"] == tmp_path / "out"
    words = ["infer", "--mode", "classify", "--model_path=~/m", "--data_path=~/rows.jsonl"]
    assert main(words) == 2 and "~" not in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_cannot_show_is_escaped(encoding, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setitem(cli.COMMANDS, "build", wraps(cli.COMMANDS["build"])(
        lambda settings, output_dir, overwrite: print("a · b … 𝒳")))  # fmt: skip
    assert main(["build"]) == 0
    text = out.buffer.getvalue().decode(encoding).strip()
    assert json.loads(f'"{text}"') == "a · b … 𝒳", "and stays valid inside JSON"


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), OSError(27, "File too large", "x"),
     RuntimeError("basic_ios::clear: iostream error")],
)  # fmt: skip
def test_a_full_disk_is_one_sentence(error, monkeypatch, capsys):
    assert "the disk is full" in sentence_for(error, monkeypatch, capsys)


def test_too_little_memory_is_one_sentence(monkeypatch, capsys):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert "lower --batch_size" in sentence_for(caught.value, monkeypatch, capsys)


def sentence_for(error, monkeypatch, capsys) -> str:
    def fails(settings, output_dir, overwrite):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "build", wraps(cli.COMMANDS["build"])(fails))
    assert main(["build"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


names = st.sampled_from(["batch_size", "learning_rate", "data_path", "vocab_path", "size", "seed"])
yaml_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    content=st.binary(max_size=40)
    | st.text("abc:-[]{}#&*!|>'\"%@` \n\t0.", max_size=40).map(str.encode)
    | st.dictionaries(
        names | st.text(max_size=6), yaml_values | st.lists(yaml_values, max_size=3)
    ).map(lambda held: yaml.safe_dump(held).encode())
)
def test_any_config_file_is_read_or_refused_without_a_traceback(tmp_path, capsys, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    words = ["train", "--config", str(path), "--data_path", "nowhere", "--vocab_path", "nowhere"]
    try:
        assert main([*words, "--output_dir", str(tmp_path / "out")]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert capsys.readouterr().err.strip()


def test_images_of_28x28_go_all_the_way_from_files_to_drawings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path / "data" / "mnist", 150)
    data, model = "data/mnist", "outputs/best_model"
    size = ["--n_layer=1", "--n_head=1", "--n_embd=8", "--n_positions=64"]
    build = ["build", "--source=mnist", "--patch=4", "--n_codes=20", "--copies=0"]
    train = ["train", f"--data_path={data}/sequences.jsonl", f"--vocab_path={data}/vocab.json"]
    assert main(build) == 0 and "150 images in data/mnist/" in capsys.readouterr().out
    assert main([*train, *size, "--max_steps=2", "--evals=1", "--precision=fp32"]) == 0
    shutil.copy(f"{data}/codebook.npz", model)
    assert "of 1,470 tokens" in capsys.readouterr().out  # 30 test images of 49 codes
    infer = ["infer", f"--model_path={model}"]
    first = Path(data, "sequences.jsonl").read_text().splitlines()[0]
    Path("one.jsonl").write_text(first)
    assert main([*infer, "--mode=classify", "--data_path=one.jsonl"]) == 0
    assert len(json.loads(capsys.readouterr().out)["probabilities"]) == 10
    assert main([*infer, "--mode=generate", "--label=3", "--output=drawn.jsonl"]) == 0
    assert main(["build", "--source=mnist", "--images_path=nowhere"]) == 2
    said = capsys.readouterr().err
    assert "nowhere: no images in IDX format" in said and said.count("\n") == 1


def test_training_needs_no_network(built, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    said = run_offline(train_words(built, tmp_path / "out"), env=environment)
    assert "measuring the best checkpoint" in said


def test_ctrl_c_while_libraries_load_ends_without_a_traceback(monkeypatch, capsys):
    from seqlm import __main__ as program

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    assert program.main() == 130 and capsys.readouterr().err == "\nstopped\n"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"seqlm": "seqlm.__main__:main"}


@pytest.mark.slow
def test_a_run_that_is_stopped_again_and_again_ends_as_one_that_never_was(
    built, tmp_path, monkeypatch
):
    """Three real stops; `make torture` makes a hundred. Long enough for a busy machine."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    torture = importlib.import_module("torture")
    log, out, whole = tmp_path / "log", tmp_path / "out", tmp_path / "whole"
    steps = ["--max_steps", "300", "--evals", "10"]
    assert main(train_words(built, whole, *steps)) == 0
    stops = [
        ("kill -9", "step 60 · val"),
        ("full disk", "parameters,"),
        ("SIGINT", "step 90 · val"),
    ]
    for kind, line in stops:
        run = torture.Forked(train_words(built, out, *steps), log)
        while line not in log.read_text() and run.poll() is None:
            time.sleep(0.005)
        if kind == torture.FULL:
            with torture.full_disk(out, False, run):
                code = run.wait(60)
        else:
            run.send_signal(torture.SIGNALS[kind])
            code = run.wait(60)
        said = log.read_text()
        assert code in torture.ALLOWED[kind] and "Traceback" not in said, (kind, code, said)
    run = torture.Forked(train_words(built, out, *steps), log)
    assert run.wait(60) == 0 and "picking up the interrupted run at step" in log.read_text()
    assert torture.left_by("train", out) == torture.left_by("train", whole)


def test_the_same_seed_gives_the_same_bytes(built, trained, tmp_path):
    words = ["build", "--n_images", "300", "--copies", "1", "--n_codes", "50"]
    assert main([*words, "--output_dir", str(tmp_path / "data")]) == 0
    assert main(train_words(built, tmp_path / "run")) == 0
    names = ["sequences.jsonl", "vocab.json", "codebook.npz", "images.npz"]
    same = [(built.directory / name, tmp_path / "data" / name) for name in names]
    names = ["metrics.json", *(f"{kind}_model/model.safetensors" for kind in ("best", "final"))]
    same += [(trained / name, tmp_path / "run" / name) for name in names]
    for one, other in same:
        assert one.read_bytes() == other.read_bytes(), one.name
    pictures = [picture_of(out) for out in (trained, tmp_path / "run")]
    assert pictures[0] == pictures[1]


def picture_of(run: Path) -> bytes:
    """The figure of a run's losses, without the seconds on its upper axis."""
    record = json.loads((run / "training.json").read_text())
    for line in [*record["history"], *record["evals"]]:
        del line["seconds"]
    picture = io.BytesIO()
    plot_training_process(record, {}).savefig(picture, metadata={"Software": None})
    return picture.getvalue()


def test_two_threads_measure_what_one_measures(built, trained, tmp_path):
    torch.set_num_threads(2)
    try:
        assert main(train_words(built, tmp_path)) == 0
    finally:
        torch.set_num_threads(1)
    one, two = (json.loads((out / "metrics.json").read_text()) for out in (trained, tmp_path))
    assert dict(numbers_in(two)) == pytest.approx(dict(numbers_in(one)), rel=1e-5, abs=1e-7)


def numbers_in(value, name: str = ""):
    """The numbers of a metrics file, each with its place."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from numbers_in(inner, f"{name}.{key}")
    elif isinstance(value, int | float):
        yield name, value
