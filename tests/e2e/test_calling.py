"""The faces of an endpoint with real clients: streams and sessions of boto3, keys with the Open Inference Protocol."""

from __future__ import annotations

import json
import tarfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from .conftest import ROLE, Deployed, RealEyrie, until

TALKER = """
import itertools
import time
import uuid

SESSIONS = {}


def model_fn(model_dir):
    return None


def transform_fn(model, data, content_type, accept, context):
    said = context.get_request_header(0, "X-Amzn-SageMaker-Session-Id")
    if said == "NEW_SESSION":
        said = uuid.uuid4().hex
        SESSIONS[said] = []
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        context.set_response_header(0, "X-Amzn-SageMaker-New-Session-Id", f"{said}; Expires={end}")
    if said is not None:
        if said not in SESSIONS:
            context.set_response_status(404)
            return "no such session", "text/plain"
        SESSIONS[said].append(data)
        if data == "bye":
            context.set_response_header(0, "X-Amzn-SageMaker-Closed-Session-Id", said)
            return " ".join(SESSIONS.pop(said)), "text/plain"
        return " ".join(SESSIONS[said]), "text/plain"
    return pieces(data), "text/plain"


def pieces(data):
    for number in range(int(data)):
        yield f"{number} made {time.time():.6f};"
        time.sleep(0.3)
    if data == "3":
        raise RuntimeError("broken on purpose")
"""


