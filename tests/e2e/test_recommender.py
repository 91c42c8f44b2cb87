"""Inference recommendations end to end: jobs by boto3 that deploy, load and measure, and find the better of two ways to
host a model; runs and control are killed in the middle, and nothing is left behind.
"""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import joblib
import numpy as np
import pytest
import xgboost
from botocore.exceptions import ClientError
from sklearn.ensemble import RandomForestClassifier

from demo import belonging_to
from e2e.conftest import ROLE, RealEyrie, not_yet, running, until
from eyrie.adapters import cgroups
from eyrie.cli.data import check_version

ENDED = ("COMPLETED", "FAILED", "STOPPED")
WORKERS = "MODEL_SERVER_WORKERS"
SLOW, FAST, DEAR = "ml.m4.xlarge", "ml.m4.2xlarge", "ml.m4.4xlarge"
TYPES = {
    name: {"vcpu": 1, "memory_mb": 4096, "cpu_percent": percent, "usd_per_hour": usd}
    for name, percent, usd in ((SLOW, 12, 0.1), (FAST, 24, 0.1), (DEAR, 24, 0.4))
}
FEATURES, ROWS = 12, 400
CODE = b"""
import time

def model_fn(folder):
    return 0.04

def input_fn(data, content_type):
    return data

def predict_fn(data, pause_s):
    time.sleep(pause_s)
    return b"1\\n"

def output_fn(found, accept):
    return found, "text/csv"
"""


