"""A burstable instance under load spends its CPU credits, slows down to its baseline, and earns them back when idle."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from demo_models import Model
from eyrie.adapters import cgroups
from eyrie.adapters.clock import SystemClock
from eyrie.adapters.slots import Slot
from eyrie.cli.data import check_version

from .conftest import Deployed, not_yet, running, until

SCALE = 60.0  # a minute a second
TYPE = "ml.t2.medium"
SMALL = {"vcpu": 2, "memory_mb": 4096, "cpu_baseline_percent": 5, "launch_credits": 1}  # seconds of load, not hours


NO_GROUPS = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"', "eyrie"]


@pytest.fixture(params=["by control group", "by admission"])
def fast(trained: tuple[list[Model], list[str], list[int]], request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """An Eyrie whose decisions' clock runs sixty times as fast, with a type that has few credits."""
    grouped = request.param == "by control group"
    if not grouped and subprocess.run([*NO_GROUPS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("control groups cannot be hidden here")
    if grouped and "cpu" not in cgroups.detect("eyrie-test-credits").controllers:
        pytest.skip("there are no control groups here")
    eyrie = not_yet(None if grouped else NO_GROUPS)
    (eyrie.data / "instance_types.json").write_text(json.dumps({"types": {TYPE: SMALL}}))
    check_version(eyrie.data)  # makes it a data directory
    with running(eyrie=eyrie, EYRIE_TIME_SCALE=SCALE):
        deployed = Deployed(eyrie, *trained)
        deployed.upload()
        yield deployed


class Load:
    """Requests of many rows, one after the other on two threads, until it ends."""

    def __init__(self, deployed: Deployed, endpoint: str) -> None:
        self.took_s: list[float] = []
        self._deployed, self._endpoint = deployed, endpoint
        self._body = "\n".join(deployed.rows * 40)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(2)]

    def _work(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self._deployed.ask(self._endpoint, self._body)
            self.took_s.append(time.monotonic() - began)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def latest(name: str, instance: str) -> float | None:
    """The newest value of one of an instance's credit metrics."""
    now = datetime.fromtimestamp(SystemClock(SCALE).now_ms() / 1000, UTC)
    points = boto3.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/EC2",
        MetricName=name,
        Dimensions=[{"Name": "InstanceId", "Value": instance}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=5),
        Period=60,
        Statistics=["Minimum"],
    )["Datapoints"]
    newest: list[dict[str, Any]] = sorted(points, key=lambda point: point["Timestamp"])[-1:]
    return float(newest[0]["Minimum"]) if newest else None


def quota(deployed: Deployed, instance: str) -> str | None:
    """What its control group lets it use; None where there is none."""
    for path in (deployed.eyrie.data / "slots").iterdir():
        spec, record = Slot(path).spec(), Slot(path).record()
        if spec is not None and record is not None and spec.instance_id == instance:
            files = [Path(g, n) for g in record.groups for n in ("cpu.cfs_quota_us", "cpu.max")]
            return next((file.read_text().split()[0] for file in files if file.exists()), None)
    raise AssertionError("it has no slot")


def create(endpoint: str) -> None:
    variant = {
        "VariantName": "v",
        "ModelName": "sklearn",
        "InstanceType": TYPE,
        "InitialInstanceCount": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": 3600,  # a minute
    }
    boto3.client("sagemaker").create_endpoint_config(EndpointConfigName=endpoint, ProductionVariants=[variant])
    boto3.client("sagemaker").create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)


@pytest.mark.heavy
def test_credits_are_spent_held_to_and_earned_back(fast: Deployed) -> None:
    create("burst")
    fast.wait_in_service("burst")
    (instance,) = fast.eyrie.serving("burst")
    before_s = timed(fast)
    assert until(lambda: latest("CPUCreditBalance", instance)) < 9, "one at launch, and a tenth each second since"
    with Load(fast, "burst"):
        until(lambda: (latest("CPUCreditBalance", instance) or 9.0) < 0.3)
        used = latest("CPUCreditUsage", instance)
        assert used is not None
        assert used > 0
        if quota(fast, instance) is not None:
            until(lambda: int(quota(fast, instance) or 0) < 20_000)  # of 200,000: near a tenth of a core
        until(lambda: timed(fast) > 2 * before_s)
    until(lambda: (latest("CPUCreditBalance", instance) or 0.0) > 0.6)
    fast.delete("burst")


def timed(deployed: Deployed) -> float:
    """Seconds of one request of many rows."""
    began = time.monotonic()
    deployed.ask("burst", "\n".join(deployed.rows * 40))
    return time.monotonic() - began
