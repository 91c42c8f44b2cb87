"""The processes of a load test: they begin together, once all are ready; what the command says where it was cut short,
or of which nothing came."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_load import asked, plan, result

from eyrie.cli import load, payload
from eyrie.cli.errors import CommandError
from eyrie.cli.public import Public, Where
from eyrie.domain.load import Stage
from eyrie.load import requests
from eyrie.load.gathering import Gathering, ProcessDied
from eyrie.load.requests import Requests
from eyrie.load.result import Result

PATIENCE_S = 60.0


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def starts(monkeypatch: pytest.MonkeyPatch, folder: Path, first: str) -> None:
    """Let every Python process that is started from now on do this first."""
    (folder / "sitecustomize.py").write_text(first)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize("users", [0, 2])
def test_a_load_begins_once_its_processes_have_read_what_they_send(
    tmp_path: Path, closed_port: int, users: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With much to send a whole short load was over before anything was sent, and 0 requests were no failure."""
    starts(monkeypatch, tmp_path, "import time; time.sleep(2)")
    stages = [] if users else [Stage(0.2, 50.0, 50.0)]
    plans = [plan(closed_port, share=n, shares=2, seconds=0.2, users=users, stages=stages) for n in range(2)]
    gathering = Gathering(plans)
    try:
        while not gathering.until_over(0.1, gathering.begin_s + PATIENCE_S):
            pass
    finally:
        gathering.stop()
    assert sum(sum(second.errors.values()) for second in gathering.look().values()) >= (2 if users else 10)


def test_a_process_that_does_not_start_is_told(
    tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts(monkeypatch, tmp_path, "import os; os._exit(9)")
    with pytest.raises(ProcessDied, match="process 0 of the load test ended with 9"):
        Gathering([plan(closed_port)])


def ran(found: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Where("http://h:1", "us-east-1", "A", "s")
    public = SimpleNamespace(where=where, endpoint=lambda name: {"EndpointName": name})
    monkeypatch.setattr(Public, "of", lambda data: public)
    monkeypatch.setattr(load, "_loaded", lambda plans, result, told: found)
    load.run(Path("/nowhere"), asked(rps=10.0, duration="4", data="1,2", as_json=True))


def test_a_load_that_was_cut_short_is_reported_and_says_so_by_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CommandError, match="stopped before its end") as told:
        ran(replace(result(), stopped=True), monkeypatch)
    assert told.value.code == 130
    assert '"requests": 60' in capsys.readouterr().out


def test_a_load_of_which_nothing_came_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="not one of 0 requests was answered well: no reply came"):
        ran(replace(result(), seconds={}), monkeypatch)


def test_a_folder_of_several_content_types_needs_to_be_told_which(tmp_path: Path) -> None:
    """The first file's was taken for all, and the others were errors of the model."""
    (tmp_path / "a.csv").write_text("1,2\n")
    (tmp_path / "b.json").write_text("[[1, 2]]\n")
    with pytest.raises(CommandError, match="application/json and text/csv: say --content-type"):
        payload.bodies(str(tmp_path), each_line=False, kind=None)
    assert payload.bodies(str(tmp_path), each_line=False, kind="text/plain")[1] == "text/plain"


def test_what_is_never_sent_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of lines were hashed after the load should have begun."""
    made = Requests(plan(1, bodies=[b"%d" % n for n in range(1000)]))
    hashed: list[bytes] = []
    plain = hashlib.sha256
    monkeypatch.setattr(requests, "hashlib", SimpleNamespace(sha256=lambda body: hashed.append(body) or plain(body)))
    assert [made.next()[-1:] for _ in range(3)] == [b"0", b"1", b"2"]
    assert hashed == [b"0", b"1", b"2"]
