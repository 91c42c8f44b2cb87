"""Application Auto Scaling: which endpoint variants are scaled, by what. control/scaler does the scaling.

A target, its policies and scheduled actions are documents; a policy that tracks a target has two alarms besides, which
CloudWatch shows, put and deleted in the same commit.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.adapters import schedules
from eyrie.control import alarm_table, scaling_activities, scaling_table
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.listing import milliseconds
from eyrie.control.scaler import forgotten
from eyrie.control.scaling_policies import (
    PREDICTIVE,
    STEPPED,
    STEPS,
    TRACKED,
    TRACKING,
    BadPolicy,
    alarms_of,
    policy_of,
)
from eyrie.control.scaling_table import POLICY, SCHEDULED, STATE, TARGET, PolicyRecord, Scheduled, State, Target
from eyrie.domain.names import EndpointKey
from eyrie.domain.scaling import Bounds, Schedule, ScheduledAction, Suspended, TargetKey, TargetTracking
from eyrie.ports import Commit, Document, Event
from eyrie.wire.errors import ApiError, validation

TARGETS_MAX = 500  # in one account and region
POLICIES_MAX = 50  # of a target
SCHEDULED_MAX = 200
CAPACITY_MAX = 10_000
TAGS_MAX = 50
PAGE_MAX = 50
SERVICE = "sagemaker"
_ROLE = "role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"  # noqa: E501
PREDICTIVE_REFUSED = f"PolicyType {PREDICTIVE} is not supported for the service namespace {SERVICE}"


def operations() -> Mapping[str, Operation]:
    """All operations of Application Auto Scaling."""
    return {
        "RegisterScalableTarget": register_scalable_target,
        "DeregisterScalableTarget": deregister_scalable_target,
        "DescribeScalableTargets": describe_scalable_targets,
        "PutScalingPolicy": put_scaling_policy,
        "DeleteScalingPolicy": delete_scaling_policy,
        "DescribeScalingPolicies": describe_scaling_policies,
        "DescribeScalingActivities": describe_scaling_activities,
        "PutScheduledAction": put_scheduled_action,
        "DeleteScheduledAction": delete_scheduled_action,
        "DescribeScheduledActions": describe_scheduled_actions,
        "GetPredictiveScalingForecast": get_predictive_scaling_forecast,
        "TagResource": tag_resource,
        "UntagResource": untag_resource,
        "ListTagsForResource": list_tags_for_resource,
    }


# --- targets --------------------------------------------------------------------------------------------------------


def register_scalable_target(context: Context, params: Params) -> dict[str, Any]:
    """Begin to scale a variant, or change the bounds; what is not given stays."""
    key = _key(context, params)
    document = scaling_table.found(context.store, TARGET, key)
    known = scaling_table.decode(document, Target) if document is not None else None
    if known is None:
        _check_variant(context, key)
        if len(context.store.scan(TARGET, context.scope)) >= TARGETS_MAX:
            raise limit_exceeded(f"There are {TARGETS_MAX} scalable targets already, as many as there may be.")
    bounds = _bounds(params, known.bounds if known is not None else None)
    role = params.get("RoleARN") or (known.role_arn if known else f"arn:aws:iam::{context.scope.account}:{_ROLE}")
    tags = dict(known.tags) if known is not None else {}
    target = Target(key, known.target_id if known else _id(context), role, bounds, _merged(tags, params.get("Tags")))
    put = scaling_table.put(document, TARGET, key, "", target, context.now_ms)
    why = f"RegisterScalableTarget: {key.noun} from {bounds.lowest} to {bounds.highest}"
    context.store.commit(Commit(puts=[put], events=[_event(context, key, "is scaled", why)]))
    context.wake_scaling()
    return {"ScalableTargetARN": target.arn}


def deregister_scalable_target(context: Context, params: Params) -> dict[str, Any]:
    """End to scale a variant; its policies, alarms and scheduled actions go with it."""
    key = _key(context, params)
    document, _ = _target(context, key)
    commit = forgotten(context.store, document, key, context.now_ms)
    gone = _event(context, key, "is no longer scaled", "DeregisterScalableTarget")
    context.store.commit(replace(commit, events=[*commit.events, gone]))
    context.wake_scaling()
    context.wake_alarms()
    return {}


def describe_scalable_targets(context: Context, params: Params) -> dict[str, Any]:
    """Which variants are scaled."""
    wanted = params.get("ResourceIds") or ()
    _check_dimension_alone(params, bool(wanted), "ResourceIds")
    rows = [
        (document, scaling_table.decode(document, Target))
        for document in _all(context, params, TARGET)
        if not wanted or document.name in wanted
    ]
    return _page("DescribeScalableTargets", "ScalableTargets", params, [_shown_target(d, t) for d, t in rows])


def _shown_target(document: Document, target: Target) -> dict[str, Any]:
    suspended = target.bounds.suspended
    return {
        **_names(target.key),
        "MinCapacity": target.bounds.lowest,
        "MaxCapacity": target.bounds.highest,
        "RoleARN": target.role_arn,
        "CreationTime": seconds(document.created_ms),
        "SuspendedState": {
            "DynamicScalingInSuspended": suspended.scale_in,
            "DynamicScalingOutSuspended": suspended.scale_out,
            "ScheduledScalingSuspended": suspended.scheduled,
        },
        "ScalableTargetARN": target.arn,
    }


def _bounds(params: Params, known: Bounds | None) -> Bounds:
    lowest, highest = params.get("MinCapacity"), params.get("MaxCapacity")
    if known is None:
        for name, value in (("MinCapacity", lowest), ("MaxCapacity", highest)):
            if value is None:
                raise validation(f"{name} must be given when a scalable target is registered for the first time.")
    low = known.lowest if known is not None and lowest is None else int(lowest or 0)
    high = known.highest if known is not None and highest is None else int(highest or 0)
    _check_capacities(low, high)
    was = known.suspended if known is not None else Suspended()
    given = params.get("SuspendedState") or {}
    suspended = Suspended(
        given.get("DynamicScalingInSuspended", was.scale_in),
        given.get("DynamicScalingOutSuspended", was.scale_out),
        given.get("ScheduledScalingSuspended", was.scheduled),
    )
    return Bounds(low, high, suspended)


def _check_capacities(lowest: int | None, highest: int | None) -> None:
    for name, value in (("MinCapacity", lowest), ("MaxCapacity", highest)):
        if value is not None and not 0 <= value <= CAPACITY_MAX:
            raise validation(f"{name} must be from 0 to {CAPACITY_MAX}, and is {value}.")
    if lowest is not None and highest is not None and lowest > highest:
        raise validation(
            f"Maximum capacity cannot be less than minimum capacity: MaxCapacity is {highest}, MinCapacity {lowest}."
        )


def _check_variant(context: Context, key: TargetKey) -> None:
    endpoint = context.endpoints.get(EndpointKey(key.account, key.region, key.endpoint))
    fleets = endpoint.fleets if endpoint is not None else ()
    variant = next((v for fleet in fleets if (v := fleet.variant(key.variant)) is not None), None)
    if variant is None:
        raise validation(f"No SageMaker endpoint variant found for resource ID: {key.resource_id}")
    if (variant.serverless is not None) is not key.provisioned:
        kind = "serverless" if variant.serverless is not None else "not serverless"
        raise validation(f"ScalableDimension {key.dimension} is not for {key.resource_id}, which is {kind}.")


# --- policies -------------------------------------------------------------------------------------------------------


def put_scaling_policy(context: Context, params: Params) -> dict[str, Any]:
    """Create a policy, or change one of its name; with its alarms, where it tracks a target."""
    key, name = _key(context, params), params["PolicyName"]
    _target(context, key)
    document = scaling_table.found(context.store, POLICY, key, name)
    known = scaling_table.decode(document, PolicyRecord) if document is not None else None
    if document is None and len(scaling_table.owned(context.store, POLICY, key)) >= POLICIES_MAX:
        raise limit_exceeded(f"{key.resource_id} has {POLICIES_MAX} scaling policies, as many as there may be.")
    record = _record(context, params, key, known)
    puts = [scaling_table.put(document, POLICY, key, name, record, context.now_ms)]
    alarms = [
        alarm_table.configured(context.store, alarm, context.now_ms)
        for alarm in alarms_of(record, context.idle_is_zero)
    ]
    puts += [alarm for alarm, _ in alarms]
    told = _event(context, key, f"scaling policy {name}", f"PutScalingPolicy: {json.dumps(record.configuration)[:900]}")
    gone = [n for n in dict(known.alarms).values() if n not in dict(record.alarms).values()] if known else []
    deletes, ended = _alarms(context, gone)
    context.store.commit(Commit(puts=puts, deletes=deletes, events=[*(e for _, e in alarms), *ended, told]))
    context.wake_scaling()
    context.wake_alarms()
    return {"PolicyARN": record.arn, "Alarms": _shown_alarms(record)}


def _record(context: Context, params: Params, key: TargetKey, known: PolicyRecord | None) -> PolicyRecord:
    """The policy that is to be stored. Raises ValidationException for one that cannot be followed."""
    kind = params.get("PolicyType", known.kind if known is not None else STEPS)
    if kind == PREDICTIVE:
        raise validation(PREDICTIVE_REFUSED)
    mine, other = (TRACKED, STEPPED) if kind == TRACKING else (STEPPED, TRACKED)
    if known is not None and known.kind != kind:
        raise validation(f"PolicyType of the scaling policy {known.name} is {known.kind} and cannot become {kind}.")
    if other in params:
        raise validation(f"{other} must not be given with PolicyType {kind}.")
    given = params.get(mine)
    if given is None:
        raise validation(f"{mine} must be given with PolicyType {kind}.")
    policy_id = known.policy_id if known is not None else _id(context)
    record = PolicyRecord(key, params["PolicyName"], policy_id, kind, _plain(given))
    try:
        policy = policy_of(record)
    except BadPolicy as error:
        raise validation(f"{mine}: {error}.") from None
    if type(policy) is not TargetTracking:
        return record
    if known is not None and known.alarms:
        return replace(record, alarms=known.alarms)
    names = {side: f"TargetTracking-{key.resource_id}-Alarm{side}-{_id(context)}" for side in ("High", "Low")}
    return replace(record, alarms=tuple(names.items()))


def delete_scaling_policy(context: Context, params: Params) -> dict[str, Any]:
    """Forget a policy and its alarms."""
    key, name = _key(context, params), params["PolicyName"]
    document = scaling_table.found(context.store, POLICY, key, name)
    if document is None:
        raise _missing("scaling policy", key, f"policy name: {name}")
    record = scaling_table.decode(document, PolicyRecord)
    deletes, events = _alarms(context, [alarm for _, alarm in record.alarms])
    told = _event(context, key, f"scaling policy {name} deleted", "DeleteScalingPolicy")
    context.store.commit(Commit(deletes=[document, *deletes], events=[*events, told]))
    context.wake_scaling()
    context.wake_alarms()
    return {}


def _alarms(context: Context, names: Sequence[str]) -> tuple[list[Document], list[Event]]:
    """What deletes those of these alarms that there are."""
    found = [d for name in names if (d := context.get(alarm_table.KIND, name)) is not None]
    return found, [alarm_table.deleted(alarm_table.decode(d), context.now_ms) for d in found]


def describe_scaling_policies(context: Context, params: Params) -> dict[str, Any]:
    """Policies with their alarms."""
    wanted = params.get("PolicyNames") or ()
    _check_dimension_alone(params, "ResourceId" in params, "ResourceId")
    rows = [(d, scaling_table.decode(d, PolicyRecord)) for d in _all(context, params, POLICY)]
    rows = [(d, r) for d, r in rows if not wanted or r.name in wanted or r.arn in wanted]
    calling = _calling(context, [r for _, r in rows])
    shown = [_shown_policy(d, replace(r, alarms=(*r.alarms, *calling.get(r.arn, ())))) for d, r in rows]
    return _page("DescribeScalingPolicies", "ScalingPolicies", params, shown)


def _calling(context: Context, records: Sequence[PolicyRecord]) -> dict[str, list[tuple[str, str]]]:
    """The alarms that somebody else made to call step policies, by the policy's ARN."""
    steps: dict[str, list[tuple[str, str]]] = {r.arn: [] for r in records if r.kind == STEPS}
    for alarm in alarm_table.all(context.store, context.scope) if steps else ():
        for arn in {*alarm.alarm_actions, *alarm.ok_actions, *alarm.insufficient_data_actions} & steps.keys():
            steps[arn].append(("", alarm.name))
    return steps


