"""A model that holds the interpreter's lock with boto3 against a real Eyrie: at work it is left alone, asleep it is
replaced.
"""

from __future__ import annotations

import tarfile
import time
from pathlib import Path
from textwrap import dedent

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from eyrie.cli.client import ControlClient

from .conftest import ROLE, WAIT, RealEyrie, until

ENDPOINT = "busy"
CODE = """
    import ctypes, time
    def model_fn(folder):
        began = time.perf_counter()
        sum(range(20_000_000))  # one call into C: the lock is not let go of
        return int(20_000_000 / (time.perf_counter() - began))
    def input_fn(body, kind):
        return body.decode() if isinstance(body, bytes) else body
    def predict_fn(word, a_second):
        began = time.perf_counter()
        if word == "work":
            sum(range(10 * a_second))
        elif word == "sleep":
            ctypes.PyDLL(None).sleep(60)  # with the lock held
        return [time.perf_counter() - began]
"""


@pytest.fixture
def endpoint(eyrie: RealEyrie, tmp_path: Path) -> str:
    script = tmp_path / "inference.py"
    script.write_text(dedent(CODE))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(script, "code/inference.py")
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.create_bucket(Bucket="busy")
    s3.upload_file(str(tmp_path / "model.tar.gz"), "busy", "model.tar.gz")
    container = {"Image": "eyrie/sklearn", "ModelDataUrl": "s3://busy/model.tar.gz"}
    container |= {"Environment": {"MODEL_SERVER_WORKERS": "1"}}  # type: ignore[dict-item]
    sagemaker.create_model(ModelName=ENDPOINT, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": ENDPOINT, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=ENDPOINT, WaiterConfig=WAIT)
    for client in (s3, sagemaker):
        client.close()
    return ENDPOINT


@pytest.mark.heavy
def test_at_work_it_is_left_alone_and_asleep_it_is_replaced(eyrie: RealEyrie, endpoint: str) -> None:
    runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}, read_timeout=70))

    def ask(word: str) -> float:
        answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=word)["Body"].read()
        return float(answer.strip(b"[]\n "))

    (before,) = eyrie.instances(endpoint)
    assert ask("work") > 3.0, "longer than two pings"
    assert ask("rest") < 1.0
    (after,) = eyrie.instances(endpoint)
    assert after["id"] == before["id"]
    events = ControlClient(eyrie.data, eyrie.exports()["AWS_REGION"]).story(endpoint)
    assert not [event for event in events if "UNKNOWN" in event["what"]]

    began = time.monotonic()
    with pytest.raises(ClientError):  # the instance that slept on it was given up
        ask("sleep")
    until(lambda: {i["id"] for i in eyrie.instances(endpoint)} - {before["id"]})
    until(lambda: eyrie.serving(endpoint) and before["id"] not in eyrie.serving(endpoint))
    assert time.monotonic() - began < 45, "not the minute that one at work may take"
    assert ask("rest") < 1.0
    runtime.close()
