"""What a fault holds is let go though its guard and its command were both killed."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults_world import state, until, victim_process

from eyrie.cli import chaos_journal
from eyrie.cli.chaos_holds import known
from eyrie.cli.chaos_journal import Entry, Sweeper

GUARD = [sys.executable, "-P", "-m", "eyrie.cli.chaos_guard"]


@pytest.fixture
def victim() -> Iterator[int]:
    with victim_process() as pid:
        yield pid


def written(data: Path, told: dict[str, Any], seconds: float = 60.0) -> Path:
    """A file of the journal whose guard has died."""
    entry = Entry.begun(data, told, seconds)
    entry.left()
    return entry.path


def never(data: Path, path: Path) -> None:
    raise AssertionError(path)


def test_a_killed_guard_and_a_killed_command_leave_nothing_stopped(victim: int, tmp_path: Path) -> None:
    told = {**known({"kind": "hang", "pids": [victim], "seconds": 60.0}), "data": str(tmp_path)}
    with subprocess.Popen(GUARD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guard:
        assert guard.stdin is not None
        assert guard.stdout is not None
        guard.stdin.write(json.dumps(told).encode() + b"\n")
        guard.stdin.flush()
        assert guard.stdout.readline() == b"holding\n"
        (path,) = chaos_journal.entries(tmp_path)
        assert chaos_journal.reverted(tmp_path) == []  # somebody looks after it
        until(lambda: state(victim) == "T")
        guard.kill()
        guard.wait()
        assert state(victim) == "T"
    Sweeper(tmp_path, never).turn()
    until(lambda: state(victim) in "SR")
    assert not path.exists()


def test_what_a_fault_holds_is_written_down_before_it_is_held(victim: int, tmp_path: Path) -> None:
    (tmp_path / "faults").write_text("no folder")
    told = {**known({"kind": "hang", "pids": [victim], "seconds": 60.0}), "data": str(tmp_path)}
    done = subprocess.run(GUARD, input=json.dumps(told) + "\n", capture_output=True, text=True, check=False)
    assert "holding" not in done.stdout
    assert "File exists" in done.stdout
    assert state(victim) in "SR"


def test_limits_are_put_back_and_those_of_what_was_started_meanwhile(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    code = "import resource, subprocess\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
    code += "child = subprocess.Popen(['sleep', '60'])\nprint(child.pid, flush=True)\nchild.wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert resource.prlimit(child, resource.RLIMIT_FSIZE)[0] == 0
        path = written(tmp_path, known({"kind": "full", "locks": [], "pids": [parent.pid], "soft": limit[0]}))
        assert chaos_journal.reverted(tmp_path) == [path.name]
        assert [resource.prlimit(pid, resource.RLIMIT_FSIZE)[0] for pid in (parent.pid, child)] == [limit[0]] * 2
        os.kill(child, signal.SIGKILL)


def test_files_of_a_group_and_fillers_are_put_back(victim: int, tmp_path: Path) -> None:
    limit, filler = tmp_path / "memory.max", tmp_path / "chaos-filler"
    limit.write_text("4096")
    filler.write_text("full")
    files = [[str(limit), "max", "4096"]]
    written(tmp_path, known({"kind": "squeeze", "files": files, "scores": [[victim, "0"]], "group": "", "bytes": 0}))
    written(tmp_path, known({"kind": "fill", "path": str(filler), "bytes": 4}))
    written(tmp_path, known({"kind": "lock", "path": str(tmp_path / "absent.db")}))
    assert len(chaos_journal.reverted(tmp_path)) == 3
    assert limit.read_text() == "max"
    assert not filler.exists()
    assert chaos_journal.reverted(tmp_path) == []


def test_a_pid_that_is_another_process_by_now_is_not_touched(victim: int, tmp_path: Path) -> None:
    os.kill(victim, signal.SIGSTOP)
    until(lambda: state(victim) == "T")
    written(tmp_path, {**known({"kind": "hang", "pids": [victim]}), "born": {str(victim): "1"}})
    assert len(chaos_journal.reverted(tmp_path)) == 1
    assert state(victim) == "T"


def test_a_guard_that_stands_still_itself_is_stood_in_for_after_its_time(victim: int, tmp_path: Path) -> None:
    os.kill(victim, signal.SIGSTOP)
    until(lambda: state(victim) == "T")
    entry = Entry.begun(
        tmp_path, known({"kind": "hang", "pids": [victim]}), seconds=-60.0
    )  # it lives: its lock is held
    assert chaos_journal.reverted(tmp_path) == [entry.path.name]
    until(lambda: state(victim) in "SR")
    entry.over()  # harmless


def test_what_cannot_be_understood_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert chaos_journal.reverted(tmp_path) == []
    folder = tmp_path / "faults"
    folder.mkdir()
    for name, text in (("hang-1.json", "{"), ("slow-1.json", "[]"), ("odd-1.json", '{"kind": "odd"}')):
        (folder / name).write_text(text)
    half = folder / ".hang-2.json"
    half.write_text("{")
    os.utime(half, (1, 1))
    assert chaos_journal.reverted(tmp_path) == ["odd-1.json"]
    assert list(folder.iterdir()) == []
    assert caplog.text.count("cannot be understood") == 2


def test_an_endpoint_is_put_back_by_a_guard_and_again_when_that_one_dies_too(tmp_path: Path) -> None:
    now, begun = [0.0], []
    sweeper = Sweeper(tmp_path, lambda _, path: begun.append(path), lambda: now[0])
    entry = Entry.begun(tmp_path, {"kind": "endpoint", "undo": "delete", "endpoint": "e"}, 60.0)
    sweeper.turn()
    assert begun == []  # it lives
    entry.left()
    sweeper.turn()
    sweeper.turn()
    assert begun == [entry.path]
    with entry.path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        now[0] = 30.0
        sweeper.turn()
        assert begun == [entry.path]
    sweeper.turn()
    assert begun == [entry.path] * 2
    assert chaos_journal.reverted(tmp_path) == []  # no fault
    entry.path.unlink()
    now[0] = 60.0
    sweeper.turn()
    assert len(begun) == 2


def test_a_journal_that_cannot_be_read_ends_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "faults").write_text("no folder")
    sweeper = Sweeper(tmp_path, never)
    sweeper.turn()
    sweeper.turn()
    assert caplog.text.count("cannot be reverted") == 1
