"""Instances and what they run. An instance is its lock, its spec by digest and its generation (law 14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from eyrie.domain.async_inference import AsyncRoute
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import ContainerMode, Execution, RoutingStrategy
from eyrie.domain.serverless import Serverless


class InstanceState(StrEnum):
    """REQUESTED -> STARTING -> READY -> DRAINING -> STOPPED; STARTING|READY -> UNKNOWN -> READY|LOST; -> FAILED."""

    REQUESTED = "REQUESTED"
    STARTING = "STARTING"
    READY = "READY"
    UNKNOWN = "UNKNOWN"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    LOST = "LOST"
    FAILED = "FAILED"


_S = InstanceState
INSTANCE_MOVES: Mapping[InstanceState, frozenset[InstanceState]] = {
    _S.REQUESTED: frozenset({_S.STARTING, _S.DRAINING, _S.LOST, _S.FAILED}),
    _S.STARTING: frozenset({_S.READY, _S.UNKNOWN, _S.DRAINING, _S.LOST, _S.FAILED}),
    _S.READY: frozenset({_S.UNKNOWN, _S.DRAINING, _S.LOST}),
    _S.UNKNOWN: frozenset({_S.READY, _S.DRAINING, _S.LOST}),
    _S.DRAINING: frozenset({_S.STOPPED}),
    _S.STOPPED: frozenset(),
    _S.LOST: frozenset(),
    _S.FAILED: frozenset(),
}
JOB_INSTANCE = "t-"  # what the ids of instances of jobs begin with; those of endpoints begin with "i-"
COMING = frozenset({_S.REQUESTED, _S.STARTING})  # not able to serve yet
COUNTED = frozenset({_S.REQUESTED, _S.STARTING, _S.READY, _S.UNKNOWN})  # an instance that its variant counts on
GIVEN_UP = frozenset({_S.LOST, _S.FAILED})  # not counted any more, though a process may still be there


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What one container runs, resolved at CreateEndpoint: rebuilt from when model, config and bucket are gone."""

    hostname: str  # "primary" unless the model's ContainerHostname says otherwise
    image: str  # as the user named it
    artifact: str | None  # sha256 hex digest of the model archive; None: no model data, or not fetched beforehand
    model_data_url: str | None  # of a multi-model container: the prefix that its models lie below
    environment: dict[str, str] = field(default_factory=dict)
    mode: ContainerMode = ContainerMode.SINGLE_MODEL
    model_cache: bool = True  # of a multi-model container: models stay loaded after an answer
    image_digest: str | None = None  # sha256 hex of an image of the user's own; None: our model server

    @property
    def foreign(self) -> bool:
        """It is not our model server."""
        return self.image_digest is not None

    @property
    def multi_model(self) -> bool:
        """Its models are fetched when requests name them."""
        return self.mode is ContainerMode.MULTI_MODEL

    @property
    def complete(self) -> bool:
        """Everything that must be fetched before an instance starts is here."""
        return self.multi_model or self.model_data_url is None or self.artifact is not None


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Everything compute needs to bring one instance up, or to rebuild it."""

    instance_id: str  # "i-" and 17 hex digits; "t-" of a job's
    endpoint: EndpointKey  # of a job's instance the job
    variant: str
    zone: str
    generation: int  # only rises; compute refuses a lower one for a known id
    instance_type: str  # "ml.m5.large"
    vcpu_milli: int  # CPU cap, thousandths of a core
    memory_mb: int  # memory cap
    containers: tuple[ContainerSpec, ...]  # 1 to 15, in the order of a pipeline
    startup_timeout_s: int = 240
    execution: Execution = Execution.SERIAL
    workers: int = 1  # model server processes, each a target of the gateway

    @property
    def foreign(self) -> bool:
        """It runs an image of the user's own."""
        return any(container.foreign for container in self.containers)

    @property
    def of_job(self) -> bool:
        """It belongs to a job, and to no endpoint."""
        return self.instance_id.startswith(JOB_INSTANCE)

    @property
    def contained(self) -> bool:
        """It is one container of the user's own, alone: nothing of ours answers in it, and it takes no claim."""
        return self.foreign and len(self.containers) == 1


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """What compute sees of an instance: facts only, no judgement. Alive means that its lock is held."""

    instance_id: str
    spec_digest: str
    generation: int
    alive: bool
    pid: int | None  # pid outside of any sandbox, for people; liveness is the lock
    socket: str
    zone: str
    started_ms: int
    isolation: str  # "bubblewrap", "process" or "docker"
    exit_reason: str | None = None  # last words of one that is gone


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as control keeps it. Times are milliseconds since the epoch, 0 for 'not yet'."""

    instance_id: str
    variant: str
    fleet: int  # generation of the fleet that it belongs to
    generation: int  # of its spec
    zone: str
    state: InstanceState
    reason: str  # why it is in this state
    requested_ms: int
    since_ms: int  # when it entered its state
    started_ms: int = 0  # compute has it
    ready_ms: int = 0  # first answered /ping
    socket: str = ""
    isolation: str = ""
    left_generation: int = 0  # first route table without it, after one with it
    left_ms: int = 0
    acked_ms: int = 0  # every live gateway had acknowledged that table, or the patience with them had ended
    stop_ms: int = 0  # SIGTERM or SIGKILL was ordered
    kills: int = 0  # SIGKILLs ordered


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model as an endpoint holds it: whole, so that the endpoint outlives the Model."""

    name: str
    arn: str
    containers: tuple[ContainerSpec, ...]  # 1 to 15, in the order of a pipeline
    execution_role_arn: str | None = None
    execution: Execution = Execution.SERIAL

    @property
    def hostname(self) -> str:
        """The first container's host name: what stands for the whole in error messages."""
        return self.containers[0].hostname

    @property
    def complete(self) -> bool:
        """Every container's model data is here, as far as it must be before an instance starts."""
        return all(container.complete for container in self.containers)

    @property
    def artifacts(self) -> frozenset[str]:
        """The digests of the archives that it is made of."""
        return frozenset(c.artifact for c in self.containers if c.artifact is not None)


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """A production variant as its EndpointConfig said."""

    name: str
    model: ModelSpec
    instance_type: str  # "ml.m5.large"
    vcpu_milli: int
    memory_mb: int
    initial_count: int
    initial_weight: float
    strategy: RoutingStrategy = RoutingStrategy.LEAST_OUTSTANDING_REQUESTS
    startup_timeout_s: int = 240
    foreign: bool = False  # the image is not ours: the real service's ping timings hold
    workers: int = 1  # model server processes an instance (decide/workers)
    may_be_empty: bool = False  # it may have no instance at all: requests wait for one (asynchronous, serverless)
    serverless: Serverless | None = None  # what its config allows; None: it has instances of a type
    shadow_of: str = ""  # the production variant whose requests it gets copies of; "": it is a production variant

    @property
    def least(self) -> int:
        """The fewest instances that may be wanted of it."""
        return 0 if self.may_be_empty else 1


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of a running fleet: its spec and what is wanted of it now."""

    spec: VariantSpec
    desired_count: int
    desired_weight: float
    serverless: Serverless | None = None  # what it is allowed now; None: it has instances of a type

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.spec.name

    @property
    def shadow(self) -> bool:
        """It answers copies, and takes no part in the traffic."""
        return bool(self.spec.shadow_of)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often the newest instances of a variant died soon after their start, and when the next may start."""

    variant: str
    fleet: int
    crashes: int
    last_ms: int
    next_ms: int
    reason: str  # of the last one, for people
    fatal: bool = False  # a change need not wait for more: refused by compute, or past the start-up limit


@dataclass(frozen=True, slots=True)
class Fleet:
    """All instances that one EndpointConfig asked for. `generation` rises with every fleet of an endpoint."""

    generation: int
    config_name: str
    config_arn: str
    variants: tuple[Variant, ...]
    created_ms: int
    sticky: str = ""  # where the key is found that ties a client to a variant (domain.sticky)
    asynchronous: AsyncRoute | None = None  # AsyncInferenceConfig

    @property
    def production(self) -> tuple[Variant, ...]:
        """The variants that answer requests: only they have parts in the traffic."""
        return tuple(v for v in self.variants if not v.shadow)

    @property
    def shadows(self) -> tuple[Variant, ...]:
        """The variants that get copies of requests: started, healed and ended as the others are."""
        return tuple(v for v in self.variants if v.shadow)

    def variant(self, name: str) -> Variant | None:
        """The variant of that name."""
        return next((v for v in self.variants if v.name == name), None)
