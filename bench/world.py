"""An Eyrie of its own for a benchmark: `eyrie up` on a free port and a new data directory, deployed to by boto3."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

import measure

BUCKET = "bench"
ROLE = "arn:aws:iam::123456789012:role/bench"
IN_SERVICE = {"Delay": 1, "MaxAttempts": 60}


class Eyrie:
    """One data directory, the commands on it, and clients of what runs there."""

    def __init__(self, data: Path, console: bool = False) -> None:
        self.data = data
        self.console = console

    def run(self, *arguments: str) -> str:
        """An `eyrie` command on our data directory; what it printed."""
        command = [sys.executable, "-m", "eyrie", *arguments, "--data", str(self.data)]
        env = {**os.environ, "EYRIE_CONSOLE": "on" if self.console else "off"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)
        if done.returncode != 0:
            raise SystemExit(f"{shlex.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    @cached_property
    def env(self) -> dict[str, str]:
        """The variables that `eyrie env` tells a shell to export."""
        words = (shlex.split(line) for line in self.run("env").splitlines())
        return dict(pair[1].split("=", 1) for pair in words if pair and pair[0] == "export")

    @property
    def port(self) -> int:
        return int(urlsplit(self.env["AWS_ENDPOINT_URL"]).port or 80)

    @property
    def signer(self) -> measure.Signer:
        """Whose key may sign."""
        key = json.loads((self.data / "credentials.json").read_text())[0]
        return measure.Signer(key["access_key_id"], key["secret_access_key"], self.env["AWS_REGION"])

    def client(self, service: str) -> Any:
        """A boto3 client; invocations are not retried."""
        session = boto3.Session(
            self.env["AWS_ACCESS_KEY_ID"], self.env["AWS_SECRET_ACCESS_KEY"], region_name=self.env["AWS_REGION"]
        )
        retries = {"total_max_attempts": 1 if service == "sagemaker-runtime" else 3}
        return session.client(service, endpoint_url=self.env["AWS_ENDPOINT_URL"], config=Config(retries=retries))

    def upload(self, archive: Path, key: str) -> str:
        """Put a file into the bucket; its S3 address."""
        s3 = self.client("s3")
        if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=BUCKET)
        s3.upload_file(str(archive), BUCKET, key)
        return f"s3://{BUCKET}/{key}"

    def compile(self, url: str, framework: str, columns: int) -> str:
        """Compile a model; the address of what was made."""
        sagemaker = self.client("sagemaker")
        sagemaker.create_compilation_job(
            CompilationJobName="bench",
            RoleArn=ROLE,
            InputConfig={"S3Uri": url, "DataInputConfig": f'{{"input": [1, {columns}]}}', "Framework": framework},
            OutputConfig={
                "S3OutputLocation": f"s3://{BUCKET}/out",
                "TargetPlatform": {"Os": "LINUX", "Arch": "X86_64"},
            },
            StoppingCondition={"MaxRuntimeInSeconds": 300},
        )
        while True:
            found = sagemaker.describe_compilation_job(CompilationJobName="bench")
            if found["CompilationJobStatus"] == "COMPLETED":
                return str(found["ModelArtifacts"]["S3ModelArtifacts"])
            if found["CompilationJobStatus"] not in ("STARTING", "INPROGRESS"):
                raise SystemExit(found["FailureReason"])
            time.sleep(0.2)

    def deploy(self, name: str, containers: list[dict[str, Any]], instance_type: str = "ml.m5.large") -> None:
        """An endpoint of one instance that holds these containers; returns when it is InService."""
        sagemaker = self.client("sagemaker")
        held = {"PrimaryContainer": containers[0]} if len(containers) == 1 else {"Containers": containers}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, **held)
        variant = {"VariantName": "v", "ModelName": name, "InstanceType": instance_type, "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=IN_SERVICE)

    def remove(self, name: str) -> None:
        """The endpoint, its configuration and its model."""
        sagemaker = self.client("sagemaker")
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=IN_SERVICE)
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)


@contextmanager
def eyrie(*flags: str, gateways: int = 1, console: bool = False) -> Iterator[Eyrie]:
    """An Eyrie that runs for the block."""
    with tempfile.TemporaryDirectory(prefix="eyrie-bench-") as folder:
        world = Eyrie(Path(folder) / "data", console)
        world.run("up", "--detach", "--port", "0", "--gateways", str(gateways), *flags)
        try:
            yield world
        finally:
            world.run("down")


def pack(archive: Path, files: dict[str, Path]) -> Path:
    """A `model.tar.gz` of these files, by their names inside."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name, path in files.items():
            tar.add(path, arcname=name)
    return archive
