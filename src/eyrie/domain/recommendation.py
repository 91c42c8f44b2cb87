"""The nouns of an inference recommendations job: which ways to host a model are to be measured, with which load, and
what was seen of each.

Control makes an Order; the process that measures keeps a Ledger, which is also what control and its clients are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

BUDGET_MAX_S = 18_000
USERS_MAX = 5_000
TESTS_MAX = 100  # of one job
UTILISATION = 80.0  # percent of what an instance can do, that it is to be kept at


class TrialState(StrEnum):
    """IN_PROGRESS -> COMPLETED | FAILED | STOPPED; one that was interrupted begins again."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class ServerlessSize:
    """ServerlessConfig of a candidate."""

    memory_mb: int
    concurrency: int
    provisioned: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to host the model: an instance type or serverless, with variables of its containers; or an endpoint that
    there is already.
    """

    instance_type: str = ""
    serverless: ServerlessSize | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    endpoint: str = ""

    @property
    def title(self) -> str:
        """In a few words."""
        where = self.endpoint or self.instance_type
        if self.serverless is not None:
            where = f"serverless {self.serverless.memory_mb} MB, {self.serverless.concurrency} at once"
        return " ".join([where, *(f"{name}={value}" for name, value in sorted(self.environment.items()))])


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of PHASES: it begins with so many users, and so many more join each minute."""

    users: int
    joining_a_minute: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Level:
    """From a second on there are so many users."""

    at_s: float
    users: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """How many users ask, over the seconds of one test."""

    levels: tuple[Level, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Stopping:
    """When a test has shown enough; and the latency that a good answer keeps."""

    max_invocations: int | None = None  # a minute: the most that is expected
    percentile: float = 95.0
    latency_ms: float | None = None
    flat: bool = True  # end where more users bring no more answers


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """What an instance type is, and costs."""

    vcpu: int
    memory_mb: int
    usd_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is to do."""

    model: str
    payload_url: str
    content_type: str
    accept: str
    candidates: tuple[Candidate, ...]
    search: bool  # Default: after these, look for better settings of the best
    pattern: Pattern | None  # None: users are doubled until nothing is gained
    stopping: Stopping
    budget_s: int
    tests_max: int
    types: Mapping[str, TypeFacts]
    host_cpus: int
    compilable: bool = False  # EYRIE_COMPILE may make a difference
    batching: bool = False  # EYRIE_BATCH_ROWS may: Eyrie's own model server predicts rows of several requests together


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a test during which the number of users stood still, and what was seen of it."""

    users: int
    begin_s: float  # from the beginning of the load
    end_s: float
    rps: float  # good answers
    errors: float  # share of the requests
    latency_ms: float | None  # the percentile that the order names, as the client saw it


@dataclass(frozen=True, slots=True)
class Measured:
    """What a candidate came to, where it did best: that of one instance, or of a serverless variant."""

    max_invocations: int  # a minute
    latency_ms: float
    users: int
    errors: float
    cpu_percent: float | None = None  # 100 a core
    memory_percent: float | None = None
    setup_s: float | None = None  # from CreateEndpoint to InService


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate's test, in the words of the API."""

    number: int
    candidate: Candidate
    state: TrialState
    endpoint: str
    variant: str
    reason: str = ""
    note: str = ""  # what a reader has to know of its figures
    began_ms: int = 0  # of its load
    ended_ms: int = 0
    took_s: float = 0.0  # all of it, from deploying to removing
    loaded_s: float = 0.0
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where a job stands."""

    phase: str = "starting"
    used_s: float = 0.0  # of its budget
    tests: tuple[Trial, ...] = ()
    note: str = ""  # of all its figures


@dataclass(frozen=True, slots=True)
class Proposal:
    """How to run what was measured: target tracking that keeps an instance at a share of what it can do."""

    invocations_per_instance: int  # a minute: the target
    latency_ms: int
    instances: int  # to begin with
    min_capacity: int
    max_capacity: int
    scale_in_cooldown_s: int
    scale_out_cooldown_s: int
