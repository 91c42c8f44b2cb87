"""One timer a process for every deadline: requests, idle connections, heads that do not end. A request costs no timer
of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

PERIOD_MS = 250


class Sweep:
    """Calls every member once a period with the loop's time in seconds; `now` is that time, good enough for
    deadlines.
    """

    __slots__ = ("_handle", "_loop", "_members", "_period_s", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop, period_ms: int = PERIOD_MS) -> None:
        self._loop = loop
        self._period_s = period_ms / 1000
        self._members: list[Callable[[float], None]] = []
        self._handle: asyncio.TimerHandle | None = None
        self.now = loop.time()

    def add(self, member: Callable[[float], None]) -> None:
        """Have `member` called every period from now on."""
        self._members.append(member)
        if self._handle is None:
            self.now = self._loop.time()
            self._handle = self._loop.call_later(self._period_s, self._turn)

    def remove(self, member: Callable[[float], None]) -> None:
        """Stop calling `member`; the timer ends with the last one."""
        self._members.remove(member)
        if not self._members and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _turn(self) -> None:
        self.now = self._loop.time()
        self._handle = self._loop.call_later(self._period_s, self._turn)
        for member in tuple(self._members):
            try:
                member(self.now)
            except Exception:  # the loop boundary: one bad member must not end the others' deadlines
                log.exception("a deadline sweep failed")
