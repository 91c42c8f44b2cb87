"""Alarms as CloudWatch tells them: in replies of its API, in messages to topics, in events.

The spellings are CloudWatch's own, which differ among the three.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from eyrie.decide.moments import iso
from eyrie.domain.alarms import Alarm, AlarmState, MetricQuery, MetricRule, MetricStat
from eyrie.domain.metrics import Dimensions
from eyrie.domain.names import Scope

PLAIN_STATISTICS = frozenset({"SampleCount", "Average", "Sum", "Minimum", "Maximum"})
_REGIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-1": "US West (N. California)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "EU (Ireland)",
    "eu-central-1": "EU (Frankfurt)",
    "ap-northeast-1": "Asia Pacific (Tokyo)",
    "ap-southeast-2": "Asia Pacific (Sydney)",
}


def described(alarm: Alarm) -> dict[str, Any]:
    """An entry of DescribeAlarms: a MetricAlarm or a CompositeAlarm."""
    found: dict[str, Any] = {
        "AlarmName": alarm.name,
        "AlarmArn": alarm.arn,
        "AlarmConfigurationUpdatedTimestamp": alarm.configured_ms / 1000,
        "ActionsEnabled": alarm.actions_enabled,
        "OKActions": list(alarm.ok_actions),
        "AlarmActions": list(alarm.alarm_actions),
        "InsufficientDataActions": list(alarm.insufficient_data_actions),
        "StateValue": str(alarm.state),
        "StateReason": alarm.reason,
        "StateUpdatedTimestamp": alarm.updated_ms / 1000,
        "StateTransitionedTimestamp": alarm.transitioned_ms / 1000,
    }
    if alarm.description is not None:
        found["AlarmDescription"] = alarm.description
    if alarm.reason_data:
        found["StateReasonData"] = alarm.reason_data
    found.update(_metric(alarm.metric) if alarm.metric else _composite(alarm))
    return found


def _metric(rule: MetricRule) -> dict[str, Any]:
    found: dict[str, Any] = {
        "EvaluationPeriods": rule.periods,
        "ComparisonOperator": str(rule.comparison),
    }
    if rule.to_alarm_given:
        found["DatapointsToAlarm"] = rule.to_alarm
    if rule.missing_given:
        found["TreatMissingData"] = str(rule.missing)
    if rule.low_samples:
        found["EvaluateLowSampleCountPercentile"] = rule.low_samples
    if rule.threshold is not None:
        found["Threshold"] = rule.threshold
    if rule.band_id:
        found["ThresholdMetricId"] = rule.band_id
    stat = rule.watched.stat
    if rule.single and stat is not None:
        named = "Statistic" if stat.stat in PLAIN_STATISTICS else "ExtendedStatistic"
        found.update({**_named(stat), "Period": stat.period_s, named: stat.stat})
        if stat.unit:
            found["Unit"] = stat.unit
    else:
        found["Metrics"] = [_query(query) for query in rule.queries]
    return found


def _named(stat: MetricStat) -> dict[str, Any]:
    return {"Namespace": stat.namespace, "MetricName": stat.name, "Dimensions": _dimensions(stat.dimensions)}


def _dimensions(dimensions: Dimensions) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in dimensions]


def _query(query: MetricQuery) -> dict[str, Any]:
    found: dict[str, Any] = {"Id": query.query_id, "ReturnData": query.returns}
    if query.stat is not None:
        stat = query.stat
        found["MetricStat"] = {"Metric": _named(stat), "Period": stat.period_s, "Stat": stat.stat}
        if stat.unit:
            found["MetricStat"]["Unit"] = stat.unit
    else:
        found["Expression"] = query.expression
        if query.period_s:
            found["Period"] = query.period_s
    if query.label:
        found["Label"] = query.label
    return found


def _composite(alarm: Alarm) -> dict[str, Any]:
    rule = alarm.composite
    assert rule is not None
    found: dict[str, Any] = {"AlarmRule": rule.expression}
    if rule.suppressor:
        found["ActionsSuppressor"] = rule.suppressor
        found["ActionsSuppressorWaitPeriod"] = rule.wait_s
        found["ActionsSuppressorExtensionPeriod"] = rule.extension_s
    if alarm.suppression is not None:
        found["ActionsSuppressedBy"] = alarm.suppression.by
        found["ActionsSuppressedReason"] = alarm.suppression.reason
    return found


# --- messages to topics ---------------------------------------------------------------------------------------------


def subject(alarm: Alarm) -> str:
    """The subject line of a message to a topic, at most 100 characters."""
    return f'{alarm.state}: "{alarm.name}" in {region_name(alarm.scope)}'[:100]


def message(alarm: Alarm, before: AlarmState) -> str:
    """What a topic is told when an alarm changed its state: JSON."""
    found: dict[str, Any] = {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": alarm.scope.account,
        "AlarmConfigurationUpdatedTimestamp": iso(alarm.configured_ms),
        "NewStateValue": str(alarm.state),
        "NewStateReason": alarm.reason,
        "StateChangeTime": iso(alarm.transitioned_ms),
        "Region": region_name(alarm.scope),
        "AlarmArn": alarm.arn,
        "OldStateValue": str(before),
        "OKActions": list(alarm.ok_actions),
        "AlarmActions": list(alarm.alarm_actions),
        "InsufficientDataActions": list(alarm.insufficient_data_actions),
    }
    if alarm.composite is not None:
        found["AlarmRule"] = alarm.composite.expression
        if alarm.reason_data:
            found.update({name[0].upper() + name[1:]: value for name, value in json.loads(alarm.reason_data).items()})
    elif alarm.metric is not None:
        found["Trigger"] = _trigger(alarm.metric)
    return json.dumps(found)


def _trigger(rule: MetricRule) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Period": rule.period_s,
        "EvaluationPeriods": rule.periods,
        "DatapointsToAlarm": rule.to_alarm,
        "ComparisonOperator": str(rule.comparison),
        "Threshold": rule.threshold if rule.threshold is not None else 0.0,
        "TreatMissingData": str(rule.missing) if rule.missing_given else "",
        "EvaluateLowSampleCountPercentile": rule.low_samples,
    }
    if rule.band_id:
        found["ThresholdMetricId"] = rule.band_id
    stat = rule.watched.stat
    if not rule.single or stat is None:
        return {**found, "Metrics": [_query(query) for query in rule.queries]}
    plain = stat.stat in PLAIN_STATISTICS
    named: dict[str, Any] = {
        "MetricName": stat.name,
        "Namespace": stat.namespace,
        "StatisticType": "Statistic" if plain else "ExtendedStatistic",
        "Statistic" if plain else "ExtendedStatistic": stat.stat.upper() if plain else stat.stat,
        "Unit": stat.unit or None,
        "Dimensions": [{"value": value, "name": name} for name, value in stat.dimensions],
    }
    return {**named, **found}


def region_name(scope: Scope) -> str:
    """A region as messages of alarms call it."""
    return _REGIONS.get(scope.region, scope.region)


# --- events ---------------------------------------------------------------------------------------------------------


def event_detail(alarm: Alarm, before: Alarm) -> dict[str, Any]:
    """The detail of a "CloudWatch Alarm State Change" event."""
    return {
        "alarmName": alarm.name,
        "configuration": _event_configuration(alarm),
        "previousState": _event_state(before),
        "state": _event_state(alarm),
    }


def _event_configuration(alarm: Alarm) -> dict[str, Any]:
    found: dict[str, Any] = {} if alarm.description is None else {"description": alarm.description}
    if alarm.metric is not None:
        return {**found, "metrics": [_event_metric(query) for query in alarm.metric.queries]}
    rule = alarm.composite
    assert rule is not None
    found["alarmRule"] = rule.expression
    if rule.suppressor:
        found["actionsSuppressor"] = rule.suppressor
        found["actionsSuppressorWaitPeriod"] = rule.wait_s
        found["actionsSuppressorExtensionPeriod"] = rule.extension_s
    return found


def _event_metric(query: MetricQuery) -> dict[str, Any]:
    found: dict[str, Any] = {"id": query.query_id}
    if query.stat is None:
        found["expression"] = query.expression
    else:
        stat = query.stat
        metric = {"dimensions": dict(stat.dimensions), "name": stat.name, "namespace": stat.namespace}
        found["metricStat"] = {"metric": metric, "period": stat.period_s, "stat": stat.stat}
        if stat.unit:
            found["metricStat"]["unit"] = stat.unit
    if query.label:
        found["label"] = query.label
    return {**found, "returnData": query.returns}


def _event_state(alarm: Alarm) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": alarm.reason}
    if alarm.reason_data:
        found["reasonData"] = alarm.reason_data
    found |= {"timestamp": iso(alarm.updated_ms), "value": str(alarm.state)}
    if alarm.suppression is not None:
        found["actionsSuppressedBy"] = alarm.suppression.by
        found["actionsSuppressedReason"] = alarm.suppression.reason
    return found


def history_state(alarm: Alarm) -> dict[str, Any]:
    """A state as the history tells it."""
    found: dict[str, Any] = {"stateValue": str(alarm.state), "stateReason": alarm.reason}
    if alarm.reason_data:
        found["stateReasonData"] = json.loads(alarm.reason_data)
    return found


def composite_reason(changed: Alarm) -> tuple[str, str]:
    """Reason and reason data of a composite alarm that changed because another one did."""
    moment = datetime.fromtimestamp(changed.transitioned_ms / 1000, UTC)
    told = f"{moment:%A} {moment.day:02d} {moment:%B, %Y %H:%M:%S} UTC"
    data: Mapping[str, Any] = {
        "triggeringAlarms": [
            {"arn": changed.arn, "state": {"value": str(changed.state), "timestamp": iso(changed.transitioned_ms)}}
        ]
    }
    return f"{changed.arn} transitioned to {changed.state} at {told}", json.dumps(data, separators=(",", ":"))
