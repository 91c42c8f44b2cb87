"""Scaling on a real Eyrie, as users write it with boto3: eyrie:Fast under a step of load, and AWS's own target tracking
with its alarms on a clock that is sped up.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .conftest import Deployed, RealEyrie, running, until

THREADS = 6
STEP_ANSWERED_S = 5.0
ATTEMPTS = 3  # the machine may be busy with other things


class Paced:
    """Invocations at a rate that may be changed, without client retries, until the block ends."""

    def __init__(self, endpoint: str, rows: list[str], rate: float) -> None:
        self.rate = rate
        self.asked = self.failed = 0
        self.reasons: Counter[str] = Counter()
        self._endpoint, self._rows = endpoint, itertools.cycle(rows)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._next_s = time.monotonic()
        self._threads = [threading.Thread(target=self._go_on) for _ in range(THREADS)]

    def __enter__(self) -> Paced:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _turn(self) -> str:
        """Wait for the next one's time; what it asks."""
        with self._lock:
            now = time.monotonic()
            self._next_s = max(self._next_s, now - 1.0) + 1 / self.rate  # what could not be kept up with is dropped
            wait_s, row = self._next_s - now, next(self._rows)
        if wait_s > 0:
            time.sleep(wait_s)
        return row

    def _go_on(self) -> None:
        runtime = boto3.session.Session().client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        while not self._stop.is_set():
            row = self._turn()
            try:
                reply = runtime.invoke_endpoint(EndpointName=self._endpoint, ContentType="text/csv", Body=row)
                reply["Body"].read()
            except (BotoCoreError, ClientError) as error:
                with self._lock:
                    self.failed += 1
                    self.reasons[str(error)[:200]] += 1
            with self._lock:
                self.asked += 1


def place(endpoint: str) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/sklearn",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def activities(endpoint: str) -> list[dict[str, Any]]:
    found = boto3.client("application-autoscaling").describe_scaling_activities(
        ServiceNamespace="sagemaker", ResourceId=place(endpoint)["ResourceId"]
    )
    return list(found["ScalingActivities"])


def answered(endpoint: str) -> set[str]:
    """The instances that have answered requests, by their metrics."""
    cloudwatch = boto3.client("cloudwatch")
    variant = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "InstanceId"}]
    metrics = cloudwatch.list_metrics(Namespace="AWS/SageMaker", MetricName="Invocations", Dimensions=variant)
    return {d["Value"] for m in metrics["Metrics"] for d in m["Dimensions"] if d["Name"] == "InstanceId"}


def test_a_step_of_load_is_answered_within_five_seconds_and_nothing_fails(
    eyrie: RealEyrie, deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.create("steps", instances=1)
    scaling = boto3.client("application-autoscaling")
    scaling.register_scalable_target(**place("steps"), MinCapacity=1, MaxCapacity=4)
    windows = [{"Name": "StableWindowSeconds", "Value": "10"}]
    scaling.put_scaling_policy(
        PolicyName="fast",
        **place("steps"),
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 25.0,
            "CustomizedMetricSpecification": {
                "Namespace": "eyrie:Fast",
                "MetricName": "RequestRate",
                "Statistic": "Average",
                "Dimensions": windows,
            },
        },
    )
    until(lambda: int(eyrie.status()["slots"].get("warm", 0)) >= 2, 60.0)  # a warm host
    took_s: list[float] = []
    with Paced("steps", deployed.rows, rate=20.0) as load:
        while not took_s or (took_s[-1] >= STEP_ANSWERED_S and len(took_s) < ATTEMPTS):
            load.rate = 20.0
            seen = load.asked
            until(lambda seen=seen: load.asked >= seen + 80)
            assert len(eyrie.serving("steps")) == 1
            load.rate = 60.0
            began = time.monotonic()
            until(lambda: len(eyrie.serving("steps")) == 3, 30.0)
            took_s.append(time.monotonic() - began)
            until(lambda: answered("steps") >= eyrie.serving("steps"))
            load.rate = 8.0
            until(lambda: len(eyrie.serving("steps")) == 1, 90.0)
    with capsys.disabled():
        print(f"\nthree times the load: three instances serve after {took_s} s; {load.asked} requests")
    assert load.failed == 0, load.reasons
    assert took_s[-1] < STEP_ANSWERED_S
    until(lambda: [a["StatusCode"] for a in activities("steps")] == ["Successful"] * len(activities("steps")))
    told = eyrie.run("story", "steps").stdout
    assert "eyrie:Fast policy fast" in told
    assert "RequestRate" in told
    deployed.delete("steps")
    until(lambda: scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == [])


@pytest.fixture(scope="module")
def hurried(trained: tuple[list[Any], list[str], list[int]]) -> Iterator[Deployed]:
    """An Eyrie whose clock runs thirty times as fast."""
    with running(EYRIE_TIME_SCALE=30) as eyrie:
        found = Deployed(eyrie, *trained)
        found.upload()
        yield found


def create_patiently(deployed: Deployed, endpoint: str) -> None:
    """An endpoint of one instance, which may take its time to start: the clock runs ahead of it."""
    sagemaker = boto3.client("sagemaker")
    variant = {
        "VariantName": "sklearn",
        "ModelName": "sklearn",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": 3600,
    }
    sagemaker.create_endpoint_config(EndpointConfigName=endpoint, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
    deployed.wait_in_service(endpoint)


@pytest.mark.heavy
@pytest.mark.soak  # fifteen minutes of that clock
def test_target_tracking_as_aws_does_it_with_alarms_that_cloudwatch_shows(hurried: Deployed) -> None:
    create_patiently(hurried, "tracked")
    scaling, cloudwatch = boto3.client("application-autoscaling"), boto3.client("cloudwatch")
    scaling.register_scalable_target(**place("tracked"), MinCapacity=1, MaxCapacity=3)
    reply = scaling.put_scaling_policy(
        PolicyName="track",
        **place("tracked"),
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 20.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
            "ScaleInCooldown": 60,
            "ScaleOutCooldown": 60,
        },
    )
    high, low = (alarm["AlarmName"] for alarm in reply["Alarms"])

    def state(name: str) -> str:
        return str(cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"])

    with Paced("tracked", hurried.rows, rate=40.0) as load:  # 80 a minute of that clock
        until(lambda: state(high) == "ALARM", 60.0)
        until(lambda: len(hurried.eyrie.serving("tracked")) == 3, 60.0)
    assert load.failed == 0, load.reasons
    first = activities("tracked")[-1]
    assert first["Cause"] == f"monitor alarm {high} in state ALARM triggered policy track"
    until(lambda: state(low) == "ALARM", 50.0)  # fifteen minutes without a request
    until(lambda: len(hurried.eyrie.serving("tracked")) == 1, 30.0)
    assert f"monitor alarm {low} in state ALARM" in activities("tracked")[0]["Cause"]
