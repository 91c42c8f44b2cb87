"""Updates of a real endpoint under load: canary, linear, rolling and all at once; given back by an alarm on a green
that answers 500s, by one that is slow, by one that never becomes healthy. Decisions run on a clock that is faster.
"""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .conftest import ROLE, RealEyrie, point_boto3_at, remove, until

SCALE = 20
ENDPOINT = "guarded"
CLIENTS = 4
INSTANCES = 2
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


ANALYSED = {  # configs that ask for an analysis: their model, and the tag
    "one-judged": ("one", "LatencyIncrease=off ErrorIncrease=0.05 MinimumSamples=100 PredictionShift=off"),
    "two-judged": ("two", "LatencyIncrease=off ErrorIncrease=0.05 MinimumSamples=100 PredictionShift=off"),
    "three-judged": ("three", "LatencyIncrease=off ErrorIncrease=off MinimumSamples=100"),
    "slow-judged": ("slow", "LatencyIncrease=0.5 ErrorIncrease=off MinimumSamples=100 PredictionShift=off"),
    "broken-judged": ("broken", "LatencyIncrease=off MinimumSamples=100 PredictionShift=off"),
    "strict": ("two", "MinimumSamples=1000000 PredictionShift=off PauseLimitInSeconds=3600"),
}


def archive(load: str, work: str) -> bytes:
    code = CODE.format(load=load, work=work).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        entry = tarfile.TarInfo("code/inference.py")
        entry.size = len(code)
        tar.addfile(entry, io.BytesIO(code))
    return made.getvalue()


class Clients:
    """Threads that invoke without client retries; what they were answered, by time."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, str]] = []
        self.failures: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._go_on) for _ in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self) -> None:
        runtime = boto3.Session().client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        while not self._stop.is_set():
            try:
                reply = runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType="text/plain", Body=b"x")
                self.answers.append((time.monotonic(), reply["Body"].read().decode()))
            except ClientError as error:
                said = error.response["Error"]
                self.failures["it cannot" if "it cannot" in str(error) else f"{said['Code']}: {said['Message']}"] += 1
            except BotoCoreError as error:
                self.failures[repr(error)] += 1

    def count(self, word: str) -> int:
        return sum(said == word for _, said in list(self.answers))


@pytest.fixture(scope="module")
def fast() -> Iterator[RealEyrie]:
    """A running Eyrie whose decisions' clock is twenty times as fast, with one endpoint."""
    eyrie = RealEyrie(Path(tempfile.mkdtemp(prefix="eyrie-e2e-")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EYRIE_TIME_SCALE", str(SCALE))
        try:
            eyrie.up()
            point_boto3_at(eyrie, patch)
            prepare()
            yield eyrie
            eyrie.down()
        finally:
            remove(eyrie)


def prepare() -> None:
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    s3.create_bucket(Bucket="models")
    for name, (load, work) in MODELS.items():
        s3.put_object(Bucket="models", Key=f"{name}.tar.gz", Body=archive(load, work))
        container = {"Image": "eyrie/python", "ModelDataUrl": f"s3://models/{name}.tar.gz"}
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.t2.medium"}
        variant |= {"InitialInstanceCount": INSTANCES, "InitialVariantWeight": 1.0}
        variant |= {"ContainerStartupHealthCheckTimeoutInSeconds": 3600}  # on a clock that is faster than machines are
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    for name, (model, tag) in ANALYSED.items():
        variant = sagemaker.describe_endpoint_config(EndpointConfigName=model)["ProductionVariants"][0]
        tags = [{"Key": "eyrie:CanaryAnalysis", "Value": tag}]
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="one")
    in_service()


def in_service() -> dict[str, Any]:
    """Wait until no change is on its way; the endpoint."""
    sagemaker = boto3.client("sagemaker")

    def settled() -> dict[str, Any] | None:
        found: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=ENDPOINT)
        return found if found["EndpointStatus"] == "InService" else None

    found: dict[str, Any] = until(settled, 90.0)
    return found


def size(percent: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": percent}


def blue_green(how: str, bake_s: int, **more: Any) -> dict[str, Any]:
    routing = {"Type": how, "WaitIntervalInSeconds": bake_s, **more}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 10}}


def policy(how: str, bake_s: int = 60) -> dict[str, Any]:
    if how == "rolling":
        return {"RollingUpdatePolicy": {"MaximumBatchSize": size(50), "WaitIntervalInSeconds": bake_s}}
    if how == "canary":
        return blue_green("CANARY", bake_s, CanarySize=size(10))
    if how == "linear":
        return blue_green("LINEAR", bake_s, LinearStepSize=size(50))
    return blue_green("ALL_AT_ONCE", bake_s)


def update(config: str, deployment: dict[str, Any]) -> None:
    boto3.client("sagemaker").update_endpoint(
        EndpointName=ENDPOINT, EndpointConfigName=config, DeploymentConfig=deployment
    )


