"""Metric filters: log events that become metrics, by the patterns of `decide/log_pattern`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eyrie.control.context import Context, Operation, Params
from eyrie.control.log_calls import group_called, invalid, missing, page, pattern_of, with_token
from eyrie.decide.log_metrics import known_names
from eyrie.decide.log_pattern import Pattern
from eyrie.domain.logs import MetricFilter
from eyrie.wire.errors import ApiError

FILTERS_MAX = 100  # of a group
DIMENSIONS_MAX = 3
TESTED_MAX = 50


def operations() -> Mapping[str, Operation]:
    """The operations on metric filters."""
    return {
        "PutMetricFilter": put_metric_filter,
        "DescribeMetricFilters": describe_metric_filters,
        "DeleteMetricFilter": delete_metric_filter,
        "TestMetricFilter": try_metric_filter,
    }


def put_metric_filter(context: Context, params: Params) -> dict[str, Any]:
    """Let what is put from now on, and matches, become a metric."""
    group = group_called(context, params["logGroupName"])
    pattern = pattern_of(params["filterPattern"])
    if len(params["metricTransformations"]) != 1:
        raise invalid("metricTransformations must have exactly one member.")
    for transformation in params["metricTransformations"]:
        _check(pattern, transformation)
    there = {known.name for known in context.logs.file.filters(context.scope).get(group.name, ())}
    if len(there | {params["filterName"]}) > FILTERS_MAX:
        raise ApiError("LimitExceededException", f"There are {FILTERS_MAX} metric filters of this log group already.")
    context.logs.keep(group)
    put = MetricFilter(
        group.name,
        params["filterName"],
        params["filterPattern"],
        tuple(params["metricTransformations"]),
        context.now_ms,
    )
    context.logs.file.put_filter(context.scope, put)
    return {}


def _check(pattern: Pattern, transformation: Params) -> None:
    value, dimensions = transformation["metricValue"], transformation.get("dimensions", {})
    if not value.startswith("$"):
        try:
            float(value)
        except ValueError:
            raise invalid(f"metricValue must be a number or begin with $, not {value!r}.") from None
    unknown = known_names(pattern, [name for name in (value, *dimensions.values()) if name.startswith("$")])
    if unknown is not None:
        raise invalid(f"The filter pattern extracts no {unknown}, which metricTransformations names.")
    if len(dimensions) > DIMENSIONS_MAX:
        raise invalid(f"dimensions must have at most {DIMENSIONS_MAX} members.")
    if any(not written.startswith("$") for written in dimensions.values()):
        raise invalid("The value of each dimension must be a field that the filter pattern extracts, beginning with $.")
    if dimensions and "defaultValue" in transformation:
        raise invalid("defaultValue cannot be given together with dimensions.")


def describe_metric_filters(context: Context, params: Params) -> dict[str, Any]:
    """The filters of a group, or those that make a metric, by name."""
    if ("metricName" in params) != ("metricNamespace" in params):
        raise invalid("metricName and metricNamespace must be given together.")
    if "logGroupName" in params:
        group_called(context, params["logGroupName"])
    by_group = context.logs.file.filters(context.scope)
    wanted, prefix = params.get("logGroupName"), params.get("filterNamePrefix", "")
    found = {
        f"{known.name}\n{group}": known
        for group, filters in by_group.items()
        for known in filters
        if wanted in (None, group) and known.name.startswith(prefix) and _makes(known, params)
    }
    shown, token = page(sorted(found), params)
    return with_token({"metricFilters": [_described(found[name]) for name in shown]}, token)


def _makes(known: MetricFilter, params: Params) -> bool:
    return "metricName" not in params or any(
        (made["metricName"], made["metricNamespace"]) == (params["metricName"], params["metricNamespace"])
        for made in known.transformations
    )


def _described(known: MetricFilter) -> dict[str, Any]:
    return {
        "filterName": known.name,
        "filterPattern": known.pattern,
        "metricTransformations": list(known.transformations),
        "creationTime": known.created_ms,
        "logGroupName": known.group,
    }


def delete_metric_filter(context: Context, params: Params) -> dict[str, Any]:
    """Remove a filter; what it made stays."""
    group = group_called(context, params["logGroupName"])
    if group.name not in context.logs.file.filters(context.scope) or not context.logs.file.delete_filter(
        context.scope, group.name, params["filterName"]
    ):
        raise missing("The specified metric filter does not exist.")
    return {}


def try_metric_filter(context: Context, params: Params) -> dict[str, Any]:
    """TestMetricFilter: which messages a pattern passes, and what it extracts of them."""
    pattern, messages = pattern_of(params["filterPattern"]), params["logEventMessages"]
    if not 0 < len(messages) <= TESTED_MAX:
        raise invalid(f"logEventMessages must have 1 to {TESTED_MAX} members, not {len(messages)}.")
    found = ((number, text, pattern.match(text)) for number, text in enumerate(messages, 1))
    return {
        "matches": [
            {"eventNumber": number, "eventMessage": text, "extractedValues": dict(extracted)}
            for number, text, extracted in found
            if extracted is not None
        ]
    }
