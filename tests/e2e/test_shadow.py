"""Shadow tests on a real Eyrie under load: what a shadow that dies or hangs does to production (nothing), and inference
experiments run to their end, to a promotion and to a cancellation. Decisions run on a clock that is faster.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from rollouts_world import archive

from .conftest import ROLE, RealEyrie, running, until

SCALE = 20
READ = "said = data if isinstance(data, str) else bytes(data).decode(); x = float(said.partition(',')[0]); "
MODELS = {
    "one": ("return 1", READ + "return str(2 * x)"),
    "two": ("return 1", READ + "return str(2 * x if x < 8 else 3 * x)"),
    "hangs": ("return 1", "time.sleep(3600)"),
}


def variant(name: str, model: str, weight: float = 1.0) -> dict[str, Any]:
    """A ProductionVariant."""
    given = {"VariantName": name, "ModelName": model, "InstanceType": "ml.t2.medium", "InitialInstanceCount": 1}
    limit = {"ContainerStartupHealthCheckTimeoutInSeconds": 3600}  # on a clock that is faster than machines are
    return {**given, **limit, "InitialVariantWeight": weight}


@pytest.fixture(scope="module")
def fast() -> Iterator[RealEyrie]:
    """A running Eyrie whose decisions' clock is twenty times as fast, with three models."""
    with running(EYRIE_TIME_SCALE=SCALE, EYRIE_CAPTURE_FLUSH_MS=500) as eyrie:
        s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
        s3.create_bucket(Bucket="models")
        for name, (load, work) in MODELS.items():
            s3.put_object(Bucket="models", Key=f"{name}.tar.gz", Body=archive(load, work))
            container = {"Image": "eyrie/python", "ModelDataUrl": f"s3://models/{name}.tar.gz"}
            sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        yield eyrie


def deployed(name: str, shadow: str = "") -> None:
    """An endpoint of model "one", InService, with a shadow of another model where one is named."""
    sagemaker = boto3.client("sagemaker")
    shadows = {"ShadowProductionVariants": [variant("S", shadow)]} if shadow else {}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant("A", "one")], **shadows)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    until(lambda: sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "InService", 90.0)


class Clients:
    """Threads that invoke without client retries: who answered what, how long it took, and what failed."""

    def __init__(self, endpoint: str, threads: int = 3) -> None:
        self.endpoint = endpoint
        self.answers: Counter[tuple[str, str]] = Counter()
        self.took_ms: list[float] = []
        self.failures: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, args=(n,)) for n in range(threads)]

    def __repr__(self) -> str:
        return f"answers {self.answers}, failures {self.failures}, {self.took_ms[-3:]} ms"

    def more_than(self, count: int) -> Callable[[], bool]:
        """Whether more requests than that were answered."""
        return lambda: self.answers.total() > count

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self, number: int) -> None:
        runtime = boto3.Session().client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        value = number
        while not self._stop.is_set():
            value = (value + 1) % 10
            began = time.perf_counter()
            try:
                body = f"{value},{'red' if value % 2 else 'blue'}".encode()
                reply = runtime.invoke_endpoint(EndpointName=self.endpoint, ContentType="text/csv", Body=body)
                said = reply["Body"].read().decode()
                self.answers[reply["InvokedProductionVariant"], "doubled" if float(said) == 2 * value else "not"] += 1
            except (ClientError, BotoCoreError) as error:
                self.failures[str(error)] += 1
            self.took_ms.append((time.perf_counter() - began) * 1000)


def report(eyrie: RealEyrie, endpoint: str, *more: str) -> dict[str, Any]:
    """`eyrie shadow report --json`."""
    done = eyrie.run("shadow", "report", endpoint, "--json", *more)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def shadows(eyrie: RealEyrie, endpoint: str) -> list[dict[str, Any]]:
    return [i for i in eyrie.instances(endpoint) if i["variant"] == "S" and i["state"] == "READY" and i["routed"]]


def test_a_shadow_is_compared_and_dies_without_a_word_to_production(fast: RealEyrie) -> None:
    deployed("mirrored", "two")
    with Clients("mirrored") as clients:
        until(lambda: clients.answers.total() > 150)
        (before,) = until(lambda: shadows(fast, "mirrored"))
        os.kill(before["pid"], signal.SIGKILL)
        until(lambda: (now := shadows(fast, "mirrored")) and now[0]["id"] != before["id"], 60.0)
        answered = clients.answers.total()
        until(lambda: clients.answers.total() > answered + 150)
        until(lambda: report(fast, "mirrored")["requests"]["sent"] > 250)  # copies may be dropped, where all is busy
    assert clients.failures == Counter()
    assert set(clients.answers) == {("A", "doubled")}
    found = report(fast, "mirrored")
    assert found["shadow"] == "S"
    assert found["outcomes"]["ProductionFailed"] == found["outcomes"]["BothFailed"] == 0
    assert 0.7 < found["agreement"]["value"] < 0.9
    slices = {s["slice"]: s["agreement"] for f in found["features"] if f["feature"] == "0" for s in f["slices"]}
    worst = min(slices, key=lambda name: slices[name])
    assert worst.split(" to ")[-1] == "9", slices  # which values share its bin depends on how many of each were copied


