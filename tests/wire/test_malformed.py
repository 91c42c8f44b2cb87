"""Every malformed request is answered with a 4xx of AWS's form, in the client's protocol, and never with an
exception.
"""

from __future__ import annotations

import json
from collections import Counter
from xml.etree import ElementTree

import malformed
import peer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import MalformedRequest

from eyrie.wire.codec import Wire
from eyrie.wire.errors import ApiError
from eyrie.wire.messages import HttpReply, HttpRequest
from eyrie.wire.model import Models


def _answer(wire: Wire, request: HttpRequest) -> tuple[ApiError | None, HttpReply | None]:
    try:
        wire.decode(request)
    except ApiError as error:
        return error, wire.refuse(request, error)
    return None, None


def _told(reply: HttpReply) -> str:
    """The code that a client reads from an error, whatever its protocol."""
    headers = {name.lower(): value for name, value in reply.headers}
    assert headers["x-amzn-requestid"]
    if headers["content-type"] == "text/xml":
        root = ElementTree.fromstring(reply.body)
        return next(node.text or "" for node in root.iter() if node.tag.endswith("Code"))
    body = json.loads(reply.body)
    assert body.get("message", body.get("Message"))
    return str(headers.get("x-amzn-errortype") or body["__type"])


@pytest.fixture(scope="module")
def cases(models: Models) -> list[MalformedRequest]:
    return malformed.malformed_requests(models)


def test_every_malformed_request_is_refused_in_its_protocol(models: Models, cases: list[MalformedRequest]) -> None:
    wire = peer.wire(models)
    assert len(cases) >= 2000
    passed: list[str] = []
    codes: Counter[str] = Counter()
    for case in cases:
        error, reply = _answer(wire, case.request)
        if error is None or reply is None:
            passed.append(f"{case.service}.{case.operation}: {case.wrong}: {case.request.body[:200]!r}")
            continue
        assert 400 <= error.status < 500, (case, error)
        assert 400 <= reply.status < 500, (case, error)
        codes[_told(reply)] += 1
    assert passed == []
    assert {
        "ValidationException",
        "SerializationException",
        "UnknownOperationException",
        "ValidationError",
    } <= codes.keys()


def test_the_set_is_the_same_every_time_and_can_be_thinned(models: Models, cases: list[MalformedRequest]) -> None:
    some = malformed.malformed_requests(models, at_most=500)
    assert len(some) == 500
    assert set(map(repr, some)) <= set(map(repr, cases))
    assert len({case.service for case in some}) > 5
    assert len({case.operation for case in some}) > 250


BODIES = (
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)


@settings(max_examples=80, deadline=None, database=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "\u00ff"]),
    path=st.sampled_from(["/", "/endpoints/a/invocations", "/b/k", "/service/x/operation/y", "", "*", "/%ff", "/%"]),
    query=st.sampled_from(["", "Action=ListRoles", "a=%ff", "X-Amz-Credential=a/b/c/d/e", "&&=", "uploads"]),
    target=st.sampled_from([None, "SageMaker.ListModels", "SageMaker.CreateModel", "Nobody.Nothing", ".", "\u00ff"]),
    other=st.dictionaries(
        st.sampled_from(
            ["content-type", "content-encoding", "smithy-protocol", "authorization", "x-amzn-query-mode", "host"]
        ),
        st.sampled_from(
            ["gzip", "rpc-v2-cbor", "x-www-form-urlencoded", "AWS4-HMAC-SHA256 Credential=k/1/r/s3/aws4_request", ""]
        ),
    ),
    body=BODIES,
)
def test_nothing_at_all_makes_the_codec_fail(
    models: Models, method: str, path: str, query: str, target: str | None, other: dict[str, str], body: bytes
) -> None:
    wire = peer.wire(models)
    headers = other if target is None else {**other, "x-amz-target": target}
    error, _ = _answer(wire, HttpRequest(method, path, query, headers, body))
    assert error is None or 400 <= error.status < 500


@pytest.mark.parametrize("protocol", ["json", "smithy-rpc-v2-cbor"])
def test_a_body_beyond_the_limit_is_told_with_the_limit(models: Models, protocol: str) -> None:
    wire = Wire(models, lambda: "id", body_bytes_max=1000)
    request = peer.request("cloudwatch", "ListMetrics", {"Namespace": "n" * 2000}, protocol)
    with pytest.raises(ApiError, match="1000 bytes") as caught:
        wire.decode(request)
    assert caught.value.status == 413


def test_a_compressed_body_is_read_and_bounded(models: Models) -> None:
    import gzip

    wire = Wire(models, lambda: "id", body_bytes_max=10_000)
    request = peer.request("cloudwatch", "ListMetrics", {"Namespace": "A/B"}, "json")
    headers = {**request.headers, "content-encoding": "gzip"}
    body = gzip.compress(request.body)
    assert wire.decode(HttpRequest("POST", "/", "", headers, body)).params == {"Namespace": "A/B"}
    for bad, code in ((body[:-9], "SerializationException"), (b"x", "SerializationException")):
        with pytest.raises(ApiError, match=code):
            wire.decode(HttpRequest("POST", "/", "", headers, bad))
    bomb = gzip.compress(b" " * 1_000_000)
    with pytest.raises(ApiError) as caught:
        wire.decode(HttpRequest("POST", "/", "", headers, bomb))
    assert caught.value.status == 413