def alarm_on(config: str, metric: str, threshold: float) -> dict[str, Any]:
    """An alarm that watches only the fleet of this config, and is OK; what a DeploymentConfig says of it."""
    name = f"{config}-{metric}"
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName=metric,
        Dimensions=[
            {"Name": "EndpointConfigName", "Value": config},
            {"Name": "EndpointName", "Value": ENDPOINT},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=threshold,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    until(lambda: cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"] == "OK")
    return {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name}]}}


def current() -> str:
    return str(boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"])


HEAVY = pytest.mark.heavy
OTHERS = [pytest.param(how, marks=HEAVY) for how in ("all at once", "linear")]


@pytest.mark.parametrize("how", ["canary", "rolling", *OTHERS])
def test_an_update_under_load_costs_no_request(fast: RealEyrie, how: str) -> None:
    word = "two" if current() == "one" else "one"
    with Clients() as clients:
        until(lambda: len(clients.answers) > 20)
        update(word, policy(how))
        found = in_service()
        until(lambda: clients.answers[-1][1] == word)
    assert found["EndpointConfigName"] == word
    assert "FailureReason" not in found
    assert clients.failures == Counter()
    assert clients.count(word) > 0


@HEAVY
def test_a_canary_never_gets_more_than_its_share(fast: RealEyrie) -> None:
    word = "two" if current() == "one" else "one"
    sagemaker = boto3.client("sagemaker")

    def baking() -> bool:
        found = sagemaker.describe_endpoint(EndpointName=ENDPOINT)
        assert found["EndpointStatus"] == "Updating", found
        variant = found["PendingDeploymentSummary"]["ProductionVariants"][0]
        return bool(variant["VariantStatus"][0]["Status"] == "Baking")

    with Clients() as clients:
        update(word, policy("canary", bake_s=200))
        until(baking, 60.0)
        first = len(clients.answers)
        until(lambda: len(clients.answers) > first + 1_000)
        said = [word for _, word in clients.answers[first : first + 1_000]]
        in_service()
    share = said.count(word) / len(said)
    # exact within a request a gateway worker and variant, and those that were under way at either end
    assert abs(share - 0.1) * len(said) <= 2 * CLIENTS + 4, share
    assert clients.failures == Counter()


@pytest.mark.parametrize("how", ["canary", pytest.param("all at once", marks=HEAVY)])
def test_a_green_that_answers_500s_is_given_back_by_an_alarm(fast: RealEyrie, how: str) -> None:
    before = current()
    with Clients() as clients:
        update("broken", {**policy(how, bake_s=1_200), **alarm_on("broken", "Invocation5XXErrors", 0.5)})
        found = in_service()
        quiet = sum(clients.failures.values())
        until(lambda: len(clients.answers) > 100)
    assert found["EndpointConfigName"] == before
    assert "in ALARM: broken-Invocation5XXErrors" in found["FailureReason"]
    assert set(clients.failures) == {"it cannot"}  # what green itself answered, and nothing else
    assert sum(clients.failures.values()) == quiet


@HEAVY
def test_a_green_that_is_slow_is_given_back_by_an_alarm(fast: RealEyrie) -> None:
    before = current()
    with Clients() as clients:
        update("slow", {**policy("linear", bake_s=1_200), **alarm_on("slow", "ModelLatency", 100_000)})
        found = in_service()
    assert found["EndpointConfigName"] == before
    assert "in ALARM: slow-ModelLatency" in found["FailureReason"]
    assert clients.failures == Counter()


@pytest.mark.parametrize("how", [pytest.param("canary", marks=HEAVY), "rolling"])
def test_a_green_that_does_not_start_is_given_back(fast: RealEyrie, how: str) -> None:
    before = current()
    with Clients() as clients:
        update("stillborn", policy(how))
        found = in_service()
    assert found["EndpointConfigName"] == before
    assert "no weights" in found["FailureReason"]
    assert clients.failures == Counter()


@pytest.mark.heavy
def test_control_killed_while_a_canary_bakes_goes_on_with_it(fast: RealEyrie) -> None:
    word = "two" if current() == "one" else "one"
    with Clients() as clients:
        update(word, policy("canary", bake_s=200))
        until(lambda: clients.count(word) > 0, 60.0)
        os.kill(fast.processes()["control"], signal.SIGKILL)
        until(lambda: "endpoints" in fast.run("status", "--json").stdout)
        found = in_service()
    assert found["EndpointConfigName"] == word
    assert clients.failures == Counter()


@HEAVY
@pytest.mark.parametrize("how", ["canary", "rolling"])
def test_what_takes_longer_than_its_limit_is_given_back(fast: RealEyrie, how: str) -> None:
    """MaximumExecutionTimeoutInSeconds, on the faster clock, while green's model is still being loaded."""
    before = current()
    limited = policy(how)
    next(iter(limited.values()))["MaximumExecutionTimeoutInSeconds"] = 600
    with Clients() as clients:
        update("late", limited)
        found = in_service()
    assert found["EndpointConfigName"] == before
    assert "longer than its MaximumExecutionTimeoutInSeconds of 600" in found["FailureReason"]
    assert clients.failures == Counter()


PHASES = ("PROVISIONING", "SHIFTING", "BAKING", "TERMINATION_WAIT", "RETIRING")


@HEAVY
@pytest.mark.parametrize(("how", "phase"), [*[("canary", phase) for phase in PHASES], ("rolling", "BAKING")])
def test_control_killed_in_any_phase_goes_on(fast: RealEyrie, how: str, phase: str) -> None:
    """As soon as the story tells of the phase control is killed; it is started again, and the update ends as ever."""
    word = "two" if current() == "one" else "one"
    told = fast.run("story", ENDPOINT).stdout.count(f"deployment {phase}")
    with Clients() as clients:
        update(word, policy(how, bake_s=20))
        until(lambda: fast.run("story", ENDPOINT).stdout.count(f"deployment {phase}") > told, 90.0)
        os.kill(fast.processes()["control"], signal.SIGKILL)
        until(lambda: "endpoints" in fast.run("status", "--json").stdout)
        found = in_service()
    assert found["EndpointConfigName"] == word
    assert clients.failures == Counter()


@HEAVY
@pytest.mark.parametrize("how", ["rolling"])
def test_control_killed_while_it_rolls_back_goes_on_with_that(fast: RealEyrie, how: str) -> None:
    before = current()
    told = fast.run("story", ENDPOINT).stdout.count("deployment ROLLING_BACK")
    with Clients() as clients:
        update("stillborn", policy(how))
        until(lambda: fast.run("story", ENDPOINT).stdout.count("deployment ROLLING_BACK") > told, 90.0)
        os.kill(fast.processes()["control"], signal.SIGKILL)
        until(lambda: "endpoints" in fast.run("status", "--json").stdout)
        found = in_service()
    assert found["EndpointConfigName"] == before
    assert clients.failures == Counter()


# --- the canary's analysis ---


@pytest.mark.heavy
def test_other_predictions_give_a_green_back_without_any_alarm(fast: RealEyrie) -> None:
    before = current()
    with Clients() as clients:
        update("three-judged", policy("canary", bake_s=1_200))
        found = in_service()
    assert found["EndpointConfigName"] == before
    assert "canary analysis failed at step 1: predictions FAIL" in found["FailureReason"]
    assert "label " in found["FailureReason"]
    assert clients.failures == Counter()


@HEAVY
@pytest.mark.parametrize("how", ["canary", "linear", "rolling"])
def test_a_green_that_is_as_good_passes_by_itself(fast: RealEyrie, how: str) -> None:
    word = "two" if current().startswith("one") else "one"
    with Clients() as clients:
        update(f"{word}-judged", policy(how, bake_s=200))
        found = in_service()
    assert found["EndpointConfigName"] == f"{word}-judged"
    assert "its analysis passed: errors PASS" in fast.run("story", ENDPOINT).stdout
    assert clients.failures == Counter()


@HEAVY
@pytest.mark.parametrize("bad", ["slow", "broken"])
def test_a_green_that_is_worse_is_given_back_without_any_alarm(fast: RealEyrie, bad: str) -> None:
    before = current()
    with Clients() as clients:
        update(f"{bad}-judged", policy("canary", bake_s=2_400))
        found = in_service()
    assert found["EndpointConfigName"] == before
    compared = "latency" if bad == "slow" else "errors"
    assert f"canary analysis failed at step 1: {compared} FAIL" in found["FailureReason"]
    assert set(clients.failures) <= {"it cannot"}  # what green itself answered, and nothing else


@HEAVY
def test_what_is_inconclusive_waits_for_a_person_also_over_the_death_of_control(fast: RealEyrie) -> None:
    def shown() -> Any:
        return json.loads(fast.run("deployment", "show", ENDPOINT, "--json").stdout or "{}")

    with Clients() as clients:
        update("strict", policy("canary", bake_s=60))
        until(lambda: shown().get("pause"), 60.0)
        os.kill(fast.processes()["control"], signal.SIGKILL)
        until(lambda: "endpoints" in fast.run("status", "--json").stdout)
        assert shown()["pause"]["by"] == "analysis"
        status = boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)["PendingDeploymentSummary"]
        assert "is inconclusive" in status["ProductionVariants"][0]["VariantStatus"][0]["StatusMessage"]
        assert fast.run("deployment", "promote", ENDPOINT, "--why", "I looked").returncode == 0
        found = in_service()
    assert found["EndpointConfigName"] == "strict"
    assert "a person lets step 1 pass: I looked" in fast.run("story", ENDPOINT).stdout
    assert clients.failures == Counter()
