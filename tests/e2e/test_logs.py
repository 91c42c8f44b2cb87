"""Logs of a real endpoint: what its instances print becomes a metric, requests per second by instance is one query, and
`eyrie insights` names the update that broke it. An alarm's name leads to the same.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from rollouts_world import MODELS, archive

from .conftest import ROLE, WAIT, RealEyrie, until

ENDPOINT = "watched"
PRINTED = f"/aws/sagemaker/Endpoints/{ENDPOINT}"
ANSWERED = f"/eyrie/Endpoints/{ENDPOINT}"


class Client:
    """One client that asks on and on, some 40 times a second; what it was answered."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _go_on(self) -> None:
        runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        while not self._stop.wait(0.02):
            try:
                runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType="text/csv", Body="1")
            except ClientError:
                self.failed += 1
            self.answered += 1
        runtime.close()


@pytest.fixture(scope="module")
def broken(eyrie: RealEyrie) -> Iterator[Client]:
    """An endpoint that was well for a while and then was updated to a model that raises."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.create_bucket(Bucket="models")
    for name in ("one", "broken"):
        s3.put_object(Bucket="models", Key=f"{name}.tar.gz", Body=archive(*MODELS[name]))
        container = {"Image": "eyrie/sklearn", "ModelDataUrl": f"s3://models/{name}.tar.gz"}
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="one")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=ENDPOINT, WaiterConfig=WAIT)
    filtered = {"metricName": "Raised", "metricNamespace": "App", "metricValue": "1"}
    boto3.client("logs").put_metric_filter(
        logGroupName=PRINTED, filterName="raised", filterPattern="RuntimeError", metricTransformations=[filtered]
    )
    with Client() as client:
        well_until = time.monotonic() + 25  # two periods of what insights look at: what is well has to be known
        until(lambda: client.answered > 100 and time.monotonic() > well_until, 60)
        sagemaker.update_endpoint(EndpointName=ENDPOINT, EndpointConfigName="broken")
        until(lambda: client.failed > 20, 60)
        yield client


def asked(group: str, query: str) -> list[dict[str, str]]:
    """The rows of a query over the last hour."""
    logs, now_s = boto3.client("logs"), int(time.time())
    begun = logs.start_query(logGroupName=group, startTime=now_s - 3600, endTime=now_s + 60, queryString=query)
    found = until(lambda: (r := logs.get_query_results(queryId=begun["queryId"]))["status"] == "Complete" and r)
    return [{cell["field"]: cell["value"] for cell in row} for row in found["results"]]


@pytest.mark.heavy
def test_an_update_that_breaks_it_is_named_first(eyrie: RealEyrie, broken: Client) -> None:
    def found() -> Any:
        told = eyrie.run("insights", ENDPOINT, "--json")
        assert told.returncode == 0, told.stderr
        insight = json.loads(told.stdout)[0]
        return insight if insight["explanations"] else None

    insight = until(found, 60)
    first = insight["explanations"][0]
    assert first["kind"] == "deployment"
    assert "UpdateEndpoint from one to config broken" in first["what"], insight
    assert first["certainty"] in ("very likely", "likely")
    assert any("of the errors are on" in told for told in first["evidence"])
    assert any("it cannot" in told for told in first["evidence"])  # what the model raised, out of its log
    assert "5xx" in insight["summary"]
    printed = eyrie.run("insights", ENDPOINT).stdout
    assert "very likely" in printed or "likely" in printed


@pytest.mark.heavy
def test_an_alarms_name_leads_to_the_endpoint(eyrie: RealEyrie, broken: Client) -> None:
    boto3.client("cloudwatch").put_metric_alarm(
        AlarmName="failing",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": "EndpointName", "Value": ENDPOINT}],
        Statistic="Sum",
        Period=10,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    insight = json.loads(eyrie.run("insights", "failing", "--json").stdout)[0]
    assert (insight["endpoint"], insight["alarm"]) == (ENDPOINT, "failing")
    unknown = eyrie.run("insights", "nothing-of-that-name")
    assert unknown.returncode == 1
    assert "no endpoint and no alarm" in unknown.stderr


@pytest.mark.heavy
def test_requests_per_second_by_instance_is_one_query(broken: Client) -> None:
    def counted() -> int:
        rows = asked(ANSWERED, 'filter kind = "second" | stats sum(requests) as rps by bin(1s), instance')
        assert rows[0]["bin(1s)"] >= rows[-1]["bin(1s)"]
        assert len({row["instance"] for row in rows}) == 4  # two of each fleet
        return sum(int(row["rps"]) for row in rows)

    before = broken.answered
    until(lambda: counted() >= before)
    singles = asked(ANSWERED, 'filter kind = "request" and status = 424 | stats count(*) as n by variant')
    assert int(singles[0]["n"]) > 20


@pytest.mark.heavy
def test_what_instances_print_is_asked_and_counted(broken: Client) -> None:
    rows = asked(PRINTED, "filter @message like /RuntimeError: it cannot/ | stats count(*) as n by @logStream")
    assert len(rows) == 2
    assert sum(int(row["n"]) for row in rows) > 20

    def counted() -> bool:
        found = boto3.client("cloudwatch").get_metric_statistics(
            Namespace="App",
            MetricName="Raised",
            StartTime=time.time() - 3600,
            EndTime=time.time() + 60,
            Period=60,
            Statistics=["Sum"],
        )
        return sum(point["Sum"] for point in found["Datapoints"]) > 20

    until(counted)


def test_users_logs_outlive_a_killed_control(eyrie: RealEyrie) -> None:
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName="/app")
    logs.create_log_stream(logGroupName="/app", logStreamName="s")
    for n in range(20):
        event = {"timestamp": int(time.time() * 1000), "message": f"event {n}"}
        logs.put_log_events(logGroupName="/app", logStreamName="s", logEvents=[event])
    os.kill(eyrie.processes()["control"], signal.SIGKILL)
    found = until(lambda: messages(logs))
    assert found == [f"event {n}" for n in range(20)]


def messages(logs: Any) -> list[str]:
    try:
        return [event["message"] for event in logs.filter_log_events(logGroupName="/app")["events"]]
    except ClientError:
        return []
