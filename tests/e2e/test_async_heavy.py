"""Asynchronous inference at length: chaos, poison, 1 GB, to zero instances and back, the SageMaker SDK."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from async_chaos import Chaos

from .conftest import ROLE, Deployed, RealEyrie, running, until
from .test_async import read

pytestmark = pytest.mark.heavy

SDK = Path(__file__).parents[2] / ".venv-sdk2" / "bin" / "python"
BUCKET = "async"
CODE = b"""
import os, time
def model_fn(folder):
    return None
def input_fn(body, kind):
    return body
def predict_fn(body, model):
    if bytes(body[:6]) == b"poison":
        os.kill(os.getpid(), 9)
    if bytes(body[:4]) == b"slow":
        time.sleep(float(body[4:]))
    return len(body)
def output_fn(size, accept):
    return str(size), "text/plain"
"""


def archive(**files: bytes) -> bytes:
    """A model archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/").replace("_py", ".py"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def deploy_code(name: str, count: int, **variant: Any) -> None:
    """An asynchronous endpoint with user code, InService."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.put_object(Bucket=BUCKET, Key=f"{name}.tar.gz", Body=archive(code__inference_py=CODE))
    container = {
        "Image": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
        "ModelDataUrl": f"s3://{BUCKET}/{name}.tar.gz",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    made = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[{**made, **variant}],
        AsyncInferenceConfig={
            "OutputConfig": {"S3OutputPath": f"s3://{BUCKET}/out", "S3FailurePath": f"s3://{BUCKET}/bad"},
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
        },
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    waiter = sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 90})


@pytest.fixture(scope="module")
def bucket(eyrie: RealEyrie) -> None:
    boto3.client("s3").create_bucket(Bucket=BUCKET)


def test_each_request_has_one_end_whatever_is_killed(tmp_path: Path) -> None:
    with running() as eyrie:
        chaos = Chaos(eyrie.data, 3, ("dispatch", "instance", "objects", "control", "gateway-0"))
        outcome = chaos.run(chaos.deploy(2, tmp_path), requests=500, seconds=20.0, pause_s=1.5)
        assert outcome.good, outcome.words()
        assert outcome.accepted == 500
        assert sum(outcome.kills.values()) >= 2


def test_a_poisonous_request_ends_in_the_failure_path_and_takes_no_other_with_it(bucket: None) -> None:
    """It is among others when it kills its first instance, and alone when it kills its second."""
    deploy_code("poison", 1)
    runtime = boto3.client("sagemaker-runtime")
    bodies = [b"slow0.3", b"slow0.3", b"poison", b"slow0.3", *(b"fine" for _ in range(8))]
    told = [runtime.invoke_endpoint_async(EndpointName="poison", Body=b, ContentType="text/plain") for b in bodies]
    _, reason = until(lambda: read(told[2]["FailureLocation"]), 60.0)
    assert b"2 instances ended while they had this request" in reason
    for body, one in zip(bodies, told, strict=True):
        if body != b"poison":
            found = until(lambda one=one: read(one["OutputLocation"]), 60.0)
            assert found == ("text/plain", str(len(body)).encode())
            assert read(one["FailureLocation"]) is None
    assert read(told[2]["OutputLocation"]) is None


def peak_rss_mb(pid: int) -> float:
    """The most memory that a process had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def test_a_gigabyte_passes_in_flat_memory(eyrie: RealEyrie, bucket: None, capsys: pytest.CaptureFixture[str]) -> None:
    deploy_code("large", 1)
    size = (1 << 30) - 4096
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        boto3.client("s3").upload_fileobj(file, BUCKET, "in/large")
    processes = eyrie.processes()
    watched = {name: processes[name] for name in ("dispatch", "objects", "gateway-0", "gateway-1", "control")}
    runtime = boto3.client("sagemaker-runtime")
    began = time.monotonic()
    told = runtime.invoke_endpoint_async(
        EndpointName="large", InputLocation=f"s3://{BUCKET}/in/large", ContentType="application/x-large"
    )
    end = until(lambda: read(told["OutputLocation"]) or read(told["FailureLocation"]), 80.0)
    took_s = time.monotonic() - began
    peaks = {name: peak_rss_mb(pid) for name, pid in watched.items()}
    rounded = {name: round(peak) for name, peak in peaks.items()}
    with capsys.disabled():
        print(f"1 GB in {took_s:.1f} s; peak resident memory, MB: {rounded}")
    assert end == ("text/plain", str(size).encode())
    assert peaks["dispatch"] < 160
    assert max(peaks.values()) < 300


