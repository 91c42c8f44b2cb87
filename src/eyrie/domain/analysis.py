"""Canary analysis: what a deployment asks of its green fleet before it gets more traffic, what was seen, the verdict.

`decide/analysis` judges, `decide/deployment` goes on, pauses or rolls back by it (docs/concepts/safe-change.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from eyrie.domain.metrics import Summary

PAUSE_LIMIT_MS = 8 * 3_600_000  # nobody decided for so long: back to blue
CELLS = 32  # labels fall into so many, by their digest


class Compared(StrEnum):
    """What of the two fleets is compared."""

    LATENCY = "latency"
    ERRORS = "errors"
    PREDICTIONS = "predictions"


class Verdict(StrEnum):
    """What the numbers say; inconclusive never promotes (law 6)."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class AnalysisPolicy:
    """How much worse than blue green may be; None: that is not compared. Times in milliseconds."""

    latency: float | None = 0.1  # of blue's mean model latency
    errors: float | None = 0.01  # of all requests, more than blue has
    predictions: float | None = 0.1  # of all predictions, that fall elsewhere than blue's
    samples_min: int = 500  # of each fleet and step, before anything passes
    warm_up_ms: int = 0  # of each step, that is not looked at
    pause_limit_ms: int = PAUSE_LIMIT_MS
    sampling: float = 100.0  # percent of the replies whose predictions are read

    @property
    def compared(self) -> tuple[Compared, ...]:
        """What is compared."""
        limits = {Compared.LATENCY: self.latency, Compared.ERRORS: self.errors, Compared.PREDICTIONS: self.predictions}
        return tuple(name for name, limit in limits.items() if limit is not None)


@dataclass(frozen=True, slots=True)
class FleetSample:
    """What one fleet answered since a step began to bake."""

    latency: Summary = field(default_factory=Summary)  # microseconds in the model
    requests: float = 0.0
    errors: float = 0.0  # among them: 4xx and 5xx of its instances
    labels: dict[int, float] = field(default_factory=dict)  # predictions that are labels, by cell
    numbers: dict[int, float] = field(default_factory=dict)  # those that are numbers, by bucket (domain/metrics)
    unread: float = 0.0  # replies that could not be read as predictions


@dataclass(frozen=True, slots=True)
class Evidence:
    """Both fleets over the same time."""

    blue: FleetSample
    green: FleetSample
    since_ms: int
    names: dict[int, str] = field(default_factory=dict)  # a label of each cell, for people; may lack some


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: green less blue, and the interval that holds the true difference whenever one looks."""

    compared: Compared
    verdict: Verdict
    blue: float  # mean latency in us, share of errors; of predictions: share of the cell that differs most
    green: float
    blue_count: float
    green_count: float
    difference: float  # of latency relative to blue's, else in shares
    low: float | None  # None: too few to tell
    high: float | None
    limit: float  # the highest difference that is accepted
    needed: float | None = None  # further requests to green that would decide it, were all as now; None: not known
    detail: str = ""  # which predictions, what is missing


@dataclass(frozen=True, slots=True)
class Analysis:
    """The verdict on one step."""

    step: int
    verdict: Verdict
    findings: tuple[Finding, ...]
    at_ms: int


class PausedBy(StrEnum):
    """Who stopped a deployment."""

    ANALYSIS = "analysis"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Pause:
    """A deployment that goes no step further until somebody decides, or the limit passes."""

    by: PausedBy
    since_ms: int
    limit_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class AnalysisRoute:
    """In the route table of a variant: its predictions are counted, so many percent of its replies."""

    sampling: float = 100.0
