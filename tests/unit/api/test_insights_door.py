"""`/eyrie/insights` through the signed door: measured metrics, a story and printed lines become an explanation."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from eyrie.control import alarm_table
from eyrie.domain.alarms import Alarm, AlarmState, Comparison, CompositeRule, MetricStat, rule_on_metric
from eyrie.domain.metrics import Measured, Metric, Summary
from eyrie.domain.names import Scope
from eyrie.ports import Commit, Event

SCOPE = Scope("123456789012", "us-east-1")
NAMESPACE = "AWS/SageMaker"
NAME = "explained"


def asked(door: Any, name: str) -> tuple[int, Any]:
    """Status and body of `GET /eyrie/insights/NAME`."""
    url = f"{door.url}/eyrie/insights/{name}"
    request = AWSRequest("GET", url)
    key = door.keys[0]
    SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1").add_auth(request)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(request.headers.items()))) as reply:
            return reply.status, json.load(reply)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def failing_from(door: Any, from_ms: int) -> None:
    """Ten requests every ten seconds over half an hour, of which all fail from a time on."""
    metrics = door.app._with.metrics
    measured = []
    for at_ms in range(door.clock.at_ms - 1_800_000, door.clock.at_ms, 10_000):
        for instance in ("i-1", "i-2"):
            new = instance == "i-2"
            if new is not (at_ms >= from_ms):
                continue
            for name, value in (("Invocations", 1.0), ("Invocation5XXErrors", float(new))):
                summary = Summary()
                summary.add(value, 10)
                endpoint = ("EndpointName", NAME)
                both = ((endpoint,), (endpoint, ("InstanceId", instance), ("VariantName", "v")))
                measured += [Measured(Metric(SCOPE, NAMESPACE, name, d), at_ms, summary) for d in both]
    metrics.record(measured)


def printed(data: Path, at_ms: int) -> None:
    folder = data / "logs" / "endpoints" / f"123456789012.us-east-1.{NAME}" / "v"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    (folder / "i-2.log").write_text(f"{stamp} Traceback\nKeyError: 'age'\n")


def test_an_alarm_on_a_broken_update_is_explained_by_it(door: Any) -> None:
    broke_ms = door.clock.at_ms - 300_000
    story = [
        Event("Endpoint", SCOPE, NAME, broke_ms - 1_500_000, "endpoint Creating", "CreateEndpoint with config a"),
        Event("Endpoint", SCOPE, NAME, broke_ms - 4_000, "endpoint Updating", "UpdateEndpoint from a to config b"),
    ]
    stat = MetricStat(NAMESPACE, "Invocation5XXErrors", "Average", 60, (("EndpointName", NAME),))
    rule = rule_on_metric(stat, Comparison.ABOVE, 0.1, 1)
    transitioned = {"state": AlarmState.ALARM, "transitioned_ms": broke_ms + 60_000}
    alarm_table.put(door.store, Alarm(SCOPE, "failing", metric=rule, **transitioned), door.clock.at_ms)
    together = CompositeRule('ALARM("failing") AND NOT ALARM("other")')
    alarm_table.put(door.store, Alarm(SCOPE, "together", composite=together), door.clock.at_ms)
    door.store.commit(Commit(events=story))
    failing_from(door, broke_ms)
    printed(door.data, broke_ms + 1_000)
    for name in ("failing", "together", NAME):
        status, body = asked(door, name)
        assert status == 200, body
        told = body["insights"][0]
        assert told["endpoint"] == NAME
        first = told["explanations"][0]
        assert (first["kind"], first["what"]) == ("deployment", "UpdateEndpoint from a to config b")
        assert any("KeyError" in evidence for evidence in first["evidence"])


def test_what_is_not_there_is_said(door: Any) -> None:
    status, body = asked(door, "nothing")
    assert (status, body["Message" if "Message" in body else "message"]) == (
        400,
        "There is no endpoint and no alarm 'nothing' here.",
    )
    stat = MetricStat("App", "Errors", "Sum", 60)
    alarm = Alarm(SCOPE, "foreign", metric=rule_on_metric(stat, Comparison.ABOVE, 1.0, 1))
    alarm_table.put(door.store, alarm, door.clock.at_ms)
    assert "watches no metric of an endpoint" in str(asked(door, "foreign")[1])
    assert asked(door, "")[1] == {"insights": []}
