"""What one policy asks for, on its way from the policy's own rules to decide/scaling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Wish:
    """A capacity that a policy asks for. Its reason is spelled out only where somebody will read it."""

    policy: str
    capacity: int
    base: int  # the capacity that it was reckoned from
    alarm: str  # "High", "Low" or the step policy's alarm; empty: none
    why: Callable[[], str]
    tracks: bool = True  # a target, and not a user's alarm