def _shown_policy(document: Document, record: PolicyRecord) -> dict[str, Any]:
    return {
        "PolicyARN": record.arn,
        "PolicyName": record.name,
        **_names(record.key),
        "PolicyType": record.kind,
        (TRACKED if record.kind == TRACKING else STEPPED): record.configuration,
        "Alarms": _shown_alarms(record),
        "CreationTime": seconds(document.created_ms),
    }


def _shown_alarms(record: PolicyRecord) -> list[dict[str, Any]]:
    return [{"AlarmName": name, "AlarmARN": record.alarm_arn(name)} for _, name in record.alarms]


def describe_scaling_activities(context: Context, params: Params) -> dict[str, Any]:
    """What was scaled, newest first; with IncludeNotScaledActivities also what was not, and why."""
    _check_dimension_alone(params, "ResourceId" in params, "ResourceId")
    activities = []
    for document in _all(context, params, STATE):
        state = scaling_table.decode(document, State)
        both = [*state.scaled, *(state.unscaled if params.get("IncludeNotScaledActivities") else ())]
        activities += [scaling_activities.shown(a, state.key.resource_id, state.key.dimension) for a in both]
    activities.sort(key=lambda a: (-a["StartTime"], a["ActivityId"]))
    return _page("DescribeScalingActivities", "ScalingActivities", params, activities)


