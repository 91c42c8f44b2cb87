"""CloudWatch's metrics: PutMetricData, GetMetricStatistics, GetMetricData, ListMetrics, of all that is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eyrie.control.context import Context, Operation, Params, seconds
from eyrie.control.listing import milliseconds, offset_of, offset_token
from eyrie.control.metric_queries import QUERIES_MAX, Queries, Span, check_period, metric_of
from eyrie.decide.metric_grammar import MathError
from eyrie.decide.metric_math import Value
from eyrie.decide.statistics import statistic
from eyrie.domain.metrics import Measured, Metric, Summary, told
from eyrie.ports import MetricsFull
from eyrie.wire.errors import ApiError, throttled

HOUR_MS = 3_600_000
OLDEST_MS = 14 * 24 * HOUR_MS  # of a measurement that is taken in
FUTURE_MS = 2 * HOUR_MS
DATA_MAX = 1_000  # metrics a PutMetricData
VALUES_MAX = 150
VALUE_MAX = 2.0**360
STATISTICS_POINTS_MAX = 1_440  # in one reply of GetMetricStatistics
POINTS_MAX = 100_800  # in one reply of GetMetricData
LIST_MAX = 500
ACTIVE_MS = 3 * HOUR_MS


def operations() -> Mapping[str, Operation]:
    """The operations of CloudWatch that measure and ask."""
    return {
        "PutMetricData": put_metric_data,
        "GetMetricStatistics": get_metric_statistics,
        "GetMetricData": get_metric_data,
        "ListMetrics": list_metrics,
    }


def invalid(message: str) -> ApiError:
    """InvalidParameterValue."""
    return ApiError("InvalidParameterValue", message)


def combination(message: str) -> ApiError:
    """InvalidParameterCombination."""
    return ApiError("InvalidParameterCombination", message)


# --- PutMetricData --------------------------------------------------------------------------------------------------


def put_metric_data(context: Context, params: Params) -> dict[str, Any]:
    """Take measurements in: all of them, or none."""
    namespace = params["Namespace"]
    data = [*params.get("MetricData", ())]
    data += [datum for entity in params.get("EntityMetricData", ()) for datum in entity.get("MetricData", ())]
    if not data:
        raise ApiError("MissingParameter", "The parameter MetricData is required.")
    if len(data) > DATA_MAX:
        raise invalid(f"The collection MetricData must not have a size greater than {DATA_MAX}.")
    if namespace.startswith("AWS/"):
        raise invalid(f"The value {namespace} for parameter Namespace is invalid: AWS/ is for what is measured here.")
    measured = [_measured(context, namespace, f"MetricData.member.{n}", datum) for n, datum in enumerate(data, 1)]
    try:
        context.metrics.record(measured)
    except MetricsFull as error:
        raise throttled(str(error)) from None
    return {}


def _measured(context: Context, namespace: str, place: str, datum: Params) -> Measured:
    _check_dimensions(place, datum.get("Dimensions", ()))
    pairs = sorted((d["Name"], d["Value"]) for d in datum.get("Dimensions", ()))
    if len({name for name, _ in pairs}) < len(pairs):
        raise invalid(f"No two dimensions of {place} may have the same name.")
    metric = Metric(context.scope, namespace, datum["MetricName"], tuple(pairs))
    at_ms = milliseconds(datum["Timestamp"]) if "Timestamp" in datum else context.now_ms
    if not context.now_ms - OLDEST_MS <= at_ms <= context.now_ms + FUTURE_MS:
        raise invalid(f"The parameter {place}.Timestamp must be within the last two weeks and at most two hours ahead.")
    resolution = datum.get("StorageResolution", 60)
    if resolution not in (1, 60):
        raise invalid(f"The parameter {place}.StorageResolution must be 1 or 60, not {resolution}.")
    return Measured(metric, at_ms, _summary(place, datum), datum.get("Unit", "None"))


def _check_dimensions(place: str, dimensions: Sequence[Params]) -> None:
    """What the service's model does not say: ASCII, something besides blanks, and no colon at a name's beginning."""
    for number, dimension in enumerate(dimensions, 1):
        for part in ("Name", "Value"):
            text = dimension[part]
            if not text.isascii() or not text.strip() or (part == "Name" and text.startswith(":")):
                where = f"{place}.Dimensions.member.{number}.{part}"
                rule = "ASCII, not blank, and a name must not begin with a colon"
                raise invalid(f"The value {text[:64]!r} for parameter {where} is invalid: it must be {rule}.")


def _check_values(place: str, values: Sequence[float]) -> None:
    for value in values:
        if not abs(value) <= VALUE_MAX:  # NaN too
            raise invalid(f"The value {value} for parameter {place} is invalid: it must be from -2^360 to 2^360.")


def _summary(place: str, datum: Params) -> Summary:
    given = [name for name in ("Value", "Values", "StatisticValues") if name in datum]
    if len(given) != 1:
        raise combination(f"{place} needs exactly one of Value, Values and StatisticValues.")
    try:
        if "StatisticValues" in datum:
            four = datum["StatisticValues"]
            for name in ("SampleCount", "Sum", "Minimum", "Maximum"):
                _check_values(f"{place}.StatisticValues.{name}", [four[name]])
            return told(four["SampleCount"], four["Sum"], four["Minimum"], four["Maximum"])
        return _of_values(place, datum)
    except ValueError as error:
        raise invalid(f"{place}: {error}.") from None


def _of_values(place: str, datum: Params) -> Summary:
    values = datum["Values"] if "Values" in datum else [datum["Value"]]
    counts = datum.get("Counts") or [1.0] * len(values)
    if len(values) > VALUES_MAX or not values:
        raise invalid(f"{place}.Values must have 1 to {VALUES_MAX} members.")
    if len(counts) != len(values):
        raise combination(f"{place}.Counts must have as many members as {place}.Values.")
    _check_values(f"{place}.Values" if "Values" in datum else f"{place}.Value", values)
    for count in counts:
        if not 0 < count <= VALUE_MAX:
            raise invalid(f"The value {count} for parameter {place}.Counts is invalid: it must be positive.")
    summary = Summary()
    for value, count in zip(values, counts, strict=True):
        summary.add(value, count)
    return summary


# --- GetMetricStatistics --------------------------------------------------------------------------------------------


def get_metric_statistics(context: Context, params: Params) -> dict[str, Any]:
    """Statistics of one metric, a point a period."""
    names = [*params.get("Statistics", ()), *params.get("ExtendedStatistics", ())]
    for name in names:
        _statistic(name)
    if not names:
        raise ApiError("MissingParameter", "One of the parameters Statistics and ExtendedStatistics is required.")
    period_s = params["Period"]
    span = _span(params)
    _check_period(period_s, context.now_ms - span.start_ms)
    points = (span.end_ms - span.start_ms) // (period_s * 1000)
    if points > STATISTICS_POINTS_MAX:
        raise combination(
            f"You have requested up to {points} datapoints, which exceeds the limit of {STATISTICS_POINTS_MAX}. "
            "You may reduce the datapoints requested by increasing Period, or decreasing the time range."
        )
    metric = metric_of(context.scope, params)
    known = context.metrics.series(context.scope, metric.namespace, metric.name)
    unit = next((series.unit for series in known if series.metric == metric), "None")
    if params.get("Unit", unit) != unit:
        return {"Label": metric.name, "Datapoints": []}
    start_ms = span.start_ms - span.start_ms % (1000 if period_s < 60 else 60_000)
    found = context.metrics.summaries(metric, start_ms, span.end_ms, period_s * 1000)
    made = [_datapoint(params, at_ms, summary, unit) for at_ms, summary in found.items()]
    return {"Label": metric.name, "Datapoints": made}


def _datapoint(params: Params, at_ms: int, summary: Summary, unit: str) -> dict[str, Any]:
    point: dict[str, Any] = {"Timestamp": seconds(at_ms), "Unit": unit}
    point.update({name: _statistic(name)(summary) for name in params.get("Statistics", ())})
    extended = {name: _statistic(name)(summary) for name in params.get("ExtendedStatistics", ())}
    if extended:
        point["ExtendedStatistics"] = {name: value for name, value in extended.items() if value is not None}
    return point


def _statistic(name: str) -> Any:
    try:
        return statistic(name)
    except ValueError as error:
        raise invalid(f"The parameter ExtendedStatistics is invalid: {error}.") from None


def _span(params: Params) -> Span:
    start_ms, end_ms = milliseconds(params["StartTime"]), milliseconds(params["EndTime"])
    if start_ms >= end_ms:
        raise invalid("The parameter StartTime must be less than the parameter EndTime.")
    return Span(start_ms, end_ms)


def _check_period(period_s: int, age_ms: int) -> None:
    """Finer periods are kept for less long."""
    trouble = check_period(period_s)
    if trouble:
        raise invalid(f"The parameter Period is invalid: {trouble}.")
    if age_ms > 3 * HOUR_MS and period_s < 60:
        raise invalid("The parameter Period must be a multiple of 60 where StartTime is more than 3 hours ago.")


# --- GetMetricData --------------------------------------------------------------------------------------------------


def get_metric_data(context: Context, params: Params) -> dict[str, Any]:
    """Series and metric math, in pages of points."""
    queries = params["MetricDataQueries"]
    span = _span(params)
    _check_queries(queries, context.now_ms - span.start_ms)
    asked = Queries(context.metrics, context.scope, queries, span)
    newest_first = params.get("ScanBy", "TimestampDescending") == "TimestampDescending"
    results: list[dict[str, Any]] = []
    for query in queries:
        if query.get("ReturnData", True):
            results += _results(query, _named(asked, query), newest_first)
    limit = params.get("MaxDatapoints", POINTS_MAX)
    if not 1 <= limit <= POINTS_MAX:
        raise invalid(f"The parameter MaxDatapoints must be from 1 to {POINTS_MAX}, not {limit}.")
    shown, token = _paged(results, offset_of(params), limit)
    reply: dict[str, Any] = {"MetricDataResults": shown, "Messages": []}
    if token is not None:
        reply["NextToken"] = token
    return reply


def _check_queries(queries: Sequence[Params], age_ms: int) -> None:
    if not 0 < len(queries) <= QUERIES_MAX:
        raise invalid(f"The collection MetricDataQueries must have 1 to {QUERIES_MAX} members.")
    seen: set[str] = set()
    for query in queries:
        name = query["Id"]
        if name in seen:
            raise invalid(f"The values for parameter id in MetricDataQueries are not unique: {name}.")
        seen.add(name)
        if not (name[0].islower() and name.isascii() and name.replace("_", "a").isalnum()):
            raise invalid(f"The value {name} for parameter Id must be letters, digits and _, beginning in lower case.")
        if ("MetricStat" in query) == ("Expression" in query):
            raise combination(f"The query {name} needs exactly one of MetricStat and Expression.")
        if "MetricStat" in query:
            metric = query["MetricStat"]["Metric"]
            if not metric.get("Namespace") or not metric.get("MetricName"):
                raise ApiError("MissingParameter", f"The metric of the query {name} needs Namespace and MetricName.")
            _check_period(query["MetricStat"]["Period"], age_ms)
    if not any(query.get("ReturnData", True) for query in queries):
        raise invalid("At least one of the queries must have ReturnData.")


def _named(asked: Queries, query: Params) -> Value:
    try:
        return asked.named(query["Id"])
    except MathError as error:
        raise invalid(f"Error in expression '{query['Id']}': {error}.") from None


def _results(query: Params, value: Value, newest_first: bool) -> Iterator[dict[str, Any]]:
    if isinstance(value, float):
        raise invalid(f"Error in expression '{query['Id']}': it is a number, and not a time series.")
    for series in value if isinstance(value, list) else [value]:
        own = series.label if isinstance(value, list) or "MetricStat" in query else ""
        points = sorted(series.points.items(), reverse=newest_first)
        yield {
            "Id": query["Id"],
            "Label": query.get("Label") or own or query["Id"],
            "Timestamps": [seconds(at_ms) for at_ms, _ in points],
            "Values": [point for _, point in points],
            "StatusCode": "Complete",
        }


def _paged(results: list[dict[str, Any]], offset: int, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """The results from a point on; a series that goes on with the next page is PartialData."""
    shown: list[dict[str, Any]] = []
    passed, room = 0, limit
    total = sum(len(result["Values"]) for result in results)
    for result in results:
        if not room:
            break
        count = len(result["Values"])
        first = max(offset - passed, 0)
        passed += count
        if passed < offset or (count and passed == offset):
            continue  # was on an earlier page
        last = min(first + room, count)
        if first < last or not count:
            part = {name: result[name][first:last] for name in ("Timestamps", "Values")}
            shown.append({**result, **part, "StatusCode": "Complete" if last == count else "PartialData"})
        room -= last - first
    return shown, offset_token(offset + limit) if total > offset + limit else None


# --- ListMetrics ----------------------------------------------------------------------------------------------------


def list_metrics(context: Context, params: Params) -> dict[str, Any]:
    """The metrics that were measured, filtered, in pages of 500."""
    found = context.metrics.series(context.scope, params.get("Namespace"), params.get("MetricName"))
    if "RecentlyActive" in params:
        found = [series for series in found if series.latest_ms >= context.now_ms - ACTIVE_MS]
    wanted = params.get("Dimensions", ())
    metrics = [series.metric for series in found if all(_has(series.metric, dimension) for dimension in wanted)]
    offset = offset_of(params)
    reply: dict[str, Any] = {
        "Metrics": [
            {
                "Namespace": metric.namespace,
                "MetricName": metric.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
            }
            for metric in metrics[offset : offset + LIST_MAX]
        ]
    }
    if offset + LIST_MAX < len(metrics):
        reply["NextToken"] = offset_token(offset + LIST_MAX)
    return reply


def _has(metric: Metric, wanted: Params) -> bool:
    return any(name == wanted["Name"] and wanted.get("Value", value) == value for name, value in metric.dimensions)
