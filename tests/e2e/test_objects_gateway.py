"""S3 through the one door: a whole Eyrie, its gateway workers passing bytes on that they do not keep."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .conftest import RealEyrie, until

MB = 1 << 20


@pytest.fixture
def s3(eyrie: RealEyrie) -> Any:
    client = boto3.client("s3", config=Config(read_timeout=60))
    client.create_bucket(Bucket="door")
    return client


def peaks_mb(eyrie: RealEyrie) -> dict[str, int]:
    """The greatest memory that each process ever had."""
    statuses = {name: Path(f"/proc/{pid}/status").read_text() for name, pid in eyrie.processes().items()}
    return {name: int(text.partition("VmHWM:")[2].split()[0]) // 1024 for name, text in statuses.items()}


@pytest.mark.heavy
def test_large_objects_pass_through_and_leave_nothing_behind(eyrie: RealEyrie, s3: Any, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(MB) * 150)
    impatient = boto3.client("s3", config=Config(read_timeout=10, retries={"total_max_attempts": 1}))
    before = peaks_mb(eyrie)
    s3.upload_file(str(source), "door", "big")
    with source.open("rb") as file:
        s3.put_object(Bucket="door", Key="single", Body=file)
    for key in ("big", "single"):
        s3.download_file("door", key, str(copy))
        assert copy.read_bytes() == source.read_bytes()
        for _ in range(3):
            body = impatient.get_object(Bucket="door", Key=key)["Body"]
            assert sum(len(piece) for piece in body.iter_chunks(MB)) == 150 * MB
    impatient.close()
    after = peaks_mb(eyrie)
    grown = {name: after[name] - before[name] for name in before if name.startswith("gateway")}
    assert max(grown.values()) < 40, grown
    assert after["objects"] < before["objects"] + 80


def test_the_objects_process_may_be_killed_under_load(eyrie: RealEyrie, s3: Any) -> None:
    """Nothing that was answered is lost; at boto3's defaults nobody notices."""
    answered: dict[str, bytes] = {}
    failures: list[str] = []
    stop = threading.Event()

    def work(worker: int) -> None:
        number = 0
        while not stop.is_set():
            key, body = f"load/{worker}/{number}", f"{worker} {number}".encode() * 100
            try:
                s3.put_object(Bucket="door", Key=key, Body=body)
                answered[key] = body
                s3.get_object(Bucket="door", Key=key)["Body"].read()
            except (ClientError, BotoCoreError) as error:
                failures.append(repr(error))
            number += 1

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        reached = len(answered) + 30
        until(lambda reached=reached: len(answered) >= reached)  # type: ignore[misc]
        os.kill(eyrie.processes()["objects"], signal.SIGKILL)
    reached = len(answered) + 30
    until(lambda: len(answered) >= reached)
    stop.set()
    for thread in threads:
        thread.join(120)
    assert failures == []
    for key, body in answered.items():
        assert s3.get_object(Bucket="door", Key=key)["Body"].read() == body


def test_a_refused_upload_is_answered_before_it_is_sent(s3: Any) -> None:
    once = boto3.client("s3", config=Config(retries={"total_max_attempts": 1}))
    with pytest.raises(ClientError, match="NoSuchBucket"):
        once.put_object(Bucket="not-there", Key="k", Body=b"x" * (30 * MB))
    with contextlib.closing(once), pytest.raises(ClientError, match="InvalidBucketName"):
        once.create_bucket(Bucket="endpoints")
