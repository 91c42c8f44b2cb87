"""What goes wrong and when: written down (`kill@600`, `hang@900:60`), or drawn from a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from eyrie.sim.fleet import VirtualFleet
from eyrie.sim.meter import Meter

FAULTS_MAX = 10_000
_WRITTEN = re.compile(r"([a-z]+)@(\d+(?:\.\d+)?)(?::(\d+(?:\.\d+)?))?")


class Kind(StrEnum):
    """What may go wrong."""

    KILL = "kill"  # a process ends
    HANG = "hang"  # a process answers nothing for a while
    REFUSE = "refuse"  # no host has room for a start
    CRASH = "crash"  # starts end by themselves
    SLOW = "slow"  # starts take five times as long
    BLIND = "blind"  # metrics are lost


@dataclass(frozen=True, slots=True)
class Fault:
    """One of them, in seconds from the beginning."""

    kind: Kind
    at_s: float
    for_s: float = 30.0

    @property
    def over_s(self) -> float:
        """When it has ended."""
        return self.at_s + (0 if self.kind is Kind.KILL else self.for_s)

    def __str__(self) -> str:
        return f"{self.kind}@{self.at_s:g}" + ("" if self.kind is Kind.KILL else f":{self.for_s:g}")


def written(text: str) -> tuple[Fault, ...]:
    """`kill@600,hang@900:60`. Raises ValueError naming what is wrong."""
    return tuple(_one(word.strip()) for word in text.split(",") if word.strip())


def drawn(seed: int, seconds: int, an_hour: float = 6.0, quiet_s: int = 0) -> tuple[Fault, ...]:
    """So many faults an hour on average, none in the last `quiet_s`."""
    if an_hour <= 0:
        return ()
    chance = random.Random(f"faults {seed}")
    found: list[Fault] = []
    at_s = chance.expovariate(an_hour / 3600)
    while at_s < seconds - quiet_s and len(found) < FAULTS_MAX:
        for_s = min(chance.choice([5.0, 20.0, 60.0, 200.0]), max(1.0, seconds - quiet_s - at_s))
        found.append(Fault(chance.choice(list(Kind)), at_s, for_s))
        at_s += chance.expovariate(an_hour / 3600)
    return tuple(found)


def strike(fault: Fault, fleet: VirtualFleet, meter: Meter, chance: random.Random) -> None:
    """Let it happen now."""
    until_ms = fleet.now_ms + round(1000 * fault.for_s)
    victims = sorted(fleet.routed())
    if fault.kind is Kind.KILL and victims:
        fleet.kill(chance.choice(victims))
    elif fault.kind is Kind.HANG and victims:
        fleet.hang(chance.choice(victims), round(1000 * fault.for_s))
    elif fault.kind is Kind.REFUSE:
        fleet.trouble.refused_until_ms = until_ms
    elif fault.kind is Kind.CRASH:
        fleet.trouble.crash_until_ms = until_ms
    elif fault.kind is Kind.SLOW:
        fleet.trouble.slow_until_ms, fleet.trouble.slow_factor = until_ms, 5.0
    elif fault.kind is Kind.BLIND:
        meter.blind(until_ms)


def last_s(faults: Sequence[Fault]) -> float:
    """When the last of them has ended."""
    return max((f.over_s for f in faults), default=0.0)


def _one(word: str) -> Fault:
    found = _WRITTEN.fullmatch(word)
    if found is None or found[1] not in {k.value for k in Kind}:
        kinds = ", ".join(Kind)
        forms = "KIND@SECONDS or KIND@SECONDS:DURATION"
        raise ValueError(f"a fault is written {forms} with KIND one of {kinds}, not {word[:40]!r}")
    return Fault(Kind(found[1]), float(found[2]), float(found[3] or 30))
