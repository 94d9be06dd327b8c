"""A small model in about two minutes, for whoever wants to play before the real one is trained.

`python -m seqlm.playground.quick FOLDER [SECONDS]` is what the playground's button runs: a process
of its own, which can be stopped at any moment and goes on where it was.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqlm.config import DataConfig, DataFiles, ModelConfig, TrainConfig
from seqlm.data.build import CODEBOOK, SEQUENCES, VOCAB, build_dataset, is_built
from seqlm.data.corpus import Corpus, load_corpus
from seqlm.errors import SeqlmError
from seqlm.models.gpt2 import build_lm, fit_attention
from seqlm.training.runs import finish_model
from seqlm.training.tasks import train_lm
from seqlm.training.timing import choose_precision, step_seconds
from seqlm.training.trainer import collator
from seqlm.utils import check_folder, format_duration, read_json, write_json

SECONDS = 90  # of training; building the data and measuring come on top
DATA = DataConfig(copies=10)
SIZE = ModelConfig(n_layer=4, n_head=4, n_embd=192, n_positions=64, dropout=0.0)
BATCH = 64
STEPS = "steps.json"
TIMED = 20  # passes, of which the quickest counts
BESIDE = 1.25  # the optimizer's share on top of a timed pass, and the evaluations'


def train_quick(folder: Path, seconds: float = SECONDS, data: DataConfig = DATA) -> Path:
    """Build the data and train as long as `seconds` allow; returns the model's directory.

    All of it lies in `folder`: data/, best_model/, final_model/. Raises SeqlmError as
    `build_dataset` and `train_lm` do.
    """
    built = folder / "data"
    if not is_built(data, built):
        print("turning the digits into sentences", flush=True)
        build_dataset(data, built)
    corpus = load_corpus(DataFiles(built / SEQUENCES, built / VOCAB))
    config = TrainConfig(
        output_dir=folder,
        batch_size=BATCH,
        learning_rate=2e-3,
        max_steps=_kept_steps(folder, seconds, corpus),
        evals=5,
        patience=0,
    )
    record = train_lm(corpus, SIZE, config, log=lambda line: print(line, flush=True))
    told = f", trained for {format_duration(record['seconds'])}"
    finish_model(folder, record, corpus, codebook=built / CODEBOOK, note=told)
    return folder / "best_model"


@contextmanager
def _nobody_else(folder: Path) -> Iterator[None]:
    """Raises SeqlmError while another process trains in `folder`."""
    import fcntl  # Windows has none, and the playground should open there, too

    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SeqlmError(
                f"{folder}: this model is being trained already; wait until it is done, then open "
                "the page anew"
            ) from error
        yield


def _kept_steps(folder: Path, seconds: float, corpus: Corpus) -> int:
    """Timed once and kept, because a run that was stopped goes on only as the run it was."""
    path = folder / STEPS
    held = read_json(path) if path.is_file() else {}
    if held.get("seconds") != seconds:
        held = {"seconds": seconds, "steps": _steps_within(seconds, corpus)}
        write_json(path, held)
    return held["steps"]


def _steps_within(seconds: float, corpus: Corpus) -> int:
    rows = corpus.rows("train")[:BATCH]
    model = build_lm(SIZE, corpus.vocab)
    fit_attention(model, max(map(len, rows)))
    batch = collator(corpus.tokenizer.pad_token_id)([{"input_ids": row} for row in rows])
    chosen = choose_precision("auto", model, batch)["chosen"]
    # The least of many: whatever else the machine does just now must not make the run too short.
    a_step = min(step_seconds(model, batch, chosen) for _ in range(TIMED))
    return max(10, int(seconds / (BESIDE * a_step)))


def main(folder: str, seconds: str = str(SECONDS)) -> None:
    """Train, and say so; what stands in the way is the sentence that the process ends with."""
    try:
        with _nobody_else(Path(folder)):
            print(f"trained: {train_quick(Path(folder), float(seconds))}", flush=True)
    except (SeqlmError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
