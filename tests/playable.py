"""A project's folder with a data set and a model to play with, for the tests of the playground."""

import shutil
from pathlib import Path

from seqlm.config import ModelConfig
from seqlm.data.build import CODEBOOK
from seqlm.data.codebook import PatchCodebook
from seqlm.data.tokenizer import build_tokenizer, save_tokenizer
from seqlm.data.tokens import default_vocab
from seqlm.models.gpt2 import build_lm
from seqlm.workspace import Workspace


def playable(root: Path, data: Path, size: ModelConfig) -> Workspace:
    """`root` with `data` as its laptop data set and an untrained model of opinions beside it."""
    ws = Workspace("laptop", root)
    shutil.copytree(data, ws.data)
    book = PatchCodebook.load(data / CODEBOOK)
    vocab = default_vocab(book.n_codes)
    model = build_lm(size, vocab, seed=3)
    for weight in (p for p in model.parameters() if p.ndim == 2):
        weight.data.mul_(4)
    model.save_pretrained(ws.best_model)
    save_tokenizer(build_tokenizer(vocab), ws.best_model)
    book.save(ws.best_model / CODEBOOK)
    return ws
