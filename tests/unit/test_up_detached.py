"""`eyrie up --detach`: one process waits, and says what the other tells it; the other needs nobody to wait."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DETACHED = Path(__file__).parent / "standins" / "detached.py"
PATIENCE_S = 60.0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """The one who waits, once the other's life has begun."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(end: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(DETACHED), str(tmp_path), end]
        with (tmp_path / "err").open("wb") as err:
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err))
        until((tmp_path / "begun").exists)
        return started[0]

    yield begin
    (tmp_path / "go").touch()
    for process in started:
        process.kill()
        process.communicate()


def test_the_line_is_passed_on(tmp_path: Path, begun: Callable[[str], subprocess.Popen[bytes]]) -> None:
    waiting = begun("ready")
    (tmp_path / "go").touch()
    assert waiting.communicate(timeout=PATIENCE_S)[0] == b"ready\n"
    assert waiting.returncode == 0
    until((tmp_path / "lived").exists)


@pytest.mark.parametrize("end", ["ready", "error"])
def test_it_goes_its_way_where_nobody_waits_any_more(
    tmp_path: Path, begun: Callable[[str], subprocess.Popen[bytes]], end: str
) -> None:
    waiting = begun(end)
    waiting.kill()
    waiting.wait()
    (tmp_path / "go").touch()
    waiting.communicate(timeout=PATIENCE_S)  # the detached one holds the pipe's end until it is over
    assert (tmp_path / "err").read_bytes() == b""
    assert (tmp_path / "lived").exists() == (end == "ready")


def test_ctrl_c_tells_that_it_goes_on(tmp_path: Path, begun: Callable[[str], subprocess.Popen[bytes]]) -> None:
    waiting = begun("ready")
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(PATIENCE_S) == 130
    assert b"goes on" in (tmp_path / "err").read_bytes()
