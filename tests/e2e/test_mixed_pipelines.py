"""Containers of somebody's own among ours in one instance, through boto3: a pipeline that passes through both, direct
invocation of each, what they say, and their ends. One has a root file system of its own, one is a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from eyrie.adapters import sandbox
from tests.contract.container_world import root_image

from .conftest import until
from .pipelines_world import World, mixed_world, serve_program

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        sandbox.detect("auto").kind != sandbox.BUBBLEWRAP, reason="a root file system needs the sandbox of bubblewrap"
    ),
]
LARGEST = 5_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("mixed")
    rooted = root_image(folder / "rooted")
    for place in (rooted / "usr/local/bin/serve", folder / "folder/bin/serve"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(serve_program())
        place.chmod(0o755)
    with mixed_world({"rooted": str(rooted), "folder": str(folder / "folder")}) as world:
        yield world


@pytest.fixture(scope="module")
def pipeline(world: World) -> str:
    world.create("pipeline", "ours1 rooted ours2 folder")
    return world.in_service("pipeline")


def test_a_request_passes_through_all_of_them_in_order(world: World, pipeline: str) -> None:
    assert world.ask(pipeline, b"1,2") == b"105.5,205.5"  # (10 x + 0.5) * 10 + 0.5
    numbers = ",".join(["1"] * (LARGEST // 2)).encode()
    answer = world.ask(pipeline, numbers).split(b",")
    assert (len(answer), set(answer)) == (LARGEST // 2, {b"105.5"})


def test_a_refusal_names_the_container_and_what_it_prints_is_in_its_log(world: World, pipeline: str) -> None:
    with pytest.raises(ClientError) as refused:
        world.ask(pipeline, b"refuse")
    told: Any = refused.value.response
    assert (told["OriginalStatusCode"], told["OriginalMessage"]) == (422, "this row is not for me")
    logs = boto3.client("logs")
    group = "/aws/sagemaker/Endpoints/pipeline"
    streams = [s["logStreamName"] for s in logs.describe_log_streams(logGroupName=group)["logStreams"]]
    (rooted,) = [name for name in streams if name.endswith("/rooted")]
    assert "from rooted with message" in told["Error"]["Message"]

    def said() -> list[str]:
        found = logs.get_log_events(logGroupName=group, logStreamName=rooted)["events"]
        return [event["message"] for event in found if event["message"].startswith("adding to 10.0,20.0")]

    until(said)


def test_an_answer_in_pieces_is_gathered_between_containers(world: World, pipeline: str) -> None:
    assert world.ask(pipeline, b"pieces") == b"10.5,20.5,30.5"


def test_each_is_invoked_by_its_name(world: World) -> None:
    world.create("direct", "ours rooted folder", "Direct")
    world.in_service("direct")
    asked = {host: world.ask("direct", b"1,2", TargetContainerHostname=host) for host in ("ours", "rooted", "folder")}
    assert asked == {"ours": b"10.0,20.0", "rooted": b"1.5,2.5", "folder": b"1.5,2.5"}
    secret = {host: world.ask("direct", b"secret", TargetContainerHostname=host) for host in ("rooted", "folder")}
    assert secret == {"rooted": b"True", "folder": b"False"}
    stream = world.runtime.invoke_endpoint_with_response_stream(
        EndpointName="direct", Body=b"pieces", ContentType="text/csv", TargetContainerHostname="rooted"
    )
    parts = [event["PayloadPart"]["Bytes"] for event in stream["Body"]]
    assert b"".join(parts) == b"1,2,3"
    assert len(parts) > 1
    world.sagemaker.delete_endpoint(EndpointName="direct")


def test_one_that_ends_takes_its_instance_with_it_and_another_comes(world: World, pipeline: str) -> None:
    before = world.eyrie.serving(pipeline)
    with pytest.raises(ClientError):
        world.ask(pipeline, b"die")
    until(lambda: (now := world.eyrie.serving(pipeline)) and not now & before, 60.0)
    assert world.ask(pipeline, b"1") == b"105.5"


def test_a_crash_at_the_start_is_the_reason_of_the_failure(world: World) -> None:
    world.create("broken", "ours rooted", BREAK="start")
    until(lambda: world.sagemaker.describe_endpoint(EndpointName="broken")["EndpointStatus"] == "Failed", 60.0)
    reason = world.sagemaker.describe_endpoint(EndpointName="broken")["FailureReason"]
    assert "The rooted container for production variant v did not pass the ping health check" in reason
    assert "no weights for this one" in reason
    world.sagemaker.delete_endpoint(EndpointName="broken")
