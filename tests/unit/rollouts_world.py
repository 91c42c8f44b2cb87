"""Rollouts with real processes, for the tests that put them under load: models that are bad in one way each, 32 clients
in a process of their own, the route tables that were published meanwhile, and what the access records say of them.
"""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from eyrie.load.gathering import Gathering
from eyrie.load.plan import Plan, Target

ROLE = "arn:aws:iam::123456789012:role/test"
CLIENTS = 32
THINK_S = 0.1  # of a client, between two requests
LOAD_S = 7_200.0  # at the most
INSTANCES = 2
VARIANT = "AllTraffic"
CODE = """
import time
def model_fn(model_dir):
    {load}
def input_fn(data, content_type):
    return data
def predict_fn(data, model):
    {work}
def output_fn(prediction, accept):
    return prediction, 'text/csv'
"""
MODELS = {
    "one": ("return 1", "return 'one'"),
    "two": ("return 1", "return 'two'"),
    "three": ("return 1", "return 'three'"),
    "late": ("time.sleep(60); return 1", "return 'late'"),
    "broken": ("return 1", "raise RuntimeError('it cannot')"),
    "slow": ("return 1", "time.sleep(0.2); return 'slow'"),
    "stillborn": ("raise RuntimeError('no weights')", "return ''"),
}
POLICIES = ("canary", "linear", "rolling", "all at once")
# what green may have of the traffic after each step, by policy
SHARES = {"canary": (0.0, 0.1, 1.0), "linear": (0.0, 0.5, 1.0), "rolling": (0.0, 0.5, 1.0), "all at once": (0.0, 1.0)}


def archive(load: str, work: str) -> bytes:
    """A model of user code, as a tar.gz."""
    code = CODE.format(load=load, work=work).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(code)
        tar.addfile(entry, io.BytesIO(code))
    return made.getvalue()


def create_configs(s3: Any, sagemaker: Any, names: Iterable[str] = MODELS) -> None:
    """A model, and an endpoint config of its name, for each."""
    s3.create_bucket(Bucket="models")
    for name in names:
        s3.put_object(Bucket="models", Key=f"{name}.tar.gz", Body=archive(*MODELS[name]))
        container = {"Image": "eyrie/python", "ModelDataUrl": f"s3://models/{name}.tar.gz"}
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": name, "InstanceType": "ml.t2.medium"}
        variant |= {"InitialInstanceCount": INSTANCES, "InitialVariantWeight": 1.0}
        variant |= {"ContainerStartupHealthCheckTimeoutInSeconds": 3600}  # on a clock that is faster than machines are
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def size(percent: int) -> dict[str, Any]:
    """CAPACITY_PERCENT."""
    return {"Type": "CAPACITY_PERCENT", "Value": percent}


def blue_green(how: str, bake_s: int, **more: Any) -> dict[str, Any]:
    """A DeploymentConfig of BlueGreenUpdatePolicy."""
    routing = {"Type": how, "WaitIntervalInSeconds": bake_s, **more}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 10}}


def policy(how: str, bake_s: int = 60, limit_s: int = 0) -> dict[str, Any]:
    """A DeploymentConfig of one of POLICIES."""
    if how == "rolling":
        made: dict[str, Any] = {"RollingUpdatePolicy": {"MaximumBatchSize": size(50), "WaitIntervalInSeconds": bake_s}}
    elif how == "canary":
        made = blue_green("CANARY", bake_s, CanarySize=size(10))
    elif how == "linear":
        made = blue_green("LINEAR", bake_s, LinearStepSize=size(50))
    else:
        made = blue_green("ALL_AT_ONCE", bake_s)
    if limit_s:
        next(iter(made.values()))["MaximumExecutionTimeoutInSeconds"] = limit_s
    return made


class Load:
    """32 clients who ask on and on, each waiting for his reply, from a process of their own."""

    def __init__(self, data: Path, endpoint: str) -> None:
        port = json.loads((data / "env.json").read_text())["port"]
        key = json.loads((data / "credentials.json").read_text())[0]
        path, headers = f"/endpoints/{endpoint}/invocations", [("Content-Type", "text/plain")]
        target = Target(
            "127.0.0.1", port, False, path, headers, key["access_key_id"], key["secret_access_key"], None, "us-east-1"
        )
        self._plan = Plan(
            target, bodies=[b"x"], models=[], share=0, shares=1, stages=[], poisson=False, seed=1, users=CLIENTS,
            think_s=THINK_S, seconds=LOAD_S, connections=CLIENTS, waiting_max=0, timeout_s=60.0,
        )  # fmt: skip

    def __enter__(self) -> Load:
        self._gathering = Gathering([self._plan])
        return self

    def __exit__(self, *_: object) -> None:
        self._gathering.stop()

    @property
    def answered(self) -> int:
        """Good replies so far."""
        return sum(second.answered for second in self._gathering.look().values())

    @property
    def failures(self) -> Counter[str]:
        """Errors so far, by kind."""
        found: Counter[str] = Counter()
        for second in self._gathering.look().values():
            found.update(second.errors)
        return found

    @property
    def words(self) -> int:
        """How often its process has told what it saw."""
        self._gathering.check()
        return len(self._gathering.cpu[0])


@dataclass(frozen=True, slots=True)
class Table:
    """What a published table gives each fleet."""

    weights: dict[int, float]  # by fleet
    fleets: dict[str, int]  # by instance

    def share(self, green: int) -> float:
        """The part of the traffic that this fleet gets."""
        total = sum(self.weights.values())
        return self.weights.get(green, 0.0) / total if total else 0.0


