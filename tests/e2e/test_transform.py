"""Batch transform end to end: jobs by boto3 over real instances, from a bucket to a bucket. What they write is compared
with what the model says to one record at a time; runs, control, instances and the S3 API are killed in the middle.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from e2e.conftest import ROLE, RealEyrie, until

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
            answers.append(b"%d" % sum(int(cell) for cell in line.split(b",") if cell.strip().isdigit()))
    return b"\\n".join(answers) + b"\\n"

def output_fn(found, accept):
    return found, "text/csv"
"""
ROWS = [f"{n},{n * 7 % 100},{n % 3}" for n in range(3_000)]
SUMS = [sum(map(int, row.split(","))) for row in ROWS]


@pytest.fixture(scope="module")
def bucket(eyrie: RealEyrie) -> str:
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
    s3.put_object(Bucket="batch", Key="packed/a.csv.gz", Body=gzip.compress(text))
    bad = [*ROWS[:700], "1,poison,2", *ROWS[700:]]
    s3.put_object(Bucket="batch", Key="bad/a.csv", Body="\n".join(bad).encode())
    s3.put_object(Bucket="batch", Key="bad/b.csv", Body=text)
    return "batch"


def begin(name: str, prefix: str = "in/", **more: Any) -> None:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://batch/{prefix}"}}
    given = {"DataSource": source, "ContentType": "text/csv", "SplitType": "Line", **more.pop("given", {})}
    boto3.client("sagemaker").create_transform_job(
        TransformJobName=name,
        ModelName="sums",
        TransformInput=given,
        TransformOutput={"S3OutputPath": f"s3://batch/out/{name}", "AssembleWith": "Line"},
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": more.pop("count", 1)},
        **more,
    )


def over(name: str, seconds: float = 150.0) -> dict[str, Any]:
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


def told(job: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(job["Environment"]["EYRIE_PROGRESS"]))


def test_every_way_through_gives_the_same_bytes(eyrie: RealEyrie, bucket: str) -> None:
    begin("together")
    begin("packed", "packed/", given={"CompressionType": "Gzip"}, count=2)
    begin("single", BatchStrategy="SingleRecord")
    wanted = "".join(f"{one}\n" for one in SUMS).encode()
    job = over("together")
    assert job["TransformJobStatus"] == "Completed", job
    assert told(job)["records"] > len(ROWS)
    assert told(job)["percent"] == 100.0
    found = outputs("together")
    assert sorted(found) == ["a.csv.out", "deep/b.csv.out"]
    assert found["a.csv.out"] == wanted
    assert over("packed")["TransformJobStatus"] == "Completed"
    assert outputs("packed") == {"a.csv.gz.out": wanted}
    assert over("single")["TransformJobStatus"] == "Completed"
    assert outputs("single") == found
    streams = boto3.client("logs").describe_log_streams(
        logGroupName="/aws/sagemaker/TransformJobs", logStreamNamePrefix="together/"
    )["logStreams"]
    assert any(stream["logStreamName"] == "together/data-log" for stream in streams)
    assert len(streams) == 2


def test_a_bad_record_costs_its_object_or_itself(eyrie: RealEyrie, bucket: str) -> None:
    begin("strict", "bad/", ModelClientConfig={"InvocationsMaxRetries": 0})
    joined = {"JoinSource": "Input", "InputFilter": "$[0:2]", "OutputFilter": "$[0,-1]"}
    lenient = {"EYRIE_BAD_RECORDS_MAX": "3"}
    begin(
        "lenient", "bad/a", ModelClientConfig={"InvocationsMaxRetries": 0}, Environment=lenient, DataProcessing=joined
    )
    job = over("strict")
    assert job["TransformJobStatus"] == "Failed"
    assert "s3://batch/bad/a.csv, record 701: Received server error (500)" in job["FailureReason"]
    assert list(outputs("strict")) == ["b.csv.out"]
    assert boto3.client("s3").list_multipart_uploads(Bucket="batch").get("Uploads", []) == []
    assert over("lenient")["TransformJobStatus"] == "Completed"
    found = outputs("lenient")
    pairs = [f"{n},{n + n * 7 % 100}" for n in range(3_000)]
    assert found["a.csv.out"].decode().splitlines() == [*pairs[:700], "", *pairs[700:]]
    assert json.loads(found["a.csv.errors.jsonl"])["record"] == 701


