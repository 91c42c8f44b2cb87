"""The handler chain: who may call, what is bounded, how failures are told, Eyrie's own paths."""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from eyrie.control import app as control_app
from eyrie.control.story import Observation
from eyrie.domain.fleet import Instance, InstanceState, ObservedInstance
from eyrie.domain.names import EndpointKey, Scope
from eyrie.domain.routing import EndpointRoute, RoutingStrategy, Target, VariantRoute
from eyrie.ports import Commit, Conflict, Event
from eyrie.wire.credentials import Credential


def send(
    door: Any, path: str = "/", body: bytes = b"{}", sign: bool = True, method: str = "POST", **headers: str
) -> Any:
    """One raw request, signed unless told otherwise: status, headers, body."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest(method, door.url + path, headers=given, data=body)
    if sign:
        key = door.keys[0]
        SigV4Auth(BotoCredentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1").add_auth(request)
    raw = urllib.request.Request(door.url + path, body or None, dict(request.headers.items()), method=method)
    try:
        with urllib.request.urlopen(raw, timeout=20) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


JSON = {"Content_Type": "application/x-amz-json-1.1"}


def told(reply: Any) -> tuple[int, str, str]:
    body = json.loads(reply[2])
    return reply[0], body["__type"], body.get("message") or body.get("Message")


def test_an_unknown_key_and_a_wrong_secret_are_refused(door: Any, refused: Any) -> None:
    for key, code in (
        (Credential("AKIANOBODY", "secret", ""), "UnrecognizedClientException"),
        (Credential("AKIAEYRIE", "wrong", ""), "InvalidSignatureException"),
    ):
        client = door.client("sagemaker", key=key)
        assert refused(client.list_models)[0] == code
        client.close()


def test_an_unsigned_request_is_refused_before_its_body_is_read(door: Any) -> None:
    status, code, _ = told(send(door, sign=False, X_Amz_Target="SageMaker.ListModels", **JSON))
    assert (status, code) == (400, "MissingAuthenticationTokenException")


def test_an_unknown_operation_is_told_as_such(door: Any) -> None:
    status, code, message = told(send(door, X_Amz_Target="SageMaker.MakeCoffee", **JSON))
    assert (status, code) == (400, "UnknownOperationException")
    assert "MakeCoffee" in message


def test_an_operation_of_another_service_is_told_as_not_here(door: Any, refused: Any) -> None:
    trail = door.client("cloudtrail")
    code, message = refused(trail.lookup_events)
    trail.close()
    assert code == "UnknownOperationException"
    assert message == (
        "LookupEvents of cloudtrail is not supported by this Eyrie. "
        "What it does is listed in docs/reference/coverage.md."
    )
    formation = door.client("cloudformation")
    assert refused(formation.list_stacks)[0] == "UnknownOperationException"
    formation.close()


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ModelName": 7}', b"\xff\xfe", b'{"Nothing": 1}', b"[" * 5000])
def test_a_body_that_is_none_is_a_modelled_400(door: Any, body: bytes) -> None:
    status, code, _ = told(send(door, body=body, X_Amz_Target="SageMaker.DescribeModel", **JSON))
    assert status == 400
    assert code in ("SerializationException", "ValidationException")


def test_a_body_beyond_the_limit_is_refused(door: Any) -> None:
    body = b'{"ModelName": "' + b"x" * control_app.BODY_BYTES_MAX + b'"}'
    status, code, message = told(send(door, body=body, X_Amz_Target="SageMaker.DescribeModel", **JSON))
    assert (status, code) == (413, "RequestEntityTooLargeException")
    assert str(control_app.BODY_BYTES_MAX) in message


def test_a_region_that_is_no_name_is_refused(door: Any, refused: Any) -> None:
    request = AWSRequest("POST", door.url + "/", headers={"X-Amz-Target": "SageMaker.ListModels"}, data=b"{}")
    key = door.keys[0]
    SigV4Auth(BotoCredentials(key.access_key_id, key.secret_access_key), "sagemaker", "a.b").add_auth(request)
    raw = urllib.request.Request(door.url + "/", b"{}", dict(request.headers.items()))
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(raw, timeout=20)
    with caught.value as error:
        assert json.loads(error.read())["__type"] == "ValidationException"


def test_a_defect_is_a_500_with_its_story_in_the_log(
    sm: Any, door: Any, refused: Any, monkeypatch: Any, caplog: Any
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr(door.store, "scan", broken)
    with caplog.at_level(logging.ERROR):
        code, message = refused(sm.list_models)
    assert (code, message) == ("InternalFailure", "An internal failure occurred.")
    assert "deep inside" in caplog.text
    assert "sagemaker.ListModels" in caplog.text


def test_a_race_that_is_always_lost_ends(sm: Any, door: Any, refused: Any, monkeypatch: Any) -> None:
    tries = []

    def losing(commit: Commit) -> None:
        tries.append(commit)
        raise Conflict("again")

    monkeypatch.setattr(door.store, "commit", losing)
    code, _ = refused(sm.create_model, ModelName="m", PrimaryContainer={"Image": "eyrie/xgboost"})
    assert code == "ThrottlingException"
    assert len(tries) == control_app.RACES_MAX


def test_operations_that_wait_for_a_thread_are_bounded(sm: Any, door: Any, monkeypatch: Any) -> None:
    release, begun, scan = threading.Event(), threading.Semaphore(0), door.store.scan

    def held(*args: Any) -> Any:
        begun.release()
        release.wait(20)
        return scan(*args)

    monkeypatch.setattr(control_app, "WAITING_MAX", 3)
    monkeypatch.setattr(door.store, "scan", held)
    with ThreadPoolExecutor(3) as pool:
        held_calls = [pool.submit(send, door, X_Amz_Target="SageMaker.ListModels", **JSON) for _ in range(3)]
        for _ in held_calls:
            assert begun.acquire(timeout=20)
        assert told(send(door, X_Amz_Target="SageMaker.ListModels", **JSON))[:2] == (400, "ThrottlingException")
        release.set()
        assert [call.result()[0] for call in held_calls] == [200, 200, 200]
    assert send(door, X_Amz_Target="SageMaker.ListModels", **JSON)[0] == 200


def test_every_request_is_one_access_line(sm: Any, refused: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="eyrie.access"):
        found = sm.list_models()
        refused(sm.describe_model, ModelName="none")
    lines = [r.getMessage() for r in caplog.records if r.name == "eyrie.access"]
    assert found["ResponseMetadata"]["RequestId"] in lines[0]
    assert "POST sagemaker.ListModels 200" in lines[0]
    assert "POST sagemaker.DescribeModel ValidationException 400" in lines[1]


def get(door: Any, path: str, method: str = "GET") -> tuple[int, Any]:
    status, _, body = send(door, path, body=b"", method=method)
    return status, json.loads(body)


def test_the_story_of_an_endpoint(sm: Any, door: Any, deployed: Any) -> None:
    deployed("e")
    scope = Scope("123456789012", "us-east-1")
    door.store.commit(Commit(events=[Event("Endpoint", scope, "e", 7, "instance READY", "it answered /ping")]))
    status, found = get(door, "/eyrie/story/e")
    assert status == 200
    assert [e["what"] for e in found["events"]] == ["endpoint Creating", "instance READY"]
    assert found["events"][1] == {
        "at_ms": 7, "kind": "Endpoint", "name": "e", "what": "instance READY", "why": "it answered /ping"
    }  # fmt: skip
    assert get(door, "/eyrie/story/none") == (200, {"events": []})


def test_the_status_joins_what_is_stored_with_what_runs(sm: Any, door: Any, deployed: Any) -> None:
    deployed("e", InitialInstanceCount=2)
    key = EndpointKey("123456789012", "us-east-1", "e")
    target = VariantRoute("AllTraffic", 1.0, RoutingStrategy.RANDOM, "primary", (Target("i-1", "/s", "a"),))
    instances = (
        Instance("i-1", "AllTraffic", 1, 1, "a", InstanceState.READY, "answered", 0, 0),
        Instance("i-2", "AllTraffic", 1, 1, "b", InstanceState.STARTING, "claimed", 0, 0),
    )
    door.change("e", instances=instances, route=EndpointRoute(key, 4, (target,)))
    seen = ObservedInstance("i-1", "d", 1, True, 4711, "/s", "a", 99, "bubblewrap")
    door.observed[:] = [Observation([seen], {"warm": 2, "claimed": 1})]
    status, found = get(door, "/eyrie/status")
    assert status == 200
    endpoint = found["endpoints"][0]
    assert (endpoint["name"], endpoint["status"], endpoint["generation"]) == ("e", "Creating", 4)
    assert endpoint["variants"] == [{"name": "AllTraffic", "weight": 1.0, "desired": 2, "ready": 1, "shadow_of": ""}]
    one, two = endpoint["instances"]
    assert (one["id"], one["pid"], one["isolation"], one["routed"], one["zone"]) == (
        "i-1",
        4711,
        "bubblewrap",
        True,
        "a",
    )
    assert (two["pid"], two["routed"], two["state"]) == (None, False, "STARTING")
    assert found["slots"] == {"warm": 2, "claimed": 1}
    assert found["pid"] > 0
    assert found["now_ms"] == door.clock.at_ms


def test_own_paths_are_signed_and_few(door: Any) -> None:
    assert send(door, "/eyrie/status", body=b"", method="GET", sign=False)[0] in (400, 403)
    assert get(door, "/eyrie/nothing")[0] == 404
    assert get(door, "/eyrie/status", method="DELETE")[0] == 405


def test_without_auth_the_account_is_the_key(door: Any, running: Any) -> None:
    from dataclasses import replace

    from conftest import serve_in_thread

    surroundings = replace(running.app._with, settings=replace(running.app._with.settings, auth=False))
    open_app = control_app.ControlApp(surroundings, control_app.Credentials(), running.app._wire.models)
    url, stop = serve_in_thread(open_app)
    try:
        open_door = replace(running, url=url)
        sts = open_door.client("sts", key=Credential("999988887777", "anything", ""))
        assert sts.get_caller_identity()["Account"] == "999988887777"
        sts.close()
        sts = open_door.client("sts", key=Credential("anyone", "anything", ""))
        assert sts.get_caller_identity()["Account"] == "123456789012"
        sts.close()
    finally:
        stop()
        open_app.close()
