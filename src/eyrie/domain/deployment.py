"""A deployment: one change of an endpoint from a blue fleet to a green one, and the phases that it goes through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from eyrie.domain.analysis import Analysis, AnalysisPolicy, Pause
from eyrie.domain.fleet import Fleet
from eyrie.domain.serverless import Serverless


class DeploymentPhase(StrEnum):
    """PENDING -> PROVISIONING -> SHIFTING <-> BAKING -> TERMINATION_WAIT -> RETIRING -> SUCCEEDED; else rolled back."""

    PENDING = "PENDING"  # green's artifacts are being fetched
    PROVISIONING = "PROVISIONING"  # green's instances start
    SHIFTING = "SHIFTING"  # the split of this step is published, not every gateway has acknowledged it
    BAKING = "BAKING"  # green serves, alarms are watched
    TERMINATION_WAIT = "TERMINATION_WAIT"  # blue is kept for a while, without traffic
    RETIRING = "RETIRING"  # blue drains
    SUCCEEDED = "SUCCEEDED"
    ROLLING_BACK = "ROLLING_BACK"  # green drains, blue serves
    ROLLED_BACK = "ROLLED_BACK"
    ROLLBACK_FAILED = "ROLLBACK_FAILED"


_P = DeploymentPhase
PHASE_MOVES: Mapping[DeploymentPhase, frozenset[DeploymentPhase]] = {
    _P.PENDING: frozenset({_P.PROVISIONING, _P.ROLLING_BACK}),
    _P.PROVISIONING: frozenset({_P.SHIFTING, _P.ROLLING_BACK}),
    _P.SHIFTING: frozenset({_P.BAKING, _P.ROLLING_BACK}),
    _P.BAKING: frozenset({_P.PROVISIONING, _P.SHIFTING, _P.TERMINATION_WAIT, _P.ROLLING_BACK}),
    _P.TERMINATION_WAIT: frozenset({_P.RETIRING, _P.ROLLING_BACK}),
    _P.RETIRING: frozenset({_P.SUCCEEDED}),
    _P.SUCCEEDED: frozenset(),
    _P.ROLLING_BACK: frozenset({_P.ROLLED_BACK, _P.ROLLBACK_FAILED}),
    _P.ROLLED_BACK: frozenset(),
    _P.ROLLBACK_FAILED: frozenset(),
}
MAY_ROLL_BACK = frozenset({_P.PENDING, _P.PROVISIONING, _P.SHIFTING, _P.BAKING, _P.TERMINATION_WAIT})


class Strategy(StrEnum):
    """How the traffic moves to green; the first three are SageMaker's spellings of blue/green."""

    ALL_AT_ONCE = "ALL_AT_ONCE"
    CANARY = "CANARY"  # a first share, then the rest
    LINEAR = "LINEAR"  # equal shares, one after the other
    ROLLING = "ROLLING"  # batches of instances: green's start, blue's end


class SizeKind(StrEnum):
    """What the value of a capacity size counts."""

    INSTANCE_COUNT = "INSTANCE_COUNT"
    CAPACITY_PERCENT = "CAPACITY_PERCENT"


@dataclass(frozen=True, slots=True)
class CapacitySize:
    """A part of a fleet."""

    kind: SizeKind
    value: int


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """What a DeploymentConfig says. Times in milliseconds."""

    strategy: Strategy = Strategy.ALL_AT_ONCE
    size: CapacitySize | None = None  # of the canary, of a linear step, of a batch; None when all at once
    bake_ms: int = 0  # after each step, alarms being watched
    termination_wait_ms: int = 0  # blue is kept after the last one
    limit_ms: int = 0  # for everything until blue waits; 0: none
    alarms: tuple[str, ...] = ()  # names or ARNs: any of them in ALARM rolls back
    rollback_size: CapacitySize | None = None  # blue instances that come back at once; None: all
    analysis: AnalysisPolicy | None = None  # green must prove itself at each step but the last


@dataclass(frozen=True, slots=True)
class Deployment:
    """A green fleet on its way. The blue one is the endpoint's own fleet until the deployment has succeeded."""

    phase: DeploymentPhase
    green: Fleet
    started_ms: int
    phase_ms: int  # when it entered its phase
    policy: TrafficPolicy = field(default_factory=TrafficPolicy)
    step: int = 0  # steps of the policy that green's share of the traffic has reached; 0: blue holds all
    config: dict[str, Any] = field(default_factory=dict)  # the DeploymentConfig as it was given
    data_capture: dict[str, Any] | None = None  # of the new config
    failure: str | None = None  # why it is rolled back
    analysis: Analysis | None = None  # the last verdict that something came of
    pause: Pause | None = None  # it goes no step further
    promoted: int = 0  # the step that a person let pass, whatever the analysis says; 0: none
    aborted: str | None = None  # a person wants it rolled back, and why

    @property
    def judged(self) -> bool:
        """Whether both fleets take traffic in this step, and green has to prove itself in it."""
        return self.phase is _P.BAKING and self.policy.analysis is not None and self.promoted != self.step


@dataclass(frozen=True, slots=True)
class Resize:
    """A change of counts on its way (UpdateEndpointWeightsAndCapacities), and what to go back to if it fails."""

    started_ms: int
    counts_before: dict[str, int]
    serverless_before: dict[str, Serverless] = field(default_factory=dict)  # of serverless variants
