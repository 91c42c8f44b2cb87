"""CloudWatch's alarms, what changes them: PutMetricAlarm, PutCompositeAlarm, SetAlarmState, Enable- and
DisableAlarmActions, DeleteAlarms, tags. What describes them is in `api_alarm_lists.py`; `alarm_requests.py` reads and
checks a metric alarm's request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from eyrie.control import alarm_table
from eyrie.control.alarm_actions import Transitions, changed
from eyrie.control.alarm_requests import metric_rule, refused, watched_for_bands
from eyrie.control.anomaly_table import detector_document
from eyrie.control.context import Context, Operation, Params
from eyrie.control.records import Tag, kept_tags, merge, new_tags, tag_operations, tags_document
from eyrie.decide.alarm_rule import RuleError, children_of, in_cycle, parse_rule
from eyrie.decide.alarms import Evaluation
from eyrie.domain.alarms import Alarm, AlarmState, CompositeRule, MetricRule
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError

ARN_TYPE = "alarm"  # of its tags' document
ACTION_KINDS = ("arn:aws:sns:", "arn:aws:autoscaling:")
WAIT_MAX_S = 86_400  # of a suppressor's wait and extension periods


def operations() -> Mapping[str, Operation]:
    """The operations that change alarms."""
    return {
        "PutMetricAlarm": put_metric_alarm,
        "PutCompositeAlarm": put_composite_alarm,
        "SetAlarmState": set_alarm_state,
        "EnableAlarmActions": lambda context, params: _enable(context, params, True),
        "DisableAlarmActions": lambda context, params: _enable(context, params, False),
        "DeleteAlarms": delete_alarms,
        **tag_operations(_tagged, _merged),
    }


def put_metric_alarm(context: Context, params: Params) -> dict[str, Any]:
    """Create a metric alarm, or change one."""
    rule = metric_rule(params)
    detectors = [detector_document(context, stat) for stat in watched_for_bands(rule)]
    _put(context, params, [d for d in detectors if d is not None], metric=rule)
    return {}


def put_composite_alarm(context: Context, params: Params) -> dict[str, Any]:
    """Create a composite alarm, or change one."""
    rule = _composite_rule(context, params)
    _put(context, params, (), composite=rule)
    return {}


def _put(
    context: Context,
    params: Params,
    also: Sequence[Document],
    metric: MetricRule | None = None,
    composite: CompositeRule | None = None,
) -> None:
    before = alarm_table.get(context.store, context.scope, params["AlarmName"])
    alarm = Alarm(
        scope=context.scope,
        name=params["AlarmName"],
        metric=metric,
        composite=composite,
        description=params.get("AlarmDescription"),
        actions_enabled=params.get("ActionsEnabled", True),
        alarm_actions=_actions(context, params, "AlarmActions", composite is not None),
        ok_actions=_actions(context, params, "OKActions", composite is not None),
        insufficient_data_actions=_actions(context, params, "InsufficientDataActions", composite is not None),
    )
    if before is not None and before.kind != alarm.kind:
        raise refused(f"The parameter AlarmName is invalid: {alarm.name} is the name of a {before.kind}.")
    if before is None and len(context.store.scan(alarm_table.KIND, context.scope)) >= alarm_table.ALARMS_MAX:
        raise ApiError("LimitExceeded", f"The maximum limit of {alarm_table.ALARMS_MAX} alarms has been reached.")
    document, event = alarm_table.configured(context.store, alarm, context.now_ms)
    tags = _new_tags(context, params, before)
    context.store.commit(Commit(puts=[document, *also, *tags], events=[event]))
    context.wake_alarms()


def _actions(context: Context, params: Params, name: str, composite: bool) -> tuple[str, ...]:
    """The ARNs of an alarm's actions, each of a kind that something here does."""
    arns = params.get(name, [])
    if len(set(arns)) < len(arns):
        raise refused(f"The parameter {name} is invalid: an action may be named only once.")
    for arn in arns:
        parts = arn.split(":", 5)
        if len(parts) < 6 or parts[0] != "arn":
            raise refused(f"Invalid arn syntax: {arn}")
        if not arn.startswith(ACTION_KINDS):
            kinds = ", ".join(ACTION_KINDS)
            raise refused(f"The parameter {name} is invalid: {arn} is not supported by this Eyrie; it does {kinds}.")
        if composite and not arn.startswith("arn:aws:sns:"):
            raise refused(f"The parameter {name} is invalid: composite alarms cannot perform {arn}.")
        if parts[3] != context.scope.region:
            raise refused(f"Invalid region {parts[3]} specified. Only {context.scope.region} is supported.")
    return tuple(arns)


def _composite_rule(context: Context, params: Params) -> CompositeRule:
    expression = params["AlarmRule"]
    try:
        rule = parse_rule(expression)
    except RuleError as error:
        raise refused(f"The parameter AlarmRule is invalid: {error}.") from None
    children = [alarm_table.name_of(name) for name in children_of(rule)]
    known = {alarm.name: alarm for alarm in alarm_table.all(context.store, context.scope)}
    missing = sorted({name for name in children if name not in known})
    if missing:
        told = ", ".join(missing)
        raise refused(f"Could not save the composite alarm as alarms [{told}] in the alarm rule do not exist")
    trees = {
        name: frozenset(map(alarm_table.name_of, children_of(parse_rule(alarm.composite.expression))))
        for name, alarm in known.items()
        if alarm.composite is not None
    }
    if in_cycle(params["AlarmName"], {**trees, params["AlarmName"]: frozenset(children)}):
        raise refused("The parameter AlarmRule is invalid: the alarm would depend on itself.")
    return CompositeRule(expression, *_suppressor(params, known))


