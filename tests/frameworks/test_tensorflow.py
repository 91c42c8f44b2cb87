"""TensorFlow models, trained in an environment with TensorFlow, behind endpoints of an Eyrie that runs from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from tests.e2e.conftest import RealEyrie
from tests.frameworks.world import ask, delete, deploy, failure, python_of, refused, running, train

pytestmark = pytest.mark.heavy

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/tensorflow-inference:2.19.0-cpu"


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    with running(python_of("tensorflow")) as eyrie:
        yield eyrie


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensorflow")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    return train("tensorflow", "train_tensorflow.py", folder)


def test_rows_as_tensorflow_serving_takes_them(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("tf-rows", folder / "rows", IMAGE)
    rows, logits = told["rows"], told["logits"]

    def close(found: Any) -> bool:
        return np.allclose(found, logits, atol=1e-5)

    assert close(ask(endpoint, {"instances": rows})["predictions"])
    assert close(ask(endpoint, {"signature_name": "serving_default", "instances": rows})["predictions"])
    assert close(ask(endpoint, {"inputs": rows})["outputs"])
    assert close(ask(endpoint, rows)["predictions"])
    csv = "\n".join(",".join(map(repr, row)) for row in rows)
    assert close(ask(endpoint, csv, "text/csv")["predictions"])
    lines = "\n".join(map(str, rows))
    assert close(ask(endpoint, lines, "application/jsonlines")["predictions"])
    assert close([list(map(float, line.split(","))) for line in ask(endpoint, rows, accept="text/csv").splitlines()])
    assert refused(endpoint, {"instances": [[1, 2]]})[0] == 400
    status, message = refused(endpoint, {"signature_name": "train", "instances": rows})
    assert (status, "no signature 'train'" in message) == (400, True)
    assert refused(endpoint, "x", "application/xml")[0] == 415
    runtime = boto3.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError, match="tfs-method=classify is not served here"):
        runtime.invoke_endpoint(EndpointName=endpoint, Body=b"{}", CustomAttributes="tfs-method=classify")
    delete(endpoint)


def test_named_inputs_of_text_and_numbers(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("tf-named", folder / "named", "eyrie/tensorflow")
    items = [{"text": "ab", "ids": [1, 2, 3]}, {"text": {"b64": "YWJj"}, "ids": [4, 5, 6]}]
    wanted = [{"echo": "ab", "length": 2, "total": 6}, {"echo": "abc", "length": 3, "total": 15}]
    assert ask(endpoint, {"instances": items}) == {"predictions": wanted}
    whole = {"text": ["ab"], "ids": [[1, 2, 3]]}
    assert ask(endpoint, {"inputs": whole}) == {"outputs": {"echo": ["ab"], "length": [2], "total": [6]}}
    assert ask(endpoint, {"signature_name": "double", "instances": [1.5]}) == {"predictions": [3.0]}
    status, message = refused(endpoint, {"instances": [{"text": "ab"}]})
    assert (status, message) == (400, "instance 1 lacks the input 'ids'")
    delete(endpoint)


def test_a_keras_file_says_what_to_do(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    assert "model.export(" in failure(deploy("tf-keras", folder / "keras", IMAGE, wait=False))
