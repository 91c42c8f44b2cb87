"""Batch transform of other kinds: by a container of one's own, which says how it wants its requests; of RecordIO and
TFRecord files.
"""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import boto3
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from .conftest import ROLE, RealEyrie, until

pytestmark = pytest.mark.heavy

ENDED = ("Completed", "Failed", "Stopped")
SERVE = '''#!{python} -S
"""Answers each line with its length; says how many requests it has at once, and how long each is."""
import http.server, json, os, threading, time

TOLD = json.loads(os.environ.get("TOLD", "null"))
guard, at_once = threading.Lock(), 0
print("batch", os.environ.get("SAGEMAKER_BATCH"), os.environ.get("SAGEMAKER_BATCH_STRATEGY"), flush=True)

class Contract(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/execution-parameters" and TOLD:
            self.answer(200, json.dumps(TOLD).encode())
        else:
            self.answer(200 if self.path == "/ping" else 404, b"")
    def do_POST(self):
        global at_once
        with guard:
            at_once += 1
            now = at_once
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.1)
        print("request", len(body), body.count(b"\\n") + (not body.endswith(b"\\n")), now, flush=True)
        with guard:
            at_once -= 1
        if b"odd" in body:
            self.answer(422, b"an odd line")
        else:
            self.answer(200, b"".join(b"%d\\n" % len(line) for line in body.split(b"\\n") if line))
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

http.server.HTTPServer.server_bind = lambda self: http.server.socketserver.TCPServer.server_bind(self)
http.server.ThreadingHTTPServer(
    ("0.0.0.0", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Contract
).serve_forever()
'''
FRAMED = b"""
import io, os, struct
import joblib, numpy

def model_fn(folder):
    return joblib.load(os.path.join(folder, "model.joblib"))

def input_fn(body, kind):
    rows, at = [], 0
    while at < len(body):
        if kind == "application/x-recordio":
            magic, head = struct.unpack_from("<II", body, at)
            assert magic == 0xCED7230A
            size = head & ((1 << 29) - 1)
            rows.append(struct.unpack_from("<3f", body, at + 8))
            at += 8 + size + (-size % 4)
        else:
            (size,) = struct.unpack_from("<Q", body, at)
            rows.append(struct.unpack_from("<3f", body, at + 12))
            at += 12 + size + 4
    return numpy.array(rows)

def predict_fn(rows, model):
    return model.predict(rows)

def output_fn(found, accept):
    return "".join("%.4f\\n" % one for one in found), "text/csv"
"""
LINES = [b"x" * (n % 900 + 1) for n in range(6_000)]  # 2.7 MB
ANSWERS = b"".join(b"%d\n" % len(line) for line in LINES)


@pytest.fixture(scope="module")
def bucket(eyrie: RealEyrie, tmp_path_factory: pytest.TempPathFactory) -> str:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="kinds")
    s3.put_object(Bucket="kinds", Key="lines/a.csv", Body=b"\n".join(LINES))
    s3.put_object(Bucket="kinds", Key="odd/a.csv", Body=b"\n".join([*LINES[:40], b"odd", *LINES[40:80]]))
    source = tmp_path_factory.mktemp("image")
    (source / "bin").mkdir()
    (source / "bin/serve").write_text(SERVE.replace("{python}", os.path.realpath(sys.executable)))
    (source / "bin/serve").chmod(0o755)
    added = eyrie.run("image", "add", "teller:1", str(source))
    assert added.returncode == 0, added.stderr
    return "kinds"


def create(name: str, image: str, model: str | None = None, **environment: str) -> None:
    container: dict[str, Any] = {"Image": image, "Environment": environment}
    container |= {"ModelDataUrl": f"s3://kinds/{model}"} if model else {}
    boto3.client("sagemaker").create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)


def work_off(name: str, model: str, prefix: str, kind: str = "text/csv", split: str = "Line", **more: Any) -> Any:
    """A job, once it is over; its outputs."""
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://kinds/{prefix}"}}
    output = {"S3OutputPath": f"s3://kinds/out/{name}", **({"AssembleWith": "Line"} if split == "Line" else {})}
    sagemaker.create_transform_job(
        TransformJobName=name,
        ModelName=model,
        TransformInput={"DataSource": source, "ContentType": kind, "SplitType": split},
        TransformOutput=output,
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    )

    def ended() -> Any:
        job = sagemaker.describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] in ENDED else None

    job = until(ended, 240.0)
    listed = s3.list_objects_v2(Bucket="kinds", Prefix=f"out/{name}/").get("Contents", [])
    keys = [entry["Key"] for entry in listed]
    return job, {key.split("/")[-1]: s3.get_object(Bucket="kinds", Key=key)["Body"].read() for key in keys}


