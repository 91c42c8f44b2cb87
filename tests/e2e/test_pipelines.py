"""Several containers behind one endpoint, with boto3 against a real Eyrie: an inference pipeline from a scikit-learn
preprocessor to an XGBoost model, and direct invocation of one container of several."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import joblib
import numpy as np
import pytest
import xgboost
from botocore.config import Config
from botocore.exceptions import ClientError
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from .conftest import ROLE, WAIT, RealEyrie, until

SCALER = """
import io, os
import joblib, numpy as np

def model_fn(folder):
    print("the scaler is", os.environ["STEP"])
    return joblib.load(os.path.join(folder, "scaler.joblib"))

def input_fn(data, content_type):
    text = data if isinstance(data, str) else data.decode()
    if "boom" in text:
        raise ValueError("this row cannot be scaled")
    return np.atleast_2d(np.genfromtxt(io.StringIO(text), delimiter=","))

def predict_fn(rows, scaler):
    return scaler.transform(rows)

def output_fn(rows, accept):
    out = io.StringIO()
    np.savetxt(out, rows, delimiter=",", fmt="%.9g")
    return out.getvalue(), "text/csv"
"""
Deploy = Callable[..., str]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The archives of a scaler (with code) and of a booster of scaled rows; rows, and what both say together."""
    folder = tmp_path_factory.mktemp("pipeline")
    rows, labels = load_breast_cancer(return_X_y=True)
    scaler = StandardScaler().fit(rows)
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 3, "nthread": 1},
        xgboost.DMatrix(scaler.transform(rows), labels),
        num_boost_round=10,
    )
    joblib.dump(scaler, folder / "scaler.joblib")
    (folder / "inference.py").write_text(SCALER)
    booster.save_model(folder / "xgboost-model.json")
    first, second = folder / "first.tar.gz", folder / "second.tar.gz"
    with tarfile.open(first, "w:gz") as tar:
        tar.add(folder / "scaler.joblib", "scaler.joblib")
        tar.add(folder / "inference.py", "code/inference.py")
    with tarfile.open(second, "w:gz") as tar:
        tar.add(folder / "xgboost-model.json", "xgboost-model.json")
    said = booster.predict(xgboost.DMatrix(scaler.transform(rows)))
    return first, second, rows, said


