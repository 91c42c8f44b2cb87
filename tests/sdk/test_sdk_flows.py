"""The SageMaker SDK's versions 2 and 3, unchanged, each in an environment of its own, against a real Eyrie.

`make setup-sdk` (which `make test-all` runs) makes the environments from sdk2.lock and sdk3.lock.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import boto3
import joblib
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.e2e.conftest import RealEyrie, eyrie, until  # noqa: F401  (the fixture)

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FLOW_S = 600
SKLEARN_CODE = """\
import os

import joblib


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
"""
XGBOOST_CODE = """\
import os

import xgboost


def model_fn(model_dir):
    booster = xgboost.Booster()
    booster.load_model(os.path.join(model_dir, "xgboost-model"))
    return booster
"""


class Trained:
    """A folder as the flows want it, and what the models themselves predict for its rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        x, y = load_breast_cancer(return_X_y=True)
        rows = x[:5]
        booster = xgboost.train({"objective": "binary:logistic", "max_depth": 4}, xgboost.DMatrix(x, y), 20)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
        booster.save_model(folder / "model.ubj")
        (folder / "model.ubj").rename(folder / "xgboost-model")
        joblib.dump(pipeline, folder / "model.joblib")
        for name, file in (("xgboost", "xgboost-model"), ("sklearn", "model.joblib")):
            with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
                archive.add(folder / file, file)
        np.savetxt(folder / "rows.csv", rows, delimiter=",")
        (folder / "inference.py").write_text(SKLEARN_CODE)
        (folder / "xgb_inference.py").write_text(XGBOOST_CODE)
        self.xgboost = booster.inplace_predict(rows)
        self.sklearn = pipeline.predict(rows)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Both models, trained here."""
    return Trained(tmp_path_factory.mktemp("sdk"))


def run_flow(version: int, eyrie: RealEyrie, *arguments: str) -> dict[str, Any]:  # noqa: F811
    """Run flow_vN.py with the SDK's own interpreter and nothing but what `eyrie env` exports; its JSON line."""
    python = ROOT / f".venv-sdk{version}" / "bin" / "python"
    env = {"PATH": os.environ["PATH"], "HOME": str(eyrie.data), "SAGEMAKER_SUPPRESS_V2_WARNING": "1", **eyrie.exports()}
    command = [str(python), "-W", "ignore", str(HERE / f"flow_v{version}.py"), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=FLOW_S)
    assert done.returncode == 0, done.stderr[-4000:] + eyrie.last_logs()
    found: dict[str, Any] = json.loads(
        "{" + done.stdout.rpartition("\n{")[2] if "\n{" in done.stdout else done.stdout[done.stdout.index("{") :]
    )
    return found


def floats(answer: list[Any]) -> list[float]:
    """What the SDK's deserialisers make of a column of numbers, as numbers."""
    return [float(x) for row in answer for x in (row if isinstance(row, list) else [row])]


def test_version_2(eyrie: RealEyrie, models: Trained) -> None:  # noqa: F811
    found = run_flow(2, eyrie, str(models.folder))
    assert floats(found["generic"]["first"]) == pytest.approx(models.xgboost)
    assert floats(found["generic"]["second"]) == pytest.approx(models.xgboost)
    assert found["generic"]["instances"] == 2
    assert floats(found["xgboost"]["first"]) == pytest.approx(models.xgboost)
    assert floats(found["sklearn"]["first"]) == pytest.approx(models.sklearn)
    assert floats(found["captured"]["first"]) == pytest.approx(models.xgboost)
    assert found["captured"]["statuses"] == ["Started", "Stopped"]
    check_captured(found["captured"]["destination"], models)
    assert boto3.client("sagemaker").list_endpoints()["Endpoints"] == []


def check_captured(destination: str, models: Trained) -> None:
    """One record, at the SDK's default destination, of the one request that was made while the capture was on."""
    assert destination == "s3://sagemaker-us-east-1-123456789012/model-monitor/data-capture"
    bucket, prefix = destination.removeprefix("s3://").split("/", 1)
    s3 = boto3.client("s3")
    listed = until(lambda: s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents"), 90.0)
    assert len(listed) == 1
    text = s3.get_object(Bucket=bucket, Key=listed[0]["Key"])["Body"].read().decode()
    (record,) = [json.loads(line) for line in text.splitlines()]
    assert record["eventMetadata"]["inferenceId"] == "captured-1"
    found = [float(x) for x in record["captureData"]["endpointOutput"]["data"].replace("\n", ",").split(",") if x]
    assert found == pytest.approx(models.xgboost)


def test_version_3(eyrie: RealEyrie, models: Trained) -> None:  # noqa: F811
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="sdk-v3-models")
    s3.upload_file(str(models.folder / "xgboost.tar.gz"), "sdk-v3-models", "xgboost.tar.gz")
    found = run_flow(3, eyrie, str(models.folder), "s3://sdk-v3-models/xgboost.tar.gz")
    assert found["status"] == "InService"
    assert floats(found["first"]) == pytest.approx(models.xgboost)