def table_of(path: Path) -> tuple[int, Table] | None:
    """A table's generation, and the table; None while there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    weights: dict[int, float] = defaultdict(float)
    fleets: dict[str, int] = {}
    for variant in found["variants"]:
        if variant["targets"]:
            weights[variant["fleet"]] += variant["weight"]
        fleets |= {target["instance_id"]: variant["fleet"] for target in variant["targets"]}
    return found["generation"], Table(dict(weights), fleets)


class Tables:
    """Every route table of an endpoint that is published while this watches."""

    def __init__(self, path: Path) -> None:
        self.seen: dict[int, Table] = {}
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Tables:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    @property
    def newest(self) -> int:
        """The generation published last."""
        return max(self.seen)

    def _watch(self) -> None:
        stamp = (0, 0)
        while not self._stop.wait(0.005):
            try:
                stat = self._path.stat()
            except FileNotFoundError:
                continue
            if stamp != (stat.st_ino, stat.st_mtime_ns):
                stamp = (stat.st_ino, stat.st_mtime_ns)
                self._look()

    def _look(self) -> None:
        found = table_of(self._path)
        if found is not None:
            self.seen[found[0]] = found[1]


@dataclass
class Counted:
    """What the access records say of a time: requests by worker, generation and fleet, and errors by fleet."""

    requests: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    errors: Counter[int] = field(default_factory=Counter)
    # requests by instance, worker and generation, of instances that were in no table seen
    strangers: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    latest: dict[str, int] = field(default_factory=dict)  # milliseconds, of each worker's last record

    def dealt(self, worker: str, generation: int) -> Counter[int]:
        """By fleet."""
        found: Counter[int] = Counter()
        for (who, when, fleet), count in self.requests.items():
            if (who, when) == (worker, generation):
                found[fleet] += count
        return found

    @property
    def places(self) -> set[tuple[str, int]]:
        """Each worker and generation that had requests."""
        return {(worker, generation) for worker, generation, _ in self.requests}


def counted(logs: Any, endpoint: str, since_ms: int, tables: Tables) -> Counted:
    """Read the access records since then (by control's clock) of the generations that were seen."""
    fleets: dict[str, int] = {}
    for table in tables.seen.values():
        fleets |= table.fleets
    found = Counted()
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=f"/eyrie/Endpoints/{endpoint}", startTime=since_ms, filterPattern='{ $.kind = "second" }'
    )
    for event in (event for page in pages for event in page["events"]):
        told = json.loads(event["message"])
        fleet = fleets.get(told["instance"])
        found.latest[told["worker"]] = max(found.latest.get(told["worker"], 0), event["timestamp"])
        by = told.get("generations") or {told["generation"]: told["requests"]}
        for generation, count in ((int(g), n) for g, n in by.items() if int(g) >= min(tables.seen)):
            if fleet is None:
                found.strangers[told["instance"], told["worker"], generation] += count
            else:
                found.requests[told["worker"], generation, fleet] += count
        if fleet is not None:
            found.errors[fleet] += told["errors4xx"] + told["errors5xx"]
    return found


def excesses(found: Counted, tables: Tables, green: int, slack: int = 1) -> list[str]:
    """Where a worker gave green more than the table says that it had applied: by `slack` requests and more."""
    wrong = []
    for worker, generation in sorted(found.places):
        dealt = found.dealt(worker, generation)
        share = share_of(tables, generation, green)
        if dealt[green] > share * dealt.total() + slack + 1e-6:
            wrong.append(f"{worker}, table {generation}: {dealt[green]} of {dealt.total()}, where {share:.0%} is right")
    return wrong


def share_of(tables: Tables, generation: int, green: int) -> float:
    """Green's share by a table; by the ones around it, whichever gives more, where that one was overwritten too soon to
    be seen.
    """
    if generation in tables.seen:
        return tables.seen[generation].share(green)
    before = max((g for g in tables.seen if g < generation), default=min(tables.seen))
    after = min((g for g in tables.seen if g > generation), default=max(tables.seen))
    return max(tables.seen[before].share(green), tables.seen[after].share(green))


def until(seen: Callable[[], Any], seconds: float = 60.0, what: str = "it") -> Any:
    """What `seen` returns once it is true; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := seen()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)
    return found


def settled(sagemaker: Any, endpoint: str, seconds: float = 120.0) -> dict[str, Any]:
    """Wait until no change is on its way; the endpoint."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=endpoint)
        assert found["EndpointStatus"] in ("InService", "Updating", "RollingBack", "Creating"), found
        return found if found["EndpointStatus"] == "InService" else None

    found: dict[str, Any] = until(look, seconds, f"{endpoint} InService")
    return found


def alarm_on(endpoint: str, config: str, metric: str, threshold: float) -> dict[str, Any]:
    """An alarm that watches only the fleet of this config, and is OK; what a DeploymentConfig says of it."""
    by = [("EndpointConfigName", config), ("EndpointName", endpoint), ("VariantName", VARIANT)]
    dimensions = [{"Name": name, "Value": value} for name, value in by]
    return alarm(f"{config}-{metric}", "AWS/SageMaker", metric, threshold, dimensions)


def alarm(name: str, namespace: str, metric: str, threshold: float, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    """An alarm that is OK; what a DeploymentConfig says of it."""
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace=namespace,
        MetricName=metric,
        Dimensions=dimensions,
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=threshold,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    until(lambda: cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"] == "OK")
    return {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name}]}}
