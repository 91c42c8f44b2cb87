"""What a running Eyrie measures of itself, read with plain boto3."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from .conftest import Deployed, until


def statistics(name: str, *dimensions: tuple[str, str], **more: Any) -> list[dict[str, Any]]:
    """All of a metric (of AWS/SageMaker) in the last hours, as one point an hour."""
    now = datetime.now(UTC)
    found = boto3.client("cloudwatch").get_metric_statistics(
        Namespace=more.pop("Namespace", "AWS/SageMaker"),
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
    assert {"Invocations", "Invocation4XXErrors", "OverheadLatency"} <= names
    until(lambda: statistics("ConcurrentRequestsPerModel", *variant))  # once the second is over for every worker

    deployed.eyrie.down()  # what was measured is there after a restart
    deployed.eyrie.up()
    assert total("Invocations", *variant) == 33
    deployed.wait_in_service("measured")
    deployed.delete("measured")


def test_what_instances_and_the_host_use_is_measured(deployed: Deployed) -> None:
    deployed.create("used", instances=2)
    variant = (("EndpointName", "used"), ("VariantName", "sklearn"))
    more = {"Namespace": "/aws/sagemaker/Endpoints", "Statistics": ["SampleCount", "Maximum", "Average"]}

    def seen(name: str, *dimensions: tuple[str, str]) -> dict[str, Any]:
        return next(iter(statistics(name, *dimensions, **more)), {"SampleCount": 0})

    def worked() -> bool:
        for row in deployed.rows[:20]:
            deployed.ask("used", row)
        return bool(seen("CPUUtilization", *variant)["SampleCount"] >= 6)

    until(worked)
    assert 0 < seen("CPUUtilization", *variant)["Maximum"] <= 200
    assert 0 < seen("MemoryUtilization", *variant)["Average"] < 100
    assert 0 < seen("DiskUtilization", *variant)["Average"] < 100
    assert seen("CPUUtilization", *variant)["Unit"] == "Percent"
    for instance in deployed.eyrie.serving("used"):
        assert seen("CPUUtilization", *variant, ("InstanceId", instance))["SampleCount"] >= 2
    deployed.delete("used")

    def of_host() -> set[str]:
        found = boto3.client("cloudwatch").list_metrics(Namespace="CWAgent")["Metrics"]
        return {metric["MetricName"] for metric in found}

    assert {"cpu_usage_active", "mem_used_percent", "disk_used_percent", "net_bytes_sent"} <= until(of_host)
    assert "GPUUtilization" not in {m["MetricName"] for m in boto3.client("cloudwatch").list_metrics()["Metrics"]}


def test_what_an_endpoint_does_with_many_models_is_measured(deployed: Deployed) -> None:
    sagemaker, role = boto3.client("sagemaker"), "arn:aws:iam::123456789012:role/test"
    container = {"Image": "eyrie/sklearn", "Mode": "MultiModel", "ModelDataUrl": "s3://models/"}
    sagemaker.create_model(ModelName="shelf", PrimaryContainer=container, ExecutionRoleArn=role)
    deployed.create("shelf", instances=1, models=("shelf",))
    for _ in range(4):
        deployed.ask("shelf", TargetModel="sklearn.tar.gz")
    variant = (("EndpointName", "shelf"), ("VariantName", "shelf"))
    (hits,) = until(lambda: [p for p in statistics("ModelCacheHit", *variant) if p["SampleCount"] == 4])
    assert hits["Sum"] == 3
    for name in ("ModelLoadingWaitTime", "ModelDownloadingTime", "ModelLoadingTime"):
        (point,) = until(lambda name=name: statistics(name, *variant))
        assert point["Average"] > 100, name
    more = {"Namespace": "/aws/sagemaker/Endpoints", "Statistics": ["Maximum"]}
    assert until(lambda: statistics("LoadedModelCount", *variant, **more))[0]["Maximum"] == 1
    deployed.delete("shelf")


@pytest.mark.heavy
def test_variants_are_compared_by_what_is_measured_and_what_users_tell(deployed: Deployed) -> None:
    deployed.create("versus", instances=1, models=("sklearn", "xgboost"))
    for row in deployed.rows[:40]:
        deployed.ask("versus", row)
    cloudwatch = boto3.client("cloudwatch")
    for variant, right in (("sklearn", 700), ("xgboost", 950)):
        cloudwatch.put_metric_data(
            Namespace="MyTeam",
            MetricData=[
                {
                    "MetricName": "Accuracy",
                    "Dimensions": [
                        {"Name": "EndpointName", "Value": "versus"},
                        {"Name": "VariantName", "Value": variant},
                    ],
                    "Values": [0.0, 1.0],
                    "Counts": [1000.0 - right, float(right)],
                }
            ],
        )

    def rows() -> dict[str, dict[str, Any]]:
        told = json.loads(deployed.eyrie.run("compare", "versus", "--json").stdout)
        return {row["metric"]: row for row in told["metrics"]}

    both = ("count", "baseline_count")
    until(lambda: sum(rows()["ModelLatency"][name] for name in both) == 40, 60.0)
    found = rows()
    assert (found["ModelLatency"]["verdict"], found["ModelLatency"]["low"]) == ("undecided", None)
    assert found["Accuracy"]["verdict"] == "better"
    assert found["Accuracy"]["difference"] == pytest.approx(0.25)
    assert "Accuracy" in deployed.eyrie.run("compare", "versus", "--baseline", "xgboost").stdout
    assert "no variant 'nobody'" in deployed.eyrie.run("compare", "versus", "--baseline", "nobody").stderr
    deployed.delete("versus")
