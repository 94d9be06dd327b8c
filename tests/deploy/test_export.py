"""Exported models answer as torch does, whatever the batch, the length, and how they are read."""

import io
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from samples import ragged_rows, sharpened

from seqlm.atomic import MANIFEST
from seqlm.cli import main
from seqlm.config import DataFiles, SampleConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer, vocabulary_of
from seqlm.data.tokens import class_ids, default_vocab
from seqlm.deploy import onnx_model
from seqlm.deploy.export import (
    export_model,
    onnx_card,
    quantisation_loss,
    quantise_export,
    relative_rmse,
    torch_logits,
    verify,
)
from seqlm.deploy.infer import interact
from seqlm.deploy.onnx_model import GRAPH, OnnxModel, load_onnx
from seqlm.errors import ConfigError, DataError, NotFiniteError, SeqlmError
from seqlm.evaluation.scores import class_probabilities, score_tokens
from seqlm.models.generation import draw, generate, next_token_probabilities
from seqlm.models.gpt2 import build_classifier, build_lm, load_classifier, load_lm
from seqlm.training.replay import LEARNED, learned_rows

pytestmark = pytest.mark.slow

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZES = [(1, 1), (1, 2), (4, 1), (2, 9), (7, 23), (1, 64), (3, 64)]


def saved(model, vocab, directory, book=None):
    # Larger weights: a mask or a position that is wrong then shows far above rounding.
    sharpened(model).save_pretrained(directory)
    save_tokenizer(build_tokenizer(vocab), directory)
    if book is not None:
        book.save(directory / CODEBOOK)
    return directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def lm(folder, tiny, vocab, built):
    """A language model's directory."""
    return saved(build_lm(tiny, vocab, seed=3), vocab, folder / "lm", built.book)


@pytest.fixture(scope="module")
def cached(folder, lm):
    export_model(lm, folder / "cached")
    return folder / "cached"


@pytest.fixture(scope="module")
def plain(folder, lm):
    export_model(lm, folder / "plain", cache=False)
    return folder / "plain"


@pytest.fixture(scope="module")
def corpus(built):
    found = load_corpus(
        DataFiles(built.directory / "sequences.jsonl", built.directory / "vocab.json")
    )
    return Corpus(found.vocab, {name: rows[:60] for name, rows in found.splits.items()})


@pytest.fixture(scope="module")
def in_int8(folder, lm, corpus):
    """The export in 8 bits and what it was said to have lost."""
    return export_model(lm, folder / "int8", int8=True, corpus=corpus)


@pytest.fixture(scope="module")
def classifier(folder, tiny, vocab):
    return saved(build_classifier(tiny, vocab, seed=3), vocab, folder / "classifier")


@pytest.fixture(scope="module")
def exported_classifier(folder, classifier):
    export_model(classifier, folder / "exported_classifier")
    return folder / "exported_classifier"


def random_ids(size, seed=0):
    return np.random.default_rng(seed).integers(0, 66, size)


def small_rows():
    """Rows of both layouts in the vocabulary of 50 codes."""
    return [[i if i < 56 else i % 50 + 6 for i in row] for row in ragged_rows()]


@pytest.mark.parametrize("size", SIZES)
def test_logits_are_torchs_for_any_batch_and_length(lm, plain, cached, size):
    ids, torch_lm = random_ids(size), load_lm(lm)
    wanted = torch_logits(torch_lm, ids)
    for directory in (plain, cached):
        found, _ = load_onnx(directory).run(ids)
        assert found.shape == wanted.shape and np.abs(found - wanted).max() < 1e-4


@pytest.mark.parametrize("kind", ["plain", "cached"])
def test_read_token_by_token_the_logits_are_those_of_all_at_once(lm, kind, request):
    model = load_onnx(request.getfixturevalue(kind))
    assert model.has_cache == (kind == "cached")
    ids, past, found = random_ids((3, 64)), None, []
    for place in range(64):
        logits, past = model.run(ids[:, place : place + 1], past)
        found.append(logits)
    found = np.concatenate(found, axis=1)
    assert np.abs(found - torch_logits(load_lm(lm), ids)).max() < 1e-4


def test_the_cache_holds_the_keys_and_values_of_torch(lm, cached):
    ids = random_ids((2, 6))
    _, present = load_onnx(cached).run(ids)
    layers = load_lm(lm)(torch.from_numpy(ids), use_cache=True).past_key_values.layers
    wanted = [half.detach().numpy() for layer in layers for half in (layer.keys, layer.values)]
    assert [p.shape for p in present] == [(2, 2, 6, 16)] * 4
    assert all(np.abs(p - w).max() < 1e-4 for p, w in zip(present, wanted, strict=True))


