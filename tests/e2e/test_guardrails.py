"""Updates of a real endpoint under load: what the canary's analysis makes of a green that is as good, or worse, or of
what it cannot decide. Decisions run on a clock that is faster. Policies and ways back: `test_rollout_matrix.py`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from rollouts_world import create_configs, policy, settled

from .conftest import RealEyrie, running, until

SCALE = 20
ENDPOINT = "guarded"
CLIENTS = 4
ANALYSED = {  # configs that ask for an analysis: their model, and the tag
    "one-judged": ("one", "LatencyIncrease=off ErrorIncrease=0.05 MinimumSamples=100 PredictionShift=off"),
    "two-judged": ("two", "LatencyIncrease=off ErrorIncrease=0.05 MinimumSamples=100 PredictionShift=off"),
    "three-judged": ("three", "LatencyIncrease=off ErrorIncrease=off MinimumSamples=100"),
    "slow-judged": ("slow", "LatencyIncrease=0.5 ErrorIncrease=off MinimumSamples=100 PredictionShift=off"),
    "broken-judged": ("broken", "LatencyIncrease=off MinimumSamples=100 PredictionShift=off"),
    "strict": ("two", "MinimumSamples=1000000 PredictionShift=off PauseLimitInSeconds=3600"),
}


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
    with running(EYRIE_TIME_SCALE=SCALE) as eyrie:
        prepare()
        yield eyrie


def prepare() -> None:
    sagemaker = boto3.client("sagemaker")
    create_configs(boto3.client("s3"), sagemaker)
    for name, (model, tag) in ANALYSED.items():
        variant = sagemaker.describe_endpoint_config(EndpointConfigName=model)["ProductionVariants"][0]
        tags = [{"Key": "eyrie:CanaryAnalysis", "Value": tag}]
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=tags)
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="one")
    in_service()


def in_service() -> dict[str, Any]:
    """Wait until no change is on its way; the endpoint."""
    return settled(boto3.client("sagemaker"), ENDPOINT)


def update(config: str, deployment: dict[str, Any]) -> None:
    boto3.client("sagemaker").update_endpoint(
        EndpointName=ENDPOINT, EndpointConfigName=config, DeploymentConfig=deployment
    )


def current() -> str:
    return str(boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)["EndpointConfigName"])


HEAVY = pytest.mark.heavy


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
@pytest.mark.parametrize(
    "how", ["canary", *(pytest.param(how, marks=pytest.mark.soak) for how in ("linear", "rolling"))]
)
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
        until(lambda: shown().get("pause"), 60.0)  # as soon as the next control answers
        assert shown()["pause"]["by"] == "analysis"
        status = boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)["PendingDeploymentSummary"]
        assert "is inconclusive" in status["ProductionVariants"][0]["VariantStatus"][0]["StatusMessage"]
        assert fast.run("deployment", "promote", ENDPOINT, "--why", "I looked").returncode == 0
        found = in_service()
    assert found["EndpointConfigName"] == "strict"
    assert "a person lets step 1 pass: I looked" in fast.run("story", ENDPOINT).stdout
    assert clients.failures == Counter()