def experiment(name: str, endpoint: str, percent: int = 100, **more: Any) -> None:
    """CreateInferenceExperiment: model "two" as the shadow of A."""
    infrastructure = {"InstanceType": "ml.t2.medium", "InstanceCount": 1}
    boto3.client("sagemaker").create_inference_experiment(
        Name=name,
        Type="ShadowMode",
        RoleArn=ROLE,
        EndpointName=endpoint,
        ModelVariants=[
            {
                "ModelName": "two",
                "VariantName": "S",
                "InfrastructureConfig": {
                    "InfrastructureType": "RealTimeInference", "RealTimeInferenceConfig": infrastructure
                },
            }
        ],
        ShadowModeConfig={
            "SourceModelVariantName": "A",
            "ShadowModelVariants": [{"ShadowModelVariantName": "S", "SamplingPercentage": percent}],
        },
        **more,
    )  # fmt: skip


def reaches(name: str, *statuses: str) -> dict[str, Any]:
    """Wait until an experiment has one of these statuses."""
    sagemaker = boto3.client("sagemaker")

    def there() -> dict[str, Any] | None:
        found: dict[str, Any] = sagemaker.describe_inference_experiment(Name=name)
        return found if found["Status"] in statuses else None

    found: dict[str, Any] = until(there, 90.0)
    return found


@pytest.mark.heavy
def test_an_experiment_runs_to_a_promotion_though_control_dies(fast: RealEyrie) -> None:
    deployed("tried")
    sagemaker = boto3.client("sagemaker")
    with Clients("tried") as clients:
        experiment("try", "tried", 50, DataStorageConfig={"Destination": "s3://models/captured"})
        reaches("try", "Running")
        until(lambda: clients.answers.total() > 100)
        until(lambda: report(fast, "tried")["requests"]["sent"] > 20)
        sagemaker.stop_inference_experiment(
            Name="try", ModelVariantActions={"S": "Promote", "A": "Remove"}, Reason="it is better"
        )
        os.kill(fast.processes()["control"], signal.SIGKILL)
        until(lambda: ("S", "doubled") in clients.answers, 90.0)
        ended = reaches("try", "Completed", "Cancelled")
    assert clients.failures == Counter()
    assert (ended["Status"], ended["StatusReason"]) == ("Completed", "it is better")
    now = sagemaker.describe_endpoint(EndpointName="tried")
    assert [v["VariantName"] for v in now["ProductionVariants"]] == ["S"]
    assert "ShadowProductionVariants" not in now
    assert report(fast, "tried", "--experiment", "try")["experiment"]["status"] == "Completed"
    s3 = boto3.client("s3")
    kept = until(lambda: s3.list_objects_v2(Bucket="models", Prefix="captured/tried/S/").get("Contents"))
    assert "endpointOutput" in s3.get_object(Bucket="models", Key=kept[0]["Key"])["Body"].read().decode()


@pytest.mark.heavy
def test_an_experiment_ends_by_its_schedule_and_another_is_cancelled(fast: RealEyrie) -> None:
    deployed("timed")
    sagemaker = boto3.client("sagemaker")
    with Clients("timed", 1) as clients:
        experiment("short", "timed")
        begun = reaches("short", "Running")
        end = begun["LastModifiedTime"] + timedelta(seconds=4 * SCALE)
        sagemaker.update_inference_experiment(Name="short", Schedule={"EndTime": end})
        ended = reaches("short", "Completed", "Cancelled")
        assert (ended["Status"], ended["StatusReason"]) == ("Completed", "its EndTime has come")
        assert ended["CompletionTime"] >= end
        experiment("second", "timed", 10)
        reaches("second", "Running")
        sagemaker.stop_inference_experiment(
            Name="second", ModelVariantActions={"S": "Remove"}, DesiredState="Cancelled", Reason="no"
        )
        assert reaches("second", "Completed", "Cancelled")["Status"] == "Cancelled"
    assert clients.failures == Counter()
    assert set(clients.answers) == {("A", "doubled")}
    listed = sagemaker.list_inference_experiments(SortBy="CreationTime", SortOrder="Ascending", NameContains="s")
    assert [(e["Name"], e["Status"]) for e in listed["InferenceExperiments"]] == [
        ("short", "Completed"),
        ("second", "Cancelled"),
    ]


@pytest.mark.heavy
def test_a_hanging_shadow_costs_no_request_and_no_latency(fast: RealEyrie) -> None:
    deployed("hung", "hangs")
    sagemaker = boto3.client("sagemaker")
    medians: dict[float, list[float]] = {0.0: [], 1.0: []}
    for weight in (0.0, 1.0) * 3:
        sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="hung", DesiredWeightsAndCapacities=[{"VariantName": "S", "DesiredWeight": weight}]
        )
        until(lambda: sagemaker.describe_endpoint(EndpointName="hung")["EndpointStatus"] == "InService")
        with Clients("hung", 2) as clients:
            until(clients.more_than(150))
        assert clients.failures == Counter()
        assert set(clients.answers) == {("A", "doubled")}
        medians[weight].append(statistics.median(clients.took_ms))
    assert min(medians[1.0]) < 1.5 * min(medians[0.0])
    assert report(fast, "hung")["requests"]["dropped"].get("requests", 0) > 100
