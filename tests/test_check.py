"""Each finding: data that has the fault, and data that has not."""

import json
import os
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from seqlm import health
from seqlm.check import Finding, find_all
from seqlm.cli import main
from seqlm.config import DataFiles
from seqlm.data.corpus import load_corpus
from seqlm.data.tokens import CLS, EOS, IMG, IMG_END, class_token, code_token, default_vocab
from seqlm.training.runs import log_corpus
from seqlm.utils import write_json

VOCAB = default_vocab(50, 3)
TINY = ["--n_layer", "1", "--n_head", "2", "--n_embd", "16", "--precision", "fp32"]
SUSPECTED = "labels that all three baselines contradict"


def row(codes, label=0, **changes) -> dict:
    tokens = [IMG, *map(code_token, codes), IMG_END, CLS, class_token(label), EOS]
    return {"tokens": " ".join(tokens), "label": label} | changes


def good_rows(n=60) -> list[dict]:
    rng = np.random.default_rng(0)
    return [row(rng.integers(0, 50, 20), k % 3) for k in range(n)]


@pytest.fixture
def check(tmp_path, capsys):
    """Runs the command on rows; returns its exit code and its findings by name."""

    def run(rows, *more):
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        write_json(tmp_path / "vocab.json", VOCAB)
        words = ["--data_path", str(data), "--vocab_path", str(tmp_path / "vocab.json"), "--json"]
        code = main(["check", *words, *TINY, *more])
        printed = capsys.readouterr()
        if code == 2:
            return code, printed.err
        report = json.loads(printed.out)
        assert report["misleads"] == bool(code)
        rest = {name: report[name] for name in ("refused", "facts", "run", "suspected_labels")}
        return code, {f["name"]: f for f in report["findings"]} | rest

    return run


def test_rows_without_a_fault_are_fine(check):
    code, findings = check(good_rows())
    assert code == 0 and not findings.pop("refused")
    assert not findings.pop("suspected_labels") and findings.pop("facts") and findings.pop("run")
    assert {f["level"] for f in findings.values()} == {"fine"}


def without_class(rows):
    return [r | {"tokens": r["tokens"].replace(class_token(r["label"]), CLS)} for r in rows]


def copied(rows):
    """The first 20 rows again, with one code changed."""
    changed = [r["tokens"].split() for r in rows[:20]]
    other = {code_token(k): code_token((k + 1) % 50) for k in range(50)}
    texts = [" ".join([*t[:10], other[t[10]], *t[11:]]) for t in changed]
    return rows + [r | {"tokens": text} for r, text in zip(rows, texts, strict=False)]


def first(fault, n):
    return lambda rows: [fault(r) for r in rows[:n]] + rows[n:]


