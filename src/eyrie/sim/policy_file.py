"""`policy.json`: a scalable target with its policies, as RegisterScalableTarget and PutScalingPolicy take them.

    {"ScalableTarget": {"MinCapacity": 1, "MaxCapacity": 20},
     "ScalingPolicies": [{"PolicyName": "...", "PolicyType": "TargetTrackingScaling", ...}],
     "ScheduledActions": [...], "Alarms": [...]}

A single policy's object, or a list of them, does too. ResourceId and its like may be left out; an alarm of
PutMetricAlarm names the policy that it starts by PolicyName (or by ARN) among its AlarmActions. Everything is checked
as the API checks it: by botocore's model, then by control's own readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eyrie.adapters import schedules
from eyrie.control.alarm_requests import metric_rule
from eyrie.control.scaling_policies import STEPPED, STEPS, TRACKED, BadPolicy, policy_of
from eyrie.control.scaling_table import PolicyRecord
from eyrie.domain.alarms import MetricRule
from eyrie.domain.names import EndpointKey
from eyrie.domain.scaling import DIMENSION, Bounds, Schedule, ScheduledAction, Suspended, TargetKey
from eyrie.wire import plain
from eyrie.wire.errors import ApiError
from eyrie.wire.model import Models, Operation
from eyrie.wire.validate import violations
from eyrie.wire.values import Malformed

POLICIES_MAX = 10
_SECTIONS = ("Name", "ScalableTarget", "ScalingPolicies", "ScheduledActions", "Alarms")
_AUTOSCALING, _CLOUDWATCH = "application-autoscaling", "cloudwatch"


class PolicyError(ValueError):
    """A policy that cannot be followed; the message names file, field and value."""


@dataclass(frozen=True, slots=True)
class ScalingSetup:
    """What a policy file holds, read."""

    name: str
    records: tuple[PolicyRecord, ...]
    bounds: Bounds | None = None
    scheduled: tuple[ScheduledAction, ...] = ()
    alarms: tuple[tuple[str, MetricRule], ...] = ()  # a step policy's name, and when it is to act


def read(name: str, text: str, key: EndpointKey, variant: str) -> ScalingSetup:
    """The setup of a file's text for a variant. Raises PolicyError."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise PolicyError(f"{name} is no JSON: {error}") from None
    document = _document(name, given)
    target = TargetKey(key.account, key.region, key.name, variant)
    names = {"ServiceNamespace": "sagemaker", "ResourceId": target.resource_id, "ScalableDimension": DIMENSION}
    models = Models()
    try:
        put = models.operation(_AUTOSCALING, "PutScalingPolicy")
        policies = [_checked(put, {**policy, **names}) for policy in document["ScalingPolicies"]]
        records = tuple(_record(target, policy, n) for n, policy in enumerate(policies))
        register = models.operation(_AUTOSCALING, "RegisterScalableTarget")
        bounds = _bounds(_checked(register, {**document.get("ScalableTarget", {}), **names}))
        schedule = models.operation(_AUTOSCALING, "PutScheduledAction")
        scheduled = tuple(_scheduled(_checked(schedule, {**a, **names})) for a in document.get("ScheduledActions", ()))
        alarm = models.operation(_CLOUDWATCH, "PutMetricAlarm")
        alarms = tuple(pair for a in document.get("Alarms", ()) for pair in _alarm(_checked(alarm, a), records))
    except (ApiError, BadPolicy, PolicyError, schedules.BadSchedule) as error:
        raise PolicyError(f"{name}: {error}") from None
    return ScalingSetup(str(document.get("Name", name)), records, bounds, scheduled, alarms)