@pytest.fixture(scope="module")
def deploy(eyrie: RealEyrie, parts: Any) -> Deploy:
    """Upload both archives and have an endpoint of some containers; its name."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.create_bucket(Bucket="pipes")
    for archive in parts[:2]:
        s3.upload_file(str(archive), "pipes", archive.name)

    def make(name: str, containers: list[dict[str, Any]], mode: str = "Serial", wait: bool = True) -> str:
        sagemaker.create_model(
            ModelName=name,
            Containers=containers,
            InferenceExecutionConfig={"Mode": mode},
            ExecutionRoleArn=ROLE,
        )
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        if wait:
            sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=WAIT)
        return name

    return make


def scaler(**more: Any) -> dict[str, Any]:
    environment = {"SAGEMAKER_PROGRAM": "inference.py", "STEP": "first"}
    url = "s3://pipes/first.tar.gz"
    return {"Image": "eyrie/sklearn", "ModelDataUrl": url, "Environment": environment, **more}


def booster(**more: Any) -> dict[str, Any]:
    return {"Image": "eyrie/xgboost", "ModelDataUrl": "s3://pipes/second.tar.gz", **more}


def ask(endpoint: str, body: str, **more: Any) -> str:
    runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    reply = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Accept="text/csv", Body=body, **more)
    return str(reply["Body"].read().decode())


def csv(rows: Any) -> str:
    return "\n".join(",".join(f"{value:.17g}" for value in row) for row in rows)


def test_a_pipeline_answers_what_its_parts_say_together(deploy: Deploy, parts: Any) -> None:
    rows, said = parts[2:]
    name = deploy("serial", [scaler(ContainerHostname="prepare"), booster(ContainerHostname="score")])
    answered = [float(value) for value in ask(name, csv(rows[:50])).replace("\n", ",").strip(",").split(",")]
    assert answered == pytest.approx(said[:50].tolist(), abs=1e-5)
    with pytest.raises(ClientError) as error:
        ask(name, "boom")
    refused = error.value.response
    assert refused["Error"]["Code"] == "ModelError"
    assert "from prepare with message" in refused["Error"]["Message"]
    assert "this row cannot be scaled" in refused["OriginalMessage"]
    images = boto3.client("sagemaker").describe_endpoint(EndpointName=name)["ProductionVariants"][0]["DeployedImages"]
    assert [image["SpecifiedImage"] for image in images] == ["eyrie/sklearn", "eyrie/xgboost"]
    logs = boto3.client("logs").describe_log_streams(logGroupName=f"/aws/sagemaker/Endpoints/{name}")["logStreams"]
    assert [stream["logStreamName"].split("/")[::2] for stream in logs] == [["v", "prepare"], ["v", "score"]]
    until(lambda: (timed(name, "prepare"), timed(name, "score")) == (2, 1), 30.0)
    boto3.client("sagemaker").delete_endpoint(EndpointName=name)


def timed(endpoint: str, container: str) -> int:
    """How many answers ContainerLatency tells of."""
    pairs = {"EndpointName": endpoint, "VariantName": "v", "ContainerName": container}
    now = time.time()
    found = boto3.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="ContainerLatency",
        Dimensions=[{"Name": key, "Value": value} for key, value in pairs.items()],
        **{"StartTime": now - 600, "EndTime": now + 60, "Period": 60},
        Statistics=["SampleCount", "Minimum"],
        Unit="Microseconds",
    )["Datapoints"]
    assert all(point["Minimum"] > 0 for point in found)
    return int(sum(point["SampleCount"] for point in found))


def test_a_container_that_does_not_load_is_named(deploy: Deploy, eyrie: RealEyrie) -> None:
    sagemaker = boto3.client("sagemaker")
    boto3.client("s3").put_object(Bucket="pipes", Key="wrong.tar.gz", Body=wrong())
    name = deploy("wrong", [scaler(), booster(ModelDataUrl="s3://pipes/wrong.tar.gz")], wait=False)
    until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Failed", 200.0)
    reason = sagemaker.describe_endpoint(EndpointName=name)["FailureReason"]
    assert reason.startswith("The container-2 container for production variant v did not pass"), reason
    missing = deploy("missing", [scaler(), booster(ModelDataUrl="s3://pipes/nope.tar.gz")], wait=False)
    until(lambda: sagemaker.describe_endpoint(EndpointName=missing)["EndpointStatus"] == "Failed", 60.0)
    reason = sagemaker.describe_endpoint(EndpointName=missing)["FailureReason"]
    assert 'Failed to download model data for container "container-2"' in reason
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.delete_endpoint(EndpointName=missing)


def wrong() -> bytes:
    """An archive without a model."""
    import io

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("xgboost-model")
        info.size = 7
        tar.addfile(info, io.BytesIO(b"nothing"))
    return out.getvalue()


def test_direct_invocation_reaches_the_container_that_is_named(deploy: Deploy, parts: Any) -> None:
    rows = parts[2]
    name = deploy("direct", [scaler(ContainerHostname="scaler"), booster(ContainerHostname="booster")], "Direct")
    scaled = ask(name, csv(rows[:1]), TargetContainerHostname="scaler")
    assert len(scaled.split(",")) == rows.shape[1]
    assert 0 <= float(ask(name, scaled.strip(), TargetContainerHostname="booster")) <= 1
    for more, text in (
        ({}, "container hostname"),
        ({"TargetContainerHostname": "nobody"}, "nobody"),
    ):
        with pytest.raises(ClientError) as error:
            ask(name, csv(rows[:1]), **more)
        assert error.value.response["Error"]["Code"] == "ValidationError"
        assert text in error.value.response["Error"]["Message"]
    boto3.client("sagemaker").delete_endpoint(EndpointName=name)
