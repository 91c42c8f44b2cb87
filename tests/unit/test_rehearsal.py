"""A slot's rehearsal: a model of each framework is served once, nothing of it stays, and what fails is only noted."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import pytest

from eyrie.modelserver import rehearsal
from eyrie.modelserver.frameworks import xgboost as framework


@pytest.mark.parametrize("library", ["xgboost", "sklearn"])
def test_a_model_is_served_and_leaves_nothing(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(library)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with caplog.at_level(logging.INFO, "eyrie.modelserver"):
        rehearsal.rehearse([library, "no_such_framework"])
    (line,) = [record.getMessage() for record in caplog.records if "rehearsed" in record.getMessage()]
    assert line.startswith(f"rehearsed {library} in ")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_rehearsed_is_noted_and_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("xgboost")

    def broken(path: Path) -> None:
        raise RuntimeError("of another version")

    monkeypatch.setattr(framework, "read_booster", broken)
    with caplog.at_level(logging.INFO, "eyrie.modelserver"):
        rehearsal.rehearse(["xgboost"])
    assert "xgboost was not rehearsed: RuntimeError: of another version" in caplog.messages
