"""Where scaling is stored: targets, policies and scheduled actions, which the API writes; and what has come of a
target, which only control/scaler writes, in a document of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from eyrie.adapters.described import described
from eyrie.domain.names import Scope
from eyrie.domain.scaling import (
    DIMENSION,
    PROVISIONED_DIMENSION,
    Activity,
    Bounds,
    ScalingMemory,
    ScheduledAction,
    TargetKey,
)
from eyrie.ports import Document, Store

TARGET, POLICY, SCHEDULED, STATE = "ScalableTarget", "ScalingPolicy", "ScheduledAction", "ScalingState"
NAMESPACE = "sagemaker"
ACTIVITIES_MAX = 100  # of one target, each of those that scaled and of those that did not
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Target:
    """A variant that is scaled."""

    key: TargetKey
    target_id: str
    role_arn: str
    bounds: Bounds
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        """As tags name it."""
        scope = self.key.scope
        return f"arn:aws:application-autoscaling:{scope.region}:{scope.account}:scalable-target/{self.target_id}"


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A policy as it was put, and the alarms that were made for it."""

    key: TargetKey
    name: str
    policy_id: str
    kind: str  # "StepScaling", "TargetTrackingScaling"
    configuration: dict[str, Any]  # as it was given
    alarms: tuple[tuple[str, str], ...] = ()  # "High" or "Low", and the alarm's name

    @property
    def arn(self) -> str:
        """What an alarm names as its action."""
        scope = self.key.scope
        place = f"resource/{NAMESPACE}/{self.key.resource_id}:policyName/{self.name}"
        return f"arn:aws:autoscaling:{scope.region}:{scope.account}:scalingPolicy:{self.policy_id}:{place}"

    def alarm_arn(self, name: str) -> str:
        """The ARN of an alarm of its scope."""
        return f"arn:aws:cloudwatch:{self.key.region}:{self.key.account}:alarm:{name}"


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A scheduled action of a target."""

    key: TargetKey
    action_id: str
    action: ScheduledAction

    @property
    def arn(self) -> str:
        """Its ARN."""
        scope = self.key.scope
        place = f"resource/{NAMESPACE}/{self.key.resource_id}:scheduledActionName/{self.action.name}"
        return f"arn:aws:autoscaling:{scope.region}:{scope.account}:scheduledAction:{self.action_id}:{place}"


@dataclass(frozen=True, slots=True)
class State:
    """What has come of a target: the memory of its decisions, when schedules were last looked at, its activities."""

    key: TargetKey
    target_id: str  # of another registration it says nothing
    memory: ScalingMemory = field(default_factory=ScalingMemory)
    fleet: int = 0  # generation of the fleet that the bounds were enforced on
    scheduled_ms: int = 0  # every occurrence until then is done
    scaled: tuple[Activity, ...] = ()  # newest first
    unscaled: tuple[Activity, ...] = ()

    def with_activity(self, activity: Activity) -> State:
        """With one more, or with a newer form of one that there is."""
        if activity.not_scaled:
            return replace(self, unscaled=_newest(activity, self.unscaled))
        return replace(self, scaled=_newest(activity, self.scaled))


described(Target, PolicyRecord, Scheduled, State)  # they are read into in several threads


def _newest(activity: Activity, others: Sequence[Activity]) -> tuple[Activity, ...]:
    kept = [activity, *(a for a in others if a.activity_id != activity.activity_id)]
    return tuple(sorted(kept, key=lambda a: -a.started_ms)[:ACTIVITIES_MAX])


def resource_key(scope: Scope, resource_id: str, dimension: str) -> TargetKey:
    """The variant that a ResourceId names. Raises ValueError for anything else; the message is for people."""
    parts = resource_id.split("/")
    if dimension not in (DIMENSION, PROVISIONED_DIMENSION):
        known = f"{DIMENSION} and {PROVISIONED_DIMENSION} are"
        raise ValueError(f"The scalable dimension {dimension} is not supported by this Eyrie: {known}")
    if len(parts) != 4 or parts[0] != "endpoint" or parts[2] != "variant" or not parts[1] or not parts[3]:
        raise ValueError(
            "Unsupported service namespace, resource type or scalable dimension: the resource ID "
            f"{resource_id!r} is not of the form endpoint/NAME/variant/NAME"
        )
    return TargetKey(scope.account, scope.region, parts[1], parts[3], dimension == PROVISIONED_DIMENSION)


def document_name(key: TargetKey, name: str = "") -> str:
    """Of a target; or, with a name of up to 256 characters that may hold anything, of something that it has."""
    if not name:
        return key.resource_id
    return key.resource_id + ":" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def encode(noun: Any) -> dict[str, Any]:
    """The document body of a noun of this table."""
    body: dict[str, Any] = msgspec.to_builtins(noun)
    return body


def decode(document: Document, kind: type[_T]) -> _T:
    """The noun of a document. Raises msgspec.ValidationError for anything else."""
    return msgspec.convert(document.body, kind)


def found(store: Store, kind: str, key: TargetKey, name: str = "") -> Document | None:
    """A target's document, or that of something that it has. A variant is scaled in one dimension."""
    document = store.get(kind, key.scope, document_name(key, name))
    return document if document is not None and dimension_of(document) == key.dimension else None


def dimension_of(document: Document) -> str:
    """What a target, or something that it has, scales."""
    return PROVISIONED_DIMENSION if document.body["key"].get("provisioned") else DIMENSION


def owned(store: Store, kind: str, key: TargetKey) -> list[Document]:
    """All policies or scheduled actions of a target."""
    prefix = key.resource_id + ":"
    return [document for document in store.scan(kind, key.scope) if document.name.startswith(prefix)]


def put(document: Document | None, kind: str, key: TargetKey, name: str, noun: Any, now_ms: int) -> Document:
    """The document to put for a noun, new or in place of `document`."""
    body = encode(noun)
    if document is None:
        return Document(kind, key.scope, document_name(key, name), 0, now_ms, now_ms, body)
    return replace(document, body=body, modified_ms=now_ms)