def get_predictive_scaling_forecast(context: Context, params: Params) -> dict[str, Any]:
    """There are no predictive policies, so there is no forecast."""
    key = _key(context, params)
    if scaling_table.found(context.store, POLICY, key, params["PolicyName"]) is None:
        raise validation(f"No scaling policy found: {_place(key)}, policy name: {params['PolicyName']}")
    raise validation(PREDICTIVE_REFUSED)


# --- scheduled actions ----------------------------------------------------------------------------------------------


def put_scheduled_action(context: Context, params: Params) -> dict[str, Any]:
    """Create a scheduled action, or change one of its name; what is not given then stays."""
    key, name = _key(context, params), params["ScheduledActionName"]
    _target(context, key)
    document = scaling_table.found(context.store, SCHEDULED, key, name)
    known = scaling_table.decode(document, Scheduled) if document is not None else None
    if document is None and len(scaling_table.owned(context.store, SCHEDULED, key)) >= SCHEDULED_MAX:
        raise limit_exceeded(f"{key.resource_id} has {SCHEDULED_MAX} scheduled actions, as many as there may be.")
    action = _scheduled_action(params, known.action if known is not None else None, context.now_ms)
    scheduled = Scheduled(key, known.action_id if known is not None else _id(context), action)
    put = scaling_table.put(document, SCHEDULED, key, name, scheduled, context.now_ms)
    if document is not None:  # what it should have done until now was done by its former schedule
        put = replace(put, created_ms=context.now_ms)
    context.store.commit(Commit(puts=[put]))
    context.wake_scaling()
    return {}


