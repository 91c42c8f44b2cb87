"""Transform jobs over a real Ray cluster: what they write has the bytes that instances write; runs and workers die."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.e2e.conftest import ROLE, RealEyrie, until
from tests.frameworks.world import python_of, running

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]

ENDED = ("Completed", "Failed", "Stopped")
CODE = b"""
import os, time

def model_fn(folder):
    return float(os.environ.get("PAUSE_S", "0"))

def input_fn(data, content_type):
    return data if isinstance(data, bytes) else data.encode()

def predict_fn(data, pause_s):
    answers = []
    for line in data.split(b"\\n"):
        if line.strip():
            time.sleep(pause_s)
            if b"poison" in line:
                raise ValueError("this record is no good")
            if b"deadly" in line:
                os._exit(9)
            answers.append(b"%d" % sum(int(cell) for cell in line.split(b",") if cell.strip().isdigit()))
    return b"\\n".join(answers) + b"\\n"

def output_fn(found, accept):
    return found, "text/csv"
"""
ROWS = [f"{n},{n * 7 % 100},{n % 3}" for n in range(2_000)]
WANTED = "".join(f"{sum(map(int, row.split(',')))}\n" for row in ROWS).encode()


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    with running(python_of("ray")) as eyrie:
        fill()
        begin("here")
        begin("here-joined", "bad/", Environment={"EYRIE_BAD_RECORDS_MAX": "3"}, **JOINED)
        assert over("here")["TransformJobStatus"] == "Completed"
        assert over("here-joined")["TransformJobStatus"] == "Completed"
        eyrie.down()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EYRIE_COMPUTE", "ray")
            eyrie.up()
            yield eyrie


JOINED = {
    "DataProcessing": {"JoinSource": "Input", "InputFilter": "$[0:2]", "OutputFilter": "$[0,-1]"},
    "ModelClientConfig": {"InvocationsMaxRetries": 0},
}


def fill() -> None:
    """A bucket of inputs, and models."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.create_bucket(Bucket="batch")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(CODE)
        tar.addfile(entry, io.BytesIO(CODE))
    s3.put_object(Bucket="batch", Key="model.tar.gz", Body=packed.getvalue())
    container = {"Image": "eyrie/python", "ModelDataUrl": "s3://batch/model.tar.gz"}
    sagemaker.create_model(ModelName="sums", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    text = "\n".join(ROWS).encode()
    s3.put_object(Bucket="batch", Key="in/a.csv", Body=text)
    s3.put_object(Bucket="batch", Key="in/deep/b.csv", Body=text[:500].rpartition(b"\n")[0] + b"\n")
    s3.put_object(Bucket="batch", Key="in/empty.csv", Body=b"")
    s3.put_object(Bucket="batch", Key="packed/a.csv.gz", Body=gzip.compress(text))
    bad = "\n".join([*ROWS[:700], "1,poison,2", *ROWS[700:]]).encode()
    s3.put_object(Bucket="batch", Key="bad/a.csv", Body=bad)
    s3.put_object(Bucket="batch", Key="deadly/a.csv", Body=b"1\ndeadly\n")
    s3.put_object(Bucket="batch", Key="deadly/b.csv", Body=b"1\n2\n")


def begin(name: str, prefix: str = "in/", **more: Any) -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://batch/{prefix}"}}
    given = {"DataSource": source, "ContentType": "text/csv", "SplitType": "Line", **more.pop("given", {})}
    boto3.client("sagemaker").create_transform_job(
        TransformJobName=name,
        ModelName="sums",
        TransformInput=given,
        TransformOutput={"S3OutputPath": f"s3://batch/out/{name}", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    )


def over(name: str, seconds: float = 240.0) -> dict[str, Any]:
    """The job, once it is over."""

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = boto3.client("sagemaker").describe_transform_job(TransformJobName=name)
        return job if job["TransformJobStatus"] in ENDED else None

    return dict(until(look, seconds))


def outputs(name: str) -> dict[str, bytes]:
    s3 = boto3.client("s3")
    listed = s3.list_objects_v2(Bucket="batch", Prefix=f"out/{name}/").get("Contents", [])
    keys = [entry["Key"] for entry in listed]
    return {key.split("/", 2)[2]: s3.get_object(Bucket="batch", Key=key)["Body"].read() for key in keys}


def data_log(name: str) -> str:
    events = boto3.client("logs").get_log_events(
        logGroupName="/aws/sagemaker/TransformJobs", logStreamName=f"{name}/data-log"
    )["events"]
    return "\n".join(event["message"] for event in events)


def test_the_cluster_writes_what_instances_write(eyrie: RealEyrie) -> None:
    begin("there")
    job = over("there")
    assert job["TransformJobStatus"] == "Completed", job
    assert outputs("there") == outputs("here")
    assert outputs("there")["a.csv.out"] == WANTED
    assert json.loads(job["Environment"]["EYRIE_PROGRESS"])["records"] > len(ROWS)
    assert "connected to the Ray cluster of this run" in data_log("there")
    begin("there-joined", "bad/", Environment={"EYRIE_BAD_RECORDS_MAX": "3"}, **JOINED)
    begin("there-packed", "packed/", given={"CompressionType": "Gzip"})
    assert over("there-joined")["TransformJobStatus"] == "Completed"
    assert outputs("there-joined") == outputs("here-joined")
    assert over("there-packed")["TransformJobStatus"] == "Completed"
    assert outputs("there-packed") == {"a.csv.gz.out": WANTED}


@pytest.mark.soak
def test_a_record_that_is_refused_or_that_ends_workers_costs_its_object(eyrie: RealEyrie) -> None:
    begin("strict", "bad/", ModelClientConfig={"InvocationsMaxRetries": 0})
    begin("deadly", "deadly/")
    job = over("strict")
    assert job["TransformJobStatus"] == "Failed"
    assert "s3://batch/bad/a.csv, record 701: Received server error (500)" in job["FailureReason"]
    job = over("deadly")
    assert job["TransformJobStatus"] == "Failed"
    assert "s3://batch/deadly/a.csv, records from 1 on: 2 workers ended" in job["FailureReason"]
    assert outputs("deadly") == {"b.csv.out": b"1\n2\n"}


@pytest.mark.soak
def test_a_run_and_a_worker_are_killed_and_the_output_has_the_same_bytes(eyrie: RealEyrie) -> None:
    begin("mortal", "in/a", Environment={"PAUSE_S": "0.01"}, BatchStrategy="SingleRecord")
    until(lambda: actors(eyrie.data), 120.0)
    os.kill(actors(eyrie.data)[0], signal.SIGKILL)
    until(lambda: run_pid(eyrie.data), 60.0)
    os.kill(run_pid(eyrie.data), signal.SIGKILL)
    job = over("mortal")
    assert job["TransformJobStatus"] == "Completed", job
    assert outputs("mortal") == {"a.csv.out": WANTED}
    assert json.loads(job["Environment"]["EYRIE_PROGRESS"])["resumed"] >= 1


def run_pid(data: Path) -> int:
    for status in (data / "jobs").glob("t-*/status"):
        found = re.findall(r'"child-pid": (\d+)', status.read_text())
        if found:
            return int(found[-1])
    return 0


def actors(data: Path) -> list[int]:
    """Worker processes of the run's own cluster that hold a model."""
    found = []
    folders = [path.read_text() for path in (data / "jobs").glob("t-*/box/cluster-folder")]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"MapWorker" in line and any(folder and is_below(int(entry.name), folder) for folder in folders):
            found.append(int(entry.name))
    return found


def is_below(pid: int, folder: str) -> bool:
    """Whether a process belongs to the cluster whose sockets are in a folder: its parent, the raylet, names it."""
    try:
        parent = re.findall(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]
        return folder.encode() in Path(f"/proc/{parent}/cmdline").read_bytes()
    except (OSError, IndexError):
        return False
