"""What a worker's messages cost it: CPU time each, and the share of a core that it is at work.

Told with the answer to every message (`bulk`), in a header. A gateway that has one worker of an instance do the work of
several while that is quicker (`decide/gathering`) cannot see this from outside: answers come late also where it is the
gateway, or the host, that is busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_S = 0.05  # the share is taken over this long at least: some tens of messages


class Effort:
    """Of one process. CPU time is the process's own, whatever its thread."""

    def __init__(
        self, cpu: Callable[[], float] = time.process_time, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`cpu` and `clock` count seconds."""
        self._cpu = cpu
        self._clock = clock
        self._told = cpu()  # CPU time as of the last answer
        self._window = (clock(), self._told)
        self._share = 0.0

    def begin(self) -> float:
        """A message has come: what `line` wants to know of it."""
        return self._cpu()

    def line(self, began: float) -> bytes:
        """The header of a message's answer: microseconds of CPU that it took, and the share of a core of late, in
        thousandths. Messages overlap, so what was told with another one's answer is not told again.
        """
        cpu_s, now_s = self._cpu(), self._clock()
        took_s = cpu_s - max(began, self._told)
        self._told = cpu_s
        since_s, then_s = self._window
        if now_s - since_s >= WINDOW_S:
            self._share = (cpu_s - then_s) / (now_s - since_s)
            self._window = (now_s, cpu_s)
        return b"x-eyrie-effort: %d %d\r\n" % (took_s * 1e6, self._share * 1000)
