"""Locks that tell which process lives: one holder, gone with its holder, and never a signal to a stranger."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eyrie.adapters import process_lock

HOLD = """
import pathlib, sys
from eyrie.adapters import process_lock
process_lock.take(pathlib.Path(sys.argv[1]))
print(1, flush=True)
input()
"""


@contextmanager
def another_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        try:
            yield process
        finally:
            process.kill()


def test_nobody_holds_a_lock_that_was_never_taken(tmp_path: Path) -> None:
    assert process_lock.holder(tmp_path / "x.lock") is None


def test_a_lock_is_held_until_its_descriptor_closes(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    fd = process_lock.take(path)
    assert process_lock.holder(path) == os.getpid()
    with pytest.raises(process_lock.Held) as held:
        process_lock.take(path, 0.05)
    assert held.value.pid == os.getpid()
    os.close(fd)
    assert process_lock.holder(path) is None


def test_a_stale_pid_in_a_free_lock_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "x.lock").write_text(f"{os.getpid()}\n")
    assert process_lock.pin(tmp_path / "x.lock") is None


def test_a_holder_that_ends_while_it_is_pinned_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.lock"
    fd = process_lock.take(path)
    open_pidfd = os.pidfd_open

    def late(pid: int) -> int:
        os.close(fd)  # the lock falls between the first look and the pidfd: the number may be another's by now
        return open_pidfd(pid)

    monkeypatch.setattr(os, "pidfd_open", late)
    assert process_lock.pin(path) is None


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "control.lock"
    with another_holder(path) as process:
        found = process_lock.pin(path)
        assert found is not None
        assert (found.name, found.pid, found.gone()) == ("control", process.pid, False)
        found.send(signal.SIGKILL)
        assert found.gone(5.0)
        found.send(signal.SIGTERM)  # to one that is gone: no error
        found.close()
        assert process_lock.holder(path) is None


def test_end_ends_a_process_that_ignores_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with another_holder(path) as process:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)  # a SIGTERM that comes before the stop would still count
        with process_lock.running(path) as found:
            assert found is not None
            found.end(grace_s=0.05)
        assert process.wait(30) == -signal.SIGKILL
