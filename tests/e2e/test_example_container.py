"""`examples/bring_your_own`: what it trains it serves, in the shape of the classic container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import boto3
import pytest

from .conftest import ROLE, WAIT, RealEyrie, until

EXAMPLE = Path(__file__).parents[2] / "examples/bring_your_own"


def train(ml: Path, told: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `train` on what lies in `ml`."""
    (ml / "input/config").mkdir(parents=True, exist_ok=True)
    (ml / "input/data/training").mkdir(parents=True, exist_ok=True)
    (ml / "input/config/hyperparameters.json").write_text(json.dumps(told))
    command = [sys.executable, str(EXAMPLE / "container/train")]
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(ml)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)


def test_it_trains_or_says_why_not(tmp_path: Path) -> None:
    done = train(tmp_path, {})
    assert done.returncode == 255
    assert "holds no .csv files" in (tmp_path / "output/failure").read_text()
    (tmp_path / "input/data/training/a.csv").write_text("0,1,1\n1,9,9\n0,2,1\n1,8,9\n")
    assert train(tmp_path, {"max_leaf_nodes": "2"}).returncode == 0
    assert (tmp_path / "model/model.joblib").exists()


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_it_serves_what_it_trained_with_the_workers_that_were_asked_for(eyrie: RealEyrie, tmp_path: Path) -> None:
    (tmp_path / "input/data/training").mkdir(parents=True)
    (tmp_path / "input/data/training/a.csv").write_text("0,1,1\n1,9,9\n0,2,1\n1,8,9\n")
    assert train(tmp_path, {}).returncode == 0
    command = [str(EXAMPLE / "make_venv.sh"), str(tmp_path / "venv"), sys.executable]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    added = eyrie.run("image", "add", "classic:1", str(tmp_path / "venv"))
    assert added.returncode == 0, added.stderr
    shutil.rmtree(tmp_path / "venv")  # Eyrie has its own copy
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "model/model.joblib", "model.joblib")
    s3, sagemaker, runtime = (boto3.client(name) for name in ("s3", "sagemaker", "sagemaker-runtime"))
    s3.create_bucket(Bucket="classic")
    s3.upload_file(str(tmp_path / "model.tar.gz"), "classic", "model.tar.gz")
    container = {"Image": "classic:1", "ModelDataUrl": "s3://classic/model.tar.gz"}
    container["Environment"] = {"MODEL_SERVER_WORKERS": "3"}  # type: ignore[assignment]
    sagemaker.create_model(ModelName="classic", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "v", "ModelName": "classic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="classic", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="classic", EndpointConfigName="classic")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="classic", WaiterConfig=WAIT)

    def ask(body: str, **more: str) -> str:
        reply = runtime.invoke_endpoint(EndpointName="classic", Body=body, **more)
        return str(reply["Body"].read().decode())

    assert ask("1,1\n9,9\n", ContentType="text/csv") == "0.0\n1.0\n"
    assert json.loads(ask("9,9", ContentType="text/csv", Accept="application/json")) == {"predictions": [1.0]}
    with pytest.raises(runtime.exceptions.ModelError) as refused:
        ask("{}", ContentType="application/json")
    assert refused.value.response["OriginalStatusCode"] == 415
    assert "this container reads text/csv" in refused.value.response["OriginalMessage"]
    until(lambda: eyrie.run("logs", "classic", "-n", "1000").stdout.count("Booting worker") == 3, 60.0)
    assert transformed(b"1,1\n9,9\n" * 50) == b"0.0\n1.0\n" * 50
    started = time.monotonic()
    sagemaker.delete_endpoint(EndpointName="classic")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="classic", WaiterConfig=WAIT)
    assert time.monotonic() - started < 60


def transformed(rows: bytes) -> bytes:
    """What a transform job of the same model makes of rows."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.put_object(Bucket="classic", Key="in/rows.csv", Body=rows)
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://classic/in/"}}
    sagemaker.create_transform_job(
        TransformJobName="classic",
        ModelName="classic",
        TransformInput={"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
        TransformOutput={"S3OutputPath": "s3://classic/out", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
    )

    def ended() -> str:
        status = str(sagemaker.describe_transform_job(TransformJobName="classic")["TransformJobStatus"])
        return "" if status == "InProgress" else status

    assert until(ended, 120.0) == "Completed"
    return bytes(s3.get_object(Bucket="classic", Key="out/rows.csv.out")["Body"].read())
