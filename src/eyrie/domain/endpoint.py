"""The endpoint: a name with a fleet behind it. It holds its whole specification, so that it can be rebuilt when its
config, its models and its bucket are gone. The stored document of kind "Endpoint" is exactly this noun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from eyrie.domain.async_inference import AsyncRoute
from eyrie.domain.deployment import Deployment, DeploymentPhase, Resize
from eyrie.domain.fleet import (
    COUNTED,
    Backoff,
    Fleet,
    Instance,
    InstanceSpec,
    InstanceState,
    ModelSpec,
    Variant,
    VariantSpec,
)
from eyrie.domain.names import EndpointKey
from eyrie.domain.routing import EndpointRoute

__all__ = [
    "STATUS_MOVES",
    "CapacityChange",
    "Endpoint",
    "EndpointStatus",
    "Fleet",
    "FleetSpec",
    "Instance",
    "InstanceSpec",
    "ModelSpec",
    "Variant",
    "VariantSpec",
]


class EndpointStatus(StrEnum):
    """SageMaker's spellings."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
    DELETING = "Deleting"
    FAILED = "Failed"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"


_S = EndpointStatus
STATUS_MOVES: Mapping[EndpointStatus, frozenset[EndpointStatus]] = {
    _S.CREATING: frozenset({_S.IN_SERVICE, _S.FAILED}),
    _S.IN_SERVICE: frozenset({_S.UPDATING, _S.DELETING}),
    _S.UPDATING: frozenset({_S.IN_SERVICE, _S.UPDATE_ROLLBACK_FAILED}),
    _S.UPDATE_ROLLBACK_FAILED: frozenset({_S.DELETING}),
    _S.FAILED: frozenset({_S.DELETING}),
    _S.DELETING: frozenset(),
}


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """What an EndpointConfig resolves to: every variant with its whole model."""

    config_name: str
    config_arn: str
    variants: tuple[VariantSpec, ...]
    sticky: str = ""  # where the key is found that ties a client to a variant (domain.sticky)
    asynchronous: AsyncRoute | None = None


@dataclass(frozen=True, slots=True)
class CapacityChange:
    """One entry of UpdateEndpointWeightsAndCapacities; None leaves a value as it is."""

    variant: str
    weight: float | None = None
    count: int | None = None
    max_concurrency: int | None = None  # of a serverless variant, as the next
    provisioned: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint and all beneath it. `generation` rises with every command, `route_generation` with every table."""

    key: EndpointKey
    uid: str  # tells it from an earlier endpoint of its name
    arn: str
    config_name: str
    config_arn: str
    status: EndpointStatus
    created_ms: int
    modified_ms: int
    generation: int
    fleet: Fleet  # the one that serves; blue while a deployment is on its way
    deployment: Deployment | None = None
    resize: Resize | None = None
    instances: tuple[Instance, ...] = ()
    backoffs: tuple[Backoff, ...] = ()
    route: EndpointRoute | None = None  # what is published, or owed to be
    route_generation: int = 0  # of the newest table, or of the withdrawal
    route_ms: int = 0  # when that was decided
    failure_reason: str | None = None  # of the creation or the last change
    data_capture: dict[str, Any] | None = None
    last_deployment_config: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of CreateEndpoint, kept as they were given

    @property
    def fleets(self) -> tuple[Fleet, ...]:
        """The blue fleet, and the green one while there is one."""
        return (self.fleet, self.deployment.green) if self.deployment else (self.fleet,)

    @property
    def trouble(self) -> str | None:
        """Why the endpoint is not whole, for people: the failure, else a crash loop that is being backed off."""
        if self.failure_reason:
            return self.failure_reason
        loops = [b.reason for b in self.backoffs if b.crashes >= 2 or b.fatal]
        return loops[-1] if loops else None

    def members(self, fleet: Fleet, variant: str) -> Iterator[Instance]:
        """The instances that a variant of a fleet counts on."""
        for i in self.instances:
            if i.fleet == fleet.generation and i.variant == variant and i.state in COUNTED:
                yield i

    def ready_count(self, fleet: Fleet, variant: str) -> int:
        """How many instances of a variant serve: the CurrentInstanceCount."""
        return sum(1 for i in self.members(fleet, variant) if i.state is InstanceState.READY)

    @property
    def pending_phase(self) -> DeploymentPhase | None:
        """Phase of the deployment on its way."""
        return self.deployment.phase if self.deployment else None