def _scheduled_action(params: Params, known: ScheduledAction | None, now_ms: int) -> ScheduledAction:
    was = known.schedule if known is not None else None
    expression = params.get("Schedule", was.expression if was is not None else None)
    if expression is None:
        raise validation("Schedule must be given for a new scheduled action.")
    schedule = Schedule(
        expression,
        params.get("Timezone", was.timezone if was is not None else "UTC"),
        milliseconds(params["StartTime"]) if "StartTime" in params else was.start_ms if was is not None else None,
        milliseconds(params["EndTime"]) if "EndTime" in params else was.end_ms if was is not None else None,
    )
    try:
        schedules.check(schedule)
        again_ms = schedules.following(schedule, now_ms, now_ms)
    except schedules.BadSchedule as error:
        raise validation(f"Schedule {expression[:128]!r}, Timezone {schedule.timezone[:64]!r}: {error}.") from None
    if again_ms is None:
        raise validation(f"Schedule {expression[:128]!r} with its EndTime lies in the past: it would never be done.")
    given = params.get("ScalableTargetAction")
    if given is None and known is not None:
        return ScheduledAction(known.name, schedule, known.lowest, known.highest)
    lowest, highest = (given or {}).get("MinCapacity"), (given or {}).get("MaxCapacity")
    if lowest is None and highest is None:
        raise validation("ScalableTargetAction must have MinCapacity, MaxCapacity or both.")
    _check_capacities(lowest, highest)
    return ScheduledAction(params["ScheduledActionName"], schedule, lowest, highest)


