"""Containers of somebody's own behind endpoints, through boto3: added by `eyrie image`, deployed, invoked, broken."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from .conftest import ROLE, WAIT, RealEyrie, running, until

SERVE = '''#!{python} -S
"""A container in the standard library: answers what its model says, and does what a request asks for."""
import http.server, json, os, signal, sys, time

ML = os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")
if os.environ.get("BREAK") == "start":
    sys.exit("no weights for this one")
WORD = open(ML + "/model/word").read()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

class Contract(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if body == b"refuse":
            self.answer(422, b"this row is not for me")
        elif body == b"die":
            os._exit(9)
        elif body == b"pid":
            self.answer(200, str(os.getpid()).encode())
        else:
            told = [WORD, self.headers.get("Content-Type"), self.headers.get("X-Amzn-SageMaker-Custom-Attributes")]
            self.answer(200, json.dumps(told + [len(body)]).encode())
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

print("up with", WORD, flush=True)
http.server.ThreadingHTTPServer.daemon_threads = True
http.server.HTTPServer.server_bind = lambda self: http.server.socketserver.TCPServer.server_bind(self)
http.server.ThreadingHTTPServer(
    ("0.0.0.0", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Contract
).serve_forever()
'''
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"


class Mine:
    """An Eyrie with an image of its own."""

    def __init__(self, eyrie: RealEyrie, source: Path) -> None:
        self.eyrie, self.source = eyrie, source
        self.sagemaker = boto3.client("sagemaker")
        self.runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))

    def create(self, name: str, count: int = 2, **environment: str) -> None:
        container = {"Image": IMAGE, "ModelDataUrl": "s3://mine/model.tar.gz", "Environment": environment}
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def in_service(self, name: str) -> None:
        self.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=WAIT)

    def ask(self, name: str, body: bytes = b"x", **more: str) -> bytes:
        return bytes(self.runtime.invoke_endpoint(EndpointName=name, Body=body, **more)["Body"].read())


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mine]:
    source = tmp_path_factory.mktemp("image")
    (source / "bin").mkdir()
    (source / "bin/serve").write_text(SERVE.replace("{python}", os.path.realpath(sys.executable)))
    (source / "bin/serve").chmod(0o755)
    pings = {"PERIOD_MS": 300, "TIMEOUT_MS": 1000, "MISSES": 2}
    variables = {f"EYRIE_FOREIGN_PING_{name}": value for name, value in pings.items()}
    with running(EYRIE_WARM_SLOTS=0, **variables) as eyrie:
        done = eyrie.run("image", "add", IMAGE, str(source))
        assert done.returncode == 0, done.stderr
        upload(b"first")
        yield Mine(eyrie, source)


def upload(word: bytes) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo("word")
        entry.size = len(word)
        tar.addfile(entry, io.BytesIO(word))
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="mine")
    s3.put_object(Bucket="mine", Key="model.tar.gz", Body=packed.getvalue())


@pytest.fixture(scope="module")
def endpoint(mine: Mine) -> str:
    mine.create("mine")
    mine.in_service("mine")
    return "mine"


def test_it_is_listed_and_described(mine: Mine, endpoint: str) -> None:
    assert IMAGE in mine.eyrie.run("image", "list").stdout
    (detail,) = boto3.client("ecr").describe_images(repositoryName="mine")["imageDetails"]
    assert detail["imageTags"] == ["1"]
    (variant,) = mine.sagemaker.describe_endpoint(EndpointName=endpoint)["ProductionVariants"]
    resolved = variant["DeployedImages"][0]["ResolvedImage"]
    assert resolved.endswith(f"/mine@{detail['imageDigest']}")


def test_it_answers_with_what_it_was_sent(mine: Mine, endpoint: str) -> None:
    answer = mine.ask(endpoint, b"1,2", ContentType="text/csv", CustomAttributes="a=b")
    assert answer == b'["first", "text/csv", "a=b", 3]'
    assert mine.ask(endpoint, bytes(5_000_000)).endswith(b"5000000]")


def test_its_own_status_and_words_reach_the_caller(mine: Mine, endpoint: str) -> None:
    with pytest.raises(ClientError) as refused:
        mine.ask(endpoint, b"refuse")
    told: Any = refused.value.response
    assert told["Error"]["Code"] == "ModelError"
    assert (told["OriginalStatusCode"], told["OriginalMessage"]) == (422, "this row is not for me")
    assert told["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_a_killed_instance_is_replaced_and_no_request_is_lost(mine: Mine, endpoint: str) -> None:
    failed: list[Exception] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                mine.ask(endpoint)
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    before = mine.eyrie.instances(endpoint)
    os.kill(before[0]["pid"], signal.SIGKILL)
    until(lambda: before[0]["id"] not in mine.eyrie.serving(endpoint) and len(mine.eyrie.serving(endpoint)) == 2)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []


def test_one_that_is_silent_is_replaced_by_its_pings(mine: Mine, endpoint: str) -> None:
    until(lambda: len(mine.eyrie.serving(endpoint)) == 2)
    frozen = mine.eyrie.instances(endpoint)[0]
    os.kill(frozen["pid"], signal.SIGSTOP)
    until(lambda: frozen["id"] not in mine.eyrie.serving(endpoint) and len(mine.eyrie.serving(endpoint)) == 2)
    until(lambda: frozen["id"] not in {i["id"] for i in mine.eyrie.instances(endpoint)}, 60.0)


def test_a_crash_at_the_start_is_the_reason_of_the_failure(mine: Mine) -> None:
    mine.create("broken", 1, BREAK="start")
    until(lambda: mine.sagemaker.describe_endpoint(EndpointName="broken")["EndpointStatus"] == "Failed", 60.0)
    reason = mine.sagemaker.describe_endpoint(EndpointName="broken")["FailureReason"]
    assert "The primary container for production variant v did not pass the ping health check" in reason
    assert "no weights for this one" in reason
    mine.sagemaker.delete_endpoint(EndpointName="broken")


def test_an_image_that_there_is_not_is_refused_with_what_to_do(mine: Mine) -> None:
    container = {"Image": IMAGE.replace("mine:1", "nothing:2")}
    with pytest.raises(ClientError, match=r"nothing:2 not found.*eyrie image add"):
        mine.sagemaker.create_model(ModelName="nothing", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    done = mine.eyrie.run("image", "add", "other:1", str(mine.source / "nowhere"))
    assert done.returncode == 1
    assert "no such directory" in done.stderr
    assert mine.eyrie.run("image", "remove", "other:1").returncode == 1


def test_it_heals_from_what_it_was_created_with(mine: Mine, endpoint: str) -> None:
    """The name means another image, the bucket and the model are gone, control is new: the endpoint is what it was."""
    other = mine.source.with_name("another")
    shutil.copytree(mine.source, other, dirs_exist_ok=True)
    served = (other / "bin/serve").read_text()
    (other / "bin/serve").write_text(served.replace("WORD = open", "WORD = 'second' or open"))
    assert mine.eyrie.run("image", "add", IMAGE, str(other)).returncode == 0
    boto3.client("s3").delete_object(Bucket="mine", Key="model.tar.gz")
    before = until(lambda: len(found := mine.eyrie.serving(endpoint)) == 2 and found)
    os.kill(mine.eyrie.processes()["control"], signal.SIGKILL)
    until(lambda: _serving(mine, endpoint) == before)
    assert mine.ask(endpoint).startswith(b'["first"')
    for instance in [i for i in mine.eyrie.instances(endpoint) if i["id"] in before]:
        os.kill(instance["pid"], signal.SIGKILL)
    until(lambda: len(now := _serving(mine, endpoint)) == 2 and not now & before, 60.0)
    assert {mine.ask(endpoint)[:8] for _ in range(8)} == {b'["first"'}


def _serving(mine: Mine, endpoint: str) -> set[str]:
    """None while control is away."""
    from eyrie.cli.errors import CommandError

    try:
        return mine.eyrie.serving(endpoint)
    except CommandError:
        return set()
