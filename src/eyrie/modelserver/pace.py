"""Admission by CPU time, for an instance that is to use less than its host would let it: requests wait their turn.

Where there is no control group, this is what holds a burstable instance to its credits. The process earns CPU time at
its pace and spends what it uses; while it has used more than it earned, requests are held, in their order.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable

from eyrie.http1.server import Connection

PERIOD_S = 0.1  # what is not used within one is lost
HELD_MAX = 1_024  # beyond it a request is refused
_WAIT_S = 0.01  # at least, between looks

Serve = Callable[[Connection, bytes], None]


class PaceError(ValueError):
    """A pace that cannot be read; the message says why."""


def read_pace(body: bytes) -> int:
    """Thousandths of a core that a body asks for. Raises PaceError."""
    try:
        milli = json.loads(body)["vcpu_milli"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise PaceError('a pace is {"vcpu_milli": N}') from None
    if not isinstance(milli, int) or isinstance(milli, bool) or milli <= 0:
        raise PaceError("vcpu_milli is not a positive whole number")
    return milli


class Pace:
    """Holds requests back while the process is ahead of its CPU time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        serve: Serve,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._loop = loop
        self._serve = serve
        self._cpu_s = cpu_s
        self._rate = 1.0  # cores
        self._room_s = 0.0  # CPU time that it may use still
        self._at_s, self._used_s = loop.time(), cpu_s()
        self._held: deque[tuple[Connection, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, vcpu_milli: int) -> None:
        """Earn at another rate from now on."""
        self._count()
        self._rate = vcpu_milli / 1000
        self._room_s = min(self._room_s, self._rate * PERIOD_S)

    def take(self, connection: Connection, data: bytes) -> bool:
        """Serve a request now or later; False where too many wait."""
        self._count()
        if self._room_s > 0 and not self._held:
            self._serve(connection, data)
            return True
        if len(self._held) >= HELD_MAX:
            return False
        self._held.append((connection, data))
        self._later()
        return True

    def _count(self) -> None:
        now, used = self._loop.time(), self._cpu_s()
        self._room_s = min(self._room_s + (now - self._at_s) * self._rate, self._rate * PERIOD_S)
        self._room_s -= used - self._used_s
        self._at_s, self._used_s = now, used

    def _later(self) -> None:
        if self._timer is None:
            owed_s = max(-self._room_s, 0.0) / self._rate
            self._timer = self._loop.call_later(min(owed_s + _WAIT_S, 1.0), self._turn)

    def _turn(self) -> None:
        """Let go those that there is room for: one at a time, since each uses some."""
        self._timer = None
        self._count()
        while self._held and self._room_s > 0:
            connection, data = self._held.popleft()
            if connection.alive:
                self._serve(connection, data)
                self._count()
        if self._held:
            self._later()
