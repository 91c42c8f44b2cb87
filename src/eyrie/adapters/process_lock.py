"""A process of Eyrie is known by the flock that it holds on `run/NAME.lock`; its pid stands inside.

The lock falls when the process ends, however it ends, so there are no stale pid files. A pid alone may belong to
another process by now: `pin` opens it as a pidfd first and looks at the lock again before anything is sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_PAUSE_S = 0.02


class Held(Exception):
    """Another process holds the lock; `pid` is what it wrote, None where it has not yet."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is held by process {pid}")
        self.pid = pid


def try_lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Hold the lock of an open file from now on, if nobody else does; False at once where somebody does. Raises
    OSError for what has no locks.
    """
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take(path: Path, wait_s: float = 0.2) -> int:
    """Hold the lock while the returned descriptor is open, and write our pid. Raises Held after `wait_s` seconds.

    The wait is never zero: someone who merely looks (`holder`) holds the lock for an instant.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    while not try_lock(fd):
        if time.monotonic() >= deadline:
            pid = _written_pid(fd)
            os.close(fd)
            raise Held(path, pid)
        time.sleep(_PAUSE_S)
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def holder(path: Path) -> int | None:
    """The pid of the process that holds the lock now, or None."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        for _ in range(50):
            if try_lock(fd, fcntl.LOCK_SH):
                fcntl.flock(fd, fcntl.LOCK_UN)  # closing is not enough: a child before its exec has the descriptor too
                return None
            if (pid := _written_pid(fd)) is not None:
                return pid
            time.sleep(_PAUSE_S)
        return None
    finally:
        os.close(fd)


class Running:
    """A live process that holds a lock, pinned by a pidfd: signals reach it or nobody."""

    def __init__(self, name: str, pid: int, pidfd: int) -> None:
        self.name = name
        self.pid = pid
        self._pidfd = pidfd

    def send(self, signum: int) -> None:
        """Send a signal; a process that is gone already is not an error."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signum)

    def gone(self, wait_s: float = 0.0) -> bool:
        """True once the process has ended, waiting up to `wait_s` seconds for it."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(wait_s * 1000))

    def end(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL when it is still there after the grace."""
        self.send(signal.SIGTERM)
        if not self.gone(grace_s):
            self.send(signal.SIGKILL)
            self.gone(5.0)

    def close(self) -> None:
        """Let go of the pidfd."""
        os.close(self._pidfd)


@contextlib.contextmanager
def running(path: Path) -> Iterator[Running | None]:
    """The process that holds the lock, pinned for the duration of the block; None where nobody does."""
    found = pin(path)
    try:
        yield found
    finally:
        if found is not None:
            found.close()


def pin(path: Path) -> Running | None:
    """The process that holds the lock, or None. The caller closes it."""
    pid = holder(path)
    if pid is None:
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if holder(path) != pid:  # it ended, and its number may belong to another by now
        os.close(pidfd)
        return None
    return Running(path.stem, pid, pidfd)


def _written_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