def _document(name: str, given: Any) -> dict[str, Any]:
    if isinstance(given, dict) and "PolicyName" in given:
        given = [given]
    if isinstance(given, list):
        given = {"ScalingPolicies": given}
    if not isinstance(given, dict) or not isinstance(given.get("ScalingPolicies"), list):
        raise PolicyError(f"{name} holds neither ScalingPolicies nor a policy of PutScalingPolicy")
    unknown = [section for section in given if section not in _SECTIONS]
    if unknown:
        raise PolicyError(f"{name} has no {unknown[0][:40]!r}: it takes {', '.join(_SECTIONS)}")
    if not 1 <= len(given["ScalingPolicies"]) <= POLICIES_MAX:
        raise PolicyError(f"{name}: ScalingPolicies must have 1 to {POLICIES_MAX} members")
    for section in ("ScalingPolicies", "ScheduledActions", "Alarms"):
        if not all(isinstance(member, dict) for member in given.get(section, ())):
            raise PolicyError(f"{name}: {section} is a list of objects")
    if not isinstance(given.get("ScalableTarget", {}), dict):
        raise PolicyError(f"{name}: ScalableTarget is an object")
    return given


def _checked(operation: Operation, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an operation, held to its model. Raises PolicyError."""
    shape = operation.input
    assert shape is not None
    try:
        params = plain.read_structure(shape, dict(given))
    except Malformed as problem:
        raise PolicyError(f"{operation.name}: {'.'.join(reversed(problem.path))}: {problem}") from None
    unknown = plain.unknown_members(shape, given)
    if unknown:
        raise PolicyError(f"{operation.name} has no parameter {unknown[0][:60]!r}")
    broken = violations(shape, params)
    if broken:
        raise PolicyError(f"{operation.name}: {'; '.join(broken)}")
    return dict(params)


def _record(target: TargetKey, params: Mapping[str, Any], number: int) -> PolicyRecord:
    kind = params.get("PolicyType", STEPS)
    configuration = params.get(STEPPED if kind == STEPS else TRACKED)
    if configuration is None:
        raise PolicyError(f"PolicyName {params['PolicyName']}: PolicyType {kind} lacks its configuration")
    record = PolicyRecord(target, params["PolicyName"], f"{number:08x}-simulated", kind, configuration)
    policy_of(record)  # raises BadPolicy
    return record


def _bounds(params: Mapping[str, Any]) -> Bounds | None:
    if "MinCapacity" not in params and "MaxCapacity" not in params:
        return None
    if "MinCapacity" not in params or "MaxCapacity" not in params:
        raise PolicyError("ScalableTarget needs MinCapacity and MaxCapacity")
    low, high = int(params["MinCapacity"]), int(params["MaxCapacity"])
    if not 0 <= low <= high:
        raise PolicyError(f"MinCapacity must not be above MaxCapacity, and they are {low} and {high}")
    given = params.get("SuspendedState") or {}
    return Bounds(
        low,
        high,
        Suspended(
            given.get("DynamicScalingInSuspended", False),
            given.get("DynamicScalingOutSuspended", False),
            given.get("ScheduledScalingSuspended", False),
        ),
    )


def _scheduled(params: Mapping[str, Any]) -> ScheduledAction:
    start, end = params.get("StartTime"), params.get("EndTime")
    schedule = Schedule(
        params.get("Schedule", ""),
        params.get("Timezone", "UTC"),
        None if start is None else round(start.timestamp() * 1000),
        None if end is None else round(end.timestamp() * 1000),
    )
    schedules.check(schedule)
    action = params.get("ScalableTargetAction") or {}
    return ScheduledAction(
        params["ScheduledActionName"], schedule, action.get("MinCapacity"), action.get("MaxCapacity")
    )


def _alarm(params: Mapping[str, Any], records: Sequence[PolicyRecord]) -> list[tuple[str, MetricRule]]:
    rule = metric_rule(dict(params))
    wanted = params.get("AlarmActions", ())
    found = [r.name for r in records if r.name in wanted or any(a.endswith(f":policyName/{r.name}") for a in wanted)]
    if not found:
        raise PolicyError(f"AlarmName {params.get('AlarmName')}: its AlarmActions name no policy of this file")
    return [(name, rule) for name in found]
