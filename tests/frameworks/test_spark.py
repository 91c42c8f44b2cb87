"""Spark ML pipelines, trained by Spark in an environment of its own, served without it, held to its transform."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import RealEyrie
from tests.frameworks.world import ask, delete, deploy, failure, python_of, refused, running, train

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("java") is None, reason="no java for Spark to train with: apt-get install default-jre-headless"
    ),
]

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-sparkml-serving:3.3"
TYPES = {"colour": "string", "shape": "string", "size": "double", "weight": "double", "age": "double"}
INPUT = [{"name": name, "type": kind} for name, kind in TYPES.items()]
SCHEMA = {"input": INPUT, "output": {"name": "prediction", "type": "double"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    return train("spark", "train_spark.py", folder)


@pytest.fixture(scope="module")
def eyrie(told: dict[str, Any]) -> Iterator[RealEyrie]:
    with running(python_of("spark")) as eyrie:
        yield eyrie


def test_every_converted_stage_gives_what_spark_gives(folder: Path, told: dict[str, Any]) -> None:
    (folder / "rows.json").write_text(json.dumps(told["rows"]))
    found = train("spark", "convert_spark.py", folder)
    assert not found["spark"]
    assert found["models"].keys() == told["models"].keys()
    for name, columns in told["models"].items():
        assert np.allclose(found["models"][name]["features"], told["features"], rtol=0, atol=1e-12), name
        for column, values in columns.items():
            assert np.allclose(found["models"][name][column], values, rtol=1e-12, atol=1e-12), (name, column)


def test_an_endpoint_as_the_sparkml_container_has_it(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("spark-binary", folder / "binary", IMAGE, {"SAGEMAKER_SPARKML_SCHEMA": json.dumps(SCHEMA)})
    rows, wanted = told["rows"], told["models"]["binary"]
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in rows[:20])
    assert [float(line) for line in ask(endpoint, text, "text/csv").splitlines()] == wanted["prediction"][:20]
    assert ask(endpoint, {"data": rows[0]}) == str(wanted["prediction"][0])
    chances = {"name": "probability", "type": "double", "struct": "vector"}
    asked = {"schema": {"input": INPUT, "output": chances}, "data": rows[0]}
    answer = json.loads(ask(endpoint, asked, accept="application/jsonlines"))
    assert np.allclose(answer["features"], wanted["probability"][0])
    told_as_text = json.loads(ask(endpoint, {"data": rows[1]}, accept="application/jsonlines;data=text"))
    assert told_as_text == {"source": str(wanted["prediction"][1])}
    status, message = refused(endpoint, "a,x,much,1,2", "text/csv")
    assert (status, message) == (400, "the column 'size' is double; it cannot hold 'much'")
    assert refused(endpoint, "a,x,1", "text/csv")[0] == 400
    assert refused(endpoint, "a", "application/xml")[0] == 415
    assert refused(endpoint, {"data": rows[0]}, accept="image/png")[0] == 406
    delete(endpoint)


def test_without_a_schema_the_pipeline_tells_its_columns(
    eyrie: RealEyrie, folder: Path, told: dict[str, Any]
) -> None:
    endpoint = deploy("spark-guessed", folder / "kmeans", "eyrie/sparkml")
    row = dict(zip(TYPES, told["rows"][0], strict=True))
    ordered = [row[name] for name in ("colour", "shape", "weight", "age", "size")]
    assert ask(endpoint, {"data": ordered}) == str(told["models"]["kmeans"]["prediction"][0])
    delete(endpoint)


def test_an_mleap_bundle_says_what_to_do(eyrie: RealEyrie, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bundle.json").write_text("{}")
    assert "PipelineModel.save" in failure(deploy("spark-mleap", tmp_path / "model", IMAGE, wait=False))
