"""CloudWatch's anomaly detectors: PutAnomalyDetector, DescribeAnomalyDetectors, DeleteAnomalyDetector.

A detector says how the band of a metric is learnt (`decide/alarm_bands`); the band itself is made where it is asked
for. Detectors on metric math are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eyrie.control.alarm_data import statistic_of
from eyrie.control.anomaly_table import KIND, detector_body, detector_name, training
from eyrie.control.api_alarm_lists import page_of
from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.listing import milliseconds
from eyrie.decide.alarm_bands import HISTORY_MS, train
from eyrie.decide.metric_grammar import MathError
from eyrie.domain.alarms import MetricStat
from eyrie.ports import Commit, Document
from eyrie.wire.errors import ApiError

PAGE = 10
RANGES_MAX = 10
_PERIOD_MS = 300_000
_KEYS = ("Namespace", "MetricName", "Stat")


def operations() -> Mapping[str, Operation]:
    """The operations on detectors."""
    return {
        "PutAnomalyDetector": put_anomaly_detector,
        "DescribeAnomalyDetectors": describe_anomaly_detectors,
        "DeleteAnomalyDetector": delete_anomaly_detector,
    }


def put_anomaly_detector(context: Context, params: Params) -> dict[str, Any]:
    """Make a detector of a metric, or change how it learns."""
    stat = _stat(params)
    body = detector_body(stat) | _configuration(params.get("Configuration", {}))
    if params.get("MetricCharacteristics"):
        body["characteristics"] = params["MetricCharacteristics"]
    name = detector_name(stat)
    found = context.get(KIND, name)
    document = context.new(KIND, name, body) if found is None else replace(found, body=body)
    context.store.commit(Commit(puts=[document]))
    return {"AnomalyDetectorId": name}


def delete_anomaly_detector(context: Context, params: Params) -> dict[str, Any]:
    """Forget a detector."""
    name = params.get("AnomalyDetectorId") or detector_name(_stat(params))
    found = context.get(KIND, name)
    if found is None:
        raise ApiError("ResourceNotFoundException", "There is no anomaly detector of this metric.", 404)
    context.store.commit(Commit(deletes=[found]))
    return {}


def describe_anomaly_detectors(context: Context, params: Params) -> dict[str, Any]:
    """The detectors of the account, in pages."""
    documents = context.store.scan(KIND, context.scope)
    ids = params.get("AnomalyDetectorIds")
    found = [d for d in documents if (ids is None or d.name in ids) and _wanted(d.body, params)]
    if params.get("AnomalyDetectorTypes") == ["METRIC_MATH"]:
        found = []
    sized = {**params, "MaxRecords": params.get("MaxResults", PAGE)}
    page, token = page_of(found, sized, PAGE)
    reply: dict[str, Any] = {"AnomalyDetectors": [_described(context, document) for document in page]}
    if token is not None:
        reply["NextToken"] = token
    return reply


def _wanted(body: Mapping[str, Any], params: Params) -> bool:
    pairs = sorted([d["Name"], d["Value"]] for d in params.get("Dimensions", ()))
    return (
        params.get("Namespace", body["namespace"]) == body["namespace"]
        and params.get("MetricName", body["name"]) == body["name"]
        and ("Dimensions" not in params or pairs == body["dimensions"])
    )


def _stat(params: Params) -> MetricStat:
    if "MetricMathAnomalyDetector" in params:
        text = "MetricMathAnomalyDetector is not supported by this Eyrie: it learns of single metrics."
        raise ApiError("InvalidParameterValue", text)
    named = params.get("SingleMetricAnomalyDetector") or params
    for key in _KEYS:
        if key not in named:
            raise ApiError("MissingParameter", f"The parameter {key} is required.")
    try:
        statistic_of(named["Stat"])
    except MathError as error:
        raise ApiError("InvalidParameterValue", f"The parameter Stat is invalid: {error}.") from None
    pairs = tuple(sorted((d["Name"], d["Value"]) for d in named.get("Dimensions", ())))
    return MetricStat(named["Namespace"], named["MetricName"], named["Stat"], _PERIOD_MS // 1000, pairs)


def _configuration(told: Mapping[str, Any]) -> dict[str, Any]:
    ranges = told.get("ExcludedTimeRanges", ())
    if len(ranges) > RANGES_MAX:
        raise ApiError("InvalidParameterValue", f"ExcludedTimeRanges must have at most {RANGES_MAX} members.")
    spans = [(milliseconds(one["StartTime"]), milliseconds(one["EndTime"])) for one in ranges]
    if any(start >= end for start, end in spans):
        raise ApiError("InvalidParameterValue", "ExcludedTimeRanges: StartTime must be before EndTime.")
    body: dict[str, Any] = {"excluded": [list(span) for span in spans]}
    for name, key in (("MetricTimezone", "timezone"), ("AdaptationSpeed", "speed")):
        if name in told:
            body[key] = told[name]
    if "OutlierFilteringStrength" in told:
        body["filtering"] = told["OutlierFilteringStrength"]
    return body


def _described(context: Context, document: Document) -> dict[str, Any]:
    body = document.body
    dimensions = [{"Name": name, "Value": value} for name, value in body["dimensions"]]
    named = {"Namespace": body["namespace"], "MetricName": body["name"], "Stat": body["stat"], "Dimensions": dimensions}
    found: dict[str, Any] = {
        "AnomalyDetectorId": document.name,
        **named,
        "SingleMetricAnomalyDetector": named,
        "StateValue": _state(context, body),
    }
    if "excluded" in body:
        spans = [{"StartTime": seconds(start), "EndTime": seconds(end)} for start, end in body["excluded"]]
        found["Configuration"] = {"ExcludedTimeRanges": spans}
        for name, key in (("MetricTimezone", "timezone"), ("AdaptationSpeed", "speed")):
            if key in body:
                found["Configuration"][name] = body[key]
        if "filtering" in body:
            found["Configuration"]["OutlierFilteringStrength"] = body["filtering"]
    if "characteristics" in body:
        found["MetricCharacteristics"] = body["characteristics"]
    return found


def _state(context: Context, body: dict[str, Any]) -> str:
    """Whether there is enough history for a band."""
    pairs = tuple((name, value) for name, value in body["dimensions"])
    stat = MetricStat(body["namespace"], body["name"], body["stat"], _PERIOD_MS // 1000, pairs)
    end_ms = context.now_ms - context.now_ms % _PERIOD_MS
    of = statistic_of(stat.stat)
    seen = context.metrics.summaries(stat.metric(context.scope), end_ms - HISTORY_MS, end_ms, _PERIOD_MS)
    values = {at_ms: value for at_ms, summary in seen.items() if (value := of(summary)) is not None}
    return "TRAINED" if train(values, training(body)) is not None else "TRAINED_INSUFFICIENT_DATA"
