"""The wind tunnel against the real thing: a short ramp on a running Eyrie, and the same ramp simulated."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import boto3
import pytest

from eyrie.cli.recorded import RecordedEndpoint
from eyrie.domain.names import EndpointKey
from eyrie.sim import policy_file
from eyrie.sim.ours import Ours
from eyrie.sim.run import Experiment, run
from eyrie.sim.traffic import from_points

from .conftest import Deployed, RealEyrie, until
from .test_scaling import Paced, activities, place

ENDPOINT = "tunnel"
RAMP = [(0.0, 10.0), (15.0, 10.0), (35.0, 40.0), (50.0, 40.0), (60.0, 5.0), (95.0, 5.0)]  # seconds, requests a second
TARGET = 12.0
TOLERANCE = 0.2
ATTEMPTS = 3  # the machine may be busy with other things
POLICY: dict[str, Any] = {
    "PolicyName": "fast",
    "PolicyType": "TargetTrackingScaling",
    "TargetTrackingScalingPolicyConfiguration": {
        "TargetValue": TARGET,
        "CustomizedMetricSpecification": {
            "Namespace": "eyrie:Fast",
            "MetricName": "RequestRate",
            "Statistic": "Average",
            "Dimensions": [{"Name": "StableWindowSeconds", "Value": "10"}],
        },
    },
}


class Watched:
    """How many instances serve, sampled until the block ends; the mean of each second."""

    def __init__(self, eyrie: RealEyrie) -> None:
        self._eyrie, self._stop = eyrie, threading.Event()
        self._seen: dict[int, list[int]] = {}
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Watched:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._stop.wait(0.2):
            count = len(self._eyrie.serving(ENDPOINT))
            self._seen.setdefault(int(time.monotonic() - self._began), []).append(count)

    def seconds(self, count: int) -> list[float]:
        found, last = [], 1.0
        for second in range(count):
            values = self._seen.get(second)
            last = sum(values) / len(values) if values else last
            found.append(last)
        return found


def real_ramp(eyrie: RealEyrie, deployed: Deployed, rates: list[float]) -> tuple[int, list[float]]:
    """Scaling actions and capacity over time of the real endpoint."""
    before = len(activities(ENDPOINT))
    with Paced(ENDPOINT, deployed.rows, rate=rates[0]) as load, Watched(eyrie) as watched:
        began = time.monotonic()
        for second, rate in enumerate(rates):
            load.rate = rate
            time.sleep(max(0.0, began + second + 1 - time.monotonic()))  # the ramp's own pace
        capacity = watched.seconds(len(rates))
    assert load.failed == 0, load.reasons
    return len(activities(ENDPOINT)) - before, capacity


@pytest.mark.heavy
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_ramp_goes_as_it_was_simulated(
    eyrie: RealEyrie, deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.create(ENDPOINT, instances=1)
    scaling = boto3.client("application-autoscaling")
    scaling.register_scalable_target(**place(ENDPOINT), MinCapacity=1, MaxCapacity=6)
    scaling.put_scaling_policy(**place(ENDPOINT), **POLICY)
    ramp = from_points("ramp", RAMP)
    found = []
    for _ in range(ATTEMPTS):
        until(lambda: int(eyrie.status()["slots"].get("warm", 0)) >= 1 and len(eyrie.serving(ENDPOINT)) == 1, 240.0)
        actions, capacity = real_ramp(eyrie, deployed, list(ramp.rates))
        profile = RecordedEndpoint(eyrie.data, ENDPOINT, None).profile()
        setup = policy_file.read(
            "p", json.dumps(POLICY), EndpointKey("123456789012", "us-east-1", "simulated"), "AllTraffic"
        )
        even = type(ramp)(ramp.name, ramp.rates, even=True)
        told = run(Experiment(even, profile, minimum=1, maximum=6), Ours(setup))
        apart = sum(abs(a - b) for a, b in zip(capacity, told.serving, strict=True)) / sum(told.serving)
        found.append((actions, len(told.actions), round(apart, 3)))
        if actions == len(told.actions) and apart <= TOLERANCE:
            break
    with capsys.disabled():
        print(f"\nscaling actions real and simulated, capacity apart: {found}; starts {profile.startup_s} s")
    assert found[-1][0] == found[-1][1], found
    assert found[-1][2] <= TOLERANCE, found
