"""Asynchronous inference, as a client sees it: results, failures and notifications; nothing is lost when processes and
instances are killed.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from .conftest import Deployed, RealEyrie, until

BUCKET = "async"


def place(url: str) -> dict[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def read(url: str) -> tuple[str, bytes] | None:
    """Content type and bytes of an object; None where there is none."""
    s3 = boto3.client("s3")
    try:
        found = s3.get_object(**place(url))
    except s3.exceptions.NoSuchKey:
        return None
    return found["ContentType"], found["Body"].read()


def variant(model: str, count: int) -> dict[str, Any]:
    return {"VariantName": "v", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}


def create(deployed: Deployed, name: str, count: int = 1, model: str = "sklearn", **output: Any) -> None:
    """An asynchronous endpoint, InService."""
    sagemaker = boto3.client("sagemaker")
    paths = {"S3OutputPath": f"s3://{BUCKET}/out", "S3FailurePath": f"s3://{BUCKET}/bad", **output}
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[variant(model, count)],
        AsyncInferenceConfig={"OutputConfig": paths},
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    deployed.wait_in_service(name)


@pytest.fixture(scope="module")
def asynchronous(deployed: Deployed) -> Iterator[Deployed]:
    """A bucket, topics with a queue, and an endpoint `a` that tells them."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    sns, sqs = boto3.client("sns"), boto3.client("sqs")
    topics = [sns.create_topic(Name=name)["TopicArn"] for name in ("done", "failed")]
    url = sqs.create_queue(QueueName="told")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    for topic in topics:
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    told = {"SuccessTopic": topics[0], "ErrorTopic": topics[1]}
    included = {"IncludeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"]}
    create(deployed, "a", NotificationConfig={**told, **included})
    yield deployed
    deployed.delete("a")


def test_by_location_by_body_and_in_vain(asynchronous: Deployed) -> None:
    runtime, row = boto3.client("sagemaker-runtime"), asynchronous.rows[0]
    boto3.client("s3").put_object(Bucket=BUCKET, Key="in/1.csv", Body=row.encode())
    by_location = runtime.invoke_endpoint_async(
        EndpointName="a", InputLocation=f"s3://{BUCKET}/in/1.csv", ContentType="text/csv", InferenceId="mine"
    )
    assert by_location["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert by_location["InferenceId"] == "mine"
    named = {"S3OutputPathExtension": "x/y", "Filename": "f.csv"}
    by_body = runtime.invoke_endpoint_async(EndpointName="a", Body=row, ContentType="text/csv", **named)
    assert by_body["OutputLocation"] == f"s3://{BUCKET}/out/x/y/f.csv"
    refused = runtime.invoke_endpoint_async(EndpointName="a", Body="no number", ContentType="text/csv")
    results = [until(lambda one=one: read(one["OutputLocation"])) for one in (by_location, by_body)]
    assert results[0] == results[1]
    assert results[0][0] == "application/json"
    kind, said = until(lambda: read(refused["FailureLocation"]))
    assert (kind, b"Received client error (400)" in said) == ("text/plain", True)
    assert read(refused["OutputLocation"]) is None
    _check_told({"mine": "Completed", by_body["InferenceId"]: "Completed", refused["InferenceId"]: "Failed"})


def _check_told(wanted: dict[str, str]) -> None:
    """The queue that both topics tell has a message of each request."""
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName="told")["QueueUrl"]
    told: dict[str, dict[str, Any]] = {}

    def hear() -> bool:
        for message in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10).get("Messages", []):
            said = json.loads(message["Body"])
            told[said["inferenceId"]] = said
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return told.keys() >= wanted.keys()

    until(hear)
    assert {name: told[name]["invocationStatus"] for name in wanted} == wanted
    for said in told.values():
        assert ("responseBody" in said) is (said["invocationStatus"] == "Completed")


def test_each_operation_is_for_its_kind_of_endpoint(asynchronous: Deployed) -> None:
    runtime, sagemaker = boto3.client("sagemaker-runtime"), boto3.client("sagemaker")
    with pytest.raises(ClientError, match=r"ValidationError.*takes InvokeEndpointAsync only"):
        runtime.invoke_endpoint(EndpointName="a", Body=b"1")
    with pytest.raises(ClientError, match=r"ValidationError.*not found"):
        runtime.invoke_endpoint_async(EndpointName="nobody", Body=b"1")
    sagemaker.create_endpoint_config(EndpointConfigName="sync", ProductionVariants=[variant("sklearn", 1)])
    with pytest.raises(ClientError, match="has no AsyncInferenceConfig"):
        sagemaker.update_endpoint(EndpointName="a", EndpointConfigName="sync")
    shown = sagemaker.describe_endpoint(EndpointName="a")["AsyncInferenceConfig"]["OutputConfig"]
    assert shown["S3OutputPath"] == f"s3://{BUCKET}/out"
    sagemaker.delete_endpoint_config(EndpointConfigName="sync")


def test_what_was_accepted_outlives_dispatch_and_its_instance(eyrie: RealEyrie, asynchronous: Deployed) -> None:
    """Dispatch and the one instance are killed with requests waiting: each has its result."""
    runtime = boto3.client("sagemaker-runtime")
    rows = asynchronous.rows[:40]
    accepted = []
    for number, row in enumerate(rows):
        accepted.append(runtime.invoke_endpoint_async(EndpointName="a", Body=row, ContentType="text/csv"))
        if number == 15:
            os.kill(eyrie.processes()["dispatch"], signal.SIGKILL)
        if number == 30:
            os.kill(next(i["pid"] for i in eyrie.instances("a")), signal.SIGKILL)
    ends = [
        until(lambda one=one: read(one["OutputLocation"]) or read(one["FailureLocation"]), 120.0) for one in accepted
    ]
    assert len(ends) == 40
    both = [one for one in accepted if read(one["OutputLocation"]) and read(one["FailureLocation"])]
    assert both == []
