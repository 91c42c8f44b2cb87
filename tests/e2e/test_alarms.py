"""An alarm on a real endpoint reaches a person: its 5XX rate, a topic, a rule, a web hook that is down for a while, and
control killed in between. Decisions run on a clock that is faster.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from .conftest import ROLE, RealEyrie, running, until

SCALE = 30
ENDPOINT = "watched"
CODE = b"""
def model_fn(model_dir):
    return 1
def input_fn(data, content_type):
    return data
def predict_fn(data, model):
    if b"bad" in (data if isinstance(data, bytes) else data.encode()):
        raise RuntimeError("it cannot")
    return "fine"
def output_fn(prediction, accept):
    return prediction
"""


class Hook:
    """A web hook: hears what it is told, and refuses while it is down."""

    def __init__(self) -> None:
        hook = self
        self.heard: list[tuple[str, dict[str, str], Any]] = []
        self.refused = 0
        self.down = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.refused += hook.down.is_set()
                if not hook.down.is_set():
                    hook.heard.append((self.path, dict(self.headers), json.loads(body)))
                self.send_response(503 if hook.down.is_set() else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def told(self, path: str) -> list[Any]:
        return [body for where, _, body in list(self.heard) if where == path]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture(scope="module")
def fast() -> Iterator[RealEyrie]:
    """A running Eyrie whose decisions' clock is faster."""
    with running(EYRIE_TIME_SCALE=SCALE) as eyrie:
        yield eyrie


def deploy() -> None:
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(CODE)
        tar.addfile(entry, io.BytesIO(CODE))
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="m.tar.gz", Body=made.getvalue())
    container = {"Image": "eyrie/python", "ModelDataUrl": "s3://models/m.tar.gz"}
    sagemaker.create_model(ModelName="m", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant: dict[str, Any] = {"VariantName": "AllTraffic", "ModelName": "m", "InstanceType": "ml.m5.large"}
    variant["InitialInstanceCount"] = 1
    variant["ContainerStartupHealthCheckTimeoutInSeconds"] = 3600  # which go by faster here
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="c")
    until(lambda: sagemaker.describe_endpoint(EndpointName=ENDPOINT)["EndpointStatus"] == "InService", 60)


class Callers:
    """Invocations that go on; all fail while they are bad."""

    def __init__(self) -> None:
        self.bad = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        runtime = boto3.Session().client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        while not self._over.wait(0.02):
            body = b"bad" if self.bad.is_set() else b"good"
            with contextlib.suppress(ClientError):
                runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType="text/plain", Body=body)


def make_alarm(topic: str) -> None:
    boto3.client("cloudwatch").put_metric_alarm(
        AlarmName="errors",
        AlarmDescription="too many errors",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": "EndpointName", "Value": ENDPOINT}, {"Name": "VariantName", "Value": "AllTraffic"}],
        Statistic="Average",
        Period=60,
        EvaluationPeriods=2,
        DatapointsToAlarm=1,
        Threshold=0.25,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="ignore",  # while control is dead, nothing is measured
        AlarmActions=[topic],
        OKActions=[topic],
    )


def state() -> str:
    (alarm,) = boto3.client("cloudwatch").describe_alarms(AlarmNames=["errors"])["MetricAlarms"]
    return str(alarm["StateValue"])


def test_errors_of_an_endpoint_reach_a_person_though_the_hook_is_down_and_control_is_killed(
    fast: RealEyrie, hook: Hook
) -> None:
    events, logs, sns = boto3.client("events"), boto3.client("logs"), boto3.client("sns")
    logs.create_log_group(logGroupName="/story")
    group = "arn:aws:logs:us-east-1:123456789012:log-group:/story"
    changes = {"source": ["aws.sagemaker"], "detail": {"EndpointName": [ENDPOINT], "EndpointStatus": ["IN_SERVICE"]}}
    events.put_rule(Name="deployed", EventPattern=json.dumps(changes))
    events.put_targets(Rule="deployed", Targets=[{"Id": "log", "Arn": group}])
    alarms = {"detail-type": ["CloudWatch Alarm State Change"], "detail": {"state": {"value": ["ALARM"]}}}
    events.put_rule(Name="alarmed", EventPattern=json.dumps(alarms))
    template = {"InputPathsMap": {"name": "$.detail.alarmName"}, "InputTemplate": '{"page": "<name> is in ALARM"}'}
    target = {"Id": "hook", "Arn": f"{hook.url}/event", "InputTransformer": template}
    events.put_targets(Rule="alarmed", Targets=[target])
    topic = sns.create_topic(Name="people")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=f"{hook.url}/topic")
    until(lambda: sns.get_topic_attributes(TopicArn=topic)["Attributes"]["SubscriptionsConfirmed"] == "1")
    assert hook.told("/topic")[0]["Type"] == "SubscriptionConfirmation"

    deploy()
    with Callers() as callers:
        make_alarm(topic)
        until(lambda: state() == "OK")
        hook.down.set()
        callers.bad.set()
        until(lambda: state() == "ALARM")
        until(lambda: hook.refused >= 2)
        old = fast.processes()["control"]
        os.kill(old, signal.SIGKILL)
        hook.down.clear()
        until(lambda: any(m.get("Subject", "").startswith('ALARM: "errors"') for m in hook.told("/topic")), 60)
        until(lambda: {"page": "errors is in ALARM"} in hook.told("/event"), 60)
        assert fast.processes()["control"] != old
        callers.bad.clear()
        until(lambda: state() == "OK", 60)
        until(lambda: any(m.get("Subject", "").startswith('OK: "errors"') for m in hook.told("/topic")), 60)

    message = json.loads(next(m["Message"] for m in hook.told("/topic") if m.get("Subject", "").startswith("ALARM")))
    assert (message["OldStateValue"], message["NewStateValue"]) == ("OK", "ALARM")
    assert "were greater than the threshold (0.25)" in message["NewStateReason"].replace("was ", "were ")
    assert message["Trigger"]["MetricName"] == "Invocation5XXErrors"
    lines = [json.loads(e["message"]) for e in logs.filter_log_events(logGroupName="/story")["events"]]
    assert [line["detail"]["EndpointStatus"] for line in lines] == ["IN_SERVICE"]
    summaries = [
        item["HistorySummary"]
        for item in boto3.client("cloudwatch").describe_alarm_history(
            AlarmName="errors", HistoryItemType="StateUpdate", ScanBy="TimestampAscending"
        )["AlarmHistoryItems"]
    ]
    assert summaries.count("Alarm updated from OK to ALARM") == 1
    assert summaries[-1] == "Alarm updated from ALARM to OK"