@pytest.fixture
def hasty() -> Iterator[RealEyrie]:
    """An Eyrie whose minutes take a second."""
    with running(EYRIE_TIME_SCALE=60) as eyrie:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield eyrie


@pytest.mark.soak
def test_a_backlog_scales_out_and_idleness_scales_to_zero_and_back(hasty: RealEyrie) -> None:
    deploy_code("elastic", 1, ContainerStartupHealthCheckTimeoutInSeconds=3600)
    scaling, sagemaker = boto3.client("application-autoscaling"), boto3.client("sagemaker")
    of = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/elastic/variant/v",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    dimensions = [{"Name": "EndpointName", "Value": "elastic"}]
    metric = {"Namespace": "AWS/SageMaker", "Dimensions": dimensions, "Statistic": "Average"}
    scaling.register_scalable_target(**of, MinCapacity=0, MaxCapacity=3)
    scaling.put_scaling_policy(
        **of,
        PolicyName="backlog",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 5.0,
            "CustomizedMetricSpecification": {"MetricName": "ApproximateBacklogSizePerInstance", **metric},
            "ScaleInCooldown": 60,
            "ScaleOutCooldown": 60,
        },
    )
    step = scaling.put_scaling_policy(
        **of,
        PolicyName="awake",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "Cooldown": 60,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        },
    )
    boto3.client("cloudwatch").put_metric_alarm(
        AlarmName="elastic-awake",
        MetricName="HasBacklogWithoutCapacity",
        **metric,
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        AlarmActions=[step["PolicyARN"]],
    )

    def counts() -> tuple[int, int]:
        variant = sagemaker.describe_endpoint(EndpointName="elastic")["ProductionVariants"][0]
        return variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]

    until(lambda: counts() == (0, 0), 60.0)  # nothing to do: to zero
    until(lambda: sagemaker.describe_endpoint(EndpointName="elastic")["EndpointStatus"] == "InService")
    runtime = boto3.client("sagemaker-runtime")
    told = [
        runtime.invoke_endpoint_async(EndpointName="elastic", Body=b"slow1.0", ContentType="text/plain")
        for _ in range(100)
    ]
    until(lambda: counts()[0] >= 1, 40.0)  # by the alarm
    until(lambda: counts()[1] == 3, 40.0)  # by the backlog an instance
    for one in told:
        assert until(lambda one=one: read(one["OutputLocation"]), 90.0) == ("text/plain", b"7")
    until(lambda: counts() == (0, 0), 90.0)  # and to zero again


SDK_PROGRAM = """
import json, os, sys
import boto3
from sagemaker.session import Session
from sagemaker.predictor import Predictor
from sagemaker.predictor_async import AsyncPredictor
from sagemaker.async_inference import WaiterConfig
from sagemaker.serializers import CSVSerializer
from sagemaker.deserializers import BytesDeserializer
boto = boto3.Session()
session = Session(boto_session=boto, default_bucket="async")
inner = Predictor("sdk", sagemaker_session=session, serializer=CSVSerializer(), deserializer=BytesDeserializer())
predictor = AsyncPredictor(inner, name="sdk")
wait = WaiterConfig(max_attempts=60, delay=1)
one = predictor.predict_async(data=sys.argv[1], input_path="s3://async/in/sdk.csv")
found = one.get_result(wait)
both = predictor.predict(data=sys.argv[1], input_path="s3://async/in/sdk2.csv", waiter_config=wait)
said = {"output": one.output_path, "failure": one.failure_path}
print(json.dumps({**said, "result": found.decode(), "again": both.decode()}), flush=True)
os._exit(0)  # the SDK's threads that look for a failure that there is not would look on for a minute
"""


@pytest.mark.skipif(not SDK.exists(), reason="make test-heavy makes the SDK's environment")
def test_the_sdks_async_predictor_works_unchanged(eyrie: RealEyrie, deployed: Deployed, bucket: None) -> None:
    from .test_async import create

    create(deployed, "sdk")
    done = subprocess.run(
        [str(SDK), "-c", SDK_PROGRAM, deployed.rows[0]], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert said["output"].startswith("s3://async/out/")
    assert said["failure"].startswith("s3://async/bad/")
    assert said["result"] == said["again"]
    assert said["result"] == read(said["output"])[1].decode()  # type: ignore[index]
