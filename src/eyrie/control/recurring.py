"""What happens again and again, for an endpoint's story: told at once, then once a minute while it goes on.

Used by what hears of gateway workers each second: records of captures that were dropped, requests that were sent twice.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

TELL_EVERY_S = 60.0
P = TypeVar("P", bound=Hashable)


@dataclass(slots=True)
class _Count:
    count: int = 0
    told: int = 0  # of them
    told_s: float = float("-inf")


@dataclass(slots=True)
class Recurring(Generic[P]):
    """Counts by place. Safe from threads."""

    _counts: dict[P, _Count] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, place: P, count: int) -> None:
        """It has happened, so often."""
        with self._lock:
            self._counts.setdefault(place, _Count()).count += count

    def due(self, now_s: float) -> list[tuple[P, int]]:
        """What is to be told now, with how often it happened since it was told last. `now_s` never goes back."""
        with self._lock:
            due = [
                (p, one)
                for p, one in self._counts.items()
                if one.count > one.told and now_s - one.told_s >= TELL_EVERY_S
            ]
            told = [(place, one.count - one.told) for place, one in due]
            for _, one in due:
                one.told, one.told_s = one.count, now_s
            over = [place for place, one in self._counts.items() if now_s - one.told_s > TELL_EVERY_S]
            for place in over:
                del self._counts[place]
        return told