def test_inputs_and_outputs_have_the_names_that_the_card_gives(cached):
    import onnx

    graph = onnx.load(cached / GRAPH).graph
    halves = ["0.key", "0.value", "1.key", "1.value"]
    assert [i.name for i in graph.input] == ["input_ids", *(f"past.{h}" for h in halves)]
    assert [o.name for o in graph.output] == ["logits", *(f"present.{h}" for h in halves)]
    sizes = [d.dim_param or d.dim_value for d in graph.input[1].type.tensor_type.shape.dim]
    assert sizes == ["batch", 2, "past", 16]


def test_the_graph_holds_no_paths_of_this_machine(cached):
    content = (cached / GRAPH).read_bytes()
    for trace in (sys.prefix, str(cached.parent), "modeling_gpt2"):
        assert trace.encode() not in content


@pytest.mark.parametrize("kind", ["plain", "cached"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_it_draws_the_images_that_torch_draws(lm, vocab, kind, guidance, request):
    model, labels = load_onnx(request.getfixturevalue(kind)), [0, 3, 9, 3]
    config = SampleConfig(temperature=0.9, top_p=0.95, guidance=guidance)
    found = draw(model, vocab, labels, 16, config)
    assert np.array_equal(found, draw(load_lm(lm), vocab, labels, 16, config))


def test_sentences_of_several_lengths_go_on_as_in_torch_to_the_last_position(lm, cached):
    prompts = [[2], [2, 9, 10], [2, 11], [5, 7, 8]]
    found = generate(load_onnx(cached), prompts, SampleConfig())
    assert found == generate(load_lm(lm), prompts, SampleConfig())
    assert [len(row) for row in found] == [64, 62, 63, 62]


@pytest.mark.parametrize("kind", ["plain", "cached"])
def test_next_tokens_scores_and_classes_read_off_are_torchs(lm, vocab, kind, request):
    model, torch_lm = load_onnx(request.getfixturevalue(kind)), load_lm(lm)
    found, wanted = (next_token_probabilities(m, [2, 9, 10]) for m in (model, torch_lm))
    assert np.abs(found - wanted).max() < 1e-5 and abs(found.sum() - 1) < 1e-9
    ours, theirs = (score_tokens(m, small_rows()) for m in (model, torch_lm))
    assert np.abs(ours.nll - theirs.nll).max() < 1e-4
    assert np.array_equal(ours.target, theirs.target) and np.array_equal(ours.row, theirs.row)
    classes = class_ids(vocab)
    found, wanted = (class_probabilities(m, small_rows(), classes) for m in (model, torch_lm))
    assert np.abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_a_classifiers_logits_are_torchs(classifier, exported_classifier, size):
    ids = random_ids(size)
    found, _ = load_onnx(exported_classifier).run(ids)
    assert found.shape == (size[0], 10)
    assert np.abs(found - torch_logits(load_classifier(classifier), ids)).max() < 1e-4


def test_a_classifier_reads_each_row_at_its_own_end(classifier, exported_classifier):
    rows, model = small_rows(), load_onnx(exported_classifier)
    found = class_probabilities(model, rows)
    assert np.abs(found - class_probabilities(load_classifier(classifier), rows)).max() < 1e-5
    alone = np.concatenate([class_probabilities(model, [row]) for row in rows])
    assert np.abs(found - alone).max() < 1e-5
    assert not model.has_cache


def test_tokenizer_codebook_and_card_are_exported_and_nothing_else(lm, cached, exported_classifier):
    assert vocabulary_of(load_tokenizer(cached)) == vocabulary_of(load_tokenizer(lm))
    assert (cached / CODEBOOK).read_bytes() == (lm / CODEBOOK).read_bytes()
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    tokenizer |= {"vocab.json", "merges.txt"}
    common = {GRAPH, "config.json", "README.md", MANIFEST, *tokenizer}
    assert {path.name for path in cached.iterdir()} == common | {CODEBOOK}
    assert {path.name for path in exported_classifier.iterdir()} == common


def test_the_licence_is_that_of_the_source_model(lm, cached, tmp_path):
    assert "license" not in (cached / "README.md").read_text(encoding="utf-8")
    directory = shutil.copytree(lm, tmp_path / "licensed")
    (directory / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Mine\n", encoding="utf-8")
    export_model(directory, tmp_path / "out", cache=False)
    assert "license: cc0-1.0\n" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["plain", "cached", "exported_classifier"])
def test_the_example_in_the_card_runs_as_it_stands(kind, request, monkeypatch):
    directory = request.getfixturevalue(kind)
    card = (directory / "README.md").read_text(encoding="utf-8")
    example = card.partition("```python\n")[2].partition("```")[0]
    names: dict = {}
    monkeypatch.chdir(directory)
    exec(example, names)
    assert np.array_equal(names["logits"], load_onnx(directory).run([[2, 4]])[0])


def test_int8_is_smaller_and_its_loss_is_measured(in_int8, cached, lm, corpus):
    directory = in_int8.directory
    assert (directory / GRAPH).stat().st_size < 0.7 * (cached / GRAPH).stat().st_size
    ids = random_ids((4, 20))
    lost = relative_rmse(load_onnx(directory).run(ids)[0], torch_logits(load_lm(lm), ids))
    assert 1e-4 < lost < 0.2, "either nothing was rounded, or little is left"
    loss = in_int8.loss
    assert loss == quantisation_loss(corpus, lm, directory, "val")
    assert loss.nll.low <= loss.nll.value <= loss.nll.high and abs(loss.nll.value) < 0.1
    assert loss.nll.value != 0 and loss.classes.difference.n == len(corpus.labelled("val"))
    assert str(loss) in (directory / "README.md").read_text(encoding="utf-8")
    assert list(directory.iterdir()) and not list(directory.glob("*int8*"))


def test_the_loss_is_the_exported_models_nll_minus_torchs(lm, plain, corpus, folder, vocab, tiny):
    """The same model loses nothing; another one is as much worse as the two NLLs say."""
    same = quantisation_loss(corpus, lm, plain)
    assert abs(same.nll.value) < 1e-5 and (same.classes.only_a, same.classes.only_b) == (0, 0)
    other = saved(build_lm(tiny, vocab, seed=4), vocab, folder / "other")
    kept = corpus.kinds == 1
    theirs, ours = (score_tokens(load_lm(d), corpus.rows("val")) for d in (other, lm))
    wanted = (ours.nll - theirs.nll)[kept[ours.target]].mean()
    assert quantisation_loss(corpus, other, plain).nll.value == pytest.approx(wanted, abs=1e-4)


def test_a_classifiers_loss_is_measured_in_classes_only(classifier, exported_classifier, corpus):
    loss = quantisation_loss(corpus, classifier, exported_classifier)
    assert loss.nll is None and loss.exported == loss.torch
    assert "Accuracy" in str(loss) and "NLL" not in str(loss)


def test_another_vocabulary_cannot_be_measured(lm, plain, corpus):
    with pytest.raises(DataError, match="another vocabulary"):
        quantisation_loss(replace(corpus, vocab=default_vocab(60)), lm, plain)


def test_a_graph_that_answers_otherwise_is_refused_and_not_kept(tiny, folder, plain, monkeypatch):
    other = sharpened(build_lm(tiny, default_vocab(50), seed=3))
    with torch.no_grad():
        other.transformer.h[1].mlp.c_fc.weight[0, 0] += 1.0
    with pytest.raises(SeqlmError, match=r"lie up to .* from torch's"):
        verify(other, plain)
    copied = lambda model, path, cache: shutil.copyfile(plain / GRAPH, path)  # noqa: E731
    monkeypatch.setattr("seqlm.deploy.export.write_graph", copied)
    wrong = saved(build_lm(tiny, default_vocab(50), seed=5), default_vocab(50), folder / "wrong")
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(SeqlmError, match="so it was not kept"):
        export_model(wrong, folder / "refused")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_wrong_past_is_detected(lm, cached, monkeypatch):
    whole = OnnxModel.run

    def swapped(self, input_ids, past=None, use_cache=True):
        logits, present = whole(self, input_ids, past, use_cache)
        return logits, present[::-1]

    monkeypatch.setattr(OnnxModel, "run", swapped)
    with pytest.raises(SeqlmError, match="so it was not kept"):
        verify(load_lm(lm), cached)


def test_weights_too_many_for_one_file_lie_beside_the_graph(lm, in_int8, folder, monkeypatch):
    monkeypatch.setattr(onnx_model, "MAX_FILE", 0)
    export_model(lm, folder / "two_files", cache=False)
    names = {path.name for path in (folder / "two_files").glob("*.onnx*")}
    assert names == {GRAPH, GRAPH + ".data"}
    small = shutil.copytree(folder / "two_files", folder / "two_small_files")
    quantise_export(load_lm(lm), small)
    left = {path.name for path in (folder / "two_files").iterdir()}
    assert {path.name for path in small.iterdir()} == left
    ids = random_ids((3, 9))
    found, wanted = (load_onnx(d).run(ids)[0] for d in (small, in_int8.directory))
    assert np.abs(found - wanted).max() < 1e-3


def test_int8_that_breaks_the_model_is_refused(lm, plain, tmp_path, monkeypatch):
    directory = shutil.copytree(plain, tmp_path / "broken")
    monkeypatch.setattr("seqlm.deploy.export.relative_rmse", lambda *_: float("nan"))
    with pytest.raises(SeqlmError, match="little is left of the model"):
        quantise_export(load_lm(lm), directory)


def test_a_model_whose_logits_are_no_numbers_is_not_exported(tiny, vocab, tmp_path):
    spoilt = build_lm(tiny, vocab)
    spoilt.transformer.ln_f.weight.data[0] = torch.nan
    spoilt = saved(spoilt, vocab, tmp_path / "spoilt")
    with pytest.raises(NotFiniteError, match="logits are not finite numbers"):
        export_model(spoilt, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_torch_cannot_trace_gets_a_sentence(lm, folder, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onnx_model.torch.onnx, "export", fails)
    with pytest.raises(SeqlmError, match=r"could not write .* \(no such operator\)"):
        export_model(lm, folder / "untraced")
    assert not (folder / "untraced").exists()


def test_no_export_replaces_the_model_or_a_folder_of_something_else(lm, folder, tmp_path):
    for output in (lm, lm.parent, lm / "onnx"):
        with pytest.raises(ConfigError, match="contains the model to start from"):
            export_model(lm, output, overwrite=True)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match=r"thesis\.tex was not written by seqlm"):
        export_model(lm, tmp_path)
    assert (tmp_path / "thesis.tex").exists() and (lm / "model.safetensors").exists()


def test_an_earlier_export_may_be_replaced_unless_its_card_was_edited(lm, cached, tmp_path):
    out = shutil.copytree(cached, tmp_path / "out")
    (tmp_path / ".tmp-01234567-out").mkdir()
    export_model(lm, out, cache=False)
    assert not (tmp_path / ".tmp-01234567-out").exists()
    (out / "README.md").write_text("licence: mine")
    with pytest.raises(ConfigError, match="README.md was not written by seqlm, or was changed"):
        export_model(lm, out)
    export_model(lm, out, cache=False, overwrite=True)
    assert "licence: mine" not in (out / "README.md").read_text()


def test_a_classifier_that_knows_no_padding_is_refused(classifier, tmp_path):
    directory = shutil.copytree(classifier, tmp_path / "c")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    with pytest.raises(DataError, match="pad_token_id is missing"):
        export_model(directory, tmp_path / "out")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_how_to_get_it(lm, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SeqlmError, match=rf"{missing} is not installed; .* pip install -e"):
        export_model(lm, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_an_export_gets_a_sentence_that_says_how_to_make_one(lm, tmp_path):
    with pytest.raises(DataError, match=r"no model here \(model.onnx missing\)"):
        load_onnx(lm)
    with pytest.raises(DataError, match="config.json and model.onnx missing"):
        load_onnx(tmp_path)


def test_a_classifier_writes_no_sentences(classifier, exported_classifier):
    for directory, runtime in ((classifier, "torch"), (exported_classifier, "onnx")):
        with pytest.raises(DataError, match="holds a classifier, not a language model"):
            interact(directory, runtime=runtime)


def test_a_damaged_or_mixed_up_export_gets_a_sentence(cached, exported_classifier, tmp_path):
    damaged = shutil.copytree(cached, tmp_path / "damaged")
    (damaged / GRAPH).write_bytes((cached / GRAPH).read_bytes()[:5000])
    with pytest.raises(DataError, match="onnxruntime cannot read it .*; export the model again"):
        load_onnx(damaged)
    (damaged / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"config\.json: no configuration of a GPT-2"):
        load_onnx(damaged)
    mixed = shutil.copytree(cached, tmp_path / "mixed")
    shutil.copyfile(exported_classifier / GRAPH, mixed / GRAPH)
    with pytest.raises(DataError, match="do not belong together"):
        load_onnx(mixed)


@pytest.mark.parametrize("kind", ["plain", "cached"])
def test_what_the_model_cannot_read_is_refused_in_a_sentence(kind, request):
    model = load_onnx(request.getfixturevalue(kind))
    _, past = model.run(random_ids((1, 60)))
    for ids, told in [
        ([[66]], "the id 66 is not among the model's 66 tokens"),
        ([[-1, 3]], "the id -1 is not"),
        (np.zeros((1, 65)), "65 tokens do not fit the model's 64 positions"),
    ]:
        with pytest.raises(DataError, match=told):
            model.run(ids)
    with pytest.raises(DataError, match="65 tokens do not fit"):
        model.run(np.zeros((1, 5)), past)


def test_a_card_says_where_the_loss_of_int8_was_not_measured(lm):
    card = onnx_card(load_lm(lm).config, True, True, 1e-6)
    assert "was not measured here" in card and "nan" not in card
    assert "8 bits" not in onnx_card(load_lm(lm).config, True, False, 1e-6)


def test_infer_says_under_onnx_what_it_says_under_torch(
    lm, cached, classifier, exported_classifier, tmp_path, capsys, monkeypatch
):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"tokens": "<IMG> <Z_003> <Z_004> </IMG> <CLS>"}\n', encoding="utf-8")

    def said(directory, runtime, mode, *more):
        monkeypatch.setattr(sys, "stdin", io.StringIO("<IMG>\n"))
        told = ["--model_path", str(directory), "--runtime", runtime, "--mode", mode, *more]
        assert main(["infer", *told]) == 0
        return capsys.readouterr().out

    pair = (lm, "torch"), (cached, "onnx")
    for mode in (["interactive"], ["generate", "--label", "3", "--n", "3"]):
        wanted, found = (said(*where, *mode) for where in pair)
        assert found == wanted and wanted
    classifiers = (classifier, "torch"), (exported_classifier, "onnx")
    for both in (pair, classifiers):
        answers = [json.loads(said(*at, "classify", "--data_path", str(rows))) for at in both]
        wanted, found = (answer["probabilities"] for answer in answers)
        assert np.allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize("kind", ["cached", "plain"])
@pytest.mark.parametrize("guidance", ["1", "1.5"])
def test_infer_finds_the_same_beams_under_onnx(lm, kind, guidance, request, capsys):
    told = ["infer", "--mode", "generate", "--label", "3", "--strategy", "beam", "--json", "true"]
    told += ["--num_beams", "4", "--max_new_tokens", "12", "--guidance", guidance]

    def said(directory, runtime, *more):
        assert main([*told, "--model_path", str(directory), "--runtime", runtime, *more]) == 0
        return json.loads(capsys.readouterr().out)["tokens"]

    wanted = said(lm, "torch")
    assert len(wanted.split()) <= 3 + 12
    assert said(request.getfixturevalue(kind), "onnx") == wanted
    assert said(lm, "torch", "--strategy", "greedy") != wanted
    assert said(lm, "torch", "--num_beams", "1") == said(lm, "torch", "--strategy", "greedy")


def test_the_command_line_exports_and_reports_the_loss(lm, built, tmp_path, capsys):
    rows = built.directory / "sequences.jsonl"
    asked = ["--model_path", str(lm), "--output_dir", str(tmp_path / "out"), "--data_path"]
    assert main(["export", *asked, str(rows), "--int8", "--cache=false"]) == 0
    told = capsys.readouterr().out
    assert "before int8" in told and "NLL of code tokens, exported minus torch" in told
    assert not load_onnx(tmp_path / "out").has_cache
    assert main(["infer", "--runtime", "onnx", "--model_path", str(lm)]) == 2
    assert "no model here" in capsys.readouterr().err


def test_int8_is_not_measured_on_rows_that_the_model_was_trained_on(lm, built, tmp_path, capsys):
    rows, model = built.directory / "sequences.jsonl", shutil.copytree(lm, tmp_path / "lm")
    files = DataFiles(rows, built.directory / "vocab.json")
    np.save(model / LEARNED, learned_rows(load_corpus(files).records("val")[:3]))
    asked = ["export", "--int8", "--model_path", str(model), "--data_path", str(rows)]
    for more in (["--output_dir", str(tmp_path / "out")],
                 ["--format", "html", "--output_file", str(tmp_path / "out")]):  # fmt: skip
        assert main([*asked, *more]) == 2
        said = capsys.readouterr().err
        assert "rows of val (lines " in said and "was trained on" in said
        assert "or bring other rows" in said and "only_unseen" not in said, (
            "export has no such flag"
        )
    assert not (tmp_path / "out").exists()
