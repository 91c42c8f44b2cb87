"""How well an endpoint survives: five runs of each fault under load, median and worst.

    python bench/survival.py [RUNS]

Each run breaks one thing while unmodified boto3 invokes, half of it without client retries. Printed are failures on the
wire (no client retries) and as boto3 sees them (its defaults), of how many requests, and the seconds until the fleet is
whole again.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))  # the demo's models and load

from demo import processes_of
from demo_models import build_models
from demo_traffic import Traffic
from eyrie.cli.client import ControlClient, ControlUnreachable

ENDPOINT = "survival"
INSTANCES = 3
WHOLE_WITHIN_S = 120.0
WARM_UP_S = 1.0


@dataclass(frozen=True)
class Run:
    """What one fault cost."""

    asked_wire: int
    failed_wire: int
    asked_boto: int
    failed_boto: int
    whole_s: float


class World:
    """An Eyrie of its own with one endpoint of three instances."""

    def __init__(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="eyrie-survival-"))
        self.eyrie("up", "--detach", "--port", "0")
        for line in self.eyrie("env").splitlines():
            verb, *words = shlex.split(line)
            if verb == "export":
                name, _, value = words[0].partition("=")
                os.environ[name] = value
        self.control = ControlClient(self.data, os.environ["AWS_REGION"])
        self.rows: list[str] = []

    def eyrie(self, *arguments: str) -> str:
        """An `eyrie` command on our data directory."""
        command = [sys.executable, "-m", "eyrie", *arguments, "--data", str(self.data)]
        env = {**os.environ, "EYRIE_CONSOLE": "off"}
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, env=env).stdout.strip()

    def deploy(self) -> None:
        """One XGBoost model on three instances."""
        models, self.rows, _ = build_models(self.data)
        model = next(m for m in models if m.name == "xgboost")
        s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
        s3.create_bucket(Bucket="survival")
        s3.upload_file(str(model.archive), "survival", "model.tar.gz")
        container = {"Image": model.image, "ModelDataUrl": "s3://survival/model.tar.gz"}
        sagemaker.create_model(
            ModelName=ENDPOINT, PrimaryContainer=container, ExecutionRoleArn="arn:aws:iam::123456789012:role/bench"
        )
        variant = {"VariantName": "v", "ModelName": ENDPOINT, "InstanceType": "ml.m5.large"}
        sagemaker.create_endpoint_config(
            EndpointConfigName=ENDPOINT, ProductionVariants=[{**variant, "InitialInstanceCount": INSTANCES}]
        )
        sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
        sagemaker.get_waiter("endpoint_in_service").wait(
            EndpointName=ENDPOINT, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )

    def serving(self) -> dict[str, int]:
        """Instances that are READY and routed, with their pids; none while control does not answer."""
        try:
            endpoints = self.control.status()["endpoints"]
        except ControlUnreachable:  # control is what was killed
            return {}
        return {
            str(i["id"]): int(i["pid"] or 0)
            for e in endpoints
            for i in e["instances"]
            if i["state"] == "READY" and i["routed"]
        }

    def processes(self) -> dict[str, int]:
        """Process ids by name."""
        found: dict[str, int] = json.loads(self.eyrie("status", "--json"))["processes"]
        return found

    def whole(self, without: str = "") -> bool:
        """All instances serve, the victim not among them."""
        serving = self.serving()
        return len(serving) >= INSTANCES and without not in serving

    def settled(self) -> None:
        """Whole, and the warm pool full again, before the next fault."""
        until(self.whole)
        until(lambda: self.control.status()["slots"].get("warm", 0) >= 2)

    def close(self) -> None:
        """End it and remove it."""
        self.eyrie("down")
        shutil.rmtree(self.data)


def until(seen: Callable[[], Any]) -> float:
    """Seconds until it is seen."""
    began = time.monotonic()
    while not seen():
        if time.monotonic() - began > WHOLE_WITHIN_S:
            raise SystemExit(f"not within {WHOLE_WITHIN_S:g} s")
        time.sleep(0.02)
    return time.monotonic() - began


def instance_fault(world: World, signum: signal.Signals) -> float:
    """Break one instance; seconds until the fleet is whole without it."""
    victim, pid = next(iter(world.serving().items()))
    for one in processes_of(pid):
        os.kill(one, signum)
    return until(lambda: world.whole(without=victim))


def process_fault(world: World, name: str) -> float:
    """kill -9 one of Eyrie's own processes; seconds until its successor runs and the fleet is seen whole."""
    old = world.processes()[name]
    os.kill(old, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: world.processes().get(name, old) != old and world.whole())
    return time.monotonic() - began


def up_fault(world: World) -> float:
    """kill -9 `eyrie up`, and start it again; seconds until the new one has taken over."""
    os.kill(world.processes()["up"], signal.SIGKILL)
    began = time.monotonic()
    world.eyrie("up", "--detach", "--port", os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])
    until(world.whole)
    return time.monotonic() - began


FAULTS: dict[str, Callable[[World], float]] = {
    "kill -9 of an instance": lambda world: instance_fault(world, signal.SIGKILL),
    "an instance hangs (SIGSTOP)": lambda world: instance_fault(world, signal.SIGSTOP),
    "kill -9 of control": lambda world: process_fault(world, "control"),
    "kill -9 of a gateway worker": lambda world: process_fault(world, "gateway-0"),
    "kill -9 of `eyrie up`": up_fault,
}


def run(world: World, fault: Callable[[World], float]) -> Run:
    """One fault under load."""
    world.settled()
    with Traffic(ENDPOINT, world.rows) as traffic:
        time.sleep(WARM_UP_S)
        whole_s = fault(world)
        time.sleep(WARM_UP_S)
    return Run(traffic.wire.asked, traffic.wire.failed, traffic.boto.asked, traffic.boto.failed, whole_s)


def main() -> None:
    """Every fault, five times unless told otherwise."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    world = World()
    try:
        world.deploy()
        print(f"{INSTANCES} instances, {runs} runs a fault; failed requests and seconds as median / worst", flush=True)
        for name, fault in FAULTS.items():
            report(name, [run(world, fault) for _ in range(runs)])
    finally:
        world.close()


def report(name: str, runs: list[Run]) -> None:
    """One line a fault."""
    wire, boto = [r.failed_wire for r in runs], [r.failed_boto for r in runs]
    whole = [r.whole_s for r in runs]
    print(
        f"{name:30} wire {statistics.median(wire):g} / {max(wire)} of {sum(r.asked_wire for r in runs)}   "
        f"boto3 {statistics.median(boto):g} / {max(boto)} of {sum(r.asked_boto for r in runs)}   "
        f"whole again {statistics.median(whole):.2f} s / {max(whole):.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
