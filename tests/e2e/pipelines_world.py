"""An Eyrie with images of somebody's own, and several containers to an instance: the world of two tests. Where its
images come from, and what runs them, is theirs to say.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
from botocore.config import Config

from .conftest import ROLE, WAIT, RealEyrie, running

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


class World:
    """An Eyrie with images of somebody's own, and archives for them and for ours."""

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
        image = "eyrie/sklearn" if kind == "ours" else image_of(kind)
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


def image_of(kind: str) -> str:
    """What an image is called here."""
    return f"mine/{kind}:1"


@contextlib.contextmanager
def mixed_world(sources: Mapping[str, str], compute: str | None = None) -> Iterator[World]:
    """`sources`: what `eyrie image add` makes an image of, by its kind. `compute`: of EYRIE_COMPUTE."""
    variables = {} if compute is None else {"EYRIE_COMPUTE": compute}
    with running(EYRIE_WARM_SLOTS=0, **variables) as eyrie:
        for kind, source in sources.items():
            done = eyrie.run("image", "add", image_of(kind), source)
            assert done.returncode == 0, done.stderr
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="mixed")
        for name, inside, text in (("added", "added", b"0.5"), ("ours", "code/inference.py", OURS.encode())):
            s3.put_object(Bucket="mixed", Key=f"{name}.tar.gz", Body=packed(inside, text))
        yield World(eyrie)


def serve_program() -> str:
    """The program `serve` of an image."""
    return SERVE.replace("{python}", os.path.realpath(sys.executable))


def packed(name: str, text: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return made.getvalue()
