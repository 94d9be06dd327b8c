"""Fine-tune a saved model on other data: all weights or LoRA, with or without replay."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from seqlm.config import DataFiles, FinetuneConfig, TrainConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.data.tokens import read_vocab
from seqlm.errors import ConfigError, DataError, error_prefix, needs_extra, printable
from seqlm.evaluation.tables import code_span, escape_markdown
from seqlm.models import resize
from seqlm.models.gpt2 import check_model_directory, count_parameters, is_classifier
from seqlm.ownership import MODELS
from seqlm.training import runs
from seqlm.training.forgetting import change_lines, measure_changes
from seqlm.training.measure import check_measurable
from seqlm.training.replay import keep_unseen, learned_rows, read_learned, with_replay
from seqlm.training.tasks import train_rows, validation_metric
from seqlm.training.timing import processes
from seqlm.training.train import check_run, owned, train_model
from seqlm.utils import fill_template, read_text, write_text


@dataclass(frozen=True, eq=False)
class FinetuneData:
    """What is learned and what is measured."""

    known: dict[str, int]  # the starting model's vocabulary, token -> id
    new: Corpus  # the new rows alone, under the grown vocabulary: what is measured
    mixed: Corpus  # the same with replayed rows in train: what is learned
    old: Corpus | None  # the old rows, under `known`
    classifies: bool

    @property
    def replayed(self) -> int:
        """How many of the rows that are learned are old ones."""
        if self.mixed is self.new:
            return 0
        own = self.new.labelled("train") if self.classifies else self.new.splits["train"]
        return len(self.mixed.splits["train"]) - len(own)


def finetune_model(files: DataFiles, options: FinetuneConfig, config: TrainConfig) -> None:
    """Fine-tune the model in `options.model_path` on `files`; save what `seqlm train` saves.

    The vocabulary is the model's own, grown by what `options` allows; `files.vocab_path` is not
    read. metrics.json and report.md also compare the model before and after. Raises ConfigError or
    DataError, before anything is trained, for what cannot work.
    """
    check_run(config, options.model_path)
    _check(options)
    data = _load_data(files, options, config)
    with owned(config.output_dir):
        record, about = train_from(options, config, data.mixed, data.old, data.classifies)
        if processes().is_main_process:
            _save(data, files, options, config.output_dir, record, about)


def _check(options: FinetuneConfig) -> None:
    width = check_model_directory(options.model_path).n_embd
    if options.lora_rank > width:
        raise ConfigError(
            f"lora_rank: must be at most n_embd = {width} of {options.model_path}, got "
            f"{options.lora_rank}"
        )
    if options.replay and options.old_data_path is None:
        raise ConfigError("replay: it needs rows to replay; name their file with --old_data_path")
    if is_classifier(options.model_path) and options.task == "lm":
        raise ConfigError(
            f"task: {options.model_path} holds a classifier, which has no output layer to predict "
            "tokens with; start from a language model, or use --task classifier"
        )


def _load_data(files: DataFiles, options: FinetuneConfig, config: TrainConfig) -> FinetuneData:
    """Read all that is learned and measured, and check what can be checked before training."""
    start = options.model_path
    classifies = options.task == "classifier" or is_classifier(start)
    known = read_vocab(start / "vocab.json")
    length = runs.trained_length(start, config.max_length)
    new = load_corpus(files, length, _grow_vocab(files, options, known))
    old, learned = None, read_learned(start)
    if options.old_data_path is not None:
        old = load_corpus(replace(files, data_path=options.old_data_path), length, known)
        if learned is None:  # the best guess
            learned = learned_rows(old.records("train"))
    splits, drop = ("val", "test"), options.only_unseen
    new = keep_unseen(new, splits, learned, start, drop)
    runs.log_corpus(new, classifies)
    check_measurable(new, classifies)
    mixed = new
    if old is not None:
        taught = learned_rows(new.records("train"))
        old = keep_unseen(old, splits, learned, start, drop)
        old = keep_unseen(old, splits, taught, "the new model", drop)
        mixed = with_replay(new, old, options.replay, classifies, config.seed)
        check_measurable(old, classifies, train=False)
    return FinetuneData(known, new, mixed, old, classifies)


def _grow_vocab(files: DataFiles, options: FinetuneConfig, known: dict) -> dict[str, int]:
    """The model's vocabulary, with the new tokens of the data or of --vocab_path appended."""
    counts = resize.count_new_tokens(files.data_path, known)
    if options.vocab_path is not None:
        path = options.vocab_path
        new = [token for token in read_vocab(path) if token not in known]
    else:
        path, new = files.data_path, [] if files.allow_unknown else resize.sort_new_tokens(counts)
    if not new:
        return known
    names = resize.describe_token_counts({token: counts[token] for token in new})
    tokens = f"{len(new):,} token{'s' * (len(new) > 1)}"
    if not options.grow:
        raise DataError(
            f"{path}: holds {tokens} that the model does not know: {names}; fix them, or let the "
            "vocabulary grow with --grow true"
        )
    with error_prefix(path):
        vocab = resize.extend_vocab(known, new)
    runs.print_at_once(f"{tokens} new to the model, ids {len(known)} to {len(vocab) - 1}: {names}")
    return vocab


