"""Containers of somebody's own among ours in one instance, through boto3: a pipeline that passes through both, direct
invocation of each, what they say, and their ends. One has a root file system of its own, one is a folder.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from eyrie.adapters import sandbox
from tests.contract.container_world import root_image

from .conftest import ROLE, WAIT, RealEyrie, point_boto3_at, remove, until

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        sandbox.detect("auto").kind != sandbox.BUBBLEWRAP, reason="a root file system needs the sandbox of bubblewrap"
    ),
]
SERVE = '''#!{python} -S
"""A container in the standard library: adds to every number what its model says."""
import http.server, os, signal, sys, time

ML = os.environ["SM_MODEL_DIR"]
if os.environ.get("BREAK") == "start":
    sys.exit("no weights for this one")
ADDED = float(open(ML + "/added").read())
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

class Contract(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, b"")
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if "die" in body:
            os._exit(9)
        elif "refuse" in body:
            self.answer(422, b"this row is not for me")
        elif "pieces" in body:
            self.send_response(200)
            self.send_header("Content-Type", "text/csv")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"1,", b"2,", b"3"):
                self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(0.1)
            self.wfile.write(b"0\\r\\n\\r\\n")
        elif "secret" in body:
            self.answer(200, str(os.path.exists("/etc/secret-of-the-image")).encode())
        else:
            assert self.headers["Content-Type"].startswith("text/csv"), self.headers["Content-Type"]
            print("adding to", body[:40], flush=True)
            self.answer(200, ",".join(str(float(x) + ADDED) for x in body.split(",")).encode())
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

http.server.HTTPServer.server_bind = lambda self: http.server.socketserver.TCPServer.server_bind(self)
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Contract).serve_forever()
'''
OURS = """
def model_fn(folder):
    return None

def input_fn(data, content_type):
    text = data if isinstance(data, str) else data.decode()
    return text if not text[:1].isdigit() else [float(x) for x in text.split(",")]

def predict_fn(value, model):
    return value if isinstance(value, str) else [10 * x for x in value]

def output_fn(value, accept):
    return (value if isinstance(value, str) else ",".join(map(str, value))), "text/csv"
