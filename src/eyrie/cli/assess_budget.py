"""How long an assessment may take: what it begins no more since the time is used up, and that it tells so.

A slow or a busy host takes longer for the same; what does not fit is named in the report, never dropped in silence.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

USUAL_S = 255.0  # with what the flags mean when they are not given; the last thing begun and the copy's end come after
USUAL_FAULT_S, USUAL_COUNTS = 4.0, 3
AROUND_S = 8.0  # around a fault: until all is calm before it, until all is whole after it
COUNT_S = 15.0  # another number of instances: until they serve, and the load
CLIMBS_SHARE = 1 / 3  # of the time, after which no further stairs are begun


@dataclass(slots=True)
class Budget:
    """Of time, for the whole assessment."""

    seconds: float
    began: float = field(default_factory=time.monotonic)
    left_out: list[str] = field(default_factory=list)

    def has(self, need_s: float = 0.0) -> bool:
        """Whether so many seconds are left."""
        return time.monotonic() - self.began + need_s <= self.seconds

    def fits(self, what: str, need_s: float = 0.0) -> bool:
        """Whether it may begin; what may not is noted."""
        if self.has(need_s):
            return True
        self.left_out.append(what)
        return False

    def climbs(self) -> bool:
        """Whether there is time for further stairs."""
        return self.has((1 - CLIMBS_SHARE) * self.seconds)


def usual_s(faults: Sequence[str], seconds: float, runs: int, counts: Sequence[int]) -> float:
    """Seconds, where none are given: more of them where more is asked for than usual."""
    further = len(faults) * (runs - 1) * (seconds + AROUND_S)
    longer = len(faults) * max(0.0, seconds - USUAL_FAULT_S)
    return USUAL_S + further + longer + max(0, len(counts) - USUAL_COUNTS) * COUNT_S


def scales_s(counts: Sequence[int]) -> float:
    """What is kept for the numbers of instances, after the faults."""
    return len(counts) * COUNT_S
