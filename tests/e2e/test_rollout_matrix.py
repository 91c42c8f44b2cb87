"""Every policy, completing and given back in every way, under constant load from 32 clients, with real processes.

Of each cell: no request fails but those that a bad green answered itself, and no gateway worker ever gave green more
than the policy allows, within one request: counted from the access records, by the generation of the route table that
the worker had applied. Decisions run on a clock that is thirty times as fast.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import rollouts_world as world
from rollouts_world import POLICIES, SHARES, Counted, Load, Tables

from .conftest import RealEyrie, running, until

SCALE = 30
ENDPOINT = "guarded"
LONG_BAKE_S = 1_500  # beyond which no trouble goes unseen
TROUBLES = {  # what becomes of a deployment: the config that is deployed, and the reason that is given
    "completes": ("", ""),
    "an alarm": ("", "are in ALARM: trouble"),
    "never healthy": ("stillborn", "no weights"),
    "500s": ("broken", "are in ALARM: broken-Invocation5XXErrors"),
    "slow": ("slow", "are in ALARM: slow-ModelLatency"),
    "time limit": ("late", "longer than its MaximumExecutionTimeoutInSeconds of 600"),
}
UNSEEN = ("never healthy", "time limit")  # green never gets traffic
OFTEN = (("canary", "completes"), ("rolling", "500s"))
BEFORE_A_CHANGE = ("completes", "500s")  # of every policy, and all of a canary's; the other cells are long: `make soak`


def marks_of(how: str, what: str) -> list[pytest.MarkDecorator]:
    """How often a cell is run."""
    if (how, what) in OFTEN:
        return []
    if how == "canary" or what in BEFORE_A_CHANGE:
        return [pytest.mark.heavy]
    return [pytest.mark.heavy, pytest.mark.soak]


CELLS = [
    pytest.param(how, what, marks=marks_of(how, what))
    for what in TROUBLES
    for how in POLICIES
]


@dataclass
class Stage:
    """A running Eyrie, its endpoint, and those who load it."""

    eyrie: RealEyrie
    load: Load

    @property
    def table(self) -> Path:
        """The file of the endpoint's route table."""
        return next((self.eyrie.data / "routes").glob(f"*.{ENDPOINT}.json"))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """An endpoint of two instances and two gateway workers, under load from here on."""
    records = 1  # of single requests: here only each second's sums are read
    with running(EYRIE_TIME_SCALE=SCALE, EYRIE_GATEWAYS=2, EYRIE_ACCESS_RECORDS=records) as eyrie:
        sagemaker = boto3.client("sagemaker")
        world.create_configs(boto3.client("s3"), sagemaker)
        sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="one")
        world.settled(sagemaker, ENDPOINT)
        with Load(eyrie.data, ENDPOINT) as load:
            until(lambda: load.answered > 10 * world.CLIENTS, 60.0)
            yield Stage(eyrie, load)


def deployment(how: str, what: str) -> dict[str, Any]:
    """The DeploymentConfig of a cell; its alarm is OK."""
    if what == "500s":
        return {
            **world.policy(how, LONG_BAKE_S),
            **world.alarm_on(ENDPOINT, "broken", "Invocation5XXErrors", 0.5),
        }
    if what == "slow":
        return {**world.policy(how, LONG_BAKE_S), **world.alarm_on(ENDPOINT, "slow", "ModelLatency", 100_000)}
    if what == "an alarm":
        return {**world.policy(how, LONG_BAKE_S), **world.alarm(f"trouble-{how}", "Tests", f"Trouble {how}", 0.5, [])}
    if what == "time limit":
        return world.policy(how, bake_s=60, limit_s=600)
    return world.policy(how, bake_s=90 if what == "completes" else 60)


def rolled_out(stage: Stage, how: str, what: str, before: dict[str, Any]) -> tuple[dict[str, Any], Tables]:
    """Update the endpoint and wait for what becomes of it; the endpoint, and every table on the way."""
    sagemaker = boto3.client("sagemaker")
    config = TROUBLES[what][0] or ("two" if before["EndpointConfigName"] == "one" else "one")
    wanted = deployment(how, what)
    with Tables(stage.table) as tables:
        blue = next(iter(tables.seen[tables.newest].weights))
        sagemaker.update_endpoint(EndpointName=ENDPOINT, EndpointConfigName=config, DeploymentConfig=wanted)
        if what == "an alarm":
            until(lambda: max(tables.seen[tables.newest].weights) > blue, 90.0)
            trouble = {"MetricName": f"Trouble {how}", "Value": 1.0}
            boto3.client("cloudwatch").put_metric_data(Namespace="Tests", MetricData=[trouble])
        found = world.settled(sagemaker, ENDPOINT)
    return found, tables


