"""What was seen of the world before a decision: facts with their times, no judgement. It may be stale and partial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eyrie.domain.alarms import AlarmState
from eyrie.domain.analysis import Evidence
from eyrie.domain.fleet import ObservedInstance
from eyrie.domain.plan import Outcome
from eyrie.domain.serverless import Use


@dataclass(frozen=True, slots=True)
class Health:
    """What pinging one instance has shown. A ping that was not answered with 200 in time is a miss."""

    misses: int = 0  # in a row
    answers: bool = False  # the last ping was answered with 200
    at_ms: int = 0  # of the last ping's end
    detail: str = ""  # of the last miss: "no answer in 1000 ms", "status 503"
    busy_since_ms: int = 0  # silent since then, and at work: its processes burn CPU; 0: not so


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at an endpoint's world."""

    seen: Mapping[str, ObservedInstance]  # compute's inventory, by instance id
    seen_ms: int  # when that inventory was begun: nothing may be concluded from it about anything later
    health: Mapping[str, Health] = field(default_factory=dict)
    served: int = 0  # lowest route generation that any live gateway still serves
    idle: frozenset[str] = frozenset()  # instances out of the route with no request left anywhere
    outcomes: tuple[Outcome, ...] = ()
    pending: frozenset[str] = frozenset()  # ids of effects that are owed, without those of `outcomes`
    tails: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # last log lines of some instances
    alarms: Mapping[str, AlarmState] = field(default_factory=dict)  # of those that a deployment watches, where they are
    use: Use | None = None  # of its requests, as gateway workers tell of a serverless endpoint; None: not known
    evidence: Evidence | None = None  # of a deployment that is analysed: what both fleets answered in this step
