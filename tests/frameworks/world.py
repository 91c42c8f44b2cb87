"""A real Eyrie that runs from an environment with a framework in it, models trained there, and endpoints of them.

The environments are made by `make setup-frameworks` from the lock files beside this page. The test itself runs in the
main environment: what it knows of a model is what the training script printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.e2e import conftest as e2e
from tests.e2e.conftest import ROLE, WAIT, RealEyrie, until

ROOT = Path(__file__).parent.parent.parent
TRAIN_S = 600


def python_of(name: str) -> Path:
    """The interpreter of an environment."""
    return ROOT / f".venv-{name}" / "bin" / "python"


def train(name: str, script: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run a script of this folder in an environment, with `folder` as its working directory; its last line is JSON."""
    command = [str(python_of(name)), "-W", "ignore", str(Path(__file__).parent / script), *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    env |= {"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=TRAIN_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def running(python: Path, *flags: str) -> Iterator[RealEyrie]:
    """A running Eyrie of that interpreter's environment; boto3's environment points at it."""
    with e2e.running(*flags, eyrie=e2e.not_yet(python=python)) as eyrie:
        boto3.client("s3").create_bucket(Bucket="models")
        yield eyrie


def deploy(name: str, folder: Path, image: str, env: dict[str, str] | None = None, wait: bool = True) -> str:
    """An endpoint of one instance with everything in a folder as its model; returns its name when it is InService."""
    archive = folder.parent / f"{name}.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, path.name)
    boto3.client("s3").upload_file(str(archive), "models", archive.name)
    sagemaker = boto3.client("sagemaker")
    container = {"Image": image, "ModelDataUrl": f"s3://models/{archive.name}", "Environment": env or {}}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "all", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    if wait:
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=WAIT)
    return name


def ask(endpoint: str, body: Any, content_type: str = "application/json", accept: str = "") -> Any:
    """One invocation without client retries; JSON as what it holds, everything else as text."""
    runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    more = {"Accept": accept} if accept else {}
    reply = runtime.invoke_endpoint(EndpointName=endpoint, ContentType=content_type, Body=data, **more)
    given = reply["Body"].read()
    if reply["ContentType"].partition(";")[0] == "application/json":
        return json.loads(given)
    return given if reply["ContentType"] == "application/x-npy" else given.decode()


def refused(endpoint: str, body: Any, content_type: str = "application/json", accept: str = "") -> tuple[int, str]:
    """The status and the message that a model answers a bad request with."""
    runtime = boto3.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        ask(endpoint, body, content_type, accept)
    return int(caught.value.response["OriginalStatusCode"]), str(caught.value.response["OriginalMessage"])


def failure(endpoint: str) -> str:
    """The reason of an endpoint that fails; deletes it."""
    sagemaker = boto3.client("sagemaker")

    def ended() -> str:
        told = sagemaker.describe_endpoint(EndpointName=endpoint)
        return str(told["FailureReason"]) if told["EndpointStatus"] == "Failed" else ""

    reason: str = until(ended, WAIT["Delay"] * WAIT["MaxAttempts"])
    sagemaker.delete_endpoint(EndpointName=endpoint)
    return reason


def delete(endpoint: str) -> None:
    """Delete an endpoint; returns when it is gone."""
    sagemaker = boto3.client("sagemaker")
    sagemaker.delete_endpoint(EndpointName=endpoint)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=endpoint, WaiterConfig=WAIT)
