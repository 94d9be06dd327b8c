"""Training goes on: a saved model learns from other data, and what it forgets by that is measured.

The vocabulary grows (`growing`), the weights move, all of them or by LoRA (`lora`), and everything
else is as in a run from scratch: training.py trains, runs.py measures and leaves the report.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from seqlm.config import DataFiles, TrainConfig
from seqlm.corpus import Corpus, load_corpus
from seqlm.dataset import CODEBOOK
from seqlm.errors import ConfigError, DataError, DataWarning
from seqlm.files import check_folder, read_text, write_json, write_text
from seqlm.forgetting import (
    answers,
    both_measures,
    change,
    change_lines,
    change_table,
    with_replay,
)
from seqlm.growing import (
    grow_embedding,
    grown_vocab,
    in_order,
    in_words,
    is_classifier,
    new_tokens,
    start_model,
)
from seqlm.model import (
    check_model_directory,
    count_parameters,
    load_classifier,
    load_lm,
)
from seqlm.options import FinetuneOptions
from seqlm.runs import (
    fitting,
    flushed,
    leave_classifier,
    leave_language_model,
    measured_split,
    say_what,
    warn_of_other_splits,
)
from seqlm.speed import processes
from seqlm.training import Rows, train
from seqlm.vocabulary import read_vocab

MODELS = ("best_model", "final_model")


def finetune_model(files: DataFiles, options: FinetuneOptions, config: TrainConfig) -> None:
    """Go on training the model in `options.model_path` on `files`; leave what `seqlm train` does.

    `files.vocab_path` is not looked at: the vocabulary is the model's own, grown by what
    `options` allows. Beside the usual numbers, metrics.json and report.md say how the model does on
    the new rows, and on the old ones if they are given, after and before. Raises ConfigError or
    DataError, before anything is trained, for what cannot work.
    """
    _check(options, config)
    check_folder(config.output_dir)
    classifies = _task(options) == "classifier"
    known = read_vocab(Path(options.model_path) / "vocab.json")
    vocab = _vocabulary(files, options, known)
    length = fitting(options.model_path, config.max_length)
    corpus = with_vocab(files, vocab, length)
    main = processes().is_main_process
    if main:
        say_what(corpus, files)
        _say_cuts(corpus, length)
    old = None
    if options.old_data_path is not None:
        old_files = replace(files, data_path=Path(options.old_data_path))
        old = with_vocab(old_files, known, length)
        warn_of_other_splits(old, old_files, Path(options.model_path))
        mixed = with_replay(corpus, old, options.replay, classifies, config.seed)
        _warn_of_shared(mixed, old, options.old_data_path)
        corpus = mixed
    record, about = train_from(options, config, corpus, old, classifies)
    if main:
        about |= {"new_tokens": list(vocab)[len(known) :]}
        _leave(files, options, config, corpus, old, record, about, classifies)


def _check(options: FinetuneOptions, config: TrainConfig) -> None:
    start, out = Path(options.model_path).resolve(), Path(config.output_dir).resolve()
    replaced = [out / name for name in (*MODELS, "checkpoints")]
    if out == start or start in out.parents or {start, *start.parents} & set(replaced):
        raise ConfigError(
            f"output_dir: {config.output_dir} is where the model to start from lies "
            f"({options.model_path}), and training would replace it; choose another folder"
        )
    if options.lora_rank < 0 or options.lora_alpha <= 0:
        raise ConfigError("lora_rank must be 0 (off) or more, and lora_alpha above 0")
    if not 0 <= options.replay <= 0.9:
        raise ConfigError(f"replay: must be between 0 and 0.9, got {options.replay}")
    if options.replay and options.old_data_path is None:
        raise ConfigError("replay: it needs rows to replay; name their file with --old_data_path")


def _task(options: FinetuneOptions) -> str:
    """lm or classifier: as asked, or else as the model is."""
    own = "classifier" if is_classifier(options.model_path) else "lm"
    if own == "classifier" and options.task == "lm":
        raise ConfigError(
            f"task: {options.model_path} holds a classifier, which has no output layer to predict "
            "tokens with; start from a language model, or use --task classifier"
        )
    return options.task or own


def _vocabulary(files: DataFiles, options: FinetuneOptions, known: dict) -> dict[str, int]:
    """The model's vocabulary, with what the data or --vocab_path bring appended; says what."""
    counts = new_tokens(files.data_path, known)
    if options.vocab_path is not None:
        new, where = [t for t in read_vocab(options.vocab_path) if t not in known], "vocab_path"
    else:
        new, where = ([] if files.allow_unknown else in_order(counts)), "data_path"
    if not new:
        return known
    told = in_words({token: counts[token] for token in new})
    tokens = f"{len(new):,} token{'s' * (len(new) > 1)}"
    if not options.grow:
        path = getattr(options if where == "vocab_path" else files, where)
        raise DataError(
            f"{path}: holds {tokens} that the model does not know: {told}; mend them, or let the "
            "vocabulary grow with --grow true"
        )
    vocab = grown_vocab(known, new)
    if processes().is_main_process:
        flushed(f"{tokens} new to the model, ids {len(known)} to {len(vocab) - 1}: {told}")
    return vocab


