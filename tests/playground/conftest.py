"""A playground with an untrained model."""

import pytest
from playable import playable

from seqlm.playground.app import Playground
from seqlm.workspace import Workspace


@pytest.fixture(scope="module")
def ws(built, opinionated, vocab, tmp_path_factory) -> Workspace:
    return playable(tmp_path_factory.mktemp("home"), built, opinionated(), vocab)


@pytest.fixture
def play(ws) -> Playground:
    return Playground(ws)
