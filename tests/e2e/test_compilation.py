"""Compilation end to end: jobs by boto3, in a sandbox, from a bucket to a bucket; what they make is deployed and
answers like the original; and compilation at load.
"""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

import boto3
import joblib
import numpy as np
import pytest
from botocore.exceptions import ClientError
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from e2e.conftest import ROLE, WAIT, RealEyrie, until

CHANCE = np.random.default_rng(3)
ROWS = CHANCE.normal(10.0, 4.0, size=(200, 6))
LABELS = np.array(["no", "yes"])[(ROWS[:, 0] * ROWS[:, 1] > 100).astype(int)]
BODY = "\n".join(",".join(map(str, row)) for row in ROWS[:20].tolist())
SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


class Slow:
    """A model that takes long to load, and can then not be compiled."""

    n_features_in_ = 6

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __reduce__(self) -> Any:
        return (eval, (f"__import__('time').sleep({self.seconds})",))


def archive(model: Any) -> bytes:
    """model.tar.gz of a pickled model."""
    pickled, packed = io.BytesIO(), io.BytesIO()
    joblib.dump(model, pickled)
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo("model.joblib")
        entry.size = len(pickled.getvalue())
        tar.addfile(entry, io.BytesIO(pickled.getvalue()))
    return packed.getvalue()


@pytest.fixture(scope="module")
def bucket(eyrie: RealEyrie) -> str:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="compile")
    model = make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)).fit(ROWS, LABELS)
    s3.put_object(Bucket="compile", Key="in/model.tar.gz", Body=archive(model))
    s3.put_object(Bucket="compile", Key="in/slow.tar.gz", Body=archive(Slow(300.0)))
    s3.put_object(Bucket="compile", Key="in/odd.tar.gz", Body=archive(Slow(0.0)))
    return "compile"


def create(name: str, source: str = "model", **more: Any) -> None:
    output = {"S3OutputLocation": "s3://compile/out/", "TargetDevice": "ml_c5"}
    boto3.client("sagemaker").create_compilation_job(
        CompilationJobName=name,
        RoleArn=ROLE,
        InputConfig={
            "S3Uri": f"s3://compile/in/{source}.tar.gz",
            "DataInputConfig": '{"input": [1, 6]}',
            "Framework": "SKLEARN",
            **more.pop("input", {}),
        },
        OutputConfig=output,
        **{"StoppingCondition": {"MaxRuntimeInSeconds": 900}, **more},
    )


def describe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = boto3.client("sagemaker").describe_compilation_job(CompilationJobName=name)
    return found


def ended(name: str, seconds: float = 180.0) -> dict[str, Any]:
    return dict(
        until(
            lambda: (d := describe(name))["CompilationJobStatus"] in ("COMPLETED", "FAILED", "STOPPED") and d, seconds
        )
    )


def in_progress(name: str) -> bool:
    return describe(name)["CompilationJobStatus"] == "INPROGRESS"


def deploy(name: str, url: str, image: str = SKLEARN, **environment: str) -> None:
    sagemaker = boto3.client("sagemaker")
    container = {"Image": image, "ModelDataUrl": url, "Environment": environment}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=WAIT)


def ask(endpoint: str) -> bytes:
    runtime = boto3.client("sagemaker-runtime")
    reply = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Accept="application/json", Body=BODY)
    return bytes(reply["Body"].read())


def log_of(eyrie: RealEyrie, endpoint: str) -> str:
    """The log of the endpoint's one instance."""
    (one,) = eyrie.instances(endpoint)
    for slot in (eyrie.data / "slots").iterdir():
        spec = slot / "spec.json"
        if spec.exists() and json.loads(spec.read_text())["instance_id"] == one["id"]:
            return (slot / "box" / "log").read_text()
    return ""


