"""`eyrie.spark` in Spark's own environment: a DataFrame through an endpoint and through the model package itself, by
several Python processes of one executor, and by a cluster of two executors.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import boto3
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.e2e.conftest import ROLE, WAIT, RealEyrie
from tests.frameworks.world import ROOT, python_of, running

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("java") is None, reason="no java for Spark: apt-get install default-jre-headless"),
]
FLOW = Path(__file__).parent / "flow_eyrie_spark.py"


@pytest.fixture(scope="module")
def eyrie():  # type: ignore[no-untyped-def]
    with running(python_of("spark")) as eyrie:
        yield eyrie


@pytest.fixture(scope="module")
def linear(eyrie: RealEyrie, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """An endpoint of a model, its package in the bucket; a file of rows, the rows, and the model."""
    tmp_path = tmp_path_factory.mktemp("linear")
    chance = np.random.default_rng(5)
    rows = chance.normal(size=(400, 6)).round(4)
    model = LinearRegression().fit(rows, rows @ np.arange(6.0))
    joblib.dump(model, tmp_path / "model.joblib")
    archive = Path(shutil.make_archive(str(tmp_path / "package"), "gztar", tmp_path, "model.joblib"))
    boto3.client("s3").upload_file(str(archive), "models", "package.tar.gz")
    sagemaker = boto3.client("sagemaker")
    container = {"Image": "eyrie/sklearn", "ModelDataUrl": "s3://models/package.tar.gz"}
    sagemaker.create_model(ModelName="linear", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "linear", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="linear", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="linear", EndpointConfigName="linear")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="linear", WaiterConfig=WAIT)
    source = tmp_path / "rows.csv"
    source.write_text("\n".join(",".join(map(str, row)) for row in rows.tolist()) + "\n")
    return source, rows, model


@pytest.mark.parametrize(
    ("master", "executors"),
    [("local[3]", 1), pytest.param("local-cluster[2,1,1024]", 2, marks=pytest.mark.soak)],
)
def test_an_endpoint_and_the_package_say_the_same_as_the_model(
    eyrie: RealEyrie, linear: tuple[Path, Any, Any], master: str, executors: int
) -> None:
    source, rows, model = linear
    python = str(python_of("spark"))
    command = [python, "-W", "ignore", str(FLOW), master, "linear", "s3://models/package.tar.gz", str(source)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYSPARK_PYTHON": python, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    found = json.loads(line.removeprefix("FOUND "))
    asked, inside = np.array(found["rows"]).T
    wanted = model.predict(rows[np.lexsort(rows.T[::-1])])
    assert asked == pytest.approx(wanted)
    assert inside.tolist() == asked.tolist()
    assert found["pids"] > 1
    assert found["executors"] == executors
