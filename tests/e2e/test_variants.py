"""Several variants under load: the split that clients see, weights that change live, one user one variant."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .conftest import Deployed, until

pytestmark = pytest.mark.heavy

ENDPOINT = "split"
NAMES = ("a", "b", "c")
WEIGHTS = {"a": 5.0, "b": 3.0, "c": 2.0}
CLIENTS = 8


class Clients:
    """Threads that invoke on kept connections, without client retries; which variant answered, by time."""

    def __init__(self, row: str) -> None:
        self.answers: list[tuple[float, str]] = []  # when it was sent, and the variant
        self.failures: list[str] = []
        self._row = row
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
            sent = time.monotonic()
            try:
                reply = runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType="text/csv", Body=self._row)
                reply["Body"].read()
                self.answers.append((sent, reply["InvokedProductionVariant"]))
            except (ClientError, BotoCoreError) as error:
                self.failures.append(repr(error))

    def seen(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.answers) + count
        until(lambda: len(self.answers) >= wanted)


@pytest.fixture(scope="module")
def split(deployed: Deployed) -> Iterator[Deployed]:
    """An endpoint of three variants, with a sticky key."""
    sagemaker = boto3.client("sagemaker")
    variants = [
        {
            "VariantName": name,
            "ModelName": "sklearn",
            "InstanceType": "ml.t2.medium",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": WEIGHTS[name],
        }
        for name in NAMES
    ]
    tags = [{"Key": "eyrie:sticky", "Value": "custom-attributes:user"}]
    sagemaker.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=variants, Tags=tags)
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    deployed.wait_in_service(ENDPOINT)
    yield deployed
    deployed.delete(ENDPOINT)


def reweigh(**weights: float) -> None:
    changes = [{"VariantName": name, "DesiredWeight": weight} for name, weight in weights.items()]
    boto3.client("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName=ENDPOINT, DesiredWeightsAndCapacities=changes
    )


def test_weights_change_within_a_second_under_load_and_no_request_fails(split: Deployed) -> None:
    workers = 2
    with Clients(split.rows[0]) as clients:
        clients.seen(200)
        first = len(clients.answers)
        clients.seen(400)
        before = Counter(variant for _, variant in clients.answers[first:])
        asked = time.monotonic()
        reweigh(a=0.0, b=1.0, c=3.0)
        clients.seen(400)
        until(lambda: clients.answers[-1][0] > asked + 1.5)
        first = len(clients.answers)
        clients.seen(400)
        after = Counter(variant for _, variant in clients.answers[first:])
        answers = list(clients.answers)
    assert clients.failures == []
    last_of_a = max(sent for sent, variant in answers if variant == "a")
    assert last_of_a - asked < 1.0
    bound = workers + CLIENTS + 1  # exact within one a worker; what is under way at either end of a count
    for found, weights in ((before, WEIGHTS), (after, {"a": 0.0, "b": 1.0, "c": 3.0})):
        for name in NAMES:
            due = weights[name] / sum(weights.values()) * found.total()
            assert abs(found[name] - due) <= bound, (found, weights)
    assert after["a"] == 0


def test_one_user_meets_one_variant_and_target_variant_comes_first(split: Deployed) -> None:
    until(lambda: boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)["EndpointStatus"] == "InService")
    reweigh(**WEIGHTS)
    split.wait_in_service(ENDPOINT)
    until(lambda: all(row["CurrentWeight"] == WEIGHTS[row["VariantName"]] for row in described()))

    runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))

    def variant_of(user: int, **more: Any) -> str:
        reply = runtime.invoke_endpoint(
            EndpointName=ENDPOINT, ContentType="text/csv", Body=split.rows[0], CustomAttributes=f"user={user}", **more
        )
        return str(reply["InvokedProductionVariant"])

    users = range(60)
    first = {user: variant_of(user) for user in users}
    assert set(first.values()) == set(NAMES)
    assert {user: variant_of(user) for user in users} == first
    assert variant_of(0, TargetVariant="c") == "c"
    reweigh(c=0.0)
    split.wait_in_service(ENDPOINT)
    until(lambda: "c" not in {variant_of(user) for user in users})
    second = {user: variant_of(user) for user in users}
    assert {user for user in users if second[user] != first[user]} == {u for u in users if first[u] == "c"}


def described() -> list[dict[str, Any]]:
    found = boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    return list(found["ProductionVariants"])