def delete_scheduled_action(context: Context, params: Params) -> dict[str, Any]:
    """Forget a scheduled action."""
    key, name = _key(context, params), params["ScheduledActionName"]
    document = scaling_table.found(context.store, SCHEDULED, key, name)
    if document is None:
        raise _missing("scheduled action", key, f"scheduled action name: {name}")
    context.store.commit(Commit(deletes=[document]))
    context.wake_scaling()
    return {}


def describe_scheduled_actions(context: Context, params: Params) -> dict[str, Any]:
    """Scheduled actions."""
    wanted = params.get("ScheduledActionNames") or ()
    _check_dimension_alone(params, "ResourceId" in params, "ResourceId")
    rows = [(d, scaling_table.decode(d, Scheduled)) for d in _all(context, params, SCHEDULED)]
    shown = [_shown_scheduled(d, s) for d, s in rows if not wanted or s.action.name in wanted or s.arn in wanted]
    return _page("DescribeScheduledActions", "ScheduledActions", params, shown)


def _shown_scheduled(document: Document, scheduled: Scheduled) -> dict[str, Any]:
    action, schedule = scheduled.action, scheduled.action.schedule
    shown: dict[str, Any] = {
        "ScheduledActionName": action.name,
        "ScheduledActionARN": scheduled.arn,
        **_names(scheduled.key),
        "Schedule": schedule.expression,
        "Timezone": schedule.timezone,
        "ScalableTargetAction": {
            name: value
            for name, value in (("MinCapacity", action.lowest), ("MaxCapacity", action.highest))
            if value is not None
        },
        "CreationTime": seconds(document.created_ms),
    }
    for name, at_ms in (("StartTime", schedule.start_ms), ("EndTime", schedule.end_ms)):
        if at_ms is not None:
            shown[name] = seconds(at_ms)
    return shown


# --- tags -----------------------------------------------------------------------------------------------------------


def tag_resource(context: Context, params: Params) -> dict[str, Any]:
    """Add tags to a scalable target."""
    _change_tags(context, params, lambda tags: _merged(tags, params["Tags"]))
    return {}


def untag_resource(context: Context, params: Params) -> dict[str, Any]:
    """Take tags from a scalable target."""
    gone = set(params["TagKeys"])
    _change_tags(context, params, lambda tags: {name: value for name, value in tags.items() if name not in gone})
    return {}


def list_tags_for_resource(context: Context, params: Params) -> dict[str, Any]:
    """The tags of a scalable target."""
    return {"Tags": dict(_by_arn(context, params["ResourceARN"])[1].tags)}


