"""Training goes on: a saved model learns from other data, and what it forgets by that is measured.

The vocabulary grows (`growing`), the weights move, all of them or by LoRA (`lora`), and everything
else is as in a run from scratch: training.py trains, runs.py measures and leaves the report.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from seqlm.config import DataFiles, FinetuneConfig, TrainConfig
from seqlm.data.corpus import Corpus, corpus_with
from seqlm.data.vocabulary import read_vocab
from seqlm.errors import ConfigError, DataError
from seqlm.models.gpt2 import check_model_directory, count_parameters
from seqlm.models.resize import (
    count_new_tokens,
    describe_token_counts,
    extend_vocab,
    is_classifier,
    sort_new_tokens,
    start_model,
)
from seqlm.training.finetune_report import Job, leave
from seqlm.training.forgetting import both_measures
from seqlm.training.replay import warn_of_shared, with_replay
from seqlm.training.runs import fitting, flushed, measured_split, say_what, warn_of_other_splits
from seqlm.training.timing import processes
from seqlm.training.train import Rows, train
from seqlm.utils import check_folder

MODELS = ("best_model", "final_model")


def finetune_model(files: DataFiles, options: FinetuneConfig, config: TrainConfig) -> None:
    """Go on training the model in `options.model_path` on `files`; leave what `seqlm train` does.

    `files.vocab_path` is not looked at: the vocabulary is the model's own, grown by what
    `options` allows. Beside the usual numbers, metrics.json and report.md say how the model does on
    the new rows, and on the old ones if they are given, after and before. Raises ConfigError or
    DataError, before anything is trained, for what cannot work.
    """
    _check(options, config)
    check_folder(config.output_dir)
    job = _job(files, options, config)
    record, about = train_from(options, config, job.mixed, job.old, job.classifies)
    if processes().is_main_process:
        leave(job, Path(config.output_dir), record, about)


def _job(files: DataFiles, options: FinetuneConfig, config: TrainConfig) -> Job:
    """Read all that is learned and measured, and say and check what can be before training."""
    start, main = Path(options.model_path), processes().is_main_process
    classifies = _task(options) == "classifier"
    known = read_vocab(start / "vocab.json")
    length = fitting(start, config.max_length)
    corpus = with_vocab(files, _vocabulary(files, options, known), length)
    if main:
        say_what(corpus, files)
        _say_cuts(corpus, length)
    warn_of_other_splits(corpus, files, start)
    mixed, old = corpus, None
    if options.old_data_path is not None:
        old_files = replace(files, data_path=Path(options.old_data_path))
        old = with_vocab(old_files, known, length)
        warn_of_other_splits(old, old_files, start)
        paths = files.data_path, old_files.data_path
        warn_of_shared(corpus, old, paths, measured_split(old), options.replay > 0)
        with naming(old_files.data_path):
            mixed = with_replay(corpus, old, options.replay, classifies, config.seed)
    job = Job(files, options, known, corpus, mixed, old, classifies)
    if classifies:
        _check_labels(job)
    return job


def _check_labels(job: Job) -> None:
    """Raise DataError, before training, when a split that a classifier needs holds no label."""
    asked = [(job.files.data_path, job.corpus, ("train", "val", measured_split(job.corpus)))]
    if job.old is not None:
        asked.append((job.options.old_data_path, job.old, ("val", measured_split(job.old))))
    for path, corpus, splits in asked:
        with naming(path):
            for split in splits:
                corpus.to_classify(split)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put `path` before the words of a DataError that does not name it: of two files, which one?"""
    try:
        yield
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error


def _check(options: FinetuneConfig, config: TrainConfig) -> None:
    start, out = Path(options.model_path).resolve(), Path(config.output_dir).resolve()
    replaced = [out / name for name in (*MODELS, "checkpoints")]
    if out == start or start in out.parents or {start, *start.parents} & set(replaced):
        raise ConfigError(
            f"output_dir: {config.output_dir} is where the model to start from lies "
            f"({options.model_path}), and training would replace it; choose another folder"
        )
    width = check_model_directory(start).n_embd
    if options.lora_rank > width:
        raise ConfigError(
            f"lora_rank: must be at most n_embd = {width} of {options.model_path}, got "
            f"{options.lora_rank}"
        )
    if options.replay and options.old_data_path is None:
        raise ConfigError("replay: it needs rows to replay; name their file with --old_data_path")


