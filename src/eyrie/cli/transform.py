"""`eyrie transform`: start a batch transform job from the command line, and watch one to its end.

A client of the public API like any other: CreateTransformJob, and DescribeTransformJob again and again.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from eyrie.cli import data as datadir
from eyrie.cli.client import ControlClient
from eyrie.cli.documents import print_document
from eyrie.cli.errors import CommandError

ENDED = ("Completed", "Failed", "Stopped")
LOOK_S = 0.5
PROGRESS = "EYRIE_PROGRESS"
MEBIBYTE = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job to start, as the command line says it."""

    model: str
    input: str
    output: str
    content_type: str
    split: str
    strategy: str
    join: bool
    gzip: bool
    instance_type: str
    instances: int
    bad_records: str
    name: str


def run(data: Path, wish: Wish, to_its_end: bool, as_json: bool) -> None:
    """Start a job, say its name, and show it where that is asked for. Raises CommandError."""
    name = start(data, wish)
    if not as_json:
        print(name)
    if to_its_end:
        follow(data, name, as_json)
    elif as_json:
        tell(name, "InProgress", {"TransformOutput": {"S3OutputPath": wish.output}}, {})


def start(data: Path, wish: Wish) -> str:
    """Start a job; its name. Raises CommandError."""
    name = wish.name or f"{wish.model[:48]}-{secrets.token_hex(4)}"
    _client(data).sagemaker("CreateTransformJob", _request(wish, name))
    return name


def follow(data: Path, name: str, as_json: bool) -> None:
    """Show a job until it is over. Raises CommandError where it does not end well, or is not there."""
    client = _client(data)
    job = client.sagemaker("DescribeTransformJob", {"TransformJobName": name})  # before anything is drawn
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[words]}"))
    console = Console(stderr=True, quiet=as_json)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task(name, total=100.0, words="starting")
        while True:
            told = _progress(job)
            bar.update(task, completed=float(told.get("percent", 0.0)), words=words(job["TransformJobStatus"], told))
            if job["TransformJobStatus"] in ENDED:
                break
            time.sleep(LOOK_S)
            job = client.sagemaker("DescribeTransformJob", {"TransformJobName": name})
    if as_json:
        tell(name, job["TransformJobStatus"], job, told)
    if job["TransformJobStatus"] != "Completed":
        raise CommandError(f"{name}: {job['TransformJobStatus']}. {job.get('FailureReason', '')}".strip())
    if not as_json:
        print(f"{name}: Completed. {words('', told)} in {job['TransformOutput']['S3OutputPath']}")


def tell(name: str, status: str, job: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """A job for programs: a document."""
    output = job.get("TransformOutput", {}).get("S3OutputPath")
    failure = job.get("FailureReason")
    print_document({"job": name, "status": status, "output": output, "failure": failure, "progress": told})


def words(status: str, told: Mapping[str, Any]) -> str:
    """How far a job is, in words."""
    if not told:
        return status
    parts = [
        f"{told['records']:,} records",
        f"{told['objects_done']} of {told['objects']} objects",
        f"{told['bytes_read'] / MEBIBYTE:,.1f} MiB read",
    ]
    parts += [f"{told['bad_records']} bad records"] if told["bad_records"] else []
    parts += [f"{told['objects_failed']} objects failed"] if told["objects_failed"] else []
    return ", ".join(([status] if status else []) + parts)


def _progress(job: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.get("Environment", {}).get(PROGRESS, "{}"))
    return found


def _request(wish: Wish, name: str) -> dict[str, Any]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": wish.input}}
    given: dict[str, Any] = {"DataSource": source, "ContentType": wish.content_type, "SplitType": wish.split}
    output: dict[str, Any] = {"S3OutputPath": wish.output}
    if wish.gzip:
        given["CompressionType"] = "Gzip"
    if wish.split == "Line":
        output["AssembleWith"] = "Line"
    request: dict[str, Any] = {
        "TransformJobName": name,
        "ModelName": wish.model,
        "TransformInput": given,
        "TransformOutput": output,
        "TransformResources": {"InstanceType": wish.instance_type, "InstanceCount": wish.instances},
    }
    if wish.strategy:
        request["BatchStrategy"] = wish.strategy
    if wish.join:
        request["DataProcessing"] = {"JoinSource": "Input"}
    if wish.bad_records:
        request["Environment"] = {"EYRIE_BAD_RECORDS_MAX": wish.bad_records}
    return request


def _client(data: Path) -> ControlClient:
    return ControlClient(data, str(datadir.running_env(data)["region"]), timeout_s=30.0)
