"""Instances and what they run. An instance is its lock, its spec by digest and its generation (law 14)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from eyrie.domain.names import EndpointKey


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


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What one container runs: resolved at CreateEndpoint, so that it can be rebuilt after model, config and bucket are gone."""

    hostname: str  # "primary" unless the model's ContainerHostname says otherwise
    image: str  # as the user named it
    artifact: str | None  # sha256 hex digest of the model archive; None: no model data
    model_data_url: str | None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Everything compute needs to bring one instance up, or to rebuild it."""

    instance_id: str  # "i-" and 17 hex digits
    endpoint: EndpointKey
    variant: str
    zone: str
    generation: int  # only rises; compute refuses a lower one for a known id
    instance_type: str  # "ml.m5.large"
    vcpu_milli: int  # CPU cap, thousandths of a core
    memory_mb: int  # memory cap
    container: ContainerSpec
    startup_timeout_s: int = 240


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
    isolation: str  # "bubblewrap" or "process"
    exit_reason: str | None = None  # last words of one that is gone
