"""The inference experiment: a shadow beside an endpoint's production variant for a time, and what becomes of both.

The stored document of kind "InferenceExperiment" is exactly this noun. It holds its variants whole, as an endpoint
does, so that it ends as was asked though models and configs are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from eyrie.domain.fleet import VariantSpec
from eyrie.domain.names import EndpointKey, Scope

KIND = "InferenceExperiment"
ARN_TYPE = "inference-experiment"


class ExperimentStatus(StrEnum):
    """SageMaker's spellings. Creating -> Created -> Starting -> Running -> Stopping -> Completed; also Updating."""

    CREATING = "Creating"
    CREATED = "Created"  # waits for its start
    STARTING = "Starting"  # the endpoint is being updated to have the shadow
    RUNNING = "Running"
    UPDATING = "Updating"  # the endpoint is being updated as UpdateInferenceExperiment said
    STOPPING = "Stopping"  # the endpoint is being updated to what is to remain
    COMPLETED = "Completed"
    CANCELLED = "Cancelled"


_S = ExperimentStatus
EXPERIMENT_MOVES: Mapping[ExperimentStatus, frozenset[ExperimentStatus]] = {
    _S.CREATING: frozenset({_S.CREATED, _S.CANCELLED}),
    _S.CREATED: frozenset({_S.STARTING, _S.UPDATING, _S.STOPPING, _S.CANCELLED}),
    _S.STARTING: frozenset({_S.RUNNING, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.UPDATING, _S.STOPPING, _S.CANCELLED}),
    _S.UPDATING: frozenset({_S.RUNNING, _S.CREATED, _S.CANCELLED}),
    _S.STOPPING: frozenset({_S.COMPLETED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
}
OVER = frozenset({_S.COMPLETED, _S.CANCELLED})


class VariantAction(StrEnum):
    """What becomes of a variant when the experiment stops. SageMaker's spellings."""

    RETAIN = "Retain"
    REMOVE = "Remove"
    PROMOTE = "Promote"


@dataclass(frozen=True, slots=True)
class Ending:
    """How an experiment is to end."""

    production: VariantAction
    shadow: VariantAction
    state: ExperimentStatus  # COMPLETED or CANCELLED
    reason: str
    desired: tuple[VariantSpec, ...] = ()  # of the variants that remain, where they are to be others than they are


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment as control keeps it. Times are milliseconds since the epoch, 0 for 'not yet'."""

    key: EndpointKey  # account, region and the experiment's own name
    uid: str  # tells it from an earlier one of its name, and names its configs
    endpoint: EndpointKey
    endpoint_uid: str
    status: ExperimentStatus
    reason: str  # why it has that status
    created_ms: int
    modified_ms: int
    start_ms: int
    end_ms: int
    source: str  # name of the production variant
    shadow: VariantSpec
    percent: int  # of the source's requests that the shadow gets copies of
    production: VariantSpec | None = None  # where the production variant is to be another than it is
    capture: dict[str, Any] | None = None  # DataCaptureConfig while it runs; None: the endpoint's own
    capture_before: dict[str, Any] | None = None  # and what the endpoint had before
    configs: int = 0  # how many it has made so far
    config: str = ""  # the endpoint config that its present change leads to, or that it runs by
    live: bool = False  # its present change is one of weights and counts alone
    asked: bool = False  # the endpoint has been told to change, in the commit that says so here
    fleet: int = 0  # generation of the endpoint's fleet when it ran first
    started_ms: int = 0  # it ran first
    ended_ms: int = 0
    ending: Ending | None = None
    request: dict[str, Any] = field(default_factory=dict)  # of CreateInferenceExperiment, with later updates

    @property
    def scope(self) -> Scope:
        """The account and region that it lives in."""
        return self.key.scope

    @property
    def over(self) -> bool:
        """Nothing will happen to it any more."""
        return self.status in OVER