def _suppressor(params: Params, known: Mapping[str, Alarm]) -> tuple[str, int, int]:
    suppressor = params.get("ActionsSuppressor", "")
    periods = [params.get(name) for name in ("ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod")]
    if not suppressor:
        if any(period is not None for period in periods):
            raise refused("ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod need an ActionsSuppressor.")
        return "", 0, 0
    if None in periods:
        needed = "ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod"
        raise refused(f"The parameters {needed} are required where there is an ActionsSuppressor.")
    name = alarm_table.name_of(suppressor)
    if name not in known or name == params["AlarmName"]:
        raise refused(f"The parameter ActionsSuppressor is invalid: there is no other alarm {suppressor}.")
    wait_s, extension_s = (int(period or 0) for period in periods)
    if not (0 <= wait_s <= WAIT_MAX_S and 0 <= extension_s <= WAIT_MAX_S):
        raise refused(f"The periods of an ActionsSuppressor must be from 0 to {WAIT_MAX_S} seconds.")
    return suppressor, wait_s, extension_s


# --- states ---------------------------------------------------------------------------------------------------------


def _found(context: Context, name: str) -> Document:
    document = context.store.get(alarm_table.KIND, context.scope, name)
    if document is None:
        raise ApiError("ResourceNotFound", f"Alarm {name} does not exist")
    return document


def set_alarm_state(context: Context, params: Params) -> dict[str, Any]:
    """Say that an alarm is in a state, with all that follows; it holds until the alarm is evaluated next."""
    document = _found(context, params["AlarmName"])
    before = alarm_table.decode(document)
    reason_data = params.get("StateReasonData", "")
    if reason_data:
        try:
            json.loads(reason_data)
        except (ValueError, RecursionError):
            raise ApiError("InvalidFormat", "The parameter StateReasonData must be valid JSON.") from None
    state = AlarmState(params["StateValue"])
    after = changed(before, state, params["StateReason"], reason_data, context.now_ms)
    if state is before.state:
        put = replace(document, body=alarm_table.encode(after), modified_ms=context.now_ms)
        context.store.commit(Commit(puts=[put]))
        return {}
    transitions = Transitions(context.store, context.identity, context.alarm_actions)
    transitions.commit(document, before, after, context.now_ms, act=after.suppression is None)
    transitions.dispatch(after, Evaluation(state, after.reason, reason_data), changed=True)
    context.wake_alarms()
    context.wake_events()
    return {}


def _enable(context: Context, params: Params, enabled: bool) -> dict[str, Any]:
    documents = [_found(context, name) for name in dict.fromkeys(params["AlarmNames"])]
    puts, events = [], []
    for document in documents:
        alarm = replace(alarm_table.decode(document), actions_enabled=enabled)
        puts.append(replace(document, body=alarm_table.encode(alarm), modified_ms=context.now_ms))
        summary = f'Alarm "{alarm.name}" actions {"enabled" if enabled else "disabled"}'
        data = {"type": "Update", "version": "1.0", "actionsEnabled": enabled}
        events.append(alarm_table.history(alarm, context.now_ms, "ConfigurationUpdate", summary, data))
    context.store.commit(Commit(puts=puts, events=events))
    context.wake_alarms()
    return {}


def delete_alarms(context: Context, params: Params) -> dict[str, Any]:
    """Delete alarms: all of them, or none where one does not exist."""
    documents = [_found(context, name) for name in dict.fromkeys(params["AlarmNames"])]
    if sum(document.body["composite"] is not None for document in documents) > 1:
        raise refused("The parameter AlarmNames is invalid: at most one composite alarm can be deleted at once.")
    tags = [tags_document(context, ARN_TYPE, document.name) for document in documents]
    events = [alarm_table.deleted(alarm_table.decode(document), context.now_ms) for document in documents]
    gone = [*documents, *(one for one in tags if one is not None)]
    context.store.commit(Commit(deletes=gone, events=events))
    context.wake_alarms()
    return {}


# --- tags -----------------------------------------------------------------------------------------------------------


def _new_tags(context: Context, params: Params, before: Alarm | None) -> list[Document]:
    """The tags of a new alarm. An existing one keeps those it has: CloudWatch ignores them then."""
    if before is not None or not params.get("Tags"):
        return []
    _merged([], params["Tags"])  # in CloudWatch's own words, where they are wrong
    return new_tags(context, ARN_TYPE, params["AlarmName"], params)


def _merged(kept: Sequence[Tag], added: Sequence[Tag]) -> list[Tag]:
    try:
        return merge(kept, added)
    except ApiError as error:
        raise ApiError("InvalidParameterValue", error.message) from None


def _tagged(context: Context, params: Params) -> tuple[list[Tag], Document]:
    arn = params["ResourceARN"]
    name = alarm_table.name_of(arn)
    known = context.store.get(alarm_table.KIND, context.scope, name)
    if known is None or alarm_table.decode(known).arn != arn:
        raise ApiError("ResourceNotFoundException", f"Resource {arn} does not exist", 404)
    return kept_tags(context, ARN_TYPE, name)
