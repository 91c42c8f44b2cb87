"""Every operation of every service we speak, both ways, with botocore's own client code at the other end."""

from __future__ import annotations

import random
from typing import Any

import peer
import pytest
import samples

from eyrie.wire.errors import ApiError
from eyrie.wire.model import Models, Operation

SPOKEN = [
    ("sagemaker", "json"),
    ("sagemaker-runtime", "rest-json"),
    ("sagemaker-metrics", "rest-json"),
    ("sts", "query"),
    ("iam", "query"),
    ("sns", "query"),
    ("logs", "json"),
    ("events", "json"),
    ("application-autoscaling", "json"),
    ("sqs", "json"),
    ("cloudwatch", "json"),
    ("cloudwatch", "query"),
    ("cloudwatch", "smithy-rpc-v2-cbor"),
    ("s3", "rest-xml"),
]
COUNTS = {"sagemaker": 425, "s3": 100, "iam": 170, "sagemaker-runtime": 2}

# Operations that share method and path with a newer one, which is meant then.
SHADOWED = {
    "GetBucketLifecycle",
    "GetBucketNotification",
    "PutBucketLifecycle",
    "PutBucketNotification",
    "ListDirectoryBuckets",
    "WriteGetObjectResponse",
}


def _streams_events(operation: Operation) -> bool:
    shapes = [shape for shape in (operation.input, operation.output) if shape is not None]
    return any(member.eventstream for shape in shapes for member in shape.members.values())


def _same(protocol: str, one: Any, other: Any) -> bool:
    if protocol in ("query", "rest-xml"):
        one, other = peer.without_empty(one), peer.without_empty(other)
    return bool(one == other)


@pytest.mark.parametrize(("service", "protocol"), SPOKEN)
def test_every_request_of_botocore_is_read_as_it_was_meant(models: Models, service: str, protocol: str) -> None:
    wire = peer.wire(models)
    wrong: list[str] = []
    count = 0
    for operation in models.service(service).operations():
        if operation.name in SHADOWED or _streams_events(operation):
            continue
        rng = random.Random(f"{service}.{operation.name}")
        params = samples.sample(operation.input, rng, optional=0.7) if operation.input else {}
        params.pop("ContentLength", None)  # the HTTP client's business
        try:
            call = wire.decode(peer.request(service, operation.name, params, protocol))
        except ApiError as error:
            wrong.append(f"{operation.name}: {error}")
            continue
        count += 1
        if (call.service, call.operation, call.protocol) != (service, operation.name, protocol):
            wrong.append(f"{operation.name}: read as {call.service} {call.operation} in {call.protocol}")
        elif not _same(protocol, call.params, params):
            wrong.append(f"{operation.name}: {call.params} for {params}")
    assert wrong == []
    assert count >= COUNTS.get(service, 1)


@pytest.mark.parametrize(("service", "protocol"), SPOKEN)
def test_botocore_reads_every_reply_as_it_was_meant(models: Models, service: str, protocol: str) -> None:
    wire = peer.wire(models)
    wrong: list[str] = []
    for operation in models.service(service).operations():
        if operation.name in SHADOWED | {"GetBucketLocation"} or _streams_events(operation):
            continue
        rng = random.Random(f"{service}.{operation.name}.reply")
        result = samples.sample(operation.output, rng, optional=0.7) if operation.output else {}
        call = _call(service, operation, protocol)
        reply = wire.encode(call, result)
        parsed = peer.parse(service, operation.name, protocol, reply)
        meta = parsed.pop("ResponseMetadata", {})
        if operation.output is not None and meta.get("RequestId") != call.request_id:
            wrong.append(f"{operation.name}: request id {meta}")
        if not _same(protocol, parsed, result):
            wrong.append(f"{operation.name}: {parsed} for {result}")
    assert wrong == []


def _call(service: str, operation: Operation, protocol: str) -> Any:
    from eyrie.wire.messages import Call

    return Call(service, operation.name, protocol, {}, "0123456789abcdef")