def packed(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return made.getvalue()


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    """One whose table has types of a share of a core."""
    made = not_yet()
    (made.data / "instance_types.json").write_text(json.dumps({"types": TYPES}))
    check_version(made.data)  # makes it a data directory
    with running(eyrie=made):
        yield made


@pytest.fixture(scope="module")
def sleepy(eyrie: RealEyrie) -> str:
    """A model whose worker answers 25 requests a second, whatever the host."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.create_bucket(Bucket="tried")
    s3.put_object(Bucket="tried", Key="model.tar.gz", Body=packed({"code/inference.py": CODE}))
    s3.put_object(Bucket="tried", Key="payload.tar.gz", Body=packed({"a.csv": b"1,2", "b.csv": b"3,4"}))
    container = {"Image": "eyrie/python", "ModelDataUrl": "s3://tried/model.tar.gz"}
    sagemaker.create_model(ModelName="sleepy", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    return "sleepy"


def begin(name: str, model: str, configurations: list[dict[str, Any]], **more: Any) -> None:
    seconds, count = more.pop("seconds", 2), more.pop("steps", 1)
    stairs = {"DurationInSeconds": seconds, "NumberOfSteps": count, "UsersPerStep": 3}
    payload = {"SamplePayloadUrl": "s3://tried/payload.tar.gz", "SupportedContentTypes": ["text/csv"]}
    there = [{"EndpointName": one} for one in more.pop("endpoints", [])]
    tried = {"Endpoints": there} if there else {"EndpointConfigurations": configurations}
    boto3.client("sagemaker").create_inference_recommendations_job(
        JobName=name,
        JobType="Advanced",
        RoleArn=ROLE,
        InputConfig={
            "ModelName": model,
            "JobDurationInSeconds": 900,
            "ContainerConfig": {"PayloadConfig": {**payload, **more.pop("payload", {})}},
            **tried,
            "TrafficPattern": {"TrafficType": "STAIRS", "Stairs": stairs},
        },
        **more,
    )


def ranges(instance_type: str, **values: list[str]) -> dict[str, Any]:
    """One EndpointConfiguration."""
    given = [{"Name": name, "Value": value} for name, value in values.items()]
    return {"InstanceType": instance_type, "EnvironmentParameterRanges": {"CategoricalParameterRanges": given}}


def over(name: str, seconds: float = 120.0) -> dict[str, Any]:
    """The job, once it is over."""

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = boto3.client("sagemaker").describe_inference_recommendations_job(JobName=name)
        return job if job["Status"] in ENDED else None

    return dict(until(look, seconds))


def variables(recommended: dict[str, Any]) -> dict[str, str]:
    given = recommended["ModelConfiguration"].get("EnvironmentParameters", [])
    return {one["Key"]: one["Value"] for one in given}


def left() -> list[str]:
    """What recommendations jobs have made and not removed."""
    sagemaker = boto3.client("sagemaker")
    endpoints = [one["EndpointName"] for one in sagemaker.list_endpoints(MaxResults=100)["Endpoints"]]
    configs = [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs(MaxResults=100)["EndpointConfigs"]]
    models = [one["ModelName"] for one in sagemaker.list_models(MaxResults=100)["Models"]]
    return [name for name in (*endpoints, *configs, *models) if name.startswith("sm-")]


def steps(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = boto3.client("sagemaker").list_inference_recommendations_job_steps(JobName=name)[
        "Steps"
    ]
    return found


def runs(eyrie: RealEyrie) -> Iterator[int]:
    """Processes of recommendations jobs."""
    for pid in belonging_to(eyrie.data):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if Path(f"/proc/{pid}").exists() else []
        if b"eyrie.recommender" in words and words[0].endswith(b"python"):
            yield pid


@pytest.mark.heavy
def test_the_better_of_two_is_found(eyrie: RealEyrie, sleepy: str) -> None:
    begin("workers", sleepy, [ranges("ml.m5.large", **{WORKERS: ["1", "2"]})], seconds=6)
    job = over("workers")
    assert job["Status"] == "COMPLETED", job
    assert len(job["InferenceRecommendations"]) == 2, steps("workers")
    best, other = job["InferenceRecommendations"]
    assert (variables(best)[WORKERS], variables(other)[WORKERS]) == ("2", "1")
    assert best["Metrics"]["MaxInvocations"] > 1.5 * other["Metrics"]["MaxInvocations"]
    assert best["Metrics"]["ModelLatency"] >= 40
    assert best["Metrics"]["CostPerInference"] == pytest.approx(
        best["Metrics"]["CostPerHour"] / best["Metrics"]["MaxInvocations"] / 60, rel=1e-3
    )
    assert best["EndpointConfiguration"]["InstanceType"] == "ml.m5.large"
    assert [step["Status"] for step in steps("workers")] == ["COMPLETED", "COMPLETED"]
    assert left() == []
    sagemaker, cloudwatch = boto3.client("sagemaker"), boto3.client("cloudwatch")
    scaling = sagemaker.get_scaling_configuration_recommendation(InferenceRecommendationsJobName="workers")
    assert scaling["RecommendationId"] == best["RecommendationId"]
    target = scaling["DynamicScalingConfiguration"]["ScalingPolicies"][0]["TargetTracking"]["TargetValue"]
    assert target == int(0.8 * best["Metrics"]["MaxInvocations"])
    put = cloudwatch.list_metrics(Namespace="/aws/sagemaker/InferenceRecommendationsJobs", MetricName="ClientLatency")
    assert len(put["Metrics"]) == 2
    streams = boto3.client("logs").describe_log_streams(logGroupName="/aws/sagemaker/InferenceRecommendationsJobs")
    assert [stream["logStreamName"] for stream in streams["logStreams"]] == ["workers"]


@pytest.mark.heavy
def test_a_compiled_model_is_recommended(eyrie: RealEyrie, sleepy: str) -> None:
    made = RandomForestClassifier(60, max_depth=8, random_state=0, n_jobs=1).fit(*examples())
    create_model("compiled", "sklearn", "model.joblib", dumped(made))
    boto3.client("s3").put_object(Bucket="tried", Key="row.csv", Body=",".join(["0.1"] * FEATURES).encode())
    row = {"SamplePayloadUrl": "s3://tried/row.csv"}
    begin("compiled", "compiled", [ranges("ml.m5.large", EYRIE_COMPILE=["1", "0"])], payload=row)
    job = over("compiled", 280.0)
    assert job["Status"] == "COMPLETED", job
    best, other = job["InferenceRecommendations"]
    assert variables(best)["EYRIE_COMPILE"] == "1"
    assert best["Metrics"]["MaxInvocations"] > 1.3 * other["Metrics"]["MaxInvocations"], job


@pytest.mark.heavy
@pytest.mark.skipif("cpu" not in cgroups.detect("eyrie-test-recommender").controllers, reason="no control groups here")
@pytest.mark.parametrize(
    ("framework", "types", "best", "faster"),
    [
        ("sklearn", (SLOW, FAST), FAST, FAST),
        ("xgboost", (FAST, SLOW), FAST, FAST),
        ("lightgbm", (DEAR, SLOW), SLOW, DEAR),  # twice as many for four times the price
    ],
)
def test_the_better_of_two_that_differ_by_two_is_found(
    eyrie: RealEyrie, sleepy: str, framework: str, types: tuple[str, str], best: str, faster: str
) -> None:
    """A model of each of three frameworks that needs CPU, on types that cap it at an eighth and at a quarter of a core:
    what such caps allow is the same on a busy host.
    """
    create_model(framework, framework, *trained_on(framework))
    rows = "\n".join(",".join(f"{value:.4f}" for value in row) for row in examples()[0][:ROWS])
    boto3.client("s3").put_object(Bucket="tried", Key="rows.csv", Body=rows.encode())
    payload = {"SamplePayloadUrl": "s3://tried/rows.csv"}
    begin(f"two-{framework}", framework, [{"InstanceType": one} for one in types], payload=payload, steps=2, seconds=6)
    job = over(f"two-{framework}", 280.0)
    assert job["Status"] == "COMPLETED", job
    found = {one["EndpointConfiguration"]["InstanceType"]: one["Metrics"] for one in job["InferenceRecommendations"]}
    assert list(found) == [best, next(one for one in types if one != best)], job
    assert 1.5 < found[faster]["MaxInvocations"] / found[SLOW]["MaxInvocations"] < 2.7, job
    costs = [metrics["CostPerInference"] for metrics in found.values()]
    assert 1.5 < costs[1] / costs[0] < 2.7, job
    assert left() == []


def trained_on(framework: str) -> tuple[str, bytes]:
    """A model of some milliseconds for ROWS rows: the name of its file, and what is in it."""
    features, truth = examples()
    if framework == "sklearn":
        return "model.joblib", dumped(RandomForestClassifier(100, max_depth=10, n_jobs=1).fit(features, truth))
    if framework == "xgboost":
        settings = {"objective": "binary:logistic", "max_depth": 8, "nthread": 1}
        return "xgboost-model.json", bytes(
            xgboost.train(settings, xgboost.DMatrix(features, truth), 300).save_raw("json")
        )
    lightgbm = pytest.importorskip("lightgbm")
    settings = {"objective": "binary", "num_leaves": 127, "verbose": -1, "num_threads": 1}
    return "model.txt", lightgbm.train(settings, lightgbm.Dataset(features, truth), 300).model_to_string().encode()


def examples() -> tuple[Any, Any]:
    """What to learn from: rows of FEATURES, and their classes."""
    features = np.random.default_rng(0).normal(size=(2_000, FEATURES))
    return features, (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int)


def dumped(made: Any) -> bytes:
    """As joblib writes it."""
    file = io.BytesIO()
    joblib.dump(made, file)
    return file.getvalue()


def create_model(name: str, framework: str, file: str, content: bytes) -> None:
    """An archive of one file in the bucket, and the model that it is."""
    boto3.client("s3").put_object(Bucket="tried", Key=f"{name}.tar.gz", Body=packed({file: content}))
    container = {"Image": f"eyrie/{framework}", "ModelDataUrl": f"s3://tried/{name}.tar.gz"}
    boto3.client("sagemaker").create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)


@pytest.mark.heavy
def test_a_killed_run_goes_on_and_a_stopped_one_removes_what_it_made(
    eyrie: RealEyrie, sleepy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "12")  # control is away for a moment
    monkeypatch.setenv("AWS_RETRY_MODE", "standard")
    begin("killed", sleepy, [ranges("ml.m5.large", **{WORKERS: ["1", "2"]})], steps=2)
    begin("stopped", sleepy, [{"InstanceType": "ml.m5.large"}], steps=5)
    until(left, 60.0)
    for pid in [*runs(eyrie), eyrie.processes()["control"]]:
        os.kill(pid, signal.SIGKILL)
    job = over("killed")
    assert job["Status"] == "COMPLETED", job
    assert variables(job["InferenceRecommendations"][0])[WORKERS] == "2"
    until(lambda: left() and steps("stopped"), 60.0)  # of the other, which has waited
    boto3.client("sagemaker").stop_inference_recommendations_job(JobName="stopped")
    assert over("stopped")["Status"] == "STOPPED"
    assert left() == []
    assert [step["Status"] for step in steps("stopped")] == ["STOPPED"]
    with pytest.raises(ClientError, match="only one that is COMPLETED"):
        boto3.client("sagemaker").get_scaling_configuration_recommendation(InferenceRecommendationsJobName="stopped")


@pytest.mark.heavy
@pytest.mark.soak
def test_an_endpoint_that_there_is_and_a_latency_that_nothing_keeps(eyrie: RealEyrie, sleepy: str) -> None:
    sagemaker = boto3.client("sagemaker")
    variant = {"VariantName": "own", "ModelName": sleepy, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="own", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="own", EndpointConfigName="own")
    until(lambda: sagemaker.describe_endpoint(EndpointName="own")["EndpointStatus"] == "InService", 90.0)
    begin("there", sleepy, [], endpoints=["own"])
    bound = {"Percentile": "P50", "ValueInMilliseconds": 10}  # it sleeps for 40
    begin("never", sleepy, [{"InstanceType": "ml.m5.large"}], StoppingConditions={"ModelLatencyThresholds": [bound]})
    there, never = over("there"), over("never")
    assert there["Status"] == "COMPLETED", there
    assert [one["EndpointInfo"] for one in there["EndpointPerformances"]] == [{"EndpointName": "own"}]
    assert there["EndpointPerformances"][0]["Metrics"]["ModelLatency"] >= 40
    assert "InferenceRecommendations" not in there
    assert sagemaker.describe_endpoint(EndpointName="own")["EndpointStatus"] == "InService"  # it is not removed
    assert never["Status"] == "FAILED"
    assert "P50 was" in never["FailureReason"]
    assert "above 10" in never["FailureReason"]
    (step,) = steps("never")
    assert (step["Status"], left()) == ("FAILED", [])
    found = sagemaker.list_inference_recommendations_job_steps(JobName="never", Status="COMPLETED")
    assert found["Steps"] == []
    sagemaker.delete_endpoint(EndpointName="own")