FAULTS = {
    "rows that lack their class token": (without_class, "misleads", 60),
    "rows with the codes of an earlier row": (lambda rows: rows + rows[:9], "look", 9),
    "rows with the codes of an earlier row, but another label": (
        lambda rows: [*rows, row([7] * 20, 0), row([7] * 20, 1)],
        "look",
        1,
    ),
    "classes without a row, or with less than a tenth of the largest class's": (
        lambda rows: [r for r in rows if r["label"] == 0] + [rows[2]],  # its class is 2
        "look",
        2,
    ),
    "near copies of an earlier row": (copied, "look", 20),
    "rows cut to max_length": (first(lambda r: row(range(50), r["label"]), 1), "look", 1),
    "codes cut to max_length": (first(lambda r: row(range(50), r["label"]), 2), "look", 50),
    "codes of the vocabulary that no row holds": (
        lambda rows: [row(np.random.default_rng(k).integers(0, 20, 20), k % 3) for k in range(60)],
        "look",
        30,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_counted_and_placed(check, name):
    fault, level, count = FAULTS[name]
    code, findings = check(fault(good_rows()), "--max_length", "30")
    assert findings[name]["level"] == level and findings[name]["count"] == count
    assert code or level != "misleads"
    assert findings[name]["advice"]


def test_of_two_equal_rows_the_later_line_is_named(check):
    rows = good_rows()
    code, findings = check(rows + rows[:9])
    name = "rows with the codes of an earlier row"
    assert findings[name]["lines"] == list(range(61, 70))


def test_near_copies_in_two_splits_mislead_unless_they_name_one_source(check):
    name, rows = "rows of val and test that nearly copy a train row", copied(good_rows())
    code, findings = check(rows)
    assert code == 1 and findings[name]["level"] == "misleads" and findings[name]["lines"]
    sources = [*range(60), *range(20)]
    named = [r | {"meta": {"source_id": k}} for r, k in zip(rows, sources, strict=True)]
    code, findings = check(named)
    assert code == 0 and findings[name]["count"] == 0


def test_the_terminal_shows_a_refusal_and_each_finding_on_a_line_of_its_own(
    check, tmp_path, capsys
):
    check([*good_rows(), row([999, *range(19)])])
    words = ["--data_path", str(tmp_path / "rows.jsonl"), "--vocab_path"]
    assert main(["check", *words, str(tmp_path / "vocab.json"), *TINY]) == 1
    facts, labels, run, refused, *findings = capsys.readouterr().out.splitlines()
    assert facts.startswith("train rows") and "layout read 61" in facts
    assert labels.startswith("labels: 61 of 61 are compared") and run.startswith("training: ")
    assert refused.startswith("refused: ") and refused.endswith("--allow_unknown")
    assert all(line.startswith(("fine: ", "look: ", "misleads: ")) for line in findings)


def test_unknown_codes_are_counted_and_refused_unless_they_are_allowed(check):
    strange = first(lambda r: r | {"tokens": r["tokens"].replace(IMG, f"{IMG} <Z_999>")}, 3)
    code, findings = check(strange(good_rows()))
    assert code == 1 and "unknown token '<Z_999>'" in findings["refused"][0]
    assert findings["unknown codes"]["count"] == 3 and findings["unknown codes"]["total"] == 1203
    code, findings = check(strange(good_rows()), "--allow_unknown")
    assert code == 0 and findings["unknown codes"]["level"] == "look"
    most = [r | {"tokens": r["tokens"].replace("<Z_0", "<Y_0")} for r in good_rows()]
    code, findings = check(most, "--allow_unknown")
    assert code == 1 and findings["unknown codes"]["level"] == "misleads"


def test_most_rows_cut_mislead(check):
    code, findings = check(good_rows(), "--max_length", "12")
    assert code == 1 and findings["rows cut to max_length"]["count"] == 60


def test_no_labels_or_one_class_mislead_a_classifier_alone(check):
    rng = np.random.default_rng(0)
    rows = [row(rng.integers(0, 50, 20)) for _ in range(60)]
    code, findings = check(rows, "--task", "classifier")
    assert code == 1 and findings["classes too few for a classifier"]["level"] == "misleads"
    assert check(rows)[0] == 0
    unlabelled = [r | {"label": None} for r in good_rows()]
    code, findings = check(unlabelled, "--task", "classifier")
    assert code == 1 and findings["rows without a label"]["count"] == 60
    assert check(unlabelled)[0] == 0


def test_a_split_of_their_own_that_leaks_is_refused_but_still_checked(check):
    rows = good_rows()
    rows[59] = dict(rows[0])
    own = [r | {"meta": {"split": "train" if k < 40 else "val"}} for k, r in enumerate(rows)]
    code, findings = check(own)
    assert code == 1 and "hold the same codes" in findings["refused"][0]
    assert findings["rows of val and test that nearly copy a train row"]["count"] == 1


def test_an_unreadable_file_exits_with_2(check):
    code, sentence = check([*good_rows(), {"tokens": 3}])
    assert code == 2 and "rows.jsonl:61: tokens: expected text" in sentence


def test_training_warns_of_what_reading_does_not_report(tmp_path, capsys):
    data, vocab = tmp_path / "rows.jsonl", tmp_path / "vocab.json"
    write_json(vocab, VOCAB)
    for rows, names in ((good_rows(), []), (copied(good_rows()), ["near copies", "rows of val"])):
        data.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        corpus = load_corpus(DataFiles(data, vocab))
        found = find_all(corpus, False)
        assert [str(f)[: len(name)] for f, name in zip(found, names, strict=True)] == names
        log_corpus(corpus)
        printed = capsys.readouterr().out.splitlines()
        assert printed[1:] == [f"warning: {finding}" for finding in found]


def test_a_finding_is_one_line_with_its_numbers():
    finding = Finding("rows", 3, 60, "remove them", 0.01, 1, (7, 8, 9))
    assert str(finding) == "rows: 3 of 60 (first line 7); remove them"
    assert finding.level == "look" and Finding("rows", 0, 60, "remove them").level == "fine"


# ---------------------------------------------------------------- labels


def row_of(label, rng, **changes) -> dict:
    """Codes that tell the class: each comes from a third of the codes."""
    return row(rng.integers(16 * label, 16 * label + 16, 20), label, **changes)


def flipped(rows, places) -> list[dict]:
    """These rows with the next class as label and class token."""
    rows = list(rows)
    for place in places:
        label = (rows[place]["label"] + 1) % 3
        tail = [rows[place]["tokens"].rsplit(" ", 2)[0], class_token(label), EOS]
        rows[place] = rows[place] | {"label": label, "tokens": " ".join(tail)}
    return rows


def learnable(n=300) -> list[dict]:
    rng = np.random.default_rng(3)
    return [row_of(k % 3, rng) for k in range(n)]


def test_flipped_labels_are_named_with_the_class_that_the_codes_have(check):
    rows, places = learnable(), (10, 50, 77)
    code, findings = check(flipped(rows, places))
    assert code == 0 and findings[SUSPECTED]["level"] == "look"
    assert findings[SUSPECTED]["lines"] == [11, 51, 78] and findings[SUSPECTED]["total"] == 300
    named = {(s["line"], s["label"], s["baselines"]) for s in findings["suspected_labels"]}
    assert named == {(k + 1, (k + 1) % 3, k % 3) for k in places}
    assert check(rows)[1][SUSPECTED]["count"] == 0


def test_copies_of_a_flipped_row_do_not_vouch_for_its_label(check):
    rows = flipped(learnable(), [10])
    rows = [r | {"meta": {"source_id": k}} for k, r in enumerate(rows)]
    rng = np.random.default_rng(4)
    texts = [" ".join([*(t := rows[10]["tokens"].split())[:1], *rng.permutation(t[1:21]), *t[21:]])
             for _ in range(40)]  # fmt: skip
    code, findings = check([*rows, *(rows[10] | {"tokens": text} for text in texts)])
    assert findings[SUSPECTED]["lines"] == [11] and findings[SUSPECTED]["total"] == 300


def test_labels_that_the_codes_do_not_tell_are_no_suspects(check):
    rng = np.random.default_rng(5)
    rows = [r | {"label": k} for r, k in zip(good_rows(300), rng.integers(0, 3, 300), strict=True)]
    rows = [r | {"tokens": " ".join([*r["tokens"].split()[:-2], EOS])} for r in rows]
    rows = [r | {"label": int(r["label"])} for r in rows]
    assert check(rows)[1][SUSPECTED]["count"] == 0


def test_of_many_rows_a_sample_is_looked_at_and_its_size_is_said(check, monkeypatch):
    monkeypatch.setattr("seqlm.evaluation.label_noise.MOST_ROWS", 90)
    assert check(learnable())[1][SUSPECTED]["total"] == 90
    monkeypatch.setattr("seqlm.evaluation.label_noise.MOST_WORK", 25 * 3 * 60)
    assert check(learnable())[1][SUSPECTED]["total"] == 60
    unlabelled = [r | {"label": None} for r in learnable(60)]
    assert check(unlabelled)[1][SUSPECTED]["total"] == 0


# ---------------------------------------------------------------- codes, and the run


def test_codes_that_training_never_shows_are_counted(check):
    name, rng = "codes in val and test that no train row holds", np.random.default_rng(6)

    def rows(new):
        """Train rows of the codes 0 to 29; val rows of which `new` codes each are others."""
        for k in range(60):
            codes = rng.integers(0, 30, 20)
            codes[:new] = 30 + rng.integers(0, 20, new) if k >= 40 else codes[:new]
            yield row(codes, k % 3, meta={"split": "train" if k < 40 else "val"})

    for new, level in ((0, "fine"), (5, "look"), (20, "misleads")):
        code, findings = check([*rows(new)])
        assert findings[name]["count"] == 20 * new and findings[name]["total"] == 400
        assert findings[name]["level"] == level and code == (level == "misleads")


def test_what_a_run_takes_is_estimated_for_the_settings_of_train(check):
    run = check(good_rows(), "--num_epochs", "3", "--batch_size", "10")[1]["run"]
    assert run["parameters"] == (len(VOCAB) + 1024) * 16 + (12 * 16 + 13) * 16 + 2 * 16
    assert run["steps"] == 3 * 5 and run["precision"] == "fp32"  # 42 train rows
    assert run["seconds"] > 0 and run["memory"] > 16 * run["parameters"]
    larger = check(good_rows(), "--n_layer", "4", "--batch_size", "20", "--max_steps", "7")[1][
        "run"
    ]
    assert larger["memory"] > 2 * run["memory"] and larger["steps"] == 7


def test_a_run_that_memory_is_too_short_for_is_not_timed(check, monkeypatch):
    monkeypatch.setattr(health.sizes, "free_memory", lambda: 1_000_000)
    monkeypatch.setattr(health.sizes, "time_training_steps", None)
    code, findings = check(good_rows())
    assert code == 0 and findings["run"]["seconds"] is None
    assert "not timed" in health._in_words(findings["run"])


def test_a_pass_of_a_large_model_is_timed_on_part_of_a_batch(check, monkeypatch):
    asked = []

    def timed(steps, rounds):
        asked.extend(steps.values())
        return {name: SimpleNamespace(value=0.5) for name in steps}

    monkeypatch.setattr(health.sizes, "time_training_steps", timed)
    monkeypatch.setattr(health, "MOST_FLOPS", 6 * 20_000 * 25 * 3)
    run = check(good_rows(), "--batch_size", "21", "--num_epochs", "1", "--evals", "1")[1]["run"]
    (step,) = asked
    assert step.batch_size < 21 and step.length == 25 and run["steps"] == 2
    of_val = 6 * 25 * 0.5 / (step.batch_size * 25) / 3
    assert run["seconds"] == pytest.approx(2 * 0.5 * 21 / step.batch_size + of_val)


def test_rows_that_do_not_fit_the_model_are_refused(check):
    code, findings = check([*good_rows(), row(range(50))], "--n_positions", "30")
    assert code == 1 and "rows of 55 tokens do not fit n_positions = 30" in findings["refused"][0]
    assert findings["run"] is None


def test_rows_that_a_classifier_cannot_read_are_refused(check):
    rng = np.random.default_rng(0)
    draw = [[CLS, class_token(k % 3), IMG, *map(code_token, rng.integers(0, 50, 20)), IMG_END, EOS]
            for k in range(60)]  # fmt: skip
    rows = [{"tokens": " ".join(tokens), "label": k % 3} for k, tokens in enumerate(draw)]
    code, findings = check(rows, "--task", "classifier")
    assert code == 1 and "no row with a label in the read layout" in findings["refused"][0]
    code, findings = check(rows)
    assert code == 0 and findings["facts"]["layout draw"] == 60


@pytest.mark.parametrize("label", [1_000, 2**31 - 1])
def test_more_classes_than_a_classifier_may_have_are_refused_and_not_drawn(
    check, tmp_path, monkeypatch, label
):
    monkeypatch.setitem(globals(), "VOCAB", default_vocab(50, 0))
    rows = [{**r, "tokens": re.sub("<CLS_.>", "", r["tokens"])} for r in good_rows()]
    rows[7]["label"] = label
    words = ["--output_file", str(tmp_path / "check.html")]
    code, findings = check(rows, "--task", "classifier", *words)
    assert code == 1 and f"rows.jsonl:8: label: {label} would make" in findings["refused"][0]
    assert read_page(tmp_path / "check.html").count("<img") == 2  # lengths and codes
    assert not check(rows)[1]["refused"]


def test_a_config_file_of_train_is_taken(check, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--num_epochs", "2", "--max_length", "30", "--print_config"])
    written = yaml.safe_load(capsys.readouterr().out)
    paths = {"data_path": str(tmp_path / "rows.jsonl"), "vocab_path": str(tmp_path / "vocab.json")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(written | paths | {"size": "nano"}))
    code, findings = check(good_rows(), "--config", str(tmp_path / "mine.yaml"))
    assert code == 0 and findings["run"]["steps"] == 2 * 6
    assert not (tmp_path / "outputs").exists()


# ---------------------------------------------------------------- real digits, and the page


def test_the_digits_are_called_clean(built, capsys):
    words = ["--data_path", str(built.directory / "sequences.jsonl"), "--vocab_path"]
    words += [str(built.directory / "vocab.json"), *TINY, "--json"]
    assert main(["check", *words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert not report["misleads"] and not report["refused"]
    (labels,) = (f for f in report["findings"] if f["name"] == SUSPECTED)
    assert labels["total"] > 200 and labels["count"] <= 1


def read_page(path: Path) -> str:
    """The page; it loads nothing, and each of its pictures has an alt text."""
    page = path.read_text(encoding="utf-8")
    sources = re.findall(r"""<(?:img|script|link|iframe)[^>]*(?:src|href)=["']([^"']*)""", page)
    assert all(not source or source.startswith("data:") for source in sources)
    pictures = re.findall(r"<img[^>]*>", page)
    assert pictures and all(re.search('alt="[^"]{40,}"', picture) for picture in pictures)
    return page


def test_the_page_shows_findings_and_figures_and_loads_nothing(check, tmp_path):
    path = tmp_path / "check.html"
    check(flipped(learnable(), [10]), "--output_file", str(path))
    page = read_page(path)
    assert page.count("<img") == 3
    text = unescape(page).replace("\u00a0", " ")
    for words in ("Nothing here misleads", SUSPECTED, "! look", "✓ fine", "Suspected labels"):
        assert words in text
    (cells,) = re.findall(r"<td[^>]*>11</td>\s*<td[^>]*>2</td>\s*<td[^>]*>1</td>(.*?)</tr>", page,
                          re.DOTALL)  # fmt: skip
    assert "<IMG> <Z_0" in unescape(cells)


def test_suspected_labels_are_shown_as_pictures_where_the_codebook_is(built, tmp_path, monkeypatch):
    for name in ("sequences.jsonl", "vocab.json", "codebook.npz"):
        (tmp_path / name).write_bytes((built.directory / name).read_bytes())
    found = [{"line": 1, "label": 3, "baselines": 8, "row": 0}]
    finding = Finding(SUSPECTED, 1, 300, "look", lines=(1,))
    monkeypatch.setattr(health, "_check_labels", lambda *_: ("labels", found, finding))
    words = ["--data_path", str(tmp_path / "sequences.jsonl"), "--vocab_path"]
    words += [str(tmp_path / "vocab.json"), *TINY, "--output_file", str(tmp_path / "check.html")]
    assert main(["check", *words]) == 0
    page = read_page(tmp_path / "check.html")
    assert page.count("<img") == 4 and "Titles: line 1 label 3 → 8" in page


def test_a_token_that_looks_like_html_stays_text_on_the_page(tmp_path):
    evil = "<script>alert(1)</script>"
    vocab = {token: k for k, token in enumerate([*VOCAB, evil])}
    write_json(tmp_path / "vocab.json", vocab)
    rows = flipped(learnable(), [10])
    rows[10]["tokens"] = rows[10]["tokens"].replace(IMG + " ", f"{IMG} {evil} ")
    data = tmp_path / "<b>rows.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    words = ["--data_path", str(data), "--vocab_path", str(tmp_path / "vocab.json"), *TINY]
    assert main(["check", *words, "--output_file", str(tmp_path / "check.html")]) == 0
    page = read_page(tmp_path / "check.html")
    assert "alert(1)" in page and evil not in page and "<b>rows" not in page


@pytest.mark.parametrize("name", ["rows.jsonl", "check", "nowhere/rows.htm"])
def test_a_page_of_another_ending_is_refused_and_nothing_is_replaced(check, tmp_path, name):
    code, sentence = check(good_rows(), "--output_file", str(tmp_path / name))
    assert code == 2 and "let it end in .html" in sentence
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 60


def test_unknown_codes_are_named_as_text_in_the_advice(check, tmp_path):
    rows = good_rows()
    for row in rows[:3]:
        row["tokens"] = row["tokens"].replace(f"{IMG} ", f"{IMG} <Z_999> ", 1)
    words = ["--allow_unknown", "--output_file", str(tmp_path / "check.html")]
    assert check(rows, *words)[1]["facts"]["train rows"]
    page = read_page(tmp_path / "check.html")
    assert "each is read as &lt;UNK&gt;" in page and "<UNK>" not in page


def test_a_page_that_is_there_already_is_replaced_only_when_asked(check, tmp_path):
    page = tmp_path / "mine.html"
    page.write_text("mine")
    code, sentence = check(good_rows(), "--output_file", str(page))
    assert code == 2 and "mine.html was not written by seqlm" in sentence
    assert page.read_text() == "mine"
    assert check(good_rows(), "--output_file", str(page), "--overwrite")[0] != 2
    assert "<html" in page.read_text()


USER_DATA = Path(
    os.environ.get("SEQLM_USER_DATA", Path(__file__).parents[2] / "shared" / "user-data")
)


@pytest.mark.skipif(
    not (USER_DATA / "sequences_labels_fixed.jsonl").is_file(),
    reason="the user's own 300 rows are not part of the project (set SEQLM_USER_DATA)",
)
def test_the_users_own_rows_lack_their_class_token(capsys):
    words = ["--data_path", str(USER_DATA / "sequences_labels_fixed.jsonl"), "--vocab_path"]
    words += [str(USER_DATA / "vocab.json"), *TINY, "--json"]
    assert main(["check", *words]) == 1
    findings = {f["name"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    misleading = [name for name, f in findings.items() if f["level"] == "misleads"]
    assert misleading == ["rows that lack their class token"]
    assert main(["check", *words, "--repair_tail"]) == 0
