"""Processes made by fork, and what makes a fork sound: children that end with their parent, are waited for, and are
forked again when they die.

A fork copies one thread. Whatever another thread held or was to do is lost in the child: a child of a process whose
OpenMP pool has run waits for that pool for ever. So `sole` is asked first.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import stat
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable

log = logging.getLogger("eyrie.modelserver")

FAILED = 1  # exit code of a model that does not load
CRASHED = 70  # exit code of an instance whose workers die again and again
DEATHS_MAX = 5  # of workers of one instance, within:
DEATHS_WITHIN_S = 60.0
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class Failed(Exception):
    """The model does not load; why has been logged."""


def threads() -> int:
    """The threads of this process, those of native libraries too."""
    return len(os.listdir("/proc/self/task"))


def sockets() -> int:
    """The sockets that this process has open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode)
        except OSError:  # the descriptor of the folder itself is gone by now
            continue
    return found


def fork(body: Callable[[], int]) -> int:
    """A child that runs `body` and exits with what it returns; killed when this process ends. Its pid.

    SIGTERM ends the child at once until `body` decides otherwise.
    """
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return pid
    code = CRASHED
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            code = body()
    except Failed:
        code = FAILED
    except BaseException:  # the process's boundary: whatever it was, it is told and the process ends
        log.error("a process of this instance failed\n%s", traceback.format_exc().rstrip())
    finally:
        for stream in (sys.stdout, sys.stderr):
            finish = getattr(stream, "finish", stream.flush)
            finish()
        os._exit(code)


def gives_up(deaths: deque[float], now_s: float) -> bool:
    """Note a death at `now_s`; whether there were more than DEATHS_MAX within DEATHS_WITHIN_S."""
    deaths.append(now_s)
    while now_s - deaths[0] > DEATHS_WITHIN_S:
        deaths.popleft()
    return len(deaths) > DEATHS_MAX


def describe(status: int) -> str:
    """How a child ended, for people."""
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


class Family:
    """The children of one process, each with a number; a number below 0 is not replaced when it dies."""

    def __init__(self, again: Callable[[int], int], left: Callable[[int], None]) -> None:
        """`again` forks the child of a number and returns its pid; `left` hears that one has ended."""
        self._again = again
        self._left = left
        self._children: dict[int, int] = {}
        self._stopping = False

    def add(self, number: int, ahead: int | None = None) -> int:
        """Start a child, unless it was forked `ahead`; its pid."""
        pid = ahead or self._again(number)
        self._children[pid] = number
        if self._stopping:  # asked while it was forked
            os.kill(pid, signal.SIGTERM)
        return pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The children that were not found dead."""
        return tuple(self._children)

    def stop(self) -> None:
        """Ask every child to end, and replace none any more."""
        self._stopping = True
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def tend(self) -> int:
        """Wait for the children until all have ended; SIGTERM asks them to. The exit code of this process."""
        signal.signal(signal.SIGTERM, lambda signum, frame: self.stop())
        deaths: deque[float] = deque()
        code = 0
        while self._children:
            pid, status = os.wait()
            number = self._children.pop(pid, None)
            if number is None:
                continue  # not one of ours: a model may start processes while it is loaded
            self._left(number)
            if not self._stopping:
                code = self._died(number, status, deaths)
        return code

    def _died(self, number: int, status: int, deaths: deque[float]) -> int:
        """One has ended unasked: start it again, or end all; the exit code so far."""
        ended = os.waitstatus_to_exitcode(status)
        if number < 0 or ended == FAILED:
            self.stop()
            return ended if ended > 0 else CRASHED
        if gives_up(deaths, time.monotonic()):
            log.error("worker %d %s; %d workers died within a minute: ending", number, describe(status), len(deaths))
            self.stop()
            return CRASHED
        log.error("worker %d %s: it is started again", number, describe(status))
        self.add(number)
        return 0