def test_a_compiled_pipeline_is_deployed_and_answers_like_the_original(eyrie: RealEyrie, bucket: str) -> None:
    create("pipeline")
    done = ended("pipeline")
    assert done["CompilationJobStatus"] == "COMPLETED", done["FailureReason"]
    assert done["ModelArtifacts"]["S3ModelArtifacts"] == "s3://compile/out/model-ml_c5.tar.gz"
    said = boto3.client("logs").get_log_events(logGroupName="/aws/sagemaker/CompilationJobs", logStreamName="pipeline")
    assert any(event["message"].endswith("compiling for ml_c5") for event in said["events"]), said["events"]
    assert done["CompilationStartTime"] <= done["CompilationEndTime"]
    made = boto3.client("s3").get_object(Bucket=bucket, Key="out/model-ml_c5.tar.gz")["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        names = set(tar.getnames())
        report = json.load(tar.extractfile("compiled/report.json"))  # type: ignore[arg-type]
        manifest = json.load(tar.extractfile("compiled/manifest.json"))  # type: ignore[arg-type]
    assert {"model.joblib", "compiled/model.onnx", "compiled/manifest.json", "compiled/report.json"} <= names
    assert (report["decision"], manifest["made_for"]) == ("compiled", "ml_c5")
    assert report["rows"]["on thresholds"] > 0
    deploy("original", f"s3://{bucket}/in/model.tar.gz")
    deploy("compiled", done["ModelArtifacts"]["S3ModelArtifacts"])
    assert ask("compiled") == ask("original")
    assert "compiled to ONNX" in log_of(eyrie, "compiled")
    assert "compiled to ONNX" not in log_of(eyrie, "original")
    assert not list((eyrie.data / "jobs").glob("j-*"))
    assert "decision" in json.dumps(report)


@pytest.mark.heavy
def test_jobs_are_listed_deleted_and_their_names_taken_once(bucket: str) -> None:
    sagemaker = boto3.client("sagemaker")
    create("listed")
    assert ended("listed")["CompilationJobStatus"] == "COMPLETED"
    listed = sagemaker.list_compilation_jobs(StatusEquals="COMPLETED", NameContains="list", SortBy="Name")
    (summary,) = listed["CompilationJobSummaries"]
    assert (summary["CompilationJobName"], summary["CompilationTargetDevice"]) == ("listed", "ml_c5")
    with pytest.raises(ClientError, match="ResourceInUse"):
        create("listed")
    sagemaker.delete_compilation_job(CompilationJobName="listed")
    with pytest.raises(ClientError, match="ResourceNotFound"):
        describe("listed")
    assert boto3.client("s3").head_object(Bucket=bucket, Key="out/model-ml_c5.tar.gz")["ContentLength"] > 0


def test_what_cannot_be_compiled_fails_with_the_reason(bucket: str) -> None:
    create("nowhere", source="nothing-here")
    create("odd", source="odd")
    create("narrow", input={"DataInputConfig": '{"input": [1, 7]}'})
    create("other", input={"Framework": "XGBOOST"})
    reasons = {name: ended(name)["FailureReason"] for name in ("nowhere", "odd", "narrow", "other")}
    assert "Could not find model data at s3://compile/in/nothing-here.tar.gz" in reasons["nowhere"]
    assert "no predict method" in reasons["odd"]
    assert "this model takes rows of 6 values: [1, 6]" in reasons["narrow"]
    assert "Framework is XGBOOST, and the archive holds scikit-learn" in reasons["other"]


@pytest.mark.heavy
def test_a_job_is_stopped_and_one_that_takes_too_long_fails(eyrie: RealEyrie, bucket: str) -> None:
    create("stopped", source="slow")
    create("late", source="slow", StoppingCondition={"MaxRuntimeInSeconds": 2})
    until(lambda: in_progress("stopped"))
    with pytest.raises(ClientError, match="only one that is COMPLETED, FAILED or STOPPED can be deleted"):
        boto3.client("sagemaker").delete_compilation_job(CompilationJobName="stopped")
    boto3.client("sagemaker").stop_compilation_job(CompilationJobName="stopped")
    assert ended("stopped")["CompilationJobStatus"] == "STOPPED"
    late = ended("late")
    assert (late["CompilationJobStatus"], late["FailureReason"][:9]) == ("FAILED", "TimeOut: ")
    until(lambda: not list((eyrie.data / "jobs").glob("j-*")))


def test_a_job_survives_the_death_of_control(eyrie: RealEyrie, bucket: str) -> None:
    create("survivor")
    until(lambda: in_progress("survivor"))
    runs = list((eyrie.data / "jobs").glob("j-*"))
    os.kill(eyrie.processes()["control"], signal.SIGKILL)
    done = ended("survivor")
    assert done["CompilationJobStatus"] == "COMPLETED", done["FailureReason"]
    assert [run.name[-1] for run in runs] == ["0"]  # the first attempt, taken up again
    log = eyrie.data / "logs" / "jobs" / "CompilationJob"
    until(lambda: (log / "123456789012.us-east-1.survivor.log").exists())
    assert "compiling for ml_c5" in (log / "123456789012.us-east-1.survivor.log").read_text()


@pytest.mark.heavy
def test_a_model_is_compiled_while_it_serves(eyrie: RealEyrie, bucket: str) -> None:
    deploy("at-load", f"s3://{bucket}/in/model.tar.gz", EYRIE_COMPILE="1")
    before = ask("at-load")
    until(lambda: "serving the compiled model from now on" in log_of(eyrie, "at-load"), 60.0)
    assert ask("at-load") == before


@pytest.mark.heavy
def test_eyrie_down_ends_jobs_and_eyrie_up_begins_them_again(eyrie: RealEyrie, bucket: str, tmp_path: Path) -> None:
    create("again")
    until(lambda: in_progress("again"))
    eyrie.down()
    assert not list((eyrie.data / "jobs").glob("j-*"))
    eyrie.up()
    done = ended("again")
    assert done["CompilationJobStatus"] == "COMPLETED", done["FailureReason"]