@pytest.fixture(scope="module")
def talker(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """An endpoint of two instances whose code streams and keeps sessions."""
    folder = tmp_path_factory.mktemp("talker")
    (folder / "inference.py").write_text(TALKER)
    archive = folder / "talker.tar.gz"
    pack_code(folder / "inference.py", archive)
    boto3.client("s3").upload_file(str(archive), "models", "talker.tar.gz")
    container = {
        "Image": "eyrie/sklearn",
        "ModelDataUrl": "s3://models/talker.tar.gz",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    boto3.client("sagemaker").create_model(ModelName="talker", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    deployed.create("talker", instances=2, models=("talker",))
    return deployed


def pack_code(script: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(script, arcname="code/inference.py")


def runtime() -> Any:
    return boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))


def test_boto3_reads_parts_as_they_are_made(talker: Deployed) -> None:
    assert any(each_part_is_here_before_the_next_is_made() for _ in range(3))  # a busy machine may be late once


def each_part_is_here_before_the_next_is_made() -> bool:
    reply = runtime().invoke_endpoint_with_response_stream(EndpointName="talker", ContentType="text/csv", Body=b"4")
    assert (reply["ContentType"], reply["InvokedProductionVariant"]) == ("text/plain", "talker")
    made, here = [], []
    for number, event in enumerate(reply["Body"]):
        here.append(time.time())
        shown, _, made_s = event["PayloadPart"]["Bytes"].decode().rstrip(";").partition(" made ")
        assert int(shown) == number
        made.append(float(made_s))
    assert len(made) == 4
    return all(arrived < following for arrived, following in zip(here, made[1:], strict=False))


def test_invoke_endpoint_passes_the_pieces_on(talker: Deployed) -> None:
    body = runtime().invoke_endpoint(EndpointName="talker", ContentType="text/csv", Body=b"2")["Body"].read()
    assert body.count(b"made") == 2


def test_a_model_that_breaks_off_raises_in_the_client(talker: Deployed) -> None:
    reply = runtime().invoke_endpoint_with_response_stream(EndpointName="talker", ContentType="text/csv", Body=b"3")
    events = iter(reply["Body"])
    found = [next(events) for _ in range(3)]
    assert all(b"made" in event["PayloadPart"]["Bytes"] for event in found)
    with pytest.raises(EventStreamError, match="ModelStreamError"):
        next(events)
    reply["Body"].close()
    with pytest.raises(ClientError) as refused:
        runtime().invoke_endpoint_with_response_stream(EndpointName="talker", ContentType="text/csv", Body=b"x")
    assert refused.value.response["Error"]["Code"] == "ModelError"


def test_a_model_that_does_not_stream_is_read_as_a_stream(talker: Deployed) -> None:
    talker.create("whole", instances=1)
    reply = runtime().invoke_endpoint_with_response_stream(
        EndpointName="whole", ContentType="text/csv", Accept="application/json", Body=talker.rows[0].encode()
    )
    assert reply["ContentType"] == "application/json"
    (event,) = reply["Body"]
    assert json.loads(event["PayloadPart"]["Bytes"]) == [talker.truth[0]]
    talker.delete("whole")


def test_sessions_hold_from_every_connection_until_they_are_closed(talker: Deployed) -> None:
    client = runtime()

    def ask(session: str, data: str) -> Any:
        body = data.encode()
        reply = client.invoke_endpoint(EndpointName="talker", ContentType="text/csv", SessionId=session, Body=body)
        return {**reply, "said": reply["Body"].read().decode()}

    begun = [ask("NEW_SESSION", f"hello{n}") for n in range(4)]
    sessions = [reply["NewSessionId"].partition(";")[0] for reply in begun]
    for word in ("a", "b"):
        for session in sessions:
            client = runtime()  # another connection: any gateway worker
            assert ask(session, word)["ResponseMetadata"]["HTTPStatusCode"] == 200
    for number, session in enumerate(sessions):
        closed = ask(session, "bye")
        assert closed["ClosedSessionId"] == session
        assert closed["said"] == f"hello{number} a b bye"
    with pytest.raises(ClientError) as refused:  # the container knows that it is over
        ask(sessions[0], "again")
    assert refused.value.response["Error"]["Code"] == "ModelError"
    with pytest.raises(ClientError, match="not found"):
        ask(sessions[0][:-1], "forged")


def asked(eyrie: RealEyrie, method: str, path: str, key: str = "", body: Any = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", eyrie.port, timeout=30)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply.status, json.loads(data) if data else None


def made_key(eyrie: RealEyrie, *flags: str) -> str:
    """A new key."""
    done = eyrie.run("key", "create", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_open_inference_protocol_with_a_key(talker: Deployed) -> None:
    eyrie = talker.eyrie
    talker.create("both", instances=1, models=("xgboost", "sklearn"))
    rows = [[float(cell) for cell in row.split(",")] for row in talker.rows[:20]]
    tensor = {"name": "x", "shape": [20, len(rows[0])], "datatype": "FP64", "data": rows}
    assert asked(eyrie, "GET", "/v2/health/ready")[0] == 200
    assert asked(eyrie, "POST", "/v2/models/both/infer", "", {"inputs": [tensor]})[0] == 401
    key = made_key(eyrie, "--endpoint", "both", "--expires", "1h")
    until(lambda: all(asked(eyrie, "GET", "/v2/models/both/ready", key)[0] == 200 for _ in range(20)))
    assert asked(eyrie, "GET", "/v2/models/talker", key)[0] == 403
    for version in ("xgboost", "sklearn"):
        status, told = asked(eyrie, "POST", f"/v2/models/both/versions/{version}/infer", key, {"inputs": [tensor]})
        assert (status, told["model_version"]) == (200, version)
        (output,) = told["outputs"]
        assert output["shape"] == [20]
        right = sum(round(value) == label for value, label in zip(output["data"], talker.truth, strict=False))
        assert right >= 18
    status, told = asked(eyrie, "GET", "/v2/models/both/versions/sklearn", key)
    assert (status, told["versions"], told["inputs"][0]["shape"]) == (200, ["sklearn"], [-1, 30])
    short = {**tensor, "shape": [20, 29], "data": [row[1:] for row in rows]}
    status, told = asked(eyrie, "POST", "/v2/models/both/infer", key, {"inputs": [short]})
    assert (status, list(told)) == (400, ["error"])
    assert key.split("_")[1] in eyrie.run("key", "list").stdout
    assert eyrie.run("key", "revoke", key).returncode == 0
    until(lambda: all(asked(eyrie, "GET", "/v2/models/both", key)[0] == 401 for _ in range(20)))
    talker.delete("both")
