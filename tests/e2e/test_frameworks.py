"""LightGBM and ONNX models, trained here, behind endpoints of a real Eyrie; and a framework that is not installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import lightgbm
import numpy as np
import pytest
import skl2onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.e2e.conftest import RealEyrie
from tests.frameworks.world import ask, delete, deploy, failure, refused

ROWS, TARGET = load_breast_cancer(return_X_y=True)
SAMPLE = ROWS[:40]
CSV = "\n".join(",".join(map(repr, row)) for row in SAMPLE.tolist())


@pytest.fixture(scope="module", autouse=True)
def bucket(eyrie: RealEyrie) -> None:
    boto3.client("s3").create_bucket(Bucket="models")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def test_lightgbm(folder: Path) -> None:
    booster = lightgbm.train({"objective": "binary", "verbosity": -1}, lightgbm.Dataset(ROWS, TARGET), 20)
    booster.save_model(folder / "model.txt")
    endpoint = deploy("lightgbm", folder, "eyrie/lightgbm")
    assert [float(score) for score in ask(endpoint, CSV, "text/csv").split(",")] == booster.predict(SAMPLE).tolist()
    found = ask(endpoint, {"instances": SAMPLE[:2].tolist()}, accept="application/json")
    assert found == {"predictions": [{"score": score} for score in booster.predict(SAMPLE[:2]).tolist()]}
    assert refused(endpoint, "1,2,3", "text/csv")[0] == 400
    assert refused(endpoint, "{}", "application/xml")[0] == 415
    delete(endpoint)


def test_onnx(folder: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, TARGET)
    graph = skl2onnx.to_onnx(pipeline, ROWS[:1].astype(np.float32), options={"zipmap": False})
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    endpoint = deploy("onnx", folder, "eyrie/onnx")
    assert ask(endpoint, CSV, "text/csv") == pipeline.predict(SAMPLE).tolist()
    assert ask(endpoint, CSV, "text/csv", "text/csv").split() == [str(label) for label in pipeline.predict(SAMPLE)]
    assert refused(endpoint, "1,2", "text/csv")[0] == 400
    delete(endpoint)


SPARK = {"class": "org.apache.spark.ml.PipelineModel", "paramMap": {"stageUids": ["a"]}}
# What a folder of each looks like from outside is enough to know whose it is.
ABSENT: list[tuple[str, str, dict[str, Any], str]] = [
    ("torch", "eyrie/pytorch", {"model.pt2": ""}, "pip install 'eyrie[torch]'"),
    ("huggingface", "eyrie/huggingface", {"config.json": {"model_type": "bert"}}, "pip install 'eyrie[huggingface]'"),
    ("spark", "eyrie/sparkml", {"stages/0_a/x": "", "metadata/part-00000": SPARK}, "pip install 'eyrie[spark]'"),
    ("tensorflow", "eyrie/tensorflow", {"1/saved_model.pb": ""}, "pip install 'eyrie[tensorflow]'"),
]


@pytest.mark.parametrize(("name", "image", "files", "line"), ABSENT, ids=[name for name, *_ in ABSENT])
def test_a_framework_that_is_not_installed_is_named_with_its_extra(
    folder: Path, name: str, image: str, files: dict[str, Any], line: str
) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text if isinstance(text, str) else json.dumps(text))
    assert line in failure(deploy(f"absent-{name}", folder, image, wait=False))