def test_what_is_asked_for_is_checked(eyrie: RealEyrie, bucket: str) -> None:
    sagemaker = boto3.client("sagemaker")
    for more, said in (
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, "must not exceed 100 MB"),
        ({"DataProcessing": {"JoinSource": "Input", "OutputFilter": "$[?]"}}, "JSONPath"),
        ({"given": {"SplitType": "None"}, "BatchStrategy": "SingleRecord"}, "needs a SplitType"),
        ({"given": {"SplitType": "None"}, "DataProcessing": {"InputFilter": "$[1:]"}}, "SplitType Line"),
        ({"Environment": {"EYRIE_BAD_RECORDS_MAX": "some"}}, "EYRIE_BAD_RECORDS_MAX"),
    ):
        with pytest.raises(ClientError, match=re.escape(said)):
            begin("refused", **more)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        sagemaker.describe_transform_job(TransformJobName="nobody")
    begin("empty", "nothing/")
    assert "No S3 objects found" in over("empty")["FailureReason"]
    with pytest.raises(ClientError, match="ValidationException"):
        sagemaker.stop_transform_job(TransformJobName="empty")
    listed = sagemaker.list_transform_jobs(StatusEquals="Failed", NameContains="emp")["TransformJobSummaries"]
    assert [row["TransformJobName"] for row in listed] == ["empty"]


def test_a_job_is_stopped(eyrie: RealEyrie, bucket: str) -> None:
    begin("long", Environment={"PAUSE_S": "0.02"}, BatchStrategy="SingleRecord")
    until(lambda: list((eyrie.data / "jobs").glob("t-*/box/share-0.json")))
    boto3.client("sagemaker").stop_transform_job(TransformJobName="long")
    assert over("long")["TransformJobStatus"] == "Stopped"
    until(lambda: not list((eyrie.data / "jobs").glob("t-*")))
    assert outputs("long") == {}


def run_pid(data: Path) -> int:
    for status in (data / "jobs").glob("t-*/status"):
        found = re.findall(r'"child-pid": (\d+)', status.read_text())
        if found:
            return int(found[-1])
    return 0


def done(data: Path) -> int:
    """How many records are done, by what the run has written."""
    for mark in (data / "jobs").glob("t-*/box/share-0.json"):
        return int(json.loads(mark.read_text())["records"])
    return 0


def reached(data: Path, records: int) -> bool:
    return done(data) >= records


@pytest.mark.heavy
def test_whatever_is_killed_the_output_has_the_same_bytes(eyrie: RealEyrie, bucket: str) -> None:
    begin("mortal", "in/a", Environment={"PAUSE_S": "0.008"}, BatchStrategy="SingleRecord")
    steps = ("run", "control", "objects", "instance", "run", "all")
    for step, what in enumerate(steps, 1):
        until(partial(reached, eyrie.data, step * 2_600 // (len(steps) + 1)), 60.0)
        if what in ("run", "all"):
            os.kill(run_pid(eyrie.data), signal.SIGKILL)
        if what in ("control", "all"):
            os.kill(eyrie.processes()["control"], signal.SIGKILL)
        if what == "objects":
            os.kill(eyrie.processes()["objects"], signal.SIGKILL)
        if what == "instance":
            (slot,) = [path.parent for path in (eyrie.data / "slots").glob("*/spec.json") if '"t-' in path.read_text()]
            os.kill(int(re.findall(r'"child-pid": (\d+)', (slot / "status").read_text())[-1]), signal.SIGKILL)
    job = over("mortal", 120.0)
    assert job["TransformJobStatus"] == "Completed", job
    assert outputs("mortal") == {"a.csv.out": "".join(f"{one}\n" for one in SUMS).encode()}
    assert told(job)["resumed"] >= 2


@pytest.mark.heavy
def test_down_and_up_in_the_middle_and_the_job_goes_on(eyrie: RealEyrie, bucket: str) -> None:
    begin("overnight", "in/a", Environment={"PAUSE_S": "0.012"}, BatchStrategy="SingleRecord")
    until(lambda: done(eyrie.data) > 500, 60.0)
    eyrie.down()
    eyrie.up()
    job = over("overnight", 120.0)
    assert job["TransformJobStatus"] == "Completed", job
    assert outputs("overnight") == {"a.csv.out": "".join(f"{one}\n" for one in SUMS).encode()}
    assert told(job)["resumed"] >= 1
