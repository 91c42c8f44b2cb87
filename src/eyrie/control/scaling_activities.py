"""Scaling activities: what DescribeScalingActivities tells of changes that were made, and of wishes that were not
followed, in the words of Application Auto Scaling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.control.scaling_policies import FAST
from eyrie.control.scaling_table import PolicyRecord, State
from eyrie.domain.scaling import (
    Activity,
    ActivityStatus,
    Bounds,
    Code,
    NotScaled,
    ScalingDecision,
    ScheduledAction,
)

Records = Mapping[str, PolicyRecord]


def begun(
    made: ScalingDecision, records: Records, now_ms: int, activity_id: str, noun: str = "instance count"
) -> Activity:
    """A change of the desired count, or of another number that is scaled, on its way."""
    return Activity(
        _uuid(activity_id),
        f"Setting desired {noun} to {made.capacity}.",
        _cause(made.policy, made.alarm, records) if made.policy else made.why,
        now_ms,
        ActivityStatus.IN_PROGRESS,
        message=(
            f"Successfully set desired {noun} to {made.capacity}. Waiting for change to be fulfilled by sagemaker."
        ),
        details=made.why,
        desired=made.capacity or 0,
    )


def fulfilled(activity: Activity, now_ms: int, noun: str = "instance count") -> Activity:
    """The instances are there, or gone."""
    message = f"Successfully set desired {noun} to {activity.desired}. Change successfully fulfilled by sagemaker."
    return ended(activity, ActivityStatus.SUCCESSFUL, message, now_ms)


def ended(activity: Activity, status: ActivityStatus, message: str, now_ms: int) -> Activity:
    """An activity that is over."""
    return replace(activity, status=status, message=message, ended_ms=now_ms)


def scheduled(action: ScheduledAction, before: Bounds, after: Bounds | None, now_ms: int, activity_id: str) -> Activity:
    """A scheduled action that was done; or could not be, where `after` is None."""
    wanted = [f"min capacity to {action.lowest}"] if action.lowest is not None else []
    wanted += [f"max capacity to {action.highest}"] if action.highest is not None else []
    message = f"Successfully set {' and '.join(wanted)}"
    if after is None:
        message = f"The minimum capacity would be above the maximum: they are {before.lowest} and {before.highest} now."
    return Activity(
        _uuid(activity_id),
        f"Setting {' and '.join(wanted)}",
        f"scheduled action name {action.name} was triggered",
        now_ms,
        ActivityStatus.SUCCESSFUL if after is not None else ActivityStatus.FAILED,
        ended_ms=now_ms,
        message=message,
    )


def with_unscaled(
    state: State, refused: Sequence[NotScaled], records: Records, bounds: Bounds, now_ms: int, activity_id: str
) -> State:
    """With wishes that were not followed; the same ones again are not told twice."""
    first = refused[0]
    activity = Activity(
        _uuid(activity_id),
        "Attempting to scale due to alarm triggered",
        _cause(first.policy, first.alarm, records),
        now_ms,
        ActivityStatus.FAILED,
        ended_ms=now_ms,
        message="Unable to scale: no change in capacity",
        details="; ".join(f"{one.policy}: {one.why}" for one in refused),
        not_scaled=tuple(_reason(one, bounds) for one in refused),
    )
    newest = state.unscaled[0] if state.unscaled else None
    told_since = state.scaled[0].started_ms if state.scaled else 0
    if newest and newest.started_ms >= told_since:
        same = (newest.cause, [dict(r) for r in newest.not_scaled])
        if same == (activity.cause, [dict(r) for r in activity.not_scaled]):
            return state
    return state.with_activity(activity)


def shown(activity: Activity, resource_id: str, dimension: str) -> dict[str, Any]:
    """As DescribeScalingActivities shows it."""
    found: dict[str, Any] = {
        "ActivityId": activity.activity_id,
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource_id,
        "ScalableDimension": dimension,
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": activity.started_ms / 1000,
        "StatusCode": str(activity.status),
        "StatusMessage": activity.message,
    }
    if activity.ended_ms is not None:
        found["EndTime"] = activity.ended_ms / 1000
    if activity.details:
        found["Details"] = activity.details
    if activity.not_scaled:
        found["NotScaledReasons"] = [dict(reason) for reason in activity.not_scaled]
    return found


def _cause(policy: str, alarm: str, records: Records) -> str:
    record = records.get(policy)
    name = dict(record.alarms).get(alarm, alarm) if record is not None else alarm
    if not name:
        return f"{FAST} policy {policy} on one-second data"
    return f"monitor alarm {name} in state ALARM triggered policy {policy}"


def _reason(refused: NotScaled, bounds: Bounds) -> dict[str, str | int]:
    reason: dict[str, str | int] = {"Code": str(refused.code), "CurrentCapacity": refused.capacity}
    if refused.code is Code.AT_MAX:
        reason["MaxCapacity"] = bounds.highest
    if refused.code is Code.AT_MIN:
        reason["MinCapacity"] = bounds.lowest
    return reason


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"
