"""PyTorch models, trained in an environment with PyTorch, behind endpoints of an Eyrie that runs from it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import RealEyrie
from tests.frameworks.world import ask, delete, deploy, failure, python_of, refused, running, train

pytestmark = pytest.mark.heavy

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    with running(python_of("torch")) as eyrie:
        yield eyrie


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torch")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    return train("torch", "train_torch.py", folder)


@pytest.mark.parametrize("form", ["script", "export", "code"])
def test_rows_in_every_form(eyrie: RealEyrie, folder: Path, told: dict[str, Any], form: str) -> None:
    endpoint = deploy(f"torch-{form}", folder / form, IMAGE if form != "export" else "eyrie/pytorch")
    rows, logits = told["rows"], told["logits"]
    assert np.allclose(ask(endpoint, rows), logits, atol=1e-5)
    csv = "\n".join(",".join(map(repr, row)) for row in rows)
    assert np.allclose(ask(endpoint, csv, "text/csv"), logits, atol=1e-5)
    lines = ask(endpoint, rows, accept="text/csv").splitlines()
    assert np.allclose([[float(x) for x in line.split(",")] for line in lines], logits, atol=1e-5)
    stream = io.BytesIO()
    np.save(stream, np.array(rows, dtype=np.float32))
    reply = ask(endpoint, stream.getvalue(), "application/x-npy", "application/x-npy")
    assert np.allclose(np.load(io.BytesIO(reply)), logits, atol=1e-5)
    assert refused(endpoint, rows, "application/xml")[0] == 415
    if form != "code":
        assert refused(endpoint, [[1, 2]])[0] == 400
    delete(endpoint)


def test_tensors_of_whole_numbers_with_two_outputs(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("torch-words", folder / "words", "eyrie/pytorch")
    found = ask(endpoint, {"instances": told["ids"]})["predictions"]
    assert np.allclose([item["output_0"] for item in found], told["scores"], atol=1e-5)
    assert np.allclose([item["output_1"] for item in found], told["mean"], atol=1e-5)
    status, message = refused(endpoint, {"instances": [[1, 2]]})
    assert (status, message) == (400, "ids: a tensor of shape [1, 2] came where [any, 5] is wanted")
    assert refused(endpoint, {"instances": [[999] * 5]})[0] == 400
    delete(endpoint)


def test_weights_without_code_say_what_to_do(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("torch-weights", folder / "weights", IMAGE, wait=False)
    assert "write a model_fn in code/inference.py" in failure(endpoint)