def with_vocab(files: DataFiles, vocab: Mapping[str, int], length: int | None) -> Corpus:
    """`corpus.load_corpus` with a vocabulary that stands in no file."""
    with TemporaryDirectory() as place:
        path = Path(place) / "vocab.json"
        write_json(path, dict(vocab))
        return load_corpus(replace(files, vocab_path=path), length)


def _say_cuts(corpus: Corpus, length: int) -> None:
    cut = sum("cut_codes" in r.meta for rows in corpus.splits.values() for r in rows)
    if cut:
        flushed(
            f"{cut:,} rows were cut to {length} tokens: the model has learned from none longer, or "
            "max_length asks for it"
        )


def _warn_of_shared(corpus: Corpus, old: Corpus, path: Path) -> None:
    held = {record.codes for record in old.splits[measured_split(old)]}
    shared = sum(record.codes in held for record in corpus.splits["train"])
    if shared:
        warnings.warn(
            f"{path}: {shared:,} training rows hold the same codes as rows that forgetting is "
            "measured on, so it will look smaller than it is; take them out",
            DataWarning,
            stacklevel=3,
        )


# --- training -------------------------------------------------------------------------------------


def train_from(
    options: FinetuneOptions,
    config: TrainConfig,
    corpus: Corpus,
    old: Corpus | None = None,
    classifies: bool = False,
) -> tuple[dict, dict]:
    """Go on training `options.model_path` on `corpus`, whose vocabulary begins with the model's.

    On val of `old` it is only measured. Returns training.py's record, and "parameters" of the
    model, how many of them were "trained", and "lora" (rank and alpha, or None).
    """
    model = start_model(options.model_path, corpus, classifies, config.seed)
    whole = count_parameters(model)
    if options.lora_rank:
        model = _under_lora(model, options, config.seed)
    trained = count_parameters(model)
    how = f"LoRA of rank {options.lora_rank}" if options.lora_rank else "all of them"
    if processes().is_main_process:
        flushed(f"{trained:,} of {whole:,} parameters are trained ({how})")
    if classifies:
        prompts, labels = corpus.to_classify("train")
        rows, best_metric = Rows(prompts, labels.tolist()), "class_nll"
    else:
        rows, best_metric = Rows(corpus.rows("train")), "code_nll"
    measure = both_measures(corpus, old, classifies)
    looked_at = [c and [c.rows("val"), [r.label for r in c.records("val")]] for c in (corpus, old)]
    also = [*looked_at, options.lora_rank, options.lora_alpha]
    record = train(model, corpus.tokenizer, rows, measure, best_metric, config, flushed, also=also)
    if options.lora_rank and processes().is_main_process:
        _keep_adapters(model, Path(config.output_dir))
    lora = {"rank": options.lora_rank, "alpha": options.lora_alpha} if options.lora_rank else None
    return record, {"parameters": whole, "trained": trained, "lora": lora}


