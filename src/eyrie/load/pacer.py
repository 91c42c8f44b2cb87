"""Waking at a moment, to a few microseconds: event loops wait in whole milliseconds, which an open load would show as
response time. A timer descriptor where Linux has it; elsewhere the loop's own timers.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from time import monotonic

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
_ABSOLUTE = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Pacer:
    """Calls `due` at moments of CLOCK_MONOTONIC, one at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[], None]) -> None:
        self._loop, self._due = loop, due
        self._fd = -1
        self._libc: ctypes.CDLL | None = None
        self._spec = _Itimerspec()
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
            if self._fd >= 0:
                loop.add_reader(self._fd, self._rang)

    def wake_at(self, moment: float) -> None:
        """Call once, at this moment or at once where it has passed."""
        if self._fd < 0 or self._libc is None:
            self._loop.call_later(max(0.0, moment - monotonic()), self._due)
            return
        value = self._spec.value
        whole = int(moment)
        value.seconds, value.nanoseconds = whole, max(1, int((moment - whole) * 1e9))
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(self._spec), None)

    def close(self) -> None:
        """No more calls."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _rang(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._due()
