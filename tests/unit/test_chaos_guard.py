"""What holds a process still lets it go, whatever becomes of who asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eyrie.cli.chaos_faults import Guard, Place, processes_of
from eyrie.cli.errors import CommandError

ASKER = """
import sys, time
from eyrie.cli.chaos_faults import Guard
Guard([int(sys.argv[1])], sys.argv[2], 60.0, 0.9)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def victim() -> Iterator[int]:
    child = subprocess.Popen(["sleep", "60"])
    yield child.pid
    child.kill()
    child.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_guard_lets_go_when_its_time_is_over_or_when_it_is_told(victim: int) -> None:
    brief = Guard([victim], "hang", 0.05, 1.0)
    until(lambda: brief.over)
    assert state(victim) in "SR"
    brief.end()
    long = Guard([victim], "hang", 60.0, 1.0)
    until(lambda: state(victim) == "T")
    long.end()
    assert state(victim) in "SR"


@pytest.mark.parametrize("kind", ["hang", "slow"])
def test_a_killed_command_leaves_nothing_stopped(victim: int, kind: str) -> None:
    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(victim), kind], stdout=subprocess.PIPE)
    assert asker.stdout is not None
    assert asker.stdout.readline() == b"held\n"
    until(lambda: state(victim) == "T")
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    asker.stdout.close()
    until(lambda: state(victim) in "SR")
    time.sleep(0.15)  # longer than a cycle of a slow one
    assert state(victim) in "SR"


def test_a_killed_guard_is_stood_in_for(victim: int) -> None:
    guard = Guard([victim], "hang", 60.0, 1.0)
    until(lambda: state(victim) == "T")
    (child,) = [pid for pid in processes_of(os.getpid()) if "eyrie.cli.chaos_guard" in _command(pid)]
    subprocess.run(["kill", "-9", str(child)], check=True)
    until(lambda: guard.over)
    guard.end()
    assert state(victim) in "SR"


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "credentials.json").write_text(
        json.dumps([{"access_key_id": "a", "secret_access_key": "b", "account": "123456789012"}])
    )
    assert Place(tmp_path, "us-east-1", "e").instances() is None  # control does not answer
    monkeypatch.setattr("os.geteuid", lambda: 12_345)
    with pytest.raises(CommandError, match="another user"):
        Place(tmp_path, "us-east-1", "e")


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
