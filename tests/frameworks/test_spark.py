"""Spark ML pipelines, trained by Spark in an environment of its own, and bundles that mleap wrote, served without
either, held to what they were trained with.
"""

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
]
needs_java = pytest.mark.skipif(
    shutil.which("java") is None, reason="no java for Spark to train with: apt-get install default-jre-headless"
)

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-sparkml-serving:3.3"
TYPES = {"colour": "string", "shape": "string", "size": "double", "weight": "double", "age": "double"}
INPUT = [{"name": name, "type": kind} for name, kind in TYPES.items()]
BUNDLE_TYPES = {"colour": "string", "size": "double", "weight": "double", "age": "double"}
SCHEMA = {"input": INPUT, "output": {"name": "prediction", "type": "double"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    return train("spark", "train_spark.py", folder)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mleap")


@pytest.fixture(scope="module")
def written(bundles: Path) -> dict[str, Any]:
    return train("spark", "train_mleap.py", bundles)


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    with running(python_of("spark")) as eyrie:
        yield eyrie


@needs_java
def test_every_converted_stage_gives_what_spark_gives(folder: Path, told: dict[str, Any]) -> None:
    (folder / "rows.json").write_text(json.dumps({"rows": told["rows"], "types": TYPES}))
    found = train("spark", "convert_spark.py", folder)
    assert not found["foreign"]
    assert found["models"].keys() == told["models"].keys()
    for name, columns in told["models"].items():
        assert np.allclose(found["models"][name]["features"], told["features"], rtol=0, atol=1e-12), name
        for column, values in columns.items():
            assert np.allclose(found["models"][name][column], values, rtol=1e-12, atol=1e-12), (name, column)


@needs_java
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


@needs_java
def test_without_a_schema_the_pipeline_tells_its_columns(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("spark-guessed", folder / "kmeans", "eyrie/sparkml")
    row = dict(zip(TYPES, told["rows"][0], strict=True))
    ordered = [row[name] for name in ("colour", "shape", "weight", "age", "size")]
    assert ask(endpoint, {"data": ordered}) == str(told["models"]["kmeans"]["prediction"][0])
    delete(endpoint)


@needs_java
def test_a_stage_that_is_not_converted_is_served_by_spark_itself(
    eyrie: RealEyrie, folder: Path, told: dict[str, Any]
) -> None:
    endpoint = deploy("spark-itself", folder / "spoken", IMAGE, {"SAGEMAKER_SPARKML_SCHEMA": json.dumps(SCHEMA)})
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in told["rows"][:5])
    answer = [float(line) for line in ask(endpoint, text, "text/csv").splitlines()]
    assert np.allclose(answer, told["models"]["linear"]["prediction"][:5], rtol=1e-12, atol=1e-12)
    delete(endpoint)


def test_bundles_that_mleap_wrote_give_what_their_models_gave(bundles: Path, written: dict[str, Any]) -> None:
    (bundles / "rows.json").write_text(json.dumps({"rows": written["rows"], "types": BUNDLE_TYPES}))
    found = train("spark", "convert_spark.py", bundles)
    assert not found["foreign"]
    assert {Path(name).stem for name in found["models"]} == written["models"].keys()
    assert {"forest.zip", "linear", "linear.zip"} <= found["models"].keys()
    for name, columns in found["models"].items():
        wanted = written["models"][Path(name).stem]
        assert np.allclose(columns["prediction"], wanted, rtol=1e-12, atol=1e-12), name


@pytest.mark.parametrize("name", ["several", "forest.zip"])
def test_an_endpoint_of_an_mleap_bundle(
    eyrie: RealEyrie, bundles: Path, written: dict[str, Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / "model").mkdir()
    copied = shutil.copytree if (bundles / name).is_dir() else shutil.copy
    copied(bundles / name, tmp_path / "model" / name)
    inputs = [{"name": column, "type": kind} for column, kind in BUNDLE_TYPES.items()]
    schema = {"input": inputs, "output": {"name": "prediction", "type": "double"}}
    env = {"SAGEMAKER_SPARKML_SCHEMA": json.dumps(schema)}
    endpoint = deploy(f"mleap-{Path(name).stem}", tmp_path / "model", IMAGE, env)
    text = "\n".join(",".join("" if cell is None else str(cell) for cell in row) for row in written["rows"][:20])
    answer = [float(line) for line in ask(endpoint, text, "text/csv").splitlines()]
    assert answer == written["models"][Path(name).stem][:20]
    delete(endpoint)


def test_a_bundle_with_a_stage_that_is_not_converted_names_it(eyrie: RealEyrie, tmp_path: Path) -> None:
    root = tmp_path / "model" / "root"
    root.mkdir(parents=True)
    (tmp_path / "model" / "bundle.json").write_text(json.dumps({"format": "json"}))
    (root / "model.json").write_text(json.dumps({"op": "word_to_vector"}))
    assert "'word_to_vector'" in failure(deploy("mleap-word", tmp_path / "model", IMAGE, wait=False))
