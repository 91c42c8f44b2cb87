"""The nouns of an assessment: what `eyrie assess` found by each of the five measures, the grades, and a comparison.

Seconds, requests a second, milliseconds, US dollars; a share lies between 0 and 1. None: it was not measured, or there
is none (what never became whole has no time until it was).
"""

from __future__ import annotations

from dataclasses import dataclass, field

FORMAT = 1
LETTERS = "ABCDEF"


@dataclass(frozen=True, slots=True)
class Steady:
    """A rate that was held for a while."""

    offered_rps: float
    achieved_rps: float  # good replies
    errors: float  # share of the requests
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Performance:
    """Work a time."""

    users_rps: float  # good replies a second of a closed loop
    users: int
    users_p50_ms: float | None
    users_p99_ms: float | None
    saturation_rps: float | None  # the highest stair that was kept up with
    saturated_at_rps: float | None
    reason: str
    at_80: Steady | None  # at 80 % of the saturation point
    rows_a_request: int
    rows_a_minute: float | None  # at 80 %, as all below
    requests_an_hour: float | None
    mb_a_second: float | None  # of request bodies
    usd_an_hour: float | None  # of the instances that served, by the table of instance types
    usd_a_million: float | None  # requests
    stairs: tuple[Steady, ...] = ()


@dataclass(frozen=True, slots=True)
class Availability:
    """What share of the time and of the requests was good, over the window in which things were broken."""

    objective: float  # 0.999
    seconds: int
    good_seconds: int
    requests: int
    failed: int
    allowed: float  # failed requests that the objective allows of so many
    longest_bad_s: int  # bad seconds in a row

    @property
    def of_seconds(self) -> float:
        """The share of good seconds."""
        return self.good_seconds / self.seconds if self.seconds else 1.0

    @property
    def of_requests(self) -> float:
        """The share of good requests."""
        return 1 - self.failed / self.requests if self.requests else 1.0

    @property
    def budget_used(self) -> float:
        """The share of the error budget of the window that was used; above 1 it was not kept."""
        if self.allowed <= 0:
            return 0.0 if not self.failed else float(self.failed)
        return self.failed / self.allowed


@dataclass(frozen=True, slots=True)
class Scale:
    """What so many instances bore."""

    instances: int  # of the whole endpoint
    rps: float
    p99_ms: float | None
    ready_s: float | None  # from asking for this number until all served; None where it was so before


@dataclass(frozen=True, slots=True)
class Scalability:
    """More load, same quality."""

    scales: tuple[Scale, ...]
    rate: float | None  # of the fitted law: of one instance
    contention: float | None
    coherence: float | None
    fit_error: float | None
    best_instances: float | None
    kept: float | None  # of the throughput that this host's cores allow, with the most instances
    cores: int
    step_from_rps: float | None
    step_to_rps: float | None
    restored_s: float | None  # from the step until latency was back; None: not while it was watched
    restored_limit_ms: float | None


OVER = "the time was over"  # why a fault was skipped


@dataclass(frozen=True, slots=True)
class FaultRun:
    """One fault, and what it cost. `skipped` says why it was not injected; everything else is empty then."""

    fault: str
    what: str
    skipped: str = ""
    at_s: float = 0.0  # in the window
    lasted_s: float = 0.0  # by itself; 0: it is a moment
    detect_s: float | None = None
    whole_s: float | None = None  # from the fault until as many instances and processes served as should
    recover_s: float | None = None  # of these, after the fault itself was over
    requests: int = 0
    failed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    rate_kept: float | None = None  # good replies a second while it lasted, over those before
    p99_before_ms: float | None = None
    p99_during_ms: float | None = None
    answers: int = 0  # of a request that was repeated meanwhile
    answers_same: int = 0  # as before the fault


@dataclass(frozen=True, slots=True)
class Grade:
    """A letter, A to F; "-" where there was nothing to grade."""

    measure: str
    letter: str
    why: str
    rule: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """All of it."""

    endpoint: str
    assessed: str  # the endpoint that was loaded and broken: a copy, or the endpoint itself
    config: str
    at: str  # ISO 8601
    took_s: float
    version: str
    host: str
    instances: int
    instance_types: tuple[str, ...]
    body_bytes: int
    content_type: str
    fault_rps: float
    performance: Performance | None
    availability: Availability | None
    scalability: Scalability | None
    faults: tuple[FaultRun, ...]
    timeline: tuple[dict[str, float | None], ...]  # of the window with the faults, a row a second
    missing: tuple[str, ...]  # isolation and limits that this host does not offer
    notes: tuple[str, ...]
    grades: tuple[Grade, ...] = ()
    grade: str = "-"
    missed: tuple[str, ...] = ()  # objectives, in words
    left_out: tuple[str, ...] = ()  # what was asked for and did not fit into the time


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of two assessments."""

    name: str
    unit: str
    before: float | None
    after: float | None
    verdict: str  # "better", "worse", "same", "new", "gone"
