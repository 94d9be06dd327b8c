"""Each finding: data that has the fault, and data that has not."""

import json

import numpy as np
import pytest

from seqlm.check import Finding, find_all
from seqlm.cli import main
from seqlm.config import DataFiles
from seqlm.data.corpus import load_corpus
from seqlm.data.tokens import CLS, EOS, IMG, IMG_END, class_token, code_token, default_vocab
from seqlm.utils import write_json

VOCAB = default_vocab(50, 3)


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
        code = main(["check", *words, *more])
        printed = capsys.readouterr()
        if code == 2:
            return code, printed.err
        report = json.loads(printed.out)
        assert report["misleads"] == bool(code)
        return code, {f["name"]: f for f in report["findings"]} | {"refused": report["refused"]}

    return run


def test_rows_without_a_fault_are_fine(check):
    code, findings = check(good_rows())
    assert code == 0 and not findings.pop("refused")
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
        lambda rows: [r for r in rows if r["label"] < 2],
        "look",
        1,
    ),
    "near copies of an earlier row": (copied, "look", 20),
    "rows cut to max_length": (first(lambda r: row(range(50), r["label"]), 1), "look", 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_counted_and_placed(check, name):
    fault, level, count = FAULTS[name]
    code, findings = check(fault(good_rows()), "--max_length", "30")
    assert findings[name]["level"] == level and findings[name]["count"] == count
    assert code or level != "misleads"
    assert findings[name]["advice"]


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
    assert main(["check", *words, str(tmp_path / "vocab.json")]) == 1
    facts, refused, *findings = capsys.readouterr().out.splitlines()
    assert facts.startswith("train rows")
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


def test_training_warns_of_what_reading_does_not_report(tmp_path):
    data, vocab = tmp_path / "rows.jsonl", tmp_path / "vocab.json"
    write_json(vocab, VOCAB)
    for rows, names in ((good_rows(), []), (copied(good_rows()), ["near copies", "rows of val"])):
        data.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        found = find_all(load_corpus(DataFiles(data, vocab)), False)
        assert [str(f)[: len(name)] for f, name in zip(found, names, strict=True)] == names


def test_a_finding_is_one_line_with_its_numbers():
    finding = Finding("rows", 3, 60, "remove them", 0.01, 1, (7, 8, 9))
    assert str(finding) == "rows: 3 of 60 (first line 7); remove them"
    assert finding.level == "look" and Finding("rows", 0, 60, "remove them").level == "fine"
