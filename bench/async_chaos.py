"""Asynchronous requests while everything that can die is killed at random: does each have exactly one end?

    python bench/async_chaos.py [--requests 10000] [--seconds 120] [--instances 3] [--seed 1]

Clients put requests into an asynchronous endpoint with unmodified boto3, by inline body and by location; meanwhile
control, objects, dispatch, gateway workers, instances and `eyrie up` itself get SIGKILL, in an order
that the seed decides. A request counts from its 202 on. At the end every one of them must have a result or a failure
object, and none both. An acceptance whose 202 was lost on its way is brought to its end too; those are counted apart.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import frame

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from demo_models import build_models
from eyrie.adapters.process_lock import holder
from eyrie.cli.client import ControlClient, ControlUnreachable

NAME = "chaos"
BUCKET = "chaos"
SENDERS = 4
ENDS_WITHIN_S = 180.0
PARTS = ("control", "objects", "dispatch", "gateway-0", "gateway-1", "instance", "instance", "instance", "up")


@dataclass
class Outcome:
    """What became of the requests."""

    accepted: int = 0
    refused: int = 0  # tries that were not answered with 202, and were repeated
    results: int = 0
    failures: int = 0
    both: int = 0
    missing: int = 0
    unasked: int = 0  # ends of acceptances whose 202 was lost
    kills: Counter[str] = field(default_factory=Counter)
    waited_s: float = 0.0  # from the last acceptance until every request had its end
    reasons: Counter[str] = field(default_factory=Counter)

    def words(self) -> str:
        """In one line."""
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"accepted {self.accepted} (tries repeated {self.refused}); results {self.results}, "
            f"failures {self.failures}, both {self.both}, missing {self.missing}; "
            f"of acceptances whose 202 was lost {self.unasked}; "
            f"all ended {self.waited_s:.0f} s after the last one; killed: {kills}"
        )

    @property
    def good(self) -> bool:
        """Each request has exactly one end."""
        return not self.both and not self.missing and self.accepted == self.results + self.failures


class Chaos:
    """An Eyrie of its own, or one that runs, with an asynchronous endpoint."""

    def __init__(self, data: Path, seed: int, parts: tuple[str, ...] = PARTS) -> None:
        """`parts`: what is killed; each as often as it is named, before the next round."""
        self.data, self.random, self.parts = data, random.Random(seed), parts
        self.outcome = Outcome()
        self.accepted: list[tuple[str, str]] = []
        self._guard = threading.Lock()
        self._over = threading.Event()

    def eyrie(self, *arguments: str) -> str:
        """A command on the data directory; what it printed."""
        command = [sys.executable, "-P", "-m", "eyrie", *arguments, "--data", str(self.data)]
        env = {**os.environ, "EYRIE_CONSOLE": "off"}
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=env).stdout

    def point_boto3(self) -> None:
        """The variables of `eyrie env`."""
        for line in self.eyrie("env").splitlines():
            verb, *words = shlex.split(line)
            if verb == "export":
                name, _, value = words[0].partition("=")
                os.environ[name] = value

    def deploy(self, instances: int, folder: Path) -> list[str]:
        """The endpoint, InService; rows to ask for."""
        models, rows, _ = build_models(folder)
        s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
        s3.create_bucket(Bucket=BUCKET)
        model = models[0]
        s3.upload_file(str(model.archive), BUCKET, "model.tar.gz")
        container = {"Image": model.image, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"}
        role = "arn:aws:iam::123456789012:role/chaos"
        sagemaker.create_model(ModelName=NAME, PrimaryContainer=container, ExecutionRoleArn=role)
        variant = {"VariantName": "v", "ModelName": NAME, "InstanceType": "ml.m5.large"}
        paths = {"S3OutputPath": f"s3://{BUCKET}/out", "S3FailurePath": f"s3://{BUCKET}/bad"}
        sagemaker.create_endpoint_config(
            EndpointConfigName=NAME,
            ProductionVariants=[{**variant, "InitialInstanceCount": instances}],
            AsyncInferenceConfig={"OutputConfig": paths},
        )
        sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
        waiter = sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        s3.put_object(Bucket=BUCKET, Key="in/row.csv", Body=rows[0].encode())
        return list(rows)

    def run(self, rows: list[str], requests: int, seconds: float, pause_s: float = 1.5) -> Outcome:
        """Send and kill for so long (senders that were held up go on without); then wait for every end."""
        share = [requests // SENDERS + (n < requests % SENDERS) for n in range(SENDERS)]
        senders = [threading.Thread(target=self._send, args=(rows, count, seconds)) for count in share]
        killer = threading.Thread(target=self._kill, args=(pause_s, time.monotonic() + seconds))
        for thread in (*senders, killer):
            thread.start()
        for thread in senders:
            thread.join()
        self._over.set()
        killer.join()
        return self._judge()

    def _send(self, rows: list[str], count: int, seconds: float) -> None:
        client = boto3.session.Session().client(
            "sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}, read_timeout=30)
        )
        began = time.monotonic()
        for number in range(count):
            due = began + seconds * number / max(count, 1)
            time.sleep(max(0.0, due - time.monotonic()))
            source: dict[str, Any] = {"Body": rows[number % len(rows)]}
            if number % 4 == 0:
                source = {"InputLocation": f"s3://{BUCKET}/in/row.csv"}
            while True:
                try:
                    told = client.invoke_endpoint_async(EndpointName=NAME, ContentType="text/csv", **source)
                except (ClientError, BotoCoreError):
                    with self._guard:
                        self.outcome.refused += 1
                    time.sleep(0.1)
                    continue
                break
            with self._guard:
                self.accepted.append((told["OutputLocation"], told["FailureLocation"]))

    def _kill(self, pause_s: float, until_s: float) -> None:
        order: list[str] = []
        while not self._over.wait(pause_s * self.random.uniform(0.5, 1.5)) and time.monotonic() < until_s:
            order = order or self.random.sample(self.parts, len(self.parts))
            what = order.pop()
            pid = self._pid(what)
            if pid is None:
                continue
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.outcome.kills[what] += 1
            if what == "up":
                time.sleep(0.5)
                self.eyrie("up", "--detach", "--port", str(json.loads((self.data / "env.json").read_text())["port"]))

    def _pid(self, what: str) -> int | None:
        if what == "up":
            return holder(self.data / "eyrie.lock")
        if what != "instance":
            return holder(self.data / "run" / f"{what}.lock")
        try:
            endpoints = ControlClient(self.data, "us-east-1", timeout_s=2.0).status()["endpoints"]
        except (ControlUnreachable, OSError):
            return None
        pids = [i["pid"] for e in endpoints for i in e["instances"] if i["state"] == "READY" and i["pid"]]
        return self.random.choice(pids) if pids else None

    def _judge(self) -> Outcome:
        found = self.outcome
        found.accepted = len(self.accepted)
        began = time.monotonic()
        while True:
            there = set(self._objects("out/")) | set(self._objects("bad/"))
            missing = [pair for pair in self.accepted if not there.intersection(pair)]
            if not missing or time.monotonic() - began > ENDS_WITHIN_S:
                break
            time.sleep(1.0)
        found.waited_s = time.monotonic() - began
        time.sleep(2.0)  # what would come twice has come by then
        there = set(self._objects("out/")) | set(self._objects("bad/"))
        for good, bad in self.accepted:
            found.both += good in there and bad in there
            found.missing += good not in there and bad not in there
            found.results += good in there and bad not in there
            found.failures += bad in there and good not in there
        found.unasked = len(there - {url for pair in self.accepted for url in pair})
        self._read_reasons([bad for _, bad in self.accepted if bad in there])
        return found

    def _objects(self, prefix: str) -> Iterator[str]:
        pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        for page in pages:
            yield from (f"s3://{BUCKET}/{entry['Key']}" for entry in page.get("Contents", ()))

    def _read_reasons(self, failures: list[str]) -> None:
        s3 = boto3.client("s3")
        for url in failures[:100]:
            body = s3.get_object(Bucket=BUCKET, Key=url.removeprefix(f"s3://{BUCKET}/"))["Body"].read()
            self.outcome.reasons[body.decode()[:120]] += 1


def main() -> int:
    options = frame.arguments(__doc__, rounds=1, seconds=120.0)
    options.add_argument("--requests", type=int, default=10_000)
    options.add_argument("--instances", type=int, default=3)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    data = Path(tempfile.mkdtemp(prefix="eyrie-chaos-"))
    chaos = Chaos(data, chosen.seed)
    try:
        chaos.eyrie("up", "--detach", "--port", "0")
        chaos.point_boto3()
        (data / "models-made").mkdir()
        rows = chaos.deploy(chosen.instances, data / "models-made")
        outcome = chaos.run(rows, chosen.requests, chosen.seconds)
        print(outcome.words(), flush=True)
        for reason, count in outcome.reasons.most_common(5):
            print(f"  {count} x {reason}", flush=True)
        ended = (outcome.results + outcome.failures) / max(outcome.accepted, 1)
        name = "asynchronous requests with exactly one end, everything killed at random"
        return frame.finish([frame.Ratio(name, ended, 1.0, detail=outcome.words())], chosen.report)
    finally:
        subprocess.run(
            [sys.executable, "-P", "-m", "eyrie", "down", "--data", str(data)], capture_output=True, check=False
        )
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