def _under_lora(model, options: FinetuneOptions, seed: int):
    try:
        from seqlm.lora import adapt
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"lora_rank: LoRA needs the package {error.name}, which is not installed; install "
            'seqlm with its extra: pip install -e ".[finetune]"'
        ) from error
    known = check_model_directory(options.model_path).vocab_size
    return adapt(model, options.lora_rank, options.lora_alpha, known, options.model_path, seed)


def _keep_adapters(model, directory: Path) -> None:
    from seqlm.lora import ADAPTER, keep_adapter

    size = max(keep_adapter(model, directory / name) for name in MODELS)
    merged = (directory / MODELS[0] / "model.safetensors").stat().st_size
    flushed(
        f"the adapter alone, {size / 1e6:,.2f} MB beside {merged / 1e6:,.2f} MB of merged weights, "
        f"is in {directory / MODELS[0] / ADAPTER}"
    )


# --- what is left ---------------------------------------------------------------------------------


def _leave(files, options, config, corpus, old, record, about, classifies) -> None:
    """metrics.json, cards and report as `seqlm train` leaves them, with what changed."""
    directory, start = Path(config.output_dir), Path(options.model_path)
    changes = _changes(files, options, corpus, old, directory, classifies)
    name = "/".join(start.resolve().parts[-2:])
    note = f"; fine-tuned from {name}"
    if about["lora"]:
        note += f" by LoRA of rank {about['lora']['rank']} ({about['trained']:,} parameters)"
    if options.replay:
        note += f", {options.replay:.0%} of the train rows being old ones"
    book = start / CODEBOOK
    told = about | {"from": name, "replay": options.replay, "changes": changes}
    leave = leave_classifier if classifies else leave_language_model
    leave(
        directory,
        record | {"parameters": about["parameters"]},
        corpus,
        files,
        more={"finetuned": told},
        note=note,
        codebook=book if book.is_file() else None,
    )
    section = f"## What fine-tuning changed\n\n{_in_short(told)}\n\n{change_table(changes)}\n"
    report = directory / "report.md"
    write_text(report, f"{read_text(report)}\n{section}")
    print("\n".join(change_lines(changes)))


def _changes(files, options, corpus, old, directory: Path, classifies) -> dict[str, dict]:
    """Which rows -> `forgetting.change` of the starting model and the fine-tuned one."""
    load = load_classifier if is_classifier(options.model_path) else load_lm
    before = load(options.model_path)
    after = (load_classifier if classifies else load_lm)(directory / MODELS[0])
    found = {}
    if old is not None:  # first: here the model is still as it was, its vocabulary, too
        split = measured_split(old)
        grown = Corpus(corpus.vocab, old.splits, old.max_length)
        changed = change(answers(before, old, split), answers(after, grown, split))
        found[f"old rows ({Path(options.old_data_path).name}, {split})"] = changed
    grow_embedding(before, len(corpus.vocab))
    split = measured_split(corpus)
    changed = change(answers(before, corpus, split), answers(after, corpus, split))
    return {f"new rows ({Path(files.data_path).name}, {split})": changed, **found}


def _in_short(told: Mapping) -> str:
    new, lora = told["new_tokens"], told["lora"]
    by = f" by LoRA of rank {lora['rank']}" if lora else ""
    said = [
        f"It started from {told['from']}; {told['trained']:,} of {told['parameters']:,} parameters "
        f"were trained{by}."
    ]
    if new:
        said.append(
            f"{len(new):,} tokens were appended to its vocabulary, from {new[0]} to {new[-1]}."
        )
    if told["replay"]:
        said.append(f"{told['replay']:.0%} of the train rows were old ones, to forget less.")
    said.append("Both models were asked about the very same rows.")
    return " ".join(said)
