"""What the experiment asks CloudWatch and CloudWatch Logs, as it would ask AWS: metrics by the minute, and requests per
second by instance in one query over the logs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3

MINUTE_MS = 60_000
QUERY = 'filter kind = "second" | stats sum(requests) as requests by bin(1m), instance | sort bin(1m) asc | limit 10000'
QUERY_PATIENCE_S = 60.0
Points = list[tuple[float, float]]  # minutes since the load began, value


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of Eyrie's time, milliseconds since 1970."""

    begin_ms: float
    end_ms: float

    def minute(self, at: datetime) -> float:
        """Minutes since it began."""
        return (at.timestamp() * 1000 - self.begin_ms) / MINUTE_MS

    @property
    def times(self) -> dict[str, datetime]:
        """As CloudWatch is told."""
        begin, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (self.begin_ms, self.end_ms))
        return {"StartTime": begin, "EndTime": end}


def metric(namespace: str, name: str, stat: str, window: Window, **dimensions: str) -> Points:
    """A metric by the minute."""
    named = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    what = {"Namespace": namespace, "MetricName": name, "Dimensions": named}
    query = {"Id": "m", "MetricStat": {"Metric": what, "Period": 60, "Stat": stat}}
    return _asked(query, window)


def total_cpu(endpoint: str, window: Window) -> Points:
    """CPUUtilization of all instances together, by metric math; 100 is one core."""
    found = '{/aws/sagemaker/Endpoints,EndpointName,InstanceId,VariantName} MetricName="CPUUtilization"'
    search = f"SUM(SEARCH('{found} EndpointName=\"{endpoint}\"', 'Average', 60))"
    return _asked({"Id": "m", "Expression": search, "Period": 60}, window)


def lowest_credits(endpoint: str, window: Window) -> Points:
    """CPUCreditBalance of the instance that has least."""
    found = '{/aws/sagemaker/Endpoints,EndpointName,InstanceId,VariantName} MetricName="CPUCreditBalance"'
    search = f"MIN(SEARCH('{found} EndpointName=\"{endpoint}\"', 'Minimum', 60))"
    return _asked({"Id": "m", "Expression": search, "Period": 60}, window)


def _asked(query: dict[str, Any], window: Window) -> Points:
    pages = boto3.client("cloudwatch").get_paginator("get_metric_data")
    found: Points = []
    for page in pages.paginate(MetricDataQueries=[query], ScanBy="TimestampAscending", **window.times):
        for result in page["MetricDataResults"]:
            found += [
                (window.minute(at), value) for at, value in zip(result["Timestamps"], result["Values"], strict=True)
            ]
    return sorted(found)


def by_instance(endpoint: str, window: Window) -> dict[str, Points]:
    """Requests a minute of each instance: one Logs Insights query over what every instance answered."""
    logs = boto3.client("logs")
    started = logs.start_query(
        logGroupName=f"/eyrie/Endpoints/{endpoint}",
        queryString=QUERY,
        startTime=int(window.begin_ms / 1000),
        endTime=int(window.end_ms / 1000),
    )
    deadline = time.monotonic() + QUERY_PATIENCE_S
    while (told := logs.get_query_results(queryId=started["queryId"]))["status"] in ("Running", "Scheduled"):
        if time.monotonic() > deadline:
            raise SystemExit("the log query took too long")
        time.sleep(0.1)
    return _rows(told["results"], window)


def _rows(results: Sequence[Sequence[dict[str, str]]], window: Window) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for row in results:
        cells = {cell["field"]: cell["value"] for cell in row}
        instance, at = cells.get("instance"), datetime.fromisoformat(cells["bin(1m)"]).replace(tzinfo=UTC)
        if instance and instance != "none":
            found.setdefault(instance, []).append((window.minute(at), float(cells["requests"])))
    return {name: sorted(points) for name, points in sorted(found.items(), key=lambda each: min(each[1]))}