"""
ROOTED, FOLDER = "mine/rooted:1", "mine/folder:1"
LARGEST = 5_000_000


class World:
    """An Eyrie with two images of somebody's own, and archives for them and for ours."""

    def __init__(self, eyrie: RealEyrie) -> None:
        self.eyrie = eyrie
        self.sagemaker = boto3.client("sagemaker")
        self.runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))

    def create(self, name: str, hosts: str, mode: str = "Serial", **environment: str) -> None:
        containers = [self.container(host, environment) for host in hosts.split()]
        self.sagemaker.create_model(
            ModelName=name,
            Containers=containers,
            InferenceExecutionConfig={"Mode": mode},
            ExecutionRoleArn=ROLE,
        )
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def in_service(self, name: str) -> str:
        self.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=WAIT)
        return name

    def container(self, host: str, environment: dict[str, str]) -> dict[str, Any]:
        kind = host.rstrip("0123456789")
        image = {"rooted": ROOTED, "folder": FOLDER, "ours": "eyrie/sklearn"}[kind]
        archive = "ours.tar.gz" if kind == "ours" else "added.tar.gz"
        given = {} if kind == "ours" else environment
        return {
            "ContainerHostname": host,
            "Image": image,
            "ModelDataUrl": f"s3://mixed/{archive}",
            "Environment": given,
        }

    def ask(self, name: str, body: bytes, **more: str) -> bytes:
        reply = self.runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="text/csv", **more)
        return bytes(reply["Body"].read())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("mixed")
    rooted = root_image(folder / "rooted")
    served = SERVE.replace("{python}", os.path.realpath(sys.executable))
    for place in (rooted / "usr/local/bin/serve", folder / "folder/bin/serve"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(served)
        place.chmod(0o755)
    eyrie = RealEyrie(Path(tempfile.mkdtemp(prefix="eyrie-e2e-")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EYRIE_WARM_SLOTS", "0")
        try:
            eyrie.up()
            point_boto3_at(eyrie, patch)
            for image, source in ((ROOTED, rooted), (FOLDER, folder / "folder")):
                done = eyrie.run("image", "add", image, str(source))
                assert done.returncode == 0, done.stderr
            s3 = boto3.client("s3")
            s3.create_bucket(Bucket="mixed")
            for name, inside, text in (("added", "added", b"0.5"), ("ours", "code/inference.py", OURS.encode())):
                s3.put_object(Bucket="mixed", Key=f"{name}.tar.gz", Body=packed(inside, text))
            yield World(eyrie)
            eyrie.down()
        finally:
            remove(eyrie)


def packed(name: str, text: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return made.getvalue()


@pytest.fixture(scope="module")
def pipeline(world: World) -> str:
    world.create("pipeline", "ours1 rooted ours2 folder")
    return world.in_service("pipeline")


def test_a_request_passes_through_all_of_them_in_order(world: World, pipeline: str) -> None:
    assert world.ask(pipeline, b"1,2") == b"105.5,205.5"  # (10 x + 0.5) * 10 + 0.5
    numbers = ",".join(["1"] * (LARGEST // 2)).encode()
    answer = world.ask(pipeline, numbers).split(b",")
    assert (len(answer), set(answer)) == (LARGEST // 2, {b"105.5"})


def test_a_refusal_names_the_container_and_what_it_prints_is_in_its_log(world: World, pipeline: str) -> None:
    with pytest.raises(ClientError) as refused:
        world.ask(pipeline, b"refuse")
    told: Any = refused.value.response
    assert (told["OriginalStatusCode"], told["OriginalMessage"]) == (422, "this row is not for me")
    logs = boto3.client("logs")
    group = "/aws/sagemaker/Endpoints/pipeline"
    streams = [s["logStreamName"] for s in logs.describe_log_streams(logGroupName=group)["logStreams"]]
    (rooted,) = [name for name in streams if name.endswith("/rooted")]
    assert "from rooted with message" in told["Error"]["Message"]

    def said() -> list[str]:
        found = logs.get_log_events(logGroupName=group, logStreamName=rooted)["events"]
        return [event["message"] for event in found if event["message"].startswith("adding to 10.0,20.0")]

    until(said)


def test_an_answer_in_pieces_is_gathered_between_containers(world: World, pipeline: str) -> None:
    assert world.ask(pipeline, b"pieces") == b"10.5,20.5,30.5"


def test_each_is_invoked_by_its_name(world: World) -> None:
    world.create("direct", "ours rooted folder", "Direct")
    world.in_service("direct")
    asked = {host: world.ask("direct", b"1,2", TargetContainerHostname=host) for host in ("ours", "rooted", "folder")}
    assert asked == {"ours": b"10.0,20.0", "rooted": b"1.5,2.5", "folder": b"1.5,2.5"}
    secret = {host: world.ask("direct", b"secret", TargetContainerHostname=host) for host in ("rooted", "folder")}
    assert secret == {"rooted": b"True", "folder": b"False"}
    stream = world.runtime.invoke_endpoint_with_response_stream(
        EndpointName="direct", Body=b"pieces", ContentType="text/csv", TargetContainerHostname="rooted"
    )
    parts = [event["PayloadPart"]["Bytes"] for event in stream["Body"]]
    assert b"".join(parts) == b"1,2,3"
    assert len(parts) > 1
    world.sagemaker.delete_endpoint(EndpointName="direct")


def test_one_that_ends_takes_its_instance_with_it_and_another_comes(world: World, pipeline: str) -> None:
    before = world.eyrie.serving(pipeline)
    with pytest.raises(ClientError):
        world.ask(pipeline, b"die")
    until(lambda: (now := world.eyrie.serving(pipeline)) and not now & before, 60.0)
    assert world.ask(pipeline, b"1") == b"105.5"


def test_a_crash_at_the_start_is_the_reason_of_the_failure(world: World) -> None:
    world.create("broken", "ours rooted", BREAK="start")
    until(lambda: world.sagemaker.describe_endpoint(EndpointName="broken")["EndpointStatus"] == "Failed", 60.0)
    reason = world.sagemaker.describe_endpoint(EndpointName="broken")["FailureReason"]
    assert "The rooted container for production variant v did not pass the ping health check" in reason
    assert "no weights for this one" in reason
    world.sagemaker.delete_endpoint(EndpointName="broken")
