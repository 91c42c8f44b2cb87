"""A serverless endpoint on real processes: from zero on the first request, a burst, to zero again, through kills."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError

from .conftest import Deployed, RealEyrie, running, until

ENDPOINT = "resting"
BURST = 200
IDLE_MS = 700


@pytest.fixture(scope="module")
def eyrie() -> Iterator[RealEyrie]:
    """An Eyrie whose idle instances go soon."""
    with running(EYRIE_SERVERLESS_IDLE_MS=IDLE_MS) as eyrie:
        yield eyrie


@pytest.fixture(scope="module", autouse=True)
def endpoint(deployed: Deployed) -> Iterator[None]:
    """One serverless endpoint that lives through everything."""
    sagemaker = boto3.client("sagemaker")
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": "sklearn",
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": BURST},
    }
    sagemaker.create_endpoint_config(EndpointConfigName=ENDPOINT, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=ENDPOINT)
    deployed.wait_in_service(ENDPOINT)
    yield
    deployed.delete(ENDPOINT)


def rest(eyrie: RealEyrie) -> None:
    """Until nothing runs; it is InService all the same."""
    until(lambda: not eyrie.instances(ENDPOINT))
    shown = boto3.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    assert shown["EndpointStatus"] == "InService"
    assert shown["ProductionVariants"][0]["CurrentInstanceCount"] == 0


def starts(eyrie: RealEyrie) -> int:
    """How many instances were ever asked for."""
    return eyrie.run("story", ENDPOINT).stdout.count("REQUESTED")


def signed(row: str, port: int) -> bytes:
    """One signed request, as bytes."""
    path = f"/endpoints/{ENDPOINT}/invocations"
    request = AWSRequest("POST", f"http://127.0.0.1:{port}{path}", {"Content-Type": "text/csv"}, row.encode())
    SigV4Auth(boto3.Session().get_credentials(), "sagemaker", os.environ["AWS_REGION"]).add_auth(request)
    lines = {"Host": f"127.0.0.1:{port}", **dict(request.headers.items()), "Content-Length": str(len(row))}
    return (f"POST {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n" + row).encode()


async def burst(port: int, request: bytes, count: int) -> list[bytes]:
    """The first lines of the answers to so many requests at once."""

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line

    return await asyncio.gather(*(one() for _ in range(count)))


def test_it_serves_goes_to_zero_and_comes_back_for_a_burst(eyrie: RealEyrie, deployed: Deployed) -> None:
    first = deployed.ask(ENDPOINT)
    rest(eyrie)
    assert deployed.ask(ENDPOINT) == first
    rest(eyrie)
    before = starts(eyrie)
    answers = asyncio.run(burst(eyrie.port, signed(deployed.rows[0], eyrie.port), BURST))
    assert [line for line in answers if b" 200 " not in line] == []
    assert 1 <= starts(eyrie) - before <= BURST // 32 + 1  # no more than would serve them all at once
    rest(eyrie)


@pytest.mark.heavy
def test_control_killed_at_zero_only_delays_the_first_answer(eyrie: RealEyrie, deployed: Deployed) -> None:
    rest(eyrie)
    os.kill(eyrie.processes()["control"], signal.SIGKILL)
    assert deployed.ask(ENDPOINT)


def test_provisioned_concurrency_keeps_an_instance_and_describe_tells_the_change(eyrie: RealEyrie) -> None:
    sagemaker: Any = boto3.client("sagemaker")
    wanted = {"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 5, "ProvisionedConcurrency": 6}}
    with pytest.raises(ClientError, match="ProvisionedConcurrency 6"):
        sagemaker.update_endpoint_weights_and_capacities(EndpointName=ENDPOINT, DesiredWeightsAndCapacities=[wanted])
    wanted["ServerlessUpdateConfig"]["ProvisionedConcurrency"] = 1  # type: ignore[index]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName=ENDPOINT, DesiredWeightsAndCapacities=[wanted])
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=ENDPOINT, WaiterConfig={"Delay": 1})
    shown = sagemaker.describe_endpoint(EndpointName=ENDPOINT)["ProductionVariants"][0]
    config = {"MemorySizeInMB": 2048, "MaxConcurrency": 5, "ProvisionedConcurrency": 1}
    assert shown["DesiredServerlessConfig"] == shown["CurrentServerlessConfig"] == config
    assert shown["CurrentInstanceCount"] == 1


def test_a_killed_instance_costs_no_request(eyrie: RealEyrie, deployed: Deployed) -> None:
    victim = until(lambda: next((i for i in eyrie.instances(ENDPOINT) if i["state"] == "READY"), None))
    os.kill(victim["pid"], signal.SIGKILL)
    assert deployed.ask(ENDPOINT)
