"""Data capture of a real endpoint: the objects in the bucket, and what a graceful stop and a kill -9 lose of them."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .conftest import Deployed, RealEyrie, running, until

FLUSH_MS = 1_000
KINDS = {("application/json", "JSON"), ("text/csv; charset=utf-8", "CSV"), ("text/csv", "CSV")}
KEY = re.compile(r"kept/taken/[a-z]+/20\d\d/\d\d/\d\d/\d\d/\d\d-\d\d-\d\d\d-[0-9a-f-]{36}\.jsonl")


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    """A running Eyrie that uploads what is captured each second."""
    with running(EYRIE_CAPTURE_FLUSH_MS=FLUSH_MS, EYRIE_CAPTURE_DISK_PERCENT_MAX=99) as eyrie:
        yield eyrie


def capture(**change: Any) -> dict[str, Any]:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://captured/kept",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        **change,
    }


def config(name: str, **more: Any) -> None:
    variants = [
        {
            "VariantName": model,
            "ModelName": model,
            "InstanceType": "ml.t2.medium",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": 1.0,
        }
        for model in ("sklearn", "xgboost")
    ]
    boto3.client("sagemaker").create_endpoint_config(EndpointConfigName=name, ProductionVariants=variants, **more)


@pytest.fixture(scope="module")
def taken(deployed: Deployed) -> Deployed:
    """An endpoint of two variants whose every request is captured."""
    boto3.client("s3").create_bucket(Bucket="captured")
    config("taken", DataCaptureConfig=capture())
    boto3.client("sagemaker").create_endpoint(EndpointName="taken", EndpointConfigName="taken")
    deployed.wait_in_service("taken")
    return deployed


def keys(prefix: str = "kept/") -> list[str]:
    found = boto3.client("s3").list_objects_v2(Bucket="captured", Prefix=prefix)
    return [row["Key"] for row in found.get("Contents", ())]


def records(prefix: str = "kept/") -> list[dict[str, Any]]:
    s3 = boto3.client("s3")
    bodies = [s3.get_object(Bucket="captured", Key=key)["Body"].read().decode() for key in keys(prefix)]
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def ids(prefix: str = "kept/") -> list[str]:
    return [str(record["eventMetadata"].get("inferenceId")) for record in records(prefix)]


def ask(deployed: Deployed, names: list[str]) -> None:
    for name in names:
        deployed.ask("taken", InferenceId=name)


def test_every_answer_is_a_record_under_its_variant(taken: Deployed) -> None:
    names = [f"first-{n}" for n in range(10)]
    ask(taken, names)
    until(lambda: set(names) <= set(ids()))
    assert sorted(ids()) == sorted(names)
    assert all(KEY.fullmatch(key) for key in keys())
    assert {key.split("/")[2] for key in keys()} == {"sklearn", "xgboost"}
    for record in records():
        found = record["captureData"]["endpointInput"]
        assert (found["data"], found["encoding"]) == (taken.rows[0], "CSV")
        found = record["captureData"]["endpointOutput"]
        assert (found["observedContentType"], found["encoding"]) in KINDS
        assert float(found["data"].strip("[]\n")) == pytest.approx(0.5, abs=0.5)
    told = boto3.client("sagemaker").describe_endpoint(EndpointName="taken")["DataCaptureConfig"]
    assert (told["EnableCapture"], told["CaptureStatus"], told["CurrentSamplingPercentage"]) == (True, "Started", 100)


def test_a_worker_that_is_stopped_loses_nothing(taken: Deployed) -> None:
    names = [f"stop-{n}" for n in range(20)]
    ask(taken, names)
    workers = [pid for name, pid in taken.eyrie.processes().items() if name.startswith("gateway-")]
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    until(lambda: set(names) <= set(ids()))
    assert sorted(name for name in ids() if name.startswith("stop-")) == sorted(names)


@pytest.mark.heavy
def test_a_worker_that_is_killed_loses_its_last_moment_at_most(taken: Deployed) -> None:
    answered: list[tuple[float, str]] = []
    stopping = threading.Event()
    numbers = itertools.count()

    def go_on() -> None:
        runtime = boto3.Session().client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        while not stopping.is_set():
            name = f"kill-{next(numbers)}"
            try:
                runtime.invoke_endpoint(
                    EndpointName="taken", ContentType="text/csv", Body=taken.rows[0], InferenceId=name
                )
            except (BotoCoreError, ClientError):
                continue  # its worker was killed under it
            answered.append((time.monotonic(), name))

    client = threading.Thread(target=go_on)
    client.start()
    until(lambda: len(answered) > 300)
    pids = [pid for name, pid in taken.eyrie.processes().items() if name.startswith("gateway-")]
    killed = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: answered[-1][0] > killed + 1.0)
    stopping.set()
    client.join()
    after = {name for at, name in answered if at > killed + 0.5}
    until(lambda: after <= set(ids()))
    found = ids()
    lost = [at for at, name in answered if name not in found]
    assert all(killed - 1.0 < at <= killed + 0.1 for at in lost), [at - killed for at in lost]
    assert len(found) == len(set(found))


@pytest.mark.heavy
def test_what_is_captured_survives_a_whole_stop_and_the_kill_of_those_who_upload(taken: Deployed) -> None:
    eyrie = taken.eyrie
    names = [f"down-{n}" for n in range(20)]
    ask(taken, names)
    eyrie.down()
    assert list((eyrie.data / "capture").glob("*/*")) == []
    eyrie.up()
    assert set(names) <= set(ids())
    until(lambda: len(eyrie.serving("taken")) == 2, 60.0)
    more = [f"dead-{n}" for n in range(20)]
    ask(taken, more)
    processes = eyrie.processes()
    for name in ("control", "objects"):
        os.kill(processes[name], signal.SIGKILL)
    until(
        lambda: all(pid != processes[name] for name, pid in eyrie.processes().items() if name in ("control", "objects"))
    )
    until(lambda: set(more) <= set(ids()))
    assert len(ids()) == len(set(ids()))


@pytest.mark.heavy
def test_an_update_takes_the_new_capture_or_keeps_the_old_one_as_asked(taken: Deployed) -> None:
    pytest.importorskip("cryptography")
    sagemaker = boto3.client("sagemaker")
    config("sealed", DataCaptureConfig=capture(DestinationS3Uri="s3://captured/sealed", KmsKeyId="alias/mine"))

    def update(**more: Any) -> str:
        sagemaker.update_endpoint(EndpointName="taken", EndpointConfigName="sealed", **more)
        taken.wait_in_service("taken")
        return str(sagemaker.describe_endpoint(EndpointName="taken")["DataCaptureConfig"]["DestinationS3Uri"])

    assert update(RetainAllVariantProperties=True) == "s3://captured/kept"
    excluded = [{"VariantPropertyType": "DataCaptureConfig"}]
    assert update(RetainAllVariantProperties=True, ExcludeRetainedVariantProperties=excluded) == "s3://captured/sealed"
    ask(taken, ["secret-1"])
    (key,) = until(lambda: keys("sealed/"))
    stored = boto3.client("s3").get_object(Bucket="captured", Key=key)["Body"].read()
    assert b"secret-1" not in stored
    done = taken.eyrie.run("capture", "cat", "s3://captured/sealed")
    assert [json.loads(line)["eventMetadata"]["inferenceId"] for line in done.stdout.splitlines()] == ["secret-1"]


@pytest.mark.heavy
def test_a_bucket_that_is_missing_delays_and_the_story_says_so(taken: Deployed) -> None:
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    config("late", DataCaptureConfig=capture(DestinationS3Uri="s3://captured-late"))
    sagemaker.update_endpoint(EndpointName="taken", EndpointConfigName="late")
    taken.wait_in_service("taken")
    ask(taken, ["late-1"])
    until(lambda: "captured data waits for its bucket" in taken.eyrie.run("story", "taken").stdout)
    s3.create_bucket(Bucket="captured-late")
    until(lambda: "Contents" in s3.list_objects_v2(Bucket="captured-late"))
    until(lambda: "captured data goes to its bucket again" in taken.eyrie.run("story", "taken").stdout)
