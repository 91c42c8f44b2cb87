"""What `eyrie doctor` and an assessment say of a host where something is missing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from eyrie.adapters import host
from eyrie.settings import Settings


def fact(settings: Settings, what: str) -> host.HostFact:
    (found,) = [fact for fact in host.host_facts(settings) if fact.what == what]
    return found


def test_without_control_groups_it_says_which_limit_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = SimpleNamespace(controllers=frozenset(), detail="none can be written", tidy=lambda: None)
    monkeypatch.setattr(host.cgroups, "detect", lambda name: none)
    limits = fact(Settings(data=tmp_path), "limits")
    assert (limits.good, limits.found) == (False, "control groups: none can be written")
    assert "no group limits cpu, memory, pids of an instance" in limits.advice
    assert "each of its processes has the memory of the type as its own limit" in limits.advice


def test_plain_processes_that_were_asked_for_need_nothing_installed(tmp_path: Path) -> None:
    isolation = fact(Settings(data=tmp_path, sandbox="process"), "isolation")
    assert (isolation.good, isolation.advice) == (False, "set sandbox=auto")