def requests(name: str) -> tuple[str, list[tuple[int, int, int]]]:
    """The first line of a job's container, and its requests: bytes, lines, how many at once."""
    logs, group = boto3.client("logs"), "/aws/sagemaker/TransformJobs"
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
    (stream,) = [one["logStreamName"] for one in streams if not one["logStreamName"].endswith("/data-log")]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, limit=10_000)["events"]
    text = "\n".join(event["message"] for event in events)
    found = re.findall(r"request (\d+) (\d+) (\d+)", text)
    return text, [(int(size), int(lines), int(at_once)) for size, lines, at_once in found]


def test_a_container_says_how_it_wants_its_requests(eyrie: RealEyrie, bucket: str) -> None:
    told = '{"MaxConcurrentTransforms": 3, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1}'
    create("teller", "teller:1", TOLD=told)
    job, found = work_off("told", "teller", "lines/")
    assert job["TransformJobStatus"] == "Completed", job
    assert found == {"a.csv.out": ANSWERS}
    text, asked = requests("told")
    assert "batch true None" in text
    assert len(asked) == 3
    assert all(size <= 1 << 20 for size, _, _ in asked)
    assert max(at_once for _, _, at_once in asked) == 3


def test_the_job_says_otherwise_and_a_bad_record_is_told(eyrie: RealEyrie, bucket: str) -> None:
    create("mute", "teller:1")
    more = {"BatchStrategy": "SingleRecord", "MaxConcurrentTransforms": 8, "MaxPayloadInMB": 2}
    job, found = work_off("single", "mute", "odd/", Environment={"EYRIE_BAD_RECORDS_MAX": "1"}, **more)
    assert job["TransformJobStatus"] == "Completed", job
    lines = [b"%d" % len(line) for line in LINES[:80]]
    assert found["a.csv.out"].split(b"\n") == [*lines[:40], b"", *lines[40:], b""]
    text, asked = requests("single")
    assert "batch true SINGLE_RECORD" in text
    assert {lines for _, lines, _ in asked} == {1}
    assert 4 <= max(at_once for _, _, at_once in asked) <= 8
    job, found = work_off("strict", "mute", "odd/")
    assert job["TransformJobStatus"] == "Failed"
    assert 'record 41: Received client error (422) from primary with message "an odd line"' in job["FailureReason"]
    assert found == {}


def record_io(payload: bytes) -> bytes:
    return struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4)


def tf_record(payload: bytes) -> bytes:
    return struct.pack("<QI", len(payload), zlib.crc32(payload)) + payload + bytes(4)


@pytest.mark.parametrize(
    ("split", "kind", "framed"),
    [("RecordIO", "application/x-recordio", record_io), ("TFRecord", "application/x-tfrecord", tf_record)],
)
def test_files_of_records_go_through_a_model(
    eyrie: RealEyrie, bucket: str, tmp_path: Path, split: str, kind: str, framed: Any
) -> None:
    chance = np.random.default_rng(3)
    rows = chance.normal(size=(500, 3)).astype("float32")
    model = LinearRegression().fit(rows, rows @ np.array([1.0, 2.0, 3.0]))
    joblib.dump(model, tmp_path / "model.joblib")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(tmp_path / "model.joblib", "model.joblib")
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(FRAMED)
        tar.addfile(entry, io.BytesIO(FRAMED))
    s3, name = boto3.client("s3"), split.lower()
    s3.put_object(Bucket="kinds", Key=f"{name}.tar.gz", Body=packed.getvalue())
    s3.put_object(Bucket="kinds", Key=f"{name}/rows", Body=b"".join(framed(row.tobytes()) for row in rows))
    create(name, "eyrie/sklearn", f"{name}.tar.gz")
    wanted = "".join(f"{one:.4f}\n" for one in model.predict(rows.astype("float64"))).encode()
    job, found = work_off(name, name, f"{name}/", kind, split)
    assert job["TransformJobStatus"] == "Completed", job
    assert found == {"rows.out": wanted}
    job, found = work_off(f"{name}-single", name, f"{name}/", kind, split, BatchStrategy="SingleRecord")
    assert job["TransformJobStatus"] == "Completed", job
    assert found == {"rows.out": wanted}
