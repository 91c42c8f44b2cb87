"""What any policy in the wind tunnel is: something that looks at the meter and the fleet, and wishes for a count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from eyrie.sim.meter import Meter


@dataclass(frozen=True, slots=True)
class Wish:
    """A count, and why."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What a policy may see at a moment."""

    meter: Meter
    desired: int  # wanted now
    ready: int  # READY, as control sees it
    minimum: int
    maximum: int
    changing: bool  # an earlier change is still on its way
    growing: bool = False  # and it is a growth


class Policy(Protocol):
    """Decides. `waits`: it takes no new decision to the fleet while an earlier one is on its way."""

    name: str
    waits: bool

    def look(self, now_ms: int, sight: Sight) -> Wish | None:
        """Called every second: the count that it wants, or None to leave things as they are."""
        ...


class Fixed:
    """A number that nobody changes."""

    def __init__(self, count: int) -> None:
        self.name = f"fixed {count}"
        self.waits = True
        self._count = count

    def look(self, now_ms: int, sight: Sight) -> Wish | None:
        """Always the same."""
        return Wish(self._count, f"fixed at {now_ms} ms") if sight.desired != self._count else None
