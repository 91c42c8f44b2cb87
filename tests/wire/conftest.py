"""One set of models for all wire tests: reading one costs up to a second."""

from __future__ import annotations

import pytest

from eyrie.wire.model import Models


@pytest.fixture(scope="session")
def models() -> Models:
    return Models()
