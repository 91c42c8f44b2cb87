"""What a request speaks: the service and protocol that its head (and, for an unsigned form, its body) names. Never
fails, so that any refusal can be written in the client's own protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

from eyrie.wire import dispatch
from eyrie.wire.messages import HttpRequest

JSON, REST_JSON, QUERY, REST_XML, CBOR = "json", "rest-json", "query", "rest-xml", "smithy-rpc-v2-cbor"

_REST_JSON_SERVICES = frozenset(
    {
        "sagemaker-runtime",
        "sagemaker-metrics",
        "sagemaker-featurestore-runtime",
        "sagemaker-inference-router-runtime",
    }
)
_QUERY_SERVICES = frozenset({"sts", "iam", "sns", "cloudformation"})


@dataclass(frozen=True, slots=True)
class Speech:
    """How to read a request and how to answer it."""

    service: str  # boto3's name; "" if nothing tells
    protocol: str
    json_version: str = "1.1"
    query_mode: bool = False
    target: str = ""  # operation, where the head names it
    bucket: str = ""  # S3: named by the host


def speech_of(request: HttpRequest) -> Speech:
    """The service and protocol of a request."""
    headers = request.headers

    def header(name: bytes) -> bytes | None:
        value = headers.get(name.decode("latin-1"))
        return None if value is None else value.encode("latin-1", "replace")

    where = dispatch.destination(
        request.method.encode("latin-1", "replace"),
        request.path.encode("latin-1", "replace"),
        request.query.encode("latin-1", "replace"),
        header,
    )
    query_mode = headers.get("x-amzn-query-mode", "").lower() == "true"
    if headers.get("smithy-protocol") == "rpc-v2-cbor" or _is_cbor_path(request.path):
        target = request.path.rpartition("/operation/")[2]
        return Speech(where.service, CBOR, query_mode=query_mode, target=target)
    if where.service == "s3":
        return Speech("s3", REST_XML, bucket=where.bucket)
    if where.service in _REST_JSON_SERVICES:
        return Speech(where.service, REST_JSON)
    if "x-amz-target" in headers:
        version = "1.0" if "json-1.0" in headers.get("content-type", "") else "1.1"
        return Speech(where.service, JSON, version, query_mode, headers["x-amz-target"].rpartition(".")[2])
    if _is_form(request, where.service):
        return Speech(where.service, QUERY)
    return Speech(where.service, JSON, query_mode=query_mode)


def _is_cbor_path(path: str) -> bool:
    return path.startswith("/service/") and "/operation/" in path


def _is_form(request: HttpRequest, service: str) -> bool:
    if service in _QUERY_SERVICES or "x-www-form-urlencoded" in request.headers.get("content-type", ""):
        return True
    return request.query.startswith("Action=") or "&Action=" in request.query
