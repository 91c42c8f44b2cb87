"""What breaks while invocations go on: instances, gateway workers, control, `eyrie up` itself, everything."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from demo import belonging_to, processes_of
from demo_traffic import Traffic

from .conftest import Deployed, RealEyrie, until

ENDPOINT = "survivor"
INSTANCES = 3


@pytest.fixture(scope="module", autouse=True)
def endpoint(deployed: Deployed) -> Iterator[None]:
    """One endpoint that lives through everything."""
    deployed.create(ENDPOINT, instances=INSTANCES)
    yield
    deployed.delete(ENDPOINT)


def quiet_seconds(seconds: float) -> None:
    """Let the load run for a while: the condition that is waited for is time itself."""
    time.sleep(seconds)


def whole(eyrie: RealEyrie, without: str = "") -> bool:
    serving = eyrie.serving(ENDPOINT)
    return len(serving) == INSTANCES and without not in serving


def test_a_killed_instance_costs_no_request_and_is_replaced(eyrie: RealEyrie, deployed: Deployed) -> None:
    victim = eyrie.instances(ENDPOINT)[0]
    with Traffic(ENDPOINT, deployed.rows) as traffic:
        quiet_seconds(0.5)
        os.kill(victim["pid"], signal.SIGKILL)
        until(lambda: whole(eyrie, victim["id"]))
        until(lambda: traffic.wire.asked > 100)
    assert (traffic.wire.failed, traffic.boto.failed) == (0, 0), traffic.wire.reasons


def test_a_hung_instance_costs_no_request_and_is_replaced(eyrie: RealEyrie, deployed: Deployed) -> None:
    victim = eyrie.instances(ENDPOINT)[0]
    with Traffic(ENDPOINT, deployed.rows) as traffic:
        quiet_seconds(0.5)
        for pid in processes_of(victim["pid"]):
            os.kill(pid, signal.SIGSTOP)
        until(lambda: whole(eyrie, victim["id"]))
    assert (traffic.wire.failed, traffic.boto.failed) == (0, 0), traffic.wire.reasons


def test_control_killed_under_load_costs_no_request_and_starts_nothing_twice(
    eyrie: RealEyrie, deployed: Deployed
) -> None:
    until(lambda: whole(eyrie))
    before, old = eyrie.serving(ENDPOINT), eyrie.processes()["control"]
    with Traffic(ENDPOINT, deployed.rows) as traffic:
        os.kill(old, signal.SIGKILL)
        until(lambda: eyrie.processes().get("control", old) != old)
        until(lambda: "endpoints" in json.loads(eyrie.run("status", "--json").stdout))
        quiet_seconds(1.0)
    assert (traffic.wire.failed, traffic.boto.failed) == (0, 0), traffic.wire.reasons
    assert eyrie.serving(ENDPOINT) == before


def test_a_gateway_worker_killed_under_load_costs_nothing_at_boto3s_defaults(
    eyrie: RealEyrie, deployed: Deployed
) -> None:
    name, old = next((n, p) for n, p in eyrie.processes().items() if n.startswith("gateway-"))
    with Traffic(ENDPOINT, deployed.rows) as traffic:
        quiet_seconds(0.5)
        os.kill(old, signal.SIGKILL)
        until(lambda: eyrie.processes().get(name, old) != old)
        quiet_seconds(1.0)
    assert traffic.boto.failed == 0, traffic.boto.reasons
    assert traffic.wire.failed <= traffic.connections  # no more than that worker's open connections


def test_objects_killed_is_back(eyrie: RealEyrie) -> None:
    import boto3

    old = eyrie.processes()["objects"]
    os.kill(old, signal.SIGKILL)
    names = [b["Name"] for b in boto3.client("s3").list_buckets()["Buckets"]]
    assert "models" in names
    assert eyrie.processes()["objects"] != old


def test_a_killed_up_is_taken_over_by_the_next_without_a_gap(eyrie: RealEyrie, deployed: Deployed) -> None:
    before, old = eyrie.serving(ENDPOINT), eyrie.processes()
    with Traffic(ENDPOINT, deployed.rows) as traffic:
        os.kill(old["up"], signal.SIGKILL)
        quiet_seconds(0.5)
        assert "took over" in eyrie.up()
        until(lambda: not set(eyrie.processes().values()) & set(old.values()))
        quiet_seconds(0.5)
    assert (traffic.wire.failed, traffic.boto.failed) == (0, 0), traffic.wire.reasons
    assert eyrie.serving(ENDPOINT) == before


def test_everything_killed_comes_back_by_itself_with_the_next_up(eyrie: RealEyrie, deployed: Deployed) -> None:
    answer = deployed.ask(ENDPOINT)
    for pid in belonging_to(eyrie.data):
        with contextlib.suppress(ProcessLookupError):  # it ended with another
            os.kill(pid, signal.SIGKILL)
    until(lambda: not belonging_to(eyrie.data))
    eyrie.up()
    deployed.wait_in_service(ENDPOINT)
    until(lambda: whole(eyrie), 60.0)
    assert deployed.ask(ENDPOINT) == answer


def test_down_and_up_brings_the_endpoint_back(eyrie: RealEyrie, deployed: Deployed) -> None:
    eyrie.down()
    eyrie.up()
    until(lambda: whole(eyrie), 60.0)
    assert deployed.ask(ENDPOINT)