def _change_tags(context: Context, params: Params, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    document, target = _by_arn(context, params["ResourceARN"])
    tagged = replace(target, tags=change(dict(target.tags)))
    context.store.commit(Commit(puts=[scaling_table.put(document, TARGET, target.key, "", tagged, context.now_ms)]))


def _by_arn(context: Context, arn: str) -> tuple[Document, Target]:
    for document in context.store.scan(TARGET, context.scope):
        target = scaling_table.decode(document, Target)
        if target.arn == arn:
            return document, target
    text = f"The specified resource {arn} does not exist."
    raise ApiError("ResourceNotFoundException", text, fields={"ResourceName": arn})


def _merged(tags: dict[str, str], added: Mapping[str, str] | None) -> dict[str, str]:
    for name, value in (added or {}).items():
        if not 0 < len(name) <= 128 or len(value) > 256:
            raise validation(f"The tag key {name[:128]!r} must have 1 to 128 characters, its value at most 256.")
        if name.lower().startswith("aws:"):
            raise validation(f"The tag key {name} is reserved: keys that start with aws: belong to AWS.")
    merged = {**tags, **(added or {})}
    if len(merged) > TAGS_MAX:
        text = f"A scalable target has at most {TAGS_MAX} tags; with these it would have {len(merged)}."
        raise ApiError("TooManyTagsException", text)
    return merged


# --- what all of them need ------------------------------------------------------------------------------------------


def _key(context: Context, params: Params) -> TargetKey:
    """The variant that a call names. Raises ValidationException."""
    if params["ServiceNamespace"] != SERVICE:
        raise validation(f"ServiceNamespace {params['ServiceNamespace']} is not supported by this Eyrie: {SERVICE} is.")
    try:
        return scaling_table.resource_key(context.scope, params["ResourceId"], params["ScalableDimension"])
    except ValueError as error:
        raise validation(f"{error}.") from None


def _target(context: Context, key: TargetKey) -> tuple[Document, Target]:
    document = scaling_table.found(context.store, TARGET, key)
    if document is None:
        raise _missing("scalable target", key)
    return document, scaling_table.decode(document, Target)


def _missing(noun: str, key: TargetKey, more: str = "") -> ApiError:
    text = f"No {noun} found for {_place(key)}" + (f", {more}" if more else "")
    return ApiError("ObjectNotFoundException", text)


def _place(key: TargetKey) -> str:
    return f"service namespace: {SERVICE}, resource ID: {key.resource_id}, scalable dimension: {key.dimension}"


def limit_exceeded(message: str) -> ApiError:
    """LimitExceededException."""
    return ApiError("LimitExceededException", message)


def _names(key: TargetKey) -> dict[str, str]:
    return {"ServiceNamespace": SERVICE, "ResourceId": key.resource_id, "ScalableDimension": key.dimension}


def _event(context: Context, key: TargetKey, what: str, why: str) -> Event:
    """A line of the endpoint's story."""
    return Event("Endpoint", key.scope, key.endpoint, context.now_ms, f"variant {key.variant} {what}", why)


def _id(context: Context) -> str:
    digits = context.identity.token(32)
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _check_dimension_alone(params: Params, named: bool, name: str) -> None:
    if "ScalableDimension" in params and not named:
        raise validation(f"ScalableDimension must be given together with {name}.")


def _all(context: Context, params: Params, kind: str) -> list[Document]:
    """Documents of a kind that a Describe asks for."""
    if params["ServiceNamespace"] != SERVICE:
        return []
    wanted, dimension = params.get("ResourceId"), params.get("ScalableDimension")
    return [
        d
        for d in context.store.scan(kind, context.scope)
        if (wanted is None or d.name == wanted or d.name.startswith(wanted + ":"))
        and dimension in (None, scaling_table.dimension_of(d))
    ]


def _page(operation: str, member: str, params: Params, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    limit = params.get("MaxResults", PAGE_MAX)
    if not 1 <= limit <= PAGE_MAX:
        raise validation(f"MaxResults must be from 1 to {PAGE_MAX}, and is {limit}.")
    first = _offset(operation, params["NextToken"]) if "NextToken" in params else 0
    found: dict[str, Any] = {member: list(rows[first : first + limit])}
    if first + limit < len(rows):
        found["NextToken"] = base64.urlsafe_b64encode(json.dumps([operation, first + limit]).encode()).decode()
    return found


def _offset(operation: str, token: str) -> int:
    try:
        asked, first = json.loads(base64.b64decode(token.encode("ascii"), b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        asked, first = "", 0
    if asked != operation or type(first) is not int or first < 0:
        raise ApiError("InvalidNextTokenException", "The NextToken is not one that this operation gave.")
    return first


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """What can be stored of a configuration: it holds nothing but JSON's own types."""
    plain: dict[str, Any] = json.loads(json.dumps(given))
    return plain
