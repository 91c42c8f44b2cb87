"""botocore's own client code, as the other end of the wire: it serializes requests and parses replies. Shared by the
wire tests.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import botocore.awsrequest
import botocore.model
import botocore.parsers
import botocore.serialize
from botocore.loaders import Loader

from eyrie.wire.codec import Wire
from eyrie.wire.messages import HttpReply, HttpRequest
from eyrie.wire.model import Models

SIGNING = "AWS4-HMAC-SHA256 Credential=AKID/20261121/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=00"


@lru_cache(maxsize=32)
def service_model(service: str) -> botocore.model.ServiceModel:
    loader = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    return botocore.model.ServiceModel(loader.load_service_model(service, "service-2"), service)


def wire(models: Models) -> Wire:
    rng = random.Random(7)
    return Wire(models, lambda: f"{rng.getrandbits(64):016x}")


def request(
    service: str, operation: str, params: dict[str, Any], protocol: str, *, validate: bool = False
) -> HttpRequest:
    """What botocore's client sends for a call, unsigned but with the head of a signed one."""
    model = service_model(service)
    serializer = botocore.serialize.create_serializer(protocol, include_validation=validate)
    serialized = serializer.serialize_to_request(params, model.operation_model(operation))
    serialized.pop("host_prefix", None)
    botocore.awsrequest.prepare_request_dict(serialized, endpoint_url="http://127.0.0.1:7777", context={})
    prepared = botocore.awsrequest.create_request_object(serialized).prepare()
    headers = {name.lower(): _text(value) for name, value in prepared.headers.items()}
    headers.pop("content-length", None)
    headers.setdefault("host", "127.0.0.1:7777")
    headers["authorization"] = SIGNING.format(model.signing_name)
    url = urlsplit(prepared.url)
    body = prepared.body or b""
    return HttpRequest(
        prepared.method, url.path or "/", url.query, headers, body.encode() if isinstance(body, str) else bytes(body)
    )


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value).encode().decode("latin-1")


class Stream:
    """A streamed body, as the parser hands it on."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (bytes, str)) and self.data == (other.encode() if isinstance(other, str) else other)

    __hash__ = None  # type: ignore[assignment]


def parse(service: str, operation: str, protocol: str, reply: HttpReply) -> dict[str, Any]:
    """What botocore's client makes of a reply, its metadata included."""
    model = service_model(service).operation_model(operation)
    response = _response(reply)
    if model.has_streaming_output and reply.status < 300:
        response["body"] = Stream(reply.body)
    parsed: dict[str, Any] = botocore.parsers.create_parser(protocol).parse(response, model.output_shape)
    return parsed


def parse_error(service: str, protocol: str, reply: HttpReply) -> dict[str, Any]:
    """What botocore's client makes of an error, with the members of a modelled one."""
    parser = botocore.parsers.create_parser(protocol)
    parsed: dict[str, Any] = parser.parse(_response(reply), None)
    shape = service_model(service).shape_for_error_code(parsed["Error"].get("Code", ""))
    if shape is not None:
        parsed.update(parser.parse(_response(reply), shape))
    return parsed


def _response(reply: HttpReply) -> dict[str, Any]:
    headers = botocore.awsrequest.HeadersDict()
    for name, value in reply.headers:
        headers[name] = value
    return {"headers": headers, "status_code": reply.status, "body": reply.body, "context": {}}


def without_empty(value: Any) -> Any:
    """A value without what is empty in it, which XML, forms and bodies cannot tell from what is absent."""
    if isinstance(value, dict):
        kept = {name: without_empty(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item not in ({}, [], "", b"")}
    if isinstance(value, list):
        return [without_empty(item) for item in value]
    return value
