"""Hugging Face pipelines of local files, made in an environment with transformers, behind endpoints of an Eyrie that
runs from it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import RealEyrie
from tests.frameworks.world import ask, delete, deploy, failure, python_of, refused, running, train

pytestmark = pytest.mark.heavy

REGISTRY = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
IMAGE = f"{REGISTRY}/huggingface-pytorch-inference:2.6.0-transformers4.51.3-cpu-py312-ubuntu22.04"


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    with running(python_of("torch")) as eyrie:
        yield eyrie


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("huggingface")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    return train("torch", "train_huggingface.py", folder)


def close(found: Any, wanted: Any) -> bool:
    """The same labels in the same order, scores within 1e-5."""
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(close, found, wanted))
    return found["label"] == wanted["label"] and abs(found["score"] - wanted["score"]) < 1e-5


def test_a_pipeline(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("hf-classifier", folder / "model", IMAGE, {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"})
    assert told["one"][0]["label"] == "good"
    assert close(ask(endpoint, {"inputs": "a good film"}), told["one"])
    two = {"inputs": ["a good film", "an awful film"], "parameters": {"top_k": None}}
    assert close(ask(endpoint, two), told["two"])
    assert close(ask(endpoint, "a good film", "text/plain"), told["one"])
    assert ask(endpoint, "inputs\na good film\n", "text/csv", "text/csv").startswith("label,score\ngood,0.")
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda _: ask(endpoint, {"inputs": "a good film"}), range(24)))
    assert all(close(one, told["one"]) for one in many)
    assert refused(endpoint, {"inputs": {"x": 3}})[0] == 400
    assert refused(endpoint, {"inputs": "a", "parameters": 3}) == (400, '"parameters" must be an object')
    assert refused(endpoint, b"[")[0] == 400
    assert refused(endpoint, "a", "application/xml")[0] == 415
    delete(endpoint)


def test_a_task_of_the_environment_and_array_answers(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("hf-features", folder / "features", "eyrie/huggingface", {"HF_TASK": "feature-extraction"})
    reply = ask(endpoint, {"inputs": "a good film"}, accept="application/x-npy")
    assert np.allclose(np.load(io.BytesIO(reply)), told["features"], atol=1e-5)
    delete(endpoint)


def test_a_script_with_the_toolkits_handlers_for_the_rest(eyrie: RealEyrie, folder: Path, told: dict[str, Any]) -> None:
    endpoint = deploy("hf-script", folder / "code", IMAGE)
    assert ask(endpoint, {"inputs": "a good film"}) == {"first": "GOOD"}
    delete(endpoint)


def test_a_model_of_the_hub_is_refused_with_the_reason(eyrie: RealEyrie, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("the weights are on the hub")
    endpoint = deploy("hf-hub", tmp_path / "model", IMAGE, {"HF_MODEL_ID": "somebody/large"}, wait=False)
    assert "an instance cannot reach" in failure(endpoint)
