"""A project's folder with a data set and an untrained model, for the tests of the playground."""

import shutil
from pathlib import Path

from seqlm.data.build import CODEBOOK
from seqlm.data.tokenizer import build_tokenizer, save_tokenizer
from seqlm.workspace import Workspace


def save_model(model, vocab: dict[str, int], directory: Path, book=None) -> Path:
    """Save a model as training does, with a codebook if there is one."""
    model.save_pretrained(directory)
    save_tokenizer(build_tokenizer(vocab), directory)
    if book is not None:
        book.save(directory / CODEBOOK)
    return directory


def playable(root: Path, built, model, vocab: dict[str, int]) -> Workspace:
    """`root` with the data set `built` and `model` as those of the laptop profile."""
    ws = Workspace("laptop", root)
    shutil.copytree(built.directory, ws.data)
    save_model(model, vocab, ws.best_model, built.book)
    return ws
