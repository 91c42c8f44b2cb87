"""What the endpoint experiment concludes from what it gathered, without playing it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples/endpoint_experiment"
TOLD = {"requests": 1, "answered": 1, "errors": {}, "response_ms": {"p99": 5.0}, "timeline": []}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program; its modules have common names, and stay its own."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("run")
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def played(program: ModuleType, monkeypatch: pytest.MonkeyPatch, credits: list[tuple[float, float]]) -> Any:
    """A run whose watch saw no credits spent, once all that was told is gathered."""
    monkeypatch.setattr(program.questions, "metric", lambda *names, **of: [(0.0, 60.0)])
    for name in ("total_cpu", "by_instance"):
        monkeypatch.setattr(program.questions, name, lambda endpoint, window: {})
    monkeypatch.setattr(program.questions, "lowest_credits", lambda endpoint, window: credits)
    run = program.Run("two", 60.0, 0.2, 0.001, 0.001, 200.0, 15.0, 120.0, lost_minute=96.0, lost_s=1.0)
    program.gather(run, "two", TOLD, program.Window(0.0, 1.0))
    return run


def test_credits_that_were_seen_to_be_spent_afterwards_only_are_spent(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = played(program, monkeypatch, [(0.0, 8.0), (84.0, 0.1), (85.0, 0.07), (97.0, 0.0)])
    assert run.spent_minute == 85.0
    assert program.conclude([run]) == 0
    assert "after 85 min" in program.table([run])


def test_credits_that_are_left_are_not_spent(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    run = played(program, monkeypatch, [(0.0, 8.0), (84.0, 0.11)])
    assert run.spent_minute is None
    assert program.conclude([run]) == 1
    assert "no: 0.1 left at least" in program.table([run])
