"""A corpus of the small data set, and a model that nobody trained, for the tests of training."""

import pytest

from seqlm.config import DataFiles
from seqlm.data.build import SEQUENCES, VOCAB
from seqlm.data.corpus import load_corpus
from seqlm.models.gpt2 import build_lm


@pytest.fixture(scope="module")
def corpus(built):
    return load_corpus(DataFiles(built.directory / SEQUENCES, built.directory / VOCAB))


@pytest.fixture(scope="module")
def model(corpus, tiny):
    return build_lm(tiny, corpus.vocab).eval()
