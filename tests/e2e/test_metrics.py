"""What a running Eyrie measures of itself, read with plain boto3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from .conftest import Deployed, until


def statistics(name: str, *dimensions: tuple[str, str], **more: Any) -> list[dict[str, Any]]:
    """All of a metric of AWS/SageMaker in the last hours, as one point an hour."""
    now = datetime.now(UTC)
    found = boto3.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions],
        StartTime=now - timedelta(hours=2),
        EndTime=now + timedelta(minutes=1),
        **{"Period": 3600, "Statistics": ["Sum", "SampleCount", "Average"], **more},
    )
    return list(found["Datapoints"])


def total(name: str, *dimensions: tuple[str, str]) -> float:
    return float(sum(point["Sum"] for point in statistics(name, *dimensions)))


def test_every_invocation_is_counted_with_its_time_and_its_outcome(deployed: Deployed) -> None:
    deployed.create("measured", instances=2)
    variant = (("EndpointName", "measured"), ("VariantName", "sklearn"))
    for row in deployed.rows[:30]:
        deployed.ask("measured", row)
    for _ in range(3):
        with pytest.raises(ClientError):
            deployed.ask("measured", "no,numbers")
    until(lambda: total("Invocations", *variant) == 33)
    assert total("InvocationsPerInstance", *variant) == pytest.approx(16.5)
    assert total("InvocationModelErrors", *variant) == 3
    assert total("Invocations", ("EndpointName", "measured")) == 33
    latency = statistics("ModelLatency", *variant, Statistics=["Average", "Maximum"], ExtendedStatistics=["p50", "p99"])
    assert all(10 < p["ExtendedStatistics"]["p50"] <= p["ExtendedStatistics"]["p99"] <= p["Maximum"] for p in latency)
    instances = deployed.eyrie.serving("measured")
    alone = [total("Invocations", *variant, ("InstanceId", instance)) for instance in instances]
    assert sum(alone) == 33
    names = {m["MetricName"] for m in boto3.client("cloudwatch").list_metrics(Namespace="AWS/SageMaker")["Metrics"]}
    assert {"Invocations", "Invocation4XXErrors", "OverheadLatency", "ConcurrentRequestsPerModel"} <= names

    deployed.eyrie.down()  # what was measured is there after a restart
    deployed.eyrie.up()
    assert total("Invocations", *variant) == 33
    deployed.wait_in_service("measured")
    deployed.delete("measured")
