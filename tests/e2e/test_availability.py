"""Availability and costs of a real endpoint: all its instances killed, control killed, and what is told of both.

The clock runs twenty times as fast: a minute takes three seconds.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from demo_models import Model
from eyrie.adapters.clock import SystemClock
from eyrie.cli.client import ControlClient, ControlUnreachable

from .conftest import Deployed, RealEyrie, running, until

SCALE = 20.0
MINUTE_MS = 60_000

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    with running(EYRIE_TIME_SCALE=SCALE) as made:
        yield made


@pytest.fixture(scope="module")
def shop(eyrie: RealEyrie, trained: tuple[list[Model], list[str], list[int]]) -> Deployed:
    found = Deployed(eyrie, *trained)
    found.upload()
    sagemaker = boto3.client("sagemaker")
    variant = {"VariantName": "A", "ModelName": "sklearn", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
    patient = {**variant, "ContainerStartupHealthCheckTimeoutInSeconds": 3600}
    sagemaker.create_endpoint_config(EndpointConfigName="shop", ProductionVariants=[patient])
    sagemaker.create_endpoint(EndpointName="shop", EndpointConfigName="shop")
    found.wait_in_service("shop")
    return found


def now_ms() -> int:
    return SystemClock(SCALE).now_ms()


def told(eyrie: RealEyrie) -> dict[str, Any]:
    return ControlClient(eyrie.data, "us-east-1").availability("shop", 1)


def known(eyrie: RealEyrie, since_ms: int, verdict: str) -> list[int]:
    """The minutes since then that have this verdict."""
    return [
        at_ms + n * MINUTE_MS
        for at_ms, count, what in told(eyrie)["spells"]
        for n in range(count)
        if what == verdict and at_ms + n * MINUTE_MS >= since_ms - MINUTE_MS
    ]


def answers(eyrie: RealEyrie) -> bool:
    try:
        return bool(told(eyrie))
    except ControlUnreachable:
        return False


def test_control_that_is_killed_makes_no_minute_bad(eyrie: RealEyrie, shop: Deployed) -> None:
    until(lambda: told(eyrie)["minutes"]["good"] >= 1, 60)
    bad = told(eyrie)["minutes"]["bad"]
    killed_ms = now_ms()
    os.kill(eyrie.processes()["control"], signal.SIGKILL)
    until(lambda: answers(eyrie), 90)
    until(lambda: known(eyrie, killed_ms + 3 * MINUTE_MS, "good"), 60)
    assert told(eyrie)["minutes"]["bad"] == bad


def test_an_outage_is_seen_within_its_minute(eyrie: RealEyrie, shop: Deployed) -> None:
    done = eyrie.run("objective", "set", "shop", "99.9")
    assert done.returncode == 0, done.stderr
    began_ms = now_ms()
    ended_ms = began_ms
    while ended_ms - began_ms < 2 * MINUTE_MS:  # for two minutes whatever comes up is killed
        for instance in eyrie.instances("shop"):
            if instance.get("pid"):
                kill(int(instance["pid"]))
        ended_ms = now_ms()
    bad = until(lambda: known(eyrie, began_ms, "bad"), 60)
    assert bad[0] <= began_ms + MINUTE_MS
    until(lambda: known(eyrie, ended_ms + MINUTE_MS, "good"), 90)
    assert told(eyrie)["burning"]["page"] > 1
    events = ControlClient(eyrie.data, "us-east-1").story("shop")
    assert {"UNAVAILABLE", "AVAILABLE"} <= {event["what"] for event in events}
    cloudwatch = boto3.client("cloudwatch")

    def state() -> str:
        return str(cloudwatch.describe_alarms(AlarmNames=["shop-burn-rate-page"])["MetricAlarms"][0]["StateValue"])

    until(lambda: state() == "ALARM", 60)
    shown = eyrie.run("availability", "shop")
    assert "burning: page" in shown.stdout


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_planned_maintenance_is_left_out(eyrie: RealEyrie, shop: Deployed) -> None:
    done = eyrie.run("maintenance", "add", "shop", "now", "2h")
    assert done.returncode == 0, done.stderr
    until(lambda: told(eyrie)["minutes"]["planned"] > 0, 60)
    assert eyrie.run("maintenance", "clear", "shop").returncode == 0


def test_two_instances_cost_what_two_instances_cost(eyrie: RealEyrie, shop: Deployed) -> None:
    def costs() -> dict[str, Any]:
        found = json.loads(eyrie.run("costs", "shop", "--over", "6h", "--json").stdout)
        return dict(found["rows"][0]) if found["rows"] else {}

    row = until(lambda: (found := costs()) and found["usd_per_hour"] and found, 60)
    assert (row["endpoint"], row["variant"]) == ("shop", "A")
    assert 0 < row["usd"] < 6 * 2 * 0.1152
    assert row["usd_per_hour"] <= 2 * 0.1152 * 1.01