def answered(stage: Stage, since: dict[str, Any], tables: Tables) -> Counted:
    """What the access records say, once each worker has told of the last table, and of a second after it: what one
    instance answered in a second may be read a moment before what another did.
    """
    logs, since_ms = boto3.client("logs"), int(since["LastModifiedTime"].timestamp() * 1000)

    def read() -> Counted:
        return world.counted(logs, ENDPOINT, since_ms, tables)

    def told() -> Counted | None:
        found = read()
        workers = {worker for worker, _ in found.places}
        last = {worker for worker, generation in found.places if generation >= tables.newest}
        return found if workers and last == workers else None

    words = stage.load.words
    until(lambda: stage.load.words > words + 1)  # what failed until then is known
    first: Counted = until(told, 60.0)
    until(lambda: (now := read().latest) and all(now[worker] > at_ms for worker, at_ms in first.latest.items()), 60.0)
    return read()


@pytest.mark.parametrize(("how", "what"), CELLS)
def test_a_rollout_under_load(stage: Stage, how: str, what: str) -> None:
    before = boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    failed = stage.load.failures
    found, tables = rolled_out(stage, how, what, before)
    config, reason = TROUBLES[what]
    if what == "completes":
        assert found["EndpointConfigName"] != before["EndpointConfigName"]
        assert "FailureReason" not in found
    else:
        assert found["EndpointConfigName"] == before["EndpointConfigName"]
        assert reason in found["FailureReason"]
    blue = min(fleet for table in tables.seen.values() for fleet in table.weights)
    greens = {fleet for table in tables.seen.values() for fleet in table.weights if fleet > blue}
    assert len(greens) == (what not in UNSEEN), greens
    green = greens.pop() if greens else 0
    records = answered(stage, before, tables)
    by_green = records.errors[green]
    assert not records.strangers
    assert records.errors.total() == by_green  # blue answered every request well
    assert (by_green > 0) == (config == "broken")
    assert stage.load.failures - failed == Counter({"424 ModelError": by_green} if by_green else {}), records
    within(records, tables, green, how, what)


def within(records: Counted, tables: Tables, green: int, how: str, what: str) -> None:
    """Green never had more than its policy allows."""
    shares = {generation: table.share(green) for generation, table in tables.seen.items()}
    assert {round(share, 9) for share in shares.values()} <= set(SHARES[how]), shares
    most = 1.0 if what == "completes" else 0.0 if what in UNSEEN else SHARES[how][1]
    assert max(shares.values()) == pytest.approx(most), shares
    assert world.excesses(records, tables, green) == []
    first = min((g for g, share in shares.items() if share), default=0)
    if first:
        assert any(records.dealt(worker, first)[green] for worker, _ in records.places), records.requests


@pytest.mark.heavy
def test_a_rollout_is_replayed_on_recorded_traffic(stage: Stage, tmp_path: Path) -> None:
    """`eyrie simulate --rollout --traffic recorded`, with the requests and the instances of the real endpoint."""
    plan = tmp_path / "rollout.json"
    canary = {"DeploymentConfig": world.policy("canary", bake_s=600), "InstanceCount": world.INSTANCES}
    plan.write_text(json.dumps({**canary, "CanaryAnalysis": "LatencyIncrease=off MinimumSamples=100"}))
    told = {}
    for green in ("errors=0", "errors=0.5"):
        words = ("simulate", "--rollout", str(plan), "--traffic", "recorded:2h", "--endpoint", ENDPOINT)
        done = stage.eyrie.run(*words, "--green", green)
        assert done.returncode == 0, done.stderr
        told[green] = done.stdout
    assert f"{ENDPOINT}, last 2 h; 2 instances" in told["errors=0"]
    assert "SUCCEEDED" in told["errors=0"]
    assert "ROLLED_BACK" in told["errors=0.5"]
    assert "errors FAIL" in told["errors=0.5"]
