"""CloudWatch's alarms, what describes them: DescribeAlarms, DescribeAlarmsForMetric, DescribeAlarmHistory, in pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from eyrie.control import alarm_table
from eyrie.control.alarm_requests import refused
from eyrie.control.alarm_view import described
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.listing import milliseconds, offset_of, offset_token
from eyrie.decide.alarm_rule import children_of, parse_rule
from eyrie.domain.alarms import Alarm
from eyrie.ports import Event

PAGE = 50
HISTORY_PAGE = 100
KEPT_MS = 30 * 86_400_000  # how long history is told
EVENTS_MAX = 5_000  # of one alarm


def operations() -> Mapping[str, Operation]:
    """The operations that describe alarms."""
    return {
        "DescribeAlarms": describe_alarms,
        "DescribeAlarmsForMetric": describe_alarms_for_metric,
        "DescribeAlarmHistory": describe_alarm_history,
    }


def describe_alarms(context: Context, params: Params) -> dict[str, Any]:
    """Alarms by name, prefix, state, type, action or kinship."""
    found = alarm_table.all(context.store, context.scope)
    for name in ("ChildrenOfAlarmName", "ParentsOfAlarmName"):
        if name in params:
            return _kin(found, params, name)
    if "AlarmNames" in params and "AlarmNamePrefix" in params:
        raise refused("AlarmNames and AlarmNamePrefix cannot be specified together.")
    types = params.get("AlarmTypes") or ["MetricAlarm"]
    shown = [alarm for alarm in found if alarm.kind in types and _wanted(alarm, params)]
    page, token = page_of(shown, params, PAGE)
    return _reply(page, types, token)


def _wanted(alarm: Alarm, params: Params) -> bool:
    if "AlarmNames" in params and alarm.name not in params["AlarmNames"]:
        return False
    if not alarm.name.startswith(params.get("AlarmNamePrefix", "")):
        return False
    if params.get("StateValue", alarm.state) != alarm.state:
        return False
    actions = (*alarm.alarm_actions, *alarm.ok_actions, *alarm.insufficient_data_actions)
    return "ActionPrefix" not in params or any(arn.startswith(params["ActionPrefix"]) for arn in actions)


def _reply(page: list[Alarm], types: list[str], token: str | None) -> dict[str, Any]:
    reply: dict[str, Any] = {
        "MetricAlarms": [described(alarm) for alarm in page if alarm.metric],
        "CompositeAlarms": [described(alarm) for alarm in page if alarm.composite],
    }
    if token is not None:
        reply["NextToken"] = token
    return reply


def _kin(found: list[Alarm], params: Params, name: str) -> dict[str, Any]:
    """The alarms that a composite one speaks of, or those that speak of an alarm: names, ARNs and states."""
    others = set(params) - {name, "MaxRecords", "NextToken"}
    if others:
        raise refused(f"{name} cannot be specified together with {sorted(others)[0]}.")
    about = params[name]
    if all(alarm.name != about for alarm in found):
        raise refused(f"The parameter {name} is invalid: there is no alarm {about}.")
    if name == "ChildrenOfAlarmName":
        wanted = next(_children(alarm) for alarm in found if alarm.name == about)
        kin = [alarm for alarm in found if alarm.name in wanted]
    else:
        kin = [alarm for alarm in found if about in _children(alarm)]
    page, token = page_of(kin, params, PAGE)
    kept = ("AlarmName", "AlarmArn", "StateValue", "StateUpdatedTimestamp", "StateTransitionedTimestamp", "AlarmRule")
    reply = _reply(page, ["MetricAlarm", "CompositeAlarm"], token)
    for group in ("MetricAlarms", "CompositeAlarms"):
        reply[group] = [{key: one[key] for key in kept if key in one} for one in reply[group]]
    return reply


def _children(alarm: Alarm) -> frozenset[str]:
    if alarm.composite is None:
        return frozenset()
    return frozenset(map(alarm_table.name_of, children_of(parse_rule(alarm.composite.expression))))


def describe_alarms_for_metric(context: Context, params: Params) -> dict[str, Any]:
    """The alarms on a metric; not those on math."""
    pairs = tuple(sorted((d["Name"], d["Value"]) for d in params.get("Dimensions", ())))
    stat = params.get("Statistic") or params.get("ExtendedStatistic")
    found = []
    for alarm in alarm_table.all(context.store, context.scope):
        watched = alarm.metric.watched.stat if alarm.metric and alarm.metric.single else None
        if watched is None or watched.dimensions != pairs:
            continue
        same = (watched.namespace, watched.name) == (params["Namespace"], params["MetricName"])
        same = same and stat in (None, watched.stat) and params.get("Period", watched.period_s) == watched.period_s
        if same and params.get("Unit", watched.unit) == watched.unit:
            found.append(described(alarm))
    return {"MetricAlarms": found}


def describe_alarm_history(context: Context, params: Params) -> dict[str, Any]:
    """What happened to an alarm, or to all that there are, newest first unless said otherwise."""
    names = [params["AlarmName"]] if "AlarmName" in params else _names(context)
    events = [e for name in names for e in context.store.events(alarm_table.KIND, context.scope, name, EVENTS_MAX)]
    start_ms = milliseconds(params["StartDate"]) if "StartDate" in params else context.now_ms - KEPT_MS
    end_ms = milliseconds(params["EndDate"]) if "EndDate" in params else context.now_ms
    if start_ms > end_ms:
        raise refused("The parameter StartDate must not be later than EndDate.")
    types = params.get("AlarmTypes") or ["MetricAlarm", "CompositeAlarm"]
    items = [item for e in events if start_ms <= e.at_ms <= end_ms and (item := _item(e))["AlarmType"] in types]
    wanted = params.get("HistoryItemType")
    items = [item for item in items if wanted in (None, item["HistoryItemType"])]
    items.sort(key=lambda item: float(item["Timestamp"]))  # stable: as they were written, where times are equal
    if params.get("ScanBy", "TimestampDescending") == "TimestampDescending":
        items.reverse()
    page, token = page_of(items, params, HISTORY_PAGE)
    reply: dict[str, Any] = {"AlarmHistoryItems": page}
    if token is not None:
        reply["NextToken"] = token
    return reply


def _names(context: Context) -> list[str]:
    return [alarm.name for alarm in alarm_table.all(context.store, context.scope)]


def _item(event: Event) -> dict[str, Any]:
    item, _, summary = event.what.partition(": ")
    data = json.loads(event.why)
    kind = data.pop("kind", "MetricAlarm")
    return {
        "AlarmName": event.name,
        "AlarmType": kind,
        "Timestamp": seconds(event.at_ms),
        "HistoryItemType": item,
        "HistorySummary": summary[:255],
        "HistoryData": json.dumps(data, separators=(",", ":"))[:4095],
    }


def page_of(found: list[Any], params: Params, size: int) -> tuple[list[Any], str | None]:
    """A page, and the token of the next one: how many came before it."""
    limit = params.get("MaxRecords", size)
    offset = offset_of(params)
    token = offset_token(offset + limit) if offset + limit < len(found) else None
    return found[offset : offset + limit], token
