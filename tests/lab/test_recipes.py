"""Recipes side by side: the same test rows, or no comparison; every number with its interval."""

import json

import numpy as np
import pytest
from samples import record, values

from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokens import default_vocab
from seqlm.errors import DataError
from seqlm.evaluation.estimates import Estimate
from seqlm.lab.recipes import compare, comparison_table, on_the_clock
from seqlm.utils import write_json

A_STEP = Estimate(0.25, 0.2, 0.3, 9, "seconds per step")


def left_by(directory, *, vocab=None, book=None, **changes):
    """A finished and measured run, as the profile's notebooks leave it."""
    write_json(directory / "training.json", {**record(), "finished": True, **changes})
    for number in ("04", "05"):
        write_json(directory / "metrics" / f"{number}.json", {"values": values(number)})
    write_json(directory / "best_model" / "vocab.json", vocab or default_vocab(500))
    if book is not None:
        book.save(directory / "best_model" / "codebook.npz")
    return directory


def left_by_train(directory, measured=None, split="test"):
    """The same from `seqlm train`."""
    write_json(directory / "training.json", {**record(), "finished": True})
    held = {"kind": "language model", "split": split, "values": measured or values("05")}
    write_json(directory / "metrics.json", held)
    write_json(directory / "best_model" / "vocab.json", default_vocab(500))
    return directory


def without_notebook_four(directory):
    (directory / "metrics" / "04.json").unlink()
    return directory


def book(seed):
    centers = np.random.default_rng(seed).random((5, 4)).astype(np.float32)
    return PatchCodebook(centers, (8, 8), 2)


def test_what_a_run_did_and_what_it_came_to(tmp_path):
    run = compare({"ours": left_by(tmp_path)})["ours"]
    made, measured = record(), values("05")
    assert run["step"] == [line["step"] for line in made["evals"]]
    assert run["tokens"][-1] == 1611 * 1470
    assert run["nll"] == [line["read_nll"] for line in made["evals"]]
    assert run["step"][run["best"]] == made["best"]["step"] and run["best"] == 10
    assert (run["batch_size"], run["rows"], run["steps"]) == (64, 103074, 1611)
    assert run["test_nll"] == measured["read"]["code"]["nll"]
    assert run["best_baseline"]["nll"]["value"] == 3.93
    assert run["accuracy"]["value"] == pytest.approx(0.97, abs=0.002)
    assert run["classifier"]["route"] == "classifier started from the language model"


def test_a_run_of_the_command_line_has_no_classifier_and_says_what_was_measured(tmp_path):
    run = compare({"mine": left_by_train(tmp_path, split="val")})["mine"]
    assert run["classifier"] is None and run["split"] == "val"
    assert run["test_nll"]["value"] == 3.41


def test_in_the_draw_layout_no_class_is_read_off(tmp_path):
    drawn = {**values("05"), "layout_compared": "draw"}
    run = compare({"mine": left_by_train(tmp_path, drawn)})["mine"]
    assert run["accuracy"] is None and run["test_nll"]["value"] == 3.25
    assert run["nll"] == [line["draw_nll"] for line in record()["evals"]]


def test_runs_on_the_same_test_rows_can_be_compared(tmp_path):
    found = compare(
        {"a": left_by(tmp_path / "a", book=book(1)), "b": left_by(tmp_path / "b", book=book(1))}
    )
    assert list(found) == ["a", "b"] and found["a"] == found["b"]
    json.dumps(found, allow_nan=False)  # fit for a metrics file


def test_another_code_book_or_vocabulary_makes_other_tokens(tmp_path):
    first = left_by(tmp_path / "a", book=book(1))
    with pytest.raises(DataError, match="b: measured with another code book than .*a;"):
        compare({"a": first, "b": left_by(tmp_path / "b", book=book(2))})
    other = left_by(tmp_path / "c", book=book(1), vocab=default_vocab(499))
    with pytest.raises(DataError, match="another vocabulary"):
        compare({"a": first, "c": other})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["read"]["code"]["nll"].update(n=36), "number of images"),
        (lambda v: v["read"]["code"].update(tokens=99), "number of codes"),
        (lambda v: v.update(layout_compared="draw"), "layout"),
    ],
)
def test_other_test_rows_are_not_compared(tmp_path, change, said):
    measured = values("05")
    change(measured)
    other = left_by_train(tmp_path / "b", measured)
    with pytest.raises(DataError, match=f"another {said}"):
        compare({"a": left_by(tmp_path / "a"), "b": other})


def test_val_is_not_held_against_test(tmp_path):
    pair = {"a": left_by(tmp_path / "a"), "b": left_by_train(tmp_path / "b", split="val")}
    with pytest.raises(DataError, match="another split"):
        compare(pair)


def test_an_unfinished_an_unmeasured_and_a_foreign_run_are_refused(tmp_path):
    with pytest.raises(DataError, match="not finished"):
        compare({"a": left_by(tmp_path / "a", finished=False)})
    with pytest.raises(DataError, match=r"training\.json: there is no such file"):
        compare({"b": tmp_path / "b"})
    write_json(tmp_path / "c" / "training.json", {**record(), "finished": True})
    with pytest.raises(DataError, match="no numbers on test here"):
        compare({"c": tmp_path / "c"})
    with pytest.raises(DataError, match="not those of a language model"):
        compare({"d": left_by_train(tmp_path / "d", {"accuracy": {}})})
    evals = [{"step": 1, "tokens": 1, "seconds": 1.0, "epoch": 1.0, "class_nll": 1.0}]
    with pytest.raises(DataError, match="not those of a language model"):
        compare({"e": left_by(tmp_path / "e", evals=evals)})


def test_seconds_on_the_clock_are_steps_times_what_a_step_takes(tmp_path):
    run = compare({"ours": left_by(tmp_path)})["ours"]
    timed = on_the_clock(run, A_STEP)
    assert timed["seconds"] == [0.25 * step for step in run["step"]]
    assert timed["tokens"] == run["tokens"] and run["seconds"][-1] != timed["seconds"][-1]


def test_the_table_has_a_column_a_recipe_and_an_interval_at_every_measure(tmp_path):
    early = without_notebook_four(left_by(tmp_path / "b", stopped_early=True))
    runs = compare({"ours": left_by(tmp_path / "a"), "theirs | old": early})
    runs["ours"] = on_the_clock(runs["ours"], A_STEP)
    lines = [line.strip("| ").split(" | ") for line in comparison_table(runs).splitlines()]
    assert {len(line) for line in lines[2:]} == {3}
    cells = {line[0]: line[1:] for line in lines}
    assert lines[0] == ["ours", "theirs / old"]
    assert cells["NLL of a code, nats (read layout, test)"][0] == "3.41 (3.37 to 3.45, n = 360)"
    assert cells["passes over the rows"] == ["2.00124 of 1", "2.00124 of 1, stopped early"]
    assert cells["milliseconds a step, side by side"] == [
        "250.0 (200.0 to 300.0, n = 9)",
        "not measured",
    ]
    assert cells["all its steps at that pace"][0] == "7 min"
    assert cells["best baseline on its own rows"][0].startswith("n-grams by position: 3.93 (")
    assert cells["classes classified correctly, best route"][1] == "not measured"


def test_a_number_without_an_interval_says_so(tmp_path):
    unknown = Estimate(0.25, float("-inf"), float("inf"), 2, "seconds per step")
    run = on_the_clock(compare({"ours": left_by(tmp_path)})["ours"], unknown)
    assert "250.0 (unknown, n = 2)" in comparison_table({"ours": run})
