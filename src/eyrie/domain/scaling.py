"""Scaling: which variants are scaled between which bounds, by which policies, and what has come of it.

The nouns of decide/scaling. Capacities are instances, times milliseconds since the epoch, durations milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from eyrie.domain.names import Scope

DIMENSION = "sagemaker:variant:DesiredInstanceCount"
PROVISIONED_DIMENSION = "sagemaker:variant:DesiredProvisionedConcurrency"  # of a serverless variant
MINUTE_MS = 60_000
COOLDOWN_MS = 300_000  # where a policy does not say


@dataclass(frozen=True, slots=True, order=True)
class TargetKey:
    """One variant of one endpoint among all accounts and regions."""

    account: str
    region: str
    endpoint: str
    variant: str
    provisioned: bool = False  # its ProvisionedConcurrency is scaled, not its number of instances

    @property
    def dimension(self) -> str:
        """What of it is scaled, as Application Auto Scaling names it."""
        return PROVISIONED_DIMENSION if self.provisioned else DIMENSION

    @property
    def noun(self) -> str:
        """The same, for people."""
        return "provisioned concurrency" if self.provisioned else "instance count"

    @property
    def scope(self) -> Scope:
        """The account and region that the endpoint lives in."""
        return Scope(self.account, self.region)

    @property
    def resource_id(self) -> str:
        """As Application Auto Scaling names it."""
        return f"endpoint/{self.endpoint}/variant/{self.variant}"


@dataclass(frozen=True, slots=True)
class Suspended:
    """What is not to happen for now."""

    scale_in: bool = False
    scale_out: bool = False
    scheduled: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between how many instances a variant is scaled."""

    lowest: int
    highest: int
    suspended: Suspended = Suspended()

    def held(self, capacity: int, least: int = 1) -> int:
        """The capacity, brought within; never below `least`: one, or none where requests may wait for an instance."""
        return max(min(capacity, self.highest), self.lowest, least)


class AdjustmentType(StrEnum):
    """How a step's number is meant; AWS's spellings."""

    CHANGE = "ChangeInCapacity"
    PERCENT = "PercentChangeInCapacity"
    EXACT = "ExactCapacity"


class Measure(StrEnum):
    """What a fast policy counts, of an instance; the spellings of its MetricName."""

    REQUEST_RATE = "RequestRate"  # requests that end in a second
    CONCURRENCY = "ConcurrentRequests"  # requests in flight, on average over a second


@dataclass(frozen=True, slots=True)
class TargetTracking:
    """Keep a metric of an instance at its target, as AWS does: on points of a period, out quickly, in slowly."""

    name: str
    target: float
    out_cooldown_ms: int = COOLDOWN_MS
    in_cooldown_ms: int = COOLDOWN_MS
    scale_in: bool = True
    period_ms: int = MINUTE_MS
    high_points: int = 3  # so many in a row above the target scale out
    low_points: int = 15  # so many in a row below nine tenths of it scale in


@dataclass(frozen=True, slots=True)
class Step:
    """An adjustment, for an interval of the metric's distance from the alarm's threshold. None is infinity."""

    lower: float | None
    upper: float | None
    adjustment: int


@dataclass(frozen=True, slots=True)
class StepScaling:
    """Adjust by how far the metric of an alarm is beyond its threshold."""

    name: str
    adjustment: AdjustmentType
    steps: tuple[Step, ...]
    cooldown_ms: int = COOLDOWN_MS
    magnitude: int = 0  # a change by percent is at least so large


@dataclass(frozen=True, slots=True)
class FastTracking:
    """`eyrie:Fast`: keep requests an instance at a target, deciding each second on two windows of seconds."""

    name: str
    target: float  # of the measure, an instance
    measure: Measure = Measure.REQUEST_RATE
    stable_s: int = 60
    panic_s: int = 2
    out_cooldown_ms: int = 0
    in_cooldown_ms: int = 60_000
    scale_in: bool = True


Policy = TargetTracking | StepScaling | FastTracking


@dataclass(frozen=True, slots=True)
class Breach:
    """What the alarm of a step policy says while it is in ALARM."""

    alarm: str  # its name
    value: float  # of its metric
    threshold: float


Points = Sequence[float | None]  # a metric's complete periods, the newest last; None where nothing was measured


class Code(StrEnum):
    """Why a capacity was left as it is; AWS's spellings."""

    FLAPPING = "AutoScalingAnticipatedFlapping"
    UNSCALABLE = "TargetServicePutResourceAsUnscalable"
    AT_MAX = "AlreadyAtMaxCapacity"
    AT_MIN = "AlreadyAtMinCapacity"
    AT_DESIRED = "AlreadyAtDesiredCapacity"


@dataclass(frozen=True, slots=True)
class NotScaled:
    """A wish of a policy that was not followed."""

    code: Code
    policy: str
    alarm: str  # of the step policy; "High" or "Low" for a tracked target
    why: str
    capacity: int


@dataclass(frozen=True, slots=True)
class ScalingMemory:
    """What later decisions need to know of earlier ones."""

    out_ms: int = -(10**15)  # the last growth
    out_base: int = 0  # capacity before the first growth of its cool-down
    in_ms: int = -(10**15)  # the last reduction
    bounds: tuple[int, int] | None = None  # as they were last enforced; None: never yet


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """What becomes of a capacity, and why. `capacity` None leaves it as it is; `memory` None too."""

    capacity: int | None = None
    policy: str = ""  # empty: the bounds
    alarm: str = ""  # "High", "Low", the step policy's alarm, or empty
    why: str = ""
    memory: ScalingMemory | None = None
    not_scaled: tuple[NotScaled, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something happens: `at(…)`, `rate(…)` or `cron(…)`, within what time, and in which time zone."""

    expression: str
    timezone: str = "UTC"
    start_ms: int | None = None
    end_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ScheduledAction:
    """New bounds at a time; None leaves a bound as it is."""

    name: str
    schedule: Schedule
    lowest: int | None = None
    highest: int | None = None


class ActivityStatus(StrEnum):
    """AWS's spellings."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCESSFUL = "Successful"
    OVERRIDDEN = "Overridden"
    UNFULFILLED = "Unfulfilled"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Activity:
    """One change of capacity, or one that was not made."""

    activity_id: str
    description: str
    cause: str
    started_ms: int
    status: ActivityStatus
    ended_ms: int | None = None
    message: str = ""
    details: str = ""  # the numbers of the decision
    desired: int = 0
    not_scaled: tuple[Mapping[str, str | int], ...] = field(default=())  # NotScaledReasons as they are shown
