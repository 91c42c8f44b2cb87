"""Control is killed with SIGKILL at eight points of a create, an update and a delete, by itself and at once; `eyrie up`
starts it again. Real processes throughout. The end is the same: the endpoint serves, whole; nothing was started twice.
"""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from eyrie.adapters import process_lock

STANDIN = Path(__file__).parent / "standins" / "mortal_up.py"
ROLE = "arn:aws:iam::123456789012:role/test"
MODEL = b"""
def model_fn(model_dir):
    return "a model"
def input_fn(body, content_type):
    return body
def predict_fn(data, model):
    return data
def output_fn(prediction, accept):
    return prediction, "text/csv"
"""
CREATE = ("after commit endpoint Creating", "after fetch", "before ensure", "after ensure", "after publish")
UPDATE = ("after commit deployment SHIFTING", "before stop")
DELETE = ("after withdraw",)


@dataclass
class Running:
    """One Eyrie, and its clients."""

    data: Path
    sagemaker: Any
    runtime: Any

    def arm(self, point: str) -> int:
        """Let control die at the next point of this name; the pid that will die."""
        (self.data / "die-at").write_text(point)
        return int((self.data / "run" / "control.lock").read_text())

    def died(self, pid: int) -> bool:
        """That control is gone, and another one is there."""
        now = process_lock.holder(self.data / "run" / "control.lock")
        return not (self.data / "die-at").exists() and now not in (None, pid)

    def ask(self, call: Callable[..., Any], **params: Any) -> None:
        """A command whose answer may be lost: that it was heard shows in what follows."""
        with contextlib.suppress(ClientError):
            call(**params)

    def status(self, name: str) -> str:
        try:
            return str(self.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])
        except ClientError as error:
            return "gone" if "Could not find" in str(error) else "away"

    def running(self, name: str) -> list[str]:
        """Instances of an endpoint whose lock is held: what runs, whatever control believes."""
        found = []
        for spec in (self.data / "slots").glob("*/spec.json"):
            with contextlib.suppress(FileNotFoundError):
                if json.loads(spec.read_text())["endpoint"]["name"] == name and _held(spec.with_name("lock")):
                    found.append(spec.parent.name)
        return found

    def requested(self, name: str) -> int:
        """How many instances were ever asked for, by the story."""
        with contextlib.closing(sqlite3.connect(f"file:{self.data / 'eyrie.db'}?mode=ro", uri=True)) as state:
            query = "select count(*) from events where name = ? and what like 'instance % REQUESTED %'"
            return int(state.execute(query, (name,)).fetchone()[0])

    def echo(self, name: str) -> bool:
        reply = self.runtime.invoke_endpoint(EndpointName=name, ContentType="text/csv", Body=b"1,2,3")
        return bool(reply["Body"].read() == b"1,2,3")


def _held(lock: Path) -> bool:
    import fcntl

    with open(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def until(true: Callable[[], bool], what: str, limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def eyrie() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="eyrie-chaos-", ignore_cleanup_errors=True) as folder:
        data = Path(folder) / "data"
        up = subprocess.Popen([sys.executable, str(STANDIN), str(data)], stdout=subprocess.PIPE, text=True)
        assert up.stdout is not None
        try:
            line = up.stdout.readline()
            assert "ready" in line, line
            yield _with_models(data)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(60)
            up.stdout.close()


def _with_models(data: Path) -> Running:
    port = json.loads((data / "env.json").read_text())["port"]
    key = json.loads((data / "credentials.json").read_text())[0]
    session = boto3.Session(key["access_key_id"], key["secret_access_key"], region_name="us-east-1")
    once = Config(retries={"total_max_attempts": 1}, read_timeout=30)
    clients = {
        name: session.client(name, endpoint_url=f"http://127.0.0.1:{port}", config=once)
        for name in ("s3", "sagemaker", "sagemaker-runtime")
    }
    s3, sagemaker = clients["s3"], clients["sagemaker"]
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="echo.tar.gz", Body=_archive())
    container = {"Image": "eyrie/sklearn", "ModelDataUrl": "s3://models/echo.tar.gz"}
    sagemaker.create_model(ModelName="echo", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    for name in ("first", "second"):
        variant = {"VariantName": "A", "ModelName": "echo", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    return Running(data, sagemaker, clients["sagemaker-runtime"])


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(MODEL)
        archive.addfile(entry, io.BytesIO(MODEL))
    return out.getvalue()


def whole(eyrie: Running, name: str) -> None:
    until(lambda: eyrie.status(name) == "InService", f"{name} InService")
    until(lambda: len(eyrie.running(name)) == 2, f"two instances of {name}: {eyrie.running(name)}")
    assert eyrie.echo(name)


def delete(eyrie: Running, name: str) -> None:
    eyrie.ask(eyrie.sagemaker.delete_endpoint, EndpointName=name)
    until(lambda: eyrie.status(name) == "gone", f"{name} gone")
    until(lambda: not eyrie.running(name), f"no instance of {name}")


@pytest.mark.parametrize(("number", "point"), list(enumerate(CREATE)))
def test_killed_while_creating(eyrie: Running, number: int, point: str) -> None:
    name = f"created-{number}"
    pid = eyrie.arm(point)
    eyrie.ask(eyrie.sagemaker.create_endpoint, EndpointName=name, EndpointConfigName="first")
    until(lambda: eyrie.died(pid), f"control dies {point}")
    whole(eyrie, name)
    described = eyrie.sagemaker.describe_endpoint(EndpointName=name)
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert eyrie.requested(name) == 2
    delete(eyrie, name)


@pytest.mark.parametrize(("number", "point"), list(enumerate(UPDATE)))
def test_killed_while_updating(eyrie: Running, number: int, point: str) -> None:
    name = f"updated-{number}"
    eyrie.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="first")
    whole(eyrie, name)
    blue = set(eyrie.running(name))
    pid = eyrie.arm(point)
    eyrie.ask(eyrie.sagemaker.update_endpoint, EndpointName=name, EndpointConfigName="second")
    while not eyrie.died(pid):
        assert eyrie.echo(name)  # invocations go on, whoever is there to watch
    whole(eyrie, name)
    assert eyrie.sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] == "second"
    assert not blue & set(eyrie.running(name))
    assert eyrie.requested(name) == 4
    delete(eyrie, name)


@pytest.mark.parametrize("point", DELETE)
def test_killed_while_deleting(eyrie: Running, point: str) -> None:
    eyrie.sagemaker.create_endpoint(EndpointName="d", EndpointConfigName="first")
    whole(eyrie, "d")
    pid = eyrie.arm(point)
    eyrie.ask(eyrie.sagemaker.delete_endpoint, EndpointName="d")
    until(lambda: eyrie.died(pid), f"control dies {point}")
    until(lambda: eyrie.status("d") == "gone", "d gone")
    until(lambda: not eyrie.running("d"), "no instance of d")
    assert list((eyrie.data / "routes").iterdir()) == []
