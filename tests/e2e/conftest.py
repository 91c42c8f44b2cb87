"""A real Eyrie for the tests of a module: `eyrie up --detach` on a free port, `eyrie down` at the end."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from demo import belonging_to
from demo_models import Model, build_models
from eyrie.cli.client import ControlClient

# Tests in a browser run from .venv-console, which has what drives one.
collect_ignore = [] if importlib.util.find_spec("playwright") else ["test_console.py"]

ROLE = "arn:aws:iam::123456789012:role/test"
WAIT = {"Delay": 1, "MaxAttempts": 90}


class RealEyrie:
    """One data directory and the commands on it."""

    def __init__(self, data: Path, prefix: list[str] | None = None, python: Path = Path(sys.executable)) -> None:
        self.data = data
        self._command = [*(prefix or []), str(python), "-P", "-m", "eyrie"]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """An `eyrie` command on our data directory."""
        command = [*self._command, *arguments, "--data", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)

    def up(self, *flags: str) -> str:
        """Bring it up; the ready line."""
        done = self.run("up", "--detach", "--port", str(self.port if self.env_file.exists() else 0), *flags)
        assert done.returncode == 0, done.stderr + self.last_logs()
        return done.stdout

    def down(self) -> None:
        """Take it down; nothing may be left."""
        done = self.run("down")
        assert done.returncode == 0, done.stderr + self.last_logs()
        until(lambda: not belonging_to(self.data))

    @property
    def env_file(self) -> Path:
        return self.data / "env.json"

    @property
    def port(self) -> int:
        return int(json.loads(self.env_file.read_text())["port"])

    def exports(self) -> dict[str, str]:
        """The variables of `eyrie env`."""
        lines = (shlex.split(line) for line in self.run("env").stdout.splitlines())
        return dict(word[1].split("=", 1) for word in lines if word[0] == "export")

    def processes(self) -> dict[str, int]:
        """Process ids by name, as env.json and the locks have them."""
        return dict(json.loads(self.run("status", "--json").stdout)["processes"])

    def status(self) -> dict[str, Any]:
        return ControlClient(self.data, "us-east-1").status()

    def instances(self, endpoint: str) -> list[dict[str, Any]]:
        """The instances of an endpoint; none while control does not know it."""
        return [i for e in self.status()["endpoints"] if e["name"] == endpoint for i in e["instances"]]

    def serving(self, endpoint: str) -> set[str]:
        """The instances that are READY and routed."""
        return {i["id"] for i in self.instances(endpoint) if i["state"] == "READY" and i["routed"]}

    def last_logs(self) -> str:
        """The end of every log, for failures."""
        logs = sorted((self.data / "logs").glob("*.log"))
        return "".join(f"\n--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


class Deployed:
    """What the tests of a module deploy, and how they reach it."""

    def __init__(self, eyrie: RealEyrie, models: list[Model], rows: list[str], truth: list[int]) -> None:
        self.eyrie = eyrie
        self.models = models
        self.rows = rows
        self.truth = truth

    def upload(self) -> None:
        """Put both models in a bucket and create them."""
        s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
        s3.create_bucket(Bucket="models")
        for model in self.models:
            s3.upload_file(str(model.archive), "models", f"{model.name}.tar.gz")
            container = {"Image": model.image, "ModelDataUrl": f"s3://models/{model.name}.tar.gz"}
            sagemaker.create_model(ModelName=model.name, PrimaryContainer=container, ExecutionRoleArn=ROLE)

    def create(self, endpoint: str, instances: int = 2, models: tuple[str, ...] = ("sklearn",)) -> None:
        """An endpoint with a variant for each of these models; returns when it is InService."""
        sagemaker = boto3.client("sagemaker")
        variants = [
            {
                "VariantName": name,
                "ModelName": name,
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": instances,
                "InitialVariantWeight": 1.0,
            }
            for name in models
        ]
        sagemaker.create_endpoint_config(EndpointConfigName=endpoint, ProductionVariants=variants)
        sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=endpoint)
        self.wait_in_service(endpoint)

    def wait_in_service(self, endpoint: str) -> None:
        """boto3's own waiter."""
        boto3.client("sagemaker").get_waiter("endpoint_in_service").wait(EndpointName=endpoint, WaiterConfig=WAIT)

    def delete(self, endpoint: str) -> None:
        """Delete an endpoint and its config; returns when it is gone."""
        sagemaker = boto3.client("sagemaker")
        sagemaker.delete_endpoint(EndpointName=endpoint)
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=endpoint, WaiterConfig=WAIT)
        sagemaker.delete_endpoint_config(EndpointConfigName=endpoint)

    def ask(self, endpoint: str, row: str | None = None, **more: str) -> str:
        """One invocation without client retries; the body."""
        runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        body = self.rows[0] if row is None else row
        reply = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="text/csv", Body=body, **more)
        return str(reply["Body"].read().decode())


def until(seen: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `seen` returns once it is true; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        time.sleep(0.02)
    return found


def point_boto3_at(eyrie: RealEyrie, patch: pytest.MonkeyPatch) -> None:
    """The environment of `eyrie env`, and a default session that has not seen another one."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
    for name, value in eyrie.exports().items():
        patch.setenv(name, value)
    patch.setattr(boto3, "DEFAULT_SESSION", None)


def remove(eyrie: RealEyrie) -> None:
    """End what a failed test left, and remove the data directory."""
    eyrie.run("down")
    for pid in belonging_to(eyrie.data):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(eyrie.data, ignore_errors=True)


def not_yet(prefix: list[str] | None = None, python: Path = Path(sys.executable)) -> RealEyrie:
    """An Eyrie that does not run yet, with a data directory of its own."""
    return RealEyrie(Path(tempfile.mkdtemp(prefix="eyrie-e2e-")), prefix, python)


@contextmanager
def running(*flags: str, eyrie: RealEyrie | None = None, **variables: object) -> Iterator[RealEyrie]:
    """A running Eyrie; boto3's environment points at it. `flags` of `eyrie up`, `variables` of its environment."""
    eyrie = eyrie or not_yet()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, str(value))
        try:
            eyrie.up(*flags)
            point_boto3_at(eyrie, patch)
            yield eyrie
            eyrie.down()
        finally:
            remove(eyrie)


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    """A running Eyrie as it is by default."""
    with running() as eyrie:
        yield eyrie


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Model], list[str], list[int]]:
    """Two real models, the test rows and their true labels."""
    return build_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def deployed(eyrie: RealEyrie, trained: tuple[list[Model], list[str], list[int]]) -> Deployed:
    """Both models uploaded and created."""
    found = Deployed(eyrie, *trained)
    found.upload()
    return found