def train_from(
    options: FinetuneConfig,
    config: TrainConfig,
    corpus: Corpus,
    old: Corpus | None = None,
    classifies: bool = False,
) -> tuple[dict, dict]:
    """Fine-tune `options.model_path` on `corpus`, and save models in `config.output_dir`.

    The vocabulary of `corpus` begins with the model's; of `old` the val split is measured at every
    evaluation. Returns the record of `train_model`, and "parameters", how many of them are
    "trained", and "lora", or None. Raises ConfigError when rows are too long, or LoRA is asked for
    without peft; DataError when there is no model, or a classifier finds no two classes.
    """
    check_run(config, options.model_path)
    model = resize.start_model(options.model_path, corpus, classifies, config.seed)
    parameters, lora = count_parameters(model), None
    if options.lora_rank:
        lora = {"rank": options.lora_rank, "alpha": options.lora_alpha}
        model = _add_lora(model, options, config.seed)
    trained = count_parameters(model)
    how = f"LoRA of rank {options.lora_rank}" if lora else "all of them"
    runs.print_at_once(f"{trained:,} of {parameters:,} parameters are trained ({how})")
    rows = train_rows(corpus, classifies, options.model_path)
    metric = validation_metric(corpus, classifies, old)
    record = train_model(model, corpus.tokenizer, rows, metric, config, runs.print_at_once)
    if lora and processes().is_main_process:
        _log_adapter(config.output_dir / MODELS[0])
    return record, {"parameters": parameters, "trained": trained, "lora": lora}


def _add_lora(model, options: FinetuneConfig, seed: int):
    with needs_extra("finetune"):
        from seqlm.models.lora import add_lora
    known = check_model_directory(options.model_path).vocab_size
    return add_lora(model, options.lora_rank, options.lora_alpha, known, options.model_path, seed)


def _log_adapter(directory: Path) -> None:
    from seqlm.models.lora import ADAPTER

    size = sum(path.stat().st_size for path in (directory / ADAPTER).iterdir())
    merged = (directory / "model.safetensors").stat().st_size
    runs.print_at_once(
        f"the adapter alone, {size / 1e6:,.2f} MB beside {merged / 1e6:,.2f} MB of merged weights, "
        f"is in {directory / ADAPTER}"
    )


def _save(
    data: FinetuneData,
    files: DataFiles,
    options: FinetuneConfig,
    directory: Path,
    record: Mapping,
    about: Mapping,
) -> None:
    """Save what any run saves, about the new rows alone, and what fine-tuning changed."""
    start = options.model_path
    changes = measure_changes(start, directory / "best_model", data.new, data.old)
    settings = dict(about) | {
        "from": "/".join(start.resolve().parts[-2:]),
        "new_tokens": list(data.new.vocab)[len(data.known) :],
        "replay": options.replay,
        "rows": {"new": len(data.mixed.splits["train"]) - data.replayed, "replayed": data.replayed},
        "changes": changes,
    }
    mixture = ""
    if data.replayed:
        mixture = (
            f"it learned from {settings['rows']['new']:,} new rows and {data.replayed:,} replayed "
            f"rows of {code_span(options.old_data_path.name)}"
        )
    note = f"; fine-tuned from {code_span(settings['from'])}"
    if options.lora_rank:
        note += f" by LoRA of rank {options.lora_rank} ({about['trained']:,} parameters)"
    codebook = start / CODEBOOK
    values = runs.evaluate_best_model(directory, data.new) | {"finetuned": settings}
    if data.old and data.old.left_out:
        values["left_out"] = [*values.get("left_out", []), *data.old.left_out]
    runs.save_run(
        directory,
        dict(record) | {"parameters": about["parameters"]},
        values,
        data.new,
        files,
        note=f"{note}; {mixture}" if mixture else note,
        codebook=codebook if codebook.is_file() else None,
    )
    lines = change_lines(changes)
    section = fill_template(
        "training/finetuned.md",
        **about,
        start=code_span(settings["from"]),
        new=[*map(code_span, settings["new_tokens"])],
        mixture=mixture,
        lines=[*map(escape_markdown, lines)],
    )
    report = directory / "report.md"
    write_text(report, read_text(report) + section)
    print(printable("\n".join(lines)))