def _task(options: FinetuneConfig) -> str:
    """lm or classifier: as asked, or else as the model is."""
    own = "classifier" if is_classifier(options.model_path) else "lm"
    if own == "classifier" and options.task == "lm":
        raise ConfigError(
            f"task: {options.model_path} holds a classifier, which has no output layer to predict "
            "tokens with; start from a language model, or use --task classifier"
        )
    return options.task or own


def _vocabulary(files: DataFiles, options: FinetuneConfig, known: dict) -> dict[str, int]:
    """The model's vocabulary, with what the data or --vocab_path bring appended; says what."""
    counts = count_new_tokens(files.data_path, known)
    if options.vocab_path is not None:
        new, where = [t for t in read_vocab(options.vocab_path) if t not in known], "vocab_path"
    else:
        new, where = ([] if files.allow_unknown else sort_new_tokens(counts)), "data_path"
    if not new:
        return known
    told = describe_token_counts({token: counts[token] for token in new})
    tokens = f"{len(new):,} token{'s' * (len(new) > 1)}"
    if not options.grow:
        path = getattr(options if where == "vocab_path" else files, where)
        raise DataError(
            f"{path}: holds {tokens} that the model does not know: {told}; fix them, or let the "
            "vocabulary grow with --grow true"
        )
    vocab = extend_vocab(known, new)
    if processes().is_main_process:
        flushed(f"{tokens} new to the model, ids {len(known)} to {len(vocab) - 1}: {told}")
    return vocab


def with_vocab(files: DataFiles, vocab: dict[str, int], length: int | None) -> Corpus:
    """`corpus.corpus_with`; every DataError names the file of rows."""
    with naming(files.data_path):
        return corpus_with(files, vocab, length)


def _say_cuts(corpus: Corpus, length: int) -> None:
    cut = sum("cut_codes" in r.meta for rows in corpus.splits.values() for r in rows)
    if cut:
        flushed(
            f"{cut:,} rows were cut to {length} tokens: the model has learned from none longer, or "
            "max_length asks for it"
        )


# --- training -------------------------------------------------------------------------------------


def train_from(
    options: FinetuneConfig,
    config: TrainConfig,
    corpus: Corpus,
    old: Corpus | None = None,
    classifies: bool = False,
) -> tuple[dict, dict]:
    """Go on training `options.model_path` on `corpus`, and leave models in `config.output_dir`.

    Args:
        options: the model to start from, and LoRA's rank and alpha; nothing else is looked at.
        config: how to train.
        corpus: what to learn, replayed rows included; its vocabulary begins with the model's.
        old: rows whose val split is measured, too, at every evaluation, and nothing else.
        classifies: train a classifier, and not a language model.

    Returns training.py's record, and "parameters" of the model, how many of them were "trained",
    and "lora" ({"rank", "alpha"}, or None). Raises ConfigError when rows are too long, or peft is
    not installed and LoRA is asked for; DataError when there is no model to start from, or a
    classifier finds no labels or a single class.
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


def _under_lora(model, options: FinetuneConfig, seed: int):
    try:
        from seqlm.models.lora import add_lora
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"lora_rank: LoRA needs the package {error.name}, which is not installed; install "
            'seqlm with its extra: pip install -e ".[finetune]"'
        ) from error
    known = check_model_directory(options.model_path).vocab_size
    return add_lora(model, options.lora_rank, options.lora_alpha, known, options.model_path, seed)


def _keep_adapters(model, directory: Path) -> None:
    from seqlm.models.lora import ADAPTER, save_adapter

    size = max(save_adapter(model, directory / name) for name in MODELS)
    merged = (directory / MODELS[0] / "model.safetensors").stat().st_size
    flushed(
        f"the adapter alone, {size / 1e6:,.2f} MB beside {merged / 1e6:,.2f} MB of merged weights, "
        f"is in {directory / MODELS[0] / ADAPTER}"
    )
